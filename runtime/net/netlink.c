// SPDX-License-Identifier: Apache-2.0
/* netlink.c - rtnetlink (rtnetlink(7)): messages are queued, then sent and acknowledged as one
 * batch */
#include "runtime/net/netlink.h"

#include <assert.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

/* IN6_ADDR_GEN_MODE_NONE of linux/if_link.h, behind all routes of the kernel's own. */
#define LOOPBACK_METRIC 1024

struct nl *nl_new(struct error *err)
{
    CLEANUP(cleanup_free_p) struct nl *nl = calloc(1, sizeof(*nl));
    const int one = 1;

    if (!nl) {
        error_oom(err);
        return NULL;
    }
    nl->socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
    if (!nl->socket) {
        error_sys(err, "open a netlink socket");
        return NULL;
    }
    if (mnl_socket_bind(nl->socket, 0, MNL_SOCKET_AUTOPID) < 0) {
        error_sys(err, "bind a netlink socket");
        (void)mnl_socket_close(nl->socket);
        return NULL;
    }
    /* Both only make answers shorter or clearer; a kernel without them works too. */
    (void)mnl_socket_setsockopt(nl->socket, NETLINK_CAP_ACK, (void *)&one, sizeof(one));
    (void)mnl_socket_setsockopt(nl->socket, NETLINK_EXT_ACK, (void *)&one, sizeof(one));
    nl->seq = 1;
    return steal_ptr(&nl);
}

void nl_free(struct nl *nl)
{
    if (!nl)
        return;
    (void)mnl_socket_close(nl->socket);
    free(nl);
}

__attribute__((format(printf, 4, 5))) static struct nlmsghdr *
queue(struct nl *nl, uint16_t type, uint16_t flags, const char *act, ...)
{
    struct nlmsghdr *h;
    va_list ap;

    assert(nl->queued < NL_BATCH_MAX && nl->used + 1024 < sizeof(nl->buffer));
    h = mnl_nlmsg_put_header(nl->buffer + nl->used);
    h->nlmsg_type = type;
    h->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    h->nlmsg_seq = nl->seq + nl->queued;
    va_start(ap, act);
    (void)vsnprintf(nl->acts[nl->queued].act, sizeof(nl->acts[0].act), act, ap);
    va_end(ap);
    nl->acts[nl->queued].tolerated = 0;
    return h;
}

static void queued(struct nl *nl, const struct nlmsghdr *h, int tolerated)
{
    nl->acts[nl->queued++].tolerated = tolerated;
    nl->used += MNL_ALIGN(h->nlmsg_len);
}

static size_t addr_size(const struct net_addr *addr)
{
    return net_addr_bits(addr->family) / 8;
}

static void put_addr(struct nlmsghdr *h, uint16_t attr, const struct net_addr *addr)
{
    mnl_attr_put(h, attr, addr_size(addr), addr->bytes);
}

static struct ifinfomsg *put_link(struct nlmsghdr *h, int index)
{
    struct ifinfomsg *i = mnl_nlmsg_put_extra_header(h, sizeof(*i));

    i->ifi_family = AF_UNSPEC;
    i->ifi_index = index;
    return i;
}

void nl_veth(struct nl *nl, const char *name, const char *peer, int peer_fd, uint32_t group)
{
    struct nlmsghdr *h =
        queue(nl, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, "make the links %s and %s", name, peer);

    put_link(h, 0);
    mnl_attr_put_strz(h, IFLA_IFNAME, name);
    struct nlattr *info = mnl_attr_nest_start(h, IFLA_LINKINFO);
    mnl_attr_put_strz(h, IFLA_INFO_KIND, "veth");
    struct nlattr *data = mnl_attr_nest_start(h, IFLA_INFO_DATA);
    struct nlattr *other = mnl_attr_nest_start(h, VETH_INFO_PEER);
    put_link(h, 0);
    mnl_attr_put_strz(h, IFLA_IFNAME, peer);
    mnl_attr_put_u32(h, IFLA_NET_NS_FD, (uint32_t)peer_fd);
    mnl_attr_put_u32(h, IFLA_GROUP, group);
    mnl_attr_nest_end(h, other);
    mnl_attr_nest_end(h, data);
    mnl_attr_nest_end(h, info);
    queued(nl, h, 0);
}

void nl_no_link_local(struct nl *nl, int index)
{
    struct nlmsghdr *h = queue(nl, RTM_NEWLINK, 0, "set the address mode of link %d", index);

    put_link(h, index);
    struct nlattr *spec = mnl_attr_nest_start(h, IFLA_AF_SPEC);
    struct nlattr *inet6 = mnl_attr_nest_start(h, AF_INET6);
    mnl_attr_put_u8(h, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
    mnl_attr_nest_end(h, inet6);
    mnl_attr_nest_end(h, spec);
    queued(nl, h, EAFNOSUPPORT);
}

void nl_up(struct nl *nl, int index, const uint8_t *mac)
{
    struct nlmsghdr *h = queue(nl, RTM_NEWLINK, 0, "set link %d up", index);
    struct ifinfomsg *i = put_link(h, index);

    i->ifi_flags = IFF_UP;
    i->ifi_change = IFF_UP;
    if (mac)
        mnl_attr_put(h, IFLA_ADDRESS, 6, mac);
    queued(nl, h, 0);
}

static void address(struct nl *nl, struct nlmsghdr *h, int index, const struct net_addr *addr,
                    unsigned prefix, int tolerated)
{
    struct ifaddrmsg *a = mnl_nlmsg_put_extra_header(h, sizeof(*a));

    a->ifa_family = (uint8_t)addr->family;
    a->ifa_prefixlen = (uint8_t)prefix;
    a->ifa_index = (uint32_t)index;
    if (addr->family == AF_INET6)
        a->ifa_flags = IFA_F_NODAD;
    put_addr(h, IFA_LOCAL, addr);
    put_addr(h, IFA_ADDRESS, addr);
    queued(nl, h, tolerated);
}

void nl_address(struct nl *nl, int index, const struct net_addr *addr, unsigned prefix)
{
    char text[NET_ADDR_TEXT_MAX];

    address(nl,
            queue(nl, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, "add address %s/%u",
                  net_addr_format(addr, text), prefix),
            index, addr, prefix, 0);
}

void nl_address_delete(struct nl *nl, int index, const struct net_addr *addr, unsigned prefix)
{
    char text[NET_ADDR_TEXT_MAX];

    address(nl,
            queue(nl, RTM_DELADDR, 0, "delete address %s/%u", net_addr_format(addr, text), prefix),
            index, addr, prefix, EADDRNOTAVAIL);
}

static struct rtmsg *put_route(struct nlmsghdr *h, int family, unsigned dst_len)
{
    struct rtmsg *r = mnl_nlmsg_put_extra_header(h, sizeof(*r));

    r->rtm_family = (uint8_t)family;
    r->rtm_dst_len = (uint8_t)dst_len;
    r->rtm_table = RT_TABLE_MAIN;
    r->rtm_protocol = RTPROT_STATIC;
    r->rtm_scope = RT_SCOPE_UNIVERSE;
    r->rtm_type = RTN_UNICAST;
    return r;
}

void nl_route(struct nl *nl, const struct net_cidr *dst, const struct net_addr *via, int index)
{
    char text[NET_CIDR_TEXT_MAX];
    struct nlmsghdr *h = queue(nl, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE,
                               "add the route to %s", net_cidr_format(dst, text));
    struct rtmsg *r = put_route(h, dst->addr.family, dst->prefix);

    if (!via)
        r->rtm_scope = RT_SCOPE_LINK;
    if (dst->prefix > 0)
        put_addr(h, RTA_DST, &dst->addr);
    if (via)
        put_addr(h, RTA_GATEWAY, via);
    mnl_attr_put_u32(h, RTA_OIF, (uint32_t)index);
    queued(nl, h, 0);
}

void nl_loopback_route(struct nl *nl, int index, bool add)
{
    struct net_addr one = {.family = AF_INET6, .bytes = {[15] = 1}};
    struct nlmsghdr *h =
        queue(nl, add ? RTM_NEWROUTE : RTM_DELROUTE, add ? NLM_F_CREATE | NLM_F_REPLACE : 0,
              "%s the route from link %d to ::1", add ? "add" : "delete", index);
    struct rtmsg *r = put_route(h, AF_INET6, 128);

    r->rtm_table = RT_TABLE_LOCAL;
    r->rtm_type = RTN_LOCAL;
    put_addr(h, RTA_DST, &one);
    mnl_attr_put_u32(h, RTA_OIF, (uint32_t)index);
    mnl_attr_put_u32(h, RTA_PRIORITY, LOOPBACK_METRIC);
    queued(nl, h, add ? 0 : ESRCH);
}

void nl_link_delete(struct nl *nl, const char *name)
{
    struct nlmsghdr *h = queue(nl, RTM_DELLINK, 0, "delete the link %s", name);

    put_link(h, 0);
    mnl_attr_put_strz(h, IFLA_IFNAME, name);
    queued(nl, h, ENODEV);
}

void nl_group_delete(struct nl *nl, uint32_t group)
{
    struct nlmsghdr *h = queue(nl, RTM_DELLINK, 0, "delete the links of group %u", group);

    put_link(h, 0);
    mnl_attr_put_u32(h, IFLA_GROUP, group);
    queued(nl, h, ENODEV);
}

/* The kernel's own words for a failure (NLMSGERR_ATTR_MSG); "" when it has none. */
static const char *kernel_words(const struct nlmsghdr *h)
{
    const struct nlattr *attr;

    if (!(h->nlmsg_flags & NLM_F_ACK_TLVS))
        return "";
    /* With NETLINK_CAP_ACK only the header of the request comes back. */
    mnl_attr_for_each(attr, h, sizeof(struct nlmsgerr))
    {
        if (mnl_attr_get_type(attr) == NLMSGERR_ATTR_MSG &&
            mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) == 0)
            return mnl_attr_get_str(attr);
    }
    return "";
}

int nl_flush(struct nl *nl, struct error *err)
{
    const uint32_t first = nl->seq;
    const unsigned count = nl->queued;
    unsigned answered = 0;
    int rc = 0;

    if (count == 0)
        return 0;
    ssize_t n = mnl_socket_sendto(nl->socket, nl->buffer, nl->used);
    nl->seq += count;
    nl->queued = 0;
    nl->used = 0;
    if (n < 0)
        return error_sys(err, "%s", nl->acts[0].act);
    while (answered < count) {
        n = mnl_socket_recvfrom(nl->socket, nl->reply, sizeof(nl->reply));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_sys(err, "%s: read the answer", nl->acts[answered].act);
        int left = (int)n;
        for (const struct nlmsghdr *h = (const void *)nl->reply; mnl_nlmsg_ok(h, left);
             h = mnl_nlmsg_next(h, &left)) {
            const uint32_t i = h->nlmsg_seq - first;
            if (h->nlmsg_type != NLMSG_ERROR || i >= count)
                continue;
            const struct nlmsgerr *e = mnl_nlmsg_get_payload(h);
            answered++;
            if (e->error == 0 || -e->error == nl->acts[i].tolerated || rc < 0)
                continue;
            const char *words = kernel_words(h);
            rc = error_num(err, -e->error, "%s%s%s", nl->acts[i].act, *words ? ": " : "", words);
        }
    }
    return rc;
}

int nl_link_index(struct nl *nl, const char *name)
{
    struct ifreq ifr = {0};

    if (strlen(name) >= sizeof(ifr.ifr_name))
        return 0;
    memcpy(ifr.ifr_name, name, strlen(name) + 1);
    return ioctl(mnl_socket_get_fd(nl->socket), SIOCGIFINDEX, &ifr) < 0 ? 0 : ifr.ifr_ifindex;
}

static int read_dump(struct nl *nl, int (*take)(const struct nlmsghdr *h, void *opaque),
                     void *opaque, struct error *err)
{
    bool stopped = false;

    for (;;) {
        ssize_t n = mnl_socket_recvfrom(nl->socket, nl->reply, sizeof(nl->reply));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_sys(err, "read a netlink list");
        int left = (int)n;
        for (const struct nlmsghdr *h = (const void *)nl->reply; mnl_nlmsg_ok(h, left);
             h = mnl_nlmsg_next(h, &left)) {
            if (h->nlmsg_seq != nl->seq)
                continue;
            if (h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR) {
                const int *code = mnl_nlmsg_get_payload(h);

                nl->seq++;
                return *code ? error_num(err, -*code, "read a netlink list") : 0;
            }
            if (!stopped)
                stopped = take(h, opaque) != 0;
        }
    }
}

int nl_dump(struct nl *nl, uint16_t type, int family,
            int (*take)(const struct nlmsghdr *h, void *opaque), void *opaque, struct error *err)
{
    struct nlmsghdr *h;

    assert(nl->queued == 0);
    h = mnl_nlmsg_put_header(nl->buffer);
    h->nlmsg_type = type;
    h->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    h->nlmsg_seq = nl->seq;
    /* The family is the first byte of every rtnetlink header; ifinfomsg is the longest of those. */
    struct ifinfomsg *i = mnl_nlmsg_put_extra_header(h, sizeof(*i));
    i->ifi_family = (uint8_t)family;
    if (mnl_socket_sendto(nl->socket, h, h->nlmsg_len) < 0)
        return error_sys(err, "ask for a netlink list");
    return read_dump(nl, take, opaque, err);
}

/* The attribute of that type behind a header of `offset` bytes, at least `size` long; or NULL. */
static const struct nlattr *find_attr(const struct nlmsghdr *h, unsigned offset, uint16_t type,
                                      size_t size)
{
    const struct nlattr *attr;

    mnl_attr_for_each(attr, h, offset)
    {
        if (mnl_attr_get_type(attr) == type)
            return mnl_attr_get_payload_len(attr) >= size ? attr : NULL;
    }
    return NULL;
}

struct address_list {
    struct nl_address_info *items;
    size_t count, room;
    bool failed;
};

static int take_address(const struct nlmsghdr *h, void *opaque)
{
    struct address_list *list = opaque;
    const struct ifaddrmsg *a = mnl_nlmsg_get_payload(h);
    const struct nlattr *attr;

    if (mnl_nlmsg_get_payload_len(h) < sizeof(*a) ||
        (a->ifa_family != AF_INET && a->ifa_family != AF_INET6))
        return 0;
    struct nl_address_info info = {
        .addr = {.family = a->ifa_family}, .prefix = a->ifa_prefixlen, .index = (int)a->ifa_index};
    attr = find_attr(h, sizeof(*a), IFA_LOCAL, addr_size(&info.addr));
    if (!attr)
        attr = find_attr(h, sizeof(*a), IFA_ADDRESS, addr_size(&info.addr));
    if (!attr)
        return 0;
    memcpy(info.addr.bytes, mnl_attr_get_payload(attr), addr_size(&info.addr));
    if (list->count == list->room) {
        const size_t room = list->room ? list->room * 2 : 16;
        struct nl_address_info *more = reallocarray(list->items, room, sizeof(*more));
        if (!more) {
            list->failed = true;
            return 1;
        }
        list->items = more;
        list->room = room;
    }
    list->items[list->count++] = info;
    return 0;
}

int nl_addresses(struct nl *nl, struct nl_address_info **ret, size_t *ret_count, struct error *err)
{
    struct address_list list = {0};

    int rc = nl_dump(nl, RTM_GETADDR, AF_UNSPEC, take_address, &list, err);
    if (rc == 0 && list.failed)
        rc = error_oom(err);
    if (rc < 0) {
        free(list.items);
        return -1;
    }
    *ret = list.items;
    *ret_count = list.count;
    return 0;
}

struct default_route {
    int index;
    uint32_t metric;
};

static int take_route(const struct nlmsghdr *h, void *opaque)
{
    struct default_route *best = opaque;
    const struct rtmsg *r = mnl_nlmsg_get_payload(h);
    const struct nlattr *oif, *priority;

    if (mnl_nlmsg_get_payload_len(h) < sizeof(*r) || r->rtm_dst_len != 0 ||
        r->rtm_table != RT_TABLE_MAIN || r->rtm_type != RTN_UNICAST)
        return 0;
    oif = find_attr(h, sizeof(*r), RTA_OIF, sizeof(uint32_t));
    priority = find_attr(h, sizeof(*r), RTA_PRIORITY, sizeof(uint32_t));
    uint32_t metric = priority ? mnl_attr_get_u32(priority) : 0;
    if (oif && (best->index == 0 || metric < best->metric)) {
        best->index = (int)mnl_attr_get_u32(oif);
        best->metric = metric;
    }
    return 0;
}

int nl_default_link(struct nl *nl, int family, int *ret_index, struct error *err)
{
    struct default_route best = {0};

    if (nl_dump(nl, RTM_GETROUTE, family, take_route, &best, err) < 0)
        return -1;
    *ret_index = best.index;
    return 0;
}

struct peer_search {
    int index, peer;
};

static int take_link(const struct nlmsghdr *h, void *opaque)
{
    struct peer_search *s = opaque;
    const struct ifinfomsg *i = mnl_nlmsg_get_payload(h);

    if (mnl_nlmsg_get_payload_len(h) < sizeof(*i) || i->ifi_index != s->index)
        return 0;
    const struct nlattr *link = find_attr(h, sizeof(*i), IFLA_LINK, sizeof(uint32_t));
    s->peer = link ? (int)mnl_attr_get_u32(link) : 0;
    return 1;
}

int nl_peer_index(struct nl *nl, int index, int *ret_peer, struct error *err)
{
    struct peer_search s = {.index = index};

    if (nl_dump(nl, RTM_GETLINK, AF_UNSPEC, take_link, &s, err) < 0)
        return -1;
    *ret_peer = s.peer;
    return 0;
}
