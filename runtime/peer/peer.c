// SPDX-License-Identifier: Apache-2.0
/* peer.c - a machine's way from its devices to running and back; see peer.h */
#include "runtime/peer/peer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "runtime/net/announce.h"
#include "runtime/net/net.h"
#include "runtime/peer/folder.h"

#define AGENT_RUNS_ON_NS (UINT64_C(10) * 1000000000)

/* A guest that waits for a page that has not arrived yet waits for two blocks of 64 KiB. */
#define READ_AHEAD_FAR_KIB 128u

uint64_t peer_now_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

struct peer *peer_new(struct plan *plan, const struct peer_options *options,
                      const struct context *ctx, struct error *err)
{
    struct peer *p = calloc(1, sizeof(*p));

    if (!p) {
        plan_free(plan);
        (void)error_oom(err);
        return NULL;
    }
    p->o = options;
    p->ctx = ctx;
    p->plan = plan;
    p->start_ns = peer_now_ns();
    return p;
}

int peer_free(struct peer *p, struct error *err)
{
    if (!p)
        return 0;
    /* It never ran: nobody need wonder, after the host's next start, whether it did. */
    if (p->mark == MARK_STARTING)
        (void)mark_write(p->plan->mark, MARK_STANDING, false, NULL);
    int rc = assembly_close(p->a, err);
    vm_setup_clear(&p->setup);
    plan_free(p->plan);
    free(p);
    return rc;
}

/* ---- May it run? -------------------------------------------------------------------------- */

/* Says no to a machine that went elsewhere. --fresh of one that moved: what it left behind goes,
 * and another one begins. */
static int check_record(struct peer *p, bool fresh, struct error *err)
{
    enum migrate_record_state state;
    char where[WIRE_REASON_MAX + 1] = "";

    if (migrate_record_read(p->plan->record, &state, where, err) < 0)
        return -1;
    const bool moved = state == MIGRATE_RECORD_MOVED;
    if (state == MIGRATE_RECORD_NONE || (moved && fresh))
        return 0;
    return error_set(err, ESTALE,
                     "this machine %s %s (%s): it must not run twice; if it does not run there, "
                     "start with --take-back%s",
                     moved ? "was moved to" : "was being moved to", where, p->plan->record,
                     moved ? "; --fresh drops what it left here and starts another" : "");
}

/* The files below the memory's own, only read: a package's, or overlays under the last one. */
static const char *below(const struct plan_device *memory, size_t i)
{
    if (i >= memory->d.n_overlays || !*memory->d.base)
        return NULL;
    return i == 0 ? memory->d.base : memory->d.overlays[i - 1];
}

static int check_base(const char *path, struct error *err)
{
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return error_sys(err, "%s", path);
    return folder_lock(fd, false, path, err) < 0 ? -1 : folder_check(AT_FDCWD, path, path, err);
}

/* A machine that begins does so from files that belong together, and are no other machine's. One
 * that has begun is told by its overlays (cow_state.h) when they are not what they were. */
static int check_bases(struct peer *p, struct error *err)
{
    const struct plan_device *memory = plan_find(p->plan, "memory");
    const char *path;

    for (size_t i = 0; memory && (path = below(memory, i)); i++)
        if (check_base(path, err) < 0)
            return error_wrap(err, "device memory");
    return 0;
}

/* Before our own locks on them, which would be in the way. */
static int take_back_bases(struct peer *p, struct error *err)
{
    const struct plan_device *memory = plan_find(p->plan, "memory");
    const char *path;

    for (size_t i = 0; memory && (path = below(memory, i)); i++)
        if (folder_take_back(path, err) < 0)
            return error_wrap(err, "--take-back");
    return 0;
}

/* With the devices locked the mark is nobody else's. */
static int check_mark(struct peer *p, struct error *err)
{
    enum mark mark;

    if (mark_read(p->plan->mark, &mark, err) < 0)
        return -1;
    if (p->plan->bp) {
        /* What was not suspended boots again; its disks are as after a power cut. */
        if (p->boots && mark == MARK_RUNNING)
            log_warn(context_log(p->ctx), "Machine was not suspended, booting it again",
                     log_str("mark", p->plan->mark));
        return 0;
    }
    if (mark == MARK_NONE || mark == MARK_STANDING)
        return 0;
    return error_set(err, ESTALE,
                     "this machine %s, so its memory and its saved state do not belong together "
                     "(%s): --fresh drops what it wrote and starts from the package",
                     mark == MARK_ENDED ? "was powered off by its guest"
                                        : "was not suspended when its peer ended",
                     p->plan->mark);
}

static int verify(struct peer *p, struct error *err)
{
    for (size_t i = 0; i < p->plan->count; i++) {
        struct plan_device *d = &p->plan->items[i];
        uint8_t sum[SHA256_SIZE];
        if (!d->has_digest)
            continue;
        cleanup_close int fd = open(d->d.base, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return error_sys(err, "device %s: %s", d->d.name, d->d.base);
        if (digest_of_fd_watched(fd, d->d.base, "verify", p->ctx, sum, NULL, err) < 0)
            return -1;
        if (memcmp(sum, d->sha256, SHA256_SIZE) != 0)
            return error_set(err, ESTALE,
                             "device %s: %s is damaged or was changed: its SHA-256 is not the one "
                             "in its package's config: get the package again",
                             d->d.name, d->d.base);
    }
    return 0;
}

/* ---- Opening ------------------------------------------------------------------------------ */

int peer_new_assembly(struct peer *p, struct error *err)
{
    const struct package *pkg = p->plan->pkg;
    const struct blueprint *bp = p->plan->bp;
    struct assembly_options ao = {.base = p->o->vm->base};

    ao.liveness_port = p->boots ? bp->liveness_port : 0;
    ao.agent_port = p->boots ? bp->agent_port : pkg ? pkg->agent_port : 0;
    if (p->o->mock) {
        p->setup.choice.bin = strdup("mock");
        if (!p->setup.choice.bin)
            return error_oom(err);
    }
    if (p->o->raddr && *p->o->raddr)
        ao.read_ahead_kib = READ_AHEAD_FAR_KIB;
    vm_setup_fill(&p->setup, p->o->vm, &ao.vmm);
    ao.vmm.small_faults = ao.read_ahead_kib > 0;
    ao.vmm.purpose = p->boots ? VMM_BOOT : VMM_LOAD;
    p->a = assembly_new(&ao, p->ctx, err);
    return p->a ? 0 : -1;
}

static bool exposed(const struct peer *p, const struct plan_device *d)
{
    if (d->role == BLUEPRINT_STATE || d->role == BLUEPRINT_CONFIG)
        return false;
    return p->boots || !d->read_only;
}

static int open_device(struct peer *p, struct plan_device *d, struct error *err)
{
    cleanup_block struct block *stack = NULL;
    bool made = p->boots && (d->role == BLUEPRINT_MEMORY || d->role == BLUEPRINT_STATE);

    if (made) {
        stack = plan_open_incoming(d, (uint64_t)p->o->memory_mib << 20, true, p->ctx, err);
        struct block *top = stack ? plan_upper(d, stack, p->ctx, err) : NULL;
        if (!top)
            return -1;
        stack = top;
    } else {
        stack = plan_open(d, assembly_path(p->a), p->ctx, err);
    }
    if (!stack || assembly_add(p->a, d->d.name, stack, exposed(p, d), err) < 0)
        return -1;
    (void)steal_ptr(&stack);
    return 0;
}

/* A process that loads a state takes longest to be ready: it starts before the devices are opened,
 * which it waits for. One that boots reads its kernel at once. */
static int start_ahead(struct peer *p, struct error *err)
{
    for (size_t i = 0; i < p->plan->count; i++)
        if (exposed(p, &p->plan->items[i]) &&
            assembly_expect(p->a, p->plan->items[i].d.name, err) < 0)
            return -1;
    if (assembly_start(p->a, &p->machine, err) < 0)
        return -1;
    p->started = true;
    return 0;
}

/* What the mark says, and will say once the machine is taken back. */
static int look(struct peer *p, enum mark *ret, struct error *err)
{
    enum migrate_record_state state;
    char where[WIRE_REASON_MAX + 1] = "";

    if (mark_read(p->plan->mark, ret, err) < 0 ||
        migrate_record_read(p->plan->record, &state, where, err) < 0)
        return -1;
    if (p->o->take_back && state != MIGRATE_RECORD_NONE)
        *ret = MARK_STANDING;
    return 0;
}

/* What was before is dropped; a record of where it went, too. */
static int start_over(struct peer *p, struct error *err)
{
    if (plan_start_over(p->plan, err) < 0 || migrate_take_back(p->plan->record, err) < 0)
        return -1;
    if (p->plan->bp) {
        package_free(p->plan->pkg);
        p->plan->pkg = NULL;
    }
    return 0;
}

static int open_devices(struct peer *p, struct error *err)
{
    for (size_t i = 0; i < p->plan->count; i++)
        if (exposed(p, &p->plan->items[i]) || p->plan->items[i].role == BLUEPRINT_STATE) {
            if (open_device(p, &p->plan->items[i], err) < 0)
                return -1;
        }
    assembly_complete(p->a);
    return 0;
}

/* The devices are locked, so mark and record are ours: a peer that holds the machine yet, perhaps
 * for a target that it serves, has kept us from coming here. */
static int claim(struct peer *p, bool begins, struct error *err)
{
    if (p->o->take_back && folder_stand_again(p->plan->mark, p->plan->record, err) < 0)
        return -1;
    if (check_record(p, false, err) < 0 || (begins && check_bases(p, err) < 0))
        return -1;
    if (p->o->mock)
        return 0;
    if (check_mark(p, err) < 0)
        return -1;
    if (p->boots)
        return 0;
    if (mark_write(p->plan->mark, MARK_STARTING, true, err) < 0)
        return -1;
    p->mark = MARK_STARTING;
    return 0;
}

int peer_open(struct peer *p, struct error *err)
{
    enum mark mark;

    /* Once now, before anything starts or is made; what counts is claim(). */
    if (!p->o->take_back && check_record(p, p->o->fresh, err) < 0)
        return -1;
    if ((p->o->take_back && take_back_bases(p, err) < 0) ||
        (p->o->fresh && start_over(p, err) < 0) || look(p, &mark, err) < 0 ||
        (mark == MARK_NONE && check_bases(p, err) < 0))
        return -1;
    p->boots = p->plan->bp && (mark != MARK_STANDING || !p->plan->pkg);
    if ((p->o->verify && verify(p, err) < 0) || (!p->o->mock && peer_choose(p, err) < 0) ||
        peer_new_assembly(p, err) < 0)
        return -1;
    if (!p->o->mock && !p->boots && start_ahead(p, err) < 0)
        return -1;
    return open_devices(p, err) < 0 ? -1 : claim(p, mark == MARK_NONE, err);
}

/* ---- Running ------------------------------------------------------------------------------ */

/* The state device's content, less the zeros behind it. */
static int read_state(struct peer *p, struct error *err)
{
    struct block *b = assembly_block(p->a, "state");
    uint64_t size = block_size(b);

    if (size > ASSEMBLY_STATE_MAX)
        return error_set(err, EFBIG, "device state: %" PRIu64 " bytes, more than the limit of %ju",
                         size, (uintmax_t)ASSEMBLY_STATE_MAX);
    cleanup_free char *state = malloc(size + 1);
    if (!state)
        return error_oom(err);
    if (block_read(b, state, size, 0, err) < 0)
        return error_wrap(err, "device state");
    while (size > 0 && state[size - 1] == 0)
        size--;
    if (size == 0)
        return error_set(err, EBADMSG, "device state: is empty: this is no suspended machine");
    return assembly_put_state(p->a, state, size, err);
}

static int announce_tap(void *opaque, struct error *err)
{
    return net_announce(opaque, NULL, err);
}

/* The guest may know its gateway by a link address of another host. (What is behind the tap hears
 * of the guest from its agent.) */
static void announce_gateway(struct peer *p)
{
    const struct vmm_nic *nic = &p->machine.nic;
    char *tap = (char *)(nic->tap ? nic->tap : "tap0");
    struct error err = ERROR_INIT;
    int rc;

    if (nic->kind != VMM_NIC_TAP)
        return;
    if (p->setup.netns) {
        cleanup_close int fd = open(p->setup.netns, O_RDONLY | O_CLOEXEC);
        rc = fd < 0 ? error_sys(&err, "network namespace %s", p->setup.netns)
                    : net_run_in(fd, announce_tap, tap, &err);
    } else {
        rc = announce_tap(tap, &err);
    }
    if (rc < 0)
        log_warn(context_log(p->ctx), "Cannot announce the guest's gateway, ignoring",
                 log_str("tap", tap), log_str("error", err.text));
}

static int greet_guest(struct peer *p, struct error *err)
{
    uint64_t timeout = p->o->vm->resume_timeout;

    announce_gateway(p);
    if (p->boots && assembly_wait_liveness(p->a, timeout, true, err) < 0)
        return error_wrap(err, "the guest gave no sign of life");
    if (assembly_after_resume(p->a, timeout, true, err) < 0)
        return error_wrap(err, "the guest's agent was asked for after-resume");
    return 0;
}

int peer_greet_guest(struct peer *p, struct error *err)
{
    struct error why = ERROR_INIT;

    if (greet_guest(p, &why) == 0)
        return 0;
    if (why.code == ECANCELED && context_check(p->ctx, NULL) < 0) {
        log_info(context_log(p->ctx), "Told to end before the guest took notice of its resume");
        return 1;
    }
    if (err)
        *err = why;
    return -1;
}

void peer_tell_it_runs_on(struct peer *p)
{
    struct error agent = ERROR_INIT;

    if (vmm_state(assembly_vmm(p->a)) == VMM_STATE_EXITED)
        return;
    /* Not stoppable: who stops next has the agent prepare the guest once more. */
    if (assembly_after_resume(p->a, AGENT_RUNS_ON_NS, false, &agent) < 0)
        log_warn(context_log(p->ctx), "Agent was not told that the machine runs on, ignoring",
                 log_str("error", agent.text));
}

/* The mark, then the machine. */
int peer_run_now(struct peer *p, struct error *err)
{
    if (p->mark != MARK_RUNNING &&
        mark_write(p->plan->mark, MARK_RUNNING, p->mark != MARK_STARTING, err) < 0)
        return -1;
    p->mark = MARK_RUNNING;
    /* One that was booted is resumed like others, when it has stood still since. */
    bool boot = p->boots && vmm_state(assembly_vmm(p->a)) == VMM_STATE_STARTED;
    if ((boot ? assembly_boot(p->a, true, err) : vmm_resume(assembly_vmm(p->a), err)) < 0)
        return -1;
    p->running = true;
    atomic_store(&p->counters.running, true);
    atomic_store(&p->counters.ready, true);
    return 0;
}

static int start(struct peer *p, struct error *err)
{
    if (!p->started && assembly_start(p->a, &p->machine, err) < 0)
        return -1;
    if (!p->boots && (read_state(p, err) < 0 || assembly_load(p->a, true, err) < 0))
        return -1;
    return peer_run_now(p, err);
}

void peer_say_up(struct peer *p, uint64_t ran_ns)
{
    uint64_t ms = (peer_now_ns() - p->start_ns) / 1000000;

    log_info(context_log(p->ctx), p->boots ? "Booted VM" : "Resumed VM", log_uint("ms", ms),
             log_uint("run_ms", ran_ns / 1000000), log_str("path", assembly_path(p->a)));
    report_event(p->report, p->boots ? "booted" : "resumed",
                 log_fields(log_uint("ms", ms), log_str("path", assembly_path(p->a))));
}

int peer_start(struct peer *p, struct error *err)
{
    struct error later = ERROR_INIT;

    if (p->o->mock)
        return 0;
    if (start(p, err) < 0)
        return -1;
    uint64_t ran = peer_now_ns() - p->start_ns;
    log_info(context_log(p->ctx), "VM runs", log_uint("ms", ran / 1000000));
    int rc = peer_greet_guest(p, err);
    if (rc == 1) /* peer_serve() has nothing to wait for, and peer_suspend() keeps it as ever */
        return 0;
    if (rc < 0) {
        /* It ran: what it did is kept, if it still lives. */
        if (vmm_state(assembly_vmm(p->a)) != VMM_STATE_EXITED && peer_suspend(p, &later) < 0 &&
            later.code != ETIMEDOUT)
            log_warn(context_log(p->ctx), "Could not keep the machine, ignoring",
                     log_str("error", later.text));
        return -1;
    }
    atomic_fetch_add(&p->counters.resumes, 1);
    atomic_store(&p->counters.resume_ns, peer_now_ns() - p->start_ns);
    peer_say_up(p, ran);
    return 0;
}

/* ---- Standing still ----------------------------------------------------------------------- */

int peer_write_state(struct peer *p, const void *state, size_t len, struct error *err)
{
    struct block *b = assembly_block(p->a, "state");
    uint64_t size = block_size(b);

    if (len > size)
        return error_set(err, ENOSPC, "device state: the state has %zu bytes, the device %" PRIu64,
                         len, size);
    if (block_write(b, state, len, 0, 0, err) < 0 ||
        (size > len && block_zero(b, size - len, len, 0, err) < 0) || block_flush(b, err) < 0)
        return error_wrap(err, "device state");
    return 0;
}

/* Saves the paused machine into its state device, flushes and marks it as standing. */
static int keep(struct peer *p, struct error *err)
{
    cleanup_free void *state = NULL;
    size_t len;

    if (assembly_save(p->a, &state, &len, err) < 0 || peer_write_state(p, state, len, err) < 0 ||
        peer_write_config(p, err) < 0 || mark_write(p->plan->mark, MARK_STANDING, true, err) < 0)
        return -1;
    p->mark = MARK_STANDING;
    return 0;
}

int peer_suspend(struct peer *p, struct error *err)
{
    struct error agent = ERROR_INIT;
    uint64_t start_ns = peer_now_ns();

    if (p->o->mock && p->a)
        return assembly_flush(p->a, err);
    if (!p->running)
        return 0;
    /* While it runs: the longest part, of which little is left when the guest has to stand still.
     * A failure counts, as the kernel tells of one once. */
    if (assembly_flush(p->a, err) < 0)
        return error_wrap(err, "suspend");
    log_debug(context_log(p->ctx), "Flushed what the guest wrote");
    int rc = assembly_before_suspend(p->a, p->o->vm->resume_timeout, false, &agent);
    uint64_t paused_ns = peer_now_ns();
    /* Twice: the answer may have been lost, and the second asks whether it stands. */
    if (vmm_pause(assembly_vmm(p->a), NULL) < 0 && vmm_pause(assembly_vmm(p->a), err) < 0) {
        if (vmm_resume(assembly_vmm(p->a), NULL) == 0)
            peer_tell_it_runs_on(p);
        return error_wrap(err, "suspend");
    }
    if (keep(p, err) < 0)
        return error_wrap(err, "suspend");
    p->running = false;
    atomic_store(&p->counters.running, false);
    atomic_fetch_add(&p->counters.suspends, 1);
    atomic_store(&p->counters.suspend_ns, peer_now_ns() - start_ns);
    uint64_t ms = (peer_now_ns() - start_ns) / 1000000;
    log_info(context_log(p->ctx), "Suspend", log_uint("ms", ms),
             log_uint("stood_ms", (peer_now_ns() - paused_ns) / 1000000));
    report_event(p->report, "suspended", log_fields(log_uint("ms", ms)));
    if (rc < 0)
        return error_set(err, agent.code,
                         "the machine was suspended and is kept, but its agent did not prepare "
                         "it: %s",
                         agent.text);
    return 0;
}

/* ---- Serving ------------------------------------------------------------------------------ */

/* Why a machine is not there any more. */
static int ended(struct peer *p, struct error *err)
{
    struct vmm_exit end;

    p->running = false;
    atomic_store(&p->counters.running, false);
    if (vmm_wait_exit(assembly_vmm(p->a), 0, &end, err) < 0)
        return -1;
    if (!end.clean)
        return assembly_ended(p->a, err);
    log_info(context_log(p->ctx), "Guest powered off");
    return mark_write(p->plan->mark, MARK_ENDED, true, err);
}

static void wait_cancelled(const struct context *ctx)
{
    struct pollfd fd = {.fd = ctx->cancel ? ctx->cancel->fd : -1, .events = POLLIN};

    while (context_check(ctx, NULL) == 0)
        (void)poll(&fd, 1, -1);
}

int peer_serve(struct peer *p, struct error *err)
{
    const struct context *stop = p->o->mock ? p->ctx : assembly_stop_context(p->a);

    if (p->o->laddr && *p->o->laddr && context_check(stop, NULL) == 0) {
        if (peer_hand(p, stop, err) < 0)
            return -1;
    } else {
        wait_cancelled(stop);
    }
    if (p->running && vmm_state(assembly_vmm(p->a)) == VMM_STATE_EXITED)
        return ended(p, err);
    return 0;
}
