/* SPDX-License-Identifier: Apache-2.0 */
/* plan.h - drafter-nat's options, checked, and the names, addresses and rules that follow from them
 *
 * Pure: nothing of the host is looked at or changed.
 */
#ifndef RUNTIME_NET_PLAN_H
#define RUNTIME_NET_PLAN_H

#include <net/if.h>

#include "runtime/net/net.h"

#define PLAN_BLOCKED_MAX 64

/* What there is of each family. */
struct plan_family {
    bool on;
    struct net_cidr pairs;   /* veths: one prefix of four addresses for each namespace */
    struct net_cidr hosts;   /* one address for each namespace, as which its guest goes out */
    struct net_addr gateway; /* on the tap */
    struct net_addr guest;
    unsigned guest_prefix;
    struct net_cidr blocked[PLAN_BLOCKED_MAX];
    size_t n_blocked;
    bool masquerade;
    char uplink[IFNAMSIZ]; /* filled in by who looks at the host */
};

struct plan {
    struct plan_family family[2]; /* IPv4, IPv6 */
    char prefix[NET_NAME_MAX];
    char tap[IFNAMSIZ];
    uint8_t mac[6];
    bool allow_incoming;
    size_t count;
};

/* The addresses of one namespace in one family. */
struct plan_addresses {
    struct net_addr inside, outside; /* of the veths */
    struct net_addr host;            /* as which the guest goes out */
};

/* Returns 0, or -1: ERROR_USAGE, the text names the option. */
int plan_make(const struct net_nat_options *options, struct plan *ret, struct error *err);

struct plan_addresses plan_addresses(const struct plan_family *f, size_t i);
void plan_name(const struct plan *p, size_t i, char buf[NET_NAME_MAX]);
/* Name of the i-th namespace's veth: inside 0, on the host 1. */
void plan_veth(const struct plan *p, size_t i, int end, char buf[IFNAMSIZ]);

/* The rules as nft(8) takes them: for the host, and for the i-th namespace (kept: it may have rules
 * already, which they replace). The caller frees them. NULL when out of memory. */
char *plan_host_rules(const struct plan *p);
char *plan_namespace_rules(const struct plan *p, size_t i, bool kept);

#define PLAN_HOST_TABLE "inet drafter_nat"
#define PLAN_NAMESPACE_TABLE "inet drafter_ns"

/* A name of a link that can stand in rules and paths: [A-Za-z0-9_.-]{1,15}, no "." or "..". */
bool plan_link_name(const char *name);

#endif
