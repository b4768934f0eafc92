/* SPDX-License-Identifier: Apache-2.0 */
/* net.h - a network for many machines on one host: namespaces, taps, NAT, port forwards
 *
 *   guest 172.16.0.2 ── tap0 172.16.0.1 ┊ namespace ark0 ┊ ark0-veth0 10.0.8.1
 *                                                              │
 *   outside ── uplink ┊ host: masquerade, isolation ┊ ark0-veth1 10.0.8.2
 *
 * Every guest has the same addresses, so that a snapshot runs in any namespace of any host; its
 * namespace translates them to one address of its own (10.0.15.1), and the host that one to the
 * uplink's. IPv6 is built alike. A port forward of the host goes to the veth's address, which the
 * namespace translates to the guest's.
 *
 * Theory of operation: links, addresses and routes are made through rtnetlink, rules through
 * libnftables, each act one transaction in a table of ours (inet drafter_nat on the host,
 * inet drafter_ns in a namespace, inet drafter_forwarder_PID); nothing else is touched. Everything
 * is done as seen from the calling thread's network namespace ("the host"). What we made is known
 * by marks that survive us: a host's veths carry the link group NET_LINK_GROUP, a namespace's file
 * in /run/netns stands beside a file in /run/drafter/netns that holds its network cookie, and a
 * changed sysctl's old value stands in /run/drafter. So the next start finds what a killed one
 * left, keeps a namespace that is ours (a machine may still run in it), and never touches one that
 * is not.
 *
 * Needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN) and Linux 5.14 (SO_NETNS_COOKIE).
 */
#ifndef RUNTIME_NET_NET_H
#define RUNTIME_NET_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/context.h"
#include "runtime/base/error.h"
#include "runtime/net/address.h"

#define NET_NAMESPACES_MAX 16384
#define NET_FORWARDS_MAX 65536           /* forwards in one list */
#define NET_FORWARD_PORTS_MAX 65536      /* ports of all of them */
#define NET_FORWARD_TEXT_MAX (16u << 20) /* bytes of a list as JSON */
#define NET_LINK_GROUP 0x64726674u       /* "drft": of the host's end of every veth of ours */
#define NET_NAME_MAX 64                  /* of a namespace, with the NUL */
#define NET_STATE_DIR "/run/drafter"
#define NET_NAMESPACE_DIR "/run/netns"

/* As the options of drafter-nat, which documents them. Strings outlive net_nat_start(). */
struct net_nat_options {
    const char *host_interface; /* NULL or "": where the default route goes */
    const char *host_veth_cidr;
    const char *namespace_veth_cidr;
    const char *blocked_subnet_cidr; /* list with commas; "" = none */
    const char *namespace_interface;
    const char *namespace_interface_gateway;
    uint64_t namespace_interface_netmask;
    const char *namespace_interface_ip;
    const char *namespace_interface_mac;
    const char *namespace_prefix;
    bool allow_incoming_traffic;
    uint64_t namespaces; /* 0: as many as the pool has addresses, at most 256 */
    bool ipv6;
    bool ipv6_routed; /* no masquerading: namespace_veth_cidr6 is routed to this host */
    const char *host_veth_cidr6;
    const char *namespace_veth_cidr6;
    const char *blocked_subnet_cidr6;
    const char *namespace_interface_gateway6;
    uint64_t namespace_interface_netmask6;
    const char *namespace_interface_ip6;
};

struct net_nat;

/* Makes the namespaces and all that belongs to them, or, on failure, nothing (leftovers of a killed
 * run are gone then too). When it returns every namespace works. Malformed options are ERROR_USAGE
 * and name the option; a second instance in the same network namespace is EBUSY. The caller owns
 * the result: net_nat_stop(). Starts threads for the time of the call. */
struct net_nat *net_nat_start(const struct net_nat_options *options, const struct context *ctx,
                              struct error *err);
size_t net_nat_count(const struct net_nat *nat);
/* Takes everything away and frees nat, going on after a failure. Returns 0, or -1 with the first
 * failure. */
int net_nat_stop(struct net_nat *nat, struct error *err);

/* One forward: ports first..first+count-1 of an address (or, any: of all addresses of the host) to
 * ports of the guest in a namespace. */
struct net_forward {
    char netns[NET_NAME_MAX];
    int protocol;         /* IPPROTO_TCP or IPPROTO_UDP */
    bool both;            /* addresses of both families, as far as the namespace has them */
    struct net_addr addr; /* may be the wildcard */
    uint16_t first, count, internal;
};

struct net_forwards {
    struct net_forward *items;
    size_t count;
};

/* A JSON array as drafter-forwarder's --port-forwards takes it; `what` names it in errors. Appends
 * to *list. Returns 0. */
int net_forwards_parse(const char *json, size_t len, const char *what, struct net_forwards *list,
                       struct error *err);
/* "[ADDRESS:]PORT[-PORT]:PORT[-PORT][/PROTOCOL]@NETNS". Appends to *list. Returns 0. */
int net_forwards_parse_short(const char *text, const char *what, struct net_forwards *list,
                             struct error *err);
/* Writes it as the short form. */
const char *net_forward_format(const struct net_forward *f, char *buf, size_t size);
/* Refuses a list in which two forwards want the same port, naming both. Returns 0. */
int net_forwards_check(const struct net_forwards *list, struct error *err);
void net_forwards_free(struct net_forwards *list); /* a zeroed one is fine */
#define cleanup_forwards CLEANUP(net_forwards_free)

struct net_forwarder;

/* A forwarder without forwards. host_veth_cidr, host_veth_cidr6: the pools in which the addresses
 * lie that a namespace is reached by. The caller owns the result: net_forwarder_stop(). Its rules
 * end with the process however that ends. For one thread at a time. */
struct net_forwarder *net_forwarder_start(const char *host_veth_cidr, const char *host_veth_cidr6,
                                          const struct context *ctx, struct error *err);
/* Makes `list` the forwards that are in force, in one transaction: what was there before and is in
 * the list stays untouched, but for what loopback addresses need on links, which is made again.
 * Every port is held by a socket, one open file each; a port in use is EADDRINUSE, a namespace that
 * is not there ENOENT. On failure everything is as it was. */
int net_forwarder_apply(struct net_forwarder *fw, const struct net_forwards *list,
                        struct error *err);
/* Ports in force. */
size_t net_forwarder_count(const struct net_forwarder *fw);
/* NULL is fine. Returns 0, or -1 when a sysctl could not be set back. */
int net_forwarder_stop(struct net_forwarder *fw, struct error *err);

/* A descriptor that becomes readable when a link of the thread's network namespace comes or
 * changes. The caller closes it. -1 on failure. */
int net_watch_links(struct error *err);
/* Takes what the descriptor has, without waiting. Returns whether a veth of drafter-nat was among
 * it: it may have been made anew, so net_forwarder_apply() should be called again. */
bool net_links_changed(int fd);

/* Runs fn in a thread of its own inside the network namespace netns_fd; the caller's thread stays
 * where it is. Returns what fn does. */
int net_run_in(int netns_fd, int (*fn)(void *opaque, struct error *err), void *opaque,
               struct error *err);
/* An fd of the namespace of that name, as `ip netns` names them; ENOENT when there is none. */
int net_open_namespace(const char *name, struct error *err);

#endif
