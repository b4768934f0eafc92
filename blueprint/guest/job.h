/* SPDX-License-Identifier: Apache-2.0 */
/* job.h - one command the agent runs for a call of its host
 *
 * The command's stdout and stderr come through one pipe: they are copied to our stderr, and their
 * end is kept for the error text. A command ends when its shell does; a background process it
 * leaves behind may hold the pipe open, so the pipe is read on until it closes.
 */
#ifndef BLUEPRINT_GUEST_JOB_H
#define BLUEPRINT_GUEST_JOB_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "runtime/base/error.h"
#include "runtime/wire/rpc.h"

#define JOB_TAIL 800 /* bytes of output that an error text carries */

struct job {
    bool used;
    uint64_t link;    /* number of the link the call came through */
    const char *what; /* "before-suspend" or "after-resume" */
    bool suspend;     /* which of the two */
    char call[RPC_CALL_MAX + 1];
    pid_t pid;
    int pidfd; /* -1: it has ended and was answered, only its output is still read */
    int out;   /* -1: closed */
    size_t tail_len;
    char tail[JOB_TAIL + 1];
};

/* Starts SHELL -c COMMAND. Returns 0. */
int job_start(struct job *job, const char *what, const char *shell, const char *command,
              struct error *err);

/* Takes what output there is, without waiting; closes job->out at its end. */
void job_output(struct job *job);

/* Once pidfd is readable: reaps the command. Returns 0 when it succeeded, -1 with its status and
 * the end of its output in *err. */
int job_finish(struct job *job, struct error *err);

/* Kills what runs and frees everything. */
void job_drop(struct job *job);

#endif
