// SPDX-License-Identifier: Apache-2.0
/* extents.c - the extent tree of one file
 *
 * The tree is built when all runs are known, its blocks behind the file's data: so its place does
 * not depend on how the data came in.
 */
#include <errno.h>
#include <ext2fs/ext2fs.h>
#include <ext2fs/ext3_extents.h>
#include <stdlib.h>

#include "oci/ext4/parts.h"
#include "runtime/base/bytes.h"

#define ENTRY_SIZE 12u
#define HEADER_SIZE 12u
#define ROOT_ENTRIES ((I_BLOCK_SIZE - HEADER_SIZE) / ENTRY_SIZE)    /* 4 */
#define BLOCK_ENTRIES ((BLOCK_SIZE - HEADER_SIZE - 4) / ENTRY_SIZE) /* 340 */
#define TAIL_OFFSET (HEADER_SIZE + BLOCK_ENTRIES * ENTRY_SIZE)      /* eb_checksum */

int extent_list_add(struct extent_list *x, uint64_t logical, uint64_t physical, unsigned len,
                    struct error *err)
{
    struct extent_run *last = x->n ? &x->runs[x->n - 1] : NULL;

    x->blocks += len;
    if (last && (uint64_t)last->logical + last->len == logical &&
        last->physical + last->len == physical && last->len + len <= EXTENT_LEN_MAX) {
        last->len += len;
        return 0;
    }
    /* Runs meet in whole extents however they were cut on the way here. */
    if (last && (uint64_t)last->logical + last->len == logical &&
        last->physical + last->len == physical && last->len < EXTENT_LEN_MAX) {
        unsigned part = EXTENT_LEN_MAX - last->len;
        last->len += part;
        logical += part;
        physical += part;
        len -= part;
    }
    if (!x->runs || x->n == x->room) {
        size_t room = x->room ? x->room * 2 : 8;
        struct extent_run *more = realloc(x->runs, room * sizeof(*more));
        if (!more)
            return error_oom(err);
        x->runs = more;
        x->room = room;
    }
    x->runs[x->n++] =
        (struct extent_run){.logical = (uint32_t)logical, .len = len, .physical = physical};
    return 0;
}

static void put_header(uint8_t *p, size_t entries, size_t max, unsigned depth)
{
    put_le16(p, EXT3_EXT_MAGIC);
    put_le16(p + 2, (uint16_t)entries);
    put_le16(p + 4, (uint16_t)max);
    put_le16(p + 6, (uint16_t)depth);
    put_le32(p + 8, 0); /* eh_generation */
}

/* Entries [from, from+n) of a level; level 0 are extents, above it `len` is unused. */
static void put_entries(uint8_t *p, const struct extent_run *runs, size_t n, unsigned depth)
{
    for (size_t i = 0; i < n; i++, p += ENTRY_SIZE) {
        put_le32(p, runs[i].logical);
        if (depth == 0) {
            put_le16(p + 4, (uint16_t)runs[i].len);
            put_le16(p + 6, (uint16_t)(runs[i].physical >> 32));
            put_le32(p + 8, (uint32_t)runs[i].physical);
        } else {
            put_le32(p + 4, (uint32_t)runs[i].physical);
            put_le16(p + 8, (uint16_t)(runs[i].physical >> 32));
            put_le16(p + 10, 0);
        }
    }
}

int extent_list_store(struct extent_list *x, struct stream *s, uint32_t seed,
                      uint8_t ret_i_block[I_BLOCK_SIZE], struct error *err)
{
    struct extent_run *level = x->runs;
    size_t n = x->n;
    unsigned depth = 0;

    /* Each level's blocks become, in place, the entries of the level above. */
    for (; n > ROOT_ENTRIES; depth++) {
        size_t up = 0;
        for (size_t at = 0; at < n; at += BLOCK_ENTRIES) {
            size_t count = n - at < BLOCK_ENTRIES ? n - at : BLOCK_ENTRIES;
            uint64_t block;
            uint8_t *p = stream_block(s, &block, err);
            if (!p)
                return -1;
            put_header(p, count, BLOCK_ENTRIES, depth);
            put_entries(p + HEADER_SIZE, level + at, count, depth);
            put_le32(p + TAIL_OFFSET, ext2fs_crc32c_le(seed, p, TAIL_OFFSET));
            level[up++] = (struct extent_run){.logical = level[at].logical, .physical = block};
            x->blocks++;
        }
        n = up;
    }
    memset(ret_i_block, 0, I_BLOCK_SIZE);
    put_header(ret_i_block, n, ROOT_ENTRIES, depth);
    put_entries(ret_i_block + HEADER_SIZE, level, n, depth);
    return 0;
}
