// SPDX-License-Identifier: Apache-2.0
/* wire.c - a long, narrow or bad wire between two programs, for tests with real machines
 *
 *     wire [OPTION...] LISTEN CONNECT       paths of UNIX sockets
 *
 * Each connection to LISTEN becomes one to CONNECT. Who listens at CONNECT is "the source", who
 * came to LISTEN "the target": as drafter-peer's sides are.
 *
 *     --delay MS       each byte is that long under way, each direction (half a round trip)
 *     --rate BYTES     a second, each direction; 0 = no limit
 *     --harm HARM      done once, on the first connection:
 *                      cut      both directions end
 *                      truncate the frame ends in its middle, then both directions do
 *                      stall    nothing passes any more, nobody is told
 *                      corrupt  a bit is flipped
 *                      drop     the frame does not pass
 *                      repeat   it passes twice
 *                      swap     it passes after the one behind it
 *                      hold     as stall, until a line comes on standard input; then as cut
 *     --from SIDE      whose frames count: source (default) or target
 *     --type N         only frames of that type count (runtime/wire/frame.h); 0 = all
 *     --number N       the harm is done to frame N of those, from 0
 *
 * "struck" is printed when the harm is done. The program runs until it is killed.
 *
 * Theory of operation: a direction is two threads with a queue between them. The reader stamps what
 * it reads with the time at which it may leave, the writer waits for that time and for the rate.
 * The queue holds what a wire of that length does, so a sender feels the far end as it would a real
 * one.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "runtime/wire/frame.h"

#define CHUNK 65536u
#define QUEUE_SPARE (256u << 10)

enum harm { NONE, CUT, TRUNCATE, STALL, CORRUPT, DROP, REPEAT, SWAP, HOLD };
static const char *const harms[] = {"none", "cut",    "truncate", "stall", "corrupt",
                                    "drop", "repeat", "swap",     "hold"};

struct options {
    double delay, rate; /* seconds, bytes a second */
    enum harm harm;
    int from; /* 0 source, 1 target */
    unsigned type, number;
};

struct chunk {
    struct chunk *next;
    double due;
    size_t len;
    uint8_t bytes[];
};

struct direction {
    const struct options *o;
    int index, from, to, both[2];
    bool harmful;
    pthread_mutex_t lock;
    pthread_cond_t change;
    struct chunk *head, **tail;
    size_t queued;
    bool ended, stalled;
};

static double now(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void wait_until(double when)
{
    struct timespec ts = {.tv_sec = (time_t)when,
                          .tv_nsec = (long)((when - (double)(time_t)when) * 1e9)};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
        ;
}

static bool put(int fd, const uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n < 0)
            return false;
        data += n;
        len -= (size_t)n;
    }
    return true;
}

static bool get(int fd, uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t n = read(fd, data, len);
        if (n <= 0)
            return false;
        data += n;
        len -= (size_t)n;
    }
    return true;
}

static void cut(struct direction *d)
{
    (void)shutdown(d->both[0], SHUT_RDWR);
    (void)shutdown(d->both[1], SHUT_RDWR);
}

static void queue_bytes(struct direction *d, const uint8_t *data, size_t len)
{
    const size_t room = (size_t)(d->o->rate * d->o->delay) + QUEUE_SPARE;

    while (len > 0) {
        size_t n = len < CHUNK ? len : CHUNK;
        struct chunk *c = malloc(sizeof(*c) + n);
        if (!c)
            abort();
        memcpy(c->bytes, data, n);
        c->next = NULL;
        c->len = n;
        (void)pthread_mutex_lock(&d->lock);
        while (d->queued > room && !d->ended)
            (void)pthread_cond_wait(&d->change, &d->lock);
        c->due = now() + d->o->delay;
        *d->tail = c;
        d->tail = &c->next;
        d->queued += n;
        (void)pthread_cond_broadcast(&d->change);
        (void)pthread_mutex_unlock(&d->lock);
        data += n;
        len -= n;
    }
}

/* Does the harm to a frame. Returns whether the direction goes on. */
static bool strike(struct direction *d, uint8_t *frame, size_t len)
{
    static uint8_t behind[FRAME_HEADER_SIZE + WIRE_PAYLOAD_MAX];
    char line[16];

    switch (d->o->harm) {
    case TRUNCATE:
        queue_bytes(d, frame, len / 2);
        break;
    case CORRUPT:
        frame[len / 2] ^= 0x10;
        queue_bytes(d, frame, len);
        break;
    case REPEAT:
        queue_bytes(d, frame, len);
        queue_bytes(d, frame, len);
        break;
    case SWAP:
        if (get(d->from, behind, FRAME_HEADER_SIZE)) {
            uint32_t n = (uint32_t)behind[4] | (uint32_t)behind[5] << 8 |
                         (uint32_t)behind[6] << 16 | (uint32_t)behind[7] << 24;
            if (n <= WIRE_PAYLOAD_MAX && get(d->from, behind + FRAME_HEADER_SIZE, n))
                queue_bytes(d, behind, FRAME_HEADER_SIZE + n);
        }
        queue_bytes(d, frame, len);
        break;
    default:
        break;
    }
    printf("struck\n");
    (void)fflush(stdout);
    if (d->o->harm == HOLD)
        (void)!fgets(line, sizeof(line), stdin);
    if (d->o->harm == CUT || d->o->harm == HOLD) {
        cut(d);
        return false;
    }
    if (d->o->harm == STALL) {
        for (;;)
            (void)pause();
    }
    return d->o->harm != TRUNCATE;
}

static void *reader(void *opaque)
{
    struct direction *d = opaque;
    uint8_t *frame = malloc(FRAME_HEADER_SIZE + WIRE_PAYLOAD_MAX);
    unsigned seen = 0;

    if (!frame)
        abort();
    if (d->harmful && d->o->from == d->index && get(d->from, frame, GREETING_SIZE)) {
        queue_bytes(d, frame, GREETING_SIZE);
        while (get(d->from, frame, FRAME_HEADER_SIZE)) {
            uint32_t n = (uint32_t)frame[4] | (uint32_t)frame[5] << 8 | (uint32_t)frame[6] << 16 |
                         (uint32_t)frame[7] << 24;
            if (n > WIRE_PAYLOAD_MAX || !get(d->from, frame + FRAME_HEADER_SIZE, n))
                break;
            bool mine = (!d->o->type || d->o->type == frame[0]) && seen++ == d->o->number;
            if (!mine)
                queue_bytes(d, frame, FRAME_HEADER_SIZE + n);
            else if (!strike(d, frame, FRAME_HEADER_SIZE + n))
                break;
        }
    } else {
        ssize_t n;
        while ((n = read(d->from, frame, CHUNK)) > 0)
            queue_bytes(d, frame, (size_t)n);
    }
    (void)pthread_mutex_lock(&d->lock);
    d->ended = true;
    (void)pthread_cond_broadcast(&d->change);
    (void)pthread_mutex_unlock(&d->lock);
    free(frame);
    return NULL;
}

static void *writer(void *opaque)
{
    struct direction *d = opaque;
    double free_at = 0;

    for (;;) {
        (void)pthread_mutex_lock(&d->lock);
        while (!d->head && !d->ended)
            (void)pthread_cond_wait(&d->change, &d->lock);
        struct chunk *c = d->head;
        if (c) {
            d->head = c->next;
            if (!d->head)
                d->tail = &d->head;
        }
        (void)pthread_mutex_unlock(&d->lock);
        if (!c)
            break;
        if (d->o->delay > 0)
            wait_until(c->due);
        if (d->o->rate > 0) {
            double t = now();
            free_at = (free_at > t ? free_at : t) + (double)c->len / d->o->rate;
            wait_until(free_at);
        }
        bool ok = put(d->to, c->bytes, c->len);
        (void)pthread_mutex_lock(&d->lock);
        d->queued -= c->len;
        d->ended = d->ended || !ok;
        (void)pthread_cond_broadcast(&d->change);
        (void)pthread_mutex_unlock(&d->lock);
        free(c);
        if (!ok)
            break;
    }
    cut(d); /* a peer that ends one direction has ended both */
    return NULL;
}

static void start(const struct options *o, int index, int from, int to, bool harmful)
{
    struct direction *d = calloc(1, sizeof(*d));
    pthread_t t;

    if (!d)
        abort();
    *d = (struct direction){
        .o = o, .index = index, .from = from, .to = to, .both = {from, to}, .harmful = harmful};
    d->tail = &d->head;
    (void)pthread_mutex_init(&d->lock, NULL);
    (void)pthread_cond_init(&d->change, NULL);
    if (pthread_create(&t, NULL, reader, d) || pthread_create(&t, NULL, writer, d))
        abort();
}

static int open_socket(const char *path, bool listening)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    if (fd < 0)
        return -1;
    if (listening)
        (void)unlink(path);
    if (listening ? bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 8) < 0
                  : connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

static void take_option(struct options *o, const char *name, const char *value)
{
    if (strcmp(name, "--delay") == 0)
        o->delay = strtod(value, NULL) / 1e3;
    else if (strcmp(name, "--rate") == 0)
        o->rate = strtod(value, NULL);
    else if (strcmp(name, "--from") == 0)
        o->from = strcmp(value, "target") == 0;
    else if (strcmp(name, "--type") == 0)
        o->type = (unsigned)strtoul(value, NULL, 10);
    else if (strcmp(name, "--number") == 0)
        o->number = (unsigned)strtoul(value, NULL, 10);
    else if (strcmp(name, "--harm") == 0)
        for (size_t i = 0; i < sizeof(harms) / sizeof(*harms); i++)
            if (strcmp(value, harms[i]) == 0)
                o->harm = (enum harm)i;
}

int main(int argc, char **argv)
{
    static struct options o;
    bool harmful;
    int i = 1;

    for (; i + 1 < argc && argv[i][0] == '-'; i += 2)
        take_option(&o, argv[i], argv[i + 1]);
    if (argc - i != 2) {
        (void)fprintf(stderr, "usage: wire [OPTION...] LISTEN CONNECT\n");
        return 2;
    }
    harmful = o.harm != NONE;
    int listener = open_socket(argv[i], true);
    if (listener < 0) {
        perror(argv[i]);
        return 1;
    }
    printf("listening\n");
    (void)fflush(stdout);
    for (;;) {
        int target = accept(listener, NULL, NULL);
        int source = target < 0 ? -1 : open_socket(argv[i + 1], false);
        if (source < 0) {
            if (target >= 0)
                (void)close(target);
            continue;
        }
        start(&o, 0, source, target, harmful);
        start(&o, 1, target, source, harmful);
        harmful = false;
    }
}
