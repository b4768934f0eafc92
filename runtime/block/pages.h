/* SPDX-License-Identifier: Apache-2.0 */
/* pages.h - a set of pages or blocks that many threads change without a lock; not for other modules
 *
 * Each word is atomic by itself. Ranges are not: a caller that needs a range changed at once holds
 * a lock of its own.
 */
#ifndef RUNTIME_BLOCK_PAGES_H
#define RUNTIME_BLOCK_PAGES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "runtime/base/error.h"

struct pages {
    uint64_t size; /* in bits */
    _Atomic uint64_t *words;
};

static inline uint64_t pages_words(const struct pages *p)
{
    return (p->size + 63) / 64;
}

static inline int pages_init(struct pages *p, uint64_t size, struct error *err)
{
    p->size = size;
    p->words = calloc(pages_words(p) + 1, sizeof(*p->words));
    return p->words ? 0 : error_oom(err);
}

static inline bool pages_get(const struct pages *p, uint64_t bit)
{
    return atomic_load_explicit(&p->words[bit / 64], memory_order_acquire) >> (bit % 64) & 1;
}

/* The bits of one word that lie in [first, end); *ret_next is where the next word begins. */
static inline uint64_t pages_mask(uint64_t first, uint64_t end, uint64_t *ret_next)
{
    uint64_t next = (first / 64 + 1) * 64;
    uint64_t mask = ~UINT64_C(0) << (first % 64);

    if (next > end)
        mask &= ~UINT64_C(0) >> (next - end);
    *ret_next = next;
    return mask;
}

/* Sets (clears) [first, end). Return how many changed. */
static inline uint64_t pages_set(struct pages *p, uint64_t first, uint64_t end)
{
    uint64_t changed = 0;

    while (first < end) {
        uint64_t next, mask = pages_mask(first, end, &next);
        uint64_t old = atomic_fetch_or(&p->words[first / 64], mask);
        changed += (unsigned)__builtin_popcountll(mask & ~old);
        first = next;
    }
    return changed;
}

static inline uint64_t pages_clear(struct pages *p, uint64_t first, uint64_t end)
{
    uint64_t changed = 0;

    while (first < end) {
        uint64_t next, mask = pages_mask(first, end, &next);
        uint64_t old = atomic_fetch_and(&p->words[first / 64], ~mask);
        changed += (unsigned)__builtin_popcountll(mask & old);
        first = next;
    }
    return changed;
}

/* First bit at or after `from` that is `value`; `end` when there is none before. */
static inline uint64_t pages_next(const struct pages *p, uint64_t from, uint64_t end, bool value)
{
    while (from < end) {
        uint64_t next, mask = pages_mask(from, end, &next);
        uint64_t word = atomic_load_explicit(&p->words[from / 64], memory_order_acquire);
        word = (value ? word : ~word) & mask;
        if (word)
            return from / 64 * 64 + (unsigned)__builtin_ctzll(word);
        from = next;
    }
    return end;
}

#endif
