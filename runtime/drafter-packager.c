// SPDX-License-Identifier: Apache-2.0
/* drafter-packager.c - a blueprint or a package as one archive, and back */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "blueprint/blueprint.h"
#include "blueprint/pack/pack.h"
#include "runtime/base/command.h"
#include "runtime/base/json.h"
#include "runtime/base/output.h"
#include "runtime/snapshot/package.h"

#define DEVICES_DEFAULT                                                                            \
    "[{\"name\":\"kernel\",\"path\":\"out/package/vmlinux\"},"                                     \
    "{\"name\":\"disk\",\"path\":\"out/package/rootfs.ext4\"},"                                    \
    "{\"name\":\"state\",\"path\":\"out/package/state.bin\"},"                                     \
    "{\"name\":\"memory\",\"path\":\"out/package/memory.bin\"},"                                   \
    "{\"name\":\"config\",\"path\":\"out/package/config.json\"}]"

struct opts {
    const char *devices, *package_path, *blueprint, *package;
    bool extract, list, verify, sync;
    uint64_t level, threads, max_size;
};

static const struct option options[] = {
    OPTION(struct opts, devices, .name = "devices", .kind = OPTION_TEXT, .arg = "JSON",
           .help = "Array of {\"name\", \"path\"}: devices and their files; @FILE reads it from a "
                   "file. Default: kernel, disk, state, memory, config in out/package."),
    OPTION(struct opts, package_path, .name = "package-path", .kind = OPTION_STRING, .arg = "FILE",
           .def = "out/app.tar.zst", .help = "The archive."),
    OPTION(struct opts, extract, .name = "extract", .letter = 'x', .kind = OPTION_FLAG,
           .help = "Write the devices' files from the archive (default: the archive from them)."),
    OPTION(struct opts, blueprint, .name = "blueprint", .letter = 'b', .kind = OPTION_STRING,
           .arg = "DIR", .help = "In place of --devices: all of the blueprint in this folder."),
    OPTION(struct opts, package, .name = "package", .letter = 'p', .kind = OPTION_STRING,
           .arg = "DIR", .help = "In place of --devices: all of the package in this folder."),
    OPTION(struct opts, list, .name = "list", .letter = 'l', .kind = OPTION_FLAG,
           .help = "Verify the archive and print what it holds."),
    OPTION(struct opts, verify, .name = "verify", .kind = OPTION_FLAG,
           .help = "Before archiving, compare the files with the digests that the blueprint or "
                   "package states."),
    OPTION(struct opts, level, .name = "level", .kind = OPTION_UINT, .arg = "N", .def = "3",
           .min = 1, .max = PACK_LEVEL_MAX, .help = "How hard zstd compresses, 1 to 19."),
    OPTION(struct opts, threads, .name = "threads", .letter = 'T', .kind = OPTION_UINT, .arg = "N",
           .def = "0", .max = 256, .help = "Threads that compress; 0 = one per processor."),
    OPTION(struct opts, max_size, .name = "max-size", .kind = OPTION_SIZE, .arg = "SIZE",
           .def = "64T", .max = PACK_SIZE_MAX,
           .help = "Refuse an archive whose files together are larger."),
    OPTION(struct opts, sync, .name = "sync", .kind = OPTION_FLAG, .def = "true",
           .help = "Files are on stable storage before they get their names."),
};

/* ---- --devices ---- */

struct device_list {
    struct json_object *doc; /* names and paths point into it */
    struct pack_source items[PACK_ENTRIES_MAX];
    size_t n;
};

static void device_list_free(struct device_list *l)
{
    (void)json_object_put(l->doc);
}

static int parse_devices(const char *text, struct device_list *ret, struct error *err)
{
    static const char *const keys[] = {"name", "path", NULL};

    ret->doc = json_parse(text, strlen(text), "--devices", err);
    if (!ret->doc)
        return -1;
    if (!json_object_is_type(ret->doc, json_type_array))
        return error_set(err, EINVAL, "--devices: must be an array");
    size_t n = json_object_array_length(ret->doc);
    if (n == 0 || n > PACK_ENTRIES_MAX - 1)
        return error_set(err, EINVAL, "--devices: %zu devices, must be 1 to %d", n,
                         PACK_ENTRIES_MAX - 1);
    for (size_t i = 0; i < n; i++) {
        struct json_object *obj = json_object_array_get_idx(ret->doc, i);
        struct pack_source *item = &ret->items[i];
        char what[32];
        (void)snprintf(what, sizeof(what), "--devices[%zu]", i);
        if (!json_object_is_type(obj, json_type_object))
            return error_set(err, EINVAL, "%s: is no object", what);
        if (json_only_keys(obj, keys, what, err) < 0 ||
            json_required(json_get_string(obj, "name", what, &item->name, err), "name", what, err) <
                0 ||
            json_required(json_get_string(obj, "path", what, &item->path, err), "path", what, err) <
                0)
            return -1;
    }
    ret->n = n;
    return 0;
}

/* ---- folders ---- */

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

static int archive(const struct opts *o, const struct pack_source *sources, size_t n,
                   const struct context *ctx, struct error *err)
{
    const struct pack_create create = {
        .path = o->package_path,
        .sources = sources,
        .n_sources = n,
        .level = (int)o->level,
        .threads = (unsigned)o->threads,
        .durable = o->sync,
    };
    return pack_create(&create, ctx, err);
}

static int archive_blueprint(const struct opts *o, const struct context *ctx, struct error *err)
{
    cleanup_blueprint struct blueprint *bp = blueprint_open(o->blueprint, err);
    struct sources s CLEANUP(sources_free) = {.n = 0};

    if (!bp || (o->verify && blueprint_verify(bp, ctx, err) < 0))
        return -1;
    for (size_t i = 0; i < bp->n_devices; i++)
        if (sources_add(&s, o->blueprint, bp->devices[i].name, bp->devices[i].file, err) < 0)
            return -1;
    sources_sort(&s);
    if (sources_add(&s, o->blueprint, BLUEPRINT_MANIFEST, BLUEPRINT_MANIFEST, err) < 0)
        return -1;
    return archive(o, s.items, s.n, ctx, err);
}

static int archive_package(const struct opts *o, const struct context *ctx, struct error *err)
{
    cleanup_package struct package *pkg = package_open(o->package, err);
    struct sources s CLEANUP(sources_free) = {.n = 0};

    if (!pkg || (o->verify && package_verify(pkg, ctx, err) < 0))
        return -1;
    for (size_t i = 0; i < pkg->n_devices; i++)
        if (strcmp(pkg->devices[i].name, "config") &&
            sources_add(&s, o->package, pkg->devices[i].name, pkg->devices[i].file, err) < 0)
            return -1;
    if (sources_add(&s, o->package, "config", PACKAGE_CONFIG, err) < 0)
        return -1;
    sources_sort(&s);
    return archive(o, s.items, s.n, ctx, err);
}

static bool names_file(const struct opts *o, const void *owner, const char *file)
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
static int check_replaceable(const struct opts *o, const char *dir, struct error *err)
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

static int check_extracted(const struct opts *o, const struct output *out, struct error *err)
{
    if (o->package) {
        cleanup_package struct package *pkg = package_open_at(output_fd(out), o->package, err);
        if (!pkg)
            return error_wrap(err, "archive %s: holds no package", o->package_path);
        return 0;
    }
    if (faccessat(output_fd(out), BLUEPRINT_MANIFEST, F_OK, 0) < 0)
        return error_set(err, ENOENT,
                         "archive %s: holds no blueprint: " BLUEPRINT_MANIFEST
                         " is missing; extract its devices with --devices and give them to "
                         "blueprint-make",
                         o->package_path);
    cleanup_blueprint struct blueprint *bp = blueprint_open(output_path(out), err);
    return bp ? 0 : error_wrap(err, "archive %s: holds no blueprint", o->package_path);
}

static int extract_folder(const struct opts *o, const struct context *ctx, struct error *err)
{
    const char *dir = o->blueprint ? o->blueprint : o->package;
    mode_t mask = umask(0);

    (void)umask(mask);
    if (check_replaceable(o, dir, err) < 0)
        return -1;
    cleanup_output struct output *out = output_begin(dir, OUTPUT_DIR, 0777 & ~mask, err);
    if (!out ||
        pack_extract_folder(o->package_path, output_fd(out), dir, o->max_size, ctx, NULL, err) <
            0 ||
        check_extracted(o, out, err) < 0)
        return -1;
    return output_commit(&out, o->sync, err);
}

/* ---- the acts ---- */

static int list(const struct opts *o, const struct context *ctx, struct error *err)
{
    struct pack_listing l;
    char hex[SHA256_HEX_SIZE];

    if (pack_list(o->package_path, o->max_size, ctx, &l, err) < 0)
        return -1;
    for (size_t i = 0; i < l.n_items; i++) {
        const struct pack_item *item = &l.items[i];
        digest_hex(item->sum, hex);
        printf("%s %" PRIu64 " %" PRIu64 " %s %s\n", item->name, item->size, item->stored, hex,
               item->file);
    }
    if (!l.has_digests)
        log_warn(context_log(ctx), "the archive states no digests, ignoring",
                 log_str("archive", o->package_path));
    return fflush(stdout) == 0 ? 0 : error_sys(err, "write to stdout");
}

static int extract_devices(const struct opts *o, const struct device_list *l,
                           const struct context *ctx, struct error *err)
{
    struct pack_target targets[PACK_ENTRIES_MAX];

    for (size_t i = 0; i < l->n; i++)
        targets[i] = (struct pack_target){.name = l->items[i].name, .path = l->items[i].path};
    return pack_extract(o->package_path, targets, l->n, o->max_size, o->sync, ctx, NULL, err);
}

static int run(const void *p, int argc, char **argv, const struct context *ctx, struct error *err)
{
    const struct opts *o = p;
    struct device_list l CLEANUP(device_list_free) = {.doc = NULL};

    (void)argc;
    (void)argv;
    if (!!o->devices + !!o->blueprint + !!o->package > 1)
        return error_set(err, ERROR_USAGE, "give one of --devices, --blueprint and --package");
    if (o->list && o->extract)
        return error_set(err, ERROR_USAGE, "give one of --list and --extract");
    if (o->verify && (o->extract || o->list || !(o->blueprint || o->package)))
        return error_set(err, ERROR_USAGE, "--verify goes with archiving --blueprint or --package");
    if (o->list)
        return list(o, ctx, err);
    if (o->extract && (o->blueprint || o->package))
        return extract_folder(o, ctx, err);
    if (o->blueprint)
        return archive_blueprint(o, ctx, err);
    if (o->package)
        return archive_package(o, ctx, err);
    if (parse_devices(o->devices ? o->devices : DEVICES_DEFAULT, &l, err) < 0)
        return -1;
    return o->extract ? extract_devices(o, &l, ctx, err) : archive(o, l.items, l.n, ctx, err);
}

static const struct command command = {
    .name = "drafter-packager",
    .summary = "put a blueprint or a package into one archive, and take it out again",
    .options = options,
    .n_options = ARRAY_SIZE(options),
    .options_size = sizeof(struct opts),
    .run = run,
};

int main(int argc, char **argv)
{
    return command_main(&command, argc, argv);
}
