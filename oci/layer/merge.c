// SPDX-License-Identifier: Apache-2.0
/* merge.c - one tar entry onto the tree: links, whiteouts, changes of type
 *
 * Theory of operation: a whiteout takes away what lower layers put there and nothing that its own
 * layer did, wherever it stands among the entries. So each name knows the layer that put it there:
 * a folder in its inode's `layer`, all else in its entry's (an inode may have several names). A
 * folder is of the current layer as soon as anything below it is, so that finding one of a lower
 * layer means that all below it is of lower layers too.
 *
 *     opaque on D:   for each name in D:  of a lower layer           -> gone, with all below
 *                                         a folder of this layer     -> the same for what is in it
 *                                         anything else of this one  -> stays
 *
 * A folder that was emptied so is marked (its inode's `source`, which only files use otherwise):
 * nothing of a lower layer can come back to it in this layer, so a second whiteout over it, or over
 * one that lies below it, has nothing to do. That keeps any number of them linear.
 *
 * Paths are cleaned as text first, as if nothing but folders stood in the root ("a/../b" is "b"),
 * then resolved in the tree. Both are what umoci does.
 */
#include "oci/layer/merge.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "oci/layer/acl.h"
#include "oci/layer/quote.h"

#define WHITEOUT ".wh."
#define WHITEOUT_LEN 4
#define WHITEOUT_OPAQUE ".wh..wh..opq"
#define WHITEOUT_META ".wh..wh."

/* What ext4 with 256-byte inodes can store, and any other file system of today too: seconds. */
#define MTIME_MIN INT64_C(-2147483648)
#define MTIME_MAX INT64_C(15032385535)

/* Linux' own limits of a device number (include/linux/kdev_t.h). */
#define MAJOR_MAX 4095
#define MINOR_MAX 1048575

/* What an inode with its entry costs at least, hash slots included. */
#define ENTRY_COST 256

static int charge(struct layer_store *s, uint64_t bytes, struct error *err)
{
    s->metadata += bytes;
    if (s->metadata > s->limits.max_metadata)
        return error_set(err, E2BIG,
                         "names and attributes take more than %llu bytes (--max-metadata)",
                         (unsigned long long)s->limits.max_metadata);
    return 0;
}

/* "/./a//b/../c" to "a/c". out has room for len bytes. Returns the length. */
static size_t clean_path(const char *path, size_t len, char *out)
{
    size_t at = 0;

    for (size_t i = 0; i < len;) {
        size_t n = 0;
        while (i + n < len && path[i + n] != '/')
            n++;
        if (n == 2 && path[i] == '.' && path[i + 1] == '.') {
            while (at && out[at - 1] != '/')
                at--;
            if (at)
                at--;
        } else if (n && !(n == 1 && path[i] == '.')) {
            if (at)
                out[at++] = '/';
            memcpy(out + at, path + i, n);
            at += n;
        }
        i += n + 1;
    }
    return at;
}

static void touch(struct layer_store *s, struct tree_inode *dir)
{
    while (dir->layer != s->layer) {
        dir->layer = s->layer;
        dir = dir->parent;
    }
}

static bool is_ours(const struct layer_store *s, const struct tree_entry *e)
{
    return (e->inode->dir ? e->inode->layer : e->layer) == s->layer;
}

static struct tree_inode *new_folder(struct layer_store *s, struct tree_inode *dir,
                                     const char *name, size_t len, struct error *err)
{
    unsigned depth = 0;

    for (const struct tree_inode *d = dir; d != tree_root(s->tree); d = d->parent)
        if (++depth >= LAYER_DEPTH_MAX) {
            error_set(err, E2BIG, "folders nested deeper than %d", LAYER_DEPTH_MAX);
            return NULL;
        }
    struct tree_inode *made = tree_inode_new(s->tree, S_IFDIR | 0755, err);
    if (!made || charge(s, ENTRY_COST + len, err) < 0 ||
        !tree_link(s->tree, dir, name, len, made, err))
        return NULL;
    touch(s, made);
    return made;
}

/* A parent that no entry has described. */
static struct tree_inode *make_implied(void *opaque, struct tree_inode *dir, const char *name,
                                       size_t len, struct error *err)
{
    struct layer_store *s = opaque;

    if (++s->entries > s->limits.max_entries) {
        error_set(err, E2BIG, "more than %llu entries (--max-entries)",
                  (unsigned long long)s->limits.max_entries);
        return NULL;
    }
    return new_folder(s, dir, name, len, err);
}

static bool is_hidden(const struct layer_store *s, const struct tree_inode *dir)
{
    for (;; dir = dir->parent) {
        if (dir->source == s->layer)
            return true;
        if (dir->parent == dir)
            return false;
    }
}

/* Takes everything of lower layers out of dir. Recursion is bounded by LAYER_DEPTH_MAX. */
static int hide_lower(struct layer_store *s, struct tree_inode *dir, struct error *err)
{
    size_t n = tree_count(dir), cursor = 0, n_doomed = 0;

    if (dir->source == s->layer)
        return 0;
    dir->source = s->layer;
    cleanup_free struct tree_entry **doomed = malloc((n + 1) * sizeof(struct tree_entry *));
    if (!doomed)
        return error_oom(err);
    for (struct tree_entry *e; (e = tree_next(dir, &cursor));) {
        if (!is_ours(s, e))
            doomed[n_doomed++] = e;
        else if (e->inode->dir && hide_lower(s, e->inode, err) < 0)
            return -1;
    }
    for (size_t i = 0; i < n_doomed; i++)
        tree_unlink(dir, doomed[i]);
    return 0;
}

/* path: clean, its last component begins with ".wh.". */
static int apply_whiteout(struct layer_store *s, const char *path, size_t len, const char *name,
                          size_t name_len, struct error *err)
{
    struct error why = ERROR_INIT;
    struct tree_inode *dir;
    bool opaque =
        name_len == strlen(WHITEOUT_OPAQUE) && memcmp(name, WHITEOUT_OPAQUE, name_len) == 0;
    const char *victim = name + WHITEOUT_LEN;
    size_t victim_len = name_len - WHITEOUT_LEN;

    if (!opaque && (victim_len == 0 || (victim_len <= 2 && memcmp(victim, "..", victim_len) == 0)))
        return error_set(err, EBADMSG, "a whiteout that names nothing that could be there");
    if (tree_resolve(s->tree, path, len - name_len, true, &dir, &why) < 0) {
        /* Nothing there, so nothing to take away. */
        if (why.code == ENOENT || why.code == ENOTDIR)
            return 0;
        *err = why;
        return -1;
    }
    if (!dir->dir)
        return 0;
    if (opaque)
        return is_hidden(s, dir) ? 0 : hide_lower(s, dir, err);
    struct tree_entry *e = tree_lookup(dir, victim, victim_len);
    if (!e)
        return 0;
    if (!is_ours(s, e))
        tree_unlink(dir, e);
    else if (e->inode->dir && !is_hidden(s, e->inode))
        return hide_lower(s, e->inode, err);
    return 0;
}

static bool has_prefix(const char *name, const char *prefix)
{
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

/* Whether the tree keeps an attribute; see layer_apply(). */
static bool keeps_xattr(const char *name, uint32_t mode)
{
    if (has_prefix(name, "user."))
        return (S_ISREG(mode) || S_ISDIR(mode)) && strcmp(name, "user.rootlesscontainers") != 0;
    if (has_prefix(name, "security."))
        return strcmp(name, "security.selinux") != 0;
    if (strcmp(name, ACL_ACCESS) == 0)
        return !S_ISLNK(mode);
    if (strcmp(name, ACL_DEFAULT) == 0)
        return S_ISDIR(mode);
    return has_prefix(name, "trusted.");
}

/* linux/capability.h: revision 2 has 20 bytes, revision 3 with a root id 24; little-endian. */
static int check_capability(const struct tar_xattr *x, struct error *err)
{
    unsigned revision = x->size >= 4 ? x->value[3] : 0;

    if (strcmp(x->name, "security.capability") != 0)
        return 0;
    if ((revision == 2 && x->size == 20) || (revision == 3 && x->size == 24))
        return 0;
    return error_set(err, EBADMSG, "its security.capability is damaged (%zu bytes, revision %u)",
                     x->size, revision);
}

static int compare_xattrs(const void *a, const void *b)
{
    const struct tar_xattr *const *x = a, *const *y = b;
    int c = strcmp((*x)->name, (*y)->name);

    return c ? c : (*x > *y) - (*x < *y); /* of the same name the last one wins */
}

static int set_xattrs(struct layer_store *s, struct tree_inode *inode, const struct tar_entry *e,
                      struct error *err)
{
    inode->xattrs = NULL;
    inode->n_xattrs = 0;
    if (!e->n_xattrs)
        return 0;
    cleanup_free const struct tar_xattr **all = malloc(e->n_xattrs * sizeof(*all));
    if (!all)
        return error_oom(err);
    size_t n = 0;
    for (size_t i = 0; i < e->n_xattrs; i++)
        if (keeps_xattr(e->xattrs[i].name, inode->mode))
            all[n++] = &e->xattrs[i];
    qsort(all, n, sizeof(*all), compare_xattrs);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (i + 1 == n || strcmp(all[i]->name, all[i + 1]->name) != 0)
            all[kept++] = all[i];
    if (!kept)
        return 0;
    struct tree_xattr *to = tree_alloc(s->tree, kept * sizeof(*to), err);
    if (!to)
        return -1;
    inode->xattrs = to;
    for (size_t i = 0; i < kept; i++) {
        size_t name_len = strlen(all[i]->name), size = all[i]->size;
        bool acl = has_prefix(all[i]->name, "system.");
        int rc = acl ? acl_normalize(all[i]->name, inode->mode, all[i]->value, size, err) : 1;
        if (rc == 0)
            continue;
        if (rc < 0 || check_capability(all[i], err) < 0 ||
            charge(s, sizeof(*to) + name_len + size + 32, err) < 0)
            return -1;
        to->name = tree_strdup(s->tree, all[i]->name, name_len, err);
        to->value = tree_alloc(s->tree, size ? size : 1, err);
        if (!to->name || !to->value)
            return -1;
        if (size)
            memcpy(to->value, all[i]->value, size);
        to->size = size;
        to++;
        inode->n_xattrs++;
    }
    return 0;
}

static uint32_t type_bits(enum tar_type type)
{
    switch (type) {
    case TAR_SYMLINK:
        return S_IFLNK;
    case TAR_CHAR:
        return S_IFCHR;
    case TAR_BLOCK:
        return S_IFBLK;
    case TAR_FOLDER:
        return S_IFDIR;
    case TAR_FIFO:
        return S_IFIFO;
    case TAR_FILE:
    case TAR_HARD_LINK:
        break;
    }
    return S_IFREG;
}

/* Owner, mode, time and attributes. */
static int set_attributes(struct layer_store *s, struct tree_inode *inode,
                          const struct tar_entry *e, struct error *err)
{
    /* -1 is "no change" to chown(2); what is over 32 bits would come out as somebody else. */
    if (e->uid < 0 || e->uid >= UINT32_MAX || e->gid < 0 || e->gid >= UINT32_MAX)
        return error_set(err, EBADMSG, "owner %lld:%lld is out of range (0 to 4294967294)",
                         (long long)e->uid, (long long)e->gid);
    inode->uid = (uint32_t)e->uid;
    inode->gid = (uint32_t)e->gid;
    inode->mode = type_bits(e->type) | (e->type == TAR_SYMLINK ? 0777 : e->mode & 07777);
    inode->mtime_sec = e->mtime_sec;
    inode->mtime_nsec = e->mtime_nsec;
    if (e->mtime_sec < MTIME_MIN || e->mtime_sec > MTIME_MAX) {
        inode->mtime_sec = e->mtime_sec < MTIME_MIN ? MTIME_MIN : MTIME_MAX;
        inode->mtime_nsec = 0;
    }
    return set_xattrs(s, inode, e, err);
}

/* A new inode for anything but a folder or a hard link. */
static struct tree_inode *new_inode(struct layer_store *s, const struct tar_entry *e, uint64_t base,
                                    struct error *err)
{
    struct tree_inode *inode = tree_inode_new(s->tree, type_bits(e->type), err);

    if (!inode || set_attributes(s, inode, e, err) < 0)
        return NULL;
    if (e->type == TAR_SYMLINK) {
        if (e->target_len == 0 || e->target_len > TREE_TARGET_MAX) {
            error_set(err, EBADMSG, "a symlink whose target has %zu bytes (1 to %d)", e->target_len,
                      TREE_TARGET_MAX);
            return NULL;
        }
        inode->size = e->target_len;
        inode->target = tree_strdup(s->tree, e->target, e->target_len, err);
        if (!inode->target || charge(s, e->target_len, err) < 0)
            return NULL;
    } else if (e->type == TAR_CHAR || e->type == TAR_BLOCK) {
        if (e->major > MAJOR_MAX || e->minor > MINOR_MAX) {
            error_set(err, EBADMSG, "device %llu:%llu is out of range (at most %d:%d)",
                      (unsigned long long)e->major, (unsigned long long)e->minor, MAJOR_MAX,
                      MINOR_MAX);
            return NULL;
        }
        inode->rdev_major = (uint32_t)e->major;
        inode->rdev_minor = (uint32_t)e->minor;
    } else if (e->type == TAR_FILE) {
        if (e->size > s->limits.max_file_size) {
            error_set(err, E2BIG,
                      "a file of %llu bytes, at most %llu are allowed "
                      "(--max-file-size)",
                      (unsigned long long)e->size, (unsigned long long)s->limits.max_file_size);
            return NULL;
        }
        inode->size = e->size;
        if (e->n_extents) {
            inode->extents = tree_alloc(s->tree, e->n_extents * sizeof(*inode->extents), err);
            if (!inode->extents || charge(s, e->n_extents * sizeof(*inode->extents), err) < 0)
                return NULL;
            memcpy(inode->extents, e->extents, e->n_extents * sizeof(*inode->extents));
            for (size_t i = 0; i < e->n_extents; i++)
                inode->extents[i].source_offset += base;
            inode->n_extents = e->n_extents;
        }
    }
    return inode;
}

/* The inode a hard link entry leads to: what stands at its target, symlinks there not followed. */
static struct tree_inode *link_target(struct layer_store *s, const struct tar_entry *e,
                                      struct error *err)
{
    char clean[TAR_PATH_MAX], quoted[QUOTE_SIZE];
    size_t len = clean_path(e->target, e->target_len, clean);
    struct tree_inode *inode;

    if (tree_resolve(s->tree, clean, len, false, &inode, err) < 0) {
        error_wrap(err, "hard link to \"%s\"", quote_name(e->target, e->target_len, quoted));
        return NULL;
    }
    if (inode->dir) {
        error_set(err, EBADMSG, "hard link to \"%s\", which is a folder",
                  quote_name(e->target, e->target_len, quoted));
        return NULL;
    }
    return inode;
}

static int put_entry(struct layer_store *s, const struct tar_entry *e, struct tree_inode *dir,
                     const char *name, size_t len, uint64_t base, struct error *err)
{
    struct tree_entry *old = tree_lookup(dir, name, len);
    struct tree_inode *inode;

    if (e->type == TAR_FOLDER && old && old->inode->dir) {
        touch(s, old->inode);
        return set_attributes(s, old->inode, e, err);
    }
    if (e->type == TAR_FOLDER) {
        if (old)
            tree_unlink(dir, old);
        inode = new_folder(s, dir, name, len, err);
        return inode ? set_attributes(s, inode, e, err) : -1;
    }
    inode = e->type == TAR_HARD_LINK ? link_target(s, e, err) : new_inode(s, e, base, err);
    if (!inode || charge(s, ENTRY_COST + len, err) < 0)
        return -1;
    if (old && old->inode != inode) {
        tree_unlink(dir, old);
        old = NULL;
    }
    if (!old)
        old = tree_link(s->tree, dir, name, len, inode, err);
    if (!old)
        return -1;
    old->layer = s->layer;
    touch(s, dir);
    return 0;
}

/* What the names of an entry's parents say about it: 1 = ignore it, it is aufs' own bookkeeping
 * ("/.wh..wh.plnk/12.34", images of 2014), 0 = go on. */
static int check_parents(const char *path, size_t len, struct error *err)
{
    for (size_t i = 0; i < len;) {
        const char *slash = memchr(path + i, '/', len - i);
        size_t n = slash ? (size_t)(slash - path) - i : len - i;
        if (slash && n >= WHITEOUT_LEN && memcmp(path + i, WHITEOUT, WHITEOUT_LEN) == 0) {
            if (n >= strlen(WHITEOUT_META) &&
                memcmp(path + i, WHITEOUT_META, strlen(WHITEOUT_META)) == 0)
                return 1;
            return error_set(err, EBADMSG, "it lies in a folder whose name is a whiteout's");
        }
        i += n + 1;
    }
    return 0;
}

int merge_entry(struct layer_store *s, const struct tar_entry *e, uint64_t base, struct error *err)
{
    char path[TAR_PATH_MAX];
    size_t len, name_len;
    struct tree_inode *dir;
    const char *name;

    if (++s->entries > s->limits.max_entries)
        return error_set(err, E2BIG, "more than %llu entries (--max-entries)",
                         (unsigned long long)s->limits.max_entries);
    if (e->path_len == 0)
        return error_set(err, EBADMSG, "an entry without a name");
    if (e->path_len > TAR_PATH_MAX)
        return error_set(err, E2BIG, "a path of %zu bytes (at most %d)", e->path_len, TAR_PATH_MAX);
    len = clean_path(e->path, e->path_len, path);
    int rc = check_parents(path, len, err);
    if (rc != 0)
        return rc < 0 ? -1 : 0;
    if (len == 0) {
        if (e->type != TAR_FOLDER)
            return error_set(err, EBADMSG, "the root would become something other than a folder");
        touch(s, tree_root(s->tree));
        return set_attributes(s, tree_root(s->tree), e, err);
    }
    name = path + len;
    while (name > path && name[-1] != '/')
        name--;
    name_len = (size_t)(path + len - name);
    if (name_len >= WHITEOUT_LEN && memcmp(name, WHITEOUT, WHITEOUT_LEN) == 0)
        return apply_whiteout(s, path, len, name, name_len, err);
    if (tree_resolve_parent(s->tree, path, len, make_implied, s, &dir, &name, &name_len, err) < 0)
        return -1;
    return put_entry(s, e, dir, name, name_len, base, err);
}
