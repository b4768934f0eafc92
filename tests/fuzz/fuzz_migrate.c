// SPDX-License-Identifier: Apache-2.0
/* fuzz_migrate.c - a hostile peer on either side of a migration
 *
 * The input is a little program: its first byte chooses the side under attack, then each step names
 * a frame's fields and payload. Sequence numbers and checksums are made right, or nothing behind
 * them would ever be reached; one step in sixteen leaves them wrong. What must hold: no crash, no
 * leak, an end within the idle time, and a machine that runs only after a COMMIT.
 */
#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/migrate/migrate.h"

#define DEVICE_SIZE (256u << 10)
#define STREAM_MAX (192u << 10)

struct machine {
    struct block *blocks[WIRE_DEVICES_MAX];
    size_t n;
    bool suspended, ran, committed;
};

static struct block *make_block(bool dirty)
{
    char text[160];
    int n = snprintf(text, sizeof(text), "[{\"type\":\"sparse\",\"size\":%u}%s]", DEVICE_SIZE,
                     dirty ? ",{\"type\":\"dirty\"}" : "");
    struct block *b = block_open(text, (size_t)n, "fuzz", NULL, NULL);
    assert(b);
    return b;
}

static void close_blocks(struct machine *m)
{
    for (size_t i = 0; i < m->n; i++)
        (void)block_close(m->blocks[i], NULL);
}

static int offer(void *opaque, const struct wire_device *offered, size_t n, const char *machine,
                 size_t machine_len, const struct pull_options *pull, struct pull **pulls,
                 uint8_t *shares_base, struct error *err)
{
    struct machine *m = opaque;

    (void)machine;
    (void)machine_len;
    for (size_t i = 0; i < n; i++) {
        /* As a real host does: room is made for what was offered, up to what it has. */
        if (offered[i].size != DEVICE_SIZE || n > 3)
            return error_set(err, ENOSPC, "no room");
        struct block *below = make_block(false);
        struct block *top = pull_open(below, &pull[i], NULL, &pulls[i], err);
        assert(top);
        m->blocks[m->n++] = top;
        shares_base[i] = (uint8_t)(i & 1);
    }
    return 0;
}

static int load(void *opaque, const uint8_t *state, size_t len, struct error *err)
{
    uint8_t page[4096];
    struct machine *m = opaque;

    (void)state;
    (void)len;
    return block_read(m->blocks[0], page, sizeof(page), 0, err);
}

static int run(void *opaque, struct error *err)
{
    struct machine *m = opaque;

    (void)err;
    assert(m->committed); /* the program had a COMMIT in it */
    m->ran = true;
    return 0;
}

static void discard(void *opaque)
{
    const struct machine *m = opaque;
    assert(!m->ran);
}

static int suspend(void *opaque, struct error *err)
{
    struct machine *m = opaque;
    (void)err;
    m->suspended = true;
    return 0;
}

static int save(void *opaque, uint8_t **ret_state, size_t *ret_len, struct error *err)
{
    (void)opaque;
    (void)err;
    *ret_len = 100;
    *ret_state = calloc(1, 100);
    return *ret_state ? 0 : -1;
}

static int resume(void *opaque, struct error *err)
{
    struct machine *m = opaque;
    (void)err;
    m->suspended = false;
    return 0;
}

/* Turns the program into a stream. Returns its length. */
static size_t assemble(const uint8_t *p, size_t left, uint8_t *out, struct machine *m, bool target)
{
    struct greeting g = {
        .version_min = 1, .version_max = 1, .role = target ? WIRE_SOURCE : WIRE_TARGET};
    size_t len = GREETING_SIZE;
    uint64_t sequence = 0;

    if (target)
        memset(g.session, 7, sizeof(g.session));
    greeting_encode(&g, out);
    while (left >= 8) {
        struct frame f = {.type = p[0] % (FRAME_TYPES + 1),
                          .encoding = p[1] % 8 < 5 ? p[1] % 4 : p[1],
                          .device = p[2] % 4,
                          .offset = (uint64_t)(p[3] | p[4] << 8) * (p[4] & 0x80 ? 4095 : 4096),
                          .extent = (uint32_t)(p[5] + 1) * (p[5] & 0x40 ? 4097 : 4096),
                          .length = (uint32_t)p[6] * (p[7] & 1 ? 64 : 1),
                          .sequence = sequence};
        if (f.type == FRAME_ABORT)
            f.offset = p[3] % 4; /* ABORT_* */
        sequence++;
        const uint8_t wrong = p[7] >> 4;
        if (f.type == FRAME_DATA && f.encoding == ENCODING_PLAIN && !(p[7] & 2))
            f.length = f.extent;
        if (f.type != FRAME_DATA) {
            f.encoding = 0;
            f.extent = f.type == FRAME_WANT ? f.extent : 0;
        }
        p += 8;
        left -= 8;
        if (len + FRAME_HEADER_SIZE + f.length > STREAM_MAX)
            break;
        uint8_t *payload = out + len + FRAME_HEADER_SIZE;
        size_t given = f.length < left ? f.length : left;
        if (f.type == FRAME_DATA && f.encoding == ENCODING_PLAIN)
            given = given < 16 ? given : 16; /* content is not what we are after */
        memcpy(payload, p, given);
        memset(payload + given, 0, f.length - given);
        p += given;
        left -= given;
        frame_seal(&f, payload);
        if (wrong == 1)
            f.sequence += 1;
        frame_encode(&f, out + len);
        if (wrong == 2)
            out[len + f.length % FRAME_HEADER_SIZE] ^= 1;
        m->committed |= f.type == FRAME_COMMIT;
        len += FRAME_HEADER_SIZE + f.length;
    }
    return len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t out[STREAM_MAX + FRAME_HEADER_SIZE];
    struct machine m = {.n = 0};
    struct transport_options none = {0};
    char address[32];
    int sv[2], buffer = 1 << 20;

    if (size < 1)
        return 0;
    bool target = data[0] & 1;
    size_t len = assemble(data + 1, size - 1, out, &m, target);
    assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
    (void)setsockopt(sv[0], SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof(buffer));
    (void)setsockopt(sv[1], SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof(buffer));
    /* What does not fit is cut: a peer may send half a frame too. */
    (void)send(sv[0], out, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)shutdown(sv[0], SHUT_WR);
    (void)snprintf(address, sizeof(address), "fd:%d", sv[1]);
    struct stream *stream = stream_connect(address, &none, NULL, NULL);
    assert(stream);
    if (target) {
        struct migrate_host host = {
            .offer = offer, .load = load, .run = run, .discard = discard, .opaque = &m};
        struct migrate_receive_options options = {.idle_ns = 100000000, .retake_ns = 1};
        struct migrate_result result;
        int rc = migrate_receive(stream, &host, &options, NULL, &result, NULL);
        assert(rc < 0 || m.ran);
        assert(result.outcome != MIGRATE_ROLLED_BACK || !m.ran);
    } else {
        struct migrate_machine machine = {
            .suspend = suspend, .save = save, .resume = resume, .opaque = &m};
        struct migrate_send_options options = {
            .idle_ns = 100000000, .retake_ns = 1, .concurrency = 1};
        struct migrate_result result;
        m.blocks[m.n++] = make_block(true);
        m.blocks[m.n++] = make_block(true);
        struct migrate_device devices[2] = {
            {.name = "disk", .block = m.blocks[0], .block_size = 65536},
            {.name = "memory", .block = m.blocks[1], .block_size = 65536, .memory = true}};
        (void)migrate_send(stream, devices, 2, &machine, &options, NULL, &result, NULL);
        bool here = result.outcome == MIGRATE_ROLLED_BACK || result.outcome == MIGRATE_COPIED;
        assert(here == !m.suspended);
    }
    close_blocks(&m);
    (void)close(sv[0]);
    (void)close(sv[1]);
    return 0;
}
