// SPDX-License-Identifier: Apache-2.0
/* copy.c - the source's senders */
#include "runtime/migrate/copy.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "runtime/base/io.h"
#include "runtime/block/filter/dirty.h"

#define THREADS_MAX 16u
#define THREADS_DEFAULT_MAX 4u
#define WANTS_MAX 1024u                  /* what the target may ask for before we answered */
#define EXTENTS_STEP (UINT64_C(1) << 30) /* bytes looked at in one block_extents() */

struct want {
    size_t device;
    uint64_t first, count; /* pages */
};

/* The first copy sends what changes often last, so that less of it must be sent again: the blocks
 * of the device's dirty filter, the quietest first. Later sets are small, and need no order. */
struct order {
    uint64_t *blocks; /* NULL = pages in ascending order */
    size_t n;
    uint64_t per_block; /* pages */
};

struct copy {
    const struct migrate_device *devices;
    size_t n;
    struct copy_options options;
    pthread_t threads[THREADS_MAX];
    unsigned n_threads;

    pthread_mutex_t lock;   /* guards all below; taken before no other */
    pthread_cond_t work;    /* bits were set, a link came or went, stop */
    pthread_cond_t idle;    /* a thread has nothing to do, or something failed */
    struct bitmap *pending; /* one per device */
    uint64_t *cursor;       /* page to look at next; place in `order` while there is one */
    struct order *order;    /* one per device: of the first copy */
    uint64_t n_pending;     /* bits set in all of them */
    size_t turn;            /* device the next run comes from */
    struct want wants[WANTS_MAX];
    unsigned want_head, n_wants;
    struct link *link;
    unsigned busy;
    unsigned urgent; /* of these, with what the target waits for: the others hold back */
    bool stop, failed, link_failed;
    bool held;          /* nothing is taken; what a thread has in hand goes out */
    struct error error; /* when failed: a device could not be read */
    struct copy_counters counters;
};

/* A run of pages on its way out. */
struct run {
    size_t device;
    uint64_t first, count; /* pages */
    bool wanted;
};

struct buffers {
    uint8_t *plain, *packed;
    ZSTD_CCtx *zstd;
};

static uint64_t device_pages(const struct migrate_device *d)
{
    return (block_size(d->block) + COPY_PAGE - 1) / COPY_PAGE;
}

/* Bytes of a run; the device's last page may be short. */
static uint64_t run_length(const struct migrate_device *d, uint64_t first, uint64_t count)
{
    uint64_t size = block_size(d->block), start = first * COPY_PAGE;
    uint64_t end = (first + count) * COPY_PAGE;

    return (end > size ? size : end) - start;
}

static void trace(const struct copy *c, enum migrate_trace_kind kind, size_t d, uint64_t offset,
                  uint64_t length)
{
    const struct migrate_watch *w = c->options.watch;

    if (w && w->trace)
        w->trace(w->opaque, kind, c->devices[d].name, offset, length);
}

/* Takes a run that starts at page `from`, set, and stays within its block and below `limit`.
 * Locked. */
static void take_run(struct copy *c, size_t d, uint64_t from, uint64_t limit, struct run *ret)
{
    uint64_t per_block = c->devices[d].block_size / COPY_PAGE;
    uint64_t end = from - from % per_block + per_block;

    if (end > limit)
        end = limit;
    uint64_t stop = bitmap_next_clear(&c->pending[d], from);
    if (stop > end)
        stop = end;
    bitmap_clear_range(&c->pending[d], from, stop - from);
    c->n_pending -= stop - from;
    *ret = (struct run){.device = d, .first = from, .count = stop - from};
}

/* The next page in the order of the first copy; the device's size at its end. Locked. */
static uint64_t next_in_order(struct copy *c, size_t d)
{
    struct order *o = &c->order[d];

    for (; c->cursor[d] < o->n; c->cursor[d]++) {
        uint64_t page = o->blocks[c->cursor[d]] * o->per_block, end = page + o->per_block;
        for (; page < end && page < c->pending[d].size; page++)
            if (bitmap_get(&c->pending[d], page))
                return page;
    }
    free(o->blocks);
    *o = (struct order){.blocks = NULL};
    c->cursor[d] = 0;
    return c->pending[d].size;
}

/* Finds the next run: wanted ones first, then on from the cursors, a device at a time. Locked. */
static bool take(struct copy *c, struct run *ret)
{
    while (c->n_wants) {
        struct want *w = &c->wants[c->want_head];
        uint64_t end = w->first + w->count;
        uint64_t page = bitmap_next_set(&c->pending[w->device], w->first);
        if (page < end) {
            take_run(c, w->device, page, end, ret);
            ret->wanted = true;
            return true;
        }
        c->want_head = (c->want_head + 1) % WANTS_MAX;
        c->n_wants--;
    }
    for (size_t i = 0; c->n_pending && i < c->n; i++) {
        size_t d = (c->turn + i) % c->n;
        if (c->order[d].blocks) {
            uint64_t quiet = next_in_order(c, d), block = c->order[d].per_block;
            if (quiet < c->pending[d].size) {
                c->turn = d;
                take_run(c, d, quiet, quiet - quiet % block + block, ret);
                return true;
            }
        }
        uint64_t page = bitmap_next_set(&c->pending[d], c->cursor[d]);
        if (page == c->pending[d].size)
            page = bitmap_next_set(&c->pending[d], 0);
        if (page == c->pending[d].size)
            continue;
        c->turn = d;
        take_run(c, d, page, c->pending[d].size, ret);
        c->cursor[d] = page + ret->count;
        return true;
    }
    return false;
}

static void give_back(struct copy *c, const struct run *r)
{
    for (uint64_t p = r->first; p < r->first + r->count; p++)
        c->n_pending += !bitmap_set(&c->pending[r->device], p);
}

/* Reads a run and sends it. Returns 0, 1 when the link failed, -1 when the device did. */
static int send_run(struct copy *c, struct link *link, const struct run *r, struct buffers *b,
                    struct error *err)
{
    const struct migrate_device *d = &c->devices[r->device];
    uint64_t length = run_length(d, r->first, r->count);
    struct frame f = {.type = FRAME_DATA,
                      .encoding = ENCODING_PLAIN,
                      .device = (uint16_t)r->device,
                      .offset = r->first * COPY_PAGE,
                      .extent = (uint32_t)length,
                      .length = (uint32_t)length};
    const uint8_t *payload = b->plain;

    if (block_read(d->block, b->plain, length, f.offset, err) < 0)
        return error_wrap(err, "device %s: read at %llu", d->name, (unsigned long long)f.offset);
    if (io_is_zero(b->plain, length)) {
        f.encoding = ENCODING_ZERO;
        f.length = 0;
    } else if (b->zstd) {
        size_t n = ZSTD_compressCCtx(b->zstd, b->packed, WIRE_PAYLOAD_MAX, b->plain, length,
                                     c->options.zstd_level);
        if (!ZSTD_isError(n) && n < length) {
            f.encoding = ENCODING_ZSTD;
            f.length = (uint32_t)n;
            payload = b->packed;
        }
    }
    if (link_send(link, &f, payload, NULL) < 0)
        return 1;
    trace(c, f.encoding == ENCODING_ZERO ? MIGRATE_TRACE_IMPLIED : MIGRATE_TRACE_SENT, r->device,
          f.offset, length);
    lock_scope(&c->lock);
    if (f.encoding == ENCODING_ZERO)
        c->counters.pages_zero += r->count;
    else
        c->counters.pages_plain += r->count;
    c->counters.wants += r->wanted;
    return 0;
}

static void *sender(void *opaque)
{
    struct copy *c = opaque;
    struct buffers b = {.plain = malloc(WIRE_BLOCK_MAX), .packed = malloc(WIRE_PAYLOAD_MAX)};

    if (c->options.zstd_level)
        b.zstd = ZSTD_createCCtx();
    {
        lock_scope(&c->lock);
        if (!b.plain || !b.packed || (c->options.zstd_level && !b.zstd)) {
            c->failed = true;
            error_oom(&c->error);
            (void)pthread_cond_broadcast(&c->idle);
        }
        while (!c->stop && !c->failed) {
            struct run r;
            /* Two who want to send are let in by luck: what is waited for must not depend on it. */
            bool yield = c->urgent > 0 && c->n_wants == 0;
            if (!c->link || c->link_failed || c->held || yield || !take(c, &r)) {
                (void)pthread_cond_broadcast(&c->idle);
                (void)pthread_cond_wait(&c->work, &c->lock);
                continue;
            }
            struct link *link = c->link;
            struct error err = ERROR_INIT;
            c->busy++;
            c->urgent += r.wanted;
            (void)pthread_mutex_unlock(&c->lock);
            int rc = send_run(c, link, &r, &b, &err);
            (void)pthread_mutex_lock(&c->lock);
            c->busy--;
            if (r.wanted && --c->urgent == 0)
                (void)pthread_cond_broadcast(&c->work);
            if (rc != 0)
                give_back(c, &r);
            if (rc > 0) {
                c->link_failed = true;
            } else if (rc < 0 && !c->failed) {
                c->failed = true;
                c->error = err;
            }
            if (rc != 0)
                (void)pthread_cond_broadcast(&c->idle);
        }
    }
    ZSTD_freeCCtx(b.zstd);
    free(b.plain);
    free(b.packed);
    return NULL;
}

static unsigned thread_count(const struct copy_options *o)
{
    cpu_set_t set;
    unsigned n = o->threads;

    if (n == 0) {
        n = sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
        n = n > THREADS_DEFAULT_MAX ? THREADS_DEFAULT_MAX : n;
    }
    return n > THREADS_MAX ? THREADS_MAX : n ? n : 1;
}

struct copy *copy_new(const struct migrate_device *devices, size_t n,
                      const struct copy_options *options, struct error *err)
{
    struct copy *c = calloc(1, sizeof(*c));

    if (!c) {
        error_oom(err);
        return NULL;
    }
    c->devices = devices;
    c->n = n;
    c->options = *options;
    (void)pthread_mutex_init(&c->lock, NULL);
    (void)pthread_cond_init(&c->work, NULL);
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&c->idle, &attr);
    (void)pthread_condattr_destroy(&attr);
    c->pending = calloc(n, sizeof(*c->pending));
    c->cursor = calloc(n, sizeof(*c->cursor));
    c->order = calloc(n, sizeof(*c->order));
    if (!c->pending || !c->cursor || !c->order) {
        error_oom(err);
        goto fail;
    }
    for (size_t i = 0; i < n; i++)
        if (bitmap_init(&c->pending[i], device_pages(&devices[i]), err) < 0)
            goto fail;
    for (unsigned want = thread_count(options); c->n_threads < want; c->n_threads++) {
        int rc = pthread_create(&c->threads[c->n_threads], NULL, sender, c);
        if (rc != 0) {
            error_num(err, rc, "start a sender");
            goto fail;
        }
    }
    return c;
fail:
    copy_free(c);
    return NULL;
}

void copy_free(struct copy *c)
{
    if (!c)
        return;
    {
        lock_scope(&c->lock);
        c->stop = true;
        (void)pthread_cond_broadcast(&c->work);
    }
    for (unsigned i = 0; i < c->n_threads; i++)
        (void)pthread_join(c->threads[i], NULL);
    for (size_t i = 0; c->pending && i < c->n; i++)
        bitmap_destroy(&c->pending[i]);
    for (size_t i = 0; c->order && i < c->n; i++)
        free(c->order[i].blocks);
    free(c->pending);
    free(c->cursor);
    free(c->order);
    (void)pthread_mutex_destroy(&c->lock);
    (void)pthread_cond_destroy(&c->work);
    (void)pthread_cond_destroy(&c->idle);
    free(c);
}

void copy_set_link(struct copy *c, struct link *link)
{
    lock_scope(&c->lock);

    c->link = link;
    c->link_failed = false;
    /* What was asked for on a link that is gone is asked for anew. A new link's reader may hear
     * questions before it is set here: those stay. */
    if (!link)
        c->n_wants = 0;
    (void)pthread_cond_broadcast(&c->work);
    while (!link && c->busy)
        (void)pthread_cond_wait(&c->idle, &c->lock);
}

/* Announces a range whose content needs no reading. Cut where a frame's extent ends. */
static int announce(struct copy *c, size_t d, uint8_t encoding, uint64_t offset, uint64_t length,
                    struct error *err)
{
    while (length) {
        uint32_t step = length > WIRE_EXTENT_MAX ? WIRE_EXTENT_MAX : (uint32_t)length;
        struct frame f = {.type = FRAME_DATA,
                          .encoding = encoding,
                          .device = (uint16_t)d,
                          .offset = offset,
                          .extent = step};
        if (link_send(c->link, &f, NULL, err) < 0)
            return -1;
        trace(c, MIGRATE_TRACE_IMPLIED, d, offset, step);
        uint64_t pages = (step + COPY_PAGE - 1) / COPY_PAGE;
        lock_scope(&c->lock);
        if (encoding == ENCODING_ZERO)
            c->counters.pages_zero += pages;
        else
            c->counters.pages_base += pages;
        offset += step;
        length -= step;
    }
    return 0;
}

/* Announces one extent if it can be, page-aligned parts of it only. *ret_end: where the announced
 * part ends; pages of the rest are the caller's to set. */
static int add_extent(struct copy *c, size_t d, const struct extent *e, bool shares_base,
                      struct error *err)
{
    uint64_t size = block_size(c->devices[d].block);
    uint64_t first = (e->offset + COPY_PAGE - 1) / COPY_PAGE;
    uint64_t end = e->offset + e->len == size ? device_pages(&c->devices[d])
                                              : (e->offset + e->len) / COPY_PAGE;
    uint8_t encoding = ENCODINGS;

    if (shares_base && (e->flags & EXTENT_BASE))
        encoding = ENCODING_BASE;
    else if (e->flags & EXTENT_ZERO)
        encoding = ENCODING_ZERO;
    if (encoding != ENCODINGS && first < end) {
        uint64_t length = run_length(&c->devices[d], first, end - first);
        if (announce(c, d, encoding, first * COPY_PAGE, length, err) < 0)
            return -1;
        lock_scope(&c->lock);
        bitmap_clear_range(&c->pending[d], first, end - first);
    }
    return 0;
}

static int add_device(struct copy *c, size_t d, bool shares_base, struct error *err)
{
    struct block *b = c->devices[d].block;
    uint64_t size = block_size(b);

    {
        lock_scope(&c->lock);
        bitmap_set_range(&c->pending[d], 0, c->pending[d].size);
    }
    for (uint64_t at = 0; at < size; at += EXTENTS_STEP) {
        cleanup_extents struct extents list = {0};
        uint64_t step = size - at < EXTENTS_STEP ? size - at : EXTENTS_STEP;
        if (block_extents(b, at, step, &list, err) < 0)
            return error_wrap(err, "device %s", c->devices[d].name);
        for (size_t i = 0; i < list.count; i++)
            if (add_extent(c, d, &list.items[i], shares_base, err) < 0)
                return -1;
        if (context_check(c->options.ctx, err) < 0)
            return -1;
    }
    return 0;
}

/* Without memory for it, in the order of their offsets. */
static void put_in_order(struct copy *c, size_t d)
{
    struct dirty *dirty = dirty_find(c->devices[d].block);
    struct order o = {.per_block = dirty ? dirty_block_size(dirty) / COPY_PAGE : 0};

    if (!dirty || dirty_order(dirty, &o.blocks, &o.n, NULL) < 0)
        return;
    lock_scope(&c->lock);
    free(c->order[d].blocks);
    c->order[d] = o;
    c->cursor[d] = 0;
}

int copy_add_all(struct copy *c, const uint8_t *shares_base, struct error *err)
{
    for (size_t d = 0; d < c->n; d++) {
        if (add_device(c, d, shares_base[d], err) < 0)
            return -1;
        put_in_order(c, d);
    }
    /* The senders start now: before, an announced page could have been taken as pending. */
    lock_scope(&c->lock);
    c->n_pending = 0;
    for (size_t d = 0; d < c->n; d++)
        c->n_pending += bitmap_count(&c->pending[d]);
    (void)pthread_cond_broadcast(&c->work);
    return 0;
}

void copy_add(struct copy *c, size_t d, const struct bitmap *pages)
{
    lock_scope(&c->lock);

    c->n_pending -= bitmap_count(&c->pending[d]);
    bitmap_or(&c->pending[d], pages);
    c->n_pending += bitmap_count(&c->pending[d]);
    (void)pthread_cond_broadcast(&c->work);
}

void copy_clear(struct copy *c)
{
    lock_scope(&c->lock);

    for (size_t d = 0; d < c->n; d++)
        bitmap_clear_all(&c->pending[d]);
    c->n_pending = 0;
    c->n_wants = 0;
}

void copy_want(struct copy *c, size_t d, uint64_t offset, uint64_t length)
{
    trace(c, MIGRATE_TRACE_WANTED, d, offset, length);
    lock_scope(&c->lock);
    /* More questions than places: the oldest are answered first, what is left comes in its turn. */
    if (c->n_wants == WANTS_MAX)
        return;
    uint64_t first = offset / COPY_PAGE, end = (offset + length + COPY_PAGE - 1) / COPY_PAGE;
    if (end > c->pending[d].size)
        end = c->pending[d].size;
    c->wants[(c->want_head + c->n_wants++) % WANTS_MAX] =
        (struct want){.device = d, .first = first, .count = end > first ? end - first : 0};
    (void)pthread_cond_signal(&c->work);
}

void copy_hold(struct copy *c, bool hold)
{
    lock_scope(&c->lock);

    c->held = hold;
    (void)pthread_cond_broadcast(&c->work);
}

/* pending: what nobody has taken yet counts, too. */
static int wait_for(struct copy *c, bool pending, bool (*stop)(void *opaque), void *opaque,
                    struct error *err)
{
    lock_scope(&c->lock);

    for (;;) {
        if (c->failed) {
            if (err)
                *err = c->error;
            return -1;
        }
        if (c->busy == 0 && (!pending || c->n_pending == 0))
            return 0;
        if (stop) {
            (void)pthread_mutex_unlock(&c->lock);
            bool ended = stop(opaque);
            (void)pthread_mutex_lock(&c->lock);
            if (ended)
                return 1;
        }
        if (context_check(c->options.ctx, err) < 0)
            return -1;
        /* The cancel request has no place in a condition: look for it a few times a second. */
        struct timespec ts;
        (void)clock_gettime(CLOCK_MONOTONIC, &ts);
        ts.tv_nsec += 100000000;
        if (ts.tv_nsec >= 1000000000) {
            ts.tv_sec++;
            ts.tv_nsec -= 1000000000;
        }
        (void)pthread_cond_timedwait(&c->idle, &c->lock, &ts);
    }
}

int copy_wait(struct copy *c, bool (*stop)(void *opaque), void *opaque, struct error *err)
{
    return wait_for(c, true, stop, opaque, err);
}

int copy_wait_idle(struct copy *c, bool (*stop)(void *opaque), void *opaque, struct error *err)
{
    return wait_for(c, false, stop, opaque, err);
}

void copy_kick(struct copy *c)
{
    lock_scope(&c->lock);
    (void)pthread_cond_broadcast(&c->idle);
}

uint64_t copy_pending_bytes(struct copy *c)
{
    lock_scope(&c->lock);
    return c->n_pending * COPY_PAGE;
}

void copy_get_counters(struct copy *c, struct copy_counters *ret)
{
    lock_scope(&c->lock);
    *ret = c->counters;
}
