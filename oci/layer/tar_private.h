/* SPDX-License-Identifier: Apache-2.0 */
/* tar_private.h - the tar reader's parts among one another */
#ifndef OCI_LAYER_TAR_PRIVATE_H
#define OCI_LAYER_TAR_PRIVATE_H

#include "oci/layer/pax.h"
#include "oci/layer/tar.h"

#define TAR_BLOCK_SIZE 512

struct tar_reader {
    struct tar_source source;
    const uint8_t *data; /* what is left of the current piece */
    size_t left;
    uint64_t at;   /* bytes taken from the stream */
    uint64_t next; /* where the next header begins */
    bool at_end;   /* of the archive */
    uint8_t block[TAR_BLOCK_SIZE];
    struct pax pax;
    struct pax_text long_name, long_link; /* GNU 'L' and 'K' */
    char name[TAR_PATH_MAX + 1], link[TAR_PATH_MAX + 1];
    size_t name_len, link_len;
    struct tree_extent whole; /* of a file that is not sparse */
    struct tar_entry entry;
};

/* "ends in the middle". Returns -1. */
int tar_truncated(struct error *err);

/* Copies up to len bytes of the stream; *ret_got is less only at its end. Returns 0. */
int tar_take(struct tar_reader *r, void *buf, size_t len, size_t *ret_got, struct error *err);

/* The next block into r->block. Returns 1, or 0 when the stream ends just here. */
int tar_take_block(struct tar_reader *r, struct error *err);

/* Passes over what lies before offset `to`; the stream may end from offset `needed` on, as the last
 * padding of an archive may be missing. Returns 0. */
int tar_skip_to(struct tar_reader *r, uint64_t to, uint64_t needed, struct error *err);

/* A numeric field of r->block: base 256 (two's complement, its top bit is the mark) or octal,
 * padded with blanks and NULs on both sides; an empty one is 0. what: for errors. Returns 0. */
int tar_number(const struct tar_reader *r, size_t offset, size_t len, const char *what,
               int64_t *ret_value, struct error *err);

/* Reads the map in an old GNU header and the blocks behind it into r->pax, moving r->next.
 * *ret_real gets the file's size. Returns 0. */
int tar_gnu_sparse_map(struct tar_reader *r, uint64_t *ret_real, struct error *err);

/* Reads the map of format 1.0 that stands in front of an entry's `size` bytes of data into r->pax;
 * *ret_used gets how many of them it took. Returns 0. */
int tar_pax_sparse_map(struct tar_reader *r, uint64_t size, uint64_t *ret_used, struct error *err);

/* Gives the pieces in r->pax their place in the stream, beginning at r->at, and r->entry its
 * extents; they must be all of the data and inside the file. Returns 0. */
int tar_place_pieces(struct tar_reader *r, uint64_t data_size, uint64_t real_size,
                     struct error *err);

#endif
