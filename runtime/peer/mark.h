/* SPDX-License-Identifier: Apache-2.0 */
/* mark.h - whether a machine's files belong together
 *
 * Guest memory is written while the machine runs, its state only when it is suspended. So after a
 * crash memory and disks are newer than the state, and a machine made of them would be corrupt in
 * ways that show late. The mark, a small file beside the memory's, says so: it reads "running" from
 * before the machine first runs until after everything was flushed.
 *
 *     {"format": "drafter-machine", "version": 1, "status": "running", "boot": "the host's boot
 * id"}
 *
 * A sync takes as long as the rest of a resume, so it is done while the hypervisor starts:
 * "starting" is made durable then, and "running" follows it, right before the machine runs,
 * without. Read on the same boot, "starting" means that the machine did not run (MARK_STANDING); on
 * another one, that it may have (MARK_RUNNING).
 */
#ifndef RUNTIME_PEER_MARK_H
#define RUNTIME_PEER_MARK_H

#include <stdbool.h>

#include "runtime/base/error.h"

enum mark {
    MARK_NONE,     /* never started from here */
    MARK_STANDING, /* suspended: memory, state and disks belong together */
    MARK_STARTING, /* for mark_write() */
    MARK_RUNNING,  /* runs, or did when its peer died */
    MARK_ENDED,    /* the guest powered off: the disks are whole, memory and state are not */
};

/* An absent file is MARK_NONE; one that cannot be understood is an error. Returns 0. */
int mark_read(const char *path, enum mark *ret_mark, struct error *err);

/* Whole when this returns 0, for whoever looks after our end; `durable`: also for who looks after
 * the host's. */
int mark_write(const char *path, enum mark mark, bool durable, struct error *err);

#endif
