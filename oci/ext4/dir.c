// SPDX-License-Identifier: Apache-2.0
/* dir.c - a folder's blocks
 *
 * What fits one block is written in the order of names. A larger folder is a hash tree, as the
 * kernel makes one: block 0 is the index' root, then (for over 507 leaves) the index' nodes, then
 * the leaves, whose entries are sorted by hash. Where entries of one hash are cut by a block's end,
 * the next index entry has its lowest bit set, so that a lookup goes on there. Source:
 * Documentation/filesystems/ext4/directory.rst.
 */
#include <errno.h>
#include <ext2fs/ext2fs.h>
#include <stdlib.h>
#include <string.h>

#include "oci/ext4/parts.h"
#include "runtime/base/bytes.h"

#define TAIL_SIZE 12u /* struct ext2_dir_entry_tail: a checksum that looks like an entry */
#define LEAF_ROOM (BLOCK_SIZE - TAIL_SIZE)
#define DX_ROOT_COUNT 32u /* where the index starts: two entries, then dx_root_info */
#define DX_NODE_COUNT 8u  /* behind one empty entry */
#define DX_TAIL_SIZE 8u
#define DX_ROOT_LIMIT ((BLOCK_SIZE - DX_ROOT_COUNT - DX_TAIL_SIZE) / 8) /* 507 */
#define DX_NODE_LIMIT ((BLOCK_SIZE - DX_NODE_COUNT - DX_TAIL_SIZE) / 8) /* 510 */

struct hashed {
    const struct tree_entry *entry;
    uint32_t hash, minor;
};

/* Where a leaf starts among the hashed entries, and what the index says of it. */
struct leaf {
    size_t first, n;
    uint32_t hash; /* with the continuation bit */
};

struct dir_writer {
    struct writer *w;
    uint32_t ino, seed;
    struct extent_list extents;
    uint64_t logical;
};

static unsigned entry_size(size_t name_len)
{
    return (unsigned)((8 + name_len + 3) & ~(size_t)3);
}

static uint8_t file_type(uint32_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
        return EXT2_FT_REG_FILE;
    case S_IFDIR:
        return EXT2_FT_DIR;
    case S_IFCHR:
        return EXT2_FT_CHRDEV;
    case S_IFBLK:
        return EXT2_FT_BLKDEV;
    case S_IFIFO:
        return EXT2_FT_FIFO;
    case S_IFSOCK:
        return EXT2_FT_SOCK;
    case S_IFLNK:
        return EXT2_FT_SYMLINK;
    }
    return EXT2_FT_UNKNOWN;
}

static void put_entry(uint8_t *p, uint32_t ino, unsigned rec_len, const char *name, size_t len,
                      uint8_t type)
{
    put_le32(p, ino);
    put_le16(p + 4, (uint16_t)rec_len);
    p[6] = (uint8_t)len;
    p[7] = type;
    memcpy(p + 8, name, len);
}

uint64_t dir_blocks_bound(const struct tree_inode *dir)
{
    const struct tree_entry *e;
    uint64_t bytes = 24 + 24; /* "." and "..", a lost+found of ours */
    size_t cursor = 0;

    while ((e = tree_next(dir, &cursor)))
        bytes += entry_size(e->name_len);
    /* A leaf loses less than one entry of 264 bytes at its end. */
    uint64_t leaves = bytes / (LEAF_ROOM - 264) + 1;
    return leaves + leaves / 256 + 4;
}

static uint8_t *next_block(struct dir_writer *d, struct error *err)
{
    uint64_t block;
    uint8_t *p = stream_block(&d->w->stream, &block, err);

    if (!p || extent_list_add(&d->extents, d->logical++, block, 1, err) < 0)
        return NULL;
    return p;
}

static void seal_leaf(const struct dir_writer *d, uint8_t *p)
{
    uint8_t *tail = p + LEAF_ROOM;

    put_le16(tail + 4, TAIL_SIZE);
    tail[7] = EXT2_DIR_NAME_LEN_CSUM >> 8;
    put_le32(tail + 8, ext2fs_crc32c_le(d->seed, p, LEAF_ROOM));
}

/* count_offset: where limit and count stand. */
static void seal_index(const struct dir_writer *d, uint8_t *p, unsigned count_offset)
{
    unsigned limit = get_le16(p + count_offset), count = get_le16(p + count_offset + 2);
    uint8_t *tail = p + count_offset + limit * 8;
    uint32_t crc = ext2fs_crc32c_le(d->seed, p, count_offset + count * 8);

    /* The tail counts too, its checksum as zeros. */
    crc = ext2fs_crc32c_le(crc, tail, DX_TAIL_SIZE);
    put_le32(tail + 4, crc);
}

static void put_dots(uint8_t *p, uint32_t ino, uint32_t parent, unsigned second_len)
{
    put_entry(p, ino, 12, ".", 1, EXT2_FT_DIR);
    put_entry(p + 12, parent, second_len, "..", 2, EXT2_FT_DIR);
}

/* A folder of one block; n may be 0. */
static int write_linear(struct dir_writer *d, uint32_t parent, const struct hashed *all, size_t n,
                        struct error *err)
{
    uint8_t *p = next_block(d, err);
    unsigned at = 24, last = 12;

    if (!p)
        return -1;
    put_dots(p, d->ino, parent, 12);
    for (size_t i = 0; i < n; i++) {
        const struct tree_entry *e = all[i].entry;
        last = at;
        put_entry(p + at, inode_number(e->inode), entry_size(e->name_len), e->name, e->name_len,
                  file_type(e->inode->mode));
        at += entry_size(e->name_len);
    }
    put_le16(p + last + 4, (uint16_t)(LEAF_ROOM - last));
    seal_leaf(d, p);
    return 0;
}

static int compare_hashed(const void *a, const void *b)
{
    const struct hashed *x = a, *y = b;

    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    if (x->minor != y->minor)
        return x->minor < y->minor ? -1 : 1;
    size_t n = x->entry->name_len < y->entry->name_len ? x->entry->name_len : y->entry->name_len;
    int c = memcmp(x->entry->name, y->entry->name, n);
    return c ? c
             : (x->entry->name_len > y->entry->name_len) -
                   (x->entry->name_len < y->entry->name_len);
}

/* Cuts the sorted entries into leaves. */
static struct leaf *make_leaves(const struct hashed *all, size_t n, size_t *ret_n,
                                struct error *err)
{
    size_t n_leaves = 0, room = 64;
    unsigned used = 0;
    struct leaf *leaves = calloc(room, sizeof(*leaves));

    if (!leaves) {
        error_oom(err);
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        unsigned size = entry_size(all[i].entry->name_len);
        if (n_leaves == 0 || used + size > LEAF_ROOM) {
            if (n_leaves == room) {
                struct leaf *more = realloc(leaves, 2 * room * sizeof(*leaves));
                if (!more)
                    break;
                leaves = more;
                room *= 2;
            }
            bool goes_on = i > 0 && all[i - 1].hash == all[i].hash;
            leaves[n_leaves++] = (struct leaf){.first = i, .hash = all[i].hash | goes_on};
            used = 0;
        }
        used += size;
        leaves[n_leaves - 1].n++;
    }
    if (n == 0 || leaves[n_leaves - 1].first + leaves[n_leaves - 1].n != n) {
        free(leaves);
        error_oom(err);
        return NULL;
    }
    *ret_n = n_leaves;
    return leaves;
}

/* Index entries: `n` children, the i-th at block first + i, its hash that of leaf i * stride. */
static void put_index(uint8_t *p, unsigned limit, const struct leaf *leaves, size_t n,
                      size_t stride, uint64_t first)
{
    for (size_t i = 0; i < n; i++) {
        put_le32(p + i * 8, leaves[i * stride].hash);
        put_le32(p + i * 8 + 4, (uint32_t)(first + i));
    }
    /* The first child's hash is nothing but zero; limit and count stand there. */
    put_le16(p, (uint16_t)limit);
    put_le16(p + 2, (uint16_t)n);
}

static int write_hash_tree(struct dir_writer *d, uint32_t parent, const struct hashed *all,
                           const struct leaf *leaves, size_t n_leaves, struct error *err)
{
    size_t nodes = n_leaves > DX_ROOT_LIMIT ? (n_leaves + DX_NODE_LIMIT - 1) / DX_NODE_LIMIT : 0;
    uint8_t *p;

    if (nodes > DX_ROOT_LIMIT)
        return error_set(err, EFBIG, "%zu blocks of entries (ext4 takes %u)", n_leaves,
                         DX_ROOT_LIMIT * DX_NODE_LIMIT);
    p = next_block(d, err);
    if (!p)
        return -1;
    put_dots(p, d->ino, parent, BLOCK_SIZE - 12);
    p[28] = EXT2_HASH_HALF_MD4;
    p[29] = 8; /* info_length */
    p[30] = nodes > 0;
    if (nodes)
        put_index(p + DX_ROOT_COUNT, DX_ROOT_LIMIT, leaves, nodes, DX_NODE_LIMIT, 1);
    else
        put_index(p + DX_ROOT_COUNT, DX_ROOT_LIMIT, leaves, n_leaves, 1, 1);
    seal_index(d, p, DX_ROOT_COUNT);
    for (size_t i = 0; i < nodes; i++) {
        size_t from = i * DX_NODE_LIMIT;
        size_t n = n_leaves - from < DX_NODE_LIMIT ? n_leaves - from : DX_NODE_LIMIT;
        p = next_block(d, err);
        if (!p)
            return -1;
        put_le16(p + 4, BLOCK_SIZE);
        put_index(p + DX_NODE_COUNT, DX_NODE_LIMIT, leaves + from, n, 1, 1 + nodes + from);
        seal_index(d, p, DX_NODE_COUNT);
    }
    for (size_t i = 0; i < n_leaves; i++) {
        unsigned at = 0, last = 0;
        p = next_block(d, err);
        if (!p)
            return -1;
        for (size_t k = 0; k < leaves[i].n; k++) {
            const struct tree_entry *e = all[leaves[i].first + k].entry;
            last = at;
            put_entry(p + at, inode_number(e->inode), entry_size(e->name_len), e->name, e->name_len,
                      file_type(e->inode->mode));
            at += entry_size(e->name_len);
        }
        put_le16(p + last + 4, (uint16_t)(LEAF_ROOM - last));
        seal_leaf(d, p);
    }
    return 0;
}

static int write_entries(struct dir_writer *d, const struct tree_inode *dir, uint32_t parent,
                         struct record *record, struct error *err)
{
    struct tree_inode added_inode = {.mode = S_IFDIR, .scratch = FIRST_INO};
    const struct tree_entry added = {.name = "lost+found", .name_len = 10, .inode = &added_inode};
    struct tree_entry *const *sorted;
    unsigned long bytes = 24;
    size_t n;

    sorted = tree_sorted(dir, &n, err);
    if (!sorted)
        return -1;
    cleanup_free struct hashed *all = calloc(n + 1, sizeof(*all));
    if (!all)
        return error_oom(err);
    for (size_t i = 0; i < n; i++)
        all[i].entry = sorted[i];
    if (d->ino == EXT2_ROOT_INO && !d->w->lost_found)
        all[n++].entry = &added;
    for (size_t i = 0; i < n; i++)
        bytes += entry_size(all[i].entry->name_len);
    if (bytes <= LEAF_ROOM)
        return write_linear(d, parent, all, n, err);

    for (size_t i = 0; i < n; i++)
        if (ext2fs_dirhash(EXT2_HASH_HALF_MD4_UNSIGNED, all[i].entry->name,
                           (int)all[i].entry->name_len, d->w->hash_seed, &all[i].hash,
                           &all[i].minor))
            return error_set(err, EINVAL, "hash of a name");
    qsort(all, n, sizeof(*all), compare_hashed);
    size_t n_leaves;
    cleanup_free struct leaf *leaves = make_leaves(all, n, &n_leaves, err);
    if (!leaves)
        return -1;
    record->indexed = true;
    return write_hash_tree(d, parent, all, leaves, n_leaves, err);
}

static int finish_dir(struct dir_writer *d, struct record *record, int rc, struct error *err)
{
    if (rc == 0)
        rc = extent_list_store(&d->extents, &d->w->stream, d->seed, record->i_block, err);
    record->extents = true;
    record->size = d->logical * BLOCK_SIZE;
    record->blocks += d->extents.blocks;
    free(d->extents.runs);
    return rc;
}

int dir_write(struct writer *w, const struct tree_inode *dir, uint32_t ino, struct record *record,
              struct error *err)
{
    struct dir_writer d = {.w = w, .ino = ino, .seed = inode_seed(w, ino)};

    return finish_dir(&d, record, write_entries(&d, dir, inode_number(dir->parent), record, err),
                      err);
}

int dir_write_lost_found(struct writer *w, struct record *record, struct error *err)
{
    struct dir_writer d = {.w = w, .ino = FIRST_INO, .seed = inode_seed(w, FIRST_INO)};

    return finish_dir(&d, record, write_linear(&d, EXT2_ROOT_INO, NULL, 0, err), err);
}
