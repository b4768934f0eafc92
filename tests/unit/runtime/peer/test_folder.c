// SPDX-License-Identifier: Apache-2.0
/* test_folder.c - which files may serve as a package, by what became of the machine in them */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "runtime/base/io.h"
#include "runtime/migrate/record.h"
#include "runtime/peer/folder.h"
#include "runtime/peer/mark.h"
#include "tests/lib/unit.h"

static void set_mark(enum mark mark)
{
    struct error err = ERROR_INIT;
    ck_assert_msg(mark_write("memory.bin.machine", mark, false, &err) == 0, "%s", err.text);
}

static void set_record(enum migrate_record_state state)
{
    static const uint8_t session[WIRE_SESSION_SIZE] = {1};
    struct error err = ERROR_INIT;
    struct record r;

    (void)unlink("memory.bin.moved");
    ck_assert_int_eq(record_begin(&r, "memory.bin.moved", session, "elsewhere", &err), 0);
    ck_assert_int_eq(record_mark(&r, state, &err), 0);
    record_close(&r);
}

static void make_memory(void)
{
    cleanup_close int fd = open("memory.bin", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
}

/* The same by a path and in a folder. */
static int check(struct error *err)
{
    struct error other = ERROR_INIT;
    cleanup_close int dir = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = folder_check(AT_FDCWD, "memory.bin", "memory.bin", err);

    ck_assert_int_eq(folder_check(dir, "memory.bin", "memory.bin", &other), rc);
    ck_assert_int_eq(rc < 0 ? other.code : 0, rc < 0 ? err->code : 0);
    return rc;
}

UNIT_TEST(what_may_serve)
{
    struct error err = ERROR_INIT;

    make_memory();
    ck_assert_int_eq(check(&err), 0);
    set_mark(MARK_STANDING);
    ck_assert_int_eq(check(&err), 0);
    set_record(MIGRATE_RECORD_NONE); /* a migration that never committed */
    ck_assert_int_eq(check(&err), 0);

    set_mark(MARK_RUNNING);
    ck_assert_int_eq(check(&err), -1);
    ck_assert_int_eq(err.code, ESTALE);
    ck_assert_ptr_nonnull(strstr(err.text, "was not suspended"));
    set_mark(MARK_ENDED);
    ck_assert_int_eq(check(&err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "powered off"));
    set_mark(MARK_STANDING);
    set_record(MIGRATE_RECORD_COMMITTED);
    ck_assert_int_eq(check(&err), -1);
    ck_assert_int_eq(err.code, ESTALE);
    ck_assert_ptr_nonnull(strstr(err.text, "was being moved to elsewhere"));
    set_record(MIGRATE_RECORD_MOVED);
    ck_assert_int_eq(check(&err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "was moved to elsewhere"));
    ck_assert_int_eq(truncate("memory.bin.moved", 100), 0); /* damaged */
    ck_assert_int_eq(check(&err), -1);
    ck_assert_int_eq(unlink("memory.bin.moved"), 0);
    ck_assert_int_eq(truncate("memory.bin.machine", 3), 0);
    ck_assert_int_eq(check(&err), -1);
}
END_TEST

UNIT_TEST(taken_back)
{
    struct error err = ERROR_INIT;
    enum mark mark;

    make_memory();
    set_mark(MARK_RUNNING);
    ck_assert_int_eq(folder_take_back("memory.bin", &err), 0); /* nobody moved it */
    ck_assert_int_eq(check(&err), -1);
    set_record(MIGRATE_RECORD_COMMITTED);
    {
        /* Its peer serves the target yet, or a clone lies on it. */
        cleanup_close int held = open("memory.bin", O_RDONLY | O_CLOEXEC);
        ck_assert_int_eq(flock(held, LOCK_SH), 0);
        ck_assert_int_eq(folder_take_back("memory.bin", &err), -1);
        ck_assert_int_eq(err.code, EBUSY);
        ck_assert_int_eq(access("memory.bin.moved", F_OK), 0);
        ck_assert_int_eq(mark_read("memory.bin.machine", &mark, &err), 0);
        ck_assert_int_eq(mark, MARK_RUNNING);
    }
    ck_assert_msg(folder_take_back("memory.bin", &err) == 0, "%s", err.text);
    ck_assert_int_eq(access("memory.bin.moved", F_OK), -1);
    ck_assert_int_eq(check(&err), 0);
    ck_assert_int_eq(folder_take_back("none", &err), 0);
}
END_TEST

UNIT_TEST(held)
{
    struct error err = ERROR_INIT;
    struct folder_files files = FOLDER_FILES_INIT;
    int fd;

    make_memory();
    cleanup_close int machine = open("memory.bin", O_RDWR | O_CLOEXEC);
    ck_assert_int_eq(folder_lock(machine, true, "memory.bin", &err), 0);
    fd = open("memory.bin", O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(folder_hold(&files, fd, "memory", AT_FDCWD, "memory.bin", "m", &err), -1);
    ck_assert_int_eq(err.code, EBUSY);
    ck_assert_int_eq(flock(machine, LOCK_UN), 0);
    for (int i = 0; i < 2; i++) { /* readers do not hinder each other, but the machine */
        fd = open("memory.bin", O_RDONLY | O_CLOEXEC);
        ck_assert_msg(folder_hold(&files, fd, "memory", AT_FDCWD, "memory.bin", "m", &err) == 0,
                      "%s", err.text);
    }
    ck_assert_int_eq(folder_lock(machine, true, "memory.bin", &err), -1);
    folder_release(&files);
    ck_assert_int_eq(folder_lock(machine, true, "memory.bin", &err), 0);
    ck_assert_int_eq(flock(machine, LOCK_UN), 0);
    /* Of other devices' files nothing is said beside them. */
    set_mark(MARK_RUNNING);
    fd = open("memory.bin", O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(folder_hold(&files, fd, "disk", AT_FDCWD, "memory.bin", "m", &err), 0);
    fd = open("memory.bin", O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(folder_hold(&files, fd, "memory", AT_FDCWD, "memory.bin", "m", &err), -1);
    ck_assert_int_eq(err.code, ESTALE);
    folder_release(&files);
}
END_TEST
