/* SPDX-License-Identifier: Apache-2.0 */
/* address.h - IPv4 and IPv6 addresses, prefixes, and the pools that namespaces are numbered from
 *
 * Pure arithmetic: no sockets, no names. Texts as in RFC 4291 section 2.2 and RFC 4632 section 3.1.
 */
#ifndef RUNTIME_NET_ADDRESS_H
#define RUNTIME_NET_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "runtime/base/error.h"

#define NET_ADDR_TEXT_MAX 46 /* with the NUL, as INET6_ADDRSTRLEN */
#define NET_CIDR_TEXT_MAX 50

/* bytes: in network order, the first 4 or all 16; what is not used is zero, so that two equal
 * addresses are equal as memory. */
struct net_addr {
    int family; /* AF_INET or AF_INET6 */
    uint8_t bytes[16];
};

/* The bits of addr beyond prefix are zero. */
struct net_cidr {
    struct net_addr addr;
    unsigned prefix;
};

/* 32 or 128. */
unsigned net_addr_bits(int family);

/* family: AF_UNSPEC takes both. `what` names the value in the error. Returns 0. */
int net_addr_parse(const char *text, int family, const char *what, struct net_addr *ret,
                   struct error *err);
const char *net_addr_format(const struct net_addr *addr, char buf[NET_ADDR_TEXT_MAX]);
bool net_addr_equal(const struct net_addr *a, const struct net_addr *b);
/* By family, then as a number: <0, 0, >0. */
int net_addr_compare(const struct net_addr *a, const struct net_addr *b);
/* 127.0.0.0/8 or ::1. */
bool net_addr_is_loopback(const struct net_addr *addr);
/* 0.0.0.0 or ::. */
bool net_addr_is_any(const struct net_addr *addr);

/* addr + n. Returns 0, or -1 (without an error text) when that leaves the address space. */
int net_addr_add(const struct net_addr *addr, uint64_t n, struct net_addr *ret);

/* "10.0.8.0/22". A prefix with bits set beyond its length is refused, with the one that was meant
 * in the text. Returns 0. */
int net_cidr_parse(const char *text, int family, const char *what, struct net_cidr *ret,
                   struct error *err);
const char *net_cidr_format(const struct net_cidr *cidr, char buf[NET_CIDR_TEXT_MAX]);
/* The prefix of that length an address lies in. */
struct net_cidr net_cidr_of(const struct net_addr *addr, unsigned prefix);
bool net_cidr_contains(const struct net_cidr *cidr, const struct net_addr *addr);
bool net_cidr_overlap(const struct net_cidr *a, const struct net_cidr *b);

/* How many single addresses a pool holds without its first and last (network and broadcast; in IPv6
 * the subnet-router anycast address), and how many pairs: prefixes of four addresses (/30, /126).
 * Both stop counting at 2^62. */
uint64_t net_pool_hosts(const struct net_cidr *pool);
uint64_t net_pool_pairs(const struct net_cidr *pool);

/* The i-th of them; i below the count (asserted). Of a pair, the first address is for the inside,
 * the second for the outside. */
struct net_addr net_pool_host(const struct net_cidr *pool, uint64_t i);
void net_pool_pair(const struct net_cidr *pool, uint64_t i, struct net_addr *ret_inside,
                   struct net_addr *ret_outside);

#endif
