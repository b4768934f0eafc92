/* SPDX-License-Identifier: Apache-2.0 */
/* netlink.h - rtnetlink (rtnetlink(7)): messages are queued, then sent and acknowledged as one
 * batch */
#ifndef RUNTIME_NET_NETLINK_H
#define RUNTIME_NET_NETLINK_H

#include <linux/netlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/cleanup.h"
#include "runtime/net/address.h"

#define NL_BATCH_MAX 16     /* messages in a batch */
#define NL_BUFFER_SIZE 8192 /* bytes in a batch; a message of ours has 300 at most */

struct nl {
    struct mnl_socket *socket; /* bound to the namespace it was opened in */
    uint32_t seq;              /* of the first queued message */
    unsigned queued;
    size_t used;
    struct {
        char act[80];  /* for the error text */
        int tolerated; /* an errno that is no failure, 0 = none */
    } acts[NL_BATCH_MAX];
    char buffer[NL_BUFFER_SIZE] __attribute__((aligned(16)));
    char reply[NL_BUFFER_SIZE * 4] __attribute__((aligned(16)));
};

/* In the thread's network namespace. The caller owns the result: nl_free(). Not for two threads. */
struct nl *nl_new(struct error *err);
void nl_free(struct nl *nl);
DEFINE_CLEANUP(cleanup_nl_p, struct nl *, nl_free)
#define cleanup_nl CLEANUP(cleanup_nl_p)

/* These queue one message each; a full batch is an assertion (batches are of fixed content). */
/* A veth pair: `name` here, `peer` in namespace peer_fd with link group `group`. */
void nl_veth(struct nl *nl, const char *name, const char *peer, int peer_fd, uint32_t group);
/* No link-local address of the kernel's making (IN6_ADDR_GEN_MODE_NONE). */
void nl_no_link_local(struct nl *nl, int index);
/* mac: 6 bytes, or NULL. */
void nl_up(struct nl *nl, int index, const uint8_t *mac);
/* Adds or replaces; an IPv6 address is usable at once (IFA_F_NODAD). */
void nl_address(struct nl *nl, int index, const struct net_addr *addr, unsigned prefix);
void nl_address_delete(struct nl *nl, int index, const struct net_addr *addr, unsigned prefix);
/* via NULL: on link. dst->prefix 0: the default route. */
void nl_route(struct nl *nl, const struct net_cidr *dst, const struct net_addr *via, int index);
/* A route of type local to ::1 by way of a link, behind all others; deleting tolerates its absence.
 */
void nl_loopback_route(struct nl *nl, int index, bool add);
/* Deletes a link; absence is tolerated. */
void nl_link_delete(struct nl *nl, const char *name);
/* Deletes all links of a group in one go; their absence is tolerated. */
void nl_group_delete(struct nl *nl, uint32_t group);

/* Sends the batch and takes its acknowledgements. Returns 0, or -1 with the first failure; later
 * messages were carried out all the same. */
int nl_flush(struct nl *nl, struct error *err);

/* 0 when there is none of that name. */
int nl_link_index(struct nl *nl, const char *name);

/* Calls take() with each message of a dump until it returns non-zero. Returns 0. */
int nl_dump(struct nl *nl, uint16_t type, int family,
            int (*take)(const struct nlmsghdr *h, void *opaque), void *opaque, struct error *err);

struct nl_address_info {
    struct net_addr addr;
    unsigned prefix;
    int index;
};
/* All addresses. The caller frees *ret. Returns 0. */
int nl_addresses(struct nl *nl, struct nl_address_info **ret, size_t *ret_count, struct error *err);
/* The link that the default route of a family with the least metric leads to; *ret_index 0 = none.
 */
int nl_default_link(struct nl *nl, int family, int *ret_index, struct error *err);
/* The other end's index of a veth (IFLA_LINK); 0 when it has none. */
int nl_peer_index(struct nl *nl, int index, int *ret_peer, struct error *err);

#endif
