// SPDX-License-Identifier: Apache-2.0
/* test_memory.c - mapped memory on a mount: which pages changed since the last look */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/memory/memory.h"
#include "tests/lib/stack.h"

#define SIZE (4u << 20)

static struct error err;

UNIT_TEST(a_look_finds_the_pages_that_changed)
{
    struct bitmap seen;
    uint64_t n, rng = unit_seed();

    if (access("/dev/fuse", R_OK | W_OK) != 0)
        unit_skip("no /dev/fuse, or not for this user");
    ck_assert(mkdir("m", 0700) == 0 || errno == EEXIST);
    struct mount *m = mount_new("m", NULL, &err);
    struct block *b = open_stack("[{\"type\":\"sparse\",\"size\":4194304}]");
    struct memory *mem = memory_open(m, "memory", 0600, geteuid(), getegid(), b, &err);
    if (!mem)
        ck_abort_msg("%s", err.text);
    OK(mount_start(m, &err));
    ck_assert_uint_eq(memory_size(mem), SIZE);
    OK(bitmap_init(&seen, memory_pages(mem), &err));
    int fd = open(memory_path(mem), O_RDWR);
    ck_assert_int_ge(fd, 0);
    char *map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ck_assert(map != MAP_FAILED);
    for (int round = 0; round < 10; round++) {
        struct bitmap wrote;
        OK(bitmap_init(&wrote, memory_pages(mem), &err));
        for (int i = 0; i < 50; i++) {
            uint64_t at = unit_random(&rng) % SIZE;
            map[at]++;
            bitmap_set(&wrote, at / BLOCK_PAGE);
        }
        bitmap_clear_all(&seen);
        OK(memory_look(mem, &seen, &n, &err));
        ck_assert_uint_eq(n, bitmap_count(&wrote));
        for (uint64_t p = 0; p < seen.size; p++)
            ck_assert_int_eq(bitmap_get(&seen, p), bitmap_get(&wrote, p));
        uint64_t at = bitmap_next_set(&wrote, 0) * BLOCK_PAGE;
        static char page[BLOCK_PAGE];
        OK(block_read(memory_stack(mem), page, BLOCK_PAGE, at, &err));
        ck_assert_int_eq(memcmp(page, map + at, BLOCK_PAGE), 0);
        bitmap_destroy(&wrote);
    }
    OK(memory_look(mem, &seen, &n, &err));
    ck_assert_uint_eq(n, 0);
    munmap(map, SIZE);
    close(fd);
    bitmap_destroy(&seen);
    OK(mount_stop(m, &err));
    OK(memory_close(mem, &err));
    mount_free(m);
}
END_TEST
