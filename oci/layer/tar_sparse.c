// SPDX-License-Identifier: Apache-2.0
/* tar_sparse.c - where the pieces of a sparse file lie: GNU's old format and pax 0.0, 0.1, 1.0
 *
 * Every map has a limit (TAR_SPARSE_MAX) and must fit: its pieces are sorted, disjoint, inside the
 * file and together all of the entry's data. Source: GNU tar manual, "Storing Sparse Files"; tar.h
 * of GNU tar for the old format.
 */
#include <errno.h>

#include "oci/layer/tar_private.h"
#include "runtime/base/io.h"

/* Offset and size of fields in the old format's header, tar.h of GNU tar. */
#define F_GNU_SPARSE 386
#define F_GNU_EXTENDED 482
#define F_GNU_REALSIZE 483, 12
#define SPARSE_EXTENDED 504 /* in the blocks that follow the header */

/* Old GNU format: four pieces in the header, 21 in each block that follows. */
int tar_gnu_sparse_map(struct tar_reader *r, uint64_t *ret_real, struct error *err)
{
    int64_t real, offset, length;
    size_t at = F_GNU_SPARSE, n = 4, extended = F_GNU_EXTENDED;

    if (tar_number(r, F_GNU_REALSIZE, "real size", &real, err) < 0)
        return -1;
    for (;;) {
        bool more = r->block[extended] != 0;
        for (size_t i = 0; i < n; i++, at += 24) {
            if (r->block[at] == 0)
                break;
            if (tar_number(r, at, 12, "sparse offset", &offset, err) < 0 ||
                tar_number(r, at + 12, 12, "sparse length", &length, err) < 0)
                return -1;
            if (offset < 0 || length < 0)
                return error_set(err, EBADMSG,
                                 "sparse file: a piece has a negative offset or size");
            if (pax_add_piece(&r->pax, (uint64_t)offset, (uint64_t)length, err) < 0)
                return -1;
        }
        if (!more)
            break;
        int rc = tar_take_block(r, err);
        if (rc <= 0)
            return rc < 0 ? -1 : tar_truncated(err);
        r->next += TAR_BLOCK_SIZE;
        at = 0;
        n = 21;
        extended = SPARSE_EXTENDED;
        /* An endless chain of empty blocks would be bounded by the stream only. */
        if (r->next - r->at > INT64_MAX || io_is_zero(r->block, SPARSE_EXTENDED))
            return error_set(err, EBADMSG, "sparse file: its map is damaged");
    }
    if (real < 0)
        return error_set(err, EBADMSG, "sparse file: a negative size");
    *ret_real = (uint64_t)real;
    return 0;
}

/* One decimal number and its newline from the data of a sparse file of format 1.0; *budget is what
 * may still be read. */
static int map_number(struct tar_reader *r, uint64_t *budget, uint64_t *ret_value,
                      struct error *err)
{
    char text[21];
    size_t len = 0, got;

    for (;;) {
        char c;
        if (*budget == 0)
            return error_set(err, EBADMSG, "sparse file: its map is longer than its data");
        if (tar_take(r, &c, 1, &got, err) < 0)
            return -1;
        if (got == 0)
            return tar_truncated(err);
        --*budget;
        if (c == '\n')
            break;
        if (len == sizeof(text))
            return error_set(err, EBADMSG, "sparse file: its map is damaged");
        text[len++] = c;
    }
    if (pax_decimal(text, len, ret_value) < 0)
        return error_set(err, EBADMSG, "sparse file: its map is damaged");
    return 0;
}

/* Format 1.0: the map stands in front of the data, padded to a block. */
int tar_pax_sparse_map(struct tar_reader *r, uint64_t size, uint64_t *ret_used, struct error *err)
{
    uint64_t count = 0, offset = 0, length = 0, budget = size;

    r->pax.n_map = 0;
    if (map_number(r, &budget, &count, err) < 0)
        return -1;
    if (count > TAR_SPARSE_MAX)
        return error_set(err, E2BIG, "sparse file: more than %d pieces", TAR_SPARSE_MAX);
    while (count--)
        if (map_number(r, &budget, &offset, err) < 0 || map_number(r, &budget, &length, err) < 0 ||
            pax_add_piece(&r->pax, offset, length, err) < 0)
            return -1;
    uint64_t used = (size - budget + TAR_BLOCK_SIZE - 1) & ~(uint64_t)(TAR_BLOCK_SIZE - 1);
    if (used > size)
        return error_set(err, EBADMSG, "sparse file: its map is longer than its data");
    *ret_used = used;
    return tar_skip_to(r, r->at + (used - (size - budget)), r->at + (used - (size - budget)), err);
}

/* Gives the map's pieces their place in the stream; they must be all of the data, inside the file.
 */
int tar_place_pieces(struct tar_reader *r, uint64_t data_size, uint64_t real_size,
                     struct error *err)
{
    uint64_t at = r->at, left = data_size;

    for (size_t i = 0; i < r->pax.n_map; i++) {
        struct tree_extent *e = &r->pax.map[i];
        if (e->length > left || e->offset + e->length > real_size)
            return error_set(err, EBADMSG, "sparse file: its map does not fit its data or size");
        e->source_offset = at;
        at += e->length;
        left -= e->length;
    }
    if (left)
        return error_set(err, EBADMSG, "sparse file: its map leaves out %llu bytes of data",
                         (unsigned long long)left);
    r->entry.extents = r->pax.map;
    r->entry.n_extents = r->pax.n_map;
    r->entry.size = real_size;
    return 0;
}
