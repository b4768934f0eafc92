// SPDX-License-Identifier: Apache-2.0
/* relay.c - a pair of streams with a bad wire between them */
#include "tests/lib/relay.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/base/bytes.h"
#include "runtime/wire/frame.h"
#include "tests/lib/unit.h"

struct direction {
    struct relay *relay;
    int index;
};

static bool wait_readable(struct relay *r, int fd)
{
    struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = r->wake[0], .events = POLLIN}};

    while (poll(p, 2, -1) < 0)
        ck_assert_int_eq(errno, EINTR);
    return !p[1].revents;
}

/* Reads exactly len bytes; false at the end. */
static bool get(struct relay *r, int fd, uint8_t *buf, size_t len)
{
    for (size_t done = 0; done < len;) {
        if (!wait_readable(r, fd))
            return false;
        ssize_t n = read(fd, buf + done, len - done);
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

static bool put(int fd, const uint8_t *buf, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = send(fd, buf + done, len - done, MSG_NOSIGNAL);
        if (n < 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

static void cut(struct relay *r)
{
    (void)shutdown(r->far[0], SHUT_RDWR);
    (void)shutdown(r->far[1], SHUT_RDWR);
}

/* Does the harm to one frame of `len` bytes. Returns false when the direction ends here. */
static bool strike(struct relay *r, int to, uint8_t *frame, size_t len)
{
    const struct relay_fault *f = &r->fault;
    size_t at = 0;

    if (f->where == HARM_IN_HEADER)
        at = 20;
    else if (f->where == HARM_IN_PAYLOAD)
        at = FRAME_HEADER_SIZE + (len - FRAME_HEADER_SIZE) / 2;
    r->struck = true;
    switch (f->harm) {
    case HARM_CUT:
        (void)put(to, frame, at);
        cut(r);
        return false;
    case HARM_CORRUPT:
        frame[at < len ? at : len - 1] ^= 0x40;
        return put(to, frame, len);
    case HARM_STALL: {
        (void)put(to, frame, at);
        /* Until the test ends the relay: the sides must find out by themselves. */
        struct pollfd p = {.fd = r->wake[0], .events = POLLIN};
        while (poll(&p, 1, -1) < 0)
            ;
        return false;
    }
    case HARM_REPEAT:
        if (!put(to, frame, len))
            return false;
        return put(to, frame, len);
    default:
        return true;
    }
}

static void *forward(void *opaque)
{
    struct direction *d = opaque;
    struct relay *r = d->relay;
    const struct relay_fault *f = &r->fault;
    int from = r->far[d->index], to = r->far[!d->index];
    uint8_t *frame = malloc(FRAME_HEADER_SIZE + WIRE_PAYLOAD_MAX);
    unsigned seen = 0;

    if (get(r, from, frame, GREETING_SIZE) && put(to, frame, GREETING_SIZE)) {
        for (;;) {
            if (!get(r, from, frame, FRAME_HEADER_SIZE))
                break;
            uint32_t length = get_le32(frame + 4);
            if (length > WIRE_PAYLOAD_MAX || !get(r, from, frame + FRAME_HEADER_SIZE, length))
                break;
            size_t len = FRAME_HEADER_SIZE + length;
            bool mine = f->harm != HARM_NONE && f->direction == d->index &&
                        (!f->type || f->type == frame[0]) && seen++ == f->number;
            if (mine ? !strike(r, to, frame, len) : !put(to, frame, len))
                break;
        }
    }
    /* The other side hears of an end, but not through a stalled wire. */
    if (!(r->struck && f->harm == HARM_STALL))
        (void)shutdown(to, SHUT_WR);
    free(frame);
    free(d);
    return NULL;
}

void relay_start(struct relay *r, const struct relay_fault *fault)
{
    int sv[2];

    memset(r, 0, sizeof(*r));
    r->fault = *fault;
    ck_assert_int_eq(pipe(r->wake), 0);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
        r->near[i] = sv[0];
        r->far[i] = sv[1];
    }
    for (int i = 0; i < 2; i++) {
        struct direction *d = malloc(sizeof(*d));
        *d = (struct direction){r, i};
        ck_assert_int_eq(pthread_create(&r->threads[i], NULL, forward, d), 0);
    }
}

bool relay_stop(struct relay *r)
{
    (void)close(r->wake[1]);
    cut(r);
    for (int i = 0; i < 2; i++)
        (void)pthread_join(r->threads[i], NULL);
    (void)close(r->wake[0]);
    for (int i = 0; i < 2; i++)
        (void)close(r->far[i]);
    return r->struck;
}
