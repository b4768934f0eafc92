// SPDX-License-Identifier: Apache-2.0
/* frame.c - the migration protocol's bytes: greeting, frames, message payloads */
#include "runtime/wire/frame.h"

#include <errno.h>
#include <isa-l/crc.h>
#include <string.h>

#include "runtime/base/bytes.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/parse.h"

static const char magic[8] = {'D', 'R', 'A', 'F', 'T', 'M', 'I', 'G'};

static const char *const type_names[FRAME_TYPES] = {
    "none",  "offer",  "accept",  "data", "want", "state", "absent", "suspended",
    "ready", "commit", "running", "done", "bye",  "abort", "ping",   "pong",
};

/* What a frame of each type may carry; a stranger's frame is held to it before anything is read. */
static const struct {
    uint32_t payload_max;
    uint32_t extent_max;
} limits[FRAME_TYPES] = {
    [FRAME_OFFER] = {WIRE_MACHINE_MAX + WIRE_DEVICES_MAX * (WIRE_NAME_MAX + 64), 0},
    [FRAME_ACCEPT] = {WIRE_DEVICES_MAX + 2, 0},
    [FRAME_DATA] = {WIRE_PAYLOAD_MAX, WIRE_EXTENT_MAX},
    [FRAME_WANT] = {0, WIRE_BLOCK_MAX},
    [FRAME_STATE] = {WIRE_BLOCK_MAX, 0},
    [FRAME_ABSENT] = {WIRE_RANGES_MAX * 16, 0},
    [FRAME_ABORT] = {WIRE_REASON_MAX, 0},
};

const char *frame_name(uint8_t type)
{
    return type < FRAME_TYPES ? type_names[type] : "unknown";
}

uint32_t wire_crc32c(const void *data, size_t len)
{
    /* ISA-L's function is the bare register; the standard's CRC starts and ends inverted. */
    return ~crc32_iscsi((unsigned char *)data, (int)len, 0xffffffffu);
}

void greeting_encode(const struct greeting *g, uint8_t out[GREETING_SIZE])
{
    memset(out, 0, GREETING_SIZE);
    memcpy(out, magic, sizeof(magic));
    put_le16(out + 8, g->version_min);
    put_le16(out + 10, g->version_max);
    out[12] = g->role;
    put_le64(out + 16, g->features);
    memcpy(out + 24, g->session, WIRE_SESSION_SIZE);
    put_le32(out + 60, wire_crc32c(out, 60));
}

int greeting_decode(const uint8_t in[GREETING_SIZE], struct greeting *ret, struct error *err)
{
    if (memcmp(in, magic, sizeof(magic)) != 0)
        return error_set(err, EPROTO, "greeting: the other side does not speak this protocol");
    if (get_le32(in + 60) != wire_crc32c(in, 60))
        return error_set(err, EPROTO, "greeting: damaged on the way (checksum)");
    struct greeting g = {.version_min = get_le16(in + 8),
                         .version_max = get_le16(in + 10),
                         .role = in[12],
                         .features = get_le64(in + 16)};
    memcpy(g.session, in + 24, WIRE_SESSION_SIZE);
    if (g.version_min > g.version_max || g.version_min > WIRE_VERSION ||
        g.version_max < WIRE_VERSION)
        return error_set(err, EPROTO,
                         "greeting: the other side speaks protocol versions %u to %u, this one %d",
                         g.version_min, g.version_max, WIRE_VERSION);
    if (g.role != WIRE_SOURCE && g.role != WIRE_TARGET)
        return error_set(err, EPROTO, "greeting: unknown role %u", g.role);
    *ret = g;
    return 0;
}

void frame_seal(struct frame *f, const void *payload)
{
    f->payload_crc = f->length ? wire_crc32c(payload, f->length) : 0;
}

void frame_encode(const struct frame *f, uint8_t out[FRAME_HEADER_SIZE])
{
    out[0] = f->type;
    out[1] = f->encoding;
    put_le16(out + 2, f->device);
    put_le32(out + 4, f->length);
    put_le64(out + 8, f->sequence);
    put_le64(out + 16, f->offset);
    put_le32(out + 24, f->extent);
    put_le32(out + 28, f->payload_crc);
    put_le32(out + 32, 0);
    put_le32(out + 36, wire_crc32c(out, 36));
}

/* The rules between a data frame's encoding, length and extent. */
static const char *data_fault(const struct frame *f)
{
    switch (f->encoding) {
    case ENCODING_PLAIN:
        return f->length == f->extent ? NULL : "plain data of another length than its extent";
    case ENCODING_ZSTD:
        return f->length && f->extent <= WIRE_BLOCK_MAX ? NULL
                                                        : "compressed data out of its limits";
    case ENCODING_ZERO:
    case ENCODING_BASE:
        return f->length == 0 ? NULL : "data where none belongs";
    default:
        return "unknown encoding";
    }
}

int frame_decode(const uint8_t in[FRAME_HEADER_SIZE], uint64_t expected, struct frame *ret,
                 struct error *err)
{
    const char *fault = NULL;

    if (get_le32(in + 36) != wire_crc32c(in, 36))
        return error_set(err, EPROTO, "frame %llu: header damaged on the way (checksum)",
                         (unsigned long long)expected);
    struct frame f = {.type = in[0],
                      .encoding = in[1],
                      .device = get_le16(in + 2),
                      .length = get_le32(in + 4),
                      .sequence = get_le64(in + 8),
                      .offset = get_le64(in + 16),
                      .extent = get_le32(in + 24),
                      .payload_crc = get_le32(in + 28)};
    if (f.sequence != expected)
        return error_set(err, EPROTO, "frame %llu: carries number %llu (lost, repeated or swapped)",
                         (unsigned long long)expected, (unsigned long long)f.sequence);
    if (f.type == 0 || f.type >= FRAME_TYPES)
        return error_set(err, EPROTO, "frame %llu: unknown type %u", (unsigned long long)expected,
                         f.type);
    if (f.length > limits[f.type].payload_max)
        fault = "a payload over its limit";
    else if (f.extent > limits[f.type].extent_max)
        fault = "an extent over its limit";
    else if (f.device >= WIRE_DEVICES_MAX)
        fault = "a device number over its limit";
    else if (f.offset > WIRE_DEVICE_SIZE_MAX && f.type != FRAME_PING && f.type != FRAME_PONG)
        fault = "an offset over its limit";
    else if (get_le32(in + 32) != 0 || (f.type != FRAME_DATA && f.encoding != 0))
        fault = "reserved fields that are not zero";
    else if ((f.type == FRAME_DATA || f.type == FRAME_WANT) && f.extent == 0)
        fault = "an empty extent";
    else if (f.type == FRAME_DATA)
        fault = data_fault(&f);
    if (fault)
        return error_set(err, EPROTO, "frame %llu: %s with %s", (unsigned long long)expected,
                         frame_name(f.type), fault);
    *ret = f;
    return 0;
}

int frame_check_payload(const struct frame *f, const void *payload, struct error *err)
{
    uint32_t crc = f->length ? wire_crc32c(payload, f->length) : 0;

    if (crc != f->payload_crc)
        return error_set(err, EPROTO, "frame %llu: %s damaged on the way (checksum)",
                         (unsigned long long)f->sequence, frame_name(f->type));
    return 0;
}

/* Names become file names: nothing that a path or a terminal could take for something else. */
static bool name_ok(const char *name, size_t len)
{
    if (len == 0 || len > WIRE_NAME_MAX || name[0] == '.')
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = name[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '-' || c == '_' || c == '.'))
            return false;
    }
    return true;
}

/* Offer: u16 count, u16 zero, u32 machine length; per device u64 size, u32 block size, u32 flags,
 * 32 bytes base, u8 name length, name; then the machine text. */
#define OFFER_HEAD 8
#define OFFER_DEVICE (8 + 4 + 4 + 32 + 1)

int offer_encode(const struct wire_device *devices, size_t n, const char *machine,
                 size_t machine_len, uint8_t *out, size_t room)
{
    size_t len = OFFER_HEAD;

    if (n > WIRE_DEVICES_MAX || machine_len > WIRE_MACHINE_MAX || room < OFFER_HEAD)
        return -1;
    put_le16(out, (uint16_t)n);
    put_le16(out + 2, 0);
    put_le32(out + 4, (uint32_t)machine_len);
    for (size_t i = 0; i < n; i++) {
        const struct wire_device *d = &devices[i];
        size_t name_len = strnlen(d->name, sizeof(d->name));
        if (!name_ok(d->name, name_len) || room - len < OFFER_DEVICE + name_len)
            return -1;
        put_le64(out + len, d->size);
        put_le32(out + len + 8, d->block_size);
        put_le32(out + len + 12, d->flags);
        memcpy(out + len + 16, d->base, sizeof(d->base));
        out[len + 48] = (uint8_t)name_len;
        memcpy(out + len + 49, d->name, name_len);
        len += OFFER_DEVICE + name_len;
    }
    if (room - len < machine_len)
        return -1;
    if (machine_len)
        memcpy(out + len, machine, machine_len);
    return (int)(len + machine_len);
}

static int decode_device(struct cursor *c, struct wire_device *ret, struct error *err)
{
    struct wire_device d = {.name = ""};
    const uint8_t *base, *name;
    uint8_t name_len;

    if (cursor_u64(c, &d.size) < 0 || cursor_u32(c, &d.block_size) < 0 ||
        cursor_u32(c, &d.flags) < 0 || cursor_bytes(c, sizeof(d.base), &base) < 0 ||
        cursor_u8(c, &name_len) < 0 || cursor_bytes(c, name_len, &name) < 0)
        return error_set(err, EPROTO, "offer: ends early");
    if (!name_ok((const char *)name, name_len))
        return error_set(err, EPROTO, "offer: a device name that is none");
    memcpy(d.base, base, sizeof(d.base));
    memcpy(d.name, name, name_len);
    if (d.size == 0 || d.size > WIRE_DEVICE_SIZE_MAX)
        return error_set(err, EPROTO, "offer: device %s: size %llu is out of range", d.name,
                         (unsigned long long)d.size);
    if (d.block_size < WIRE_BLOCK_MIN || d.block_size > WIRE_BLOCK_MAX ||
        (d.block_size & (d.block_size - 1)))
        return error_set(err, EPROTO, "offer: device %s: block size %u is none", d.name,
                         d.block_size);
    if (d.flags & ~(DEVICE_MEMORY | DEVICE_BASE))
        return error_set(err, EPROTO, "offer: device %s: unknown flags %#x", d.name, d.flags);
    *ret = d;
    return 0;
}

int offer_decode(const uint8_t *in, size_t len, struct wire_device *ret_devices, size_t *ret_n,
                 const char **ret_machine, size_t *ret_machine_len, struct error *err)
{
    struct wire_device devices[WIRE_DEVICES_MAX];
    struct cursor c = {in, len};
    uint16_t n, zero;
    uint32_t machine_len;
    const uint8_t *machine;

    if (cursor_u16(&c, &n) < 0 || cursor_u16(&c, &zero) < 0 || cursor_u32(&c, &machine_len) < 0)
        return error_set(err, EPROTO, "offer: ends early");
    if (n == 0 || n > WIRE_DEVICES_MAX || zero != 0)
        return error_set(err, EPROTO, "offer: %u devices (1 to %d)", n, WIRE_DEVICES_MAX);
    for (uint16_t i = 0; i < n; i++) {
        if (decode_device(&c, &devices[i], err) < 0)
            return -1;
        for (uint16_t k = 0; k < i; k++)
            if (strcmp(devices[k].name, devices[i].name) == 0)
                return error_set(err, EPROTO, "offer: two devices named %s", devices[i].name);
    }
    if (c.left != machine_len || cursor_bytes(&c, machine_len, &machine) < 0)
        return error_set(err, EPROTO, "offer: another length than it says");
    memcpy(ret_devices, devices, n * sizeof(devices[0]));
    *ret_n = n;
    *ret_machine = (const char *)machine;
    *ret_machine_len = machine_len;
    return 0;
}

int accept_encode(const uint8_t *shares_base, size_t n, uint8_t *out, size_t room)
{
    if (n > WIRE_DEVICES_MAX || room < n + 2)
        return -1;
    put_le16(out, (uint16_t)n);
    for (size_t i = 0; i < n; i++)
        out[2 + i] = shares_base[i] != 0;
    return (int)n + 2;
}

int accept_decode(const uint8_t *in, size_t len, uint8_t *ret_shares_base, size_t n,
                  struct error *err)
{
    if (len != n + 2 || get_le16(in) != n)
        return error_set(err, EPROTO, "accept: for another number of devices than were offered");
    for (size_t i = 0; i < n; i++)
        if (in[2 + i] > 1)
            return error_set(err, EPROTO, "accept: device %zu: unknown flags", i);
    memcpy(ret_shares_base, in + 2, n);
    return 0;
}

int range_encode(const struct wire_range *r, uint8_t out[16])
{
    put_le64(out, r->offset);
    put_le64(out + 8, r->length);
    return 16;
}

int range_next(const uint8_t *in, size_t len, uint64_t size, size_t *cursor, uint64_t *end,
               struct wire_range *ret, struct error *err)
{
    if (len % 16)
        return error_set(err, EPROTO, "absent: half a range");
    if (*cursor == len)
        return 0;
    struct wire_range r = {get_le64(in + *cursor), get_le64(in + *cursor + 8)};
    if (r.length == 0 || r.offset < *end || r.offset > size || r.length > size - r.offset)
        return error_set(err, EPROTO, "absent: range %llu+%llu is out of order or of the device",
                         (unsigned long long)r.offset, (unsigned long long)r.length);
    *cursor += 16;
    *end = r.offset + r.length;
    *ret = r;
    return 1;
}

void reason_decode(const uint8_t *in, size_t len, char *out)
{
    if (len > WIRE_REASON_MAX)
        len = WIRE_REASON_MAX;
    for (size_t i = 0; i < len; i++)
        out[i] = in[i] < 0x20 || in[i] == 0x7f ? '?' : (char)in[i];
    out[len] = '\0';
}
