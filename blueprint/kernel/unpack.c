// SPDX-License-Identifier: Apache-2.0
/* unpack.c - the ELF inside a bzImage
 *
 * All formats follow one plan: the last four bytes of a payload state the size of what it unpacks
 * to (gzip has them in its own trailer, for the others the kernel's build appends them). That size
 * meets the limit, is allocated once, and has to be met exactly.
 */
#include <errno.h>
#include <inttypes.h>
#include <lz4.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "blueprint/kernel/kernel.h"
#include "runtime/base/bytes.h"
#include "runtime/base/cleanup.h"

/* Memory xz may take for its dictionary: the kernel's build uses 32 MiB, the preset maximum is 64.
 */
#define XZ_MEMORY_MAX (UINT64_C(256) << 20)

/* An unpacked block of lz4's legacy frame is at most this long; all but the last are exactly so. */
#define LZ4_LEGACY_BLOCK (8u << 20)

typedef int unpack_fn(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len,
                      struct error *err);

static int unpack_gzip(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len,
                       struct error *err)
{
    z_stream z = {.next_in = (Bytef *)(uintptr_t)in,
                  .avail_in = (uInt)in_len,
                  .next_out = out,
                  .avail_out = (uInt)out_len};
    if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK)
        return error_oom(err);
    int got = inflate(&z, Z_FINISH);
    size_t left = z.avail_out;
    (void)inflateEnd(&z);
    if (got != Z_STREAM_END || left != 0)
        return error_set(err, EBADMSG, "is damaged (zlib: %s)",
                         got == Z_STREAM_END ? "shorter than it says" : zError(got));
    return 0;
}

static int unpack_xz(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len,
                     struct error *err)
{
    uint64_t memory = XZ_MEMORY_MAX;
    size_t in_pos = 0, out_pos = 0;
    lzma_ret got = lzma_stream_buffer_decode(&memory, 0, NULL, in, &in_pos, in_len - 4, out,
                                             &out_pos, out_len);
    if (got == LZMA_MEM_ERROR)
        return error_oom(err);
    if (got == LZMA_MEMLIMIT_ERROR)
        return error_set(err, EFBIG, "wants %" PRIu64 " bytes for its dictionary, the limit is %ju",
                         memory, (uintmax_t)XZ_MEMORY_MAX);
    if (got != LZMA_OK || out_pos != out_len)
        return error_set(err, EBADMSG, "is damaged (liblzma status %d)", (int)got);
    return 0;
}

static int unpack_zstd(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len,
                       struct error *err)
{
    size_t frame = ZSTD_findFrameCompressedSize(in, in_len - 4);
    size_t got = ZSTD_isError(frame) ? frame : ZSTD_decompress(out, out_len, in, frame);
    if (ZSTD_isError(got))
        return error_set(err, EBADMSG, "is damaged (zstd: %s)", ZSTD_getErrorName(got));
    if (got != out_len)
        return error_set(err, EBADMSG, "is damaged (shorter than it says)");
    return 0;
}

static int unpack_lz4(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len,
                      struct error *err)
{
    size_t pos = 4, end = in_len - 4, done = 0;
    while (done < out_len) {
        if (end - pos < 4)
            return error_set(err, EBADMSG, "is damaged (ends early)");
        uint32_t n = get_le32(in + pos);
        pos += 4;
        if (n == 0 || n > end - pos || n > LZ4_COMPRESSBOUND(LZ4_LEGACY_BLOCK))
            return error_set(err, EBADMSG, "is damaged (an lz4 block of %" PRIu32 " bytes)", n);
        size_t room = out_len - done < LZ4_LEGACY_BLOCK ? out_len - done : LZ4_LEGACY_BLOCK;
        int got =
            LZ4_decompress_safe((const char *)in + pos, (char *)out + done, (int)n, (int)room);
        if (got < 0 || (size_t)got != room)
            return error_set(err, EBADMSG, "is damaged (an lz4 block does not unpack)");
        pos += n;
        done += room;
    }
    if (pos != end)
        return error_set(err, EBADMSG, "is damaged (%zu bytes after its last block)", end - pos);
    return 0;
}

static const struct {
    const char *name;
    uint8_t magic[6];
    size_t magic_len;
    unpack_fn *unpack; /* NULL: known, not supported */
} formats[] = {
    {"lz4", {0x02, 0x21, 0x4c, 0x18}, 4, unpack_lz4},
    {"zstd", {0x28, 0xb5, 0x2f, 0xfd}, 4, unpack_zstd},
    {"xz", {0xfd, '7', 'z', 'X', 'Z', 0}, 6, unpack_xz},
    {"gzip", {0x1f, 0x8b, 0x08}, 3, unpack_gzip},
    {"bzip2", {'B', 'Z', 'h'}, 3, NULL},
    {"lzma", {0x5d, 0, 0}, 3, NULL},
    {"lzo", {0x89, 'L', 'Z', 'O', 0, 0x0d}, 6, NULL},
};

/* The payload's place within a bzImage. */
static int find_payload(const uint8_t *image, size_t len, const char *what, const uint8_t **ret,
                        size_t *ret_len, struct error *err)
{
    /* Offsets of the setup header, boot.rst "The Real-Mode Kernel Header". */
    uint16_t version = get_le16(image + 0x206);
    if (version < 0x208)
        return error_set(err, EBADMSG,
                         "%s: boot protocol %u.%02u does not say where its payload is (2.08 does)",
                         what, version >> 8, version & 0xff);
    uint64_t setup = ((uint64_t)(image[0x1f1] ? image[0x1f1] : 4) + 1) * 512;
    uint64_t start = setup + get_le32(image + 0x248);
    uint64_t n = get_le32(image + 0x24c);
    if (start > len || n > len - start)
        return error_set(err, EBADMSG,
                         "%s: its payload (%" PRIu64 " bytes at %" PRIu64
                         ") reaches beyond its end: is the file cut off?",
                         what, n, start);
    if (n < 16)
        return error_set(err, EBADMSG, "%s: a payload of %" PRIu64 " bytes is no kernel", what, n);
    *ret = image + start;
    *ret_len = n;
    return 0;
}

/* Says what an image that is neither bzImage nor ELF is, where one can tell. */
static int refuse(const uint8_t *image, size_t len, const char *what, struct error *err)
{
    if (len >= 64 && !memcmp(image + 56, "ARM\x64", 4))
        return error_set(err, EBADMSG, "%s: is a kernel for aarch64; machines here are x86_64",
                         what);
    if (len >= 64 && !memcmp(image + 56, "RSC\x05", 4))
        return error_set(err, EBADMSG, "%s: is a kernel for riscv; machines here are x86_64", what);
    if (len >= 8 && !memcmp(image, "!<arch>\n", 8))
        return error_set(err, EBADMSG,
                         "%s: is a Debian package; give its name, or the vmlinuz in it", what);
    return error_set(err, EBADMSG, "%s: is no kernel: neither a bzImage (vmlinuz) nor an ELF file",
                     what);
}

int kernel_unpack(const uint8_t *image, size_t len, const char *what, struct kernel_image *ret,
                  struct error *err)
{
    const uint8_t *payload = NULL;
    size_t payload_len = 0;

    if (len > KERNEL_IMAGE_MAX)
        return error_set(err, EFBIG, "%s: %zu bytes are more than a kernel's limit of %u", what,
                         len, KERNEL_IMAGE_MAX);
    if (len >= 4 && !memcmp(image, "\177ELF", 4)) {
        *ret = (struct kernel_image){.elf = NULL, .elf_len = len, .packed_by = "none"};
        return 0;
    }
    if (len < 0x250 || get_le16(image + 0x1fe) != 0xaa55 || memcmp(image + 0x202, "HdrS", 4))
        return refuse(image, len, what, err);
    if (find_payload(image, len, what, &payload, &payload_len, err) < 0)
        return -1;

    for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
        if (memcmp(payload, formats[i].magic, formats[i].magic_len))
            continue;
        if (!formats[i].unpack)
            return error_set(
                err, EOPNOTSUPP,
                "%s: its payload is packed by %s; lz4, zstd, xz and gzip are supported", what,
                formats[i].name);
        size_t n = get_le32(payload + payload_len - 4);
        if (n == 0 || n > KERNEL_ELF_MAX)
            return error_set(err, EFBIG, "%s: its payload unpacks to %zu bytes, the limit is %u",
                             what, n, KERNEL_ELF_MAX);
        cleanup_free uint8_t *elf = malloc(n);
        if (!elf)
            return error_oom(err);
        if (formats[i].unpack(payload, payload_len, elf, n, err) < 0)
            return error_wrap(err, "%s: its %s payload", what, formats[i].name);
        *ret = (struct kernel_image){
            .elf = steal_ptr(&elf), .elf_len = n, .packed_by = formats[i].name};
        return 0;
    }
    return error_set(err, EBADMSG,
                     "%s: its payload starts with bytes of no known compression "
                     "(%02x %02x %02x %02x)",
                     what, payload[0], payload[1], payload[2], payload[3]);
}
