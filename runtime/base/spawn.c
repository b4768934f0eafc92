// SPDX-License-Identifier: Apache-2.0
/* spawn.c - child processes */
#include "runtime/base/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/close_range.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/io.h"

#define STDERR_TAIL 800
#define TERM_GRACE_MS 5000

extern char **environ;

/* What the child reports through the exec pipe: where it failed, and why. */
struct child_failure {
    int step; /* index into step_names */
    int errnum;
};

static const char *const step_names[] = {"exec", "prepare", "set up descriptors"};

/* Our environment with the additions behind it; a later "K=V" must win, so ours go without K. */
static char **merge_env(const char *const *add)
{
    size_t n = 0, m = 0;
    while (environ && environ[n])
        n++;
    while (add && add[m])
        m++;
    char **env = calloc(n + m + 1, sizeof(*env));
    if (!env)
        return NULL;
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        bool replaced = false;
        for (size_t j = 0; j < m && !replaced; j++) {
            size_t len = strcspn(add[j], "=");
            replaced = strncmp(environ[i], add[j], len) == 0 && environ[i][len] == '=';
        }
        if (!replaced)
            env[k++] = environ[i];
    }
    for (size_t j = 0; j < m; j++)
        env[k++] = (char *)add[j];
    return env;
}

static _Noreturn void child_fail(int report, int step, int errnum)
{
    struct child_failure f = {.step = step, .errnum = errnum};
    ssize_t n = write(report, &f, sizeof(f));
    (void)n;
    _exit(127);
}

/* Marks all descriptors but 0..2 close-on-exec. Guests with kernels before 5.11 run this too: there
 * the limit of descriptors says how far to go. Called directly because musl has no close_range().
 */
static int mark_cloexec(void)
{
    struct rlimit rl;

    if (syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC) == 0)
        return 0;
    if ((errno != ENOSYS && errno != EINVAL) || getrlimit(RLIMIT_NOFILE, &rl) < 0)
        return -1;
    for (int fd = 3; (rlim_t)fd < rl.rlim_cur; fd++)
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC); /* EBADF where there is none */
    return 0;
}

/* Runs in the child: descriptors, signals, exec. Async-signal-safe calls only. */
static _Noreturn void child_main(const struct spawn_options *opt, char **env, int report,
                                 pid_t parent)
{
    const int std[3] = {opt->stdin_fd, opt->stdout_fd,
                        opt->stderr_fd < 0 ? STDERR_FILENO : opt->stderr_fd};
    int moved[3];
    sigset_t none;

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
        child_fail(report, 2, ESRCH);
    if (opt->new_group)
        (void)setpgid(0, 0);
    for (int sig = 1; sig < NSIG; sig++)
        (void)signal(sig, SIG_DFL);
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);

    /* Away from 0..2 first, so that no dup2 overwrites a source of another. */
    for (int i = 0; i < 3; i++) {
        int fd = std[i] < 0 ? open("/dev/null", O_RDWR | O_CLOEXEC) : std[i];
        moved[i] = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (moved[i] < 0)
            child_fail(report, 2, errno);
    }
    for (int i = 0; i < 3; i++)
        if (dup2(moved[i], i) < 0)
            child_fail(report, 2, errno);
    if (mark_cloexec() < 0)
        child_fail(report, 2, errno);
    for (size_t i = 0; i < opt->n_keep_fds; i++)
        if (fcntl(opt->keep_fds[i], F_SETFD, 0) < 0)
            child_fail(report, 2, errno);
    int rc = opt->prepare ? opt->prepare(opt->opaque) : 0;
    if (rc != 0)
        child_fail(report, 1, rc);
    /* A change of credentials in prepare() resets the death signal. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
        child_fail(report, 2, ESRCH);
    execvpe(opt->argv[0], (char *const *)opt->argv, env);
    child_fail(report, 0, errno);
}

int spawn_start(const struct spawn_options *opt, pid_t *ret_pid, int *ret_pidfd, struct error *err)
{
    int pipefd[2];
    if (pipe2(pipefd, O_CLOEXEC) < 0)
        return error_sys(err, "%s: pipe", opt->argv[0]);
    cleanup_close int report = pipefd[0];
    cleanup_close int report_w = pipefd[1];
    cleanup_free char **env = merge_env(opt->env);
    if (!env)
        return error_oom(err);
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid < 0)
        return error_sys(err, "%s: fork", opt->argv[0]);
    if (pid == 0)
        child_main(opt, env, report_w, parent);
    cleanup_close_p(&report_w);

    struct child_failure f;
    ssize_t n = io_read(report, &f, sizeof(f), opt->argv[0], err);
    if (n != 0) {
        (void)waitpid(pid, NULL, 0);
        if (n != sizeof(f))
            return error_set(err, EIO, "%s: lost while it started", opt->argv[0]);
        return error_num(err, f.errnum, "%s: %s", opt->argv[0], step_names[f.step]);
    }
    if (ret_pidfd) {
        int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        if (pidfd < 0) {
            error_sys(err, "%s: pidfd_open", opt->argv[0]);
            (void)kill(pid, SIGKILL);
            (void)waitpid(pid, NULL, 0);
            return -1;
        }
        *ret_pidfd = pidfd;
    }
    *ret_pid = pid;
    return 0;
}

static int reap(pid_t pid, int *ret_status, struct error *err)
{
    int status;

    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return error_sys(err, "wait for process %d", (int)pid);
    if (ret_status)
        *ret_status = status;
    return 0;
}

int spawn_wait(pid_t pid, const struct context *ctx, int *ret_status, struct error *err)
{
    struct cancel *cancel = ctx ? ctx->cancel : NULL;

    if (!cancel || cancel->fd < 0)
        return reap(pid, ret_status, err);
    cleanup_close int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0)
        return error_sys(err, "pidfd_open for process %d", (int)pid);
    struct pollfd fds[2] = {{.fd = pidfd, .events = POLLIN}, {.fd = cancel->fd, .events = POLLIN}};
    while (poll(fds, 2, -1) < 0)
        if (errno != EINTR)
            return error_sys(err, "poll for process %d", (int)pid);
    if (fds[0].revents)
        return reap(pid, ret_status, err);
    (void)kill(pid, SIGTERM);
    int rc;
    while ((rc = poll(fds, 1, TERM_GRACE_MS)) < 0 && errno == EINTR)
        ;
    if (rc == 0)
        (void)kill(pid, SIGKILL);
    (void)reap(pid, NULL, NULL);
    return error_set(err, ECANCELED, "interrupted");
}

const char *spawn_describe(int status, char *buf, size_t size)
{
    if (WIFEXITED(status))
        (void)snprintf(buf, size, "exit status %d", WEXITSTATUS(status));
    else if (WIFSIGNALED(status))
        (void)snprintf(buf, size, "killed by signal %d (%s)", WTERMSIG(status),
                       strsignal(WTERMSIG(status)));
    else
        (void)snprintf(buf, size, "wait status %#x", (unsigned)status);
    return buf;
}

/* Both captured streams of spawn_run(). */
struct capture {
    char *out;
    size_t out_len, limit;
    char tail[STDERR_TAIL + 1];
    size_t tail_len;
};

static int take_stdout(struct capture *c, const char *data, size_t n, const char *name,
                       struct error *err)
{
    if (n > c->limit - c->out_len)
        return error_set(err, EFBIG, "%s: printed more than %zu bytes", name, c->limit);
    char *p = realloc(c->out, c->out_len + n + 1);
    if (!p)
        return error_oom(err);
    memcpy(p + c->out_len, data, n);
    c->out = p;
    c->out_len += n;
    p[c->out_len] = '\0';
    return 0;
}

static void take_stderr(struct capture *c, const char *data, size_t n)
{
    if (n >= STDERR_TAIL) {
        memcpy(c->tail, data + n - STDERR_TAIL, STDERR_TAIL);
        c->tail_len = STDERR_TAIL;
    } else {
        size_t drop = c->tail_len + n > STDERR_TAIL ? c->tail_len + n - STDERR_TAIL : 0;
        memmove(c->tail, c->tail + drop, c->tail_len - drop);
        memcpy(c->tail + c->tail_len - drop, data, n);
        c->tail_len += n - drop;
    }
    c->tail[c->tail_len] = '\0';
}

/* Reads both pipes to their ends. fds[0] is stdout (or -1), fds[1] stderr. */
static int drain(int fds[2], struct capture *c, const struct context *ctx, const char *name,
                 struct error *err)
{
    char buf[16384];
    struct pollfd p[3] = {{.fd = fds[0], .events = POLLIN},
                          {.fd = fds[1], .events = POLLIN},
                          {.fd = ctx && ctx->cancel ? ctx->cancel->fd : -1, .events = POLLIN}};

    while (p[0].fd >= 0 || p[1].fd >= 0) {
        if (poll(p, 3, -1) < 0) {
            if (errno == EINTR)
                continue;
            return error_sys(err, "%s: poll", name);
        }
        if (p[2].revents)
            return 0; /* spawn_wait() sees the request and ends the child. */
        for (int i = 0; i < 2; i++) {
            if (p[i].fd < 0 || !p[i].revents)
                continue;
            ssize_t n = read(p[i].fd, buf, sizeof(buf));
            if (n < 0 && errno == EINTR)
                continue;
            if (n <= 0)
                p[i].fd = -1;
            else if (i == 1)
                take_stderr(c, buf, (size_t)n);
            else if (take_stdout(c, buf, (size_t)n, name, err) < 0)
                return -1;
        }
    }
    return 0;
}

/* The tail as one line for an error text: newlines to "; ", no trailing ones. */
static void flatten(struct capture *c)
{
    while (c->tail_len > 0 && (c->tail[c->tail_len - 1] == '\n' || c->tail[c->tail_len - 1] == ' '))
        c->tail[--c->tail_len] = '\0';
    for (size_t i = 0; i < c->tail_len; i++)
        if (c->tail[i] == '\n')
            c->tail[i] = ';';
        else if ((unsigned char)c->tail[i] < 0x20)
            c->tail[i] = ' ';
}

int spawn_run(const struct spawn_options *opt, const struct context *ctx, size_t limit,
              char **ret_stdout, struct error *err)
{
    struct spawn_options o = *opt;
    int out[2] = {-1, -1}, errp[2];
    cleanup_free char *captured = NULL;
    struct capture c = {.limit = limit};
    char text[64];

    if (pipe2(errp, O_CLOEXEC) < 0)
        return error_sys(err, "%s: pipe", opt->argv[0]);
    cleanup_close int err_r = errp[0], err_w = errp[1];
    if (ret_stdout && pipe2(out, O_CLOEXEC) < 0)
        return error_sys(err, "%s: pipe", opt->argv[0]);
    cleanup_close int out_r = out[0], out_w = out[1];
    if (ret_stdout)
        o.stdout_fd = out_w;
    o.stderr_fd = err_w;

    pid_t pid;
    if (spawn_start(&o, &pid, NULL, err) < 0)
        return -1;
    cleanup_close_p(&out_w);
    cleanup_close_p(&err_w);
    int status = 0;
    int fds[2] = {out_r, err_r};
    int rc = drain(fds, &c, ctx, opt->argv[0], err);
    captured = c.out;
    if (rc < 0) {
        (void)kill(pid, SIGKILL);
        (void)spawn_wait(pid, NULL, NULL, NULL);
        return -1;
    }
    if (spawn_wait(pid, ctx, &status, err) < 0)
        return error_wrap(err, "%s", opt->argv[0]);
    if (status != 0) {
        flatten(&c);
        return error_set(err, EIO, "%s: %s%s%s", opt->argv[0],
                         spawn_describe(status, text, sizeof(text)), c.tail_len ? ": " : "",
                         c.tail);
    }
    if (ret_stdout) {
        if (!captured && !(captured = calloc(1, 1)))
            return error_oom(err);
        *ret_stdout = steal_ptr(&captured);
    }
    return 0;
}
