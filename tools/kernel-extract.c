// SPDX-License-Identifier: Apache-2.0
/* kernel-extract.c - the uncompressed kernel out of a vmlinuz */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "blueprint/blueprint.h"
#include "blueprint/kernel/kernel.h"
#include "runtime/base/command.h"
#include "runtime/base/io.h"
#include "runtime/base/output.h"

struct opts {
    const char *output;
};

static const struct option options[] = {
    OPTION(struct opts, output, .name = "output", .letter = 'o', .kind = OPTION_STRING,
           .arg = "FILE", .required = true, .help = "where the ELF file goes"),
};

static int run(const void *p, int argc, char **argv, const struct context *ctx, struct error *err)
{
    const struct opts *o = p;
    struct kernel_image found;
    size_t len;
    bool pvh;

    (void)argc;
    cleanup_free char *image = io_read_file(AT_FDCWD, argv[0], KERNEL_IMAGE_MAX, &len, err);
    if (!image || kernel_unpack((const uint8_t *)image, len, argv[0], &found, err) < 0)
        return -1;
    cleanup_free uint8_t *unpacked = found.elf;
    const uint8_t *elf = unpacked ? unpacked : (const uint8_t *)image;
    if (kernel_check(elf, found.elf_len, argv[0], blueprint_host_architecture(), &pvh, err) < 0)
        return -1;
    if (!pvh)
        log_warn(context_log(ctx),
                 "the kernel has no PVH entry (CONFIG_PVH): QEMU cannot start it, Firecracker can",
                 log_str("kernel", argv[0]));
    cleanup_output struct output *out = output_begin(o->output, OUTPUT_FILE, 0666, err);
    if (!out || io_write(output_fd(out), elf, found.elf_len, o->output, err) < 0)
        return -1;
    log_debug(context_log(ctx), "Extracted kernel", log_str("packed", found.packed_by),
              log_uint("bytes", found.elf_len));
    return output_commit(&out, false, err);
}

static const struct command command = {
    .name = "kernel-extract",
    .summary = "take the uncompressed kernel out of a vmlinuz",
    .operands = "KERNEL",
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
