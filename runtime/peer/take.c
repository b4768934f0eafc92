// SPDX-License-Identifier: Apache-2.0
/* take.c - taking a machine in from the peer that runs it; see migrate.h for the rule
 *
 * The machine is described by the source's config (package.h), which comes with the offer. Devices
 * that a package here has lie on its files; others are made. All data goes through the filter pull,
 * above which dirty tracking stands, so that what arrived does not count as written here.
 *
 * A request to stop counts until the machine runs here: from then on its data is drained first, as
 * the machine is lost without it, and suspended then.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/output.h"
#include "runtime/peer/peer.h"

struct take {
    struct peer *p;
    struct bridge bridge; /* the engine is cancelled with us, while that counts */
    pthread_t greeter, starter, marker;
    bool has_greeter, has_starter, has_marker;
    int mark_rc;
    struct error mark_error;
    struct error greet_error;
    int greet_rc;
};

/* ---- Room --------------------------------------------------------------------------------- */

/* A base here is shared if it is what the source has: read, not believed. */
static int shares(struct take *t, struct plan_device *d, const struct wire_device *offered,
                  uint8_t *ret, struct error *err)
{
    int rc = offered->flags & DEVICE_BASE ? plan_prove_base(d, &t->bridge.ctx, err) : 0;

    *ret = rc == 1 && memcmp(d->sha256, offered->base, SHA256_SIZE) == 0;
    return rc < 0 ? -1 : 0;
}

static int make_room(struct take *t, const struct wire_device *w, const struct pull_options *opt,
                     struct pull **ret_pull, struct error *err)
{
    struct peer *p = t->p;
    struct plan_device *d = plan_find(p->plan, w->name);
    struct block *layer;

    if (!d)
        d = plan_add_incoming(p->plan, w->name, err);
    if (!d)
        return -1;
    if (d->role != BLUEPRINT_MEMORY && d->role != BLUEPRINT_ROOT && d->role != BLUEPRINT_DISK)
        return error_set(err, EPROTO, "device %s: is not one that travels", w->name);
    cleanup_block struct block *b = plan_open_incoming(d, w->size, p->o->fresh, p->ctx, err);
    if (!b)
        return -1;
    if (block_size(b) != w->size)
        return error_set(err, EINVAL,
                         "device %s: has %ju bytes there, but %s here has %ju: give it another "
                         "base or --package",
                         w->name, (uintmax_t)w->size, d->d.base, (uintmax_t)block_size(b));
    layer = pull_open(b, opt, p->ctx, ret_pull, err);
    if (!layer)
        return -1;
    b = layer;
    layer = plan_upper(d, b, p->ctx, err);
    if (!layer)
        return -1;
    b = layer;
    if (assembly_add(p->a, w->name, b, true, err) < 0)
        return -1;
    (void)steal_ptr(&b);
    return 0;
}

/* Disks that do not travel (shared, makeMigratable: false) are this host's own. */
static int open_others(struct peer *p, struct error *err)
{
    for (size_t i = 0; i < p->plan->count; i++) {
        const struct plan_device *d = &p->plan->items[i];
        if ((d->role != BLUEPRINT_ROOT && d->role != BLUEPRINT_DISK) || d->read_only ||
            assembly_block(p->a, d->d.name))
            continue;
        cleanup_block struct block *b = plan_open(d, assembly_path(p->a), p->ctx, err);
        if (!b || assembly_add(p->a, d->d.name, b, true, err) < 0)
            return error_wrap(err, "device %s: the source did not send it", d->d.name);
        (void)steal_ptr(&b);
    }
    return 0;
}

static int make_state(struct peer *p, struct error *err)
{
    struct plan_device *d = plan_find(p->plan, "state");
    cleanup_block struct block *b = NULL;

    if (!d)
        return error_set(err, EINVAL, "devices: \"state\" is missing");
    b = plan_open_incoming(d, 0, p->o->fresh, p->ctx, err);
    if (!b || assembly_add(p->a, "state", b, false, err) < 0)
        return -1;
    (void)steal_ptr(&b);
    return 0;
}

/* Overlays that hold a machine already are somebody's. */
static int check_vacant(struct peer *p, struct error *err)
{
    enum migrate_record_state state;
    char where[WIRE_REASON_MAX + 1] = "";
    enum mark mark;

    if (migrate_record_read(p->plan->record, &state, where, err) < 0)
        return -1;
    /* Not even --fresh: what stands here may be all that is left of it. */
    if (state == MIGRATE_RECORD_COMMITTED)
        return error_set(err, ESTALE,
                         "%s: a machine was being moved to %s from here, and nobody confirmed: "
                         "settle that first (--take-back), or use another --overlay-dir",
                         p->plan->record, where);
    /* A machine that left may come back: what it left behind is old. */
    if ((p->o->fresh || state == MIGRATE_RECORD_MOVED) &&
        (plan_start_over(p->plan, err) < 0 || migrate_take_back(p->plan->record, err) < 0))
        return -1;
    if (mark_read(p->plan->mark, &mark, err) < 0)
        return -1;
    if (mark != MARK_NONE)
        return error_set(err, EEXIST,
                         "%s: there is a machine here already: use another --overlay-dir, or "
                         "--fresh to drop it",
                         p->plan->mark);
    return 0;
}

/* What the source says the machine is. */
static int read_machine(struct peer *p, const char *text, size_t len, struct error *err)
{
    enum vmm_hypervisor wish;

    if (vmm_hypervisor_parse(p->o->vm->hypervisor, &wish, err) < 0)
        return -1;
    struct package *pkg = package_parse(text, len, "the offered machine", err);
    if (!pkg)
        return -1;
    package_free(p->plan->pkg);
    p->plan->pkg = pkg;
    if (pkg->foreign)
        return error_set(err, EPROTO, "the offered machine: says nothing of what it is");
    return package_check_host(pkg, wish, err);
}

/* The hypervisor is ready long before the state comes. */
static void *start_early(void *opaque)
{
    struct take *t = opaque;

    (void)vmm_ready(assembly_vmm(t->p->a), NULL); /* load() finds out what is wrong */
    return NULL;
}

static void join_starter(struct take *t)
{
    if (t->has_starter)
        (void)pthread_join(t->starter, NULL);
    t->has_starter = false;
}

static int offer(void *opaque, const struct wire_device *offered, size_t n, const char *machine,
                 size_t machine_len, const struct pull_options *pull, struct pull **pulls,
                 uint8_t *shares_base, struct error *err)
{
    struct take *t = opaque;
    struct peer *p = t->p;

    if (!p->o->mock && (read_machine(p, machine, machine_len, err) < 0))
        return -1;
    for (size_t i = 0; i < n; i++) {
        struct plan_device *d = plan_find(p->plan, offered[i].name);
        if (!d && !(d = plan_add_incoming(p->plan, offered[i].name, err)))
            return -1;
        if (shares(t, d, &offered[i], &shares_base[i], err) < 0)
            return -1;
        report_device(p->report, offered[i].name, offered[i].size);
    }
    if ((!p->o->mock && peer_choose(p, err) < 0) || peer_new_assembly(p, err) < 0 ||
        make_state(p, err) < 0)
        return -1;
    for (size_t i = 0; i < n; i++)
        if (make_room(t, &offered[i], &pull[i], &pulls[i], err) < 0)
            return -1;
    if (open_others(p, err) < 0)
        return -1;
    if (p->o->mock)
        return 0;
    if (assembly_start(p->a, &p->machine, err) < 0)
        return -1;
    t->has_starter = pthread_create(&t->starter, NULL, start_early, t) == 0;
    return 0;
}

/* ---- Running ------------------------------------------------------------------------------ */

/* Says that the machine runs here while it is still being loaded, so that running it needs no disk;
 * a target that is killed in between has to be started over with --fresh. */
static void *mark_running(void *opaque)
{
    struct take *t = opaque;

    t->mark_rc = mark_write(t->p->plan->mark, MARK_RUNNING, false, &t->mark_error);
    return NULL;
}

static int join_marker(struct take *t, struct error *err)
{
    if (!t->has_marker)
        return 0;
    (void)pthread_join(t->marker, NULL);
    t->has_marker = false;
    if (t->mark_rc < 0 && err)
        *err = t->mark_error;
    return t->mark_rc;
}

static int load(void *opaque, const uint8_t *state, size_t len, struct error *err)
{
    struct take *t = opaque;
    struct peer *p = t->p;
    uint64_t start = peer_now_ns();

    if (p->o->mock)
        return peer_write_state(p, state, len, err);
    join_starter(t);
    int rc = pthread_create(&t->marker, NULL, mark_running, t);
    if (rc != 0)
        return error_num(err, rc, "start a thread");
    t->has_marker = true;
    /* The hypervisor has had its devices open since the offer, and read of them what may have been
     * replaced since. The source stands still and has said so: nothing is replaced from here on. */
    if (assembly_put_state(p->a, state, len, err) < 0 || assembly_forget(p->a, err) < 0 ||
        assembly_load(p->a, false, err) < 0)
        return -1;
    log_debug(context_log(p->ctx), "Loaded the state",
              log_uint("us", (peer_now_ns() - start) / 1000));
    return 0;
}

static void *greet(void *opaque)
{
    struct take *t = opaque;
    struct peer *p = t->p;

    /* The mark was set in a hurry: now it outlasts the host, too. */
    if (mark_write(p->plan->mark, MARK_RUNNING, true, &t->greet_error) < 0) {
        t->greet_rc = -1;
        return NULL;
    }
    t->greet_rc = peer_greet_guest(p, &t->greet_error);
    if (t->greet_rc == 0) {
        atomic_fetch_add(&p->counters.resumes, 1);
        atomic_store(&p->counters.resume_ns, peer_now_ns() - p->start_ns);
        peer_say_up(p, peer_now_ns() - p->start_ns);
    }
    return NULL;
}

static int run(void *opaque, struct error *err)
{
    struct take *t = opaque;

    if (t->p->o->mock)
        return 0;
    uint64_t start = peer_now_ns();
    if (join_marker(t, err) < 0)
        return -1;
    t->p->mark = MARK_RUNNING;
    if (peer_run_now(t->p, err) < 0)
        return -1;
    log_debug(context_log(t->p->ctx), "Runs", log_uint("us", (peer_now_ns() - start) / 1000));
    /* The agent's answer may need pages that are still on their way. */
    t->has_greeter = pthread_create(&t->greeter, NULL, greet, t) == 0;
    return 0;
}

static void discard(void *opaque)
{
    struct take *t = opaque;

    t->p->gone = true; /* finish() removes what there is, when the engine is out of it */
}

static struct stream *reconnect(void *opaque, struct error *err)
{
    struct take *t = opaque;

    return stream_connect(t->p->o->raddr, &t->p->o->transport, &t->bridge.ctx, err);
}

/* ---- Start to end ------------------------------------------------------------------------- */

static int receive(struct take *t, struct migrate_result *result, struct error *err)
{
    struct peer *p = t->p;
    struct migrate_watch watch = peer_watch(p);
    struct migrate_host host = {
        .offer = offer, .load = load, .run = run, .discard = discard, .opaque = t};
    struct migrate_receive_options options = {
        .postcopy_off = p->o->postcopy == MIGRATE_POSTCOPY_OFF,
        .idle_ns = p->o->idle_ns,
        .retake_ns = p->o->retake_ns,
        .reconnect = reconnect,
        .opaque = t,
        .watch = &watch,
    };
    struct stream *stream = stream_connect(p->o->raddr, &p->o->transport, &t->bridge.ctx, err);

    if (!stream) {
        atomic_fetch_add(&p->counters.migrations_failed, 1);
        return -1;
    }
    log_info(context_log(p->ctx), "Migrating from", log_str("remote", stream_peer(stream)));
    report_begin(p->report, &p->move, "target", stream_peer(stream));
    atomic_store(&p->counters.receiving, true);
    int rc = migrate_receive(stream, &host, &options, &t->bridge.ctx, result, err);
    atomic_store(&p->counters.receiving, false);
    peer_count(p, result, rc < 0 ? err : NULL);
    return rc;
}

static int finish(struct take *t, int rc, const struct migrate_result *r, struct error *err)
{
    struct peer *p = t->p;

    if (t->has_greeter)
        (void)pthread_join(t->greeter, NULL);
    join_starter(t);
    (void)join_marker(t, NULL);
    if (rc < 0) {
        if (p->gone && p->a) { /* nothing of it stays */
            struct assembly *a = steal_ptr(&p->a);
            (void)assembly_close(a, NULL);
            plan_discard(p->plan);
        } else if (p->running) {
            /* Blocks are missing for ever: what stands here must not be gone on from. */
            p->running = false;
            (void)error_wrap(err, "the machine ran here but its data is not complete");
        }
        return -1;
    }
    atomic_fetch_add(&p->counters.migrations_in, 1);
    log_info(context_log(p->ctx), "Completed all device migrations",
             log_uint("ms", r->total_ns / 1000000),
             log_uint("suspended_ms", r->suspended_ns / 1000000),
             log_uint("bytes_received", r->bytes_received), log_uint("wants", r->wants),
             log_uint("waits", r->waits), log_uint("wait_p99_us", r->wait_p99_us));
    /* Should it crash here: its files say what it was. */
    if (!p->o->mock && peer_write_config(p, err) < 0)
        return -1;
    if (t->greet_rc < 0) {
        if (err)
            *err = t->greet_error;
        return -1;
    }
    return 0;
}

int peer_take(struct peer *p, struct error *err)
{
    struct take t = {.p = p};
    struct migrate_result result = {0};

    if (check_vacant(p, err) < 0 || bridge_start(&t.bridge, p->ctx, p->o->cancel_fd, err) < 0)
        return -1;
    p->bridge = &t.bridge;
    int rc = receive(&t, &result, err);
    rc = finish(&t, rc, &result, err);
    p->bridge = NULL;
    bridge_stop(&t.bridge);
    return rc;
}
