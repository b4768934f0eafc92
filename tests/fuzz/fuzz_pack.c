// SPDX-License-Identifier: Apache-2.0
/* fuzz_pack.c - any archive: refused, or read the same way twice
 *
 * Input that is not zstd is taken for the tar and compressed, so that the fuzzer gets behind the
 * checksum.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zstd.h>

#include "blueprint/pack/private.h"
#include "runtime/base/bytes.h"
#include "runtime/base/io.h"

#define SIZE_MAX_HERE (64u << 20) /* hashing what is larger takes longer than it tells us */

static int walk(int fd, struct pack_listing *l)
{
    const struct pack_walk walk = {.max_size = SIZE_MAX_HERE, .phase = "verify"};
    struct error err = ERROR_INIT;

    if (lseek(fd, 0, SEEK_SET) < 0)
        abort();
    int rc = pack_walk(fd, "archive", &walk, NULL, l, &err);
    if (rc < 0 && (err.code == 0 || !err.text[0]))
        abort();
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_close int fd = memfd_create("archive", MFD_CLOEXEC);
    cleanup_free uint8_t *packed = NULL;
    static struct pack_listing a, b;

    if (fd < 0)
        abort();
    if (size < 4 || get_le32(data) != ZSTD_MAGICNUMBER) {
        size_t room = ZSTD_compressBound(size);
        packed = malloc(room);
        if (!packed)
            return 0;
        size = ZSTD_compress(packed, room, data, size, 1);
        if (ZSTD_isError(size))
            abort();
        data = packed;
    }
    if (io_write(fd, data, size, "memory", NULL) < 0)
        abort();
    if (walk(fd, &a) < 0)
        return 0;
    if (walk(fd, &b) < 0 || a.n_items != b.n_items || a.has_digests != b.has_digests)
        abort();
    for (size_t i = 0; i < a.n_items; i++)
        if (strcmp(a.items[i].name, b.items[i].name) || a.items[i].size != b.items[i].size ||
            memcmp(a.items[i].sum, b.items[i].sum, SHA256_SIZE))
            abort();
    return 0;
}
