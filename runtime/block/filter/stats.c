// SPDX-License-Identifier: Apache-2.0
/* stats.c - counts what passes one place of a stack */
#include "runtime/block/filter/stats.h"

#include <time.h>

#include "runtime/block/layer.h"

struct counter {
    atomic_ullong requests, errors, bytes, time_ns;
};

struct counters {
    struct counter op[STATS_OPS];
};

static const char *const names[] = {"read", "write", "zero", "trim", "flush"};
_Static_assert(ARRAY_SIZE(names) == STATS_OPS, "one name an operation");

static uint64_t now_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static int count(struct counters *c, enum stats_op op, uint64_t len, uint64_t start, int rc)
{
    struct counter *k = &c->op[op];

    atomic_fetch_add_explicit(&k->requests, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&k->time_ns, now_ns() - start, memory_order_relaxed);
    if (rc < 0)
        atomic_fetch_add_explicit(&k->errors, 1, memory_order_relaxed);
    else
        atomic_fetch_add_explicit(&k->bytes, len, memory_order_relaxed);
    return rc;
}

#define COUNT(op, len, call)                                                                       \
    uint64_t start = now_ns();                                                                     \
    return count(self, op, len, start, (call))

static int stats_pread(struct block *next, void *self, struct io *io, struct error *err)
{
    COUNT(STATS_READ, io->len, block_read(next, io->buf, io->len, io->offset, err));
}

static int stats_pwrite(struct block *next, void *self, struct io *io, struct error *err)
{
    COUNT(STATS_WRITE, io->len, block_write(next, io->data, io->len, io->offset, io->flags, err));
}

static int stats_zero(struct block *next, void *self, struct io *io, struct error *err)
{
    COUNT(STATS_ZERO, io->len, block_zero(next, io->len, io->offset, io->flags, err));
}

static int stats_trim(struct block *next, void *self, struct io *io, struct error *err)
{
    COUNT(STATS_TRIM, io->len, block_trim(next, io->len, io->offset, err));
}

static int stats_flush(struct block *next, void *self, struct error *err)
{
    COUNT(STATS_FLUSH, 0, block_flush(next, err));
}

static int stats_extents(struct block *next, void *self, uint64_t offset, uint64_t len,
                         struct extents *ret, struct error *err)
{
    (void)self;
    return block_extents(next, offset, len, ret, err);
}

static enum block_cap stats_can(struct block *next, void *self, enum block_feature feature)
{
    (void)self;
    return block_can(next, feature);
}

static int stats_close(struct block *next, void *self, struct error *err)
{
    (void)next;
    (void)err;
    free(self);
    return 0;
}

static const struct block_ops stats_ops = {
    .type = "stats",
    .close = stats_close,
    .can = stats_can,
    .pread = stats_pread,
    .pwrite = stats_pwrite,
    .zero = stats_zero,
    .trim = stats_trim,
    .flush = stats_flush,
    .extents = stats_extents,
};

static struct block *stats_open(struct block *next, struct json_object *params, const char *name,
                                const struct context *ctx, struct error *err)
{
    struct counters *c = calloc(1, sizeof(*c));

    (void)params;
    if (!c) {
        error_oom(err);
        return NULL;
    }
    struct block *b = block_layer(next, &stats_ops, c, name, ctx, err);
    if (!b)
        free(c);
    return b;
}

static const char *const keys[] = {NULL};

const struct layer_type stats_layer = {"stats", keys, false, stats_open};

const char *stats_op_name(enum stats_op op)
{
    return names[op];
}

int stats_get(struct block *top, struct stats *ret)
{
    void *self;

    if (!block_find(top, "stats", &self))
        return -1;
    const struct counters *c = self;
    for (unsigned i = 0; i < STATS_OPS; i++)
        ret->op[i] = (struct stats_counter){
            .requests = atomic_load(&c->op[i].requests),
            .errors = atomic_load(&c->op[i].errors),
            .bytes = atomic_load(&c->op[i].bytes),
            .time_ns = atomic_load(&c->op[i].time_ns),
        };
    return 0;
}
