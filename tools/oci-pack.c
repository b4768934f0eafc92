// SPDX-License-Identifier: Apache-2.0
/* oci-pack.c - packs a folder into an ext4 image */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "oci/ext4/options.h"
#include "oci/tree/tree.h"
#include "runtime/base/output.h"

struct pack_options {
    EXT4_MEMBERS;
    const char *output;
};

static const struct option options[] = {
    OPTION(struct pack_options, output, .name = "output", .letter = 'o', .kind = OPTION_STRING,
           .arg = "FILE", .required = true, .help = "The image to write."),
    EXT4_OPTIONS(struct pack_options, "folder"),
};

static int run(const void *opts, int argc, char **argv, const struct context *ctx,
               struct error *err)
{
    const struct pack_options *o = opts;
    struct ext4_options ext4 = {.label = o->label, .free_bytes = o->free_bytes};
    struct ext4_result result;

    (void)argc;
    cleanup_close int dirfd = open(argv[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0)
        return error_sys(err, "%s: open", argv[0]);
    cleanup_tree struct tree *tree = tree_new(err);
    if (!tree || tree_scan(tree, dirfd, argv[0], ctx, err) < 0 ||
        ext4_choose_epoch(o->epoch, &ext4.epoch, err) < 0)
        return -1;
    cleanup_output struct output *out = output_begin(o->output, OUTPUT_FILE, 0666, err);
    if (!out)
        return -1;
    if (ext4_write(tree, output_fd(out), &ext4, ctx, &result, err) < 0)
        return error_wrap(err, "pack %s into %s", argv[0], o->output);
    if (output_commit(&out, true, err) < 0)
        return -1;
    log_info(context_log(ctx), "Packed folder", log_str("image", o->output),
             log_uint("bytes", result.size), log_uint("used", result.used),
             log_uint("inodes", result.inodes));
    return 0;
}

int main(int argc, char **argv)
{
    static const struct command command = {
        .name = "oci-pack",
        .summary = "pack a folder into an ext4 image",
        .operands = "DIR",
        .min_operands = 1,
        .max_operands = 1,
        .options = options,
        .n_options = ARRAY_SIZE(options),
        .options_size = sizeof(struct pack_options),
        .run = run,
    };

    return command_main(&command, argc, argv);
}
