// SPDX-License-Identifier: Apache-2.0
/* archive.c - the folder of a blueprint or package into one archive and back; see archive.h */
#include "runtime/snapshot/archive.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "blueprint/blueprint.h"
#include "blueprint/pack/pack.h"
#include "runtime/base/digest.h"
#include "runtime/base/output.h"
#include "runtime/snapshot/package.h"

/* A folder's files as sources, in Drafter's order of devices, so that its reader, which goes
 * forward only, finds them in the order it asks for. */
struct sources {
    struct pack_source items[PACK_ENTRIES_MAX];
    char *paths[PACK_ENTRIES_MAX];
    size_t n;
};

static void sources_free(struct sources *s)
{
    for (size_t i = 0; i < s->n; i++)
        free(s->paths[i]);
}

static int sources_add(struct sources *s, const char *dir, const char *name, const char *file,
                       struct error *err)
{
    if (s->n == PACK_ENTRIES_MAX - 1)
        return error_set(err, EINVAL, "%s: more than %d devices", dir, PACK_ENTRIES_MAX - 1);
    if (asprintf(&s->paths[s->n], "%s/%s", dir, file) < 0)
        return error_oom(err);
    s->items[s->n] = (struct pack_source){.name = name, .path = s->paths[s->n], .file = file};
    s->n++;
    return 0;
}

static size_t rank(const char *name)
{
    static const char *const order[] = {"kernel", "initrd", "disk", "state",
                                        "memory", "config", "oci"};
    size_t i = 0;

    while (i < ARRAY_SIZE(order) && strcmp(order[i], name))
        i++;
    return i;
}

static void sources_sort(struct sources *s)
{
    for (size_t i = 1; i < s->n; i++)
        for (size_t j = i; j && rank(s->items[j].name) < rank(s->items[j - 1].name); j--) {
            struct pack_source t = s->items[j];
            char *p = s->paths[j];
            s->items[j] = s->items[j - 1];
            s->paths[j] = s->paths[j - 1];
            s->items[j - 1] = t;
            s->paths[j - 1] = p;
        }
}

static int create(const struct archive_options *o, const struct sources *s,
                  const struct context *ctx, struct error *err)
{
    const struct pack_create create = {
        .path = o->archive,
        .sources = s->items,
        .n_sources = s->n,
        .level = o->level ? o->level : PACK_LEVEL_DEFAULT,
        .threads = o->threads,
        .durable = o->durable,
    };
    return pack_create(&create, ctx, err);
}

static int archive_blueprint(const struct archive_options *o, const struct context *ctx,
                             struct error *err)
{
    cleanup_blueprint struct blueprint *bp = blueprint_open(o->dir, err);
    struct sources s CLEANUP(sources_free) = {.n = 0};

    if (!bp || (o->verify && blueprint_verify(bp, ctx, err) < 0))
        return -1;
    for (size_t i = 0; i < bp->n_devices; i++)
        if (sources_add(&s, o->dir, bp->devices[i].name, bp->devices[i].file, err) < 0)
            return -1;
    sources_sort(&s);
    if (sources_add(&s, o->dir, BLUEPRINT_MANIFEST, BLUEPRINT_MANIFEST, err) < 0)
        return -1;
    return create(o, &s, ctx, err);
}

static int archive_package(const struct archive_options *o, const struct context *ctx,
                           struct error *err)
{
    cleanup_package struct package *pkg = package_open(o->dir, err);
    struct sources s CLEANUP(sources_free) = {.n = 0};

    if (!pkg || (o->verify && package_verify(pkg, ctx, err) < 0))
        return -1;
    for (size_t i = 0; i < pkg->n_devices; i++)
        if (strcmp(pkg->devices[i].name, "config") &&
            sources_add(&s, o->dir, pkg->devices[i].name, pkg->devices[i].file, err) < 0)
            return -1;
    if (sources_add(&s, o->dir, "config", PACKAGE_CONFIG, err) < 0)
        return -1;
    sources_sort(&s);
    return create(o, &s, ctx, err);
}

static bool names_file(const struct archive_options *o, const void *owner, const char *file)
{
    if (o->blueprint) {
        const struct blueprint *bp = owner;
        for (size_t i = 0; i < bp->n_devices; i++)
            if (!strcmp(bp->devices[i].file, file))
                return true;
        return !strcmp(file, BLUEPRINT_MANIFEST);
    }
    const struct package *pkg = owner;
    for (size_t i = 0; i < pkg->n_devices; i++)
        if (!strcmp(pkg->devices[i].file, file))
            return true;
    return !strcmp(file, PACKAGE_CONFIG);
}

/* What stands at the folder's name is replaced as a whole, so it must be one of its kind, with
 * nothing in it that is somebody's own, or empty. */
static int check_replaceable(const struct archive_options *o, const char *dir, struct error *err)
{
    cleanup_closedir DIR *d = opendir(dir);
    cleanup_blueprint struct blueprint *bp = NULL;
    cleanup_package struct package *pkg = NULL;
    struct dirent *ent;

    if (!d)
        return errno == ENOENT ? 0 : error_sys(err, "%s: open the folder", dir);
    if (o->blueprint)
        bp = blueprint_open(dir, NULL);
    else
        pkg = package_open(dir, NULL);
    const void *owner = o->blueprint ? (const void *)bp : (const void *)pkg;
    while ((ent = readdir(d))) {
        if (!strcmp(ent->d_name, ".") || !strcmp(ent->d_name, ".."))
            continue;
        if (!owner || !names_file(o, owner, ent->d_name))
            return error_set(err, ENOTEMPTY,
                             "%s: holds %s, which is no part of a %s and would be lost; give "
                             "another folder, or remove this one first",
                             dir, ent->d_name, o->blueprint ? "blueprint" : "package");
    }
    return 0;
}

static int check_extracted(const struct archive_options *o, const struct output *out,
                           struct error *err)
{
    if (!o->blueprint) {
        cleanup_package struct package *pkg = package_open_at(output_fd(out), o->dir, err);
        if (!pkg)
            return error_wrap(err, "archive %s: holds no package", o->archive);
        return 0;
    }
    if (faccessat(output_fd(out), BLUEPRINT_MANIFEST, F_OK, 0) < 0)
        return error_set(err, ENOENT,
                         "archive %s: holds no blueprint: " BLUEPRINT_MANIFEST
                         " is missing; extract its devices with --devices and give them to "
                         "blueprint-make",
                         o->archive);
    cleanup_blueprint struct blueprint *bp = blueprint_open(output_path(out), err);
    return bp ? 0 : error_wrap(err, "archive %s: holds no blueprint", o->archive);
}

/* The archive as it was when it was opened: none other's content gets its name. */
struct source {
    int fd;
    struct stat was;
};

static int source_check(const struct source *s, const char *archive, struct error *err)
{
    struct stat now;

    if (fstat(s->fd, &now) < 0)
        return error_sys(err, "archive %s", archive);
    if (now.st_size == s->was.st_size && now.st_mtim.tv_sec == s->was.st_mtim.tv_sec &&
        now.st_mtim.tv_nsec == s->was.st_mtim.tv_nsec)
        return 0;
    return error_set(err, ESTALE,
                     "archive %s: was written while it was read: try again when it is whole",
                     archive);
}

static int extract(const struct archive_options *o, const struct source *s,
                   const struct context *ctx, struct error *err)
{
    const char *dir = o->dir;
    mode_t mask = umask(0);

    (void)umask(mask);
    if (check_replaceable(o, dir, err) < 0)
        return -1;
    /* A package has what was in its guest's memory. */
    const mode_t mode = o->blueprint ? 0777 & ~mask : 0700;
    cleanup_output struct output *out = output_begin(dir, OUTPUT_DIR, mode, err);
    if (!out ||
        pack_extract_folder_from(s->fd, o->archive, output_fd(out), dir,
                                 o->max_size ? o->max_size : PACK_SIZE_MAX, ctx, NULL, err) < 0 ||
        source_check(s, o->archive, err) < 0 || check_extracted(o, out, err) < 0)
        return -1;
    return output_commit(&out, o->durable, err);
}

static int source_open(struct source *s, const char *archive, struct error *err)
{
    s->fd = open(archive, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0 || fstat(s->fd, &s->was) < 0)
        return error_sys(err, "archive %s: open", archive);
    return 0;
}

static void source_close(struct source *s)
{
    cleanup_close_p(&s->fd);
}

int archive_extract(const struct archive_options *o, const struct context *ctx, struct error *err)
{
    struct source s CLEANUP(source_close) = {.fd = -1};

    return source_open(&s, o->archive, err) < 0 ? -1 : extract(o, &s, ctx, err);
}

int archive_make(const struct archive_options *o, const struct context *ctx, struct error *err)
{
    return o->blueprint ? archive_blueprint(o, ctx, err) : archive_package(o, ctx, err);
}

/* Locked while somebody looks or extracts. The file stays: to remove it would take the lock from
 * who waits for it. */
static int lock_cache(const char *folder, struct error *err)
{
    cleanup_free char *path = NULL;

    if (asprintf(&path, "%s.lock", folder) < 0) {
        path = NULL;
        return error_oom(err);
    }
    cleanup_close int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_sys(err, "%s", path);
    while (flock(fd, LOCK_EX) < 0)
        if (errno != EINTR)
            return error_sys(err, "%s: lock", path);
    return steal_fd(&fd);
}

char *archive_cached(const char *archive, const char *cache, const struct context *ctx,
                     struct error *err)
{
    uint8_t sum[SHA256_SIZE];
    char hex[SHA256_HEX_SIZE];
    cleanup_free char *folder = NULL;

    struct source s CLEANUP(source_close) = {.fd = -1};
    if (source_open(&s, archive, err) < 0 ||
        digest_of_fd_watched(s.fd, archive, "digest", ctx, sum, NULL, err) < 0 ||
        output_make_private_dirs(cache, err) < 0)
        return NULL;
    digest_hex(sum, hex);
    if (asprintf(&folder, "%s/%s", cache, hex) < 0) {
        folder = NULL;
        (void)error_oom(err);
        return NULL;
    }
    cleanup_close int lock = lock_cache(folder, err);
    if (lock < 0)
        return NULL;
    cleanup_package struct package *there = package_open(folder, NULL);
    const struct archive_options o = {.archive = archive, .dir = folder, .durable = true};
    if (!there && extract(&o, &s, ctx, err) < 0)
        return NULL;
    return steal_ptr(&folder);
}
