// SPDX-License-Identifier: Apache-2.0
/* test_log.c - records are one line each, and JSON records are JSON whatever is in them */
#include "runtime/base/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/io.h"
#include "runtime/base/json.h"
#include "tests/lib/unit.h"

/* What a sink writes for one record. The caller frees it. */
static char *record(bool json, const char *message, const struct log_field *fields, size_t *ret_len)
{
    cleanup_close int fd = open("log", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    struct log log = {
        .level = LOG_LEVEL_INFO, .sink = json ? log_sink_json : log_sink_text, .opaque = &fd};

    log_event(&log, LOG_LEVEL_DEBUG, "dropped", log_fields());
    log_event(&log, LOG_LEVEL_INFO, message, fields);
    return io_read_fd(fd, 1 << 20, "log", ret_len, NULL);
}

UNIT_TEST(text)
{
    size_t len;
    cleanup_free char *line =
        record(false, "Did it",
               log_fields(log_int("n", -4), log_uint("u", 7), log_str("s", "plain"),
                          log_str("q", "a b\n\"\x01"), log_str("e", ""), log_double("d", 1.5)),
               &len);

    ck_assert_str_eq(strstr(line, " info  "),
                     " info  Did it n=-4 u=7 s=plain q=\"a b\\n\\\"\\u0001\" e=\"\" d=1.500\n");
    ck_assert_ptr_eq(strchr(line, '\n'), line + len - 1);
}
END_TEST

UNIT_TEST(json_is_json)
{
    uint64_t seed = unit_seed();
    char value[6000];
    size_t len;

    for (int round = 0; round < 3000; round++) {
        size_t n = unit_random(&seed) % (round % 10 ? 100 : sizeof(value) - 1);
        for (size_t i = 0; i < n; i++)
            value[i] = (char)(1 + unit_random(&seed) % 255);
        value[n] = '\0';
        cleanup_free char *line =
            record(true, round % 3 ? "x" : value,
                   log_fields(log_str("a", value), log_int("b", (int64_t)unit_random(&seed)),
                              log_str("c", value), log_double("d", 0.25), log_str("e", value)),
                   &len);
        ck_assert_ptr_eq(strchr(line, '\n'), line + len - 1);
        struct error err = ERROR_INIT;
        cleanup_json struct json_object *doc = json_parse(line, len, "log", &err);
        ck_assert_msg(doc != NULL, "%s in %s", err.text, line);
        const char *level = "";
        ck_assert_int_eq(json_get_string(doc, "level", "log", &level, &err), JSON_OK);
        ck_assert_str_eq(level, "info");
    }
}
END_TEST

UNIT_TEST(levels)
{
    enum log_level level = LOG_LEVEL_ERROR;

    ck_assert_int_eq(log_level_parse("debug", &level), 0);
    ck_assert_int_eq(level, LOG_LEVEL_DEBUG);
    ck_assert_int_eq(log_level_parse("Debug", &level), -1);
    ck_assert_str_eq(log_level_name(LOG_LEVEL_WARN), "warn");
    log_event(NULL, LOG_LEVEL_ERROR, "nowhere", log_fields());
}
END_TEST
