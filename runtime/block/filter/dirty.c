// SPDX-License-Identifier: Apache-2.0
/* dirty.c - which pages changed since the last look, and how often blocks change
 *
 * Theory of operation: one atomic bitmap of pages; a mark is a fetch-or, a look an exchange with
 * zero. How often a block changes is counted in two windows of `expiry`, the running one and the
 * one before, packed into one atomic word; the score counts the older window by the share of it
 * that is still within `expiry`.
 */
#include "runtime/block/filter/dirty.h"

#include <string.h>
#include <time.h>

#include "runtime/base/json.h"
#include "runtime/block/layer.h"
#include "runtime/block/pages.h"

#define EXPIRY_DEFAULT UINT64_C(1000000000)

struct dirty {
    uint64_t size;
    uint32_t block_size;
    uint64_t expiry;    /* ns; 0 = writes are not counted */
    struct pages pages; /* changed since the last look */
    uint64_t n_blocks;
    _Atomic uint64_t *heat; /* per block: window 32, writes in it 16, in the one before 16 */
};

static uint64_t now_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* The word as it reads in window `w`: what is older than one window is forgotten. */
static uint64_t roll(uint64_t word, uint32_t w)
{
    uint32_t then = (uint32_t)(word >> 32);

    if (then == w)
        return word;
    uint64_t before = then + 1 == w ? word >> 16 & 0xffff : 0;
    return (uint64_t)w << 32 | before;
}

static void heat_up(struct dirty *d, uint64_t offset, uint64_t len)
{
    if (!d->expiry)
        return;
    uint32_t w = (uint32_t)(now_ns() / d->expiry);
    for (uint64_t b = offset / d->block_size; b <= (offset + len - 1) / d->block_size; b++) {
        uint64_t old = atomic_load(&d->heat[b]), word;
        do {
            word = roll(old, w);
            if ((word >> 16 & 0xffff) < 0xffff)
                word += 0x10000;
        } while (!atomic_compare_exchange_weak(&d->heat[b], &old, word));
    }
}

static void mark(struct dirty *d, const struct io *io)
{
    (void)pages_set(&d->pages, io->offset / BLOCK_PAGE,
                    (io->offset + io->len - 1) / BLOCK_PAGE + 1);
    heat_up(d, io->offset, io->len);
}

static int dirty_pwrite(struct block *next, void *self, struct io *io, struct error *err)
{
    int rc = block_write(next, io->data, io->len, io->offset, io->flags, err);

    mark(self, io);
    return rc;
}

static int dirty_zero(struct block *next, void *self, struct io *io, struct error *err)
{
    int rc = block_zero(next, io->len, io->offset, io->flags, err);

    mark(self, io);
    return rc;
}

static int dirty_trim(struct block *next, void *self, struct io *io, struct error *err)
{
    int rc = block_trim(next, io->len, io->offset, err);

    mark(self, io);
    return rc;
}

static enum block_cap dirty_can(struct block *next, void *self, enum block_feature feature)
{
    (void)self;
    return block_can(next, feature); /* all is passed on, flags too */
}

static int dirty_describe(void *self, struct json_object *obj, struct error *err)
{
    const struct dirty *d = self;

    if (json_object_object_add(obj, "blockSize", json_object_new_uint64(d->block_size)) < 0 ||
        json_object_object_add(obj, "expiry", json_object_new_uint64(d->expiry)) < 0)
        return error_oom(err);
    return 0;
}

static void dirty_free(struct dirty *d)
{
    free(d->pages.words);
    free(d->heat);
    free(d);
}

DEFINE_CLEANUP(cleanup_dirty_p, struct dirty *, dirty_free)

static int dirty_close(struct block *next, void *self, struct error *err)
{
    (void)next;
    (void)err;
    dirty_free(self);
    return 0;
}

static const struct block_ops dirty_ops = {
    .type = "dirty",
    .close = dirty_close,
    .describe = dirty_describe,
    .can = dirty_can,
    .pwrite = dirty_pwrite,
    .zero = dirty_zero,
    .trim = dirty_trim,
};

static struct block *dirty_open(struct block *next, struct json_object *params, const char *name,
                                const struct context *ctx, struct error *err)
{
    uint64_t unit = BLOCK_SIZE_DEFAULT, expiry = EXPIRY_DEFAULT;

    if (json_get_u64(params, "blockSize", BLOCK_SIZE_MIN, BLOCK_SIZE_MAX, "dirty", &unit, err) <
            0 ||
        param_duration(params, "expiry", "dirty", &expiry, err) < 0)
        return NULL;
    if (unit & (unit - 1)) {
        error_set(err, EINVAL, "blockSize: %llu is not a power of two", (unsigned long long)unit);
        return NULL;
    }
    CLEANUP(cleanup_dirty_p) struct dirty *d = calloc(1, sizeof(*d));
    if (!d) {
        error_oom(err);
        return NULL;
    }
    d->size = block_size(next);
    d->block_size = (uint32_t)unit;
    d->expiry = expiry;
    d->n_blocks = (d->size + unit - 1) / unit;
    d->heat = calloc(d->n_blocks + 1, sizeof(*d->heat));
    if (!d->heat) {
        error_oom(err);
        return NULL;
    }
    if (pages_init(&d->pages, (d->size + BLOCK_PAGE - 1) / BLOCK_PAGE, err) < 0)
        return NULL;
    struct block *b = block_layer(next, &dirty_ops, d, name, ctx, err);
    if (b)
        (void)steal_ptr(&d);
    return b;
}

static const char *const keys[] = {"blockSize", "expiry", NULL};

const struct layer_type dirty_layer = {"dirty", keys, false, dirty_open};

/* ---- looking ---- */

struct dirty *dirty_find(struct block *top)
{
    void *self;

    return block_find(top, "dirty", &self) ? self : NULL;
}

uint32_t dirty_block_size(const struct dirty *d)
{
    return d->block_size;
}

uint64_t dirty_size(const struct dirty *d)
{
    return d->pages.size;
}

uint64_t dirty_take(struct dirty *d, struct bitmap *into)
{
    uint64_t n = 0;

    for (uint64_t i = 0; i < pages_words(&d->pages); i++) {
        if (!atomic_load_explicit(&d->pages.words[i], memory_order_relaxed))
            continue;
        uint64_t word = atomic_exchange(&d->pages.words[i], 0);
        n += (unsigned)__builtin_popcountll(word);
        into->words[i] |= word;
    }
    return n;
}

void dirty_put_back(struct dirty *d, const struct bitmap *pages)
{
    for (uint64_t i = 0; i < pages_words(&d->pages); i++)
        if (pages->words[i])
            atomic_fetch_or(&d->pages.words[i], pages->words[i]);
}

uint64_t dirty_pages(const struct dirty *d)
{
    uint64_t n = 0;

    for (uint64_t i = 0; i < pages_words(&d->pages); i++)
        n += (unsigned)__builtin_popcountll(atomic_load(&d->pages.words[i]));
    return n;
}

uint64_t dirty_blocks(const struct dirty *d)
{
    const uint64_t per_block = d->block_size / BLOCK_PAGE, size = d->pages.size;
    uint64_t n = 0;

    for (uint64_t p = pages_next(&d->pages, 0, size, true); p < size; n++) {
        uint64_t next = (p / per_block + 1) * per_block;
        p = next < size ? pages_next(&d->pages, next, size, true) : size;
    }
    return n;
}

struct scored {
    uint64_t block, score;
};

static int compare(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;

    if (x->score != y->score)
        return x->score < y->score ? -1 : 1;
    return x->block < y->block ? -1 : x->block > y->block;
}

int dirty_order(const struct dirty *d, uint64_t **ret_blocks, size_t *ret_count, struct error *err)
{
    cleanup_free struct scored *list = malloc((d->n_blocks + 1) * sizeof(*list));
    cleanup_free uint64_t *blocks = malloc((d->n_blocks + 1) * sizeof(*blocks));

    if (!list || !blocks)
        return error_oom(err);
    uint64_t now = now_ns();
    for (uint64_t i = 0; i < d->n_blocks; i++) {
        uint64_t score = 0;
        if (d->expiry) {
            uint64_t word = roll(atomic_load(&d->heat[i]), (uint32_t)(now / d->expiry));
            /* In 1024ths: the older window counts by what of it is younger than expiry. */
            uint64_t share = 1024 - (now % d->expiry) / (d->expiry / 1024 + 1);
            score = (word >> 16 & 0xffff) * 1024 + (word & 0xffff) * share;
        }
        list[i] = (struct scored){i, score};
    }
    qsort(list, d->n_blocks, sizeof(*list), compare);
    for (uint64_t i = 0; i < d->n_blocks; i++)
        blocks[i] = list[i].block;
    *ret_blocks = steal_ptr(&blocks);
    *ret_count = d->n_blocks;
    return 0;
}
