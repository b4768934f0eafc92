// SPDX-License-Identifier: Apache-2.0
/* fault.c - lets requests fail as described
 *
 * {"type": "fault", "op": "write", "error": "EIO", "after": 0, "count": 0, "every": 1, "short": 0}
 *
 * op: read, write, zero, trim, flush or any. Of the matching requests the first `after` pass; of
 * those that follow every `every`th fails, `count` times at most (0: without end). short: a write
 * that fails has written so many of its bytes before, a read has filled so many. Nothing here is
 * random: the same requests fail in the same way each time.
 */
#include <errno.h>
#include <string.h>

#include "runtime/base/json.h"
#include "runtime/block/layer.h"

static const struct {
    const char *name;
    int code;
} errors[] = {
    {"EIO", EIO},           {"ENOSPC", ENOSPC},       {"EROFS", EROFS},
    {"EAGAIN", EAGAIN},     {"ETIMEDOUT", ETIMEDOUT}, {"ENOMEM", ENOMEM},
    {"ENOTCONN", ENOTCONN}, {"EINVAL", EINVAL},
};

static const char *const op_names[] = {"any", "read", "write", "zero", "trim", "flush"};
enum fault_op {
    FAULT_ANY,
    FAULT_READ,
    FAULT_WRITE,
    FAULT_ZERO,
    FAULT_TRIM,
    FAULT_FLUSH,
};
_Static_assert(ARRAY_SIZE(op_names) == FAULT_FLUSH + 1, "one name an operation");

struct fault {
    unsigned op, error; /* indexes of the tables above */
    uint64_t after, count, every, cut;
    atomic_ullong seen; /* matching requests */
};

/* Is it this request's turn to fail? */
static bool strikes(struct fault *f, unsigned op)
{
    if (f->op != FAULT_ANY && f->op != op)
        return false;
    uint64_t n = atomic_fetch_add(&f->seen, 1);
    if (n < f->after || (n - f->after) % f->every != f->every - 1)
        return false;
    return f->count == 0 || (n - f->after) / f->every < f->count;
}

static int failure(const struct fault *f, const char *op, struct error *err)
{
    return error_num(err, errors[f->error].code, "fault injected into a %s", op);
}

static int fault_pread(struct block *next, void *self, struct io *io, struct error *err)
{
    struct fault *f = self;

    if (!strikes(f, FAULT_READ))
        return block_read(next, io->buf, io->len, io->offset, err);
    uint64_t len = f->cut < io->len ? f->cut : io->len;
    if (block_read(next, io->buf, len, io->offset, err) < 0)
        return -1;
    return failure(f, "read", err);
}

static int fault_pwrite(struct block *next, void *self, struct io *io, struct error *err)
{
    struct fault *f = self;

    if (!strikes(f, FAULT_WRITE))
        return block_write(next, io->data, io->len, io->offset, io->flags, err);
    uint64_t len = f->cut < io->len ? f->cut : io->len;
    if (block_write(next, io->data, len, io->offset, io->flags, err) < 0)
        return -1;
    return failure(f, "write", err);
}

static int fault_zero(struct block *next, void *self, struct io *io, struct error *err)
{
    if (strikes(self, FAULT_ZERO))
        return failure(self, "zero", err);
    return block_zero(next, io->len, io->offset, io->flags, err);
}

static int fault_trim(struct block *next, void *self, struct io *io, struct error *err)
{
    if (strikes(self, FAULT_TRIM))
        return failure(self, "trim", err);
    return block_trim(next, io->len, io->offset, err);
}

static int fault_flush(struct block *next, void *self, struct error *err)
{
    if (strikes(self, FAULT_FLUSH))
        return failure(self, "flush", err);
    return block_flush(next, err);
}

static int fault_extents(struct block *next, void *self, uint64_t offset, uint64_t len,
                         struct extents *ret, struct error *err)
{
    (void)self;
    return block_extents(next, offset, len, ret, err);
}

static enum block_cap fault_can(struct block *next, void *self, enum block_feature feature)
{
    (void)self;
    return block_can(next, feature);
}

static int fault_describe(void *self, struct json_object *obj, struct error *err)
{
    const struct fault *f = self;

    if (json_object_object_add(obj, "op", json_object_new_string(op_names[f->op])) < 0 ||
        json_object_object_add(obj, "error", json_object_new_string(errors[f->error].name)) < 0 ||
        json_object_object_add(obj, "after", json_object_new_uint64(f->after)) < 0 ||
        json_object_object_add(obj, "count", json_object_new_uint64(f->count)) < 0 ||
        json_object_object_add(obj, "every", json_object_new_uint64(f->every)) < 0 ||
        json_object_object_add(obj, "short", json_object_new_uint64(f->cut)) < 0)
        return error_oom(err);
    return 0;
}

static int fault_close(struct block *next, void *self, struct error *err)
{
    (void)next;
    (void)err;
    free(self);
    return 0;
}

static const struct block_ops fault_ops = {
    .type = "fault",
    .close = fault_close,
    .describe = fault_describe,
    .can = fault_can,
    .pread = fault_pread,
    .pwrite = fault_pwrite,
    .zero = fault_zero,
    .trim = fault_trim,
    .flush = fault_flush,
    .extents = fault_extents,
};

static int read_params(struct json_object *params, struct fault *f, struct error *err)
{
    const char *op = "any", *error = "EIO";

    f->every = 1;
    if (json_get_string(params, "op", "fault", &op, err) < 0 ||
        json_get_string(params, "error", "fault", &error, err) < 0 ||
        json_get_u64(params, "after", 0, INT64_MAX, "fault", &f->after, err) < 0 ||
        json_get_u64(params, "count", 0, INT64_MAX, "fault", &f->count, err) < 0 ||
        json_get_u64(params, "every", 1, INT64_MAX, "fault", &f->every, err) < 0 ||
        json_get_u64(params, "short", 0, INT64_MAX, "fault", &f->cut, err) < 0)
        return -1;
    while (f->op < ARRAY_SIZE(op_names) && strcmp(op, op_names[f->op]) != 0)
        f->op++;
    while (f->error < ARRAY_SIZE(errors) && strcmp(error, errors[f->error].name) != 0)
        f->error++;
    if (f->op == ARRAY_SIZE(op_names))
        return error_set(err, EINVAL,
                         "fault: op \"%s\" is none of any, read, write, zero, trim, flush", op);
    if (f->error == ARRAY_SIZE(errors))
        return error_set(err, EINVAL,
                         "fault: error \"%s\" is none of EIO, ENOSPC, EROFS, EAGAIN, ETIMEDOUT, "
                         "ENOMEM, ENOTCONN, EINVAL",
                         error);
    return 0;
}

static struct block *fault_open(struct block *next, struct json_object *params, const char *name,
                                const struct context *ctx, struct error *err)
{
    struct fault *f = calloc(1, sizeof(*f));
    struct block *b = NULL;

    if (!f) {
        error_oom(err);
        return NULL;
    }
    if (read_params(params, f, err) == 0)
        b = block_layer(next, &fault_ops, f, name, ctx, err);
    if (!b)
        free(f);
    return b;
}

static const char *const keys[] = {"op", "error", "after", "count", "every", "short", NULL};

const struct layer_type fault_layer = {"fault", keys, false, fault_open};
