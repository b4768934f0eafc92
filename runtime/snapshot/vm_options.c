// SPDX-License-Identifier: Apache-2.0
/* vm_options.c - from options to a hypervisor, a network and a process's surroundings */
#include "runtime/snapshot/vm_options.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/net/net.h"
#include "runtime/snapshot/user_net.h"

/* The namespace as a path: *ret NULL = ours. Returns 0, or -1 when it is not there. */
static int find_netns(const char *name, char **ret, struct error *err)
{
    char *path = NULL;

    *ret = NULL;
    if (!name || !*name)
        return 0;
    if (strchr(name, '/')) {
        if (access(name, F_OK) < 0)
            return error_sys(err, "--netns %s", name);
    } else {
        cleanup_close int fd = net_open_namespace(name, err);
        if (fd < 0)
            return error_wrap(err, "--netns (without one, use --net user)");
    }
    if (asprintf(&path, strchr(name, '/') ? "%s" : NET_NAMESPACE_DIR "/%s", name) < 0)
        return error_oom(err);
    *ret = path;
    return 0;
}

static bool wants_user_net(const struct vm_opts *o)
{
    return strcmp(o->net, "user") == 0 || (strcmp(o->net, "auto") == 0 && o->forwards.count > 0);
}

static int choose_net(const struct vm_opts *o, struct vm_setup *s, const struct context *ctx,
                      struct error *err)
{
    const bool qemu = s->choice.hypervisor == VMM_QEMU, forwards = o->forwards.count > 0;
    const bool automatic = strcmp(o->net, "auto") == 0;
    const bool user = wants_user_net(o);

    if (forwards && !user)
        return error_set(err, ERROR_USAGE,
                         "--forward: needs --net user; drafter-forwarder forwards to a tap's "
                         "namespace");
    if (user && !qemu)
        return error_set(err, ERROR_USAGE,
                         "%s: Firecracker has no user-mode network: use --net tap with a namespace "
                         "of drafter-nat (and drafter-forwarder), or --hypervisor qemu",
                         forwards ? "--forward" : "--net user");
    if (user) {
        s->nic = VMM_NIC_USER;
        return user_net_forwards(&o->forwards, &s->forwards, err);
    }
    if (strcmp(o->net, "tap") == 0) {
        s->nic = VMM_NIC_TAP;
        return find_netns(o->netns, &s->netns, err);
    }
    if (!automatic)
        return 0; /* none */
    /* Another's namespace is for root to enter. */
    const bool tap =
        o->netns && *o->netns && geteuid() == 0 && find_netns(o->netns, &s->netns, NULL) == 0;
    s->nic = tap ? VMM_NIC_TAP : qemu ? VMM_NIC_USER : VMM_NIC_NONE;
    log_info(context_log(ctx), "Chose network",
             log_str("net", tap    ? "tap"
                            : qemu ? "user"
                                   : "none"));
    return 0;
}

int vm_setup_choose(const struct vm_opts *o, enum vmm_hypervisor bound, enum vmm_accel accel,
                    const char *kernel, const struct context *ctx, struct vm_setup *ret,
                    struct error *err)
{
    cleanup_vm_setup struct vm_setup s = {.nic = VMM_NIC_NONE};
    struct vmm_wish wish = {.firecracker_bin = o->firecracker_bin,
                            .jailer_bin = o->jailer_bin,
                            .qemu_bin = o->qemu_bin,
                            .kernel = kernel,
                            .user_net = wants_user_net(o)};

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
    vo.console_in = o->enable_input ? o->console_in : -1;
    vo.console_out = !o->enable_output ? -1 : o->console_out ? o->console_out : STDOUT_FILENO;
    *ret = vo;
}

void vm_setup_clear(struct vm_setup *s)
{
    vmm_choice_clear(&s->choice);
    free(s->netns);
    free(s->forwards);
    *s = (struct vm_setup){.nic = VMM_NIC_NONE};
}
