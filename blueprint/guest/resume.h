/* SPDX-License-Identifier: Apache-2.0 */
/* resume.h - what a machine that comes back from a snapshot must mend: clock, randomness,
 * neighbours
 *
 * Theory of operation: while a machine stands still its clock does, and every copy started from one
 * snapshot has the same state in its random pool. The host tells the time and fresh random bytes
 * in its AfterResume request (the extension in runtime/wire/rpc.h). A host of upstream's tells
 * nothing; then the time comes from the hypervisor's PTP clock (ptp_kvm) or the real-time clock,
 * and randomness from the virtio hardware generator, as far as the machine has them.
 *
 * Where it comes back may be another place: its addresses are announced on its links, so that
 * switches and neighbours find it at once (runtime/net/announce.h).
 *
 * How soon that is done is what a resume takes, and in a guest in emulation each first run through
 * a piece of code costs much of it. So what can be got ready is, before the machine is suspended:
 * resume_prepare(). Announcements and log lines come after the answer: resume_finish().
 *
 * Nothing here fails a resume: what could not be done is a warning in the log.
 */
#ifndef BLUEPRINT_GUEST_RESUME_H
#define BLUEPRINT_GUEST_RESUME_H

#include <stdbool.h>

#include "runtime/base/log.h"
#include "runtime/wire/rpc.h"

/* What was done, to be told later: to log a line takes a guest in emulation as long as the rest. */
struct resume_done {
    bool clock_set;
    const char *clock_source;
    int64_t clock_ms; /* how far it was moved, milliseconds */
    size_t entropy;   /* bytes that went into the random pool and are unknown to others */
    bool reseeded;    /* false: a warning said why */
};

/* What was got ready before a suspend. */
struct resume_ready {
    int urandom; /* /dev/urandom, open; -1 = not yet */
    bool first;  /* see resume_go_first() */
    int nice;    /* what our thread's nice value is otherwise */
};
#define RESUME_READY_INIT                                                                          \
    {                                                                                              \
        .urandom = -1                                                                              \
    }

/* Opens what resume_apply() needs and keeps our pages in memory: the first thing a machine does
 * when it comes back is not to wait for its disk. Any number of times; what cannot be had is done
 * without. dry: lock no memory, for tests on a host. */
void resume_prepare(struct resume_ready *ready, bool dry);

/* Has our thread run before other processes (setpriority(2)), or as it did. Every timer of the
 * guest that ran out while the machine stood still wakes somebody, and whoever runs first in a
 * guest in emulation has the others wait long. Where it is not allowed, nothing changes. Commands
 * inherit it: none may start meanwhile. Not a real-time class: what is sent is sent by the kernel's
 * ordinary threads. */
void resume_go_first(struct resume_ready *ready, bool first);

/* Closes what was opened. */
void resume_unprepare(struct resume_ready *ready);

/* Clock and randomness, which the host waits for. told: NULL when the host told nothing. dry: do
 * nothing, for tests on a host. Warnings are logged at once. */
void resume_apply(struct resume_ready *ready, const struct rpc_resume *told, bool dry,
                  struct resume_done *ret, const struct log *log);

/* Afterwards: logs what was done, and announces the addresses. dry: as above. */
void resume_finish(const struct resume_done *done, bool dry, const struct log *log);

#endif
