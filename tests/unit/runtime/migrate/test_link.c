// SPDX-License-Identifier: Apache-2.0
/* test_link.c - how long a link waits, and for what; threads: yes */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
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
static struct link *make_link(uint64_t idle_ns, uint64_t bandwidth, int *ret_fd)
{
    struct transport_options none = {0};
    char address[32];
    int sv[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    (void)snprintf(address, sizeof(address), "fd:%d", sv[0]);
    struct stream *s = stream_connect(address, &none, NULL, &err);
    ck_assert_msg(s, "%s", err.text);
    (void)close(sv[0]);
    struct link *link = link_new(s, idle_ns, bandwidth, NULL, &err);
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
    struct link *link = make_link(IDLE, 0, &fd);

    expires(link);
    link_free(link);
    (void)close(fd);
}
END_TEST

UNIT_TEST(so_does_one_on_which_half_a_frame_came)
{
    int fd;
    struct link *link = make_link(IDLE, 0, &fd);

    ck_assert_int_eq(write(fd, "half a frame", 12), 12);
    expires(link);
    link_free(link);
    (void)close(fd);
}
END_TEST

static void *send_on(void *opaque)
{
    static uint8_t block[WIRE_BLOCK_MAX];
    struct frame f = {
        .type = FRAME_DATA, .extent = sizeof(block), .length = sizeof(block), .device = 0};

    while (link_send(opaque, &f, block, NULL) == 0)
        ;
    return NULL;
}

/* The answer to its PING waits for a write that does not end. */
UNIT_TEST(so_does_one_whose_peer_speaks_and_does_not_read)
{
    int fd;
    char byte;
    struct link *link = make_link(IDLE, 0, &fd);
    pthread_t thread;

    ck_assert_int_eq(pthread_create(&thread, NULL, send_on, link), 0);
    ck_assert_int_eq(recv(fd, &byte, 1, MSG_PEEK), 1); /* it is in the write */
    for (uint64_t i = 0; i < 3; i++)
        put_frame(fd, FRAME_PING, i);
    expires(link);
    (void)pthread_join(thread, NULL);
    link_free(link);
    (void)close(fd);
}
END_TEST

/* ---- what must not wait for a block ---- */

struct sipper {
    int fd;
    atomic_bool stop;
};

/* Takes a byte now and then. */
static void *sip(void *opaque)
{
    struct sipper *s = opaque;
    char byte;

    while (!atomic_load(&s->stop) && read(s->fd, &byte, 1) == 1)
        (void)usleep(20000);
    return NULL;
}

/* As long as something moves, a write has no end; the machine of the migration that is given up
 * must not stand still until then. */
UNIT_TEST(the_last_word_waits_for_no_peer_that_sips)
{
    struct sipper s = {0};
    char byte;
    struct link *link = make_link(IDLE, 0, &s.fd);
    pthread_t sender, peer;

    ck_assert_int_eq(pthread_create(&sender, NULL, send_on, link), 0);
    ck_assert_int_eq(recv(s.fd, &byte, 1, MSG_PEEK), 1);
    ck_assert_int_eq(pthread_create(&peer, NULL, sip, &s), 0);
    link_send_abort(link, 0, "enough");
    atomic_store(&s.stop, true);
    (void)pthread_join(sender, NULL);
    link_free(link);
    (void)pthread_join(peer, NULL);
    (void)close(s.fd);
}
END_TEST

static void get(int fd, void *buf, size_t len)
{
    const struct timeval minute = {.tv_sec = 60};

    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &minute, sizeof(minute)), 0);
    for (size_t done = 0; done < len;) {
        ssize_t n = read(fd, (char *)buf + done, len - done);
        ck_assert_msg(n > 0, "nothing came for a minute");
        done += (size_t)n;
    }
}

static uint8_t get_frame(int fd, uint64_t sequence)
{
    static uint8_t header[FRAME_HEADER_SIZE], payload[WIRE_BLOCK_MAX];
    struct frame f;

    get(fd, header, sizeof(header));
    ck_assert_msg(frame_decode(header, sequence, &f, &err) == 0, "%s", err.text);
    get(fd, payload, f.length);
    return f.type;
}

/* A block that the bandwidth allows in ten minutes, and a peer that takes who is silent for three
 * seconds for lost. */
UNIT_TEST(signs_of_life_pass_a_block_that_waits_for_bandwidth)
{
    struct greeting ours = {.version_min = WIRE_VERSION,
                            .version_max = WIRE_VERSION,
                            .role = WIRE_SOURCE,
                            .session = "a session here"},
                    theirs = ours, got;
    uint8_t buf[GREETING_SIZE];
    pthread_t sender;
    int fd;
    struct link *link = make_link(3 * SECOND, WIRE_BLOCK_MAX / 600, &fd);

    theirs.role = WIRE_TARGET;
    greeting_encode(&theirs, buf);
    ck_assert_int_eq(write(fd, buf, sizeof(buf)), sizeof(buf));
    ck_assert_msg(link_greet(link, &ours, &got, &err) == 0, "%s", err.text);
    get(fd, buf, sizeof(buf));
    ck_assert_int_eq(pthread_create(&sender, NULL, send_on, link), 0);
    uint64_t n = 0;
    while (get_frame(fd, n++) != FRAME_DATA) /* it has the bucket full; a busy machine is late */
        ;
    ck_assert_int_eq(get_frame(fd, n++), FRAME_PING);
    ck_assert_int_eq(get_frame(fd, n++), FRAME_PING);
    ck_assert_msg(link_send_word(link, FRAME_COMMIT, 0, &err) == 0, "%s", err.text);
    uint8_t type;
    while ((type = get_frame(fd, n++)) != FRAME_COMMIT)
        ck_assert_int_eq(type, FRAME_PING);
    link_break(link); /* who waits for the bucket need not any more */
    (void)pthread_join(sender, NULL);
    link_free(link);
    (void)close(fd);
}
END_TEST
