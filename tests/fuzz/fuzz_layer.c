// SPDX-License-Identifier: Apache-2.0
/* fuzz_layer.c - tar bytes onto a tree: up to three layers, cut at any place
 *
 * Input: two bytes that say where the layers divide (in 1/256 of the rest), one for the size of the
 * pieces the stream comes in, then tar. Checksums of blocks with a magic are made right first:
 * guessing them is not what the time is for. Afterwards the tree must hold together.
 */
#include <assert.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "oci/layer/layer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct pieces {
    const uint8_t *data;
    size_t left, piece;
};

static int next_piece(void *opaque, const uint8_t **ret_data, size_t *ret_len, struct error *err)
{
    struct pieces *p = opaque;
    size_t n = p->left < p->piece ? p->left : p->piece;

    (void)err;
    *ret_data = p->data;
    *ret_len = n;
    p->data += n;
    p->left -= n;
    return 0;
}

static void fix_checksums(uint8_t *data, size_t size)
{
    for (size_t at = 0; at + 512 <= size; at += 512) {
        uint8_t *h = data + at;
        unsigned sum = 0;
        if (memcmp(h + 257, "ustar", 5) != 0)
            continue;
        memset(h + 148, ' ', 8);
        for (size_t i = 0; i < 512; i++)
            sum += h[i];
        char text[8];
        (void)snprintf(text, sizeof(text), "%06o", sum);
        memcpy(h + 148, text, 7);
    }
}

static void check(const struct tree_inode *dir, uint64_t spooled, unsigned depth)
{
    struct error err;
    size_t n;
    struct tree_entry *const *entries = tree_sorted(dir, &n, &err);

    assert(entries && depth <= LAYER_DEPTH_MAX);
    for (size_t i = 0; i < n; i++) {
        const struct tree_entry *e = entries[i];
        const struct tree_inode *inode = e->inode;
        assert(e->name_len > 0 && e->name_len <= TREE_NAME_MAX && !strchr(e->name, '/'));
        assert(strcmp(e->name, ".") != 0 && strcmp(e->name, "..") != 0);
        assert(strncmp(e->name, ".wh.", 4) != 0);
        assert(tree_lookup(dir, e->name, e->name_len) == e);
        assert(inode->names > 0 && inode->uid != UINT32_MAX && inode->gid != UINT32_MAX);
        assert(inode->mtime_nsec < 1000000000);
        for (size_t k = 0; k + 1 < inode->n_xattrs; k++)
            assert(strcmp(inode->xattrs[k].name, inode->xattrs[k + 1].name) < 0);
        uint64_t end = 0;
        for (size_t k = 0; k < inode->n_extents; k++) {
            const struct tree_extent *x = &inode->extents[k];
            assert(S_ISREG(inode->mode) && x->offset >= end && x->length > 0);
            assert(x->offset + x->length <= inode->size);
            assert(x->source_offset + x->length <= spooled);
            end = x->offset + x->length;
        }
        if (S_ISLNK(inode->mode))
            assert(inode->target && *inode->target);
        if (S_ISDIR(inode->mode)) {
            assert(inode->names == 1 && inode->parent == dir);
            check(inode, spooled, depth + 1);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int dirfd = -1;
    struct error err = ERROR_INIT;
    const struct layer_limits limits = {.max_entries = 10000, .max_metadata = 8 << 20};

    if (size < 3)
        return 0;
    if (dirfd < 0)
        dirfd = open("/dev/shm", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    size_t n = size - 3,
           cut[4] = {0, n * data[0] / 256 / 512 * 512, n * data[1] / 256 / 512 * 512, n};
    if (cut[1] > cut[2])
        cut[1] = cut[2];
    uint8_t *copy = malloc(n + 1);
    struct tree *tree = tree_new(&err);
    struct layer_store *store = layer_store_new(tree, dirfd, &limits, NULL, &err);
    assert(copy && store);
    memcpy(copy, data + 3, n);
    fix_checksums(copy, n);
    int rc = 0;
    for (int i = 0; i < 3 && rc == 0; i++) {
        struct pieces p = {.data = copy + cut[i],
                           .left = cut[i + 1] - cut[i],
                           .piece = data[2] ? data[2] * 7u : 65536};
        rc = layer_apply(store, next_piece, &p, &err);
        assert(rc == 0 || (err.code != 0 && err.text[0]));
    }
    if (rc == 0)
        check(tree_root(tree), n, 0);
    layer_store_free(store);
    tree_free(tree);
    free(copy);
    return 0;
}
