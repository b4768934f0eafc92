/* SPDX-License-Identifier: Apache-2.0 */
/* frame.h - the migration protocol's bytes: greeting, frames, message payloads
 *
 * Theory of operation: bytes in, structs out; no sockets, no allocation, no trust. Decoders check
 * every field against the limits below and against the frame's own checksums, and change nothing
 * on failure. What a message means, and when it may come, is runtime/migrate's business; the manual
 * page drafter-migration(7) describes the whole protocol. All integers are little-endian.
 *
 *   greeting (64 bytes, once from each side)
 *     0 magic "DRAFTMIG"      8 lowest version  10 highest version  12 role  13 zero (3)
 *    16 features             24 session token (16)   40 zero (20)   60 CRC-32C of bytes 0..59
 *
 *   frame header (40 bytes), then `length` bytes of payload
 *     0 type   1 encoding   2 device   4 length   8 sequence   16 offset
 *    24 extent   28 CRC-32C of the payload   32 zero   36 CRC-32C of bytes 0..35
 *
 * The sequence counts the frames of one direction from 0, so a lost, repeated or swapped frame is
 * seen even if a transport misbehaves. CRC-32C (RFC 3720, B.4) finds accidents, not attackers: who
 * must fear those uses TLS.
 */
#ifndef RUNTIME_WIRE_FRAME_H
#define RUNTIME_WIRE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/error.h"

#define WIRE_VERSION 1 /* the only one so far: lowest and highest */

#define GREETING_SIZE 64
#define FRAME_HEADER_SIZE 40

#define WIRE_SESSION_SIZE 16
#define WIRE_DEVICES_MAX 64
#define WIRE_NAME_MAX 64
#define WIRE_BLOCK_MIN 4096u
#define WIRE_BLOCK_MAX (1u << 20) /* also the most plain bytes one data frame carries */
#define WIRE_PAYLOAD_MAX (WIRE_BLOCK_MAX + 4096) /* zstd may grow what it cannot shrink */
#define WIRE_EXTENT_MAX (1u << 30)               /* zero and base frames cover more than a block */
#define WIRE_DEVICE_SIZE_MAX (UINT64_C(1) << 50)
#define WIRE_STATE_MAX (UINT64_C(64) << 20) /* a VMM's device state */
#define WIRE_RANGES_MAX 32768u              /* ranges in one frame */
#define WIRE_MACHINE_MAX 65536u             /* the machine's description, JSON text */
#define WIRE_REASON_MAX 1024u

enum wire_role {
    WIRE_SOURCE = 1,
    WIRE_TARGET = 2,
};

/* Feature bits: what a side can do; used when both can. Unknown bits are ignored. */
#define WIRE_FEATURE_ZSTD (UINT64_C(1) << 0)
#define WIRE_FEATURE_POSTCOPY (UINT64_C(1) << 1)

struct greeting {
    uint16_t version_min, version_max;
    uint8_t role;
    uint64_t features;
    uint8_t session[WIRE_SESSION_SIZE]; /* zero: a new migration; else one to be taken up again */
};

enum frame_type {
    FRAME_OFFER = 1, /* S>T machine and devices */
    FRAME_ACCEPT,    /* T>S which bases it shares */
    FRAME_DATA,      /* S>T content of [offset, offset+extent) of a device */
    FRAME_WANT,      /* T>S send [offset, offset+extent) before all else */
    FRAME_STATE,     /* S>T a part of the device state, at offset */
    FRAME_ABSENT,    /* S>T ranges of a device the target does not have in their last form;
                        T>S when a session is taken up: ranges it still lacks */
    FRAME_SUSPENDED, /* S>T the VM stands still; offset: bytes of state; all ABSENT lists were sent
                      */
    FRAME_READY,     /* T>S the state is loaded, the VM can run */
    FRAME_COMMIT,    /* S>T run it: from here the source never runs it by itself */
    FRAME_RUNNING,   /* T>S it runs */
    FRAME_DONE,      /* T>S every block is here */
    FRAME_BYE,       /* S>T the source has let go of everything */
    FRAME_ABORT,     /* either: the migration is over; offset: ABORT_*; payload: why, for people */
    FRAME_PING,      /* either: answer with the same offset */
    FRAME_PONG,
    FRAME_TYPES, /* how many, not a type */
};

enum frame_encoding {
    ENCODING_PLAIN, /* the bytes themselves */
    ENCODING_ZSTD,  /* one zstd frame of exactly `extent` bytes */
    ENCODING_ZERO,  /* no payload: zeros */
    ENCODING_BASE,  /* no payload: as in the base both sides were found to share */
    ENCODINGS,
};

/* What a target adds to its ABORT; a source reads all else as 0. */
#define ABORT_NEVER_RAN 1 /* the machine never ran there and never will */
#define ABORT_COPIED 2    /* nor was it meant to: a copy was wanted, and is whole */

struct frame {
    uint8_t type;
    uint8_t encoding;
    uint16_t device;
    uint32_t length; /* payload bytes */
    uint64_t sequence;
    uint64_t offset;
    uint32_t extent;
    uint32_t payload_crc;
};

#define DEVICE_MEMORY (1u << 0) /* guest memory */
#define DEVICE_BASE (1u << 1)   /* lies on a base whose digest is given */

struct wire_device {
    char name[WIRE_NAME_MAX + 1];
    uint64_t size;       /* bytes */
    uint32_t block_size; /* a power of two, WIRE_BLOCK_MIN..WIRE_BLOCK_MAX */
    uint32_t flags;      /* DEVICE_* */
    uint8_t base[32];    /* SHA-256 of the base, with DEVICE_BASE */
};

struct wire_range {
    uint64_t offset, length; /* bytes */
};

uint32_t wire_crc32c(const void *data, size_t len);

void greeting_encode(const struct greeting *g, uint8_t out[GREETING_SIZE]);
/* Errors: EPROTO not our protocol, damaged, or no common version. The role is checked to be one of
 * the two. Returns 0. */
int greeting_decode(const uint8_t in[GREETING_SIZE], struct greeting *ret, struct error *err);

/* Sets payload_crc from `payload` (length bytes; may be NULL when length is 0). Apart from the
 * header, because it takes time and needs no order. */
void frame_seal(struct frame *f, const void *payload);
void frame_encode(const struct frame *f, uint8_t out[FRAME_HEADER_SIZE]);
/* Checks the header's CRC, type, encoding and limits, and that the sequence is `expected`. The
 * payload is checked with frame_check_payload() once it is there. Returns 0. */
int frame_decode(const uint8_t in[FRAME_HEADER_SIZE], uint64_t expected, struct frame *ret,
                 struct error *err);
int frame_check_payload(const struct frame *f, const void *payload, struct error *err);

/* FRAME_OFFER. encode returns the payload's length, or -1 when `room` is too small or a name or
 * count is over its limit. machine: JSON text, machine_len <= WIRE_MACHINE_MAX. decode fills at
 * most WIRE_DEVICES_MAX devices, names checked (letters, digits, '-', '_', '.', not starting with
 * '.') and unique; *ret_machine points into the payload and does not end in NUL. */
int offer_encode(const struct wire_device *devices, size_t n, const char *machine,
                 size_t machine_len, uint8_t *out, size_t room);
int offer_decode(const uint8_t *in, size_t len, struct wire_device *ret_devices, size_t *ret_n,
                 const char **ret_machine, size_t *ret_machine_len, struct error *err);

/* FRAME_ACCEPT: one flag a device, in the offer's order. */
int accept_encode(const uint8_t *shares_base, size_t n, uint8_t *out, size_t room);
int accept_decode(const uint8_t *in, size_t len, uint8_t *ret_shares_base, size_t n,
                  struct error *err);

/* FRAME_ABSENT: ranges of a device of `size` bytes, ascending and disjoint. Each is 16 bytes;
 * decode returns one at a time: start with *cursor = 0 and *end = 0, 1 = a range, 0 = no more, -1 =
 * error. */
int range_encode(const struct wire_range *r, uint8_t out[16]);
int range_next(const uint8_t *in, size_t len, uint64_t size, size_t *cursor, uint64_t *end,
               struct wire_range *ret, struct error *err);

/* Makes a reason from a peer printable in place: control characters become '?', at most
 * WIRE_REASON_MAX bytes, NUL-terminated into out (size WIRE_REASON_MAX + 1). */
void reason_decode(const uint8_t *in, size_t len, char *out);

const char *frame_name(uint8_t type);

#endif
