// SPDX-License-Identifier: Apache-2.0
/* vm_options.c - from options to a hypervisor, a network and a process's surroundings */
#include "runtime/snapshot/vm_options.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char *netns_path(const char *name, struct error *err)
{
    char *path = NULL;

    if (asprintf(&path, strchr(name, '/') ? "%s" : "/var/run/netns/%s", name) < 0) {
        (void)error_oom(err);
        return NULL;
    }
    return path;
}

static int join_forwards(const struct option_list *list, char **ret, struct error *err)
{
    char *text = NULL;

    for (size_t i = 0; i < list->count; i++) {
        char *longer = NULL;
        int rc = asprintf(&longer, "%s%s%s", text ? text : "", text ? "," : "", list->items[i]);
        free(text);
        if (rc < 0)
            return error_oom(err);
        text = longer;
    }
    *ret = text;
    return 0;
}

static int choose_net(const struct vm_opts *o, struct vm_setup *s, const struct context *ctx,
                      struct error *err)
{
    bool qemu = s->choice.hypervisor == VMM_QEMU;
    bool automatic = strcmp(o->net, "auto") == 0;

    if (strcmp(o->net, "tap") == 0 || (automatic && !o->forwards.count)) {
        cleanup_free char *path = o->netns && *o->netns ? netns_path(o->netns, err) : NULL;
        if (o->netns && *o->netns && !path)
            return -1;
        bool there = path && access(path, F_OK) == 0;
        if (!automatic && path && !there)
            return error_sys(err,
                             "--netns %s: %s: make namespaces with drafter-nat, or use --net user",
                             o->netns, path);
        if (!automatic || there) {
            s->nic = VMM_NIC_TAP;
            s->netns = steal_ptr(&path);
            return 0;
        }
    }
    if (strcmp(o->net, "none") == 0) {
        if (o->forwards.count)
            return error_set(err, ERROR_USAGE, "--forward: needs --net user");
        s->nic = VMM_NIC_NONE;
        return 0;
    }
    if (!qemu && !automatic)
        return error_set(err, ERROR_USAGE,
                         "--net user: only QEMU has it: use --net tap with a namespace of "
                         "drafter-nat, or --hypervisor qemu");
    s->nic = qemu ? VMM_NIC_USER : VMM_NIC_NONE;
    if (automatic)
        log_info(context_log(ctx), "Chose network", log_str("net", qemu ? "user" : "none"));
    return join_forwards(&o->forwards, &s->forwards, err);
}

int vm_setup_choose(const struct vm_opts *o, enum vmm_hypervisor bound, enum vmm_accel accel,
                    const char *kernel, const struct context *ctx, struct vm_setup *ret,
                    struct error *err)
{
    cleanup_vm_setup struct vm_setup s = {.nic = VMM_NIC_NONE};
    struct vmm_wish wish = {.firecracker_bin = o->firecracker_bin,
                            .jailer_bin = o->jailer_bin,
                            .qemu_bin = o->qemu_bin,
                            .kernel = kernel};

    if (vmm_hypervisor_parse(o->hypervisor, &wish.hypervisor, err) < 0 ||
        vmm_accel_parse(o->accel, &wish.accel, err) < 0)
        return -1;
    if (wish.hypervisor == VMM_AUTO)
        wish.hypervisor = bound;
    if (wish.accel == VMM_ACCEL_AUTO)
        wish.accel = accel;
    if (vmm_choose(&wish, ctx, &s.choice, err) < 0 || choose_net(o, &s, ctx, err) < 0)
        return -1;
    *ret = s;
    s = (struct vm_setup){.nic = VMM_NIC_NONE};
    return 0;
}

struct vmm_nic vm_setup_nic(const struct vm_setup *s, const struct vm_opts *o)
{
    return (struct vmm_nic){
        .kind = s->nic, .mac = o->mac, .tap = o->tap, .forwards = s->forwards, .passt_fd = -1};
}

void vm_setup_fill(const struct vm_setup *s, const struct vm_opts *o, struct vmm_options *ret)
{
    struct vmm_options vo = VMM_OPTIONS_INIT;

    vo.choice = &s->choice;
    vo.uid = o->uid < 0 ? geteuid() : (uid_t)o->uid;
    vo.gid = o->gid < 0 ? getegid() : (gid_t)o->gid;
    vo.netns = s->nic == VMM_NIC_TAP ? s->netns : NULL;
    vo.numa_node = (int)o->numa_node;
    vo.cgroup_version = (int)o->cgroup_version;
    vo.cgroup_parent = o->cgroup_parent;
    vo.console_in = o->enable_input ? STDIN_FILENO : -1;
    vo.console_out = o->enable_output ? STDOUT_FILENO : -1;
    *ret = vo;
}

void vm_setup_clear(struct vm_setup *s)
{
    vmm_choice_clear(&s->choice);
    free(s->netns);
    free(s->forwards);
    *s = (struct vm_setup){.nic = VMM_NIC_NONE};
}
