// SPDX-License-Identifier: Apache-2.0
/* start.c - keeps the application, the agent and the liveness ping of a guest going
 *
 * Started by the guest's init (blueprint/rootfs/overlay/etc/inittab). Order, as the host relies on
 * it: the application first; when it runs (or there is none), the agent, which is started again
 * whenever it ends; then the liveness ping, once, which tells the host that all is up.
 *
 * The application is the OCI runtime bundle at /oci-runtime-bundle, container "main" of crun. It is
 * made by "crun create" and let go by "crun start", so that the moment it runs is known; its first
 * process becomes a child of ours (PR_SET_CHILD_SUBREAPER), so that its end is known too. What it
 * prints arrives line by line on our stdout behind "main: ". When it ends it is started again, at
 * once the first time, later after pauses that grow to RESTART_PAUSE_MAX; one that ran for
 * RESTART_CALM seconds starts from the beginning.
 *
 * SIGTERM stops the application (SIGTERM, after STOP_SECONDS SIGKILL) and ends this program.
 * "drafter-start --stop" sends it and waits until that is done.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BUNDLE "/oci-runtime-bundle"
#define CONTAINER "main"
#define APP_PID_FILE "/run/drafter-app.pid"
#define OWN_PID_FILE "/run/drafter-start.pid"
#define AGENT "/usr/bin/drafter-agent"
#define LIVENESS "/usr/bin/drafter-liveness"
/* Arguments for both may stand here, one a line. */
#define AGENT_ARGS "/etc/drafter-agent.args"
#define LIVENESS_ARGS "/etc/drafter-liveness.args"
#define ARGS_MAX 32
#define ARGS_BYTES 8192

#define STOP_SECONDS 10
#define RESTART_PAUSE_MAX 10000 /* ms */
#define RESTART_CALM 30         /* s */
#define LINE_MAX_BYTES 2048     /* a longer line is passed on in pieces */

struct state {
    sigset_t old_mask;
    int signals;                /* signalfd */
    int output;                 /* what the application prints, -1 = closed */
    int output_in;              /* the end that the application gets */
    pid_t app, agent, liveness; /* 0 = not running */
    bool has_app, stopping, announced;
    int64_t app_started, app_again, agent_again; /* ms; again: 0 = not waiting */
    int app_pause, agent_pause;                  /* ms */
    int64_t kill_at;                             /* ms; while stopping */
    char line[LINE_MAX_BYTES + 8];
    size_t line_len;
};

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    dprintf(1, "drafter: %s\n", text);
}

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_BOOTTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static pid_t start(const struct state *s, const char *const *argv, int out)
{
    pid_t pid = fork();
    if (pid < 0)
        say("start %s: %s", argv[0], strerror(errno));
    if (pid)
        return pid < 0 ? 0 : pid;
    sigprocmask(SIG_SETMASK, &s->old_mask, NULL);
    setsid();
    /* The console's input is for the shell on it. */
    int null = open("/dev/null", O_RDONLY);
    if (null >= 0)
        dup2(null, 0);
    if (out >= 0) {
        dup2(out, 1);
        dup2(out, 2);
    }
    execv(argv[0], (char *const *)(uintptr_t)argv);
    dprintf(2, "drafter: run %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

/* Runs a command to its end. Only used where nothing else is waited for meanwhile. */
static int run(const struct state *s, const char *const *argv, int out)
{
    int status = 0;
    pid_t pid = start(s, argv, out);
    if (!pid)
        return -1;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static pid_t read_pid(const char *path)
{
    char text[32] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    long pid = n > 0 ? strtol(text, NULL, 10) : 0;
    return pid > 1 ? (pid_t)pid : 0;
}

static void flush_line(struct state *s)
{
    if (!s->line_len)
        return;
    if (s->line[s->line_len - 1] != '\n')
        s->line[s->line_len++] = '\n';
    dprintf(1, CONTAINER ": %.*s", (int)s->line_len, s->line);
    s->line_len = 0;
}

static void pass_output(struct state *s)
{
    char buf[4096];
    ssize_t n = read(s->output, buf, sizeof(buf));
    for (ssize_t i = 0; i < n; i++) {
        s->line[s->line_len++] = buf[i];
        if (buf[i] == '\n' || s->line_len == LINE_MAX_BYTES)
            flush_line(s);
    }
}

static void again_later(int64_t *again, int *pause)
{
    *again = now_ms() + *pause;
    *pause = *pause == 0 ? 100 : *pause * 2 > RESTART_PAUSE_MAX ? RESTART_PAUSE_MAX : *pause * 2;
}

static void start_app(struct state *s)
{
    static const char *const delete[] = {"/usr/bin/crun", "delete", "-f", CONTAINER, NULL};
    static const char *const create[] = {"/usr/bin/crun", "create",     "--bundle", BUNDLE,
                                         "--pid-file",    APP_PID_FILE, CONTAINER,  NULL};
    static const char *const go[] = {"/usr/bin/crun", "start", CONTAINER, NULL};

    s->app_again = 0;
    unlink(APP_PID_FILE);
    if (access("/run/crun/" CONTAINER, F_OK) == 0)
        run(s, delete, -1);
    if (run(s, create, s->output_in) == 0 && (s->app = read_pid(APP_PID_FILE)) &&
        run(s, go, s->output_in) == 0) {
        s->app_started = now_ms();
        return;
    }
    say("the application did not start, trying again");
    run(s, delete, -1);
    s->app = 0;
    again_later(&s->app_again, &s->app_pause);
}

/* Cuts a file of arguments, one a line ('#' starts a comment line), into argv after its program. */
static pid_t start_with_args(const struct state *s, const char *program, const char *file)
{
    char text[ARGS_BYTES] = "";
    const char *argv[ARGS_MAX + 2] = {program, NULL};
    size_t argc = 1;
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : 0;
    char *save = NULL;
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    for (char *l = strtok_r(text, "\n", &save); l && argc <= ARGS_MAX;
         l = strtok_r(NULL, "\n", &save))
        if (l[0] != '#')
            argv[argc++] = l;
    argv[argc] = NULL;
    return start(s, argv, -1);
}

static void start_agent(struct state *s)
{
    s->agent_again = 0;
    if (access(AGENT, X_OK) == 0)
        s->agent = start_with_args(s, AGENT, AGENT_ARGS);
}

static void announce(struct state *s)
{
    s->announced = true;
    start_agent(s);
    if (access(LIVENESS, X_OK) == 0)
        s->liveness = start_with_args(s, LIVENESS, LIVENESS_ARGS);
}

static void begin_stop(struct state *s)
{
    s->stopping = true;
    s->app_again = s->agent_again = 0;
    if (s->agent)
        kill(s->agent, SIGTERM);
    if (s->liveness)
        kill(s->liveness, SIGTERM);
    if (s->app)
        kill(s->app, SIGTERM);
    s->kill_at = now_ms() + STOP_SECONDS * 1000;
}

static void reap(struct state *s)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        if (pid == s->app) {
            s->app = 0;
            pass_output(s);
            flush_line(s);
            if (WIFSIGNALED(status))
                say("the application was ended by signal %d", WTERMSIG(status));
            else
                say("the application ended with status %d", WEXITSTATUS(status));
            if (now_ms() - s->app_started >= RESTART_CALM * 1000)
                s->app_pause = 0;
            if (!s->stopping)
                again_later(&s->app_again, &s->app_pause);
        } else if (pid == s->agent) {
            s->agent = 0;
            if (!s->stopping)
                again_later(&s->agent_again, &s->agent_pause);
        } else if (pid == s->liveness) {
            s->liveness = 0;
            if (!WIFEXITED(status) || WEXITSTATUS(status))
                say("the liveness ping did not reach the host");
        }
    }
}

static int until(int64_t when, int sooner)
{
    int64_t left = when ? when - now_ms() : -1;
    if (!when)
        return sooner;
    left = left < 0 ? 0 : left;
    return sooner < 0 || left < sooner ? (int)left : sooner;
}

static void loop(struct state *s)
{
    struct signalfd_siginfo info;
    while (!s->stopping || s->app) {
        struct pollfd p[2] = {{.fd = s->signals, .events = POLLIN},
                              {.fd = s->output, .events = POLLIN}};
        int timeout = until(s->app_again, until(s->agent_again, -1));
        if (s->stopping)
            timeout = until(s->kill_at, timeout);
        if (poll(p, 2, timeout) < 0 && errno != EINTR)
            break;
        if (p[1].revents & POLLIN)
            pass_output(s);
        if (p[0].revents & POLLIN && read(s->signals, &info, sizeof(info)) == sizeof(info) &&
            info.ssi_signo == SIGTERM && !s->stopping)
            begin_stop(s);
        reap(s);
        if (s->stopping && s->app && now_ms() >= s->kill_at)
            kill(s->app, SIGKILL);
        if (s->app_again && now_ms() >= s->app_again)
            start_app(s);
        if (s->agent_again && now_ms() >= s->agent_again)
            start_agent(s);
        if (!s->announced && !s->stopping && (s->app || !s->has_app))
            announce(s);
    }
}

static int stop_running(void)
{
    pid_t pid = read_pid(OWN_PID_FILE);
    int fd = pid ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    if (fd < 0 || syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0) < 0)
        return 0; /* it does not run: nothing is to be stopped */
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, (STOP_SECONDS + 5) * 1000) == 1 ? 0 : 1;
}

int main(int argc, char **argv)
{
    static struct state s;
    sigset_t mask;
    int ends[2];

    if (argc > 1 && !strcmp(argv[1], "--stop"))
        return stop_running();
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGCHLD);
    sigprocmask(SIG_BLOCK, &mask, &s.old_mask);
    s.signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    if (s.signals < 0 || pipe2(ends, O_CLOEXEC) < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1) < 0) {
        say("start: %s", strerror(errno));
        return 1;
    }
    /* What systemd gives its services: the kernel's own 4096 is too low for servers. */
    const struct rlimit files = {.rlim_cur = 1024, .rlim_max = 524288};
    (void)setrlimit(RLIMIT_NOFILE, &files);
    /* Both ends stay open here: the reading end never sees an end of file between two starts. */
    s.output = ends[0];
    s.output_in = ends[1];
    (void)fcntl(s.output, F_SETFL, O_NONBLOCK);
    int fd = open(OWN_PID_FILE, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd >= 0) {
        dprintf(fd, "%d\n", (int)getpid());
        close(fd);
    }
    s.has_app = access(BUNDLE "/config.json", F_OK) == 0;
    if (s.has_app)
        start_app(&s);
    if (!s.announced && (s.app || !s.has_app))
        announce(&s);
    loop(&s);
    return 0;
}
