// SPDX-License-Identifier: Apache-2.0
/* drafter-mounter.c - the devices of a machine as files on a mount point, without a machine */
#include <errno.h>
#include <poll.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/command.h"
#include "runtime/base/io.h"
#include "runtime/snapshot/mounter.h"

struct opts {
    const char *package, *blueprint, *devices, *overlay_dir;
    bool read_only;
    uint64_t mode, ready_fd;
};

static const struct option options[] = {
    OPTION(struct opts, package, .name = "package", .letter = 'p', .kind = OPTION_STRING,
           .arg = "DIR", .help = "The devices of this package (default: out/package)."),
    OPTION(struct opts, blueprint, .name = "blueprint", .letter = 'b', .kind = OPTION_STRING,
           .arg = "DIR", .help = "The devices of this blueprint."),
    OPTION(struct opts, devices, .name = "devices", .kind = OPTION_TEXT, .arg = "JSON",
           .help = "An array of devices as drafter-peer takes it; @FILE reads it from a file."),
    OPTION(struct opts, overlay_dir, .name = "overlay-dir", .kind = OPTION_STRING, .arg = "DIR",
           .help = "Devices can be written; changes go into overlays in this folder, as "
                   "drafter-peer's."),
    OPTION(struct opts, read_only, .name = "read-only", .letter = 'r', .kind = OPTION_FLAG,
           .help = "Show what overlays hold, and change nothing."),
    OPTION(struct opts, mode, .name = "mode", .kind = OPTION_UINT, .arg = "MODE", .def = "0o600",
           .max = 0777,
           .help = "Permissions of the files, as 0o644; a device that cannot be "
                   "written has no write permission."),
    OPTION(struct opts, ready_fd, .name = "ready-fd", .kind = OPTION_UINT, .arg = "FD", .def = "0",
           .max = 65535,
           .help = "Descriptor that gets the line \"ready\" when the files are there."),
};

static int run(const void *p, int argc, char **argv, const struct context *ctx, struct error *err)
{
    const struct opts *o = p;
    const struct mounter_options mo = {.package = o->package,
                                       .blueprint = o->blueprint,
                                       .devices = o->devices,
                                       .overlay_dir = o->overlay_dir,
                                       .read_only = o->read_only,
                                       .mode = (unsigned)o->mode};
    struct pollfd stop = {.fd = ctx->cancel->fd, .events = POLLIN};

    (void)argc;
    if (!!o->devices + !!o->blueprint + !!o->package > 1)
        return error_set(err, ERROR_USAGE, "give one of --devices, --blueprint and --package");
    struct mounter *m = mounter_new(argv[0], &mo, ctx, err);
    if (!m)
        return -1;
    if (o->ready_fd && io_write((int)o->ready_fd, "ready\n", 6, "--ready-fd", err) < 0) {
        (void)mounter_free(m, NULL);
        return -1;
    }
    while (poll(&stop, 1, -1) < 0 && errno == EINTR)
        continue;
    return mounter_free(m, err);
}

static const struct command command = {
    .name = "drafter-mounter",
    .summary = "show the devices of a package or blueprint as files on a mount point",
    .operands = "MOUNTPOINT",
    .min_operands = 1,
    .max_operands = 1,
    .options = options,
    .n_options = ARRAY_SIZE(options),
    .options_size = sizeof(struct opts),
    .run = run,
};

int main(int argc, char **argv)
{
    return command_main(&command, argc, argv);
}
