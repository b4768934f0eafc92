// SPDX-License-Identifier: Apache-2.0
/* inode.c - the 256 bytes of an inode
 * Source: struct ext2_inode_large; Documentation/filesystems/ext4/inodes.rst. */
#include <ext2fs/ext2fs.h>
#include <stddef.h>
#include <string.h>

#include "oci/ext4/parts.h"
#include "runtime/base/bytes.h"

#define AT(member) offsetof(struct ext2_inode_large, member)
#define OSD2 AT(osd2) /* l_i_blocks_hi, l_i_file_acl_high, l_i_uid_high, l_i_gid_high, csum_lo */
/* Inode times have 34 bits of seconds from 1901 on. e2fsck takes those from 2310-04-04 for times
 * before 1970 that an old kernel wrote wrongly, so we stop there. */
#define TIME_MIN (-(INT64_C(1) << 31))
#define TIME_MAX EXT4_EPOCH_MAX

uint32_t inode_seed(const struct writer *w, uint32_t ino)
{
    uint8_t bytes[8];

    put_le32(bytes, ino);
    put_le32(bytes + 4, 0); /* i_generation */
    return ext2fs_crc32c_le(w->csum_seed, bytes, sizeof(bytes));
}

/* A time out of range becomes the nearest that is in it, as the kernel does. */
static void put_time(uint8_t *p, size_t at, size_t extra, int64_t sec, uint32_t nsec)
{
    if (sec < TIME_MIN || sec > TIME_MAX) {
        sec = sec < TIME_MIN ? TIME_MIN : TIME_MAX;
        nsec = 0;
    }
    put_le32(p + at, (uint32_t)sec);
    uint32_t epoch = (uint32_t)((uint64_t)(sec - (int32_t)sec) >> 32) & 3;
    put_le32(p + extra, nsec << 2 | epoch);
}

static void put_times(uint8_t *p, int64_t sec, uint32_t nsec)
{
    put_time(p, AT(i_atime), AT(i_atime_extra), sec, nsec);
    put_time(p, AT(i_ctime), AT(i_ctime_extra), sec, nsec);
    put_time(p, AT(i_mtime), AT(i_mtime_extra), sec, nsec);
    put_time(p, AT(i_crtime), AT(i_crtime_extra), sec, nsec);
}

/* Size, blocks and where they are. */
static void put_record(uint8_t *p, const struct record *r, uint32_t flags)
{
    uint64_t sectors = r->blocks * SECTORS_PER_BLOCK;

    put_le32(p + AT(i_size), (uint32_t)r->size);
    put_le32(p + AT(i_size_high), (uint32_t)(r->size >> 32));
    put_le32(p + AT(i_blocks), (uint32_t)sectors);
    put_le16(p + OSD2, (uint16_t)(sectors >> 32));
    put_le32(p + AT(i_file_acl), (uint32_t)r->xattr_block);
    put_le16(p + OSD2 + 2, (uint16_t)(r->xattr_block >> 32));
    flags |= (r->extents ? EXT4_EXTENTS_FL : 0) | (r->indexed ? EXT2_INDEX_FL : 0);
    put_le32(p + AT(i_flags), flags);
    memcpy(p + AT(i_block), r->i_block, I_BLOCK_SIZE);
    put_le16(p + AT(i_extra_isize), INODE_EXTRA);
}

static uint32_t count_links(const struct writer *w, const struct tree_inode *inode)
{
    const struct tree_entry *e;
    size_t cursor = 0;
    uint32_t links = 2;

    if (!inode->dir)
        return inode->names;
    while ((e = tree_next(inode, &cursor)))
        links += e->inode->dir != NULL && links <= LINKS_MAX;
    links += inode == tree_root(w->tree) && !w->lost_found;
    return links > LINKS_MAX ? 1 : links; /* 1 says "too many to count" (dir_nlink) */
}

static void put_seal(const struct writer *w, uint8_t *p, uint32_t ino)
{
    uint32_t crc = ext2fs_crc32c_le(inode_seed(w, ino), p, INODE_SIZE);

    put_le16(p + OSD2 + 8, (uint16_t)crc);
    put_le16(p + AT(i_checksum_hi), (uint16_t)(crc >> 16));
}

static int encode_node(const struct writer *w, const struct tree_inode *inode,
                       const struct record *r, uint8_t *p, struct error *err)
{
    put_le16(p + AT(i_mode), (uint16_t)inode->mode);
    put_le16(p + AT(i_uid), (uint16_t)inode->uid);
    put_le16(p + OSD2 + 4, (uint16_t)(inode->uid >> 16));
    put_le16(p + AT(i_gid), (uint16_t)inode->gid);
    put_le16(p + OSD2 + 6, (uint16_t)(inode->gid >> 16));
    put_le16(p + AT(i_links_count), (uint16_t)count_links(w, inode));
    put_times(p, inode->mtime_sec, inode->mtime_nsec);
    put_record(p, r, 0);
    return xattr_store_in_inode(w, inode, r, p + EXT2_GOOD_OLD_INODE_SIZE + INODE_EXTRA,
                                INODE_SIZE - EXT2_GOOD_OLD_INODE_SIZE - INODE_EXTRA, err);
}

/* Its times hold what the format keeps there: the value's hash and the count of references. */
static void encode_ea(const struct ea_value *ea, uint8_t *p)
{
    put_le16(p + AT(i_mode), S_IFREG | 0600);
    put_le16(p + AT(i_links_count), 1);
    put_record(p, &ea->record, EXT4_EA_INODE_FL);
    put_le32(p + AT(i_atime), ea->hash);
    put_le32(p + AT(i_ctime), 0);
    put_le32(p + AT(osd1), 1);
}

int inode_encode(const struct writer *w, uint32_t ino, const struct record *journal,
                 uint8_t ret_bytes[INODE_SIZE], struct error *err)
{
    uint8_t *p = ret_bytes;

    memset(p, 0, INODE_SIZE);
    if (ino == EXT2_JOURNAL_INO) {
        put_le16(p + AT(i_mode), S_IFREG | 0600);
        put_le16(p + AT(i_links_count), 1);
        put_times(p, w->options.epoch, 0);
        put_record(p, journal, 0);
    } else if (ino == FIRST_INO && !w->lost_found) {
        put_le16(p + AT(i_mode), S_IFDIR | 0700);
        put_le16(p + AT(i_links_count), 2);
        put_times(p, w->options.epoch, 0);
        put_record(p, &w->records[ino], 0);
    } else if (ino < w->n_nodes) {
        if (!w->nodes[ino])
            return 0;
        if (encode_node(w, w->nodes[ino], &w->records[ino], p, err) < 0)
            return -1;
    } else if (ino - w->n_nodes < w->n_eas) {
        encode_ea(&w->eas[ino - w->n_nodes], p);
    } else {
        return 0;
    }
    put_seal(w, p, ino);
    return 0;
}
