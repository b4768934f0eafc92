// SPDX-License-Identifier: Apache-2.0
/* folder.c - a tree becomes a folder
 *
 * Theory of operation: two walks. The first makes everything: this thread makes folders (0700,
 * ours) and hands what else lies in them to workers in batches, each with a reference to the
 * folder's open descriptor. The second goes bottom up, when all is there, and gives folders their
 * owner, mode and time; without root it also writes the sidecar, in the order of names.
 *
 * An inode with several names is made once in a staging folder and linked from there to each of
 * them: no name inside the result is ever used to get at a file.
 *
 * syscalls: openat with O_NOFOLLOW, mkdirat, linkat, each with a single name; object.c has those
 * that make what is no folder.
 */
#include "oci/layer/layer.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "oci/layer/object.h"
#include "oci/layer/quote.h"
#include "oci/tree/sidecar.h"
#include "runtime/base/io.h"
#include "runtime/base/workers.h"

#define BATCH_FILES 4096
#define QUEUE_DEPTH 32
#define STAGING ".links.tmp"
#define THREADS_MAX 4

/* inode->scratch while a tree is written, beside OBJECT_XATTRS_ASIDE. */
#define SCRATCH_STAGED (UINT64_C(1) << 62) /* low bits: its number in the staging folder */

struct folder_writer {
    struct tree *tree;
    struct object_writer objects;
    struct workers *workers;
    int staging; /* -1 until an inode needs it */
    uint64_t staged;
    int top;
    FILE *sidecar;
};

/* A folder's descriptor, shared by the walk and the jobs for what lies in it. */
struct shared_fd {
    int fd;
    const struct tree_inode *inode;
    atomic_uint refs;
};

struct batch {
    struct folder_writer *w;
    struct shared_fd *dir;
    size_t n, room;
    struct tree_entry **entries;
};

static void shared_put(struct shared_fd *s)
{
    if (s && atomic_fetch_sub(&s->refs, 1) == 1) {
        if (s->fd >= 0)
            (void)close(s->fd);
        free(s);
    }
}

/* Puts the folder's path in front of an error. */
static int wrap_path(const struct folder_writer *w, const struct tree_inode *dir, struct error *err)
{
    /* An inode does not know its name; its parent's entries do. Errors are rare. */
    for (unsigned depth = 0; dir != tree_root(w->tree) && depth < 16; depth++) {
        char quoted[QUOTE_SIZE];
        size_t cursor = 0;
        const struct tree_entry *e;
        while ((e = tree_next(dir->parent, &cursor)) && e->inode != dir)
            ;
        if (e)
            error_wrap(err, "\"%s\"", quote_name(e->name, e->name_len, quoted));
        dir = dir->parent;
    }
    return -1;
}

/* -- the first walk ---------------------------------------------------------------------------- */

static void drop_batch(void *job)
{
    struct batch *b = job;

    shared_put(b->dir);
    free(b->entries);
    free(b);
}

static int make_batch(void *job, struct error *err)
{
    struct batch *b = job;
    int rc = 0;

    for (size_t i = 0; i < b->n && rc == 0; i++) {
        rc = context_check(b->w->objects.ctx, err);
        if (rc == 0)
            rc = object_make(&b->w->objects, b->entries[i]->inode, b->dir->fd, b->entries[i]->name,
                             err);
        if (rc < 0 && err && err->code != ECANCELED)
            wrap_path(b->w, b->dir->inode, err);
    }
    drop_batch(b);
    return rc;
}

static int add_to_batch(struct folder_writer *w, struct batch **batch, struct shared_fd *dir,
                        struct tree_entry *e, struct error *err)
{
    if (!*batch) {
        *batch = calloc(1, sizeof(**batch));
        if (!*batch)
            return error_oom(err);
        (*batch)->w = w;
        (*batch)->dir = dir;
        atomic_fetch_add(&dir->refs, 1);
    }
    struct batch *b = *batch;
    if (b->n == b->room) {
        size_t room = b->room ? b->room * 2 : 32;
        struct tree_entry **all = realloc(b->entries, room * sizeof(struct tree_entry *));
        if (!all)
            return error_oom(err);
        b->entries = all;
        b->room = room;
    }
    b->entries[b->n++] = e;
    if (b->n < BATCH_FILES)
        return 0;
    return workers_submit(w->workers, make_batch, drop_batch, steal_ptr(batch), err);
}

static int open_staging(struct folder_writer *w, struct error *err)
{
    if (w->staging >= 0)
        return 0;
    if (mkdirat(w->top, STAGING, 0700) < 0)
        return object_failed(err, STAGING, "make the folder");
    w->staging = openat(w->top, STAGING, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return w->staging < 0 ? object_failed(err, STAGING, "open") : 0;
}

/* One of several names. */
static int make_linked(struct folder_writer *w, struct tree_entry *e, const struct shared_fd *dir,
                       struct error *err)
{
    char staged[32];

    if (open_staging(w, err) < 0)
        return -1;
    bool made = e->inode->scratch & SCRATCH_STAGED;
    if (!made)
        e->inode->scratch |= SCRATCH_STAGED | ++w->staged;
    (void)snprintf(
        staged, sizeof(staged), "%llu",
        (unsigned long long)(e->inode->scratch & ~(SCRATCH_STAGED | OBJECT_XATTRS_ASIDE)));
    if (!made && object_make(&w->objects, e->inode, w->staging, staged, err) < 0)
        return error_wrap(err, "\"%s\"", e->name);
    if (linkat(w->staging, staged, dir->fd, e->name, 0) < 0)
        return wrap_path(w, dir->inode, (object_failed(err, e->name, "make the hard link"), err));
    return 0;
}

/* Empties and removes the staging folder; only its own names are in it. */
static int remove_staging(struct folder_writer *w, struct error *err)
{
    char staged[32];

    if (w->staging < 0)
        return 0;
    for (uint64_t i = 1; i <= w->staged; i++) {
        (void)snprintf(staged, sizeof(staged), "%llu", (unsigned long long)i);
        if (unlinkat(w->staging, staged, 0) < 0)
            return object_failed(err, staged, "remove");
    }
    if (unlinkat(w->top, STAGING, AT_REMOVEDIR) < 0)
        return object_failed(err, STAGING, "remove");
    return 0;
}

static struct shared_fd *open_folder(int parent, const char *name, const struct tree_inode *inode,
                                     struct error *err)
{
    struct shared_fd *s = calloc(1, sizeof(*s));

    if (!s) {
        error_oom(err);
        return NULL;
    }
    atomic_init(&s->refs, 1);
    s->inode = inode;
    s->fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (s->fd < 0) {
        object_failed(err, name, "open");
        shared_put(s);
        return NULL;
    }
    return s;
}

/* Makes what lies in a folder; dir's reference stays the caller's. Recursion is bounded by the
 * depth of the tree (LAYER_DEPTH_MAX when it came from layers). */
static int fill_folder(struct folder_writer *w, struct tree_inode *inode, struct shared_fd *dir,
                       struct error *err)
{
    struct batch *batch = NULL;
    size_t n;
    struct tree_entry *const *entries = tree_sorted(inode, &n, err);
    int rc = entries ? context_check(w->objects.ctx, err) : -1;

    /* A folder takes one writer at a time in the kernel: first what this thread has to make in it,
     * then all the rest in one batch, while this thread is in the folders below. */
    for (size_t i = 0; i < n && rc == 0; i++) {
        struct tree_entry *e = entries[i];
        if (e->inode->dir && mkdirat(dir->fd, e->name, 0700) < 0) {
            (void)object_failed(err, e->name, "make the folder");
            rc = wrap_path(w, inode, err);
        } else if (!e->inode->dir && e->inode->names > 1) {
            rc = make_linked(w, e, dir, err);
        }
    }
    for (size_t i = 0; i < n && rc == 0; i++)
        if (!entries[i]->inode->dir && entries[i]->inode->names == 1)
            rc = add_to_batch(w, &batch, dir, entries[i], err);
    if (rc == 0 && batch)
        rc = workers_submit(w->workers, make_batch, drop_batch, steal_ptr(&batch), err);
    if (batch)
        drop_batch(batch);
    for (size_t i = 0; i < n && rc == 0; i++) {
        if (!entries[i]->inode->dir)
            continue;
        struct shared_fd *below = open_folder(dir->fd, entries[i]->name, entries[i]->inode, err);
        rc = below ? fill_folder(w, entries[i]->inode, below, err) : -1;
        shared_put(below);
    }
    return rc;
}

/* -- the second walk --------------------------------------------------------------------------- */

/* A growing path; the sidecar wants it. */
struct path {
    char *text;
    size_t len, room;
};

static int path_push(struct path *p, const char *name, size_t len, struct error *err)
{
    size_t need = p->len + len + 2;

    if (!p->text || need > p->room) {
        char *text = realloc(p->text, need * 2);
        if (!text)
            return error_oom(err);
        p->text = text;
        p->room = need * 2;
    }
    if (p->len)
        p->text[p->len++] = '/';
    memcpy(p->text + p->len, name, len);
    p->len += len;
    p->text[p->len] = '\0';
    return 0;
}

/* What of an object did not make it into the folder goes into the sidecar. */
static int note_aside(struct folder_writer *w, const struct tree_inode *inode, const char *path,
                      const struct stat *st, struct error *err)
{
    cleanup_free struct tree_xattr *aside = calloc(inode->n_xattrs + 1, sizeof(*aside));
    bool plain = S_ISREG(inode->mode) || S_ISDIR(inode->mode);
    size_t n = 0;

    if (!aside)
        return error_oom(err);
    for (size_t i = 0; i < inode->n_xattrs; i++)
        if (!plain || inode->scratch & OBJECT_XATTRS_ASIDE ||
            strncmp(inode->xattrs[i].name, "user.", 5) != 0)
            aside[n++] = inode->xattrs[i];
    if (inode->uid == 0 && inode->gid == 0 && n == 0 && st->st_mode == inode->mode)
        return 0;
    struct sidecar_entry entry = {
        .path = path,
        .mode = inode->mode,
        .uid = inode->uid,
        .gid = inode->gid,
        .rdev_major = inode->rdev_major,
        .rdev_minor = inode->rdev_minor,
        .as_mode = st->st_mode,
        .as_size = S_ISDIR(st->st_mode) ? 0 : (uint64_t)st->st_size,
        .as_mtime_sec = st->st_mtim.tv_sec,
        .as_mtime_nsec = (uint32_t)st->st_mtim.tv_nsec,
        .xattrs = aside,
        .n_xattrs = n,
    };
    return sidecar_write(w->sidecar, &entry, err);
}

static int note_entry(struct folder_writer *w, const struct tree_entry *e, int dirfd,
                      struct path *path, struct error *err)
{
    struct stat st;
    size_t keep = path->len;

    if (!w->sidecar)
        return 0;
    if (fstatat(dirfd, e->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return object_failed(err, e->name, "read its attributes");
    if (path_push(path, e->name, e->name_len, err) < 0 ||
        note_aside(w, e->inode, path->text, &st, err) < 0)
        return -1;
    path->len = keep;
    return 0;
}

/* Gives a folder's folders, then the folder itself, their attributes. */
static int finish_folder(struct folder_writer *w, struct tree_inode *inode, int fd,
                         const char *name, struct path *path, struct error *err)
{
    size_t n, keep = path->len;
    struct tree_entry *const *entries = tree_sorted(inode, &n, err);

    if (!entries || context_check(w->objects.ctx, err) < 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        struct tree_entry *e = entries[i];
        if (e->inode->dir) {
            cleanup_close int below =
                openat(fd, e->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (below < 0)
                return object_failed(err, e->name, "open");
            if (path_push(path, e->name, e->name_len, err) < 0 ||
                finish_folder(w, e->inode, below, e->name, path, err) < 0)
                return -1;
            path->len = keep;
        }
        if (note_entry(w, e, fd, path, err) < 0)
            return -1;
    }
    return object_set_attributes(&w->objects, inode, fd, name, err);
}

static int begin_sidecar(struct folder_writer *w, struct error *err)
{
    cleanup_close int fd =
        openat(w->top, SIDECAR_NAME, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return object_failed(err, SIDECAR_NAME, "create");
    w->sidecar = fdopen(fd, "w");
    if (!w->sidecar)
        return error_oom(err);
    (void)steal_fd(&fd);
    return sidecar_begin(w->sidecar, geteuid(), getegid(), err);
}

static int end_sidecar(struct folder_writer *w, struct error *err)
{
    FILE *file = steal_ptr(&w->sidecar);

    if (file && fclose(file) != 0)
        return error_sys(err, "%s: write", SIDECAR_NAME);
    return 0;
}

static int write_all(struct folder_writer *w, struct error *err)
{
    struct path path = {0};
    struct shared_fd *top = open_folder(w->top, ".", tree_root(w->tree), err);
    int rc = top ? fill_folder(w, tree_root(w->tree), top, err) : -1;

    shared_put(top);
    if (rc == 0)
        rc = workers_finish(w->workers, err);
    if (rc == 0)
        rc = remove_staging(w, err);
    if (rc == 0 && w->objects.rootless)
        rc = begin_sidecar(w, err);
    if (rc < 0)
        return -1;
    /* The root's own attributes come last; the sidecar lies in it, so its end comes before. */
    size_t n;
    struct tree_entry *const *entries = tree_sorted(tree_root(w->tree), &n, err);
    rc = entries ? 0 : -1;
    for (size_t i = 0; i < n && rc == 0; i++) {
        struct tree_entry *e = entries[i];
        path.len = 0;
        if (e->inode->dir) {
            cleanup_close int below =
                openat(w->top, e->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            rc = below < 0 ? object_failed(err, e->name, "open")
                           : path_push(&path, e->name, e->name_len, err);
            if (rc == 0)
                rc = finish_folder(w, e->inode, below, e->name, &path, err);
            path.len = 0;
        }
        if (rc == 0)
            rc = note_entry(w, e, w->top, &path, err);
    }
    free(path.text);
    if (rc == 0)
        rc = end_sidecar(w, err);
    return rc < 0 ? -1 : object_set_attributes(&w->objects, tree_root(w->tree), w->top, ".", err);
}

static unsigned thread_count(unsigned wanted)
{
    cpu_set_t set;

    if (wanted)
        return wanted;
    if (sched_getaffinity(0, sizeof(set), &set) < 0)
        return 1;
    int n = CPU_COUNT(&set);
    return n > THREADS_MAX ? THREADS_MAX : (unsigned)n;
}

int layer_write_folder(struct tree *tree, int dirfd, const struct layer_folder_options *options,
                       const struct context *ctx, struct error *err)
{
    struct folder_writer w = {
        .tree = tree,
        .objects = {.data = tree_get_data(tree), .ctx = ctx, .rootless = options->rootless},
        .staging = -1,
        .top = dirfd,
    };

    w.workers = workers_new(thread_count(options->threads), QUEUE_DEPTH, err);
    if (!w.workers)
        return -1;
    int rc = write_all(&w, err);
    workers_free(w.workers);
    if (w.sidecar)
        (void)fclose(w.sidecar);
    if (w.staging >= 0)
        (void)close(w.staging);
    return rc;
}
