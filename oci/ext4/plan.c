// SPDX-License-Identifier: Apache-2.0
/* plan.c - what is known before any data is read: inode numbers, limits, a bound, the digest
 *
 * Inode numbers: 2 is the root, 11 lost+found (the tree's own, or one we add), then folder by
 * folder, the entries of each in the order of their names, breadth first; then xattr values too
 * large for a block. Data follows in the same order, so the files of a folder lie side by side.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "oci/ext4/parts.h"
#include "runtime/base/bytes.h"

#define LOST_FOUND "lost+found"
#define DIGEST_BUFFER 65536u
#define JOURNAL_BLOCKS_BOUND 4096u
#define INODES_LIMIT (UINT32_MAX - 2 * GROUP_INODES_MAX)

uint32_t inode_number(const struct tree_inode *inode)
{
    return (uint32_t)inode->scratch;
}

/* `scratch` may hold anything at first: it counts when the node it points to points back. */
static bool numbered(const struct writer *w, const struct tree_inode *inode)
{
    return inode->scratch < w->n_nodes && w->nodes[inode->scratch] == inode;
}

const char *plan_path(const struct writer *w, const struct tree_inode *inode, char *buf,
                      size_t size)
{
    char *at = buf + size - 1;

    *at = '\0';
    while (inode != tree_root(w->tree)) {
        const struct tree_entry *found = NULL;
        const struct tree_inode *dir = NULL;
        for (uint32_t ino = EXT2_ROOT_INO; ino < w->n_nodes && !found; ino++) {
            dir = w->nodes[ino];
            size_t cursor = 0;
            if (!dir || !dir->dir || (inode->dir && inode->parent != dir))
                continue;
            while ((found = tree_next(dir, &cursor)) && found->inode != inode)
                ;
        }
        if (!found || (size_t)(at - buf) < found->name_len + 5)
            break;
        if (*at)
            *--at = '/';
        at -= found->name_len;
        memcpy(at, found->name, found->name_len);
        inode = dir;
    }
    return *at ? at : "/";
}

static int give_number(struct writer *w, struct tree_inode *inode, uint32_t ino, uint32_t *room,
                       struct error *err)
{
    if (ino >= *room) {
        if (ino >= INODES_LIMIT)
            return error_set(err, EFBIG, "more than %u files", INODES_LIMIT);
        uint32_t more = *room < INODES_LIMIT / 2 ? *room * 2 : INODES_LIMIT;
        struct tree_inode **nodes = realloc(w->nodes, more * sizeof(*nodes));
        if (!nodes)
            return error_oom(err);
        w->nodes = nodes;
        *room = more;
    }
    w->nodes[ino] = inode;
    inode->scratch = ino;
    if (ino >= w->n_nodes)
        w->n_nodes = ino + 1;
    return 0;
}

static int number_inodes(struct writer *w, struct error *err)
{
    struct tree_inode *root = tree_root(w->tree);
    struct tree_entry *lost = tree_lookup(root, LOST_FOUND, strlen(LOST_FOUND));
    uint32_t room = 1024; /* more than FIRST_INO; give_number() adds no zeros */

    w->nodes = calloc(room, sizeof(struct tree_inode *));
    if (!w->nodes)
        return error_oom(err);
    w->n_nodes = FIRST_INO + 1;
    if (give_number(w, root, EXT2_ROOT_INO, &room, err) < 0)
        return -1;
    if (lost && !lost->inode->dir)
        return error_set(err, ENOTDIR,
                         LOST_FOUND ": exists and is no folder; ext4 keeps that name "
                                    "for one, rename it");
    if (lost) {
        w->lost_found = lost->inode;
        if (give_number(w, lost->inode, FIRST_INO, &room, err) < 0)
            return -1;
    }
    /* Folders are met in the order of their numbers, lost+found among the root's entries. */
    for (uint32_t ino = EXT2_ROOT_INO; ino < w->n_nodes; ino++) {
        const struct tree_inode *dir = w->nodes[ino];
        size_t n;
        if (!dir || !dir->dir)
            continue;
        struct tree_entry *const *entries = tree_sorted(dir, &n, err);
        if (!entries)
            return -1;
        for (size_t i = 0; i < n; i++)
            if (!numbered(w, entries[i]->inode) &&
                give_number(w, entries[i]->inode, w->n_nodes, &room, err) < 0)
                return -1;
        if (context_check(w->ctx, err) < 0)
            return -1;
    }
    return 0;
}

static int check_inode(const struct tree_inode *inode, struct error *err)
{
    uint64_t end = 0;

    if (!inode->dir && inode->names > LINKS_MAX)
        return error_set(err, EMLINK, "%u names (ext4 takes %u)", inode->names, LINKS_MAX);
    switch (inode->mode & S_IFMT) {
    case S_IFREG:
        if (inode->size > FILE_BLOCKS_MAX * BLOCK_SIZE)
            return error_set(err, EFBIG, "%" PRIu64 " bytes (ext4 takes %" PRIu64 ")", inode->size,
                             FILE_BLOCKS_MAX * BLOCK_SIZE);
        for (size_t i = 0; i < inode->n_extents; i++) {
            const struct tree_extent *e = &inode->extents[i];
            if (e->offset < end || e->length > inode->size || e->offset > inode->size - e->length ||
                e->source_offset > INT64_MAX - e->length)
                return error_set(err, EINVAL, "its extents overlap or leave the file");
            end = e->offset + e->length;
        }
        return 0;
    case S_IFLNK: {
        size_t len = inode->target ? strlen(inode->target) : 0;
        if (len == 0 || len > TREE_TARGET_MAX)
            return error_set(err, EINVAL, "a symlink of %zu bytes (1 to %d)", len, TREE_TARGET_MAX);
        return 0;
    }
    case S_IFCHR:
    case S_IFBLK:
        if (inode->rdev_major > 0xfff || inode->rdev_minor > 0xfffff)
            return error_set(err, EOVERFLOW, "device %u:%u (Linux takes 4095:1048575)",
                             inode->rdev_major, inode->rdev_minor);
        return 0;
    case S_IFDIR:
    case S_IFIFO:
    case S_IFSOCK:
        return 0;
    }
    return error_set(err, EINVAL, "mode %o has no known type", inode->mode);
}

/* Blocks of data and extent tree at most. */
static uint64_t file_bound(uint64_t size)
{
    uint64_t data = size / BLOCK_SIZE + (size % BLOCK_SIZE != 0);

    return data + data / 340 + (data > 8 ? 4 : 0);
}

static int add_ea(struct writer *w, const struct xattr_slot *slot, struct error *err)
{
    if (w->n_eas == w->eas_room) {
        uint32_t room = w->eas_room ? w->eas_room * 2 : 16;
        struct ea_value *more = realloc(w->eas, room * sizeof(*more));
        if (!more)
            return error_oom(err);
        w->eas = more;
        w->eas_room = room;
    }
    w->eas[w->n_eas++] = (struct ea_value){.value = slot->value, .size = slot->size};
    return 0;
}

static int plan_inode(struct writer *w, uint32_t ino, struct error *err)
{
    const struct tree_inode *inode = w->nodes[ino];
    uint64_t blocks = 0;

    if (check_inode(inode, err) < 0)
        return -1;
    if (S_ISREG(inode->mode)) {
        blocks = file_bound(inode->size);
        for (size_t i = 0; i < inode->n_extents; i++)
            w->data_bytes += inode->extents[i].length;
    } else if (inode->dir) {
        blocks = dir_blocks_bound(inode);
    } else if (S_ISLNK(inode->mode)) {
        blocks = 1;
    }
    if (inode->n_xattrs) {
        struct xattr_plan plan;
        if (xattr_plan_make(inode, &plan, err) < 0)
            return -1;
        for (unsigned i = 0; i < plan.n; i++) {
            if (!plan.slots[i].outside)
                continue;
            if (!w->records[ino].ea_first)
                w->records[ino].ea_first = w->n_nodes + w->n_eas;
            blocks += file_bound(plan.slots[i].size);
            /* Converted values are small: what goes outside is the tree's own memory. */
            if (plan.slots[i].owned || add_ea(w, &plan.slots[i], err) < 0) {
                xattr_plan_release(&plan);
                return plan.slots[i].owned ? error_set(err, ENOSPC, "its POSIX ACL is too large")
                                           : -1;
            }
        }
        blocks += plan.block;
        xattr_plan_release(&plan);
    }
    if (blocks > EXT4_SIZE_MAX / BLOCK_SIZE)
        blocks = EXT4_SIZE_MAX / BLOCK_SIZE;
    w->bound += blocks;
    /* Sparse files may add up to more than any image; a larger bound helps nobody. */
    if (w->bound > EXT4_SIZE_MAX / BLOCK_SIZE)
        w->bound = EXT4_SIZE_MAX / BLOCK_SIZE;
    return 0;
}

/* --- digest: every field of every inode, names in order, in a canonical encoding --- */

struct feed {
    struct digest *digest;
    uint8_t *buffer;
    size_t used;
};

static int feed_bytes(struct feed *f, const void *data, size_t size, struct error *err)
{
    if (f->used + size > DIGEST_BUFFER) {
        if (digest_update(f->digest, f->buffer, f->used, err) < 0)
            return -1;
        f->used = 0;
    }
    if (size > DIGEST_BUFFER)
        return digest_update(f->digest, data, size, err);
    if (size)
        memcpy(f->buffer + f->used, data, size);
    f->used += size;
    return 0;
}

static int feed_text(struct feed *f, const void *text, size_t size, struct error *err)
{
    uint8_t head[8];

    put_le64(head, size);
    return feed_bytes(f, head, sizeof(head), err) < 0 || feed_bytes(f, text, size, err) < 0 ? -1
                                                                                            : 0;
}

static int feed_inode(struct feed *f, const struct tree_inode *inode, struct error *err)
{
    uint64_t words[] = {inode_number(inode),
                        inode->mode,
                        inode->uid,
                        inode->gid,
                        S_ISCHR(inode->mode) || S_ISBLK(inode->mode)
                            ? (uint64_t)inode->rdev_major << 32 | inode->rdev_minor
                            : 0,
                        (uint64_t)inode->mtime_sec,
                        inode->mtime_nsec,
                        S_ISREG(inode->mode) ? inode->size : 0,
                        inode->n_xattrs,
                        tree_count(inode)};
    uint8_t bytes[sizeof(words)];

    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        put_le64(bytes + i * 8, words[i]);
    if (feed_bytes(f, bytes, sizeof(bytes), err) < 0)
        return -1;
    if (S_ISLNK(inode->mode) && feed_text(f, inode->target, strlen(inode->target), err) < 0)
        return -1;
    for (size_t i = 0; i < inode->n_xattrs; i++)
        if (feed_text(f, inode->xattrs[i].name, strlen(inode->xattrs[i].name), err) < 0 ||
            feed_text(f, inode->xattrs[i].value, inode->xattrs[i].size, err) < 0)
            return -1;
    if (!inode->dir)
        return 0;
    size_t n;
    struct tree_entry *const *entries = tree_sorted(inode, &n, err);
    if (!entries)
        return -1;
    for (size_t i = 0; i < n; i++) {
        uint8_t ino[8];
        put_le64(ino, inode_number(entries[i]->inode));
        if (feed_bytes(f, ino, sizeof(ino), err) < 0 ||
            feed_text(f, entries[i]->name, entries[i]->name_len, err) < 0)
            return -1;
    }
    return 0;
}

static int make_digest(struct writer *w, struct error *err)
{
    cleanup_digest struct digest *d = digest_new(err);
    cleanup_free uint8_t *buffer = malloc(DIGEST_BUFFER);
    struct feed f = {.digest = d, .buffer = buffer};
    uint8_t head[16];

    if (!d)
        return -1;
    if (!buffer)
        return error_oom(err);
    put_le64(head, w->options.free_bytes);
    put_le64(head + 8, (uint64_t)w->options.epoch);
    if (feed_text(&f, "ext4 1", 6, err) < 0 || feed_bytes(&f, head, sizeof(head), err) < 0 ||
        feed_text(&f, w->options.label, strlen(w->options.label), err) < 0)
        return -1;
    for (uint32_t ino = EXT2_ROOT_INO; ino < w->n_nodes; ino++)
        if (w->nodes[ino] && feed_inode(&f, w->nodes[ino], err) < 0)
            return -1;
    if (digest_update(d, buffer, f.used, err) < 0)
        return -1;
    return digest_final(d, w->digest, err);
}

static int64_t newest_time(const struct writer *w)
{
    int64_t newest = 0;

    for (uint32_t ino = EXT2_ROOT_INO; ino < w->n_nodes; ino++)
        if (w->nodes[ino] && w->nodes[ino]->mtime_sec > newest)
            newest = w->nodes[ino]->mtime_sec;
    return newest < EXT4_EPOCH_MAX ? newest : EXT4_EPOCH_MAX;
}

int plan_tree(struct writer *w, struct error *err)
{
    char path[512];

    if (number_inodes(w, err) < 0)
        return -1;
    w->records = calloc(w->n_nodes, sizeof(*w->records));
    if (!w->records)
        return error_oom(err);
    w->bound = 1 + JOURNAL_BLOCKS_BOUND + 2;
    for (uint32_t ino = EXT2_ROOT_INO; ino < w->n_nodes; ino++)
        if (w->nodes[ino] && plan_inode(w, ino, err) < 0)
            return error_wrap(err, "%s", plan_path(w, w->nodes[ino], path, sizeof(path)));
    if (w->n_eas > INODES_LIMIT - w->n_nodes)
        return error_set(err, EFBIG, "more than %u files", INODES_LIMIT);
    if (w->options.epoch == EXT4_EPOCH_NEWEST)
        w->options.epoch = newest_time(w);
    if (make_digest(w, err) < 0)
        return -1;
    for (unsigned i = 0; i < 4; i++)
        w->hash_seed[i] = get_le32(w->digest + i * 4);
    w->csum_seed = get_le32(w->digest + 16);

    /* All that may come on top, generously: tables of four times the inodes, two bitmaps a group,
     * copies of the descriptors. The descriptors' room must not depend on where the holes are. */
    uint64_t inodes = (uint64_t)w->n_nodes + w->n_eas + w->options.free_bytes / 16384;
    uint64_t total = w->bound + w->options.free_bytes / BLOCK_SIZE + inodes / 4;
    uint64_t by_inodes = inodes / GROUP_INODES_MAX * GROUP_BLOCKS;
    total = (total > by_inodes ? total : by_inodes) + 4 * (uint64_t)GROUP_BLOCKS;
    total += total / 64;
    if (total > EXT4_SIZE_MAX / BLOCK_SIZE)
        total = EXT4_SIZE_MAX / BLOCK_SIZE;
    uint64_t groups = (total + GROUP_BLOCKS - 1) / GROUP_BLOCKS;
    w->head_blocks = 1 + (groups + DESCS_PER_BLOCK - 1) / DESCS_PER_BLOCK;
    return 0;
}
