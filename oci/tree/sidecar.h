/* SPDX-License-Identifier: Apache-2.0 */
/* sidecar.h - attributes that an unpacked folder cannot hold when its maker is not root
 *
 * Theory of operation: who unpacks without root cannot make devices, give files away or set
 * security.* attributes. The unpacker then makes a stand-in (an empty file for a device, a mode
 * that it can read again) and writes down here what the object really is. tree_scan() finds the
 * sidecar beside the rootfs and puts the attributes back. It is needed only for a folder made
 * without root; a sidecar in a folder stands for "made without root" and is never part of the tree.
 *
 * Beside it, the owner of regular files and folders may stand in their own xattr
 * user.rootlesscontainers, as umoci writes it (protobuf: field 1 uid, field 2 gid); that xattr
 * travels with the object, so a person's edit keeps it. The sidecar wins where both speak.
 *
 * People edit the folder in between. An entry counts only while the object is still the stand-in
 * that the unpacker left: of the same type and, unless it is a folder, the same size and mtime
 * (which the unpacker has set to the image's, so an edit or a replacement shows). A folder's size
 * and mtime change with what is put into it and do not count. Else the entry is stale and without
 * effect; so is one whose path is gone. The mode alone is a person's: when it differs from the
 * stand-in's, chmod was here and the new mode stays, while the rest of the entry counts. What is
 * new in the folder and belongs to the maker is taken as 0:0, as the maker's own files do.
 *
 * Format, version 1: text lines. The first: "drafter-attributes 1 UID GID", the numeric owner whose
 * files belong to 0 (user) and 0 (group) in truth, each on its own. Then a line an object:
 *
 *     PATH MODE UID GID MAJOR:MINOR AS-MODE AS-SIZE AS-MTIME [XATTR=HEX]...
 *
 * PATH is relative to the sidecar's folder ("rootfs/dev/null"); PATH and XATTR have each byte other
 * than printable ASCII, and '%', '=' and ' ', as %XX. MODE and AS-MODE are octal with type bits (of
 * the object, of the stand-in). AS-MTIME is seconds.nanoseconds (nine digits; seconds may be
 * negative). XATTR=HEX: attributes to add, the value in hex.
 */
#ifndef OCI_TREE_SIDECAR_H
#define OCI_TREE_SIDECAR_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "oci/tree/tree.h"
#include "runtime/base/error.h"

/* The sidecar's name in the bundle's folder. */
#define SIDECAR_NAME "rootfs.attributes"
/* Bytes a sidecar may have. */
#define SIDECAR_SIZE_MAX (1u << 30)
/* The xattr that holds an owner, as umoci and others write it (rootlesscontainers.proto). */
#define ROOTLESS_XATTR "user.rootlesscontainers"
/* Bytes the value of that xattr has at most: two tags, two 32-bit varints. */
#define ROOTLESS_VALUE_MAX 12

/* One object. All pointers belong to the caller and are only read. */
struct sidecar_entry {
    const char *path; /* relative to the sidecar's folder, no leading "./" */
    uint32_t mode;    /* what it is: type bits and permissions */
    uint32_t uid, gid;
    uint32_t rdev_major, rdev_minor;
    uint32_t as_mode; /* what stands in the folder: type bits and permissions */
    uint64_t as_size; /* as fstat(2) says; 0 for folders */
    int64_t as_mtime_sec;
    uint32_t as_mtime_nsec;
    const struct tree_xattr *xattrs; /* those that could not be stored */
    size_t n_xattrs;
};

/* Starts a sidecar in file; uid and gid: who makes the folder (geteuid(), getegid()). A folder made
 * without root gets one even when no entry follows: it says whose files are root's. Returns 0. */
int sidecar_begin(FILE *file, uint32_t uid, uint32_t gid, struct error *err);

/* Appends one object. The caller closes the file and checks that. Returns 0. */
int sidecar_write(FILE *file, const struct sidecar_entry *entry, struct error *err);

/* What sidecar_apply() did. */
struct sidecar_result {
    uint64_t applied, stale;
};

/* Reads the sidecar open at fd and puts its attributes onto the tree that was scanned from its
 * folder. what names the file in errors. Malformed content is an error (EBADMSG) that names the
 * line. ret_result may be NULL. Returns 0. */
int sidecar_apply(struct tree *tree, int fd, const char *what, struct sidecar_result *ret_result,
                  struct error *err);

/* The owner that the first line names. Returns 0. */
int sidecar_owner(int fd, const char *what, uint32_t *ret_uid, uint32_t *ret_gid,
                  struct error *err);

/* True when fd holds a sidecar, by its first word. */
bool sidecar_is(int fd);

/* The value of ROOTLESS_XATTR for an owner, as umoci writes it: proto3, a zero is left out. Returns
 * its length, 0 for 0:0 (then umoci sets no attribute). */
size_t rootless_encode(uint32_t uid, uint32_t gid, uint8_t ret_value[ROOTLESS_VALUE_MAX]);

/* Reads such a value. Unknown fields are skipped; UINT32_MAX in *ret_uid or *ret_gid means "as it
 * is" (the format's NoopID). Returns 0, or -1 (EBADMSG). */
int rootless_decode(const uint8_t *value, size_t size, uint32_t *ret_uid, uint32_t *ret_gid,
                    struct error *err);

#endif
