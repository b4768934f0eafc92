/* SPDX-License-Identifier: Apache-2.0 */
/* pack.h - the files of a machine's devices as one archive, .tar.zst
 *
 * Theory of operation: the archive is a tar in zstd, one regular entry per device, named as the
 * device (kernel, not vmlinux), in the order in which the devices were given. That is Drafter's
 * own format: its archives are read, and ours are read by it. What we add:
 *
 *   - holes are not stored: a file with holes is a GNU sparse entry, version 1.0 (GNU tar manual,
 *     "Storing Sparse Files"), at most PACK_EXTENTS_MAX pieces, which keeps its map under the
 *     1 MiB that Go's archive/tar reads;
 *   - a blueprint's manifest travels as the entry blueprint.json;
 *   - the last entry, drafter.json, states name, file name, size and digest of all others:
 *
 *     {"format": "drafter-archive", "version": 1,
 *      "entries": [{"name": "kernel", "file": "vmlinux", "size": 123, "chunks": "64 hex"}, ...]}
 *
 * A reader that goes forward to the names it wants, as Drafter's, passes by those two. "chunks" is
 * the SHA-256 of the SHA-256 sums (32 bytes each) of the file's pieces of 1 MiB, holes read as
 * zeros: it depends on content alone, is computed by all processors at once, and costs nothing for
 * holes. `split -b 1M --filter='openssl sha256 -binary' FILE | sha256sum` prints it.
 *
 * Reading: everything in an archive is untrusted. Names, sizes, number of entries and length of
 * headers meet limits, only regular files are taken, each name once, maps of holes must ascend and
 * stay inside their file. The compressed stream must be whole with its checksum and end as tar
 * ends. With drafter.json the entries must be exactly those it names, and what was read must have
 * its digest. Order does not matter. Pages of zeros are left out on the disk, stored or not.
 *
 * The tar itself is libarchive's. Its names begin with archive_, hence the names here.
 */
#ifndef BLUEPRINT_PACK_PACK_H
#define BLUEPRINT_PACK_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "blueprint/blueprint.h"
#include "runtime/base/context.h"
#include "runtime/base/digest.h"
#include "runtime/base/error.h"

#define PACK_TRAILER "drafter.json"
#define PACK_VERSION 1
#define PACK_CHUNK (1u << 20)                        /* bytes under one sum */
#define PACK_ENTRIES_MAX (BLUEPRINT_DEVICES_MAX + 2) /* devices, manifest, trailer */
#define PACK_TRAILER_MAX (1u << 20)                  /* bytes of drafter.json */
#define PACK_HEADER_MAX (8u << 20)                   /* bytes between two entries' data */
#define PACK_TAIL_MAX (64u << 20)                    /* bytes of padding after the end */
#define PACK_EXTENTS_MAX 16384u                      /* pieces of data of one sparse entry */
#define PACK_LEVEL_DEFAULT 3
#define PACK_LEVEL_MAX 19

/* A name an entry can have: as blueprint_check_file(), and blueprint.json, but not drafter.json
 * (Drafter's own device names are wider than a blueprint's). Returns 0. */
int pack_check_name(const char *name, struct error *err);

/* Whether a device of that name holds what was in a guest's memory: "memory", "state". An archive
 * with one has mode 0600, as has every file that is taken out of it; other files have 0666 less the
 * umask. */
bool pack_private(const char *name);

/* ---- writing ---- */

struct pack_source {
    const char *name; /* of the device */
    const char *path; /* its file: a regular file or a block device */
    const char *file; /* its name in the folder of a package; NULL: by convention */
};

struct pack_create {
    const char *path; /* of the archive, which appears whole or not at all */
    const struct pack_source *sources;
    size_t n_sources;
    int level;        /* of zstd, 1 to PACK_LEVEL_MAX */
    unsigned threads; /* that compress; 0 = one per processor */
    bool durable;     /* on stable storage before it appears */
};

/* Writes the archive. Entries have the file's permissions and time in whole seconds, and belong to
 * root: the same files give the same bytes. A file that changes meanwhile is an error when it gets
 * shorter; otherwise the digest is that of what was stored. Progress "archive" in bytes. ctx may be
 * NULL. Returns 0. */
int pack_create(const struct pack_create *create, const struct context *ctx, struct error *err);

/* ---- reading ---- */

struct pack_item {
    char name[BLUEPRINT_FILE_MAX + 1];
    char file[BLUEPRINT_FILE_MAX + 1]; /* as drafter.json says, else by convention */
    uint64_t size;                     /* bytes */
    uint64_t stored;                   /* bytes of data in the archive, before compression */
    bool hashed;                       /* sum was computed from what was read */
    uint8_t sum[SHA256_SIZE];          /* "chunks" above */
};

struct pack_listing {
    struct pack_item items[PACK_ENTRIES_MAX]; /* without drafter.json */
    size_t n_items;
    bool has_digests; /* drafter.json was there */
};

struct pack_target {
    const char *name; /* of the device */
    const char *path; /* where its file shall appear */
};

/* The largest sum of sizes unless the caller says less: what one blueprint's devices can have. */
#define PACK_SIZE_MAX BLUEPRINT_SIZE_MAX

/* Reads and verifies a whole archive, writing nothing. max_size: bytes that all entries together
 * may have. Progress "verify". Errors: EBADMSG for what is damaged or wrong, EFBIG past a limit.
 * Returns 0. */
int pack_list(const char *path, uint64_t max_size, const struct context *ctx,
              struct pack_listing *ret, struct error *err);

/* Writes the devices that targets name, each file whole; nothing appears before all of them are
 * read and the archive has been verified to its end. A missing device is ENOENT. ret_listing may be
 * NULL. Progress "extract". Returns 0. */
int pack_extract(const char *path, const struct pack_target *targets, size_t n_targets,
                 uint64_t max_size, bool durable, const struct context *ctx,
                 struct pack_listing *ret_listing, struct error *err);

/* Writes all entries into the empty folder dirfd (dir names it in messages), under their file
 * names. The folder is one that only its owner can enter meanwhile. After a failure it holds
 * rubbish: it is the caller's temporary (output_begin()).
 * Returns 0. */
int pack_extract_folder(const char *path, int dirfd, const char *dir, uint64_t max_size,
                        const struct context *ctx, struct pack_listing *ret_listing,
                        struct error *err);

/* The same of an archive that is open, and read from where fd stands; path names it. */
int pack_extract_folder_from(int fd, const char *path, int dirfd, const char *dir,
                             uint64_t max_size, const struct context *ctx,
                             struct pack_listing *ret_listing, struct error *err);

#endif
