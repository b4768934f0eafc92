// SPDX-License-Identifier: Apache-2.0
/* delay.c - makes requests slow
 *
 * {"type": "delay", "read": "10ms", "write": 5000000, "flush": 0}
 *
 * Each request waits its time before it goes on; requests wait side by side, not in line. Zero and
 * trim wait like writes. block_cancel() ends the waiting.
 */
#include <errno.h>
#include <time.h>

#include "runtime/base/json.h"
#include "runtime/block/layer.h"

struct delay {
    uint64_t read, write, flush; /* ns */
    pthread_mutex_t lock;        /* guards cancelled */
    pthread_cond_t wake;
    bool cancelled;
};

static int wait_for(struct delay *d, uint64_t ns, struct error *err)
{
    struct timespec end;

    if (ns == 0)
        return 0;
    (void)clock_gettime(CLOCK_MONOTONIC, &end);
    ns += (uint64_t)end.tv_nsec;
    end.tv_sec += (time_t)(ns / 1000000000);
    end.tv_nsec = (long)(ns % 1000000000);
    lock_scope(&d->lock);
    while (!d->cancelled)
        if (pthread_cond_timedwait(&d->wake, &d->lock, &end) == ETIMEDOUT)
            return 0;
    return error_set(err, ECANCELED, "interrupted while delayed");
}

static void delay_cancel(void *self)
{
    struct delay *d = self;
    lock_scope(&d->lock);

    d->cancelled = true;
    pthread_cond_broadcast(&d->wake);
}

static int delay_pread(struct block *next, void *self, struct io *io, struct error *err)
{
    if (wait_for(self, ((struct delay *)self)->read, err) < 0)
        return -1;
    return block_read(next, io->buf, io->len, io->offset, err);
}

static int delay_pwrite(struct block *next, void *self, struct io *io, struct error *err)
{
    if (wait_for(self, ((struct delay *)self)->write, err) < 0)
        return -1;
    return block_write(next, io->data, io->len, io->offset, io->flags, err);
}

static int delay_zero(struct block *next, void *self, struct io *io, struct error *err)
{
    if (wait_for(self, ((struct delay *)self)->write, err) < 0)
        return -1;
    return block_zero(next, io->len, io->offset, io->flags, err);
}

static int delay_trim(struct block *next, void *self, struct io *io, struct error *err)
{
    if (wait_for(self, ((struct delay *)self)->write, err) < 0)
        return -1;
    return block_trim(next, io->len, io->offset, err);
}

static int delay_flush(struct block *next, void *self, struct error *err)
{
    if (wait_for(self, ((struct delay *)self)->flush, err) < 0)
        return -1;
    return block_flush(next, err);
}

static int delay_extents(struct block *next, void *self, uint64_t offset, uint64_t len,
                         struct extents *ret, struct error *err)
{
    (void)self;
    return block_extents(next, offset, len, ret, err);
}

static enum block_cap delay_can(struct block *next, void *self, enum block_feature feature)
{
    (void)self;
    return block_can(next, feature);
}

static int delay_describe(void *self, struct json_object *obj, struct error *err)
{
    const struct delay *d = self;

    if (json_object_object_add(obj, "read", json_object_new_uint64(d->read)) < 0 ||
        json_object_object_add(obj, "write", json_object_new_uint64(d->write)) < 0 ||
        json_object_object_add(obj, "flush", json_object_new_uint64(d->flush)) < 0)
        return error_oom(err);
    return 0;
}

static int delay_close(struct block *next, void *self, struct error *err)
{
    struct delay *d = self;

    (void)next;
    (void)err;
    pthread_cond_destroy(&d->wake);
    pthread_mutex_destroy(&d->lock);
    free(d);
    return 0;
}

static const struct block_ops delay_ops = {
    .type = "delay",
    .close = delay_close,
    .describe = delay_describe,
    .can = delay_can,
    .pread = delay_pread,
    .pwrite = delay_pwrite,
    .zero = delay_zero,
    .trim = delay_trim,
    .flush = delay_flush,
    .extents = delay_extents,
    .cancel = delay_cancel,
};

static struct block *delay_open(struct block *next, struct json_object *params, const char *name,
                                const struct context *ctx, struct error *err)
{
    pthread_condattr_t attr;
    struct delay *d = calloc(1, sizeof(*d));

    if (!d) {
        error_oom(err);
        return NULL;
    }
    pthread_mutex_init(&d->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&d->wake, &attr);
    pthread_condattr_destroy(&attr);
    struct block *b = NULL;
    if (param_duration(params, "read", "delay", &d->read, err) >= 0 &&
        param_duration(params, "write", "delay", &d->write, err) >= 0 &&
        param_duration(params, "flush", "delay", &d->flush, err) >= 0)
        b = block_layer(next, &delay_ops, d, name, ctx, err);
    if (!b)
        (void)delay_close(NULL, d, NULL);
    return b;
}

static const char *const keys[] = {"read", "write", "flush", NULL};

const struct layer_type delay_layer = {"delay", keys, false, delay_open};
