// SPDX-License-Identifier: Apache-2.0
/* test_transport.c - all carriers move bytes alike, end alike and refuse alike; threads: yes */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/transport/transport.h"
#include "tests/lib/shortage.h"
#include "tests/lib/unit.h"

#define SECOND UINT64_C(1000000000)
#define BULK (4u << 20)

/* Makes NAME.key and NAME.pem, signed by CA (or by itself), good for localhost and 127.0.0.1. */
static void make_cert(const char *name, const char *ca)
{
    char path[64];
    EVP_PKEY *key = EVP_EC_gen("P-256"), *ca_key = key;
    X509 *cert = X509_new(), *issuer = cert;
    FILE *f;

    if (ca) {
        (void)snprintf(path, sizeof(path), "%s.key", ca);
        ck_assert_ptr_nonnull(f = fopen(path, "r"));
        ca_key = PEM_read_PrivateKey(f, NULL, NULL, NULL);
        (void)fclose(f);
        (void)snprintf(path, sizeof(path), "%s.pem", ca);
        ck_assert_ptr_nonnull(f = fopen(path, "r"));
        issuer = PEM_read_X509(f, NULL, NULL, NULL);
        (void)fclose(f);
    }
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), ca ? 2 : 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                               (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(issuer));
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *ext =
        X509V3_EXT_conf_nid(NULL, &ctx, ca ? NID_subject_alt_name : NID_basic_constraints,
                            ca ? "DNS:localhost,IP:127.0.0.1" : "critical,CA:TRUE");
    X509_add_ext(cert, ext, -1);
    X509_EXTENSION_free(ext);
    ck_assert_int_gt(X509_sign(cert, ca_key, EVP_sha256()), 0);
    (void)snprintf(path, sizeof(path), "%s.key", name);
    ck_assert_ptr_nonnull(f = fopen(path, "w"));
    PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
    (void)fclose(f);
    (void)snprintf(path, sizeof(path), "%s.pem", name);
    ck_assert_ptr_nonnull(f = fopen(path, "w"));
    PEM_write_X509(f, cert);
    (void)fclose(f);
    if (ca) {
        EVP_PKEY_free(ca_key);
        X509_free(issuer);
    }
    EVP_PKEY_free(key);
    X509_free(cert);
}

static const struct transport_options tls_both = {
    .tls_cert = "host.pem", .tls_key = "host.key", .tls_ca = "ca.pem"};

struct peer {
    struct listener *listener;
    const struct context *ctx;
    int rc;
    struct error err;
};

/* Sends back all it gets until the stream ends. */
static void *echo(void *opaque)
{
    struct peer *p = opaque;
    static _Thread_local char buf[65536];
    struct stream *s = listener_accept(p->listener, 60 * SECOND, p->ctx, &p->err);

    p->rc = -1;
    if (!s)
        return NULL;
    for (;;) {
        ssize_t n = stream_read_some(s, buf, sizeof(buf), 10 * SECOND, p->ctx, &p->err);
        if (n == 0)
            p->rc = 0;
        if (n <= 0)
            break;
        struct iovec iov[2] = {{buf, (size_t)n / 2}, {buf + n / 2, (size_t)n - (size_t)n / 2}};
        if (stream_write(s, iov, 2, 10 * SECOND, p->ctx, &p->err) < 0)
            break;
    }
    stream_close(s);
    return NULL;
}

struct sender {
    struct stream *s;
    const char *data;
};

static void *send_all(void *opaque)
{
    const struct sender *w = opaque;
    struct error err;
    struct iovec iov = {(void *)w->data, BULK};

    ck_assert_int_eq(stream_write(w->s, &iov, 1, 10 * SECOND, NULL, &err), 0);
    return NULL;
}

/* Both directions at once: one thread writes 4 MiB while this one reads them back. */
static void round_trip(const char *listen_at, const char *prefix,
                       const struct transport_options *opt)
{
    struct error err = ERROR_INIT;
    struct listener *l = listener_open(listen_at, opt, &err);
    struct peer p = {.listener = l};
    pthread_t server, writer;
    char address[300];

    ck_assert_msg(l, "%s", err.text);
    (void)snprintf(address, sizeof(address), "%s%s", prefix, listener_address(l));
    ck_assert_int_eq(pthread_create(&server, NULL, echo, &p), 0);
    struct stream *s = stream_connect(address, opt, NULL, &err);
    ck_assert_msg(s, "%s", err.text);
    char *out = malloc(BULK), *in = malloc(BULK);
    uint64_t seed = unit_seed();
    for (size_t i = 0; i < BULK; i++)
        out[i] = (char)unit_random(&seed);
    struct sender w = {s, out};
    ck_assert_int_eq(pthread_create(&writer, NULL, send_all, &w), 0);
    ck_assert_msg(stream_read(s, in, BULK, 10 * SECOND, NULL, &err) == 0, "%s", err.text);
    ck_assert_int_eq(memcmp(in, out, BULK), 0);
    pthread_join(writer, NULL);
    uint64_t n_read, n_written;
    stream_counters(s, &n_read, &n_written);
    ck_assert_uint_eq(n_read, BULK);
    ck_assert_uint_eq(n_written, BULK);
    stream_close(s);
    pthread_join(server, NULL);
    ck_assert_msg(p.rc == 0, "%s", p.err.text);
    listener_close(l);
    free(in);
    free(out);
}

UNIT_TEST(tcp_v4)
{
    struct transport_options none = {0};
    round_trip("127.0.0.1:0", "", &none);
}
END_TEST

UNIT_TEST(tcp_v6)
{
    struct transport_options none = {0};
    struct error err;
    struct listener *probe = listener_open("[::1]:0", &none, &err);
    if (!probe)
        unit_skip("no IPv6 on loopback");
    listener_close(probe);
    round_trip("[::1]:0", "", &none);
}
END_TEST

UNIT_TEST(unix_socket)
{
    struct transport_options none = {0};
    round_trip("unix:s", "", &none);
    ck_assert_int_eq(access("s", F_OK), -1);
}
END_TEST

UNIT_TEST(tls)
{
    make_cert("ca", NULL);
    make_cert("host", "ca");
    round_trip("tls:127.0.0.1:0", "", &tls_both);
}
END_TEST

UNIT_TEST(descriptors)
{
    struct error err = ERROR_INIT;
    struct transport_options none = {0};
    char address[32], got[4];
    int sv[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    (void)snprintf(address, sizeof(address), "fd:%d", sv[0]);
    struct listener *l = listener_open(address, &none, &err);
    struct stream *a = listener_accept(l, 0, NULL, &err);
    ck_assert_msg(a, "%s", err.text);
    ck_assert_ptr_null(listener_accept(l, 0, NULL, &err));
    (void)snprintf(address, sizeof(address), "fd:%d", sv[1]);
    struct stream *b = stream_connect(address, &none, NULL, &err);
    struct iovec iov = {(void *)"ping", 4};
    ck_assert_int_eq(stream_write(a, &iov, 1, SECOND, NULL, &err), 0);
    ck_assert_int_eq(stream_read(b, got, 4, SECOND, NULL, &err), 0);
    ck_assert_int_eq(memcmp(got, "ping", 4), 0);
    stream_close(a);
    stream_close(b);
    listener_close(l);
    ck_assert_int_eq(fcntl(sv[0], F_GETFL) & O_NONBLOCK, 0); /* put back */
}
END_TEST

UNIT_TEST(what_was_put_back_is_read_first)
{
    struct error err = ERROR_INIT;
    struct transport_options none = {0};
    char address[32], got[8] = "";
    int sv[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    (void)snprintf(address, sizeof(address), "fd:%d", sv[0]);
    struct stream *s = stream_connect(address, &none, NULL, &err);
    ck_assert_int_eq(write(sv[1], "abcdef", 6), 6);
    ck_assert_int_eq(stream_read(s, got, 4, SECOND, NULL, &err), 0);
    stream_unread(s, got, 4);
    memset(got, 0, sizeof(got));
    ck_assert_int_eq(stream_read_some(s, got, 1, SECOND, NULL, &err), 1);
    ck_assert_int_eq(stream_read(s, got + 1, 5, SECOND, NULL, &err), 0);
    ck_assert_str_eq(got, "abcdef");
    stream_close(s);
    (void)close(sv[1]);
}
END_TEST

/* A client that must be refused by the server, or must refuse it. */
static void refused(const struct transport_options *server, const struct transport_options *client,
                    const char *host, const char *want)
{
    struct error err = ERROR_INIT;
    struct cancel cancel;
    struct context ctx = {.cancel = &cancel};
    char at[64];
    (void)snprintf(at, sizeof(at), "tls:%s:0", host);
    struct listener *l = listener_open(at, server, &err);
    struct peer p = {.listener = l, .ctx = &ctx};
    pthread_t thread;
    char address[300], byte;

    ck_assert_msg(l, "%s", err.text);
    ck_assert_int_eq(cancel_init(&cancel, &err), 0);
    ck_assert_int_eq(pthread_create(&thread, NULL, echo, &p), 0);
    (void)snprintf(address, sizeof(address), "tls:%s:%s", host,
                   strrchr(listener_address(l), ':') + 1);
    struct stream *s = stream_connect(address, client, NULL, &err);
    /* In TLS 1.3 a client learns with its first read that its certificate was refused. */
    if (s)
        ck_assert_int_eq(stream_read(s, &byte, 1, 5 * SECOND, NULL, &err), -1);
    if (want)
        ck_assert_msg(strstr(err.text, want), "%s", err.text);
    stream_close(s);
    cancel_request(&cancel); /* the listener went on waiting for a better client */
    pthread_join(thread, NULL);
    ck_assert_int_eq(p.rc, -1);
    ck_assert_int_eq(p.err.code, ECANCELED);
    listener_close(l);
    cancel_destroy(&cancel);
}

UNIT_TEST(tls_refuses)
{
    make_cert("ca", NULL);
    make_cert("host", "ca");
    make_cert("other", NULL);
    make_cert("stranger", "other");
    struct transport_options anonymous = {.tls_ca = "ca.pem"};
    struct transport_options stranger = {
        .tls_cert = "stranger.pem", .tls_key = "stranger.key", .tls_ca = "ca.pem"};
    struct transport_options wrong_ca = {
        .tls_cert = "host.pem", .tls_key = "host.key", .tls_ca = "other.pem"};

    refused(&tls_both, &anonymous, "127.0.0.1", NULL);
    refused(&tls_both, &stranger, "127.0.0.1", NULL);
    refused(&tls_both, &wrong_ca, "127.0.0.1", "verify failed");
    refused(&tls_both, &tls_both, "127.0.0.2",
            "mismatch"); /* another name than the certificate's */
}
END_TEST

UNIT_TEST(tls_takes_anonymous_clients_when_told)
{
    struct error err = ERROR_INIT;
    make_cert("ca", NULL);
    make_cert("host", "ca");
    struct transport_options server = tls_both;
    server.tls_anonymous_clients = true;
    struct transport_options client = {.tls_ca = "ca.pem"};
    struct listener *l = listener_open("tls:127.0.0.1:0", &server, &err);
    struct peer p = {.listener = l};
    pthread_t thread;
    char c = 'x';

    ck_assert_int_eq(pthread_create(&thread, NULL, echo, &p), 0);
    struct stream *s = stream_connect(listener_address(l), &client, NULL, &err);
    ck_assert_msg(s, "%s", err.text);
    struct iovec iov = {&c, 1};
    ck_assert_int_eq(stream_write(s, &iov, 1, SECOND, NULL, &err), 0);
    ck_assert_int_eq(stream_read(s, &c, 1, 5 * SECOND, NULL, &err), 0);
    stream_close(s);
    pthread_join(thread, NULL);
    listener_close(l);
}
END_TEST

/* ---- clients that say nothing ---- */

static struct sockaddr_in address_of(const struct listener *l)
{
    const char *port = strrchr(listener_address(l), ':') + 1;

    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_addr = {htonl(INADDR_LOOPBACK)},
                                .sin_port = htons((uint16_t)atoi(port))};
}

/* A socket that connects to the listener and says nothing. */
static int silent_client(const struct listener *l)
{
    struct sockaddr_in sa = address_of(l);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    return fd;
}

/* One that speaks is served, however many have come before it and said nothing, or only begun to
 * say something, long before these have had their time. */
static void served_beside_silent(const char *at, const struct transport_options *opt, int silent)
{
    struct error err = ERROR_INIT;
    struct transport_options patient = *opt;
    struct peer p = {0};
    pthread_t thread;
    int fds[80];
    char buf[12] = "";

    patient.connect_timeout_ns = 600 * SECOND;
    struct listener *l = listener_open(at, &patient, &err);
    ck_assert_msg(l, "%s", err.text);
    p.listener = l;
    ck_assert_int_eq(pthread_create(&thread, NULL, echo, &p), 0);
    for (int i = 0; i < silent; i++) {
        fds[i] = silent_client(l);
        ck_assert_int_eq(write(fds[i], "\x16\x03\x01", (size_t)i % 4), i % 4);
    }
    struct stream *s = stream_connect(listener_address(l), opt, NULL, &err);
    ck_assert_msg(s, "%s", err.text);
    struct iovec iov = {(void *)"hello, world", 12};
    ck_assert_int_eq(stream_write(s, &iov, 1, SECOND, NULL, &err), 0);
    ck_assert_msg(stream_read(s, buf, 12, 60 * SECOND, NULL, &err) == 0, "%s", err.text);
    ck_assert_int_eq(memcmp(buf, "hello, world", 12), 0);
    stream_close(s);
    (void)pthread_join(thread, NULL);
    for (int i = 0; i < silent; i++)
        (void)close(fds[i]);
    listener_close(l);
}

UNIT_TEST(silent_clients_hold_nobody_up)
{
    struct transport_options hello = {.hello = 12};

    make_cert("ca", NULL);
    make_cert("host", "ca");
    served_beside_silent("127.0.0.1:0", &hello, 3);
    served_beside_silent("tls:127.0.0.1:0", &tls_both, 3);
    struct transport_options both = tls_both;
    both.hello = 12;
    served_beside_silent("tls:127.0.0.1:0", &both, 3);
}
END_TEST

/* More of them than there are places. */
UNIT_TEST(nor_does_a_crowd_of_them)
{
    struct transport_options hello = {.hello = 12};

    served_beside_silent("127.0.0.1:0", &hello, 75);
}
END_TEST

UNIT_TEST(a_silent_client_has_its_time)
{
    struct error err = ERROR_INIT;
    struct transport_options hello = {.hello = 4, .connect_timeout_ns = SECOND / 10};
    struct cancel cancel;
    struct context ctx = {.cancel = &cancel};
    struct listener *l = listener_open("127.0.0.1:0", &hello, &err);
    struct peer p = {.listener = l, .ctx = &ctx};
    pthread_t thread;
    char byte;

    ck_assert_msg(l, "%s", err.text);
    ck_assert_int_eq(cancel_init(&cancel, &err), 0);
    ck_assert_int_eq(pthread_create(&thread, NULL, echo, &p), 0);
    int silent = silent_client(l), slow = silent_client(l), gone = silent_client(l);
    ck_assert_int_eq(write(slow, "abc", 3), 3);
    (void)close(gone);
    ck_assert_int_eq(read(silent, &byte, 1), 0); /* each is closed by the other side */
    ck_assert_int_eq(read(slow, &byte, 1), 0);
    cancel_request(&cancel);
    pthread_join(thread, NULL);
    ck_assert_int_eq(p.err.code, ECANCELED);
    (void)close(silent);
    (void)close(slow);
    listener_close(l);
    cancel_destroy(&cancel);
}
END_TEST

/* The listener goes on when a descriptor can be had again. */
UNIT_TEST(a_want_of_descriptors_passes)
{
    static struct shortage shortage;
    struct error err = ERROR_INIT;
    struct transport_options none = {0};
    struct context ctx = {.log = &shortage.log};
    struct listener *l = listener_open("127.0.0.1:0", &none, &err);
    struct peer p = {.listener = l, .ctx = &ctx};
    pthread_t thread;
    char c = 0;

    ck_assert_msg(l, "%s", err.text);
    shortage_init(&shortage);
    ck_assert_int_eq(pthread_create(&thread, NULL, echo, &p), 0);
    struct sockaddr_in sa = address_of(l);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    shortage_begin(&shortage);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    shortage_wait(&shortage);
    shortage_end(&shortage);
    ck_assert_int_eq(write(fd, "x", 1), 1);
    ck_assert_int_eq(read(fd, &c, 1), 1);
    ck_assert_int_eq(c, 'x');
    (void)close(fd);
    (void)pthread_join(thread, NULL);
    ck_assert_msg(p.rc == 0, "%s", p.err.text);
    ck_assert_uint_eq(shortage_count(&shortage), 1);
    listener_close(l);
}
END_TEST

/* ---- the end of a stream ---- */

struct dribbler {
    int fd;
    bool broken;
};

/* A byte now and then until the other side has closed. */
static void *dribble(void *opaque)
{
    struct dribbler *d = opaque;

    while (send(d->fd, "x", 1, MSG_NOSIGNAL) == 1)
        (void)usleep(20000);
    d->broken = true;
    return NULL;
}

UNIT_TEST(an_expired_stream_neither_reads_nor_writes)
{
    struct error err = ERROR_INIT;
    struct transport_options none = {0};
    static char much[1 << 20];
    struct iovec iov = {much, sizeof(much)};
    char address[32];
    pthread_t thread;
    int sv[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    (void)snprintf(address, sizeof(address), "fd:%d", sv[0]);
    struct stream *s = stream_connect(address, &none, NULL, &err);
    ck_assert_msg(s, "%s", err.text);
    (void)close(sv[0]);
    struct dribbler d = {.fd = sv[1]};
    ck_assert_int_eq(pthread_create(&thread, NULL, dribble, &d), 0);
    stream_expire(s, 600 * SECOND);
    ck_assert_int_eq(stream_read(s, much, 3, 60 * SECOND, NULL, &err), 0);
    stream_expire(s, SECOND / 2);
    ck_assert_int_eq(stream_read(s, much, sizeof(much), 60 * SECOND, NULL, &err), -1);
    ck_assert_int_eq(err.code, ETIMEDOUT);
    ck_assert_int_eq(stream_write(s, &iov, 1, 0, NULL, &err), -1);
    ck_assert_int_eq(err.code, ETIMEDOUT);
    /* A write that nobody reads, and that could wait for ever. */
    stream_expire(s, SECOND / 10);
    ck_assert_int_eq(stream_write(s, &iov, 1, 0, NULL, &err), -1);
    ck_assert_int_eq(err.code, ETIMEDOUT);
    stream_close(s);
    (void)pthread_join(thread, NULL);
    ck_assert(d.broken);
    (void)close(sv[1]);
}
END_TEST

static void *shut_down(void *opaque)
{
    stream_shutdown(opaque);
    return NULL;
}

UNIT_TEST(shutdown_and_deadline_end_a_wait)
{
    struct error err = ERROR_INIT;
    struct transport_options none = {0};
    char address[32], c;
    int sv[2];
    pthread_t thread;

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    (void)snprintf(address, sizeof(address), "fd:%d", sv[0]);
    struct stream *s = stream_connect(address, &none, NULL, &err);
    ck_assert_int_eq(stream_read(s, &c, 1, 1000000, NULL, &err), -1);
    ck_assert_int_eq(err.code, ETIMEDOUT);
    ck_assert_int_eq(pthread_create(&thread, NULL, shut_down, s), 0);
    ck_assert_int_eq(stream_read(s, &c, 1, 0, NULL, &err), -1);
    ck_assert_int_eq(err.code, EPIPE);
    pthread_join(thread, NULL);
    stream_close(s);
}
END_TEST

UNIT_TEST(unix_path_in_use_and_left_over)
{
    struct error err = ERROR_INIT;
    struct transport_options none = {0};
    struct listener *l = listener_open("unix:s", &none, &err);

    ck_assert_ptr_nonnull(l);
    ck_assert_ptr_null(listener_open("unix:s", &none, &err));
    ck_assert_int_eq(err.code, EADDRINUSE);
    /* What a killed process leaves: a bound path without a listener. */
    ck_assert_int_eq(rename("s", "t"), 0);
    listener_close(l);
    l = listener_open("unix:t", &none, &err);
    ck_assert_msg(l, "%s", err.text);
    listener_close(l);
    ck_assert_int_eq(close(open("f", O_CREAT | O_WRONLY, 0600)), 0);
    ck_assert_ptr_null(listener_open("unix:f", &none, &err));
    ck_assert_int_eq(access("f", F_OK), 0); /* not ours to remove */
}
END_TEST

UNIT_TEST(addresses)
{
    static const char *const good[] = {"localhost:1337", "[::1]:1",        "unix:/run/x",
                                       "tls:db:443",     "fd:3",           "fd:3,4",
                                       "stdio",          "127.0.0.1:65535"};
    static const char *const bad[] = {
        "",          "localhost", "::1:80", "[::1]80", "[::1",  "host:", "host:65536", "host:-1",
        "host:http", "unix:",     "fd:",    "fd:x",    "fd:3,", "tls:",  ":80",        "tls:[::1"};
    struct error err;

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        ck_assert_msg(transport_check_address(good[i], false, &err) == 0, "%s", good[i]);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(transport_check_address(bad[i], false, &err) < 0, "%s", bad[i]);
    ck_assert_int_eq(transport_check_address(":80", true, &err), 0);
}
END_TEST
