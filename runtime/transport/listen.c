// SPDX-License-Identifier: Apache-2.0
/* listen.c - making streams by listening
 *
 * Theory of operation: a client that was accepted and has not shown that it means it is half open:
 * its TLS handshake is not done, or the first bytes it owes us (transport_options.hello) have not
 * come. All half-open ones are served side by side, by whoever is in listener_accept(), in one
 * poll(2), so that a client that stalls holds nobody up; each has handshake_ns. There are
 * HALF_OPEN_MAX places. Once they are taken the oldest loses its own when it has had it for
 * HALF_OPEN_GRACE_NS, and newcomers wait in the kernel's backlog until then: a crowd of silent
 * clients costs those who speak a second, and us a bounded number of descriptors.
 *
 * A listener outlives what its host lacks for a while: who listens may have a suspended machine in
 * its hands. When accept(2) finds no descriptor or no memory, the oldest half-open client makes
 * room; where there is none the clients wait in the backlog, and we look again every
 * SHORTAGE_NAP_NS.
 */
#define RUNTIME_TRANSPORT_INTERNAL
#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "runtime/transport/stream_private.h"

#define LISTEN_SOCKETS_MAX 8
#define HALF_OPEN_MAX 64
#define HALF_OPEN_GRACE_NS UINT64_C(1000000000)
#define SHORTAGE_NAP_NS UINT64_C(200000000) /* nothing tells us when a descriptor comes free */

struct half_open {
    struct stream *stream;
    uint64_t since_ns;
    bool secured; /* TLS is up, or there is none */
    short want;   /* poll events it waits for */
    uint8_t hello[STREAM_UNREAD_MAX];
    size_t n_hello;
};

struct listener {
    struct address at;
    char *text;  /* the address as asked for; at.path points into it */
    char *shown; /* with the real port */
    int fds[LISTEN_SOCKETS_MAX];
    unsigned n_fds;
    bool taken; /* fd, stdio: the one stream has been handed out */
    bool bound_path;
    struct tls_config *tls;
    size_t hello;
    uint64_t handshake_ns;
    bool short_of; /* accept(2) failed for want of something, and nobody was accepted since */
    uint64_t nap_till_ns;                 /* nobody is accepted before; 0 = at once */
    struct half_open half[HALF_OPEN_MAX]; /* the oldest first */
    unsigned n_half;
};

static int listen_tcp(struct listener *l, struct error *err)
{
    cleanup_addrinfo struct addrinfo *list = NULL;
    char shown[HOST_MAX + 32] = "";

    if (transport_resolve(&l->at, true, &list, err) < 0)
        return -1;
    for (const struct addrinfo *i = list; i && l->n_fds < LISTEN_SOCKETS_MAX; i = i->ai_next) {
        int one = 1;
        cleanup_close int fd = socket(i->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0) /* a kernel without IPv6 */
            continue;
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        if (i->ai_family == AF_INET6)
            (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
        transport_show(i->ai_addr, i->ai_addrlen, shown, sizeof(shown));
        if (bind(fd, i->ai_addr, i->ai_addrlen) < 0 || listen(fd, LISTEN_BACKLOG) < 0)
            return error_sys(err, "%s: listen", shown);
        struct sockaddr_storage real = {0};
        socklen_t len = sizeof(real);
        if (getsockname(fd, (struct sockaddr *)&real, &len) < 0)
            return error_sys(err, "%s: listen", shown);
        transport_show((struct sockaddr *)&real, len, shown, sizeof(shown));
        l->fds[l->n_fds++] = steal_fd(&fd);
        /* Port 0 is chosen once: other families would get another, so one socket has to do. */
        if (strcmp(l->at.port, "0") == 0)
            break;
    }
    if (!l->n_fds)
        return error_set(err, EADDRNOTAVAIL, "%s: listen: no address of it works here", l->text);
    if (asprintf(&l->shown, "%s%s", l->at.kind == ADDRESS_TLS ? "tls:" : "", shown) < 0) {
        l->shown = NULL;
        return error_oom(err);
    }
    return 0;
}

static int listen_unix(struct listener *l, struct error *err)
{
    struct sockaddr_un sa;
    struct stat st;

    transport_fill_unix(&sa, l->at.path);
    if (lstat(l->at.path, &st) == 0) {
        if (!S_ISSOCK(st.st_mode))
            return error_set(err, EEXIST, "%s: a file that is no socket stands there", l->text);
        cleanup_close int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (probe < 0)
            return error_sys(err, "%s: socket", l->text);
        if (connect(probe, (struct sockaddr *)&sa, sizeof(sa)) == 0 || errno != ECONNREFUSED)
            return error_set(err, EADDRINUSE, "%s: another process listens there", l->text);
        (void)unlink(l->at.path);
    }
    cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
        return error_sys(err, "%s: listen", l->text);
    l->bound_path = true;
    if (listen(fd, LISTEN_BACKLOG) < 0)
        return error_sys(err, "%s: listen", l->text);
    l->fds[l->n_fds++] = steal_fd(&fd);
    return 0;
}

struct listener *listener_open(const char *address, const struct transport_options *opt,
                               struct error *err)
{
    cleanup_listener struct listener *l = calloc(1, sizeof(*l));
    if (!l || !(l->text = strdup(address))) {
        error_oom(err);
        return NULL;
    }
    if (address_parse(l->text, true, &l->at, err) < 0)
        return NULL;
    l->hello = opt->hello > STREAM_UNREAD_MAX ? STREAM_UNREAD_MAX : opt->hello;
    l->handshake_ns =
        opt->connect_timeout_ns ? opt->connect_timeout_ns : CONNECT_TIMEOUT_DEFAULT_NS;
    if (l->at.kind == ADDRESS_TLS && !(l->tls = tls_config_new(opt, true, err))) {
        error_wrap(err, "%s", address);
        return NULL;
    }
    if ((l->at.kind == ADDRESS_TCP || l->at.kind == ADDRESS_TLS) && listen_tcp(l, err) < 0)
        return NULL;
    if (l->at.kind == ADDRESS_UNIX && listen_unix(l, err) < 0)
        return NULL;
    return steal_ptr(&l);
}

const char *listener_address(const struct listener *l)
{
    return l->shown ? l->shown : l->text;
}

void listener_close(struct listener *l)
{
    if (!l)
        return;
    for (unsigned i = 0; i < l->n_half; i++)
        stream_close(l->half[i].stream);
    for (unsigned i = 0; i < l->n_fds; i++)
        (void)close(l->fds[i]);
    if (l->bound_path)
        (void)unlink(l->at.path);
    tls_config_free(l->tls);
    free(l->shown);
    free(l->text);
    free(l);
}

/* ---- half-open clients ---- */

/* Takes one out of the list. The stream is the caller's. */
static struct stream *take_out(struct listener *l, unsigned i)
{
    struct stream *s = l->half[i].stream;

    l->n_half--;
    memmove(&l->half[i], &l->half[i + 1], (l->n_half - i) * sizeof(l->half[0]));
    return s;
}

static void turn_away(struct listener *l, unsigned i, const struct context *ctx,
                      const struct error *why)
{
    struct stream *s = take_out(l, i);

    log_warn(context_log(ctx), "Connection refused", log_str("peer", stream_peer(s)),
             log_str("error", why->text));
    stream_close(s);
}

/* Goes on with one. Returns 0 when it is open, 1 when it waits for h->want, -1 when it is over. */
static int step(const struct listener *l, struct half_open *h, struct error *err)
{
    struct stream *s = h->stream;

    if (!h->secured) {
        int rc = tls_step(s, true, &h->want, err);
        if (rc != 0)
            return rc;
        h->secured = true;
    }
    while (h->n_hello < l->hello) {
        h->want = POLLIN;
        ssize_t n = s->ops->read(s, h->hello + h->n_hello, l->hello - h->n_hello, &h->want);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return 1;
        if (n < 0)
            return error_sys(err, "%s: read", s->peer);
        if (n == 0)
            return error_set(err, EPIPE, "%s: the other side closed the connection, saying %s",
                             s->peer, h->n_hello ? "too little" : "nothing");
        atomic_fetch_add(&s->n_read, (uint64_t)n);
        h->n_hello += (size_t)n;
    }
    stream_unread(s, h->hello, h->n_hello);
    return 0;
}

/* Goes on with all. Returns the first that is open, or NULL. */
static struct stream *step_all(struct listener *l, const struct context *ctx)
{
    uint64_t now = transport_now_ns();

    for (unsigned i = 0; i < l->n_half;) {
        struct half_open *h = &l->half[i];
        struct error why = ERROR_INIT;
        int rc = step(l, h, &why);
        if (rc == 0)
            return take_out(l, i);
        if (rc > 0 && now - h->since_ns >= l->handshake_ns)
            rc = error_set(&why, ETIMEDOUT, "%s: %s within %llu ms", stream_peer(h->stream),
                           h->secured ? "did not say what it wants"
                                      : "did not finish the TLS handshake",
                           (unsigned long long)(l->handshake_ns / 1000000));
        if (rc < 0)
            turn_away(l, i, ctx, &why);
        else
            i++;
    }
    if (l->n_half == HALF_OPEN_MAX && now - l->half[0].since_ns >= HALF_OPEN_GRACE_NS) {
        struct error why = ERROR_INIT;
        (void)error_set(&why, EBUSY, "%s: says nothing, and others wait for its place",
                        stream_peer(l->half[0].stream));
        turn_away(l, 0, ctx, &why);
    }
    return NULL;
}

/* Gives a fresh socket, which is owned from here on, a place. Returns 0. */
static int admit(struct listener *l, int fd, const struct sockaddr_storage *sa, socklen_t len,
                 struct error *err)
{
    char shown[HOST_MAX + 32], peer[HOST_MAX + 40];

    if (l->at.kind == ADDRESS_UNIX) {
        (void)snprintf(peer, sizeof(peer), "%s", l->text);
    } else {
        transport_tune_tcp(fd);
        transport_show((const struct sockaddr *)sa, len, shown, sizeof(shown));
        (void)snprintf(peer, sizeof(peer), "%s%s", l->tls ? "tls:" : "", shown);
    }
    cleanup_stream struct stream *s = stream_new(fd, fd, peer, err);
    if (!s || (l->tls && tls_open(s, l->tls, NULL, err) < 0))
        return -1;
    l->half[l->n_half++] = (struct half_open){
        .stream = steal_ptr(&s), .since_ns = transport_now_ns(), .secured = !l->tls};
    return 0;
}

/* accept(2): errors of the client that was to be accepted, its connection's included. */
static bool is_clients_fault(int code)
{
    static const int codes[] = {EAGAIN,     EINTR,    ECONNABORTED, EPROTO,    ENOPROTOOPT,
                                EOPNOTSUPP, ENETDOWN, ENETUNREACH,  EHOSTDOWN, EHOSTUNREACH,
                                ENONET,     EPERM,    ETIMEDOUT};

    for (size_t i = 0; i < ARRAY_SIZE(codes); i++)
        if (code == codes[i])
            return true;
    return false;
}

static bool is_shortage(int code)
{
    return code == EMFILE || code == ENFILE || code == ENOBUFS || code == ENOMEM;
}

static void meet_shortage(struct listener *l, const struct context *ctx, const struct error *why)
{
    if (l->n_half) {
        turn_away(l, 0, ctx, why);
        return;
    }
    if (!l->short_of)
        log_warn(context_log(ctx), "Clients have to wait", log_str("error", why->text));
    l->short_of = true;
    l->nap_till_ns = transport_now_ns() + SHORTAGE_NAP_NS;
}

static bool accepts(const struct listener *l)
{
    return l->n_half < HALF_OPEN_MAX && transport_now_ns() >= l->nap_till_ns;
}

/* Accepts one client, if there is one and a place for it. Returns 1 when something was done, 0, or
 * -1. */
static int accept_one(struct listener *l, const struct context *ctx, struct error *err)
{
    struct error why = ERROR_INIT;
    struct sockaddr_storage sa = {0};

    for (unsigned i = 0; i < l->n_fds && accepts(l); i++) {
        socklen_t len = sizeof(sa);
        int fd = accept4(l->fds[i], (struct sockaddr *)&sa, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            l->short_of = false;
            if (admit(l, fd, &sa, len, &why) < 0)
                log_warn(context_log(ctx), "Connection refused", log_str("error", why.text));
            return 1;
        }
        if (is_shortage(errno)) {
            (void)error_sys(&why, "%s: accept", l->text);
            meet_shortage(l, ctx, &why);
            return 1;
        }
        if (!is_clients_fault(errno))
            return error_sys(err, "%s: accept", l->text);
    }
    return 0;
}

/* When something is due by itself, at the latest at the deadline (0 = none). 0 = never. */
static uint64_t next_due(const struct listener *l, uint64_t deadline)
{
    uint64_t due = deadline;

    if (l->n_half && (!due || l->half[0].since_ns + l->handshake_ns < due))
        due = l->half[0].since_ns + l->handshake_ns;
    if (l->n_half == HALF_OPEN_MAX && l->half[0].since_ns + HALF_OPEN_GRACE_NS < due)
        due = l->half[0].since_ns + HALF_OPEN_GRACE_NS;
    if (l->nap_till_ns > transport_now_ns() && (!due || l->nap_till_ns < due))
        due = l->nap_till_ns;
    return due;
}

/* Waits until there is something to do. Returns 0. */
static int wait_for_clients(struct listener *l, uint64_t deadline, const struct context *ctx,
                            struct error *err)
{
    struct pollfd p[LISTEN_SOCKETS_MAX + HALF_OPEN_MAX + 1];
    nfds_t n = 0;
    uint64_t now = transport_now_ns(), due = next_due(l, deadline);
    int ms = -1;

    for (unsigned i = 0; i < l->n_fds && accepts(l); i++)
        p[n++] = (struct pollfd){.fd = l->fds[i], .events = POLLIN};
    for (unsigned i = 0; i < l->n_half; i++)
        p[n++] = (struct pollfd){.fd = l->half[i].stream->rfd, .events = l->half[i].want};
    p[n++] = (struct pollfd){.fd = ctx && ctx->cancel ? ctx->cancel->fd : -1, .events = POLLIN};
    if (deadline && now >= deadline)
        return error_set(err, ETIMEDOUT, "%s: nobody connected in time", l->text);
    if (due) {
        uint64_t left = due > now ? (due - now) / 1000000 + 1 : 0;
        ms = left > INT_MAX ? INT_MAX : (int)left;
    }
    if (poll(p, n, ms) < 0 && errno != EINTR)
        return error_sys(err, "%s: poll", l->text);
    return context_check(ctx, err) < 0 ? error_wrap(err, "%s", l->text) : 0;
}

struct stream *listener_accept(struct listener *l, uint64_t timeout_ns, const struct context *ctx,
                               struct error *err)
{
    uint64_t deadline = timeout_ns ? transport_now_ns() + timeout_ns : 0;

    if (l->n_fds == 0) {
        if (l->taken) {
            error_set(err, EPIPE, "%s: carries one connection only", l->text);
            return NULL;
        }
        l->taken = true;
        return l->at.kind == ADDRESS_STDIO
                   ? transport_take_fds(STDIN_FILENO, STDOUT_FILENO, l->text, err)
                   : transport_take_fds(l->at.fd_in, l->at.fd_out, l->text, err);
    }
    for (;;) {
        struct stream *s = step_all(l, ctx);
        if (s)
            return s;
        int rc = accept_one(l, ctx, err);
        if (rc < 0 || (rc == 0 && wait_for_clients(l, deadline, ctx, err) < 0))
            return NULL;
    }
}
