/* SPDX-License-Identifier: Apache-2.0 */
/* pull.h - a device whose content arrives while it is in use
 *
 *     VMM read ---> page absent: ask for its block, wait ----.
 *     VMM write --> page whole: present at once              |
 *     ============[ pull ]=============                      |
 *     migration --> pull_arrive(data) ------> wakes it <-----'
 *     ============[ next ]=============  (an overlay, a file: where what arrived is kept)
 *
 * Every page (BLOCK_PAGE) is in one of these states:
 *
 *     absent    not here. Reads and writes of a part of it ask and wait; a write of all of it makes
 * it local. Left by pull_arrive(), pull_keep(), a write. arriving  absent, and its block was asked
 * for. Nobody asks again until pull_again(). present   here, as the other side has it. A further
 * arrival replaces it: the other side sends a page again when it changed there. pull_invalidate()
 * makes it absent. local     here, and written by our user since. Arrivals are dropped, for ever:
 * theirs is older.
 *
 * Test and act on a page happen under one hold of its block's lock, the write to the layer below
 * included. This is what keeps a late arrival from overwriting a newer local write.
 */
#ifndef RUNTIME_BLOCK_FILTER_PULL_H
#define RUNTIME_BLOCK_FILTER_PULL_H

#include <stdint.h>

#include "runtime/base/bitmap.h"
#include "runtime/block/block.h"

struct pull;

struct pull_options {
    uint32_t block_size; /* bytes, a power of two >= BLOCK_PAGE: the unit that is asked for */
    /* Asks for the block at offset ahead of all others. Called without a lock, from any thread,
     * once a block until pull_again(). Must not wait for the arrival. */
    void (*request)(void *opaque, uint64_t offset, uint64_t len);
    /* Called once, when the layer is closed: no request will come any more. May be NULL. */
    void (*release)(void *opaque);
    void *opaque;
};

/* Puts the filter on next; all is absent. The result owns next. *ret_pull lives as long as it.
 * Returns NULL on failure; next is the caller's then. */
struct block *pull_open(struct block *next, const struct pull_options *opt,
                        const struct context *ctx, struct pull **ret_pull, struct error *err);

/* A range arrives: whole pages (the last may end with the device). data NULL: zeros. Local pages of
 * it are dropped. */
int pull_arrive(struct pull *p, const void *data, uint64_t len, uint64_t offset, struct error *err);

/* The range's absent pages are what the layer below holds already ("same as the base you have"). */
int pull_keep(struct pull *p, uint64_t len, uint64_t offset, struct error *err);

/* Pages in the set (dirty_size() bits, as from a peer's dirty list) are absent again, except local
 * ones. Only while nobody reads or writes the device. */
void pull_invalidate(struct pull *p, const struct bitmap *pages);

/* From now on every wait fails with this error (its code and text), those under way too. */
void pull_fail(struct pull *p, const struct error *cause);

/* The source is back after pull_fail(), or on a new link: waits wait again, and what is waited for
 * is asked for anew. */
void pull_again(struct pull *p);

uint64_t pull_absent(const struct pull *p); /* pages */

/* How long accesses of absent pages have had to wait, in microseconds: so many percent of them no
 * longer than this (to an eighth). *ret_count: how many there were. */
uint64_t pull_wait_us(const struct pull *p, unsigned percentile, uint64_t *ret_count);

/* The first absent page's offset at or after `from`; size of the device when there is none. */
uint64_t pull_next_absent(const struct pull *p, uint64_t from);

/* Waits until nothing is absent. Fails after pull_fail() or block_cancel(). */
int pull_wait(struct pull *p, struct error *err);

#endif
