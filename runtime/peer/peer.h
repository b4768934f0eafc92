/* SPDX-License-Identifier: Apache-2.0 */
/* peer.h - one machine on this host: started, suspended, taken in, handed on
 *
 *     peer_new()                       plan, hypervisor
 *       peer_open()                    stacks, locks, mark: what may run, and is whole
 *       peer_start()                   the process, prepared while the state is read; runs
 *       or peer_take()                 the same, out of a migration (take.c)
 *     peer_serve()                     waits for a request to stop, the machine's end, or whoever
 *                                      wants the machine (hand.c)
 *     peer_suspend()                   agent, pause, state, flush, mark
 *     peer_free()
 *
 * What is durable when: the mark says "running" before the machine first runs, and "standing" after
 * state, memory and disks have been flushed. At any other instant a crash leaves a machine that the
 * next start refuses with the reason, instead of one that is corrupt.
 */
#ifndef RUNTIME_PEER_PEER_H
#define RUNTIME_PEER_PEER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "runtime/migrate/report.h"
#include "runtime/peer/bridge.h"
#include "runtime/peer/mark.h"
#include "runtime/peer/plan.h"
#include "runtime/snapshot/assembly.h"
#include "runtime/snapshot/vm_options.h"

#define PEER_METRICS_TEXT_MAX (256u << 10)

/* Strings are the caller's and outlive the peer. */
struct peer_options {
    const struct vm_opts *vm;
    bool mock;                 /* no machine: storage only */
    bool verify;               /* compare the bases with their digests before anything starts */
    bool take_back;            /* a person says: the machine does not run where it was moved to */
    bool fresh;                /* drop what was kept of earlier runs */
    uint32_t cpus, memory_mib; /* of a machine that boots from a blueprint */
    const char *cpu_model, *boot_args;

    /* Migration */
    const char *raddr, *laddr; /* NULL or "" = none */
    struct transport_options transport;
    enum migrate_postcopy postcopy;
    unsigned concurrency;
    int zstd_level;
    uint64_t bandwidth, downtime_limit_ns;
    uint64_t idle_ns, retake_ns; /* 0 = the engine's defaults */
    int cancel_fd; /* readable: the migration under way is called off, if it still can be, and the
                      machine runs on; -1 = none */
    int status_fd; /* where events go (report.h); -1 = nowhere */
    const char *trace; /* file for a trace of what moves; NULL = none */
};

/* For metrics; read by another thread. */
struct peer_counters {
    atomic_bool running, sending, receiving;
    atomic_bool ready; /* plan and assembly do not change any more */
    atomic_uint_fast64_t resumes, suspends, resume_ns, suspend_ns, flushes;
    atomic_uint_fast64_t stage, bytes_total, bytes_settled, bytes_wire, dirty_pages, round;
    atomic_uint_fast64_t migrations_out, migrations_in, migrations_failed, copies;
    atomic_uint_fast64_t last_suspended_ns, last_total_ns, sent, received; /* of migrations */
};

struct peer {
    const struct peer_options *o;
    const struct context *ctx;
    struct plan *plan; /* owned */
    struct vm_setup setup;
    struct assembly *a;
    struct vmm_disk disks[VMM_DISKS_MAX];
    struct vmm_machine machine; /* what runs; points into plan, setup and disks */
    bool boots;                 /* there is no state: the machine boots */
    bool started;               /* the process is, ahead of its devices */
    bool running;
    enum mark mark; /* what the mark says, once this process wrote it */
    bool gone;      /* it was handed on, or never came */
    uint64_t start_ns;
    struct peer_counters counters;
    struct report *report; /* NULL = nobody asked */
    struct report_move move;
    struct bridge *bridge; /* of the migration under way; NULL = none is */
};

/* Takes the plan over, also on failure. The caller owns the result. NULL on failure. */
struct peer *peer_new(struct plan *plan, const struct peer_options *options,
                      const struct context *ctx, struct error *err);

/* Opens every device and finds out whether the machine may and can run. Refused: a machine that was
 * moved (ESTALE), devices in use (EBUSY), a machine whose files do not belong together (ESTALE), a
 * wrong digest with verify. Returns 0. */
int peer_open(struct peer *p, struct error *err);

/* Runs it, and has the guest's agent hear of that. After a failure the machine is suspended again
 * where it had run. Returns 0, also when a request to stop came before the guest took notice: then
 * peer_serve() returns at once, and peer_suspend() keeps the machine. */
int peer_start(struct peer *p, struct error *err);

/* Takes a machine in from o->raddr; returns when all its data is here, or -1. The machine runs here
 * then if p->running. */
int peer_take(struct peer *p, struct error *err);

/* Serves until there is a reason to end: the context's cancellation or a machine that was handed on
 * (0), the guest powering off (0), a VMM that died (-1). */
int peer_serve(struct peer *p, struct error *err);

/* Suspends a running machine and keeps it; not running: nothing. After a failure of the agent alone
 * the machine is kept all the same, and -1 says so. One that could not be paused runs on; one that
 * could not be kept stands still until peer_free(): pages that the kernel could not place are lost,
 * so that a second try might keep what is not whole. */
int peer_suspend(struct peer *p, struct error *err);

/* Ends what is left, without suspending. NULL is fine. Returns 0. */
int peer_free(struct peer *p, struct error *err);

/* Everything as Prometheus text. Any thread. Returns the length. */
size_t peer_metrics(struct peer *p, char *buf, size_t size);

/* ---- between peer.c, machine.c, hand.c and take.c ---- */

/* The config of the machine as it runs, for whoever takes it: package.h's object with no devices.
 * The caller frees it. */
char *peer_describe(struct peer *p, struct error *err);

/* Chooses the hypervisor and describes the machine, of the plan's config or for a boot; makes the
 * assembly; writes the state device. Return 0. */
int peer_choose(struct peer *p, struct error *err);
int peer_new_assembly(struct peer *p, struct error *err);
int peer_write_state(struct peer *p, const void *state, size_t len, struct error *err);

/* Writes the config of a machine that had none, booted or taken in: what it is does not change any
 * more. Returns 0. */
int peer_write_config(struct peer *p, struct error *err);

/* Marks the machine as running and runs it. Returns 0. */
int peer_run_now(struct peer *p, struct error *err);

/* Waits for the guest of a machine that runs now to have taken notice. Returns 0; 1 when a request
 * to stop came first; -1. */
int peer_greet_guest(struct peer *p, struct error *err);

/* The guest was, or may have been, prepared for a suspension, and runs on: its agent is told, so
 * that it undoes that. Waits for it, a few seconds at most; a failure is logged. */
void peer_tell_it_runs_on(struct peer *p);

/* Around a migration: what watches it, and its figures when it has ended. */
struct migrate_watch peer_watch(struct peer *p);
void peer_count(struct peer *p, const struct migrate_result *r, const struct error *cause);

/* Waits at o->laddr for whoever wants the machine, until it is handed on (p->gone) or stop is
 * cancelled. Returns 0; -1 when nobody can say where it is, or we cannot listen. */
int peer_hand(struct peer *p, const struct context *stop, struct error *err);

/* Says that the machine is up, after it has run for a while already. */
void peer_say_up(struct peer *p, uint64_t ran_ns);

uint64_t peer_now_ns(void);

#endif
