/* SPDX-License-Identifier: Apache-2.0 */
/* tar.h - entries of a tar stream; inside of oci/layer
 *
 * A reader pulls bytes from a source, counts them, and gives one entry at a time with everything
 * its headers say. File data is never touched: an entry tells at which offset of the stream its
 * data lies, and the next call skips it.
 */
#ifndef OCI_LAYER_TAR_H
#define OCI_LAYER_TAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "oci/tree/tree.h"
#include "runtime/base/error.h"

#define TAR_PATH_MAX 4096           /* bytes of an entry's name or a link's target */
#define TAR_EXTENDED_MAX (1u << 20) /* bytes of one extended header */
#define TAR_SPARSE_MAX 262144       /* pieces of data in one sparse file */
#define TAR_XATTRS_MAX 1024         /* extended attributes of one entry */

enum tar_type {
    TAR_FILE,
    TAR_HARD_LINK,
    TAR_SYMLINK,
    TAR_CHAR,
    TAR_BLOCK,
    TAR_FOLDER,
    TAR_FIFO,
};

struct tar_xattr {
    char *name; /* NUL-terminated, no NUL inside */
    uint8_t *value;
    size_t size;
};

/* Owned by the reader, valid until its next call. */
struct tar_entry {
    enum tar_type type;
    const char *path; /* as written; not empty unless the entry says so */
    size_t path_len;
    const char *target; /* of both kinds of links */
    size_t target_len;
    uint32_t mode; /* 07777 */
    int64_t uid, gid;
    int64_t mtime_sec;
    uint32_t mtime_nsec;
    uint64_t major, minor;
    uint64_t size;                     /* of a file, holes included */
    const struct tree_extent *extents; /* source_offset counts from the start of the stream */
    size_t n_extents;
    const struct tar_xattr *xattrs; /* in the order of the headers, names may repeat */
    size_t n_xattrs;
};

struct tar_source {
    int (*read)(void *opaque, const uint8_t **ret_data, size_t *ret_len, struct error *err);
    void *opaque;
};

struct tar_reader;

struct tar_reader *tar_reader_new(const struct tar_source *source, struct error *err);
void tar_reader_free(struct tar_reader *r);

/* Returns 1 with the next entry, 0 at the end of the archive (the rest of the stream is then read
 * and ignored), -1 on failure (EBADMSG; E2BIG for a limit). */
int tar_reader_next(struct tar_reader *r, const struct tar_entry **ret_entry, struct error *err);

/* The path of the entry whose headers were read last, in failures too; "" when there is none. */
const char *tar_reader_path(const struct tar_reader *r, size_t *ret_len);

DEFINE_CLEANUP(cleanup_tar_reader_p, struct tar_reader *, tar_reader_free)
#define cleanup_tar_reader CLEANUP(cleanup_tar_reader_p)

#endif
