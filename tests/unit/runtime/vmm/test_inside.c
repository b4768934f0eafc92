// SPDX-License-Identifier: Apache-2.0
/* test_inside.c - what a machine's process may put in a file's place leads nowhere */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "runtime/vmm/vmm.h"
#include "tests/lib/unit.h"

static struct error err;
static int dir;

static void make_vm(void)
{
    char own[] = "test-XXXXXX"; /* the tests of a program share their folder */

    ck_assert_ptr_nonnull(mkdtemp(own));
    ck_assert_int_eq(chdir(own), 0);
    ck_assert_int_eq(mkdir("vm", 0700), 0);
}

static void put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    ck_assert_int_eq(close(fd), 0);
}

static void holds(const char *path, const char *text)
{
    char got[64] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    ck_assert_int_ge(read(fd, got, sizeof(got) - 1), 0);
    ck_assert_str_eq(got, text);
    ck_assert_int_eq(close(fd), 0);
}

static int inside(const char *path, int flags)
{
    err = (struct error)ERROR_INIT;
    return vmm_open_inside(dir, "vm", path, flags, 0600, geteuid(), &err);
}

/* Whatever one wants of the file. */
static void refused(const char *path, const char *why)
{
    static const int flags[] = {O_RDONLY, O_RDWR, O_WRONLY, O_RDWR | O_CREAT,
                                O_RDWR | O_CREAT | O_TRUNC};

    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        ck_assert_msg(inside(path, flags[i]) == -1, "%s with flags %x", path, flags[i]);
        ck_assert_msg(err.code == EPERM && strstr(err.text, why), "%s: %d %s", path, err.code,
                      err.text);
    }
}

static void plant(void)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "vm/socket"};

    make_vm();
    ck_assert_int_eq(mkdir("vm/folder", 0700), 0);
    put("secret", "outside");
    put("vm/folder/file", "in a folder");
    ck_assert_int_eq(symlink("../secret", "vm/out"), 0);
    ck_assert_int_eq(symlink("folder/file", "vm/in"), 0);
    ck_assert_int_eq(symlink("nowhere", "vm/dangling"), 0);
    ck_assert_int_eq(symlink("/proc/self/fd/0", "vm/magic"), 0);
    ck_assert_int_eq(symlink("..", "vm/up"), 0);
    ck_assert_int_eq(symlink("folder", "vm/other"), 0);
    ck_assert_int_eq(link("secret", "vm/hard"), 0);
    ck_assert_int_eq(mkfifo("vm/fifo", 0600), 0);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
    dir = open("vm", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_ge(dir, 0);
}

static void everything(void)
{
    plant();
    refused("out", "a link");
    refused("in", "a link");
    refused("dangling", "a link");
    refused("magic", "a link");
    refused("up/secret", "a link");
    refused("other/file", "a link");
    refused("hard", "other names");
    refused("fifo", "no regular file"); /* and at once: nobody opens its other end */
    refused("socket", "no regular file");
    refused("folder", "a folder");
    holds("secret", "outside");
    ck_assert_int_eq(access("vm/nowhere", F_OK), -1);
    ck_assert_int_eq(inside("../secret", O_RDONLY), -1);
    ck_assert_int_eq(inside("folder/../../secret", O_RDONLY), -1);
    ck_assert_int_eq(inside("/etc/passwd", O_RDONLY), -1);
    ck_assert_int_eq(inside("none", O_RDONLY), -1);
    ck_assert_int_eq(err.code, ENOENT);
    /* What is right goes on being so. */
    int fd = inside("folder/file", O_RDWR);
    ck_assert_msg(fd >= 0, "%s", err.text);
    ck_assert_int_ne(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
    (void)close(fd);
    holds("vm/folder/file", "in a folder");
    fd = inside("folder/file", O_RDWR | O_TRUNC);
    ck_assert_msg(fd >= 0, "%s", err.text);
    (void)close(fd);
    holds("vm/folder/file", "");
    fd = inside("new", O_RDWR | O_CREAT);
    ck_assert_msg(fd >= 0, "%s", err.text);
    struct stat st;
    ck_assert_int_eq(fstat(fd, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0600);
    (void)close(fd);
    (void)close(dir);
}

UNIT_TEST(leads_nowhere)
{
    everything();
}
END_TEST

static void without_openat2(int answer)
{
    const struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)answer),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog fprog = {ARRAY_SIZE(program), (struct sock_filter *)program};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &fprog) < 0)
        unit_skip("no seccomp");
    ck_assert_int_eq(syscall(SYS_openat2, AT_FDCWD, ".", NULL, 0), -1);
    ck_assert_int_eq(errno, answer);
}

UNIT_TEST(nor_on_a_kernel_that_has_no_openat2)
{
    without_openat2(ENOSYS);
    everything();
}
END_TEST

UNIT_TEST(nor_where_a_filter_forbids_it)
{
    without_openat2(EPERM);
    everything();
}
END_TEST

UNIT_TEST(files_of_others_are_refused)
{
    if (geteuid() != 0)
        unit_skip("needs root");
    make_vm();
    put("vm/file", "x");
    ck_assert_int_eq(chown("vm/file", 12345, 12345), 0);
    dir = open("vm", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    refused("file", "another user");
    int fd = vmm_open_inside(dir, "vm", "file", O_RDONLY, 0, 12345, &err);
    ck_assert_msg(fd >= 0, "%s", err.text);
    (void)close(fd);
    (void)close(dir);
}
END_TEST
