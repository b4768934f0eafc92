// SPDX-License-Identifier: Apache-2.0
/* test_parse.c - sizes, durations and numbers from text */
#include "runtime/base/parse.h"
#include "tests/lib/unit.h"

UNIT_TEST(sizes)
{
    static const struct {
        const char *text;
        uint64_t want;
    } good[] = {
        {"0", 0},           {"4096", 4096},
        {"64K", 65536},     {"256M", 256u << 20},
        {"1GiB", 1u << 30}, {"2tb", UINT64_C(2) << 40},
        {"0x10K", 16384},   {"1_000", 1000},
        {"512B", 512},
    };
    static const char *const bad[] = {"",    "K",   "1Q",  "-1",
                                      "1 K", "1KK", "16E", "99999999999999999999"};
    struct error err;
    uint64_t n;

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        n = ~UINT64_C(0);
        ck_assert_int_eq(parse_size(good[i].text, INT64_MAX, "x", &n, &err), 0);
        ck_assert_uint_eq(n, good[i].want);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        n = 77;
        ck_assert_int_eq(parse_size(bad[i], INT64_MAX, "x", &n, &err), -1);
        ck_assert_uint_eq(n, 77); /* failure changes nothing */
    }
}
END_TEST

UNIT_TEST(durations)
{
    static const struct {
        const char *text;
        uint64_t want;
    } good[] = {
        {"0", 0},
        {"500ms", 500000000},
        {"1m0s", 60000000000},
        {"1.5h", 5400000000000},
        {"1h2m3s", 3723000000000},
        {"10us", 10000},
        {"0.25s", 250000000},
    };
    static const char *const bad[] = {"",  "5",   "ms",   "1x",          "1s2",
                                      ".", "-1s", "1e3s", "99999999999h"};
    struct error err;
    uint64_t n;

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        ck_assert_int_eq(parse_duration(good[i].text, "x", &n, &err), 0);
        ck_assert_uint_eq(n, good[i].want);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        n = 77;
        ck_assert_int_eq(parse_duration(bad[i], "x", &n, &err), -1);
        ck_assert_uint_eq(n, 77);
    }
}
END_TEST

UNIT_TEST(integers)
{
    struct error err;
    int64_t i;
    uint64_t u;

    ck_assert_int_eq(parse_i64("-9223372036854775808", INT64_MIN, INT64_MAX, "x", &i, &err), 0);
    ck_assert_int_eq(i, INT64_MIN);
    ck_assert_int_eq(parse_i64("9223372036854775808", INT64_MIN, INT64_MAX, "x", &i, &err), -1);
    ck_assert_int_eq(parse_u64("18446744073709551615", 0, UINT64_MAX, "x", &u, &err), 0);
    ck_assert_int_eq(parse_u64("18446744073709551616", 0, UINT64_MAX, "x", &u, &err), -1);
    ck_assert_int_eq(parse_u64("0b101", 0, 9, "x", &u, &err), 0);
    ck_assert_uint_eq(u, 5);
    ck_assert_int_eq(parse_u64("5", 6, 9, "x", &u, &err), -1);
    ck_assert_str_eq(err.text, "x: 5 is out of range (6 to 9)");
}
END_TEST
