// SPDX-License-Identifier: Apache-2.0
/* blueprint-make.c - device files and a manifest become a blueprint */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blueprint/blueprint.h"
#include "runtime/base/command.h"

struct opts {
    const char *output;
    struct option_list devices;
    const char *boot_args;
    const char *image_reference, *image_digest;
    const char *made_kernel, *made_root;
    uint64_t liveness_port, agent_port;
};

static const struct option options[] = {
    OPTION(struct opts, output, .name = "output", .letter = 'o', .kind = OPTION_STRING,
           .arg = "DIR", .required = true, .help = "folder that becomes the blueprint"),
    OPTION(struct opts, devices, .name = "device", .letter = 'd', .kind = OPTION_LIST,
           .arg = "NAME=FILE",
           .help = "a device and its file, copied into DIR unless it is there already; disks in "
                   "the order in which the guest shall see them"),
    OPTION(struct opts, boot_args, .name = "boot-args", .kind = OPTION_STRING, .arg = "TEXT",
           .def = "", .help = "kernel command line"),
    OPTION(struct opts, image_reference, .name = "image-reference", .kind = OPTION_STRING,
           .arg = "REF", .help = "where the OCI image came from"),
    OPTION(struct opts, image_digest, .name = "image-digest", .kind = OPTION_STRING,
           .arg = "DIGEST", .help = "digest of the OCI image's manifest"),
    OPTION(struct opts, made_kernel, .name = "made-kernel", .kind = OPTION_STRING, .arg = "TEXT",
           .help = "how the kernel was made"),
    OPTION(struct opts, made_root, .name = "made-root", .kind = OPTION_STRING, .arg = "TEXT",
           .help = "how the root file system was made"),
    OPTION(struct opts, liveness_port, .name = "liveness-vsock-port", .kind = OPTION_UINT,
           .arg = "PORT", .def = "25", .min = 1, .max = UINT32_MAX - 1,
           .help = "vsock port on the host that the guest's liveness program connects to"),
    OPTION(struct opts, agent_port, .name = "agent-vsock-port", .kind = OPTION_UINT, .arg = "PORT",
           .def = "26", .min = 1, .max = UINT32_MAX - 1,
           .help = "vsock port on the host that the guest's agent connects to"),
};

static int run(const void *p, int argc, char **argv, const struct context *ctx, struct error *err)
{
    const struct opts *o = p;
    struct blueprint_source sources[BLUEPRINT_DEVICES_MAX];
    char names[BLUEPRINT_DEVICES_MAX][BLUEPRINT_NAME_MAX + 2];

    (void)argc;
    (void)argv;
    if (o->devices.count > BLUEPRINT_DEVICES_MAX)
        return error_set(err, ERROR_USAGE, "--device: at most %d", BLUEPRINT_DEVICES_MAX);
    for (size_t i = 0; i < o->devices.count; i++) {
        const char *item = o->devices.items[i], *eq = strchr(item, '=');
        if (!eq || eq == item || !eq[1])
            return error_set(err, ERROR_USAGE, "--device \"%s\": must be NAME=FILE", item);
        /* One byte longer than is allowed, so that a name that is too long is refused, not cut. */
        (void)snprintf(names[i], sizeof(names[i]), "%.*s", (int)(eq - item), item);
        sources[i] = (struct blueprint_source){.name = names[i], .path = eq + 1};
    }
    const struct blueprint_make make = {
        .dir = o->output,
        .devices = sources,
        .n_devices = o->devices.count,
        .boot_args = o->boot_args,
        .image_reference = o->image_reference,
        .image_digest = o->image_digest,
        .made_kernel = o->made_kernel,
        .made_root = o->made_root,
        .liveness_port = (uint32_t)o->liveness_port,
        .agent_port = (uint32_t)o->agent_port,
    };
    return blueprint_make(&make, ctx, err);
}

static const struct command command = {
    .name = "blueprint-make",
    .summary = "put device files and a manifest together into a blueprint",
    .options = options,
    .n_options = ARRAY_SIZE(options),
    .options_size = sizeof(struct opts),
    .run = run,
};

int main(int argc, char **argv)
{
    return command_main(&command, argc, argv);
}
