// SPDX-License-Identifier: Apache-2.0
/* test_link.c - how long a link waits, and for what; threads: yes */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/migrate/link.h"
#include "tests/lib/unit.h"

#define SECOND UINT64_C(1000000000)
#define IDLE (600 * SECOND) /* who waits for this runs into the test's own limit */

static struct error err;

/* A link, and in *ret_fd the other end of its stream. */
static struct link *make_link(uint64_t idle_ns, int *ret_fd)
{
    struct transport_options none = {0};
    char address[32];
    int sv[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    (void)snprintf(address, sizeof(address), "fd:%d", sv[0]);
    struct stream *s = stream_connect(address, &none, NULL, &err);
    ck_assert_msg(s, "%s", err.text);
    (void)close(sv[0]);
    struct link *link = link_new(s, idle_ns, 0, NULL, &err);
    ck_assert_msg(link, "%s", err.text);
    *ret_fd = sv[1];
    return link;
}

static void put_frame(int fd, uint8_t type, uint64_t sequence)
{
    struct frame f = {.type = type, .sequence = sequence};
    uint8_t header[FRAME_HEADER_SIZE];

    frame_seal(&f, NULL);
    frame_encode(&f, header);
    ck_assert_int_eq(send(fd, header, sizeof(header), MSG_NOSIGNAL), sizeof(header));
}

/* link_expire(), then link_receive() until it fails: of that. */
static void expires(struct link *link)
{
    struct frame f;
    const uint8_t *payload;

    link_expire(link, SECOND / 10);
    while (link_receive(link, &f, &payload, &err) == 0)
        ;
    ck_assert_msg(err.code == ETIMEDOUT, "%s", err.text);
}

UNIT_TEST(a_silent_link_expires)
{
    int fd;
    struct link *link = make_link(IDLE, &fd);

    expires(link);
    link_free(link);
    (void)close(fd);
}
END_TEST

UNIT_TEST(so_does_one_on_which_half_a_frame_came)
{
    int fd;
    struct link *link = make_link(IDLE, &fd);

    ck_assert_int_eq(write(fd, "half a frame", 12), 12);
    expires(link);
    link_free(link);
    (void)close(fd);
}
END_TEST

struct sender {
    struct link *link;
};

static void *send_what_nobody_reads(void *opaque)
{
    static uint8_t block[WIRE_BLOCK_MAX];
    struct sender *s = opaque;
    struct frame f = {
        .type = FRAME_DATA, .extent = sizeof(block), .length = sizeof(block), .device = 0};

    while (link_send(s->link, &f, block, NULL) == 0)
        ;
    return NULL;
}

/* The answer to its PING waits for a write that does not end. */
UNIT_TEST(so_does_one_whose_peer_speaks_and_does_not_read)
{
    int fd;
    char byte;
    struct sender s = {.link = make_link(IDLE, &fd)};
    pthread_t thread;

    ck_assert_int_eq(pthread_create(&thread, NULL, send_what_nobody_reads, &s), 0);
    ck_assert_int_eq(recv(fd, &byte, 1, MSG_PEEK), 1); /* it is in the write */
    for (uint64_t i = 0; i < 3; i++)
        put_frame(fd, FRAME_PING, i);
    expires(s.link);
    (void)pthread_join(thread, NULL);
    link_free(s.link);
    (void)close(fd);
}
END_TEST
