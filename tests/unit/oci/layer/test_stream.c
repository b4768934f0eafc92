// SPDX-License-Identifier: Apache-2.0
/* test_stream.c - verified layer streams: formats, damage, limits; threads: yes */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "oci/layer/inflate.h"
#include "oci/layer/layer.h"
#include "runtime/base/io.h"
#include "tests/lib/unit.h"

struct bytes {
    uint8_t *data;
    size_t len;
};

/* Half noise, half text that compresses. */
static struct bytes make_content(size_t len, uint64_t seed)
{
    struct bytes b = {.data = malloc(len + 1), .len = len};
    uint64_t state = seed | 1;

    for (size_t i = 0; i < len; i++)
        b.data[i] = (i / 1000) % 2 ? (uint8_t)unit_random(&state) : (uint8_t)("layer "[i % 6]);
    return b;
}

static void append(struct bytes *to, const void *data, size_t len)
{
    to->data = realloc(to->data, to->len + len + 1);
    if (len)
        memcpy(to->data + to->len, data, len);
    to->len += len;
}

/* One gzip member, with a file name and a comment in its header. */
static void add_gzip(struct bytes *to, const uint8_t *data, size_t len)
{
    z_stream z = {0};
    gz_header head = {.name = (Bytef *)"layer.tar", .comment = (Bytef *)"x", .hcrc = 1};
    size_t room = len + len / 100 + 1000;
    uint8_t *out = malloc(room);

    ck_assert_int_eq(deflateInit2(&z, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
    ck_assert_int_eq(deflateSetHeader(&z, &head), Z_OK);
    z.next_in = (Bytef *)(uintptr_t)data;
    z.avail_in = (uInt)len;
    z.next_out = out;
    z.avail_out = (uInt)room;
    ck_assert_int_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
    append(to, out, z.total_out);
    deflateEnd(&z);
    free(out);
}

static void add_zstd(struct bytes *to, const uint8_t *data, size_t len)
{
    size_t room = ZSTD_compressBound(len);
    uint8_t *out = malloc(room);
    size_t n = ZSTD_compress(out, room, data, len, 3);

    ck_assert(!ZSTD_isError(n));
    append(to, out, n);
    free(out);
}

/* Members of 1/3 and 2/3 of the content. */
static struct bytes compress_content(enum image_compression c, const struct bytes *content)
{
    struct bytes b = {0};
    size_t cut = content->len / 3;

    if (c == IMAGE_PLAIN) {
        append(&b, content->data, content->len);
    } else if (c == IMAGE_GZIP) {
        add_gzip(&b, content->data, cut);
        add_gzip(&b, content->data + cut, content->len - cut);
    } else {
        static const uint8_t skippable[] = {0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 'a', 'b', 'c'};
        add_zstd(&b, content->data, cut);
        append(&b, skippable, sizeof(skippable));
        add_zstd(&b, content->data + cut, content->len - cut);
    }
    return b;
}

static struct image_layer describe(enum image_compression c, const struct bytes *blob,
                                   const struct bytes *content)
{
    struct image_layer layer = {.compression = c};

    layer.blob.size = blob->len;
    ck_assert_int_eq(digest_of(blob->data, blob->len, layer.blob.digest, NULL), 0);
    ck_assert_int_eq(digest_of(content->data, content->len, layer.diff_id, NULL), 0);
    return layer;
}

static int memory_file(const struct bytes *b)
{
    int fd = memfd_create("blob", MFD_CLOEXEC);

    ck_assert_int_eq(io_write(fd, b->data, b->len, "blob", NULL), 0);
    return fd;
}

/* Reads it all. Returns 0 when all was right and equal to content. */
static int read_all(int fd, const struct image_layer *layer, uint64_t max_bytes, uint64_t max_ratio,
                    const struct context *ctx, const struct bytes *content, struct error *err)
{
    struct layer_stream *s = layer_stream_open(fd, layer, max_bytes, max_ratio, ctx, err);
    size_t at = 0, len;
    const uint8_t *data;
    int rc;

    ck_assert_ptr_nonnull(s);
    while ((rc = layer_stream_next(s, &data, &len, err)) == 0 && len) {
        if (content) {
            ck_assert_uint_le(at + len, content->len);
            ck_assert_mem_eq(data, content->data + at, len);
        }
        at += len;
    }
    if (rc == 0 && content)
        ck_assert_uint_eq(at, content->len);
    layer_stream_close(s);
    return rc;
}

UNIT_TEST(all_formats)
{
    static const size_t sizes[] = {0, 1, 511, 100000, 512 << 10, (512 << 10) + 1, 7 << 20};

    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
        for (int c = IMAGE_PLAIN; c <= IMAGE_ZSTD; c++) {
            struct bytes content = make_content(sizes[i], unit_seed());
            struct bytes blob = compress_content(c, &content);
            struct image_layer layer = describe(c, &blob, &content);
            struct error err = ERROR_INIT;
            int fd = memory_file(&blob);
            ck_assert_msg(read_all(fd, &layer, 0, 0, NULL, &content, &err) == 0, "%d: %s", c,
                          err.text);
            close(fd);
            free(content.data);
            free(blob.data);
        }
}
END_TEST

/* Input and output cut anywhere give the same bytes. */
UNIT_TEST(pieces_of_any_size)
{
    uint64_t state = unit_seed() | 1;

    for (int round = 0; round < 30; round++)
        for (int c = IMAGE_GZIP; c <= IMAGE_ZSTD; c++) {
            struct bytes content = make_content(unit_random(&state) % 20000, state);
            struct bytes blob = compress_content(c, &content);
            struct error err = ERROR_INIT;
            struct inflate *z = inflate_new(c, &err);
            uint8_t *got = malloc(content.len + 100);
            size_t out = 0, at = 0, most = round < 3 ? 1 : 1 + unit_random(&state) % 300;
            while (at < blob.len) {
                size_t n = 1 + unit_random(&state) % most;
                n = n < blob.len - at ? n : blob.len - at;
                const uint8_t *p = blob.data + at;
                at += n;
                for (;;) {
                    size_t end = out + 1 + unit_random(&state) % most;
                    end = end < content.len + 100 ? end : content.len + 100;
                    ck_assert_msg(inflate_run(z, &p, &n, got, end, &out, &err) == 0, "%s",
                                  err.text);
                    if (out < end)
                        break;
                }
                ck_assert_uint_eq(n, 0);
            }
            ck_assert_int_eq(inflate_end(z, &err), 0);
            ck_assert_uint_eq(out, content.len);
            ck_assert_mem_eq(got, content.data, out);
            inflate_free(z);
            free(got);
            free(content.data);
            free(blob.data);
        }
}
END_TEST

static void expect(enum image_compression c, const struct bytes *blob, const struct image_layer *l,
                   int code, const char *text)
{
    struct error err = ERROR_INIT;
    int fd = memory_file(blob);

    (void)c;
    ck_assert_int_eq(read_all(fd, l, 0, 0, NULL, NULL, &err), -1);
    ck_assert_msg(err.code == code && strstr(err.text, text), "%d: %d %s (wanted %s)", c, err.code,
                  err.text, text);
    close(fd);
}

UNIT_TEST(wrong_promises)
{
    for (int c = IMAGE_PLAIN; c <= IMAGE_ZSTD; c++) {
        struct bytes content = make_content(300000, 1), blob = compress_content(c, &content);
        struct image_layer right = describe(c, &blob, &content), l = right;
        l.blob.digest[31] ^= 1;
        expect(c, &blob, &l, EBADMSG, "the blob is sha256:");
        l = right;
        l.diff_id[0] ^= 1;
        expect(c, &blob, &l, EBADMSG, "diff_id");
        l = right;
        l.blob.size--;
        expect(c, &blob, &l, EBADMSG, "longer than");
        l.blob.size = right.blob.size + 1;
        expect(c, &blob, &l, EBADMSG, "ends after");
        /* One flipped bit anywhere is the digest's to find, whatever else it breaks. */
        uint64_t state = unit_seed() | 1;
        assert(blob.len > 0);
        for (int i = 0; i < 20; i++) {
            size_t at = unit_random(&state) % blob.len;
            blob.data[at] ^= 4;
            expect(c, &blob, &right, EBADMSG, "the blob is sha256:");
            blob.data[at] ^= 4;
        }
        free(content.data);
        free(blob.data);
    }
}
END_TEST

/* Damage under a right digest: someone made it so. */
UNIT_TEST(damaged_compression)
{
    struct bytes content = make_content(300000, 1);

    for (int c = IMAGE_GZIP; c <= IMAGE_ZSTD; c++) {
        const char *name = c == IMAGE_GZIP ? "gzip: " : "zstd: ";
        struct bytes blob = compress_content(c, &content);
        struct bytes cut = {.data = blob.data, .len = 0};
        static const size_t ends[] = {1, 5, 9, 12, 100, 5000};
        for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
            cut.len = ends[i];
            struct image_layer l = describe(c, &cut, &content);
            expect(c, &cut, &l, EBADMSG, name);
            cut.len = blob.len - ends[i];
            l = describe(c, &cut, &content);
            expect(c, &cut, &l, EBADMSG, name);
        }
        cut.len = 0;
        struct image_layer l = describe(c, &cut, &content);
        expect(c, &cut, &l, EBADMSG, "there is no data");
        blob.data[blob.len / 2] ^= 0x10;
        l = describe(c, &blob, &content);
        struct error err = ERROR_INIT;
        int fd = memory_file(&blob);
        ck_assert_int_eq(read_all(fd, &l, 0, 0, NULL, NULL, &err), -1);
        ck_assert_int_eq(err.code, EBADMSG);
        close(fd);
        blob.data[blob.len / 2] ^= 0x10;
        append(&blob, "garbage", 7);
        l = describe(c, &blob, &content);
        expect(c, &blob, &l, EBADMSG, name);
        free(blob.data);
    }
    free(content.data);
}
END_TEST

UNIT_TEST(bombs)
{
    struct bytes content = {.data = calloc(1, 80 << 20), .len = 80 << 20}, blob = {0};
    struct error err = ERROR_INIT;

    add_gzip(&blob, content.data, content.len);
    struct image_layer l = describe(IMAGE_GZIP, &blob, &content);
    int fd = memory_file(&blob);
    ck_assert_int_eq(read_all(fd, &l, 1 << 20, 0, NULL, NULL, &err), -1);
    ck_assert_int_eq(err.code, E2BIG);
    ck_assert_msg(strstr(err.text, "--max-bytes"), "%s", err.text);
    ck_assert_int_eq(read_all(fd, &l, 0, 500, NULL, NULL, &err), -1);
    ck_assert_int_eq(err.code, E2BIG);
    ck_assert_msg(strstr(err.text, "--max-ratio"), "%s", err.text);
    ck_assert_int_eq(read_all(fd, &l, 0, 1100, NULL, NULL, &err), 0);
    close(fd);
    free(content.data);
    free(blob.data);
}
END_TEST

/* The thread ends however little was read; a cancelled context ends the reading. */
UNIT_TEST(stopping)
{
    struct bytes content = make_content(20 << 20, 1), blob = compress_content(IMAGE_ZSTD, &content);
    struct image_layer l = describe(IMAGE_ZSTD, &blob, &content);
    int fd = memory_file(&blob);
    struct error err = ERROR_INIT;
    struct cancel cancel;
    const uint8_t *data;
    size_t len;

    for (int pieces = 0; pieces < 10; pieces++) {
        struct layer_stream *s = layer_stream_open(fd, &l, 0, 0, NULL, &err);
        for (int i = 0; i < pieces; i++)
            ck_assert_int_eq(layer_stream_next(s, &data, &len, &err), 0);
        layer_stream_close(s);
    }
    ck_assert_int_eq(cancel_init(&cancel, &err), 0);
    struct context ctx = {.cancel = &cancel};
    struct layer_stream *s = layer_stream_open(fd, &l, 0, 0, &ctx, &err);
    ck_assert_int_eq(layer_stream_next(s, &data, &len, &err), 0);
    cancel_request(&cancel);
    while (layer_stream_next(s, &data, &len, &err) == 0 && len)
        ;
    ck_assert_int_eq(err.code, ECANCELED);
    layer_stream_close(s);
    cancel_destroy(&cancel);
    close(fd);
    free(content.data);
    free(blob.data);
}
END_TEST
