// SPDX-License-Identifier: Apache-2.0
/* test_address.c - addresses, prefixes and pools, against upstream's numbers and what is malformed
 */
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/net/address.h"
#include "tests/lib/unit.h"

static struct net_cidr cidr(const char *text)
{
    struct net_cidr c;
    struct error err = ERROR_INIT;

    ck_assert_msg(net_cidr_parse(text, AF_UNSPEC, "x", &c, &err) == 0, "%s", err.text);
    return c;
}

static void assert_addr(struct net_addr a, const char *want)
{
    char text[NET_ADDR_TEXT_MAX];
    struct net_addr b;

    ck_assert_int_eq(net_addr_parse(want, AF_UNSPEC, "x", &b, NULL), 0);
    ck_assert_msg(net_addr_equal(&a, &b), "%s, wanted %s", net_addr_format(&a, text), want);
}

UNIT_TEST(numbers_namespaces_as_upstream_does)
{
    const struct net_cidr pairs = cidr("10.0.8.0/22"), hosts = cidr("10.0.15.0/24");
    struct net_addr in, out;

    ck_assert_uint_eq(net_pool_pairs(&pairs), 256);
    ck_assert_uint_eq(net_pool_hosts(&hosts), 254);
    net_pool_pair(&pairs, 0, &in, &out);
    assert_addr(in, "10.0.8.1");
    assert_addr(out, "10.0.8.2");
    net_pool_pair(&pairs, 253, &in, &out);
    assert_addr(in, "10.0.11.245");
    assert_addr(out, "10.0.11.246");
    assert_addr(net_pool_host(&hosts, 0), "10.0.15.1");
    assert_addr(net_pool_host(&hosts, 253), "10.0.15.254");
}
END_TEST

UNIT_TEST(numbers_ipv6_alike)
{
    const struct net_cidr pool = cidr("fd00:0:0:1::/64"), end = cidr("ffff::ff00/120");
    struct net_addr in, out;

    ck_assert_uint_eq(net_pool_pairs(&pool), UINT64_C(1) << 62);
    ck_assert_uint_eq(net_pool_hosts(&pool), (UINT64_C(1) << 62) - 2);
    net_pool_pair(&pool, 0x4000, &in, &out);
    assert_addr(in, "fd00:0:0:1::1:1");
    assert_addr(out, "fd00:0:0:1::1:2");
    ck_assert_uint_eq(net_pool_hosts(&end), 254);
    assert_addr(net_pool_host(&end, 253), "ffff::fffe");
}
END_TEST

UNIT_TEST(small_pools_hold_nothing)
{
    static const struct {
        const char *text;
        uint64_t hosts, pairs;
    } cases[] = {{"10.0.0.0/30", 2, 1}, {"10.0.0.0/31", 0, 0},
                 {"10.0.0.1/32", 0, 0}, {"fd00::/126", 2, 1},
                 {"fd00::1/128", 0, 0}, {"0.0.0.0/0", (1ull << 32) - 2, 1u << 30}};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct net_cidr c = cidr(cases[i].text);
        ck_assert_uint_eq(net_pool_hosts(&c), cases[i].hosts);
        ck_assert_uint_eq(net_pool_pairs(&c), cases[i].pairs);
    }
}
END_TEST

UNIT_TEST(addition_carries_and_ends_with_the_space)
{
    static const struct {
        const char *from;
        uint64_t n;
        const char *want;
    } cases[] = {{"10.0.0.255", 1, "10.0.1.0"},
                 {"0.0.0.0", UINT32_MAX, "255.255.255.255"},
                 {"255.255.255.255", 1, NULL},
                 {"10.0.0.0", UINT64_MAX, NULL},
                 {"::ffff:ffff:ffff:ffff", 1, "::1:0:0:0:0"},
                 {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 1, NULL},
                 {"::", UINT64_MAX, "::ffff:ffff:ffff:ffff"}};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct net_addr a, sum;
        ck_assert_int_eq(net_addr_parse(cases[i].from, AF_UNSPEC, "x", &a, NULL), 0);
        const int rc = net_addr_add(&a, cases[i].n, &sum);
        ck_assert_int_eq(rc, cases[i].want ? 0 : -1);
        if (cases[i].want)
            assert_addr(sum, cases[i].want);
    }
}
END_TEST

UNIT_TEST(malformed_prefixes_are_refused_by_name)
{
    static const struct {
        const char *text;
        int family;
        const char *why;
    } cases[] = {{"10.0.8.0", AF_INET, "not an IPv4 prefix"},
                 {"10.0.8.0/", AF_INET, "not an IPv4 prefix"},
                 {"10.0.8.0/x", AF_INET, "not an IPv4 prefix"},
                 {"10.0.8.0/2x", AF_INET, "is a number"},
                 {"10.0.8.0/33", AF_INET, "longer than 32"},
                 {"10.0.8.0/99999", AF_INET, "not an IPv4 prefix"},
                 {"10.0.8.0/-1", AF_INET, "not an IPv4 prefix"},
                 {"10.0.8/24", AF_INET, "not an IPv4 address"},
                 {"10.0.8.256/24", AF_INET, "not an IPv4 address"},
                 {"10.0.8.1/22", AF_INET, "10.0.8.0/22 meant"},
                 {"fd00::/64", AF_INET, "not an IPv4 address"},
                 {"10.0.8.0/22", AF_INET6, "not an IPv6 address"},
                 {"fd00::1/64", AF_INET6, "fd00::/64 meant"},
                 {"fd00::/129", AF_INET6, "longer than 128"},
                 {"", AF_INET, "not an IPv4 prefix"}};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct net_cidr c;
        struct error err = ERROR_INIT;

        ck_assert_int_eq(net_cidr_parse(cases[i].text, cases[i].family, "--pool", &c, &err), -1);
        ck_assert_msg(strstr(err.text, cases[i].why) && strncmp(err.text, "--pool: ", 8) == 0,
                      "%s: %s", cases[i].text, err.text);
    }
}
END_TEST

UNIT_TEST(overlap_goes_both_ways)
{
    static const struct {
        const char *a, *b;
        bool overlap;
    } cases[] = {{"10.0.8.0/22", "10.0.11.0/24", true},  {"10.0.8.0/22", "10.0.12.0/24", false},
                 {"0.0.0.0/0", "10.0.12.0/24", true},    {"0.0.0.0/0", "fd00::/8", false},
                 {"fd00:1::/32", "fd00:1:2::/48", true}, {"fd00:1::/32", "fd00:2::/32", false},
                 {"10.0.8.128/25", "10.0.8.0/25", false}};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct net_cidr a = cidr(cases[i].a), b = cidr(cases[i].b);
        ck_assert_int_eq(net_cidr_overlap(&a, &b), cases[i].overlap);
        ck_assert_int_eq(net_cidr_overlap(&b, &a), cases[i].overlap);
    }
}
END_TEST
