// SPDX-License-Identifier: Apache-2.0
/* tree_scan.c - a folder on disk becomes a tree
 *
 * Theory of operation: folders are taken from a queue, opened beneath the root descriptor without
 * following any symlink, and read entry by entry: fstatat, readlinkat, the xattrs through
 * /proc/self/fd (there is no call that lists a symlink's or device's xattrs by descriptor). Only
 * one folder is open at a time. Every object's place (its name and its folder's place) is kept, so
 * that its data can be opened later, with a check that it is still what was scanned.
 *
 * What belongs to the host's file system and not to the content is left out: xattrs outside the
 * namespaces user., trusted., security. and POSIX ACLs ("system.nfs4_acl", "btrfs.compression"),
 * and security.selinux, which an SELinux host gives to every file.
 *
 * Which owners on disk mean which owners inside: owners.h.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "oci/tree/owners.h"
#include "oci/tree/sidecar.h"
#include "oci/tree/tree.h"
#include "runtime/base/context.h"
#include "runtime/base/io.h"

#define XATTR_LIST_MAX 65536

/* Where an object was found, and what it was then. */
struct place {
    struct place *parent; /* NULL: the root */
    struct place *next;   /* queue of folders */
    struct tree_inode *inode;
    uint64_t dev, ino, size;
    int64_t mtime_sec;
    uint32_t mtime_nsec;
    uint16_t name_len;
    char name[];
};

/* The inode that (dev, ino) has become: an open-addressing table of objects with several names. */
struct link_table {
    struct place **slots;
    size_t n_slots, count;
};

struct data_source {
    int rootfd;
};

struct scan {
    struct tree *tree;
    const char *what;
    const struct context *ctx;
    struct data_source *source;
    struct place *head, *tail; /* folders to read */
    struct link_table links;
    struct owners owners;
    uint64_t done;
    char *xattr_names, *xattr_value;
};

/* The place's path for messages, cut at its front when it is long. */
static const char *describe(const struct place *p, char *buf, size_t size)
{
    char *at = buf + size - 1;

    *at = '\0';
    for (; p && p->parent; p = p->parent) {
        size_t need = p->name_len + (*at != '\0');
        if ((size_t)(at - buf) < need + 4) {
            at -= 4;
            memcpy(at, ".../", 4);
            break;
        }
        if (*at)
            *--at = '/';
        at -= p->name_len;
        memcpy(at, p->name, p->name_len);
    }
    return *at ? at : "(the folder itself)";
}

/* Opens step by step: for paths over PATH_MAX, and kernels or sandboxes without openat2. */
static int open_stepwise(int rootfd, const struct place *p, int flags)
{
    size_t depth = 0;

    for (const struct place *q = p; q->parent; q = q->parent)
        depth++;
    cleanup_free const struct place **way = malloc((depth + 1) * sizeof(*way));
    if (!way)
        return -1;
    size_t i = depth;
    for (const struct place *q = p; q->parent; q = q->parent)
        way[--i] = q;
    cleanup_close int dir = openat(rootfd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    for (i = 0; dir >= 0 && i + 1 < depth; i++) {
        int fd = openat(dir, way[i]->name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        (void)close(dir);
        dir = fd;
    }
    if (dir < 0)
        return -1;
    return openat(dir, depth ? way[depth - 1]->name : ".", flags);
}

static int open_place(int rootfd, const struct place *p, int flags)
{
    char path[PATH_MAX];
    char *at = path + sizeof(path) - 1;

    flags |= O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    *at = '\0';
    for (const struct place *q = p; q->parent; q = q->parent) {
        if ((size_t)(at - path) < (size_t)q->name_len + 1)
            return open_stepwise(rootfd, p, flags);
        if (*at)
            *--at = '/';
        at -= q->name_len;
        memcpy(at, q->name, q->name_len);
    }
    struct open_how how = {.flags = (uint64_t)flags,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
    long fd = syscall(SYS_openat2, rootfd, *at ? at : ".", &how, sizeof(how));
    if (fd < 0 && (errno == ENOSYS || errno == EPERM || errno == EAGAIN))
        return open_stepwise(rootfd, p, flags);
    return (int)fd;
}

static bool changed(const struct place *p, const struct stat *st)
{
    return st->st_dev != p->dev || st->st_ino != p->ino || (uint64_t)st->st_size != p->size ||
           st->st_mtim.tv_sec != p->mtime_sec || (uint32_t)st->st_mtim.tv_nsec != p->mtime_nsec;
}

static int data_open(void *opaque, const struct tree_inode *inode, int *ret_fd, struct error *err)
{
    const struct data_source *source = opaque;
    const struct place *p = (const struct place *)(uintptr_t)inode->source;
    char buf[512];
    struct stat st;

    cleanup_close int fd = open_place(source->rootfd, p, O_RDONLY);
    if (fd < 0)
        return error_sys(err, "%s: open", describe(p, buf, sizeof(buf)));
    if (fstat(fd, &st) < 0)
        return error_sys(err, "%s: stat", describe(p, buf, sizeof(buf)));
    if (changed(p, &st))
        return error_set(err, EBUSY, "%s: was changed while the folder was read; run this again",
                         describe(p, buf, sizeof(buf)));
    *ret_fd = steal_fd(&fd);
    return 0;
}

static void data_close(void *opaque, int fd)
{
    (void)opaque;
    (void)close(fd);
}

static bool kept_xattr(const char *name)
{
    return strncmp(name, "user.", 5) == 0 || strncmp(name, "trusted.", 8) == 0 ||
           (strncmp(name, "security.", 9) == 0 && strcmp(name, "security.selinux") != 0) ||
           strcmp(name, "system.posix_acl_access") == 0 ||
           strcmp(name, "system.posix_acl_default") == 0;
}

static int read_xattrs(struct scan *s, const char *path, struct tree_inode *inode,
                       struct error *err)
{
    ssize_t len = llistxattr(path, s->xattr_names, XATTR_LIST_MAX);

    if (len < 0 && errno == ENOTSUP)
        return 0;
    if (len < 0)
        return error_sys(err, "list extended attributes");
    for (ssize_t at = 0; at < len; at += (ssize_t)strlen(s->xattr_names + at) + 1) {
        const char *name = s->xattr_names + at;
        bool rootless = strcmp(name, ROOTLESS_XATTR) == 0;
        if (!rootless && !kept_xattr(name))
            continue;
        ssize_t size = lgetxattr(path, name, s->xattr_value, TREE_XATTR_VALUE_MAX);
        if (size < 0)
            return error_sys(err, "read extended attribute \"%s\"", name);
        if (rootless) {
            uint32_t uid, gid;
            if (rootless_decode((uint8_t *)s->xattr_value, (size_t)size, &uid, &gid, err) < 0)
                return -1;
            inode->uid = uid == UINT32_MAX ? inode->uid : uid;
            inode->gid = gid == UINT32_MAX ? inode->gid : gid;
        } else if (tree_set_xattr(s->tree, inode, name, s->xattr_value, (size_t)size, err) < 0) {
            return -1;
        }
    }
    return 0;
}

/* Where a sparse file has data. */
static int read_extents(struct scan *s, const struct place *p, struct tree_inode *inode,
                        struct error *err)
{
    cleanup_free struct tree_extent *all = NULL;
    size_t n = 0, room = 0;
    off_t data = 0;

    cleanup_close int fd = open_place(s->source->rootfd, p, O_RDONLY);
    if (fd < 0)
        return error_sys(err, "open");
    while ((uint64_t)data < inode->size) {
        data = lseek(fd, data, SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            break;
        off_t hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
        if (hole < 0)
            return error_sys(err, "find its holes");
        if ((uint64_t)data >= inode->size)
            break;
        if (n == room) {
            room = room ? room * 2 : 16;
            struct tree_extent *more = realloc(all, room * sizeof(*all));
            if (!more)
                return error_oom(err);
            all = more;
        }
        uint64_t end = (uint64_t)hole < inode->size ? (uint64_t)hole : inode->size;
        all[n++] = (struct tree_extent){.offset = (uint64_t)data,
                                        .length = end - (uint64_t)data,
                                        .source_offset = (uint64_t)data};
        data = hole;
    }
    inode->extents = tree_alloc(s->tree, (n ? n : 1) * sizeof(*all), err);
    if (!inode->extents)
        return -1;
    if (n)
        memcpy(inode->extents, all, n * sizeof(*all));
    inode->n_extents = n;
    return 0;
}

static size_t link_slot(const struct link_table *t, uint64_t dev, uint64_t ino)
{
    uint64_t h = (ino ^ dev * UINT64_C(0x9E3779B97F4A7C15)) * UINT64_C(0xD6E8FEB86659FD93);
    size_t i = (size_t)(h ^ h >> 32) & (t->n_slots - 1);

    while (t->slots[i] && (t->slots[i]->ino != ino || t->slots[i]->dev != dev))
        i = (i + 1) & (t->n_slots - 1);
    return i;
}

static int link_room(struct link_table *t, struct error *err)
{
    struct link_table wider = {.n_slots = t->n_slots ? t->n_slots * 2 : 256, .count = t->count};

    if ((t->count + 1) * 2 <= t->n_slots)
        return 0;
    wider.slots = calloc(wider.n_slots, sizeof(struct place *));
    if (!wider.slots)
        return error_oom(err);
    for (size_t i = 0; i < t->n_slots; i++)
        if (t->slots[i])
            wider.slots[link_slot(&wider, t->slots[i]->dev, t->slots[i]->ino)] = t->slots[i];
    free(t->slots);
    *t = wider;
    return 0;
}

/* Fills an inode that was found at p. path: for the xattr calls. */
static int fill(struct scan *s, struct place *p, struct tree_inode *inode, const struct stat *st,
                int dirfd, const char *path, struct error *err)
{
    char target[TREE_TARGET_MAX + 1];

    inode->uid = owners_map(&s->owners.uids, st->st_uid);
    inode->gid = owners_map(&s->owners.gids, st->st_gid);
    inode->mode = st->st_mode;
    inode->mtime_sec = st->st_mtim.tv_sec;
    inode->mtime_nsec = (uint32_t)st->st_mtim.tv_nsec;
    inode->source = (uintptr_t)p;
    switch (st->st_mode & S_IFMT) {
    case S_IFREG:
        inode->size = (uint64_t)st->st_size;
        if ((uint64_t)st->st_blocks * 512 < inode->size) {
            if (read_extents(s, p, inode, err) < 0)
                return -1;
        } else if (inode->size) {
            inode->extents = tree_alloc(s->tree, sizeof(*inode->extents), err);
            if (!inode->extents)
                return -1;
            *inode->extents = (struct tree_extent){.length = inode->size};
            inode->n_extents = 1;
        }
        break;
    case S_IFLNK: {
        ssize_t len = readlinkat(dirfd, p->name, target, sizeof(target));
        if (len < 0)
            return error_sys(err, "read the symlink");
        if ((size_t)len >= sizeof(target) || len == 0)
            return error_set(err, ENAMETOOLONG, "a symlink of %zd bytes (1 to %d)", len,
                             TREE_TARGET_MAX);
        inode->target = tree_strdup(s->tree, target, (size_t)len, err);
        if (!inode->target)
            return -1;
        inode->size = (uint64_t)len;
        break;
    }
    case S_IFCHR:
    case S_IFBLK:
        inode->rdev_major = major(st->st_rdev);
        inode->rdev_minor = minor(st->st_rdev);
        break;
    }
    return read_xattrs(s, path, inode, err);
}

static struct place *new_place(struct scan *s, struct place *parent, const char *name,
                               const struct stat *st, struct error *err)
{
    size_t len = strlen(name);
    struct place *p = tree_alloc(s->tree, sizeof(*p) + len + 1, err);

    if (!p)
        return NULL;
    *p = (struct place){.parent = parent,
                        .dev = st->st_dev,
                        .ino = st->st_ino,
                        .size = (uint64_t)st->st_size,
                        .mtime_sec = st->st_mtim.tv_sec,
                        .mtime_nsec = (uint32_t)st->st_mtim.tv_nsec,
                        .name_len = (uint16_t)len};
    memcpy(p->name, name, len + 1);
    return p;
}

static void queue_folder(struct scan *s, struct place *p)
{
    if (s->tail)
        s->tail->next = p;
    else
        s->head = p;
    s->tail = p;
}

static int scan_entry(struct scan *s, struct place *dir, int dirfd, const char *name,
                      struct error *err)
{
    char path[64 + TREE_NAME_MAX];
    struct stat st;

    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return error_sys(err, "stat");
    struct place *p = new_place(s, dir, name, &st, err);
    if (!p)
        return -1;
    bool shared = !S_ISDIR(st.st_mode) && st.st_nlink > 1;
    if (shared) {
        if (link_room(&s->links, err) < 0)
            return -1;
        size_t slot = link_slot(&s->links, st.st_dev, st.st_ino);
        if (s->links.slots[slot])
            return tree_link(s->tree, dir->inode, name, p->name_len, s->links.slots[slot]->inode,
                             err)
                       ? 0
                       : -1;
        s->links.slots[slot] = p;
        s->links.count++;
    }
    p->inode = tree_inode_new(s->tree, st.st_mode, err);
    if (!p->inode)
        return -1;
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", dirfd, name);
    if (fill(s, p, p->inode, &st, dirfd, path, err) < 0 ||
        !tree_link(s->tree, dir->inode, name, p->name_len, p->inode, err))
        return -1;
    if (S_ISDIR(st.st_mode)) {
        char buf[512];
        if (st.st_dev != dir->dev)
            log_warn(context_log(s->ctx), "folder is on another file system and is taken along",
                     log_str("tree", s->what), log_str("path", describe(p, buf, sizeof(buf))));
        queue_folder(s, p);
    }
    return 0;
}

static int scan_folder(struct scan *s, struct place *dir, struct error *err)
{
    cleanup_close int fd = open_place(s->source->rootfd, dir, O_RDONLY | O_DIRECTORY);
    struct stat st;
    char buf[512];

    if (fd < 0)
        return error_sys(err, "%s: open", describe(dir, buf, sizeof(buf)));
    if (fstat(fd, &st) < 0)
        return error_sys(err, "%s: stat", describe(dir, buf, sizeof(buf)));
    if (st.st_dev != dir->dev || st.st_ino != dir->ino)
        return error_set(err, EBUSY, "%s: was changed while it was read; run this again",
                         describe(dir, buf, sizeof(buf)));
    int dirfd = fd;
    cleanup_closedir DIR *d = fdopendir(fd);
    if (!d)
        return error_sys(err, "%s: read", describe(dir, buf, sizeof(buf)));
    (void)steal_fd(&fd);
    for (;;) {
        errno = 0;
        const struct dirent *e = readdir(d);
        if (!e && errno)
            return error_sys(err, "%s: read", describe(dir, buf, sizeof(buf)));
        if (!e)
            return 0;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (!dir->parent && owners_is_bookkeeping(&s->owners, dirfd, e->d_name))
            continue;
        if (scan_entry(s, dir, dirfd, e->d_name, err) < 0) {
            const char *path = describe(dir, buf, sizeof(buf));
            return dir->parent ? error_wrap(err, "%s/%s", path, e->d_name)
                               : error_wrap(err, "%s", e->d_name);
        }
        s->done++;
        if (s->done % 4096 == 0) {
            context_progress(s->ctx, "scan", s->done, 0, "files");
            if (context_check(s->ctx, err) < 0)
                return -1;
        }
    }
}

static int scan_all(struct scan *s, struct error *err)
{
    cleanup_close int sidecar = -1;
    struct tree_inode *root = tree_root(s->tree);
    char path[64];
    struct stat st;

    if (fstat(s->source->rootfd, &st) < 0)
        return error_sys(err, "stat");
    if (access("/proc/self/fd", F_OK) < 0)
        return error_sys(err, "/proc is not mounted; extended attributes cannot be read");
    if (owners_read(&s->owners, s->source->rootfd, &sidecar, err) < 0)
        return -1;
    struct place *p = new_place(s, NULL, "", &st, err);
    if (!p)
        return -1;
    p->inode = root;
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d/.", s->source->rootfd);
    if (fill(s, p, root, &st, s->source->rootfd, path, err) < 0)
        return -1;
    queue_folder(s, p);
    for (; p; p = p->next)
        if (context_check(s->ctx, err) < 0 || scan_folder(s, p, err) < 0)
            return -1;
    if (sidecar >= 0) {
        struct sidecar_result result;
        if (sidecar_apply(s->tree, sidecar, SIDECAR_NAME, &result, err) < 0)
            return -1;
        if (result.stale)
            log_info(context_log(s->ctx),
                     "stored attributes of changed or removed files have no effect",
                     log_str("tree", s->what), log_uint("entries", result.stale));
    }
    return 0;
}

int tree_scan(struct tree *tree, int dirfd, const char *what, const struct context *ctx,
              struct error *err)
{
    struct data_source *source = tree_alloc(tree, sizeof(*source), err);
    struct scan s = {.tree = tree, .what = what, .ctx = ctx, .source = source};

    if (!source)
        return -1;
    source->rootfd = dirfd;
    s.xattr_names = malloc(XATTR_LIST_MAX);
    s.xattr_value = malloc(TREE_XATTR_VALUE_MAX);
    int rc = s.xattr_names && s.xattr_value ? scan_all(&s, err) : error_oom(err);
    free(s.xattr_names);
    free(s.xattr_value);
    free(s.links.slots);
    owners_destroy(&s.owners);
    if (rc < 0)
        return error_wrap(err, "%s", what);
    tree_set_data(tree,
                  &(struct tree_data){.open = data_open, .close = data_close, .opaque = source});
    return 0;
}
