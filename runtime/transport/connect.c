// SPDX-License-Identifier: Apache-2.0
/* connect.c - making streams: connecting, listening, accepting */
#define RUNTIME_TRANSPORT_INTERNAL
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "runtime/transport/stream_private.h"

#define LISTEN_SOCKETS_MAX 8

struct listener {
    struct address at;
    char *text;  /* the address as asked for; at.path points into it */
    char *shown; /* with the real port */
    int fds[LISTEN_SOCKETS_MAX];
    unsigned n_fds;
    bool taken; /* fd, stdio: the one stream has been handed out */
    bool bound_path;
    struct tls_config *tls;
    uint64_t handshake_ns;
};

static inline void cleanup_addrinfo_p(struct addrinfo **p)
{
    if (*p)
        freeaddrinfo(*p);
}

static int resolve(const struct address *a, bool listening, struct addrinfo **ret,
                   struct error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICSERV | (listening ? AI_PASSIVE : 0)};
    int rc = getaddrinfo(*a->host ? a->host : NULL, a->port, &hints, ret);

    if (rc == EAI_SYSTEM)
        return error_sys(err, "%s: look up the address", a->host);
    if (rc != 0)
        return error_set(err, EHOSTUNREACH, "%s: look up the address: %s",
                         *a->host ? a->host : "any address", gai_strerror(rc));
    return 0;
}

/* "192.0.2.7:1337" or "[2001:db8::1]:1337". */
static void show_sockaddr(const struct sockaddr *sa, socklen_t len, char *buf, size_t size)
{
    char host[HOST_MAX + 1], port[16];

    if (getnameinfo(sa, len, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        (void)snprintf(buf, size, "unknown");
    else
        (void)snprintf(buf, size, sa->sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

/* Small messages must leave at once; a peer that vanished must be noticed by the kernel too. */
static void tune_tcp(int fd)
{
    int one = 1, idle = 15, interval = 5, count = 4;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

/* Connects a fresh non-blocking socket. Returns it, or -1. */
static int connect_one(const struct sockaddr *sa, socklen_t len, uint64_t deadline,
                       const struct context *ctx, const char *what, struct error *err)
{
    cleanup_close int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_sys(err, "%s: socket", what);
    if (connect(fd, sa, len) < 0) {
        if (errno != EINPROGRESS)
            return error_sys(err, "%s: connect", what);
        if (transport_wait(fd, POLLOUT, -1, deadline, ctx, what, err) < 0)
            return error_wrap(err, "connect");
        int code = 0;
        socklen_t code_len = sizeof(code);
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &code_len) < 0)
            return error_sys(err, "%s: connect", what);
        if (code)
            return error_num(err, code, "%s: connect", what);
    }
    return steal_fd(&fd);
}

static struct stream *connect_tcp(const struct address *a, const char *text,
                                  const struct transport_options *opt, const struct context *ctx,
                                  struct error *err)
{
    CLEANUP(cleanup_addrinfo_p) struct addrinfo *list = NULL;
    uint64_t timeout =
        opt->connect_timeout_ns ? opt->connect_timeout_ns : CONNECT_TIMEOUT_DEFAULT_NS;
    uint64_t deadline = transport_now_ns() + timeout;
    char shown[HOST_MAX + 32], peer[2 * HOST_MAX + 64];
    struct tls_config *tls = NULL;
    int fd = -1;

    if (resolve(a, false, &list, err) < 0)
        return NULL;
    for (const struct addrinfo *i = list; i && fd < 0; i = i->ai_next) {
        show_sockaddr(i->ai_addr, i->ai_addrlen, shown, sizeof(shown));
        fd = connect_one(i->ai_addr, i->ai_addrlen, deadline, ctx, shown, err);
        if (fd < 0 && context_check(ctx, NULL) < 0)
            break;
    }
    if (fd < 0)
        return NULL;
    tune_tcp(fd);
    if (a->kind == ADDRESS_TLS)
        (void)snprintf(peer, sizeof(peer), "tls:%s (%s)", a->host, shown);
    else
        (void)snprintf(peer, sizeof(peer), "%s", shown);
    cleanup_stream struct stream *s = stream_new(fd, fd, peer, err);
    if (!s || a->kind == ADDRESS_TCP)
        return steal_ptr(&s);
    tls = tls_config_new(opt, false, err);
    int rc = tls ? tls_start(s, tls, a->host, deadline, ctx, err) : -1;
    tls_config_free(tls);
    if (rc < 0) {
        error_wrap(err, "%s", text);
        return NULL;
    }
    return steal_ptr(&s);
}

static void fill_unix(struct sockaddr_un *sa, const char *path)
{
    memset(sa, 0, sizeof(*sa));
    sa->sun_family = AF_UNIX;
    memcpy(sa->sun_path, path, strlen(path)); /* address_parse() checked that it fits */
}

/* Inherited descriptors are duplicated, so that a stream owns what it closes. */
static struct stream *take_fds(int in, int out, const char *what, struct error *err)
{
    int r = fcntl(in, F_DUPFD_CLOEXEC, 3);
    int w = r < 0 || in == out ? r : fcntl(out, F_DUPFD_CLOEXEC, 3);

    if (w < 0) {
        error_sys(err, "%s", what);
        if (r >= 0)
            (void)close(r);
        return NULL;
    }
    return stream_new(r, w, what, err);
}

struct stream *stream_connect(const char *address, const struct transport_options *opt,
                              const struct context *ctx, struct error *err)
{
    struct address a;
    struct sockaddr_un sa;

    if (address_parse(address, false, &a, err) < 0)
        return NULL;
    switch (a.kind) {
    case ADDRESS_FD:
        return take_fds(a.fd_in, a.fd_out, address, err);
    case ADDRESS_STDIO:
        return take_fds(STDIN_FILENO, STDOUT_FILENO, address, err);
    case ADDRESS_UNIX: {
        fill_unix(&sa, a.path);
        int fd = connect_one((struct sockaddr *)&sa, sizeof(sa), 0, ctx, address, err);
        return fd < 0 ? NULL : stream_new(fd, fd, address, err);
    }
    case ADDRESS_TCP:
    case ADDRESS_TLS:
        break;
    }
    return connect_tcp(&a, address, opt, ctx, err);
}

static int listen_tcp(struct listener *l, struct error *err)
{
    CLEANUP(cleanup_addrinfo_p) struct addrinfo *list = NULL;
    char shown[HOST_MAX + 32] = "";

    if (resolve(&l->at, true, &list, err) < 0)
        return -1;
    for (const struct addrinfo *i = list; i && l->n_fds < LISTEN_SOCKETS_MAX; i = i->ai_next) {
        int one = 1;
        cleanup_close int fd = socket(i->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0) /* a kernel without IPv6 */
            continue;
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        if (i->ai_family == AF_INET6)
            (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
        show_sockaddr(i->ai_addr, i->ai_addrlen, shown, sizeof(shown));
        if (bind(fd, i->ai_addr, i->ai_addrlen) < 0 || listen(fd, LISTEN_BACKLOG) < 0)
            return error_sys(err, "%s: listen", shown);
        struct sockaddr_storage real = {0};
        socklen_t len = sizeof(real);
        if (getsockname(fd, (struct sockaddr *)&real, &len) < 0)
            return error_sys(err, "%s: listen", shown);
        show_sockaddr((struct sockaddr *)&real, len, shown, sizeof(shown));
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

    fill_unix(&sa, l->at.path);
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
    for (unsigned i = 0; i < l->n_fds; i++)
        (void)close(l->fds[i]);
    if (l->bound_path)
        (void)unlink(l->at.path);
    tls_config_free(l->tls);
    free(l->shown);
    free(l->text);
    free(l);
}

/* Waits until one of the sockets has a client. Returns the accepted socket, -1 on failure. */
static int accept_any(struct listener *l, uint64_t deadline, const struct context *ctx,
                      struct sockaddr_storage *ret_sa, socklen_t *ret_len, struct error *err)
{
    for (;;) {
        for (unsigned i = 0; i < l->n_fds; i++) {
            *ret_len = sizeof(*ret_sa);
            int fd = accept4(l->fds[i], (struct sockaddr *)ret_sa, ret_len,
                             SOCK_CLOEXEC | SOCK_NONBLOCK);
            if (fd >= 0)
                return fd;
            if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
                return error_sys(err, "%s: accept", l->text);
        }
        struct pollfd p[LISTEN_SOCKETS_MAX + 1];
        for (unsigned i = 0; i < l->n_fds; i++)
            p[i] = (struct pollfd){.fd = l->fds[i], .events = POLLIN};
        p[l->n_fds] =
            (struct pollfd){.fd = ctx && ctx->cancel ? ctx->cancel->fd : -1, .events = POLLIN};
        int ms = -1;
        if (deadline) {
            uint64_t now = transport_now_ns();
            if (now >= deadline)
                return error_set(err, ETIMEDOUT, "%s: nobody connected in time", l->text);
            ms = (int)((deadline - now) / 1000000 + 1);
        }
        if (poll(p, l->n_fds + 1, ms) < 0 && errno != EINTR)
            return error_sys(err, "%s: poll", l->text);
        if (context_check(ctx, err) < 0)
            return error_wrap(err, "%s", l->text);
    }
}

struct stream *listener_accept(struct listener *l, uint64_t timeout_ns, const struct context *ctx,
                               struct error *err)
{
    uint64_t deadline = timeout_ns ? transport_now_ns() + timeout_ns : 0;
    struct sockaddr_storage sa = {0};
    socklen_t len;
    char shown[HOST_MAX + 32], peer[HOST_MAX + 40];

    if (l->n_fds == 0) {
        if (l->taken) {
            error_set(err, EPIPE, "%s: carries one connection only", l->text);
            return NULL;
        }
        l->taken = true;
        return l->at.kind == ADDRESS_STDIO ? take_fds(STDIN_FILENO, STDOUT_FILENO, l->text, err)
                                           : take_fds(l->at.fd_in, l->at.fd_out, l->text, err);
    }
    for (;;) {
        int fd = accept_any(l, deadline, ctx, &sa, &len, err);
        if (fd < 0)
            return NULL;
        if (l->at.kind == ADDRESS_UNIX)
            return stream_new(fd, fd, l->text, err);
        tune_tcp(fd);
        show_sockaddr((struct sockaddr *)&sa, len, shown, sizeof(shown));
        (void)snprintf(peer, sizeof(peer), "%s%s", l->tls ? "tls:" : "", shown);
        struct stream *s = stream_new(fd, fd, peer, err);
        if (!s || !l->tls)
            return s;
        struct error why = ERROR_INIT;
        uint64_t limit = transport_now_ns() + l->handshake_ns;
        if (tls_start(s, l->tls, NULL, limit, ctx, &why) == 0)
            return s;
        stream_close(s);
        if (why.code == ECANCELED) {
            if (err)
                *err = why;
            return NULL;
        }
        log_warn(context_log(ctx), "Connection refused", log_str("peer", peer),
                 log_str("error", why.text));
    }
}
