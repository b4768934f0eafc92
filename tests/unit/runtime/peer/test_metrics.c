// SPDX-License-Identifier: Apache-2.0
/* test_metrics.c - who asks for metrics is answered, whatever others do; threads: yes */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "runtime/peer/metrics.h"
#include "tests/lib/shortage.h"
#include "tests/lib/unit.h"

static struct error err;

static int new_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_ge(fd, 0);
    return fd;
}

static void connect_to(int fd, const char *path)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};

    (void)snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
}

/* Asks, and reads the answer to its end; fails when nothing comes for a minute. */
static void ask(int fd)
{
    static const char request[] = "GET /metrics HTTP/1.0\r\n\r\n";
    char text[65536];
    size_t len = 0;
    ssize_t n;

    ck_assert_int_eq(send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL), sizeof(request) - 1);
    do {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        ck_assert_int_eq(poll(&p, 1, 60000), 1);
        n = read(fd, text + len, sizeof(text) - 1 - len);
        ck_assert_int_ge(n, 0);
        len += (size_t)n;
    } while (n > 0);
    text[len] = '\0';
    ck_assert_msg(strncmp(text, "HTTP/1.0 200 OK\r\n", 17) == 0, "%s", text);
    ck_assert_ptr_nonnull(strstr(text, "\ndrafter_peer_vm_running 0\n"));
}

struct dribbler {
    int fd;
    atomic_bool stop;
    bool dropped;
};

/* Never comes to the end of its request. */
static void *dribble(void *opaque)
{
    struct dribbler *d = opaque;
    struct pollfd p = {.fd = d->fd, .events = 0};

    while (!atomic_load(&d->stop) && !d->dropped) {
        d->dropped = send(d->fd, "x", 1, MSG_NOSIGNAL) < 0;
        (void)poll(&p, 1, 50); /* a hang-up ends it */
    }
    if (!d->dropped) /* told to stop before we had a look */
        d->dropped = send(d->fd, "x", 1, MSG_NOSIGNAL) < 0;
    return NULL;
}

UNIT_TEST(who_dribbles_holds_nobody_up)
{
    struct dribbler d = {.fd = new_socket()};
    static struct peer peer;
    pthread_t thread;

    struct metrics *m = metrics_serve("unix:m", &peer, NULL, &err);
    ck_assert_msg(m, "%s", err.text);
    connect_to(d.fd, "m");
    ck_assert_int_eq(send(d.fd, "GET /", 5, MSG_NOSIGNAL), 5);
    ck_assert_int_eq(pthread_create(&thread, NULL, dribble, &d), 0);
    int fd = new_socket();
    connect_to(fd, "m");
    ask(fd);
    atomic_store(&d.stop, true);
    (void)pthread_join(thread, NULL);
    ck_assert_msg(d.dropped, "it was waited for no longer, and yet not dropped");
    (void)close(d.fd);
    (void)close(fd);
    metrics_stop(m);
}
END_TEST

UNIT_TEST(a_want_of_descriptors_passes)
{
    static struct shortage s;
    static struct peer peer;

    shortage_init(&s);
    struct context ctx = {.log = &s.log};
    struct metrics *m = metrics_serve("unix:m", &peer, &ctx, &err);
    ck_assert_msg(m, "%s", err.text);
    int fd = new_socket();
    shortage_begin(&s);
    connect_to(fd, "m");
    shortage_wait(&s);
    shortage_end(&s);
    ask(fd);
    ck_assert_uint_eq(shortage_count(&s), 1);
    (void)close(fd);
    metrics_stop(m);
}
END_TEST
