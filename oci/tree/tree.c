// SPDX-License-Identifier: Apache-2.0
/* tree.c - a file system tree in memory: allocation, names, attributes
 *
 * Memory comes from an arena, freed as a whole: a tree has many small objects and one lifetime. A
 * folder's entries stand in an open-addressing hash table (linear probing, a removed entry leaves a
 * tombstone), so that merging stays linear in the number of entries. Its order is another one each
 * time: what is written goes by tree_sorted().
 */
#include "oci/tree/tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define ARENA_CHUNK (256u << 10)
#define DIR_SLOTS_MIN 8

struct arena_chunk {
    struct arena_chunk *next;
    size_t used, size;
    _Alignas(16) uint8_t bytes[];
};

struct tree {
    struct arena_chunk *chunks;
    struct tree_inode *root;
    struct tree_dir *dirs; /* all folders, linked by next, for their tables */
    struct tree_data data;
    uint64_t key[2]; /* of names' hashes */
};

struct tree_dir {
    const uint64_t *key;   /* the tree's */
    struct tree_dir *next; /* all folders of the tree */
    struct tree_entry **slots;
    size_t n_slots;             /* a power of two, or 0 */
    size_t count, used;         /* live entries; live ones and tombstones */
    struct tree_entry **sorted; /* cache of tree_sorted(), NULL = stale */
};

static struct tree_entry tombstone;

void *tree_alloc(struct tree *tree, size_t size, struct error *err)
{
    struct arena_chunk *c = tree->chunks;
    size_t need = (size + 15) & ~(size_t)15;

    if (need < size) {
        error_oom(err);
        return NULL;
    }
    if (!c || c->size - c->used < need) {
        size_t n = need > ARENA_CHUNK / 4 ? need : ARENA_CHUNK;
        struct arena_chunk *fresh = malloc(sizeof(*fresh) + n);
        if (!fresh) {
            error_oom(err);
            return NULL;
        }
        fresh->used = 0;
        fresh->size = n;
        /* A large object gets a chunk of its own behind the current one, which still has room. */
        if (c && n == need && need != ARENA_CHUNK) {
            fresh->next = c->next;
            c->next = fresh;
        } else {
            fresh->next = c;
            tree->chunks = fresh;
        }
        c = fresh;
    }
    void *p = c->bytes + c->used;
    c->used += need;
    return p;
}

char *tree_strdup(struct tree *tree, const char *text, size_t len, struct error *err)
{
    char *copy = tree_alloc(tree, len + 1, err);

    if (copy) {
        memcpy(copy, text, len);
        copy[len] = '\0';
    }
    return copy;
}

struct tree_inode *tree_inode_new(struct tree *tree, uint32_t mode, struct error *err)
{
    struct tree_inode *inode = tree_alloc(tree, sizeof(*inode), err);

    if (!inode)
        return NULL;
    memset(inode, 0, sizeof(*inode));
    inode->mode = mode;
    if (S_ISDIR(mode)) {
        struct tree_dir *dir = tree_alloc(tree, sizeof(*dir), err);
        if (!dir)
            return NULL;
        memset(dir, 0, sizeof(*dir));
        dir->key = tree->key;
        dir->next = tree->dirs;
        tree->dirs = dir;
        inode->dir = dir;
    }
    return inode;
}

struct tree *tree_new(struct error *err)
{
    struct tree *tree = calloc(1, sizeof(*tree));

    if (!tree) {
        error_oom(err);
        return NULL;
    }
    if (getrandom(tree->key, sizeof(tree->key), 0) != sizeof(tree->key)) {
        error_sys(err, "getrandom");
        free(tree);
        return NULL;
    }
    tree->root = tree_inode_new(tree, S_IFDIR | 0755, err);
    if (!tree->root) {
        tree_free(tree);
        return NULL;
    }
    tree->root->parent = tree->root;
    tree->root->names = 1;
    return tree;
}

void tree_free(struct tree *tree)
{
    if (!tree)
        return;
    for (struct tree_dir *d = tree->dirs; d; d = d->next) {
        free(d->slots);
        free(d->sorted);
    }
    for (struct arena_chunk *c = tree->chunks, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    free(tree);
}

struct tree_inode *tree_root(const struct tree *tree)
{
    return tree->root;
}

void tree_set_data(struct tree *tree, const struct tree_data *data)
{
    tree->data = *data;
}

const struct tree_data *tree_get_data(const struct tree *tree)
{
    return &tree->data;
}

int tree_set_xattr(struct tree *tree, struct tree_inode *inode, const char *name, const void *value,
                   size_t size, struct error *err)
{
    size_t len = strlen(name), at = 0;

    if (len == 0 || len > TREE_XATTR_NAME_MAX)
        return error_set(err, EBADMSG, "extended attribute: a name of %zu bytes (1 to %d)", len,
                         TREE_XATTR_NAME_MAX);
    if (size > TREE_XATTR_VALUE_MAX)
        return error_set(err, EBADMSG, "extended attribute \"%s\": %zu bytes (at most %d)", name,
                         size, TREE_XATTR_VALUE_MAX);
    uint8_t *copy = tree_alloc(tree, size ? size : 1, err);
    if (!copy)
        return -1;
    if (size)
        memcpy(copy, value, size);
    while (at < inode->n_xattrs && strcmp(inode->xattrs[at].name, name) < 0)
        at++;
    if (at < inode->n_xattrs && strcmp(inode->xattrs[at].name, name) == 0) {
        inode->xattrs[at].value = copy;
        inode->xattrs[at].size = size;
        return 0;
    }
    char *name_copy = tree_strdup(tree, name, len, err);
    struct tree_xattr *all = tree_alloc(tree, (inode->n_xattrs + 1) * sizeof(*all), err);
    if (!name_copy || !all)
        return -1;
    if (inode->n_xattrs) {
        memcpy(all, inode->xattrs, at * sizeof(*all));
        memcpy(all + at + 1, inode->xattrs + at, (inode->n_xattrs - at) * sizeof(*all));
    }
    all[at] = (struct tree_xattr){.name = name_copy, .value = copy, .size = size};
    inode->xattrs = all;
    inode->n_xattrs++;
    return 0;
}

const struct tree_xattr *tree_get_xattr(const struct tree_inode *inode, const char *name)
{
    for (size_t i = 0; i < inode->n_xattrs; i++)
        if (strcmp(inode->xattrs[i].name, name) == 0)
            return &inode->xattrs[i];
    return NULL;
}

static uint64_t rotate(uint64_t v, unsigned n)
{
    return v << n | v >> (64 - n);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] = rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] = rotate(v[2], 32);
}

/* SipHash-1-3 (Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012), keyed anew for each
 * tree: an image cannot choose names that collide. */
static size_t hash_name(const uint64_t key[2], const char *name, size_t len)
{
    uint64_t v[4] = {key[0] ^ UINT64_C(0x736f6d6570736575), key[1] ^ UINT64_C(0x646f72616e646f6d),
                     key[0] ^ UINT64_C(0x6c7967656e657261), key[1] ^ UINT64_C(0x7465646279746573)};

    for (size_t i = 0;; i += 8) {
        uint64_t word = 0;
        if (len - i >= 8) {
            memcpy(&word, name + i, 8);
        } else {
            memcpy(&word, name + i, len - i);
            word ^= (uint64_t)len << 56;
        }
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
        if (len - i < 8)
            break;
    }
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        sip_round(v);
    return (size_t)(v[0] ^ v[1] ^ v[2] ^ v[3]);
}

/* The slot that holds the name, or the free one where it would go. The table is never full. */
static size_t find_slot(const struct tree_dir *dir, const char *name, size_t len)
{
    size_t mask = dir->n_slots - 1, reuse = SIZE_MAX;

    for (size_t i = hash_name(dir->key, name, len) & mask;; i = (i + 1) & mask) {
        const struct tree_entry *e = dir->slots[i];
        if (!e)
            return reuse != SIZE_MAX ? reuse : i;
        if (e == &tombstone) {
            if (reuse == SIZE_MAX)
                reuse = i;
        } else if (e->name_len == len && memcmp(e->name, name, len) == 0) {
            return i;
        }
    }
}

static int grow(struct tree_dir *dir, struct error *err)
{
    size_t n = DIR_SLOTS_MIN;

    while (n < dir->count * 4)
        n *= 2;
    struct tree_entry **old = dir->slots;
    size_t n_old = dir->n_slots;
    struct tree_entry **slots = calloc(n, sizeof(struct tree_entry *));
    if (!slots)
        return error_oom(err);
    dir->slots = slots;
    dir->n_slots = n;
    dir->used = dir->count;
    for (size_t i = 0; i < n_old; i++)
        if (old[i] && old[i] != &tombstone)
            slots[find_slot(dir, old[i]->name, old[i]->name_len)] = old[i];
    free(old);
    return 0;
}

struct tree_entry *tree_lookup(const struct tree_inode *dir, const char *name, size_t len)
{
    if (!dir->dir || !dir->dir->count)
        return NULL;
    struct tree_entry *e = dir->dir->slots[find_slot(dir->dir, name, len)];
    return e == &tombstone ? NULL : e;
}

static void stale(struct tree_dir *dir)
{
    free(dir->sorted);
    dir->sorted = NULL;
}

struct tree_entry *tree_link(struct tree *tree, struct tree_inode *dir, const char *name,
                             size_t len, struct tree_inode *inode, struct error *err)
{
    const char *fault = NULL;
    int shown = len > 64 ? 64 : (int)len;

    if (!dir->dir) {
        error_set(err, ENOTDIR, "\"%.*s\": its parent is not a folder", shown, name);
        return NULL;
    }
    if (len == 0 || (len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.'))
        fault = "is no name for a file";
    else if (len > TREE_NAME_MAX)
        fault = "is longer than 255 bytes";
    else if (memchr(name, '/', len) || memchr(name, '\0', len))
        fault = "contains a slash or a NUL byte";
    else if (inode->dir && inode->names)
        fault = "would be a second name for a folder";
    if (fault) {
        error_set(err, EINVAL, "\"%.*s\": %s", shown, name, fault);
        return NULL;
    }
    /* At most half full, tombstones counted. */
    if ((dir->dir->used + 1) * 2 > dir->dir->n_slots && grow(dir->dir, err) < 0)
        return NULL;
    size_t slot = find_slot(dir->dir, name, len);
    struct tree_entry *old = dir->dir->slots[slot];
    if (old && old != &tombstone) {
        error_set(err, EEXIST, "\"%.*s\": exists already", shown, name);
        return NULL;
    }
    struct tree_entry *entry = tree_alloc(tree, sizeof(*entry), err);
    char *copy = entry ? tree_strdup(tree, name, len, err) : NULL;
    if (!copy)
        return NULL;
    *entry = (struct tree_entry){.name = copy, .name_len = len, .inode = inode};
    dir->dir->slots[slot] = entry;
    dir->dir->count++;
    if (!old)
        dir->dir->used++;
    stale(dir->dir);
    inode->names++;
    if (inode->dir)
        inode->parent = dir;
    return entry;
}

/* Counts down what lies below a removed folder, with a stack of its own: depth is the image's. */
static void forget_below(struct tree_inode *top)
{
    struct tree_inode *dir = top;
    size_t cursor = 0;

    /* `scratch` holds where the walk goes on in the parent. */
    for (;;) {
        struct tree_entry *e = tree_next(dir, &cursor);
        if (e) {
            e->inode->names--;
            if (e->inode->dir) {
                dir->scratch = cursor;
                dir = e->inode;
                cursor = 0;
            }
            continue;
        }
        if (dir == top)
            return;
        dir = dir->parent;
        cursor = dir->scratch;
        dir->scratch = 0;
    }
}

void tree_unlink(struct tree_inode *dir, struct tree_entry *entry)
{
    size_t slot = find_slot(dir->dir, entry->name, entry->name_len);

    if (dir->dir->slots[slot] != entry)
        return;
    dir->dir->slots[slot] = &tombstone;
    dir->dir->count--;
    stale(dir->dir);
    entry->inode->names--;
    if (entry->inode->dir)
        forget_below(entry->inode);
}

size_t tree_count(const struct tree_inode *dir)
{
    return dir->dir ? dir->dir->count : 0;
}

struct tree_entry *tree_next(const struct tree_inode *dir, size_t *cursor)
{
    while (*cursor < dir->dir->n_slots) {
        struct tree_entry *e = dir->dir->slots[(*cursor)++];
        if (e && e != &tombstone)
            return e;
    }
    return NULL;
}

static int compare_entries(const void *a, const void *b)
{
    const struct tree_entry *x = *(struct tree_entry *const *)a;
    const struct tree_entry *y = *(struct tree_entry *const *)b;
    size_t n = x->name_len < y->name_len ? x->name_len : y->name_len;
    int c = memcmp(x->name, y->name, n);

    return c ? c : (x->name_len > y->name_len) - (x->name_len < y->name_len);
}

struct tree_entry *const *tree_sorted(const struct tree_inode *dir, size_t *ret_n,
                                      struct error *err)
{
    struct tree_dir *d = dir->dir;

    if (!d->sorted) {
        struct tree_entry **all = calloc(d->count + 1, sizeof(struct tree_entry *));
        if (!all) {
            error_oom(err);
            return NULL;
        }
        size_t cursor = 0;
        for (size_t i = 0; i < d->count; i++)
            all[i] = tree_next(dir, &cursor);
        qsort(all, d->count, sizeof(struct tree_entry *), compare_entries);
        d->sorted = all;
    }
    *ret_n = d->count;
    return d->sorted;
}
