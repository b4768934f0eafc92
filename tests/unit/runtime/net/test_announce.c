// SPDX-License-Identifier: Apache-2.0
/* test_announce.c - announcements are believed by the kernel at the other end of a link */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/net/net.h"
#include "runtime/net/netlink.h"
#include "tests/lib/unit.h"

static const uint8_t mac[6] = {2, 0, 0, 0, 0, 0x42};

/* A namespace of our own with a veth pair "a", "b", both up. */
static void make_link(void)
{
    struct error err = ERROR_INIT;

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
        nl_up(nl, index, NULL);
    }
    ck_assert_msg(nl_flush(nl, &err) == 0, "%s", err.text);
}

/* Announces on "a" and returns the frame that comes out of "b". */
static ssize_t announced(const char *address, uint16_t type, uint8_t *frame, size_t size)
{
    cleanup_close int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(type));
    cleanup_nl struct nl *nl = nl_new(NULL);
    const struct sockaddr_ll b = {.sll_family = AF_PACKET,
                                  .sll_protocol = htons(type),
                                  .sll_ifindex = nl_link_index(nl, "b")};
    struct pollfd p = {.fd = fd, .events = POLLIN};
    struct error err = ERROR_INIT;
    struct net_addr addr;
    ssize_t n;

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(bind(fd, (const struct sockaddr *)&b, sizeof(b)), 0);
    ck_assert_int_eq(net_addr_parse(address, AF_UNSPEC, "x", &addr, &err), 0);
    ck_assert_msg(net_announce(-1, "a", &addr, mac, &err) == 0, "%s", err.text);
    do { /* the kernel's own multicast reports come by too */
        ck_assert_int_eq(poll(&p, 1, 10000), 1);
        n = recv(fd, frame, size, 0);
        ck_assert_int_gt(n, 12);
    } while (memcmp(frame + 6, mac, 6) != 0);
    return n;
}

UNIT_TEST(gratuitous_arp)
{
    static const uint8_t want[] = {
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2,    0,  0, 0, 0, 0x42, 8, 6, 0, 1, 8, 0,  6, 4, 0,
        1,    2,    0,    0,    0,    0,    0x42, 10, 1, 2, 3, 0,    0, 0, 0, 0, 0, 10, 1, 2, 3};
    uint8_t frame[256];

    make_link();
    ck_assert_int_ge(announced("10.1.2.3", ETH_P_ARP, frame, sizeof(frame)), (int)sizeof(want));
    ck_assert_mem_eq(frame, want, sizeof(want));
}
END_TEST

UNIT_TEST(unsolicited_advertisement)
{
    uint8_t frame[256];
    uint32_t sum = 32 + 58;

    make_link();
    ck_assert_int_eq(announced("fd00::1:2", ETH_P_IPV6, frame, sizeof(frame)), 14 + 40 + 32);
    ck_assert_uint_eq(frame[5], 1); /* 33:33:00:00:00:01 */
    ck_assert_uint_eq(frame[14 + 7], 255);
    ck_assert_uint_eq(frame[54], 136);
    ck_assert_uint_eq(frame[58], 0x20); /* override */
    ck_assert_mem_eq(frame + 62, frame + 22, 16);
    ck_assert_mem_eq(frame + 80, mac, 6);
    for (size_t i = 14 + 8; i < 14 + 40 + 32; i += 2)
        sum += (uint32_t)(frame[i] << 8 | frame[i + 1]);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    ck_assert_uint_eq(sum, 0xffff);
}
END_TEST

UNIT_TEST(a_link_that_is_not_there)
{
    struct net_addr addr = {.family = AF_INET, .bytes = {10, 0, 0, 1}};
    struct error err = ERROR_INIT;

    make_link();
    ck_assert_int_eq(net_announce(-1, "c", &addr, NULL, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "link c"));
    ck_assert_int_eq(net_announce(-1, "lo", &addr, mac, &err), -1); /* no Ethernet */
}
END_TEST
