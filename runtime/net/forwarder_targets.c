// SPDX-License-Identifier: Apache-2.0
/* forwarder_targets.c - the namespaces that forwards lead to, and loopback on the way to them */
#include "runtime/net/forwarder_targets.h"

#include <stdio.h>
#include <string.h>

#include "runtime/net/netlink.h"

struct look {
    const struct net_cidr *pools;
    struct target *t;
};

/* Inside the namespace: its address in our pools, and its link's other end. */
static int look_inside(void *opaque, struct error *err)
{
    const struct look *l = opaque;
    cleanup_nl struct nl *nl = nl_new(err);
    cleanup_free struct nl_address_info *all = NULL;
    size_t count;
    int link = 0;

    if (!nl || nl_addresses(nl, &all, &count, err) < 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        const int v = all[i].addr.family == AF_INET6;

        if (l->t->has[v] || !net_cidr_contains(&l->pools[v], &all[i].addr))
            continue;
        l->t->has[v] = true;
        l->t->addr[v] = all[i].addr;
        link = all[i].index;
    }
    if (link == 0) {
        char a[NET_CIDR_TEXT_MAX], b[NET_CIDR_TEXT_MAX];

        return error_set(err, EADDRNOTAVAIL,
                         "network namespace %s has no address in --host-veth-cidr %s or "
                         "--host-veth-cidr6 %s; give those that drafter-nat was given",
                         l->t->netns, net_cidr_format(&l->pools[0], a),
                         net_cidr_format(&l->pools[1], b));
    }
    return nl_peer_index(nl, link, &l->t->veth, err);
}

int forwarder_target_find(const struct net_cidr pools[2], struct targets *targets,
                          const char *netns, struct target **ret, struct error *err)
{
    for (size_t i = targets->count; i-- > 0;) {
        if (strcmp(targets->items[i].netns, netns) == 0) {
            *ret = &targets->items[i];
            return 0;
        }
    }
    struct target *more = reallocarray(targets->items, targets->count + 1, sizeof(*targets->items));
    if (!more)
        return error_oom(err);
    targets->items = more;
    struct target *t = &more[targets->count];
    struct look l = {.pools = pools, .t = t};
    *t = (struct target){0};
    memcpy(t->netns, netns, strnlen(netns, sizeof(t->netns) - 1));
    cleanup_close int fd = net_open_namespace(netns, err);
    if (fd < 0 || net_run_in(fd, look_inside, &l, err) < 0)
        return -1;
    if (t->veth > 0 && !if_indextoname((unsigned)t->veth, t->veth_name))
        t->veth = 0; /* its other end is elsewhere: no loopback forwards, else well */
    targets->count++;
    *ret = t;
    return 0;
}

int forwarder_targets_open(uint64_t host, struct targets *targets, struct error *err)
{
    cleanup_nl struct nl *nl = nl_new(err);

    if (!nl)
        return -1;
    for (size_t i = 0; i < targets->count; i++) {
        struct target *t = &targets->items[i];
        char name[64];

        if (t->veth == 0 || !(t->loopback[0] || t->loopback[1]))
            continue;
        (void)snprintf(name, sizeof(name), "net/ipv4/conf/%s/route_localnet", t->veth_name);
        if (hold_sysctl(host, name, "1", &t->hold, err) < 0)
            return -1;
        if (t->loopback[1]) {
            nl_loopback_route(nl, t->veth, true);
            if (nl_flush(nl, err) < 0)
                return -1;
        }
    }
    return 0;
}

int forwarder_targets_release(struct targets *targets, struct error *err)
{
    cleanup_nl struct nl *nl = NULL;
    struct error why;
    int rc = 0, last;

    for (size_t i = 0; i < targets->count; i++) {
        struct target *t = &targets->items[i];

        if (!t->hold)
            continue;
        if (hold_release(t->hold, &last, &why) < 0 && rc == 0)
            rc = error_set(err, why.code, "%s", why.text);
        t->hold = NULL;
        const int index = last ? (int)if_nametoindex(t->veth_name) : 0;
        if (index == 0 || !(nl || (nl = nl_new(&why))))
            continue;
        nl_loopback_route(nl, index, false);
        if (nl_flush(nl, &why) < 0 && rc == 0)
            rc = error_set(err, why.code, "%s", why.text);
    }
    free(targets->items);
    *targets = (struct targets){0};
    return rc;
}
