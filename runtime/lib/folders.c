// SPDX-License-Identifier: Apache-2.0
/* folders.c - libdrafter's acts on folders: snapshot, archive, extract, mount */
#include <string.h>

#include "blueprint/blueprint.h"
#include "runtime/base/json.h"
#include "runtime/lib/library.h"
#include "runtime/peer/folder.h"
#include "runtime/snapshot/mounter.h"
#include "runtime/snapshot/snapshot.h"

static uint32_t port(uint32_t given, uint32_t usual, bool none)
{
    return none ? 0 : given ? given : usual;
}

static int of_devices(const char *text, struct snapshot_options *so, const struct vm_opts *vm,
                      const struct drafter *d, struct error *err)
{
    struct snapshot_device devices[SNAPSHOT_DEVICES_MAX];
    cleanup_json struct json_object *owner = NULL;
    int n = snapshot_devices_parse(text, devices, &owner, err);

    if (n < 0)
        return -1;
    so->devices = devices;
    so->n_devices = (size_t)n;
    so->package = NULL;
    return snapshot_with(so, vm, &d->ctx, err);
}

int drafter_snapshot(struct drafter *d, const struct drafter_snapshot_options *options,
                     struct drafter_error *error)
{
    struct error *err = library_error(error);
    struct drafter_snapshot_options o;
    struct vm_opts vm;

    if (library_options(&o, sizeof(o), options, "drafter_snapshot_options", err) < 0 ||
        library_vm(&o.vm, &vm, err) < 0)
        return -1;
    if (o.devices ? o.blueprint || o.package : !o.blueprint || !o.package)
        return error_set(err, ERROR_USAGE,
                         "snapshot: blueprint and package must be named, or devices alone");
    struct snapshot_options so = {
        .package = o.package,
        .cpus = o.cpus ? o.cpus : 1,
        .memory_mib = o.memory_mib ? o.memory_mib : 1024,
        .cpu_model = o.cpu_template && strcmp(o.cpu_template, "None") != 0 ? o.cpu_template : NULL,
        .boot_args = o.boot_args,
        .liveness_port = port(o.liveness_port, BLUEPRINT_LIVENESS_PORT, o.no_liveness),
        .agent_port = port(o.agent_port, BLUEPRINT_AGENT_PORT, o.no_agent),
        .io_engine_sync = o.io_engine_sync,
        .until = o.until,
    };
    if (o.devices)
        return of_devices(o.devices, &so, &vm, d, err);
    return snapshot_blueprint(o.blueprint, &so, &vm, &d->ctx, err);
}

static int archive(struct drafter *d, const struct drafter_archive_options *options,
                   int (*act)(const struct archive_options *, const struct context *,
                              struct error *),
                   struct error *err)
{
    struct drafter_archive_options o;

    if (library_options(&o, sizeof(o), options, "drafter_archive_options", err) < 0)
        return -1;
    if (!o.archive || !o.folder)
        return error_set(err, ERROR_USAGE, "archive: archive and folder must be named");
    const struct archive_options ao = {.archive = o.archive,
                                       .dir = o.folder,
                                       .blueprint = o.blueprint,
                                       .verify = o.verify,
                                       .durable = !o.no_sync,
                                       .level = o.level,
                                       .threads = o.threads,
                                       .max_size = o.max_size};
    return act(&ao, &d->ctx, err);
}

int drafter_archive(struct drafter *d, const struct drafter_archive_options *options,
                    struct drafter_error *err)
{
    return archive(d, options, folder_archive, library_error(err));
}

int drafter_extract(struct drafter *d, const struct drafter_archive_options *options,
                    struct drafter_error *err)
{
    return archive(d, options, archive_extract, library_error(err));
}

struct drafter_mount *drafter_mount(struct drafter *d, const char *path,
                                    const struct drafter_mount_options *options,
                                    struct drafter_error *error)
{
    struct error *err = library_error(error);
    struct drafter_mount_options o;

    if (library_options(&o, sizeof(o), options, "drafter_mount_options", err) < 0)
        return NULL;
    if ((o.package != NULL) + (o.blueprint != NULL) + (o.devices != NULL) != 1) {
        (void)error_set(err, ERROR_USAGE, "mount: one of package, blueprint and devices");
        return NULL;
    }
    const struct mounter_options mo = {.package = o.package,
                                       .blueprint = o.blueprint,
                                       .devices = o.devices,
                                       .overlay_dir = o.overlay_dir,
                                       .read_only = o.read_only,
                                       .mode = o.mode};
    return (struct drafter_mount *)mounter_new(path, &mo, &d->ctx, err);
}

int drafter_unmount(struct drafter_mount *m, struct drafter_error *err)
{
    return mounter_free((struct mounter *)m, library_error(err));
}
