// SPDX-License-Identifier: Apache-2.0
/* output.c - files and folders that appear whole or not at all */
#include "runtime/base/output.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

/* How deep output_remove_tree() goes: a bound for the stack, far above PATH_MAX / 2 components. */
#define REMOVE_DEPTH_MAX 4096

struct output {
    enum output_kind kind;
    unsigned mode;
    int parent;  /* O_PATH fd of the folder that holds both names */
    int fd;      /* the temporary */
    char *base;  /* final name within parent */
    char *temp;  /* temporary name within parent */
    char *path;  /* the temporary's path as the caller would spell it */
    char *final; /* the final path, for error texts */
};

static void output_free(struct output *out)
{
    if (!out)
        return;
    if (out->fd >= 0)
        (void)close(out->fd);
    if (out->parent >= 0)
        (void)close(out->parent);
    free(out->base);
    free(out->temp);
    free(out->path);
    free(out->final);
    free(out);
}

/* mode: of the last one. */
static int make_dirs(const char *path, mode_t mode, struct error *err)
{
    cleanup_free char *copy = strdup(path);
    if (!copy)
        return error_oom(err);
    for (char *p = copy; *p;) {
        p += strspn(p, "/");
        p += strcspn(p, "/");
        char c = *p;
        *p = '\0';
        const char *rest = path + (p - copy);
        bool last = !rest[strspn(rest, "/")];
        if (*copy && mkdir(copy, last ? mode : 0777) < 0 && errno != EEXIST)
            return error_sys(err, "%s: make the folder", copy);
        *p = c;
    }
    struct stat st;
    if (*path && stat(path, &st) == 0 && !S_ISDIR(st.st_mode))
        return error_set(err, ENOTDIR, "%s: is not a folder", path);
    return 0;
}

int output_make_dirs(const char *path, struct error *err)
{
    return make_dirs(path, 0777, err);
}

int output_make_private_dirs(const char *path, struct error *err)
{
    return make_dirs(path, 0700, err);
}

int output_make_private_parent(const char *path, struct error *err)
{
    const char *slash = strrchr(path, '/');

    if (!slash || slash == path)
        return 0;
    cleanup_free char *dir = strndup(path, (size_t)(slash - path));
    return dir ? output_make_private_dirs(dir, err) : error_oom(err);
}

/* Removes what an earlier, killed process left under a temporary name of this output. */
static void sweep_leftovers(int parent, const char *base)
{
    cleanup_free char *prefix = NULL;
    if (asprintf(&prefix, ".%s.tmp-", base) < 0) {
        prefix = NULL;
        return;
    }
    cleanup_close int scan = openat(parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (scan < 0)
        return;
    cleanup_closedir DIR *dir = fdopendir(scan);
    if (!dir)
        return;
    (void)steal_fd(&scan);
    struct dirent *ent;
    while ((ent = readdir(dir))) {
        if (strncmp(ent->d_name, prefix, strlen(prefix)) != 0)
            continue;
        cleanup_close int fd =
            openat(parent, ent->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
            continue; /* Somebody is making it right now. */
        (void)output_remove_tree(parent, ent->d_name, NULL);
    }
}

/* Splits path into its folder (".": none was named) and its last component. */
static int split_path(const char *path, char **ret_dir, char **ret_base, struct error *err)
{
    cleanup_free char *copy = strdup(path);
    if (!copy)
        return error_oom(err);
    size_t len = strlen(copy);
    while (len > 1 && copy[len - 1] == '/')
        copy[--len] = '\0';
    char *slash = strrchr(copy, '/');
    const char *base = slash ? slash + 1 : copy;
    if (!*base || strcmp(base, ".") == 0 || strcmp(base, "..") == 0)
        return error_set(err, EINVAL, "%s: names no file to write", path);
    cleanup_free char *b = strdup(base);
    cleanup_free char *d = NULL;
    if (!slash)
        d = strdup(".");
    else if (slash == copy)
        d = strdup("/");
    else
        d = strndup(copy, (size_t)(slash - copy));
    if (!b || !d)
        return error_oom(err);
    *ret_base = steal_ptr(&b);
    *ret_dir = steal_ptr(&d);
    return 0;
}

static int make_temporary(struct output *out)
{
    if (out->kind == OUTPUT_FILE) {
        out->fd = openat(out->parent, out->temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
                         out->mode);
        return out->fd < 0 ? -1 : 0;
    }
    if (mkdirat(out->parent, out->temp, 0700) < 0)
        return -1;
    out->fd = openat(out->parent, out->temp, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return out->fd < 0 ? -1 : 0;
}

struct output *output_begin(const char *path, enum output_kind kind, unsigned mode,
                            struct error *err)
{
    struct output *out = calloc(1, sizeof(*out));
    if (!out) {
        error_oom(err);
        return NULL;
    }
    out->kind = kind;
    out->mode = mode;
    out->parent = out->fd = -1;
    cleanup_free char *dir = NULL;
    uint32_t random = 0;
    if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0)
        random = 0; /* O_EXCL decides; the number only makes a clash unlikely. */
    if (split_path(path, &dir, &out->base, err) < 0 || output_make_dirs(dir, err) < 0)
        goto fail;
    out->final = strdup(path);
    if (!out->final ||
        asprintf(&out->temp, ".%s.tmp-%d-%08x", out->base, (int)getpid(), random) < 0) {
        error_oom(err);
        goto fail;
    }
    if (asprintf(&out->path, "%s/%s", dir, out->temp) < 0) {
        out->path = NULL;
        error_oom(err);
        goto fail;
    }
    out->parent = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (out->parent < 0) {
        error_sys(err, "%s: open the folder", dir);
        goto fail;
    }
    sweep_leftovers(out->parent, out->base);
    if (make_temporary(out) < 0) {
        error_sys(err, "%s: make a temporary beside it", path);
        goto fail;
    }
    /* Shared: a layer of runtime/block may be put on it while it is being made. */
    (void)flock(out->fd, LOCK_SH | LOCK_NB);
    return out;
fail:
    output_free(out);
    return NULL;
}

int output_fd(const struct output *out)
{
    return out->fd;
}

const char *output_path(const struct output *out)
{
    return out->path;
}

/* renameat2(RENAME_EXCHANGE) where a folder stands already, else a plain rename. */
static int swap_in(struct output *out, struct error *err)
{
    if (out->kind == OUTPUT_DIR &&
        renameat2(out->parent, out->temp, out->parent, out->base, RENAME_EXCHANGE) == 0)
        return output_remove_tree(out->parent, out->temp, err);
    if (renameat(out->parent, out->temp, out->parent, out->base) < 0)
        return error_sys(err, "%s: rename the finished file into place", out->final);
    return 0;
}

int output_commit(struct output **outp, bool durable, struct error *err)
{
    struct output *out = *outp;
    int rc = 0;

    *outp = NULL;
    if (out->kind == OUTPUT_DIR && fchmod(out->fd, out->mode) < 0)
        rc = error_sys(err, "%s: set permissions", out->final);
    /* A folder's contents are many files: one syncfs is cheaper than an fsync each. */
    if (rc == 0 && durable && (out->kind == OUTPUT_DIR ? syncfs(out->fd) : fsync(out->fd)) < 0)
        rc = error_sys(err, "%s: sync", out->final);
    if (rc == 0)
        rc = swap_in(out, err);
    if (rc == 0 && durable) {
        cleanup_close int dir = openat(out->parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir < 0 || fsync(dir) < 0)
            rc = error_sys(err, "%s: sync its folder", out->final);
    }
    if (rc < 0)
        (void)output_remove_tree(out->parent, out->temp, NULL);
    output_free(out);
    return rc;
}

void output_abort(struct output *out)
{
    int saved = errno;

    if (out)
        (void)output_remove_tree(out->parent, out->temp, NULL);
    output_free(out);
    errno = saved;
}

static int remove_at(int parent, const char *name, dev_t dev, unsigned depth, struct error *err)
{
    if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return error_sys(err, "%s: remove", name);
    cleanup_close int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == EACCES && fchmodat(parent, name, 0700, 0) == 0)
        fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_sys(err, "%s: remove", name);
    if (dev != 0 && st.st_dev != dev)
        return error_set(err, EXDEV, "%s: a file system is mounted there; unmount it first", name);
    if (depth >= REMOVE_DEPTH_MAX)
        return error_set(err, ELOOP, "%s: folders nested deeper than %d", name, REMOVE_DEPTH_MAX);
    if ((st.st_mode & 0700) != 0700)
        (void)fchmod(fd, 0700);
    cleanup_closedir DIR *dir = fdopendir(fd);
    if (!dir)
        return error_sys(err, "%s: list", name);
    (void)steal_fd(&fd);
    struct dirent *ent;
    while ((ent = readdir(dir))) {
        if (strcmp(ent->d_name, ".") == 0 || strcmp(ent->d_name, "..") == 0)
            continue;
        if (remove_at(dirfd(dir), ent->d_name, st.st_dev, depth + 1, err) < 0)
            return error_wrap(err, "%s", name);
    }
    if (unlinkat(parent, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        return error_sys(err, "%s: remove", name);
    return 0;
}

int output_remove_tree(int dirfd, const char *name, struct error *err)
{
    return remove_at(dirfd, name, 0, 0, err);
}
