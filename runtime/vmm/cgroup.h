/* SPDX-License-Identifier: Apache-2.0 */
/* cgroup.h - a control group per machine; not for outside this module
 *
 * The layout is the jailer's: <mount>/PARENT/ID in the cpuset hierarchy (version 1) or the one tree
 * (version 2), so that both drivers' machines are found at the same place.
 */
#ifndef RUNTIME_VMM_CGROUP_H
#define RUNTIME_VMM_CGROUP_H

#include "runtime/base/error.h"
#include "runtime/vmm/numa.h"

struct cgroup {
    char *dir;    /* <mount>/PARENT/ID; NULL = none */
    char *parent; /* <mount>/PARENT */
    int procs_fd; /* cgroup.procs, for the child to enter; -1 = not made by us */
};

#define CGROUP_INIT                                                                                \
    {                                                                                              \
        .dir = NULL, .parent = NULL, .procs_fd = -1                                                \
    }

/* Where the group is, from /proc/self/mountinfo, without making it (the jailer does). A host
 * without such a hierarchy is an error. Returns 0. */
int cgroup_find(int version, const char *parent, const char *id, struct cgroup *ret,
                struct error *err);

/* Makes the group found above and binds it to the node (NULL = none) where the cpuset controller is
 * to be had. Returns 0; on failure nothing stays. */
int cgroup_make(struct cgroup *cg, int version, const struct numa_node *node, struct error *err);

/* Removes the directories (the parent only when it is empty) and frees. Its processes are gone. */
void cgroup_clear(struct cgroup *cg);

/* The mount point in a mountinfo text (proc(5)): of type cgroup2, or of type cgroup with cpuset
 * among its options. NULL when there is none. The caller frees it. Exposed for tests. */
char *cgroup_mount(const char *mountinfo, int version);

#endif
