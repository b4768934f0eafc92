/* SPDX-License-Identifier: Apache-2.0 */
/* forwarder_targets.h - the namespaces that forwards lead to; not for outside this module
 *
 * Theory of operation: a packet from 127.0.0.1 may leave by a veth, and its answer come back, only
 * with route_localnet on that veth; the answer to ::1 needs a local route by way of it. Both are
 * there only for a namespace that a loopback or wildcard forward leads to. What comes from outside
 * for a loopback address is dropped before anything is translated back (forwarder.c), so neither
 * opens the host's loopback to a guest.
 */
#ifndef RUNTIME_NET_FORWARDER_TARGETS_H
#define RUNTIME_NET_FORWARDER_TARGETS_H

#include <net/if.h>

#include "runtime/net/hold.h"
#include "runtime/net/net.h"

/* A namespace that forwards lead to. */
struct target {
    char netns[NET_NAME_MAX];
    bool has[2];
    struct net_addr addr[2]; /* of its veth: IPv4, IPv6 */
    int veth;                /* the other end's index on the host */
    char veth_name[IFNAMSIZ];
    bool loopback[2]; /* a loopback or wildcard forward leads here */
    struct hold *hold;
};

struct targets {
    struct target *items;
    size_t count;
};

/* The target of that name, looked up in the namespace unless it is in the list already. pools:
 * where the addresses lie that a namespace is reached by, IPv4 and IPv6. *ret: valid until the next
 * call. Returns 0, or -1 (ENOENT: no such namespace; EADDRNOTAVAIL: none of its addresses is in the
 * pools). */
int forwarder_target_find(const struct net_cidr pools[2], struct targets *targets,
                          const char *netns, struct target **ret, struct error *err);

/* Lets loopback addresses pass over the veths that need it. host: cookie. Returns 0; what was done
 * is undone by forwarder_targets_release() in any case. */
int forwarder_targets_open(uint64_t host, struct targets *targets, struct error *err);

/* Undoes that, where nobody else needs it, and empties the list. Returns 0, or -1 with the first
 * failure. */
int forwarder_targets_release(struct targets *targets, struct error *err);

#endif
