// SPDX-License-Identifier: Apache-2.0
/* drafter-nat.c - keeps network namespaces for virtual machines */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <time.h>

#include "runtime/base/command.h"
#include "runtime/base/notify.h"
#include "runtime/net/net.h"

struct opts {
    struct net_nat_options nat;
    int64_t ready_fd;
};

static const struct option options[] = {
    OPTION(struct opts, nat.host_interface, .name = "host-interface", .kind = OPTION_STRING,
           .arg = "LINK", .help = "the uplink (default: where the default route goes)"),
    OPTION(struct opts, nat.host_veth_cidr, .name = "host-veth-cidr", .kind = OPTION_STRING,
           .arg = "CIDR", .def = "10.0.8.0/22",
           .help = "pool for the links between host and namespaces, four addresses for each"),
    OPTION(struct opts, nat.namespace_veth_cidr, .name = "namespace-veth-cidr",
           .kind = OPTION_STRING, .arg = "CIDR", .def = "10.0.15.0/24",
           .help = "pool of the addresses as which the guests go out, one for each namespace"),
    OPTION(struct opts, nat.blocked_subnet_cidr, .name = "blocked-subnet-cidr",
           .kind = OPTION_STRING, .arg = "CIDR,...", .def = "10.0.15.0/24",
           .help = "subnets that guests cannot reach and that cannot reach guests"),
    OPTION(struct opts, nat.namespace_interface, .name = "namespace-interface",
           .kind = OPTION_STRING, .arg = "LINK", .def = "tap0",
           .help = "name of the tap in every namespace"),
    OPTION(struct opts, nat.namespace_interface_gateway, .name = "namespace-interface-gateway",
           .kind = OPTION_STRING, .arg = "ADDRESS", .def = "172.16.0.1",
           .help = "address of the tap, the guests' gateway"),
    OPTION(struct opts, nat.namespace_interface_netmask, .name = "namespace-interface-netmask",
           .kind = OPTION_UINT, .arg = "BITS", .def = "30", .max = 32,
           .help = "length of the gateway's prefix"),
    OPTION(struct opts, nat.namespace_interface_ip, .name = "namespace-interface-ip",
           .kind = OPTION_STRING, .arg = "ADDRESS", .def = "172.16.0.2",
           .help = "address of every guest"),
    OPTION(struct opts, nat.namespace_interface_mac, .name = "namespace-interface-mac",
           .kind = OPTION_STRING, .arg = "MAC", .def = "02:0e:d9:fd:68:3d",
           .help = "link address of the tap"),
    OPTION(struct opts, nat.namespace_prefix, .name = "namespace-prefix", .kind = OPTION_STRING,
           .arg = "NAME", .def = "ark",
           .help = "what the namespaces are called, before their number"),
    OPTION(struct opts, nat.allow_incoming_traffic, .name = "allow-incoming-traffic",
           .kind = OPTION_FLAG, .def = "true",
           .help = "let the host and forwards reach the guests"),
    OPTION(struct opts, nat.namespaces, .name = "namespaces", .kind = OPTION_UINT, .arg = "N",
           .def = "0", .max = NET_NAMESPACES_MAX,
           .help = "how many namespaces; 0 = one for each address of --namespace-veth-cidr, at "
                   "most 256"),
    OPTION(struct opts, nat.ipv6, .name = "ipv6", .kind = OPTION_FLAG, .def = "true",
           .help = "IPv6 beside IPv4"),
    OPTION(struct opts, nat.ipv6_routed, .name = "ipv6-routed", .kind = OPTION_FLAG,
           .help = "do not masquerade IPv6: --namespace-veth-cidr6 is routed to this host, and "
                   "guests are reachable by it"),
    OPTION(struct opts, nat.host_veth_cidr6, .name = "host-veth-cidr6", .kind = OPTION_STRING,
           .arg = "CIDR", .def = "fdd7:af7e:4000:8::/64", .help = "as --host-veth-cidr"),
    OPTION(struct opts, nat.namespace_veth_cidr6, .name = "namespace-veth-cidr6",
           .kind = OPTION_STRING, .arg = "CIDR", .def = "fdd7:af7e:4000:f::/64",
           .help = "as --namespace-veth-cidr"),
    OPTION(struct opts, nat.blocked_subnet_cidr6, .name = "blocked-subnet-cidr6",
           .kind = OPTION_STRING, .arg = "CIDR,...", .def = "fdd7:af7e:4000:f::/64",
           .help = "as --blocked-subnet-cidr"),
    OPTION(struct opts, nat.namespace_interface_gateway6, .name = "namespace-interface-gateway6",
           .kind = OPTION_STRING, .arg = "ADDRESS", .def = "fdd7:af7e:4000:10::1",
           .help = "as --namespace-interface-gateway"),
    OPTION(struct opts, nat.namespace_interface_netmask6, .name = "namespace-interface-netmask6",
           .kind = OPTION_UINT, .arg = "BITS", .def = "64", .max = 128,
           .help = "as --namespace-interface-netmask"),
    OPTION(struct opts, nat.namespace_interface_ip6, .name = "namespace-interface-ip6",
           .kind = OPTION_STRING, .arg = "ADDRESS", .def = "fdd7:af7e:4000:10::2",
           .help = "as --namespace-interface-ip"),
    OPTION(struct opts, ready_fd, .name = "ready-fd", .kind = OPTION_INT, .arg = "FD", .def = "-1",
           .min = (uint64_t)-1, .max = 1 << 20,
           .help =
               "write \"ready\" and a newline to this open descriptor when all namespaces work, "
               "and close it"),
};

static double seconds(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int run(const void *opts, int argc, char **argv, const struct context *ctx,
               struct error *err)
{
    const struct opts *o = opts;
    const double begin = seconds();

    (void)argc;
    (void)argv;
    if (o->ready_fd >= 0 && fcntl((int)o->ready_fd, F_GETFD) < 0)
        return error_set(err, ERROR_USAGE, "--ready-fd %d is not an open descriptor",
                         (int)o->ready_fd);
    struct net_nat *nat = net_nat_start(&o->nat, ctx, err);
    if (!nat)
        return -1;
    log_info(ctx->log, "Namespaces ready", log_uint("count", net_nat_count(nat)),
             log_uint("ms", (uint64_t)((seconds() - begin) * 1000)));
    int rc = notify_ready_fd((int)o->ready_fd, err);
    if (rc == 0)
        rc = notify_state("READY=1", err);
    if (rc == 0) {
        struct pollfd p = {.fd = ctx->cancel->fd, .events = POLLIN};
        while (poll(&p, 1, -1) < 0 && errno == EINTR)
            ;
        log_info(ctx->log, "Removing namespaces", log_uint("count", net_nat_count(nat)));
        (void)notify_state("STOPPING=1", NULL);
    }
    return net_nat_stop(nat, rc < 0 ? NULL : err) < 0 ? -1 : rc;
}

int main(int argc, char **argv)
{
    static const struct command cmd = {
        .name = "drafter-nat",
        .summary = "keep network namespaces for virtual machines",
        .options = options,
        .n_options = ARRAY_SIZE(options),
        .options_size = sizeof(struct opts),
        .run = run,
    };

    return command_main(&cmd, argc, argv);
}
