// SPDX-License-Identifier: Apache-2.0
/* digest.c - SHA-256, through OpenSSL */
#include "runtime/base/digest.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/base/io.h"

#define READ_CHUNK (256u << 10)

struct digest {
    EVP_MD_CTX *ctx;
};

static int failed(struct error *err)
{
    return error_set(err, EIO, "SHA-256: the crypto library failed");
}

struct digest *digest_new(struct error *err)
{
    struct digest *d = calloc(1, sizeof(*d));

    if (d && (d->ctx = EVP_MD_CTX_new()) && EVP_DigestInit_ex(d->ctx, EVP_sha256(), NULL) == 1)
        return d;
    digest_free(d);
    failed(err);
    return NULL;
}

int digest_update(struct digest *d, const void *data, size_t len, struct error *err)
{
    return EVP_DigestUpdate(d->ctx, data, len) == 1 ? 0 : failed(err);
}

int digest_final(struct digest *d, uint8_t ret_sum[SHA256_SIZE], struct error *err)
{
    uint8_t sum[EVP_MAX_MD_SIZE];

    if (EVP_DigestFinal_ex(d->ctx, sum, NULL) != 1 ||
        EVP_DigestInit_ex(d->ctx, EVP_sha256(), NULL) != 1)
        return failed(err);
    memcpy(ret_sum, sum, SHA256_SIZE);
    return 0;
}

void digest_free(struct digest *d)
{
    if (d)
        EVP_MD_CTX_free(d->ctx);
    free(d);
}

int digest_of(const void *data, size_t len, uint8_t ret_sum[SHA256_SIZE], struct error *err)
{
    cleanup_digest struct digest *d = digest_new(err);

    if (!d || digest_update(d, data, len, err) < 0)
        return -1;
    return digest_final(d, ret_sum, err);
}

int digest_of_fd(int fd, const char *what, uint8_t ret_sum[SHA256_SIZE], uint64_t *ret_size,
                 struct error *err)
{
    return digest_of_fd_watched(fd, what, "hash", NULL, ret_sum, ret_size, err);
}

int digest_of_fd_watched(int fd, const char *what, const char *phase, const struct context *ctx,
                         uint8_t ret_sum[SHA256_SIZE], uint64_t *ret_size, struct error *err)
{
    cleanup_digest struct digest *d = digest_new(err);
    cleanup_free uint8_t *buf = malloc(READ_CHUNK);
    uint64_t size = 0;
    struct stat st = {0};

    (void)fstat(fd, &st); /* for the progress alone */
    if (!d)
        return -1;
    if (!buf)
        return error_oom(err);
    for (;;) {
        ssize_t n = io_pread(fd, buf, READ_CHUNK, size, what, err);
        if (n < 0 || digest_update(d, buf, (size_t)n, err) < 0 || context_check(ctx, err) < 0)
            return -1;
        size += (size_t)n;
        context_progress(ctx, phase, size, (uint64_t)st.st_size, "bytes");
        if ((size_t)n < READ_CHUNK)
            break;
    }
    if (digest_final(d, ret_sum, err) < 0)
        return -1;
    if (ret_size)
        *ret_size = size;
    return 0;
}

void digest_hex(const uint8_t sum[SHA256_SIZE], char ret_hex[SHA256_HEX_SIZE])
{
    static const char hex[] = "0123456789abcdef";

    for (size_t i = 0; i < SHA256_SIZE; i++) {
        ret_hex[2 * i] = hex[sum[i] >> 4];
        ret_hex[2 * i + 1] = hex[sum[i] & 15];
    }
    ret_hex[SHA256_HEX_SIZE - 1] = '\0';
}
