// SPDX-License-Identifier: Apache-2.0
/* oci-build.c - an OCI image becomes an ext4 image of its bundle, without a folder in between */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "oci/assemble/assemble.h"
#include "oci/assemble/options.h"
#include "oci/ext4/ext4.h"
#include "runtime/base/command.h"
#include "runtime/base/output.h"
#include "runtime/base/parse.h"

struct opts {
    ASSEMBLE_MEMBERS;
    const char *output, *label, *epoch;
    uint64_t free_bytes;
    bool durable;
};

static const struct option options[] = {
    ASSEMBLE_OPTIONS(struct opts),
    OPTION(struct opts, output, .name = "output", .letter = 'o', .kind = OPTION_STRING,
           .arg = "FILE", .required = true, .help = "The file system image to write."),
    OPTION(struct opts, free_bytes, .name = "free", .kind = OPTION_SIZE, .arg = "SIZE",
           .def = "256M", .max = EXT4_SIZE_MAX,
           .help = "Free space in the file system, a hole in the image."),
    OPTION(struct opts, label, .name = "label", .kind = OPTION_STRING, .arg = "TEXT", .def = "oci",
           .help = "Label of the file system, up to 16 bytes."),
    OPTION(struct opts, epoch, .name = "source-date-epoch", .kind = OPTION_STRING,
           .arg = "SECONDS|image", .def = "image",
           .help = "The file system's own times, seconds since 1970; \"image\" takes "
                   "$SOURCE_DATE_EPOCH, or else the newest time of a file in the image."),
    OPTION(struct opts, durable, .name = "durable", .kind = OPTION_FLAG,
           .help = "Wait until the image is on disk."),
};

/* As oci-pack does. */
static int choose_epoch(const struct opts *o, int64_t *ret_epoch, struct error *err)
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

/* The folder that the output goes to, for the spool. */
static int open_parent(const char *path, struct error *err)
{
    cleanup_free char *dir = strdup(path);
    if (!dir)
        return error_oom(err);
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/')
        dir[--len] = '\0';
    char *slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir] = '\0';
    int fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? error_sys(err, "%s: open its folder", path) : fd;
}

static int run(const void *p, int argc, char **argv, const struct context *ctx, struct error *err)
{
    const struct opts *o = p;
    struct ext4_options ext4 = {.label = o->label, .free_bytes = o->free_bytes};
    struct ext4_result result;

    (void)argc;
    (void)argv;
    if (choose_epoch(o, &ext4.epoch, err) < 0)
        return -1;
    cleanup_output struct output *out = output_begin(o->output, OUTPUT_FILE, 0666, err);
    if (!out)
        return -1;
    cleanup_close int dirfd = open_parent(o->output, err);
    if (dirfd < 0)
        return -1;
    struct assemble_options assemble = ASSEMBLE_FROM(o, dirfd);
    cleanup_assembly struct assembly *a = assemble_image(&assemble, ctx, err);
    if (!a)
        return -1;
    if (ext4_write(assembly_tree(a), output_fd(out), &ext4, ctx, &result, err) < 0)
        return error_wrap(err, "image %s: build %s", o->image, o->output);
    if (output_commit(&out, o->durable, err) < 0)
        return -1;
    log_info(context_log(ctx), "Built file system", log_str("image", o->output),
             log_uint("bytes", result.size), log_uint("used", result.used),
             log_uint("inodes", result.inodes));
    return 0;
}

int main(int argc, char **argv)
{
    static const struct command command = {
        .name = "oci-build",
        .summary = "build an ext4 image of an OCI runtime bundle from an OCI image",
        .options = options,
        .n_options = ARRAY_SIZE(options),
        .options_size = sizeof(struct opts),
        .run = run,
    };
    return command_main(&command, argc, argv);
}
