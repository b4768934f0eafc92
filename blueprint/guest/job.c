// SPDX-License-Identifier: Apache-2.0
/* job.c - one command the agent runs for a call of its host */
#include "blueprint/guest/job.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/spawn.h"

int job_start(struct job *job, const char *what, const char *shell, const char *command,
              struct error *err)
{
    const char *const argv[] = {shell, "-c", command, NULL};
    int pipefd[2];

    if (pipe2(pipefd, O_CLOEXEC) < 0)
        return error_sys(err, "%s command: pipe", what);
    cleanup_close int out = pipefd[0];
    cleanup_close int out_w = pipefd[1];
    if (fcntl(out, F_SETFL, O_NONBLOCK) < 0)
        return error_sys(err, "%s command: pipe", what);
    struct spawn_options so = {
        .argv = argv, .stdin_fd = -1, .stdout_fd = out_w, .stderr_fd = out_w};
    if (spawn_start(&so, &job->pid, &job->pidfd, err) < 0)
        return error_wrap(err, "%s command", what);
    job->used = true;
    job->what = what;
    job->out = steal_fd(&out);
    job->tail_len = 0;
    return 0;
}

static void keep_tail(struct job *job, const char *data, size_t n)
{
    if (n > JOB_TAIL) {
        data += n - JOB_TAIL;
        n = JOB_TAIL;
    }
    size_t drop = job->tail_len + n > JOB_TAIL ? job->tail_len + n - JOB_TAIL : 0;
    memmove(job->tail, job->tail + drop, job->tail_len - drop);
    memcpy(job->tail + job->tail_len - drop, data, n);
    job->tail_len += n - drop;
}

void job_output(struct job *job)
{
    char buf[4096];

    /* Bounded: a command that prints without end must not keep us from the link. */
    for (int i = 0; i < 16 && job->out >= 0; i++) {
        ssize_t n = read(job->out, buf, sizeof(buf));
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            cleanup_close_p(&job->out);
            return;
        }
        if (job->pidfd >= 0)
            keep_tail(job, buf, (size_t)n);
        /* Where our stderr goes is not the command's business: a failure is ignored. */
        ssize_t w = write(STDERR_FILENO, buf, (size_t)n);
        (void)w;
    }
}

/* The tail as one line: newlines to ';', other control characters to blanks. */
static void flatten(struct job *job)
{
    while (job->tail_len > 0 && strchr("\n\r\t ", job->tail[job->tail_len - 1]))
        job->tail_len--;
    for (size_t i = 0; i < job->tail_len; i++) {
        if (job->tail[i] == '\n')
            job->tail[i] = ';';
        else if ((unsigned char)job->tail[i] < ' ')
            job->tail[i] = ' ';
    }
    job->tail[job->tail_len] = '\0';
}

int job_finish(struct job *job, struct error *err)
{
    char text[64];
    int status = 0;

    job_output(job);
    cleanup_close_p(&job->pidfd);
    if (spawn_wait(job->pid, NULL, &status, err) < 0)
        return error_wrap(err, "%s command", job->what);
    if (status == 0)
        return 0;
    flatten(job);
    return error_set(err, EIO, "%s command: %s%s%s", job->what,
                     spawn_describe(status, text, sizeof(text)), job->tail_len ? ": " : "",
                     job->tail);
}

void job_drop(struct job *job)
{
    if (!job->used)
        return;
    if (job->pidfd >= 0) {
        (void)kill(job->pid, SIGKILL);
        (void)spawn_wait(job->pid, NULL, NULL, NULL);
    }
    cleanup_close_p(&job->pidfd);
    cleanup_close_p(&job->out);
    job->used = false;
}
