/* SPDX-License-Identifier: Apache-2.0 */
/* process.h - the process that holds a machine: start, console, end; not for outside this module
 *
 * Theory of operation: one thread, the keeper, forks the child, so that the child's parent death
 * signal is tied to a thread that lives as long as the child. It then moves bytes (the child's
 * stdout and stderr into a ring of last words and to the console's fd, the console's input to the
 * child), sees the child's end through its pidfd, reaps it, and makes exit_fd readable.
 *
 * The jailer changes its user before it executes the hypervisor, and the kernel clears the death
 * signal then (prctl(2)). For that case a watchdog process holds one end of a pipe: when we are
 * gone, however that came, it reads the end of file, kills the child through its pidfd and removes
 * its cgroups.
 */
#ifndef RUNTIME_VMM_PROCESS_H
#define RUNTIME_VMM_PROCESS_H

#include "runtime/vmm/vmm.h"

#define PROCESS_FDS_MAX 8
#define PROCESS_CGROUPS_MAX 4

struct vmm_process;

struct process_options {
    const char *const *argv; /* NULL-terminated */
    const int *keep_fds;     /* the child's, at the same numbers; still the caller's afterwards */
    size_t n_keep_fds;
    int dir_fd;     /* working directory; -1 = ours */
    int console_in; /* see vmm_options */
    int console_out;
    const struct log *log; /* the child's error output, a line a record; NULL = nowhere */

    /* What the child does to itself before it executes argv, in this order. */
    const int *cgroup_procs; /* fds of cgroup.procs files it enters */
    size_t n_cgroup_procs;
    int netns_fd;     /* -1 = none */
    const char *tap;  /* opens this tap device ... */
    int tap_fd;       /* ... at this number, which is one of keep_fds; -1 = none */
    int numa_node;    /* CPUs and memory; -1 = any */
    bool change_user; /* to uid, gid, with the groups below and no others */
    uid_t uid;
    gid_t gid;
    gid_t groups[2];
    size_t n_groups;
    bool small_faults; /* a fault reads no more than the file's read-ahead; see vmm_options */

    bool watchdog;                                /* see above */
    const char *cgroup_dirs[PROCESS_CGROUPS_MAX]; /* which the watchdog removes, inner first */
    size_t n_cgroup_dirs;
};

/* Starts the child; "not found", "no permission" are errors here. Returns NULL on failure. */
struct vmm_process *process_start(const struct process_options *opt, struct error *err);

/* Kills the child if it lives, waits, and frees. NULL is fine. */
void process_free(struct vmm_process *p);

pid_t process_pid(const struct vmm_process *p);

/* Readable (and staying so) when the child has ended and its output was read. */
int process_exit_fd(const struct vmm_process *p);
bool process_exited(const struct vmm_process *p);

/* SIGKILL; `asked` is then set in the exit. Does not wait. */
void process_kill(struct vmm_process *p);

/* Waits for the end until deadline (CLOCK_MONOTONIC ns, UINT64_MAX = none) or ctx's cancellation.
 * Returns 0, or -1 with ETIMEDOUT or ECANCELED. */
int process_wait(struct vmm_process *p, uint64_t deadline, const struct context *ctx,
                 struct error *err);

/* How it ended; only after process_exited(). */
void process_exit(const struct vmm_process *p, struct vmm_exit *ret_exit);

/* The last lines of output so far, cleaned: printable, lines joined with "; ". */
void process_last_words(struct vmm_process *p, char *buf, size_t size);

#endif
