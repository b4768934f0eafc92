// SPDX-License-Identifier: Apache-2.0
/* test_blockstack.c - tools/blockstack is killed under its users; what fsync acknowledged is there
 *
 * Random pages are written through the mount, half of them with pwrite(2), half through a shared
 * mapping, beside a model of what each page may hold. After an fsync only the newest may be found;
 * what was written since may be found or not, but whole. Then blockstack is killed, started anew on
 * the same folder, and every page compared. As root, and as an ordinary user (fusermount3).
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/error.h"
#include "runtime/base/output.h"
#include "tests/lib/unit.h"

#define ROUNDS 12
#define PAGE 4096u
#define PAGES 512u
#define NOBODY 65534

UNIT_TIMEOUT(300);

static uint64_t rng;

/* Starts blockstack and waits for its "ready". */
static pid_t start(void)
{
    static const char stack[] = "[{\"type\":\"file\",\"path\":\"base\",\"readonly\":true},"
                                "{\"type\":\"cow\",\"overlay\":\"o\",\"state\":\"s\"},"
                                "{\"type\":\"dirty\"}]";
    int ends[2];
    char line[8] = "";

    ck_assert_int_eq(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        int log = open("log", O_CREAT | O_APPEND | O_WRONLY, 0600);
        (void)dup2(log, 1);
        (void)dup2(log, 2);
        (void)dup2(ends[1], 3);
        execl("./blockstack", "blockstack", "--status", "3", "--stack", stack, "m", NULL);
        _exit(127);
    }
    (void)close(ends[1]);
    for (size_t n = 0; n < 6;) {
        ssize_t r = read(ends[0], line + n, 6 - n);
        ck_assert_msg(r > 0, "blockstack did not start, see its log");
        n += (size_t)r;
    }
    ck_assert_str_eq(line, "ready\n");
    (void)close(ends[0]);
    return pid;
}

static void fill(uint64_t *page, uint64_t number, uint64_t value)
{
    for (unsigned i = 0; i < PAGE / 8; i++)
        page[i] = number << 32 | value;
}

static void write_some(int fd, char *map, uint64_t *newest, unsigned count)
{
    static uint64_t page[PAGE / 8];

    for (unsigned i = 0; i < count; i++) {
        uint64_t n = unit_random(&rng) % PAGES;
        fill(page, n, ++newest[n]);
        if (unit_random(&rng) & 1)
            memcpy(map + n * PAGE, page, PAGE);
        else
            ck_assert_int_eq(pwrite(fd, page, PAGE, (off_t)(n * PAGE)), PAGE);
    }
}

/* Each page is whole and between what is safe and what was begun; that is what it is from now on.
 */
static void compare(int fd, uint64_t *safe, uint64_t *newest)
{
    static uint64_t page[PAGE / 8];

    for (uint64_t n = 0; n < PAGES; n++) {
        ck_assert_int_eq(pread(fd, page, PAGE, (off_t)(n * PAGE)), PAGE);
        for (unsigned i = 1; i < PAGE / 8; i++)
            ck_assert_uint_eq(page[i], page[0]);
        uint64_t value = page[0] & UINT32_MAX;
        ck_assert_uint_eq(page[0] >> 32, n);
        ck_assert_msg(value >= safe[n] && value <= newest[n],
                      "page %ju: %ju found, %ju was synced, %ju written last", (uintmax_t)n,
                      (uintmax_t)value, (uintmax_t)safe[n], (uintmax_t)newest[n]);
        safe[n] = newest[n] = value;
    }
}

/* Where /dev/fuse is root's alone, a node for everybody, seen by this process and its children.
 * Below a chroot(2) "/" is no mount whose propagation could be ended; "/dev" is one everywhere. */
static void open_fuse_to_all(void)
{
    ck_assert_int_eq(unshare(CLONE_NEWNS), 0);
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
        ck_assert_int_eq(errno, EINVAL);
        ck_assert_int_eq(mount(NULL, "/dev", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    }
    ck_assert_int_eq(mount("dev", "/dev/shm", "tmpfs", 0, "mode=755"), 0);
    ck_assert_int_eq(mknod("/dev/shm/fuse", S_IFCHR | 0600, makedev(10, 229)), 0);
    ck_assert_int_eq(chmod("/dev/shm/fuse", 0666), 0);
    ck_assert_int_eq(mount("/dev/shm/fuse", "/dev/fuse", NULL, MS_BIND, NULL), 0);
    ck_assert_int_eq(umount2("/dev/shm", MNT_DETACH), 0);
}

static void killed_and_mounted_again(uid_t uid)
{
    static uint64_t safe[PAGES], newest[PAGES];
    static uint64_t page[PAGE / 8];
    const char *top = getenv("TEST_TOP");
    char dir[] = "/tmp/blockstack-XXXXXX", command[600];
    struct error err = ERROR_INIT;

    if (access("/dev/fuse", F_OK) != 0)
        unit_skip("no /dev/fuse");
    if (uid != geteuid() && geteuid() != 0)
        unit_skip("needs root, to become an ordinary user");
    rng = unit_seed();
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_int_eq(chown(dir, uid, (gid_t)-1), 0);
    (void)snprintf(command, sizeof(command), "cp %s/tools/blockstack %s/blockstack",
                   top ? top : "../../..", dir);
    ck_assert_int_eq(system(command), 0);
    ck_assert_int_eq(chdir(dir), 0);
    if (uid != geteuid()) {
        open_fuse_to_all();
        ck_assert_int_eq(setresgid(NOBODY, NOBODY, NOBODY), 0);
        ck_assert_int_eq(setresuid(uid, uid, uid), 0);
    }
    ck_assert_int_eq(mkdir("m", 0755), 0);
    int fd = open("base", O_CREAT | O_WRONLY, 0600);
    for (uint64_t n = 0; n < PAGES; n++) {
        fill(page, n, 0);
        ck_assert_int_eq(write(fd, page, PAGE), PAGE);
    }
    (void)close(fd);
    for (unsigned round = 0; round < ROUNDS; round++) {
        pid_t pid = start();
        fd = open("m/disk", O_RDWR | O_CLOEXEC);
        ck_assert_int_ge(fd, 0);
        compare(fd, safe, newest);
        char *map = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        ck_assert_ptr_ne(map, MAP_FAILED);
        write_some(fd, map, newest, 300);
        ck_assert_int_eq(fsync(fd), 0);
        memcpy(safe, newest, sizeof(safe));
        if (round % 2) /* else everything is synced, and must be found exactly so */
            write_some(fd, map, newest, 200);
        if (round % 4 == 3)
            ck_assert_int_eq(sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE), 0);
        ck_assert_int_eq(kill(pid, SIGKILL), 0);
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
        /* Whoever still has the file open hears of it and does not hang. */
        ck_assert_int_eq(fsync(fd), -1);
        ck_assert_int_eq(munmap(map, PAGES * PAGE), 0);
        (void)close(fd);
    }
    pid_t pid = start();
    fd = open("m/disk", O_RDONLY | O_CLOEXEC);
    compare(fd, safe, newest);
    (void)close(fd);
    int status;
    ck_assert_int_eq(kill(pid, SIGTERM), 0);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    ck_assert_int_eq(chdir("/"), 0);
    /* The folder itself is in root's /tmp; an ordinary user may empty it, and does. */
    if (output_remove_tree(AT_FDCWD, dir, &err) < 0)
        ck_assert_msg(err.code == EPERM || err.code == EACCES, "%s", err.text);
}

UNIT_TEST(as_ourselves)
{
    killed_and_mounted_again(geteuid());
}
END_TEST

UNIT_TEST(as_an_ordinary_user)
{
    killed_and_mounted_again(NOBODY);
}
END_TEST
