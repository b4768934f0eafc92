// SPDX-License-Identifier: Apache-2.0
/* blueprint-check.c - whether a folder is a blueprint and still what its manifest says */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "blueprint/blueprint.h"
#include "runtime/base/command.h"

struct opts {
    bool digests;
};

static const struct option options[] = {
    OPTION(struct opts, digests, .name = "digests", .kind = OPTION_FLAG, .def = "true",
           .help = "read every device and compare its SHA-256; without, only sizes are compared"),
};

static int run(const void *p, int argc, char **argv, const struct context *ctx, struct error *err)
{
    const struct opts *o = p;
    (void)argc;
    cleanup_blueprint struct blueprint *bp = blueprint_open(argv[0], err);
    if (!bp || (o->digests && blueprint_verify(bp, ctx, err) < 0))
        return -1;
    for (size_t i = 0; i < bp->n_devices; i++)
        (void)printf("%s\t%s\t%s\t%" PRIu64 "\n", bp->devices[i].name,
                     blueprint_role_name(bp->devices[i].role), bp->devices[i].file,
                     bp->devices[i].size);
    return 0;
}

static const struct command command = {
    .name = "blueprint-check",
    .summary = "check a blueprint against its manifest and list its devices",
    .operands = "DIR",
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
