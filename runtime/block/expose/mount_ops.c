// SPDX-License-Identifier: Apache-2.0
/* mount_ops.c - the kernel's requests, turned into calls of a file's operations
 *
 * Theory of operation: inode 1 is the folder, inode i + 2 is files[i]. Names, sizes and inodes
 * never change, so the kernel may keep entries and attributes for ever. All writes go through the
 * kernel's page cache (FUSE_CAP_WRITEBACK_CACHE), which is what lets a file be mapped MAP_SHARED as
 * a guest's memory. Protocol: fuse(4), libfuse's fuse_lowlevel.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>

#include "runtime/block/expose/mount_private.h"

#define FOREVER 1e9 /* seconds the kernel may keep what we said */
#define BACKGROUND_MAX                                                                             \
    48 /* read-ahead and writeback requests in flight; leaves workers for the rest */

static struct mount *mount_of(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

static struct mount_file *file_of(fuse_req_t req, fuse_ino_t ino)
{
    struct mount *m = mount_of(req);

    if (ino < FIRST_FILE || ino - FIRST_FILE >= atomic_load(&m->n_files))
        return NULL;
    return &m->files[ino - FIRST_FILE];
}

/* Answers with the error's code; the text is for the log, where nobody else would see it. */
static void reply_error(fuse_req_t req, const struct mount_file *f, const char *act,
                        const struct error *err)
{
    int code = err->code > 0 && err->code < 512 ? err->code : EIO;

    log_warn(context_log(mount_of(req)->ctx), "file request failed",
             log_str("mount", mount_of(req)->path), log_str("file", f->name), log_str("op", act),
             log_str("error", err->text));
    (void)fuse_reply_err(req, code);
}

static void fill_attr(const struct mount *m, fuse_ino_t ino, struct stat *st)
{
    *st = (struct stat){.st_ino = ino, .st_blksize = 4096};
    if (ino == FUSE_ROOT_ID) {
        st->st_mode = S_IFDIR | 0755;
        st->st_nlink = 2;
        st->st_uid = geteuid();
        st->st_gid = getegid();
        return;
    }
    const struct mount_file *f = &m->files[ino - FIRST_FILE];
    st->st_mode = S_IFREG | atomic_load(&f->mode);
    st->st_nlink = 1;
    st->st_uid = atomic_load(&f->uid);
    st->st_gid = atomic_load(&f->gid);
    st->st_size = (off_t)f->size;
    st->st_blocks = (blkcnt_t)((f->size + 511) / 512);
    st->st_atim = st->st_mtim = st->st_ctim = f->mtime;
}

static void op_init(void *opaque, struct fuse_conn_info *conn)
{
    const unsigned wanted = FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_ASYNC_READ |
                            FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_SPLICE_READ;

    (void)opaque;
    conn->want |= conn->capable & wanted;
    /* Content changes only through the mount, or mount_forget() follows; and truncation must stay a
     * request of its own. */
    conn->want &= ~(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_HANDLE_KILLPRIV |
                    FUSE_CAP_SPLICE_READ);
    conn->max_write = MOUNT_IO_MAX;
    conn->max_readahead = MOUNT_IO_MAX;
    conn->max_background = BACKGROUND_MAX;
    conn->congestion_threshold = BACKGROUND_MAX;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct mount *m = mount_of(req);
    size_t i = 0, n;

    do {
        n = atomic_load(&m->n_files);
        for (; parent == FUSE_ROOT_ID && i < n; i++) {
            if (strcmp(m->files[i].name, name) != 0)
                continue;
            struct fuse_entry_param e = {
                .ino = FIRST_FILE + i, .attr_timeout = FOREVER, .entry_timeout = FOREVER};
            fill_attr(m, e.ino, &e.attr);
            (void)fuse_reply_entry(req, &e);
            return;
        }
    } while (mount_wait_file(m, n));
    /* Not "no such file for ever": mount_add() may bring it. */
    (void)fuse_reply_err(req, ENOENT);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct stat st;

    (void)fi;
    if (ino != FUSE_ROOT_ID && !file_of(req, ino)) {
        (void)fuse_reply_err(req, ENOENT);
        return;
    }
    fill_attr(mount_of(req), ino, &st);
    (void)fuse_reply_attr(req, &st, FOREVER);
}

/* Modes and owners are kept; a new size is not, as on a block device. The kernel goes by the
 * attributes in our answer. */
static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
                       struct fuse_file_info *fi)
{
    struct mount_file *f = file_of(req, ino);

    if (!f) {
        (void)fuse_reply_err(req, EPERM);
        return;
    }
    if (to_set & FUSE_SET_ATTR_MODE)
        atomic_store(&f->mode, attr->st_mode & 0777);
    if (to_set & FUSE_SET_ATTR_UID)
        atomic_store(&f->uid, attr->st_uid);
    if (to_set & FUSE_SET_ATTR_GID)
        atomic_store(&f->gid, attr->st_gid);
    op_getattr(req, ino, fi);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct mount_file *f = file_of(req, ino);
    struct error err = ERROR_INIT;
    void *handle = NULL;

    if (!f) {
        (void)fuse_reply_err(req, ENOENT);
        return;
    }
    if (f->ops->open && f->ops->open(f->self, &handle, &err) < 0) {
        reply_error(req, f, "open", &err);
        return;
    }
    fi->fh = (uint64_t)(uintptr_t)handle;
    fi->keep_cache = 1;
    /* -ENOENT: the opener was killed meanwhile, and there will be no release. */
    if (fuse_reply_open(req, fi) == -ENOENT && f->ops->release)
        f->ops->release(f->self, handle);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct mount_file *f = file_of(req, ino);

    if (f && f->ops->release)
        f->ops->release(f->self, (void *)(uintptr_t)fi->fh);
    (void)fuse_reply_err(req, 0);
}

/* A large buffer that is given back to the kernel costs a page fault for every page the next time.
 */
static char *take_buffer(struct mount *m)
{
    {
        lock_scope(&m->lock);
        if (m->n_spare > 0)
            return m->spare[--m->n_spare];
    }
    /* Page-aligned: a source may read with what its device likes best. */
    return aligned_alloc(4096, MOUNT_IO_MAX);
}

static void put_buffer(struct mount *m, char *buf)
{
    {
        lock_scope(&m->lock);
        if (buf && m->n_spare < MOUNT_SPARE_MAX) {
            m->spare[m->n_spare++] = buf;
            return;
        }
    }
    free(buf);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                    struct fuse_file_info *fi)
{
    struct mount_file *f = file_of(req, ino);
    struct error err = ERROR_INIT;
    uint64_t from = (uint64_t)offset;

    (void)fi;
    if (!f || !f->ops->read || offset < 0 || from >= f->size) {
        (void)fuse_reply_buf(req, NULL, 0);
        return;
    }
    if (size > f->size - from)
        size = (size_t)(f->size - from);
    if (size == 0 || size > MOUNT_IO_MAX) { /* the kernel keeps to what op_init() said */
        (void)fuse_reply_buf(req, NULL, 0);
        return;
    }
    struct mount *m = mount_of(req);
    char *buf = take_buffer(m);
    if (!buf)
        (void)fuse_reply_err(req, ENOMEM);
    else if (f->ops->read(f->self, buf, size, from, &err) < 0)
        reply_error(req, f, "read", &err);
    else
        (void)fuse_reply_buf(req, buf, size);
    put_buffer(m, buf);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t offset,
                     struct fuse_file_info *fi)
{
    struct mount_file *f = file_of(req, ino);
    struct error err = ERROR_INIT;
    uint64_t from = (uint64_t)offset;

    (void)fi;
    if (!f || !f->ops->write) {
        (void)fuse_reply_err(req, EACCES);
        return;
    }
    if (offset < 0 || from >= f->size) {
        (void)fuse_reply_err(req, ENOSPC);
        return;
    }
    size_t len = size;
    if (len > f->size - from)
        len = (size_t)(f->size - from);
    if (len > 0 && f->ops->write(f->self, buf, len, from, &err) < 0) {
        reply_error(req, f, "write", &err);
        return;
    }
    /* Writeback sends whole pages; of the last one only what is below the size counts. A count
     * smaller than sent is what the kernel turns into an error for those who wrote past the end. */
    (void)fuse_reply_write(req, len);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    struct mount_file *f = file_of(req, ino);
    struct error err = ERROR_INIT;

    (void)datasync;
    (void)fi;
    if (f && f->ops->flush && !atomic_load(&f->lazy) && f->ops->flush(f->self, &err) < 0)
        reply_error(req, f, "flush", &err);
    else
        (void)fuse_reply_err(req, 0);
}

static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
                         struct fuse_file_info *fi)
{
    struct mount_file *f = file_of(req, ino);
    struct error err = ERROR_INIT;
    uint64_t from = (uint64_t)offset, len = (uint64_t)length;

    (void)fi;
    if (!f || offset < 0 || length <= 0) {
        (void)fuse_reply_err(req, EINVAL);
        return;
    }
    if (mode == 0 || mode == FALLOC_FL_KEEP_SIZE) { /* room is always there, up to the size */
        bool fits = from <= f->size && len <= f->size - from;
        (void)fuse_reply_err(req, fits || mode ? 0 : ENOSPC);
        return;
    }
    if (!f->ops->zero ||
        (mode & ~(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE))) {
        (void)fuse_reply_err(req, EOPNOTSUPP);
        return;
    }
    if (from < f->size) {
        if (len > f->size - from)
            len = f->size - from;
        if (f->ops->zero(f->self, len, from, &err) < 0) {
            reply_error(req, f, "zero", &err);
            return;
        }
    }
    (void)fuse_reply_err(req, 0);
}

static void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence,
                     struct fuse_file_info *fi)
{
    struct mount_file *f = file_of(req, ino);
    struct error err = ERROR_INIT;
    bool data = whence == SEEK_DATA;
    uint64_t from = (uint64_t)offset, at;

    (void)fi;
    if (!f || offset < 0 || from >= f->size || (whence != SEEK_DATA && whence != SEEK_HOLE)) {
        (void)fuse_reply_err(req, f && whence >= SEEK_DATA ? ENXIO : EINVAL);
        return;
    }
    at = data ? from : f->size;
    if (f->ops->seek && f->ops->seek(f->self, from, data, &at, &err) < 0)
        reply_error(req, f, "seek", &err);
    else if (data && at >= f->size)
        (void)fuse_reply_err(req, ENXIO);
    else
        (void)fuse_reply_lseek(req, (off_t)at);
}

/* The kernel has copied the argument in by the command's _IOC bits and will copy our answer out. */
static void op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg,
                     struct fuse_file_info *fi, unsigned flags, const void *in_buf, size_t in_size,
                     size_t out_size)
{
    struct mount_file *f = file_of(req, ino);
    struct error err = ERROR_INIT;

    if (!f || !f->ops->ioctl || (flags & (FUSE_IOCTL_COMPAT | FUSE_IOCTL_DIR))) {
        (void)fuse_reply_err(req, ENOTTY);
        return;
    }
    cleanup_free char *out = calloc(1, out_size + 1);
    if (!out) {
        (void)fuse_reply_err(req, ENOMEM);
        return;
    }
    struct mount_ioctl io = {
        .cmd = cmd,
        .arg = (uint64_t)(uintptr_t)arg,
        .pid = fuse_req_ctx(req)->pid,
        .in = in_buf,
        .in_len = in_size,
        .out = out,
        .out_len = out_size,
    };
    if (f->ops->ioctl(f->self, (void *)(uintptr_t)fi->fh, &io, &err) < 0) {
        /* ENOTTY is an answer ("no such feature"), not a failure worth a warning. */
        if (err.code == ENOTTY)
            (void)fuse_reply_err(req, ENOTTY);
        else
            reply_error(req, f, "ioctl", &err);
        return;
    }
    (void)fuse_reply_ioctl(req, io.result, out, out_size);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                       struct fuse_file_info *fi)
{
    struct mount *m = mount_of(req);
    size_t n = atomic_load(&m->n_files), used = 0;

    (void)fi;
    if (ino != FUSE_ROOT_ID) {
        (void)fuse_reply_err(req, ENOTDIR);
        return;
    }
    cleanup_free char *buf = malloc(size ? size : 1);
    if (!buf) {
        (void)fuse_reply_err(req, ENOMEM);
        return;
    }
    for (size_t i = (size_t)offset; i < n + 2; i++) {
        struct stat st = {.st_ino = i < 2 ? FUSE_ROOT_ID : FIRST_FILE + i - 2,
                          .st_mode = i < 2 ? S_IFDIR : S_IFREG};
        const char *name = i == 0 ? "." : i == 1 ? ".." : m->files[i - 2].name;
        size_t need = fuse_add_direntry(req, buf + used, size - used, name, &st, (off_t)i + 1);
        if (need > size - used)
            break;
        used += need;
    }
    (void)fuse_reply_buf(req, buf, used);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
    struct mount *m = mount_of(req);
    struct statvfs st = {.f_bsize = 4096, .f_frsize = 4096, .f_namemax = NAME_MAX};

    (void)ino;
    size_t n = atomic_load(&m->n_files);
    for (size_t i = 0; i < n; i++)
        st.f_blocks += (m->files[i].size + 4095) / 4096;
    st.f_files = n;
    (void)fuse_reply_statfs(req, &st);
}

const struct fuse_lowlevel_ops mount_fuse_ops = {
    .init = op_init,
    .lookup = op_lookup,
    .getattr = op_getattr,
    .setattr = op_setattr,
    .open = op_open,
    .release = op_release,
    .read = op_read,
    .write = op_write,
    .fsync = op_fsync,
    .fallocate = op_fallocate,
    .lseek = op_lseek,
    .ioctl = op_ioctl,
    .readdir = op_readdir,
    .statfs = op_statfs,
};
