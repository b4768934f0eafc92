/* SPDX-License-Identifier: Apache-2.0 */
/* archive.h - a blueprint or a package as one .tar.zst, and back; its format is in pack.h */
#ifndef RUNTIME_SNAPSHOT_ARCHIVE_H
#define RUNTIME_SNAPSHOT_ARCHIVE_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/context.h"
#include "runtime/base/error.h"

/* Strings are the caller's. */
struct archive_options {
    const char *archive; /* the file */
    const char *dir;     /* the folder */
    bool blueprint;      /* the folder is a blueprint's, else a package's */
    bool verify;         /* making: compare the files with the digests the folder states before */
    bool durable;        /* results are on stable storage before they get their names */
    int level;           /* making: of zstd; 0 = PACK_LEVEL_DEFAULT */
    unsigned threads;    /* making: that compress; 0 = one for every processor */
    uint64_t max_size;   /* extracting: bytes of all files together; 0 = PACK_SIZE_MAX */
};

/* The archive of a folder; entries in upstream's order. Errors of package.h, blueprint.h, pack.h.
 * Progress "archive". Return 0. */
int archive_make(const struct archive_options *options, const struct context *ctx,
                 struct error *err);

/* The folder of an archive. It appears whole, in place of an older one of its kind; one that holds
 * anything else is refused (ENOTEMPTY). Progress "extract". Returns 0. */
int archive_extract(const struct archive_options *options, const struct context *ctx,
                    struct error *err);

/* The folder of a package's archive, extracted once: CACHE/SHA-256 of the archive. Many processes
 * may ask at once: one extracts, the others wait. Nothing in the cache is ever removed; a folder
 * may be when no machine uses it. Progress "digest", "extract". Returns its path, the caller's;
 * NULL on failure. */
char *archive_cached(const char *archive, const char *cache, const struct context *ctx,
                     struct error *err);

#endif
