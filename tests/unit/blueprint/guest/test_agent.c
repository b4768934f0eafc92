// SPDX-License-Identifier: Apache-2.0
/* test_agent.c - the guest's agent, built like the tests, against a host made here and against our
 * own; and the static programs as they go into a guest; threads: yes */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "blueprint/guest/agent.h"
#include "runtime/base/spawn.h"
#include "runtime/guestlink/guestlink.h"
#include "runtime/wire/rpc.h"
#include "tests/lib/unit.h"

#define SEC UINT64_C(1000000000)
#define SOCKET "vsock.sock_26"

/* An agent in a thread. */
struct guest {
    pthread_t thread;
    struct cancel cancel;
    struct context ctx;
    struct agent_options opt;
    int rc;
};

static void *guest_thread(void *opaque)
{
    struct guest *g = opaque;

    g->rc = agent_run(&g->opt, &g->ctx, NULL);
    return NULL;
}

static void guest_start(struct guest *g, const char *before, const char *after)
{
    memset(g, 0, sizeof(*g));
    ck_assert_int_eq(cancel_init(&g->cancel, NULL), 0);
    g->ctx.cancel = &g->cancel;
    g->opt = (struct agent_options){.target = {.unix_path = SOCKET},
                                    .dial_timeout_ns = 60 * SEC,
                                    .shell = "sh",
                                    .before_suspend = before,
                                    .after_resume = after,
                                    .dry_resume = true};
    ck_assert_int_eq(pthread_create(&g->thread, NULL, guest_thread, g), 0);
}

static void guest_stop(struct guest *g)
{
    cancel_request(&g->cancel);
    ck_assert_int_eq(pthread_join(g->thread, NULL), 0);
    ck_assert_int_eq(g->rc, 0);
    cancel_destroy(&g->cancel);
}

static int host_listen(void)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX, .sun_path = SOCKET};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)unlink(SOCKET);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    ck_assert_int_eq(listen(fd, 8), 0);
    return fd;
}

static int host_accept(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    return fd;
}

static void put(int fd, const char *text)
{
    ck_assert_int_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* One message of the agent's; a newline alone is its heartbeat. */
static const char *get(int fd)
{
    static char line[8192];
    size_t len = 0;

    do {
        ck_assert_int_eq(read(fd, line + len, 1), 1);
        len += len > 0 || line[0] != '\n';
    } while (len == 0 || line[len - 1] != '\n');
    line[len] = '\0';
    return line;
}

#define ASK(id, function)                                                                          \
    "{\"request\":{\"call\":\"" id "\",\"function\":\"" function "\",\"args\":[]},"                \
    "\"response\":null}\n"
#define OK(id) "{\"request\":null,\"response\":{\"call\":\"" id "\",\"value\":null,\"err\":\"\"}}\n"

UNIT_TEST(answers_an_upstream_host)
{
    struct guest g;
    int l = host_listen();

    guest_start(&g, NULL, " \t");
    int fd = host_accept(l);
    put(fd, ASK("11111111-2222-3333-4444-555555555555", "BeforeSuspend"));
    ck_assert_str_eq(get(fd), OK("11111111-2222-3333-4444-555555555555"));
    put(fd, ASK("a", "AfterResume") ASK("b", "BeforeSuspend"));
    ck_assert_str_eq(get(fd), OK("a"));
    ck_assert_str_eq(get(fd), OK("b"));
    guest_stop(&g);
    close(fd);
    close(l);
}
END_TEST

UNIT_TEST(runs_the_right_command)
{
    struct guest g;
    int l = host_listen();

    guest_start(&g, "echo before >>ran", "echo after >>ran");
    int fd = host_accept(l);
    put(fd, ASK("a", "BeforeSuspend"));
    ck_assert_str_eq(get(fd), OK("a"));
    put(fd, ASK("b", "AfterResume"));
    ck_assert_str_eq(get(fd), OK("b"));
    guest_stop(&g);
    char text[64] = "";
    FILE *f = fopen("ran", "r");
    ck_assert_uint_eq(fread(text, 1, sizeof(text) - 1, f), 13);
    ck_assert_str_eq(text, "before\nafter\n");
    fclose(f);
    unlink("ran");
    close(fd);
    close(l);
}
END_TEST

UNIT_TEST(reports_failures)
{
    struct guest g;
    int l = host_listen();
    struct rpc_message m;

    guest_start(&g, "echo one; echo '<two>' >&2; exit 3",
                "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; kill -9 $$");
    int fd = host_accept(l);
    put(fd, ASK("a", "BeforeSuspend"));
    const char *line = get(fd);
    ck_assert_int_eq(rpc_decode(line, strlen(line), &m, NULL), 0);
    ck_assert_str_eq(m.error, "before-suspend command: exit status 3: one;<two>");
    put(fd, ASK("b", "AfterResume"));
    line = get(fd);
    ck_assert_int_eq(rpc_decode(line, strlen(line), &m, NULL), 0);
    ck_assert_ptr_nonnull(strstr(m.error, "after-resume command: killed by signal 9"));
    ck_assert_ptr_nonnull(strstr(m.error, ";line 2998;line 2999"));
    ck_assert_uint_lt(strlen(m.error), 1000);
    guest_stop(&g);

    guest_start(&g, "true", NULL);
    guest_stop(&g);
    close(fd);
    close(l);
}
END_TEST

UNIT_TEST(a_missing_shell_is_an_answer)
{
    struct guest g;
    int l = host_listen();
    struct rpc_message m;

    guest_start(&g, "true", NULL);
    guest_stop(&g);
    int fd = -1;
    memset(&g, 0, sizeof(g));
    ck_assert_int_eq(cancel_init(&g.cancel, NULL), 0);
    g.ctx.cancel = &g.cancel;
    g.opt = (struct agent_options){.target = {.unix_path = SOCKET},
                                   .dial_timeout_ns = SEC,
                                   .shell = "/no/such/shell",
                                   .before_suspend = "true",
                                   .dry_resume = true};
    close(l);
    l = host_listen();
    ck_assert_int_eq(pthread_create(&g.thread, NULL, guest_thread, &g), 0);
    fd = host_accept(l);
    put(fd, ASK("a", "BeforeSuspend"));
    const char *line = get(fd);
    ck_assert_int_eq(rpc_decode(line, strlen(line), &m, NULL), 0);
    ck_assert_ptr_nonnull(strstr(m.error, "/no/such/shell"));
    guest_stop(&g);
    close(fd);
    close(l);
}
END_TEST

UNIT_TEST(answers_what_it_cannot_do)
{
    static const char *const asks[] = {
        ASK("x", "Format"),
        "{\"request\":{\"call\":\"x\",\"function\":\"BeforeSuspend\",\"args\":[1]}}",
        "{\"request\":{\"call\":\"x\",\"function\":7,\"args\":[]}}",
        "{\"request\":{\"call\":\"x\",\"function\":\"BeforeSuspend\",\"args\":\"\"}}",
        "{\"request\":{\"call\":\"x\",\"function\":\"AfterResume\",\"drafter\":{\"time\":1}}}",
    };
    struct guest g;
    int l = host_listen();
    struct rpc_message m;

    guest_start(&g, NULL, NULL);
    int fd = host_accept(l);
    put(fd, OK("nobody asked"));
    for (size_t i = 0; i < sizeof(asks) / sizeof(asks[0]); i++) {
        put(fd, asks[i]);
        const char *line = get(fd);
        ck_assert_int_eq(rpc_decode(line, strlen(line), &m, NULL), 0);
        ck_assert_str_eq(m.call, "x");
        ck_assert_str_ne(m.error, "");
    }
    put(fd, ASK("y", "BeforeSuspend"));
    ck_assert_str_eq(get(fd), OK("y"));
    guest_stop(&g);
    close(fd);
    close(l);
}
END_TEST

UNIT_TEST(calls_again)
{
    struct guest g;

    /* The host is not there at first. */
    (void)unlink(SOCKET);
    guest_start(&g, NULL, NULL);
    int l = host_listen();
    for (int i = 0; i < 50; i++) {
        int fd = host_accept(l);
        if (i % 3 == 0)
            put(fd, "garbage");
        else if (i % 3 == 1)
            put(fd, "{\"request\":{\"call\"");
        if (i % 3 == 0) {
            char c;
            ck_assert_int_le(read(fd, &c, 1), 0); /* it hung up */
        }
        close(fd);
    }
    int fd = host_accept(l);
    put(fd, ASK("y", "BeforeSuspend"));
    ck_assert_str_eq(get(fd), OK("y"));
    guest_stop(&g);
    close(fd);
    close(l);
}
END_TEST

static unsigned count_open(void)
{
    unsigned n = 0;
    DIR *dir = opendir("/proc/self/fd");

    ck_assert_ptr_nonnull(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

/* What a suspend and a resume look like from within, again and again: the link of before is lost,
 * the next one comes out of what was got ready, and nothing is left open. The host that ends a link
 * without having asked for anything is one that crashed. */
UNIT_TEST(links_that_are_reset)
{
    struct guest g;
    unsigned before = 0;
    int l = host_listen();

    guest_start(&g, NULL, NULL);
    int fd = host_accept(l);
    for (int i = 0; i < 40; i++) {
        if (i % 4 != 3) {
            put(fd, ASK("s", "BeforeSuspend"));
            ck_assert_str_eq(get(fd), OK("s"));
        }
        close(fd);
        fd = host_accept(l);
        if (i % 2 == 0) {
            put(fd, ASK("r", "AfterResume"));
            ck_assert_str_eq(get(fd), OK("r"));
        }
        if (i % 4 == 0) { /* twice, for a host that was not sure */
            put(fd, ASK("t", "AfterResume"));
            ck_assert_str_eq(get(fd), OK("t"));
        }
        if (i == 3)
            before = count_open();
    }
    /* At most: the socket of the link before and the one of the link to come. */
    ck_assert_uint_le(count_open(), before + 2);
    guest_stop(&g);
    close(fd);
    close(l);
}
END_TEST

/* The nice values of our threads: proc(5), stat, field 19. */
static int least_nice(void)
{
    int least = 19;
    DIR *dir = opendir("/proc/self/task");
    char path[64], text[512];

    ck_assert_ptr_nonnull(dir);
    for (struct dirent *d; (d = readdir(dir));) {
        int nice = 0;
        (void)snprintf(path, sizeof(path), "/proc/self/task/%.20s/stat", d->d_name);
        FILE *f = fopen(path, "re");
        if (!f)
            continue;
        size_t n = fread(text, 1, sizeof(text) - 1, f);
        fclose(f);
        text[n] = '\0';
        const char *at = strrchr(text, ')');
        if (at &&
            sscanf(at + 1, " %*c%*d%*d%*d%*d%*d%*u%*u%*u%*u%*u%*u%*u%*d%*d%*d%d", &nice) == 1 &&
            nice < least)
            least = nice;
    }
    closedir(dir);
    return least;
}

/* Between its answer to BeforeSuspend and the one to AfterResume the agent goes first; no command
 * does. */
UNIT_TEST(goes_first_alone)
{
    struct guest g;
    const int ordinary = least_nice();
    const bool may = setpriority(PRIO_PROCESS, 0, ordinary - 1) == 0;
    int l = host_listen();

    ck_assert_int_eq(setpriority(PRIO_PROCESS, 0, ordinary), 0);

    guest_start(&g, "nice >>nice", "nice >>nice");
    int fd = host_accept(l);
    for (int i = 0; i < 2; i++) {
        put(fd, ASK("s", "BeforeSuspend"));
        ck_assert_str_eq(get(fd), OK("s"));
        if (may)
            ck_assert_int_lt(least_nice(), ordinary);
    }
    put(fd, ASK("r", "AfterResume"));
    ck_assert_str_eq(get(fd), OK("r"));
    ck_assert_int_eq(least_nice(), ordinary);
    guest_stop(&g);
    char text[64] = "", want[64];
    FILE *f = fopen("nice", "re");
    ck_assert_uint_gt(fread(text, 1, sizeof(text) - 1, f), 0);
    fclose(f);
    (void)snprintf(want, sizeof(want), "%d\n%d\n%d\n", ordinary, ordinary, ordinary);
    ck_assert_str_eq(text, want);
    unlink("nice");
    close(fd);
    close(l);
}
END_TEST

/* Opens and closes the gate until the agent has something to say: a reader that comes too late for
 * one writer waits for the next. */
static void open_gate(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char c = '\n';

    while (c == '\n') {
        int gate = open("gate", O_WRONLY | O_CLOEXEC | O_NONBLOCK);
        if (gate >= 0)
            close(gate);
        if (poll(&p, 1, 10) == 0)
            continue;
        ck_assert_int_eq(recv(fd, &c, 1, MSG_PEEK), 1);
        if (c == '\n') /* the heartbeat */
            ck_assert_int_eq(recv(fd, &c, 1, 0), 1);
    }
}

/* The host goes while a command runs: its answer reaches nobody, the next call is served. */
UNIT_TEST(host_vanishes_in_a_call)
{
    struct guest g;
    int l = host_listen();

    ck_assert_int_eq(mkfifo("gate", 0600), 0);
    guest_start(&g, "cat gate", NULL);
    int fd = host_accept(l);
    put(fd, ASK("old", "BeforeSuspend"));
    int gate = open("gate", O_WRONLY | O_CLOEXEC); /* the command runs */
    close(fd);
    fd = host_accept(l);
    put(fd, ASK("r", "AfterResume"));
    ck_assert_str_eq(get(fd), OK("r")); /* beside the old command */
    close(gate);
    put(fd, ASK("new", "BeforeSuspend"));
    open_gate(fd);
    ck_assert_str_eq(get(fd), OK("new"));
    guest_stop(&g);
    unlink("gate");
    close(fd);
    close(l);
}
END_TEST

UNIT_TEST(eight_commands_at_once)
{
    struct guest g;
    int l = host_listen();
    struct rpc_message m;
    bool seen[8] = {false};

    ck_assert_int_eq(mkfifo("gate", 0600), 0);
    guest_start(&g, "cat gate", NULL);
    int fd = host_accept(l);
    put(fd, ASK("0", "BeforeSuspend") ASK("1", "BeforeSuspend") ASK("2", "BeforeSuspend"));
    put(fd, ASK("3", "BeforeSuspend") ASK("4", "BeforeSuspend") ASK("5", "BeforeSuspend"));
    put(fd, ASK("6", "BeforeSuspend") ASK("7", "BeforeSuspend") ASK("8", "BeforeSuspend"));
    const char *line = get(fd);
    ck_assert_int_eq(rpc_decode(line, strlen(line), &m, NULL), 0);
    ck_assert_str_eq(m.call, "8");
    ck_assert_ptr_nonnull(strstr(m.error, "8 commands"));
    for (int n = 0; n < 8; n++) {
        open_gate(fd);
        line = get(fd);
        ck_assert_int_eq(rpc_decode(line, strlen(line), &m, NULL), 0);
        ck_assert_str_eq(m.error, "");
        ck_assert(!seen[m.call[0] - '0']);
        seen[m.call[0] - '0'] = true;
    }
    guest_stop(&g);
    unlink("gate");
    close(fd);
    close(l);
}
END_TEST

/* What a command leaves in the background keeps its output, but not the host waiting. */
UNIT_TEST(background_process)
{
    struct guest g;
    int l = host_listen();

    ck_assert_int_eq(mkfifo("gate", 0600), 0);
    ck_assert_int_eq(mkfifo("said", 0600), 0);
    guest_start(&g, NULL, "(cat gate; echo still here; echo $? >said) &");
    int fd = host_accept(l);
    put(fd, ASK("a", "AfterResume"));
    ck_assert_str_eq(get(fd), OK("a"));
    int gate = open("gate", O_WRONLY | O_CLOEXEC);
    close(gate);
    int said = open("said", O_RDONLY | O_CLOEXEC);
    char c = 0;
    ck_assert_int_eq(read(said, &c, 1), 1);
    ck_assert_int_eq(c, '0');
    guest_stop(&g);
    unlink("gate");
    unlink("said");
    close(said);
    close(fd);
    close(l);
}
END_TEST

/* A host that asks and never reads does not stop the agent from ending, nor eat its memory. */
UNIT_TEST(host_that_does_not_read)
{
    struct guest g;
    int l = host_listen();

    guest_start(&g, NULL, NULL);
    int fd = host_accept(l);
    static const char ask[] = ASK("a", "AfterResume");
    while (send(fd, ask, sizeof(ask) - 1, MSG_NOSIGNAL) > 0)
        ; /* until it hangs up */
    close(fd);
    fd = host_accept(l);
    put(fd, ASK("b", "AfterResume"));
    ck_assert_str_eq(get(fd), OK("b"));
    guest_stop(&g);
    close(fd);
    close(l);
}
END_TEST

UNIT_TEST(with_our_own_host)
{
    struct guestlink_address at = {
        .vsock_path = "vsock.sock", .port = 26, .uid = (uid_t)-1, .gid = (gid_t)-1};
    struct guestlink_agent *a;
    static const char failed[] =
        "the guest's agent: BeforeSuspend: before-suspend command: exit status 4";
    struct error err = ERROR_INIT;
    struct guest g;

    ck_assert_int_eq(guestlink_agent_listen(&at, NULL, &a, &err), 0);
    guest_start(&g, "exit 4", "true");
    for (int i = 0; i < 10; i++) {
        ck_assert_int_eq(guestlink_agent_before_suspend(a, 60 * SEC, NULL, &err), -1);
        ck_assert_str_eq(err.text, failed);
        if (guestlink_agent_after_resume(a, 60 * SEC, NULL, &err) < 0)
            ck_abort_msg("%s", err.text);
        /* Another host takes over, as after a move. */
        guestlink_agent_close(a);
        ck_assert_int_eq(guestlink_agent_listen(&at, NULL, &a, &err), 0);
        if (guestlink_agent_after_resume(a, 60 * SEC, NULL, &err) < 0)
            ck_abort_msg("%s", err.text);
    }
    guest_stop(&g);
    guestlink_agent_close(a);
}
END_TEST

UNIT_TEST(pauses_between_calls)
{
    uint64_t pause = 0, sum = 0;

    for (int i = 0; i < 20; i++) {
        pause = dial_pause(pause, sum);
        sum += pause;
        ck_assert_uint_le(pause, 25000000);
    }
    ck_assert_uint_ge(pause, 25000000);
    for (int i = 0; i < 10; i++)
        pause = dial_pause(pause, 4 * SEC);
    ck_assert_uint_eq(pause, SEC);
}
END_TEST

/* The static programs, as they go into a guest. */
static const char *program(const char *name)
{
    static char path[4096];

    (void)snprintf(path, sizeof(path), "%s/blueprint/guest/%s", getenv("TEST_TOP") ?: ".", name);
    return path;
}

static int run_program(const char *const *argv, struct error *err)
{
    struct spawn_options so = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};

    return spawn_run(&so, NULL, 0, NULL, err);
}

UNIT_TEST(static_programs_are_small)
{
    struct stat st;

    ck_assert_int_eq(stat(program("drafter-agent"), &st), 0);
    ck_assert_int_lt(st.st_size, 200 * 1024);
    ck_assert_int_eq(stat(program("drafter-liveness"), &st), 0);
    ck_assert_int_lt(st.st_size, 200 * 1024);
}
END_TEST

UNIT_TEST(liveness)
{
    const char *const argv[] = {program("drafter-liveness"), "--connect", "unix:vsock.sock_25",
                                "-vsock-timeout=100ms", NULL};
    struct guestlink_address at = {
        .vsock_path = "vsock.sock", .port = 25, .uid = (uid_t)-1, .gid = (gid_t)-1};
    struct guestlink_liveness *l;
    struct error err = ERROR_INIT;

    ck_assert_int_eq(run_program(argv, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "exit status 1"));
    ck_assert_ptr_nonnull(strstr(err.text, "gave up after"));
    ck_assert_int_eq(guestlink_liveness_listen(&at, &l, &err), 0);
    if (run_program(argv, &err) < 0)
        ck_abort_msg("%s", err.text);
    ck_assert_int_eq(guestlink_liveness_wait(l, 60 * SEC, NULL, &err), 0);
    guestlink_liveness_close(l);
}
END_TEST

UNIT_TEST(agent_program)
{
    const char *const argv[] = {program("drafter-agent"),
                                "-connect=unix:" SOCKET,
                                "--before-suspend-cmd",
                                "echo no; false",
                                "-shell-cmd",
                                "/bin/sh",
                                NULL};
    struct spawn_options so = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    struct guestlink_address at = {
        .vsock_path = "vsock.sock", .port = 26, .uid = (uid_t)-1, .gid = (gid_t)-1};
    struct guestlink_agent *a;
    struct error err = ERROR_INIT;
    int status;
    pid_t pid;

    ck_assert_int_eq(guestlink_agent_listen(&at, NULL, &a, &err), 0);
    ck_assert_int_eq(spawn_start(&so, &pid, NULL, &err), 0);
    ck_assert_int_eq(guestlink_agent_before_suspend(a, 60 * SEC, NULL, &err), -1);
    ck_assert_str_eq(err.text,
                     "the guest's agent: BeforeSuspend: before-suspend command: exit status 1: no");
    ck_assert_int_eq(guestlink_agent_after_resume(a, 60 * SEC, NULL, &err), 0);
    ck_assert_int_eq(kill(pid, SIGTERM), 0);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    guestlink_agent_close(a);
}
END_TEST
