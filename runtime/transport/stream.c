// SPDX-License-Identifier: Apache-2.0
/* stream.c - a byte stream on descriptors that never block
 *
 * Every descriptor is put into non-blocking mode; waiting happens in poll(2) only, together with
 * the cancel request and the stream's own wake-up, so that there is one place where time passes.
 * That wake-up is a timer: it goes off when the stream expires, or at once when it is shut down,
 * and nobody reads it, so that it wakes all who wait.
 */
#define RUNTIME_TRANSPORT_INTERNAL
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "runtime/transport/stream_private.h"

uint64_t transport_now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int transport_wait(int fd, short events, int wake, uint64_t deadline_ns, const struct context *ctx,
                   const char *what, struct error *err)
{
    struct pollfd p[3] = {{.fd = fd, .events = events},
                          {.fd = wake, .events = POLLIN},
                          {.fd = ctx && ctx->cancel ? ctx->cancel->fd : -1, .events = POLLIN}};

    for (;;) {
        int ms = -1;
        if (deadline_ns) {
            uint64_t now = transport_now_ns();
            if (now >= deadline_ns)
                return error_set(err, ETIMEDOUT, "%s: timed out", what);
            uint64_t left = (deadline_ns - now + 999999) / 1000000;
            ms = left > INT_MAX ? INT_MAX : (int)left;
        }
        int n = poll(p, 3, ms);
        if (n < 0 && errno != EINTR)
            return error_sys(err, "%s: poll", what);
        if (n <= 0)
            continue;
        if (p[2].revents)
            return error_set(err, ECANCELED, "%s: interrupted", what);
        if (p[1].revents)
            return error_set(err, EPIPE, "%s: the connection was closed", what);
        if (p[0].revents)
            return 0;
    }
}

static ssize_t plain_read(struct stream *s, void *buf, size_t len, short *want)
{
    *want = POLLIN;
    return read(s->rfd, buf, len);
}

static ssize_t plain_write(struct stream *s, const struct iovec *iov, int n, short *want)
{
    *want = POLLOUT;
    if (!s->is_socket)
        return writev(s->wfd, iov, n);
    struct msghdr m = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n};
    return sendmsg(s->wfd, &m, MSG_NOSIGNAL);
}

static const struct stream_ops plain_ops = {.read = plain_read, .write = plain_write};

/* Sets O_NONBLOCK; *ret_flags gets what to put back: an inherited descriptor shares its flags with
 * other processes. */
static int make_nonblocking(int fd, int *ret_flags, struct error *err)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return error_sys(err, "descriptor %d", fd);
    *ret_flags = flags;
    return 0;
}

struct stream *stream_new(int rfd, int wfd, const char *peer, struct error *err)
{
    struct stream *s = calloc(1, sizeof(*s));
    int type;
    socklen_t len = sizeof(type);

    if (!s) {
        error_oom(err);
        (void)close(rfd);
        if (wfd != rfd)
            (void)close(wfd);
        return NULL;
    }
    s->ops = &plain_ops;
    s->rfd = rfd;
    s->wfd = wfd;
    s->rflags = s->wflags = s->wake = -1;
    atomic_init(&s->down, false);
    (void)snprintf(s->peer, sizeof(s->peer), "%s", peer);
    s->is_socket = rfd == wfd && getsockopt(rfd, SOL_SOCKET, SO_TYPE, &type, &len) == 0;
    if (make_nonblocking(rfd, &s->rflags, err) < 0 ||
        (wfd != rfd && make_nonblocking(wfd, &s->wflags, err) < 0)) {
        error_wrap(err, "%s", peer);
        stream_close(s);
        return NULL;
    }
    s->wake = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (s->wake < 0) {
        error_sys(err, "%s: timerfd", peer);
        stream_close(s);
        return NULL;
    }
    return s;
}

static uint64_t deadline_after(uint64_t idle_ns)
{
    return idle_ns ? transport_now_ns() + idle_ns : 0;
}

/* errno, and TLS's own reason where it has one. */
static int failed(const struct stream *s, const char *act, struct error *err)
{
    int code = errno;
    const char *reason = tls_reason(s);

    if (reason && code == EPROTO)
        return error_set(err, code, "%s: %s: TLS: %s", s->peer, act, reason);
    return error_set(err, code, "%s: %s: %s%s", s->peer, act, strerror(code), reason ? reason : "");
}

/* Whether the stream can still be used. Returns 0. */
static int check(struct stream *s, struct error *err)
{
    uint64_t expires = atomic_load(&s->expires_ns);

    if (expires && transport_now_ns() >= expires)
        return error_set(err, ETIMEDOUT, "%s: timed out", s->peer);
    if (atomic_load(&s->down))
        return error_set(err, EPIPE, "%s: the connection was closed", s->peer);
    return 0;
}

static int wait_for(struct stream *s, int fd, short want, uint64_t deadline,
                    const struct context *ctx, struct error *err)
{
    struct error why = ERROR_INIT;

    if (transport_wait(fd, want, s->wake, deadline, ctx, s->peer, &why) == 0 ||
        (why.code == EPIPE && check(s, &why) == 0)) /* expires later than it was to */
        return 0;
    if (err)
        *err = why;
    return -1;
}

ssize_t stream_read_some(struct stream *s, void *buf, size_t len, uint64_t idle_ns,
                         const struct context *ctx, struct error *err)
{
    uint64_t deadline = 0;

    if (s->n_unread && len) {
        size_t n = s->n_unread < len ? s->n_unread : len;
        memcpy(buf, s->unread + STREAM_UNREAD_MAX - s->n_unread, n);
        s->n_unread -= n;
        return (ssize_t)n;
    }
    for (;;) {
        short want = POLLIN;
        if (check(s, err) < 0)
            return -1;
        ssize_t n = s->ops->read(s, buf, len, &want);
        if (n >= 0) {
            atomic_fetch_add(&s->n_read, (uint64_t)n);
            return n;
        }
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN)
            return failed(s, "read", err);
        if (!deadline)
            deadline = deadline_after(idle_ns);
        if (wait_for(s, want == POLLOUT ? s->wfd : s->rfd, want, deadline, ctx, err) < 0)
            return -1;
    }
}

void stream_unread(struct stream *s, const void *buf, size_t len)
{
    if (len > STREAM_UNREAD_MAX)
        len = STREAM_UNREAD_MAX;
    memcpy(s->unread + STREAM_UNREAD_MAX - len, buf, len);
    s->n_unread = len;
}

int stream_read(struct stream *s, void *buf, size_t len, uint64_t idle_ns,
                const struct context *ctx, struct error *err)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = stream_read_some(s, (char *)buf + done, len - done, idle_ns, ctx, err);
        if (n < 0)
            return -1;
        if (n == 0)
            return error_set(err, done ? EBADMSG : EPIPE,
                             done ? "%s: the stream ended in the middle of a message"
                                  : "%s: the other side closed the connection",
                             s->peer);
        done += (size_t)n;
    }
    return 0;
}

/* Drops n bytes from the front of the vector. */
static void advance(struct iovec **iov, size_t *n_iov, size_t n)
{
    while (*n_iov && n >= (*iov)->iov_len) {
        n -= (*iov)->iov_len;
        ++*iov;
        --*n_iov;
    }
    if (*n_iov) {
        (*iov)->iov_base = (char *)(*iov)->iov_base + n;
        (*iov)->iov_len -= n;
    }
}

int stream_write(struct stream *s, struct iovec *iov, size_t n_iov, uint64_t idle_ns,
                 const struct context *ctx, struct error *err)
{
    uint64_t deadline = 0;

    advance(&iov, &n_iov, 0);
    while (n_iov) {
        short want = POLLOUT;
        if (check(s, err) < 0)
            return -1;
        ssize_t n = s->ops->write(s, iov, n_iov > IOV_MAX ? IOV_MAX : (int)n_iov, &want);
        if (n >= 0) {
            atomic_fetch_add(&s->n_written, (uint64_t)n);
            advance(&iov, &n_iov, (size_t)n);
            deadline = 0;
            continue;
        }
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN)
            return failed(s, "write", err);
        if (!deadline)
            deadline = deadline_after(idle_ns);
        if (wait_for(s, want == POLLIN ? s->rfd : s->wfd, want, deadline, ctx, err) < 0)
            return -1;
    }
    return 0;
}

static void wake_at(const struct stream *s, uint64_t ns)
{
    const struct itimerspec at = {
        .it_value = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)}};

    (void)timerfd_settime(s->wake, TFD_TIMER_ABSTIME, &at, NULL);
}

void stream_expire(struct stream *s, uint64_t ns)
{
    uint64_t at = transport_now_ns() + ns;

    atomic_store(&s->expires_ns, at);
    wake_at(s, at);
    if (atomic_load(&s->down)) /* meanwhile, and we took its wake-up away */
        wake_at(s, 1);
}

void stream_shutdown(struct stream *s)
{
    if (atomic_exchange(&s->down, true))
        return;
    if (s->ops->bye)
        s->ops->bye(s);
    if (s->is_socket)
        (void)shutdown(s->rfd, SHUT_RDWR);
    wake_at(s, 1);
}

void stream_close(struct stream *s)
{
    if (!s)
        return;
    if (s->wake >= 0 && !atomic_load(&s->down) && s->ops->bye)
        s->ops->bye(s);
    if (s->ops->destroy)
        s->ops->destroy(s);
    if (s->rflags >= 0)
        (void)fcntl(s->rfd, F_SETFL, s->rflags);
    if (s->wflags >= 0)
        (void)fcntl(s->wfd, F_SETFL, s->wflags);
    (void)close(s->rfd);
    if (s->wfd != s->rfd)
        (void)close(s->wfd);
    if (s->wake >= 0)
        (void)close(s->wake);
    free(s);
}

const char *stream_peer(const struct stream *s)
{
    return s->peer;
}

void stream_counters(const struct stream *s, uint64_t *ret_read, uint64_t *ret_written)
{
    *ret_read = atomic_load(&s->n_read);
    *ret_written = atomic_load(&s->n_written);
}
