/* SPDX-License-Identifier: Apache-2.0 */
/* spawn.h - child processes
 *
 * Children get an argument vector, never a shell; they die with their parent (PR_SET_PDEATHSIG:
 * start them from a thread that lives as long as they shall), have all signals unblocked and at
 * default, and inherit only the descriptors they are given.
 */
#ifndef RUNTIME_BASE_SPAWN_H
#define RUNTIME_BASE_SPAWN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "runtime/base/context.h"
#include "runtime/base/error.h"

struct spawn_options {
    const char *const *argv; /* NULL-terminated; argv[0] is looked up in PATH unless it has a '/' */
    const char *const *env;  /* NULL-terminated "K=V" list added to ours; NULL = nothing to add */
    int stdin_fd;            /* -1 = /dev/null */
    int stdout_fd;           /* -1 = /dev/null */
    int stderr_fd;           /* -1 = our stderr */
    const int *keep_fds;     /* further descriptors, at the same numbers in the child */
    size_t n_keep_fds;
    bool new_group; /* a process group of its own: Ctrl-C on the terminal does not reach it */
    /* Runs in the child between fork and exec, async-signal-safe code only (setns, setuid, ...);
     * returns 0, or an errno value that spawn_start() reports. NULL = nothing. */
    int (*prepare)(void *opaque);
    void *opaque;
};

/* Starts the child and waits until exec has succeeded: "not found" is an error here. ret_pidfd may
 * be NULL; else the caller owns it. The caller reaps the child: spawn_wait(). Returns 0. */
int spawn_start(const struct spawn_options *opt, pid_t *ret_pid, int *ret_pidfd, struct error *err);

/* Waits for the end. *ret_status (may be NULL) gets the wait status. With a ctx that is cancelled
 * the child gets SIGTERM, after 5 s SIGKILL, and the result is ECANCELED. Returns 0. */
int spawn_wait(pid_t pid, const struct context *ctx, int *ret_status, struct error *err);

/* Starts, waits, and demands exit status 0. The end of the child's stderr (up to 800 bytes) becomes
 * part of the error text. ret_stdout (may be NULL) gets the child's stdout, NUL-terminated, at most
 * `limit` bytes (more is an error); the caller frees it. opt's stdout_fd and stderr_fd are ignored
 * where captured. Returns 0. */
int spawn_run(const struct spawn_options *opt, const struct context *ctx, size_t limit,
              char **ret_stdout, struct error *err);

/* Describes a wait status: "exit status 3", "killed by signal 9 (Killed)". buf holds the text. */
const char *spawn_describe(int status, char *buf, size_t size);

#endif
