// SPDX-License-Identifier: Apache-2.0
/* extract.c - reads an archive through: verified, listed, its files written
 *
 * One thread decompresses and finds the entries, others hash and write the pieces. Nothing gets its
 * final name before the archive has been read to its end and everything in it has been compared.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "blueprint/pack/chunks.h"
#include "blueprint/pack/private.h"
#include "runtime/base/io.h"
#include "runtime/base/output.h"

struct walker {
    const struct pack_walk *walk;
    const struct context *ctx;
    struct pack_reader *reader;
    struct chunks *chunks;
    uint8_t *chunk; /* being filled; NULL = none taken */
    size_t fill;
    uint64_t total; /* sizes of all entries so far */
    struct pack_listing *listing;
    char *trailer;
    size_t trailer_len;
};

static int pause_point(struct walker *w, struct error *err)
{
    uint64_t done, total;

    pack_reader_progress(w->reader, &done, &total);
    context_progress(w->ctx, w->walk->phase, done, total, "bytes");
    return context_check(w->ctx, err);
}

static int chunk_done(struct walker *w, struct error *err)
{
    size_t len = w->fill;

    w->chunk = NULL;
    w->fill = 0;
    return chunks_put(w->chunks, len, err);
}

/* data NULL: len zeros. */
static int feed(struct walker *w, const uint8_t *data, uint64_t len, struct error *err)
{
    while (len) {
        if (!data && !w->chunk && len >= PACK_CHUNK) {
            if (chunks_put_zero(w->chunks, PACK_CHUNK, err) < 0 || context_check(w->ctx, err) < 0)
                return -1;
            len -= PACK_CHUNK;
            continue;
        }
        if (!w->chunk && !(w->chunk = chunks_get(w->chunks, err)))
            return -1;
        size_t n = len < PACK_CHUNK - w->fill ? (size_t)len : PACK_CHUNK - w->fill;
        if (data) {
            memcpy(w->chunk + w->fill, data, n);
            data += n;
        } else {
            memset(w->chunk + w->fill, 0, n);
        }
        len -= n;
        w->fill += n;
        if (w->fill == PACK_CHUNK && chunk_done(w, err) < 0)
            return -1;
    }
    return 0;
}

static int read_content(struct walker *w, struct pack_item *item, int fd, struct error *err)
{
    const uint8_t *data;
    size_t len;
    uint64_t offset, at = 0;
    int more;

    if (fd >= 0 && ftruncate(fd, (off_t)item->size) < 0)
        return error_sys(err, "set the size to %" PRIu64 " bytes", item->size);
    if (fd != PACK_SKIP)
        chunks_begin(w->chunks, fd, "its file");
    while ((more = pack_reader_data(w->reader, &data, &len, &offset, err)) > 0) {
        if (pause_point(w, err) < 0 || (fd != PACK_SKIP && (feed(w, NULL, offset - at, err) < 0 ||
                                                            feed(w, data, len, err) < 0)))
            return -1;
        at = offset + len;
        item->stored += len;
    }
    if (more < 0 || fd == PACK_SKIP)
        return more;
    if (feed(w, NULL, item->size - at, err) < 0 || (w->fill && chunk_done(w, err) < 0) ||
        chunks_end(w->chunks, item->sum, err) < 0)
        return -1;
    item->hashed = true;
    return 0;
}

static int read_trailer(struct walker *w, uint64_t size, struct error *err)
{
    const uint8_t *data;
    size_t len;
    uint64_t offset;
    int more;

    if (size > PACK_TRAILER_MAX)
        return error_set(err, EFBIG, "has %" PRIu64 " bytes, more than the limit of %u", size,
                         PACK_TRAILER_MAX);
    w->trailer = calloc(1, (size_t)size + 1);
    if (!w->trailer)
        return error_oom(err);
    w->trailer_len = (size_t)size;
    while ((more = pack_reader_data(w->reader, &data, &len, &offset, err)) > 0)
        memcpy(w->trailer + offset, data, len);
    return more;
}

static int read_entry(struct walker *w, const char *name, uint64_t size, struct error *err)
{
    struct pack_listing *l = w->listing;
    char buf[BLUEPRINT_FILE_MAX + 1];
    int fd = PACK_VERIFY;

    if (w->trailer)
        return error_set(err, EBADMSG, "stands behind " PACK_TRAILER ", which must be the last");
    if (!strcmp(name, PACK_TRAILER))
        return read_trailer(w, size, err);
    for (size_t i = 0; i < l->n_items; i++)
        if (!strcmp(l->items[i].name, name))
            return error_set(err, EBADMSG, "is there twice");
    if (l->n_items == PACK_ENTRIES_MAX - 1)
        return error_set(err, EFBIG, "is more than the %d that an archive may have",
                         PACK_ENTRIES_MAX - 1);
    if (size > w->walk->max_size - w->total)
        return error_set(err, EFBIG,
                         "has %" PRIu64 " bytes: all together would be more than the limit of "
                         "%" PRIu64,
                         size, w->walk->max_size);
    w->total += size;
    struct pack_item *item = &l->items[l->n_items++];
    memset(item, 0, sizeof(*item));
    (void)snprintf(item->name, sizeof(item->name), "%s", name);
    (void)snprintf(item->file, sizeof(item->file), "%s", pack_file_of(name, buf));
    item->size = size;
    if (w->walk->want && w->walk->want(w->walk->opaque, name, &fd, err) < 0)
        return -1;
    return read_content(w, item, fd, err);
}

static int walk_all(struct walker *w, struct error *err)
{
    char name[BLUEPRINT_FILE_MAX + 1];
    uint64_t size;
    int more;

    while ((more = pack_reader_next(w->reader, name, &size, err)) > 0) {
        if (pause_point(w, err) < 0)
            return -1;
        if (read_entry(w, name, size, err) < 0)
            return error_wrap(err, "entry %s", name);
    }
    if (more < 0)
        return -1;
    if (w->trailer)
        return pack_trailer_check(w->trailer, w->trailer_len, w->listing, err);
    return 0;
}

int pack_walk(int fd, const char *what, const struct pack_walk *walk, const struct context *ctx,
              struct pack_listing *ret, struct error *err)
{
    cleanup_pack_reader struct pack_reader *reader = pack_reader_new(fd, what, err);
    cleanup_chunks struct chunks *chunks = reader ? chunks_new(0, err) : NULL;
    struct walker w = {
        .walk = walk, .ctx = ctx, .reader = reader, .chunks = chunks, .listing = ret};

    if (!chunks)
        return error_wrap(err, "archive %s", what);
    ret->n_items = 0;
    ret->has_digests = false;
    int rc = walk_all(&w, err);
    free(w.trailer);
    return rc < 0 ? error_wrap(err, "archive %s", what) : 0;
}

static int open_archive(const char *path, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? error_sys(err, "archive %s: open", path) : fd;
}

int pack_list(const char *path, uint64_t max_size, const struct context *ctx,
              struct pack_listing *ret, struct error *err)
{
    const struct pack_walk walk = {.max_size = max_size, .phase = "verify"};
    cleanup_close int fd = open_archive(path, err);

    return fd < 0 ? -1 : pack_walk(fd, path, &walk, ctx, ret, err);
}

/* ---- named devices ---- */

struct extraction {
    const struct pack_target *targets;
    struct output **outputs; /* NULL = not met yet */
    size_t n;
    bool private; /* one of them holds what was in a guest's memory */
};

static int want_target(void *opaque, const char *name, int *ret_fd, struct error *err)
{
    struct extraction *x = opaque;

    *ret_fd = PACK_SKIP;
    for (size_t i = 0; i < x->n; i++) {
        if (strcmp(x->targets[i].name, name))
            continue;
        if (x->private && output_make_private_parent(x->targets[i].path, err) < 0)
            return -1;
        /* Until it is known what else there is: see publish(). */
        x->outputs[i] = output_begin(x->targets[i].path, OUTPUT_FILE, 0600, err);
        if (!x->outputs[i])
            return -1;
        *ret_fd = output_fd(x->outputs[i]);
    }
    return 0;
}

static int check_targets(const struct pack_target *targets, size_t n, struct error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (pack_check_name(targets[i].name, err) < 0)
            return -1;
        for (size_t j = 0; j < i; j++) {
            if (!strcmp(targets[i].name, targets[j].name))
                return error_set(err, EINVAL, "device %s: is named twice", targets[i].name);
            if (!strcmp(targets[i].path, targets[j].path))
                return error_set(err, EINVAL, "device %s: its path %s is also that of %s",
                                 targets[i].name, targets[i].path, targets[j].name);
        }
    }
    return n ? 0 : error_set(err, EINVAL, "no devices to extract");
}

static int missing(const char *path, const char *name, const struct pack_listing *l,
                   struct error *err)
{
    char names[512] = "";
    size_t used = 0;

    for (size_t i = 0; i < l->n_items && used < sizeof(names); i++)
        used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s", i ? ", " : "",
                                 l->items[i].name);
    return error_set(err, ENOENT, "archive %s: missing device: %s: it holds %s", path, name,
                     l->n_items ? names : "nothing");
}

static bool holds_private(const struct pack_listing *l)
{
    for (size_t i = 0; i < l->n_items; i++)
        if (pack_private(l->items[i].name))
            return true;
    return false;
}

/* The umask, without the change that umask(2) makes for a moment in all threads (proc(5)). */
static mode_t read_umask(void)
{
    char text[4096];
    unsigned mask = 077;
    cleanup_close int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : io_pread(fd, text, sizeof(text) - 1, 0, "/proc/self/status", NULL);

    text[n < 0 ? 0 : n] = '\0';
    const char *line = strstr(text, "\nUmask:");
    return line && sscanf(line + 7, "%o", &mask) == 1 ? mask & 0777 : 077;
}

static int publish(const char *path, const struct extraction *x, const struct pack_listing *l,
                   struct error *err)
{
    if (holds_private(l))
        return 0;
    const mode_t mode = 0666 & ~read_umask();
    for (size_t i = 0; i < x->n; i++)
        if (fchmod(output_fd(x->outputs[i]), mode) < 0)
            return error_sys(err, "archive %s: %s: set permissions", path, x->targets[i].path);
    return 0;
}

static int commit_targets(const char *path, const struct extraction *x, bool durable,
                          const struct pack_listing *l, struct error *err)
{
    for (size_t i = 0; i < x->n; i++)
        if (!x->outputs[i])
            return missing(path, x->targets[i].name, l, err);
    if (publish(path, x, l, err) < 0)
        return -1;
    /* All data first: a disk that fails leaves no target renamed. */
    for (size_t i = 0; durable && i < x->n; i++)
        if (fsync(output_fd(x->outputs[i])) < 0)
            return error_sys(err, "archive %s: %s: sync", path, x->targets[i].path);
    for (size_t i = 0; i < x->n; i++)
        if (output_commit(&x->outputs[i], durable, err) < 0)
            return error_wrap(err, "archive %s", path);
    return 0;
}

int pack_extract(const char *path, const struct pack_target *targets, size_t n_targets,
                 uint64_t max_size, bool durable, const struct context *ctx,
                 struct pack_listing *ret_listing, struct error *err)
{
    struct extraction x = {.targets = targets, .n = n_targets};
    const struct pack_walk walk = {
        .max_size = max_size, .phase = "extract", .want = want_target, .opaque = &x};
    cleanup_free struct pack_listing *own = NULL;

    if (!ret_listing && !(ret_listing = own = malloc(sizeof(*own))))
        return error_oom(err);
    if (check_targets(targets, n_targets, err) < 0)
        return -1;
    cleanup_close int fd = open_archive(path, err);
    cleanup_free struct output **outputs = calloc(n_targets, sizeof(struct output *));
    if (fd < 0)
        return -1;
    if (!outputs)
        return error_oom(err);
    x.outputs = outputs;
    for (size_t i = 0; i < n_targets; i++)
        x.private = x.private || pack_private(targets[i].name);
    int rc = pack_walk(fd, path, &walk, ctx, ret_listing, err);
    if (rc == 0)
        rc = commit_targets(path, &x, durable, ret_listing, err);
    for (size_t i = 0; i < n_targets; i++)
        output_abort(x.outputs[i]);
    return rc;
}

/* ---- a whole folder ---- */

/* While an archive is read its files are called by device, behind a '.', which no name begins
 * with; what their names are is known at the end. */
struct folder {
    int dirfd;
    int fd; /* of the entry being written */
};

static void temporary_name(const char *name, char buf[BLUEPRINT_FILE_MAX + 2])
{
    (void)snprintf(buf, BLUEPRINT_FILE_MAX + 2, ".%s", name);
}

static int want_file(void *opaque, const char *name, int *ret_fd, struct error *err)
{
    struct folder *f = opaque;
    char temp[BLUEPRINT_FILE_MAX + 2];

    if (strlen(name) >= BLUEPRINT_FILE_MAX)
        return error_set(err, ENAMETOOLONG, "its name is too long for a file");
    temporary_name(name, temp);
    if (f->fd >= 0)
        (void)close(f->fd);
    f->fd = openat(f->dirfd, temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (f->fd < 0)
        return error_sys(err, "make its file");
    *ret_fd = f->fd;
    return 0;
}

int pack_extract_folder(const char *path, int dirfd, const char *dir, uint64_t max_size,
                        const struct context *ctx, struct pack_listing *ret_listing,
                        struct error *err)
{
    cleanup_close int fd = open_archive(path, err);

    return fd < 0 ? -1
                  : pack_extract_folder_from(fd, path, dirfd, dir, max_size, ctx, ret_listing, err);
}

int pack_extract_folder_from(int fd, const char *path, int dirfd, const char *dir,
                             uint64_t max_size, const struct context *ctx,
                             struct pack_listing *ret_listing, struct error *err)
{
    struct folder f = {.dirfd = dirfd, .fd = -1};
    const struct pack_walk walk = {
        .max_size = max_size, .phase = "extract", .want = want_file, .opaque = &f};
    cleanup_free struct pack_listing *own = NULL;

    if (!ret_listing && !(ret_listing = own = malloc(sizeof(*own))))
        return error_oom(err);
    int rc = pack_walk(fd, path, &walk, ctx, ret_listing, err);
    if (f.fd >= 0)
        (void)close(f.fd);
    const bool private = rc == 0 && holds_private(ret_listing);
    for (size_t i = 0; rc == 0 && i < ret_listing->n_items; i++) {
        const struct pack_item *item = &ret_listing->items[i];
        char temp[BLUEPRINT_FILE_MAX + 2];
        temporary_name(item->name, temp);
        if (private && fchmodat(dirfd, temp, 0600, 0) < 0)
            rc = error_sys(err, "archive %s: entry %s: set permissions", path, item->name);
        else if (renameat2(dirfd, temp, dirfd, item->file, RENAME_NOREPLACE) < 0)
            rc = error_sys(err, "archive %s: entry %s: name its file %s/%s", path, item->name, dir,
                           item->file);
    }
    return rc;
}
