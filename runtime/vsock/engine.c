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
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>

#include "runtime/vsock/streams.h"

#define EVENTS 128
#define ACCEPT_PAUSE_MS 100

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
            streams_accept(v);
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
        now = engine_now();
        for (int i = 0; i < n; i++)
            event(v, &events[i], now);
        next = device_tick(v->queues.device, now);
        more = pump(v, now);
        at = streams_tick(v, now);
        if (at < next)
            next = at;
        if (v->running && !v->failed && v->queues.due < next)
            next = v->queues.due;
        streams_bury(v);
        streams_listen_more(v);
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
    v->queues.device =
        device_new(v->cid, VSOCK_CONNECTIONS_MAX, port, &streams_host_ops, v, v->log, err);
    if (!v->queues.device)
        return -1;
    v->epoll = epoll_create1(EPOLL_CLOEXEC);
    v->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (v->epoll < 0 || v->wake < 0 || epoll_ctl(v->epoll, EPOLL_CTL_ADD, v->wake, &ev) < 0)
        return error_sys(err, "vsock: epoll");
    return 0;
}

void engine_destroy(struct vsock *v)
{
    device_free(v->queues.device);
    v->queues.device = NULL;
    streams_end_hellos(v);
    streams_bury(v);
    for (int i = 0; i < QUEUES; i++) {
        engine_close_fd(&v->kick[i]);
        engine_close_fd(&v->call[i]);
    }
    queues_destroy(&v->queues);
    engine_close_fd(&v->owner_fd);
    engine_close_fd(&v->epoll);
    engine_close_fd(&v->wake);
    (void)pthread_mutex_destroy(&v->lock);
    (void)pthread_cond_destroy(&v->turn);
}

int engine_start(struct vsock *v, struct error *err)
{
    int rc;

    lock_scope(&v->lock);
    if (streams_listen(v, err) < 0)
        return -1;
    v->quit = false;
    rc = pthread_create(&v->thread, NULL, thread, v);
    if (rc != 0) {
        streams_unlisten(v);
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
    device_drop(v->queues.device);
    streams_end_hellos(v);
    streams_unlisten(v);
    streams_bury(v);
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
    engine_close_fd(&v->kick[ring]);
    if (fd < 0)
        return 0;
    v->kick[ring] = fd;
    if (epoll_ctl(v->epoll, EPOLL_CTL_ADD, fd, &ev) < 0) {
        error_sys(err, "vsock: kick of ring %u", ring);
        engine_close_fd(&v->kick[ring]);
        return -1;
    }
    return 0;
}

void engine_set_owner_fd(struct vsock *v, int pidfd)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &v->owner_fd};

    if (v->owner_fd >= 0)
        (void)epoll_ctl(v->epoll, EPOLL_CTL_DEL, v->owner_fd, NULL);
    engine_close_fd(&v->owner_fd);
    v->owner_fd = pidfd;
    /* Without it the end of the VMM shows in the close of its file only. */
    if (pidfd >= 0)
        (void)epoll_ctl(v->epoll, EPOLL_CTL_ADD, pidfd, &ev);
}
