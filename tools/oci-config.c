// SPDX-License-Identifier: Apache-2.0
/* oci-config.c - edits an OCI runtime bundle's config.json for a virtual machine */
#include "oci/bundle/bundle.h"
#include "runtime/base/command.h"

struct opts {
    const char *hostname;
};

static const struct option options[] = {
    OPTION(struct opts, hostname, .name = "hostname", .kind = OPTION_STRING, .arg = "NAME",
           .def = "drafterguest", .help = "Host name inside the container."),
};

static int run(const void *opts, int argc, char **argv, const struct context *ctx,
               struct error *err)
{
    const struct opts *o = opts;

    (void)argc;
    (void)ctx;
    return bundle_edit_file(argv[0], o->hostname, err);
}

int main(int argc, char **argv)
{
    static const struct command command = {
        .name = "oci-config",
        .summary = "edit an OCI runtime bundle's config.json so that it runs alone in a virtual "
                   "machine",
        .operands = "BUNDLE",
        .min_operands = 1,
        .max_operands = 1,
        .options = options,
        .n_options = ARRAY_SIZE(options),
        .options_size = sizeof(struct opts),
        .run = run,
    };
    return command_main(&command, argc, argv);
}
