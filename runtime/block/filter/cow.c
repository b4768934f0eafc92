// SPDX-License-Identifier: Apache-2.0
/* cow.c - copy on write: the base is never written, changes live in an overlay
 *
 * {"type": "cow", "overlay": PATH, "state": PATH, "blockSize": 65536, "readonly": false}
 *
 *     read  --> block in the overlay?  yes: overlay, at the device's own offset (a sparse file)
 *                                      no:  the layer below
 *     write --> the block moves into the overlay whole, then the write is answered
 *
 * Theory of operation. A block's bit goes from clear to set once and never back, and it is set
 * after the overlay holds the whole block. So a read needs no lock: it sees the bit clear and reads
 * the base, which never changes (the write it may miss is not answered yet), or sees it set and
 * finds the block complete. Writes to a block whose bit is clear test, copy, write and set under
 * one hold of the block's lock; once the bit is set they go straight to the overlay.
 *
 * Bits reach the state file with a flush, after the overlay was synced (cow_state.h). What a
 * process killed at any instant leaves is therefore, for every block: the base's content, or the
 * overlay's since the block moved there. Later writes to a block that lives in the overlay are done
 * in place and are torn, if at all, between 4 KiB pages, as on any disk.
 *
 * A read-only overlay below another one is a base like any other: its identity is made of its id,
 * generation and the file's time, so it cannot change unnoticed.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/base/io.h"
#include "runtime/base/json.h"
#include "runtime/base/output.h"
#include "runtime/block/filter/cow_state.h"
#include "runtime/block/layer.h"

#define LOCKS 64u

struct cow {
    char *overlay, *state_path;
    int overlay_fd, state_fd;
    bool readonly;
    bool lowest; /* no cow below: what we do not hold is the base image's */
    uint32_t block_size;
    uint64_t size;
    struct cow_state *state;
    atomic_bool unflushed; /* something was written since the last flush began */

    /* Lock order: flush_lock before none; a block's lock before those of layers below. */
    pthread_mutex_t flush_lock;   /* one commit at a time */
    pthread_mutex_t locks[LOCKS]; /* of block b: locks[b % LOCKS]; held while its bit becomes set */
};

static void cow_free(struct cow *c)
{
    cow_state_free(c->state);
    if (c->overlay_fd >= 0)
        (void)close(c->overlay_fd);
    if (c->state_fd >= 0)
        (void)close(c->state_fd);
    for (unsigned i = 0; i < LOCKS; i++)
        pthread_mutex_destroy(&c->locks[i]);
    pthread_mutex_destroy(&c->flush_lock);
    free(c->overlay);
    free(c->state_path);
    free(c);
}

DEFINE_CLEANUP(cleanup_cow_p, struct cow *, cow_free)

static int cow_close(struct block *next, void *self, struct error *err)
{
    (void)next;
    (void)err;
    cow_free(self);
    return 0;
}

static int cow_describe(void *self, struct json_object *obj, struct error *err)
{
    const struct cow *c = self;

    if (json_object_object_add(obj, "overlay", json_object_new_string(c->overlay)) < 0 ||
        json_object_object_add(obj, "state", json_object_new_string(c->state_path)) < 0 ||
        json_object_object_add(obj, "blockSize", json_object_new_uint64(c->block_size)) < 0 ||
        json_object_object_add(obj, "readonly", json_object_new_boolean(c->readonly)) < 0)
        return error_oom(err);
    return 0;
}

static enum block_cap cow_can(struct block *next, void *self, enum block_feature feature)
{
    const struct cow *c = self;

    (void)next;
    if (feature == BLOCK_CAN_EXTENTS)
        return BLOCK_NATIVE;
    if (c->readonly)
        return BLOCK_NONE;
    return feature == BLOCK_CAN_FUA ? BLOCK_EMULATE : BLOCK_NATIVE;
}

static int cow_identity(struct block *next, void *self, struct block_identity *ret,
                        struct error *err)
{
    const struct cow *c = self;
    const struct cow_header *h = cow_state_header(c->state);
    struct {
        uint8_t id[16];
        uint64_t generation, seconds, nanoseconds;
    } key = {.generation = h->generation};
    struct stat st;

    (void)next;
    /* Blocks that are in the overlay are written in place: only the file's time tells of that. */
    if (fstat(c->overlay_fd, &st) < 0)
        return error_sys(err, "%s: stat", c->overlay);
    key.seconds = (uint64_t)st.st_mtim.tv_sec;
    key.nanoseconds = (uint64_t)st.st_mtim.tv_nsec;
    memcpy(key.id, h->id, sizeof(key.id));
    *ret = (struct block_identity){.size = c->size, .has_digest = true};
    return digest_of(&key, sizeof(key), ret->digest, err);
}

static int cow_pread(struct block *next, void *self, struct io *io, struct error *err)
{
    struct cow *c = self;
    const uint64_t end = io->offset + io->len;
    const uint64_t last = (end - 1) / c->block_size + 1;
    char *buf = io->buf;

    for (uint64_t pos = io->offset; pos < end;) {
        uint64_t block = pos / c->block_size;
        bool here = cow_state_has(c->state, block);
        uint64_t stop = cow_state_run(c->state, block + 1, last, here) * c->block_size;
        if (stop > end)
            stop = end;
        if (here ? io_pread_exact(c->overlay_fd, buf, stop - pos, pos, c->overlay, err) < 0
                 : block_read(next, buf, stop - pos, pos, err) < 0)
            return -1;
        buf += stop - pos;
        pos = stop;
    }
    return 0;
}

/* Writes data, or zeros when data is NULL, into the overlay. */
static int put(struct cow *c, const void *data, uint64_t len, uint64_t offset, struct error *err)
{
    return data ? io_pwrite(c->overlay_fd, data, len, offset, c->overlay, err)
                : punch_file(c->overlay_fd, offset, len, c->overlay, err);
}

/* Moves a part of one block, or all of it, into the overlay. */
static int put_first(struct cow *c, struct block *next, uint64_t block, const void *data,
                     uint64_t len, uint64_t offset, struct error *err)
{
    lock_scope(&c->locks[block % LOCKS]);

    if (cow_state_has(c->state, block)) /* someone was faster */
        return put(c, data, len, offset, err);
    const uint64_t start = block * c->block_size;
    const uint64_t whole = c->size - start < c->block_size ? c->size - start : c->block_size;
    if (len == whole) {
        if (put(c, data, len, offset, err) < 0)
            return -1;
    } else {
        cleanup_free char *buf = malloc(whole);
        if (!buf)
            return error_oom(err);
        if (block_read(next, buf, whole, start, err) < 0)
            return error_wrap(err, "copy block %llu", (unsigned long long)block);
        if (data)
            memcpy(buf + (offset - start), data, len);
        else
            memset(buf + (offset - start), 0, len);
        if (put(c, buf, whole, start, err) < 0)
            return -1;
    }
    cow_state_set(c->state, block);
    return 0;
}

static int cow_put(struct block *next, struct cow *c, const struct io *io, struct error *err)
{
    const uint64_t end = io->offset + io->len;
    const uint64_t last = (end - 1) / c->block_size + 1;
    const char *data = io->data;

    for (uint64_t pos = io->offset; pos < end;) {
        uint64_t block = pos / c->block_size;
        uint64_t run = cow_state_run(c->state, block, last, true);
        uint64_t stop = (run > block ? run : block + 1) * c->block_size;
        if (stop > end)
            stop = end;
        if (run > block ? put(c, data, stop - pos, pos, err) < 0
                        : put_first(c, next, block, data, stop - pos, pos, err) < 0)
            return -1;
        if (data)
            data += stop - pos;
        pos = stop;
    }
    atomic_store(&c->unflushed, true);
    return 0;
}

static int cow_pwrite(struct block *next, void *self, struct io *io, struct error *err)
{
    return cow_put(next, self, io, err);
}

static int cow_zero(struct block *next, void *self, struct io *io, struct error *err)
{
    io->data = NULL;
    return cow_put(next, self, io, err);
}

/* Frees what the overlay holds of the range; what it does not hold may stay. */
static int cow_trim(struct block *next, void *self, struct io *io, struct error *err)
{
    struct cow *c = self;
    const uint64_t end = io->offset + io->len;
    const uint64_t last = (end - 1) / c->block_size + 1;

    (void)next;
    for (uint64_t pos = io->offset; pos < end;) {
        uint64_t block = pos / c->block_size;
        bool here = cow_state_has(c->state, block);
        uint64_t stop = cow_state_run(c->state, block + 1, last, here) * c->block_size;
        if (stop > end)
            stop = end;
        if (here && punch_file(c->overlay_fd, pos, stop - pos, c->overlay, err) < 0)
            return -1;
        pos = stop;
    }
    atomic_store(&c->unflushed, true);
    return 0;
}

static int cow_flush(struct block *next, void *self, struct error *err)
{
    struct cow *c = self;
    lock_scope(&c->flush_lock);

    (void)next;
    /* Under the lock: who finds the mark taken waits for the flush that took it. */
    if (c->readonly || !atomic_exchange(&c->unflushed, false))
        return 0;
    if (cow_state_commit(c->state, c->overlay_fd, c->overlay, err) < 0) {
        atomic_store(&c->unflushed, true);
        return -1;
    }
    return 0;
}

static int cow_extents(struct block *next, void *self, uint64_t offset, uint64_t len,
                       struct extents *ret, struct error *err)
{
    struct cow *c = self;
    const uint64_t end = offset + len;
    const uint64_t last = (end - 1) / c->block_size + 1;

    for (uint64_t pos = offset; pos < end;) {
        uint64_t block = pos / c->block_size;
        bool here = cow_state_has(c->state, block);
        uint64_t stop = cow_state_run(c->state, block + 1, last, here) * c->block_size;
        if (stop > end)
            stop = end;
        if (here) {
            if (file_extents(c->overlay_fd, pos, stop - pos, c->overlay, ret, err) < 0)
                return -1;
        } else {
            cleanup_extents struct extents below = {0};
            if (block_extents(next, pos, stop - pos, &below, err) < 0)
                return -1;
            for (size_t i = 0; i < below.count; i++)
                if (extents_add(ret, below.items[i].offset, below.items[i].len,
                                below.items[i].flags | (c->lowest ? EXTENT_BASE : 0), err) < 0)
                    return -1;
        }
        pos = stop;
    }
    return 0;
}

static const struct block_ops cow_ops = {
    .type = "cow",
    .close = cow_close,
    .describe = cow_describe,
    .can = cow_can,
    .identity = cow_identity,
    .pread = cow_pread,
    .pwrite = cow_pwrite,
    .zero = cow_zero,
    .trim = cow_trim,
    .flush = cow_flush,
    .extents = cow_extents,
};

/* ---- opening ---- */

static int open_file(const char *path, bool create, bool readonly, struct error *err)
{
    /* It may hold a guest's memory: nobody else reads it. */
    if (create && output_make_private_parent(path, err) < 0)
        return -1;
    int fd = open(path,
                  (readonly ? O_RDONLY : O_RDWR) | (create ? O_CREAT : 0) | O_CLOEXEC | O_NOCTTY |
                      O_NONBLOCK,
                  0600);
    return fd < 0 ? error_sys(err, "%s: open", path) : fd;
}

/* True when the file holds data anywhere. */
static int has_data(int fd, const char *what, struct error *err)
{
    off_t at = lseek(fd, 0, SEEK_DATA);

    if (at >= 0)
        return 1;
    return errno == ENXIO ? 0 : error_sys(err, "%s: seek", what);
}

/* The state file must be empty or full of sense before an overlay is touched, and a new state must
 * not adopt an overlay that someone filled: what it holds would silently be gone. */
static int check_overlay(struct cow *c, bool begun, struct error *err)
{
    struct stat st;

    if (fstat(c->overlay_fd, &st) < 0)
        return error_sys(err, "%s: stat", c->overlay);
    if (!S_ISREG(st.st_mode))
        return error_set(err, EINVAL, "%s: not a regular file", c->overlay);
    if (!begun) {
        int data = has_data(c->overlay_fd, c->overlay, err);
        if (data < 0)
            return -1;
        if (data)
            return error_set(err, ENODATA,
                             "%s: the overlay holds data, but its state file %s is missing or "
                             "empty; give it, or remove the overlay",
                             c->overlay, c->state_path);
    }
    return 0;
}

static int is_begun(int fd, const char *what, struct error *err)
{
    char buf[2 * COW_STATE_PAGE] = {0};

    ssize_t n = io_pread(fd, buf, sizeof(buf), 0, what, err);
    return n < 0 ? -1 : !io_is_zero(buf, sizeof(buf));
}

static int fit_overlay(struct cow *c, struct error *err)
{
    struct stat st;

    if (fstat(c->overlay_fd, &st) < 0)
        return error_sys(err, "%s: stat", c->overlay);
    if ((uint64_t)st.st_size == c->size)
        return 0;
    uint64_t count = cow_state_count(c->state);
    if (count > 0)
        return error_set(err, EBADMSG,
                         "%s: the overlay has %lld bytes, its device %llu, and %llu blocks are to "
                         "be there: truncated or of another device",
                         c->overlay, (long long)st.st_size, (unsigned long long)c->size,
                         (unsigned long long)count);
    if (c->readonly)
        return 0;
    if (ftruncate(c->overlay_fd, (off_t)c->size) < 0)
        return error_sys(err, "%s: set the size to %llu bytes", c->overlay,
                         (unsigned long long)c->size);
    return 0;
}

static int cow_start(struct cow *c, struct block *next, struct error *err)
{
    struct cow_header want = {.size = c->size, .block_size = c->block_size};

    c->state_fd = open_file(c->state_path, !c->readonly, c->readonly, err);
    if (c->state_fd < 0 || lock_file(c->state_fd, !c->readonly, c->state_path, err) < 0)
        return -1;
    int begun = is_begun(c->state_fd, c->state_path, err);
    if (begun < 0)
        return -1;
    c->overlay_fd = open_file(c->overlay, !c->readonly && !begun, c->readonly, err);
    if (c->overlay_fd < 0 || lock_file(c->overlay_fd, !c->readonly, c->overlay, err) < 0 ||
        check_overlay(c, begun, err) < 0 || block_identity(next, &want.base, err) < 0)
        return -1;
    c->state = cow_state_open(c->state_fd, c->state_path, &want, c->readonly, NULL, err);
    return c->state ? fit_overlay(c, err) : -1;
}

static int block_size_of(struct json_object *params, uint32_t *ret, struct error *err)
{
    uint64_t n = BLOCK_SIZE_DEFAULT;

    if (json_get_u64(params, "blockSize", BLOCK_SIZE_MIN, BLOCK_SIZE_MAX, "cow", &n, err) < 0)
        return -1;
    if (n & (n - 1))
        return error_set(err, EINVAL, "blockSize: %llu is not a power of two",
                         (unsigned long long)n);
    *ret = (uint32_t)n;
    return 0;
}

static struct block *cow_open(struct block *next, struct json_object *params, const char *name,
                              const struct context *ctx, struct error *err)
{
    const char *overlay, *state;
    bool readonly = false;
    uint32_t unit = BLOCK_SIZE_DEFAULT;

    if (json_required(json_get_string(params, "overlay", "cow", &overlay, err), "overlay", "cow",
                      err) < 0 ||
        json_required(json_get_string(params, "state", "cow", &state, err), "state", "cow", err) <
            0 ||
        json_get_bool(params, "readonly", "cow", &readonly, err) < 0 ||
        block_size_of(params, &unit, err) < 0)
        return NULL;
    CLEANUP(cleanup_cow_p) struct cow *c = calloc(1, sizeof(*c));
    if (!c) {
        error_oom(err);
        return NULL;
    }
    c->overlay_fd = c->state_fd = -1;
    c->readonly = readonly;
    c->block_size = unit;
    c->size = block_size(next);
    c->lowest = !block_find(next, "cow", NULL);
    pthread_mutex_init(&c->flush_lock, NULL);
    for (unsigned i = 0; i < LOCKS; i++)
        pthread_mutex_init(&c->locks[i], NULL);
    c->overlay = strdup(overlay);
    c->state_path = strdup(state);
    if (!c->overlay || !c->state_path) {
        error_oom(err);
        return NULL;
    }
    if (cow_start(c, next, err) < 0)
        return NULL;
    struct block *b = block_layer(next, &cow_ops, c, name, ctx, err);
    if (b)
        (void)steal_ptr(&c);
    return b;
}

static const char *const keys[] = {"overlay", "state", "blockSize", "readonly", NULL};

const struct layer_type cow_layer = {"cow", keys, false, cow_open};
