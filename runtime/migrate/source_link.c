// SPDX-License-Identifier: Apache-2.0
/* source_link.c - the source's ear: what the target says, and waiting for it */
#include <errno.h>
#include <string.h>

#include "runtime/migrate/source.h"

#define STATUS_PERIOD_NS UINT64_C(100000000)

/* ---- the reader ---- */

static int take_absent(struct source *s, const struct frame *f, const uint8_t *payload,
                       struct error *err)
{
    struct bitmap pages = {0};
    size_t cursor = 0;
    uint64_t end = 0, size = block_size(s->devices[f->device].block);
    struct wire_range r;
    int rc;

    if (bitmap_init(&pages, (size + COPY_PAGE - 1) / COPY_PAGE, err) < 0)
        return -1;
    while ((rc = range_next(payload, f->length, size, &cursor, &end, &r, err)) == 1) {
        uint64_t first = r.offset / COPY_PAGE;
        uint64_t last = (r.offset + r.length - 1) / COPY_PAGE;
        bitmap_set_range(&pages, first, last - first + 1);
    }
    if (rc == 0)
        copy_add(s->copy, f->device, &pages);
    bitmap_destroy(&pages);
    return rc;
}

/* What the target may say, and when. Returns 0, or -1 for what it may not. */
static int handle(struct source *s, const struct frame *f, const uint8_t *payload,
                  struct error *err)
{
    bool early;

    if (f->type == FRAME_WANT || f->type == FRAME_ABSENT) {
        {
            lock_scope(&s->lock);
            early = f->type == FRAME_WANT ? !s->copy : !s->retaking;
        }
        if (early || f->device >= s->n)
            return error_set(err, EPROTO, "%s out of place", frame_name(f->type));
        if (f->type == FRAME_ABSENT)
            return take_absent(s, f, payload, err);
        if (f->offset >= block_size(s->devices[f->device].block))
            return error_set(err, EPROTO, "want beyond the end of device %s",
                             s->devices[f->device].name);
        copy_want(s->copy, f->device, f->offset, f->extent);
        return 0;
    }
    lock_scope(&s->lock);
    switch (f->type) {
    case FRAME_ACCEPT:
        if (s->accepted)
            break;
        if (accept_decode(payload, f->length, s->shares_base, s->n, err) < 0)
            return -1;
        for (size_t i = 0; i < s->n; i++)
            if (s->shares_base[i] && !s->devices[i].share_base)
                return error_set(err, EPROTO, "accept: shares a base that was not offered");
        s->accepted = true;
        return 0;
    case FRAME_READY:
        if (!s->suspended || s->ready)
            break;
        s->ready = true;
        return 0;
    case FRAME_RUNNING:
        if (!s->committed)
            break;
        s->running = true;
        return 0;
    case FRAME_DONE:
        if (!s->running)
            break;
        s->done = true;
        return 0;
    case FRAME_ABORT: {
        char reason[WIRE_REASON_MAX + 1];
        reason_decode(payload, f->length, reason);
        s->aborted = true;
        s->never_ran = f->offset == ABORT_NEVER_RAN || f->offset == ABORT_COPIED;
        s->copied = f->offset == ABORT_COPIED && s->suspended && !s->committed;
        return error_set(err, ECONNABORTED, "the target gave up: %s", reason);
    }
    default:
        break;
    }
    return error_set(err, EPROTO, "%s out of place", frame_name(f->type));
}

static void *reader(void *opaque)
{
    struct source *s = opaque;
    struct error err = ERROR_INIT;

    for (;;) {
        struct frame f;
        const uint8_t *payload;
        int rc = link_receive(s->link, &f, &payload, &err);
        if (rc == 0 && handle(s, &f, payload, &err) < 0) {
            error_wrap(&err, "%s", link_peer(s->link));
            rc = -1;
        }
        {
            lock_scope(&s->lock);
            if (rc < 0) {
                s->lost = true;
                s->why = err;
            }
            (void)pthread_cond_broadcast(&s->change);
        }
        if (s->copy)
            copy_kick(s->copy);
        if (rc < 0)
            return NULL;
    }
}

int source_listen(struct source *s, struct error *err)
{
    int rc = pthread_create(&s->reader, NULL, reader, s);

    if (rc != 0)
        return error_num(err, rc, "start the reader");
    s->has_reader = true;
    return 0;
}

void source_drop_link(struct source *s)
{
    uint64_t in, out;

    if (!s->link)
        return;
    link_break(s->link);
    if (s->copy)
        copy_set_link(s->copy, NULL);
    if (s->has_reader)
        (void)pthread_join(s->reader, NULL);
    s->has_reader = false;
    link_counters(s->link, &in, &out);
    s->counted_in += in;
    s->counted_out += out;
    link_free(s->link);
    s->link = NULL;
}

/* ---- waiting and telling ---- */

void source_report(struct source *s, bool force)
{
    const struct migrate_watch *w = s->options->watch;
    uint64_t now = link_now_ns(), in = 0, out = 0, left = 0;

    if (!force && now - s->last_status_ns < STATUS_PERIOD_NS)
        return;
    s->last_status_ns = now;
    if (s->copy)
        left = copy_pending_bytes(s->copy);
    if (s->link)
        link_counters(s->link, &in, &out);
    s->status.bytes_wire = s->counted_in + s->counted_out + in + out;
    bool some = s->counted && left < s->status.bytes_total;
    s->status.bytes_settled = some ? s->status.bytes_total - left : 0;
    if (s->suspended && !s->result.suspended_ns)
        s->status.suspended_ns = now - s->suspend_ns;
    char phase[32];
    migrate_phase(&s->status, phase, sizeof(phase));
    context_progress(s->ctx, phase, s->status.bytes_settled, s->status.bytes_total, "bytes");
    if (w && w->status)
        w->status(w->opaque, &s->status);
}

bool source_lost(void *opaque)
{
    struct source *s = opaque;

    source_report(s, false);
    return source_flag(s, &s->lost) || source_stuck(s);
}

static uint64_t pages_out(struct source *s)
{
    struct copy_counters c = {0};

    if (s->copy)
        copy_get_counters(s->copy, &c);
    return c.pages_plain + c.pages_zero + c.pages_base;
}

void source_watch(struct source *s)
{
    s->moved_ns = link_now_ns();
    s->moved = pages_out(s);
}

bool source_stuck(struct source *s)
{
    if (!s->options->answer_ns)
        return false;
    if (pages_out(s) != s->moved)
        source_watch(s);
    return link_now_ns() - s->moved_ns >= s->options->answer_ns;
}

int source_say_stuck(struct source *s, const char *what, struct error *err)
{
    return error_set(err, ETIMEDOUT,
                     "%s: %s did not come, and nothing was taken, within the answer timeout of "
                     "%.1f s",
                     link_peer(s->link), what, (double)s->options->answer_ns / 1e9);
}

bool source_flag(struct source *s, const bool *flag)
{
    lock_scope(&s->lock);
    return *flag;
}

int source_why(struct source *s, struct error *err)
{
    lock_scope(&s->lock);
    if (err)
        *err = s->why;
    return -1;
}

/* Waits for a change of the flags, for a tenth of a second at most, or until the deadline. Locked.
 */
static void wait_a_little(struct source *s, uint64_t deadline)
{
    uint64_t until = link_now_ns() + STATUS_PERIOD_NS;

    if (deadline && until > deadline)
        until = deadline;
    struct timespec ts = {.tv_sec = (time_t)(until / 1000000000u),
                          .tv_nsec = (long)(until % 1000000000u)};
    (void)pthread_cond_timedwait(&s->change, &s->lock, &ts);
}

int source_wait(struct source *s, const bool *flag, uint64_t deadline, const char *what,
                struct error *err)
{
    lock_scope(&s->lock);

    while (!*flag) {
        if (s->lost) {
            if (err)
                *err = s->why;
            return -1;
        }
        if (deadline && link_now_ns() >= deadline)
            return error_set(err, ETIMEDOUT, "%s: %s did not come in time", link_peer(s->link),
                             what);
        if (context_check(s->ctx, err) < 0)
            return -1;
        wait_a_little(s, deadline);
    }
    return 0;
}

int source_wait_word(struct source *s, const bool *flag, uint64_t deadline, const char *what,
                     struct error *err)
{
    source_watch(s);
    while (s->options->answer_ns && !source_flag(s, flag)) {
        struct error late = ERROR_INIT;
        uint64_t look = link_now_ns() + STATUS_PERIOD_NS;
        if (source_stuck(s))
            return source_say_stuck(s, what, err);
        if (deadline && deadline < look)
            look = deadline;
        if (source_wait(s, flag, look, what, &late) < 0 &&
            (late.code != ETIMEDOUT || source_flag(s, &s->lost) || look == deadline)) {
            if (err)
                *err = late;
            return -1;
        }
    }
    return source_wait(s, flag, deadline, what, err);
}

/* After a link was taken up: READY (it has not had the word) or RUNNING; either says that all
 * ABSENT lists came. Returns 0, 1 when the link is lost again, or -1. */
static int wait_until_back(struct source *s, struct error *err)
{
    source_watch(s);
    for (;;) {
        {
            lock_scope(&s->lock);
            if (s->ready || s->running || s->lost)
                return s->lost;
            wait_a_little(s, 0);
        }
        if (source_stuck(s))
            return source_say_stuck(s, "READY or RUNNING", err);
    }
}

int source_retake(struct source *s, struct error *err)
{
    uint64_t limit = s->options->retake_ns ? s->options->retake_ns : RETAKE_DEFAULT_NS;
    uint64_t deadline = link_now_ns() + limit;

    /* A target that said it is over, alive as it was, does not come back. */
    while (s->options->reconnect && !s->aborted) {
        uint64_t now = link_now_ns();
        struct greeting theirs;
        if (now >= deadline || context_check(s->ctx, err) < 0)
            break;
        log_warn(context_log(s->ctx), "Lost the target after the commit, waiting for it",
                 log_str("error", s->why.text));
        source_drop_link(s);
        struct stream *stream = s->options->reconnect(s->options->opaque, deadline - now, err);
        if (!stream)
            break;
        s->link = link_new(stream, s->options->idle_ns, s->options->bandwidth, s->ctx, err);
        if (!s->link)
            return -1;
        if (link_greet(s->link, &s->greeting, &theirs, err) < 0)
            continue;
        if (memcmp(theirs.session, s->greeting.session, sizeof(theirs.session)) != 0) {
            link_send_abort(s->link, 0, "this machine is on its way to another host");
            continue;
        }
        copy_clear(s->copy);
        {
            lock_scope(&s->lock);
            s->lost = s->aborted = s->ready = false;
            s->retaking = true;
        }
        bool was_running = s->running;
        s->running = false;
        if (source_listen(s, err) < 0)
            return -1;
        int rc = wait_until_back(s, err);
        {
            lock_scope(&s->lock);
            s->retaking = false;
            s->running |= was_running;
        }
        if (rc <= 0)
            return rc;
    }
    return source_why(s, err);
}
