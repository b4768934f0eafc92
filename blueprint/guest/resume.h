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

/* Clock and randomness, which the host waits for. told: NULL when the host told nothing. dry: do
 * nothing, for tests on a host. Warnings are logged at once. */
void resume_apply(const struct rpc_resume *told, bool dry, struct resume_done *ret,
                  const struct log *log);

/* Afterwards: logs what was done, and announces the addresses. dry: as above. */
void resume_finish(const struct resume_done *done, bool dry, const struct log *log);

#endif
