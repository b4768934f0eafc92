/* SPDX-License-Identifier: Apache-2.0 */
/* child.h - what a machine's process does to itself before it executes; for process.c only */
#ifndef RUNTIME_VMM_CHILD_H
#define RUNTIME_VMM_CHILD_H

#include <stdatomic.h>
#include <stdbool.h>

#include "runtime/base/cleanup.h"
#include "runtime/vmm/numa.h"
#include "runtime/vmm/process.h"

struct child_setup {
    const struct process_options *opt;
    _Atomic(int) *step; /* the child tells how far it came; shared, as an errno says too little */
    struct numa_node node;
    bool has_node;
};

/* Before the fork: reads the NUMA node, shares a page. opt must stay until child_setup_end().
 * Returns 0; child_setup_end() is due in either case. */
int child_setup_init(struct child_setup *s, const struct process_options *opt, struct error *err);
void child_setup_end(struct child_setup *s);

/* In the child; opaque is the struct child_setup. Async-signal-safe calls only. Returns 0 or an
 * errno value. */
int child_prepare(void *opaque);

/* After a start that failed: what the child could not do, as in "cannot %s"; NULL when it was not
 * child_prepare() that failed. */
const char *child_setup_failed(const struct child_setup *s);

/* Forks the watchdog (process.h) for the child behind pidfd. Its pid and the end of its pipe, which
 * it outlives by a moment, are the caller's: close the pipe, then wait. Returns 0. */
int watchdog_start(const struct process_options *opt, int pidfd, pid_t *ret_pid, int *ret_pipe,
                   struct error *err);

#define cleanup_child_setup CLEANUP(child_setup_end)

#endif
