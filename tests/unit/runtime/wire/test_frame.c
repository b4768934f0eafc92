// SPDX-License-Identifier: Apache-2.0
/* test_frame.c - the migration protocol's bytes, good and bad */
#include <errno.h>
#include <string.h>

#include "runtime/base/bytes.h"
#include "runtime/wire/frame.h"
#include "tests/lib/unit.h"

UNIT_TEST(crc_is_the_standard_one)
{
    uint8_t zeros[32] = {0};
    /* RFC 3720, B.4: 32 bytes of zeros give aa 36 91 8a, in little-endian order. */
    ck_assert_uint_eq(wire_crc32c(zeros, sizeof(zeros)), 0x8a9136aau);
    ck_assert_uint_eq(wire_crc32c("123456789", 9), 0xe3069283u);
}
END_TEST

UNIT_TEST(greeting_round_trip_and_damage)
{
    struct greeting g = {.version_min = 1,
                         .version_max = 7,
                         .role = WIRE_TARGET,
                         .features = 0x8000000000000001,
                         .session = "0123456789abcde"};
    struct greeting got;
    struct error err;
    uint8_t bytes[GREETING_SIZE];

    greeting_encode(&g, bytes);
    ck_assert_int_eq(greeting_decode(bytes, &got, &err), 0);
    uint8_t again[GREETING_SIZE];
    greeting_encode(&got, again);
    ck_assert_int_eq(memcmp(again, bytes, sizeof(bytes)), 0);
    ck_assert_uint_eq(got.features, g.features);
    ck_assert_int_eq(memcmp(got.session, g.session, sizeof(g.session)), 0);
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] ^= 0x10;
        ck_assert_int_eq(greeting_decode(bytes, &got, &err), -1);
        bytes[i] ^= 0x10;
    }
    g.version_min = 2;
    greeting_encode(&g, bytes);
    ck_assert_int_eq(greeting_decode(bytes, &got, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "versions 2 to 7"));
}
END_TEST

UNIT_TEST(every_damaged_header_bit_is_seen)
{
    struct frame f = {.type = FRAME_DATA,
                      .device = 3,
                      .length = 4096,
                      .extent = 4096,
                      .sequence = 9,
                      .offset = 65536};
    uint8_t payload[4096], bytes[FRAME_HEADER_SIZE];
    struct frame got;
    struct error err;

    memset(payload, 7, sizeof(payload));
    frame_seal(&f, payload);
    frame_encode(&f, bytes);
    ck_assert_int_eq(frame_decode(bytes, 9, &got, &err), 0);
    ck_assert_int_eq(frame_check_payload(&got, payload, &err), 0);
    payload[4095] ^= 1;
    ck_assert_int_eq(frame_check_payload(&got, payload, &err), -1);
    ck_assert_int_eq(frame_decode(bytes, 10, &got, &err), -1);
    for (size_t bit = 0; bit < sizeof(bytes) * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        ck_assert_int_eq(frame_decode(bytes, 9, &got, &err), -1);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}
END_TEST

UNIT_TEST(limits_hold_for_every_type)
{
    struct frame got;
    struct error err;
    uint8_t bytes[FRAME_HEADER_SIZE];
    const struct frame bad[] = {
        {.type = 0},
        {.type = FRAME_TYPES},
        {.type = FRAME_DATA, .length = 8, .extent = 9},
        {.type = FRAME_DATA, .length = 0, .extent = 0},
        {.type = FRAME_DATA, .length = WIRE_PAYLOAD_MAX + 1, .extent = WIRE_PAYLOAD_MAX + 1},
        {.type = FRAME_DATA, .encoding = ENCODING_ZSTD, .length = 5, .extent = WIRE_BLOCK_MAX + 1},
        {.type = FRAME_DATA, .encoding = ENCODING_ZERO, .length = 1, .extent = 4096},
        {.type = FRAME_DATA, .encoding = ENCODING_ZERO, .extent = WIRE_EXTENT_MAX + 1},
        {.type = FRAME_DATA, .encoding = ENCODINGS, .extent = 4096},
        {.type = FRAME_DATA, .encoding = ENCODING_ZERO, .extent = 1, .device = WIRE_DEVICES_MAX},
        {.type = FRAME_DATA, .encoding = ENCODING_ZERO, .extent = 1, .offset = UINT64_MAX},
        {.type = FRAME_WANT, .extent = 0},
        {.type = FRAME_WANT, .extent = 4096, .length = 1},
        {.type = FRAME_COMMIT, .length = 1},
        {.type = FRAME_COMMIT, .encoding = 1},
        {.type = FRAME_STATE, .length = WIRE_BLOCK_MAX + 1},
        {.type = FRAME_ABORT, .length = WIRE_REASON_MAX + 1},
    };

    static uint8_t payload[WIRE_PAYLOAD_MAX + 16];
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct frame f = bad[i];
        frame_seal(&f, payload);
        frame_encode(&f, bytes);
        ck_assert_msg(frame_decode(bytes, 0, &got, &err) == -1, "case %zu", i);
        ck_assert_int_eq(err.code, EPROTO);
    }
}
END_TEST

static const struct wire_device two[] = {
    {.name = "memory", .size = 1u << 30, .block_size = 65536, .flags = DEVICE_MEMORY},
    {.name = "disk", .size = 12345, .block_size = 4096, .flags = DEVICE_BASE, .base = {1, 2, 3}},
};

UNIT_TEST(offer_round_trip_and_every_cut)
{
    struct wire_device got[WIRE_DEVICES_MAX];
    struct error err;
    uint8_t bytes[1024], again[1024];
    const char *machine;
    size_t n, machine_len;
    int len = offer_encode(two, 2, "{}", 2, bytes, sizeof(bytes));

    ck_assert_int_gt(len, 0);
    ck_assert_int_eq(offer_decode(bytes, (size_t)len, got, &n, &machine, &machine_len, &err), 0);
    ck_assert_uint_eq(n, 2);
    ck_assert_int_eq(offer_encode(got, n, "{}", 2, again, sizeof(again)), len);
    ck_assert_mem_eq(again, bytes, (size_t)len);
    ck_assert_uint_eq(machine_len, 2);
    ck_assert_int_eq(memcmp(machine, "{}", 2), 0);
    for (int cut = 0; cut < len; cut++) {
        /* A copy of exactly that size: a read past it is ASan's to see. */
        uint8_t *copy = malloc(cut ? (size_t)cut : 1);
        memcpy(copy, bytes, (size_t)cut);
        ck_assert_int_eq(offer_decode(copy, (size_t)cut, got, &n, &machine, &machine_len, &err),
                         -1);
        ck_assert_int_eq(offer_encode(two, 2, "{}", 2, copy, (size_t)cut), -1);
        free(copy);
    }
}
END_TEST

UNIT_TEST(offer_refuses)
{
    struct wire_device d[2], got[WIRE_DEVICES_MAX];
    struct error err;
    uint8_t bytes[1024];
    const char *machine;
    size_t n, machine_len;

    for (int i = 0; i < 7; i++) {
        memcpy(d, two, sizeof(two));
        int len = offer_encode(d, 2, "", 0, bytes, sizeof(bytes));
        uint8_t *second = bytes + 8 + 49 + strlen("memory");
        switch (i) {
        case 0:
            put_le64(bytes + 8, 0);
            break;
        case 1:
            put_le64(bytes + 8, WIRE_DEVICE_SIZE_MAX + 1);
            break;
        case 2:
            put_le32(bytes + 16, 65537);
            break;
        case 3:
            put_le32(bytes + 20, 4);
            break;
        case 4:
            memcpy(second + 49, "a/b", 3);
            break;
        case 5:
            memcpy(second + 49, ".dsk", 4);
            break;
        case 6:
            put_le16(bytes, 0);
            break;
        }
        ck_assert_msg(offer_decode(bytes, (size_t)len, got, &n, &machine, &machine_len, &err) == -1,
                      "case %d", i);
    }
    memcpy(d, two, sizeof(two));
    memcpy(d[1].name, "memory", 7);
    int len = offer_encode(d, 2, "", 0, bytes, sizeof(bytes));
    ck_assert_int_eq(offer_decode(bytes, (size_t)len, got, &n, &machine, &machine_len, &err), -1);
    ck_assert_str_eq(err.text, "offer: two devices named memory");
}
END_TEST

UNIT_TEST(ranges)
{
    const struct wire_range good[] = {{0, 4096}, {4096, 1}, {10000, 90}};
    const struct wire_range bad[][2] = {
        {{0, 4096}, {4095, 1}},        {{8, 8}, {0, 8}}, {{0, 0}, {1, 1}}, {{0, 10091}, {0, 0}},
        {{5, UINT64_MAX - 2}, {0, 0}},
    };
    struct wire_range r;
    struct error err;
    uint8_t bytes[48];
    size_t cursor = 0;
    uint64_t end = 0;

    for (int i = 0; i < 3; i++)
        range_encode(&good[i], bytes + 16 * i);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(range_next(bytes, 48, 10090, &cursor, &end, &r, &err), 1);
        ck_assert_int_eq(memcmp(&r, &good[i], sizeof(r)), 0);
    }
    ck_assert_int_eq(range_next(bytes, 48, 10090, &cursor, &end, &r, &err), 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int rc = 1;
        range_encode(&bad[i][0], bytes);
        range_encode(&bad[i][1], bytes + 16);
        cursor = end = 0;
        while (rc == 1)
            rc = range_next(bytes, 32, 10090, &cursor, &end, &r, &err);
        ck_assert_msg(rc == -1, "case %zu", i);
    }
    cursor = end = 0;
    ck_assert_int_eq(range_next(bytes, 17, 10090, &cursor, &end, &r, &err), -1);
}
END_TEST

UNIT_TEST(reasons_are_made_printable)
{
    uint8_t in[2000];
    char out[WIRE_REASON_MAX + 1];

    memset(in, 'x', sizeof(in));
    in[3] = 0x1b;
    in[4] = 0;
    reason_decode(in, sizeof(in), out);
    ck_assert_uint_eq(strlen(out), WIRE_REASON_MAX);
    ck_assert_int_eq(memcmp(out, "xxx??x", 6), 0);
}
END_TEST
