/* SPDX-License-Identifier: Apache-2.0 */
/* stream_private.h - what the parts of runtime/transport share */
#ifndef RUNTIME_TRANSPORT_STREAM_PRIVATE_H
#define RUNTIME_TRANSPORT_STREAM_PRIVATE_H

#ifndef RUNTIME_TRANSPORT_INTERNAL
#error "private to runtime/transport"
#endif

#include <netdb.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "runtime/transport/transport.h"

#define CONNECT_TIMEOUT_DEFAULT_NS UINT64_C(10000000000)
#define LISTEN_BACKLOG 16
#define HOST_MAX 255

enum address_kind {
    ADDRESS_TCP,
    ADDRESS_TLS,
    ADDRESS_UNIX,
    ADDRESS_FD,
    ADDRESS_STDIO,
};

struct address {
    enum address_kind kind;
    char host[HOST_MAX + 1]; /* TCP, TLS; "" = all addresses */
    char port[8];
    const char *path;  /* UNIX; points into the text */
    int fd_in, fd_out; /* FD */
};

int address_parse(const char *text, bool listening, struct address *ret, struct error *err);

struct tls;

/* How a carrier moves bytes. Both return the count, 0 at the end (read only), or -1 with errno;
 * with EAGAIN *want gets the poll events to wait for. */
struct stream_ops {
    ssize_t (*read)(struct stream *s, void *buf, size_t len, short *want);
    ssize_t (*write)(struct stream *s, const struct iovec *iov, int n, short *want);
    void (*bye)(struct stream *s);     /* before the descriptors are shut down; NULL = nothing */
    void (*destroy)(struct stream *s); /* NULL = nothing */
};

struct stream {
    const struct stream_ops *ops;
    int rfd, wfd; /* equal for sockets */
    bool is_socket;
    int rflags, wflags; /* file status flags to put back at the end, -1 = none */
    int wake;           /* timerfd: readable once the stream was shut down or has expired */
    atomic_bool down;
    _Atomic uint64_t expires_ns; /* 0 = never */
    atomic_uint_fast64_t n_read, n_written;
    struct tls *tls;
    atomic_ulong tls_reason;           /* why TLS failed; 0 = it did not */
    uint8_t unread[STREAM_UNREAD_MAX]; /* its last n_unread bytes are read first */
    size_t n_unread;
    char peer[HOST_MAX + 64];
};

/* Takes the descriptors in every case. rfd == wfd for a socket. Returns NULL on failure. */
struct stream *stream_new(int rfd, int wfd, const char *peer, struct error *err);

/* The same of descriptors that we inherited: duplicated, so that a stream owns what it closes. */
struct stream *transport_take_fds(int in, int out, const char *what, struct error *err);

/* What connecting and listening share. The caller frees *ret: freeaddrinfo(). */
int transport_resolve(const struct address *a, bool listening, struct addrinfo **ret,
                      struct error *err);
DEFINE_CLEANUP(cleanup_addrinfo_p, struct addrinfo *, freeaddrinfo)
#define cleanup_addrinfo CLEANUP(cleanup_addrinfo_p)
/* "192.0.2.7:1337" or "[2001:db8::1]:1337". */
void transport_show(const struct sockaddr *sa, socklen_t len, char *buf, size_t size);
/* Small messages must leave at once; a peer that vanished must be noticed by the kernel too. */
void transport_tune_tcp(int fd);
void transport_fill_unix(struct sockaddr_un *sa, const char *path);

uint64_t transport_now_ns(void);

/* Waits for events on fd, cancellation, or (wake >= 0) a stream's end (EPIPE), until
 * deadline_ns (0 = for ever). what names the wait in an error. Returns 0 when fd is ready. */
int transport_wait(int fd, short events, int wake, uint64_t deadline_ns, const struct context *ctx,
                   const char *what, struct error *err);

/* TLS settings of one side, made from files once. */
struct tls_config;
struct tls_config *tls_config_new(const struct transport_options *opt, bool server,
                                  struct error *err);
void tls_config_free(struct tls_config *config);

/* Why TLS failed last, for people; NULL = it did not. Any thread. */
const char *tls_reason(const struct stream *s);

/* Puts TLS on a fresh TCP stream, which is to shake hands then. host: the name to check (client),
 * NULL for a server. Returns 0; on failure the stream is of no further use. */
int tls_open(struct stream *s, struct tls_config *config, const char *host, struct error *err);

/* Goes on with the handshake, without waiting. Returns 0 when it is done, 1 when *ret_want (poll
 * events) must come first, -1 when the stream is of no further use. */
int tls_step(struct stream *s, bool server, short *ret_want, struct error *err);

/* Shakes hands as a client. Returns 0. */
int tls_handshake(struct stream *s, uint64_t deadline_ns, const struct context *ctx,
                  struct error *err);

#endif
