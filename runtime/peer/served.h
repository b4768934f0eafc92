/* SPDX-License-Identifier: Apache-2.0 */
/* served.h - the package that a registry serves, as it was when it was opened
 *
 * Theory of operation: every file is opened once, from one folder, locked shared (folder.h) and
 * kept open; state and config are read then. Pulls read these files whatever stands under their
 * names later: a package that is replaced is served as it was. One whose files are written in place
 * cannot be: that is found when the next pull begins, and refused.
 */
#ifndef RUNTIME_PEER_SERVED_H
#define RUNTIME_PEER_SERVED_H

#include <time.h>

#include "runtime/block/block.h"
#include "runtime/peer/folder.h"
#include "runtime/peer/named.h"

struct served_item {
    char *name, *what; /* owned; what names the file in messages */
    int fd;            /* held in files */
    uint64_t size;
    struct timespec changed; /* when it last was, by then */
    uint32_t block_size;
    bool has_digest; /* read, and as its config says */
    uint8_t sha256[SHA256_SIZE];
};

/* Zeroed is empty. */
struct served {
    struct served_item items[PACKAGE_DEVICES_MAX]; /* what travels */
    size_t n;
    struct folder_files files;
    char *machine; /* the package's config */
    uint8_t *state;
    size_t state_len;
};

struct served_options {
    const char *package;              /* folder; NULL: devices */
    const struct named_list *devices; /* among them "state" and "config" */
    bool no_verify;
};

/* Errors: of package.h; EBUSY where a machine runs, ESTALE where one ran and was not suspended, or
 * left (folder.h). Returns 0; in any case the caller clears it: served_clear(). */
int served_load(struct served *s, const struct served_options *options, const struct context *ctx,
                struct error *err);
void served_clear(struct served *s);

/* A stack of its own for a pull. ESTALE: the file was changed since it was loaded. The caller owns
 * the result. NULL on failure. */
struct block *served_open(const struct served_item *item, const struct context *ctx,
                          struct error *err);

#endif
