// SPDX-License-Identifier: Apache-2.0
/* hand.c - handing the machine on to whoever connects; see migrate.h for the rule */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "runtime/peer/peer.h"

#define OVER_MAX 8u

struct hand {
    struct peer *p;
    struct listener *listener;
    const struct context *stop;
    pthread_t flusher; /* brings to disk what was written before the migration, in the background */
    bool has_flusher;
    uint64_t flushes;                      /* counted before */
    struct plan_device *sent[DEVICES_MAX]; /* those that go, in the order of the offer */
    uint8_t session[WIRE_SESSION_SIZE];    /* of the migration under way */
    /* Of the last ones that were rolled back: their targets may not have heard of it. */
    uint8_t over[OVER_MAX][WIRE_SESSION_SIZE];
    unsigned n_over;
    uint8_t *state; /* owned: what save() gave, for keep() */
    size_t state_len;
    bool stands; /* it could not be let run on */
};

/* What is flushed in so short a time leaves little behind it. */
#define PREPARE_NS UINT64_C(20000000)
#define PREPARE_ROUNDS 4
#define STATE_PLACE (UINT64_C(1) << 20) /* about what a state needs */

/* ---- The machine, as migrate_send() handles it -------------------------------------------- */

/* While a machine is handed on, a flush of its memory ends in the stack: a look at what changed
 * need not wait for a disk. Whether it is on disk counts once, before the commit: keep(). */
static int set_lazy(struct peer *p, bool lazy, struct error *err)
{
    for (size_t i = 0; !p->o->mock && i < p->plan->count; i++) {
        const struct plan_device *d = &p->plan->items[i];
        if (d->role == BLUEPRINT_MEMORY && assembly_block(p->a, d->d.name) &&
            assembly_set_lazy(p->a, d->d.name, lazy, err) < 0)
            return -1;
    }
    return 0;
}

static int flush_memory(struct peer *p, struct error *err)
{
    for (size_t i = 0; i < p->plan->count; i++) {
        struct block *b = assembly_block(p->a, p->plan->items[i].d.name);
        if (b && p->plan->items[i].role == BLUEPRINT_MEMORY && block_flush(b, err) < 0)
            return error_wrap(err, "device %s", p->plan->items[i].d.name);
    }
    return 0;
}

static void *flush_early(void *opaque)
{
    (void)flush_memory(((struct hand *)opaque)->p, NULL); /* prepare() finds out what is wrong */
    return NULL;
}

static void join_flusher(struct hand *h)
{
    if (h->has_flusher)
        (void)pthread_join(h->flusher, NULL);
    h->has_flusher = false;
}

static int flush(void *opaque, struct error *err)
{
    struct hand *h = opaque;

    uint64_t n = atomic_fetch_add(&h->p->counters.flushes, 1);

    /* The first look: the suspension is near. */
    if (!h->p->o->mock && n == h->flushes)
        h->has_flusher = pthread_create(&h->flusher, NULL, flush_early, h) == 0;
    return h->p->o->mock ? assembly_flush(h->p->a, err) : vmm_flush(assembly_vmm(h->p->a), err);
}

/* The memory and the disks as they are now, on disk. Only what is written from here on is left for
 * the time in which the machine stands still; its state's place is taken as well. */
static int prepare(void *opaque, struct error *err)
{
    struct hand *h = opaque;
    struct peer *p = h->p;

    if (p->o->mock)
        return 0;
    join_flusher(h);
    cleanup_free uint8_t *zeros = calloc(1, STATE_PLACE);
    if (!zeros)
        return error_oom(err);
    const struct block *state = assembly_block(p->a, "state");
    uint64_t place = block_size(state) < STATE_PLACE ? block_size(state) : STATE_PLACE;
    if (peer_write_config(p, err) < 0 || peer_write_state(p, zeros, place, err) < 0)
        return -1;
    for (int i = 0; i < PREPARE_ROUNDS; i++) {
        uint64_t start = peer_now_ns();
        if (assembly_flush(p->a, err) < 0 || flush_memory(p, err) < 0)
            return -1;
        if (peer_now_ns() - start < PREPARE_NS)
            break;
    }
    return 0;
}

static int suspend(void *opaque, struct error *err)
{
    struct peer *p = ((struct hand *)opaque)->p;

    if (p->o->mock)
        return 0;
    /* After a failure, which may have done a part of it, resume() follows. */
    if (assembly_before_suspend(p->a, p->o->vm->resume_timeout, true, err) < 0)
        return -1;
    return vmm_pause(assembly_vmm(p->a), err);
}

static int save_mock(struct peer *p, uint8_t **ret_state, size_t *ret_len, struct error *err)
{
    struct block *b = assembly_block(p->a, "state");
    size_t len = b && block_size(b) <= WIRE_STATE_MAX ? (size_t)block_size(b) : 0;
    uint8_t *buf = malloc(len + 1);

    if (!buf)
        return error_oom(err);
    if (b && block_read(b, buf, len, 0, err) < 0) {
        free(buf);
        return -1;
    }
    while (len > 1 && buf[len - 1] == 0)
        len--;
    *ret_state = buf;
    *ret_len = len;
    return 0;
}

static int save(void *opaque, uint8_t **ret_state, size_t *ret_len, struct error *err)
{
    struct hand *h = opaque;
    void *state = NULL;

    if (h->p->o->mock)
        return save_mock(h->p, ret_state, ret_len, err);
    if (assembly_save(h->p->a, &state, ret_len, err) < 0)
        return -1;
    free(h->state);
    h->state = malloc(*ret_len + 1);
    if (!h->state) {
        free(state);
        return error_oom(err);
    }
    memcpy(h->state, state, *ret_len);
    h->state_len = *ret_len;
    *ret_state = state;
    return 0;
}

/* Kept here too: should nobody ever confirm, this is what a person takes back. The mark need not
 * say so: a record that was committed does (peer.c, check_record()). */
static int keep(void *opaque, struct error *err)
{
    struct hand *h = opaque;

    if (h->p->o->mock)
        return 0;
    if (peer_write_state(h->p, h->state, h->state_len, err) < 0)
        return -1;
    return flush_memory(h->p, err);
}

static int resume(void *opaque, struct error *err)
{
    struct peer *p = ((struct hand *)opaque)->p;

    if (p->o->mock)
        return 0;
    if (peer_run_now(p, err) < 0) {
        ((struct hand *)opaque)->stands = true;
        return -1;
    }
    peer_tell_it_runs_on(p);
    return 0;
}

static struct stream *reconnect(void *opaque, uint64_t timeout_ns, struct error *err)
{
    struct hand *h = opaque;

    /* Only after the commit: a request to stop does not count any more (watch_status()), nor that
     * the hypervisor ended, as the target has its machine now, and the blocks are ours. */
    return listener_accept(h->listener, timeout_ns ? timeout_ns : 1, &h->p->bridge->ctx, err);
}

/* ---- Watching ----------------------------------------------------------------------------- */

static void watch_status(void *opaque, const struct migrate_status *s)
{
    struct peer *p = opaque;

    atomic_store(&p->counters.stage, (uint64_t)s->stage);
    atomic_store(&p->counters.bytes_total, s->bytes_total);
    atomic_store(&p->counters.bytes_settled, s->bytes_settled);
    atomic_store(&p->counters.bytes_wire, s->bytes_wire);
    atomic_store(&p->counters.dirty_pages, s->dirty_pages);
    atomic_store(&p->counters.round, s->round);
    report_status(p->report, &p->move, s);
    const bool takes = atomic_load(&p->counters.receiving);
    if (p->bridge && s->stage >= MIGRATE_SUSPEND && !takes)
        atomic_store(&p->bridge->deaf_word, true);
    /* The engine looks once more behind this call, and then commits. From there on nothing must end
     * what it does: the machine on the target lives on the source's blocks. */
    if (p->bridge && s->stage >= MIGRATE_COMMIT)
        bridge_deafen(p->bridge, takes ? "the machine is taken in first, its data is on its way"
                                       : "the target needs what only this side has");
}

static void watch_trace(void *opaque, enum migrate_trace_kind kind, const char *device,
                        uint64_t offset, uint64_t length)
{
    struct peer *p = opaque;

    report_trace(p->report, kind, device, offset, length);
}

struct migrate_watch peer_watch(struct peer *p)
{
    return (struct migrate_watch){
        .status = watch_status, .trace = p->o->trace ? watch_trace : NULL, .opaque = p};
}

void peer_count(struct peer *p, const struct migrate_result *r, const struct error *cause)
{
    atomic_fetch_add(&p->counters.sent, r->bytes_sent);
    atomic_fetch_add(&p->counters.received, r->bytes_received);
    if (r->outcome == MIGRATE_MOVED) {
        atomic_store(&p->counters.last_suspended_ns, r->suspended_ns);
        atomic_store(&p->counters.last_total_ns, r->total_ns);
    } else if (r->outcome == MIGRATE_COPIED) {
        atomic_fetch_add(&p->counters.copies, 1);
    } else {
        atomic_fetch_add(&p->counters.migrations_failed, 1);
    }
    report_end(p->report, &p->move, r, cause);
}

/* ---- What goes ---------------------------------------------------------------------------- */

static uint32_t small(uint64_t n)
{
    return n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

/* Whether a base is what its config says is read after the target was greeted: it may take long. */
static int prove_base(void *opaque, size_t device, uint8_t ret_digest[32], struct error *err)
{
    struct hand *h = opaque;
    struct plan_device *d = h->sent[device];
    int rc = plan_prove_base(d, &h->p->bridge->ctx, err);

    if (rc == 1)
        memcpy(ret_digest, d->sha256, SHA256_SIZE);
    return rc;
}

static size_t list_devices(struct hand *h, struct migrate_device *out)
{
    struct peer *p = h->p;
    size_t n = 0;

    for (size_t i = 0; i < p->plan->count; i++) {
        struct plan_device *d = &p->plan->items[i];
        struct block *b = assembly_block(p->a, d->d.name);
        if (!b || !d->d.make_migratable || d->role == BLUEPRINT_STATE || d->read_only)
            continue;
        h->sent[n] = d;
        out[n++] = (struct migrate_device){
            .name = d->d.name,
            .block = b,
            .block_size = d->d.block_size > WIRE_BLOCK_MAX ? WIRE_BLOCK_MAX : d->d.block_size,
            .memory = d->role == BLUEPRINT_MEMORY,
            .share_base = plan_may_share(d),
            .max_dirty_blocks = small(d->d.max_dirty_blocks),
            .min_cycles = small(d->d.min_cycles),
            .max_cycles = small(d->d.max_cycles),
            .cycle_throttle_ns = d->d.cycle_throttle_ns,
        };
    }
    return n;
}

static int send(struct hand *h, struct stream *stream, struct migrate_result *result,
                struct error *err)
{
    struct peer *p = h->p;
    struct migrate_device devices[DEVICES_MAX];
    struct migrate_watch watch = peer_watch(p);
    struct migrate_machine machine = {.flush = flush,
                                      .prepare = prepare,
                                      .suspend = suspend,
                                      .save = save,
                                      .keep = keep,
                                      .resume = resume,
                                      .opaque = h};
    struct bridge bridge;
    cleanup_free char *text = peer_describe(p, err);
    if (!text || bridge_start(&bridge, h->stop, p->o->cancel_fd, err) < 0) {
        atomic_fetch_add(&p->counters.migrations_failed, 1);
        stream_close(stream);
        return -1;
    }
    if (set_lazy(p, true, err) < 0) {
        bridge_stop(&bridge);
        atomic_fetch_add(&p->counters.migrations_failed, 1);
        stream_close(stream);
        return -1;
    }
    struct migrate_send_options options = {
        .machine = text,
        .session = h->session,
        .record = p->plan->record,
        .postcopy = p->o->postcopy,
        .concurrency = p->o->concurrency,
        .zstd_level = p->o->zstd_level,
        .bandwidth = p->o->bandwidth,
        .downtime_limit_ns = p->o->downtime_limit_ns,
        .idle_ns = p->o->idle_ns,
        .retake_ns = p->o->retake_ns,
        .reconnect = reconnect,
        .prove_base = prove_base,
        .opaque = h,
        .watch = &watch,
    };
    size_t n = list_devices(h, devices);
    report_begin(p->report, &p->move, "source", stream_peer(stream));
    for (size_t i = 0; i < n; i++)
        report_device(p->report, devices[i].name, block_size(devices[i].block));
    h->flushes = atomic_load(&p->counters.flushes);
    atomic_store(&p->counters.sending, true);
    p->bridge = &bridge;
    int rc = migrate_send(stream, devices, n, &machine, &options, &bridge.ctx, result, err);
    p->bridge = NULL;
    bridge_stop(&bridge);
    atomic_store(&p->counters.sending, false);
    join_flusher(h);
    (void)set_lazy(p, false, NULL);
    free(h->state);
    h->state = NULL;
    peer_count(p, result, rc < 0 ? err : NULL);
    return rc;
}

/* Returns 1 when the machine is gone, 0 to go on listening, -1 when nobody can say. */
static int hand_on(struct hand *h, struct stream *stream, struct error *err)
{
    struct peer *p = h->p;
    struct migrate_result r = {0};
    struct error why = ERROR_INIT;
    char where[256];

    (void)snprintf(where, sizeof(where), "%s", stream_peer(stream));
    log_info(context_log(p->ctx), "Migrating to", log_str("addr", where));
    r.outcome = MIGRATE_ROLLED_BACK;
    int rc = send(h, stream, &r, &why);
    if (r.outcome == MIGRATE_MOVED) {
        p->running = false;
        p->gone = true;
        atomic_store(&p->counters.running, false);
        atomic_fetch_add(&p->counters.migrations_out, 1);
        log_info(context_log(p->ctx), "Finished all migrations", log_str("addr", where),
                 log_uint("ms", r.total_ns / 1000000),
                 log_uint("suspended_ms", r.suspended_ns / 1000000),
                 log_uint("bytes_sent", r.bytes_sent), log_uint("rounds", r.rounds),
                 log_uint("pages_base", r.pages_base));
        return 1;
    }
    if (r.outcome == MIGRATE_COPIED) {
        log_info(context_log(p->ctx), "A copy was taken, the machine runs on here",
                 log_str("addr", where), log_uint("ms", r.total_ns / 1000000),
                 log_uint("suspended_ms", r.suspended_ns / 1000000),
                 log_uint("bytes_sent", r.bytes_sent));
        return 0;
    }
    if (r.outcome == MIGRATE_IN_DOUBT) {
        p->running = false; /* kept as it was suspended: it must not be suspended anew */
        p->gone = true;
        if (err)
            *err = why;
        return error_wrap(err,
                          "the machine was committed to %s, which has not confirmed: it is "
                          "suspended here and kept; if it does not run there, start with "
                          "--take-back",
                          where);
    }
    memcpy(h->over[h->n_over++ % OVER_MAX], h->session, WIRE_SESSION_SIZE);
    if (h->stands && vmm_state(assembly_vmm(p->a)) != VMM_STATE_EXITED) {
        if (err)
            *err = why;
        return error_wrap(err,
                          "migration to %s: failed, and the machine could not be let run on; "
                          "it is kept as it stands",
                          where);
    }
    if (rc < 0)
        log_warn(context_log(p->ctx), "Migration failed, the machine runs on here, ignoring",
                 log_str("addr", where), log_str("error", why.text));
    return 0;
}

/* A target that lost its link before it was told to run the machine comes to take it up again. Of a
 * migration that was rolled back we know that it is over, and it lets go; of others, nothing. */
static void turn_away(struct hand *h, struct stream *stream, const uint8_t *session)
{
    char where[256];

    (void)snprintf(where, sizeof(where), "%s", stream_peer(stream));
    for (unsigned i = 0; i < OVER_MAX && i < h->n_over; i++)
        if (memcmp(h->over[i], session, WIRE_SESSION_SIZE) == 0) {
            log_info(context_log(h->p->ctx), "Told a target that its migration was rolled back",
                     log_str("addr", where));
            migrate_turn_away(stream, session, "it was rolled back, the machine runs on here",
                              h->stop);
            return;
        }
    log_warn(context_log(h->p->ctx), "Client turned away", log_str("addr", where),
             log_str("error", "it wants to take up a migration that is not known here"));
    migrate_turn_away(stream, NULL, NULL, h->stop);
}

/* Sees to a client. Returns 1 when the machine is gone, 0 to go on listening, -1 when nobody can
 * say.
 */
static int meet(struct hand *h, struct stream *stream, struct error *err)
{
    uint8_t wanted[WIRE_SESSION_SIZE];
    struct error why = ERROR_INIT;

    if (migrate_peek(stream, h->stop, wanted, &why) < 0) {
        log_warn(context_log(h->p->ctx), "Client turned away", log_str("addr", stream_peer(stream)),
                 log_str("error", why.text));
        stream_close(stream);
        return 0;
    }
    if (!migrate_is_new(wanted)) {
        turn_away(h, stream, wanted);
        return 0;
    }
    if (getrandom(h->session, sizeof(h->session), 0) != sizeof(h->session)) {
        stream_close(stream);
        (void)error_sys(&why, "random bytes");
        log_warn(context_log(h->p->ctx), "Client turned away", log_str("error", why.text));
        return 0;
    }
    return hand_on(h, stream, err);
}

int peer_hand(struct peer *p, const struct context *stop, struct error *err)
{
    struct hand h = {.p = p, .stop = stop};
    struct transport_options transport = p->o->transport;

    transport.hello = GREETING_SIZE; /* who is silent keeps nobody from the machine */
    cleanup_listener struct listener *listener = listener_open(p->o->laddr, &transport, err);

    if (!listener)
        return error_wrap(err, "--laddr");
    h.listener = listener;
    log_info(context_log(p->ctx), "Listening for connections",
             log_str("addr", listener_address(listener)));
    report_event(p->report, "listening", log_fields(log_str("addr", listener_address(listener))));
    while (context_check(stop, NULL) == 0) {
        struct error why = ERROR_INIT;
        struct stream *stream = listener_accept(listener, 0, stop, &why);
        if (!stream && context_check(stop, NULL) < 0)
            return 0;
        if (!stream) {
            if (err)
                *err = why;
            return error_wrap(err, "--laddr");
        }
        int rc = meet(&h, stream, err);
        if (rc != 0)
            return rc < 0 ? -1 : 0;
    }
    return 0;
}
