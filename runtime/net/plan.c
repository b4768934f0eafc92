// SPDX-License-Identifier: Apache-2.0
/* plan.c - drafter-nat's options, checked, and the names and addresses that follow from them */
#include "runtime/net/plan.h"

#include <stdio.h>
#include <string.h>

#include "runtime/base/parse.h"

/* Upstream's bound, where the number is not given. */
#define COUNT_DEFAULT_MAX 256

bool plan_link_name(const char *name)
{
    const size_t len = strlen(name);

    return len > 0 && len < IFNAMSIZ && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == len;
}

static int parse_mac(const char *text, uint8_t mac[6], struct error *err)
{
    bool good = strlen(text) == 17;

    for (unsigned i = 0; good && i < 6; i++)
        good = parse_hex(text + i * 3, 2, mac + i, 1) == 0 && (i == 5 || text[i * 3 + 2] == ':');
    if (!good || (mac[0] & 1))
        return error_set(err, ERROR_USAGE,
                         "--namespace-interface-mac: \"%s\" is not the address of one link; write "
                         "it like 02:0e:d9:fd:68:3d",
                         text);
    return 0;
}

/* A list with commas. */
static int parse_blocked(const char *list, int family, const char *what, struct plan_family *f,
                         struct error *err)
{
    while (list && *list) {
        const size_t len = strcspn(list, ",");
        char one[NET_CIDR_TEXT_MAX + 1];

        if (f->n_blocked == PLAN_BLOCKED_MAX)
            return error_set(err, ERROR_USAGE, "%s: more than %d subnets", what, PLAN_BLOCKED_MAX);
        (void)snprintf(one, sizeof(one), "%.*s", (int)(len < sizeof(one) ? len : sizeof(one)),
                       list);
        if (net_cidr_parse(one, family, what, &f->blocked[f->n_blocked], err) < 0)
            return error_usage(err);
        f->n_blocked++;
        list += len + (list[len] == ',');
    }
    return 0;
}

static int refuse_overlap(const struct net_cidr *a, const char *a_name, const struct net_cidr *b,
                          const char *b_name, struct error *err)
{
    char at[NET_CIDR_TEXT_MAX], bt[NET_CIDR_TEXT_MAX];

    if (!net_cidr_overlap(a, b))
        return 0;
    return error_set(err, ERROR_USAGE, "%s %s and %s %s overlap", a_name, net_cidr_format(a, at),
                     b_name, net_cidr_format(b, bt));
}

/* The texts of one family's options, with their names. */
struct family_options {
    int family;
    const char *pairs, *hosts, *blocked, *gateway, *guest;
    uint64_t netmask;
    const char *pairs_name, *hosts_name, *blocked_name, *gateway_name, *guest_name, *netmask_name;
};

static int parse_guest(const struct family_options *o, struct plan_family *f, struct error *err)
{
    if (net_addr_parse(o->gateway, o->family, o->gateway_name, &f->gateway, err) < 0 ||
        net_addr_parse(o->guest, o->family, o->guest_name, &f->guest, err) < 0)
        return error_usage(err);
    if (o->netmask > net_addr_bits(o->family))
        return error_set(err, ERROR_USAGE, "%s %u is longer than %u bits", o->netmask_name,
                         (unsigned)o->netmask, net_addr_bits(o->family));
    f->guest_prefix = (unsigned)o->netmask;
    const struct net_cidr net = net_cidr_of(&f->gateway, f->guest_prefix);
    if (!net_cidr_contains(&net, &f->guest) || net_addr_equal(&f->gateway, &f->guest))
        return error_set(err, ERROR_USAGE,
                         "%s %s: must be another address of the same subnet as %s %s/%u",
                         o->guest_name, o->guest, o->gateway_name, o->gateway, f->guest_prefix);
    if (refuse_overlap(&net, o->gateway_name, &f->pairs, o->pairs_name, err) < 0)
        return -1;
    return refuse_overlap(&net, o->gateway_name, &f->hosts, o->hosts_name, err);
}

static int parse_family(const struct family_options *o, struct plan_family *f, struct error *err)
{
    f->on = true;
    if (net_cidr_parse(o->pairs, o->family, o->pairs_name, &f->pairs, err) < 0 ||
        net_cidr_parse(o->hosts, o->family, o->hosts_name, &f->hosts, err) < 0)
        return error_usage(err);
    if (refuse_overlap(&f->pairs, o->pairs_name, &f->hosts, o->hosts_name, err) < 0 ||
        parse_guest(o, f, err) < 0)
        return -1;
    return parse_blocked(o->blocked, o->family, o->blocked_name, f, err);
}

static int check_pools(const struct family_options *o, const struct plan_family *f, size_t count,
                       struct error *err)
{
    const uint64_t hosts = net_pool_hosts(&f->hosts), pairs = net_pool_pairs(&f->pairs);
    char text[NET_CIDR_TEXT_MAX];

    if (hosts < count)
        return error_set(err, ERROR_USAGE,
                         "%s %s has %u addresses, %zu namespaces need %zu; take a larger one, or "
                         "fewer --namespaces",
                         o->hosts_name, net_cidr_format(&f->hosts, text), (unsigned)hosts, count,
                         count);
    if (pairs < count)
        return error_set(err, ERROR_USAGE,
                         "%s %s has room for %u pairs of addresses, %zu namespaces need %zu; take "
                         "a larger one, or fewer --namespaces",
                         o->pairs_name, net_cidr_format(&f->pairs, text), (unsigned)pairs, count,
                         count);
    return 0;
}

static int check_names(const struct net_nat_options *o, struct plan *p, struct error *err)
{
    char last[NET_NAME_MAX + 32];

    if (o->host_interface && *o->host_interface && !plan_link_name(o->host_interface))
        return error_set(err, ERROR_USAGE, "--host-interface: \"%s\" is not the name of a link",
                         o->host_interface);
    if (!plan_link_name(o->namespace_interface) || strcmp(o->namespace_interface, "lo") == 0)
        return error_set(err, ERROR_USAGE, "--namespace-interface: \"%s\" is not a name for a link",
                         o->namespace_interface);
    (void)snprintf(p->tap, sizeof(p->tap), "%s", o->namespace_interface);
    (void)snprintf(last, sizeof(last), "%.32s%zu-veth0", o->namespace_prefix, p->count - 1);
    if (!plan_link_name(o->namespace_prefix) || !plan_link_name(last))
        return error_set(err, ERROR_USAGE,
                         "--namespace-prefix: \"%s\" is not a name, or with it \"%s\" is longer "
                         "than a link's name may be (%d)",
                         o->namespace_prefix, last, IFNAMSIZ - 1);
    (void)snprintf(p->prefix, sizeof(p->prefix), "%s", o->namespace_prefix);
    return 0;
}

int plan_make(const struct net_nat_options *o, struct plan *ret, struct error *err)
{
    const struct family_options families[2] = {
        {.family = AF_INET,
         .pairs = o->host_veth_cidr,
         .pairs_name = "--host-veth-cidr",
         .hosts = o->namespace_veth_cidr,
         .hosts_name = "--namespace-veth-cidr",
         .blocked = o->blocked_subnet_cidr,
         .blocked_name = "--blocked-subnet-cidr",
         .gateway = o->namespace_interface_gateway,
         .gateway_name = "--namespace-interface-gateway",
         .netmask = o->namespace_interface_netmask,
         .netmask_name = "--namespace-interface-netmask",
         .guest = o->namespace_interface_ip,
         .guest_name = "--namespace-interface-ip"},
        {.family = AF_INET6,
         .pairs = o->host_veth_cidr6,
         .pairs_name = "--host-veth-cidr6",
         .hosts = o->namespace_veth_cidr6,
         .hosts_name = "--namespace-veth-cidr6",
         .blocked = o->blocked_subnet_cidr6,
         .blocked_name = "--blocked-subnet-cidr6",
         .gateway = o->namespace_interface_gateway6,
         .gateway_name = "--namespace-interface-gateway6",
         .netmask = o->namespace_interface_netmask6,
         .netmask_name = "--namespace-interface-netmask6",
         .guest = o->namespace_interface_ip6,
         .guest_name = "--namespace-interface-ip6"},
    };
    struct plan p = {.allow_incoming = o->allow_incoming_traffic, .count = o->namespaces};

    for (int i = 0; i < (o->ipv6 ? 2 : 1); i++)
        if (parse_family(&families[i], &p.family[i], err) < 0)
            return -1;
    p.family[0].masquerade = true;
    p.family[1].masquerade = !o->ipv6_routed;
    if (p.count == 0) {
        const uint64_t hosts = net_pool_hosts(&p.family[0].hosts);
        p.count = hosts < COUNT_DEFAULT_MAX ? (size_t)hosts : COUNT_DEFAULT_MAX;
        if (p.count == 0)
            p.count = 1; /* for which the pool is too small */
    }
    if (p.count > NET_NAMESPACES_MAX)
        return error_set(err, ERROR_USAGE, "--namespaces: more than %d", NET_NAMESPACES_MAX);
    for (int i = 0; i < 2; i++)
        if (p.family[i].on && check_pools(&families[i], &p.family[i], p.count, err) < 0)
            return -1;
    if (check_names(o, &p, err) < 0 || parse_mac(o->namespace_interface_mac, p.mac, err) < 0)
        return -1;
    *ret = p;
    return 0;
}

struct plan_addresses plan_addresses(const struct plan_family *f, size_t i)
{
    struct plan_addresses a;

    net_pool_pair(&f->pairs, i, &a.inside, &a.outside);
    a.host = net_pool_host(&f->hosts, i);
    return a;
}

void plan_name(const struct plan *p, size_t i, char buf[NET_NAME_MAX])
{
    (void)snprintf(buf, NET_NAME_MAX, "%.32s%zu", p->prefix, i);
}

void plan_veth(const struct plan *p, size_t i, int end, char buf[IFNAMSIZ])
{
    char name[NET_NAME_MAX];

    plan_name(p, i, name);
    (void)snprintf(buf, IFNAMSIZ, "%.9s-veth%d", name, end);
}
