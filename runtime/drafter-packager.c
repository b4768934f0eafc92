// SPDX-License-Identifier: Apache-2.0
/* drafter-packager.c - a blueprint or a package as one archive, and back */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "blueprint/pack/pack.h"
#include "runtime/base/command.h"
#include "runtime/base/json.h"
#include "runtime/peer/folder.h"

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

/* ---- the acts ---- */

/* No machine may write the files, nor may they be what is left of one. */
static int hold_devices(const struct device_list *l, struct folder_files *held, struct error *err)
{
    for (size_t i = 0; i < l->n; i++) {
        const struct pack_source *s = &l->items[i];
        int fd = open(s->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0)
            continue; /* whoever archives it says why it cannot */
        if (folder_hold(held, fd, s->name, AT_FDCWD, s->path, s->path, err) < 0)
            return -1;
    }
    return 0;
}

static int archive(const struct opts *o, const struct device_list *l, const struct context *ctx,
                   struct error *err)
{
    struct folder_files held cleanup_folder_files = FOLDER_FILES_INIT;

    if (hold_devices(l, &held, err) < 0)
        return -1;
    const struct pack_create create = {
        .path = o->package_path,
        .sources = l->items,
        .n_sources = l->n,
        .level = (int)o->level,
        .threads = (unsigned)o->threads,
        .durable = o->sync,
    };
    return pack_create(&create, ctx, err);
}

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
    const struct archive_options ao = {.archive = o->package_path,
                                       .dir = o->blueprint ? o->blueprint : o->package,
                                       .blueprint = o->blueprint,
                                       .verify = o->verify,
                                       .durable = o->sync,
                                       .level = (int)o->level,
                                       .threads = (unsigned)o->threads,
                                       .max_size = o->max_size};
    if (ao.dir)
        return o->extract ? archive_extract(&ao, ctx, err) : folder_archive(&ao, ctx, err);
    if (parse_devices(o->devices ? o->devices : DEVICES_DEFAULT, &l, err) < 0)
        return -1;
    return o->extract ? extract_devices(o, &l, ctx, err) : archive(o, &l, ctx, err);
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
