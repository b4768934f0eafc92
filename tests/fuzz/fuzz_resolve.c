// SPDX-License-Identifier: Apache-2.0
/* fuzz_resolve.c - what paths mean in a tree of folders, files and symlinks
 *
 * Input: lines. "PATH>TARGET" makes a symlink, "PATH=" a file, any other line a folder; parents are
 * made. Then every line's path is resolved again, following and not. Whatever comes out must be an
 * inode that hangs in the tree.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "oci/tree/tree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct tree_inode *make(void *opaque, struct tree_inode *dir, const char *name, size_t len,
                               struct error *err)
{
    struct tree_inode *inode = tree_inode_new(opaque, S_IFDIR | 0755, err);

    return inode && tree_link(opaque, dir, name, len, inode, err) ? inode : NULL;
}

static void check(const struct tree *tree, const struct tree_inode *inode)
{
    size_t steps = 0;

    assert(inode && inode->names > 0);
    if (!inode->dir)
        return;
    for (; inode != tree_root(tree); inode = inode->parent) {
        steps++;
        assert(inode->parent && inode->parent->dir && steps < 100000);
    }
}

static void add(struct tree *tree, const char *line, size_t len)
{
    const char *arrow = memchr(line, '>', len), *equals = memchr(line, '=', len), *name;
    size_t path = arrow ? (size_t)(arrow - line) : equals ? (size_t)(equals - line) : len, n;
    struct tree_inode *dir, *inode;
    struct error err;

    if (tree_resolve_parent(tree, line, path, make, tree, &dir, &name, &n, &err) < 0) {
        assert(err.text[0]);
        return;
    }
    check(tree, dir);
    assert(n == 0 || (name >= line && name + n <= line + path));
    struct tree_entry *old = n ? tree_lookup(dir, name, n) : NULL;
    if (old && !old->inode->dir)
        tree_unlink(dir, old);
    inode = tree_inode_new(tree,
                           arrow    ? S_IFLNK | 0777
                           : equals ? S_IFREG | 0644
                                    : S_IFDIR | 0755,
                           &err);
    if (arrow)
        inode->target = tree_strdup(tree, arrow + 1, len - path - 1, &err);
    (void)tree_link(tree, dir, name, n, inode, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err;
    struct tree *tree = tree_new(&err);

    if (size > 4096)
        size = 4096;
    for (int round = 0; round < 2; round++) {
        const char *p = (const char *)data, *end = p + size;
        while (p < end) {
            const char *nl = memchr(p, '\n', (size_t)(end - p));
            size_t len = nl ? (size_t)(nl - p) : (size_t)(end - p);
            struct tree_inode *inode;
            if (round == 0) {
                add(tree, p, len);
            } else {
                for (int follow = 0; follow < 2; follow++)
                    if (tree_resolve(tree, p, len, follow, &inode, &err) == 0) {
                        check(tree, inode);
                        assert(!follow || !S_ISLNK(inode->mode));
                    }
            }
            p += len + 1;
        }
    }
    tree_free(tree);
    return 0;
}
