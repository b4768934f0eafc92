// SPDX-License-Identifier: Apache-2.0
/* nat.c - makes, keeps and takes away the namespaces of a host
 *
 * Theory of operation: the host's settings and rules first, so that no namespace is ever open to
 * more than it may be; then the namespaces, several at a time, each by a worker thread that moves
 * into it. net_nat_stop() serves the failed start too: it takes away whatever of the plan is ours.
 *
 * All veths carry one link group on the host and are deleted by it in one request: the kernel then
 * waits once instead of once for each.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "runtime/base/io.h"
#include "runtime/base/parse.h"
#include "runtime/base/workers.h"
#include "runtime/net/hold.h"
#include "runtime/net/net.h"
#include "runtime/net/netlink.h"
#include "runtime/net/netns.h"
#include "runtime/net/plan.h"
#include "runtime/net/rules.h"
#include "runtime/net/tap.h"

/* A name in the abstract name space of UNIX sockets, which each network namespace has its own of
 * and which ends with its holder: there is nothing to clean up. */
#define LOCK_NAME_NAT "drafter-nat"

struct net_nat {
    struct plan plan;
    const struct context *ctx;
    uint64_t host; /* cookie */
    int host_fd;
    int lock_fd;
    struct hold *holds[4];
    size_t n_holds;
    bool owns; /* the lock is ours: what is to be taken away is ours to take */
    /* Over what takes the kernel's lock of all links (RTNL): a sysctl that finds it taken is not
     * made to wait but spins through its system call. */
    pthread_mutex_t links_lock;
    /* libnftables keeps state of its parser in file scope: one at a time. */
    pthread_mutex_t nft_lock;
};

struct job {
    struct net_nat *nat;
    size_t i;
};

static int lock_host(struct net_nat *nat, struct error *err)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    const socklen_t len = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(LOCK_NAME_NAT);

    memcpy(name.sun_path + 1, LOCK_NAME_NAT, strlen(LOCK_NAME_NAT));
    nat->lock_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (nat->lock_fd < 0)
        return error_sys(err, "make a socket");
    if (bind(nat->lock_fd, (struct sockaddr *)&name, len) < 0) {
        if (errno == EADDRINUSE)
            return error_set(err, EBUSY,
                             "another drafter-nat serves this network namespace; stop it first");
        return error_sys(err, "claim this network namespace");
    }
    nat->owns = true;
    return 0;
}

static int find_uplinks(struct net_nat *nat, const char *wanted, struct nl *nl, struct error *err)
{
    struct plan_family *f = nat->plan.family;

    if (wanted && *wanted) {
        if (nl_link_index(nl, wanted) == 0)
            return error_set(err, ENODEV, "--host-interface %s: there is no such link", wanted);
        for (int v = 0; v < 2; v++)
            (void)snprintf(f[v].uplink, sizeof(f[v].uplink), "%s", wanted);
        return 0;
    }
    for (int v = 0; v < 2; v++) {
        int index;

        if (nl_default_link(nl, f[v].pairs.addr.family == AF_INET6 ? AF_INET6 : AF_INET, &index,
                            err) < 0)
            return -1;
        if (f[v].on && index > 0 &&
            (!if_indextoname((unsigned)index, f[v].uplink) || !plan_link_name(f[v].uplink)))
            return error_set(err, ENODEV,
                             "the default route's link has no usable name; give --host-interface");
    }
    /* One default route is enough: the other family goes the same way, if it goes. */
    for (int v = 0; v < 2; v++)
        if (!f[v].uplink[0])
            memcpy(f[v].uplink, f[!v].uplink, sizeof(f[v].uplink));
    if (!f[0].uplink[0])
        return error_set(err, ENETUNREACH,
                         "there is no default route to find the uplink by; give --host-interface");
    return 0;
}

/* An address of another link within a pool would be reached by the wrong way. (A link whose subnet
 * holds the whole pool is fine: our routes are the longer ones.) */
static int check_addresses(const struct net_nat *nat, struct nl *nl, struct error *err)
{
    cleanup_free struct nl_address_info *all = NULL;
    char link[IFNAMSIZ], addr[NET_ADDR_TEXT_MAX], pool[NET_CIDR_TEXT_MAX];
    size_t count;

    if (nl_addresses(nl, &all, &count, err) < 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        const struct plan_family *f = &nat->plan.family[all[i].addr.family == AF_INET6];

        if (!f->on)
            continue;
        const bool pairs = net_cidr_contains(&f->pairs, &all[i].addr);
        if (!pairs && !net_cidr_contains(&f->hosts, &all[i].addr))
            continue;
        return error_set(err, EADDRINUSE,
                         "--%s-veth-cidr%s %s holds %s/%u of link %s; choose another",
                         pairs ? "host" : "namespace", f == nat->plan.family ? "" : "6",
                         net_cidr_format(pairs ? &f->pairs : &f->hosts, pool),
                         net_addr_format(&all[i].addr, addr), all[i].prefix,
                         if_indextoname((unsigned)all[i].index, link) ? link : "?");
    }
    return 0;
}

static int hold(struct net_nat *nat, const char *sysctl, const char *value, struct error *err)
{
    struct hold *h = NULL;

    if (hold_sysctl(nat->host, sysctl, value, &h, err) < 0)
        return -1;
    if (h)
        nat->holds[nat->n_holds++] = h;
    return 0;
}

/* A host that forwards IPv6 no longer listens to router advertisements, by which it may have its
 * own default route, unless told to (accept_ra 2, Documentation/networking/ip-sysctl.rst). */
static int keep_router_advertisements(struct net_nat *nat, struct error *err)
{
    char name[64], path[96];
    struct error ignored;

    (void)snprintf(name, sizeof(name), "net/ipv6/conf/%s/accept_ra", nat->plan.family[1].uplink);
    (void)snprintf(path, sizeof(path), "/proc/sys/%s", name);
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    char value[4] = "";
    if (fd < 0 || io_read(fd, value, sizeof(value) - 1, path, &ignored) < 1 ||
        (value[0] != '1' && value[0] != '2')) /* 2 may be of a killed run's setting */
        return 0;
    return hold(nat, name, "2", err);
}

static int set_host(struct net_nat *nat, struct error *err)
{
    cleanup_free char *text = plan_host_rules(&nat->plan);
    cleanup_rules struct rules *rules = text ? rules_open(err) : NULL;

    if (!text)
        return error_oom(err);
    if (!rules || rules_run(rules, text, "table " PLAN_HOST_TABLE, err) < 0)
        return -1;
    rules_warn_of_drops(rules, context_log(nat->ctx));
    if (hold(nat, "net/ipv4/ip_forward", "1", err) < 0)
        return -1;
    if (!nat->plan.family[1].on)
        return 0;
    if (keep_router_advertisements(nat, err) < 0)
        return -1;
    if (hold(nat, "net/ipv6/conf/all/forwarding", "1", err) < 0) {
        if (err && err->code == ENOENT)
            return error_set(err, ENOENT, "this host has no IPv6; give --ipv6=false");
        return -1;
    }
    return 0;
}

static int write_sysctl(const char *path, const char *value, struct error *err)
{
    cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);

    return fd < 0 ? error_sys(err, "%s", path) : io_write(fd, value, strlen(value), path, err);
}

static int flush(struct net_nat *nat, struct nl *nl, struct error *err)
{
    lock_scope(&nat->links_lock);
    return nl_flush(nl, err);
}

static int forward_packets(struct net_nat *nat, struct error *err)
{
    lock_scope(&nat->links_lock);
    if (write_sysctl("/proc/sys/net/ipv4/ip_forward", "1", err) < 0)
        return -1;
    return nat->plan.family[1].on ? write_sysctl("/proc/sys/net/ipv6/conf/all/forwarding", "1", err)
                                  : 0;
}

static int make_tap(struct net_nat *nat, struct error *err)
{
    lock_scope(&nat->links_lock);
    return tap_make(nat->plan.tap, err);
}

/* A namespace that was kept may have addresses of other options. */
static int drop_addresses(struct nl *nl, int index, struct error *err)
{
    cleanup_free struct nl_address_info *all = NULL;
    size_t count;

    if (nl_addresses(nl, &all, &count, err) < 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        if (all[i].index != index ||
            (all[i].addr.family == AF_INET6 && all[i].addr.bytes[0] == 0xfe))
            continue;
        nl_address_delete(nl, index, &all[i].addr, all[i].prefix);
        if (nl_flush(nl, err) < 0)
            return -1;
    }
    return 0;
}

/* Link-local addresses, which the kernel needs to look for neighbours on behalf of others. Its own
 * would be there only after a second of looking for duplicates. */
static void link_local(struct nl *nl, int index, uint8_t last)
{
    const struct net_addr a = {.family = AF_INET6, .bytes = {0xfe, 0x80, [15] = last}};

    nl_address(nl, index, &a, 64);
}

/* Inside: the tap, the veth's inner end, the way out. */
static int set_inside(struct net_nat *nat, size_t i, bool kept, struct error *err)
{
    const struct plan *p = &nat->plan;
    cleanup_nl struct nl *nl = nl_new(err);
    char inner[IFNAMSIZ], outer[IFNAMSIZ];
    int tap;

    if (!nl)
        return -1;
    plan_veth(p, i, 0, inner);
    plan_veth(p, i, 1, outer);
    tap = kept ? nl_link_index(nl, p->tap) : 0;
    if (tap == 0) {
        if (make_tap(nat, err) < 0)
            return -1;
        tap = nl_link_index(nl, p->tap);
    } else if (drop_addresses(nl, tap, err) < 0) {
        return -1;
    }
    nl_veth(nl, inner, outer, nat->host_fd, NET_LINK_GROUP);
    if (flush(nat, nl, err) < 0)
        return -1;
    const int veth = nl_link_index(nl, inner);
    nl_no_link_local(nl, veth);
    nl_no_link_local(nl, tap);
    nl_up(nl, 1, NULL); /* lo */
    nl_up(nl, tap, p->mac);
    nl_up(nl, veth, NULL);
    if (p->family[1].on) {
        link_local(nl, tap, 1);
        link_local(nl, veth, 1);
    }
    for (int v = 0; v < 2; v++) {
        const struct plan_family *f = &p->family[v];

        if (!f->on)
            continue;
        const struct plan_addresses a = plan_addresses(f, i);
        const struct net_cidr any = net_cidr_of(&a.outside, 0);
        nl_address(nl, tap, &f->gateway, f->guest_prefix);
        nl_address(nl, veth, &a.inside, net_addr_bits(a.inside.family) - 2);
        nl_route(nl, &any, &a.outside, veth);
    }
    if (flush(nat, nl, err) < 0 || forward_packets(nat, err) < 0)
        return -1;

    cleanup_free char *text = plan_namespace_rules(p, i, kept);
    if (!text)
        return error_oom(err);
    lock_scope(&nat->nft_lock);
    cleanup_rules struct rules *rules = rules_open(err);
    return rules ? rules_run(rules, text, "table " PLAN_NAMESPACE_TABLE, err) : -1;
}

/* Outside: the veth's outer end and the routes to what the namespace has. */
static int set_outside(struct net_nat *nat, size_t i, struct nl *nl, struct error *err)
{
    char outer[IFNAMSIZ];

    plan_veth(&nat->plan, i, 1, outer);
    const int veth = nl_link_index(nl, outer);
    if (veth == 0)
        return error_set(err, ENODEV, "link %s has vanished", outer);
    nl_no_link_local(nl, veth);
    nl_up(nl, veth, NULL);
    if (nat->plan.family[1].on)
        link_local(nl, veth, 2);
    for (int v = 0; v < 2; v++) {
        const struct plan_family *f = &nat->plan.family[v];

        if (!f->on)
            continue;
        const struct plan_addresses a = plan_addresses(f, i);
        const unsigned bits = net_addr_bits(a.host.family);
        const struct net_cidr one = net_cidr_of(&a.host, bits);
        nl_address(nl, veth, &a.outside, bits - 2);
        nl_route(nl, &one, &a.inside, veth);
    }
    return flush(nat, nl, err);
}

static int enter(int fd, struct error *err)
{
    return setns(fd, CLONE_NEWNET) < 0 ? error_sys(err, "enter a network namespace") : 0;
}

/* In a worker thread, which belongs to no namespace in particular. */
static int make_one(struct net_nat *nat, size_t i, const char *name, struct error *err)
{
    enum netns_owner owner;

    if (context_check(nat->ctx, err) < 0 || enter(nat->host_fd, err) < 0)
        return -1;
    cleanup_nl struct nl *outside = nl_new(err);
    if (!outside || netns_look(name, nat->host, &owner, err) < 0)
        return -1;
    if (owner == NETNS_FOREIGN)
        return error_set(err, EEXIST, "somebody else made it");
    if (owner == NETNS_REMAINS && netns_remove(name, err) < 0)
        return -1;
    if (owner == NETNS_OURS) {
        cleanup_close int fd = net_open_namespace(name, err);
        if (fd < 0 || enter(fd, err) < 0)
            return -1;
    } else if (netns_create(name, nat->host, err) < 0) {
        return -1;
    }
    int rc = set_inside(nat, i, owner == NETNS_OURS, err);
    if (rc == 0)
        rc = set_outside(nat, i, outside, err);
    /* The thread must not keep a namespace alive that is taken away again. */
    if (enter(nat->host_fd, rc < 0 ? NULL : err) < 0)
        rc = -1;
    return rc;
}

static int run_job(void *opaque, struct error *err)
{
    struct job *job = opaque;
    char name[NET_NAME_MAX];

    plan_name(&job->nat->plan, job->i, name);
    int rc = make_one(job->nat, job->i, name, err);
    if (rc < 0)
        rc = error_wrap(err, "network namespace %s", name);
    free(job);
    return rc;
}

static int make_all(struct net_nat *nat, struct error *err)
{
    cleanup_workers struct workers *w = workers_new(0, 16, err);

    if (!w)
        return -1;
    for (size_t i = 0; i < nat->plan.count; i++) {
        struct job *job = malloc(sizeof(*job));

        if (!job)
            return error_oom(err);
        *job = (struct job){.nat = nat, .i = i};
        if (workers_submit(w, run_job, free, job, err) < 0)
            return -1;
        context_progress(nat->ctx, "namespaces", i, nat->plan.count, "namespaces");
    }
    return workers_finish(w, err);
}

/* Before anything is changed: a name that is not ours to take. */
static int check_foreign(const struct net_nat *nat, struct error *err)
{
    for (size_t i = 0; i < nat->plan.count; i++) {
        char name[NET_NAME_MAX];
        enum netns_owner owner;

        plan_name(&nat->plan, i, name);
        if (netns_look(name, nat->host, &owner, err) < 0)
            return -1;
        if (owner == NETNS_FOREIGN)
            return error_set(err, EEXIST,
                             "network namespace %s exists and is not of this drafter-nat; choose "
                             "another --namespace-prefix, or delete it with 'ip netns delete %s'",
                             name, name);
    }
    return 0;
}

/* all: every namespace of ours; otherwise those that the plan does not name. */
struct sweep {
    struct net_nat *nat;
    bool all;
    size_t removed;
    int rc;
    struct error *err;
};

static bool planned(const struct plan *p, const char *name)
{
    const size_t len = strlen(p->prefix);
    char same[NET_NAME_MAX];
    uint64_t i;

    if (strncmp(name, p->prefix, len) != 0 || strspn(name + len, "0123456789") == 0 ||
        parse_u64(name + len, 0, p->count - 1, "number", &i, NULL) < 0)
        return false;
    plan_name(p, (size_t)i, same);
    return strcmp(same, name) == 0;
}

static int sweep_one(const char *name, void *opaque, struct error *err)
{
    struct sweep *s = opaque;
    enum netns_owner owner;
    struct error why;

    (void)err;
    if (!s->all && planned(&s->nat->plan, name))
        return 0;
    int rc = netns_look(name, s->nat->host, &owner, &why);
    if (rc == 0 && owner != NETNS_OURS && owner != NETNS_REMAINS)
        return 0;
    if (rc == 0)
        rc = netns_remove(name, &why);
    if (rc < 0 && s->rc == 0)
        s->rc = error_set(s->err, why.code, "%s", why.text);
    s->removed++;
    return 0;
}

/* Takes away the veths of ours and namespaces as sweep_one() says. */
static int sweep(struct net_nat *nat, bool all, size_t *ret_removed, struct error *err)
{
    struct sweep s = {.nat = nat, .all = all, .err = err};
    cleanup_nl struct nl *nl = nl_new(err);

    if (!nl)
        s.rc = -1;
    else {
        nl_group_delete(nl, NET_LINK_GROUP);
        s.rc = nl_flush(nl, err);
    }
    if (netns_each_mark(nat->host, sweep_one, &s, s.rc < 0 ? NULL : err) < 0)
        s.rc = -1;
    *ret_removed = s.removed;
    return s.rc;
}

static int start(struct net_nat *nat, const char *uplink, struct error *err)
{
    cleanup_nl struct nl *nl = NULL;
    size_t removed;

    if (geteuid() != 0)
        return error_set(err, EPERM, "making network namespaces needs root; run it with sudo");
    nat->host_fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (nat->host_fd < 0)
        return error_sys(err, "open our network namespace");
    nl = nl_new(err);
    if (!nl || netns_cookie(&nat->host, err) < 0 || find_uplinks(nat, uplink, nl, err) < 0 ||
        netns_prepare(err) < 0 || check_foreign(nat, err) < 0 || lock_host(nat, err) < 0)
        return -1;
    if (netns_names_hidden())
        log_warn(context_log(nat->ctx),
                 "the namespaces' names are seen by this program alone: in a network namespace of "
                 "its own, start it by 'nsenter --net=FILE' instead of 'ip netns exec'",
                 log_str("folder", NET_NAMESPACE_DIR));
    if (sweep(nat, false, &removed, err) < 0 || check_addresses(nat, nl, err) < 0)
        return -1;
    if (removed > 0)
        log_info(context_log(nat->ctx), "Removed what an earlier run left",
                 log_uint("namespaces", removed));
    if (set_host(nat, err) < 0)
        return -1;
    /* Now that what we hold ourselves is ours again. */
    return hold_sweep(nat->host, err) < 0 ? -1 : make_all(nat, err);
}

struct net_nat *net_nat_start(const struct net_nat_options *options, const struct context *ctx,
                              struct error *err)
{
    struct net_nat *nat = calloc(1, sizeof(*nat));

    if (!nat) {
        error_oom(err);
        return NULL;
    }
    nat->ctx = ctx;
    nat->host_fd = nat->lock_fd = -1;
    (void)pthread_mutex_init(&nat->nft_lock, NULL);
    (void)pthread_mutex_init(&nat->links_lock, NULL);
    if (plan_make(options, &nat->plan, err) < 0 || start(nat, options->host_interface, err) < 0) {
        struct error ignored;
        (void)net_nat_stop(nat, &ignored);
        return NULL;
    }
    return nat;
}

size_t net_nat_count(const struct net_nat *nat)
{
    return nat->plan.count;
}

/* Keeps the first failure. */
static void note(int rc, const struct error *why, int *first, struct error *err)
{
    if (rc < 0 && *first == 0)
        *first = error_set(err, why->code, "%s", why->text);
}

int net_nat_stop(struct net_nat *nat, struct error *err)
{
    struct error why;
    size_t removed;
    int rc = 0;

    if (!nat)
        return 0;
    if (nat->owns) {
        note(sweep(nat, true, &removed, &why), &why, &rc, err);
        cleanup_rules struct rules *rules = rules_open(&why);
        note(rules
                 ? rules_run(rules, "table " PLAN_HOST_TABLE "\ndelete table " PLAN_HOST_TABLE "\n",
                             "table " PLAN_HOST_TABLE, &why)
                 : -1,
             &why, &rc, err);
    }
    while (nat->n_holds > 0)
        note(hold_release(nat->holds[--nat->n_holds], NULL, &why), &why, &rc, err);
    cleanup_close_p(&nat->lock_fd);
    cleanup_close_p(&nat->host_fd);
    (void)pthread_mutex_destroy(&nat->nft_lock);
    (void)pthread_mutex_destroy(&nat->links_lock);
    free(nat);
    return rc;
}
