// SPDX-License-Identifier: Apache-2.0
/* vsock.c - the vhost ioctls (linux/vhost.h), answered by a file of a FUSE mount
 *
 * Theory of operation: the order in which QEMU's vhost code calls is
 *
 *     SET_OWNER, GET_FEATURES, SET_VRING_CALL...        when the device is made
 *     VSOCK_SET_GUEST_CID
 *     SET_FEATURES, SET_MEM_TABLE, SET_LOG_BASE?,       when the guest's driver is ready and the VM
 * runs SET_VRING_{NUM,BASE,ADDR,KICK,CALL} for each ring, VSOCK_SET_RUNNING 1 SET_VRING_CALL,
 * SET_MEM_TABLE                     now and then while it runs VSOCK_SET_RUNNING 0, GET_VRING_BASE
 * for each ring when the VM stops
 *
 * Descriptors in arguments are numbers in the VMM, fetched with pidfd_getfd(2) from the process
 * whose thread made the call; pointers are read with process_vm_readv(2). The event queue stays
 * with QEMU.
 */
#include "runtime/vsock/vsock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/vhost.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "runtime/base/parse.h"
#include "runtime/block/expose/mount.h"
#include "runtime/vsock/engine.h"

#define FEATURE(bit) (UINT64_C(1) << (bit))
#define FEATURES                                                                                   \
    (FEATURE(26) /* VHOST_F_LOG_ALL: without it QEMU refuses to migrate */ |                       \
     FEATURE(27) /* VIRTIO_F_ANY_LAYOUT */ | FEATURE(28) /* VIRTIO_RING_F_INDIRECT_DESC */ |       \
     FEATURE(29) /* VIRTIO_RING_F_EVENT_IDX */ | FEATURE(32) /* VIRTIO_F_VERSION_1 */)
#define UDS_NAME_MAX 84 /* with "/proc/self/fd/N/" before it and "_PORT" behind it */

/* The process of a thread: "Tgid:" of proc(5)'s status. */
static int process_of(pid_t tid, pid_t *ret_pid, struct error *err)
{
    char path[64];
    cleanup_fclose FILE *f = NULL;
    cleanup_free char *line = NULL;
    char number[16] = "";
    size_t size = 0;
    uint64_t pid = 0;

    if (tid <= 0)
        return error_set(err, EPERM, "vsock: the caller is outside of our pid namespace");
    (void)snprintf(path, sizeof(path), "/proc/%d/status", (int)tid);
    f = fopen(path, "re");
    if (!f)
        return error_sys(err, "vsock: %s: open", path);
    while (number[0] == 0 && getline(&line, &size, f) >= 0)
        if (sscanf(line, "Tgid: %15[0-9]", number) != 1)
            number[0] = 0;
    if (parse_u64(number, 1, INT32_MAX, path, &pid, NULL) < 0)
        return error_set(err, EPERM, "vsock: %s: no Tgid", path);
    *ret_pid = (pid_t)pid;
    return 0;
}

static void forget(struct vsock *v)
{
    engine_halt(v);
    for (unsigned i = 0; i < QUEUES; i++) {
        (void)engine_set_kick(v, i, -1, NULL);
        if (v->call[i] >= 0)
            (void)close(v->call[i]);
        v->call[i] = -1;
        ring_destroy(&v->queues.rings[i]);
    }
    memory_clear(&v->queues.memory);
    engine_set_owner_fd(v, -1);
    v->owner = 0;
    v->features = 0;
    v->failed = false;
}

static int set_owner(struct vsock *v, pid_t pid, struct error *err)
{
    int fd;

    if (v->owner != 0)
        return error_set(err, EBUSY, "vsock: it has an owner, process %d", (int)v->owner);
    fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0)
        return error_sys(err, "vsock: process %d: pidfd_open", (int)pid);
    v->owner = pid;
    v->queues.memory.pid = pid;
    engine_set_owner_fd(v, fd);
    return 0;
}

/* Fetches one of the VMM's eventfds. Anything else is refused: a write to, say, a full pipe would
 * stop the thread. */
static int fetch_eventfd(const struct vsock *v, int theirs, int *ret_fd, struct error *err)
{
    cleanup_close int fd = -1;
    char path[64], target[64] = "";
    int flags;

    if (theirs < 0) { /* VHOST_FILE_UNBIND */
        *ret_fd = -1;
        return 0;
    }
    fd = (int)syscall(SYS_pidfd_getfd, v->owner_fd, theirs, 0);
    if (fd < 0)
        return error_sys(err, "vsock: process %d: descriptor %d: pidfd_getfd", (int)v->owner,
                         theirs);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (readlink(path, target, sizeof(target) - 1) < 0 ||
        strcmp(target, "anon_inode:[eventfd]") != 0)
        return error_set(err, EINVAL, "vsock: process %d: descriptor %d is no eventfd",
                         (int)v->owner, theirs);
    flags = fcntl(fd, F_GETFL);
    if (flags < 0 || (!(flags & O_NONBLOCK) && fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0))
        return error_sys(err, "vsock: descriptor %d: fcntl", theirs);
    *ret_fd = steal_fd(&fd);
    return 0;
}

static int set_mem_table(struct vsock *v, const struct mount_ioctl *io, struct error *err)
{
    cleanup_free struct vhost_memory_region *table = NULL;
    cleanup_free struct memory_region *regions = NULL;
    struct vhost_memory head;
    struct iovec local, remote;
    size_t size;

    memcpy(&head, io->in, sizeof(head));
    if (head.padding != 0 || head.nregions > MEMORY_REGIONS_MAX)
        return error_set(err, E2BIG, "vsock: memory table of %u regions, %d at most", head.nregions,
                         MEMORY_REGIONS_MAX);
    size = head.nregions * sizeof(*table);
    table = malloc(size + 1);
    regions = calloc(head.nregions + 1, sizeof(*regions));
    if (!table || !regions)
        return error_oom(err);
    local = (struct iovec){.iov_base = table, .iov_len = size};
    remote = (struct iovec){.iov_base = (void *)(uintptr_t)(io->arg + sizeof(head)), // NOLINT
                            .iov_len = size};
    if (size > 0 && process_vm_readv(v->owner, &local, 1, &remote, 1, 0) != (ssize_t)size)
        return error_sys(err, "vsock: process %d: read its memory table", (int)v->owner);
    for (uint32_t i = 0; i < head.nregions; i++)
        regions[i] = (struct memory_region){.guest = table[i].guest_phys_addr,
                                            .size = table[i].memory_size,
                                            .user = table[i].userspace_addr};
    return memory_set_regions(&v->queues.memory, regions, head.nregions, err);
}

/* The ring that an argument names in its first word. */
static struct ring *ring_of(struct vsock *v, const struct mount_ioctl *io, unsigned *ret_index,
                            struct error *err)
{
    unsigned index;

    memcpy(&index, io->in, sizeof(index));
    if (index >= QUEUES) {
        error_set(err, ENOBUFS, "vsock: ring %u of %d", index, QUEUES);
        return NULL;
    }
    *ret_index = index;
    return &v->queues.rings[index];
}

static int vring_state(struct vsock *v, struct mount_ioctl *io, struct error *err)
{
    struct vhost_vring_state state;
    unsigned i;
    struct ring *r = ring_of(v, io, &i, err);

    if (!r)
        return -1;
    memcpy(&state, io->in, sizeof(state));
    if (io->cmd == VHOST_GET_VRING_BASE) {
        state.num = r->last_avail;
        memcpy(io->out, &state, sizeof(state));
        return 0;
    }
    if (v->running)
        return error_set(err, EBUSY, "vsock: ring %u runs", i);
    if (io->cmd == VHOST_SET_VRING_NUM)
        return ring_set_num(r, state.num, err);
    if (state.num > UINT16_MAX)
        return error_set(err, EINVAL, "vsock: ring %u: base %u", i, state.num);
    r->last_avail = (uint16_t)state.num;
    return 0;
}

static int vring_addr(struct vsock *v, const struct mount_ioctl *io, struct error *err)
{
    struct vhost_vring_addr addr;
    unsigned i;
    struct ring *r = ring_of(v, io, &i, err);

    if (!r)
        return -1;
    memcpy(&addr, io->in, sizeof(addr));
    /* The flag asks to log writes to the used ring; memory.c logs every write of guest memory.
     * QEMU sets it anew on a ring that runs, with the same addresses, when logging begins or ends.
     */
    if (addr.flags & ~(1u << VHOST_VRING_F_LOG))
        return error_set(err, EOPNOTSUPP, "vsock: ring %u: flags 0x%x", i, addr.flags);
    if (v->running) {
        if (addr.desc_user_addr != r->desc || addr.avail_user_addr != r->avail ||
            addr.used_user_addr != r->used)
            return error_set(err, EBUSY, "vsock: ring %u runs", i);
        return 0;
    }
    return ring_set_addr(r, addr.desc_user_addr, addr.avail_user_addr, addr.used_user_addr, err);
}

static int vring_file(struct vsock *v, const struct mount_ioctl *io, struct error *err)
{
    struct vhost_vring_file file;
    unsigned i;
    int fd;

    if (!ring_of(v, io, &i, err))
        return -1;
    memcpy(&file, io->in, sizeof(file));
    if (io->cmd == VHOST_SET_VRING_ERR) /* nothing is ever told there: errors go to our log */
        return 0;
    if (fetch_eventfd(v, file.fd, &fd, err) < 0)
        return -1;
    if (io->cmd == VHOST_SET_VRING_KICK)
        return engine_set_kick(v, i, fd, err);
    if (v->call[i] >= 0)
        (void)close(v->call[i]);
    v->call[i] = fd;
    return 0;
}

static int set_features(struct vsock *v, uint64_t features, struct error *err)
{
    if (features & ~FEATURES)
        return error_set(err, EOPNOTSUPP, "vsock: unknown features 0x%" PRIx64,
                         features & ~FEATURES);
    if (v->running && (features ^ v->features) & ~FEATURE(VHOST_F_LOG_ALL))
        return error_set(err, EBUSY, "vsock: features other than logging change while it runs");
    v->features = features;
    v->queues.memory.logging = v->queues.memory.log != 0 && features & FEATURE(VHOST_F_LOG_ALL);
    return 0;
}

static int set_running(struct vsock *v, int on, struct error *err)
{
    if (!on) {
        engine_halt(v);
        return 0;
    }
    if (v->running)
        return 0;
    return engine_run(v, err);
}

static int dispatch(struct vsock *v, struct mount_ioctl *io, struct error *err)
{
    uint64_t word = 0;
    int number = 0;

    if (io->in_len >= sizeof(word))
        memcpy(&word, io->in, sizeof(word));
    if (io->in_len >= sizeof(number))
        memcpy(&number, io->in, sizeof(number));
    switch (io->cmd) {
    case VHOST_GET_FEATURES:
        word = FEATURES;
        memcpy(io->out, &word, sizeof(word));
        return 0;
    case VHOST_SET_FEATURES:
        return set_features(v, word, err);
    case VHOST_RESET_OWNER:
        forget(v);
        return 0;
    case VHOST_SET_MEM_TABLE:
        return set_mem_table(v, io, err);
    case VHOST_SET_LOG_BASE:
        v->queues.memory.log = word;
        v->queues.memory.logging = word != 0 && v->features & FEATURE(VHOST_F_LOG_ALL);
        return 0;
    case VHOST_SET_LOG_FD: /* asks to be told of a full log; ours is never full */
        return 0;
    case VHOST_SET_VRING_NUM:
    case VHOST_SET_VRING_BASE:
    case VHOST_GET_VRING_BASE:
        return vring_state(v, io, err);
    case VHOST_SET_VRING_ADDR:
        return vring_addr(v, io, err);
    case VHOST_SET_VRING_KICK:
    case VHOST_SET_VRING_CALL:
    case VHOST_SET_VRING_ERR:
        return vring_file(v, io, err);
    case VHOST_VSOCK_SET_GUEST_CID:
        if (word != v->cid)
            return error_set(err, EADDRNOTAVAIL,
                             "vsock: the VMM wants context id %" PRIu64
                             ", this device has %" PRIu64,
                             word, v->cid);
        return 0;
    case VHOST_VSOCK_SET_RUNNING:
        return set_running(v, number, err);
    default: /* GET_BACKEND_FEATURES among them: there are none */
        return error_set(err, ENOTTY, "vsock: unknown request 0x%x", io->cmd);
    }
}

static int file_ioctl(void *self, void *handle, struct mount_ioctl *io, struct error *err)
{
    struct vsock *v = self;
    pid_t pid = 0;
    int rc;

    (void)handle;
    if (process_of(io->pid, &pid, err) < 0)
        return -1;
    engine_lock(v);
    if (io->cmd == VHOST_SET_OWNER)
        rc = set_owner(v, pid, err);
    else if (v->owner != pid)
        rc = error_set(err, EPERM, "vsock: process %d does not own the device", (int)pid);
    else
        rc = dispatch(v, io, err);
    engine_unlock(v);
    if (rc < 0 && err && err->code != ENOTTY)
        log_warn(v->log, "vsock: request of the VMM refused", log_str("name", v->name),
                 log_str("why", err->text));
    return rc;
}

static int file_open(void *self, void **ret_handle, struct error *err)
{
    struct vsock *v = self;
    int rc = 0;

    engine_lock(v);
    if (v->open)
        rc = error_set(err, EBUSY, "vsock: %s: the device is in use", v->name);
    else
        v->open = true;
    engine_unlock(v);
    if (rc == 0)
        *ret_handle = v;
    return rc;
}

static void file_release(void *self, void *handle)
{
    struct vsock *v = self;

    (void)handle;
    engine_lock(v);
    forget(v);
    v->open = false;
    engine_unlock(v);
}

static const struct mount_file_ops file_ops = {
    .open = file_open,
    .release = file_release,
    .ioctl = file_ioctl,
};

struct vsock *vsock_new(struct mount *mount, const char *name, const struct vsock_options *opt,
                        const struct context *ctx, struct error *err)
{
    struct vsock *v;
    const char *last = strrchr(opt->uds_path, '/');

    last = last ? last + 1 : opt->uds_path;
    if (opt->guest_cid < 3 || opt->guest_cid >= UINT32_MAX) {
        error_set(err, EINVAL, "vsock: context id %" PRIu64 " is not from 3 to 2^32 - 2",
                  opt->guest_cid);
        return NULL;
    }
    if (*last == 0 || strlen(last) > UDS_NAME_MAX) {
        error_set(err, ENAMETOOLONG, "vsock: %s: the last part of the path has not 1 to %d bytes",
                  opt->uds_path, UDS_NAME_MAX);
        return NULL;
    }
    v = calloc(1, sizeof(*v));
    if (!v) {
        error_oom(err);
        return NULL;
    }
    v->log = context_log(ctx);
    v->mount = mount;
    v->cid = opt->guest_cid;
    v->uid = opt->uid;
    v->gid = opt->gid;
    v->name = strdup(name);
    v->uds_path = strdup(opt->uds_path);
    if (v->uds_path)
        v->uds = v->uds_path + (last - opt->uds_path);
    if (engine_init(v, err) < 0 || ((!v->name || !v->uds_path) && error_oom(err) < 0) ||
        mount_add(mount, name, 0600, opt->uid, opt->gid, 0, &file_ops, v, err) < 0) {
        vsock_free(v);
        return NULL;
    }
    return v;
}

int vsock_start(struct vsock *v, struct error *err)
{
    return engine_start(v, err);
}

int vsock_open(struct vsock *v, struct error *err)
{
    cleanup_free char *path = NULL;
    int fd;

    if (asprintf(&path, "%s/%s", mount_path(v->mount), v->name) < 0) {
        path = NULL;
        return error_oom(err);
    }
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return error_sys(err, "vsock: %s: open", path);
    return fd;
}

void vsock_stop(struct vsock *v)
{
    engine_stop(v);
}

void vsock_stats(struct vsock *v, struct vsock_stats *ret_stats)
{
    const struct device_counters *c = device_count(v->queues.device);

    engine_lock(v);
    *ret_stats = (struct vsock_stats){
        .connections = device_streams(v->queues.device),
        .accepted = c->accepted,
        .connected = c->connected,
        .refused = c->refused,
        .bytes_to_guest = c->bytes_to_guest,
        .bytes_from_guest = c->bytes_from_guest,
        .packets_dropped = c->dropped,
        .running = v->running,
        .failed = v->failed,
    };
    engine_unlock(v);
}

void vsock_free(struct vsock *v)
{
    if (!v)
        return;
    engine_stop(v);
    engine_destroy(v);
    free(v->name);
    free(v->uds_path);
    free(v);
}
