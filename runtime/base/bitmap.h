/* SPDX-License-Identifier: Apache-2.0 */
/* bitmap.h - a fixed-size set of block numbers
 *
 * Plain memory without a lock: the owner says which lock guards it. All functions take bits below
 * the size only (the caller's duty, asserted).
 */
#ifndef RUNTIME_BASE_BITMAP_H
#define RUNTIME_BASE_BITMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"

struct bitmap {
    uint64_t size; /* in bits */
    uint64_t *words;
};

/* All bits clear. Returns 0. */
int bitmap_init(struct bitmap *b, uint64_t size, struct error *err);
void bitmap_destroy(struct bitmap *b); /* a zeroed struct is fine */

bool bitmap_get(const struct bitmap *b, uint64_t bit);
/* Return the bit's old value. */
bool bitmap_set(struct bitmap *b, uint64_t bit);
bool bitmap_clear(struct bitmap *b, uint64_t bit);
void bitmap_set_range(struct bitmap *b, uint64_t first, uint64_t count);
void bitmap_clear_range(struct bitmap *b, uint64_t first, uint64_t count);
void bitmap_clear_all(struct bitmap *b);

uint64_t bitmap_count(const struct bitmap *b);

/* First set (clear) bit at or after `from`; b->size when there is none. */
uint64_t bitmap_next_set(const struct bitmap *b, uint64_t from);
uint64_t bitmap_next_clear(const struct bitmap *b, uint64_t from);

/* dst |= src; sizes must agree. */
void bitmap_or(struct bitmap *dst, const struct bitmap *src);

#endif
