// SPDX-License-Identifier: Apache-2.0
/* qemu.c - the driver for QEMU
 *
 * Theory of operation: guest memory is a shared mapping of the memory file. With the migration
 * capability x-ignore-shared a "migration" leaves that memory out, so what `migrate` writes is the
 * state of the devices (half a MB, most of it firmware), which we take from a socket and put into
 * the state file. A target is started with -incoming defer, and `migrate-incoming` reads the same
 * bytes from a socket again; the memory file is mapped already.
 *
 * The process gets its monitor as one end of a socket pair: there is no path another process could
 * connect to, and the end of QEMU is the end of the connection.
 *
 * "stop" drains and flushes all disks before it returns; a completed "migrate" also makes QEMU let
 * go of them, and "cont" takes them up again, so a saved machine can run on.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "runtime/base/io.h"
#include "runtime/base/json.h"
#include "runtime/vmm/cgroup.h"
#include "runtime/vmm/driver.h"
#include "runtime/vmm/qemu/command_line.h"
#include "runtime/vmm/qemu/qmp.h"
#include "runtime/vmm/qemu/state.h"

#define STREAM_CHUNK (64u << 10)

struct qemu {
    struct qmp *qmp;
    struct cgroup cgroup;
    void *stream; /* of prepare_load(); NULL = not read yet */
    size_t stream_len;
    bool guest_announces; /* see vmm_options */
};

/* ---- Start -------------------------------------------------------------------------------- */

/* Descriptors only the child needs; closed here once it has them. */
struct child_fds {
    struct qemu_fds n;
    int netns;
};

static void cleanup_child_fds_p(struct child_fds *f)
{
    /* The others are the caller's. */
    cleanup_close_p(&f->n.qmp);
    cleanup_close_p(&f->n.tap);
    cleanup_close_p(&f->netns);
}

static int open_child_fds(struct vmm *vmm, const struct vmm_options *opt, struct child_fds *f,
                          int *ret_qmp, struct error *err)
{
    const struct vmm_machine *m = vmm->machine;
    int pair[2];

    if (m->vsock) {
        if (opt->vhost_vsock_fd < 0)
            return error_set(err, EINVAL,
                             "machine: its vsock needs the fd of a vhost-vsock device");
        f->n.vhost_vsock = opt->vhost_vsock_fd;
    }
    if (m->nic.kind == VMM_NIC_TAP) {
        /* Holds the number that the child fills with the tap, in the right network namespace. */
        f->n.tap = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (f->n.tap < 0)
            return error_sys(err, "/dev/null");
    }
    if (opt->netns) {
        f->netns = open(opt->netns, O_RDONLY | O_CLOEXEC);
        if (f->netns < 0)
            return error_sys(err, "network namespace %s", opt->netns);
    }
    if (m->nic.kind == VMM_NIC_PASST)
        f->n.passt = m->nic.passt_fd;
    f->n.serial = opt->serial_fd;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return error_sys(err, "socket pair");
    *ret_qmp = pair[0];
    f->n.qmp = pair[1];
    return 0;
}

/* The group that /dev/kvm belongs to, so that an unprivileged QEMU may open it. Returns how many.
 */
static size_t kvm_groups(const struct vmm *vmm, gid_t *groups)
{
    struct stat st;

    if (vmm->machine->accel != VMM_ACCEL_KVM || stat("/dev/kvm", &st) < 0)
        return 0;
    groups[0] = st.st_gid;
    return 1;
}

static int make_cgroup(struct vmm *vmm, struct qemu *q, const struct vmm_options *opt,
                       struct error *err)
{
    struct numa_node node;
    int has_node = opt->numa_node >= 0 ? numa_read(opt->numa_node, &node, err) : 0;
    const char *parent = opt->cgroup_parent ? opt->cgroup_parent : opt->place->program;

    if (has_node < 0)
        return -1;
    if (opt->cgroup_version == 0)
        return 0;
    if (cgroup_find(opt->cgroup_version, parent, vmm->id, &q->cgroup, err) < 0)
        return -1;
    return cgroup_make(&q->cgroup, opt->cgroup_version, has_node ? &node : NULL, err);
}

static int start(struct vmm *vmm, const struct vmm_options *opt, struct error *err)
{
    struct qemu *q = calloc(1, sizeof(*q));
    struct child_fds fds __attribute__((cleanup(cleanup_child_fds_p))) = {
        .n = {.qmp = -1, .tap = -1, .vhost_vsock = -1, .passt = -1, .serial = -1}, .netns = -1};
    struct qemu_arguments args = {0};
    int keep[5], qmp_fd = -1;
    size_t n_keep = 0;

    if (!q)
        return error_oom(err);
    q->cgroup = (struct cgroup)CGROUP_INIT;
    q->guest_announces = opt->guest_announces;
    vmm->self = q;
    if (qemu_machine_defaults(vmm->machine, err) < 0)
        return -1;
    cleanup_close int memory = -1;
    if (vmm->purpose == VMM_BOOT && (memory = vmm_open_memory(vmm, true, err)) < 0)
        return -1;
    if (make_cgroup(vmm, q, opt, err) < 0)
        return -1;
    int rc = open_child_fds(vmm, opt, &fds, &qmp_fd, err);
    if (qmp_fd >= 0) {
        q->qmp = qmp_new(qmp_fd, vmm->ctx, rc < 0 ? NULL : err);
        rc = q->qmp ? rc : -1;
    }
    if (rc < 0 || qemu_command_line(vmm->bin, vmm->machine, vmm->purpose, &fds.n, &args, err) < 0)
        return -1;
    const int all[] = {fds.n.qmp, fds.n.tap, fds.n.vhost_vsock, fds.n.passt, fds.n.serial};
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        if (all[i] >= 0)
            keep[n_keep++] = all[i];
    struct process_options po = {
        .argv = (const char *const *)args.argv,
        .keep_fds = keep,
        .n_keep_fds = n_keep,
        .dir_fd = vmm->dir_fd,
        .console_in = opt->console_in,
        .console_out = opt->console_out,
        .log = context_log(vmm->ctx),
        .cgroup_procs = &q->cgroup.procs_fd,
        .n_cgroup_procs = q->cgroup.procs_fd >= 0 ? 1 : 0,
        .netns_fd = fds.netns,
        .tap = vmm->machine->nic.kind == VMM_NIC_TAP ? vmm_tap(&vmm->machine->nic) : NULL,
        .tap_fd = fds.n.tap,
        .numa_node = opt->numa_node,
        .change_user = vmm->uid != geteuid() || vmm->gid != getegid(),
        .uid = vmm->uid,
        .gid = vmm->gid,
        .small_faults = opt->small_faults,
    };
    po.n_groups = kvm_groups(vmm, po.groups);
    vmm->process = process_start(&po, err);
    qemu_arguments_clear(&args);
    return vmm->process ? 0 : -1;
}

static void release(struct vmm *vmm)
{
    struct qemu *q = vmm->self;

    if (!q)
        return;
    qmp_free(q->qmp);
    cgroup_clear(&q->cgroup);
    free(q->stream);
    free(q);
    vmm->self = NULL;
}

/* ---- Small acts --------------------------------------------------------------------------- */

/* {"capabilities":[{"capability":NAME,"state":true},...]} */
static struct json_object *capabilities(void)
{
    static const char *const names[] = {"x-ignore-shared", "events"};
    struct json_object *list = json_object_new_array(), *args = json_object_new_object();

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct json_object *c = json_object_new_object();
        json_object_object_add(c, "capability", json_object_new_string(names[i]));
        json_object_object_add(c, "state", json_object_new_boolean(1));
        json_object_array_add(list, c);
    }
    json_object_object_add(args, "capabilities", list);
    return args;
}

static struct json_object *one_string(const char *key, const char *value)
{
    struct json_object *args = json_object_new_object();

    json_object_object_add(args, key, json_object_new_string(value));
    return args;
}

/* The machine's run state ("running", "paused", ...). Returns 0. */
static int query_status(struct qemu *q, uint64_t deadline, char *status, size_t size,
                        struct error *err)
{
    const char *text = NULL;
    cleanup_json struct json_object *value = NULL;

    if (qmp_execute(q->qmp, "query-status", NULL, -1, deadline, &value, err) < 0)
        return -1;
    if (!json_object_is_type(value, json_type_object))
        return error_set(err, EBADMSG, "QMP: query-status: not an object");
    if (json_required(json_get_string(value, "status", "query-status", &text, err), "status",
                      "query-status", err) < 0)
        return -1;
    (void)snprintf(status, size, "%s", text);
    return 0;
}

static int expect_status(struct qemu *q, uint64_t deadline, const char *a, const char *b,
                         struct error *err)
{
    char status[64];

    if (query_status(q, deadline, status, sizeof(status), err) < 0)
        return -1;
    if (strcmp(status, a) != 0 && strcmp(status, b) != 0)
        return error_set(err, EIO, "QEMU: the machine is \"%s\" instead of \"%s\"", status, a);
    return 0;
}

static int ready(struct vmm *vmm, uint64_t deadline, struct error *err)
{
    struct qemu *q = vmm->self;
    bool load = vmm->purpose == VMM_LOAD;

    if (qmp_greet(q->qmp, deadline, vmm->features.version, sizeof(vmm->features.version), err) < 0)
        return -1;
    if (qmp_begin(q->qmp, "migrate-set-capabilities", capabilities(), -1, deadline, err) < 0)
        return -1;
    /* The greeting comes before the machine is made; this answer after it. */
    if (expect_status(q, deadline, load ? "inmigrate" : "prelaunch", load ? "inmigrate" : "paused",
                      err) < 0)
        return err && err->code == EREMOTEIO
                   ? error_wrap(err, "this QEMU (%s) cannot save without memory",
                                vmm->features.version)
                   : -1;
    vmm->features.memory_live = true;
    return 0;
}

static int boot(struct vmm *vmm, uint64_t deadline, struct error *err)
{
    struct qemu *q = vmm->self;

    return qmp_execute(q->qmp, "cont", NULL, -1, deadline, NULL, err);
}

static int pause_(struct vmm *vmm, uint64_t deadline, struct error *err)
{
    struct qemu *q = vmm->self;

    return qmp_execute(q->qmp, "stop", NULL, -1, deadline, NULL, err);
}

static int resume(struct vmm *vmm, uint64_t deadline, struct error *err)
{
    struct qemu *q = vmm->self;

    while (qmp_take_event(q->qmp, "RESUME"))
        ;
    if (qmp_execute(q->qmp, "cont", NULL, -1, deadline, NULL, err) < 0)
        return -1;
    /* The event comes before the answer. To ask for the status would wait for the guest, which has
     * the processor now. */
    return qmp_take_event(q->qmp, "RESUME") ? 0
                                            : expect_status(q, deadline, "running", "running", err);
}

static int runs(struct vmm *vmm, uint64_t deadline, bool *ret_runs, struct error *err)
{
    struct qemu *q = vmm->self;
    char status[64];

    if (query_status(q, deadline, status, sizeof(status), err) < 0)
        return -1;
    *ret_runs = strcmp(status, "running") == 0;
    return 0;
}

/* ---- Save and load ------------------------------------------------------------------------ */

/* Waits until the migration ended. Returns 0 when it completed. */
static int wait_migration(struct qemu *q, uint64_t deadline, struct error *err)
{
    for (;;) {
        cleanup_json struct json_object *data = NULL;
        const char *status = NULL;
        if (qmp_wait_event(q->qmp, "MIGRATION", deadline, &data, err) < 0)
            return -1;
        if (!json_object_is_type(data, json_type_object) ||
            json_get_string(data, "status", "QMP event MIGRATION", &status, err) != JSON_OK)
            return error_set(err, EBADMSG, "QMP: event MIGRATION without a status");
        if (strcmp(status, "completed") == 0)
            return 0;
        if (strcmp(status, "failed") != 0 && strcmp(status, "cancelled") != 0)
            continue;
        /* Why stands in query-migrate, if anywhere. */
        cleanup_json struct json_object *info = NULL;
        const char *why = NULL;
        if (qmp_execute(q->qmp, "query-migrate", NULL, -1, deadline, &info, NULL) == 0 &&
            json_object_is_type(info, json_type_object))
            (void)json_get_string(info, "error-desc", "query-migrate", &why, NULL);
        return error_set(err, EIO, "QEMU: the device state %s%s%s", status, why ? ": " : "",
                         why ? why : "");
    }
}

/* One end of a new socket pair goes to QEMU by the name "state"; the other is returned. */
static int give_socket(struct qemu *q, uint64_t deadline, struct error *err)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return error_sys(err, "socket pair");
    cleanup_close int ours = pair[0], theirs = pair[1];
    int flags = fcntl(ours, F_GETFL);
    if (flags < 0 || fcntl(ours, F_SETFL, flags | O_NONBLOCK) < 0)
        return error_sys(err, "socket pair");
    if (qmp_begin(q->qmp, "getfd", one_string("fdname", "state"), theirs, deadline, err) < 0)
        return -1;
    return steal_fd(&ours);
}

static int wait_stream(struct vmm *vmm, int fd, short events, uint64_t deadline, struct error *err)
{
    struct pollfd fds[2] = {{.fd = fd, .events = events},
                            {.fd = process_exit_fd(vmm->process), .events = POLLIN}};
    for (;;) {
        uint64_t now = vmm_now();
        if (now >= deadline)
            return error_set(err, ETIMEDOUT, "QEMU: the device state is not through in time");
        int n = poll(fds, 2, (int)((deadline - now) / 1000000 % 3600000) + 1);
        if (n < 0 && errno != EINTR)
            return error_sys(err, "poll");
        if (n > 0 && fds[0].revents)
            return 0;
        if (n > 0 && fds[1].revents)
            return error_set(err, ECONNRESET, "QEMU: ended during the transfer of the state");
    }
}

static int read_stream(struct vmm *vmm, int fd, uint64_t deadline, char **ret_data, size_t *ret_len,
                       struct error *err)
{
    cleanup_free char *data = NULL;
    size_t len = 0, size = 0;

    for (;;) {
        if (size - len < STREAM_CHUNK) {
            size_t more = size ? size * 2 : 8 * STREAM_CHUNK;
            if (len > QEMU_STATE_STREAM_MAX)
                return error_set(err, EFBIG, "QEMU: a device state of more than %ju bytes",
                                 (uintmax_t)QEMU_STATE_STREAM_MAX);
            char *p = realloc(data, more);
            if (!p)
                return error_oom(err);
            data = p;
            size = more;
        }
        ssize_t n = read(fd, data + len, size - len);
        if (n == 0)
            break;
        if (n > 0) {
            len += (size_t)n;
        } else if (errno == EAGAIN) {
            if (wait_stream(vmm, fd, POLLIN, deadline, err) < 0)
                return -1;
        } else if (errno != EINTR) {
            return error_sys(err, "device state");
        }
    }
    *ret_data = steal_ptr(&data);
    *ret_len = len;
    return 0;
}

static int write_stream(struct vmm *vmm, int fd, const char *data, size_t len, uint64_t deadline,
                        struct error *err)
{
    while (len > 0) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n > 0) {
            data += n;
            len -= (size_t)n;
        } else if (errno == EAGAIN) {
            if (wait_stream(vmm, fd, POLLOUT, deadline, err) < 0)
                return -1;
        } else if (errno == EPIPE || errno == ECONNRESET) {
            break; /* QEMU has read enough or given up: its event says which */
        } else if (errno != EINTR) {
            return error_sys(err, "device state");
        }
    }
    return 0;
}

static int save(struct vmm *vmm, const char *state, uint64_t deadline, struct error *err)
{
    struct qemu *q = vmm->self;
    cleanup_free char *data = NULL;
    cleanup_free char *what = NULL;
    size_t len = 0;

    if (asprintf(&what, "%s/%s", vmm->directory, state) < 0) {
        what = NULL;
        return error_oom(err);
    }
    cleanup_close int file =
        vmm_open_inside(vmm->dir_fd, vmm->directory, state, O_RDWR | O_CREAT, 0600, vmm->uid, err);
    if (file < 0)
        return -1;
    qmp_forget_events(q->qmp);
    cleanup_close int stream = give_socket(q, deadline, err);
    if (stream < 0 ||
        qmp_execute(q->qmp, "migrate", one_string("uri", "fd:state"), -1, deadline, NULL, err) < 0)
        return -1;
    int rc = read_stream(vmm, stream, deadline, &data, &len, err);
    if (rc < 0) {
        /* Leave QEMU as it was before: paused, with no migration under way. */
        if (err && err->code != ECONNRESET)
            (void)qmp_execute(q->qmp, "migrate_cancel", NULL, -1, vmm_now() + vmm->timeout_ns, NULL,
                              NULL);
        return -1;
    }
    if (wait_migration(q, deadline, err) < 0)
        return -1;
    return qemu_state_write(file, what, vmm->features.version, vmm->machine, data, len, err);
}

/* A state saved with a user-mode network has a section of that network, which nothing but such a
 * network can read: an idle one does, for as long as the load takes. Sections start with the length
 * of their name and the name (QEMU, docs/devel/migration.rst). */
static bool had_user_network(const void *data, size_t len)
{
    return memmem(data, len, "\005slirp", 6);
}

static int idle_network(struct qemu *q, bool there, uint64_t deadline, struct error *err)
{
    struct json_object *args = one_string("id", "idle");

    if (there) {
        json_object_object_add(args, "type", json_object_new_string("user"));
        json_object_object_add(args, "restrict", json_object_new_boolean(1));
    }
    return qmp_execute(q->qmp, there ? "netdev_add" : "netdev_del", args, -1, deadline, NULL, err);
}

/* Reads the state and checks it. The version of a QEMU that has not greeted yet is not known: then
 * what does not depend on it. */
static int read_state(struct vmm *vmm, const char *state, struct error *err)
{
    struct qemu *q = vmm->self;
    cleanup_free char *what = NULL;

    if (asprintf(&what, "%s/%s", vmm->directory, state) < 0) {
        what = NULL;
        return error_oom(err);
    }
    cleanup_close int file =
        vmm_open_inside(vmm->dir_fd, vmm->directory, state, O_RDONLY, 0, vmm->uid, err);
    if (file < 0)
        return -1;
    return qemu_state_read(file, what, vmm->features.version, vmm->machine, &q->stream,
                           &q->stream_len, err);
}

static int prepare_load(struct vmm *vmm, const char *state, struct error *err)
{
    return qemu_state_versioned(vmm->machine) ? read_state(vmm, state, err) : 0;
}

/* After a load QEMU sends announcements for the card and has the driver of a virtio card send some
 * as well, in its first moment. No rounds of that, where the agent does the same a little later:
 * under TCG the kernel's part of it is a fifth of all the code that a wake-up has to translate.
 * (QEMU, qapi/migration.json: 0 to 1000 rounds, 5 unless it is told; read when the state comes.) */
static int announce_nothing(struct qemu *q, uint64_t deadline, struct error *err)
{
    struct json_object *args = json_object_new_object();

    json_object_object_add(args, "announce-rounds", json_object_new_int(0));
    return qmp_begin(q->qmp, "migrate-set-parameters", args, -1, deadline, err);
}

static int load(struct vmm *vmm, const char *state, uint64_t deadline, struct error *err)
{
    struct qemu *q = vmm->self;

    if (!q->stream && read_state(vmm, state, err) < 0)
        return -1;
    const bool user = vmm->machine->nic.kind == VMM_NIC_USER;
    const bool had_user = had_user_network(q->stream, q->stream_len), idle = had_user && !user;
    if (idle && idle_network(q, true, deadline, err) < 0)
        return -1;
    if (q->guest_announces && announce_nothing(q, deadline, err) < 0)
        return -1;
    cleanup_close int stream = give_socket(q, deadline, err);
    if (stream < 0 || qmp_execute(q->qmp, "migrate-incoming", one_string("uri", "fd:state"), -1,
                                  deadline, NULL, err) < 0)
        return -1;
    if (write_stream(vmm, stream, q->stream, q->stream_len, deadline, err) < 0)
        return -1;
    cleanup_free_p(&q->stream);
    cleanup_close_p(&stream);
    if (wait_migration(q, deadline, err) < 0) {
        /* The card leaves checksums to a tap; a user-mode network cannot take that over. QEMU says
         * so and ends, in what order is not ours to know. */
        if (!user || had_user || !err || (err->code != EIO && err->code != ECONNRESET))
            return -1;
        err->code = EIO;
        return error_wrap(err, "the machine was saved on a tap and needs one here (--net tap)");
    }
    /* QEMU says "completed" after the machine has become "paused". */
    return idle ? idle_network(q, false, deadline, err) : 0;
}

const struct vmm_driver vmm_qemu_driver = {
    .name = "qemu",
    .memory_live_after_boot = true,
    .start = start,
    .ready = ready,
    .boot = boot,
    .prepare_load = prepare_load,
    .load = load,
    .pause = pause_,
    .resume = resume,
    .runs = runs,
    .save = save,
    .release = release,
};
