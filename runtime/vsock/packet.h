/* SPDX-License-Identifier: Apache-2.0 */
/* packet.h - the header of a virtio-vsock packet (virtio 1.2, section 5.10.6) */
#ifndef RUNTIME_VSOCK_PACKET_H
#define RUNTIME_VSOCK_PACKET_H

#include <stdint.h>

#include "runtime/base/bytes.h"

#define PACKET_HEADER_SIZE 44
#define PACKET_HOST_CID 2
#define PACKET_TYPE_STREAM 1

enum packet_op {
    PACKET_REQUEST = 1,
    PACKET_RESPONSE = 2,
    PACKET_RST = 3,
    PACKET_SHUTDOWN = 4,
    PACKET_RW = 5,
    PACKET_CREDIT_UPDATE = 6,
    PACKET_CREDIT_REQUEST = 7,
};

/* Flags of PACKET_SHUTDOWN: what its sender will do no more. */
#define PACKET_SHUTDOWN_RCV 1u
#define PACKET_SHUTDOWN_SEND 2u
#define PACKET_SHUTDOWN_BOTH 3u

struct packet {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port;
    uint32_t len; /* of the payload behind the header */
    uint16_t type, op;
    uint32_t flags;
    uint32_t buf_alloc, fwd_cnt; /* the sender's receive buffer, and what it has taken out of it */
};

static inline void packet_decode(const uint8_t raw[PACKET_HEADER_SIZE], struct packet *p)
{
    *p = (struct packet){
        .src_cid = get_le64(raw),
        .dst_cid = get_le64(raw + 8),
        .src_port = get_le32(raw + 16),
        .dst_port = get_le32(raw + 20),
        .len = get_le32(raw + 24),
        .type = get_le16(raw + 28),
        .op = get_le16(raw + 30),
        .flags = get_le32(raw + 32),
        .buf_alloc = get_le32(raw + 36),
        .fwd_cnt = get_le32(raw + 40),
    };
}

static inline void packet_encode(const struct packet *p, uint8_t raw[PACKET_HEADER_SIZE])
{
    put_le64(raw, p->src_cid);
    put_le64(raw + 8, p->dst_cid);
    put_le32(raw + 16, p->src_port);
    put_le32(raw + 20, p->dst_port);
    put_le32(raw + 24, p->len);
    put_le16(raw + 28, p->type);
    put_le16(raw + 30, p->op);
    put_le32(raw + 32, p->flags);
    put_le32(raw + 36, p->buf_alloc);
    put_le32(raw + 40, p->fwd_cnt);
}

#endif
