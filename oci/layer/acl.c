// SPDX-License-Identifier: Apache-2.0
/* acl.c - POSIX ACLs that an image carries as extended attributes
 *
 * An ACL and a mode say some things twice: the owner's, the others' and, as the mask, the group's
 * permissions. When both are written to a file, the later one wins. Here that is the mode, so that
 * an ext4 made without a kernel holds what a folder holds into which the kernel wrote both.
 */
#include "oci/layer/acl.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "runtime/base/bytes.h"

#define VERSION 2
#define HEADER_SIZE 4
#define ENTRY_SIZE 8 /* tag, permissions (16 bits each), id */
#define ID_NONE UINT32_MAX

enum acl_tag {
    TAG_USER_OBJ = 0x01,
    TAG_USER = 0x02,
    TAG_GROUP_OBJ = 0x04,
    TAG_GROUP = 0x08,
    TAG_MASK = 0x10,
    TAG_OTHER = 0x20,
};

/* Tags come in ascending order: the four that are no person's once each, but the mask only when
 * there are persons or it wants to. */
static const char *find_fault(const uint8_t *value, size_t size)
{
    unsigned last = 0, seen = 0;

    if (size < HEADER_SIZE || (size - HEADER_SIZE) % ENTRY_SIZE != 0)
        return "its size is no whole number of entries";
    if (get_le32(value) != VERSION)
        return "its version is not 2";
    for (size_t at = HEADER_SIZE; at < size; at += ENTRY_SIZE) {
        unsigned tag = get_le16(value + at);
        bool named = tag == TAG_USER || tag == TAG_GROUP;
        if (tag == 0 || tag > TAG_OTHER || (tag & (tag - 1)))
            return "an entry's tag is unknown";
        if (tag < last || (tag == last && !named))
            return "its entries are not in order";
        if (get_le16(value + at + 2) > 7)
            return "an entry's permissions are unknown";
        if (named && get_le32(value + at + 4) == ID_NONE)
            return "an entry names nobody";
        last = tag;
        seen |= tag;
    }
    if (size > HEADER_SIZE &&
        ((seen & TAG_USER_OBJ) == 0 || (seen & TAG_GROUP_OBJ) == 0 || (seen & TAG_OTHER) == 0 ||
         ((seen & (TAG_USER | TAG_GROUP)) != 0 && (seen & TAG_MASK) == 0)))
        return "an entry is missing";
    return NULL;
}

int acl_normalize(const char *name, uint32_t mode, uint8_t *value, size_t size, struct error *err)
{
    const char *fault = find_fault(value, size);
    bool access = strcmp(name, ACL_ACCESS) == 0, mask = false;

    if (fault)
        return error_set(err, EBADMSG, "its %s is damaged: %s", name, fault);
    for (size_t at = HEADER_SIZE; at < size; at += ENTRY_SIZE)
        mask |= get_le16(value + at) == TAG_MASK;
    for (size_t at = HEADER_SIZE; at < size; at += ENTRY_SIZE) {
        uint8_t *permissions = value + at + 2;
        unsigned tag = get_le16(value + at);
        if (tag != TAG_USER && tag != TAG_GROUP)
            put_le32(value + at + 4, ID_NONE);
        if (!access)
            continue;
        if (tag == TAG_USER_OBJ)
            put_le16(permissions, (uint16_t)(mode >> 6 & 7));
        else if (tag == (mask ? TAG_MASK : TAG_GROUP_OBJ))
            put_le16(permissions, (uint16_t)(mode >> 3 & 7));
        else if (tag == TAG_OTHER)
            put_le16(permissions, (uint16_t)(mode & 7));
    }
    return size > HEADER_SIZE && (mask || !access);
}
