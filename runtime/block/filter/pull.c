// SPDX-License-Identifier: Apache-2.0
/* pull.c - a device whose content arrives while it is in use; see pull.h
 *
 * Theory of operation: two atomic bitmaps of pages, `here` and `local`, change only under the lock
 * of their block (a stripe of locks) and are read without it where that is enough: a page that is
 * here stays here while the device is in use, and one that is local stays local. Waiters sleep on
 * their stripe's condition.
 */
#include "runtime/block/filter/pull.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "runtime/block/layer.h"
#include "runtime/block/pages.h"

#define STRIPES 64u
#define PULL_WAIT_STEPS 256u

struct stripe {
    pthread_mutex_t lock; /* guards the pages' bits of its blocks, and asked */
    pthread_cond_t change;
};

struct pull {
    struct block *next;
    struct pull_options opt;
    uint64_t size, n_pages;
    struct pages here;  /* present or local */
    struct pages local; /* a subset of here */
    struct pages asked; /* blocks: request() was called */
    atomic_ullong absent;
    atomic_ullong waits[PULL_WAIT_STEPS]; /* how often a wait took so long, see wait_step() */
    struct stripe
        stripes[STRIPES]; /* of block b: stripes[b % STRIPES]. Lock order: stripe, fail_lock */

    pthread_mutex_t fail_lock; /* guards failure */
    struct error failure;      /* code 0: none */
    atomic_bool failed, cancelled;

    pthread_mutex_t done_lock; /* with all_here: for pull_wait() */
    pthread_cond_t all_here;
};

static uint64_t page_end(const struct pull *p, uint64_t page)
{
    uint64_t end = (page + 1) * BLOCK_PAGE;
    return end < p->size ? end : p->size;
}

static struct stripe *stripe_of(struct pull *p, uint64_t block)
{
    return &p->stripes[block % STRIPES];
}

/* Marks pages as here; the stripe's lock is held. */
static void set_here(struct pull *p, uint64_t first, uint64_t end)
{
    uint64_t n = pages_set(&p->here, first, end);

    if (n && atomic_fetch_sub(&p->absent, n) == n) {
        lock_scope(&p->done_lock);
        pthread_cond_broadcast(&p->all_here);
    }
}

/* Waits are counted in steps of an eighth of a power of two, of microseconds. */
static unsigned wait_step(uint64_t us)
{
    unsigned log = us < 8 ? 3 : 63 - (unsigned)__builtin_clzll(us);
    uint64_t eighth = us >> (log - 3) & 7;
    unsigned step = us < 8 ? (unsigned)us : 8 * (log - 2) + (unsigned)eighth;

    return step < PULL_WAIT_STEPS ? step : PULL_WAIT_STEPS - 1;
}

/* The longest wait that step counts. */
static uint64_t wait_limit(unsigned step)
{
    return step < 8 ? step : ((UINT64_C(9) + step % 8) << (step / 8 - 1)) - 1;
}

static uint64_t now_us(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static int give_up(struct pull *p, struct error *err)
{
    if (atomic_load(&p->cancelled))
        return error_set(err, ECANCELED, "interrupted while waiting for data");
    lock_scope(&p->fail_lock);
    if (!p->failure.code)
        return 0;
    return error_set(err, p->failure.code, "%s", p->failure.text);
}

/* Waits until [first, end), pages of one block, are here; asks for the block if nobody did. */
static int await(struct pull *p, uint64_t block, uint64_t first, uint64_t end, struct error *err)
{
    struct stripe *s = stripe_of(p, block);
    uint64_t since = 0;
    int rc = 0;

    (void)pthread_mutex_lock(&s->lock);
    while (pages_next(&p->here, first, end, false) < end) {
        since = since ? since : now_us();
        if ((atomic_load(&p->failed) || atomic_load(&p->cancelled)) && (rc = give_up(p, err)) < 0)
            break;
        if (!pages_set(&p->asked, block, block + 1)) {
            (void)pthread_cond_wait(&s->change, &s->lock);
            continue;
        }
        (void)pthread_mutex_unlock(&s->lock);
        uint64_t offset = block * p->opt.block_size;
        uint64_t len = p->size - offset < p->opt.block_size ? p->size - offset : p->opt.block_size;
        p->opt.request(p->opt.opaque, offset, len);
        (void)pthread_mutex_lock(&s->lock);
    }
    (void)pthread_mutex_unlock(&s->lock);
    if (rc == 0 && since)
        (void)atomic_fetch_add(&p->waits[wait_step(now_us() - since)], 1);
    if (rc < 0)
        return error_wrap(err, "device %s: block %llu", block_name(p->next),
                          (unsigned long long)block);
    return 0;
}

/* Asks for all that a read of several blocks will wait for, so that it waits once. */
static void ask_ahead(struct pull *p, uint64_t first, uint64_t end)
{
    const uint64_t per_block = p->opt.block_size / BLOCK_PAGE;
    uint64_t page = pages_next(&p->here, first, end, false);

    if (page / per_block == (end - 1) / per_block)
        return; /* one block, or none: await() asks */
    while (page < end) {
        uint64_t block = page / per_block, offset = block * p->opt.block_size;
        struct stripe *s = stripe_of(p, block);
        bool asked;
        {
            lock_scope(&s->lock);
            asked = pages_get(&p->here, page) || !pages_set(&p->asked, block, block + 1);
        }
        uint64_t len = p->size - offset < p->opt.block_size ? p->size - offset : p->opt.block_size;
        if (!asked)
            p->opt.request(p->opt.opaque, offset, len);
        page = (block + 1) * per_block < end
                   ? pages_next(&p->here, (block + 1) * per_block, end, false)
                   : end;
    }
}

static int pull_pread(struct block *next, void *self, struct io *io, struct error *err)
{
    struct pull *p = self;
    const uint64_t per_block = p->opt.block_size / BLOCK_PAGE;
    const uint64_t end = (io->offset + io->len - 1) / BLOCK_PAGE + 1;

    ask_ahead(p, io->offset / BLOCK_PAGE, end);
    for (uint64_t page = pages_next(&p->here, io->offset / BLOCK_PAGE, end, false); page < end;
         page = pages_next(&p->here, page, end, false)) {
        uint64_t block = page / per_block, stop = (block + 1) * per_block;
        if (stop > end)
            stop = end;
        if (await(p, block, page, stop, err) < 0)
            return -1;
    }
    return block_read(next, io->buf, io->len, io->offset, err);
}

/* The write of a part of one block, or of all of it. A page at either edge that the write does not
 * cover must be here first; the rest becomes local. */
static int write_part(struct pull *p, const void *data, uint64_t len, uint64_t offset,
                      unsigned flags, struct error *err)
{
    const uint64_t block = offset / p->opt.block_size;
    const uint64_t first = offset / BLOCK_PAGE, end = (offset + len - 1) / BLOCK_PAGE + 1;
    const bool head = offset % BLOCK_PAGE != 0;
    const bool tail = offset + len != page_end(p, end - 1);
    struct stripe *s = stripe_of(p, block);

    for (;;) {
        if (head && await(p, block, first, first + 1, err) < 0)
            return -1;
        if (tail && await(p, block, end - 1, end, err) < 0)
            return -1;
        (void)pthread_mutex_lock(&s->lock);
        if ((!head || pages_get(&p->here, first)) && (!tail || pages_get(&p->here, end - 1)))
            break;
        (void)pthread_mutex_unlock(&s->lock);
    }
    int rc = data ? block_write(p->next, data, len, offset, flags, err)
                  : block_zero(p->next, len, offset, flags, err);
    if (rc == 0) {
        (void)pages_set(&p->local, first, end);
        set_here(p, first, end);
        (void)pthread_cond_broadcast(&s->change);
    } else {
        /* What a failed write left of a page that was here is ours, not the other side's; what was
         * absent stays so, and will be replaced when it arrives. */
        for (uint64_t i = first; i < end; i++)
            if (pages_get(&p->here, i))
                (void)pages_set(&p->local, i, i + 1);
    }
    (void)pthread_mutex_unlock(&s->lock);
    return rc;
}

static int pull_put(struct block *next, struct pull *p, const struct io *io, struct error *err)
{
    const uint64_t end = io->offset + io->len;
    const char *data = io->data;

    /* All local already: no arrival touches these pages any more, so no lock is needed. */
    uint64_t last = (end - 1) / BLOCK_PAGE + 1;
    if (pages_next(&p->local, io->offset / BLOCK_PAGE, last, false) == last)
        return data ? block_write(next, data, io->len, io->offset, io->flags, err)
                    : block_zero(next, io->len, io->offset, io->flags, err);
    for (uint64_t pos = io->offset; pos < end;) {
        uint64_t stop = (pos / p->opt.block_size + 1) * p->opt.block_size;
        if (stop > end)
            stop = end;
        if (write_part(p, data, stop - pos, pos, io->flags, err) < 0)
            return -1;
        if (data)
            data += stop - pos;
        pos = stop;
    }
    return 0;
}

static int pull_pwrite(struct block *next, void *self, struct io *io, struct error *err)
{
    return pull_put(next, self, io, err);
}

/* A trim is a zero here: what is trimmed must not arrive later, and need not. */
static int pull_zero(struct block *next, void *self, struct io *io, struct error *err)
{
    io->data = NULL;
    return pull_put(next, self, io, err);
}

static int pull_extents(struct block *next, void *self, uint64_t offset, uint64_t len,
                        struct extents *ret, struct error *err)
{
    struct pull *p = self;
    const uint64_t end = offset + len, last = (end - 1) / BLOCK_PAGE + 1;

    for (uint64_t pos = offset; pos < end;) {
        bool here = pages_get(&p->here, pos / BLOCK_PAGE);
        uint64_t stop = pages_next(&p->here, pos / BLOCK_PAGE, last, !here) * BLOCK_PAGE;
        if (stop > end)
            stop = end;
        if (here ? block_extents(next, pos, stop - pos, ret, err) < 0
                 : extents_add(ret, pos, stop - pos, EXTENT_ABSENT, err) < 0)
            return -1;
        pos = stop;
    }
    return 0;
}

static void wake_all(struct pull *p)
{
    for (unsigned i = 0; i < STRIPES; i++) {
        lock_scope(&p->stripes[i].lock);
        pthread_cond_broadcast(&p->stripes[i].change);
    }
    lock_scope(&p->done_lock);
    pthread_cond_broadcast(&p->all_here);
}

static void pull_cancel(void *self)
{
    struct pull *p = self;

    atomic_store(&p->cancelled, true);
    wake_all(p);
}

static void pull_free(struct pull *p)
{
    for (unsigned i = 0; i < STRIPES; i++) {
        pthread_cond_destroy(&p->stripes[i].change);
        pthread_mutex_destroy(&p->stripes[i].lock);
    }
    pthread_cond_destroy(&p->all_here);
    pthread_mutex_destroy(&p->done_lock);
    pthread_mutex_destroy(&p->fail_lock);
    free(p->here.words);
    free(p->local.words);
    free(p->asked.words);
    free(p);
}

DEFINE_CLEANUP(cleanup_pull_p, struct pull *, pull_free)

static int pull_close(struct block *next, void *self, struct error *err)
{
    struct pull *p = self;

    (void)next;
    (void)err;
    if (p->opt.release)
        p->opt.release(p->opt.opaque);
    pull_free(p);
    return 0;
}

static enum block_cap pull_can(struct block *next, void *self, enum block_feature feature)
{
    (void)self;
    if (feature == BLOCK_CAN_EXTENTS)
        return BLOCK_NATIVE;
    if (feature == BLOCK_CAN_FLUSH)
        return block_can(next, feature);
    return block_can(next, BLOCK_CAN_WRITE);
}

static const struct block_ops pull_ops = {
    .type = "pull",
    .close = pull_close,
    .can = pull_can,
    .pread = pull_pread,
    .pwrite = pull_pwrite,
    .zero = pull_zero,
    .trim = pull_zero,
    .extents = pull_extents,
    .cancel = pull_cancel,
};

struct block *pull_open(struct block *next, const struct pull_options *opt,
                        const struct context *ctx, struct pull **ret_pull, struct error *err)
{
    if (opt->block_size < BLOCK_SIZE_MIN || opt->block_size > BLOCK_SIZE_MAX ||
        (opt->block_size & (opt->block_size - 1))) {
        error_set(err, EINVAL, "device %s: pull: block size %u is none", block_name(next),
                  opt->block_size);
        return NULL;
    }
    CLEANUP(cleanup_pull_p) struct pull *p = calloc(1, sizeof(*p));
    if (!p) {
        error_oom(err);
        return NULL;
    }
    for (unsigned i = 0; i < STRIPES; i++) {
        pthread_mutex_init(&p->stripes[i].lock, NULL);
        pthread_cond_init(&p->stripes[i].change, NULL);
    }
    pthread_mutex_init(&p->fail_lock, NULL);
    pthread_mutex_init(&p->done_lock, NULL);
    pthread_cond_init(&p->all_here, NULL);
    p->next = next;
    p->opt = *opt;
    p->size = block_size(next);
    p->n_pages = (p->size + BLOCK_PAGE - 1) / BLOCK_PAGE;
    atomic_init(&p->absent, p->n_pages);
    if (pages_init(&p->here, p->n_pages, err) < 0 || pages_init(&p->local, p->n_pages, err) < 0 ||
        pages_init(&p->asked, p->size / opt->block_size + 1, err) < 0)
        return NULL;
    struct block *b = block_layer(next, &pull_ops, p, NULL, ctx, err);
    if (b)
        *ret_pull = steal_ptr(&p);
    return b;
}

/* ---- the other side's calls ---- */

static int check_pages(const struct pull *p, uint64_t len, uint64_t offset, struct error *err)
{
    if (offset > p->size || len > p->size - offset || offset % BLOCK_PAGE ||
        ((offset + len) % BLOCK_PAGE && offset + len != p->size))
        return error_set(err, EINVAL,
                         "device %s: %llu bytes at %llu arrived: not whole pages of the device",
                         block_name(p->next), (unsigned long long)len, (unsigned long long)offset);
    return 0;
}

/* A part of one block; the stripe's lock is held. */
static int arrive_part(struct pull *p, const char *data, uint64_t len, uint64_t offset,
                       struct error *err)
{
    const uint64_t last = (offset + len - 1) / BLOCK_PAGE + 1;

    for (uint64_t page = offset / BLOCK_PAGE; page < last;) {
        page = pages_next(&p->local, page, last, false);
        uint64_t stop = pages_next(&p->local, page, last, true);
        if (page == stop)
            break;
        uint64_t from = page * BLOCK_PAGE, n = page_end(p, stop - 1) - from;
        if (data ? block_write(p->next, data + (from - offset), n, from, 0, err) < 0
                 : block_zero(p->next, n, from, 0, err) < 0)
            return -1;
        set_here(p, page, stop);
        page = stop;
    }
    return 0;
}

int pull_arrive(struct pull *p, const void *data, uint64_t len, uint64_t offset, struct error *err)
{
    const uint64_t end = offset + len;
    const char *from = data;

    if (check_pages(p, len, offset, err) < 0)
        return -1;
    for (uint64_t pos = offset; pos < end;) {
        uint64_t block = pos / p->opt.block_size;
        uint64_t stop = (block + 1) * p->opt.block_size;
        if (stop > end)
            stop = end;
        struct stripe *s = stripe_of(p, block);
        {
            lock_scope(&s->lock);
            if (arrive_part(p, from, stop - pos, pos, err) < 0)
                return -1;
            pthread_cond_broadcast(&s->change);
        }
        if (from)
            from += stop - pos;
        pos = stop;
    }
    return 0;
}

int pull_keep(struct pull *p, uint64_t len, uint64_t offset, struct error *err)
{
    const uint64_t end = offset + len;

    if (check_pages(p, len, offset, err) < 0)
        return -1;
    for (uint64_t pos = offset; pos < end;) {
        uint64_t block = pos / p->opt.block_size;
        uint64_t stop = (block + 1) * p->opt.block_size;
        if (stop > end)
            stop = end;
        struct stripe *s = stripe_of(p, block);
        lock_scope(&s->lock);
        set_here(p, pos / BLOCK_PAGE, (stop - 1) / BLOCK_PAGE + 1);
        pthread_cond_broadcast(&s->change);
        pos = stop;
    }
    return 0;
}

void pull_invalidate(struct pull *p, const struct bitmap *pages)
{
    const uint64_t per_block = p->opt.block_size / BLOCK_PAGE;

    for (uint64_t i = bitmap_next_set(pages, 0); i < p->n_pages && i < pages->size;
         i = i + 1 < pages->size ? bitmap_next_set(pages, i + 1) : pages->size) {
        struct stripe *s = stripe_of(p, i / per_block);
        lock_scope(&s->lock);
        if (pages_get(&p->local, i))
            continue;
        atomic_fetch_add(&p->absent, pages_clear(&p->here, i, i + 1));
        (void)pages_clear(&p->asked, i / per_block, i / per_block + 1);
    }
}

void pull_fail(struct pull *p, const struct error *cause)
{
    {
        lock_scope(&p->fail_lock);
        p->failure = *cause;
        if (!p->failure.code)
            p->failure.code = EIO;
    }
    atomic_store(&p->failed, true);
    wake_all(p);
}

void pull_again(struct pull *p)
{
    {
        lock_scope(&p->fail_lock);
        p->failure.code = 0;
    }
    atomic_store(&p->failed, false);
    for (unsigned i = 0; i < STRIPES; i++) {
        lock_scope(&p->stripes[i].lock);
        for (uint64_t b = i; b < p->asked.size; b += STRIPES)
            (void)pages_clear(&p->asked, b, b + 1);
        pthread_cond_broadcast(&p->stripes[i].change);
    }
}

uint64_t pull_absent(const struct pull *p)
{
    return atomic_load(&p->absent);
}

uint64_t pull_next_absent(const struct pull *p, uint64_t from)
{
    uint64_t page = pages_next(&p->here, from / BLOCK_PAGE, p->n_pages, false);

    return page < p->n_pages ? page * BLOCK_PAGE : p->size;
}

int pull_wait(struct pull *p, struct error *err)
{
    lock_scope(&p->done_lock);

    while (atomic_load(&p->absent) > 0) {
        if (give_up(p, err) < 0)
            return error_wrap(err, "device %s", block_name(p->next));
        pthread_cond_wait(&p->all_here, &p->done_lock);
    }
    return 0;
}

uint64_t pull_wait_us(const struct pull *p, unsigned percentile, uint64_t *ret_count)
{
    uint64_t total = 0, seen = 0;
    unsigned i;

    for (i = 0; i < PULL_WAIT_STEPS; i++)
        total += atomic_load(&p->waits[i]);
    *ret_count = total;
    for (i = 0; i < PULL_WAIT_STEPS; i++) {
        seen += atomic_load(&p->waits[i]);
        if (seen > 0 && seen * 100 >= total * percentile)
            return wait_limit(i);
    }
    return 0;
}
