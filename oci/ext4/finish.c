// SPDX-License-Identifier: Apache-2.0
/* finish.c - what stands behind the data, and the descriptors that know of it all
 *
 * The content's end is known now. The smallest number of groups is sought in which the bitmaps and
 * inode tables of all groups, the journal and the free space fit behind it; more groups need more
 * of these, so a few steps upwards find it. Tables of groups without inodes, bitmaps of groups
 * without blocks and the journal's body are holes of the image (lazily initialised groups).
 */
#include <errno.h>
#include <ext2fs/ext2fs.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "oci/ext4/parts.h"
#include "runtime/base/bytes.h"
#include "runtime/base/io.h"

#define JOURNAL_BLOCKS_SMALL 1024u /* the least that jbd2 takes: 4 MiB */
#define JOURNAL_BLOCKS_LARGE 4096u
#define JOURNAL_LARGE_FROM 262144u /* blocks: 1 GiB of content and free space */
#define BYTES_PER_FREE_INODE 16384u
#define LAST_GROUP_MIN 64u /* blocks a last group has at least beside its head */
#define LOG_GROUPS_PER_FLEX 4
#define SB_OFFSET 1024u
#define SB_SIZE 1024u

struct gap {
    uint64_t from, to; /* free blocks before `end` */
};

struct layout {
    uint64_t groups, blocks; /* of the file system */
    uint32_t inodes_per_group;
    uint64_t desc_blocks;
    uint64_t block_bitmaps, inode_bitmaps; /* first block of each row */
    uint64_t *tables;                      /* by group */
    uint64_t journal, journal_blocks;
    uint64_t end;     /* behind the last block in use but heads of backup groups */
    struct gap *gaps; /* ascending */
    size_t n_gaps, gaps_room;
    uint64_t used; /* blocks */
};

static void layout_release(struct layout *l)
{
    free(l->tables);
    free(l->gaps);
    l->tables = NULL;
    l->gaps = NULL;
}

static int add_gap(struct layout *l, uint64_t from, uint64_t to, struct error *err)
{
    if (from >= to)
        return 0;
    if (l->n_gaps == l->gaps_room) {
        size_t room = l->gaps_room ? l->gaps_room * 2 : 32;
        struct gap *more = realloc(l->gaps, room * sizeof(*more));
        if (!more)
            return error_oom(err);
        l->gaps = more;
        l->gaps_room = room;
    }
    l->gaps[l->n_gaps++] = (struct gap){from, to};
    return 0;
}

/* A place for n adjoining blocks at or behind the end, clear of the heads of backup groups. */
static int place(struct layout *l, uint64_t n, uint64_t *ret_block, struct error *err)
{
    uint64_t head = 1 + l->desc_blocks, start = l->end;

    for (uint64_t g = start / GROUP_BLOCKS; g * GROUP_BLOCKS < start + n; g++) {
        uint64_t low = g * GROUP_BLOCKS, high = low + head;
        if (has_backup(g) && start < high && start + n > low) {
            /* What is passed over before the head stays free; the head itself is counted apart. */
            if (add_gap(l, start, low, err) < 0)
                return -1;
            start = high;
        }
    }
    *ret_block = start;
    l->end = start + n;
    return 0;
}

/* The blocks of superblock copies and descriptors in [from, to), whole groups beyond `from`. */
static uint64_t heads_between(const struct layout *l, uint64_t from, uint64_t to)
{
    uint64_t n = 0;

    for (uint64_t g = (from + GROUP_BLOCKS - 1) / GROUP_BLOCKS; g * GROUP_BLOCKS < to; g++)
        n += has_backup(g) ? 1 + l->desc_blocks : 0;
    return n;
}

/* Lays out `groups` groups behind the content; l->blocks gets how many blocks that needs. */
static int try_groups(const struct writer *w, struct layout *l, uint64_t groups, struct error *err)
{
    uint64_t content = w->stream.cursor;
    uint64_t inodes = (uint64_t)w->n_nodes - 1 + w->n_eas;
    uint64_t wanted = inodes + w->options.free_bytes / BYTES_PER_FREE_INODE + INODES_PER_BLOCK;
    uint64_t per_group = (wanted + groups - 1) / groups;

    layout_release(l);
    *l = (struct layout){.groups = groups, .end = content};
    per_group = (per_group + INODES_PER_BLOCK - 1) / INODES_PER_BLOCK * INODES_PER_BLOCK;
    if (per_group > GROUP_INODES_MAX) {
        l->blocks = UINT64_MAX; /* more groups are needed to hold so many */
        if (inodes > groups * GROUP_INODES_MAX)
            return 0;
        per_group = GROUP_INODES_MAX;
    }
    l->inodes_per_group = (uint32_t)per_group;
    l->desc_blocks = (groups + DESCS_PER_BLOCK - 1) / DESCS_PER_BLOCK;
    if (1 + l->desc_blocks > w->head_blocks)
        return error_set(err, EFBIG, "%" PRIu64 " groups are more than were planned for", groups);
    /* The room that the largest possible head would have taken. */
    for (uint64_t g = 0; g * GROUP_BLOCKS < content; g++)
        if (has_backup(g) && add_gap(l, g * GROUP_BLOCKS + 1 + l->desc_blocks,
                                     g * GROUP_BLOCKS + w->head_blocks, err) < 0)
            return -1;
    uint64_t goal = content + w->options.free_bytes / BLOCK_SIZE;
    l->journal_blocks = goal < JOURNAL_LARGE_FROM ? JOURNAL_BLOCKS_SMALL : JOURNAL_BLOCKS_LARGE;
    l->tables = calloc(groups, sizeof(*l->tables));
    if (!l->tables)
        return error_oom(err);
    if (place(l, groups, &l->block_bitmaps, err) < 0 ||
        place(l, groups, &l->inode_bitmaps, err) < 0)
        return -1;
    for (uint64_t g = 0; g < groups; g++)
        if (place(l, per_group / INODES_PER_BLOCK, &l->tables[g], err) < 0)
            return -1;
    if (place(l, l->journal_blocks, &l->journal, err) < 0)
        return -1;
    /* Free space: what is asked for, heads of the groups it spans on top. */
    uint64_t want = (w->options.free_bytes + BLOCK_SIZE - 1) / BLOCK_SIZE, blocks = l->end + want;
    for (uint64_t last = 0; last != blocks;) {
        last = blocks;
        blocks = l->end + want + heads_between(l, l->end, blocks);
    }
    l->blocks = blocks;
    return 0;
}

static int make_layout(const struct writer *w, struct layout *l, struct error *err)
{
    uint64_t groups =
        (w->stream.cursor + w->options.free_bytes / BLOCK_SIZE + GROUP_BLOCKS) / GROUP_BLOCKS;

    for (;; groups++) {
        if (groups > EXT4_SIZE_MAX / BLOCK_SIZE / GROUP_BLOCKS)
            return error_set(err, EFBIG, "content and free space do not fit an image of 16 TiB");
        if (try_groups(w, l, groups, err) < 0)
            return -1;
        if (l->blocks <= groups * GROUP_BLOCKS)
            break;
    }
    /* A last group that is too small for its own head is filled up; so is one that only the number
     * of inodes asked for. */
    uint64_t least = (groups - 1) * GROUP_BLOCKS + LAST_GROUP_MIN +
                     (has_backup(groups - 1) ? 1 + l->desc_blocks : 0);
    if (l->blocks < least)
        l->blocks = least;
    return 0;
}

/* --- bitmaps and descriptors --- */

static void set_bits(uint8_t *map, uint64_t from, uint64_t to)
{
    for (; from < to && from % 8; from++)
        map[from / 8] |= (uint8_t)(1u << from % 8);
    if (to > from)
        memset(map + from / 8, 0xff, (to - from) / 8);
    for (from += (to > from ? to - from : 0) / 8 * 8; from < to; from++)
        map[from / 8] |= (uint8_t)(1u << from % 8);
}

static void clear_bits(uint8_t *map, uint64_t from, uint64_t to)
{
    for (; from < to; from++)
        map[from / 8] &= (uint8_t) ~(1u << from % 8);
}

/* [from, to) within the group that starts at `first`, as offsets; false when nothing is left. */
static bool clip(uint64_t first, uint64_t size, uint64_t *from, uint64_t *to)
{
    uint64_t low = *from > first ? *from - first : 0, high = *to > first ? *to - first : 0;

    *from = low;
    *to = high < size ? high : size;
    return *from < *to;
}

/* Fills a group's block bitmap; returns its used blocks. gap: the first that may touch the group.
 */
static uint64_t group_bitmap(const struct layout *l, uint64_t g, size_t *gap, uint8_t *map)
{
    uint64_t first = g * GROUP_BLOCKS;
    uint64_t size = l->blocks - first < GROUP_BLOCKS ? l->blocks - first : GROUP_BLOCKS;
    uint64_t from = 0, to = l->end, used = 0;

    memset(map, 0, BLOCK_SIZE);
    if (clip(first, size, &from, &to)) {
        set_bits(map, from, to);
        while (*gap < l->n_gaps && l->gaps[*gap].to <= first)
            ++*gap;
        for (size_t i = *gap; i < l->n_gaps && l->gaps[i].from < first + size; i++) {
            from = l->gaps[i].from;
            to = l->gaps[i].to;
            if (clip(first, size, &from, &to))
                clear_bits(map, from, to);
        }
    }
    if (has_backup(g))
        set_bits(map, 0, 1 + l->desc_blocks);
    for (size_t i = 0; i < BLOCK_SIZE; i += 8)
        used += (uint64_t)__builtin_popcountll(get_le64(map + i));
    set_bits(map, size, GROUP_BLOCKS); /* behind the end: in use */
    return used;
}

#define DESC(member) offsetof(struct ext4_group_desc, member)

/* How many folders have numbers in [from, to). */
static uint32_t count_folders(const struct writer *w, uint64_t from, uint64_t to)
{
    uint32_t n = 0;

    for (uint64_t ino = from; ino < to && ino < w->n_nodes; ino++)
        n += ino == FIRST_INO || (w->nodes[ino] && w->nodes[ino]->dir);
    return n;
}

static void put_pair(uint8_t *desc, size_t low, size_t high, uint64_t value)
{
    put_le32(desc + low, (uint32_t)value);
    put_le32(desc + high, (uint32_t)(value >> 32));
}

static void put_half_pair(uint8_t *desc, size_t low, size_t high, uint32_t value)
{
    put_le16(desc + low, (uint16_t)value);
    put_le16(desc + high, (uint16_t)(value >> 16));
}

static int write_group(struct writer *w, struct layout *l, uint64_t g, size_t *gap, uint8_t *desc,
                       struct error *err)
{
    uint8_t map[BLOCK_SIZE], number[4];
    uint64_t first = g * GROUP_BLOCKS;
    uint64_t size = l->blocks - first < GROUP_BLOCKS ? l->blocks - first : GROUP_BLOCKS;
    uint64_t used = group_bitmap(l, g, gap, map);
    uint64_t ino = g * l->inodes_per_group + 1, last = (uint64_t)w->n_nodes - 1 + w->n_eas;
    uint32_t inodes = 0;
    unsigned flags = EXT2_BG_INODE_ZEROED;

    l->used += used;
    if (last >= ino)
        inodes =
            last - ino + 1 < l->inodes_per_group ? (uint32_t)(last - ino + 1) : l->inodes_per_group;
    put_pair(desc, DESC(bg_block_bitmap), DESC(bg_block_bitmap_hi), l->block_bitmaps + g);
    put_pair(desc, DESC(bg_inode_bitmap), DESC(bg_inode_bitmap_hi), l->inode_bitmaps + g);
    put_pair(desc, DESC(bg_inode_table), DESC(bg_inode_table_hi), l->tables[g]);
    put_half_pair(desc, DESC(bg_free_blocks_count), DESC(bg_free_blocks_count_hi),
                  (uint32_t)(size - used));
    put_half_pair(desc, DESC(bg_free_inodes_count), DESC(bg_free_inodes_count_hi),
                  l->inodes_per_group - inodes);
    put_half_pair(desc, DESC(bg_used_dirs_count), DESC(bg_used_dirs_count_hi),
                  count_folders(w, ino, ino + inodes));
    put_half_pair(desc, DESC(bg_itable_unused), DESC(bg_itable_unused_hi),
                  l->inodes_per_group - inodes);
    /* A group with nothing but its head needs no bitmap, but for the last, which ends early. */
    if (first >= l->end && g + 1 < l->groups) {
        flags |= EXT2_BG_BLOCK_UNINIT;
    } else {
        put_half_pair(desc, DESC(bg_block_bitmap_csum_lo), DESC(bg_block_bitmap_csum_hi),
                      ext2fs_crc32c_le(w->csum_seed, map, BLOCK_SIZE));
        if (io_pwrite(w->stream.fd, map, BLOCK_SIZE, (l->block_bitmaps + g) * BLOCK_SIZE, "image",
                      err) < 0)
            return -1;
    }
    if (inodes == 0) {
        flags |= EXT2_BG_INODE_UNINIT;
    } else {
        memset(map, 0, BLOCK_SIZE);
        set_bits(map, 0, inodes);
        set_bits(map, l->inodes_per_group, BLOCK_SIZE * 8);
        put_half_pair(desc, DESC(bg_inode_bitmap_csum_lo), DESC(bg_inode_bitmap_csum_hi),
                      ext2fs_crc32c_le(w->csum_seed, map, l->inodes_per_group / 8));
        if (io_pwrite(w->stream.fd, map, BLOCK_SIZE, (l->inode_bitmaps + g) * BLOCK_SIZE, "image",
                      err) < 0)
            return -1;
    }
    put_le16(desc + DESC(bg_flags), (uint16_t)flags);
    put_le32(number, (uint32_t)g);
    uint32_t crc = ext2fs_crc32c_le(w->csum_seed, number, sizeof(number));
    put_le16(desc + DESC(bg_checksum), (uint16_t)ext2fs_crc32c_le(crc, desc, DESC_SIZE));
    return 0;
}

/* --- inode tables and journal --- */

static int write_tables(struct writer *w, const struct layout *l, const struct record *journal,
                        struct error *err)
{
    uint64_t last = (uint64_t)w->n_nodes - 1 + w->n_eas;

    for (uint64_t g = 0; g < l->groups; g++) {
        uint64_t ino = g * l->inodes_per_group + 1, end = ino + l->inodes_per_group;
        if (ino > last)
            return 0;
        if (end > last + 1)
            end = last + 1;
        if (stream_seek(&w->stream, l->tables[g], err) < 0)
            return -1;
        while (ino < end) {
            uint8_t *p;
            uint64_t block, n = (end - ino + INODES_PER_BLOCK - 1) / INODES_PER_BLOCK;
            unsigned got = stream_room(&w->stream, n < STREAM_BLOCKS ? (unsigned)n : STREAM_BLOCKS,
                                       &p, &block, err);
            if (!got)
                return -1;
            for (unsigned i = 0; i < got * INODES_PER_BLOCK; i++, ino++, p += INODE_SIZE)
                if (inode_encode(w, (uint32_t)ino, journal, p, err) < 0)
                    return -1;
            stream_take(&w->stream, got);
        }
    }
    return 0;
}

/* An empty journal: its superblock; the rest reads as zeros.
 * Source: Documentation/filesystems/ext4/journal.rst (big-endian). */
static int write_journal(struct writer *w, const struct layout *l, struct record *ret_record,
                         struct error *err)
{
    struct extent_list x = {0};
    uint64_t block;
    uint8_t *p;

    *ret_record = (struct record){.extents = true, .size = l->journal_blocks * BLOCK_SIZE};
    if (stream_seek(&w->stream, l->journal, err) < 0)
        return -1;
    p = stream_block(&w->stream, &block, err);
    if (!p)
        return -1;
    put_be32(p, 0xC03B3998);                       /* h_magic */
    put_be32(p + 4, 4);                            /* h_blocktype: superblock, version 2 */
    put_be32(p + 12, BLOCK_SIZE);                  /* s_blocksize */
    put_be32(p + 16, (uint32_t)l->journal_blocks); /* s_maxlen */
    put_be32(p + 20, 1);                           /* s_first */
    put_be32(p + 24, 1);                           /* s_sequence */
    put_be32(p + 64, 1);                           /* s_nr_users */
    int rc = extent_list_add(&x, 0, l->journal, (unsigned)l->journal_blocks, err);
    if (rc == 0)
        rc = extent_list_store(&x, &w->stream, 0, ret_record->i_block, err);
    ret_record->blocks = x.blocks;
    free(x.runs);
    return rc;
}

/* --- superblock --- */

#define SB(member) offsetof(struct ext2_super_block, member)

static int make_uuid(struct writer *w, uint8_t ret_uuid[16], struct error *err)
{
    uint8_t bytes[SHA256_SIZE + HASH_LANES * 8], sum[SHA256_SIZE];

    memcpy(bytes, w->digest, SHA256_SIZE);
    for (unsigned i = 0; i < HASH_LANES; i++)
        put_le64(bytes + SHA256_SIZE + i * 8, w->stream.lanes[i]);
    if (digest_of(bytes, sizeof(bytes), sum, err) < 0)
        return -1;
    memcpy(ret_uuid, sum, 16);
    ret_uuid[6] = (uint8_t)((ret_uuid[6] & 0x0f) | 0x80); /* RFC 9562: version 8 */
    ret_uuid[8] = (uint8_t)((ret_uuid[8] & 0x3f) | 0x80);
    return 0;
}

static void put_sb_time(uint8_t *sb, size_t at, size_t high, int64_t t)
{
    put_le32(sb + at, (uint32_t)t);
    sb[high] = (uint8_t)(t >> 32);
}

static void make_superblock(const struct writer *w, const struct layout *l,
                            const struct record *journal, const uint8_t uuid[16], uint8_t *sb)
{
    uint64_t inodes = l->groups * l->inodes_per_group;
    uint32_t used_inodes = w->n_nodes - 1 + w->n_eas;
    uint64_t free_blocks = l->blocks - l->used;

    memset(sb, 0, SB_SIZE);
    put_le32(sb + SB(s_inodes_count), (uint32_t)inodes);
    put_le32(sb + SB(s_free_inodes_count), (uint32_t)(inodes - used_inodes));
    put_le32(sb + SB(s_blocks_count), (uint32_t)l->blocks);
    put_le32(sb + SB(s_blocks_count_hi), (uint32_t)(l->blocks >> 32));
    put_le32(sb + SB(s_free_blocks_count), (uint32_t)free_blocks);
    put_le32(sb + SB(s_free_blocks_hi), (uint32_t)(free_blocks >> 32));
    put_le32(sb + SB(s_log_block_size), 2);
    put_le32(sb + SB(s_log_cluster_size), 2);
    put_le32(sb + SB(s_blocks_per_group), GROUP_BLOCKS);
    put_le32(sb + SB(s_clusters_per_group), GROUP_BLOCKS);
    put_le32(sb + SB(s_inodes_per_group), l->inodes_per_group);
    put_sb_time(sb, SB(s_wtime), SB(s_wtime_hi), w->options.epoch);
    put_sb_time(sb, SB(s_lastcheck), SB(s_lastcheck_hi), w->options.epoch);
    put_sb_time(sb, SB(s_mkfs_time), SB(s_mkfs_time_hi), w->options.epoch);
    put_le16(sb + SB(s_max_mnt_count), 0xffff); /* no check by count */
    put_le16(sb + SB(s_magic), EXT2_SUPER_MAGIC);
    put_le16(sb + SB(s_state), EXT2_VALID_FS);
    put_le16(sb + SB(s_errors), EXT2_ERRORS_CONTINUE);
    put_le32(sb + SB(s_rev_level), EXT2_DYNAMIC_REV);
    put_le32(sb + SB(s_first_ino), FIRST_INO);
    put_le16(sb + SB(s_inode_size), INODE_SIZE);
    put_le16(sb + SB(s_min_extra_isize), INODE_EXTRA);
    put_le16(sb + SB(s_want_extra_isize), INODE_EXTRA);
    put_le32(sb + SB(s_feature_compat), EXT3_FEATURE_COMPAT_HAS_JOURNAL |
                                            EXT2_FEATURE_COMPAT_EXT_ATTR |
                                            EXT2_FEATURE_COMPAT_DIR_INDEX);
    put_le32(sb + SB(s_feature_incompat),
             EXT2_FEATURE_INCOMPAT_FILETYPE | EXT3_FEATURE_INCOMPAT_EXTENTS |
                 EXT4_FEATURE_INCOMPAT_64BIT | EXT4_FEATURE_INCOMPAT_FLEX_BG |
                 EXT4_FEATURE_INCOMPAT_CSUM_SEED | (w->n_eas ? EXT4_FEATURE_INCOMPAT_EA_INODE : 0));
    put_le32(sb + SB(s_feature_ro_compat),
             EXT2_FEATURE_RO_COMPAT_SPARSE_SUPER | EXT2_FEATURE_RO_COMPAT_LARGE_FILE |
                 EXT4_FEATURE_RO_COMPAT_HUGE_FILE | EXT4_FEATURE_RO_COMPAT_DIR_NLINK |
                 EXT4_FEATURE_RO_COMPAT_EXTRA_ISIZE | EXT4_FEATURE_RO_COMPAT_METADATA_CSUM);
    memcpy(sb + SB(s_uuid), uuid, 16);
    memcpy(sb + SB(s_volume_name), w->options.label, strlen(w->options.label));
    put_le32(sb + SB(s_journal_inum), EXT2_JOURNAL_INO);
    for (unsigned i = 0; i < 4; i++)
        put_le32(sb + SB(s_hash_seed) + i * 4, w->hash_seed[i]);
    sb[SB(s_def_hash_version)] = EXT2_HASH_HALF_MD4;
    sb[SB(s_jnl_backup_type)] = 1;
    put_le16(sb + SB(s_desc_size), DESC_SIZE);
    put_le32(sb + SB(s_default_mount_opts), EXT2_DEFM_XATTR_USER | EXT2_DEFM_ACL);
    memcpy(sb + SB(s_jnl_blocks), journal->i_block, I_BLOCK_SIZE);
    put_le32(sb + SB(s_jnl_blocks) + 15 * 4, (uint32_t)(journal->size >> 32));
    put_le32(sb + SB(s_jnl_blocks) + 16 * 4, (uint32_t)journal->size);
    put_le32(sb + SB(s_flags), EXT2_FLAGS_UNSIGNED_HASH);
    sb[SB(s_log_groups_per_flex)] = LOG_GROUPS_PER_FLEX;
    sb[SB(s_checksum_type)] = EXT2_CRC32C_CHKSUM;
    put_le32(sb + SB(s_checksum_seed), w->csum_seed);
}

static int write_heads(struct writer *w, const struct layout *l, uint8_t *sb, const uint8_t *descs,
                       struct error *err)
{
    for (uint64_t g = 0; g < l->groups; g++) {
        uint64_t at = g * GROUP_BLOCKS * BLOCK_SIZE;
        if (!has_backup(g))
            continue;
        put_le16(sb + SB(s_block_group_nr), (uint16_t)g);
        put_le32(sb + SB(s_checksum), ext2fs_crc32c_le(~0u, sb, SB(s_checksum)));
        if (io_pwrite(w->stream.fd, sb, SB_SIZE, at + (g ? 0 : SB_OFFSET), "image", err) < 0 ||
            io_pwrite(w->stream.fd, descs, l->desc_blocks * BLOCK_SIZE, at + BLOCK_SIZE, "image",
                      err) < 0)
            return -1;
    }
    return 0;
}

static int write_all(struct writer *w, struct layout *l, struct ext4_result *result,
                     struct error *err)
{
    struct record journal;
    uint8_t sb[SB_SIZE], uuid[16];
    size_t gap = 0;

    /* The journal lies behind the tables, but its inode stands in the first of them. */
    if (write_journal(w, l, &journal, err) < 0 || write_tables(w, l, &journal, err) < 0 ||
        stream_finish(&w->stream, err) < 0 || make_uuid(w, uuid, err) < 0)
        return -1;
    cleanup_free uint8_t *descs = calloc(l->desc_blocks, BLOCK_SIZE);
    if (!descs)
        return error_oom(err);
    for (uint64_t g = 0; g < l->groups; g++)
        if (write_group(w, l, g, &gap, descs + g * DESC_SIZE, err) < 0)
            return -1;
    make_superblock(w, l, &journal, uuid, sb);
    if (write_heads(w, l, sb, descs, err) < 0)
        return -1;
    if (ftruncate(w->stream.fd, (off_t)(l->blocks * BLOCK_SIZE)) < 0)
        return error_sys(err, "image: set its size");
    result->size = l->blocks * BLOCK_SIZE;
    result->used = l->used * BLOCK_SIZE;
    result->inodes = w->n_nodes - 1 + w->n_eas;
    memcpy(result->uuid, uuid, 16);
    return 0;
}

int finish(struct writer *w, struct ext4_result *result, struct error *err)
{
    struct layout l = {0};
    int rc = make_layout(w, &l, err);

    if (rc == 0)
        rc = write_all(w, &l, result, err);
    layout_release(&l);
    return rc;
}
