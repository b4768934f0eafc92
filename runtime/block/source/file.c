// SPDX-License-Identifier: Apache-2.0
/* file.c - sources: a file or block device, and zeros of a size in a sparse file or in memory
 *
 * {"type": "file", "path": PATH, "readonly": false, "round": 1, "shared": false,
 *  "digest": "sha256:..."}
 * {"type": "sparse", "size": BYTES, "path": PATH}
 *
 * Theory of operation: both are one open descriptor. A file whose size is not a multiple of `round`
 * is a device whose size is rounded up; what is past the file's end reads as zeros, and a write
 * there makes the file longer. A writer holds an exclusive flock(2) on its file, a reader a shared
 * one, so a base image cannot change under the overlays that stand on it through another of our
 * processes.
 *
 * `sparse` without a path lives in memory (memfd_create(2)) and ends with the process.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "runtime/base/io.h"
#include "runtime/base/json.h"
#include "runtime/base/parse.h"
#include "runtime/block/layer.h"

#define ROUND_MAX (1u << 30)

struct file {
    int fd;
    char *path; /* NULL = in memory */
    bool readonly, sparse, device, shared;
    uint64_t size, round;
    bool has_digest;
    uint8_t digest[SHA256_SIZE];
    atomic_int lost; /* errno of a flush that failed; 0 = none did */
};

static const char *what(const struct file *f)
{
    return f->path ? f->path : "memory";
}

static void file_free(struct file *f)
{
    if (f->fd >= 0)
        (void)close(f->fd);
    free(f->path);
    free(f);
}

DEFINE_CLEANUP(cleanup_file_p, struct file *, file_free)

static int file_close(struct block *next, void *self, struct error *err)
{
    struct file *f = self;
    int rc = 0;

    (void)next;
    /* The last chance to hear of a write that the kernel could not place (NFS, quota). */
    if (close(steal_fd(&f->fd)) < 0 && errno != EINTR)
        rc = error_sys(err, "%s: close", what(f));
    file_free(f);
    return rc;
}

static int file_describe(void *self, struct json_object *obj, struct error *err)
{
    const struct file *f = self;
    char hex[SHA256_HEX_SIZE], text[8 + SHA256_HEX_SIZE];

    if (f->path && json_object_object_add(obj, "path", json_object_new_string(f->path)) < 0)
        return error_oom(err);
    if (f->sparse)
        return json_object_object_add(obj, "size", json_object_new_uint64(f->size)) < 0
                   ? error_oom(err)
                   : 0;
    if (json_object_object_add(obj, "readonly", json_object_new_boolean(f->readonly)) < 0 ||
        json_object_object_add(obj, "round", json_object_new_uint64(f->round)) < 0 ||
        json_object_object_add(obj, "shared", json_object_new_boolean(f->shared)) < 0)
        return error_oom(err);
    if (!f->has_digest)
        return 0;
    digest_hex(f->digest, hex);
    (void)snprintf(text, sizeof(text), "sha256:%s", hex);
    if (json_object_object_add(obj, "digest", json_object_new_string(text)) < 0)
        return error_oom(err);
    return 0;
}

static enum block_cap file_can(struct block *next, void *self, enum block_feature feature)
{
    const struct file *f = self;

    (void)next;
    switch (feature) {
    case BLOCK_CAN_FUA:
        return BLOCK_EMULATE;
    case BLOCK_CAN_EXTENTS:
        return f->device ? BLOCK_EMULATE : BLOCK_NATIVE;
    case BLOCK_CAN_TRIM: /* a discarded range of a device may read as anything: not our contract */
        return f->readonly || f->device ? BLOCK_NONE : BLOCK_NATIVE;
    default:
        return f->readonly ? BLOCK_NONE : BLOCK_NATIVE;
    }
}

static int file_size(struct block *next, void *self, uint64_t *ret_size, struct error *err)
{
    (void)next;
    (void)err;
    *ret_size = ((struct file *)self)->size;
    return 0;
}

static int file_identity(struct block *next, void *self, struct block_identity *ret,
                         struct error *err)
{
    const struct file *f = self;
    struct stat st;

    (void)next;
    if (fstat(f->fd, &st) < 0)
        return error_sys(err, "%s: stat", what(f));
    *ret = (struct block_identity){.size = f->size, .has_digest = f->has_digest};
    memcpy(ret->digest, f->digest, sizeof(ret->digest));
    if (f->path && !f->device) {
        ret->inode = st.st_ino;
        ret->mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    }
    return 0;
}

static int file_pread(struct block *next, void *self, struct io *io, struct error *err)
{
    struct file *f = self;

    (void)next;
    ssize_t n = io_pread(f->fd, io->buf, io->len, io->offset, what(f), err);
    if (n < 0)
        return -1;
    if ((uint64_t)n < io->len) /* past the end: the part that rounding added */
        memset((char *)io->buf + n, 0, io->len - (size_t)n);
    return 0;
}

static int file_pwrite(struct block *next, void *self, struct io *io, struct error *err)
{
    struct file *f = self;

    (void)next;
    return io_pwrite(f->fd, io->data, io->len, io->offset, what(f), err);
}

static int file_zero(struct block *next, void *self, struct io *io, struct error *err)
{
    struct file *f = self;

    (void)next;
    if (f->device) {
        uint64_t range[2] = {io->offset, io->len};
        if ((io->offset | io->len) % 4096 == 0 && ioctl(f->fd, BLKZEROOUT, range) == 0)
            return 0;
    }
    return punch_file(f->fd, io->offset, io->len, what(f), err);
}

static int file_flush(struct block *next, void *self, struct error *err)
{
    struct file *f = self;
    int lost = atomic_load(&f->lost);

    (void)next;
    while (!f->readonly && !lost && fdatasync(f->fd) < 0) {
        if (errno == EINTR)
            continue;
        lost = errno;
        atomic_store(&f->lost, lost);
        return error_sys(err, "%s: flush", what(f));
    }
    /* The kernel tells of what it could not write once, and lets the pages go (fsync(2)). */
    if (lost)
        return error_set(err, lost,
                         "%s: flush: an earlier one failed, and what was written is lost", what(f));
    return 0;
}

static int own_extents(struct block *next, void *self, uint64_t offset, uint64_t len,
                       struct extents *ret, struct error *err)
{
    struct file *f = self;
    size_t first = ret->count ? ret->count - 1 : 0; /* the last one may have been merged with */

    (void)next;
    if (file_extents(f->fd, offset, len, what(f), ret, err) < 0)
        return -1;
    /* Nobody writes a file that is only read: all of it is what it was. */
    for (size_t i = first; f->readonly && i < ret->count; i++)
        ret->items[i].flags |= EXTENT_BASE;
    return 0;
}

#define FILE_OPS(name)                                                                             \
    {                                                                                              \
        .type = name, .close = file_close, .describe = file_describe, .can = file_can,             \
        .size = file_size, .identity = file_identity, .pread = file_pread, .pwrite = file_pwrite,  \
        .zero = file_zero, .trim = file_zero, .flush = file_flush, .extents = own_extents,         \
    }

static const struct block_ops file_ops = FILE_OPS("file"), sparse_ops = FILE_OPS("sparse");

/* Opens the file of a source and looks what it is. */
static int file_start(struct file *f, int flags, struct error *err)
{
    struct stat st;

    /* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): json_required() saw to it. */
    f->fd = open(f->path,
                 flags | (f->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY |
                     O_NONBLOCK, /* a FIFO must not hold us up */
                 0600);          /* it may come to hold a guest's memory */
    if (f->fd < 0)
        return error_sys(err, "%s: open", f->path);
    if (fstat(f->fd, &st) < 0)
        return error_sys(err, "%s: stat", f->path);
    f->device = S_ISBLK(st.st_mode);
    if (io_size(f->fd, f->path, &f->size, err) < 0)
        return -1;
    return lock_file(f->fd, !f->readonly && !f->shared, f->path, err);
}

static int parse_digest(const char *text, struct file *f, struct error *err)
{
    if (strncmp(text, "sha256:", 7) != 0 || strlen(text) != 7 + 2 * SHA256_SIZE ||
        parse_hex(text + 7, 2 * SHA256_SIZE, f->digest, SHA256_SIZE) < 0)
        return error_set(err, EINVAL, "digest: \"%s\" is not sha256: and 64 hex digits", text);
    f->has_digest = true;
    return 0;
}

static struct file *file_new(const char *path, struct error *err)
{
    CLEANUP(cleanup_file_p) struct file *f = calloc(1, sizeof(*f));

    if (!f) {
        error_oom(err);
        return NULL;
    }
    f->fd = -1;
    f->round = 1;
    if (path && !(f->path = strdup(path))) {
        error_oom(err);
        return NULL;
    }
    return steal_ptr(&f);
}

static struct block *file_open(struct block *next, struct json_object *params, const char *name,
                               const struct context *ctx, struct error *err)
{
    const char *path, *digest = NULL;
    uint64_t round = 1;
    bool readonly = false, shared = false;

    (void)next;
    if (json_required(json_get_string(params, "path", "file", &path, err), "path", "file", err) <
            0 ||
        json_get_bool(params, "readonly", "file", &readonly, err) < 0 ||
        json_get_bool(params, "shared", "file", &shared, err) < 0 ||
        json_get_string(params, "digest", "file", &digest, err) < 0 ||
        json_get_u64(params, "round", 1, ROUND_MAX, "file", &round, err) < 0)
        return NULL;
    CLEANUP(cleanup_file_p) struct file *f = file_new(path, err);
    if (!f || (digest && parse_digest(digest, f, err) < 0))
        return NULL;
    f->readonly = readonly;
    f->shared = shared;
    f->round = round;
    if (file_start(f, 0, err) < 0)
        return NULL;
    if (f->size > BLOCK_DEVICE_MAX) {
        error_set(err, EFBIG, "%s: more than the limit of %llu bytes", path,
                  (unsigned long long)BLOCK_DEVICE_MAX);
        return NULL;
    }
    if (f->device && f->size % round != 0 && !readonly) {
        error_set(err, EINVAL, "%s: a block device of %llu bytes cannot grow to a multiple of %llu",
                  path, (unsigned long long)f->size, (unsigned long long)round);
        return NULL;
    }
    f->size = (f->size + round - 1) / round * round;
    struct block *b = block_layer(NULL, &file_ops, f, name, ctx, err);
    if (b)
        (void)steal_ptr(&f);
    return b;
}

static struct block *sparse_open(struct block *next, struct json_object *params, const char *name,
                                 const struct context *ctx, struct error *err)
{
    const char *path = NULL;
    uint64_t size;

    (void)next;
    if (json_required(json_get_u64(params, "size", 0, BLOCK_DEVICE_MAX, "sparse", &size, err),
                      "size", "sparse", err) < 0 ||
        json_get_string(params, "path", "sparse", &path, err) < 0)
        return NULL;
    CLEANUP(cleanup_file_p) struct file *f = file_new(path, err);
    if (!f)
        return NULL;
    f->sparse = true;
    if (path) {
        if (file_start(f, O_CREAT, err) < 0)
            return NULL;
        if (f->device || (f->size != 0 && f->size != size)) {
            error_set(err, EINVAL, "%s: is %s of %llu bytes, a file of %llu wanted", path,
                      f->device ? "a device" : "a file", (unsigned long long)f->size,
                      (unsigned long long)size);
            return NULL;
        }
    } else {
        f->fd = memfd_create("drafter-sparse", MFD_CLOEXEC);
        if (f->fd < 0) {
            error_sys(err, "memory: memfd_create");
            return NULL;
        }
    }
    /* Not when it fits already: that would change the file's time, and so its identity as a base.
     */
    if (f->size != size && ftruncate(f->fd, (off_t)size) < 0) {
        error_sys(err, "%s: set the size to %llu bytes", what(f), (unsigned long long)size);
        return NULL;
    }
    f->size = size;
    struct block *b = block_layer(NULL, &sparse_ops, f, name, ctx, err);
    if (b)
        (void)steal_ptr(&f);
    return b;
}

static const char *const file_keys[] = {"path", "readonly", "round", "shared", "digest", NULL};
static const char *const sparse_keys[] = {"size", "path", NULL};

const struct layer_type file_layer = {"file", file_keys, true, file_open};
const struct layer_type sparse_layer = {"sparse", sparse_keys, true, sparse_open};
