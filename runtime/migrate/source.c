// SPDX-License-Identifier: Apache-2.0
/* source.c - the side that has the machine (target.c is the other; read them side by side)
 *
 * Theory of operation: migrate_send()'s thread walks the stages of the table at the end of this
 * file; a reader thread per link turns what the target says into flags, and copy.c's threads send
 * pages. Each stage either succeeds, or fails before the commit (then its rollback and those of the
 * stages before it run, last first), or fails after it (then the link is taken up again).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "runtime/migrate/source.h"

#define OFFER_MAX (WIRE_MACHINE_MAX + WIRE_DEVICES_MAX * (WIRE_NAME_MAX + 64))
#define STATE_STEP (256u << 10)

static void enter(struct source *s, enum migrate_stage stage)
{
    s->status.stage = stage;
    log_debug(context_log(s->ctx), "Migration stage", log_str("stage", migrate_stage_name(stage)));
    source_report(s, true);
}

/* ---- the stages before the commit ---- */

static int stage_greet(struct source *s, struct error *err)
{
    struct greeting theirs;
    static const uint8_t none[WIRE_SESSION_SIZE];

    if (link_greet(s->link, &s->greeting, &theirs, err) < 0)
        return -1;
    if (memcmp(theirs.session, none, sizeof(none)) != 0)
        return error_set(err, EPROTO, "%s: wants to take up a migration that is not known here",
                         link_peer(s->link));
    return source_listen(s, err);
}

/* The digest of what EXTENT_BASE speaks of: the innermost source, not the overlay on it. Returns 1,
 * 0 when that base is not shared, or -1. */
static int find_digest(struct source *s, size_t i, uint8_t ret[32], struct error *err)
{
    const struct migrate_device *d = &s->devices[i];
    struct block *base = block_find(d->block, "file", NULL);
    struct block_identity id = {0};

    if (d->base_digest) {
        memcpy(ret, d->base_digest, sizeof(id.digest));
        return 1;
    }
    if (s->options->prove_base)
        return s->options->prove_base(s->options->opaque, i, ret, err);
    if (block_identity(base ? base : d->block, &id, err) < 0)
        return -1;
    if (!id.has_digest)
        return error_set(err, EINVAL,
                         "its base has no digest to prove that both sides have the same");
    memcpy(ret, id.digest, sizeof(id.digest));
    return 1;
}

static int stage_offer(struct source *s, struct error *err)
{
    cleanup_free struct wire_device *devices = calloc(s->n, sizeof(*devices));
    cleanup_free uint8_t *payload = malloc(OFFER_MAX);
    const char *machine = s->options->machine ? s->options->machine : "{}";

    if (!devices || !payload)
        return error_oom(err);
    for (size_t i = 0; i < s->n; i++) {
        const struct migrate_device *d = &s->devices[i];
        (void)strncpy(devices[i].name, d->name, WIRE_NAME_MAX);
        devices[i].size = block_size(d->block);
        devices[i].block_size = d->block_size;
        devices[i].flags = d->memory ? DEVICE_MEMORY : 0;
        int rc = d->share_base ? find_digest(s, i, devices[i].base, err) : 0;
        if (rc < 0)
            return error_wrap(err, "device %s", d->name);
        if (rc == 1)
            devices[i].flags |= DEVICE_BASE;
    }
    int len = offer_encode(devices, s->n, machine, strlen(machine), payload, OFFER_MAX);
    if (len < 0)
        return error_set(err, EINVAL,
                         "offer: a device name or the machine's description is out "
                         "of its limits");
    struct frame f = {.type = FRAME_OFFER, .length = (uint32_t)len};
    if (link_send(s->link, &f, payload, err) < 0)
        return -1;
    return source_wait_word(s, &s->accepted, 0, "an answer to the offer", err);
}

static void *keeper(void *opaque)
{
    struct source *s = opaque;
    uint64_t start = link_now_ns();

    s->keep_rc = s->machine->keep(s->machine->opaque, &s->keep_error);
    log_debug(context_log(s->ctx), "Machine is kept",
              log_uint("us", (link_now_ns() - start) / 1000));
    return NULL;
}

/* What the source keeps must last before it commits, but the target need not wait for it. */
static int start_keeping(struct source *s, struct error *err)
{
    if (!s->machine->keep)
        return 0;
    int rc = pthread_create(&s->keeper, NULL, keeper, s);
    if (rc != 0)
        return error_num(err, rc, "start a thread");
    s->has_keeper = true;
    return 0;
}

static int end_keeping(struct source *s, struct error *err)
{
    if (!s->has_keeper)
        return 0;
    (void)pthread_join(s->keeper, NULL);
    s->has_keeper = false;
    if (s->keep_rc == 0)
        return 0;
    if (err)
        *err = s->keep_error;
    return error_wrap(err, "keep the suspended machine");
}

/* Microseconds since *at, which becomes now. */
static uint64_t lap(uint64_t *at)
{
    uint64_t now = link_now_ns(), us = (now - *at) / 1000;

    *at = now;
    return us;
}

/* Saves the state, and finds what that touched: it belongs to the last set. Meanwhile the senders
 * only bring what they have in hand to its end. */
static int save_state(struct source *s, uint8_t **ret_state, size_t *ret_len, uint64_t *ret_save_us,
                      struct error *err)
{
    uint64_t at = link_now_ns();

    copy_hold(s->copy, true);
    int rc = s->machine->save(s->machine->opaque, ret_state, ret_len, err);
    *ret_save_us = lap(&at);
    if (rc < 0)
        error_wrap(err, "save the machine's state");
    else
        rc = source_look_after_save(s, err);
    copy_hold(s->copy, false);
    return rc;
}

static int send_state(struct source *s, struct error *err)
{
    cleanup_free uint8_t *state = NULL;
    size_t len = 0;
    uint64_t at = link_now_ns(), save_us;

    if (save_state(s, &state, &len, &save_us, err) < 0)
        return -1;
    if (len > WIRE_STATE_MAX)
        return error_set(err, EFBIG, "the machine's state has %zu bytes (at most %llu)", len,
                         (unsigned long long)WIRE_STATE_MAX);
    if (start_keeping(s, err) < 0)
        return -1;
    uint64_t look_us = lap(&at) - save_us;
    for (size_t pos = 0; pos < len; pos += STATE_STEP) {
        struct frame f = {.type = FRAME_STATE,
                          .offset = pos,
                          .length = (uint32_t)(len - pos < STATE_STEP ? len - pos : STATE_STEP)};
        if (link_send(s->link, &f, state + pos, err) < 0)
            return -1;
    }
    /* Without post-copy the target hears that the machine stands still when it has everything. */
    if (s->options->postcopy == MIGRATE_POSTCOPY_OFF && source_drain_pending(s, err) < 0)
        return -1;
    log_debug(context_log(s->ctx), "Device state is out", log_uint("save_us", save_us),
              log_uint("last_look_us", look_us), log_uint("send_us", lap(&at)),
              log_uint("bytes", len), log_uint("dirty_pages", s->status.dirty_pages));
    return link_send_word(s->link, FRAME_SUSPENDED, len, err);
}

/* Brings what is left to a few pages right before the machine stands still. */
static int last_round(struct source *s, struct error *err)
{
    if (s->machine->prepare && s->machine->prepare(s->machine->opaque, err) < 0)
        return error_wrap(err, "prepare to suspend the machine");
    if (s->options->postcopy == MIGRATE_POSTCOPY_EARLY || !s->machine->prepare)
        return 0;
    return source_look_at_all(s, err) < 0 ? -1 : source_drain_pending(s, err);
}

static int over_limit(struct source *s, struct error *err)
{
    return error_set(err, ETIMEDOUT,
                     "%s: the machine would stand still for longer than the limit; it runs on here",
                     link_peer(s->link));
}

static int stage_suspend(struct source *s, struct error *err)
{
    uint64_t deadline = 0, at;

    if (last_round(s, err) < 0)
        return -1;
    if (record_begin(&s->record, s->options->record, s->greeting.session, link_peer(s->link), err) <
        0)
        return -1;
    {
        lock_scope(&s->lock);
        s->suspended =
            true; /* before READY can come in, and before a failure that needs resume() */
        s->suspend_ns = at = link_now_ns();
    }
    if (s->machine->suspend(s->machine->opaque, err) < 0)
        return error_wrap(err, "suspend the machine");
    uint64_t suspend_us = lap(&at);
    if (s->options->postcopy == MIGRATE_POSTCOPY_EARLY) {
        if (s->machine->flush && s->machine->flush(s->machine->opaque, err) < 0)
            return error_wrap(err, "flush the machine's memory");
        if (source_forget_changes(s, err) < 0 || source_copy_everything(s, err) < 0)
            return -1;
    } else if (source_look_at_all(s, err) < 0) {
        return -1;
    }
    uint64_t look_us = lap(&at);
    if (send_state(s, err) < 0)
        return -1;
    lap(&at);
    if (s->options->downtime_limit_ns)
        deadline = s->suspend_ns + s->options->downtime_limit_ns;
    if (source_wait_word(s, &s->ready, deadline, "READY", err) < 0)
        return deadline && link_now_ns() >= deadline ? over_limit(s, err) : -1;
    uint64_t ready_us = lap(&at);
    if (end_keeping(s, err) < 0)
        return -1;
    if (deadline && link_now_ns() > deadline)
        return over_limit(s, err);
    log_debug(context_log(s->ctx), "Target is ready", log_uint("suspend_us", suspend_us),
              log_uint("look_us", look_us), log_uint("ready_us", ready_us),
              log_uint("keep_us", lap(&at)));
    return context_check(s->ctx, err);
}

static void undo_suspend(struct source *s)
{
    struct error err = ERROR_INIT;

    (void)end_keeping(s, NULL);
    record_drop(&s->record);
    if (!s->suspended)
        return;
    if (s->machine->resume(s->machine->opaque, &err) < 0) {
        log_event(context_log(s->ctx), LOG_LEVEL_ERROR, "Could not resume the machine",
                  log_fields(log_str("error", err.text)));
        s->stands = true;
    }
    s->result.suspended_ns = link_now_ns() - s->suspend_ns;
    lock_scope(&s->lock);
    s->suspended = false;
}

/* ---- the commit and after ---- */

/* Gets the target from READY to RUNNING, over as many links as it takes. */
static int stage_commit(struct source *s, struct error *err)
{
    uint64_t at = link_now_ns();

    /* Who watches the stages may have closed the ear to cancellations by now: this look is the
     * last, for what was heard before. */
    if (context_check(s->ctx, err) < 0)
        return -1;
    /* A failure after this line is the target's machine as far as we know. THE COMMIT. */
    if (record_mark(&s->record, MIGRATE_RECORD_COMMITTED, err) < 0)
        return -1;
    uint64_t commit_us = lap(&at);
    {
        lock_scope(&s->lock);
        s->committed = true;
    }
    for (;;) {
        if (!source_flag(s, &s->running))
            (void)link_send_word(s->link, FRAME_COMMIT, 0, NULL);
        if (source_wait_word(s, &s->running, 0, "RUNNING", err) == 0)
            break;
        if (context_check(s->ctx, NULL) < 0 || !source_flag(s, &s->lost) ||
            source_retake(s, err) < 0)
            return -1;
    }
    copy_set_link(s->copy, s->link);
    s->result.suspended_ns = link_now_ns() - s->suspend_ns;
    s->status.suspended_ns = s->result.suspended_ns;
    log_debug(context_log(s->ctx), "Target runs", log_uint("commit_us", commit_us),
              log_uint("running_us", lap(&at)),
              log_uint("suspended_us", s->result.suspended_ns / 1000));
    return 0;
}

static int stage_drain(struct source *s, struct error *err)
{
    for (;;) {
        int rc = source_drain_pending(s, err);
        if (rc == 0 && source_wait_word(s, &s->done, 0, "DONE", err) == 0)
            break;
        if (context_check(s->ctx, NULL) < 0 || !source_flag(s, &s->lost) ||
            source_retake(s, err) < 0)
            return -1;
        copy_set_link(s->copy, s->link);
    }
    (void)record_mark(&s->record, MIGRATE_RECORD_MOVED, NULL);
    (void)link_send_word(s->link, FRAME_BYE, 0, NULL);
    return 0;
}

/* ---- the table ---- */

static const struct {
    enum migrate_stage stage;
    int (*act)(struct source *s, struct error *err);
    void (*undo)(
        struct source *s); /* before the commit only; tolerates a stage that failed half-way */
} stages[] = {
    {MIGRATE_GREET, stage_greet, NULL},
    {MIGRATE_OFFER, stage_offer, NULL},
    {MIGRATE_COPY, source_stage_copy, NULL},
    {MIGRATE_SETTLE, source_stage_settle, NULL},
    {MIGRATE_SUSPEND, stage_suspend, undo_suspend},
    {MIGRATE_COMMIT, stage_commit, NULL}, /* its first act is the last that may be undone */
    {MIGRATE_DRAIN, stage_drain, NULL},
};

static const char *const stage_names[] = {
    "greet", "offer", "copy", "settle", "suspend", "commit", "drain", "finished",
};
_Static_assert(ARRAY_SIZE(stage_names) == MIGRATE_STAGES, "a name for every stage");

const char *migrate_stage_name(enum migrate_stage stage)
{
    return stage_names[stage];
}

void migrate_phase(const struct migrate_status *status, char *buf, size_t size)
{
    if (status->stage == MIGRATE_SETTLE && status->round)
        (void)snprintf(buf, size, "settle %u", status->round);
    else
        (void)snprintf(buf, size, "%s", migrate_stage_name(status->stage));
}

static void roll_back(struct source *s, size_t failed, const char *why)
{
    /* A cancellation ends the reader, too: the link is as good as it was. */
    if (s->link && (!source_flag(s, &s->lost) || context_check(s->ctx, NULL) < 0))
        link_send_abort(s->link, 0, why);
    for (size_t i = failed + 1; i-- > 0;)
        if (stages[i].undo)
            stages[i].undo(s);
    s->result.outcome = MIGRATE_ROLLED_BACK;
}

static int walk(struct source *s, struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(stages); i++) {
        struct error why = ERROR_INIT;
        enter(s, stages[i].stage);
        if (stages[i].act(s, &why) == 0)
            continue;
        if (s->committed && !source_flag(s, &s->never_ran)) {
            s->result.outcome = MIGRATE_IN_DOUBT;
        } else {
            roll_back(s, i, why.text);
            if (s->stands)
                error_wrap(&why, "the machine could not be resumed and stands still here");
            else if (source_flag(s, &s->copied))
                s->result.outcome = MIGRATE_COPIED;
            if (s->result.outcome == MIGRATE_COPIED)
                return 0;
        }
        if (err)
            *err = why;
        return error_wrap(err, "migration, %s", stage_names[stages[i].stage]);
    }
    enter(s, MIGRATE_FINISHED);
    s->result.outcome = MIGRATE_MOVED;
    return 0;
}

static void finish_result(struct source *s, struct migrate_result *ret)
{
    struct copy_counters c = {0};

    if (s->copy)
        copy_get_counters(s->copy, &c);
    s->result.total_ns = link_now_ns() - s->start_ns;
    s->result.bytes_received = s->counted_in;
    s->result.bytes_sent = s->counted_out;
    s->result.pages_plain = c.pages_plain;
    s->result.pages_zero = c.pages_zero;
    s->result.pages_base = c.pages_base;
    s->result.wants = c.wants;
    if (ret)
        *ret = s->result;
}

static int choose_session(struct source *s, struct error *err)
{
    uint8_t *session = s->greeting.session;

    if (s->options->session)
        memcpy(session, s->options->session, WIRE_SESSION_SIZE);
    else if (getrandom(session, WIRE_SESSION_SIZE, 0) != WIRE_SESSION_SIZE)
        return error_sys(err, "migration: random bytes");
    return 0;
}

int migrate_send(struct stream *stream, const struct migrate_device *devices, size_t n,
                 const struct migrate_machine *machine, const struct migrate_send_options *options,
                 const struct context *ctx, struct migrate_result *ret_result, struct error *err)
{
    struct source s = {.devices = devices,
                       .n = n,
                       .machine = machine,
                       .options = options,
                       .ctx = ctx,
                       .start_ns = link_now_ns(),
                       .record = {.fd = -1},
                       .greeting = {.version_min = WIRE_VERSION,
                                    .version_max = WIRE_VERSION,
                                    .role = WIRE_SOURCE,
                                    .features = WIRE_FEATURE_ZSTD | WIRE_FEATURE_POSTCOPY}};
    struct copy_options copy_options = {.threads = options->concurrency,
                                        .zstd_level = options->zstd_level,
                                        .watch = options->watch,
                                        .ctx = ctx};
    pthread_condattr_t attr;
    int rc = -1;

    s.result.outcome = MIGRATE_ROLLED_BACK;
    for (size_t i = 0; i < n; i++)
        s.status.bytes_total += block_size(devices[i].block);
    (void)pthread_mutex_init(&s.lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&s.change, &attr);
    (void)pthread_condattr_destroy(&attr);
    s.link = link_new(stream, options->idle_ns, options->bandwidth, ctx, err);
    if (s.link) {
        if (n == 0 || n > WIRE_DEVICES_MAX)
            error_set(err, EINVAL, "migration: %zu devices (1 to %d)", n, WIRE_DEVICES_MAX);
        else if (choose_session(&s, err) == 0 &&
                 (s.copy = copy_new(devices, n, &copy_options, err)))
            rc = walk(&s, err);
    }
    source_drop_link(&s);
    finish_result(&s, ret_result);
    copy_free(s.copy);
    record_close(&s.record);
    (void)pthread_mutex_destroy(&s.lock);
    (void)pthread_cond_destroy(&s.change);
    return rc;
}
