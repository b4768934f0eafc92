// SPDX-License-Identifier: Apache-2.0
/* test_spawn.c - child processes: what they are given, how they end; contexts; threads: yes */
#include "runtime/base/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/io.h"
#include "tests/lib/unit.h"

#define SH(text)                                                                                   \
    (const char *const[])                                                                          \
    {                                                                                              \
        "sh", "-c", text, NULL                                                                     \
    }

static struct error err;

static struct spawn_options of(const char *const *argv)
{
    return (struct spawn_options){.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
}

static char *output_of(const char *const *argv, size_t limit)
{
    struct spawn_options o = of(argv);
    char *out = NULL;

    err = (struct error)ERROR_INIT;
    return spawn_run(&o, NULL, limit, &out, &err) < 0 ? NULL : out;
}

UNIT_TEST(what_it_prints)
{
    char *out = output_of(SH("echo one; printf two"), 100);

    ck_assert_msg(out != NULL, "%s", err.text);
    ck_assert_str_eq(out, "one\ntwo");
    free(out);
    out = output_of(SH("cat; echo to stderr >&2"), 100); /* stdin is /dev/null */
    ck_assert_str_eq(out, "");
    free(out);
    out = output_of(SH("printf 1234567890"), 10);
    ck_assert_str_eq(out, "1234567890");
    free(out);
    /* One byte over the limit, and a child that would print forever. */
    ck_assert_ptr_null(output_of(SH("printf 12345678901"), 10));
    ck_assert_int_eq(err.code, EFBIG);
    ck_assert_ptr_null(output_of((const char *const[]){"yes", NULL}, 1 << 20));
    ck_assert_int_eq(err.code, EFBIG);
}
END_TEST

UNIT_TEST(failures)
{
    struct spawn_options o = of((const char *const[]){"/nonexistent/program", NULL});
    pid_t pid = 0;

    ck_assert_int_eq(spawn_start(&o, &pid, NULL, &err), -1);
    ck_assert_int_eq(err.code, ENOENT);
    ck_assert_ptr_nonnull(strstr(err.text, "/nonexistent/program"));
    ck_assert_int_eq(pid, 0);
    ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1); /* no child is left */
    int fd = open("plain", O_CREAT | O_CLOEXEC, 0600);
    close(fd);
    o = of((const char *const[]){"./plain", NULL});
    ck_assert_int_eq(spawn_start(&o, &pid, NULL, &err), -1);
    ck_assert_int_eq(err.code, EACCES);

    ck_assert_ptr_null(output_of(SH("echo first >&2; echo why >&2; exit 3"), 10));
    ck_assert_str_eq(err.text, "sh: exit status 3: first;why");
    ck_assert_ptr_null(output_of(SH("kill -9 $$"), 10));
    ck_assert_ptr_nonnull(strstr(err.text, "killed by signal 9"));
    /* The end of a long complaint is what counts. */
    ck_assert_ptr_null(
        output_of(SH("i=0; while [ $i -lt 1000 ]; do echo noise $i; i=$((i+1)); done "
                     ">&2; echo the cause >&2; exit 1"),
                  10));
    ck_assert_ptr_nonnull(strstr(err.text, "noise 999;the cause"));
    ck_assert_ptr_null(strstr(err.text, "noise 100;"));
    ck_assert_uint_lt(strlen(err.text), 900);
}
END_TEST

static int prepare_fails(void *opaque)
{
    return *(int *)opaque;
}

UNIT_TEST(what_it_is_given)
{
    int pipefd[2], code = EPERM;
    pid_t pid;
    int status = -1, pidfd = -1;
    char buf[64];

    /* Descriptors: those named, and no others. */
    ck_assert_int_eq(pipe2(pipefd, O_CLOEXEC), 0);
    int leak = open("/dev/null", O_RDONLY); /* without O_CLOEXEC */
    char script[200];
    (void)snprintf(script, sizeof(script), "echo kept >&%d; [ ! -e /proc/self/fd/%d ]", pipefd[1],
                   leak);
    struct spawn_options o = of(SH(script));
    o.keep_fds = &pipefd[1];
    o.n_keep_fds = 1;
    ck_assert_msg(spawn_start(&o, &pid, &pidfd, &err) == 0, "%s", err.text);
    ck_assert_int_eq(spawn_wait(pid, NULL, &status, &err), 0);
    ck_assert_int_eq(status, 0);
    ck_assert_int_ge(pidfd, 0);
    close(pidfd);
    ck_assert_int_eq(read(pipefd[0], buf, sizeof(buf)), 5);
    close(leak);
    /* Environment: ours, with the additions winning. */
    setenv("SPAWN_A", "ours", 1);
    setenv("SPAWN_AB", "kept", 1);
    o = of(SH("printf %s:%s:%s $SPAWN_A $SPAWN_AB $SPAWN_C"));
    o.env = (const char *const[]){"SPAWN_A=theirs", "SPAWN_C=new", NULL};
    char *out = NULL;
    ck_assert_int_eq(spawn_run(&o, NULL, 100, &out, &err), 0);
    ck_assert_str_eq(out, "theirs:kept:new");
    free(out);
    /* Signals: none blocked, none ignored (but two of glibc's own, which nobody can set: 32 and
     * 33). */
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGINT, SIG_IGN);
    out = output_of(SH("sed -n 's/^Sig\\(Blk\\|Ign\\):.//p' /proc/self/status | "
                       "while read m; do echo $((0x$m & 0x7fffffff)); done"),
                    100);
    ck_assert_str_eq(out, "0\n0\n");
    free(out);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    (void)signal(SIGINT, SIG_DFL);
    /* What the last step before exec says is the error. */
    o = of(SH("true"));
    o.prepare = prepare_fails;
    o.opaque = &code;
    ck_assert_int_eq(spawn_start(&o, &pid, NULL, &err), -1);
    ck_assert_int_eq(err.code, EPERM);
    code = 0;
    ck_assert_int_eq(spawn_run(&o, NULL, 0, NULL, &err), 0);
}
END_TEST

UNIT_TEST(cancelled)
{
    struct cancel cancel = {.fd = -1};
    struct context ctx = {.cancel = &cancel};
    struct pollfd p;

    ck_assert_int_eq(cancel_init(&cancel, &err), 0);
    ck_assert_int_eq(context_check(&ctx, &err), 0);
    ck_assert_int_eq(context_check(NULL, &err), 0);
    struct spawn_options o = of(SH("echo >started; exec sleep 1000"));
    pid_t pid;
    ck_assert_int_eq(spawn_start(&o, &pid, NULL, &err), 0);
    cancel_request(&cancel);
    cancel_request(&cancel); /* once requested it stays so */
    p = (struct pollfd){.fd = cancel.fd, .events = POLLIN};
    ck_assert_int_eq(poll(&p, 1, 0), 1);
    ck_assert_int_eq(context_check(&ctx, &err), -1);
    ck_assert_int_eq(err.code, ECANCELED);
    ck_assert_int_eq(spawn_wait(pid, &ctx, NULL, &err), -1);
    ck_assert_int_eq(err.code, ECANCELED);
    ck_assert_int_eq(kill(pid, 0), -1); /* gone, and reaped */
    char *out = NULL;
    ck_assert_int_eq(spawn_run(&o, &ctx, 10, &out, &err), -1);
    ck_assert_int_eq(err.code, ECANCELED);
    ck_assert_ptr_null(out);
    cancel_destroy(&cancel);
}
END_TEST
