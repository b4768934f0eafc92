// SPDX-License-Identifier: Apache-2.0
/* ext4.c - a tree becomes an ext4 file system: the order of the acts */
#include "oci/ext4/ext4.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "oci/ext4/parts.h"

#define FAST_SYMLINK_MAX 59u /* longer targets take a block */

static int write_folders(struct writer *w, struct error *err)
{
    for (uint32_t ino = EXT2_ROOT_INO; ino < w->n_nodes; ino++) {
        if (w->nodes[ino] && w->nodes[ino]->dir &&
            dir_write(w, w->nodes[ino], ino, &w->records[ino], err) < 0)
            return -1;
        if (ino == FIRST_INO && !w->lost_found &&
            dir_write_lost_found(w, &w->records[ino], err) < 0)
            return -1;
    }
    return 0;
}

/* Devices have their number where others have blocks: majors and minors up to 255 in the old form,
 * else in the new one (the kernel's old_encode_dev, new_encode_dev). */
static void put_device(const struct tree_inode *inode, struct record *record)
{
    uint32_t major = inode->rdev_major, minor = inode->rdev_minor;
    uint32_t n = major < 256 && minor < 256 ? major << 8 | minor
                                            : (minor & 0xff) | major << 8 | (minor & ~0xffu) << 12;
    unsigned at = major < 256 && minor < 256 ? 0 : 4;

    for (unsigned i = 0; i < 4; i++)
        record->i_block[at + i] = (uint8_t)(n >> (8 * i));
}

static int write_content(struct writer *w, uint32_t ino, struct error *err)
{
    const struct tree_inode *inode = w->nodes[ino];
    struct record *record = &w->records[ino];

    if (xattr_write(w, inode, record, err) < 0)
        return -1;
    switch (inode->mode & S_IFMT) {
    case S_IFREG:
        return data_write(w, inode, ino, record, err);
    case S_IFLNK: {
        size_t len = strlen(inode->target);
        if (len > FAST_SYMLINK_MAX)
            return data_write_bytes(w, inode->target, len, ino, record, err);
        memcpy(record->i_block, inode->target, len);
        record->size = len;
        return 0;
    }
    case S_IFCHR:
    case S_IFBLK:
        put_device(inode, record);
        return 0;
    }
    return 0;
}

static int write_all(struct writer *w, struct ext4_result *result, struct error *err)
{
    char path[512];

    if (write_folders(w, err) < 0)
        return -1;
    for (uint32_t ino = EXT2_ROOT_INO; ino < w->n_nodes; ino++)
        if (w->nodes[ino] && write_content(w, ino, err) < 0)
            return error_wrap(err, "%s", plan_path(w, w->nodes[ino], path, sizeof(path)));
    return finish(w, result, err);
}

static int check_options(const struct ext4_options *options, struct error *err)
{
    if (options->label && strlen(options->label) > EXT4_LABEL_MAX)
        return error_set(err, EINVAL, "label \"%s\": %zu bytes (ext4 takes %d)", options->label,
                         strlen(options->label), EXT4_LABEL_MAX);
    if (options->free_bytes > EXT4_SIZE_MAX)
        return error_set(err, EFBIG, "free space: an image has at most 16 TiB");
    if (options->epoch < EXT4_EPOCH_NEWEST || options->epoch > EXT4_EPOCH_MAX)
        return error_set(err, EINVAL, "epoch: not between 0 and %" PRId64, EXT4_EPOCH_MAX);
    return 0;
}

int ext4_write(struct tree *tree, int fd, const struct ext4_options *options,
               const struct context *ctx, struct ext4_result *ret_result, struct error *err)
{
    struct writer w = {.tree = tree, .options = *options, .ctx = ctx};
    struct ext4_result result = {0};
    int rc = check_options(options, err);

    if (rc < 0)
        return -1;
    if (!w.options.label)
        w.options.label = "";
    rc = plan_tree(&w, err);
    if (rc == 0) {
        rc = stream_init(&w.stream, fd, w.head_blocks, err);
        if (rc == 0)
            rc = write_all(&w, &result, err);
        stream_destroy(&w.stream);
    }
    free(w.nodes);
    free(w.records);
    free(w.eas);
    if (rc == 0 && ret_result)
        *ret_result = result;
    return rc;
}
