// SPDX-License-Identifier: Apache-2.0
/* forward.c - port forwards as people write them: JSON, or "8080:80/tcp@ark0" */
#include <ctype.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/json.h"
#include "runtime/base/parse.h"
#include "runtime/net/net.h"
#include "runtime/net/plan.h"

#define LOOPBACK_NAME "localhost"

void net_forwards_free(struct net_forwards *list)
{
    free(list->items);
    *list = (struct net_forwards){0};
}

static int append(struct net_forwards *list, const struct net_forward *f, const char *what,
                  struct error *err)
{
    if (list->count >= NET_FORWARDS_MAX)
        return error_set(err, E2BIG, "%s: more than %d forwards", what, NET_FORWARDS_MAX);
    /* Grows by doubling; the count alone tells when. */
    if ((list->count & (list->count - 1)) == 0) {
        struct net_forward *more =
            reallocarray(list->items, list->count ? list->count * 2 : 1, sizeof(*more));
        if (!more)
            return error_oom(err);
        list->items = more;
    }
    list->items[list->count++] = *f;
    return 0;
}

/* Decimal digits only, 1..65535. Returns the end, or NULL. */
static const char *take_port(const char *p, uint16_t *ret)
{
    unsigned n = 0;

    if (!isdigit((unsigned char)*p))
        return NULL;
    for (; isdigit((unsigned char)*p); p++) {
        n = n * 10 + (unsigned)(*p - '0');
        if (n > UINT16_MAX)
            return NULL;
    }
    *ret = (uint16_t)n;
    return n > 0 ? p : NULL;
}

/* "PORT" or "PORT-PORT". */
static int parse_ports(const char *text, const char *what, uint16_t *ret_first, uint16_t *ret_count,
                       struct error *err)
{
    uint16_t first = 0, last = 0;
    const char *p = take_port(text, &first);

    last = first;
    if (p && *p == '-')
        p = take_port(p + 1, &last);
    if (!p || *p || last < first || last - first == UINT16_MAX)
        return error_set(err, EINVAL,
                         "%s: \"%s\" is no port (1 to 65535) and no range of ports (8000-8010)",
                         what, text);
    *ret_first = first;
    *ret_count = (uint16_t)(last - first + 1);
    return 0;
}

static int set_internal(struct net_forward *f, const char *text, const char *what,
                        struct error *err)
{
    uint16_t count;

    if (parse_ports(text, what, &f->internal, &count, err) < 0)
        return -1;
    if (count != f->count)
        return error_set(err, EINVAL,
                         "%s: %u ports outside and %u inside; both ranges must be "
                         "equally long",
                         what, f->count, count);
    return 0;
}

static int set_protocol(struct net_forward *f, const char *text, const char *what,
                        struct error *err)
{
    if (strcasecmp(text, "tcp") == 0)
        f->protocol = IPPROTO_TCP;
    else if (strcasecmp(text, "udp") == 0)
        f->protocol = IPPROTO_UDP;
    else
        return error_set(err, EINVAL, "%s: protocol \"%s\" is neither tcp nor udp", what, text);
    return 0;
}

static int set_netns(struct net_forward *f, const char *text, const char *what, struct error *err)
{
    if (!*text || strlen(text) >= sizeof(f->netns) || strchr(text, '/') || strcmp(text, ".") == 0 ||
        strcmp(text, "..") == 0)
        return error_set(err, EINVAL, "%s: \"%s\" is not the name of a network namespace", what,
                         text);
    for (const char *p = text; *p; p++)
        if (!isgraph((unsigned char)*p))
            return error_set(err, EINVAL,
                             "%s: the name of the network namespace has blanks or "
                             "other signs in it that are none of a name",
                             what);
    memcpy(f->netns, text, strlen(text) + 1);
    return 0;
}

/* "HOST:PORTS", "[HOST]:PORTS", ":PORTS" or "PORTS"; without a host all addresses are meant. */
static int set_external(struct net_forward *f, const char *text, const char *what,
                        struct error *err)
{
    char host[NET_ADDR_TEXT_MAX + 2];
    const char *colon = strrchr(text, ':'), *begin = text;
    size_t len = colon ? (size_t)(colon - text) : 0;

    f->both = len == 0;
    f->addr = (struct net_addr){.family = AF_INET};
    if (parse_ports(colon ? colon + 1 : text, what, &f->first, &f->count, err) < 0)
        return -1;
    if (len == 0)
        return 0;
    const bool bracket = *begin == '[' && begin[len - 1] == ']' && len > 2;
    if (bracket) {
        begin++;
        len -= 2;
    }
    if (len >= sizeof(host))
        return error_set(err, EINVAL, "%s: \"%s\": the address is too long", what, text);
    memcpy(host, begin, len);
    host[len] = '\0';
    if (strcmp(host, LOOPBACK_NAME) == 0)
        memcpy(host, "127.0.0.1", sizeof("127.0.0.1"));
    if (net_addr_parse(host, AF_UNSPEC, what, &f->addr, err) < 0)
        return -1;
    if (bracket != (f->addr.family == AF_INET6))
        return error_set(err, EINVAL,
                         "%s: \"%s\": write IPv6 addresses, and only them, in "
                         "brackets: [::1]:3333",
                         what, text);
    return 0;
}

static int parse_one(struct json_object *obj, const char *what, struct net_forward *ret,
                     struct error *err)
{
    static const char *const keys[] = {"netns", "internalPort", "protocol", "externalAddr", NULL};
    const char *netns, *protocol = "tcp", *external, *internal;
    struct json_object *port;
    struct net_forward f = {0};

    if (!json_object_is_type(obj, json_type_object))
        return error_set(err, EBADMSG, "%s: not an object", what);
    if (json_only_keys(obj, keys, what, err) < 0 ||
        json_required(json_get_string(obj, "netns", what, &netns, err), "netns", what, err) < 0 ||
        json_get_string(obj, "protocol", what, &protocol, err) < 0 ||
        json_required(json_get_string(obj, "externalAddr", what, &external, err), "externalAddr",
                      what, err) < 0)
        return -1;
    /* A string upstream; a number is what people write. */
    if (json_object_object_get_ex(obj, "internalPort", &port) &&
        json_object_is_type(port, json_type_int))
        internal = json_object_get_string(port);
    else if (json_required(json_get_string(obj, "internalPort", what, &internal, err),
                           "internalPort", what, err) < 0)
        return -1;
    if (set_netns(&f, netns, what, err) < 0 || set_protocol(&f, protocol, what, err) < 0 ||
        set_external(&f, external, what, err) < 0 || set_internal(&f, internal, what, err) < 0)
        return -1;
    *ret = f;
    return 0;
}

int net_forwards_parse(const char *json, size_t len, const char *what, struct net_forwards *list,
                       struct error *err)
{
    if (len > NET_FORWARD_TEXT_MAX)
        return error_set(err, E2BIG, "%s: longer than %u bytes", what, NET_FORWARD_TEXT_MAX);
    cleanup_json struct json_object *doc = json_parse(json, len, what, err);
    if (!doc)
        return -1;
    if (!json_object_is_type(doc, json_type_array))
        return error_set(err, EBADMSG, "%s: not an array of port forwards", what);
    const size_t n = json_object_array_length(doc);
    for (size_t i = 0; i < n; i++) {
        struct net_forward f;
        char name[128];

        (void)snprintf(name, sizeof(name), "%.96s[%zu]", what, i);
        if (parse_one(json_object_array_get_idx(doc, i), name, &f, err) < 0 ||
            append(list, &f, what, err) < 0)
            return -1;
    }
    return 0;
}

int net_forwards_parse_short(const char *text, const char *what, struct net_forwards *list,
                             struct error *err)
{
    char buf[256], name[sizeof(buf) + 64];
    struct net_forward f = {.protocol = IPPROTO_TCP};

    if (strlen(text) >= sizeof(buf))
        return error_set(err, EINVAL, "%s: longer than %zu characters", what, sizeof(buf) - 1);
    memcpy(buf, text, strlen(text) + 1);
    (void)snprintf(name, sizeof(name), "%.48s %s", what, text);
    /* From the end: what is left of the last ':' may have more of them. */
    char *at = strrchr(buf, '@');
    char *colon = at ? (*at = '\0', strrchr(buf, ':')) : NULL;
    if (!colon)
        return error_set(err, EINVAL,
                         "%s: write [ADDRESS:]PORT:PORT[/PROTOCOL]@NAMESPACE, as in "
                         "3333:6379/tcp@ark0",
                         name);
    *colon = '\0';
    char *slash = strchr(colon + 1, '/');
    if (slash)
        *slash = '\0';
    if (set_netns(&f, at + 1, name, err) < 0 ||
        (slash && set_protocol(&f, slash + 1, name, err) < 0) ||
        set_external(&f, buf, name, err) < 0 || set_internal(&f, colon + 1, name, err) < 0)
        return -1;
    return append(list, &f, what, err);
}

const char *net_forward_format(const struct net_forward *f, char *buf, size_t size)
{
    char host[NET_ADDR_TEXT_MAX], address[NET_ADDR_TEXT_MAX + 4] = "", from[16] = "", to[16] = "";
    const bool six = f->addr.family == AF_INET6;

    if (!f->both)
        (void)snprintf(address, sizeof(address), "%s%s%s:", six ? "[" : "",
                       net_addr_format(&f->addr, host), six ? "]" : "");
    if (f->count > 1) {
        (void)snprintf(from, sizeof(from), "-%u", f->first + f->count - 1u);
        (void)snprintf(to, sizeof(to), "-%u", f->internal + f->count - 1u);
    }
    (void)snprintf(buf, size, "%s%u%s:%u%s/%s@%s", address, f->first, from, f->internal, to,
                   f->protocol == IPPROTO_UDP ? "udp" : "tcp", f->netns);
    return buf;
}

/* One forward's claim to a range of ports in one family. */
struct claim {
    struct net_addr addr; /* the wildcard: every address */
    int protocol;
    unsigned first, last;
    const struct net_forward *of;
};

static int compare_claims(const void *a, const void *b)
{
    const struct claim *x = a, *y = b;

    if (x->protocol != y->protocol)
        return x->protocol < y->protocol ? -1 : 1;
    if (x->addr.family != y->addr.family)
        return x->addr.family < y->addr.family ? -1 : 1;
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    return net_addr_compare(&x->addr, &y->addr);
}

static int refuse(const struct claim *a, const struct claim *b, struct error *err)
{
    char at[256], bt[256];

    return error_set(err, EINVAL, "the port forwards %s and %s want the same port",
                     net_forward_format(a->of, at, sizeof(at)),
                     net_forward_format(b->of, bt, sizeof(bt)));
}

int net_forwards_check(const struct net_forwards *list, struct error *err)
{
    cleanup_free struct claim *claims = calloc(list->count * 2 + 1, sizeof(*claims));
    size_t n = 0, ports = 0;

    if (!claims)
        return error_oom(err);
    for (size_t i = 0; i < list->count; i++) {
        const struct net_forward *f = &list->items[i];

        ports += f->count;
        for (int v = 0; v < (f->both ? 2 : 1); v++) {
            struct net_addr addr = f->addr;

            if (f->both)
                addr.family = v ? AF_INET6 : AF_INET;
            claims[n++] = (struct claim){.addr = addr,
                                         .protocol = f->protocol,
                                         .first = f->first,
                                         .last = f->first + f->count - 1u,
                                         .of = f};
        }
    }
    if (ports > NET_FORWARD_PORTS_MAX)
        return error_set(err, E2BIG, "the port forwards are for %zu ports, %d is the most", ports,
                         NET_FORWARD_PORTS_MAX);
    qsort(claims, n, sizeof(*claims), compare_claims);
    /* Sorted by the first port: a claim can collide only with those that begin within it. Claims of
     * one port on many addresses make this quadratic only where ranges overlap widely. */
    for (size_t i = 0; i < n; i++) {
        for (size_t j = i + 1;
             j < n && claims[j].protocol == claims[i].protocol &&
             claims[j].addr.family == claims[i].addr.family && claims[j].first <= claims[i].last;
             j++)
            if (net_addr_is_any(&claims[i].addr) || net_addr_is_any(&claims[j].addr) ||
                net_addr_equal(&claims[i].addr, &claims[j].addr))
                return refuse(&claims[i], &claims[j], err);
    }
    return 0;
}
