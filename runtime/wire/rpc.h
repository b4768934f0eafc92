/* SPDX-License-Identifier: Apache-2.0 */
/* rpc.h - messages between a host and the agent in its guest: bytes in, structs out, no sockets
 *
 * Theory of operation: either side sends a sequence of JSON objects, each followed by a newline
 * (white space between objects is optional for a reader). One object is one message, a request or
 * the response to one:
 *
 *     {"request":{"call":ID,"function":NAME,"args":[...]},"response":null}
 *     {"request":null,"response":{"call":ID,"value":null,"err":TEXT}}
 *
 * This is the JSON stream of the panrpc library that the original Drafter speaks: keys in this
 * order, read case-insensitively as Go's encoding/json does, unknown keys ignored, a missing key
 * counting as null, "err" empty for success. Functions of the guest are BeforeSuspend and
 * AfterResume, neither takes arguments.
 *
 * Extension: a host of this project adds one key to its AfterResume request,
 *
 *     "drafter":{"time":"1700000000123456789","entropy":"<64 hex digits>"}
 *
 * the host's real time when it sent the message (nanoseconds since 1970, as text because it does
 * not fit a double) and 32 fresh random bytes. A guest that does not know the key ignores it; a
 * guest of this project gets along without. So neither side needs to know what the other is, and no
 * handshake costs a round trip.
 *
 * These files are also compiled into the static programs of the guest: no allocation, no library
 * but libc, fixed sizes. The reader is strict JSON (RFC 8259) otherwise.
 */
#ifndef RUNTIME_WIRE_RPC_H
#define RUNTIME_WIRE_RPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "runtime/base/error.h"

#define RPC_MESSAGE_MAX 65536   /* bytes of one message, either way; more is refused */
#define RPC_DEPTH_MAX 16        /* nested arrays and objects */
#define RPC_CALL_MAX 128        /* bytes of a call's id; ours are UUIDs of 36 */
#define RPC_FUNCTION_MAX 128    /* bytes of a function's name */
#define RPC_ERROR_TEXT_MAX 2048 /* bytes of an error text that are kept; a longer one is cut */
#define RPC_ENTROPY_SIZE 32

#define RPC_BEFORE_SUSPEND "BeforeSuspend"
#define RPC_AFTER_RESUME "AfterResume"

/* What a host tells a guest that comes back from a snapshot. */
struct rpc_resume {
    uint64_t time_ns; /* CLOCK_REALTIME of the host; 0 = not told */
    bool has_entropy;
    uint8_t entropy[RPC_ENTROPY_SIZE];
};

enum rpc_kind {
    RPC_REQUEST,
    RPC_RESPONSE,
};

/* One message. Texts are NUL-terminated UTF-8; what was not valid UTF-8 has become U+FFFD. */
struct rpc_message {
    enum rpc_kind kind;
    bool has_resume; /* RPC_REQUEST: resume is set */
    char call[RPC_CALL_MAX + 1];
    /* RPC_REQUEST */
    char function[RPC_FUNCTION_MAX + 1];
    /* RPC_RESPONSE: white space around it is taken off, "" = success */
    char error[RPC_ERROR_TEXT_MAX + 1];
    /* RPC_REQUEST */
    size_t n_args;
    struct rpc_resume resume;
    const char *problem; /* a constant text when the request is well-formed JSON but no proper
                          * request; the callee answers with it. NULL = none */
};

/* Cuts a byte stream into messages. */
struct rpc_reader {
    size_t len;
    unsigned depth;
    bool in_string, escaped;
    char buf[RPC_MESSAGE_MAX];
};

void rpc_reader_init(struct rpc_reader *reader);

/* Takes bytes up to the end of the first complete message. *ret_used: how many were taken. Returns
 * 1 with *ret_message set when a message is complete, 0 when all bytes were taken and more are
 * needed, -1 when the stream is no sequence of messages (code EBADMSG; EMSGSIZE for one longer than
 * RPC_MESSAGE_MAX): the link cannot be used any more. */
int rpc_reader_feed(struct rpc_reader *reader, const void *data, size_t len, size_t *ret_used,
                    struct rpc_message *ret_message, struct error *err);

/* Decodes the text of exactly one message, white space around it allowed. Returns 0, -1 with
 * EBADMSG. */
int rpc_decode(const char *text, size_t len, struct rpc_message *ret_message, struct error *err);

/* Write a message, newline included, into buf. resume may be NULL. Texts are NUL-terminated; bytes
 * that are not UTF-8 become U+FFFD. Return the length, -1 when it is longer than size. */
ssize_t rpc_encode_request(char *buf, size_t size, const char *call, const char *function,
                           const struct rpc_resume *resume);
ssize_t rpc_encode_response(char *buf, size_t size, const char *call, const char *error);

/* Makes the id of a call, the text of a version 4 UUID (RFC 9562 section 5.4), from random bytes.
 */
void rpc_call_id(const uint8_t random[16], char ret_call[37]);

#endif
