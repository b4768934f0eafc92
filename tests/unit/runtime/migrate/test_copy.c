// SPDX-License-Identifier: Apache-2.0
/* test_copy.c - in which order the source's senders send */
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/migrate/copy.h"
#include "runtime/transport/transport.h"
#include "tests/lib/unit.h"

#define BLOCK 65536u
#define BLOCKS 64u

static struct error err;

static void get(int fd, uint8_t *buf, size_t len)
{
    while (len > 0) {
        ssize_t n = read(fd, buf, len);
        ck_assert_int_gt(n, 0);
        buf += n;
        len -= (size_t)n;
    }
}

/* The offset of the next frame of data on the wire. */
static uint64_t next_offset(int fd, uint64_t sequence)
{
    static uint8_t header[FRAME_HEADER_SIZE], payload[WIRE_PAYLOAD_MAX];
    struct frame f;

    get(fd, header, sizeof(header));
    ck_assert_msg(frame_decode(header, sequence, &f, &err) == 0, "%s", err.text);
    ck_assert_int_eq(f.type, FRAME_DATA);
    get(fd, payload, f.length);
    return f.offset;
}

/* What is asked for before the senders have their link, as a target does while it loads the state
 * or right after it has come back, is sent ahead of all else, and so it is when the link is set
 * again. */
UNIT_TEST(questions_outlive_the_setting_of_a_link)
{
    static const char stack[] = "[{\"type\":\"sparse\",\"size\":4194304},{\"type\":\"dirty\"}]";
    struct copy_options options = {.threads = 1};
    struct transport_options none = {0};
    struct bitmap all = {0};
    static char data[BLOCK];
    char address[32];
    int sv[2];

    struct block *b = block_open(stack, sizeof(stack) - 1, "memory", NULL, &err);
    ck_assert_msg(b, "%s", err.text);
    memset(data, 'x', sizeof(data));
    for (uint64_t i = 0; i < BLOCKS; i++)
        ck_assert_int_eq(block_write(b, data, BLOCK, i * BLOCK, 0, &err), 0);
    struct migrate_device device = {.name = "memory", .block = b, .block_size = BLOCK};
    struct copy *copy = copy_new(&device, 1, &options, &err);
    ck_assert_ptr_nonnull(copy);
    ck_assert_int_eq(bitmap_init(&all, (uint64_t)BLOCKS * BLOCK / COPY_PAGE, &err), 0);
    bitmap_set_range(&all, 0, all.size);
    copy_add(copy, 0, &all);
    copy_want(copy, 0, UINT64_C(40) * BLOCK, BLOCK);

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    (void)snprintf(address, sizeof(address), "fd:%d", sv[0]);
    struct stream *stream = stream_connect(address, &none, NULL, &err);
    ck_assert_ptr_nonnull(stream);
    struct link *link = link_new(stream, 0, 0, NULL, &err);
    ck_assert_ptr_nonnull(link);
    copy_set_link(copy, link);
    ck_assert_uint_eq(next_offset(sv[1], 0), UINT64_C(40) * BLOCK);
    copy_set_link(copy, link);

    link_break(link);
    copy_set_link(copy, NULL);
    copy_free(copy);
    link_free(link);
    bitmap_destroy(&all);
    ck_assert_int_eq(block_close(b, &err), 0);
    (void)close(sv[0]);
    (void)close(sv[1]);
}
END_TEST
