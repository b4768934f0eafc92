/* SPDX-License-Identifier: Apache-2.0 */
/* arguments.h - command line of Firecracker, with or without the jailer; not for outside this
 * module
 */
#ifndef RUNTIME_VMM_FIRECRACKER_ARGUMENTS_H
#define RUNTIME_VMM_FIRECRACKER_ARGUMENTS_H

#include <stddef.h>

#include "runtime/vmm/numa.h"
#include "runtime/vmm/vmm.h"

struct firecracker_arguments {
    const char *argv[40]; /* NULL-terminated; point into options, constants and the texts below */
    size_t n;
    char uid[16], gid[16], version[8], mems[32], cpus[1100];
};

/* node: NULL = any. Returns 0. */
int firecracker_arguments(const struct vmm_options *opt, const struct numa_node *node,
                          struct firecracker_arguments *ret, struct error *err);

#endif
