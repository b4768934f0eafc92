// SPDX-License-Identifier: Apache-2.0
/* test_unpack.c - bzImages of every compression, made here, and damaged ones */
#include "tests/lib/unit.h"

#include <elf.h>
#include <errno.h>
#include <lz4.h>
#include <lzma.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "blueprint/kernel/kernel.h"
#include "runtime/base/bytes.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"

#define PLAIN_LEN ((size_t)(17u << 20) + 321) /* three blocks of lz4's legacy frame */
#define SETUP ((size_t)5 * 512)
#define PAYLOAD_AT 0x123

static uint8_t *make_plain(void)
{
    uint8_t *p = malloc(PLAIN_LEN);
    uint64_t state = 1;
    ck_assert_ptr_nonnull(p);
    for (size_t i = 0; i < PLAIN_LEN; i++)
        p[i] = i % 7 ? (uint8_t)(i >> 9) : (uint8_t)unit_random(&state);
    return p;
}

/* Wraps a payload into what a boot loader would see. */
static uint8_t *wrap(const uint8_t *payload, size_t len, size_t *ret_len)
{
    size_t total = SETUP + PAYLOAD_AT + len + 100;
    uint8_t *image = calloc(1, total);
    ck_assert_ptr_nonnull(image);
    image[0x1f1] = 4;
    put_le16(image + 0x1fe, 0xaa55);
    memcpy(image + 0x202, "HdrS", 4);
    put_le16(image + 0x206, 0x20f);
    put_le32(image + 0x248, PAYLOAD_AT);
    put_le32(image + 0x24c, (uint32_t)len);
    memcpy(image + SETUP + PAYLOAD_AT, payload, len);
    *ret_len = total;
    return image;
}

static size_t pack_gzip(const uint8_t *in, size_t len, uint8_t *out, size_t room)
{
    z_stream z = {.next_in = (Bytef *)(uintptr_t)in,
                  .avail_in = (uInt)len,
                  .next_out = out,
                  .avail_out = (uInt)room};
    ck_assert_int_eq(deflateInit2(&z, 1, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    ck_assert_int_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return z.total_out;
}

static size_t pack_xz(const uint8_t *in, size_t len, uint8_t *out, size_t room)
{
    size_t n = 0;
    ck_assert_int_eq(lzma_easy_buffer_encode(0, LZMA_CHECK_CRC32, NULL, in, len, out, &n, room - 4),
                     LZMA_OK);
    put_le32(out + n, (uint32_t)len);
    return n + 4;
}

static size_t pack_zstd(const uint8_t *in, size_t len, uint8_t *out, size_t room)
{
    size_t n = ZSTD_compress(out, room - 4, in, len, 1);
    ck_assert(!ZSTD_isError(n));
    put_le32(out + n, (uint32_t)len);
    return n + 4;
}

static size_t pack_lz4(const uint8_t *in, size_t len, uint8_t *out, size_t room)
{
    size_t n = 4;
    put_le32(out, 0x184c2102);
    for (size_t at = 0; at < len; at += 8u << 20) {
        int part = len - at < 8u << 20 ? (int)(len - at) : (int)(8u << 20);
        int got = LZ4_compress_default((const char *)in + at, (char *)out + n + 4, part,
                                       (int)(room - n - 8));
        ck_assert_int_gt(got, 0);
        put_le32(out + n, (uint32_t)got);
        n += 4 + (size_t)got;
    }
    put_le32(out + n, (uint32_t)len);
    return n + 4;
}

static const struct {
    const char *name;
    size_t (*pack)(const uint8_t *in, size_t len, uint8_t *out, size_t room);
} packers[] = {{"gzip", pack_gzip}, {"xz", pack_xz}, {"zstd", pack_zstd}, {"lz4", pack_lz4}};

UNIT_TEST(every_format)
{
    cleanup_free uint8_t *plain = make_plain();
    size_t room = PLAIN_LEN + (1u << 20), len;
    cleanup_free uint8_t *packed = malloc(room);
    ck_assert_ptr_nonnull(packed);
    for (size_t i = 0; i < ARRAY_SIZE(packers); i++) {
        struct error err = ERROR_INIT;
        struct kernel_image got;
        size_t n = packers[i].pack(plain, PLAIN_LEN, packed, room);
        cleanup_free uint8_t *image = wrap(packed, n, &len);
        ck_assert_msg(kernel_unpack(image, len, "k", &got, &err) == 0, "%s", err.text);
        cleanup_free uint8_t *elf = got.elf;
        ck_assert_str_eq(got.packed_by, packers[i].name);
        ck_assert_uint_eq(got.elf_len, PLAIN_LEN);
        ck_assert_mem_eq(elf, plain, PLAIN_LEN);
    }
}
END_TEST

/* One byte less or more than stated, a flipped byte, a file cut off: refused, never half a kernel.
 */
UNIT_TEST(damage)
{
    cleanup_free uint8_t *plain = make_plain();
    size_t room = PLAIN_LEN + (1u << 20), len;
    cleanup_free uint8_t *packed = malloc(room);
    ck_assert_ptr_nonnull(packed);
    for (size_t i = 0; i < ARRAY_SIZE(packers); i++) {
        struct error err = ERROR_INIT;
        struct kernel_image got = {.elf = NULL};
        size_t n = packers[i].pack(plain, PLAIN_LEN, packed, room);
        cleanup_free uint8_t *image = wrap(packed, n, &len);
        uint8_t *size = image + SETUP + PAYLOAD_AT + n - 4;

        put_le32(size, PLAIN_LEN - 1);
        ck_assert_int_lt(kernel_unpack(image, len, "k", &got, &err), 0);
        ck_assert_msg(strstr(err.text, "is damaged"), "%s: %s", packers[i].name, err.text);
        put_le32(size, PLAIN_LEN + 1);
        ck_assert_int_lt(kernel_unpack(image, len, "k", &got, &err), 0);
        ck_assert_int_eq(err.code, EBADMSG);
        put_le32(size, UINT32_MAX);
        ck_assert_int_lt(kernel_unpack(image, len, "k", &got, &err), 0);
        ck_assert_int_eq(err.code, EFBIG);
        put_le32(size, PLAIN_LEN);

        ck_assert_int_lt(kernel_unpack(image, len - 200, "k", &got, &err), 0);
        ck_assert_msg(strstr(err.text, "cut off"), "%s", err.text);
        /* The formats with a checksum of what they hold; lz4's legacy frame and zstd -1 have none.
         */
        if (!strcmp(packers[i].name, "gzip") || !strcmp(packers[i].name, "xz")) {
            image[SETUP + PAYLOAD_AT + n / 2] ^= 0x10;
            ck_assert_int_lt(kernel_unpack(image, len, "k", &got, &err), 0);
            ck_assert_int_eq(err.code, EBADMSG);
        }
        ck_assert_ptr_null(got.elf);
    }
}
END_TEST

UNIT_TEST(what_is_no_kernel)
{
    static const struct {
        const char *bytes;
        size_t len;
        const char *wanted;
    } cases[] = {
        {"", 0, "is no kernel"},
        {"#!/bin/sh\n", 10, "is no kernel"},
        {"!<arch>\ndebian-binary", 21, "is a Debian package"},
    };
    struct kernel_image got;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct error err = ERROR_INIT;
        ck_assert_int_lt(
            kernel_unpack((const uint8_t *)cases[i].bytes, cases[i].len, "k", &got, &err), 0);
        ck_assert_msg(strstr(err.text, cases[i].wanted), "%s", err.text);
    }
    struct error err = ERROR_INIT;
    uint8_t arm[128] = {0};
    memcpy(arm + 56, "ARM\x64", 4);
    ck_assert_int_lt(kernel_unpack(arm, sizeof(arm), "k", &got, &err), 0);
    ck_assert_ptr_nonnull(strstr(err.text, "aarch64"));

    size_t len;
    uint8_t payload[64] = "BZh91AY&SY";
    cleanup_free uint8_t *bz = wrap(payload, sizeof(payload), &len);
    ck_assert_int_lt(kernel_unpack(bz, len, "k", &got, &err), 0);
    ck_assert_int_eq(err.code, EOPNOTSUPP);
    ck_assert_ptr_nonnull(strstr(err.text, "bzip2"));
    memset(bz + SETUP + PAYLOAD_AT, 'x', 10);
    ck_assert_int_lt(kernel_unpack(bz, len, "k", &got, &err), 0);
    ck_assert_ptr_nonnull(strstr(err.text, "no known compression"));
    put_le16(bz + 0x206, 0x207);
    ck_assert_int_lt(kernel_unpack(bz, len, "k", &got, &err), 0);
    ck_assert_ptr_nonnull(strstr(err.text, "boot protocol 2.07"));
}
END_TEST

/* An ELF with a loadable segment and a note segment that holds a foreign note before the wanted. */
static void make_elf(uint8_t elf[512], uint32_t note_type)
{
    memset(elf, 0, 512);
    memcpy(elf, "\177ELF\2\1\1", 7);
    put_le16(elf + 16, ET_EXEC);
    put_le16(elf + 18, EM_X86_64);
    put_le64(elf + 32, 64);
    put_le16(elf + 54, sizeof(Elf64_Phdr));
    put_le16(elf + 56, 2);
    put_le32(elf + 64, PT_LOAD);
    put_le64(elf + 64 + 32, 512);
    uint8_t *note = elf + 64 + sizeof(Elf64_Phdr);
    put_le32(note, PT_NOTE);
    put_le64(note + 8, 256);
    put_le64(note + 32, 20 + 20);
    put_le32(elf + 256, 4);
    put_le32(elf + 260, 3);
    put_le32(elf + 264, 18);
    memcpy(elf + 268, "GNU", 4);
    put_le32(elf + 276, 4);
    put_le32(elf + 280, 4);
    put_le32(elf + 284, note_type);
    memcpy(elf + 288, "Xen", 4);
}

UNIT_TEST(elf_headers)
{
    struct error err = ERROR_INIT;
    uint8_t elf[512];
    bool pvh = false;
    make_elf(elf, 18);
    ck_assert_msg(kernel_check(elf, 512, "k", "x86_64", &pvh, &err) == 0, "%s", err.text);
    ck_assert(pvh);
    make_elf(elf, 17);
    ck_assert_int_eq(kernel_check(elf, 512, "k", "x86_64", &pvh, &err), 0);
    ck_assert(!pvh);
    ck_assert_int_lt(kernel_check(elf, 511, "k", "x86_64", &pvh, &err), 0);
    ck_assert_ptr_nonnull(strstr(err.text, "cut off"));
    ck_assert_int_lt(kernel_check(elf, 512, "k", "aarch64", &pvh, &err), 0);
    ck_assert_ptr_nonnull(strstr(err.text, "is an ELF file for x86_64, not for aarch64"));
    put_le32(elf + 64, PT_INTERP);
    ck_assert_int_lt(kernel_check(elf, 512, "k", "x86_64", &pvh, &err), 0);
    ck_assert_ptr_nonnull(strstr(err.text, "a program for Linux"));
    put_le64(elf + 32, UINT64_MAX - 8);
    ck_assert_int_lt(kernel_check(elf, 512, "k", "x86_64", &pvh, &err), 0);
    ck_assert_ptr_nonnull(strstr(err.text, "program headers"));
    elf[EI_DATA] = ELFDATA2MSB;
    ck_assert_int_lt(kernel_check(elf, 512, "k", "x86_64", &pvh, &err), 0);
    ck_assert_int_lt(kernel_check(elf, 63, "k", "x86_64", &pvh, &err), 0);
}
END_TEST
