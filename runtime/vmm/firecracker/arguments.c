// SPDX-License-Identifier: Apache-2.0
/* arguments.c - command line of Firecracker, with or without the jailer
 *
 * The jailer's flags: docs/jailer.md of Firecracker. Its root becomes BASE/PROGRAM/ID/root, which
 * is the VM directory; Firecracker's own paths are relative to that in both cases.
 */
#include "runtime/vmm/firecracker/arguments.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define add(a, text) ((a)->argv[(a)->n++] = (text))

static void add_jailer(struct firecracker_arguments *a, const struct vmm_options *o,
                       const struct numa_node *node)
{
    (void)snprintf(a->uid, sizeof(a->uid), "%u", o->uid);
    (void)snprintf(a->gid, sizeof(a->gid), "%u", o->gid);
    (void)snprintf(a->version, sizeof(a->version), "%d", o->cgroup_version);
    add(a, o->choice->jailer);
    add(a, "--id");
    add(a, o->place->id);
    add(a, "--uid");
    add(a, a->uid);
    add(a, "--gid");
    add(a, a->gid);
    add(a, "--exec-file");
    add(a, o->choice->bin);
    if (node && o->cgroup_version != 0) {
        (void)snprintf(a->mems, sizeof(a->mems), "cpuset.mems=%d", o->numa_node);
        (void)snprintf(a->cpus, sizeof(a->cpus), "cpuset.cpus=%s", node->cpulist);
        add(a, "--cgroup");
        add(a, a->mems);
        add(a, "--cgroup");
        add(a, a->cpus);
    }
    if (o->cgroup_version != 0) {
        add(a, "--cgroup-version");
        add(a, a->version);
        if (o->cgroup_parent) {
            add(a, "--parent-cgroup");
            add(a, o->cgroup_parent);
        }
    }
    add(a, "--chroot-base-dir");
    add(a, o->place->base);
    if (o->netns) {
        add(a, "--netns");
        add(a, o->netns);
    }
    add(a, "--");
}

int firecracker_arguments(const struct vmm_options *o, const struct numa_node *node,
                          struct firecracker_arguments *ret, struct error *err)
{
    ret->n = 0;
    if (o->choice->jailer)
        add_jailer(ret, o, node);
    else
        add(ret, o->choice->bin);
    add(ret, "--api-sock");
    add(ret, "firecracker.sock");
    /* Its log goes to stdout, where the console is too; ready() turns errors on, after a question
     * that is one. What keeps it from starting goes to stderr in any case. */
    add(ret, "--level");
    add(ret, "Off");
    ret->argv[ret->n] = NULL;
    if (ret->n >= sizeof(ret->argv) / sizeof(ret->argv[0]))
        return error_set(err, E2BIG, "Firecracker: too many arguments");
    return 0;
}
