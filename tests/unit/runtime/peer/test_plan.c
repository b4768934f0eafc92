// SPDX-License-Identifier: Apache-2.0
/* test_plan.c - the mark there and back, and what a device list or a folder comes to */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "runtime/base/io.h"
#include "runtime/peer/mark.h"
#include "runtime/peer/plan.h"
#include "tests/lib/unit.h"

static void put(const char *path, const char *text)
{
    struct error err = ERROR_INIT;
    cleanup_close int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(io_write(fd, text, strlen(text), path, &err), 0);
}

UNIT_TEST(mark)
{
    struct error err = ERROR_INIT;
    enum mark got;
    static const enum mark all[] = {MARK_STANDING, MARK_RUNNING, MARK_ENDED};

    ck_assert_int_eq(mark_read("mark", &got, &err), 0);
    ck_assert_int_eq(got, MARK_NONE);
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        ck_assert_msg(mark_write("mark", all[i], i % 2, &err) == 0, "%s", err.text);
        ck_assert_int_eq(mark_read("mark", &got, &err), 0);
        ck_assert_int_eq(got, all[i]);
    }
    /* A start that did not come to running: on this boot it did not run, on another it may have. */
    ck_assert_msg(mark_write("mark", MARK_STARTING, true, &err) == 0, "%s", err.text);
    ck_assert_int_eq(mark_read("mark", &got, &err), 0);
    ck_assert_int_eq(got, MARK_STANDING);
    put("mark", "{\"format\": \"drafter-machine\", \"version\": 1, \"status\": \"starting\", "
                "\"boot\": \"another\"}");
    ck_assert_int_eq(mark_read("mark", &got, &err), 0);
    ck_assert_int_eq(got, MARK_RUNNING);
    /* What cannot be understood is never taken for "may run". */
    static const char *const wrong[] = {
        "",
        "{}",
        "[]",
        "{\"format\": \"drafter-machine\", \"version\": 1}",
        "{\"format\": \"drafter-machine\", \"version\": 2, \"status\": \"standing\"}",
        "{\"format\": \"drafter-machine\", \"version\": 1, \"status\": \"fine\"}"};
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        put("mark", wrong[i]);
        ck_assert_msg(mark_read("mark", &got, &err) == -1, "%s", wrong[i]);
    }
}
END_TEST

UNIT_TEST(device_list)
{
    struct error err = ERROR_INIT;
    static const char text[] =
        "[{\"name\":\"kernel\",\"base\":\"k\"},{\"name\":\"state\",\"base\":\"s\"},"
        "{\"name\":\"memory\",\"base\":\"m\",\"overlay\":\"o/m\",\"state\":\"o/m.s\"},"
        "{\"name\":\"disk\",\"base\":\"d\"},{\"name\":\"config\",\"base\":\"no-config\"}]";
    cleanup_plan struct plan *plan = plan_devices(text, &err);
    ck_assert_msg(plan != NULL, "%s", err.text);
    ck_assert_uint_eq(plan->count, 3); /* a saved machine needs no kernel, the config is read */
    ck_assert_str_eq(plan->mark, "o/m.machine");
    ck_assert_str_eq(plan->record, "o/m.moved");
    ck_assert(plan->write_config);
    /* A base that was written cannot be started over. */
    ck_assert_int_eq(plan_start_over(plan, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "no overlay"));
    /* What a migration brings needs a place. */
    ck_assert_ptr_null(plan_add_incoming(plan, "oci", &err));
    static const char no_memory[] = "[{\"name\":\"state\",\"base\":\"s\"}]";
    ck_assert_ptr_null(plan_devices(no_memory, &err));
    ck_assert_ptr_nonnull(strstr(err.text, "memory"));
}
END_TEST

UNIT_TEST(incoming)
{
    struct error err = ERROR_INIT;
    struct stat st;
    ck_assert_int_eq(mkdir("in", 0700), 0);
    cleanup_plan struct plan *plan = plan_package("in", "in-overlays", true, &err);
    ck_assert_msg(plan != NULL, "%s", err.text);
    ck_assert_ptr_null(plan_add_incoming(plan, "../x", &err));
    struct plan_device *disk = plan_add_incoming(plan, "disk", &err);
    ck_assert_ptr_nonnull(disk);
    struct block *b = plan_open_incoming(disk, 1 << 20, false, NULL, &err);
    ck_assert_msg(b != NULL, "%s", err.text);
    ck_assert_uint_eq(block_size(b), 1 << 20);
    /* Nothing is dropped while somebody has it open. */
    ck_assert_int_eq(plan_start_over(plan, &err), -1);
    ck_assert_int_eq(err.code, EBUSY);
    ck_assert_int_eq(block_close(b, &err), 0);
    /* A file that is there is not ours to overwrite, nor, unless we made it, to remove. */
    disk->created = false;
    ck_assert_ptr_null(plan_open_incoming(disk, 1 << 20, false, NULL, &err));
    ck_assert_int_eq(err.code, EEXIST);
    plan_discard(plan);
    ck_assert_int_eq(stat("in/rootfs.ext4", &st), 0);
    ck_assert_msg(plan_start_over(plan, &err) == 0, "%s", err.text);
    ck_assert_int_eq(stat("in/rootfs.ext4", &st), -1);
}
END_TEST
