// SPDX-License-Identifier: Apache-2.0
/* process.c - the process that holds a machine: start, console, end */
#include "runtime/vmm/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>

#include "runtime/base/io.h"
#include "runtime/base/spawn.h"
#include "runtime/vmm/child.h"
#include "runtime/vmm/driver.h"

#define LAST_WORDS 4096
#define CHUNK 4096 /* POLLOUT of a pipe promises PIPE_BUF (4096) bytes, pipe(7) */
#define LINE_MAX_BYTES 512
#define EXIT_DRAIN_MS 500 /* for output of a child that has ended, should its pipe stay open */

/* Bytes on their way from one fd to another. */
struct flow {
    char buf[CHUNK];
    size_t off, len;
};

struct vmm_process {
    pthread_t keeper;
    bool has_keeper;
    pid_t pid;
    int pidfd, exit_fd;
    int in_w, out_r, err_r;      /* our ends; the keeper's alone once it runs */
    int console_in, console_out; /* the caller's; the keeper sets them to -1 when they fail */
    int watch_w;                 /* the watchdog reads the other end */
    pid_t watchdog;
    char *name;
    const struct log *log;
    struct flow out, in;
    char line[LINE_MAX_BYTES]; /* of stderr, so far; the keeper's alone */
    size_t line_len;

    pthread_mutex_t lock; /* guards all below; a leaf */
    pthread_cond_t started;
    int start_state; /* 0 = under way, 1 = runs, -1 = failed (start_error) */
    struct error start_error;
    bool asked, exited, reaped;
    int status;
    char words[LAST_WORDS];
    size_t words_len;

    const struct process_options *opt; /* of process_start(), valid until start_state is set */
};

uint64_t vmm_now(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* ---- The keeper --------------------------------------------------------------------------- */

static void remember(struct vmm_process *p, const char *data, size_t n)
{
    lock_scope(&p->lock);
    if (n >= LAST_WORDS) {
        memcpy(p->words, data + n - LAST_WORDS, LAST_WORDS);
        p->words_len = LAST_WORDS;
        return;
    }
    size_t drop = p->words_len + n > LAST_WORDS ? p->words_len + n - LAST_WORDS : 0;
    memmove(p->words, p->words + drop, p->words_len - drop);
    memcpy(p->words + p->words_len - drop, data, n);
    p->words_len += n - drop;
}

/* Error output goes to the log by lines; an overlong line is cut into several. */
static void log_lines(struct vmm_process *p, const char *data, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (data[i] != '\n' && p->line_len < sizeof(p->line) - 1) {
            p->line[p->line_len++] = data[i];
            continue;
        }
        p->line[p->line_len] = '\0';
        if (p->line_len > 0)
            log_warn(p->log, "Hypervisor message", log_str("program", p->name),
                     log_str("text", p->line));
        p->line_len = 0;
        if (data[i] != '\n')
            p->line[p->line_len++] = data[i];
    }
}

/* Reads once. Returns false at the end of the stream. */
static bool take(int fd, char *buf, size_t size, size_t *ret_n)
{
    ssize_t n;

    do
        n = read(fd, buf, size);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        n = 0;
    else if (n <= 0)
        return false;
    *ret_n = (size_t)n;
    return true;
}

/* Writes what is left of a flow once. Returns false when fd takes no more for good. */
static bool give(int fd, struct flow *f)
{
    ssize_t n;

    do
        n = write(fd, f->buf + f->off, f->len - f->off);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno != EAGAIN)
        return false;
    if (n > 0)
        f->off += (size_t)n;
    if (f->off == f->len)
        f->off = f->len = 0;
    return true;
}

static void step_out(struct vmm_process *p)
{
    size_t n;

    if (!take(p->out_r, p->out.buf, CHUNK, &n)) {
        cleanup_close_p(&p->out_r);
        return;
    }
    remember(p, p->out.buf, n);
    if (p->console_out >= 0) {
        p->out.off = 0;
        p->out.len = n;
    }
}

static void step_err(struct vmm_process *p)
{
    char buf[CHUNK];
    size_t n;

    if (!take(p->err_r, buf, sizeof(buf), &n)) {
        cleanup_close_p(&p->err_r);
        return;
    }
    remember(p, buf, n);
    log_lines(p, buf, n);
}

static void step_in(struct vmm_process *p)
{
    size_t n;

    if (!take(p->console_in, p->in.buf, CHUNK, &n)) {
        p->console_in = -1; /* the guest's console stays open: it may get no more input */
        return;
    }
    p->in.off = 0;
    p->in.len = n;
}

/* One round of the keeper while the child lives, or (ended) while its pipes hold bytes. */
static int keeper_round(struct vmm_process *p, bool ended)
{
    enum { PID, OUT, ERR, IN, TO_CHILD, TO_CONSOLE, N };
    struct pollfd fds[N] = {
        [PID] = {.fd = ended ? -1 : p->pidfd, .events = POLLIN},
        [OUT] = {.fd = p->out.len == 0 ? p->out_r : -1, .events = POLLIN},
        [ERR] = {.fd = p->err_r, .events = POLLIN},
        [IN] = {.fd = p->in.len == 0 && !ended ? p->console_in : -1, .events = POLLIN},
        [TO_CHILD] = {.fd = p->in.len > 0 && !ended ? p->in_w : -1, .events = POLLOUT},
        [TO_CONSOLE] = {.fd = p->out.len > 0 ? p->console_out : -1, .events = POLLOUT},
    };
    int n;

    while ((n = poll(fds, N, ended ? EXIT_DRAIN_MS : -1)) < 0 && errno == EINTR)
        ;
    if (n == 0 && p->out.len > 0) {
        /* A console that takes nothing must not keep us from the last words. */
        p->console_out = -1;
        p->out.len = p->out.off = 0;
        return 0;
    }
    if (n <= 0)
        return -1;
    if (fds[TO_CONSOLE].revents && !give(p->console_out, &p->out)) {
        p->console_out = -1;
        p->out.len = p->out.off = 0;
    }
    if (fds[TO_CHILD].revents && !give(p->in_w, &p->in)) {
        p->console_in = -1;
        p->in.len = p->in.off = 0;
    }
    if (fds[OUT].revents && p->out.len == 0)
        step_out(p);
    if (fds[ERR].revents)
        step_err(p);
    if (fds[IN].revents && p->in.len == 0)
        step_in(p);
    return fds[PID].revents ? 1 : 0;
}

static void keeper_end(struct vmm_process *p)
{
    const uint64_t one = 1;
    int status = 0;

    while ((p->out_r >= 0 || p->err_r >= 0 || p->out.len > 0) && keeper_round(p, true) >= 0)
        ;
    if (p->line_len > 0)
        log_lines(p, "\n", 1);
    {
        lock_scope(&p->lock); /* process_kill() must not meet a pid that is free again */
        while (waitpid(p->pid, &status, 0) < 0 && errno == EINTR)
            ;
        p->status = status;
        p->reaped = true;
        p->exited = true;
    }
    ssize_t n = write(p->exit_fd, &one, sizeof(one));
    (void)n;
}

static int keeper_start(struct vmm_process *p, struct error *err)
{
    const struct process_options *o = p->opt;
    int in[2], out[2], errp[2];
    cleanup_child_setup struct child_setup setup = {0};
    cleanup_close int in_r = -1, out_w = -1, err_w = -1;

    if (child_setup_init(&setup, o, err) < 0)
        return -1;
    if (pipe2(in, O_CLOEXEC) < 0)
        return error_sys(err, "pipe");
    p->in_w = in[1];
    in_r = in[0];
    if (pipe2(out, O_CLOEXEC) < 0)
        return error_sys(err, "pipe");
    p->out_r = out[0];
    out_w = out[1];
    if (pipe2(errp, O_CLOEXEC) < 0)
        return error_sys(err, "pipe");
    p->err_r = errp[0];
    err_w = errp[1];
    if (fcntl(p->in_w, F_SETFL, O_NONBLOCK) < 0 || fcntl(p->out_r, F_SETFL, O_NONBLOCK) < 0 ||
        fcntl(p->err_r, F_SETFL, O_NONBLOCK) < 0)
        return error_sys(err, "fcntl");
    struct spawn_options so = {
        .argv = o->argv,
        .stdin_fd = in_r,
        .stdout_fd = out_w,
        .stderr_fd = err_w,
        .keep_fds = o->keep_fds,
        .n_keep_fds = o->n_keep_fds,
        .new_group = true,
        .prepare = child_prepare,
        .opaque = &setup,
    };
    struct error cause = ERROR_INIT;
    if (spawn_start(&so, &p->pid, &p->pidfd, &cause) < 0) {
        const char *act = child_setup_failed(&setup);
        return act ? error_num(err, cause.code, "%s: cannot %s", o->argv[0], act)
                   : error_set(err, cause.code, "%s", cause.text);
    }
    return 0;
}

static void *keeper(void *opaque)
{
    struct vmm_process *p = opaque;
    struct error err = ERROR_INIT;
    sigset_t all;
    int rc = keeper_start(p, &err);
    bool child = rc == 0;

    sigfillset(&all); /* SIGPIPE too: a console that was closed is an error of write(2) */
    (void)pthread_sigmask(SIG_SETMASK, &all, NULL);
    if (rc == 0 && p->opt->watchdog)
        rc = watchdog_start(p->opt, p->pidfd, &p->watchdog, &p->watch_w, &err);
    if (rc < 0 && child) {
        (void)kill(p->pid, SIGKILL);
        (void)waitpid(p->pid, NULL, 0);
    }
    {
        lock_scope(&p->lock);
        p->opt = NULL;
        p->start_error = err;
        p->start_state = rc < 0 ? -1 : 1;
        (void)pthread_cond_signal(&p->started);
    }
    if (rc < 0)
        return NULL;
    while (keeper_round(p, false) == 0)
        ;
    keeper_end(p);
    return NULL;
}

/* ---- For vmm.c and the drivers ------------------------------------------------------------ */

struct vmm_process *process_start(const struct process_options *opt, struct error *err)
{
    struct vmm_process *p = calloc(1, sizeof(*p));

    if (!p) {
        error_oom(err);
        return NULL;
    }
    p->pidfd = p->exit_fd = p->in_w = p->out_r = p->err_r = p->watch_w = -1;
    p->console_in = opt->console_in;
    p->console_out = opt->console_out;
    p->log = opt->log;
    p->opt = opt;
    (void)pthread_mutex_init(&p->lock, NULL);
    (void)pthread_cond_init(&p->started, NULL);
    p->exit_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    const char *base = strrchr(opt->argv[0], '/');
    p->name = strdup(base ? base + 1 : opt->argv[0]);
    if (p->exit_fd < 0) {
        error_sys(err, "eventfd");
        process_free(p);
        return NULL;
    }
    if (!p->name) {
        error_oom(err);
        process_free(p);
        return NULL;
    }
    int rc = pthread_create(&p->keeper, NULL, keeper, p);
    if (rc != 0) {
        error_num(err, rc, "thread");
        process_free(p);
        return NULL;
    }
    p->has_keeper = true;
    bool failed;
    {
        lock_scope(&p->lock);
        while (p->start_state == 0)
            (void)pthread_cond_wait(&p->started, &p->lock);
        failed = p->start_state < 0;
        if (failed && err)
            *err = p->start_error;
    }
    if (failed) {
        p->pid = 0;
        process_free(p);
        return NULL;
    }
    return p;
}

void process_free(struct vmm_process *p)
{
    if (!p)
        return;
    if (p->pid > 0)
        process_kill(p);
    if (p->has_keeper)
        (void)pthread_join(p->keeper, NULL);
    int fds[] = {p->pidfd, p->exit_fd, p->in_w, p->out_r, p->err_r, p->watch_w};
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
        if (fds[i] >= 0)
            (void)close(fds[i]);
    if (p->watchdog > 0) /* its pipe is closed: it ends */
        while (waitpid(p->watchdog, NULL, 0) < 0 && errno == EINTR)
            ;
    (void)pthread_cond_destroy(&p->started);
    (void)pthread_mutex_destroy(&p->lock);
    free(p->name);
    free(p);
}

pid_t process_pid(const struct vmm_process *p)
{
    return p->pid;
}

int process_exit_fd(const struct vmm_process *p)
{
    return p->exit_fd;
}

bool process_exited(const struct vmm_process *p)
{
    lock_scope((pthread_mutex_t *)&p->lock);
    return p->exited;
}

void process_kill(struct vmm_process *p)
{
    lock_scope(&p->lock);
    if (p->reaped)
        return;
    p->asked = true;
    (void)kill(p->pid, SIGKILL);
}

int process_wait(struct vmm_process *p, uint64_t deadline, const struct context *ctx,
                 struct error *err)
{
    struct pollfd fds[2] = {
        {.fd = p->exit_fd, .events = POLLIN},
        {.fd = ctx && ctx->cancel ? ctx->cancel->fd : -1, .events = POLLIN},
    };

    for (;;) {
        int timeout = -1;
        if (deadline != UINT64_MAX) {
            uint64_t now = vmm_now(), ms = deadline > now ? (deadline - now + 999999) / 1000000 : 0;
            timeout = ms > 3600000 ? 3600000 : (int)ms;
        }
        int n = poll(fds, 2, timeout);
        if (n < 0 && errno != EINTR)
            return error_sys(err, "%s: poll", p->name);
        if (n > 0 && fds[0].revents)
            return 0;
        if (n > 0 && fds[1].revents)
            return error_set(err, ECANCELED, "interrupted");
        if (n == 0 && deadline != UINT64_MAX && vmm_now() >= deadline)
            return error_set(err, ETIMEDOUT, "%s (pid %d): still runs", p->name, (int)p->pid);
    }
}

void process_last_words(struct vmm_process *p, char *buf, size_t size)
{
    char words[LAST_WORDS];
    size_t n, len = 0;
    bool gap = false, escape = false;

    {
        lock_scope(&p->lock);
        n = p->words_len;
        memcpy(words, p->words, n);
    }
    size_t start = n > size - 1 ? n - (size - 1) : 0;
    for (size_t i = start; i < n && len + 3 < size; i++) {
        unsigned char c = (unsigned char)words[i];
        if (escape) { /* CSI sequence (ECMA-48): ends at a byte 0x40..0x7e but for its '[' */
            escape = !(c >= 0x40 && c <= 0x7e && c != '[');
        } else if (c == 0x1b) {
            escape = true;
        } else if (c == '\n' || c == '\r') {
            gap = len > 0;
        } else if (c >= 0x20 && c < 0x7f) {
            if (gap) {
                buf[len++] = ';';
                buf[len++] = ' ';
                gap = false;
            }
            if (len + 1 < size)
                buf[len++] = (char)c;
        }
    }
    buf[len] = '\0';
}

void process_exit(const struct vmm_process *p, struct vmm_exit *ret_exit)
{
    struct vmm_process *mut = (struct vmm_process *)p; /* for its lock */
    char how[64];

    memset(ret_exit, 0, sizeof(*ret_exit));
    {
        lock_scope(&mut->lock);
        ret_exit->asked = p->asked;
        ret_exit->status = p->status;
    }
    ret_exit->clean = WIFEXITED(ret_exit->status) && WEXITSTATUS(ret_exit->status) == 0;
    (void)snprintf(ret_exit->text, sizeof(ret_exit->text), "%.200s (pid %d): %s", p->name,
                   (int)p->pid, spawn_describe(ret_exit->status, how, sizeof(how)));
    process_last_words(mut, ret_exit->console, sizeof(ret_exit->console));
}
