// SPDX-License-Identifier: Apache-2.0
/* assembly.c - VM directory, mount, vsock, listeners and process of one machine; see assembly.h */
#include "runtime/snapshot/assembly.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#include "runtime/base/io.h"
#include "runtime/block/expose/mount.h"
#include "runtime/guestlink/guestlink.h"
#include "runtime/vsock/vsock.h"

#define MOUNT_NAME "devices"
#define STATE_NAME "state"

struct part {
    char *name;
    struct block *stack;
    bool exposed;
};

struct assembly {
    struct assembly_options opt;
    const struct context *ctx;
    struct context calm; /* ctx without its cancel: for the VMM's acts */
    struct vmm_place place;
    int dir_fd; /* of place */
    char *vsock_path;
    struct mount *mount;
    struct vsock *vsock;
    struct guestlink_liveness *liveness;
    struct guestlink_agent *agent;
    struct vmm *vmm;
    bool expects; /* between the first assembly_expect() and assembly_complete() */
    struct part parts[ASSEMBLY_DEVICES_MAX];
    size_t n_parts;

    /* The watcher: `ended` follows the VMM's end, `stop` that and the context's cancellation. */
    struct cancel ended, stop;
    struct context ended_ctx, stop_ctx;
    int leave; /* eventfd; -1 = no watcher */
    pthread_t watcher;
    pthread_mutex_t lock; /* of: */
    bool stoppable;       /* an act that the cancellation ends, with the process */
};

/* Under the lock: when it is free again, either the act had ended before, or the process has. */
static void stop_start(struct assembly *a)
{
    lock_scope(&a->lock);
    if (a->stoppable)
        (void)vmm_stop(a->vmm, NULL);
}

static void *watch(void *opaque)
{
    struct assembly *a = opaque;
    struct pollfd fds[3] = {
        {.fd = a->leave, .events = POLLIN},
        {.fd = vmm_exit_fd(a->vmm), .events = POLLIN},
        {.fd = a->ctx && a->ctx->cancel ? a->ctx->cancel->fd : -1, .events = POLLIN}};

    for (;;) {
        if (poll(fds, 3, -1) < 0)
            continue;
        if (fds[0].revents)
            return NULL;
        if (fds[2].revents) {
            cancel_request(&a->stop);
            stop_start(a);
            fds[2].fd = -1;
        }
        if (fds[1].revents) {
            cancel_request(&a->stop);
            cancel_request(&a->ended);
            return NULL;
        }
    }
}

static char *join(const char *dir, const char *name, struct error *err)
{
    char *path = NULL;

    if (asprintf(&path, "%s/%s", dir, name) < 0) {
        (void)error_oom(err);
        return NULL;
    }
    return path;
}

static int prepare(struct assembly *a, struct error *err)
{
    const struct vmm_options *vo = &a->opt.vmm;

    if (cancel_init(&a->ended, err) < 0 || cancel_init(&a->stop, err) < 0 ||
        vmm_place_make(a->opt.base, vo->choice, vo->uid, vo->gid, &a->place, err) < 0)
        return -1;
    a->dir_fd = open(a->place.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (a->dir_fd < 0)
        return error_sys(err, "%s", a->place.path);
    a->vsock_path = join(a->place.path, VMM_VSOCK_NAME, err);
    cleanup_free char *mount = a->vsock_path ? join(a->place.path, MOUNT_NAME, err) : NULL;
    if (!mount)
        return -1;
    if (mkdir(mount, 0755) < 0)
        return error_sys(err, "%s", mount);
    a->mount = mount_new(mount, &a->calm, err);
    if (a->mount && a->opt.read_ahead_kib)
        mount_set_read_ahead(a->mount, a->opt.read_ahead_kib);
    return a->mount ? 0 : -1;
}

struct assembly *assembly_new(const struct assembly_options *options, const struct context *ctx,
                              struct error *err)
{
    cleanup_assembly struct assembly *a = calloc(1, sizeof(*a));

    if (!a) {
        (void)error_oom(err);
        return NULL;
    }
    (void)pthread_mutex_init(&a->lock, NULL);
    a->opt = *options;
    a->ctx = ctx;
    if (ctx) {
        a->calm = *ctx;
        a->calm.cancel = NULL;
    }
    a->leave = a->dir_fd = -1;
    a->ended.fd = a->stop.fd = -1;
    a->ended_ctx = a->stop_ctx = a->calm;
    a->ended_ctx.cancel = &a->ended;
    a->stop_ctx.cancel = &a->stop;
    if (prepare(a, err) < 0)
        return NULL;
    return steal_ptr(&a);
}

static int make_link(struct assembly *a, const char *name, struct error *err)
{
    cleanup_free char *link = join(a->place.path, name, err);
    cleanup_free char *target = join(MOUNT_NAME, name, err);

    if (!link || !target)
        return -1;
    if (symlink(target, link) < 0 && !(a->expects && errno == EEXIST))
        return error_sys(err, "device %s: %s", name, link);
    return 0;
}

int assembly_expect(struct assembly *a, const char *name, struct error *err)
{
    if (make_link(a, name, err) < 0)
        return -1;
    if (!a->expects)
        mount_hold(a->mount);
    a->expects = true;
    return 0;
}

void assembly_complete(struct assembly *a)
{
    mount_release(a->mount);
    a->expects = false;
}

int assembly_add(struct assembly *a, const char *name, struct block *stack, bool exposed,
                 struct error *err)
{
    const struct vmm_options *vo = &a->opt.vmm;

    if (a->n_parts == ASSEMBLY_DEVICES_MAX)
        return error_set(err, E2BIG, "device %s: there are %d already, the most allowed", name,
                         ASSEMBLY_DEVICES_MAX);
    cleanup_free char *own = strdup(name);
    if (!own)
        return error_oom(err);
    if (exposed) {
        if (make_link(a, name, err) < 0)
            return -1;
        if (mount_add_block(a->mount, name, 0600, vo->uid, vo->gid, stack, err) < 0)
            return error_wrap(err, "device %s", name);
    }
    a->parts[a->n_parts++] =
        (struct part){.name = steal_ptr(&own), .stack = stack, .exposed = exposed};
    return 0;
}

int assembly_put_state(struct assembly *a, const void *state, size_t len, struct error *err)
{
    const struct vmm_options *vo = &a->opt.vmm;
    cleanup_close int fd = vmm_open_inside(a->dir_fd, a->place.path, STATE_NAME,
                                           O_RDWR | O_CREAT | O_TRUNC, 0600, vo->uid, err);

    if (fd < 0)
        return -1;
    if ((vo->uid != geteuid() || vo->gid != getegid()) && fchown(fd, vo->uid, vo->gid) < 0)
        return error_sys(err, "%s/" STATE_NAME, a->place.path);
    return io_pwrite(fd, state, len, 0, STATE_NAME, err);
}

static int listen_for_guest(struct assembly *a, struct error *err)
{
    struct guestlink_address address = {
        .vsock_path = a->vsock_path, .uid = a->opt.vmm.uid, .gid = a->opt.vmm.gid};

    address.port = a->opt.liveness_port;
    if (guestlink_liveness_listen(&address, &a->liveness, err) < 0)
        return -1;
    address.port = a->opt.agent_port;
    return guestlink_agent_listen(&address, a->calm.log, &a->agent, err);
}

static int start_vsock(struct assembly *a, int *ret_fd, struct error *err)
{
    const struct vmm_options *vo = &a->opt.vmm;
    struct vsock_options options = {
        .uds_path = a->vsock_path, .guest_cid = VMM_GUEST_CID, .uid = vo->uid, .gid = vo->gid};

    a->vsock = vsock_new(a->mount, "vhost-vsock", &options, &a->calm, err);
    if (!a->vsock || vsock_start(a->vsock, err) < 0)
        return -1;
    int fd = vsock_open(a->vsock, err);
    if (fd < 0)
        return -1;
    *ret_fd = fd;
    return 0;
}

int assembly_start(struct assembly *a, const struct vmm_machine *machine, struct error *err)
{
    struct vmm_options vo = a->opt.vmm;
    cleanup_close int vhost = -1;

    if (mount_start_ahead(a->mount, err) < 0)
        return -1;
    if (machine->vsock) {
        if (vo.choice->hypervisor == VMM_QEMU && start_vsock(a, &vhost, err) < 0)
            return -1;
        if (listen_for_guest(a, err) < 0)
            return -1;
    }
    vo.place = &a->place;
    vo.vhost_vsock_fd = vhost;
    vo.guest_announces = machine->vsock && a->opt.agent_port != 0;
    a->vmm = vmm_start(machine, &vo, &a->calm, err);
    if (!a->vmm || mount_wait_watched(a->mount, err) < 0)
        return -1;
    a->leave = eventfd(0, EFD_CLOEXEC);
    if (a->leave < 0)
        return error_sys(err, "eventfd");
    int rc = pthread_create(&a->watcher, NULL, watch, a);
    if (rc != 0) {
        cleanup_close_p(&a->leave);
        return error_num(err, rc, "thread");
    }
    return 0;
}

static int load_state(struct vmm *vmm, struct error *err)
{
    return vmm_load(vmm, STATE_NAME, err);
}

static int begin_machine(struct assembly *a, int (*act)(struct vmm *, struct error *),
                         bool stoppable, struct error *err)
{
    if (!stoppable)
        return act(a->vmm, err);
    {
        lock_scope(&a->lock);
        a->stoppable = true;
    }
    /* After that: a request from now on finds it. */
    int rc = context_check(a->ctx, err) < 0 ? -1 : act(a->vmm, err);
    {
        lock_scope(&a->lock);
        a->stoppable = false;
    }
    /* What failed by itself says why, unless it was for the process's end that we brought about. */
    if (rc < 0 && vmm_state(a->vmm) != VMM_STATE_EXITED)
        return -1;
    return context_check(a->ctx, err) < 0 ? -1 : rc;
}

int assembly_boot(struct assembly *a, bool stoppable, struct error *err)
{
    return begin_machine(a, vmm_boot, stoppable, err);
}

int assembly_load(struct assembly *a, bool stoppable, struct error *err)
{
    return begin_machine(a, load_state, stoppable, err);
}

/* ---- The guest ---------------------------------------------------------------------------- */

int assembly_ended(struct assembly *a, struct error *err)
{
    struct vmm_exit end;

    if (vmm_wait_exit(a->vmm, 0, &end, err) < 0)
        return -1;
    return error_set(err, ECHILD, "the machine ended: %s%s%s", end.text,
                     end.console[0] ? "; it last printed: " : "", end.console);
}

static const struct context *guest_ctx(struct assembly *a, bool stoppable)
{
    return stoppable ? &a->stop_ctx : &a->ended_ctx;
}

/* What a wait for the guest really failed of. */
static int guest_failed(struct assembly *a, struct error *err)
{
    if (atomic_load(&a->ended.requested))
        return assembly_ended(a, err);
    return -1;
}

int assembly_wait_liveness(struct assembly *a, uint64_t timeout_ns, bool stoppable,
                           struct error *err)
{
    if (guestlink_liveness_wait(a->liveness, timeout_ns, guest_ctx(a, stoppable), err) < 0)
        return guest_failed(a, err);
    return 0;
}

int assembly_before_suspend(struct assembly *a, uint64_t timeout_ns, bool stoppable,
                            struct error *err)
{
    if (guestlink_agent_before_suspend(a->agent, timeout_ns, guest_ctx(a, stoppable), err) < 0)
        return guest_failed(a, err);
    return 0;
}

int assembly_after_resume(struct assembly *a, uint64_t timeout_ns, bool stoppable,
                          struct error *err)
{
    if (guestlink_agent_after_resume(a->agent, timeout_ns, guest_ctx(a, stoppable), err) < 0)
        return guest_failed(a, err);
    return 0;
}

/* ---- Data --------------------------------------------------------------------------------- */

int assembly_flush(struct assembly *a, struct error *err)
{
    if (a->vmm && mount_flush(a->mount, NULL, err) < 0)
        return -1;
    for (size_t i = 0; i < a->n_parts; i++)
        if ((!a->vmm || !a->parts[i].exposed) && block_flush(a->parts[i].stack, err) < 0)
            return -1;
    return 0;
}

int assembly_forget(struct assembly *a, struct error *err)
{
    return mount_forget(a->mount, NULL, err);
}

int assembly_set_lazy(struct assembly *a, const char *name, bool lazy, struct error *err)
{
    return mount_set_lazy(a->mount, name, lazy, err);
}

int assembly_save(struct assembly *a, void **ret_state, size_t *ret_len, struct error *err)
{
    if (vmm_save(a->vmm, STATE_NAME, err) < 0 || mount_flush(a->mount, NULL, err) < 0)
        return -1;
    cleanup_close int fd =
        vmm_open_inside(a->dir_fd, a->place.path, STATE_NAME, O_RDONLY, 0, a->opt.vmm.uid, err);
    if (fd < 0)
        return -1;
    char *state = io_read_fd(fd, ASSEMBLY_STATE_MAX, STATE_NAME, ret_len, err);
    if (!state)
        return -1;
    *ret_state = state;
    return 0;
}

const struct context *assembly_stop_context(const struct assembly *a)
{
    return &a->stop_ctx;
}

struct vmm *assembly_vmm(struct assembly *a)
{
    return a->vmm;
}

const char *assembly_path(const struct assembly *a)
{
    return a->place.path;
}

struct block *assembly_block(struct assembly *a, const char *name)
{
    for (size_t i = 0; i < a->n_parts; i++)
        if (strcmp(a->parts[i].name, name) == 0)
            return a->parts[i].stack;
    return NULL;
}

int assembly_close(struct assembly *a, struct error *err)
{
    struct error *first = err;
    int rc = 0;

    if (!a)
        return 0;
    if (a->leave >= 0) {
        (void)eventfd_write(a->leave, 1);
        (void)pthread_join(a->watcher, NULL);
        cleanup_close_p(&a->leave);
    }
    if (a->mount)
        assembly_complete(a); /* a process that waits for a file could not be killed */
    vmm_free(a->vmm);
    guestlink_agent_close(a->agent);
    guestlink_liveness_close(a->liveness);
    if (a->vsock)
        vsock_stop(a->vsock);
    if (a->mount && mount_stop(a->mount, first) < 0) {
        rc = -1;
        first = NULL;
    }
    mount_free(a->mount);
    vsock_free(a->vsock);
    for (size_t i = 0; i < a->n_parts; i++) {
        if (block_close(a->parts[i].stack, first) < 0) {
            rc = -1;
            first = NULL;
        }
        free(a->parts[i].name);
    }
    cleanup_close_p(&a->dir_fd);
    if (vmm_place_remove(&a->place, first) < 0)
        rc = -1;
    cancel_destroy(&a->ended);
    cancel_destroy(&a->stop);
    (void)pthread_mutex_destroy(&a->lock);
    free(a->vsock_path);
    free(a);
    return rc;
}
