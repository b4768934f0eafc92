// SPDX-License-Identifier: Apache-2.0
/* test_archive.c - the cache of archives: what is filed under a digest is what has it */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/base/digest.h"
#include "runtime/base/io.h"
#include "runtime/snapshot/archive.h"
#include "runtime/snapshot/package.h"
#include "tests/lib/unit.h"

/* NAME.tar.zst: a package of upstream's kind with that port. */
static void make(const char *name, unsigned port)
{
    static const char *const files[] = {"state.bin", "memory.bin"};
    struct error err = ERROR_INIT;
    char text[64], archive[64];

    ck_assert_int_eq(mkdir(name, 0700), 0);
    cleanup_close int dir = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    (void)snprintf(text, sizeof(text), "{\"agentVSockPort\":%u}", port);
    (void)snprintf(archive, sizeof(archive), "%s.tar.zst", name);
    cleanup_close int config = openat(dir, PACKAGE_CONFIG, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ck_assert_int_eq(io_write(config, text, strlen(text), name, &err), 0);
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        cleanup_close int fd = openat(dir, files[i], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        ck_assert_int_eq(io_write(fd, name, strlen(name), name, &err), 0);
        ck_assert_int_eq(ftruncate(fd, 2 << 20), 0);
    }
    const struct archive_options o = {.archive = archive, .dir = name};
    ck_assert_msg(archive_make(&o, NULL, &err) == 0, "%s", err.text);
}

static void folder_of(const char *archive, char *ret, size_t size)
{
    struct error err = ERROR_INIT;
    uint8_t sum[SHA256_SIZE];
    char hex[SHA256_HEX_SIZE];
    cleanup_close int fd = open(archive, O_RDONLY | O_CLOEXEC);

    ck_assert_int_eq(digest_of_fd(fd, archive, sum, NULL, &err), 0);
    digest_hex(sum, hex);
    (void)snprintf(ret, size, "cache/%s", hex);
}

/* Acts once, in the middle of a phase. */
struct meddler {
    const char *phase;
    void (*act)(void);
    bool done;
};

static void report(void *opaque, const char *phase, uint64_t done, uint64_t total, const char *unit)
{
    struct meddler *m = opaque;

    (void)done;
    (void)total;
    (void)unit;
    if (m->done || strcmp(phase, m->phase) != 0)
        return;
    m->done = true;
    m->act();
}

static void replace(void)
{
    ck_assert_int_eq(rename("b.tar.zst", "a.tar.zst"), 0);
}

static void touch(void)
{
    const struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    ck_assert_int_eq(utimensat(AT_FDCWD, "c.tar.zst", times, 0), 0);
}

UNIT_TEST(an_archive_that_is_replaced_meanwhile)
{
    struct error err = ERROR_INIT;
    char of_a[128];
    struct meddler m = {.phase = "digest", .act = replace};
    const struct progress progress = {.report = report, .opaque = &m};
    const struct context ctx = {.progress = &progress};

    make("a", 26);
    make("b", 27);
    folder_of("a.tar.zst", of_a, sizeof(of_a));
    cleanup_free char *folder = archive_cached("a.tar.zst", "cache", &ctx, &err);
    ck_assert_msg(folder != NULL, "%s", err.text);
    ck_assert(m.done);
    ck_assert_str_eq(folder, of_a);
    cleanup_package struct package *a = package_open(folder, &err);
    ck_assert_msg(a != NULL, "%s", err.text);
    ck_assert_uint_eq(a->agent_port, 26);
    /* What has the name now is another one. */
    cleanup_free char *other = archive_cached("a.tar.zst", "cache", NULL, &err);
    ck_assert_msg(other != NULL, "%s", err.text);
    ck_assert_str_ne(other, folder);
    cleanup_package struct package *b = package_open(other, &err);
    ck_assert_uint_eq(b->agent_port, 27);
}
END_TEST

UNIT_TEST(an_archive_that_is_written_meanwhile)
{
    struct error err = ERROR_INIT;
    char of_c[128];
    struct meddler m = {.phase = "extract", .act = touch};
    const struct progress progress = {.report = report, .opaque = &m};
    const struct context ctx = {.progress = &progress};
    struct stat st;

    make("c", 26);
    folder_of("c.tar.zst", of_c, sizeof(of_c));
    ck_assert_ptr_null(archive_cached("c.tar.zst", "cache", &ctx, &err));
    ck_assert(m.done);
    ck_assert_int_eq(err.code, ESTALE);
    ck_assert_int_eq(stat(of_c, &st), -1);
}
END_TEST
