// SPDX-License-Identifier: Apache-2.0
/* streams.c - the host's ends of a vsock device: listening socket, hellos, streams */
#include "runtime/vsock/streams.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "runtime/base/parse.h"

#define ACCEPTS 64

struct stream {
    int fd;
    struct conn *conn;           /* NULL while it is a hello */
    struct stream *next, **prev; /* in hellos or dead */
    uint64_t deadline;           /* of the hello */
};

static void list_add(struct stream **list, struct stream *s)
{
    s->next = *list;
    s->prev = list;
    if (s->next)
        s->next->prev = &s->next;
    *list = s;
}

static void list_remove(struct stream *s)
{
    if (!s->prev)
        return;
    *s->prev = s->next;
    if (s->next)
        s->next->prev = s->prev;
    s->prev = NULL;
}

void streams_listen_more(struct vsock *v)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &v->listener};

    if (v->listening || v->listener < 0 || v->n_hellos >= ENGINE_HELLOS_MAX)
        return;
    v->listening = epoll_ctl(v->epoll, EPOLL_CTL_ADD, v->listener, &ev) == 0;
}

static void listen_less(struct vsock *v)
{
    if (v->listening)
        (void)epoll_ctl(v->epoll, EPOLL_CTL_DEL, v->listener, NULL);
    v->listening = false;
}

static struct stream *stream_new(struct vsock *v, int fd)
{
    struct stream *s = calloc(1, sizeof(*s));
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = s};

    if (!s || epoll_ctl(v->epoll, EPOLL_CTL_ADD, fd, &ev) < 0) {
        free(s);
        return NULL;
    }
    s->fd = fd;
    return s;
}

/* The memory stays until the batch of events is through. */
static void stream_close(struct vsock *v, struct stream *s)
{
    if (!s->conn)
        v->n_hellos--;
    list_remove(s);
    (void)epoll_ctl(v->epoll, EPOLL_CTL_DEL, s->fd, NULL);
    (void)close(s->fd);
    s->fd = -1;
    list_add(&v->dead, s);
}

void streams_bury(struct vsock *v)
{
    while (v->dead) {
        struct stream *s = v->dead;

        list_remove(s);
        free(s);
    }
}

/* A path through /proc has no limit of 107 bytes, and one that ends in an fd that was opened
 * without following a symlink leads nowhere else than checked. */
static int connect_port(const struct vsock *v, uint32_t port)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    cleanup_close int node = -1, fd = -1;
    struct stat st;
    char name[NAME_MAX + 1];

    (void)snprintf(name, sizeof(name), "%s_%" PRIu32, v->uds, port);
    node = openat(v->dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (node < 0)
        return -errno;
    if (fstat(node, &st) < 0)
        return -errno;
    if (!S_ISSOCK(st.st_mode))
        return -ECONNREFUSED;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    (void)snprintf(addr.sun_path, sizeof(addr.sun_path), "/proc/self/fd/%d", node);
    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        return -errno; /* EAGAIN: its backlog is full */
    return steal_fd(&fd);
}

static int host_connect(void *self, uint32_t port, struct conn *conn, void **ret_stream)
{
    struct vsock *v = self;
    cleanup_close int fd = connect_port(v, port);
    struct stream *s;

    if (fd < 0) {
        int code = fd;

        fd = -1;
        if (code != -EAGAIN)
            log_debug(v->log, "vsock: guest's connect refused", log_uint("port", port),
                      log_str("why", strerror(-code)));
        return code;
    }
    s = stream_new(v, fd);
    if (!s)
        return -ENOMEM;
    fd = -1;
    s->conn = conn;
    *ret_stream = s;
    return 0;
}

static void host_established(void *self, void *stream, uint32_t host_port)
{
    struct stream *s = stream;
    char text[32];
    int n = snprintf(text, sizeof(text), "OK %" PRIu32 "\n", host_port);

    (void)self;
    /* Deliberately ignored: the first bytes always fit, and a peer that is gone shows in an event.
     */
    (void)!send(s->fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static ssize_t host_read(void *self, void *stream, void *buf, size_t len)
{
    const struct stream *s = stream;
    ssize_t n;

    (void)self;
    do
        n = recv(s->fd, buf, len, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static ssize_t host_write(void *self, void *stream, const void *buf, size_t len)
{
    const struct stream *s = stream;
    ssize_t n;

    (void)self;
    do
        n = send(s->fd, buf, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static void host_shutdown(void *self, void *stream, int how)
{
    const struct stream *s = stream;

    (void)self;
    (void)shutdown(s->fd, how);
}

static void host_close(void *self, void *stream)
{
    stream_close(self, stream);
}

const struct device_host streams_host_ops = {
    .connect = host_connect,
    .established = host_established,
    .read = host_read,
    .write = host_write,
    .shutdown = host_shutdown,
    .close = host_close,
};

/* Hellos: "CONNECT PORT\n" */

void streams_accept(struct vsock *v)
{
    for (int i = 0; i < ACCEPTS; i++) {
        struct stream *s;
        int fd;

        if (v->n_hellos >= ENGINE_HELLOS_MAX) {
            listen_less(v);
            return;
        }
        fd = accept4(v->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
                log_warn(v->log, "vsock: no new connections for a while, ignoring",
                         log_str("path", v->uds_path), log_str("why", strerror(errno)));
                listen_less(v);
            }
            return;
        }
        s = stream_new(v, fd);
        if (!s) {
            (void)close(fd);
            return;
        }
        s->deadline = engine_now() + ENGINE_HELLO_TIMEOUT_NS;
        list_add(&v->hellos, s);
        v->n_hellos++;
    }
}

/* Takes the first line off the socket and nothing behind it: what follows is for the guest. Returns
 * 1 with the port, 0 when there is more to come, -1 when it is no request. */
static int read_hello(const struct stream *s, uint32_t *ret_port)
{
    char line[ENGINE_HELLO_LEN_MAX + 1];
    uint64_t port;
    ssize_t n = recv(s->fd, line, ENGINE_HELLO_LEN_MAX, MSG_PEEK | MSG_DONTWAIT);
    char *end;

    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    end = n > 0 ? memchr(line, '\n', (size_t)n) : NULL;
    if (!end)
        return n == 0 || n == ENGINE_HELLO_LEN_MAX ? -1 : 0;
    if (recv(s->fd, line, (size_t)(end - line) + 1, MSG_DONTWAIT) != end - line + 1)
        return -1;
    *end = 0;
    if (strncasecmp(line, "CONNECT ", 8) != 0 || line[8] < '0' || line[8] > '9' ||
        parse_u64(line + 8, 0, UINT32_MAX, "port", &port, NULL) < 0)
        return -1;
    *ret_port = (uint32_t)port;
    return 1;
}

static void hello_event(struct vsock *v, struct stream *s, uint32_t events, uint64_t now)
{
    uint32_t port = 0;
    int rc = events & (EPOLLHUP | EPOLLERR) ? -1 : read_hello(s, &port);

    if (rc == 0)
        return;
    if (rc > 0 && v->running && !v->failed) {
        struct conn *c =
            device_open(v->queues.device, port, s, VSOCK_REQUEST_TIMEOUT_NS, now, NULL);

        if (c) {
            list_remove(s);
            v->n_hellos--;
            s->conn = c;
            return;
        }
    }
    stream_close(v, s);
}

void stream_event(struct vsock *v, struct stream *s, uint32_t events, uint64_t now)
{
    bool hup = events & (EPOLLHUP | EPOLLERR);

    if (s->fd < 0) /* closed earlier in this batch */
        return;
    if (!s->conn)
        hello_event(v, s, events, now);
    else
        device_ready(v->queues.device, s->conn, events & (EPOLLIN | EPOLLRDHUP),
                     hup || events & EPOLLOUT, hup, now);
}

/* Ends hellos that take too long. Returns when to look again. */
uint64_t streams_tick(struct vsock *v, uint64_t now)
{
    uint64_t next = UINT64_MAX;
    struct stream *s, *after;

    for (s = v->hellos; s; s = after) {
        after = s->next;
        if (now >= s->deadline)
            stream_close(v, s);
        else if (s->deadline < next)
            next = s->deadline;
    }
    return next;
}

int streams_listen(struct vsock *v, struct error *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    cleanup_close int dir = -1, fd = -1;
    cleanup_free char *folder = NULL;
    struct stat st;

    if (v->uds == v->uds_path)
        folder = strdup(".");
    else /* "/x": the folder is the root */
        folder =
            strndup(v->uds_path, v->uds - v->uds_path > 1 ? (size_t)(v->uds - v->uds_path) : 1);
    if (!folder)
        return error_oom(err);
    dir = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return error_sys(err, "vsock: %s: open", folder);
    if (fstatat(dir, v->uds, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        if (!S_ISSOCK(st.st_mode))
            return error_set(err, EEXIST, "vsock: %s: there is something that is no socket",
                             v->uds_path);
        if (unlinkat(dir, v->uds, 0) < 0)
            return error_sys(err, "vsock: %s: remove the old socket", v->uds_path);
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_sys(err, "vsock: socket");
    if ((size_t)snprintf(addr.sun_path, sizeof(addr.sun_path), "/proc/self/fd/%d/%s", dir,
                         v->uds) >= sizeof(addr.sun_path))
        return error_set(err, ENAMETOOLONG, "vsock: %s: the last part of the path is too long",
                         v->uds_path);
    if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        return error_sys(err, "vsock: %s: bind", v->uds_path);
    if (fchownat(dir, v->uds, v->uid, v->gid, AT_SYMLINK_NOFOLLOW) < 0 ||
        fchmodat(dir, v->uds, 0660, 0) < 0 || listen(fd, SOMAXCONN) < 0) {
        error_sys(err, "vsock: %s: listen", v->uds_path);
        (void)unlinkat(dir, v->uds, 0);
        return -1;
    }
    v->listener = steal_fd(&fd);
    v->dir = steal_fd(&dir);
    return 0;
}

void streams_unlisten(struct vsock *v)
{
    listen_less(v);
    if (v->dir >= 0)
        (void)unlinkat(v->dir, v->uds, 0);
    engine_close_fd(&v->listener);
    engine_close_fd(&v->dir);
}

void streams_end_hellos(struct vsock *v)
{
    while (v->hellos)
        stream_close(v, v->hellos);
}
