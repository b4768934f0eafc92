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

/* told: NULL when the host told nothing. dry: only log what would be done, for tests on a host. */
void resume_apply(const struct rpc_resume *told, bool dry, const struct log *log);

#endif
