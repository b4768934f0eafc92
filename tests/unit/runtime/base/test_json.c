// SPDX-License-Identifier: Apache-2.0
/* test_json.c - what counts as JSON, and typed getters */
#include "runtime/base/json.h"

#include <string.h>

#include "tests/lib/unit.h"

UNIT_TEST(accepts_and_refuses_texts)
{
    static const char *const good[] = {"{}",   " [1] \n", "7",   "\"a\\u0041\"",
                                       "true", "-0.5e3",  "[[]]"};
    static const char *const bad[] = {
        "",         " ",     "{",     "{}x",      "[1,]", "{\"a\":1,}", "'a'", "nul",  "01",
        "\"\x01\"", "{a:1}", "[1]{}", "\"\xff\"", "null", "// x\n{}",   "\"a", "[1 2]"};
    struct error err = ERROR_INIT;
    char deep[2 * JSON_DEPTH_MAX + 3];

    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        cleanup_json struct json_object *doc = json_parse(good[i], strlen(good[i]), "t", &err);
        ck_assert_msg(doc != NULL, "%s: %s", good[i], err.text);
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        cleanup_json struct json_object *doc = json_parse(bad[i], strlen(bad[i]), "t", &err);
        ck_assert_msg(doc == NULL, "accepted: %s", bad[i]);
        ck_assert_int_eq(strncmp(err.text, "t: ", 3), 0);
    }
    ck_assert_ptr_null(json_parse("{}\0", 3, "t", &err));
    memset(deep, '[', JSON_DEPTH_MAX + 1);
    memset(deep + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
    ck_assert_ptr_null(json_parse(deep, 2 * (size_t)(JSON_DEPTH_MAX + 1), "t", &err));
    /* Only len bytes count. */
    cleanup_json struct json_object *doc = json_parse("[1]garbage", 3, "t", &err);
    ck_assert_ptr_nonnull(doc);
}
END_TEST

UNIT_TEST(gets_typed_members)
{
    static const char text[] =
        "{\"s\":\"x\",\"n\":null,\"nul\":\"a\\u0000b\",\"i\":-5,\"big\":18446744073709551615,"
        "\"huge\":18446744073709551616,\"max\":9223372036854775807,\"over\":9223372036854775808,"
        "\"b\":true,\"f\":1.5,\"a\":[],\"o\":{}}";
    struct error err = ERROR_INIT;
    const char *s = "old";
    uint64_t u = 1;
    int64_t i = 1;
    bool b = false;
    struct json_object *v = NULL;
    cleanup_json struct json_object *doc = json_parse(text, strlen(text), "t", &err);

    ck_assert_ptr_nonnull(doc);
    ck_assert_int_eq(json_get_string(doc, "s", "t", &s, &err), JSON_OK);
    ck_assert_str_eq(s, "x");
    ck_assert_int_eq(json_get_string(doc, "none", "t", &s, &err), JSON_ABSENT);
    ck_assert_int_eq(json_get_string(doc, "n", "t", &s, &err), JSON_ABSENT);
    ck_assert_int_eq(json_get_string(doc, "nul", "t", &s, &err), -1);
    ck_assert_int_eq(json_get_string(doc, "i", "t", &s, &err), -1);
    ck_assert_str_eq(err.text, "t: i: is a JSON int, string wanted");
    ck_assert_int_eq(json_get_i64(doc, "i", -5, 5, "t", &i, &err), JSON_OK);
    ck_assert_int_eq(i, -5);
    ck_assert_int_eq(json_get_i64(doc, "i", -4, 5, "t", &i, &err), -1);
    ck_assert_int_eq(json_get_i64(doc, "max", INT64_MIN, INT64_MAX, "t", &i, &err), JSON_OK);
    ck_assert_int_eq(i, INT64_MAX);
    ck_assert_int_eq(json_get_i64(doc, "over", INT64_MIN, INT64_MAX, "t", &i, &err), -1);
    ck_assert_int_eq(json_get_u64(doc, "i", 0, UINT64_MAX, "t", &u, &err), -1);
    ck_assert_int_eq(json_get_u64(doc, "big", 0, UINT64_MAX, "t", &u, &err), JSON_OK);
    ck_assert_uint_eq(u, UINT64_MAX);
    ck_assert_int_eq(json_get_u64(doc, "f", 0, 5, "t", &u, &err), -1);
    ck_assert_int_eq(json_get_bool(doc, "b", "t", &b, &err), JSON_OK);
    ck_assert(b);
    ck_assert_int_eq(json_get_array(doc, "a", "t", &v, &err), JSON_OK);
    ck_assert_int_eq(json_get_object(doc, "o", "t", &v, &err), JSON_OK);
    ck_assert_int_eq(json_get_object(doc, "a", "t", &v, &err), -1);
    ck_assert_int_eq(json_required(JSON_ABSENT, "k", "t", &err), -1);
    ck_assert_str_eq(err.text, "t: k is missing");
    ck_assert_int_eq(json_only_keys(v, (const char *const[]){NULL}, "t", &err), 0);
    ck_assert_int_eq(json_only_keys(doc, (const char *const[]){"s", NULL}, "t", &err), -1);
    cleanup_free char *again = json_format(v);
    ck_assert_int_eq(again[strlen(again) - 1], '\n');
}
END_TEST
