/* SPDX-License-Identifier: Apache-2.0 */
/* tree.h - a file system tree in memory: names, metadata, and where each file's data lies
 *
 * Theory of operation: everything that ends in a file system goes through this tree. Layers are
 * merged into it (oci/layer), a folder is scanned into it (tree_scan.c), and it is written out as a
 * folder (oci/layer) or as ext4 (oci/ext4). What a path in an image means is decided here, in
 * memory, by tree_resolve(): symlinks are followed within the tree only, so no name from an image
 * ever reaches the host's path resolution. Writers then create every object by a single name below
 * a descriptor of a folder they have made themselves.
 *
 *     tree --- root inode
 *                +-- entry "etc" -> inode (folder)
 *                |                    +-- entry "passwd" -> inode (file: size, extents)
 *                +-- entry "a" -> inode X (file, nlink 2)
 *                +-- entry "b" -> inode X
 *
 * Inodes and entries belong to the tree and live until tree_free(); what is removed from it is only
 * unreachable. A tree is used by one thread at a time; a finished tree may be read by several.
 *
 * One rule keeps results equal whichever way a tree came to be: a writer stores every aligned 4 KiB
 * of zeros as a hole, and takes entries in tree_sorted() order.
 */
#ifndef OCI_TREE_TREE_H
#define OCI_TREE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"

#define TREE_NAME_MAX 255     /* bytes of one name (NAME_MAX) */
#define TREE_TARGET_MAX 4095  /* bytes of a symlink's target (PATH_MAX less the NUL) */
#define TREE_LINK_HOPS_MAX 40 /* symlinks followed in one resolution (path_resolution(7)) */
#define TREE_XATTR_NAME_MAX 255
#define TREE_XATTR_VALUE_MAX 65536

struct tree;
struct tree_dir;

struct tree_xattr {
    char *name;     /* full name with its namespace, "security.capability" */
    uint8_t *value; /* may be NULL when size is 0 */
    size_t size;
};

/* A run of data: file bytes [offset, offset+length) lie at source_offset of the inode's data fd. */
struct tree_extent {
    uint64_t offset, length, source_offset;
};

struct tree_inode {
    uint32_t mode; /* S_IFMT bits and permissions */
    uint32_t uid, gid;
    uint32_t rdev_major, rdev_minor; /* block and character devices */
    int64_t mtime_sec;
    uint32_t mtime_nsec;
    uint32_t names;            /* entries that lead here; folders: 1 */
    uint64_t size;             /* files: bytes, holes included */
    char *target;              /* symlinks */
    struct tree_xattr *xattrs; /* sorted by name (strcmp), no duplicates */
    size_t n_xattrs;
    struct tree_extent *extents; /* files: sorted by offset, disjoint; gaps are holes */
    size_t n_extents;
    struct tree_dir *dir;      /* folders */
    struct tree_inode *parent; /* folders: where ".." leads; root: itself */
    uint64_t source;           /* for the tree's data function: which file */
    uint64_t scratch;          /* free for the one who writes the tree out; 0 at first */
    uint32_t layer;            /* free for the one who merges layers: who made or touched it */
};

struct tree_entry {
    const char *name;
    size_t name_len;
    struct tree_inode *inode;
    uint32_t layer; /* free for the one who merges layers: which layer put this name here */
};

/* Gives access to file data. open stores a descriptor on which the inode's extents' source_offsets
 * are valid; the caller hands it to close when done. Thread safe. */
struct tree_data {
    int (*open)(void *opaque, const struct tree_inode *inode, int *ret_fd, struct error *err);
    void (*close)(void *opaque, int fd);
    void *opaque;
};

/* An empty tree whose root is a folder, 0755, owner 0:0, time 0. NULL when out of memory. */
struct tree *tree_new(struct error *err);
void tree_free(struct tree *tree); /* NULL is fine */

struct tree_inode *tree_root(const struct tree *tree);

/* How to get at file data; set by whoever filled the tree, read by whoever writes it out. */
void tree_set_data(struct tree *tree, const struct tree_data *data);
const struct tree_data *tree_get_data(const struct tree *tree);

/* A new inode of the given mode without a name. Folders get an empty dir. NULL when out of memory.
 */
struct tree_inode *tree_inode_new(struct tree *tree, uint32_t mode, struct error *err);

/* Copies text into the tree's memory. NULL when out of memory. */
char *tree_strdup(struct tree *tree, const char *text, size_t len, struct error *err);

/* Raw memory that lives as long as the tree, aligned for any type. NULL when out of memory. */
void *tree_alloc(struct tree *tree, size_t size, struct error *err);

/* Sets one extended attribute (value copied), replacing one of that name. Returns 0. */
int tree_set_xattr(struct tree *tree, struct tree_inode *inode, const char *name, const void *value,
                   size_t size, struct error *err);
const struct tree_xattr *tree_get_xattr(const struct tree_inode *inode, const char *name);

/* The entry `name` (len bytes, need not end in NUL) of a folder; NULL = none. */
struct tree_entry *tree_lookup(const struct tree_inode *dir, const char *name, size_t len);

/* Gives inode the name `name` in dir, counting names and setting a folder's parent. Refuses an
 * empty name, ".", "..", one with '/' or NUL, one over TREE_NAME_MAX, one that is taken, and a
 * second name for a folder. Returns the entry, NULL on failure. */
struct tree_entry *tree_link(struct tree *tree, struct tree_inode *dir, const char *name,
                             size_t len, struct tree_inode *inode, struct error *err);

/* Takes an entry (and all below it, when it is a folder) out of the tree; counts names down. */
void tree_unlink(struct tree_inode *dir, struct tree_entry *entry);

/* How many entries a folder has. */
size_t tree_count(const struct tree_inode *dir);

/* All entries of a folder in the order of their names' bytes (memcmp, shorter first). The array is
 * cached in the folder and valid until the folder changes. *ret_n gets the number. NULL only when
 * out of memory (an empty folder gives a non-NULL pointer). */
struct tree_entry *const *tree_sorted(const struct tree_inode *dir, size_t *ret_n,
                                      struct error *err);

/* Iterates without order: *cursor starts at 0; NULL at the end. The folder must not change. */
struct tree_entry *tree_next(const struct tree_inode *dir, size_t *cursor);

/* Follows path (len bytes) from the root, as a process chrooted there would: leading and repeated
 * slashes and "." are skipped, ".." stops at the root, symlinks are followed (the last component's
 * only with follow_last). *ret_inode gets the inode. Errors: ENOENT, ENOTDIR, ELOOP. Returns 0. */
int tree_resolve(const struct tree *tree, const char *path, size_t len, bool follow_last,
                 struct tree_inode **ret_inode, struct error *err);

/* Like tree_resolve() for the folder part of path; *ret_name and *ret_len get the last component
 * within path (len 0: the path names the root). A path that ends in ".." is refused (EINVAL). With
 * make != NULL missing folders are made by make(opaque, dir, name, len), which links and returns
 * the new folder, or NULL. Returns 0. */
int tree_resolve_parent(const struct tree *tree, const char *path, size_t len,
                        struct tree_inode *(*make)(void *opaque, struct tree_inode *dir,
                                                   const char *name, size_t len, struct error *err),
                        void *opaque, struct tree_inode **ret_dir, const char **ret_name,
                        size_t *ret_len, struct error *err);

/* Fills tree from the folder open at dirfd (kept open by the caller while the tree is used; file
 * data is read from it later). Attributes that could not be stored without root are taken from
 * where oci/layer put them: the xattr user.rootlesscontainers and the sidecar file beside the
 * bundle (tree_scan.c says how). Other user.rootlesscontainers xattrs do not become part of the
 * tree. ctx may be NULL. Returns 0. */
struct context;
int tree_scan(struct tree *tree, int dirfd, const char *what, const struct context *ctx,
              struct error *err);

DEFINE_CLEANUP(cleanup_tree_p, struct tree *, tree_free)
#define cleanup_tree CLEANUP(cleanup_tree_p)

#endif
