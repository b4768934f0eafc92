// SPDX-License-Identifier: Apache-2.0
/* tls.c - TLS 1.3 on a TCP stream, through OpenSSL
 *
 * An SSL object is not for two threads at once, a stream is: a mutex covers each call into OpenSSL,
 * which never blocks because the socket does not; waiting happens outside, in stream.c.
 */
#define RUNTIME_TRANSPORT_INTERNAL
#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/transport/stream_private.h"

struct tls_config {
    SSL_CTX *ctx;
};

struct tls {
    pthread_mutex_t lock; /* guards ssl */
    SSL *ssl;
};

/* Takes OpenSSL's oldest queued reason as the cause and empties the queue. */
static int tls_error(struct error *err, int code, const char *what)
{
    char reason[256] = "unknown cause";
    unsigned long e = ERR_get_error();

    if (e)
        ERR_error_string_n(e, reason, sizeof(reason));
    ERR_clear_error();
    /* "error:0A000086:SSL routines::certificate verify failed": people need the last part. */
    const char *text = strrchr(reason, ':');
    return error_set(err, code, "%s: %s", what, text ? text + 1 : reason);
}

static int load_files(SSL_CTX *ctx, const struct transport_options *opt, bool server,
                      struct error *err)
{
    char what[512];

    if (!opt->tls_ca && !(server && opt->tls_anonymous_clients))
        return error_set(err, EINVAL,
                         "TLS: a CA to check the other side with is missing "
                         "(--tls-ca)");
    if (server && (!opt->tls_cert || !opt->tls_key))
        return error_set(err, EINVAL,
                         "TLS: a certificate and its key are missing (--tls-cert, "
                         "--tls-key)");
    if (!opt->tls_cert != !opt->tls_key)
        return error_set(err, EINVAL, "TLS: --tls-cert and --tls-key belong together");
    if (opt->tls_ca && SSL_CTX_load_verify_locations(ctx, opt->tls_ca, NULL) != 1) {
        (void)snprintf(what, sizeof(what), "TLS: %s: load the CA", opt->tls_ca);
        return tls_error(err, EINVAL, what);
    }
    if (opt->tls_cert) {
        (void)snprintf(what, sizeof(what), "TLS: %s: load the certificate", opt->tls_cert);
        if (SSL_CTX_use_certificate_chain_file(ctx, opt->tls_cert) != 1)
            return tls_error(err, EINVAL, what);
        (void)snprintf(what, sizeof(what), "TLS: %s: load the key", opt->tls_key);
        if (SSL_CTX_use_PrivateKey_file(ctx, opt->tls_key, SSL_FILETYPE_PEM) != 1 ||
            SSL_CTX_check_private_key(ctx) != 1)
            return tls_error(err, EINVAL, what);
    }
    return 0;
}

struct tls_config *tls_config_new(const struct transport_options *opt, bool server,
                                  struct error *err)
{
    struct tls_config *config = calloc(1, sizeof(*config));

    if (!config) {
        error_oom(err);
        return NULL;
    }
    config->ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    if (!config->ctx || SSL_CTX_set_min_proto_version(config->ctx, TLS1_3_VERSION) != 1) {
        tls_error(err, EIO, "TLS: set up");
        goto fail;
    }
    int verify = SSL_VERIFY_PEER;
    if (server && !opt->tls_anonymous_clients)
        verify |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    if (server && opt->tls_anonymous_clients && !opt->tls_ca)
        verify = SSL_VERIFY_NONE;
    SSL_CTX_set_verify(config->ctx, verify, NULL);
    SSL_CTX_set_mode(config->ctx,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_options(config->ctx, SSL_OP_NO_RENEGOTIATION);
    (void)SSL_CTX_set_num_tickets(config->ctx, 0); /* a stream lives once: nothing to resume */
    if (load_files(config->ctx, opt, server, err) < 0)
        goto fail;
    return config;
fail:
    tls_config_free(config);
    return NULL;
}

void tls_config_free(struct tls_config *config)
{
    if (config)
        SSL_CTX_free(config->ctx);
    free(config);
}

/* Beside OpenSSL's own codes, which are above it: the end came before the first byte. In TLS 1.3 a
 * client that was refused may see no more than that. */
#define REASON_UNHEARD 1ul

const char *tls_reason(const struct stream *s)
{
    unsigned long code = atomic_load(&s->tls_reason);

    if (code == REASON_UNHEARD)
        return " (the other side may have refused our certificate)";
    return code ? ERR_reason_error_string(code) : NULL;
}

/* OpenSSL's answer as errno and poll events. Called under the lock. */
static ssize_t outcome(struct stream *s, int rc, short *want)
{
    switch (SSL_get_error(s->tls->ssl, rc)) {
    case SSL_ERROR_WANT_READ:
        *want = POLLIN;
        errno = EAGAIN;
        return -1;
    case SSL_ERROR_WANT_WRITE:
        *want = POLLOUT;
        errno = EAGAIN;
        return -1;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_SYSCALL:
        /* An end without TLS's own goodbye may be an attacker's: not a clean end. */
        if (errno == 0)
            errno = ECONNRESET;
        if (atomic_load(&s->n_read) == 0)
            atomic_store(&s->tls_reason, REASON_UNHEARD);
        break;
    default:
        errno = EPROTO;
        atomic_store(&s->tls_reason, ERR_peek_error());
        break;
    }
    ERR_clear_error();
    return -1;
}

static ssize_t tls_read(struct stream *s, void *buf, size_t len, short *want)
{
    lock_scope(&s->tls->lock);
    errno = 0;
    int n = SSL_read(s->tls->ssl, buf, len > INT_MAX ? INT_MAX : (int)len);
    return n > 0 ? n : outcome(s, n, want);
}

static ssize_t tls_write(struct stream *s, const struct iovec *iov, int n, short *want)
{
    while (n > 1 && iov->iov_len == 0) {
        iov++;
        n--;
    }
    if (iov->iov_len == 0)
        return 0;
    lock_scope(&s->tls->lock);
    errno = 0;
    int done =
        SSL_write(s->tls->ssl, iov->iov_base, iov->iov_len > INT_MAX ? INT_MAX : (int)iov->iov_len);
    if (done > 0)
        return done;
    ssize_t rc = outcome(s, done, want);
    if (rc == 0) {
        errno = EPIPE;
        rc = -1;
    }
    return rc;
}

static void tls_bye(struct stream *s)
{
    lock_scope(&s->tls->lock);
    (void)SSL_shutdown(s->tls->ssl); /* one try: the other side may be gone */
    ERR_clear_error();
}

static void tls_destroy(struct stream *s)
{
    SSL_free(s->tls->ssl);
    (void)pthread_mutex_destroy(&s->tls->lock);
    free(s->tls);
    s->tls = NULL;
}

static const struct stream_ops tls_ops = {
    .read = tls_read,
    .write = tls_write,
    .bye = tls_bye,
    .destroy = tls_destroy,
};

int tls_step(struct stream *s, bool server, short *ret_want, struct error *err)
{
    char what[512];

    errno = 0;
    int rc = server ? SSL_accept(s->tls->ssl) : SSL_connect(s->tls->ssl);
    if (rc == 1)
        return 0;
    int kind = SSL_get_error(s->tls->ssl, rc);
    if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE) {
        *ret_want = kind == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT;
        return 1;
    }
    long verdict = SSL_get_verify_result(s->tls->ssl);
    (void)snprintf(what, sizeof(what), "%s: TLS handshake%s%s", s->peer,
                   verdict == X509_V_OK ? "" : ": ",
                   verdict == X509_V_OK ? "" : X509_verify_cert_error_string(verdict));
    if (kind == SSL_ERROR_SYSCALL && !ERR_peek_error()) {
        ERR_clear_error();
        return error_set(err, EPROTO, "%s: the other side closed the connection", what);
    }
    return tls_error(err, EPROTO, what);
}

int tls_handshake(struct stream *s, uint64_t deadline_ns, const struct context *ctx,
                  struct error *err)
{
    short want = 0;
    int rc;

    while ((rc = tls_step(s, false, &want, err)) > 0)
        if (transport_wait(s->rfd, want, s->wake, deadline_ns, ctx, s->peer, err) < 0)
            return error_wrap(err, "TLS handshake");
    return rc;
}

int tls_open(struct stream *s, struct tls_config *config, const char *host, struct error *err)
{
    struct tls *tls = calloc(1, sizeof(*tls));

    if (!tls)
        return error_oom(err);
    tls->ssl = SSL_new(config->ctx);
    if (!tls->ssl || SSL_set_fd(tls->ssl, s->rfd) != 1) {
        SSL_free(tls->ssl);
        free(tls);
        return tls_error(err, EIO, "TLS: set up the connection");
    }
    (void)pthread_mutex_init(&tls->lock, NULL);
    s->tls = tls;
    s->ops = &tls_ops;
    if (host) {
        /* An address literal is checked against the certificate's IP names, others against DNS. */
        X509_VERIFY_PARAM *param = SSL_get0_param(tls->ssl);
        if (X509_VERIFY_PARAM_set1_ip_asc(param, host) != 1 &&
            (SSL_set1_host(tls->ssl, host) != 1 || SSL_set_tlsext_host_name(tls->ssl, host) != 1))
            return tls_error(err, EIO, "TLS: set the host's name");
        ERR_clear_error();
    }
    return 0;
}
