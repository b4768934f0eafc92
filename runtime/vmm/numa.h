/* SPDX-License-Identifier: Apache-2.0 */
/* numa.h - the processors of a NUMA node; not for outside this module */
#ifndef RUNTIME_VMM_NUMA_H
#define RUNTIME_VMM_NUMA_H

#include <sched.h>

#include "runtime/base/error.h"

#define NUMA_NODES_MAX 64

struct numa_node {
    cpu_set_t cpus;
    unsigned long
        mask[NUMA_NODES_MAX / (8 * sizeof(unsigned long))]; /* of nodes, set_mempolicy(2) */
    char cpulist[1024];                                     /* as sysfs prints it, "0-3,8" */
};

/* Reads /sys/devices/system/node/nodeN/cpulist. Returns 1, or 0 when there is no such node or it
 * has no processors (a kernel without NUMA has none: nothing to bind to), -1 on errors. */
int numa_read(int node, struct numa_node *ret_node, struct error *err);

/* "0-3,8" to a set. Returns 0, -1 on malformed text. */
int numa_parse_cpulist(const char *text, cpu_set_t *ret_cpus);

#endif
