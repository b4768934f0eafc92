/* SPDX-License-Identifier: Apache-2.0 */
/* migrate.h - moving a machine to another host while it runs
 *
 * Theory of operation: two sides walk through the same stages over one stream
 * (runtime/wire/frame.h):
 *
 *   stage     source                                target                          a failure here
 *   greet     versions, features, session           the same                        source runs on
 *   offer     machine, devices                      makes devices, accepts          source runs on
 *   copy      every page once                       stores pages                    source runs on
 *   settle    rounds of what was dirtied            forgets, then stores            source runs on
 *   suspend   pause, device state, last dirty set   loads the state, paused: READY  source resumes
 * it COMMIT    writes its record, durable, says so   runs the machine: RUNNING       neither by
 * itself drain     serves what the target still lacks    asks first for what is read     link taken
 * up again done      lets go: BYE                          DONE                            -
 *
 * The one rule: at every instant at most one side may run the machine, and as long as one side
 * lives it is not lost. Before the commit record is written any failure leaves the machine running
 * on the source. From then on the source never runs it by itself: it stays suspended with
 * everything kept until it hears RUNNING, or hears from the target that it never ran it and has
 * destroyed its copy, or a person takes it back (migrate_take_back()). tests/model/commit.pml
 * explores this rule.
 *
 * What travels are pages of 4 KiB in frames of up to a block: zeros as a range, what both sides
 * have in a shared base as a range, the rest plain or as zstd. The peer is a stranger until TLS
 * says otherwise; what it sends is bounded by the wire's limits and by the devices it was offered
 * or has offered.
 */
#ifndef RUNTIME_MIGRATE_MIGRATE_H
#define RUNTIME_MIGRATE_MIGRATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/context.h"
#include "runtime/base/error.h"
#include "runtime/block/block.h"
#include "runtime/block/filter/pull.h"
#include "runtime/transport/transport.h"
#include "runtime/wire/frame.h"

/* ---- what both sides share ---- */

enum migrate_stage {
    MIGRATE_GREET,
    MIGRATE_OFFER,
    MIGRATE_COPY,
    MIGRATE_SETTLE,
    MIGRATE_SUSPEND,
    MIGRATE_COMMIT,
    MIGRATE_DRAIN,
    MIGRATE_FINISHED,
    MIGRATE_STAGES,
};

const char *migrate_stage_name(enum migrate_stage stage);

/* What happened to a range of a device, for traces (one call a frame, from any thread). */
enum migrate_trace_kind {
    MIGRATE_TRACE_SENT,     /* source: content went out */
    MIGRATE_TRACE_RECEIVED, /* target: content came in */
    MIGRATE_TRACE_WANTED,   /* asked for ahead of its turn */
    MIGRATE_TRACE_DIRTIED,  /* changed after it had been sent */
    MIGRATE_TRACE_IMPLIED,  /* zeros, or what a shared base holds: said or heard without content */
};

struct migrate_status {
    enum migrate_stage stage;
    uint64_t bytes_total;   /* of all devices */
    uint64_t bytes_settled; /* of them, what the target has in its last form, as far as is known */
    uint64_t bytes_wire;    /* on the stream, both directions */
    uint32_t round;         /* of settle */
    uint64_t dirty_pages;   /* found by the last look */
    uint64_t suspended_ns;  /* how long the machine has stood still, or stood */
};

/* All optional; called from any thread, must not block for long. */
struct migrate_watch {
    void (*status)(void *opaque, const struct migrate_status *status);
    void (*trace)(void *opaque, enum migrate_trace_kind kind, const char *device, uint64_t offset,
                  uint64_t length);
    void *opaque;
};

/* What migrate_send() and migrate_receive() leave behind; filled whenever they return. */
enum migrate_outcome {
    MIGRATE_ROLLED_BACK, /* source: the machine runs here; target: it has nothing */
    MIGRATE_MOVED,       /* the machine is the target's, with all its data */
    MIGRATE_COPIED,      /* source: it runs here, as before; target: it has a copy that never ran */
    MIGRATE_IN_DOUBT,    /* source: suspended after a commit nobody confirmed; target: it runs the
                            machine but lacks blocks that nobody serves any more */
};

struct migrate_result {
    enum migrate_outcome outcome;
    uint64_t total_ns;
    uint64_t suspended_ns; /* source: suspend to RUNNING; target: SUSPENDED to RUNNING */
    uint64_t bytes_sent, bytes_received;
    uint64_t pages_plain, pages_zero, pages_base, pages_resent; /* of 4 KiB */
    uint64_t wants;                                             /* asked for ahead of their turn */
    uint32_t rounds;
    uint64_t waits, wait_p99_us; /* target: accesses that waited for absent pages, and how long 99
                                    of 100 of them at most (of the slowest device) */
};

/* ---- source ---- */

/* One device as the source has it. The stack must hold the filter "dirty" (runtime/block) with
 * pages of BLOCK_PAGE. Counts and times mean what upstream's device JSON says (see the manual page
 * drafter-peer(1)). */
struct migrate_device {
    const char *name;           /* as wire_device wants it */
    struct block *block;        /* top of its stack; owned by the caller */
    uint32_t block_size;        /* bytes; power of two, WIRE_BLOCK_MIN..WIRE_BLOCK_MAX */
    bool memory;                /* guest memory: flushed before each look */
    bool share_base;            /* offer the base's digest, so that its blocks need not travel */
    const uint8_t *base_digest; /* SHA-256 of the base (EXTENT_BASE); NULL = of prove_base() */
    uint32_t max_dirty_blocks, min_cycles, max_cycles;
    uint64_t cycle_throttle_ns;
};

/* How the source handles its machine. All return 0 or -1; called from migrate_send()'s thread,
 * one at a time, but for keep(). */
struct migrate_machine {
    /* Makes what the guest wrote to memory visible to the memory device's dirty filter, running or
     * not. May be NULL when writes are visible at once. */
    int (*flush)(void *opaque, struct error *err);
    /* The machine will soon be suspended: what can be done before is done now, while it runs. What
     * it writes meanwhile is sent before suspend(). May be NULL. */
    int (*prepare)(void *opaque, struct error *err);
    /* Prepares the guest (agent's before-suspend) and pauses it. After a success nothing writes to
     * the devices until resume(). A failure may leave it half done, the guest prepared or the
     * machine paused: resume() follows. */
    int (*suspend)(void *opaque, struct error *err);
    /* The device state of the suspended machine; the buffer is the engine's to free(). */
    int (*save)(void *opaque, uint8_t **ret_state, size_t *ret_len, struct error *err);
    /* Makes the suspended machine last: its devices and the state that save() gave. Called from a
     * thread of its own while the target loads the state; the commit waits for it. May be NULL. */
    int (*keep)(void *opaque, struct error *err);
    /* Rollback: lets the machine run again, as if nothing had been; also one that never stood. */
    int (*resume)(void *opaque, struct error *err);
    void *opaque;
};

enum migrate_postcopy {
    MIGRATE_POSTCOPY_LAST, /* the target may run before the last dirty set is there (the default) */
    MIGRATE_POSTCOPY_EARLY, /* suspend at once; nearly everything follows */
    MIGRATE_POSTCOPY_OFF,   /* the target runs when it has everything */
};

struct migrate_send_options {
    const char *machine;    /* description for the target, JSON text (vmm_machine_format()) */
    const uint8_t *session; /* WIRE_SESSION_SIZE random bytes; NULL = the engine's own choice */
    const char *record;     /* path of the commit record; NULL = none is kept (embedders' choice) */
    enum migrate_postcopy postcopy;
    unsigned concurrency; /* threads that read, compress and send, 16 at most; 0 = one per
                             processor, 4 at most */
    int zstd_level;       /* 0 = no compression */
    uint64_t bandwidth;   /* bytes a second; 0 = no limit */
    uint64_t
        downtime_limit_ns; /* suspended longer than this without READY: resume here; 0 = none */
    uint64_t idle_ns;      /* a peer silent for longer is lost; 0 = 30 s */
    uint64_t answer_ns; /* a target that takes nothing and does not say what is due (ACCEPT, READY,
                           RUNNING, DONE) for so long is given up, alive as it may be; 0 = none */
    uint64_t retake_ns; /* after a commit: how long to wait for the target to come back; 0 = 60 s */
    /* Waits for the target to connect anew after a lost link; NULL result = give up. May be NULL.
     */
    struct stream *(*reconnect)(void *opaque, uint64_t timeout_ns, struct error *err);
    /* Called once for each device with share_base and no base_digest: the SHA-256 of its base. May
     * take as long as it takes to read it: the target has been greeted and hears that we live.
     * Returns 1, 0 when the base cannot be shared after all, or -1. NULL: as its source says. */
    int (*prove_base)(void *opaque, size_t device, uint8_t ret_digest[32], struct error *err);
    void *opaque;
    const struct migrate_watch *watch; /* may be NULL */
};

/* Moves the machine to whoever is at the other end of the stream, which is owned from here on.
 * Cancelling ctx before the commit rolls back; after it, it ends the wait (IN_DOUBT). The last look
 * before it follows the watch's call for MIGRATE_COMMIT, which may keep later ones away. ret_result
 * (may be NULL) is filled in every case. Returns 0 with MOVED or COPIED, else -1: err says why, the
 * outcome where the machine is. */
int migrate_send(struct stream *stream, const struct migrate_device *devices, size_t n,
                 const struct migrate_machine *machine, const struct migrate_send_options *options,
                 const struct context *ctx, struct migrate_result *ret_result, struct error *err);

/* ---- who it is that comes ---- */

/* Reads a target's greeting and puts it back, for migrate_send(). ret_session: of the migration
 * that it takes up again; of a new one: migrate_is_new(). Returns 0, or -1: it is no target of
 * ours. */
int migrate_peek(struct stream *stream, const struct context *ctx,
                 uint8_t ret_session[WIRE_SESSION_SIZE], struct error *err);
bool migrate_is_new(const uint8_t session[WIRE_SESSION_SIZE]);

/* Turns a target away that comes to take up a migration which is not under way; the stream is owned
 * from here on. session: that migration's, of which we know that it is over, and the target will
 * believe it: takes up to 2 s. NULL: we know nothing of it, and the target goes on looking. */
void migrate_turn_away(struct stream *stream, const uint8_t session[WIRE_SESSION_SIZE],
                       const char *reason, const struct context *ctx);

/* ---- the commit record ---- */

enum migrate_record_state {
    MIGRATE_RECORD_NONE,      /* no record, or one of a migration that never committed */
    MIGRATE_RECORD_COMMITTED, /* the machine may be running elsewhere: do not start it */
    MIGRATE_RECORD_MOVED,     /* it is running elsewhere */
};

/* Reads a record; an absent file is NONE. *ret_peer (WIRE_REASON_MAX + 1 bytes) gets where it went.
 */
int migrate_record_read(const char *path, enum migrate_record_state *ret_state, char *ret_peer,
                        struct error *err);

/* A person's word that the target does not run the machine: removes a record, whatever it says. */
int migrate_take_back(const char *path, struct error *err);

/* ---- target ---- */

/* How the target makes room for a machine and runs it. All return 0 or -1. */
struct migrate_host {
    /* Makes the devices that were offered. Each gets a stack with the filter "pull" in it, made by
     * pull_open() with pull[i] (block size and request function are the engine's), every page
     * absent; pulls[i] is that filter (set also for those
     * made before a failure). sizes agree with what was offered. shares_base[i] is set to
     * 1 when offered[i].flags has DEVICE_BASE and the device lies on a base proved to have that
     * digest, readable below the pull filter. The stacks stay the host's, which closes them after
     * the engine has returned. machine: the description, which the host checks. */
    int (*offer)(void *opaque, const struct wire_device *offered, size_t n, const char *machine,
                 size_t machine_len, const struct pull_options *pull, struct pull **pulls,
                 uint8_t *shares_base, struct error *err);
    /* Loads the state; the machine stands paused and can run when this returns. It may read
     * devices. Returns 1 when it has read all it wants, and the machine is to run on at the source:
     * a copy was taken (MIGRATE_COPIED). */
    int (*load)(void *opaque, const uint8_t *state, size_t len, struct error *err);
    /* Runs it. Called once, after the source has committed; failing here leaves the machine with
     * its loaded state and the error with a person. */
    int (*run)(void *opaque, struct error *err);
    /* Destroys what was made: the machine never ran here and never will. */
    void (*discard)(void *opaque);
    void *opaque;
};

struct migrate_receive_options {
    bool postcopy_off;  /* run only when everything is here */
    uint64_t idle_ns;   /* as the source's */
    uint64_t retake_ns; /* how long to try to reach the source again after a lost link; 0 = 60 s */
    /* Connects anew; NULL result = not now (it is called again until retake_ns is over). May be
     * NULL. */
    struct stream *(*reconnect)(void *opaque, struct error *err);
    /* The machine runs here now; called once, from a thread of the engine. May be NULL. */
    void (*running)(void *opaque);
    void *opaque;
    const struct migrate_watch *watch; /* may be NULL */
};

/* Takes a machine in from the stream, which is owned from here on; returns 0 when all its data is
 * here (MOVED, COPIED), or with -1: ROLLED_BACK after discard(), IN_DOUBT when it runs here without
 * all its data. Cancelling ctx before the commit discards; after it, it ends IN_DOUBT, and the
 * watch's call for MIGRATE_COMMIT comes before the last look as in migrate_send(). */
int migrate_receive(struct stream *stream, const struct migrate_host *host,
                    const struct migrate_receive_options *options, const struct context *ctx,
                    struct migrate_result *ret_result, struct error *err);

#endif
