// SPDX-License-Identifier: Apache-2.0
/* connect.c - making streams by connecting, and what listening shares with it */
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
#include <sys/un.h>
#include <unistd.h>

#include "runtime/transport/stream_private.h"

int transport_resolve(const struct address *a, bool listening, struct addrinfo **ret,
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

void transport_show(const struct sockaddr *sa, socklen_t len, char *buf, size_t size)
{
    char host[HOST_MAX + 1], port[16];

    if (getnameinfo(sa, len, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        (void)snprintf(buf, size, "unknown");
    else
        (void)snprintf(buf, size, sa->sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

void transport_tune_tcp(int fd)
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
    cleanup_addrinfo struct addrinfo *list = NULL;
    uint64_t timeout =
        opt->connect_timeout_ns ? opt->connect_timeout_ns : CONNECT_TIMEOUT_DEFAULT_NS;
    uint64_t deadline = transport_now_ns() + timeout;
    char shown[HOST_MAX + 32], peer[2 * HOST_MAX + 64];
    struct tls_config *tls = NULL;
    int fd = -1;

    if (transport_resolve(a, false, &list, err) < 0)
        return NULL;
    for (const struct addrinfo *i = list; i && fd < 0; i = i->ai_next) {
        transport_show(i->ai_addr, i->ai_addrlen, shown, sizeof(shown));
        fd = connect_one(i->ai_addr, i->ai_addrlen, deadline, ctx, shown, err);
        if (fd < 0 && context_check(ctx, NULL) < 0)
            break;
    }
    if (fd < 0)
        return NULL;
    transport_tune_tcp(fd);
    if (a->kind == ADDRESS_TLS)
        (void)snprintf(peer, sizeof(peer), "tls:%s (%s)", a->host, shown);
    else
        (void)snprintf(peer, sizeof(peer), "%s", shown);
    cleanup_stream struct stream *s = stream_new(fd, fd, peer, err);
    if (!s || a->kind == ADDRESS_TCP)
        return steal_ptr(&s);
    tls = tls_config_new(opt, false, err);
    int rc = tls ? tls_open(s, tls, a->host, err) : -1;
    if (rc == 0)
        rc = tls_handshake(s, deadline, ctx, err);
    tls_config_free(tls);
    if (rc < 0) {
        error_wrap(err, "%s", text);
        return NULL;
    }
    return steal_ptr(&s);
}

void transport_fill_unix(struct sockaddr_un *sa, const char *path)
{
    memset(sa, 0, sizeof(*sa));
    sa->sun_family = AF_UNIX;
    memcpy(sa->sun_path, path, strlen(path)); /* address_parse() checked that it fits */
}

struct stream *transport_take_fds(int in, int out, const char *what, struct error *err)
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
        return transport_take_fds(a.fd_in, a.fd_out, address, err);
    case ADDRESS_STDIO:
        return transport_take_fds(STDIN_FILENO, STDOUT_FILENO, address, err);
    case ADDRESS_UNIX: {
        transport_fill_unix(&sa, a.path);
        int fd = connect_one((struct sockaddr *)&sa, sizeof(sa), 0, ctx, address, err);
        return fd < 0 ? NULL : stream_new(fd, fd, address, err);
    }
    case ADDRESS_TCP:
    case ADDRESS_TLS:
        break;
    }
    return connect_tcp(&a, address, opt, ctx, err);
}
