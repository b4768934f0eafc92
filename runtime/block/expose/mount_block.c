// SPDX-License-Identifier: Apache-2.0
/* mount_block.c - a block stack as a file of a mount */
#include <errno.h>

#include "runtime/block/block.h"
#include "runtime/block/expose/mount.h"

#define SEEK_STEP (UINT64_C(64) << 20) /* bytes of extents asked for at once */

static int file_read(void *self, void *buf, size_t len, uint64_t offset, struct error *err)
{
    return block_read(self, buf, len, offset, err);
}

static int file_write(void *self, const void *data, size_t len, uint64_t offset, struct error *err)
{
    return block_write(self, data, len, offset, 0, err);
}

static int file_zero(void *self, uint64_t len, uint64_t offset, struct error *err)
{
    return block_zero(self, len, offset, 0, err);
}

static int file_flush(void *self, struct error *err)
{
    return block_flush(self, err);
}

static int file_seek(void *self, uint64_t from, bool data, uint64_t *ret, struct error *err)
{
    const uint64_t size = block_size(self);

    while (from < size) {
        cleanup_extents struct extents list = {0};
        uint64_t len = size - from < SEEK_STEP ? size - from : SEEK_STEP;
        if (block_extents(self, from, len, &list, err) < 0)
            return -1;
        for (size_t i = 0; i < list.count; i++) {
            if (!(list.items[i].flags & EXTENT_ZERO) == data) {
                *ret = list.items[i].offset;
                return 0;
            }
        }
        from += len;
    }
    *ret = size;
    return 0;
}

static const struct mount_file_ops writable = {
    .read = file_read,
    .write = file_write,
    .zero = file_zero,
    .flush = file_flush,
    .seek = file_seek,
};

static const struct mount_file_ops readonly = {
    .read = file_read,
    .flush = file_flush,
    .seek = file_seek,
};

int mount_add_block(struct mount *m, const char *name, unsigned mode, uid_t uid, gid_t gid,
                    struct block *top, struct error *err)
{
    bool can_write = block_can(top, BLOCK_CAN_WRITE) != BLOCK_NONE;

    return mount_add(m, name, can_write ? mode : mode & ~0222u, uid, gid, block_size(top),
                     can_write ? &writable : &readonly, top, err);
}
