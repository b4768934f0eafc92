// SPDX-License-Identifier: Apache-2.0
/* announce.c - telling the neighbours on a link where the link's own addresses are
 *
 * Both are Ethernet frames of our own making: the kernel sends such announcements by itself only
 * when an address or a link comes up.
 */
#include "runtime/net/announce.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "runtime/base/bytes.h"
#include "runtime/base/cleanup.h"

#define ARP_SIZE 28 /* RFC 826, Ethernet and IPv4 */
#define ND_SIZE 32  /* RFC 4861 section 4.4, with one option of 8 bytes */
#define IP6_SIZE 40 /* RFC 8200 section 3 */
#define FRAME_MAX (ETH_HLEN + IP6_SIZE + ND_SIZE)
#define NEXT_ICMP6 58
#define ND_ADVERT 136
#define ND_ROUTER 0x80   /* who leaves it out is no router any more, RFC 4861 section 7.2.5 */
#define ND_OVERRIDE 0x20 /* replace what the neighbour has cached */
#define ND_OPT_TARGET 2  /* target link-layer address */

DEFINE_CLEANUP(cleanup_ifaddrs_p, struct ifaddrs *, freeifaddrs)

static size_t put_ethernet(uint8_t *f, const uint8_t to[6], const uint8_t from[6], uint16_t type)
{
    memcpy(f, to, 6);
    memcpy(f + 6, from, 6);
    put_be16(f + 12, type);
    return ETH_HLEN;
}

/* An announcement is a request for one's own address (RFC 5227 section 2.3). */
static size_t make_arp(uint8_t *f, const uint8_t mac[6], const struct in_addr *addr)
{
    static const uint8_t all[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    size_t n = put_ethernet(f, all, mac, ETH_P_ARP);
    uint8_t *a = f + n;

    put_be16(a, ARPHRD_ETHER);
    put_be16(a + 2, ETH_P_IP);
    a[4] = 6;
    a[5] = 4;
    put_be16(a + 6, ARPOP_REQUEST);
    memcpy(a + 8, mac, 6);
    memcpy(a + 14, addr, 4);
    memset(a + 18, 0, 6);
    memcpy(a + 24, addr, 4);
    return n + ARP_SIZE;
}

/* RFC 1071, over the pseudo header of RFC 8200 section 8.1 and the message. */
static uint16_t icmp6_sum(const uint8_t *ip, const uint8_t *message, size_t len)
{
    uint32_t sum = (uint32_t)len + NEXT_ICMP6;

    for (size_t i = 8; i < IP6_SIZE; i += 2)
        sum += get_be16(ip + i);
    for (size_t i = 0; i < len; i += 2)
        sum += get_be16(message + i);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

static size_t make_advertisement(uint8_t *f, const uint8_t mac[6], const struct in6_addr *addr,
                                 bool router)
{
    static const uint8_t all_nodes[16] = {0xff, 0x02, [15] = 1};
    static const uint8_t all_nodes_mac[6] = {0x33, 0x33, 0, 0, 0, 1};
    size_t n = put_ethernet(f, all_nodes_mac, mac, ETH_P_IPV6);
    uint8_t *ip = f + n, *nd = ip + IP6_SIZE;

    memset(ip, 0, IP6_SIZE + ND_SIZE);
    ip[0] = 6 << 4;
    put_be16(ip + 4, ND_SIZE);
    ip[6] = NEXT_ICMP6;
    ip[7] = 255; /* any other hop limit is refused, RFC 4861 section 7.1.2 */
    memcpy(ip + 8, addr, 16);
    memcpy(ip + 24, all_nodes, 16);
    nd[0] = ND_ADVERT;
    nd[4] = ND_OVERRIDE | (router ? ND_ROUTER : 0);
    memcpy(nd + 8, addr, 16);
    nd[24] = ND_OPT_TARGET;
    nd[25] = 1; /* times 8 bytes */
    memcpy(nd + 26, mac, 6);
    put_be16(nd + 2, icmp6_sum(ip, nd, ND_SIZE));
    return n + IP6_SIZE + ND_SIZE;
}

/* As the kernel decides what to say of itself. */
static bool is_router(const char *link)
{
    char path[96], value = '0';

    (void)snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%.15s/forwarding", link);
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd >= 0 && read(fd, &value, 1) == 1 && value != '0';
}

static int announce(int fd, const char *link, const struct sockaddr *addr, struct error *err)
{
    struct ifreq ifr = {0};
    uint8_t frame[FRAME_MAX], mac[6];
    const bool six = addr->sa_family == AF_INET6;

    memcpy(ifr.ifr_name, link, strnlen(link, sizeof(ifr.ifr_name) - 1));
    if (ioctl(fd, SIOCGIFHWADDR, &ifr) < 0)
        return error_sys(err, "link %s", link);
    memcpy(mac, ifr.ifr_hwaddr.sa_data, sizeof(mac));
    if (ioctl(fd, SIOCGIFINDEX, &ifr) < 0)
        return error_sys(err, "link %s", link);
    const size_t len =
        six ? make_advertisement(frame, mac, &((const struct sockaddr_in6 *)addr)->sin6_addr,
                                 is_router(link))
            : make_arp(frame, mac, &((const struct sockaddr_in *)addr)->sin_addr);
    const struct sockaddr_ll to = {.sll_family = AF_PACKET,
                                   .sll_protocol = htons(six ? ETH_P_IPV6 : ETH_P_ARP),
                                   .sll_ifindex = ifr.ifr_ifindex};
    if (sendto(fd, frame, len, 0, (const struct sockaddr *)&to, sizeof(to)) < 0)
        return error_sys(err, "announce an address on link %s", link);
    return 0;
}

/* Whether there is somebody to announce to. */
static int check_link(int fd, const char *link, struct error *err)
{
    struct ifreq ifr = {0};

    if (strlen(link) >= sizeof(ifr.ifr_name))
        return error_set(err, EINVAL, "\"%s\" is not the name of a link", link);
    memcpy(ifr.ifr_name, link, strlen(link) + 1);
    if (ioctl(fd, SIOCGIFFLAGS, &ifr) < 0)
        return error_sys(err, "link %s", link);
    if (!(ifr.ifr_flags & IFF_UP))
        return error_set(err, ENETDOWN, "link %s is down", link);
    if (ioctl(fd, SIOCGIFHWADDR, &ifr) < 0)
        return error_sys(err, "link %s", link);
    if (ifr.ifr_hwaddr.sa_family != ARPHRD_ETHER)
        return error_set(err, EOPNOTSUPP, "link %s has no Ethernet address", link);
    return 0;
}

int net_announce(const char *link, unsigned *ret_count, struct error *err)
{
    CLEANUP(cleanup_ifaddrs_p) struct ifaddrs *all = NULL;
    unsigned count = 0;

    cleanup_close int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_sys(err, "open a packet socket");
    if (link && check_link(fd, link, err) < 0)
        return -1;
    if (getifaddrs(&all) < 0)
        return error_sys(err, "list the addresses of this host");
    for (const struct ifaddrs *a = all; a; a = a->ifa_next) {
        if (!a->ifa_addr ||
            (a->ifa_addr->sa_family != AF_INET && a->ifa_addr->sa_family != AF_INET6))
            continue;
        if (link ? strcmp(a->ifa_name, link) != 0 : check_link(fd, a->ifa_name, NULL) < 0)
            continue;
        if (announce(fd, a->ifa_name, a->ifa_addr, err) < 0)
            return -1;
        count++;
    }
    if (ret_count)
        *ret_count = count;
    return 0;
}
