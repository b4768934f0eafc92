// SPDX-License-Identifier: Apache-2.0
/* layer.c - layers, one after the other, through the spool into the tree */
#include "oci/layer/layer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "oci/layer/merge.h"
#include "oci/layer/quote.h"
#include "oci/layer/store.h"
#include "oci/layer/tar.h"
#include "runtime/base/io.h"

static int open_spool(int dirfd, struct error *err)
{
    int fd = openat(dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT)) {
        /* A file system without O_TMPFILE (overlayfs of old kernels, NFS). */
        char name[64];
        (void)snprintf(name, sizeof(name), ".layers.tmp-%d", (int)getpid());
        fd = openat(dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd >= 0)
            (void)unlinkat(dirfd, name, 0);
    }
    return fd < 0 ? error_sys(err, "make a temporary file for layers") : fd;
}

static int open_data(void *opaque, const struct tree_inode *inode, int *ret_fd, struct error *err)
{
    struct layer_store *store = opaque;

    (void)inode;
    (void)err;
    *ret_fd = store->spool;
    return 0;
}

static void close_data(void *opaque, int fd)
{
    (void)opaque;
    (void)fd;
}

struct tree_data layer_store_data(struct layer_store *store)
{
    return (struct tree_data){.open = open_data, .close = close_data, .opaque = store};
}

struct layer_store *layer_store_new(struct tree *tree, int dirfd, const struct layer_limits *limits,
                                    const struct context *ctx, struct error *err)
{
    cleanup_layer_store struct layer_store *store = calloc(1, sizeof(*store));

    if (!store) {
        error_oom(err);
        return NULL;
    }
    store->spool = -1;
    store->tree = tree;
    store->ctx = ctx;
    if (limits)
        store->limits = *limits;
    struct layer_limits *l = &store->limits;
    l->max_bytes = l->max_bytes ?: LAYER_MAX_BYTES;
    l->max_ratio = l->max_ratio ?: LAYER_MAX_RATIO;
    l->max_entries = l->max_entries ?: LAYER_MAX_ENTRIES;
    l->max_file_size = l->max_file_size ?: LAYER_MAX_FILE_SIZE;
    l->max_metadata = l->max_metadata ?: LAYER_MAX_METADATA;
    store->spool = open_spool(dirfd, err);
    if (store->spool < 0)
        return NULL;
    struct tree_data data = layer_store_data(store);
    tree_set_data(tree, &data);
    return steal_ptr(&store);
}

void layer_store_free(struct layer_store *store)
{
    if (!store)
        return;
    if (store->spool >= 0)
        (void)close(store->spool);
    free(store);
}

/* Appends to the spool; zeros become a hole. */
static int spool(struct layer_store *s, const void *data, size_t len, struct error *err)
{
    if (!io_is_zero(data, len) &&
        io_pwrite(s->spool, data, len, s->spool_size, "temporary file for layers", err) < 0)
        return -1;
    s->spool_size += len;
    return 0;
}

static int fix_spool_size(struct layer_store *s, struct error *err)
{
    if (ftruncate(s->spool, (off_t)s->spool_size) < 0)
        return error_sys(err, "temporary file for layers: resize");
    return 0;
}

/* The source that the tar reader sees: what passes is spooled. */
struct spooling {
    struct layer_store *store;
    int (*read)(void *opaque, const uint8_t **ret_data, size_t *ret_len, struct error *err);
    void *opaque;
};

static int read_and_spool(void *opaque, const uint8_t **ret_data, size_t *ret_len,
                          struct error *err)
{
    struct spooling *p = opaque;
    struct layer_store *s = p->store;

    if (p->read(p->opaque, ret_data, ret_len, err) < 0)
        return -1;
    s->bytes += *ret_len;
    if (s->bytes > s->limits.max_bytes)
        return error_set(err, E2BIG, "more than %llu uncompressed bytes (--max-bytes)",
                         (unsigned long long)s->limits.max_bytes);
    context_progress(s->ctx, "layers", s->bytes, 0, "bytes");
    return *ret_len ? spool(s, *ret_data, *ret_len, err) : 0;
}

int layer_apply(struct layer_store *store,
                int (*read)(void *opaque, const uint8_t **ret_data, size_t *ret_len,
                            struct error *err),
                void *opaque, struct error *err)
{
    struct spooling spooling = {.store = store, .read = read, .opaque = opaque};
    struct tar_source source = {.read = read_and_spool, .opaque = &spooling};
    cleanup_tar_reader struct tar_reader *reader = tar_reader_new(&source, err);
    const struct tar_entry *entry;
    uint64_t base = store->spool_size;
    unsigned count = 0;
    int rc;

    if (!reader)
        return -1;
    store->layer++;
    while ((rc = tar_reader_next(reader, &entry, err)) > 0) {
        if (++count % 256 == 0 && context_check(store->ctx, err) < 0)
            return -1;
        if (merge_entry(store, entry, base, err) < 0) {
            rc = -1;
            break;
        }
    }
    if (rc < 0) {
        char quoted[QUOTE_SIZE];
        size_t len;
        const char *path = tar_reader_path(reader, &len);
        if (len && err && err->code != ECANCELED)
            error_wrap(err, "entry \"%s\"", quote_name(path, len, quoted));
        return -1;
    }
    return fix_spool_size(store, err);
}

int layer_store_put(struct layer_store *store, struct tree *tree, struct tree_inode *inode,
                    const void *data, size_t len, struct error *err)
{
    struct tree_extent *extent = tree_alloc(tree, sizeof(*extent), err);

    if (!extent)
        return -1;
    *extent = (struct tree_extent){.length = len, .source_offset = store->spool_size};
    if (len && (spool(store, data, len, err) < 0 || fix_spool_size(store, err) < 0))
        return -1;
    inode->size = len;
    inode->extents = extent;
    inode->n_extents = len ? 1 : 0;
    return 0;
}
