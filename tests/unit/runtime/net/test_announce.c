// SPDX-License-Identifier: Apache-2.0
/* test_announce.c - what a link's neighbours hear, and that the kernel at the other end believes it
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/net/announce.h"
#include "runtime/net/netlink.h"
#include "tests/lib/unit.h"

static const uint8_t mac[6] = {2, 0, 0, 0, 0, 0x42};

/* A namespace of our own with a veth pair "a", "b", both up; "a" has an address. */
static void make_link(const char *address)
{
    struct error err = ERROR_INIT;
    struct net_addr addr;

    if (geteuid() != 0 || unshare(CLONE_NEWNET) < 0)
        unit_skip("needs root");
    cleanup_close int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    cleanup_nl struct nl *nl = nl_new(&err);
    ck_assert_msg(nl != NULL, "%s", err.text);
    nl_veth(nl, "a", "b", fd, 0);
    ck_assert_msg(nl_flush(nl, &err) == 0, "%s", err.text);
    for (int i = 0; i < 2; i++) {
        const int index = nl_link_index(nl, i ? "b" : "a");
        ck_assert_int_gt(index, 0);
        nl_no_link_local(nl, index);
        nl_up(nl, index, i ? NULL : mac);
    }
    ck_assert_msg(nl_flush(nl, &err) == 0, "%s", err.text);
    if (!address)
        return;
    ck_assert_int_eq(net_addr_parse(address, AF_UNSPEC, "x", &addr, &err), 0);
    nl_address(nl, nl_link_index(nl, "a"), &addr, net_addr_bits(addr.family) - 8);
    ck_assert_msg(nl_flush(nl, &err) == 0, "%s", err.text);
}

/* Announces and returns the frame of that type that comes out of "b"; the byte at `at` is `value`.
 */
static ssize_t announced(const char *link, uint16_t type, size_t at, uint8_t value, uint8_t *frame,
                         size_t size)
{
    cleanup_close int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(type));
    cleanup_nl struct nl *nl = nl_new(NULL);
    const struct sockaddr_ll b = {.sll_family = AF_PACKET,
                                  .sll_protocol = htons(type),
                                  .sll_ifindex = nl_link_index(nl, "b")};
    struct pollfd p = {.fd = fd, .events = POLLIN};
    struct error err = ERROR_INIT;
    unsigned count = 0;
    ssize_t n;

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(bind(fd, (const struct sockaddr *)&b, sizeof(b)), 0);
    ck_assert_msg(net_announce(link, &count, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(count, 1);
    do { /* the kernel's own multicast reports come by too */
        ck_assert_int_eq(poll(&p, 1, 10000), 1);
        memset(frame, 0, size);
        n = recv(fd, frame, size, 0);
        ck_assert_int_gt(n, 12);
    } while (memcmp(frame + 6, mac, 6) != 0 || frame[at] != value);
    return n;
}

UNIT_TEST(gratuitous_arp)
{
    static const uint8_t want[] = {
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2,    0,  0, 0, 0, 0x42, 8, 6, 0, 1, 8, 0,  6, 4, 0,
        1,    2,    0,    0,    0,    0,    0x42, 10, 1, 2, 3, 0,    0, 0, 0, 0, 0, 10, 1, 2, 3};
    uint8_t frame[256];

    make_link("10.1.2.3");
    ck_assert_int_ge(announced("a", ETH_P_ARP, 21, 1, frame, sizeof(frame)), (int)sizeof(want));
    ck_assert_mem_eq(frame, want, sizeof(want));
}
END_TEST

static void check_advertisement(const char *link, uint8_t flags)
{
    uint8_t frame[256];
    uint32_t sum = 32 + 58;

    ck_assert_int_eq(announced(link, ETH_P_IPV6, 54, 136, frame, sizeof(frame)), 14 + 40 + 32);
    ck_assert_uint_eq(frame[5], 1); /* 33:33:00:00:00:01 */
    ck_assert_uint_eq(frame[14 + 7], 255);
    ck_assert_uint_eq(frame[58], flags);
    ck_assert_mem_eq(frame + 62, frame + 22, 16);
    ck_assert_mem_eq(frame + 80, mac, 6);
    for (size_t i = 14 + 8; i < 14 + 40 + 32; i += 2)
        sum += (uint32_t)(frame[i] << 8 | frame[i + 1]);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    ck_assert_uint_eq(sum, 0xffff);
}

UNIT_TEST(unsolicited_advertisement)
{
    make_link("fd00::1:2");
    check_advertisement("a", 0x20); /* override */
    cleanup_close int fd = open("/proc/sys/net/ipv6/conf/a/forwarding", O_WRONLY | O_CLOEXEC);
    ck_assert_int_eq(write(fd, "1", 1), 1);
    check_advertisement("a", 0xa0); /* a router stays one */
}
END_TEST

UNIT_TEST(every_link)
{
    uint8_t frame[256];

    make_link("10.1.2.3");
    /* One of them: lo has no neighbours, "b" no address. */
    announced(NULL, ETH_P_ARP, 21, 1, frame, sizeof(frame));
    ck_assert_uint_eq(frame[31], 3);
}
END_TEST

/* What the kernel at the other end knew otherwise is right afterwards. */
UNIT_TEST(is_believed)
{
    struct error err = ERROR_INIT;
    char command[512], line[256] = "", *found = NULL;

    make_link("10.1.2.3");
    cleanup_close int here = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(unshare(CLONE_NEWNET), 0);
    cleanup_close int there = open("/proc/thread-self/ns/net", O_RDONLY);
    ck_assert_int_eq(setns(here, CLONE_NEWNET), 0);
    (void)snprintf(
        command, sizeof(command),
        "ip link set dev b netns /proc/self/fd/%d && nsenter --net=/proc/self/fd/%d sh -ec "
        "'ip link set dev b up; ip address add 10.1.2.4/24 dev b; ip neighbour replace "
        "10.1.2.3 lladdr 02:00:00:00:00:99 dev b nud stale'",
        there, there);
    ck_assert_int_eq(system(command), 0);
    ck_assert_msg(net_announce("a", NULL, &err) == 0, "%s", err.text);
    (void)snprintf(command, sizeof(command),
                   "nsenter --net=/proc/self/fd/%d ip neighbour show 10.1.2.3 dev b", there);
    FILE *f = popen(command, "r");
    ck_assert_ptr_nonnull(f);
    found = fgets(line, sizeof(line), f);
    (void)pclose(f);
    ck_assert_msg(found && strstr(line, "02:00:00:00:00:42"), "%s", line);
}
END_TEST

UNIT_TEST(a_link_that_is_not_there)
{
    struct error err = ERROR_INIT;

    make_link(NULL);
    ck_assert_int_eq(net_announce("c", NULL, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "link c"));
    ck_assert_int_eq(net_announce("lo", NULL, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "link lo is down"));
    cleanup_nl struct nl *nl = nl_new(&err);
    nl_up(nl, nl_link_index(nl, "lo"), NULL);
    ck_assert_int_eq(nl_flush(nl, &err), 0);
    ck_assert_int_eq(net_announce("lo", NULL, &err), -1);
    ck_assert_int_eq(err.code, EOPNOTSUPP);
}
END_TEST
