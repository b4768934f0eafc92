// SPDX-License-Identifier: Apache-2.0
/* read.c - an archive as a stream of entries
 *
 * libzstd decompresses into a buffer, libarchive finds the entries in it. What libarchive lets pass
 * is refused here: other kinds of entries, names outside our alphabet, headers without end (a map
 * of holes is built in memory, so what may be read for one header is limited), maps that go back,
 * a stream that stops before tar's end, and one with something behind it.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <zstd.h>

#include "blueprint/pack/library.h"
#include "blueprint/pack/private.h"
#include "runtime/base/io.h"

#define BUFFER (512u << 10)
#define TAR_END 1024u /* two blocks of zeros (POSIX.1-2017, pax, "ustar Interchange Format") */

struct pack_reader {
    int fd;
    const char *what;
    ZSTD_DCtx *zstd;
    struct pack_library la;
    struct archive *tar;
    uint8_t *in, *out;
    ZSTD_inBuffer input;
    bool at_eof;     /* of the file */
    bool frame_open; /* a frame has begun and not ended */
    uint64_t read_bytes, file_size;
    uint64_t total;     /* decompressed bytes so far */
    uint64_t zero_tail; /* of them, the last that are zero */
    bool in_header;
    uint64_t header_bytes; /* given to libarchive while it looks for an entry */
    uint64_t size, at;     /* of the entry: its size, the end of the last piece */
    struct error error;    /* of fill(), which libarchive calls */
};

void pack_reader_free(struct pack_reader *r)
{
    if (!r)
        return;
    if (r->tar)
        (void)r->la.archive_read_free(r->tar);
    (void)ZSTD_freeDCtx(r->zstd);
    free(r->in);
    free(r->out);
    free(r);
}

static void note_zeros(struct pack_reader *r, size_t len)
{
    size_t n = len;

    while (n && !r->out[n - 1])
        n--;
    r->zero_tail = n ? len - n : r->zero_tail + len;
    r->total += len;
}

/* Decompresses the next piece into out. Returns its length, 0 at the end. */
static ssize_t fill(struct pack_reader *r, struct error *err)
{
    ZSTD_outBuffer out = {r->out, BUFFER, 0};

    while (out.pos == 0) {
        if (r->input.pos == r->input.size && !r->at_eof) {
            ssize_t n = io_read(r->fd, r->in, BUFFER, r->what, err);
            if (n < 0)
                return -1;
            if (n == 0 && r->read_bytes == 0)
                return error_set(err, EBADMSG, "is empty");
            r->at_eof = n == 0;
            r->read_bytes += (uint64_t)n;
            r->input = (ZSTD_inBuffer){r->in, (size_t)n, 0};
        }
        if (r->at_eof && r->input.pos == r->input.size && !r->frame_open)
            return 0;
        size_t before = r->input.pos;
        size_t rc = ZSTD_decompressStream(r->zstd, &out, &r->input);
        if (ZSTD_isError(rc))
            return error_set(err, EBADMSG,
                             r->total ? "is damaged near byte %" PRIu64 ": zstd: %s"
                                      : "is damaged or no zstd stream (byte %" PRIu64 "): %s",
                             r->read_bytes - (r->input.size - before), ZSTD_getErrorName(rc));
        r->frame_open = rc != 0;
        if (r->at_eof && r->frame_open && out.pos == 0 && r->input.pos == before)
            return error_set(err, EBADMSG, "is cut off after %" PRIu64 " bytes", r->read_bytes);
    }
    note_zeros(r, out.pos);
    return (ssize_t)out.pos;
}

static la_ssize_t fill_callback(struct archive *tar, void *opaque, const void **ret)
{
    struct pack_reader *r = opaque;
    ssize_t n = fill(r, &r->error);

    if (n > 0 && r->in_header && (r->header_bytes += (uint64_t)n) > PACK_HEADER_MAX + BUFFER)
        n = error_set(&r->error, EFBIG, "a header is longer than the limit of %u bytes",
                      PACK_HEADER_MAX);
    if (n < 0)
        r->la.archive_set_error(tar, r->error.code, "%s", r->error.text);
    *ret = r->out;
    return n;
}

static int tar_failed(const struct pack_reader *r, struct error *err)
{
    if (r->error.code) {
        if (err)
            *err = r->error;
        return -1;
    }
    return error_set(err, EBADMSG, "is no good tar: %s",
                     r->la.archive_error_string(r->tar) ?: "unknown failure");
}

struct pack_reader *pack_reader_new(int fd, const char *what, struct error *err)
{
    cleanup_pack_reader struct pack_reader *r = calloc(1, sizeof(*r));
    struct stat st;

    if (!r) {
        (void)error_oom(err);
        return NULL;
    }
    r->fd = fd;
    r->what = what;
    r->file_size = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
    r->zstd = ZSTD_createDCtx();
    if (pack_library_load(&r->la, err) < 0)
        return NULL;
    r->tar = r->la.archive_read_new();
    r->in = malloc(BUFFER);
    r->out = malloc(BUFFER);
    if (!r->zstd || !r->tar || !r->in || !r->out) {
        (void)error_oom(err);
        return NULL;
    }
    if (r->la.archive_read_support_format_tar(r->tar) != ARCHIVE_OK ||
        r->la.archive_read_open(r->tar, r, NULL, fill_callback, NULL) != ARCHIVE_OK) {
        (void)tar_failed(r, err);
        return NULL;
    }
    return steal_ptr(&r);
}

/* After tar's end: the rest must be zeros, and the stream whole. */
static int read_rest(struct pack_reader *r, struct error *err)
{
    uint64_t used = (uint64_t)r->la.archive_filter_bytes(r->tar, 0);
    ssize_t n;

    while ((n = fill(r, err)) > 0)
        if (r->total - used > PACK_TAIL_MAX)
            return error_set(err, EFBIG, "has more than %u bytes behind its end", PACK_TAIL_MAX);
    if (n < 0)
        return -1;
    if (r->zero_tail < TAR_END)
        return error_set(err, EBADMSG, "stops without tar's end mark: it is cut off");
    if (r->zero_tail < r->total - used)
        return error_set(err, EBADMSG, "has something behind tar's end mark");
    return 0;
}

int pack_reader_next(struct pack_reader *r, char *ret_name, uint64_t *ret_size, struct error *err)
{
    struct archive_entry *entry;

    r->in_header = true;
    r->header_bytes = 0;
    int rc = r->la.archive_read_next_header(r->tar, &entry);
    r->in_header = false;
    if (rc == ARCHIVE_EOF && !r->error.code)
        return read_rest(r, err);
    if (rc != ARCHIVE_OK && rc != ARCHIVE_WARN)
        return tar_failed(r, err);
    const char *name = r->la.archive_entry_pathname(entry);
    la_int64_t size = r->la.archive_entry_size(entry);
    if (!name)
        return error_set(err, EBADMSG, "an entry has a name that cannot be read");
    if (r->la.archive_entry_filetype(entry) != AE_IFREG || r->la.archive_entry_hardlink(entry))
        return error_set(err, EBADMSG, "entry \"%.80s\": is no regular file", name);
    if (strcmp(name, PACK_TRAILER) && pack_check_name(name, err) < 0) {
        if (err)
            err->code = EBADMSG;
        return error_wrap(err, "entry \"%.80s\"", name);
    }
    if (size < 0 || (uint64_t)size > BLUEPRINT_SIZE_MAX)
        return error_set(err, EFBIG, "entry %s: is larger than the limit of 64T", name);
    r->size = (uint64_t)size;
    r->at = 0;
    (void)snprintf(ret_name, BLUEPRINT_FILE_MAX + 1, "%s", name);
    *ret_size = r->size;
    return 1;
}

int pack_reader_data(struct pack_reader *r, const uint8_t **ret_data, size_t *ret_len,
                     uint64_t *ret_offset, struct error *err)
{
    const void *data;
    size_t len;
    la_int64_t offset;

    for (;;) {
        int rc = r->la.archive_read_data_block(r->tar, &data, &len, &offset);
        if (rc == ARCHIVE_EOF && !r->error.code)
            return 0;
        if (rc != ARCHIVE_OK)
            return tar_failed(r, err);
        if (!len)
            continue;
        if (offset < 0 || (uint64_t)offset < r->at || (uint64_t)offset > r->size ||
            len > r->size - (uint64_t)offset)
            return error_set(err, EBADMSG, "its map of holes goes back or leaves the file");
        r->at = (uint64_t)offset + len;
        *ret_data = data;
        *ret_len = len;
        *ret_offset = (uint64_t)offset;
        return 1;
    }
}

void pack_reader_progress(const struct pack_reader *r, uint64_t *ret_done, uint64_t *ret_total)
{
    *ret_done = r->read_bytes;
    *ret_total = r->file_size;
}
