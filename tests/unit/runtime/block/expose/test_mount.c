// SPDX-License-Identifier: Apache-2.0
/* test_mount.c - files served through FUSE: data, mmap, ioctl, the end */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/block/block.h"
#include "runtime/block/expose/mount.h"
#include "tests/lib/unit.h"

#define SIZE (8u << 20)

/* As an ordinary user the test runs too, where fusermount3 may mount. */
static void need_fuse(void)
{
    if (access("/dev/fuse", R_OK | W_OK) != 0)
        unit_skip("no /dev/fuse, or not for this user");
    if (geteuid() != 0 && access("/usr/bin/fusermount3", X_OK) != 0)
        unit_skip("no fusermount3");
}

static struct error err;
#define OK(expr)                                                                                   \
    do {                                                                                           \
        if ((expr) < 0)                                                                            \
            ck_abort_msg("%s: %s", #expr, err.text);                                               \
    } while (0)

static struct block *open_stack(const char *text)
{
    struct block *b = block_open(text, strlen(text), "test", NULL, &err);
    if (!b)
        ck_abort_msg("%s", err.text);
    return b;
}

static struct mount *start(struct block *b)
{
    need_fuse();
    ck_assert(mkdir("m", 0700) == 0 || errno == EEXIST);
    struct mount *m = mount_new("m", NULL, &err);
    ck_assert_ptr_nonnull(m);
    OK(mount_add_block(m, "disk", 0600, geteuid(), getegid(), b, &err));
    OK(mount_start(m, &err));
    return m;
}

UNIT_TEST(writes_arrive_by_fsync)
{
    char buf[10000], got[10000];
    struct block *b = open_stack("[{\"type\":\"sparse\",\"size\":8388608}]");
    struct mount *m = start(b);
    int fd = open("m/disk", O_RDWR);
    struct stat st;

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fstat(fd, &st), 0);
    ck_assert_uint_eq((uint64_t)st.st_size, SIZE);
    memset(buf, 'x', sizeof(buf));
    ck_assert_int_eq(pwrite(fd, buf, sizeof(buf), 5000), sizeof(buf));
    ck_assert_int_eq(fsync(fd), 0);
    OK(block_read(b, got, sizeof(got), 5000, &err));
    ck_assert_int_eq(memcmp(buf, got, sizeof(got)), 0);
    ck_assert_int_eq(pread(fd, got, sizeof(got), SIZE - 100), 100);
    ck_assert_int_eq(got[0], 0);
    /* A device does not shrink; what was written is still there. */
    ck_assert_int_eq(ftruncate(fd, 0), 0);
    ck_assert_int_eq(fstat(fd, &st), 0);
    ck_assert_uint_eq((uint64_t)st.st_size, SIZE);
    ck_assert_int_eq(pread(fd, got, sizeof(got), 5000), sizeof(got));
    ck_assert_int_eq(memcmp(buf, got, sizeof(got)), 0);
    ck_assert_int_eq(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 8192), 0);
    ck_assert_int_eq(pread(fd, got, 1, 5000), 1);
    ck_assert_int_eq(got[0], 0);
    ck_assert_int_eq(pread(fd, got, 1, 12288), 1);
    ck_assert_int_eq(got[0], 'x');
    close(fd);
    OK(mount_stop(m, &err));
    mount_free(m);
    OK(block_close(b, &err));
}
END_TEST

UNIT_TEST(mapped_pages_arrive_by_flush_and_by_stop)
{
    char got[4];
    struct block *b = open_stack("[{\"type\":\"sparse\",\"size\":8388608}]");
    struct mount *m = start(b);
    int fd = open("m/disk", O_RDWR);
    char *map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    ck_assert(map != MAP_FAILED);
    memcpy(map + 12345, "abcd", 4);
    OK(mount_flush(m, "disk", &err));
    OK(block_read(b, got, 4, 12345, &err));
    ck_assert_int_eq(memcmp(got, "abcd", 4), 0);
    memcpy(map + 70000, "efgh", 4);
    OK(mount_stop(m, &err));
    OK(block_read(b, got, 4, 70000, &err));
    ck_assert_int_eq(memcmp(got, "efgh", 4), 0);
    /* Who still has it open gets an error, not a hang. */
    ck_assert_int_eq(pread(fd, got, 4, 1 << 20), -1);
    ck_assert(errno == ENOTCONN || errno == ECONNABORTED || errno == EIO);
    ck_assert_int_eq(access("m/disk", F_OK), -1);
    ck_assert_int_eq(errno, ENOENT);
    ck_assert_int_eq(mount_flush(m, "disk", &err), -1);
    mount_free(m);
    OK(block_close(b, &err));
}
END_TEST

/* The kernel tells of a page that it could not write once, and lets it go: whoever flushes later
 * must not believe that all is there. */
UNIT_TEST(what_was_lost_once_is_lost_for_good)
{
    struct block *b = open_stack("[{\"type\":\"sparse\",\"size\":8388608},"
                                 "{\"type\":\"fault\",\"op\":\"write\",\"error\":\"ENOSPC\","
                                 "\"count\":1}]");
    struct mount *m = start(b);
    int fd = open("m/disk", O_RDWR);
    char *map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    ck_assert(map != MAP_FAILED);
    OK(mount_flush(m, NULL, &err));
    memcpy(map + 12345, "abcd", 4);
    ck_assert_int_eq(mount_flush(m, NULL, &err), -1);
    memcpy(map + 12345, "efgh", 4); /* which could be written now */
    ck_assert_int_eq(mount_flush(m, NULL, &err), -1);
    ck_assert_msg(strstr(err.text, "an earlier one failed") != NULL, "%s", err.text);
    (void)munmap(map, SIZE);
    close(fd);
    ck_assert_int_eq(mount_stop(m, &err), -1);
    mount_free(m);
    OK(block_close(b, &err));
}
END_TEST

/* What arrives below a mount that somebody has read already, as on a migration's target. */
UNIT_TEST(what_changed_below_is_read_after_forget)
{
    char old[8192], new[8192], got[8192];
    struct block *b = open_stack("[{\"type\":\"sparse\",\"size\":8388608}]");

    memset(old, 'o', sizeof(old));
    memset(new, 'n', sizeof(new));
    OK(block_write(b, old, sizeof(old), 65536, 0, &err));
    struct mount *m = start(b);
    OK(mount_forget(m, "disk", &err)); /* of which the kernel knows nothing yet */
    int fd = open("m/disk", O_RDWR);
    ck_assert_int_ge(fd, 0);
    char *map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ck_assert(map != MAP_FAILED);
    ck_assert_int_eq(pread(fd, got, sizeof(got), 65536), sizeof(got));
    ck_assert_int_eq(memcmp(map + 65536, old, sizeof(old)), 0);
    memcpy(map + 12345, "abcd", 4); /* is dirty, and belongs to who wrote it */

    OK(block_write(b, new, sizeof(new), 65536, 0, &err));
    ck_assert_int_eq(pread(fd, got, sizeof(got), 65536), sizeof(got));
    ck_assert_int_eq(memcmp(got, old, sizeof(got)), 0); /* else there is nothing to forget */
    int again = open("m/disk", O_RDONLY);
    ck_assert_int_eq(pread(again, got, sizeof(got), 65536), sizeof(got));
    ck_assert_int_eq(memcmp(got, old, sizeof(got)), 0);
    close(again);

    OK(mount_forget(m, NULL, &err));
    ck_assert_int_eq(pread(fd, got, sizeof(got), 65536), sizeof(got));
    ck_assert_int_eq(memcmp(got, new, sizeof(got)), 0);
    ck_assert_int_eq(memcmp(map + 65536, new, sizeof(new)), 0);
    OK(block_read(b, got, 4, 12345, &err));
    ck_assert_int_eq(memcmp(got, "abcd", 4), 0);
    ck_assert_int_eq(memcmp(map + 12345, "abcd", 4), 0);

    ck_assert_int_eq(mount_forget(m, "none", &err), -1);
    ck_assert_int_eq(err.code, ENOENT);
    (void)munmap(map, SIZE);
    close(fd);
    OK(mount_stop(m, &err));
    ck_assert_int_eq(mount_forget(m, "disk", &err), -1);
    ck_assert_int_eq(err.code, ENOTCONN);
    mount_free(m);
    OK(block_close(b, &err));
}
END_TEST

UNIT_TEST(readonly_stack_is_a_readonly_file)
{
    int fd = open("base", O_CREAT | O_RDWR, 0600);
    ck_assert_int_eq(ftruncate(fd, 65536), 0);
    close(fd);
    struct block *b = open_stack("[{\"type\":\"file\",\"path\":\"base\",\"readonly\":true}]");
    struct mount *m = start(b);
    struct stat st;

    ck_assert_int_eq(stat("m/disk", &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0400);
    fd = open("m/disk", O_RDONLY);
    ck_assert_int_ge(fd, 0);
    close(fd);
    OK(mount_stop(m, &err));
    mount_free(m);
    OK(block_close(b, &err));
}
END_TEST

/* An ioctl file: _IOWR doubles a number, _IO gives back its argument, others are not there. */
#define DOUBLE _IOWR('t', 1, uint64_t)
#define NUMBER _IO('t', 2)

static int demo_open(void *self, void **ret_handle, struct error *e)
{
    (void)e;
    *ret_handle = self;
    __atomic_fetch_add((int *)self, 1, __ATOMIC_SEQ_CST);
    return 0;
}

static void demo_release(void *self, void *handle)
{
    ck_assert_ptr_eq(self, handle);
    __atomic_fetch_sub((int *)self, 1, __ATOMIC_SEQ_CST);
}

static int demo_ioctl(void *self, void *handle, struct mount_ioctl *io, struct error *e)
{
    ck_assert_ptr_eq(self, handle);
    if (io->cmd == DOUBLE && io->in_len == 8 && io->out_len == 8) {
        uint64_t v;
        memcpy(&v, io->in, 8);
        v *= 2;
        memcpy(io->out, &v, 8);
        io->result = 7;
        return 0;
    }
    if (io->cmd == NUMBER) {
        io->result = (int)io->arg + (io->pid == getpid());
        return 0;
    }
    return error_set(e, ENOTTY, "no such ioctl");
}

UNIT_TEST(ioctls_reach_the_file)
{
    static const struct mount_file_ops ops = {
        .open = demo_open, .release = demo_release, .ioctl = demo_ioctl};
    struct block *b = open_stack("[{\"type\":\"sparse\",\"size\":8388608}]");
    struct mount *m = start(b);
    int opened = 0;
    uint64_t v = 21;

    /* A file may come while the mount serves. */
    ck_assert_int_eq(access("m/vhost", F_OK), -1);
    OK(mount_add(m, "vhost", 0600, geteuid(), getegid(), 0, &ops, &opened, &err));
    ck_assert_int_eq(mount_add(m, "vhost", 0600, 0, 0, 0, &ops, &opened, &err), -1);
    ck_assert_int_eq(mount_add(m, "a/b", 0600, 0, 0, 0, &ops, &opened, &err), -1);
    int fd = open("m/vhost", O_RDWR);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(__atomic_load_n(&opened, __ATOMIC_SEQ_CST), 1);
    ck_assert_int_eq(ioctl(fd, DOUBLE, &v), 7);
    ck_assert_uint_eq(v, 42);
    ck_assert_int_eq(ioctl(fd, NUMBER, 30), 31);
    ck_assert_int_eq(ioctl(fd, _IO('t', 9)), -1);
    ck_assert_int_eq(errno, ENOTTY);
    close(fd);
    OK(mount_stop(m, &err));
    ck_assert_int_eq(opened, 0);
    mount_free(m);
    OK(block_close(b, &err));
}
END_TEST

struct counted {
    int writes, flushes;
};

static int count_write(void *self, const void *data, size_t len, uint64_t offset, struct error *e)
{
    (void)data, (void)len, (void)offset, (void)e;
    __atomic_fetch_add(&((struct counted *)self)->writes, 1, __ATOMIC_SEQ_CST);
    return 0;
}

static int count_flush(void *self, struct error *e)
{
    (void)e;
    __atomic_fetch_add(&((struct counted *)self)->flushes, 1, __ATOMIC_SEQ_CST);
    return 0;
}

UNIT_TEST(a_lazy_file_leaves_the_flush_out_until_it_is_no_longer)
{
    static const struct mount_file_ops ops = {.write = count_write, .flush = count_flush};
    struct block *b = open_stack("[{\"type\":\"sparse\",\"size\":8388608}]");
    struct mount *m = start(b);
    struct counted c = {0};

    OK(mount_add(m, "memory", 0600, geteuid(), getegid(), SIZE, &ops, &c, &err));
    ck_assert_int_eq(mount_set_lazy(m, "nobody", true, &err), -1);
    ck_assert_int_eq(err.code, ENOENT);
    OK(mount_set_lazy(m, "memory", true, &err));
    int fd = open("m/memory", O_WRONLY);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pwrite(fd, "abcd", 4, 8192), 4);
    ck_assert_int_eq(fsync(fd), 0);
    ck_assert_int_ge(__atomic_load_n(&c.writes, __ATOMIC_SEQ_CST), 1);
    ck_assert_int_eq(__atomic_load_n(&c.flushes, __ATOMIC_SEQ_CST), 0);
    OK(mount_set_lazy(m, "memory", false, &err));
    ck_assert_int_eq(fsync(fd), 0);
    ck_assert_int_eq(__atomic_load_n(&c.flushes, __ATOMIC_SEQ_CST), 1);
    close(fd);
    OK(mount_stop(m, &err));
    mount_free(m);
    OK(block_close(b, &err));
}
END_TEST

/* Whether the process waits in open(2), or has ended (-1). */
static int waits_in_open(pid_t pid)
{
    char path[64], text[32] = "";
    int status;

    (void)snprintf(path, sizeof(path), "/proc/%d/syscall", (int)pid);
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0)
        (void)close(fd);
    if (waitpid(pid, &status, WNOHANG) == pid)
        return -1;
    return n > 0 && strtol(text, NULL, 10) == SYS_openat && text[0] != 'r';
}

UNIT_TEST(who_looks_for_a_file_that_is_held_waits_for_it)
{
    struct block *b = open_stack("[{\"type\":\"sparse\",\"size\":8388608}]");
    int status = -1, state;

    need_fuse();
    ck_assert(mkdir("m", 0700) == 0 || errno == EEXIST);
    struct mount *m = mount_new("m", NULL, &err);
    ck_assert_ptr_nonnull(m);
    mount_hold(m);
    OK(mount_start(m, &err));
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open("m/disk", O_RDWR);
        _exit(fd < 0 ? errno : 0);
    }
    while ((state = waits_in_open(pid)) == 0)
        (void)sched_yield();
    ck_assert_int_eq(state, 1);
    OK(mount_add_block(m, "disk", 0600, geteuid(), getegid(), b, &err));
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);

    /* Released, nobody waits any more, nor who waited in vain. */
    pid = fork();
    if (pid == 0) {
        int fd = open("m/none", O_RDWR);
        _exit(fd < 0 && errno == ENOENT ? 0 : 1);
    }
    while ((state = waits_in_open(pid)) == 0)
        (void)sched_yield();
    ck_assert_int_eq(state, 1);
    mount_release(m);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    ck_assert_int_lt(open("m/nothing", O_RDWR), 0);
    ck_assert_int_eq(errno, ENOENT);
    OK(mount_stop(m, &err));
    mount_free(m);
    OK(block_close(b, &err));
}
END_TEST

static bool is_mounted(void)
{
    struct stat a, b;
    return stat("m", &a) != 0 || stat(".", &b) != 0 || a.st_dev != b.st_dev;
}

UNIT_TEST(a_killed_process_leaves_nothing)
{
    int ready[2];

    need_fuse();
    ck_assert_int_eq(pipe2(ready, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct block *b = open_stack("[{\"type\":\"sparse\",\"size\":8388608}]");
        (void)start(b);
        ck_assert_int_eq(write(ready[1], "r", 1), 1);
        for (;;)
            pause();
    }
    char c;
    close(ready[1]);
    ck_assert_int_eq(read(ready[0], &c, 1), 1);
    int fd = open("m/disk", O_RDWR);
    ck_assert_int_ge(fd, 0);
    ck_assert(is_mounted());
    ck_assert_int_eq(kill(pid, SIGKILL), 0);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    ck_assert_int_eq(pread(fd, &c, 1, 0), -1);
    close(fd);
    /* fusermount3 detaches when it sees our end: soon, but not in our order. */
    for (int i = 0; i < 5000 && is_mounted(); i++)
        usleep(2000);
    ck_assert(!is_mounted());
}
END_TEST

UNIT_TEST(a_dead_mount_is_taken_over)
{
    need_fuse();
    if (geteuid() != 0)
        unit_skip("needs root");
    /* A connection without a process: what auto_unmount's own death leaves behind. */
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    char options[64];
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(mkdir("m", 0700), 0);
    snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", fd);
    if (mount("dead", "m", "fuse.dead", 0, options) != 0)
        unit_skip("mount(2) of FUSE is not allowed here");
    close(fd);
    ck_assert_int_eq(access("m", F_OK), -1);
    struct block *b = open_stack("[{\"type\":\"sparse\",\"size\":8388608}]");
    struct mount *m = start(b);
    ck_assert_int_eq(access("m/disk", F_OK), 0);
    OK(mount_stop(m, &err));
    ck_assert(!is_mounted());
    mount_free(m);
    OK(block_close(b, &err));
}
END_TEST
