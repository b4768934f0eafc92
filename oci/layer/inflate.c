// SPDX-License-Identifier: Apache-2.0
/* inflate.c - gzip (RFC 1952) through ISA-L, zstd (RFC 8878) through libzstd, and plain bytes
 *
 * Both formats may be a sequence: several gzip members (pigz, bgzip, eStargz write them) and
 * several zstd frames, skippable ones too (zstd:chunked). Bytes behind the last that begin no
 * further member are an error, as they are for everybody who reads images.
 */
#include "oci/layer/inflate.h"

#include <errno.h>
#include <isa-l/igzip_lib.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

/* 128 MiB, what the zstd command reads without being asked for more. */
#define ZSTD_WINDOW_LOG_MAX 27

/* Where in the header of a gzip member we are. */
enum gzip_part {
    GZIP_FIXED,
    GZIP_EXTRA_LEN,
    GZIP_EXTRA,
    GZIP_NAME,
    GZIP_COMMENT,
    GZIP_HEADER_CRC,
    GZIP_BODY,
};

/* Flags of the header's fourth byte. */
#define GZIP_FHCRC 2
#define GZIP_FEXTRA 4
#define GZIP_FNAME 8
#define GZIP_FCOMMENT 16
#define GZIP_RESERVED 0xe0
#define GZIP_FIXED_SIZE 10

struct inflate {
    enum image_compression compression;
    struct inflate_state *gzip;
    enum gzip_part part;
    uint8_t flags;
    unsigned count; /* bytes of the part that were seen */
    unsigned extra; /* bytes of the extra field */
    ZSTD_DStream *zstd;
    bool inside;  /* a member or frame has begun and not ended */
    bool started; /* there was one */
};

struct inflate *inflate_new(enum image_compression compression, struct error *err)
{
    cleanup_inflate struct inflate *z = calloc(1, sizeof(*z));

    if (!z) {
        error_oom(err);
        return NULL;
    }
    z->compression = compression;
    if (compression == IMAGE_GZIP) {
        z->gzip = calloc(1, sizeof(*z->gzip));
        if (!z->gzip) {
            error_oom(err);
            return NULL;
        }
    } else if (compression == IMAGE_ZSTD) {
        z->zstd = ZSTD_createDStream();
        if (!z->zstd || ZSTD_isError(ZSTD_DCtx_setParameter(z->zstd, ZSTD_d_windowLogMax,
                                                            ZSTD_WINDOW_LOG_MAX))) {
            error_oom(err);
            return NULL;
        }
    }
    return steal_ptr(&z);
}

void inflate_free(struct inflate *z)
{
    if (!z)
        return;
    free(z->gzip);
    ZSTD_freeDStream(z->zstd);
    free(z);
}

static int gzip_error(int code, struct error *err)
{
    const char *why = "damaged data";

    if (code == ISAL_INVALID_WRAPPER || code == ISAL_UNSUPPORTED_METHOD)
        why = "no gzip header where one is due";
    else if (code == ISAL_INCORRECT_CHECKSUM)
        why = "the checksum or length of a member is wrong";
    return error_set(err, EBADMSG, "gzip: %s", why);
}

/* One byte of a member's header. ISA-L could read it too, but 2.30 takes valid headers with a name
 * and a checksum for damaged ones when they come in pieces. The header's own checksum is not looked
 * at: the descriptor's digest has covered these bytes. */
static int header_byte(struct inflate *z, uint8_t c, struct error *err)
{
    static const uint8_t magic[] = {0x1f, 0x8b, 8};
    bool done = false;

    switch (z->part) {
    case GZIP_FIXED:
        if (z->count < sizeof(magic) && c != magic[z->count])
            return gzip_error(ISAL_INVALID_WRAPPER, err);
        if (z->count == 3)
            z->flags = c;
        if (z->flags & GZIP_RESERVED)
            return gzip_error(ISAL_INVALID_WRAPPER, err);
        done = z->count + 1 == GZIP_FIXED_SIZE;
        break;
    case GZIP_EXTRA_LEN:
        z->extra |= (unsigned)c << 8 * z->count;
        done = z->count == 1;
        break;
    case GZIP_EXTRA:
        done = z->count + 1 == z->extra;
        break;
    case GZIP_NAME:
    case GZIP_COMMENT:
        done = c == 0;
        break;
    case GZIP_HEADER_CRC:
        done = z->count == 1;
        break;
    case GZIP_BODY:
        break;
    }
    z->count++;
    if (!done)
        return 0;
    /* The next part that is there. */
    z->count = 0;
    for (;;) {
        z->part++;
        if ((z->part == GZIP_EXTRA_LEN && z->flags & GZIP_FEXTRA) ||
            (z->part == GZIP_EXTRA && z->flags & GZIP_FEXTRA && z->extra) ||
            (z->part == GZIP_NAME && z->flags & GZIP_FNAME) ||
            (z->part == GZIP_COMMENT && z->flags & GZIP_FCOMMENT) ||
            (z->part == GZIP_HEADER_CRC && z->flags & GZIP_FHCRC) || z->part == GZIP_BODY)
            return 0;
    }
}

static void begin_member(struct inflate *z)
{
    isal_inflate_init(z->gzip);
    z->gzip->crc_flag = ISAL_GZIP_NO_HDR_VER;
    z->inside = z->started = true;
    z->part = GZIP_FIXED;
    z->flags = 0;
    z->count = z->extra = 0;
}

static int run_gzip(struct inflate *z, const uint8_t **in, size_t *in_len, uint8_t *out,
                    size_t out_size, size_t *out_len, struct error *err)
{
    struct inflate_state *s = z->gzip;

    while (*out_len < out_size && (z->inside || *in_len)) {
        if (!z->inside)
            begin_member(z);
        for (; z->part != GZIP_BODY && *in_len; ++*in, --*in_len)
            if (header_byte(z, **in, err) < 0)
                return -1;
        if (z->part != GZIP_BODY)
            break;
        size_t n_in = *in_len < UINT32_MAX ? *in_len : UINT32_MAX;
        size_t room = out_size - *out_len < UINT32_MAX ? out_size - *out_len : UINT32_MAX;
        s->next_in = (uint8_t *)(uintptr_t)*in;
        s->avail_in = (uint32_t)n_in;
        s->next_out = out + *out_len;
        s->avail_out = (uint32_t)room;
        int rc = isal_inflate(s);
        if (rc < 0)
            return gzip_error(rc, err);
        size_t used = n_in - s->avail_in, made = room - s->avail_out;
        *in += used;
        *in_len -= used;
        *out_len += made;
        if (s->block_state == ISAL_BLOCK_FINISH)
            z->inside = false;
        else if (*in_len == 0 && *out_len < out_size)
            break; /* wants input */
        else if (used == 0 && made == 0)
            return gzip_error(ISAL_INVALID_BLOCK, err);
    }
    return 0;
}

static int run_zstd(struct inflate *z, const uint8_t **in, size_t *in_len, uint8_t *out,
                    size_t out_size, size_t *out_len, struct error *err)
{
    while (*out_len < out_size) {
        ZSTD_inBuffer ib = {.src = *in, .size = *in_len};
        ZSTD_outBuffer ob = {.dst = out, .size = out_size, .pos = *out_len};
        if (*in_len == 0 && !z->inside)
            break;
        size_t rc = ZSTD_decompressStream(z->zstd, &ob, &ib);
        if (ZSTD_isError(rc))
            return error_set(err, EBADMSG, "zstd: %s", ZSTD_getErrorName(rc));
        bool idle = ib.pos == 0 && ob.pos == *out_len;
        *in += ib.pos;
        *in_len -= ib.pos;
        *out_len = ob.pos;
        z->started = true;
        z->inside = rc != 0;
        if (*in_len == 0 && *out_len < out_size)
            break;
        if (idle)
            return error_set(err, EBADMSG, "zstd: damaged data");
    }
    return 0;
}

int inflate_run(struct inflate *z, const uint8_t **in, size_t *in_len, uint8_t *out,
                size_t out_size, size_t *out_len, struct error *err)
{
    if (z->compression == IMAGE_GZIP)
        return run_gzip(z, in, in_len, out, out_size, out_len, err);
    if (z->compression == IMAGE_ZSTD)
        return run_zstd(z, in, in_len, out, out_size, out_len, err);
    size_t n = out_size - *out_len < *in_len ? out_size - *out_len : *in_len;
    memcpy(out + *out_len, *in, n);
    *in += n;
    *in_len -= n;
    *out_len += n;
    return 0;
}

int inflate_end(struct inflate *z, struct error *err)
{
    const char *name = z->compression == IMAGE_GZIP ? "gzip" : "zstd";

    if (z->compression == IMAGE_PLAIN)
        return 0;
    if (z->inside)
        return error_set(err, EBADMSG, "%s: the data ends in the middle", name);
    if (!z->started)
        return error_set(err, EBADMSG, "%s: there is no data", name);
    return 0;
}
