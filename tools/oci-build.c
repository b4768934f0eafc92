// SPDX-License-Identifier: Apache-2.0
/* oci-build.c - an OCI image becomes an ext4 image of its bundle, without a folder in between */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "oci/assemble/assemble.h"
#include "oci/assemble/options.h"
#include "oci/ext4/options.h"
#include "runtime/base/output.h"

struct opts {
    ASSEMBLE_MEMBERS;
    EXT4_MEMBERS;
    const char *output;
    bool durable;
};

static const struct option options[] = {
    ASSEMBLE_OPTIONS(struct opts),
    OPTION(struct opts, output, .name = "output", .letter = 'o', .kind = OPTION_STRING,
           .arg = "FILE", .required = true, .help = "The file system image to write."),
    EXT4_OPTIONS(struct opts, "image"),
    OPTION(struct opts, durable, .name = "durable", .kind = OPTION_FLAG,
           .help = "Wait until the image is on disk."),
};

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
    if (ext4_choose_epoch(o->epoch, &ext4.epoch, err) < 0)
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
