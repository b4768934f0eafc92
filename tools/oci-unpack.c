// SPDX-License-Identifier: Apache-2.0
/* oci-unpack.c - an OCI image becomes an OCI runtime bundle */
#include <unistd.h>

#include "oci/assemble/assemble.h"
#include "oci/assemble/options.h"
#include "runtime/base/command.h"
#include "runtime/base/output.h"

struct opts {
    ASSEMBLE_MEMBERS;
    const char *output;
    bool rootless, durable;
};

static const struct option options[] = {
    ASSEMBLE_OPTIONS(struct opts),
    OPTION(struct opts, output, .name = "output", .letter = 'o', .kind = OPTION_STRING,
           .arg = "BUNDLE", .required = true, .help = "Folder that becomes the bundle."),
    OPTION(struct opts, rootless, .name = "rootless", .kind = OPTION_FLAG,
           .help = "Keep owners, devices and attributes aside instead of creating them. Always so "
                   "when not run by root."),
    OPTION(struct opts, durable, .name = "durable", .kind = OPTION_FLAG,
           .help = "Wait until the bundle is on disk."),
};

static int run(const void *p, int argc, char **argv, const struct context *ctx, struct error *err)
{
    const struct opts *o = p;
    struct layer_folder_options folder = {.rootless = o->rootless || geteuid() != 0};

    (void)argc;
    (void)argv;
    /* 0700: others must not reach set-user-id files and devices of an image. */
    cleanup_output struct output *out = output_begin(o->output, OUTPUT_DIR, 0700, err);
    if (!out)
        return -1;
    struct assemble_options assemble = ASSEMBLE_FROM(o, output_fd(out));
    cleanup_assembly struct assembly *a = assemble_image(&assemble, ctx, err);
    if (!a)
        return -1;
    if (layer_write_folder(assembly_tree(a), output_fd(out), &folder, ctx, err) < 0)
        return error_wrap(err, "image %s: unpack to %s", o->image, o->output);
    return output_commit(&out, o->durable, err);
}

int main(int argc, char **argv)
{
    static const struct command command = {
        .name = "oci-unpack",
        .summary = "unpack an OCI image into an OCI runtime bundle",
        .options = options,
        .n_options = ARRAY_SIZE(options),
        .options_size = sizeof(struct opts),
        .run = run,
    };
    return command_main(&command, argc, argv);
}
