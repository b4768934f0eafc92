// SPDX-License-Identifier: Apache-2.0
/* plan_rules.c - the rules of the host and of a namespace, as nft(8) takes them
 *
 * Theory of operation: rules are few and do not grow with the number of namespaces; their names
 * stand in sets. An accept here ends only our own chain, a drop is final: so our chains decide what
 * must not be and leave the rest to whatever other tables there are.
 *
 * What the host lets pass: from a guest to the uplink, what belongs to a connection, and what a
 * forward has translated (ct status dnat). Not from one namespace to another, even through a
 * forward of the host, nor between a guest and the blocked subnets. What a namespace lets pass:
 * only the guest's own address from the tap, so that no guest can speak for another.
 */
#include <stdio.h>
#include <stdlib.h>

#include "runtime/net/plan.h"

static const char *const proto[2] = {"ip", "ip6"};
static const char *const nfproto[2] = {"ipv4", "ipv6"};
static const char *const addr_type[2] = {"ipv4_addr", "ipv6_addr"};

static void put_sets(FILE *f, const struct plan *p)
{
    char name[IFNAMSIZ], text[NET_CIDR_TEXT_MAX];

    fputs("set veths {\ntype ifname\nelements = { ", f);
    for (size_t i = 0; i < p->count; i++) {
        plan_veth(p, i, 1, name);
        fprintf(f, "%s\"%s\"", i ? ", " : "", name);
    }
    fputs(" }\n}\n", f);
    for (int v = 0; v < 2; v++) {
        const struct plan_family *pf = &p->family[v];

        fprintf(f, "set blocked%d {\ntype %s\nflags interval\nauto-merge\n", v ? 6 : 4,
                addr_type[v]);
        for (size_t i = 0; i < pf->n_blocked; i++)
            fprintf(f, "%s%s%s", i ? ", " : "elements = { ", net_cidr_format(&pf->blocked[i], text),
                    i + 1 == pf->n_blocked ? " }\n" : "");
        fputs("}\n", f);
    }
}

static void put_forward(FILE *f, const struct plan *p)
{
    fputs("chain input {\ntype filter hook input priority filter; policy accept;\n"
          "iifname @veths ip daddr @blocked4 drop\n"
          "iifname @veths ip6 daddr @blocked6 drop\n"
          "}\n"
          "chain forward {\ntype filter hook forward priority filter; policy accept;\n"
          "iifname @veths ip daddr @blocked4 drop\n"
          "iifname @veths ip6 daddr @blocked6 drop\n"
          "oifname @veths ip saddr @blocked4 drop\n"
          "oifname @veths ip6 saddr @blocked6 drop\n"
          "iifname @veths ct state established,related accept\n"
          "oifname @veths ct state established,related accept\n"
          "oifname @veths iifname != @veths ct status dnat accept\n",
          f);
    for (int v = 0; v < 2; v++) {
        const struct plan_family *pf = &p->family[v];

        if (pf->on && pf->uplink[0])
            fprintf(f, "iifname @veths meta nfproto %s oifname \"%s\" accept\n", nfproto[v],
                    pf->uplink);
        if (pf->on && pf->uplink[0] && !pf->masquerade)
            fprintf(f, "oifname @veths meta nfproto %s iifname \"%s\" accept\n", nfproto[v],
                    pf->uplink);
    }
    fputs("iifname @veths drop\noifname @veths drop\n}\n", f);
}

char *plan_host_rules(const struct plan *p)
{
    char hosts[NET_CIDR_TEXT_MAX], pairs[NET_CIDR_TEXT_MAX];
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);

    if (!f)
        return NULL;
    /* Making it first lets the deletion succeed in any case. */
    fputs("table " PLAN_HOST_TABLE "\ndelete table " PLAN_HOST_TABLE "\ntable " PLAN_HOST_TABLE
          " {\n",
          f);
    put_sets(f, p);
    put_forward(f, p);
    fputs("chain postrouting {\ntype nat hook postrouting priority srcnat; policy accept;\n", f);
    for (int v = 0; v < 2; v++) {
        const struct plan_family *pf = &p->family[v];

        if (pf->on && pf->masquerade && pf->uplink[0])
            fprintf(f, "%s saddr { %s, %s } oifname \"%s\" masquerade\n", proto[v],
                    net_cidr_format(&pf->hosts, hosts), net_cidr_format(&pf->pairs, pairs),
                    pf->uplink);
    }
    fputs("}\n}\n", f);
    if (fclose(f) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

static void put_translation(FILE *f, const struct plan *p, size_t i, const char *veth)
{
    char guest[NET_ADDR_TEXT_MAX], host[NET_ADDR_TEXT_MAX], inside[NET_ADDR_TEXT_MAX];

    fputs("chain prerouting {\ntype nat hook prerouting priority dstnat; policy accept;\n", f);
    for (int v = 0; v < 2; v++) {
        const struct plan_family *pf = &p->family[v];

        if (!pf->on || !p->allow_incoming)
            continue;
        const struct plan_addresses a = plan_addresses(pf, i);
        fprintf(f, "iifname \"%s\" %s daddr { %s, %s } dnat %s to %s\n", veth, proto[v],
                net_addr_format(&a.host, host), net_addr_format(&a.inside, inside), proto[v],
                net_addr_format(&pf->guest, guest));
    }
    fputs("}\nchain postrouting {\ntype nat hook postrouting priority srcnat; policy accept;\n", f);
    for (int v = 0; v < 2; v++) {
        const struct plan_family *pf = &p->family[v];

        if (!pf->on)
            continue;
        const struct plan_addresses a = plan_addresses(pf, i);
        net_addr_format(&pf->guest, guest);
        fprintf(f, "oifname \"%s\" %s saddr %s snat %s to %s\n", veth, proto[v], guest, proto[v],
                net_addr_format(&a.host, host));
        if (p->allow_incoming)
            /* Not "masquerade", which is the same but ends a connection whose way out changes: one
             * may follow its machine to another host (examples/live-connections). */
            fprintf(f, "oifname \"%s\" %s daddr %s snat %s to %s\n", p->tap, proto[v], guest,
                    proto[v], net_addr_format(&pf->gateway, host));
    }
    fputs("}\n", f);
}

char *plan_namespace_rules(const struct plan *p, size_t i, bool kept)
{
    char guest[NET_ADDR_TEXT_MAX], veth[IFNAMSIZ];
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);

    if (!f)
        return NULL;
    plan_veth(p, i, 0, veth);
    /* Not where there is none: the kernel makes us wait for a deletion (for RCU, some 10 ms). */
    if (kept)
        fputs("table " PLAN_NAMESPACE_TABLE "\ndelete table " PLAN_NAMESPACE_TABLE "\n", f);
    fputs("table " PLAN_NAMESPACE_TABLE " {\n", f);
    put_translation(f, p, i, veth);
    fputs("chain forward {\ntype filter hook forward priority filter; policy accept;\n", f);
    for (int v = 0; v < 2; v++)
        if (p->family[v].on)
            fprintf(f, "iifname \"%s\" %s saddr != %s drop\n", p->tap, proto[v],
                    net_addr_format(&p->family[v].guest, guest));
    if (!p->family[1].on)
        fprintf(f, "iifname \"%s\" meta nfproto ipv6 drop\n", p->tap);
    if (!p->allow_incoming)
        fprintf(f, "oifname \"%s\" ct state new drop\n", p->tap);
    fputs("}\n}\n", f);
    if (fclose(f) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
