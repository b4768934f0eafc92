// SPDX-License-Identifier: Apache-2.0
/* io.c - reads and writes of bench/runtime, timed inside: a shell's fork is longer than a read
 *
 *     io evict FILE             the page cache forgets FILE
 *     io read FILE              reads it from start to end, 1 MiB at a time; prints MB/s
 *     io write FILE COUNT SEED  COUNT writes of 4 KiB at random pages, then fsync; prints writes/s
 *     io sync FILE COUNT SEED   the same, each one past the page cache (O_DIRECT)
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define READ (1u << 20)
#define PAGE 4096u

static double now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static _Noreturn void die(const char *what)
{
    perror(what);
    exit(1);
}

int main(int argc, char **argv)
{
    const char *what = argc > 2 ? argv[1] : "";
    const int writes = argc == 5 && (!strcmp(what, "write") || !strcmp(what, "sync"));

    if (!writes && !(argc == 3 && (!strcmp(what, "evict") || !strcmp(what, "read"))))
        return 2;
    int fd = open(argv[2], (writes ? O_WRONLY : O_RDONLY) | (what[0] == 's' ? O_DIRECT : 0));
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        die(argv[2]);
    if (what[0] == 'e') {
        if (posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0)
            die("evict");
        return 0;
    }
    char *buf = aligned_alloc(PAGE, READ);
    double start = now();
    if (!writes) {
        uint64_t all = 0;
        ssize_t n;
        while ((n = read(fd, buf, READ)) > 0)
            all += (uint64_t)n;
        if (n < 0 || all != (uint64_t)st.st_size)
            die("read");
        printf("%.1f\n", (double)all / (now() - start) / 1e6);
        return 0;
    }
    uint64_t count = strtoull(argv[3], NULL, 10), x = strtoull(argv[4], NULL, 10) * 2 + 1;
    memset(buf, (int)x, PAGE);
    for (uint64_t i = 0; i < count; i++) {
        x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        uint64_t page = (x >> 33) % ((uint64_t)st.st_size / PAGE);
        memcpy(buf, &x, sizeof(x));
        if (pwrite(fd, buf, PAGE, (off_t)(page * PAGE)) != PAGE)
            die("write");
    }
    if (fsync(fd) < 0)
        die("fsync");
    printf("%.0f\n", (double)count / (now() - start));
    return 0;
}
