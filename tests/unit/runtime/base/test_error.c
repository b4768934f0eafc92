// SPDX-License-Identifier: Apache-2.0
/* test_error.c - making, wrapping and cutting errors */
#include "runtime/base/error.h"

#include <errno.h>
#include <string.h>

#include "tests/lib/unit.h"

UNIT_TEST(wraps_from_the_outside)
{
    struct error err = ERROR_INIT;

    errno = EPIPE;
    ck_assert_int_eq(error_set(&err, EBADMSG, "entry %d", 3), -1);
    ck_assert_int_eq(errno, EPIPE);
    ck_assert_int_eq(error_wrap(&err, "layer %s", "x"), -1);
    ck_assert_str_eq(err.text, "layer x: entry 3");
    ck_assert_int_eq(err.code, EBADMSG);
    errno = ENOENT;
    ck_assert_int_eq(error_sys(&err, "open"), -1);
    ck_assert_str_eq(err.text, "open: No such file or directory");
    ck_assert_int_eq(err.code, ENOENT);
    ck_assert_int_eq(error_num(&err, EACCES, "lock"), -1);
    ck_assert_str_eq(err.text, "lock: Permission denied");
    ck_assert_int_eq(error_oom(NULL), -1);
    ck_assert_int_eq(error_wrap(NULL, "x"), -1);
}
END_TEST

UNIT_TEST(keeps_both_ends_of_a_long_text)
{
    struct error err = ERROR_INIT;
    char text[6000];

    memset(text, 'a', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    error_set(&err, EIO, "cause");
    for (int i = 0; i < 3; i++)
        error_wrap(&err, "front%d %.900s", i, text);
    ck_assert_uint_lt(strlen(err.text), ERROR_TEXT_MAX);
    ck_assert_int_eq(strncmp(err.text, "front2", 6), 0);
    ck_assert_str_eq(err.text + strlen(err.text) - 7, ": cause");
    error_set(&err, EIO, "%s", text);
    ck_assert_uint_eq(strlen(err.text), ERROR_TEXT_MAX - 1);
    ck_assert_ptr_nonnull(strstr(err.text, " [...] "));
}
END_TEST
