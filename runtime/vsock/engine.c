// SPDX-License-Identifier: Apache-2.0
/* engine.c - the thread that moves bytes between rings and UNIX sockets
 *
 * Theory of operation: one epoll set holds the listening socket, the kicks of the rings, the VMM's
 * pidfd and all streams. Streams are watched edge-triggered and the device remembers who is ready,
 * so a stream costs a system call per read or write and none for the watching. After each batch of
 * events pump() runs the rings until neither side moves or a budget is used up; what is left then
 * is taken up with the next batch, so that no stream and no ioctl waits for long.
 */
#include "runtime/vsock/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "runtime/base/parse.h"

#define EVENTS 128
#define ACCEPTS 64
#define ACCEPT_PAUSE_MS 100

struct stream {
    int fd;
    struct conn *conn;           /* NULL while it is a hello */
    struct stream *next, **prev; /* in hellos or dead */
    uint64_t deadline;           /* of the hello */
};

static uint64_t now_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void wake(struct vsock *v)
{
    uint64_t one = 1;

    /* A counter that is full is readable all the same. */
    if (write(v->wake, &one, sizeof(one)) < 0)
        return;
}

void engine_lock(struct vsock *v)
{
    __atomic_add_fetch(&v->waiters, 1, __ATOMIC_SEQ_CST);
    (void)pthread_mutex_lock(&v->lock);
}

void engine_unlock(struct vsock *v)
{
    if (__atomic_sub_fetch(&v->waiters, 1, __ATOMIC_SEQ_CST) == 0)
        (void)pthread_cond_broadcast(&v->turn);
    wake(v);
    (void)pthread_mutex_unlock(&v->lock);
}

/* Streams */

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

static void listen_more(struct vsock *v)
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

static void bury(struct vsock *v)
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

static const struct device_host host_ops = {
    .connect = host_connect,
    .established = host_established,
    .read = host_read,
    .write = host_write,
    .shutdown = host_shutdown,
    .close = host_close,
};

/* Hellos: "CONNECT PORT\n" */

static void accept_some(struct vsock *v)
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
        s->deadline = now_ns() + ENGINE_HELLO_TIMEOUT_NS;
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

static void stream_event(struct vsock *v, struct stream *s, uint32_t events, uint64_t now)
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

/* Rings */

static void fail(struct vsock *v, const struct error *err)
{
    log_warn(v->log, "vsock: the guest broke its rings, the device stands still until it is reset",
             log_str("path", v->uds_path), log_str("why", err->text));
    v->failed = true;
    device_reset(v->queues.device);
}

static void notify(void *opaque, unsigned ring)
{
    struct vsock *v = opaque;
    uint64_t one = 1;

    /* Deliberately ignored: a counter that is full is a signal too. */
    if (v->call[ring] >= 0)
        (void)!write(v->call[ring], &one, sizeof(one));
}

/* Runs the rings. Returns true when there is more to do at once. */
static bool pump(struct vsock *v, uint64_t now)
{
    struct error err = ERROR_INIT;
    bool more = false;

    if (!v->running || v->failed)
        return false;
    if (queues_pump(&v->queues, now, &more, &err) < 0)
        fail(v, &err);
    return more;
}

/* The thread */

static void kick_event(struct vsock *v, int i)
{
    struct error err = ERROR_INIT;
    uint64_t n;

    /* Non-blocking, see engine_set_kick(). */
    if (read(v->kick[i], &n, sizeof(n)) < 0)
        return;
    if (v->running && !v->failed && queues_kick(&v->queues, (unsigned)i, &err) < 0)
        fail(v, &err);
}

static void event(struct vsock *v, const struct epoll_event *ev, uint64_t now)
{
    void *p = ev->data.ptr;
    uint64_t n;

    if (p == &v->wake) {
        (void)!read(v->wake, &n, sizeof(n));
    } else if (p == &v->listener) {
        if (v->listening)
            accept_some(v);
    } else if (p == &v->kick[0] || p == &v->kick[1]) {
        int i = p == &v->kick[1];

        if (v->kick[i] >= 0)
            kick_event(v, i);
    } else if (p == &v->owner_fd) {
        if (v->owner_fd >= 0) { /* the VMM has ended */
            engine_halt(v);
            engine_set_owner_fd(v, -1);
        }
    } else {
        stream_event(v, p, ev->events, now);
    }
}

/* Ends hellos that take too long. Returns when to look again. */
static uint64_t tick_hellos(struct vsock *v, uint64_t now)
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

static void *thread(void *arg)
{
    struct vsock *v = arg;
    struct epoll_event events[EVENTS];
    int timeout = 0;
    bool quit = false;

    (void)pthread_setname_np(pthread_self(), "vsock");
    while (!quit) {
        int n = epoll_wait(v->epoll, events, EVENTS, timeout);
        uint64_t now, next, at;
        bool more;

        lock_scope(&v->lock);
        while (__atomic_load_n(&v->waiters, __ATOMIC_SEQ_CST) > 0)
            (void)pthread_cond_wait(&v->turn, &v->lock);
        now = now_ns();
        for (int i = 0; i < n; i++)
            event(v, &events[i], now);
        next = device_tick(v->queues.device, now);
        more = pump(v, now);
        at = tick_hellos(v, now);
        if (at < next)
            next = at;
        if (v->running && !v->failed && v->queues.due < next)
            next = v->queues.due;
        bury(v);
        listen_more(v);
        if (!v->listening && v->listener >= 0 && next > now + ACCEPT_PAUSE_MS * 1000000u)
            next = now + ACCEPT_PAUSE_MS * 1000000u;
        if (more)
            timeout = 0;
        else if (next == UINT64_MAX)
            timeout = -1;
        else
            timeout = next <= now ? 0 : (int)((next - now + 999999) / 1000000);
        quit = v->quit;
    }
    return NULL;
}

/* Start and stop */

int engine_init(struct vsock *v, struct error *err)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &v->wake};
    uint32_t port = 0;

    v->epoll = v->wake = v->listener = v->dir = v->owner_fd = -1;
    for (int i = 0; i < QUEUES; i++)
        v->kick[i] = v->call[i] = -1;
    (void)pthread_mutex_init(&v->lock, NULL);
    (void)pthread_cond_init(&v->turn, NULL);
    if (getrandom(&port, sizeof(port), 0) != sizeof(port))
        return error_sys(err, "vsock: getrandom");
    v->queues.notify = notify;
    v->queues.opaque = v;
    v->queues.device = device_new(v->cid, VSOCK_CONNECTIONS_MAX, port, &host_ops, v, v->log, err);
    if (!v->queues.device)
        return -1;
    v->epoll = epoll_create1(EPOLL_CLOEXEC);
    v->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (v->epoll < 0 || v->wake < 0 || epoll_ctl(v->epoll, EPOLL_CTL_ADD, v->wake, &ev) < 0)
        return error_sys(err, "vsock: epoll");
    return 0;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

void engine_destroy(struct vsock *v)
{
    device_free(v->queues.device);
    v->queues.device = NULL;
    while (v->hellos)
        stream_close(v, v->hellos);
    bury(v);
    for (int i = 0; i < QUEUES; i++) {
        close_fd(&v->kick[i]);
        close_fd(&v->call[i]);
    }
    queues_destroy(&v->queues);
    close_fd(&v->owner_fd);
    close_fd(&v->epoll);
    close_fd(&v->wake);
    (void)pthread_mutex_destroy(&v->lock);
    (void)pthread_cond_destroy(&v->turn);
}

static int make_listener(struct vsock *v, struct error *err)
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

static void drop_listener(struct vsock *v)
{
    listen_less(v);
    if (v->dir >= 0)
        (void)unlinkat(v->dir, v->uds, 0);
    close_fd(&v->listener);
    close_fd(&v->dir);
}

int engine_start(struct vsock *v, struct error *err)
{
    int rc;

    lock_scope(&v->lock);
    if (make_listener(v, err) < 0)
        return -1;
    v->quit = false;
    rc = pthread_create(&v->thread, NULL, thread, v);
    if (rc != 0) {
        drop_listener(v);
        return error_num(err, rc, "vsock: thread");
    }
    v->started = true;
    return 0;
}

void engine_stop(struct vsock *v)
{
    if (!v->started)
        return;
    engine_lock(v);
    v->quit = true;
    engine_unlock(v);
    (void)pthread_join(v->thread, NULL);
    v->started = false;
    lock_scope(&v->lock);
    engine_halt(v);
    while (v->hellos)
        stream_close(v, v->hellos);
    drop_listener(v);
    bury(v);
}

/* The VMM's acts */

int engine_run(struct vsock *v, struct error *err)
{
    bool event_idx = v->features & UINT64_C(1) << 29, indirect = v->features & UINT64_C(1) << 28;

    if (queues_start(&v->queues, event_idx, indirect, err) < 0)
        return error_wrap(err, "vsock: start");
    v->running = true;
    v->failed = false;
    return 0;
}

void engine_halt(struct vsock *v)
{
    struct error err = ERROR_INIT;

    if (v->running && !v->failed && queues_halt(&v->queues, &err) < 0)
        log_debug(v->log, "vsock: rings left as they are, ignoring", log_str("why", err.text));
    v->running = false;
    device_reset(v->queues.device);
}

int engine_set_kick(struct vsock *v, unsigned ring, int fd, struct error *err)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &v->kick[ring]};

    if (v->kick[ring] >= 0)
        (void)epoll_ctl(v->epoll, EPOLL_CTL_DEL, v->kick[ring], NULL);
    close_fd(&v->kick[ring]);
    if (fd < 0)
        return 0;
    v->kick[ring] = fd;
    if (epoll_ctl(v->epoll, EPOLL_CTL_ADD, fd, &ev) < 0) {
        error_sys(err, "vsock: kick of ring %u", ring);
        close_fd(&v->kick[ring]);
        return -1;
    }
    return 0;
}

void engine_set_owner_fd(struct vsock *v, int pidfd)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &v->owner_fd};

    if (v->owner_fd >= 0)
        (void)epoll_ctl(v->epoll, EPOLL_CTL_DEL, v->owner_fd, NULL);
    close_fd(&v->owner_fd);
    v->owner_fd = pidfd;
    /* Without it the end of the VMM shows in the close of its file only. */
    if (pidfd >= 0)
        (void)epoll_ctl(v->epoll, EPOLL_CTL_ADD, pidfd, &ev);
}
