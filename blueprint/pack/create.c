// SPDX-License-Identifier: Apache-2.0
/* create.c - writes an archive
 *
 * One thread reads a file in chunks; each goes to a thread that hashes it and, through libarchive,
 * to libzstd, which compresses in threads of its own. libarchive is handed a file as if it had no
 * holes and leaves out what the entry's map does not name.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sched.h>
#include <sys/stat.h>
#include <zstd.h>

#include "blueprint/pack/chunks.h"
#include "blueprint/pack/library.h"
#include "blueprint/pack/private.h"
#include "runtime/base/io.h"
#include "runtime/base/output.h"

/* Data is sent on its way to the disk in steps of this, so that the last sync is short. */
#define WRITEBACK (16u << 20)

struct writer {
    const struct pack_create *create;
    const struct context *ctx;
    int fd;
    ZSTD_CCtx *zstd;
    struct pack_library la;
    struct archive *tar;
    struct chunks *chunks;
    uint8_t *out; /* compressed bytes not written yet */
    size_t out_size, out_len;
    uint64_t written, started; /* to the file; of it, handed to the disk */
    uint64_t done, total;      /* for progress */
    uint8_t *zeros;            /* PACK_CHUNK of them */
    struct error error;        /* of compress(), which libarchive calls */
    struct pack_item items[PACK_ENTRIES_MAX];
    size_t n_items;
};

static void writer_destroy(struct writer *w)
{
    if (w->tar)
        (void)w->la.archive_write_free(w->tar);
    chunks_free(w->chunks);
    (void)ZSTD_freeCCtx(w->zstd);
    free(w->out);
    free(w->zeros);
}

static int flush_out(struct writer *w, struct error *err)
{
    if (io_write(w->fd, w->out, w->out_len, w->create->path, err) < 0)
        return -1;
    w->written += w->out_len;
    w->out_len = 0;
    if (w->written - w->started >= WRITEBACK && w->create->durable) {
        (void)sync_file_range(w->fd, (off_t)w->started, (off_t)(w->written - w->started),
                              SYNC_FILE_RANGE_WRITE);
        w->started = w->written;
    }
    return 0;
}

static int compress_some(struct writer *w, const void *data, size_t len, bool end,
                         struct error *err)
{
    ZSTD_inBuffer in = {data, len, 0};
    size_t left;

    do {
        if (w->out_len == w->out_size && flush_out(w, err) < 0)
            return -1;
        ZSTD_outBuffer out = {w->out, w->out_size, w->out_len};
        left = ZSTD_compressStream2(w->zstd, &out, &in, end ? ZSTD_e_end : ZSTD_e_continue);
        if (ZSTD_isError(left))
            return error_set(err, EIO, "compress: %s", ZSTD_getErrorName(left));
        w->out_len = out.pos;
    } while (in.pos < in.size || (end && left));
    return end ? flush_out(w, err) : 0;
}

static la_ssize_t compress_callback(struct archive *tar, void *opaque, const void *data, size_t len)
{
    struct writer *w = opaque;

    if (compress_some(w, data, len, false, &w->error) == 0)
        return (la_ssize_t)len;
    w->la.archive_set_error(tar, w->error.code, "%s", w->error.text);
    return -1;
}

static int tar_failed(struct writer *w, struct error *err)
{
    if (w->error.code) {
        if (err)
            *err = w->error;
        return -1;
    }
    return error_set(err, EIO, "tar: %s", w->la.archive_error_string(w->tar) ?: "unknown failure");
}

static int set_parameter(ZSTD_CCtx *zstd, ZSTD_cParameter p, int value, struct error *err)
{
    size_t rc = ZSTD_CCtx_setParameter(zstd, p, value);
    return ZSTD_isError(rc) ? error_set(err, EINVAL, "zstd: %s", ZSTD_getErrorName(rc)) : 0;
}

static int processors(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0 ? CPU_COUNT(&set)
                                                                               : 1;
}

static int writer_init(struct writer *w, struct error *err)
{
    const struct pack_create *c = w->create;

    if (pack_library_load(&w->la, err) < 0)
        return -1;
    w->zstd = ZSTD_createCCtx();
    w->tar = w->la.archive_write_new();
    w->out_size = ZSTD_CStreamOutSize() * 4;
    w->out = malloc(w->out_size);
    w->zeros = calloc(1, PACK_CHUNK);
    if (!w->zstd || !w->tar || !w->out || !w->zeros)
        return error_oom(err);
    if (!(w->chunks = chunks_new(c->threads, err)) ||
        set_parameter(w->zstd, ZSTD_c_compressionLevel, c->level, err) < 0 ||
        set_parameter(w->zstd, ZSTD_c_checksumFlag, 1, err) < 0)
        return -1;
    /* A libzstd that was built without threads refuses, and compresses in this one. */
    (void)ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_nbWorkers,
                                 c->threads ? (int)c->threads : processors());
    if (w->la.archive_write_set_format_pax_restricted(w->tar) != ARCHIVE_OK ||
        w->la.archive_write_add_filter_none(w->tar) != ARCHIVE_OK ||
        w->la.archive_write_set_bytes_per_block(w->tar, 0) != ARCHIVE_OK ||
        w->la.archive_write_open(w->tar, w, NULL, compress_callback, NULL) != ARCHIVE_OK)
        return tar_failed(w, err);
    return 0;
}

static int write_header(struct writer *w, const char *name, const struct stat *st, uint64_t size,
                        const struct pack_extents *data, struct error *err)
{
    struct archive_entry *entry = w->la.archive_entry_new();

    if (!entry)
        return error_oom(err);
    w->la.archive_entry_set_pathname(entry, name);
    w->la.archive_entry_set_filetype(entry, AE_IFREG);
    w->la.archive_entry_set_perm(entry, st->st_mode & 0777);
    w->la.archive_entry_set_mtime(entry, st->st_mtim.tv_sec, 0);
    w->la.archive_entry_set_size(entry, (la_int64_t)size);
    bool whole = !data || (data->n == 1 && data->items[0].len == size);
    for (size_t i = 0; !whole && i < data->n; i++)
        w->la.archive_entry_sparse_add_entry(entry, (la_int64_t)data->items[i].offset,
                                             (la_int64_t)data->items[i].len);
    if (!whole && data->n == 0 && size)
        w->la.archive_entry_sparse_add_entry(entry, (la_int64_t)size, 0);
    int rc = w->la.archive_write_header(w->tar, entry) == ARCHIVE_OK ? 0 : tar_failed(w, err);
    w->la.archive_entry_free(entry);
    return rc;
}

static int write_data(struct writer *w, const void *data, size_t len, struct error *err)
{
    while (len) {
        la_ssize_t n = w->la.archive_write_data(w->tar, data, len);
        if (n <= 0)
            return tar_failed(w, err);
        data = (const uint8_t *)data + n;
        len -= (size_t)n;
    }
    return 0;
}

/* Reads a piece of the file as it will come out: zeros where the map has no data. */
static int read_chunk(int fd, uint8_t *buf, uint64_t offset, size_t len,
                      const struct pack_extents *data, size_t cursor, const char *what,
                      struct error *err)
{
    uint64_t at = offset, end = offset + len;

    for (size_t i = cursor; at < end; i++) {
        uint64_t from = i < data->n && data->items[i].offset < end ? data->items[i].offset : end;
        if (from > at)
            memset(buf + (at - offset), 0, from - at);
        at = from > at ? from : at;
        if (at == end)
            break;
        uint64_t to = data->items[i].offset + data->items[i].len;
        to = to < end ? to : end;
        if (to > at && io_pread_exact(fd, buf + (at - offset), to - at, at, what, err) < 0)
            return error_wrap(err, "it got shorter while it was read");
        at = to > at ? to : at;
    }
    return 0;
}

static int write_content(struct writer *w, int fd, const char *what, uint64_t size,
                         const struct pack_extents *data, struct error *err)
{
    size_t cursor = 0;

    for (uint64_t at = 0; at < size;) {
        size_t len = size - at < PACK_CHUNK ? (size_t)(size - at) : PACK_CHUNK;
        const uint8_t *from = w->zeros;
        if (context_check(w->ctx, err) < 0)
            return -1;
        if (pack_extents_hole(data, &cursor, at, len)) {
            if (chunks_put_zero(w->chunks, len, err) < 0)
                return -1;
        } else {
            uint8_t *buf = chunks_get(w->chunks, err);
            if (!buf || read_chunk(fd, buf, at, len, data, cursor, what, err) < 0 ||
                chunks_put(w->chunks, len, err) < 0)
                return -1;
            from = buf;
        }
        if (write_data(w, from, len, err) < 0)
            return -1;
        at += len;
        context_progress(w->ctx, "archive", w->done += len, w->total, "bytes");
    }
    return 0;
}

static int open_source(const struct pack_source *src, struct stat *ret_st, uint64_t *ret_size,
                       struct error *err)
{
    cleanup_close int fd = open(src->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return error_sys(err, "open %s", src->path);
    if (fstat(fd, ret_st) < 0)
        return error_sys(err, "stat %s", src->path);
    if (!S_ISREG(ret_st->st_mode) && !S_ISBLK(ret_st->st_mode))
        return error_set(err, EINVAL, "%s is no regular file and no block device", src->path);
    if (io_size(fd, src->path, ret_size, err) < 0)
        return -1;
    if (*ret_size > BLUEPRINT_SIZE_MAX)
        return error_set(err, EFBIG, "%s: %" PRIu64 " bytes are more than the limit of 64T",
                         src->path, *ret_size);
    return steal_fd(&fd);
}

static int add_item(struct writer *w, const struct pack_source *src, struct pack_item **ret,
                    struct error *err)
{
    char buf[BLUEPRINT_FILE_MAX + 1];
    const char *file = src->file ? src->file : pack_file_of(src->name, buf);

    if (pack_check_name(src->name, err) < 0 || pack_check_name(file, err) < 0)
        return -1;
    if (w->n_items == PACK_ENTRIES_MAX - 1)
        return error_set(err, EINVAL, "more than %d devices", PACK_ENTRIES_MAX - 1);
    for (size_t i = 0; i < w->n_items; i++) {
        if (!strcmp(w->items[i].name, src->name))
            return error_set(err, EINVAL, "it is named twice");
        if (!strcmp(w->items[i].file, file))
            return error_set(err, EINVAL, "its file name %s is also that of device %s", file,
                             w->items[i].name);
    }
    struct pack_item *item = &w->items[w->n_items++];
    (void)snprintf(item->name, sizeof(item->name), "%s", src->name);
    (void)snprintf(item->file, sizeof(item->file), "%s", file);
    *ret = item;
    return 0;
}

static int write_source(struct writer *w, const struct pack_source *src, struct error *err)
{
    struct pack_item *item = NULL;
    struct stat st;
    uint64_t size;
    cleanup_pack_extents struct pack_extents data = {0};

    if (add_item(w, src, &item, err) < 0)
        return -1;
    cleanup_close int fd = open_source(src, &st, &size, err);
    if (fd < 0 || pack_extents_of(fd, size, src->path, &data, err) < 0 ||
        write_header(w, src->name, &st, size, &data, err) < 0)
        return -1;
    chunks_begin(w->chunks, -1, src->path);
    if (write_content(w, fd, src->path, size, &data, err) < 0 ||
        chunks_end(w->chunks, item->sum, err) < 0)
        return -1;
    item->size = size;
    if (w->la.archive_write_finish_entry(w->tar) != ARCHIVE_OK)
        return tar_failed(w, err);
    return 0;
}

static int write_trailer(struct writer *w, struct error *err)
{
    const struct stat st = {.st_mode = S_IFREG | 0644};
    cleanup_free char *text = pack_trailer_format(w->items, w->n_items, err);

    if (!text || write_header(w, PACK_TRAILER, &st, strlen(text), NULL, err) < 0 ||
        write_data(w, text, strlen(text), err) < 0)
        return -1;
    if (w->la.archive_write_close(w->tar) != ARCHIVE_OK)
        return tar_failed(w, err);
    return compress_some(w, NULL, 0, true, err);
}

static int write_all(struct writer *w, struct error *err)
{
    const struct pack_create *c = w->create;

    if (writer_init(w, err) < 0)
        return -1;
    for (size_t i = 0; i < c->n_sources; i++) {
        struct stat st;
        if (stat(c->sources[i].path, &st) == 0)
            w->total += (uint64_t)st.st_size;
    }
    for (size_t i = 0; i < c->n_sources; i++)
        if (write_source(w, &c->sources[i], err) < 0)
            return error_wrap(err, "device %.80s", c->sources[i].name);
    return write_trailer(w, err);
}

int pack_create(const struct pack_create *create, const struct context *ctx, struct error *err)
{
    cleanup_free struct writer *w = calloc(1, sizeof(*w));

    if (!w)
        return error_oom(err);
    if (create->n_sources == 0)
        return error_set(err, EINVAL, "archive %s: no devices to write", create->path);
    bool private = false;
    for (size_t i = 0; i < create->n_sources; i++)
    private = private || pack_private(create->sources[i].name);
    cleanup_output struct output *out =
        output_begin(create->path, OUTPUT_FILE, private ? 0600 : 0666, err);
    if (!out)
        return -1;
    w->create = create;
    w->ctx = ctx;
    w->fd = output_fd(out);
    int rc = write_all(w, err);
    writer_destroy(w);
    if (rc < 0)
        return error_wrap(err, "archive %s", create->path);
    return output_commit(&out, create->durable, err);
}
