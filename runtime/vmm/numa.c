// SPDX-License-Identifier: Apache-2.0
/* numa.c - the processors of a NUMA node */
#include "runtime/vmm/numa.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/io.h"

/* A decimal number at *p. Returns -1 when there is none or it is no CPU number. */
static int number(const char **p)
{
    int n = 0;

    if (!isdigit((unsigned char)**p))
        return -1;
    for (; isdigit((unsigned char)**p); (*p)++)
        if ((n = n * 10 + (**p - '0')) >= CPU_SETSIZE)
            return -1;
    return n;
}

int numa_parse_cpulist(const char *text, cpu_set_t *ret_cpus)
{
    cpu_set_t cpus;
    const char *p = text;

    CPU_ZERO(&cpus);
    while (*p && *p != '\n') {
        int first = number(&p), last = first;
        if (first < 0)
            return -1;
        if (*p == '-') {
            p++;
            last = number(&p);
        }
        if (last < first)
            return -1;
        for (int i = first; i <= last; i++)
            CPU_SET((size_t)i, &cpus);
        if (*p == ',')
            p++;
        else if (*p && *p != '\n')
            return -1;
    }
    *ret_cpus = cpus;
    return 0;
}

int numa_read(int node, struct numa_node *ret_node, struct error *err)
{
    char path[64];
    struct numa_node n = {0};

    if (node < 0 || node >= NUMA_NODES_MAX)
        return error_set(err, EINVAL, "NUMA node %d: 0 to %d are allowed", node,
                         NUMA_NODES_MAX - 1);
    (void)snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/cpulist", node);
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t len = io_read(fd, n.cpulist, sizeof(n.cpulist) - 1, path, err);
    if (len < 0)
        return -1;
    n.cpulist[len] = '\0';
    n.cpulist[strcspn(n.cpulist, "\n")] = '\0';
    if (n.cpulist[0] == '\0')
        return 0;
    if (numa_parse_cpulist(n.cpulist, &n.cpus) < 0)
        return error_set(err, EBADMSG, "%s: \"%s\" is no list of processors", path, n.cpulist);
    n.mask[(size_t)node / (8 * sizeof(unsigned long))] |= 1UL
                                                          << ((size_t)node % (8 * sizeof(long)));
    *ret_node = n;
    return 1;
}
