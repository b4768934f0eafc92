// SPDX-License-Identifier: Apache-2.0
/* watch.c - notices when drafter-nat's links come up anew (rtnetlink(7), RTNLGRP_LINK) */
#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include "runtime/net/net.h"

#define BUFFER_SIZE 32768 /* the kernel's messages are shorter, NLMSG_GOODSIZE */

int net_watch_links(struct error *err)
{
    const struct sockaddr_nl addr = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
    cleanup_close int fd =
        socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);

    if (fd < 0 || bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0)
        return error_sys(err, "watch the links of this host");
    return steal_fd(&fd);
}

static int take(const struct nlmsghdr *h, void *opaque)
{
    const struct nlattr *a;
    bool *ours = opaque;

    if (h->nlmsg_type != RTM_NEWLINK || mnl_nlmsg_get_payload_len(h) < sizeof(struct ifinfomsg))
        return MNL_CB_OK;
    mnl_attr_for_each(a, h, sizeof(struct ifinfomsg)) if (mnl_attr_get_type(a) == IFLA_GROUP &&
                                                          mnl_attr_validate(a, MNL_TYPE_U32) == 0 &&
                                                          mnl_attr_get_u32(a) ==
                                                              NET_LINK_GROUP) *ours = true;
    return MNL_CB_OK;
}

bool net_links_changed(int fd)
{
    char buffer[BUFFER_SIZE] __attribute__((aligned(16)));
    bool ours = false;

    for (;;) {
        const ssize_t n = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == ENOBUFS) {
            ours = true; /* some were lost: ours may have been among them */
            continue;
        }
        if (n <= 0)
            return ours;
        (void)mnl_cb_run(buffer, (size_t)n, 0, 0, take, &ours);
    }
}
