// SPDX-License-Identifier: Apache-2.0
/* stack.c - the layer between layers: checks, traces, emulation, accounting
 *
 * Theory of operation: every call from one layer to the next goes through here. A request is
 * checked against the device's size, counted, and handed to the first layer downwards that has the
 * operation; a layer without it costs nothing. What a layer can do is asked once, when it is
 * put on, and kept.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "runtime/block/layer.h"

#define ZERO_CHUNK 65536u

static const char zeros[ZERO_CHUNK];

/* ---- extents ---- */

int extents_add(struct extents *list, uint64_t offset, uint64_t len, unsigned flags,
                struct error *err)
{
    if (len == 0)
        return 0;
    if (list->count > 0) {
        struct extent *last = &list->items[list->count - 1];
        if (last->flags == flags && last->offset + last->len == offset) {
            last->len += len;
            return 0;
        }
    }
    if (list->count == list->room) {
        size_t room = list->room ? 2 * list->room : 16;
        struct extent *items = reallocarray(list->items, room, sizeof(*items));
        if (!items)
            return error_oom(err);
        list->items = items;
        list->room = room;
    }
    list->items[list->count++] = (struct extent){offset, len, flags};
    return 0;
}

void extents_free(struct extents *list)
{
    int saved = errno;

    free(list->items);
    *list = (struct extents){0};
    errno = saved;
}

/* ---- accounting ---- */

static unsigned enter(struct block *b)
{
    for (;;) {
        unsigned phase = atomic_load(&b->phase) & 1;
        atomic_fetch_add(&b->in_flight[phase], 1);
        /* A drain that turned the phase in between would not wait for us: count anew. */
        if ((atomic_load(&b->phase) & 1) == phase)
            return phase;
        atomic_fetch_sub(&b->in_flight[phase], 1);
    }
}

static void leave(struct block *b, unsigned phase)
{
    if (atomic_fetch_sub(&b->in_flight[phase], 1) == 1 && atomic_load(&b->draining)) {
        lock_scope(&b->drain_lock);
        pthread_cond_broadcast(&b->idle);
    }
}

unsigned block_in_flight(const struct block *b)
{
    return atomic_load(&b->in_flight[0]) + atomic_load(&b->in_flight[1]);
}

/* Lets new requests count in the other phase and waits until the old one is empty. Requests that
 * are just between loading the phase and counting are either seen here or count anew. */
void block_drain(struct block *b)
{
    lock_scope(&b->drain_lock);

    atomic_store(&b->draining, true);
    unsigned old = atomic_fetch_add(&b->phase, 1) & 1;
    while (atomic_load(&b->in_flight[old]) > 0)
        pthread_cond_wait(&b->idle, &b->drain_lock);
    /* The other slot may still hold what an earlier phase left: empty since its own drain. */
    atomic_store(&b->draining, false);
}

/* ---- a request on its way ---- */

enum op {
    OP_READ,
    OP_WRITE,
    OP_ZERO,
    OP_TRIM,
    OP_FLUSH,
    OP_EXTENTS,
};

static const char *const op_names[] = {
    [OP_READ] = "read", [OP_WRITE] = "write", [OP_ZERO] = "zero",
    [OP_TRIM] = "trim", [OP_FLUSH] = "flush", [OP_EXTENTS] = "extents",
};
_Static_assert(ARRAY_SIZE(op_names) == OP_EXTENTS + 1, "one name an operation");

static bool traced(const struct block *b)
{
    const struct log *log = context_log(b->ctx);
    return log && log->level <= LOG_LEVEL_DEBUG;
}

static void trace(const struct block *b, enum op op, uint64_t offset, uint64_t len, int rc,
                  const struct error *err)
{
    log_debug(context_log(b->ctx), "block request", log_str("device", b->name),
              log_str("layer", b->ops->type), log_str("op", op_names[op]),
              log_uint("offset", offset), log_uint("len", len),
              log_str("result", rc == 0 ? "ok"
                                : err   ? err->text
                                        : "failed"));
}

static int check(const struct block *b, enum op op, uint64_t offset, uint64_t len,
                 struct error *err)
{
    if (offset > b->size || len > b->size - offset)
        return error_set(err, EINVAL,
                         "device %s: %s of %llu bytes at %llu leaves the device (%llu bytes)",
                         b->name, op_names[op], (unsigned long long)len, (unsigned long long)offset,
                         (unsigned long long)b->size);
    if ((op == OP_WRITE || op == OP_ZERO || op == OP_TRIM) &&
        b->caps[BLOCK_CAN_WRITE] == BLOCK_NONE)
        return error_set(err, EROFS, "device %s: %s: the device is read-only", b->name,
                         op_names[op]);
    return 0;
}

/* The first layer at or below b that has the operation, or the source. */
#define DESCEND(b, op)                                                                             \
    while (!(b)->ops->op && (b)->next)                                                             \
    (b) = (b)->next

static pthread_mutex_t *serial_lock(struct block *b)
{
    if (b->ops->threads != BLOCK_SERIAL)
        return NULL;
    return lock_and_return(&b->serial);
}

#define serialize_scope(b)                                                                         \
    pthread_mutex_t *serial_guard __attribute__((cleanup(unlock_p), unused)) = serial_lock(b)

static int do_flush(struct block *b, struct error *err)
{
    DESCEND(b, flush);
    if (!b->ops->flush)
        return 0;
    serialize_scope(b);
    return b->ops->flush(b->next, b->self, err);
}

static int do_write(struct block *b, struct io *io, struct error *err)
{
    struct block *top = b;

    DESCEND(b, pwrite);
    bool fua = (io->flags & IO_FUA) && b->caps[BLOCK_CAN_FUA] != BLOCK_NATIVE;
    if (fua)
        io->flags &= ~IO_FUA;
    {
        serialize_scope(b);
        if (b->ops->pwrite(b->next, b->self, io, err) < 0)
            return -1;
    }
    return fua ? do_flush(top, err) : 0;
}

static int do_zero(struct block *b, struct io *io, struct error *err)
{
    struct block *top = b, *writer = b;

    /* A filter that sees writes but not zeros must see zeros as writes, or it would be passed by.
     */
    DESCEND(b, zero);
    DESCEND(writer, pwrite);
    bool native = b->ops->zero && b->caps[BLOCK_CAN_ZERO] == BLOCK_NATIVE;
    for (const struct block *x = top; native && x != b; x = x->next)
        native = x != writer;
    if (native) {
        bool fua = io->flags & IO_FUA;
        io->flags = 0;
        {
            serialize_scope(b);
            if (b->ops->zero(b->next, b->self, io, err) < 0)
                return -1;
        }
        return fua ? do_flush(top, err) : 0;
    }
    const uint64_t end = io->offset + io->len;
    for (uint64_t pos = io->offset; pos < end;) {
        uint64_t n = end - pos < ZERO_CHUNK ? end - pos : ZERO_CHUNK;
        struct io part = {.offset = pos, .len = n, .data = zeros};
        if (do_write(top, &part, err) < 0)
            return -1;
        pos += n;
    }
    return io->flags & IO_FUA ? do_flush(top, err) : 0;
}

static int do_trim(struct block *b, struct io *io, struct error *err)
{
    struct block *top = b, *writer = b;

    DESCEND(b, trim);
    DESCEND(writer, pwrite);
    if (!b->ops->trim || b->caps[BLOCK_CAN_TRIM] == BLOCK_NONE)
        return 0;
    for (const struct block *x = top; x != b; x = x->next)
        if (x == writer) /* As with zeros; but a trim may simply be left undone. */
            return 0;
    serialize_scope(b);
    return b->ops->trim(b->next, b->self, io, err);
}

#define REQUEST(b, op, offset, len, call)                                                          \
    do {                                                                                           \
        unsigned phase_ = enter(b);                                                                \
        int rc_ = (call);                                                                          \
        if (__builtin_expect(traced(b), 0))                                                        \
            trace(b, op, offset, len, rc_, err);                                                   \
        leave(b, phase_);                                                                          \
        return rc_;                                                                                \
    } while (0)

static int do_read(struct block *b, struct io *io, struct error *err)
{
    DESCEND(b, pread);
    serialize_scope(b);
    return b->ops->pread(b->next, b->self, io, err);
}

int block_read(struct block *b, void *buf, uint64_t len, uint64_t offset, struct error *err)
{
    struct io io = {.offset = offset, .len = len, .buf = buf};

    if (check(b, OP_READ, offset, len, err) < 0)
        return -1;
    if (len == 0)
        return 0;
    REQUEST(b, OP_READ, offset, len, do_read(b, &io, err));
}

int block_write(struct block *b, const void *data, uint64_t len, uint64_t offset, unsigned flags,
                struct error *err)
{
    struct io io = {.offset = offset, .len = len, .data = data, .flags = flags & IO_FUA};

    if (check(b, OP_WRITE, offset, len, err) < 0)
        return -1;
    if (len == 0)
        return 0;
    REQUEST(b, OP_WRITE, offset, len, do_write(b, &io, err));
}

int block_zero(struct block *b, uint64_t len, uint64_t offset, unsigned flags, struct error *err)
{
    struct io io = {.offset = offset, .len = len, .flags = flags & IO_FUA};

    if (check(b, OP_ZERO, offset, len, err) < 0)
        return -1;
    if (len == 0)
        return 0;
    REQUEST(b, OP_ZERO, offset, len, do_zero(b, &io, err));
}

int block_trim(struct block *b, uint64_t len, uint64_t offset, struct error *err)
{
    struct io io = {.offset = offset, .len = len};

    if (check(b, OP_TRIM, offset, len, err) < 0)
        return -1;
    if (len == 0)
        return 0;
    REQUEST(b, OP_TRIM, offset, len, do_trim(b, &io, err));
}

int block_flush(struct block *b, struct error *err)
{
    REQUEST(b, OP_FLUSH, 0, 0, do_flush(b, err));
}

static int do_extents(struct block *b, uint64_t offset, uint64_t len, struct extents *ret,
                      struct error *err)
{
    /* As with zeros: what a layer reads differently, the layers below cannot describe. */
    while (!b->ops->extents && !b->ops->pread && b->next)
        b = b->next;
    if (!b->ops->extents || b->caps[BLOCK_CAN_EXTENTS] != BLOCK_NATIVE)
        return extents_add(ret, offset, len, 0, err);
    serialize_scope(b);
    return b->ops->extents(b->next, b->self, offset, len, ret, err);
}

int block_extents(struct block *b, uint64_t offset, uint64_t len, struct extents *ret,
                  struct error *err)
{
    if (check(b, OP_EXTENTS, offset, len, err) < 0)
        return -1;
    if (len == 0)
        return 0;
    REQUEST(b, OP_EXTENTS, offset, len, do_extents(b, offset, len, ret, err));
}

/* ---- lifecycle ---- */

static enum block_cap from_table(const struct block_ops *ops, const struct block *next,
                                 enum block_feature feature)
{
    static const enum block_cap source[BLOCK_FEATURES] = {
        [BLOCK_CAN_WRITE] = BLOCK_NONE,  [BLOCK_CAN_ZERO] = BLOCK_EMULATE,
        [BLOCK_CAN_TRIM] = BLOCK_NONE,   [BLOCK_CAN_FLUSH] = BLOCK_NONE,
        [BLOCK_CAN_FUA] = BLOCK_EMULATE, [BLOCK_CAN_EXTENTS] = BLOCK_EMULATE,
    };
    bool here = false, hidden = false;

    switch (feature) {
    case BLOCK_CAN_WRITE:
        here = ops->pwrite;
        break;
    case BLOCK_CAN_ZERO:
        here = ops->zero;
        hidden = ops->pwrite;
        break;
    case BLOCK_CAN_TRIM:
        here = ops->trim;
        hidden = ops->pwrite;
        break;
    case BLOCK_CAN_FLUSH:
        here = ops->flush;
        break;
    case BLOCK_CAN_EXTENTS:
        here = ops->extents;
        hidden = ops->pread;
        break;
    case BLOCK_CAN_FUA: /* a layer says so itself, through can() */
        hidden = ops->pwrite;
        break;
    case BLOCK_FEATURES:
        break;
    }
    if (here)
        return BLOCK_NATIVE;
    if (hidden || !next)
        return source[feature];
    return next->caps[feature];
}

static unsigned depth(const struct block *b)
{
    unsigned n = 0;

    for (; b; b = b->next)
        n++;
    return n;
}

struct block *block_layer(struct block *next, const struct block_ops *ops, void *self,
                          const char *name, const struct context *ctx, struct error *err)
{
    cleanup_free struct block *b = calloc(1, sizeof(*b));
    if (!b) {
        error_oom(err);
        return NULL;
    }
    b->ops = ops;
    b->self = self;
    b->next = next;
    b->ctx = ctx;
    (void)snprintf(b->name, sizeof(b->name), "%s", name ? name : next ? next->name : "unnamed");
    if (depth(b) > BLOCK_LAYERS_MAX) {
        error_set(err, E2BIG, "device %s: more than %d layers", b->name, BLOCK_LAYERS_MAX);
        return NULL;
    }
    if (!next && (!ops->size || !ops->pread)) {
        error_set(err, EINVAL, "device %s: layer %s: cannot be the lowest, it stands on another",
                  b->name, ops->type);
        return NULL;
    }
    if (ops->size) {
        if (ops->size(next, self, &b->size, err) < 0)
            return NULL;
    } else {
        b->size = next->size;
    }
    if (b->size > BLOCK_DEVICE_MAX) {
        error_set(err, EFBIG, "device %s: %llu bytes, more than the limit of %llu", b->name,
                  (unsigned long long)b->size, (unsigned long long)BLOCK_DEVICE_MAX);
        return NULL;
    }
    for (unsigned f = 0; f < BLOCK_FEATURES; f++)
        b->caps[f] = ops->can ? ops->can(next, self, (enum block_feature)f)
                              : from_table(ops, next, (enum block_feature)f);
    pthread_mutex_init(&b->serial, NULL);
    pthread_mutex_init(&b->drain_lock, NULL);
    pthread_cond_init(&b->idle, NULL);
    return steal_ptr(&b);
}

static int end_layer(struct block *b, struct error *err)
{
    int rc = b->ops->close ? b->ops->close(b->next, b->self, err) : 0;

    pthread_cond_destroy(&b->idle);
    pthread_mutex_destroy(&b->drain_lock);
    pthread_mutex_destroy(&b->serial);
    free(b);
    return rc;
}

struct block *block_take_off(struct block *top)
{
    struct block *next = top->next;

    (void)end_layer(top, NULL);
    return next;
}

int block_close(struct block *top, struct error *err)
{
    struct error ignored = ERROR_INIT;
    int rc = 0;

    if (!top)
        return 0;
    block_drain(top);
    rc = block_flush(top, err);
    while (top) {
        struct block *next = top->next;
        /* Only the first failure is told: it is the cause of the others more often than not. */
        if (end_layer(top, rc == 0 ? err : &ignored) < 0)
            rc = -1;
        top = next;
    }
    return rc;
}

void block_cancel(struct block *top)
{
    for (; top; top = top->next)
        if (top->ops->cancel)
            top->ops->cancel(top->self);
}

const char *block_name(const struct block *b)
{
    return b->name;
}

const char *block_type(const struct block *b)
{
    return b->ops->type;
}

uint64_t block_size(const struct block *b)
{
    return b->size;
}

enum block_cap block_can(const struct block *b, enum block_feature feature)
{
    return b->caps[feature];
}

int block_identity(struct block *b, struct block_identity *ret, struct error *err)
{
    DESCEND(b, identity);
    if (!b->ops->identity) {
        *ret = (struct block_identity){.size = b->size};
        return 0;
    }
    return b->ops->identity(b->next, b->self, ret, err);
}

struct block *block_find(struct block *b, const char *type, void **ret_self)
{
    while (b && strcmp(b->ops->type, type) != 0)
        b = b->next;
    if (b && ret_self)
        *ret_self = b->self;
    return b;
}
