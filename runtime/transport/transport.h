/* SPDX-License-Identifier: Apache-2.0 */
/* transport.h - byte streams between two hosts, whatever carries them
 *
 * Theory of operation: an address says what carries the stream; above this header nobody can tell.
 *
 *     HOST:PORT, [V6]:PORT, :PORT   TCP, IPv4 and IPv6 (":PORT" listens on all addresses of both)
 *     unix:PATH                     a UNIX stream socket
 *     tls:HOST:PORT                 TLS 1.3 over TCP
 *     fd:N or fd:N,M                descriptors we inherited: one socket, or N to read and M to
 * write stdio                         standard input and output, so that ssh can carry a stream
 *
 * A stream may be read by one thread and written by another at the same time. No call waits for
 * ever: each has a limit for how long nothing may move, and all end early when the context is
 * cancelled or another thread calls stream_shutdown().
 *
 * With TLS both sides show a certificate that the other checks against its CA, unless the server is
 * told to take clients without one; a client always checks the server's name. Keys are read from
 * files, never from arguments, and appear in no log.
 */
#ifndef RUNTIME_TRANSPORT_TRANSPORT_H
#define RUNTIME_TRANSPORT_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/context.h"
#include "runtime/base/error.h"

struct stream;
struct listener;

/* What who accepts a stream may put back at its front: stream_unread(). */
#define STREAM_UNREAD_MAX 64

/* Zero is the default for all. Strings are only read during the call they are handed to. */
struct transport_options {
    const char *tls_cert;        /* our certificate chain, a PEM file */
    const char *tls_key;         /* its private key, a PEM file */
    const char *tls_ca;          /* who may sign the other side's certificate, a PEM file */
    bool tls_anonymous_clients;  /* listener: take clients that show no certificate */
    uint64_t connect_timeout_ns; /* for the connection, the TLS handshake and the hello; 0 = 10 s */
    size_t hello; /* listener: a client is handed out when it has said so many bytes, which are the
                     first to be read; at most STREAM_UNREAD_MAX. fd: and stdio: at once */
};

/* Checks an address without using it. listening: for listener_open(). Returns 0. */
int transport_check_address(const char *address, bool listening, struct error *err);

/* Connects. The caller owns the stream: stream_close(). Returns NULL on failure, also when the
 * context is cancelled (ECANCELED). */
struct stream *stream_connect(const char *address, const struct transport_options *opt,
                              const struct context *ctx, struct error *err);

/* Opens a listener. A UNIX socket's path that a dead process left is replaced, a live one refused.
 * "fd:" and "stdio" listen too: their one stream is there at once. Returns NULL on failure. */
struct listener *listener_open(const char *address, const struct transport_options *opt,
                               struct error *err);
/* The address with the port that was chosen where 0 was asked for. Owned by the listener. */
const char *listener_address(const struct listener *listener);
/* Waits for a client, at most timeout_ns (0 = no limit; ETIMEDOUT). One that fails its TLS
 * handshake or does not say hello in time is dropped with a warning in the log and the wait goes
 * on; until then others are handed out before it. One thread at a time. NULL on failure. */
struct stream *listener_accept(struct listener *listener, uint64_t timeout_ns,
                               const struct context *ctx, struct error *err);
void listener_close(struct listener *listener); /* removes a UNIX socket's path; NULL is fine */

/* Reads exactly len bytes. An end of the stream before the first byte has code EPIPE, one later
 * EBADMSG. idle_ns: the longest wait without a byte (0 = no limit; ETIMEDOUT). Returns 0. */
int stream_read(struct stream *stream, void *buf, size_t len, uint64_t idle_ns,
                const struct context *ctx, struct error *err);

/* Reads what there is, at least one byte; 0 at the end of the stream. */
ssize_t stream_read_some(struct stream *stream, void *buf, size_t len, uint64_t idle_ns,
                         const struct context *ctx, struct error *err);

/* Puts bytes that were read back in front of what is read next, so that who accepts a stream can
 * look at its first words before it says whose it is. Once, before other threads read; at most
 * STREAM_UNREAD_MAX bytes. */
void stream_unread(struct stream *stream, const void *buf, size_t len);

/* Writes all of the vector; its elements are changed on the way. One writer at a time: the caller's
 * lock. Returns 0. */
int stream_write(struct stream *stream, struct iovec *iov, size_t n_iov, uint64_t idle_ns,
                 const struct context *ctx, struct error *err);

/* From ns nanoseconds on, whoever reads or writes, or waits in it, fails with ETIMEDOUT, whatever
 * may move meanwhile; a later call replaces an earlier one. Any thread. */
void stream_expire(struct stream *stream, uint64_t ns);

/* Ends both directions and wakes whoever waits in them (they fail with EPIPE). Any thread. */
void stream_shutdown(struct stream *stream);
void stream_close(struct stream *stream); /* no thread may be in it any more; NULL is fine */

/* Who is there, for logs and errors: "192.0.2.7:40112", "unix:/run/x", "tls:db2 (192.0.2.7:1337)".
 */
const char *stream_peer(const struct stream *stream);

/* Bytes that went through, both counters since the start. Any thread. */
void stream_counters(const struct stream *stream, uint64_t *ret_read, uint64_t *ret_written);

DEFINE_CLEANUP(cleanup_stream_p, struct stream *, stream_close)
#define cleanup_stream CLEANUP(cleanup_stream_p)
DEFINE_CLEANUP(cleanup_listener_p, struct listener *, listener_close)
#define cleanup_listener CLEANUP(cleanup_listener_p)

#endif
