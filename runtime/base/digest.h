/* SPDX-License-Identifier: Apache-2.0 */
/* digest.h - SHA-256 (FIPS 180-4), through OpenSSL */
#ifndef RUNTIME_BASE_DIGEST_H
#define RUNTIME_BASE_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/context.h"
#include "runtime/base/error.h"

#define SHA256_SIZE 32
#define SHA256_HEX_SIZE 65 /* with the NUL */

struct digest;

/* One running hash. The caller owns it: digest_free(). Not for two threads at once. */
struct digest *digest_new(struct error *err);
int digest_update(struct digest *d, const void *data, size_t len, struct error *err);
/* Ends the hash; afterwards the object hashes anew from the start. */
int digest_final(struct digest *d, uint8_t ret_sum[SHA256_SIZE], struct error *err);
void digest_free(struct digest *d);

int digest_of(const void *data, size_t len, uint8_t ret_sum[SHA256_SIZE], struct error *err);

/* Hash of a whole file from offset 0; ret_size (may be NULL) gets the bytes hashed. The fd's
 * position does not matter and does not move. */
int digest_of_fd(int fd, const char *what, uint8_t ret_sum[SHA256_SIZE], uint64_t *ret_size,
                 struct error *err);

/* The same for a file that may be long: says how far it is ("bytes" of the file's size), and ends
 * when ctx (may be NULL) is cancelled. */
int digest_of_fd_watched(int fd, const char *what, const char *phase, const struct context *ctx,
                         uint8_t ret_sum[SHA256_SIZE], uint64_t *ret_size, struct error *err);

void digest_hex(const uint8_t sum[SHA256_SIZE], char ret_hex[SHA256_HEX_SIZE]);

DEFINE_CLEANUP(cleanup_digest_p, struct digest *, digest_free)
#define cleanup_digest CLEANUP(cleanup_digest_p)

#endif
