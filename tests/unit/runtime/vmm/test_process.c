// SPDX-License-Identifier: Apache-2.0
/* test_process.c - the child of a machine: console, last words, death with its parent; threads: yes
 */
#include "runtime/vmm/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/io.h"
#include "runtime/vmm/child.h"
#include "runtime/vmm/driver.h"
#include "tests/lib/unit.h"

#define SECOND UINT64_C(1000000000)

static struct process_options base(const char *const *argv)
{
    return (struct process_options){.argv = argv,
                                    .dir_fd = -1,
                                    .console_in = -1,
                                    .console_out = -1,
                                    .netns_fd = -1,
                                    .tap_fd = -1,
                                    .numa_node = -1};
}

UNIT_TEST(crash_with_last_words)
{
    static const char *const argv[] = {
        "/bin/sh", "-c",
        "echo first; printf '\\033[31mred\\033[0m\\r\\n'; echo oops >&2; kill -SEGV $$", NULL};
    struct process_options o = base(argv);
    struct error err = ERROR_INIT;
    struct vmm_exit end;
    struct vmm_process *p = process_start(&o, &err);

    ck_assert_msg(p != NULL, "%s", err.text);
    ck_assert_int_eq(process_wait(p, vmm_now() + 60 * SECOND, NULL, &err), 0);
    process_exit(p, &end);
    ck_assert_int_eq(end.asked, false);
    ck_assert_int_eq(end.clean, false);
    ck_assert_ptr_nonnull(strstr(end.text, "killed by signal 11"));
    ck_assert_ptr_nonnull(strstr(end.console, "first; red"));
    ck_assert_ptr_nonnull(strstr(end.console, "oops"));
    process_free(p);
}
END_TEST

UNIT_TEST(console_goes_both_ways)
{
    static const char *const argv[] = {"/bin/cat", NULL};
    struct process_options o = base(argv);
    struct error err = ERROR_INIT;
    int in[2], out[2];
    static char sent[200000], got[200000];

    ck_assert_int_eq(pipe(in), 0);
    ck_assert_int_eq(pipe(out), 0);
    for (size_t i = 0; i < sizeof(sent); i++)
        sent[i] = (char)('a' + i % 23);
    o.console_in = in[0];
    o.console_out = out[1];
    struct vmm_process *p = process_start(&o, &err);
    ck_assert_msg(p != NULL, "%s", err.text);
    /* Far more than the pipes hold: both directions stall and go on. */
    size_t w = 0, r = 0;
    (void)fcntl(in[1], F_SETFL, O_NONBLOCK);
    while (r < sizeof(got)) {
        struct pollfd fds[2] = {{.fd = w < sizeof(sent) ? in[1] : -1, .events = POLLOUT},
                                {.fd = out[0], .events = POLLIN}};
        ck_assert_int_gt(poll(fds, 2, 60000), 0);
        if (fds[0].revents) {
            ssize_t n = write(in[1], sent + w, sizeof(sent) - w);
            w += n > 0 ? (size_t)n : 0;
        }
        if (fds[1].revents) {
            ssize_t n = read(out[0], got + r, sizeof(got) - r);
            ck_assert_int_gt(n, 0);
            r += (size_t)n;
        }
    }
    ck_assert_int_eq(memcmp(sent, got, sizeof(got)), 0);
    process_kill(p);
    ck_assert_int_eq(process_wait(p, vmm_now() + 60 * SECOND, NULL, &err), 0);
    struct vmm_exit end;
    process_exit(p, &end);
    ck_assert_int_eq(end.asked, true);
    process_free(p);
    for (int i = 0; i < 2; i++) {
        (void)close(in[i]);
        (void)close(out[i]);
    }
}
END_TEST

/* Nobody reads the console; the end is seen nevertheless. */
UNIT_TEST(stuck_console_does_not_hide_the_end)
{
    static const char *const argv[] = {"/bin/sh", "-c", "yes | head -c 300000", NULL};
    struct process_options o = base(argv);
    struct error err = ERROR_INIT;
    int out[2];

    ck_assert_int_eq(pipe(out), 0);
    o.console_out = out[1];
    struct vmm_process *p = process_start(&o, &err);
    ck_assert_ptr_nonnull(p);
    process_kill(p);
    ck_assert_int_eq(process_wait(p, vmm_now() + 60 * SECOND, NULL, &err), 0);
    process_free(p);
    (void)close(out[0]);
    (void)close(out[1]);
}
END_TEST

UNIT_TEST(start_failures_say_which_step)
{
    static const char *const none[] = {"/nonexistent/program", NULL};
    static const char *const argv[] = {"/bin/true", NULL};
    struct process_options o = base(none);
    struct error err = ERROR_INIT;

    ck_assert_ptr_null(process_start(&o, &err));
    ck_assert_int_eq(err.code, ENOENT);
    o = base(argv);
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    o.netns_fd = fd;
    ck_assert_ptr_null(process_start(&o, &err));
    ck_assert_ptr_nonnull(strstr(err.text, "cannot enter the network namespace"));
    o.netns_fd = -1;
    o.dir_fd = fd;
    ck_assert_ptr_null(process_start(&o, &err));
    ck_assert_ptr_nonnull(strstr(err.text, "cannot enter the VM directory"));
    (void)close(fd);
}
END_TEST

/* A helper that starts a machine's process and is killed: the machine's process must end too. */
static void dies_with_parent(bool watchdog)
{
    static const char *const plain[] = {"sh", "-c", "echo; exec sleep 600", NULL};
    /* Loses its death signal, as the jailer does by becoming another user. */
    static const char *const clears[] = {"setpriv", "--pdeathsig",          "clear", "sh",
                                         "-c",      "echo; exec sleep 600", NULL};
    int report[2];
    pid_t pid = 0;

    ck_assert_int_eq(pipe(report), 0);
    pid_t helper = fork();
    if (helper == 0) {
        struct process_options o = base(watchdog ? clears : plain);
        struct error err = ERROR_INIT;
        int up[2];
        char c;
        ck_assert_int_eq(pipe(up), 0);
        o.console_out = up[1];
        o.watchdog = watchdog;
        struct vmm_process *p = process_start(&o, &err);
        pid = p && read(up[0], &c, 1) == 1 ? process_pid(p) : -1;
        (void)!write(report[1], &pid, sizeof(pid));
        for (;;)
            (void)pause();
    }
    (void)close(report[1]);
    ck_assert_int_eq(read(report[0], &pid, sizeof(pid)), sizeof(pid));
    ck_assert_int_gt(pid, 0);
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    ck_assert_int_ge(pidfd, 0);
    ck_assert_int_eq(kill(helper, SIGKILL), 0);
    struct pollfd fds = {.fd = pidfd, .events = POLLIN};
    ck_assert_int_eq(poll(&fds, 1, 60000), 1);
    ck_assert_int_eq(waitpid(helper, NULL, 0), helper);
    (void)close(pidfd);
    (void)close(report[0]);
}

UNIT_TEST(dies_with_us)
{
    dies_with_parent(false);
}
END_TEST

UNIT_TEST(dies_with_us_through_the_watchdog)
{
    dies_with_parent(true);
}
END_TEST

/* What madvise(MADV_HUGEPAGE) says in a child that has prepared itself: 0, or its errno. */
static int huge_pages_in_child(bool small_faults)
{
    struct process_options o = base(NULL);
    struct child_setup setup;
    struct error err = ERROR_INIT;
    int status;

    o.small_faults = small_faults;
    ck_assert_int_eq(child_setup_init(&setup, &o, &err), 0);
    pid_t pid = fork();
    if (pid == 0) {
        const size_t size = 4u << 20;
        void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED || child_prepare(&setup) != 0 || madvise(p, size, MADV_NORMAL) < 0)
            _exit(255);
        _exit(madvise(p, size, MADV_HUGEPAGE) < 0 ? errno : 0);
    }
    ck_assert_int_gt(pid, 0);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    child_setup_end(&setup);
    ck_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

UNIT_TEST(small_faults_need_no_huge_pages)
{
    int plain = huge_pages_in_child(false);

    ck_assert_int_eq(huge_pages_in_child(true), EINVAL);
    /* Where the kernel knows none, it says so itself. */
    ck_assert_msg(plain == 0 || plain == EINVAL, "errno %d", plain);
}
END_TEST

UNIT_TEST(becomes_another_user)
{
    static const char *const argv[] = {"/bin/sh", "-c", "id -u; id -g; id -G; pwd", NULL};
    struct process_options o = base(argv);
    struct error err = ERROR_INIT;
    struct vmm_exit end;

    if (geteuid() != 0)
        unit_skip("needs root");
    int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    o.dir_fd = root;
    o.change_user = true;
    o.uid = 4321;
    o.gid = 4322;
    struct vmm_process *p = process_start(&o, &err);
    ck_assert_msg(p != NULL, "%s", err.text);
    ck_assert_int_eq(process_wait(p, vmm_now() + 60 * SECOND, NULL, &err), 0);
    process_exit(p, &end);
    ck_assert_str_eq(end.console, "4321; 4322; 4322; /");
    process_free(p);
    (void)close(root);
}
END_TEST
