// SPDX-License-Identifier: Apache-2.0
/* bitmap.c - a fixed-size set of block numbers */
#include "runtime/base/bitmap.h"

#include <assert.h>
#include <string.h>

#define WORD_BITS 64
#define WORD(bit) ((bit) / WORD_BITS)
#define MASK(bit) (UINT64_C(1) << ((bit) % WORD_BITS))

static uint64_t word_count(uint64_t size)
{
    return size / WORD_BITS + (size % WORD_BITS != 0);
}

int bitmap_init(struct bitmap *b, uint64_t size, struct error *err)
{
    uint64_t n = word_count(size);

    /* One word at least: calloc(0) may return NULL. */
    uint64_t *words = calloc(n ? n : 1, sizeof(*words));
    if (!words)
        return error_oom(err);
    b->size = size;
    b->words = words;
    return 0;
}

void bitmap_destroy(struct bitmap *b)
{
    free(b->words);
    b->words = NULL;
    b->size = 0;
}

bool bitmap_get(const struct bitmap *b, uint64_t bit)
{
    assert(bit < b->size);
    return b->words[WORD(bit)] & MASK(bit);
}

bool bitmap_set(struct bitmap *b, uint64_t bit)
{
    bool old = bitmap_get(b, bit);
    b->words[WORD(bit)] |= MASK(bit);
    return old;
}

bool bitmap_clear(struct bitmap *b, uint64_t bit)
{
    bool old = bitmap_get(b, bit);
    b->words[WORD(bit)] &= ~MASK(bit);
    return old;
}

static void change_range(struct bitmap *b, uint64_t first, uint64_t count, bool set)
{
    assert(first <= b->size && count <= b->size - first);
    uint64_t bit = first, end = first + count;

    while (bit < end) {
        uint64_t n = WORD_BITS - bit % WORD_BITS;
        if (n > end - bit)
            n = end - bit;
        uint64_t mask = (n == WORD_BITS ? ~UINT64_C(0) : (UINT64_C(1) << n) - 1)
                        << (bit % WORD_BITS);
        if (set)
            b->words[WORD(bit)] |= mask;
        else
            b->words[WORD(bit)] &= ~mask;
        bit += n;
    }
}

void bitmap_set_range(struct bitmap *b, uint64_t first, uint64_t count)
{
    change_range(b, first, count, true);
}

void bitmap_clear_range(struct bitmap *b, uint64_t first, uint64_t count)
{
    change_range(b, first, count, false);
}

void bitmap_clear_all(struct bitmap *b)
{
    memset(b->words, 0, word_count(b->size) * sizeof(*b->words));
}

uint64_t bitmap_count(const struct bitmap *b)
{
    uint64_t n = 0, words = word_count(b->size);

    for (uint64_t i = 0; i < words; i++)
        n += (uint64_t)__builtin_popcountll(b->words[i]);
    return n;
}

/* Finds the first bit at or after `from` whose word, xor-ed with flip, has it set. */
static uint64_t next(const struct bitmap *b, uint64_t from, uint64_t flip)
{
    if (from >= b->size)
        return b->size;
    uint64_t words = word_count(b->size);
    uint64_t i = WORD(from);
    uint64_t w = (b->words[i] ^ flip) & (~UINT64_C(0) << (from % WORD_BITS));

    while (!w) {
        if (++i == words)
            return b->size;
        w = b->words[i] ^ flip;
    }
    uint64_t bit = i * WORD_BITS + (uint64_t)__builtin_ctzll(w);
    return bit < b->size ? bit : b->size;
}

uint64_t bitmap_next_set(const struct bitmap *b, uint64_t from)
{
    return next(b, from, 0);
}

uint64_t bitmap_next_clear(const struct bitmap *b, uint64_t from)
{
    return next(b, from, ~UINT64_C(0));
}

void bitmap_or(struct bitmap *dst, const struct bitmap *src)
{
    assert(dst->size == src->size);
    uint64_t words = word_count(dst->size);

    for (uint64_t i = 0; i < words; i++)
        dst->words[i] |= src->words[i];
}
