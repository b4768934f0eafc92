// SPDX-License-Identifier: Apache-2.0
/* tree_resolve.c - what a path means inside a tree
 *
 * Theory of operation: resolution walks components from the root with a small stack of texts still
 * to be read: a symlink pushes its target in front of what is left, an absolute target starts over
 * at the root. The number of symlinks is limited as the kernel limits it, so the stack is bounded.
 */
#include <errno.h>
#include <string.h>

#include "oci/tree/tree.h"

struct walk {
    const struct tree *tree;
    struct tree_inode *dir;
    struct {
        const char *p;
        size_t left;
    } texts[TREE_LINK_HOPS_MAX + 1];
    unsigned depth; /* texts in use */
    unsigned hops;
};

/* Cuts the next component off; returns 0 at the end of everything. *last: nothing follows it. */
static int next_component(struct walk *w, const char **ret_name, size_t *ret_len, bool *ret_last)
{
    while (w->depth > 0) {
        const char *p = w->texts[w->depth - 1].p;
        size_t left = w->texts[w->depth - 1].left;
        while (left && *p == '/') {
            p++;
            left--;
        }
        size_t n = 0;
        while (n < left && p[n] != '/')
            n++;
        w->texts[w->depth - 1].p = p + n;
        w->texts[w->depth - 1].left = left - n;
        if (n == 0) {
            w->depth--;
            continue;
        }
        *ret_name = p;
        *ret_len = n;
        *ret_last = true;
        for (unsigned i = 0; i < w->depth && *ret_last; i++) {
            const char *q = w->texts[i].p;
            for (size_t k = 0; k < w->texts[i].left && *ret_last; k++)
                *ret_last = q[k] == '/';
        }
        return 1;
    }
    return 0;
}

static int push_link(struct walk *w, const char *target, struct error *err)
{
    if (++w->hops > TREE_LINK_HOPS_MAX)
        return error_set(err, ELOOP, "more than %d symlinks in a row", TREE_LINK_HOPS_MAX);
    if (target[0] == '/')
        w->dir = tree_root(w->tree);
    w->texts[w->depth].p = target;
    w->texts[w->depth].left = strlen(target);
    w->depth++;
    return 0;
}

static void start(struct walk *w, const struct tree *tree, const char *path, size_t len)
{
    w->tree = tree;
    w->dir = tree_root(tree);
    w->texts[0].p = path;
    w->texts[0].left = len;
    w->depth = 1;
    w->hops = 0;
}

static bool is_dot(const char *name, size_t len)
{
    return len == 1 && name[0] == '.';
}

static bool is_dot_dot(const char *name, size_t len)
{
    return len == 2 && name[0] == '.' && name[1] == '.';
}

int tree_resolve(const struct tree *tree, const char *path, size_t len, bool follow_last,
                 struct tree_inode **ret_inode, struct error *err)
{
    struct walk w;
    const char *name;
    size_t n;
    bool last;

    start(&w, tree, path, len);
    while (next_component(&w, &name, &n, &last)) {
        if (is_dot(name, n))
            continue;
        if (is_dot_dot(name, n)) {
            w.dir = w.dir->parent;
            continue;
        }
        struct tree_entry *e = tree_lookup(w.dir, name, n);
        if (!e)
            return error_set(err, ENOENT, "\"%.*s\": no such entry", (int)n, name);
        if (S_ISLNK(e->inode->mode) && (!last || follow_last)) {
            if (push_link(&w, e->inode->target, err) < 0)
                return -1;
        } else if (e->inode->dir) {
            w.dir = e->inode;
        } else if (last) {
            *ret_inode = e->inode;
            return 0;
        } else {
            return error_set(err, ENOTDIR, "\"%.*s\": not a folder", (int)n, name);
        }
    }
    *ret_inode = w.dir;
    return 0;
}

int tree_resolve_parent(const struct tree *tree, const char *path, size_t len,
                        struct tree_inode *(*make)(void *opaque, struct tree_inode *dir,
                                                   const char *name, size_t len, struct error *err),
                        void *opaque, struct tree_inode **ret_dir, const char **ret_name,
                        size_t *ret_len, struct error *err)
{
    /* The last component is cut off the text itself, so that all else is followed to its end. */
    for (;;) {
        while (len && path[len - 1] == '/')
            len--;
        if (len && path[len - 1] == '.' && (len == 1 || path[len - 2] == '/'))
            len--; /* a trailing "." names the folder before it */
        else
            break;
    }
    size_t cut = len;
    while (cut && path[cut - 1] != '/')
        cut--;
    if (is_dot_dot(path + cut, len - cut))
        return error_set(err, EINVAL, "ends in \"..\"");

    struct walk w;
    const char *name;
    size_t n;
    bool last;
    start(&w, tree, path, cut);
    while (next_component(&w, &name, &n, &last)) {
        if (is_dot(name, n))
            continue;
        if (is_dot_dot(name, n)) {
            w.dir = w.dir->parent;
            continue;
        }
        struct tree_entry *e = tree_lookup(w.dir, name, n);
        if (e && S_ISLNK(e->inode->mode)) {
            if (push_link(&w, e->inode->target, err) < 0)
                return -1;
        } else if (e && e->inode->dir) {
            w.dir = e->inode;
        } else if (e) {
            return error_set(err, ENOTDIR, "\"%.*s\": not a folder", (int)n, name);
        } else if (make) {
            struct tree_inode *made = make(opaque, w.dir, name, n, err);
            if (!made)
                return -1;
            w.dir = made;
        } else {
            return error_set(err, ENOENT, "\"%.*s\": no such folder", (int)n, name);
        }
    }
    *ret_dir = w.dir;
    *ret_name = path + cut;
    *ret_len = len - cut;
    return 0;
}
