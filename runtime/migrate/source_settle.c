// SPDX-License-Identifier: Apache-2.0
/* source_settle.c - what the source sends while its machine runs: everything once, and then rounds
 * of what was changed meanwhile
 *
 * Theory of operation: a look at a device takes the pages its dirty filter saw since the last one,
 * tells the target that it does not have them any more (ABSENT), and sets them pending in copy.c,
 * whose threads send them. Nothing is in their hands then: each look but the one after the device
 * state was saved comes when all was sent, and that one waits for them. A device settles when its
 * looks find little, or often enough.
 */
#include <errno.h>
#include <stdlib.h>

#include "runtime/block/filter/dirty.h"
#include "runtime/migrate/source.h"

/* ---- pages that changed ---- */

/* Sends the set pages of device d as ABSENT frames: from now on the target does not have them. */
static int send_absent(struct source *s, size_t d, const struct bitmap *pages, struct error *err)
{
    const uint64_t size = block_size(s->devices[d].block);
    const struct migrate_watch *w = s->options->watch;
    cleanup_free uint8_t *list = malloc((size_t)WIRE_RANGES_MAX * 16);
    uint64_t page = bitmap_next_set(pages, 0);

    if (!list)
        return error_oom(err);
    while (page < pages->size) {
        struct frame f = {.type = FRAME_ABSENT, .device = (uint16_t)d};
        while (page < pages->size && f.length < WIRE_RANGES_MAX * 16) {
            uint64_t stop = bitmap_next_clear(pages, page);
            struct wire_range r = {page * COPY_PAGE, (stop - page) * COPY_PAGE};
            if (r.offset + r.length > size)
                r.length = size - r.offset;
            f.length += (uint32_t)range_encode(&r, list + f.length);
            if (w && w->trace)
                w->trace(w->opaque, MIGRATE_TRACE_DIRTIED, s->devices[d].name, r.offset, r.length);
            page = bitmap_next_set(pages, stop);
        }
        if (link_send(s->link, &f, list, err) < 0)
            return -1;
    }
    return 0;
}

/* Fetches what device d's filter saw since the last look, tells the target, and sets it pending.
 * *ret_blocks (may be NULL): how many blocks of the device were touched. */
static int look(struct source *s, size_t d, uint64_t *ret_blocks, struct error *err)
{
    const struct migrate_device *dev = &s->devices[d];
    struct bitmap pages = {0};
    uint64_t per_block = dev->block_size / COPY_PAGE, blocks = 0;

    if (bitmap_init(&pages, (block_size(dev->block) + COPY_PAGE - 1) / COPY_PAGE, err) < 0)
        return -1;
    int rc = 0;
    uint64_t n = dirty_take(dirty_find(dev->block), &pages);
    if (n) {
        for (uint64_t p = bitmap_next_set(&pages, 0); p < pages.size;
             p = bitmap_next_set(&pages, p - p % per_block + per_block))
            blocks++;
        rc = send_absent(s, d, &pages, err);
        if (rc == 0)
            copy_add(s->copy, d, &pages);
        s->status.dirty_pages += n;
        s->result.pages_resent += n;
    }
    bitmap_destroy(&pages);
    if (ret_blocks)
        *ret_blocks = blocks;
    return rc < 0 ? error_wrap(err, "device %s: find what changed", dev->name) : 0;
}

int source_look_at_all(struct source *s, struct error *err)
{
    s->status.dirty_pages = 0;
    if (s->machine->flush && s->machine->flush(s->machine->opaque, err) < 0)
        return error_wrap(err, "flush the machine's memory");
    for (size_t d = 0; d < s->n; d++)
        if (look(s, d, NULL, err) < 0)
            return -1;
    return 0;
}

/* ---- the stages ---- */

int source_copy_everything(struct source *s, struct error *err)
{
    copy_set_link(s->copy, s->link);
    if (copy_add_all(s->copy, s->shares_base, err) < 0)
        return -1;
    s->counted = true;
    return 0;
}

static int wait_for_senders(struct source *s,
                            int (*wait)(struct copy *copy, bool (*stop)(void *opaque), void *opaque,
                                        struct error *err),
                            struct error *err)
{
    source_watch(s);
    int rc = wait(s->copy, source_lost, s, err);

    if (rc == 1 && !source_flag(s, &s->lost))
        return source_say_stuck(s, "a sign that it takes what is sent", err);
    return rc == 1 ? source_why(s, err) : rc;
}

int source_drain_pending(struct source *s, struct error *err)
{
    return wait_for_senders(s, copy_wait, err);
}

/* Guest memory may have been written until save() returned: what a sender read before that and has
 * not sent yet would follow the word that it is old, and stay for good. */
int source_look_after_save(struct source *s, struct error *err)
{
    int rc = wait_for_senders(s, copy_wait_idle, err);

    if (rc == 0)
        rc = source_look_at_all(s, err);
    return rc;
}

int source_forget_changes(struct source *s, struct error *err)
{
    for (size_t d = 0; d < s->n; d++) {
        struct dirty *dirty = dirty_find(s->devices[d].block);
        struct bitmap before = {0};
        if (!dirty)
            return error_set(err, EINVAL, "device %s: its stack has no filter \"dirty\"",
                             s->devices[d].name);
        if (bitmap_init(&before, dirty_size(dirty), err) < 0)
            return -1;
        (void)dirty_take(dirty, &before);
        bitmap_destroy(&before);
    }
    return 0;
}

int source_stage_copy(struct source *s, struct error *err)
{
    if (source_forget_changes(s, err) < 0)
        return -1;
    if (s->options->postcopy == MIGRATE_POSTCOPY_EARLY)
        return 0; /* everything is sent once the machine stands still */
    if (source_copy_everything(s, err) < 0)
        return -1;
    return source_drain_pending(s, err);
}

struct cycle {
    uint32_t total, below;
    bool ready;
    uint64_t due_ns;
};

/* One look at a device in settle, judged by its knobs (see the manual page: maxDirtyBlocks,
 * minCycles, maxCycles). */
static int settle_one(struct source *s, size_t d, struct cycle *c, struct error *err)
{
    const struct migrate_device *dev = &s->devices[d];
    uint64_t blocks;

    if (look(s, d, &blocks, err) < 0)
        return -1;
    c->total++;
    if (blocks < dev->max_dirty_blocks) {
        if (++c->below > dev->min_cycles)
            c->ready = true;
    } else {
        c->below = 0;
    }
    if (c->total >= dev->max_cycles)
        c->ready = true;
    c->due_ns = link_now_ns() + dev->cycle_throttle_ns;
    return 0;
}

/* Waits until the first device that is not ready is due; the link's loss ends the wait. */
static int wait_until_due(struct source *s, const struct cycle *cycles, struct error *err)
{
    static const bool never = false;
    uint64_t due = UINT64_MAX;

    for (size_t d = 0; d < s->n; d++)
        if (!cycles[d].ready && cycles[d].due_ns < due)
            due = cycles[d].due_ns;
    if (due > link_now_ns() && source_wait(s, &never, due, "the next round", err) < 0 &&
        (!err || err->code != ETIMEDOUT))
        return -1;
    return 0;
}

int source_stage_settle(struct source *s, struct error *err)
{
    cleanup_free struct cycle *cycles = calloc(s->n, sizeof(*cycles));
    size_t waiting = 0;

    if (!cycles)
        return error_oom(err);
    for (size_t d = 0; d < s->n; d++) {
        cycles[d].ready = s->devices[d].max_cycles == 0;
        waiting += !cycles[d].ready;
    }
    if (s->options->postcopy == MIGRATE_POSTCOPY_EARLY)
        return 0;
    while (waiting) {
        struct error late = ERROR_INIT;
        if (wait_until_due(s, cycles, &late) < 0) {
            if (err)
                *err = late;
            return -1;
        }
        s->status.round = ++s->result.rounds;
        s->status.dirty_pages = 0;
        if (s->machine->flush && s->machine->flush(s->machine->opaque, err) < 0)
            return error_wrap(err, "flush the machine's memory");
        waiting = 0;
        uint64_t now = link_now_ns();
        for (size_t d = 0; d < s->n; d++) {
            if (cycles[d].due_ns <= now && settle_one(s, d, &cycles[d], err) < 0)
                return -1;
            waiting += !cycles[d].ready;
        }
        source_report(s, true);
        if (source_drain_pending(s, err) < 0)
            return -1;
    }
    return 0;
}
