/* SPDX-License-Identifier: Apache-2.0 */
/* copy.h - the source's senders, private to runtime/migrate
 *
 * Theory of operation: per device a bitmap says which pages are still to be sent. A few threads
 * take runs of such pages (first what the target asked for, then device by device in order), clear
 * their bits, read, and send them. One mechanism serves every stage: the first copy sets all bits,
 * a round of settle and the last set those that were dirtied, a link taken up again those the
 * target lacks. When sending fails the run's bits are set again and the threads wait for another
 * link.
 *
 *     bits set --> [ take a run, clear ] --> read --> zero? base? zstd? --> link_send()
 *        ^                                                                      |
 *        +----------------------------- the link broke ------------------------+
 *
 * What a thread has read is old when the page is written before it was sent. So whoever announces a
 * page as changed, and sets its bit again, must know that no thread has it in hand: else the old
 * content follows the announcement, and the target takes it for the new one. After copy_wait() no
 * thread has anything in hand; while there is still something to send, copy_hold() and
 * copy_wait_idle() see to it.
 */
#ifndef RUNTIME_MIGRATE_COPY_H
#define RUNTIME_MIGRATE_COPY_H

#include "runtime/base/bitmap.h"
#include "runtime/migrate/link.h"

#define COPY_PAGE 4096u

struct copy;

struct copy_options {
    unsigned threads; /* 0 = one per processor, 4 at most */
    int zstd_level;
    const struct migrate_watch *watch;
    const struct context *ctx;
};

struct copy_counters {
    uint64_t pages_plain, pages_zero, pages_base, wants;
};

/* devices: outlive the copy. All bits clear, no link. NULL on failure. */
struct copy *copy_new(const struct migrate_device *devices, size_t n,
                      const struct copy_options *options, struct error *err);
/* Stops the threads, which must not be stuck in a link: break it before. NULL is fine. */
void copy_free(struct copy *copy);

/* Which link the threads send on; NULL: they hold still, and the call returns when none of them is
 * inside the old one any more. */
void copy_set_link(struct copy *copy, struct link *link);

/* Sets every bit of every device but those whose content is known without reading it: zeros, and
 * with shares_base[i] what lies in the base, are announced as ranges at once. Returns 0. */
int copy_add_all(struct copy *copy, const uint8_t *shares_base, struct error *err);
/* Sets the bits of `pages` (one bit a page of device d); no thread has one of them in hand. */
void copy_add(struct copy *copy, size_t d, const struct bitmap *pages);
/* Takes a range out: the target says it has it. Sets all others clear: call once per session. */
void copy_clear(struct copy *copy);

/* The target asks for a range ahead of its turn; pages already sent are left out. */
void copy_want(struct copy *copy, size_t d, uint64_t offset, uint64_t length);

/* Waits until no bit is set and no thread is busy, or until stop says so (asked each time something
 * changed; see copy_kick()). Returns 0, 1 when stop ended it, -1 when a device failed or ctx was
 * cancelled. */
int copy_wait(struct copy *copy, bool (*stop)(void *opaque), void *opaque, struct error *err);
/* With hold, the threads take nothing more until it is called without; what they have in hand goes
 * out, and copy_wait_idle() waits for that as copy_wait() does for everything. */
void copy_hold(struct copy *copy, bool hold);
int copy_wait_idle(struct copy *copy, bool (*stop)(void *opaque), void *opaque, struct error *err);
/* Makes them ask again. */
void copy_kick(struct copy *copy);

uint64_t copy_pending_bytes(struct copy *copy);
void copy_get_counters(struct copy *copy, struct copy_counters *ret);

#endif
