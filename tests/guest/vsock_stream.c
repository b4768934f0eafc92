// SPDX-License-Identifier: Apache-2.0
/* vsock_stream.c - both ends of the stream tests: a static program for the guest and the host
 *
 *     vsock_stream serve ADDRESS           echo whatever comes, on any number of connections
 *     vsock_stream echo ADDRESS N BYTES    N connections at once: send BYTES each, end the sending
 *                                          side, and demand the same bytes back and then the end
 *     vsock_stream exchange ADDRESS N BYTES    the same without ending a side: Firecracker's device
 *                                          does not pass that on, and whoever waits for it hangs
 *     vsock_stream send ADDRESS BYTES      one connection: send BYTES, end, wait for the peer's ok
 *     vsock_stream sink ADDRESS BYTES      accept one connection and demand those BYTES and the
 *                                          end; answer "ok"
 *     vsock_stream take ADDRESS BYTES      the same, but connect, and without an end (a serial port
 *                                          has none)
 *     vsock_stream mirror ADDRESS          connect, and send back what comes, until killed
 *     vsock_stream ping ADDRESS N          N round trips of a byte; prints the median
 *     vsock_stream hold ADDRESS            connect, say "held", wait for the end; print how it came
 *
 * ADDRESS: vsock:CID:PORT, unix:PATH, guest:PATH:PORT (the UNIX socket of a vsock device on the
 * host), or port:PATH (a virtio-serial port in the guest). Bytes are a pattern that depends on
 * connection and position, so that a loss, a swap or a mix-up shows.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#define BLOCK 65536
#define ECHO_BUFFER 8192
#define CONNECTIONS_MAX 4000

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "vsock_stream: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint8_t pattern(unsigned id, uint64_t at)
{
    uint64_t x = (at >> 3) * UINT64_C(0x9E3779B97F4A7C15) + id * UINT64_C(0xD1B54A32D192ED03);

    return (uint8_t)((x ^ x >> 29) >> (at & 7) * 8);
}

static double now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int unix_socket(const char *path, int listening)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    if (strlen(path) >= sizeof(a.sun_path)) {
        errno = ENAMETOOLONG;
        die(path);
    }
    strcpy(a.sun_path, path);
    if (listening) {
        unlink(path);
        if (bind(fd, (void *)&a, sizeof(a)) < 0 || listen(fd, 64) < 0)
            die(path);
    } else if (connect(fd, (void *)&a, sizeof(a)) < 0) {
        die(path);
    }
    return fd;
}

static int open_address(const char *address, int listening)
{
    char path[200], line[64];
    unsigned cid, port;

    if (sscanf(address, "vsock:%u:%u", &cid, &port) == 2) {
        struct sockaddr_vm a = {
            .svm_family = AF_VSOCK, .svm_cid = listening ? VMADDR_CID_ANY : cid, .svm_port = port};
        int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

        if (fd < 0)
            die("socket");
        /* The kernel's two seconds are not much for a guest whose processors are emulated on a busy
         * host. */
        struct timeval patience = {.tv_sec = 60};
        if (setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &patience, sizeof(patience)) <
            0)
            die("SO_VM_SOCKETS_CONNECT_TIMEOUT");
        if (listening ? bind(fd, (void *)&a, sizeof(a)) < 0 || listen(fd, 1024) < 0
                      : connect(fd, (void *)&a, sizeof(a)) < 0)
            die(address);
        return fd;
    }
    if (sscanf(address, "unix:%199s", path) == 1)
        return unix_socket(path, listening);
    if (sscanf(address, "guest:%199[^:]:%u", path, &port) == 2) {
        int fd = unix_socket(path, 0);
        size_t n = 0;

        dprintf(fd, "CONNECT %u\n", port);
        do
            if (n == sizeof(line) - 1 || read(fd, line + n, 1) != 1) {
                errno = ECONNREFUSED;
                die(address);
            }
        while (line[n++] != '\n');
        line[n] = 0;
        if (strncmp(line, "OK ", 3) != 0)
            die(line);
        return fd;
    }
    if (sscanf(address, "port:%199s", path) == 1) {
        int fd = open(path, O_RDWR | O_NOCTTY);

        if (fd < 0)
            die(address);
        return fd;
    }
    errno = EINVAL;
    die(address);
}

/* Writes some of it, waiting while there is no room. */
static size_t write_some(int fd, const void *data, size_t len)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    ssize_t w;

    while ((w = write(fd, data, len)) <= 0) {
        if (w < 0 && errno != EAGAIN && errno != ENOSPC && errno != EINTR)
            die("write");
        poll(&p, 1, -1);
    }
    return (size_t)w;
}

static void nonblock(int fd)
{
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

static int serve(const char *address)
{
    static struct pollfd p[CONNECTIONS_MAX + 1];
    static struct {
        char *buf;
        size_t start, len;
        int eof;
    } c[CONNECTIONS_MAX + 1];
    int n = 1;

    p[0] = (struct pollfd){.fd = open_address(address, 1), .events = POLLIN};
    printf("serving\n");
    fflush(stdout);
    for (;;) {
        if (poll(p, (nfds_t)n, -1) < 0)
            die("poll");
        for (int i = n - 1; i > 0; i--) {
            ssize_t r;

            if (!p[i].revents)
                continue;
            if (c[i].len) {
                r = send(p[i].fd, c[i].buf + c[i].start, c[i].len, MSG_NOSIGNAL);
                if (r < 0)
                    goto drop;
                c[i].start += (size_t)r;
                c[i].len -= (size_t)r;
            } else {
                r = read(p[i].fd, c[i].buf, ECHO_BUFFER);
                if (r <= 0)
                    goto drop;
                c[i].start = 0;
                c[i].len = (size_t)r;
            }
            p[i].events = c[i].len ? POLLOUT : POLLIN;
            continue;
        drop:
            close(p[i].fd);
            free(c[i].buf);
            n--;
            p[i] = p[n];
            c[i] = c[n];
        }
        if (p[0].revents && n <= CONNECTIONS_MAX) {
            int fd = accept(p[0].fd, NULL, NULL);

            if (fd < 0)
                die("accept");
            nonblock(fd);
            p[n] = (struct pollfd){.fd = fd, .events = POLLIN};
            c[n].buf = malloc(ECHO_BUFFER);
            c[n].len = 0;
            n++;
        }
    }
}

static int echo(const char *address, int n, uint64_t bytes, int half_close)
{
    struct pollfd *p = calloc((size_t)n, sizeof(*p));
    struct {
        uint64_t sent, got;
        int shut;
    } *c = calloc((size_t)n, sizeof(*c));
    static uint8_t buf[BLOCK];
    int left = n;

    for (int i = 0; i < n; i++) {
        p[i] = (struct pollfd){.fd = open_address(address, 0), .events = POLLIN | POLLOUT};
        nonblock(p[i].fd);
    }
    while (left > 0) {
        if (poll(p, (nfds_t)n, -1) < 0)
            die("poll");
        for (int i = 0; i < n; i++) {
            if (p[i].revents & POLLOUT && !c[i].shut) {
                size_t some = bytes - c[i].sent < BLOCK ? (size_t)(bytes - c[i].sent) : BLOCK;
                ssize_t w;

                for (size_t k = 0; k < some; k++)
                    buf[k] = pattern((unsigned)i, c[i].sent + k);
                w = some ? send(p[i].fd, buf, some, MSG_NOSIGNAL) : 0;
                if (w < 0 && errno != EAGAIN)
                    die("send");
                c[i].sent += w > 0 ? (uint64_t)w : 0;
                if (c[i].sent == bytes) {
                    if (half_close && shutdown(p[i].fd, SHUT_WR) < 0)
                        die("shutdown");
                    c[i].shut = 1;
                    p[i].events = POLLIN;
                }
            }
            if (p[i].revents & (POLLIN | POLLHUP | POLLERR)) {
                ssize_t r = read(p[i].fd, buf, BLOCK);

                if (r < 0 && errno != EAGAIN)
                    die("read");
                for (ssize_t k = 0; k < r; k++)
                    if (buf[k] != pattern((unsigned)i, c[i].got + (uint64_t)k)) {
                        fprintf(stderr, "vsock_stream: connection %d: byte %llu is wrong\n", i,
                                (unsigned long long)(c[i].got + (uint64_t)k));
                        return 1;
                    }
                if (r == 0) {
                    if (c[i].got != bytes) {
                        fprintf(stderr, "vsock_stream: connection %d: ended after %llu bytes\n", i,
                                (unsigned long long)c[i].got);
                        return 1;
                    }
                    close(p[i].fd);
                    p[i].fd = -1;
                    left--;
                }
                c[i].got += r > 0 ? (uint64_t)r : 0;
                if (!half_close && r > 0 && c[i].got == bytes) {
                    close(p[i].fd);
                    p[i].fd = -1;
                    left--;
                }
            }
        }
    }
    printf("echoed %d x %llu\n", n, (unsigned long long)bytes);
    return 0;
}

/* The pattern repeats every 4 MiB here: a gigabyte shall not be bound by making it. */
#define REPEAT (4u << 20)

static uint8_t *make_pattern(void)
{
    uint8_t *all = malloc(REPEAT + BLOCK);

    for (uint64_t i = 0; i < REPEAT + BLOCK; i++)
        all[i] = pattern(7, i % REPEAT);
    return all;
}

static int send_bytes(const char *address, uint64_t bytes)
{
    uint8_t *all = make_pattern();
    int fd = open_address(address, 0);
    char answer[2];
    double start = now(), took;

    for (uint64_t at = 0; at < bytes;) {
        size_t some = bytes - at < BLOCK ? (size_t)(bytes - at) : BLOCK;

        at += write_some(fd, all + at % REPEAT, some);
    }
    if (shutdown(fd, SHUT_WR) < 0 && errno != ENOTSOCK)
        die("shutdown");
    if (read(fd, answer, 2) != 2 || memcmp(answer, "ok", 2) != 0) {
        fprintf(stderr, "vsock_stream: the peer did not say ok\n");
        return 1;
    }
    took = now() - start;
    printf("sent %llu bytes, %.1f MB/s\n", (unsigned long long)bytes, (double)bytes / took / 1e6);
    return 0;
}

static int sink(const char *address, uint64_t bytes, int listening)
{
    uint8_t *all = make_pattern(), *buf = malloc(BLOCK);
    int listener = open_address(address, listening), fd = listener;
    uint64_t at = 0;
    double start, took;
    ssize_t r = 0;

    printf("serving\n");
    fflush(stdout);
    if (listening && (fd = accept(listener, NULL, NULL)) < 0)
        die("accept");
    /* The first byte starts the clock: whoever connects may let the guest begin later. */
    start = 0;
    while ((listening || at < bytes) && (r = read(fd, buf, BLOCK)) > 0) {
        if (at == 0)
            start = now();
        if (memcmp(buf, all + at % REPEAT, (size_t)r) != 0) {
            fprintf(stderr, "vsock_stream: wrong bytes at %llu\n", (unsigned long long)at);
            return 1;
        }
        at += (uint64_t)r;
    }
    if (r < 0)
        die("read");
    took = now() - start;
    if (at != bytes) {
        fprintf(stderr, "vsock_stream: ended after %llu bytes\n", (unsigned long long)at);
        return 1;
    }
    if (write(fd, "ok", 2) != 2)
        die("write");
    printf("got %llu bytes, %.1f MB/s\n", (unsigned long long)bytes, (double)bytes / took / 1e6);
    return 0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static int ping(const char *address, int n)
{
    double *t = calloc((size_t)n, sizeof(*t));
    int fd = open_address(address, 0);

    for (int i = 0; i < n; i++) {
        char c = (char)i, d;
        double start = now();

        if (write(fd, &c, 1) != 1 || read(fd, &d, 1) != 1 || c != d)
            die("round trip");
        t[i] = now() - start;
    }
    qsort(t, (size_t)n, sizeof(*t), by_value);
    printf("round trip %.0f us\n", t[n / 2] * 1e6);
    return 0;
}

static int mirror(const char *address)
{
    int fd = open_address(address, 0);
    char buf[ECHO_BUFFER];
    ssize_t r;

    /* A port reads as ended until the host connects. */
    while ((r = read(fd, buf, sizeof(buf))) >= 0) {
        if (r == 0)
            usleep(1000);
        for (ssize_t at = 0; at < r;)
            at += (ssize_t)write_some(fd, buf + at, (size_t)(r - at));
    }
    die("read");
}

static int hold(const char *address)
{
    int fd = open_address(address, 0);
    char c;
    ssize_t r;

    if (write(fd, "x", 1) != 1 || read(fd, &c, 1) != 1)
        die("hold");
    printf("held\n");
    fflush(stdout);
    r = read(fd, &c, 1);
    printf("hold ended: %s\n", r == 0 ? "end" : r < 0 ? strerror(errno) : "data");
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    signal(SIGPIPE, SIG_IGN);
    if (argc == 3 && strcmp(what, "serve") == 0)
        return serve(argv[2]);
    if (argc == 5 && (strcmp(what, "echo") == 0 || strcmp(what, "exchange") == 0))
        return echo(argv[2], atoi(argv[3]), strtoull(argv[4], NULL, 10), what[1] == 'c');
    if (argc == 4 && strcmp(what, "send") == 0)
        return send_bytes(argv[2], strtoull(argv[3], NULL, 10));
    if (argc == 4 && (strcmp(what, "sink") == 0 || strcmp(what, "take") == 0))
        return sink(argv[2], strtoull(argv[3], NULL, 10), what[0] == 's');
    if (argc == 3 && strcmp(what, "mirror") == 0)
        return mirror(argv[2]);
    if (argc == 4 && strcmp(what, "ping") == 0)
        return ping(argv[2], atoi(argv[3]));
    if (argc == 3 && strcmp(what, "hold") == 0)
        return hold(argv[2]);
    fprintf(stderr, "usage: see the head of vsock_stream.c\n");
    return 2;
}
