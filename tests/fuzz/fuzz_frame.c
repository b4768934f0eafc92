// SPDX-License-Identifier: Apache-2.0
/* fuzz_frame.c - the migration protocol's decoders on bytes from a stranger
 *
 * The first byte chooses the decoder. Checksums are made right first, else nothing behind them
 * would ever be reached. What decodes must encode to the same bytes.
 */
#undef NDEBUG
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/bytes.h"
#include "runtime/wire/frame.h"

static void try_frame(uint8_t *p, size_t len)
{
    struct frame f;
    uint8_t again[FRAME_HEADER_SIZE];

    if (len < FRAME_HEADER_SIZE)
        return;
    put_le32(p + 36, wire_crc32c(p, 36));
    if (frame_decode(p, get_le64(p + 8), &f, NULL) < 0)
        return;
    assert(f.length <= WIRE_MACHINE_MAX + WIRE_PAYLOAD_MAX);
    if (f.length <= len - FRAME_HEADER_SIZE)
        (void)frame_check_payload(&f, p + FRAME_HEADER_SIZE, NULL);
    frame_encode(&f, again);
    assert(memcmp(again, p, FRAME_HEADER_SIZE) == 0);
}

static void try_offer(const uint8_t *p, size_t len)
{
    static struct wire_device devices[WIRE_DEVICES_MAX];
    const char *machine;
    size_t n, machine_len;

    if (offer_decode(p, len, devices, &n, &machine, &machine_len, NULL) < 0)
        return;
    uint8_t *again = malloc(len);
    int m = offer_encode(devices, n, machine, machine_len, again, len);
    assert(m == (int)len && memcmp(again, p, len) == 0);
    free(again);
}

static void try_ranges(const uint8_t *p, size_t len)
{
    struct wire_range r;
    size_t cursor = 0;
    uint64_t end = 0, size;

    if (len < 8)
        return;
    size = get_le64(p) % WIRE_DEVICE_SIZE_MAX;
    while (range_next(p + 8, len - 8, size, &cursor, &end, &r, NULL) == 1)
        assert(r.length > 0 && r.offset + r.length <= size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct greeting g;
    char reason[WIRE_REASON_MAX + 1];
    uint8_t flags[WIRE_DEVICES_MAX];

    if (size < 1)
        return 0;
    uint8_t *copy = malloc(size);
    memcpy(copy, data, size);
    uint8_t *p = copy + 1;
    size_t len = size - 1;
    switch (copy[0] % 6) {
    case 0:
        if (len >= GREETING_SIZE) {
            put_le32(p + 60, wire_crc32c(p, 60));
            (void)greeting_decode(p, &g, NULL);
        }
        break;
    case 1:
        try_frame(p, len);
        break;
    case 2:
        try_offer(p, len);
        break;
    case 3:
        (void)(len >= 2 && accept_decode(p, len, flags, len % WIRE_DEVICES_MAX, NULL));
        break;
    case 4:
        try_ranges(p, len);
        break;
    default:
        reason_decode(p, len, reason);
        break;
    }
    free(copy);
    return 0;
}
