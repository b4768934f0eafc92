/* SPDX-License-Identifier: Apache-2.0 */
/* dirty.h - which pages of a device changed since the last look, and how often blocks change
 *
 * {"type": "dirty", "blockSize": 65536, "expiry": 1000000000}
 *
 * A page (BLOCK_PAGE) is marked after its write has reached the layer below and before the write is
 * answered. So a look finds every write that was answered before it; a write that is in flight
 * during a look is found by that look or by the next one, never by none. Zero and trim are writes;
 * one that failed is marked too, since nobody knows what it left.
 */
#ifndef RUNTIME_BLOCK_FILTER_DIRTY_H
#define RUNTIME_BLOCK_FILTER_DIRTY_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/base/bitmap.h"
#include "runtime/block/block.h"

struct dirty;

/* The outermost dirty layer of the stack; NULL when there is none. It lives as long as the stack.
 */
struct dirty *dirty_find(struct block *top);

/* Pages the device has: its size in BLOCK_PAGE, rounded up. */
uint64_t dirty_size(const struct dirty *d);

/* Adds the changed pages to *into, a bitmap of dirty_size() bits, and forgets them, word by word
 * at once. Returns how many there were. Any thread. */
uint64_t dirty_take(struct dirty *d, struct bitmap *into);

/* Marks pages as changed again: those a taker could not deal with. */
void dirty_put_back(struct dirty *d, const struct bitmap *pages);

/* Pages changed, and blocks with a changed page, right now; nothing is forgotten. */
uint64_t dirty_pages(const struct dirty *d);
uint64_t dirty_blocks(const struct dirty *d);

/* The layer's blockSize, bytes. */
uint32_t dirty_block_size(const struct dirty *d);

/* All blocks of blockSize bytes, ordered by how often they were written within the last `expiry`,
 * the quietest first, equals in ascending order. The caller frees *ret_blocks. */
int dirty_order(const struct dirty *d, uint64_t **ret_blocks, size_t *ret_count, struct error *err);

#endif
