// SPDX-License-Identifier: Apache-2.0
/* data.c - a regular file's data, read straight into the image's next blocks
 *
 * A stretch is one or more extents whose blocks touch. It is read into the room at the cursor;
 * blocks that turn out to be zeros are then closed up, so they cost a read and nothing else.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "oci/ext4/parts.h"
#include "runtime/base/bytes.h"
#include "runtime/base/io.h"

struct data_reader {
    struct writer *w;
    const struct tree_inode *inode;
    int fd;
    size_t extent; /* the first one that may still have data for us */
    struct extent_list extents;
};

static bool is_zero_block(const uint8_t *p)
{
    return get_le64(p) == 0 && get_le64(p + BLOCK_SIZE - 8) == 0 && io_is_zero(p, BLOCK_SIZE);
}

/* Fills `size` bytes from file offset `from`, what lies between extents with zeros. */
static int fill(struct data_reader *r, uint8_t *to, uint64_t from, uint64_t size, struct error *err)
{
    const struct tree_inode *inode = r->inode;
    uint64_t at = from, end = from + size;

    while (r->extent < inode->n_extents &&
           inode->extents[r->extent].offset + inode->extents[r->extent].length <= from)
        r->extent++;
    for (size_t i = r->extent; i < inode->n_extents && inode->extents[i].offset < end; i++) {
        const struct tree_extent *e = &inode->extents[i];
        uint64_t low = e->offset > from ? e->offset : from;
        uint64_t high = e->offset + e->length < end ? e->offset + e->length : end;
        if (low >= high)
            continue;
        memset(to + (at - from), 0, low - at);
        ssize_t got = io_pread(r->fd, to + (low - from), high - low,
                               e->source_offset + (low - e->offset), "data", err);
        if (got < 0)
            return -1;
        if ((uint64_t)got != high - low)
            return error_set(err, EBUSY,
                             "data ends at byte %" PRIu64 ", the file should have "
                             "%" PRIu64 "; was it changed while it was read?",
                             low + (uint64_t)got, inode->size);
        at = high;
    }
    memset(to + (at - from), 0, end - at);
    return 0;
}

/* Takes those of n blocks that are not zeros. */
static int keep(struct data_reader *r, uint8_t *bytes, uint64_t logical, uint64_t physical,
                unsigned n, struct error *err)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < n;) {
        unsigned from = i;
        while (i < n && !is_zero_block(bytes + (size_t)i * BLOCK_SIZE))
            i++;
        unsigned len = i - from;
        if (len) {
            if (kept != from)
                memmove(bytes + (size_t)kept * BLOCK_SIZE, bytes + (size_t)from * BLOCK_SIZE,
                        (size_t)len * BLOCK_SIZE);
            if (extent_list_add(&r->extents, logical + from, physical + kept, len, err) < 0)
                return -1;
            kept += len;
        }
        i += i < n;
    }
    stream_take(&r->w->stream, kept);
    return 0;
}

static int copy_stretch(struct data_reader *r, uint64_t low, uint64_t high, struct error *err)
{
    struct writer *w = r->w;

    while (low < high) {
        uint64_t blocks = (high - low) / BLOCK_SIZE, physical;
        uint8_t *bytes;
        unsigned n =
            stream_room(&w->stream, blocks < STREAM_BLOCKS ? (unsigned)blocks : STREAM_BLOCKS,
                        &bytes, &physical, err);
        if (!n || fill(r, bytes, low, (uint64_t)n * BLOCK_SIZE, err) < 0 ||
            keep(r, bytes, low / BLOCK_SIZE, physical, n, err) < 0 ||
            context_check(w->ctx, err) < 0)
            return -1;
        low += (uint64_t)n * BLOCK_SIZE;
        w->data_done += (uint64_t)n * BLOCK_SIZE;
        context_progress(w->ctx, "pack",
                         w->data_done < w->data_bytes ? w->data_done : w->data_bytes, w->data_bytes,
                         "bytes");
    }
    return 0;
}

static int copy_all(struct data_reader *r, struct error *err)
{
    const struct tree_inode *inode = r->inode;

    for (size_t i = 0; i < inode->n_extents;) {
        uint64_t low = inode->extents[i].offset / BLOCK_SIZE * BLOCK_SIZE, high = low;
        while (i < inode->n_extents && (high == low || inode->extents[i].offset < high)) {
            uint64_t end = inode->extents[i].offset + inode->extents[i].length;
            high = (end + BLOCK_SIZE - 1) / BLOCK_SIZE * BLOCK_SIZE;
            i++;
        }
        if (copy_stretch(r, low, high, err) < 0)
            return -1;
    }
    return 0;
}

int data_write(struct writer *w, const struct tree_inode *inode, uint32_t ino,
               struct record *record, struct error *err)
{
    const struct tree_data *data = tree_get_data(w->tree);
    struct data_reader r = {.w = w, .inode = inode, .fd = -1};
    int rc = 0;

    if (inode->n_extents) {
        if (!data->open)
            return error_set(err, EINVAL, "there is no way to its data");
        rc = data->open(data->opaque, inode, &r.fd, err);
        if (rc == 0) {
            rc = copy_all(&r, err);
            data->close(data->opaque, r.fd);
        }
    }
    if (rc == 0)
        rc = extent_list_store(&r.extents, &w->stream, inode_seed(w, ino), record->i_block, err);
    record->extents = true;
    record->size = inode->size;
    record->blocks += r.extents.blocks;
    free(r.extents.runs);
    return rc;
}

int data_write_bytes(struct writer *w, const void *bytes, size_t size, uint32_t ino,
                     struct record *record, struct error *err)
{
    struct extent_list x = {0};
    int rc = 0;

    for (size_t at = 0; at < size && rc == 0; at += BLOCK_SIZE) {
        uint64_t block;
        uint8_t *p = stream_block(&w->stream, &block, err);
        if (!p) {
            rc = -1;
            break;
        }
        memcpy(p, (const uint8_t *)bytes + at, size - at < BLOCK_SIZE ? size - at : BLOCK_SIZE);
        rc = extent_list_add(&x, at / BLOCK_SIZE, block, 1, err);
    }
    if (rc == 0)
        rc = extent_list_store(&x, &w->stream, inode_seed(w, ino), record->i_block, err);
    record->extents = true;
    record->size = size;
    record->blocks += x.blocks;
    free(x.runs);
    return rc;
}
