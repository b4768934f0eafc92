// SPDX-License-Identifier: Apache-2.0
/* test_address.c - arithmetic on addresses against 128-bit integers, random and seeded */
#include <string.h>

#include "runtime/net/address.h"
#include "tests/lib/unit.h"

typedef unsigned __int128 u128;

static u128 number(const struct net_addr *a)
{
    u128 n = 0;

    for (unsigned i = 0; i < net_addr_bits(a->family) / 8; i++)
        n = n << 8 | a->bytes[i];
    return n;
}

static struct net_addr random_addr(uint64_t *seed, int family)
{
    struct net_addr a = {.family = family};
    const uint64_t mode = unit_random(seed) % 4;

    for (unsigned i = 0; i < net_addr_bits(family) / 8; i++)
        a.bytes[i] = mode == 0 ? 0xff : mode == 1 ? 0 : (uint8_t)(unit_random(seed) >> 32);
    return a;
}

UNIT_TEST(agrees_with_integers)
{
    uint64_t seed = unit_seed();

    for (int round = 0; round < 200000; round++) {
        const int family = unit_random(&seed) & 1 ? AF_INET : AF_INET6;
        const unsigned bits = net_addr_bits(family);
        const u128 top = family == AF_INET ? (u128)UINT32_MAX : ~(u128)0;
        const struct net_addr a = random_addr(&seed, family), b = random_addr(&seed, family);
        const uint64_t n = unit_random(&seed) >> (unit_random(&seed) % 64);
        const unsigned prefix = (unsigned)(unit_random(&seed) % (bits + 1));
        const u128 mask = prefix == 0 ? 0 : (top << (bits - prefix)) & top;
        struct net_addr sum;

        const int rc = net_addr_add(&a, n, &sum);
        ck_assert_int_eq(rc, top - number(&a) < n ? -1 : 0);
        if (rc == 0)
            ck_assert(number(&sum) == number(&a) + n);

        const struct net_cidr c = net_cidr_of(&a, prefix);
        ck_assert(number(&c.addr) == (number(&a) & mask));
        ck_assert_int_eq(net_cidr_contains(&c, &b), (number(&b) & mask) == number(&c.addr));
        ck_assert_int_eq(net_addr_compare(&a, &b) < 0, number(&a) < number(&b));

        const unsigned other = (unsigned)(unit_random(&seed) % (bits + 1));
        const unsigned less = other < prefix ? other : prefix;
        const u128 shared = less == 0 ? 0 : (top << (bits - less)) & top;
        const struct net_cidr d = net_cidr_of(&b, other);
        ck_assert_int_eq(net_cidr_overlap(&c, &d), (number(&a) & shared) == (number(&b) & shared));

        char text[NET_CIDR_TEXT_MAX];
        struct net_cidr again;
        ck_assert_int_eq(net_cidr_parse(net_cidr_format(&c, text), family, "x", &again, NULL), 0);
        ck_assert(again.prefix == prefix && net_addr_equal(&again.addr, &c.addr));
    }
}
END_TEST
