// SPDX-License-Identifier: Apache-2.0
/* oci-pack.c - packs a folder into an ext4 image */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "oci/ext4/ext4.h"
#include "oci/tree/tree.h"
#include "runtime/base/command.h"
#include "runtime/base/output.h"
#include "runtime/base/parse.h"

struct pack_options {
    uint64_t free_bytes;
    const char *label, *epoch, *output;
};

static const struct option options[] = {
    OPTION(struct pack_options, output, .name = "output", .letter = 'o', .kind = OPTION_STRING,
           .arg = "FILE", .required = true, .help = "The image to write."),
    OPTION(struct pack_options, free_bytes, .name = "free", .kind = OPTION_SIZE, .arg = "SIZE",
           .def = "256M", .max = EXT4_SIZE_MAX,
           .help = "Free space in the file system, a hole in the image."),
    OPTION(struct pack_options, label, .name = "label", .kind = OPTION_STRING, .arg = "TEXT",
           .def = "oci", .help = "Label of the file system, up to 16 bytes."),
    OPTION(struct pack_options, epoch, .name = "source-date-epoch", .kind = OPTION_STRING,
           .arg = "SECONDS|image", .def = "image",
           .help = "The file system's own times, seconds since 1970; \"image\" takes "
                   "$SOURCE_DATE_EPOCH, or else the newest time of a file in the folder."),
};

static int choose_epoch(const struct pack_options *o, int64_t *ret_epoch, struct error *err)
{
    const char *text = o->epoch, *what = "--source-date-epoch";

    if (strcmp(text, "image") == 0) {
        text = getenv("SOURCE_DATE_EPOCH");
        what = "SOURCE_DATE_EPOCH";
    }
    if (text && *text)
        return parse_i64(text, 0, EXT4_EPOCH_MAX, what, ret_epoch, err);
    *ret_epoch = EXT4_EPOCH_NEWEST;
    return 0;
}

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
        choose_epoch(o, &ext4.epoch, err) < 0)
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
