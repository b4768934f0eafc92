/* SPDX-License-Identifier: Apache-2.0 */
/* ext4.h - a tree becomes an ext4 file system in a file
 *
 * Theory of operation: no mount, no loop device, no root. One pass over the files' data, blocks
 * handed out in ascending order, so that the image is written from front to back:
 *
 *     | super, descriptors | folders | xattrs, symlinks, data of all inodes | tables | journal |
 * free
 *
 * Inode numbers and folders come from the tree alone. Data is looked at while it is copied: every
 * aligned 4 KiB of zeros becomes a hole, so how many blocks a file takes is known only then, and
 * everything that depends on the number of groups (bitmaps, inode tables, descriptors) is placed
 * behind the data, which flex_bg allows. The bytes of the image are a function of the tree's
 * content and the options alone: not of how holes were told (extents), of time, user or machine.
 * The README beside this file says more.
 *
 * Sources: the kernel's Documentation/filesystems/ext4/, ext2_fs.h, ext3_extents.h and
 * ext2_ext_attr.h of libext2fs, whose hash and checksum functions are used.
 */
#ifndef OCI_EXT4_EXT4_H
#define OCI_EXT4_EXT4_H

#include <stdint.h>

#include "oci/tree/tree.h"
#include "runtime/base/context.h"
#include "runtime/base/error.h"

#define EXT4_LABEL_MAX 16 /* bytes (s_volume_name) */
#define EXT4_FREE_DEFAULT (UINT64_C(256) << 20)
#define EXT4_SIZE_MAX (UINT64_C(16) << 40) /* bytes of an image: 2^32 blocks of 4 KiB */

#define EXT4_EPOCH_MAX INT64_C(10737418239) /* seconds: 2310-04-04, see inode.c */
#define EXT4_EPOCH_NEWEST (-1) /* the newest mtime in the tree, within 0 and EXT4_EPOCH_MAX */

struct ext4_options {
    const char *label;   /* at most EXT4_LABEL_MAX bytes; NULL = none */
    uint64_t free_bytes; /* room for the machine's own writes, a hole in the image */
    int64_t epoch;       /* seconds since 1970, 0 to EXT4_EPOCH_MAX: the file system's own times; or
                            EXT4_EPOCH_NEWEST */
};

struct ext4_result {
    uint64_t size;   /* of the image, bytes */
    uint64_t used;   /* bytes in use within: content and metadata */
    uint32_t inodes; /* in use */
    uint8_t uuid[16];
};

/* Writes tree into fd, an empty regular file opened for reading and writing, which ends up as large
 * as the file system. The tree's `scratch` members are used; file data comes from tree_get_data().
 * ctx may be NULL; ret_result may be NULL. Errors name the path in the tree: what ext4 cannot hold
 * (EFBIG, EMLINK, ENOSPC, EOPNOTSUPP), data that cannot be read, a full disk. The file's content is
 * undefined after an error: hand in an output_fd(). Returns 0. */
int ext4_write(struct tree *tree, int fd, const struct ext4_options *options,
               const struct context *ctx, struct ext4_result *ret_result, struct error *err);

#endif
