// SPDX-License-Identifier: Apache-2.0
/* xattr.c - where each extended attribute of an inode goes
 *
 * In the order of the xattr block (namespace, name's length, name) those that fit go into the
 * inode; the rest into one block. When that overflows, the largest values get inodes of their own
 * (feature ea_inode), until the rest fits. Source: Documentation/filesystems/ext4/attributes.rst.
 */
#include <errno.h>
#include <ext2fs/ext2fs.h>
#include <stdlib.h>
#include <string.h>

#include "oci/ext4/parts.h"
#include "runtime/base/bytes.h"

#define ENTRY_SIZE 16u /* struct ext2_ext_attr_entry */
#define HEADER_SIZE 32u
#define END_SIZE 4u /* the four zero bytes behind the last entry */
#define IN_INODE_ROOM (INODE_SIZE - EXT2_GOOD_OLD_INODE_SIZE - INODE_EXTRA - 4 - END_SIZE)
#define BLOCK_ROOM (BLOCK_SIZE - HEADER_SIZE - END_SIZE)

/* Numbers of namespaces on disk. */
static const struct {
    const char *prefix;
    uint8_t index;
    bool whole; /* the prefix is the whole name */
} namespaces[] = {
    {"user.", 1, false},
    {"system.posix_acl_access", 2, true},
    {"system.posix_acl_default", 3, true},
    {"trusted.", 4, false},
    {"security.", 6, false},
};

/* POSIX ACLs: as the system calls give them (acl(5), posix_acl_xattr.h: version 2, entries of 8
 * bytes), and as ext4 keeps them (version 1, an id only where the tag has one). */
#define ACL_XATTR_VERSION 2
#define ACL_DISK_VERSION 1
#define ACL_USER_OBJ 0x01
#define ACL_USER 0x02
#define ACL_GROUP_OBJ 0x04
#define ACL_GROUP 0x08
#define ACL_MASK 0x10
#define ACL_OTHER 0x20

static int convert_acl(const struct tree_xattr *x, struct xattr_slot *slot, struct error *err)
{
    if (x->size < 4 || (x->size - 4) % 8 || get_le32(x->value) != ACL_XATTR_VERSION)
        return error_set(err, EBADMSG, "xattr \"%s\": malformed", x->name);
    uint8_t *disk = malloc(x->size), *to = disk;
    if (!disk)
        return error_oom(err);
    put_le32(to, ACL_DISK_VERSION);
    to += 4;
    for (const uint8_t *p = x->value + 4; p < x->value + x->size; p += 8) {
        unsigned tag = get_le16(p);
        memcpy(to, p, 4);
        to += 4;
        switch (tag) {
        case ACL_USER:
        case ACL_GROUP:
            memcpy(to, p + 4, 4);
            to += 4;
            break;
        case ACL_USER_OBJ:
        case ACL_GROUP_OBJ:
        case ACL_MASK:
        case ACL_OTHER:
            break;
        default:
            free(disk);
            return error_set(err, EBADMSG, "xattr \"%s\": tag %u is unknown", x->name, tag);
        }
    }
    slot->owned = disk;
    slot->value = disk;
    slot->size = (uint32_t)(to - disk);
    return 0;
}

static int make_slot(const struct tree_xattr *x, struct xattr_slot *slot, struct error *err)
{
    *slot = (struct xattr_slot){.value = x->value, .size = (uint32_t)x->size};
    for (size_t i = 0; i < ARRAY_SIZE(namespaces); i++) {
        size_t len = strlen(namespaces[i].prefix);
        if (strncmp(x->name, namespaces[i].prefix, len) != 0 ||
            (namespaces[i].whole && x->name[len]))
            continue;
        size_t left = strlen(x->name + len);
        if (!namespaces[i].whole && left == 0)
            break;
        slot->index = namespaces[i].index;
        slot->name = x->name + len;
        slot->name_len = (uint8_t)left;
        return namespaces[i].whole ? convert_acl(x, slot, err) : 0;
    }
    return error_set(err, EOPNOTSUPP, "xattr \"%s\": ext4 has no such namespace", x->name);
}

static int compare_slots(const void *a, const void *b)
{
    const struct xattr_slot *x = a, *y = b;

    if (x->index != y->index)
        return x->index < y->index ? -1 : 1;
    if (x->name_len != y->name_len)
        return x->name_len < y->name_len ? -1 : 1;
    return memcmp(x->name, y->name, x->name_len);
}

static unsigned entry_bytes(const struct xattr_slot *s)
{
    return (ENTRY_SIZE + s->name_len + 3) & ~3u;
}

static unsigned value_bytes(const struct xattr_slot *s)
{
    return s->outside ? 0 : (s->size + 3) & ~3u;
}

void xattr_plan_release(struct xattr_plan *plan)
{
    for (unsigned i = 0; i < plan->n; i++)
        free(plan->slots[i].owned);
    plan->n = 0;
}

int xattr_plan_make(const struct tree_inode *inode, struct xattr_plan *plan, struct error *err)
{
    unsigned in_inode = 0, in_block = 0;

    plan->n = plan->n_outside = 0;
    plan->block = false;
    if (inode->n_xattrs > XATTRS_MAX)
        return error_set(err, ENOSPC, "%zu extended attributes (ext4 takes about %u)",
                         inode->n_xattrs, XATTRS_MAX);
    for (size_t i = 0; i < inode->n_xattrs; i++) {
        if (make_slot(&inode->xattrs[i], &plan->slots[i], err) < 0) {
            xattr_plan_release(plan);
            return -1;
        }
        plan->n++;
    }
    qsort(plan->slots, plan->n, sizeof(plan->slots[0]), compare_slots);
    for (unsigned i = 0; i < plan->n; i++) {
        struct xattr_slot *s = &plan->slots[i];
        unsigned need = entry_bytes(s) + value_bytes(s);
        s->in_inode = in_inode + need <= IN_INODE_ROOM;
        *(s->in_inode ? &in_inode : &in_block) += need;
        plan->block |= !s->in_inode;
    }
    while (in_block > BLOCK_ROOM) {
        struct xattr_slot *largest = NULL;
        for (unsigned i = 0; i < plan->n; i++) {
            struct xattr_slot *s = &plan->slots[i];
            if (!s->in_inode && !s->owned && value_bytes(s) &&
                (!largest || s->size > largest->size))
                largest = s;
        }
        if (!largest) {
            xattr_plan_release(plan);
            return error_set(err, ENOSPC,
                             "the names of its extended attributes take %u bytes (ext4 has %u)",
                             in_block, BLOCK_ROOM);
        }
        in_block -= value_bytes(largest);
        largest->outside = true;
        plan->n_outside++;
    }
    return 0;
}

/* The hash of an entry (ext4_xattr_hash_entry): name, then the value's words, or the hash of a
 * value that stands outside. */
static uint32_t entry_hash(const struct xattr_slot *s, const uint8_t *padded, uint32_t outside_hash)
{
    uint32_t hash = 0;

    for (unsigned i = 0; i < s->name_len; i++)
        hash = (hash << 5) ^ (hash >> 27) ^ (uint8_t)s->name[i];
    if (s->outside)
        return (hash << 16) ^ (hash >> 16) ^ outside_hash;
    for (unsigned i = 0; i < value_bytes(s); i += 4)
        hash = (hash << 16) ^ (hash >> 16) ^ get_le32(padded + i);
    return hash;
}

/* Entries from `at` on, values from `end` down; offsets count from `base`. */
static uint32_t put_slots(const struct writer *w, const struct xattr_plan *plan,
                          const struct record *record, bool in_inode, uint8_t *at, uint8_t *base,
                          uint8_t *end)
{
    uint32_t ea = record->ea_first, all = 0;
    bool unhashed = false;

    for (unsigned i = 0; i < plan->n; i++) {
        const struct xattr_slot *s = &plan->slots[i];
        if (s->in_inode != in_inode)
            continue;
        uint32_t outside_hash = 0;
        at[0] = s->name_len;
        at[1] = s->index;
        put_le32(at + 8, s->size);
        if (s->outside) {
            put_le32(at + 4, ea);
            outside_hash = w->eas[ea - w->n_nodes].hash;
            ea++;
        } else if (s->size) {
            end -= value_bytes(s);
            memcpy(end, s->value, s->size);
            put_le16(at + 2, (uint16_t)(end - base));
        }
        uint32_t hash = in_inode ? 0 : entry_hash(s, end, outside_hash);
        put_le32(at + 12, hash);
        all = (all << 16) ^ (all >> 16) ^ hash;
        unhashed |= hash == 0;
        memcpy(at + ENTRY_SIZE, s->name, s->name_len);
        at += entry_bytes(s);
    }
    return unhashed ? 0 : all;
}

int xattr_write(struct writer *w, const struct tree_inode *inode, struct record *record,
                struct error *err)
{
    struct xattr_plan plan;
    uint64_t block;
    uint8_t number[8];

    if (!inode->n_xattrs)
        return 0;
    if (xattr_plan_make(inode, &plan, err) < 0)
        return -1;
    for (unsigned i = 0; i < plan.n_outside; i++) {
        uint32_t ino = record->ea_first + i;
        struct ea_value *ea = &w->eas[ino - w->n_nodes];
        ea->hash = ext2fs_crc32c_le(w->csum_seed, ea->value, ea->size);
        if (data_write_bytes(w, ea->value, ea->size, ino, &ea->record, err) < 0) {
            xattr_plan_release(&plan);
            return -1;
        }
        /* Counted with their owner too, as if they were its own. */
        record->blocks += (ea->size + BLOCK_SIZE - 1) / BLOCK_SIZE;
    }
    if (plan.block) {
        uint8_t *p = stream_block(&w->stream, &block, err);
        if (!p) {
            xattr_plan_release(&plan);
            return -1;
        }
        put_le32(p, EXT2_EXT_ATTR_MAGIC);
        put_le32(p + 4, 1); /* h_refcount */
        put_le32(p + 8, 1); /* h_blocks */
        put_le32(p + 12, put_slots(w, &plan, record, false, p + HEADER_SIZE, p, p + BLOCK_SIZE));
        put_le64(number, block);
        uint32_t crc = ext2fs_crc32c_le(w->csum_seed, number, sizeof(number));
        put_le32(p + 16, ext2fs_crc32c_le(crc, p, BLOCK_SIZE));
        record->xattr_block = block;
        record->blocks++;
    }
    xattr_plan_release(&plan);
    return 0;
}

int xattr_store_in_inode(const struct writer *w, const struct tree_inode *inode,
                         const struct record *record, uint8_t *area, size_t room, struct error *err)
{
    struct xattr_plan plan;
    bool any = false;

    if (!inode->n_xattrs)
        return 0;
    if (xattr_plan_make(inode, &plan, err) < 0)
        return -1;
    for (unsigned i = 0; i < plan.n; i++)
        any |= plan.slots[i].in_inode;
    if (any) {
        put_le32(area, EXT2_EXT_ATTR_MAGIC);
        (void)put_slots(w, &plan, record, true, area + 4, area + 4, area + room);
    }
    xattr_plan_release(&plan);
    return 0;
}
