// SPDX-License-Identifier: Apache-2.0
/* log.c - tells of every request that passes, at level info
 *
 * {"type": "log", "tag": TEXT}
 *
 * Where the stack's own trace (level debug) tells of every layer, this one tells what passes one
 * place, with the time it took.
 */
#include <string.h>
#include <time.h>

#include "runtime/base/json.h"
#include "runtime/block/layer.h"

struct logger {
    const struct log *log;
    char *tag;
};

static uint64_t now_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static int tell(const struct logger *l, struct block *next, const char *op, uint64_t offset,
                uint64_t len, uint64_t start, int rc, const struct error *err)
{
    log_info(l->log, "block request", log_str("device", block_name(next)), log_str("tag", l->tag),
             log_str("op", op), log_uint("offset", offset), log_uint("len", len),
             log_uint("us", (now_ns() - start) / 1000),
             log_str("result", rc == 0 ? "ok"
                               : err   ? err->text
                                       : "failed"));
    return rc;
}

#define TELL(op, offset, len, call)                                                                \
    uint64_t start = now_ns();                                                                     \
    int rc = (call);                                                                               \
    return tell(self, next, op, offset, len, start, rc, err)

static int log_pread(struct block *next, void *self, struct io *io, struct error *err)
{
    TELL("read", io->offset, io->len, block_read(next, io->buf, io->len, io->offset, err));
}

static int log_pwrite(struct block *next, void *self, struct io *io, struct error *err)
{
    TELL("write", io->offset, io->len,
         block_write(next, io->data, io->len, io->offset, io->flags, err));
}

static int log_zero(struct block *next, void *self, struct io *io, struct error *err)
{
    TELL("zero", io->offset, io->len, block_zero(next, io->len, io->offset, io->flags, err));
}

static int log_trim(struct block *next, void *self, struct io *io, struct error *err)
{
    TELL("trim", io->offset, io->len, block_trim(next, io->len, io->offset, err));
}

static int log_flush(struct block *next, void *self, struct error *err)
{
    TELL("flush", 0, 0, block_flush(next, err));
}

static int log_extents(struct block *next, void *self, uint64_t offset, uint64_t len,
                       struct extents *ret, struct error *err)
{
    TELL("extents", offset, len, block_extents(next, offset, len, ret, err));
}

static enum block_cap log_can(struct block *next, void *self, enum block_feature feature)
{
    (void)self;
    return block_can(next, feature);
}

static int log_describe(void *self, struct json_object *obj, struct error *err)
{
    const struct logger *l = self;

    return json_object_object_add(obj, "tag", json_object_new_string(l->tag)) < 0 ? error_oom(err)
                                                                                  : 0;
}

static int log_close(struct block *next, void *self, struct error *err)
{
    struct logger *l = self;

    (void)next;
    (void)err;
    free(l->tag);
    free(l);
    return 0;
}

static const struct block_ops log_ops = {
    .type = "log",
    .close = log_close,
    .describe = log_describe,
    .can = log_can,
    .pread = log_pread,
    .pwrite = log_pwrite,
    .zero = log_zero,
    .trim = log_trim,
    .flush = log_flush,
    .extents = log_extents,
};

static struct block *log_open(struct block *next, struct json_object *params, const char *name,
                              const struct context *ctx, struct error *err)
{
    const char *tag = "";

    if (json_get_string(params, "tag", "log", &tag, err) < 0)
        return NULL;
    struct logger *l = calloc(1, sizeof(*l));
    if (!l || !(l->tag = strdup(tag))) {
        free(l);
        error_oom(err);
        return NULL;
    }
    l->log = context_log(ctx);
    struct block *b = block_layer(next, &log_ops, l, name, ctx, err);
    if (!b)
        (void)log_close(NULL, l, NULL);
    return b;
}

static const char *const keys[] = {"tag", NULL};

const struct layer_type log_layer = {"log", keys, false, log_open};
