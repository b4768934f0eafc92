// SPDX-License-Identifier: Apache-2.0
/* test_output.c - files and folders appear whole or not at all */
#include "runtime/base/output.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/io.h"
#include "tests/lib/unit.h"

static struct error err;

static int count_entries(const char *dir)
{
    DIR *d = opendir(dir);
    int n = 0;

    ck_assert_ptr_nonnull(d);
    for (struct dirent *e; (e = readdir(d));)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    (void)closedir(d);
    return n;
}

static void write_whole(const char *path, const char *text)
{
    struct output *out = output_begin(path, OUTPUT_FILE, 0644, &err);

    ck_assert_msg(out != NULL, "%s", err.text);
    ck_assert_int_eq(io_write(output_fd(out), text, strlen(text), path, &err), 0);
    ck_assert_msg(output_commit(&out, true, &err) == 0, "%s", err.text);
    ck_assert_ptr_null(out);
}

static void holds(const char *path, const char *text)
{
    cleanup_free char *got = io_read_file(AT_FDCWD, path, 1000, NULL, &err);
    ck_assert_str_eq(got, text);
}

static unsigned mode_of(const char *path)
{
    struct stat st;

    ck_assert_int_eq(stat(path, &st), 0);
    return st.st_mode & 07777;
}

UNIT_TEST(private_folders_are_for_their_owner)
{
    (void)umask(022);
    ck_assert_int_eq(output_make_private_dirs("p/q/r//", &err), 0);
    ck_assert_uint_eq(mode_of("p"), 0755);
    ck_assert_uint_eq(mode_of("p/q"), 0755);
    ck_assert_uint_eq(mode_of("p/q/r"), 0700);
    ck_assert_int_eq(output_make_private_parent("p/s/file", &err), 0);
    ck_assert_uint_eq(mode_of("p/s"), 0700);
    ck_assert_int_eq(output_make_private_parent("file", &err), 0);
    /* One that is there is as its owner wants it. */
    ck_assert_int_eq(output_make_private_dirs("p/q", &err), 0);
    ck_assert_uint_eq(mode_of("p/q"), 0755);
    ck_assert_int_eq(output_make_dirs("o/p", &err), 0);
    ck_assert_uint_eq(mode_of("o/p"), 0755);
}
END_TEST

UNIT_TEST(replaces_files)
{
    write_whole("a/b/file", "one");
    holds("a/b/file", "one");
    struct output *out = output_begin("a/b/file", OUTPUT_FILE, 0644, &err);
    ck_assert_int_eq(io_write(output_fd(out), "half", 4, "x", &err), 0);
    holds("a/b/file", "one");
    ck_assert_int_eq(count_entries("a/b"), 2);
    output_abort(out);
    ck_assert_int_eq(count_entries("a/b"), 1);
    write_whole("a/b/file", "two");
    holds("a/b/file", "two");
    output_abort(NULL);
}
END_TEST

UNIT_TEST(replaces_folders)
{
    for (int i = 0; i < 2; i++) {
        struct output *out = output_begin("d/", OUTPUT_DIR, 0750, &err);
        struct stat st;
        ck_assert_msg(out != NULL, "%s", err.text);
        ck_assert_int_eq(mkdirat(output_fd(out), i ? "second" : "first", 0), 0);
        ck_assert_int_eq(output_commit(&out, false, &err), 0);
        ck_assert_int_eq(stat("d", &st), 0);
        ck_assert_uint_eq(st.st_mode & 07777, 0750);
    }
    ck_assert_int_eq(access("d/second", F_OK), 0);
    ck_assert_int_eq(access("d/first", F_OK), -1); /* removed although it denied access */
    ck_assert_int_eq(count_entries("d"), 1);
}
END_TEST

UNIT_TEST(sweeps_what_the_killed_left)
{
    int ready[2];
    ck_assert_int_eq(pipe(ready), 0);
    ck_assert_int_eq(mkdir("s", 0755), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct output *out = output_begin("s/big", OUTPUT_DIR, 0755, &err);
        if (!out || mkdirat(output_fd(out), "x", 0700) < 0 || write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    char c;
    ck_assert_int_eq(read(ready[0], &c, 1), 1);
    /* While its maker lives it is not swept; two makers do not disturb one another. */
    write_whole("s/big2", "y");
    struct output *out = output_begin("s/big", OUTPUT_DIR, 0755, &err);
    ck_assert_ptr_nonnull(out);
    ck_assert_int_eq(count_entries("s"), 3);
    output_abort(out);
    ck_assert_int_eq(kill(pid, SIGKILL), 0);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    ck_assert_int_eq(count_entries("s"), 2);
    write_whole("s/big", "now");
    ck_assert_int_eq(count_entries("s"), 2);
    holds("s/big", "now");
}
END_TEST

UNIT_TEST(a_full_disk_leaves_the_old)
{
    if (mkdir("full", 0755) < 0 ||
        mount("tmpfs", "full", "tmpfs", MS_NOSUID | MS_NODEV, "size=64k") < 0)
        unit_skip("needs root to mount a small tmpfs");
    write_whole("full/f", "old");
    static char block[256 << 10] = "x";
    struct output *out = output_begin("full/f", OUTPUT_FILE, 0644, &err);
    int rc = io_write(output_fd(out), block, sizeof(block), "full/f", &err);
    int code = err.code;
    output_abort(out);
    int left = count_entries("full");
    cleanup_free char *text = io_read_file(AT_FDCWD, "full/f", 100, NULL, &err);
    (void)umount("full");
    ck_assert_int_eq(rc, -1);
    ck_assert_int_eq(code, ENOSPC);
    ck_assert_int_eq(left, 1);
    ck_assert_str_eq(text, "old");
}
END_TEST

UNIT_TEST(refuses_odd_names)
{
    static const char *const bad[] = {"", ".", "..", "/", "a/.", "a/.."};

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        ck_assert_ptr_null(output_begin(bad[i], OUTPUT_FILE, 0644, &err));
    write_whole("plain", "x");
    ck_assert_ptr_null(output_begin("plain/below", OUTPUT_FILE, 0644, &err));
}
END_TEST

UNIT_TEST(removes_without_following)
{
    ck_assert_int_eq(mkdir("keep", 0755), 0);
    write_whole("keep/file", "x");
    ck_assert_int_eq(mkdir("gone", 0755), 0);
    ck_assert_int_eq(symlink("../keep", "gone/link"), 0);
    ck_assert_int_eq(mkdir("gone/dir", 0755), 0);
    ck_assert_int_eq(mkdir("gone/dir/locked", 0), 0);
    ck_assert_msg(output_remove_tree(AT_FDCWD, "gone", &err) == 0, "%s", err.text);
    ck_assert_int_eq(access("gone", F_OK), -1);
    ck_assert_int_eq(access("keep/file", F_OK), 0);
    ck_assert_int_eq(output_remove_tree(AT_FDCWD, "gone", &err), 0);
}
END_TEST
