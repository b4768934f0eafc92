// SPDX-License-Identifier: Apache-2.0
/* target.c - the side that takes the machine in (source.c is the other; read them side by side)
 *
 * Theory of operation: migrate_receive()'s thread hears every frame, in order, and stores what it
 * brings; that is all it does, because loading and running the machine may read pages which only
 * this thread can bring. So a second thread, the runner, loads the state when the source has
 * SUSPENDED, says READY, waits for the COMMIT that the first one hears, runs the machine, and says
 * RUNNING.
 *
 *     hearing:  offer, data, absent, state, SUSPENDED ........... COMMIT, data ... DONE, BYE
 *     runner:                                    load, READY .............. run, RUNNING
 *
 * When the link breaks: before READY the copy is destroyed; after it, and before the COMMIT, the
 * target looks for the source for a while and then destroys its copy, which then never ran; after
 * the COMMIT it runs the machine and looks for the source for what it still lacks.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/migrate/target.h"

#define DONE_RETAKE_NS UINT64_C(2000000000)
#define ABORT_GRACE_NS UINT64_C(2000000000)

/* ---- sending, from any thread ---- */

int target_say(struct target *t, uint8_t type, uint64_t offset, struct error *err)
{
    lock_scope(&t->link_lock);
    if (!t->link)
        return error_set(err, EPIPE, "no link to the source");
    return link_send_word(t->link, type, offset, err);
}

/* The pull filter asks for a block. A lost request is no loss: taking the link up asks anew. */
static void request(void *opaque, uint64_t offset, uint64_t len)
{
    struct target_device *d = opaque;
    struct target *t = d->t;
    struct frame f = {.type = FRAME_WANT,
                      .device = (uint16_t)(d - t->devices),
                      .offset = offset,
                      .extent = (uint32_t)(len > WIRE_BLOCK_MAX ? WIRE_BLOCK_MAX : len)};

    lock_scope(&t->link_lock);
    /* Without a link the engine may have returned, and its options be gone. */
    if (!t->link)
        return;
    const struct migrate_watch *w = t->options->watch;
    if (w && w->trace)
        w->trace(w->opaque, MIGRATE_TRACE_WANTED, d->as.name, offset, len);
    (void)link_send(t->link, &f, NULL, NULL);
    t->result.wants++;
}

static void unref(struct target *t)
{
    if (atomic_fetch_sub(&t->references, 1) != 1)
        return;
    (void)pthread_mutex_destroy(&t->link_lock);
    (void)pthread_mutex_destroy(&t->lock);
    (void)pthread_cond_destroy(&t->change);
    free(t);
}

/* The pull filter was closed. */
static void release(void *opaque)
{
    struct target_device *d = opaque;
    unref(d->t);
}

uint64_t target_absent_pages(const struct target *t)
{
    uint64_t n = 0;

    for (size_t i = 0; i < t->n; i++)
        n += pull_absent(t->devices[i].pull);
    return n;
}

static void report(struct target *t, bool force)
{
    const struct migrate_watch *w = t->options->watch;
    uint64_t now = link_now_ns(), in, out;

    if (!force && now - t->last_status_ns < 100000000)
        return;
    t->last_status_ns = now;
    link_counters(t->link, &in, &out);
    t->status.bytes_wire = in + out;
    uint64_t left = target_absent_pages(t) * TARGET_PAGE;
    t->status.bytes_settled = left < t->status.bytes_total ? t->status.bytes_total - left : 0;
    context_progress(t->ctx, migrate_stage_name(t->status.stage), t->status.bytes_settled,
                     t->status.bytes_total, "bytes");
    if (w && w->status)
        w->status(w->opaque, &t->status);
}

static void enter(struct target *t, enum migrate_stage stage)
{
    t->status.stage = stage;
    log_debug(context_log(t->ctx), "Migration stage", log_str("stage", migrate_stage_name(stage)));
    report(t, true);
}

int target_say_done(struct target *t, struct error *err)
{
    {
        lock_scope(&t->lock);
        if (!t->ran || t->done || target_absent_pages(t) > 0)
            return 0;
        t->done = true;
    }
    return target_say(t, FRAME_DONE, 0, err);
}

/* ---- hearing ---- */

static struct target_device *device_of(struct target *t, const struct frame *f, struct error *err)
{
    if (f->device >= t->n) {
        error_set(err, EPROTO, "%s for device %u, which was not offered", frame_name(f->type),
                  f->device);
        return NULL;
    }
    return &t->devices[f->device];
}

static int take_data(struct target *t, const struct frame *f, const uint8_t *payload,
                     struct error *err)
{
    struct target_device *d = device_of(t, f, err);
    const struct migrate_watch *w = t->options->watch;
    uint64_t pages = (f->extent + TARGET_PAGE - 1) / TARGET_PAGE;
    int rc;

    if (!d)
        return -1;
    if (f->offset > d->as.size || f->extent > d->as.size - f->offset || f->offset % TARGET_PAGE ||
        (f->extent % TARGET_PAGE && f->offset + f->extent != d->as.size))
        return error_set(err, EPROTO, "data at %llu+%u is not of device %s",
                         (unsigned long long)f->offset, f->extent, d->as.name);
    switch (f->encoding) {
    case ENCODING_BASE:
        if (!d->shares_base)
            return error_set(err, EPROTO, "device %s: data from a base that is not shared",
                             d->as.name);
        rc = pull_keep(d->pull, f->extent, f->offset, err);
        t->result.pages_base += pages;
        break;
    case ENCODING_ZERO:
        rc = pull_arrive(d->pull, NULL, f->extent, f->offset, err);
        t->result.pages_zero += pages;
        break;
    case ENCODING_ZSTD: {
        size_t n = ZSTD_decompressDCtx(t->zstd, t->plain, WIRE_BLOCK_MAX, payload, f->length);
        if (ZSTD_isError(n) || n != f->extent)
            return error_set(err, EPROTO, "device %s: compressed data at %llu is damaged",
                             d->as.name, (unsigned long long)f->offset);
        payload = t->plain;
    }
        __attribute__((fallthrough));
    default:
        rc = pull_arrive(d->pull, payload, f->extent, f->offset, err);
        t->result.pages_plain += pages;
        break;
    }
    if (rc < 0)
        return error_wrap(err, "device %s: store what arrived at %llu", d->as.name,
                          (unsigned long long)f->offset);
    if (w && w->trace)
        w->trace(w->opaque,
                 f->encoding == ENCODING_ZERO || f->encoding == ENCODING_BASE
                     ? MIGRATE_TRACE_IMPLIED
                     : MIGRATE_TRACE_RECEIVED,
                 d->as.name, f->offset, f->extent);
    return 0;
}

static int take_absent(struct target *t, const struct frame *f, const uint8_t *payload,
                       struct error *err)
{
    struct target_device *d = device_of(t, f, err);
    struct bitmap pages = {0};
    struct wire_range r;
    size_t cursor = 0;
    uint64_t end = 0;
    int rc;

    if (!d)
        return -1;
    if (t->has_runner)
        return error_set(err, EPROTO, "absent after suspended");
    if (bitmap_init(&pages, (d->as.size + TARGET_PAGE - 1) / TARGET_PAGE, err) < 0)
        return -1;
    while ((rc = range_next(payload, f->length, d->as.size, &cursor, &end, &r, err)) == 1) {
        uint64_t first = r.offset / TARGET_PAGE, last = (r.offset + r.length - 1) / TARGET_PAGE;
        bitmap_set_range(&pages, first, last - first + 1);
    }
    if (rc == 0)
        pull_invalidate(d->pull, &pages);
    t->status.dirty_pages = bitmap_count(&pages);
    t->result.pages_resent += t->status.dirty_pages;
    bitmap_destroy(&pages);
    return rc;
}

static int take_state(struct target *t, const struct frame *f, const uint8_t *payload,
                      struct error *err)
{
    if (t->has_runner || f->offset != t->state_len || f->length > WIRE_STATE_MAX - t->state_len)
        return error_set(err, EPROTO, "state out of place");
    uint8_t *grown = realloc(t->state, t->state_len + f->length + 1);
    if (!grown)
        return error_oom(err);
    memcpy(grown + t->state_len, payload, f->length);
    t->state = grown;
    t->state_len += f->length;
    return 0;
}

static int take_suspended(struct target *t, const struct frame *f, struct error *err)
{
    if (t->has_runner || f->offset != t->state_len)
        return error_set(err, EPROTO,
                         "suspended out of place, or with a part of the state missing");
    t->suspended_ns = link_now_ns();
    enter(t, MIGRATE_SUSPEND);
    int rc = pthread_create(&t->runner, NULL, target_runner, t);
    if (rc != 0)
        return error_num(err, rc, "start the runner");
    t->has_runner = true;
    return 0;
}

static int take_commit(struct target *t, struct error *err)
{
    bool ran;
    {
        lock_scope(&t->lock);
        if (!t->ready || t->refused)
            return error_set(err, EPROTO, "commit before ready");
        ran = t->ran;
    }
    enter(t, MIGRATE_COMMIT);
    /* As at the source: the last look, and none counts once the machine may run. */
    if (!ran && context_check(t->ctx, err) < 0)
        return -1;
    {
        lock_scope(&t->lock);
        t->committed = true;
        (void)pthread_cond_broadcast(&t->change);
    }
    return ran ? target_say(t, FRAME_RUNNING, 0, err) : 0; /* said again: the source missed it */
}

/* Acts on one frame. Returns 0, 1 when the source said BYE, -1. */
static int handle(struct target *t, const struct frame *f, const uint8_t *payload,
                  struct error *err)
{
    char reason[WIRE_REASON_MAX + 1];

    switch (f->type) {
    case FRAME_DATA:
        if (t->status.stage < MIGRATE_COPY)
            enter(t, MIGRATE_COPY);
        return take_data(t, f, payload, err);
    case FRAME_ABSENT:
        if (t->status.stage < MIGRATE_SETTLE)
            enter(t, MIGRATE_SETTLE);
        return take_absent(t, f, payload, err);
    case FRAME_STATE:
        return take_state(t, f, payload, err);
    case FRAME_SUSPENDED:
        return take_suspended(t, f, err);
    case FRAME_COMMIT:
        return take_commit(t, err);
    case FRAME_BYE:
        return target_flag(t, &t->done) ? 1 : error_set(err, EPROTO, "bye out of place");
    case FRAME_ABORT:
        reason_decode(payload, f->length, reason);
        return error_set(err, ECONNABORTED, "the source called it off: %s", reason);
    default:
        return error_set(err, EPROTO, "%s out of place", frame_name(f->type));
    }
}

/* Hears frames until the end or a failure. Returns 0 when all is done, else -1. */
static int hear(struct target *t, struct error *err)
{
    for (;;) {
        struct frame f;
        const uint8_t *payload;
        if (link_receive(t->link, &f, &payload, err) < 0)
            return -1;
        int rc = handle(t, &f, payload, err);
        if (rc < 0)
            return error_wrap(err, "%s", link_peer(t->link));
        if (rc == 1)
            return 0;
        report(t, false);
        if (t->status.stage == MIGRATE_COMMIT && target_flag(t, &t->ran))
            enter(t, MIGRATE_DRAIN);
        if (target_say_done(t, err) < 0)
            return -1;
    }
}

static int take_offer(struct target *t, struct error *err)
{
    struct wire_device devices[WIRE_DEVICES_MAX];
    struct pull_options options[WIRE_DEVICES_MAX];
    struct pull *pulls[WIRE_DEVICES_MAX] = {0};
    uint8_t shares[WIRE_DEVICES_MAX] = {0}, payload_out[WIRE_DEVICES_MAX + 2];
    const char *machine;
    const uint8_t *payload;
    size_t n, machine_len;
    struct frame f;

    if (link_receive(t->link, &f, &payload, err) < 0)
        return -1;
    if (f.type != FRAME_OFFER)
        return error_set(err, EPROTO, "%s: %s where an offer is due", link_peer(t->link),
                         frame_name(f.type));
    if (offer_decode(payload, f.length, devices, &n, &machine, &machine_len, err) < 0)
        return error_wrap(err, "%s", link_peer(t->link));
    for (size_t i = 0; i < n; i++) {
        t->devices[i] = (struct target_device){.t = t, .as = devices[i]};
        options[i] = (struct pull_options){.block_size = devices[i].block_size,
                                           .request = request,
                                           .release = release,
                                           .opaque = &t->devices[i]};
        t->status.bytes_total += devices[i].size;
    }
    /* Each pull filter that is made holds a reference until it is closed, by whomever. */
    (void)atomic_fetch_add(&t->references, (unsigned)n);
    int rc = t->host->offer(t->host->opaque, devices, n, machine, machine_len, options, pulls,
                            shares, err);
    for (size_t i = 0; i < n; i++)
        if (!pulls[i])
            unref(t);
    if (rc < 0)
        return error_wrap(err, "make room for the machine");
    for (size_t i = 0; i < n; i++) {
        t->devices[i].pull = pulls[i];
        t->devices[i].shares_base = shares[i] && (devices[i].flags & DEVICE_BASE);
        shares[i] = t->devices[i].shares_base;
    }
    t->n = n;
    struct frame answer = {
        .type = FRAME_ACCEPT,
        .length = (uint32_t)accept_encode(shares, n, payload_out, sizeof(payload_out))};
    return link_send(t->link, &answer, payload_out, err);
}

/* ---- the end ---- */

/* Decides, for good, that the machine does not run here; false when it is too late for that. */
static bool refuse(struct target *t)
{
    lock_scope(&t->lock);

    if (t->committed)
        return false;
    t->refused = true;
    (void)pthread_cond_broadcast(&t->change);
    return true;
}

/* Reads on until the source has taken notice of our ABORT and closed: closing first could take the
 * ABORT back from the wire. Bounded, whatever the source does. */
static void let_go(struct target *t)
{
    struct frame f;
    const uint8_t *payload;

    link_expire(t->link, ABORT_GRACE_NS);
    while (link_receive(t->link, &f, &payload, NULL) == 0 && f.type != FRAME_ABORT)
        ;
}

/* Hears until the end, over as many links as it takes. */
static int hear_on(struct target *t, struct error *err)
{
    for (;;) {
        struct error why = ERROR_INIT;
        if (hear(t, &why) == 0)
            return 0;
        if (target_flag(t, &t->copied))
            return 0; /* the link has done what it was for */
        /* All is here. The source may have missed that: it is told if it can be found, but a source
         * that is gone changes nothing. */
        if (target_flag(t, &t->done)) {
            link_break(t->link); /* it must see that this one is over */
            if (target_reconnect(t, DONE_RETAKE_NS, NULL) < 0)
                return 0;
            continue;
        }
        bool failed = target_flag(t, &t->failed);
        if (failed) {
            lock_scope(&t->lock);
            why = t->why;
        }
        /* A source that breaks the rules before the commit is not worth a second look. After it the
         * machine runs here and needs its pages: whatever went wrong on this link, a fresh one
         * starts anew. Only the source's own word that it is over is final; and, before the commit,
         * that we are told to end: the link is good for saying so. */
        bool final = why.code == ECONNABORTED || ((why.code == EPROTO || why.code == ECANCELED) &&
                                                  !target_flag(t, &t->committed));
        if (target_flag(t, &t->ready) && !failed && !final) {
            link_break(t->link);
            uint64_t limit = t->options->retake_ns ? t->options->retake_ns : RETAKE_DEFAULT_NS;
            if (target_reconnect(t, limit, &why) == 0)
                continue;
        }
        if (err)
            *err = why;
        return -1;
    }
}

static void give_up(struct target *t, const struct error *why)
{
    bool never = refuse(t);

    /* Wakes load(), run() and the guest out of waits for pages that will not come. */
    for (size_t i = 0; i < t->n; i++)
        pull_fail(t->devices[i].pull, why);
    if (t->has_runner)
        (void)pthread_join(t->runner, NULL);
    t->has_runner = false;
    if (never) {
        t->host->discard(t->host->opaque);
        if (why->code != ECONNABORTED && !t->failed) {
            link_send_abort(t->link, ABORT_NEVER_RAN, why->text);
        }
        let_go(t);
        t->result.outcome = MIGRATE_ROLLED_BACK;
    } else {
        if (why->code == EPROTO)
            link_send_abort(t->link, 0, why->text);
        t->result.outcome = MIGRATE_IN_DOUBT;
    }
}

static int receive(struct target *t, struct error *err)
{
    static const uint8_t none[WIRE_SESSION_SIZE];
    struct greeting theirs;

    if (link_greet(t->link, &t->greeting, &theirs, err) < 0)
        return -1;
    if (memcmp(theirs.session, none, sizeof(none)) == 0)
        return error_set(err, EPROTO, "%s: greeting without a session", link_peer(t->link));
    memcpy(t->greeting.session, theirs.session, sizeof(theirs.session));
    enter(t, MIGRATE_OFFER);
    if (take_offer(t, err) < 0)
        return -1;
    if (hear_on(t, err) < 0)
        return -1;
    if (t->has_runner)
        (void)pthread_join(t->runner, NULL);
    t->has_runner = false;
    return 0;
}

int migrate_receive(struct stream *stream, const struct migrate_host *host,
                    const struct migrate_receive_options *options, const struct context *ctx,
                    struct migrate_result *ret_result, struct error *err)
{
    struct target *t = calloc(1, sizeof(*t));
    struct error why = ERROR_INIT;
    int rc = -1;

    if (!t) {
        stream_close(stream);
        return error_oom(err);
    }
    atomic_init(&t->references, 1);
    t->host = host;
    t->options = options;
    t->ctx = ctx;
    t->start_ns = link_now_ns();
    t->greeting = (struct greeting){.version_min = WIRE_VERSION,
                                    .version_max = WIRE_VERSION,
                                    .role = WIRE_TARGET,
                                    .features = WIRE_FEATURE_ZSTD | WIRE_FEATURE_POSTCOPY};
    (void)pthread_mutex_init(&t->link_lock, NULL);
    (void)pthread_mutex_init(&t->lock, NULL);
    (void)pthread_cond_init(&t->change, NULL);
    t->plain = malloc(WIRE_BLOCK_MAX);
    t->zstd = ZSTD_createDCtx();
    t->link = link_new(stream, options->idle_ns, 0, ctx, &why);
    if (t->link && (!t->plain || !t->zstd))
        error_oom(&why);
    else if (t->link)
        rc = receive(t, &why);
    if (rc == 0) {
        if (!t->copied)
            enter(t, MIGRATE_FINISHED);
        t->result.outcome = t->copied ? MIGRATE_COPIED : MIGRATE_MOVED;
    } else if (t->link) {
        give_up(t, &why);
    }
    if (rc < 0 && err) {
        *err = why;
        error_wrap(err, "migration, %s", migrate_stage_name(t->status.stage));
    }
    for (size_t i = 0; i < t->n; i++) {
        uint64_t n, us = pull_wait_us(t->devices[i].pull, 99, &n);
        t->result.waits += n;
        t->result.wait_p99_us = us > t->result.wait_p99_us ? us : t->result.wait_p99_us;
    }
    target_set_link(t, NULL);
    t->result.total_ns = link_now_ns() - t->start_ns;
    if (ret_result)
        *ret_result = t->result;
    free(t->plain);
    free(t->state);
    ZSTD_freeDCtx(t->zstd);
    unref(t);
    return rc;
}
