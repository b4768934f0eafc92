/* SPDX-License-Identifier: Apache-2.0 */
/* pax.h - the records of a pax extended header; inside of oci/layer */
#ifndef OCI_LAYER_PAX_H
#define OCI_LAYER_PAX_H

#include "oci/layer/tar.h"

enum pax_field {
    PAX_SIZE = 1 << 0,
    PAX_UID = 1 << 1,
    PAX_GID = 1 << 2,
    PAX_MTIME = 1 << 3,
    PAX_REALSIZE = 1 << 4,
    PAX_SPARSE_1_0 = 1 << 5, /* the map stands in front of the data */
    PAX_SPARSE_0 = 1 << 6,   /* the map stands in the records */
};

struct pax_text {
    char *text; /* NULL = not given */
    size_t len;
};

/* What the records for one entry say. Zero it first; pax_clear() afterwards. */
struct pax {
    unsigned have; /* enum pax_field */
    struct pax_text path, linkpath, sparse_name;
    uint64_t size, real_size;
    int64_t uid, gid, mtime_sec;
    uint32_t mtime_nsec;
    struct tar_xattr *xattrs;
    size_t n_xattrs, xattrs_room;
    struct tree_extent *map; /* offset and length of each piece of a sparse file */
    size_t n_map, map_room;
    bool map_open; /* a piece has its offset and waits for its length */
    uint64_t sparse_major, sparse_minor;
};

/* Reads the records in data. Errors: EBADMSG, E2BIG. Returns 0. */
int pax_parse(struct pax *pax, const uint8_t *data, size_t len, struct error *err);
void pax_clear(struct pax *pax);

/* A decimal number without sign; up to len characters, all of them digits. Returns 0, or -1 without
 * an error text. */
int pax_decimal(const char *text, size_t len, uint64_t *ret_value);

/* Adds one piece to a sparse map, which must stay sorted and disjoint. Pieces of length 0 only mark
 * a file's end and are dropped. Returns 0. */
int pax_add_piece(struct pax *pax, uint64_t offset, uint64_t length, struct error *err);

#endif
