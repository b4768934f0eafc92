// SPDX-License-Identifier: Apache-2.0
/* test_kernel.c - what we lean on in the kernel: descriptors, paths, files, memory
 *
 * Each test states one behaviour and names who needs it. A failure here explains failures
 * elsewhere.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/openat2.h>
#include <linux/userfaultfd.h>

#include "tests/lib/unit.h"

static int open2(int dir, const char *path, uint64_t resolve)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = resolve};

    return (int)syscall(SYS_openat2, dir, path, &how, sizeof(how));
}

/* oci/tree, runtime/vmm: a path from outside never leaves its folder. */
UNIT_TEST(openat2_resolves_beneath)
{
    ck_assert_int_eq(mkdir("root", 0700), 0);
    ck_assert_int_eq(mkdir("root/etc", 0700), 0);
    ck_assert_int_eq(symlink("/etc", "root/absolute"), 0);
    ck_assert_int_eq(symlink("../../..", "root/up"), 0);
    int dir = open("root", O_PATH | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_eq(open2(dir, "up", RESOLVE_BENEATH), -1);
    ck_assert_int_eq(errno, EXDEV);
    ck_assert_int_eq(open2(dir, "absolute", RESOLVE_BENEATH), -1);
    ck_assert_int_eq(open2(dir, "absolute", RESOLVE_NO_SYMLINKS), -1);
    ck_assert_int_eq(errno, ELOOP);
    /* As in a chroot: "/" and ".." stay inside. */
    struct stat a, b;
    int fd = open2(dir, "absolute", RESOLVE_IN_ROOT);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fstat(fd, &a) | stat("root/etc", &b), 0);
    ck_assert_uint_eq(a.st_ino, b.st_ino);
    close(fd);
    fd = open2(dir, "up/etc", RESOLVE_IN_ROOT);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fstat(fd, &a), 0);
    ck_assert_uint_eq(a.st_ino, b.st_ino);
    close(fd);
    close(dir);
}
END_TEST

/* A child that waits until the parent is done with it. */
static pid_t start_child(int *ret_hold)
{
    int hold[2];

    ck_assert_int_eq(pipe2(hold, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        char c;
        close(hold[1]);
        (void)!read(hold[0], &c, 1);
        _exit(7);
    }
    close(hold[0]);
    *ret_hold = hold[1];
    return pid;
}

/* runtime/base/spawn, runtime/vmm: the end of a process is an event. */
UNIT_TEST(pidfd_polls)
{
    int hold;
    pid_t pid = start_child(&hold);
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    ck_assert_int_ge(pidfd, 0);
    struct pollfd p = {.fd = pidfd, .events = POLLIN};

    ck_assert_int_eq(poll(&p, 1, 0), 0);
    close(hold);
    ck_assert_int_eq(poll(&p, 1, -1), 1);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    close(pidfd);
}
END_TEST

/* runtime/vsock: the kick and call descriptors of a QEMU are taken from it by number, and its
 * memory table is read at its address. */
UNIT_TEST(pidfd_getfd_and_process_vm_readv)
{
    uint64_t value = 41;
    int event = eventfd(0, EFD_CLOEXEC), hold;
    pid_t pid = start_child(&hold);
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    int borrowed = (int)syscall(SYS_pidfd_getfd, pidfd, event, 0);

    if (borrowed < 0 && errno == EPERM) {
        close(hold);
        unit_skip("pidfd_getfd: not permitted here (needs ptrace rights)");
    }
    ck_assert_int_ge(borrowed, 0);
    ck_assert_int_eq(write(borrowed, &value, sizeof(value)), sizeof(value));
    value = 0;
    ck_assert_int_eq(read(event, &value, sizeof(value)), sizeof(value));
    ck_assert_uint_eq(value, 41);

    static char text[] = "in the child as it was at the fork";
    char copy[sizeof(text)] = "";
    struct iovec to = {copy, sizeof(copy)}, from = {text, sizeof(text)};
    ck_assert_int_eq(process_vm_readv(pid, &to, 1, &from, 1, 0), sizeof(text));
    ck_assert_str_eq(copy, text);
    close(hold); /* cppcheck-suppress doubleFree; unit_skip() does not return */
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}
END_TEST

/* runtime/base/io: ranges are copied, holes are found, in the kernel. */
UNIT_TEST(copy_file_range_and_holes)
{
    char buf[8192];
    struct stat st;

    memset(buf, 'x', sizeof(buf));
    int a = open("a", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    int b = open("b", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ck_assert_int_eq(pwrite(a, buf, sizeof(buf), 1 << 20), sizeof(buf));
    ck_assert_int_eq(ftruncate(a, 4 << 20), 0);
    loff_t from = 1 << 20, to = 0;
    ck_assert_int_eq(copy_file_range(a, &from, b, &to, sizeof(buf), 0), sizeof(buf));
    memset(buf, 0, sizeof(buf));
    ck_assert_int_eq(pread(b, buf, sizeof(buf), 0), sizeof(buf));
    ck_assert(buf[0] == 'x' && buf[sizeof(buf) - 1] == 'x');
    ck_assert_int_eq(fstat(a, &st), 0);
    if (st.st_blocks * 512 < 4 << 20) { /* a file system that makes holes finds them, too */
        ck_assert_int_eq(lseek(a, 0, SEEK_DATA), 1 << 20);
        ck_assert_int_eq(lseek(a, 1 << 20, SEEK_HOLE), (1 << 20) + (off_t)sizeof(buf));
        ck_assert_int_eq(fallocate(a, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1 << 20, 4096),
                         0);
        ck_assert_int_eq(lseek(a, 0, SEEK_DATA), (1 << 20) + 4096);
    }
    close(a);
    close(b);
}
END_TEST

/* runtime/guestlink: the mode of an unbound socket becomes that of its file, and a path longer than
 * a socket's address goes through the folder's descriptor. */
UNIT_TEST(unix_socket_mode_and_long_path)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    struct stat st;

    (void)umask(0);
    ck_assert_int_eq(mkdir("folder", 0700), 0);
    int dir = open("folder", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)snprintf(sa.sun_path, sizeof(sa.sun_path), "/proc/self/fd/%d/s", dir);
    ck_assert_int_eq(fchmod(fd, 0600), 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    ck_assert_int_eq(stat("folder/s", &st), 0);
    ck_assert(S_ISSOCK(st.st_mode));
    ck_assert_uint_eq(st.st_mode & 0777, 0600);
    close(fd);
    close(dir);
}
END_TEST

/* runtime/base/spawn: a child does not outlive its parent. */
UNIT_TEST(parent_death_signal)
{
    int pipefd[2];
    pid_t grandchild;

    ck_assert_int_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    ck_assert_int_eq(pipe2(pipefd, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        int ready[2];
        char c;
        if (pipe(ready) < 0)
            _exit(1);
        grandchild = fork();
        if (grandchild == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            (void)!write(ready[1], "r", 1);
            for (;;)
                pause();
        }
        (void)!read(ready[0], &c, 1);
        (void)!write(pipefd[1], &grandchild, sizeof(grandchild));
        _exit(0);
    }
    ck_assert_int_eq(read(pipefd[0], &grandchild, sizeof(grandchild)), sizeof(grandchild));
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    int status;
    ck_assert_int_eq(waitpid(grandchild, &status, 0), grandchild);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}
END_TEST

/* runtime/memory: a missing page is a message, and is filled in from outside. */
UNIT_TEST(userfaultfd_fills_missing_pages)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        unit_skip(errno == EPERM ? "userfaultfd: not permitted here" : "no userfaultfd");
    struct uffdio_api api = {.api = UFFD_API};
    ck_assert_int_eq(ioctl(fd, UFFDIO_API, &api), 0);
    char *mem = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register reg = {.range = {(uintptr_t)mem, 2 * page},
                                  .mode = UFFDIO_REGISTER_MODE_MISSING};
    ck_assert_int_eq(ioctl(fd, UFFDIO_REGISTER, &reg), 0);
    char *source = malloc(page);
    memset(source, 'u', page);
    struct uffdio_copy copy = {.dst = (uintptr_t)mem + page, .src = (uintptr_t)source, .len = page};
    ck_assert_int_eq(ioctl(fd, UFFDIO_COPY, &copy), 0);
    ck_assert_int_eq(copy.copy, (int64_t)page);
    ck_assert(mem[page] == 'u' && mem[2 * page - 1] == 'u');
    struct uffdio_zeropage zero = {.range = {(uintptr_t)mem, page}};
    ck_assert_int_eq(ioctl(fd, UFFDIO_ZEROPAGE, &zero), 0);
    ck_assert_int_eq(mem[0], 0);
    /* A page that is there is refused: a late arrival cannot overwrite what the machine wrote. */
    copy.copy = 0;
    ck_assert_int_eq(ioctl(fd, UFFDIO_COPY, &copy), -1);
    ck_assert_int_eq(errno, EEXIST);
    free(source);
}
END_TEST
