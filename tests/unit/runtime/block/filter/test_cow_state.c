// SPDX-License-Identifier: Apache-2.0
/* test_cow_state.c - states that must be refused, by name, and commits that must hold */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/io.h"
#include "runtime/block/filter/cow_state.h"
#include "tests/lib/stack.h"

#define BASE "{\"type\":\"file\",\"path\":\"base\",\"readonly\":true}"
#define COW "{\"type\":\"cow\",\"overlay\":\"o\",\"state\":\"s\"}"
#define STACK "[" BASE "," COW "]"
#define SIZE (64 * 65536u)

static struct error err;

static void put_file(const char *path, uint64_t size)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_RDWR, 0600);
    ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
    close(fd);
}

static void copy_file(const char *from, const char *to)
{
    size_t len;
    char *data = io_read_file(AT_FDCWD, from, 1 << 26, &len, &err);
    int fd = open(to, O_CREAT | O_TRUNC | O_WRONLY, 0600);

    ck_assert_ptr_nonnull(data);
    ck_assert_int_eq(write(fd, data, len), (ssize_t)len);
    close(fd);
    free(data);
}

static void poke(const char *path, off_t at, char value)
{
    int fd = open(path, O_WRONLY);
    ck_assert_int_eq(pwrite(fd, &value, 1, at), 1);
    close(fd);
}

/* An overlay with two commits; block 3 and block 9 hold data. */
static void begin(void)
{
    (void)unlink("o");
    (void)unlink("s");
    put_file("base", SIZE);
    struct block *b = open_stack(STACK);
    OK(block_write(b, "three", 5, 3 * 65536, 0, &err));
    OK(block_flush(b, &err));
    OK(block_write(b, "nine", 4, 9 * 65536, 0, &err));
    OK(block_close(b, &err));
    copy_file("s", "s.good");
}

static void check_good(void)
{
    char got[5];
    struct block *b = open_stack(STACK);

    OK(block_read(b, got, 5, 3 * 65536, &err));
    ck_assert_int_eq(memcmp(got, "three", 5), 0);
    OK(block_read(b, got, 4, 9 * 65536, &err));
    ck_assert_int_eq(memcmp(got, "nine", 4), 0);
    OK(block_close(b, &err));
}

/* Whatever single byte of the state changes: refused, or it makes no difference. */
UNIT_TEST(no_damage_goes_unnoticed)
{
    struct stat st;

    begin();
    ck_assert_int_eq(stat("s", &st), 0);
    ck_assert_int_eq(st.st_size, 4 * 4096);
    unsigned refused = 0;
    for (off_t at = 0; at < st.st_size; at += at % 4096 < 260 || at % 4096 > 4050 ? 7 : 97) {
        char old;
        copy_file("s.good", "s");
        int fd = open("s", O_RDONLY);
        ck_assert_int_eq(pread(fd, &old, 1, at), 1);
        close(fd);
        poke("s", at, (char)(old ^ 0x10));
        struct block *b = block_open(STACK, strlen(STACK), "test", NULL, &err);
        if (b) {
            OK(block_close(b, &err));
            check_good();
        } else {
            ck_assert_msg(strncmp(err.text, "device test: layer 1 (cow): s: ", 31) == 0, "%s",
                          err.text);
            refused++;
        }
    }
    ck_assert_uint_gt(refused, 20); /* every byte of the page in use */
}
END_TEST

UNIT_TEST(truncated_and_foreign_states_are_named)
{
    begin();
    for (off_t size = 4 * 4096 - 1; size > 100; size -= 4096) {
        copy_file("s.good", "s");
        ck_assert_int_eq(truncate("s", size), 0);
        refuse_stack(STACK, size < 4096 ? "torn" : "truncated");
    }
    ck_assert_int_eq(truncate("s", 0), 0);
    refuse_stack(STACK, "o: the overlay holds data, but its state file s is missing");
    ck_assert_int_eq(unlink("s"), 0);
    refuse_stack(STACK, "o: the overlay holds data, but its state file s is missing");
    /* Drafter's own list of block numbers, or any other file. */
    put_file("s", 0);
    poke("s", 0, 3);
    refuse_stack(STACK, "not a state file");
    /* A later version and unknown features. */
    struct cow_header h;
    uint8_t page[COW_STATE_PAGE];
    copy_file("s.good", "s");
    poke("s", 8, 2);
    poke("s", 4096 + 8, 2);
    refuse_stack(STACK, "version 2");
    copy_file("s.good", "s");
    int fd = open("s", O_RDWR);
    ck_assert_int_eq(pread(fd, page, sizeof(page), 0), sizeof(page));
    OK(cow_header_decode(page, &h, &err));
    h.block_size = 4097;
    OK(cow_header_encode(&h, page, &err));
    FAILS(cow_header_decode(page, &h, &err), "block size 4097");
    close(fd);
    copy_file("s.good", "s");
    refuse_stack("[" BASE ",{\"type\":\"cow\",\"overlay\":\"o\",\"state\":\"s\","
                 "\"blockSize\":4096}]",
                 "was made with blockSize 65536, now 4096 is wanted");
    check_good();
}
END_TEST

UNIT_TEST(another_base_or_overlay_is_refused)
{
    struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1}};

    begin();
    put_file("larger", SIZE + 65536);
    refuse_stack("[{\"type\":\"file\",\"path\":\"larger\",\"readonly\":true}," COW "]",
                 "is the state of a device of 4194304 bytes, this one has 4259840");
    ck_assert_int_eq(utimensat(AT_FDCWD, "base", times, 0), 0);
    refuse_stack(STACK, "base was modified");
    begin();
    /* Same size, same time, another file. */
    struct stat st;
    ck_assert_int_eq(stat("base", &st), 0);
    put_file("twin", SIZE);
    ck_assert_int_eq(utimensat(AT_FDCWD, "twin", (struct timespec[]){st.st_mtim, st.st_mtim}, 0),
                     0);
    refuse_stack("[{\"type\":\"file\",\"path\":\"twin\",\"readonly\":true}," COW "]",
                 "base is another file of the same size and time");
    ck_assert_int_eq(truncate("o", 65536), 0);
    refuse_stack(STACK, "o: the overlay has 65536 bytes");
    ck_assert_int_eq(unlink("o"), 0);
    refuse_stack(STACK, "o: open: No such file");
    /* By digest: the same content anywhere, and only it. */
#define DIGEST(path, first)                                                                        \
    "[{\"type\":\"file\",\"path\":\"" path "\",\"readonly\":true,\"digest\":\"sha256:" first       \
    "123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"}," COW "]"
    ck_assert_int_eq(unlink("s"), 0);
    struct block *b = open_stack(DIGEST("base", "0"));
    OK(block_write(b, "x", 1, 0, 0, &err));
    OK(block_close(b, &err));
    b = open_stack(DIGEST("twin", "0"));
    OK(block_close(b, &err));
    refuse_stack(DIGEST("base", "1"), "base has digest 1123456789abcdef, had 0123456789abcdef");
}
END_TEST

UNIT_TEST(two_users_are_refused_and_told_apart)
{
    char name[64];

    begin();
    struct block *b = open_stack(STACK);
    (void)snprintf(name, sizeof(name), "s: in use by process %d", (int)getpid());
    refuse_stack(STACK, name);
    /* The same overlay under another state, too. */
    refuse_stack("[" BASE ",{\"type\":\"cow\",\"overlay\":\"o\",\"state\":\"s2\"}]",
                 "o: in use by process");
    /* Nor may anyone write the base meanwhile. */
    refuse_stack("[{\"type\":\"file\",\"path\":\"base\"}]", "base: in use by process");
    OK(block_close(b, &err));
    check_good();
}
END_TEST

UNIT_TEST(what_was_not_flushed_is_old)
{
    char got[4];

    begin();
    pid_t pid = fork();
    if (pid == 0) {
        struct block *b = open_stack(STACK);
        OK(block_write(b, "five", 4, 5 * 65536, 0, &err));
        OK(block_flush(b, &err));
        OK(block_write(b, "seven", 5, 7 * 65536, 0, &err));
        _exit(0); /* no close, no flush */
    }
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    check_good();
    struct block *b = open_stack(STACK);
    OK(block_read(b, got, 4, 5 * 65536, &err));
    ck_assert_int_eq(memcmp(got, "five", 4), 0);
    OK(block_read(b, got, 4, 7 * 65536, &err));
    ck_assert_int_eq(memcmp(got, "\0\0\0\0", 4), 0);
    /* The overlay holds a stale "seven" there: a first write of a part must not let it show. */
    OK(block_write(b, "x", 1, 7 * 65536 + 100, 0, &err));
    OK(block_read(b, got, 4, 7 * 65536, &err));
    ck_assert_int_eq(memcmp(got, "\0\0\0\0", 4), 0);
    OK(block_zero(b, 65536, 7 * 65536, 0, &err));
    OK(block_read(b, got, 1, 7 * 65536 + 100, &err));
    ck_assert_int_eq(got[0], 0);
    OK(block_close(b, &err));
}
END_TEST

/* More blocks than one page of the state has bits for. */
UNIT_TEST(large_devices_have_many_pages)
{
    const uint64_t size = UINT64_C(3) * COW_STATE_BITS * 4096 + 4096;
    struct stat st;
    char got[4];

    (void)unlink("o");
    (void)unlink("s");
    put_file("base", size);
    const char *stack = "[" BASE ",{\"type\":\"cow\",\"overlay\":\"o\",\"state\":\"s\","
                        "\"blockSize\":4096}]";
    for (unsigned round = 0; round < 3; round++) {
        struct block *b = open_stack(stack);
        for (uint64_t i = 0; i < 4; i++) {
            uint64_t at = i < 3 ? i * COW_STATE_BITS * 4096 + round * 8192 : size - 4096;
            OK(block_write(b, "here", 4, at, 0, &err));
            OK(block_flush(b, &err));
        }
        OK(block_close(b, &err));
    }
    ck_assert_int_eq(stat("s", &st), 0);
    ck_assert_int_eq(st.st_size, (2 + 2 * 4) * 4096);
    struct block *b = open_stack(stack);
    for (uint64_t i = 0; i < 9; i++) {
        OK(block_read(b, got, 4, i % 3 * COW_STATE_BITS * 4096 + i / 3 * 8192, &err));
        ck_assert_int_eq(memcmp(got, "here", 4), 0);
    }
    OK(block_close(b, &err));
}
END_TEST
