// SPDX-License-Identifier: Apache-2.0
/* address.c - IPv4 and IPv6 addresses, prefixes, and the pools that namespaces are numbered from */
#include "runtime/net/address.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/parse.h"

#define COUNT_MAX (UINT64_C(1) << 62)

unsigned net_addr_bits(int family)
{
    return family == AF_INET6 ? 128 : 32;
}

static const char *family_name(int family)
{
    return family == AF_INET ? "IPv4 " : family == AF_INET6 ? "IPv6 " : "";
}

int net_addr_parse(const char *text, int family, const char *what, struct net_addr *ret,
                   struct error *err)
{
    const int found = strchr(text, ':') ? AF_INET6 : AF_INET;
    struct net_addr a = {.family = found};

    if ((family != AF_UNSPEC && family != found) || inet_pton(found, text, a.bytes) != 1)
        return error_set(err, EINVAL, "%s: \"%s\" is not an %saddress", what, text,
                         family_name(family));
    *ret = a;
    return 0;
}

const char *net_addr_format(const struct net_addr *addr, char buf[NET_ADDR_TEXT_MAX])
{
    if (!inet_ntop(addr->family, addr->bytes, buf, NET_ADDR_TEXT_MAX))
        buf[0] = '\0';
    return buf;
}

int net_addr_compare(const struct net_addr *a, const struct net_addr *b)
{
    if (a->family != b->family)
        return a->family == AF_INET ? -1 : 1;
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes));
}

bool net_addr_equal(const struct net_addr *a, const struct net_addr *b)
{
    return net_addr_compare(a, b) == 0;
}

bool net_addr_is_loopback(const struct net_addr *addr)
{
    static const uint8_t one[16] = {[15] = 1};

    return addr->family == AF_INET ? addr->bytes[0] == 127
                                   : memcmp(addr->bytes, one, sizeof(one)) == 0;
}

bool net_addr_is_any(const struct net_addr *addr)
{
    static const uint8_t zero[16];

    return memcmp(addr->bytes, zero, sizeof(zero)) == 0;
}

int net_addr_add(const struct net_addr *addr, uint64_t n, struct net_addr *ret)
{
    struct net_addr a = *addr;

    for (unsigned i = net_addr_bits(a.family) / 8; i-- > 0;) {
        unsigned sum = a.bytes[i] + (unsigned)(n & 0xff);

        a.bytes[i] = (uint8_t)sum;
        n = (n >> 8) + (sum >> 8);
    }
    if (n != 0)
        return -1;
    *ret = a;
    return 0;
}

struct net_cidr net_cidr_of(const struct net_addr *addr, unsigned prefix)
{
    struct net_cidr c = {.addr = *addr, .prefix = prefix};

    for (unsigned i = 0; i < 16; i++) {
        if (i * 8 >= prefix)
            c.addr.bytes[i] = 0;
        else if (prefix - i * 8 < 8)
            c.addr.bytes[i] &= (uint8_t)(0xff00u >> (prefix - i * 8));
    }
    return c;
}

int net_cidr_parse(const char *text, int family, const char *what, struct net_cidr *ret,
                   struct error *err)
{
    const char *slash = strchr(text, '/');
    char host[NET_ADDR_TEXT_MAX], meant[NET_CIDR_TEXT_MAX];
    struct net_addr addr;
    struct net_cidr c;
    uint64_t prefix = 0;

    if (!slash || (size_t)(slash - text) >= sizeof(host) || slash[1] < '0' || slash[1] > '9' ||
        strlen(slash + 1) > 3)
        return error_set(err, EINVAL, "%s: \"%s\" is not an %sprefix; write it like %s", what, text,
                         family_name(family), family == AF_INET6 ? "fd00:1:2::/64" : "10.0.8.0/22");
    memcpy(host, text, (size_t)(slash - text));
    host[slash - text] = '\0';
    if (net_addr_parse(host, family, what, &addr, err) < 0)
        return -1;
    for (const char *p = slash + 1; *p; p++) {
        if (*p < '0' || *p > '9')
            return error_set(err, EINVAL, "%s: \"%s\": the length of a prefix is a number", what,
                             text);
        prefix = prefix * 10 + (uint64_t)(*p - '0');
    }
    if (prefix > net_addr_bits(addr.family))
        return error_set(err, EINVAL, "%s: \"%s\": the prefix is longer than %u bits", what, text,
                         net_addr_bits(addr.family));
    c = net_cidr_of(&addr, (unsigned)prefix);
    if (!net_addr_equal(&c.addr, &addr))
        return error_set(err, EINVAL, "%s: \"%s\" has bits set beyond its length; is %s meant?",
                         what, text, net_cidr_format(&c, meant));
    *ret = c;
    return 0;
}

const char *net_cidr_format(const struct net_cidr *cidr, char buf[NET_CIDR_TEXT_MAX])
{
    char addr[NET_ADDR_TEXT_MAX];

    (void)snprintf(buf, NET_CIDR_TEXT_MAX, "%s/%u", net_addr_format(&cidr->addr, addr),
                   cidr->prefix);
    return buf;
}

bool net_cidr_contains(const struct net_cidr *cidr, const struct net_addr *addr)
{
    if (cidr->addr.family != addr->family)
        return false;
    struct net_cidr c = net_cidr_of(addr, cidr->prefix);
    return net_addr_equal(&c.addr, &cidr->addr);
}

bool net_cidr_overlap(const struct net_cidr *a, const struct net_cidr *b)
{
    return a->prefix <= b->prefix ? net_cidr_contains(a, &b->addr) : net_cidr_contains(b, &a->addr);
}

/* Of the whole pool's addresses, in blocks of 2^shift. */
static uint64_t count(const struct net_cidr *pool, unsigned shift)
{
    const unsigned bits = net_addr_bits(pool->addr.family) - pool->prefix;

    if (bits < shift)
        return 0;
    return bits - shift >= 62 ? COUNT_MAX : UINT64_C(1) << (bits - shift);
}

uint64_t net_pool_hosts(const struct net_cidr *pool)
{
    const uint64_t all = count(pool, 0);

    return all > 2 ? all - 2 : 0;
}

uint64_t net_pool_pairs(const struct net_cidr *pool)
{
    return count(pool, 2);
}

struct net_addr net_pool_host(const struct net_cidr *pool, uint64_t i)
{
    struct net_addr a = pool->addr;
    int rc = net_addr_add(&pool->addr, i + 1, &a);

    assert(rc == 0 && i < net_pool_hosts(pool));
    (void)rc;
    return a;
}

void net_pool_pair(const struct net_cidr *pool, uint64_t i, struct net_addr *ret_inside,
                   struct net_addr *ret_outside)
{
    /* i * 4 may pass 64 bits only beyond COUNT_MAX. */
    int rc = net_addr_add(&pool->addr, i * 4 + 1, ret_inside);

    assert(rc == 0 && i < net_pool_pairs(pool));
    rc = net_addr_add(&pool->addr, i * 4 + 2, ret_outside);
    assert(rc == 0);
    (void)rc;
}
