// SPDX-License-Identifier: Apache-2.0
/* test_report.c - events and traces, and that who does not read them holds nothing up */
#include <fcntl.h>
#include <json-c/json.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/io.h"
#include "runtime/migrate/report.h"
#include "tests/lib/unit.h"

static struct json_object *next_event(FILE *f)
{
    static char line[8192];

    ck_assert_ptr_nonnull(fgets(line, sizeof(line), f));
    ck_assert_uint_le(strlen(line), 4096);
    struct json_object *obj = json_tokener_parse(line);
    ck_assert_msg(obj != NULL, "%s", line);
    return obj;
}

static const char *text_of(struct json_object *obj, const char *key)
{
    return json_object_get_string(json_object_object_get(obj, key));
}

UNIT_TEST(outcomes_have_names)
{
    static const char *const want[] = {"rolled-back", "moved", "copied", "in-doubt"};

    for (int i = 0; i < 4; i++)
        ck_assert_str_eq(migrate_outcome_name((enum migrate_outcome)i), want[i]);
}
END_TEST

UNIT_TEST(events_are_lines_of_json)
{
    struct error err = ERROR_INIT, cause = {.code = 5, .text = "a \"reason\"\nof two lines"};
    struct report_move move;
    int fds[2];

    ck_assert_int_eq(pipe(fds), 0);
    struct report *r = report_open(fds[1], NULL, NULL, &err);
    ck_assert_msg(r != NULL, "%s", err.text);
    report_begin(r, &move, "source", "unix:x");
    struct migrate_status s = {
        .stage = MIGRATE_COPY, .bytes_total = 1000, .bytes_settled = 100, .bytes_wire = 90};
    report_status(r, &move, &s);
    s.bytes_settled = 600;
    report_status(r, &move, &s);
    struct migrate_result x = {.outcome = MIGRATE_ROLLED_BACK, .suspended_ns = 5000};
    report_end(r, &move, &x, &cause);
    ck_assert_int_eq(report_close(r, &err), 0);
    ck_assert_int_eq(close(fds[1]), 0);
    FILE *f = fdopen(fds[0], "r");
    struct json_object *e = next_event(f);
    ck_assert_str_eq(text_of(e, "event"), "started");
    ck_assert_str_eq(text_of(e, "peer"), "unix:x");
    json_object_put(e);
    e = next_event(f);
    ck_assert_str_eq(text_of(e, "stage"), "copy");
    ck_assert_ptr_null(json_object_object_get(e, "eta_ms")); /* no rate yet */
    json_object_put(e);
    e = next_event(f);
    ck_assert_int_gt(json_object_get_int64(json_object_object_get(e, "bytes_per_second")), 0);
    ck_assert_ptr_nonnull(json_object_object_get(e, "eta_ms"));
    json_object_put(e);
    e = next_event(f);
    ck_assert_str_eq(text_of(e, "outcome"), "rolled-back");
    ck_assert_str_eq(text_of(e, "error"), cause.text);
    ck_assert_int_eq(json_object_get_int64(json_object_object_get(e, "suspended_us")), 5);
    json_object_put(e);
    (void)fclose(f);
}
END_TEST

/* Far more than a pipe holds, and nobody reads: every call returns all the same. */
UNIT_TEST(a_full_pipe_holds_nothing_up)
{
    struct error err = ERROR_INIT;
    struct report_move move = {.side = "source"};
    struct migrate_status s = {.stage = MIGRATE_COPY, .bytes_total = 1};
    int fds[2];

    ck_assert_int_eq(pipe(fds), 0);
    struct report *r = report_open(fds[1], NULL, NULL, &err);
    for (int i = 0; i < 10000; i++)
        report_status(r, &move, &s);
    report_event(r, "late", log_fields());
    ck_assert_int_eq(report_close(r, &err), 0);
    ck_assert_int_eq(fcntl(fds[1], F_GETFL) & O_NONBLOCK, 0); /* others may have it, too */
    (void)close(fds[0]);
    (void)close(fds[1]);
    ck_assert_ptr_null(report_open(fds[1], NULL, NULL, &err));
    ck_assert_ptr_nonnull(strstr(err.text, "status descriptor"));
}
END_TEST

UNIT_TEST(a_trace_that_cannot_be_written_ends)
{
    struct error err = ERROR_INIT;
    struct report *r = report_open(-1, "/dev/full", NULL, &err);

    ck_assert_msg(r != NULL, "%s", err.text);
    for (int i = 0; i < 100000; i++)
        report_trace(r, MIGRATE_TRACE_SENT, "memory", 0, 4096);
    ck_assert_int_eq(report_close(r, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "/dev/full"));
    ck_assert_ptr_null(report_open(-1, "no/such/folder/trace", NULL, &err));
}
END_TEST

UNIT_TEST(a_trace_is_lines_of_words)
{
    struct error err = ERROR_INIT;
    struct report_move move;
    struct migrate_status s = {.stage = MIGRATE_COPY};
    struct migrate_result x = {.outcome = MIGRATE_MOVED};
    struct report *r = report_open(-1, "trace", NULL, &err);

    report_begin(r, &move, "target", "x");
    report_device(r, "disk", 8192);
    report_status(r, &move, &s);
    report_status(r, &move, &s); /* the same stage is one line */
    report_trace(r, MIGRATE_TRACE_IMPLIED, "disk", 0, 8192);
    report_end(r, &move, &x, NULL);
    ck_assert_int_eq(report_close(r, &err), 0);
    char *text = io_read_file(AT_FDCWD, "trace", 4096, NULL, &err);
    char *save = NULL, *line = strtok_r(text, "\n", &save);
    ck_assert_str_eq(line, "drafter-trace 1");
    static const char *const want[] = {" begin target", " device disk 8192", " stage copy",
                                       " implied disk 0 8192", " end moved"};
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        line = strtok_r(NULL, "\n", &save);
        ck_assert_ptr_nonnull(line);
        ck_assert_str_eq(strchr(line, ' '), want[i]);
    }
    ck_assert_ptr_null(strtok_r(NULL, "\n", &save));
    free(text);
}
END_TEST
