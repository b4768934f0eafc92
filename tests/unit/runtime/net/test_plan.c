// SPDX-License-Identifier: Apache-2.0
/* test_plan.c - drafter-nat's options: what follows from them, and which are refused */
#include <string.h>

#include "runtime/net/plan.h"
#include "tests/lib/unit.h"

static struct net_nat_options defaults(void)
{
    return (struct net_nat_options){
        .host_veth_cidr = "10.0.8.0/22",
        .namespace_veth_cidr = "10.0.15.0/24",
        .blocked_subnet_cidr = "10.0.15.0/24",
        .namespace_interface = "tap0",
        .namespace_interface_gateway = "172.16.0.1",
        .namespace_interface_netmask = 30,
        .namespace_interface_ip = "172.16.0.2",
        .namespace_interface_mac = "02:0e:d9:fd:68:3d",
        .namespace_prefix = "ark",
        .allow_incoming_traffic = true,
        .ipv6 = true,
        .host_veth_cidr6 = "fd00:0:0:8::/64",
        .namespace_veth_cidr6 = "fd00:0:0:f::/64",
        .blocked_subnet_cidr6 = "fd00:0:0:f::/64,fd01::/16",
        .namespace_interface_gateway6 = "fd00:0:0:10::1",
        .namespace_interface_netmask6 = 64,
        .namespace_interface_ip6 = "fd00:0:0:10::2",
    };
}

static void refused(const struct net_nat_options *o, const char *why)
{
    struct error err = ERROR_INIT;
    struct plan p;

    ck_assert_msg(plan_make(o, &p, &err) == -1, "not refused: %s", why);
    ck_assert_int_eq(err.code, ERROR_USAGE);
    ck_assert_msg(strstr(err.text, why), "%s, not: %s", err.text, why);
}

UNIT_TEST(the_defaults_are_254_namespaces)
{
    const struct net_nat_options o = defaults();
    struct error err = ERROR_INIT;
    char name[NET_NAME_MAX], veth[IFNAMSIZ];
    struct plan p;

    ck_assert_msg(plan_make(&o, &p, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(p.count, 254);
    ck_assert_uint_eq(p.family[1].n_blocked, 2);
    plan_name(&p, 253, name);
    ck_assert_str_eq(name, "ark253");
    plan_veth(&p, 253, 1, veth);
    ck_assert_str_eq(veth, "ark253-veth1");
    ck_assert_uint_eq(p.mac[5], 0x3d);
}
END_TEST

UNIT_TEST(pools_too_small)
{
    struct net_nat_options o = defaults();

    o.host_veth_cidr = "10.0.8.0/24";
    refused(&o, "--host-veth-cidr 10.0.8.0/24 has room for 64 pairs");
    o.host_veth_cidr = "10.0.8.0/31";
    refused(&o, "--host-veth-cidr 10.0.8.0/31 has room for 0 pairs");
    o = defaults();
    o.namespaces = 255;
    refused(&o, "--namespace-veth-cidr 10.0.15.0/24 has 254 addresses, 255 namespaces need");
    o.namespaces = 0;
    o.namespace_veth_cidr = "10.0.15.0/32";
    refused(&o, "--namespace-veth-cidr 10.0.15.0/32 has 0 addresses");
    o = defaults();
    o.namespace_veth_cidr6 = "fd00:0:0:f::/125";
    refused(&o, "--namespace-veth-cidr6 fd00:0:0:f::/125 has 6");
}
END_TEST

UNIT_TEST(overlapping_and_malformed)
{
    struct net_nat_options o = defaults();

    o.namespace_veth_cidr = "10.0.9.0/24";
    refused(&o, "--host-veth-cidr 10.0.8.0/22 and --namespace-veth-cidr 10.0.9.0/24 overlap");
    o = defaults();
    o.namespace_interface_gateway = "10.0.15.1";
    o.namespace_interface_ip = "10.0.15.2";
    refused(&o, "--namespace-interface-gateway 10.0.15.0/30 and --namespace-veth-cidr");
    o = defaults();
    o.namespace_interface_ip = "172.16.0.9";
    refused(&o, "--namespace-interface-ip 172.16.0.9");
    o = defaults();
    o.blocked_subnet_cidr = "10.0.0.0/8,10.0.0.1/8";
    refused(&o, "--blocked-subnet-cidr: \"10.0.0.1/8\"");
    o = defaults();
    o.host_veth_cidr6 = "10.0.8.0/22";
    refused(&o, "--host-veth-cidr6");
    o = defaults();
    o.namespace_interface_mac = "03:0e:d9:fd:68:3d";
    refused(&o, "--namespace-interface-mac");
    o.namespace_interface_mac = "02:0e:d9:fd:68";
    refused(&o, "--namespace-interface-mac");
}
END_TEST

UNIT_TEST(names)
{
    static const char *const bad[] = {"", "a/b", "..", "a b", "toolongaprefix", "a\"b", "a;b"};
    struct net_nat_options o = defaults();

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        o.namespace_prefix = bad[i];
        refused(&o, "--namespace-prefix");
    }
    o = defaults();
    o.namespace_interface = "lo";
    refused(&o, "--namespace-interface");
    o = defaults();
    o.host_interface = "a\" drop";
    refused(&o, "--host-interface");
}
END_TEST

UNIT_TEST(without_ipv6_its_options_do_not_matter)
{
    struct net_nat_options o = defaults();
    struct plan p;

    o.ipv6 = false;
    o.host_veth_cidr6 = "nonsense";
    ck_assert_int_eq(plan_make(&o, &p, NULL), 0);
    ck_assert(!p.family[1].on);
    cleanup_free char *text = plan_namespace_rules(&p, 3, false);
    ck_assert_ptr_nonnull(strstr(text, "meta nfproto ipv6 drop"));
    ck_assert_ptr_nonnull(strstr(text, "snat ip to 10.0.15.4\n"));
    ck_assert_ptr_null(strstr(text, "delete"));
}
END_TEST
