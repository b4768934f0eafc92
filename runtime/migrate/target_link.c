// SPDX-License-Identifier: Apache-2.0
/* target_link.c - taking up a lost link to the source */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/migrate/target.h"

#define RECONNECT_NAP_NS UINT64_C(200000000)
#define STRANGER_NAP_NS UINT64_C(900000000) /* somebody is there: not so often */

bool target_flag(struct target *t, const bool *which)
{
    lock_scope(&t->lock);
    return *which;
}

static int send_absent(struct target *t, struct link *link, size_t i, struct error *err)
{
    cleanup_free uint8_t *list = malloc((size_t)WIRE_RANGES_MAX * 16);
    const struct target_device *d = &t->devices[i];
    uint64_t at = pull_next_absent(d->pull, 0);

    if (!list)
        return error_oom(err);
    while (at < d->as.size) {
        struct frame f = {.type = FRAME_ABSENT, .device = (uint16_t)i};
        while (at < d->as.size && f.length < WIRE_RANGES_MAX * 16) {
            struct wire_range r = {at, TARGET_PAGE};
            /* Neighbours in one range. */
            for (;;) {
                at = pull_next_absent(d->pull, r.offset + r.length);
                if (at != r.offset + r.length || at >= d->as.size)
                    break;
                r.length += TARGET_PAGE;
            }
            if (r.length > d->as.size - r.offset)
                r.length = d->as.size - r.offset;
            f.length += (uint32_t)range_encode(&r, list + f.length);
        }
        if (link_send(link, &f, list, err) < 0)
            return -1;
    }
    return 0;
}

/* Greets on a new link and says what is lacking and where we stand. Code ESTALE: it is not our
 * source. A stranger at its address must not feed the machine, nor say that it is over. */
static int take_up(struct target *t, struct link *link, struct error *err)
{
    struct greeting theirs;
    bool ran, ready, done;

    if (link_greet(link, &t->greeting, &theirs, err) < 0)
        return -1;
    if (memcmp(theirs.session, t->greeting.session, sizeof(theirs.session)) != 0)
        return error_set(err, ESTALE, "%s: is another source than the one that was lost",
                         link_peer(link));
    for (size_t i = 0; i < t->n; i++)
        if (send_absent(t, link, i, err) < 0)
            return -1;
    {
        lock_scope(&t->lock);
        ran = t->ran;
        ready = t->ready;
        done = t->done;
    }
    if ((ran || ready) && link_send_word(link, ran ? FRAME_RUNNING : FRAME_READY, 0, err) < 0)
        return -1;
    return done ? link_send_word(link, FRAME_DONE, 0, err) : 0;
}

void target_set_link(struct target *t, struct link *link)
{
    struct link *old;
    {
        lock_scope(&t->link_lock);
        old = t->link;
        t->link = link;
    }
    if (old) {
        uint64_t in, out;
        link_counters(old, &in, &out);
        t->result.bytes_received += in;
        t->result.bytes_sent += out;
    }
    link_free(old);
}

/* Nobody can tell us when the source is back: ask a few times a second. */
static void nap(uint64_t ns)
{
    struct timespec ts = {.tv_nsec = (long)ns};

    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL);
}

int target_reconnect(struct target *t, uint64_t limit, struct error *why)
{
    uint64_t deadline = link_now_ns() + limit;
    bool strangers = false;

    while (t->options->reconnect && link_now_ns() < deadline && context_check(t->ctx, NULL) == 0 &&
           !target_flag(t, &t->failed)) {
        struct error err = ERROR_INIT;
        struct stream *stream = t->options->reconnect(t->options->opaque, &err);
        struct link *link = stream ? link_new(stream, t->options->idle_ns, 0, t->ctx, &err) : NULL;
        if (link && take_up(t, link, &err) == 0) {
            log_info(context_log(t->ctx), "Took the link to the source up again",
                     log_str("peer", link_peer(link)));
            target_set_link(t, link);
            /* The runner may have said DONE on the old link between take_up() and here. */
            if (target_flag(t, &t->done))
                (void)link_send_word(link, FRAME_DONE, 0, NULL);
            else
                (void)target_say_done(t, NULL); /* a lost link is found by whoever hears on it */
            for (size_t i = 0; i < t->n; i++)
                pull_again(t->devices[i].pull);
            return 0;
        }
        bool stranger = link && err.code == ESTALE;
        link_free(link);
        if (stranger && !strangers)
            log_warn(context_log(t->ctx), "Looking for the source on, ignoring",
                     log_str("error", err.text));
        strangers |= stranger;
        nap(stranger ? STRANGER_NAP_NS : RECONNECT_NAP_NS);
    }
    if (strangers && why) {
        const struct error was = *why;
        (void)error_set(why, was.code, "%s; another source answers there now", was.text);
    }
    return -1;
}
