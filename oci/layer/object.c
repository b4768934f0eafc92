// SPDX-License-Identifier: Apache-2.0
/* object.c - one object of a tree onto disk: its data and its attributes
 *
 * syscalls: openat with O_NOFOLLOW and O_EXCL, mknodat, mkfifoat, symlinkat, each with a single
 * name. Where no call takes a descriptor (attributes of symlinks and devices) /proc/self/fd/N/NAME
 * stands in.
 */
#include "oci/layer/object.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "oci/layer/quote.h"
#include "oci/tree/sidecar.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/io.h"

#define COPY_SIZE (64u << 10)
#define HOLE 4096u /* see tree.h: aligned 4 KiB of zeros are a hole */

int object_failed(struct error *err, const char *name, const char *act)
{
    char quoted[QUOTE_SIZE];
    int code = errno;

    if (code == EPERM)
        return error_set(err, code,
                         "\"%s\": %s: not permitted; use --rootless to keep owners, devices and "
                         "attributes aside",
                         quote_name(name, strlen(name), quoted), act);
    return error_num(err, code, "\"%s\": %s", quote_name(name, strlen(name), quoted), act);
}

/* -- data -------------------------------------------------------------------------------------- */

/* Writes len bytes for file offset `at`, leaving out pieces of aligned HOLE bytes that are zero.
 * *ret_end gets where the last written byte ends, if one was. */
static int write_sparse(int fd, const uint8_t *buf, size_t len, uint64_t at, uint64_t *ret_end,
                        struct error *err)
{
    size_t begin = 0, pos = 0; /* [begin, pos) waits to be written */

    while (pos < len) {
        size_t n = HOLE - (size_t)((at + pos) % HOLE);
        if (n > len - pos)
            n = len - pos;
        if (io_is_zero(buf + pos, n)) {
            if (pos > begin) {
                if (io_pwrite(fd, buf + begin, pos - begin, at + begin, "data", err) < 0)
                    return -1;
                *ret_end = at + pos;
            }
            begin = pos + n;
        }
        pos += n;
    }
    if (pos > begin) {
        if (io_pwrite(fd, buf + begin, pos - begin, at + begin, "data", err) < 0)
            return -1;
        *ret_end = at + pos;
    }
    return 0;
}

static int copy_data(struct object_writer *w, const struct tree_inode *inode, int to,
                     struct error *err)
{
    cleanup_free uint8_t *buf = malloc(COPY_SIZE);
    uint64_t end = 0;
    int from, rc = 0;

    if (!buf)
        return error_oom(err);
    if (w->data->open(w->data->opaque, inode, &from, err) < 0)
        return -1;
    for (size_t i = 0; i < inode->n_extents && rc == 0; i++) {
        const struct tree_extent *e = &inode->extents[i];
        for (uint64_t done = 0; done < e->length && rc == 0;) {
            /* Pieces end where a hole may begin. */
            uint64_t at = e->offset + done;
            size_t n = COPY_SIZE - (size_t)(at % HOLE);
            if (n > e->length - done)
                n = (size_t)(e->length - done);
            rc = io_pread_exact(from, buf, n, e->source_offset + done, "data", err);
            if (rc == 0)
                rc = write_sparse(to, buf, n, at, &end, err);
            if (rc == 0)
                rc = context_check(w->ctx, err);
            done += n;
        }
    }
    w->data->close(w->data->opaque, from);
    if (rc == 0 && end != inode->size && ftruncate(to, (off_t)inode->size) < 0)
        rc = error_sys(err, "set the size to %llu", (unsigned long long)inode->size);
    if (rc == 0)
        context_progress(w->ctx, "unpack", atomic_fetch_add(&w->bytes, inode->size) + inode->size,
                         0, "bytes");
    return rc;
}

/* -- attributes -------------------------------------------------------------------------------- */

static bool is_node(const struct tree_inode *inode)
{
    return S_ISCHR(inode->mode) || S_ISBLK(inode->mode);
}

/* The mode an object gets in the folder: without root its maker must be able to read it again. */
static uint32_t mode_here(const struct object_writer *w, const struct tree_inode *inode)
{
    uint32_t mode = inode->mode & 07777;

    if (!w->rootless)
        return mode;
    if (inode->dir)
        return mode | 0700;
    return is_node(inode) ? 0600 : mode | 0600;
}

/* Sets one attribute through fd, or by path when fd is -1. Returns 1 when the file system here has
 * no room or no place for it. */
static int set_xattr(int fd, const char *path, const char *name, const void *value, size_t size)
{
    int rc = fd >= 0 ? fsetxattr(fd, name, value, size, 0) : lsetxattr(path, name, value, size, 0);

    if (rc == 0)
        return 0;
    return errno == EOPNOTSUPP || errno == ENOSPC || errno == E2BIG || errno == ERANGE ? 1 : -1;
}

static int set_xattrs(struct object_writer *w, struct tree_inode *inode, int fd, int dirfd,
                      const char *name, struct error *err)
{
    cleanup_free char *path = NULL;
    uint8_t owner[ROOTLESS_VALUE_MAX];
    bool plain = S_ISREG(inode->mode) || S_ISDIR(inode->mode);

    if (fd < 0 && inode->n_xattrs && !w->rootless &&
        asprintf(&path, "/proc/self/fd/%d/%s", dirfd, name) < 0) {
        path = NULL;
        return error_oom(err);
    }
    for (size_t i = 0; i < inode->n_xattrs; i++) {
        const struct tree_xattr *x = &inode->xattrs[i];
        if (w->rootless && (!plain || strncmp(x->name, "user.", 5) != 0))
            continue; /* the sidecar's */
        int rc = set_xattr(fd, path, x->name, x->value, x->size);
        if (rc > 0 && w->rootless)
            inode->scratch |= OBJECT_XATTRS_ASIDE;
        else if (rc != 0)
            return object_failed(err, name, x->name);
    }
    if (!w->rootless || !plain || (inode->uid == 0 && inode->gid == 0))
        return 0;
    /* The sidecar has it too: a file system without such attributes loses nothing. */
    size_t n = rootless_encode(inode->uid, inode->gid, owner);
    if (n && set_xattr(fd, NULL, ROOTLESS_XATTR, owner, n) < 0)
        return object_failed(err, name, "set " ROOTLESS_XATTR);
    return 0;
}

static void times_of(const struct tree_inode *inode, struct timespec ts[2])
{
    ts[0] = (struct timespec){.tv_sec = inode->mtime_sec, .tv_nsec = inode->mtime_nsec};
    ts[1] = ts[0];
}

/* For what has a descriptor: files and folders, and what stands in for devices. The order matters:
 * chown takes set-user-id bits and capabilities away. */
int object_set_attributes(struct object_writer *w, struct tree_inode *inode, int fd,
                          const char *name, struct error *err)
{
    struct timespec ts[2];

    times_of(inode, ts);
    if (!w->rootless && fchown(fd, inode->uid, inode->gid) < 0)
        return object_failed(err, name, "set the owner");
    if (set_xattrs(w, inode, fd, -1, name, err) < 0)
        return -1;
    if (fchmod(fd, mode_here(w, inode)) < 0)
        return object_failed(err, name, "set the mode");
    if (futimens(fd, ts) < 0)
        return object_failed(err, name, "set the time");
    return 0;
}

/* For symlinks, FIFOs and devices. */
static int set_attributes_at(struct object_writer *w, struct tree_inode *inode, int dirfd,
                             const char *name, struct error *err)
{
    struct timespec ts[2];

    times_of(inode, ts);
    if (!w->rootless && fchownat(dirfd, name, inode->uid, inode->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return object_failed(err, name, "set the owner");
    if (set_xattrs(w, inode, -1, dirfd, name, err) < 0)
        return -1;
    /* No link can stand there: the folder is ours alone and the name was just made. */
    if (!S_ISLNK(inode->mode) && fchmodat(dirfd, name, mode_here(w, inode), 0) < 0)
        return object_failed(err, name, "set the mode");
    if (utimensat(dirfd, name, ts, AT_SYMLINK_NOFOLLOW) < 0)
        return object_failed(err, name, "set the time");
    return 0;
}

/* -- making it ----------------------------------------------------------------------------------
 */

static int make_file(struct object_writer *w, struct tree_inode *inode, int dirfd, const char *name,
                     struct error *err)
{
    char quoted[QUOTE_SIZE];
    cleanup_close int fd =
        openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0)
        return object_failed(err, name, "create");
    if (S_ISREG(inode->mode) && inode->size && copy_data(w, inode, fd, err) < 0)
        return error_wrap(err, "\"%s\"", quote_name(name, strlen(name), quoted));
    return object_set_attributes(w, inode, fd, name, err);
}

int object_make(struct object_writer *w, struct tree_inode *inode, int dirfd, const char *name,
                struct error *err)
{
    char quoted[QUOTE_SIZE];

    switch (inode->mode & S_IFMT) {
    case S_IFREG:
        return make_file(w, inode, dirfd, name, err);
    case S_IFLNK:
        if (symlinkat(inode->target, dirfd, name) < 0)
            return object_failed(err, name, "make the symlink");
        break;
    case S_IFIFO:
        if (mkfifoat(dirfd, name, 0600) < 0)
            return object_failed(err, name, "make the FIFO");
        break;
    case S_IFCHR:
    case S_IFBLK:
        if (w->rootless)
            return make_file(w, inode, dirfd, name, err);
        if (mknodat(dirfd, name, (inode->mode & S_IFMT) | 0600,
                    makedev(inode->rdev_major, inode->rdev_minor)) < 0)
            return object_failed(err, name, "make the device");
        break;
    default:
        return error_set(err, EINVAL, "\"%s\": an object of unknown type (mode 0%o)",
                         quote_name(name, strlen(name), quoted), inode->mode);
    }
    return set_attributes_at(w, inode, dirfd, name, err);
}
