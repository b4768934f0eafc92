// SPDX-License-Identifier: Apache-2.0
/* forwarder.c - port forwards from the host into namespaces
 *
 * Theory of operation: the forwards in force are a sorted array of single ports ("entries"). A new
 * list is resolved into such an array; merging the two tells what to add, what to change and what
 * to delete, and that is one transaction on the maps of our table. Every entry holds its port by a
 * socket, so that no other program takes it and `ss` shows it; packets are translated before they
 * would reach the socket.
 *
 *   prerouting, output:  daddr . protocol . port -> address of the namespace . port   (by address)
 *                        local daddr: protocol . port -> ...                          (wildcard)
 *   postrouting:         what comes from a loopback address goes out as the veth's
 *
 * Loopback addresses need more (forwarder_targets.h). The table has the owner flag: it ends with
 * our process, however that ends.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "runtime/net/forwarder_targets.h"
#include "runtime/net/net.h"
#include "runtime/net/netns.h"
#include "runtime/net/rules.h"

struct entry {
    struct net_addr addr; /* what clients ask for */
    int protocol;
    uint16_t port;
    struct net_addr to;
    uint16_t to_port;
    int fd;                       /* holds the port */
    const struct net_forward *of; /* while it is being resolved */
};

struct entries {
    struct entry *items;
    size_t count, room;
};

struct net_forwarder {
    struct net_cidr pools[2];
    const struct context *ctx;
    uint64_t host;
    char table[64]; /* with its family */
    struct rules *rules;
    struct entries entries;
    struct targets targets;
};

static void free_entries(struct entries *e)
{
    for (size_t i = 0; i < e->count; i++)
        cleanup_close_p(&e->items[i].fd);
    free(e->items);
    *e = (struct entries){0};
}

static const char *const type_name[2] = {"ipv4_addr", "ipv6_addr"};
static const char *const proto[2] = {"ip", "ip6"};

static void put_chain(FILE *f, const char *name, const char *hook)
{
    fprintf(f, "chain %s {\ntype nat hook %s priority -100; policy accept;\n", name, hook);
    for (int v = 0; v < 2; v++)
        fprintf(
            f,
            "meta l4proto { tcp, udp } dnat %s to %s daddr . meta l4proto . th dport map @at%d\n",
            proto[v], proto[v], v ? 6 : 4);
    for (int v = 0; v < 2; v++)
        fprintf(f,
                "meta nfproto ipv%d fib daddr type local meta l4proto { tcp, udp } dnat %s to "
                "meta l4proto . th dport map @any%d\n",
                v ? 6 : 4, proto[v], v ? 6 : 4);
    fputs("}\n", f);
}

static char *table_rules(const char *table)
{
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);

    if (!f)
        return NULL;
    fprintf(f, "table %s {\nflags owner\n", table);
    for (int v = 0; v < 2; v++) {
        fprintf(f, "map at%d {\ntype %s . inet_proto . inet_service : %s . inet_service\n}\n",
                v ? 6 : 4, type_name[v], type_name[v]);
        fprintf(f, "map any%d {\ntype inet_proto . inet_service : %s . inet_service\n}\n",
                v ? 6 : 4, type_name[v]);
    }
    fputs("chain guard {\ntype filter hook prerouting priority raw; policy accept;\n"
          "iifname != \"lo\" ip daddr 127.0.0.0/8 drop\n"
          "iifname != \"lo\" ip6 daddr ::1 drop\n}\n",
          f);
    put_chain(f, "incoming", "prerouting");
    put_chain(f, "own", "output");
    fputs("chain leaving {\ntype nat hook postrouting priority srcnat; policy accept;\n"
          "oifname != \"lo\" ct status dnat ip saddr 127.0.0.0/8 masquerade\n"
          "oifname != \"lo\" ct status dnat ip6 saddr ::1 masquerade\n}\n}\n",
          f);
    if (fclose(f) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

static int start(struct net_forwarder *fw, const char *cidr, const char *cidr6, struct error *err)
{
    if (net_cidr_parse(cidr, AF_INET, "--host-veth-cidr", &fw->pools[0], err) < 0 ||
        net_cidr_parse(cidr6, AF_INET6, "--host-veth-cidr6", &fw->pools[1], err) < 0)
        return error_usage(err);
    if (geteuid() != 0)
        return error_set(err, EPERM, "forwarding ports needs root; run it with sudo");
    (void)snprintf(fw->table, sizeof(fw->table), "inet drafter_forwarder_%d", (int)getpid());
    cleanup_free char *text = table_rules(fw->table);
    if (!text)
        return error_oom(err);
    if (netns_cookie(&fw->host, err) < 0)
        return -1;
    fw->rules = rules_open(err);
    if (!fw->rules || rules_run(fw->rules, text, fw->table, err) < 0)
        return -1;
    rules_warn_of_drops(fw->rules, context_log(fw->ctx));
    return 0;
}

struct net_forwarder *net_forwarder_start(const char *host_veth_cidr, const char *host_veth_cidr6,
                                          const struct context *ctx, struct error *err)
{
    struct net_forwarder *fw = calloc(1, sizeof(*fw));
    struct error ignored;

    if (!fw) {
        error_oom(err);
        return NULL;
    }
    fw->ctx = ctx;
    if (start(fw, host_veth_cidr, host_veth_cidr6, err) < 0) {
        (void)net_forwarder_stop(fw, &ignored);
        return NULL;
    }
    return fw;
}

static int add_entry(struct entries *e, const struct entry *one, struct error *err)
{
    if (e->count == e->room) {
        const size_t room = e->room ? e->room * 2 : 64;
        struct entry *more = reallocarray(e->items, room, sizeof(*more));
        if (!more)
            return error_oom(err);
        e->items = more;
        e->room = room;
    }
    e->items[e->count++] = *one;
    return 0;
}

static int add_forward(const struct net_forward *f, struct target *t, int v, struct entries *e,
                       struct error *err)
{
    struct entry one = {
        .addr = f->addr, .protocol = f->protocol, .to = t->addr[v], .fd = -1, .of = f};

    one.addr.family = v ? AF_INET6 : AF_INET; /* of the wildcard for both; else it is so */
    if (!t->has[v])
        return error_set(err, EADDRNOTAVAIL, "network namespace %s has no IPv%d address", t->netns,
                         v ? 6 : 4);
    if (net_addr_is_any(&one.addr) || net_addr_is_loopback(&one.addr)) {
        t->loopback[v] = true;
        if (t->veth == 0 && net_addr_is_loopback(&one.addr))
            return error_set(err, ENODEV,
                             "network namespace %s: the other end of its link is not in this "
                             "network namespace, which a loopback address needs",
                             t->netns);
    }
    for (unsigned i = 0; i < f->count; i++) {
        one.port = (uint16_t)(f->first + i);
        one.to_port = (uint16_t)(f->internal + i);
        if (add_entry(e, &one, err) < 0)
            return -1;
    }
    return 0;
}

static int compare_entries(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    int rc = net_addr_compare(&x->addr, &y->addr);

    if (rc != 0)
        return rc;
    if (x->protocol != y->protocol)
        return x->protocol < y->protocol ? -1 : 1;
    return x->port < y->port ? -1 : x->port > y->port;
}

static int resolve(struct net_forwarder *fw, const struct net_forwards *list,
                   struct entries *entries, struct targets *targets, struct error *err)
{
    for (size_t i = 0; i < list->count; i++) {
        const struct net_forward *f = &list->items[i];
        char text[256];
        struct target *t = NULL;
        int rc = forwarder_target_find(fw->pools, targets, f->netns, &t, err);

        for (int v = 0; rc == 0 && v < 2; v++) {
            const bool wanted = f->both ? t->has[v] : (f->addr.family == AF_INET6) == v;
            if (wanted)
                rc = add_forward(f, t, v, entries, err);
        }
        if (rc < 0)
            return error_wrap(err, "port forward %s", net_forward_format(f, text, sizeof(text)));
    }
    if (entries->count > 1)
        qsort(entries->items, entries->count, sizeof(*entries->items), compare_entries);
    return 0;
}

/* Takes the port for us, or says that somebody has it. */
static int hold_port(struct entry *e, struct error *err)
{
    const bool six = e->addr.family == AF_INET6, tcp = e->protocol == IPPROTO_TCP;
    const int one = 1;
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } a = {0};
    char text[256], addr[NET_ADDR_TEXT_MAX];

    if (six) {
        a.in6.sin6_family = AF_INET6;
        a.in6.sin6_port = htons(e->port);
        memcpy(&a.in6.sin6_addr, e->addr.bytes, 16);
    } else {
        a.in.sin_family = AF_INET;
        a.in.sin_port = htons(e->port);
        memcpy(&a.in.sin_addr, e->addr.bytes, 4);
    }
    e->fd =
        socket(e->addr.family, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (e->fd < 0)
        return error_sys(err, "port forward %s: make a socket for each port",
                         net_forward_format(e->of, text, sizeof(text)));
    /* An address that is not (yet) this host's may be forwarded too; a connection in TIME_WAIT does
     * not count as use of the port. */
    if (setsockopt(e->fd, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_FREEBIND : IP_FREEBIND, &one,
                   sizeof(one)) < 0 ||
        (six && setsockopt(e->fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one)) < 0) ||
        (tcp && setsockopt(e->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0) ||
        bind(e->fd, &a.any, six ? sizeof(a.in6) : sizeof(a.in)) < 0 ||
        (tcp && listen(e->fd, 1) < 0)) {
        const int saved = errno;
        if (saved == EADDRINUSE)
            return error_set(err, EADDRINUSE, "port forward %s: %s port %u of %s is in use",
                             net_forward_format(e->of, text, sizeof(text)), tcp ? "tcp" : "udp",
                             e->port, net_addr_format(&e->addr, addr));
        return error_num(err, saved, "port forward %s: take port %u of %s",
                         net_forward_format(e->of, text, sizeof(text)), e->port,
                         net_addr_format(&e->addr, addr));
    }
    return 0;
}

/* A set of map elements that is being written, one list for each map. */
enum { AT4, ANY4, AT6, ANY6, MAPS };

struct change {
    FILE *f[MAPS];
    char *text[MAPS];
    size_t len[MAPS];
    size_t count[MAPS];
};

static int change_begin(struct change *c, struct error *err)
{
    for (int m = 0; m < MAPS; m++) {
        c->f[m] = open_memstream(&c->text[m], &c->len[m]);
        if (!c->f[m])
            return error_oom(err);
    }
    return 0;
}

static void change_free(struct change *c)
{
    for (int m = 0; m < MAPS; m++) {
        if (c->f[m])
            (void)fclose(c->f[m]);
        free(c->text[m]);
    }
}

static void change_put(struct change *c, const struct entry *e, bool value)
{
    const bool any = net_addr_is_any(&e->addr);
    const int m = (e->addr.family == AF_INET6 ? AT6 : AT4) + any;
    char addr[NET_ADDR_TEXT_MAX];
    FILE *f = c->f[m];

    if (c->count[m]++)
        fputs(",\n", f);
    if (!any)
        fprintf(f, "%s . ", net_addr_format(&e->addr, addr));
    fprintf(f, "%s . %u", e->protocol == IPPROTO_TCP ? "tcp" : "udp", e->port);
    if (value)
        fprintf(f, " : %s . %u", net_addr_format(&e->to, addr), e->to_port);
}

static int change_write(struct change *c, const char *verb, const char *table, FILE *out)
{
    static const char *const map[MAPS] = {"at4", "any4", "at6", "any6"};

    for (int m = 0; m < MAPS; m++) {
        const int rc = fclose(c->f[m]);
        c->f[m] = NULL;
        if (rc != 0)
            return -1;
        if (c->count[m] > 0)
            fprintf(out, "%s element %s %s { %s }\n", verb, table, map[m], c->text[m]);
    }
    return 0;
}

#define cleanup_change CLEANUP(change_free)

/* Walks both sorted arrays. Moves the sockets of entries that stay into the new one, takes those of
 * new entries, and writes down what has to change. */
static int merge(struct entries *old, struct entries *new, struct change *del, struct change *add,
                 struct error *err)
{
    size_t o = 0, n = 0;

    while (o < old->count || n < new->count) {
        struct entry *a = o < old->count ? &old->items[o] : NULL;
        struct entry *b = n < new->count ? &new->items[n] : NULL;
        const int rc = o >= old->count ? 1 : n >= new->count ? -1 : compare_entries(a, b);

        if (rc < 0) {
            change_put(del, a, true);
            cleanup_close_p(&a->fd); /* a new entry may want the port of another address */
            o++;
            continue;
        }
        n++;
        if (rc > 0) {
            change_put(add, b, true);
            continue;
        }
        o++;
        if (!net_addr_equal(&a->to, &b->to) || a->to_port != b->to_port) {
            change_put(del, a, true);
            change_put(add, b, true);
        }
    }
    /* Only now: all that go have let go of their ports. */
    for (o = n = 0; n < new->count; n++) {
        while (o < old->count && compare_entries(&old->items[o], &new->items[n]) < 0)
            o++;
        if (o < old->count && compare_entries(&old->items[o], &new->items[n]) == 0)
            continue;
        if (hold_port(&new->items[n], err) < 0)
            return -1;
    }
    return 0;
}

static void take_over_sockets(struct entries *old, struct entries *new)
{
    for (size_t o = 0, n = 0; n < new->count; n++) {
        if (new->items[n].fd >= 0)
            continue;
        while (compare_entries(&old->items[o], &new->items[n]) < 0)
            o++;
        new->items[n].fd = steal_fd(&old->items[o].fd);
    }
}

/* After a change that failed: the ports that had been let go are ours again, if nobody was faster.
 */
static void retake_ports(struct entries *e)
{
    static const struct net_forward nothing;
    struct error ignored;

    for (size_t i = 0; i < e->count; i++) {
        if (e->items[i].fd >= 0)
            continue;
        e->items[i].of = &nothing;
        if (hold_port(&e->items[i], &ignored) < 0)
            cleanup_close_p(&e->items[i].fd);
        e->items[i].of = NULL;
    }
}

static int apply(struct net_forwarder *fw, struct entries *new, struct targets *targets,
                 struct error *err)
{
    cleanup_change struct change del = {0};
    cleanup_change struct change add = {0};
    cleanup_free char *text = NULL;
    size_t len;

    if (change_begin(&del, err) < 0 || change_begin(&add, err) < 0 ||
        merge(&fw->entries, new, &del, &add, err) < 0 ||
        forwarder_targets_open(fw->host, targets, err) < 0)
        return -1;
    FILE *f = open_memstream(&text, &len);
    if (!f)
        return error_oom(err);
    int rc = change_write(&del, "delete", fw->table, f);
    if (rc == 0)
        rc = change_write(&add, "add", fw->table, f);
    if (fclose(f) != 0 || rc < 0)
        return error_oom(err);
    if (len > 0 && rules_run(fw->rules, text, fw->table, err) < 0)
        return -1;
    return 0;
}

int net_forwarder_apply(struct net_forwarder *fw, const struct net_forwards *list,
                        struct error *err)
{
    struct entries new = {0};
    struct targets targets = {0};
    struct error why;

    if (net_forwards_check(list, err) < 0)
        return -1;
    if (resolve(fw, list, &new, &targets, err) < 0 || apply(fw, &new, &targets, err) < 0) {
        free_entries(&new);
        retake_ports(&fw->entries);
        (void)forwarder_targets_release(&targets, &why);
        return -1;
    }
    take_over_sockets(&fw->entries, &new);
    for (size_t i = 0; i < new.count; i++)
        new.items[i].of = NULL; /* the list may go */
    free_entries(&fw->entries);
    fw->entries = new;
    struct targets old = fw->targets;
    fw->targets = targets;
    if (forwarder_targets_release(&old, &why) < 0)
        log_warn(context_log(fw->ctx), "could not set back a setting, ignoring",
                 log_str("error", why.text));
    return 0;
}

size_t net_forwarder_count(const struct net_forwarder *fw)
{
    return fw->entries.count;
}

int net_forwarder_stop(struct net_forwarder *fw, struct error *err)
{
    if (!fw)
        return 0;
    rules_close(fw->rules); /* the table goes with it */
    free_entries(&fw->entries);
    int rc = forwarder_targets_release(&fw->targets, err);
    free(fw);
    return rc;
}
