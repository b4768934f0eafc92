// SPDX-License-Identifier: Apache-2.0
/* initrd-make.c - kernel modules and an init become an initrd */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "blueprint/kernel/initrd.h"
#include "runtime/base/command.h"
#include "runtime/base/output.h"

struct opts {
    const char *output, *init, *modules_dir;
};

static const struct option options[] = {
    OPTION(struct opts, output, .name = "output", .letter = 'o', .kind = OPTION_STRING,
           .arg = "FILE", .required = true, .help = "where the archive goes"),
    OPTION(struct opts, init, .name = "init", .kind = OPTION_STRING, .arg = "FILE",
           .required = true, .help = "static program that becomes /init"),
    OPTION(struct opts, modules_dir, .name = "modules-dir", .kind = OPTION_STRING, .arg = "DIR",
           .required = true, .help = "folder /lib/modules/RELEASE of the kernel"),
};

static int run(const void *p, int argc, char **argv, const struct context *ctx, struct error *err)
{
    const struct opts *o = p;
    const struct initrd_options opt = {.modules_dir = o->modules_dir,
                                       .modules = (const char *const *)argv,
                                       .n_modules = (size_t)argc,
                                       .init = o->init};
    size_t loaded;

    cleanup_output struct output *out = output_begin(o->output, OUTPUT_FILE, 0666, err);
    if (!out || initrd_build(&opt, output_fd(out), &loaded, err) < 0)
        return -1;
    if (loaded)
        return output_commit(&out, false, err);
    log_info(context_log(ctx), "The kernel needs no initrd, all drivers are built in");
    if (unlink(o->output) < 0 && errno != ENOENT)
        return error_sys(err, "%s: remove", o->output);
    return 0;
}

static const struct command command = {
    .name = "initrd-make",
    .summary = "make an initrd of kernel modules, those they depend on, and an init",
    .operands = "MODULE...",
    .min_operands = 1,
    .max_operands = -1,
    .options = options,
    .n_options = ARRAY_SIZE(options),
    .options_size = sizeof(struct opts),
    .run = run,
};

int main(int argc, char **argv)
{
    return command_main(&command, argc, argv);
}
