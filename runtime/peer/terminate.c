// SPDX-License-Identifier: Apache-2.0
/* terminate.c - a migration into a package; see terminate.h */
#include "runtime/peer/terminate.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/base/io.h"
#include "runtime/base/output.h"
#include "runtime/peer/folder.h"
#include "runtime/snapshot/package.h"

struct file {
    char name[BLUEPRINT_NAME_MAX + 1];
    char base[BLUEPRINT_FILE_MAX + 1]; /* last part of its path */
    struct output *out;                /* NULL: it lies in the folder */
    struct block *block;               /* NULL: state and config */
    struct pull *pull;
    uint64_t size;
};

struct terminate {
    const struct terminate_options *o;
    const struct context *ctx;
    struct report *report;
    struct report_move move;
    struct output *folder; /* NULL: with devices */
    struct package *pkg;   /* as the source describes the machine */
    struct file files[PACKAGE_DEVICES_MAX + 2];
    size_t n;
};

/* ---- Files -------------------------------------------------------------------------------- */

/* What the source calls the device's file, if that is a name; the usual one else. */
static void choose_base(const struct terminate *t, struct file *f)
{
    const struct blueprint_device *d = package_find(t->pkg, f->name);
    char buf[BLUEPRINT_FILE_MAX + 1];
    const char *base = d ? d->file : blueprint_file_name(f->name, buf);

    (void)snprintf(f->base, sizeof(f->base), "%s", base);
}

/* Makes the device's file, empty; *ret_fd is the caller's. Returns it, or NULL. */
static struct file *make_file(struct terminate *t, const char *name, int *ret_fd, struct error *err)
{
    struct file *f = &t->files[t->n];

    if (t->n == ARRAY_SIZE(t->files)) {
        (void)error_set(err, E2BIG, "device %s: there are %zu already", name, t->n);
        return NULL;
    }
    memset(f, 0, sizeof(*f));
    (void)snprintf(f->name, sizeof(f->name), "%s", name);
    if (t->folder) {
        choose_base(t, f);
        *ret_fd = openat(output_fd(t->folder), f->base,
                         O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (*ret_fd < 0) {
            (void)error_sys(err, "device %s: %s/%s", name, t->o->output, f->base);
            return NULL;
        }
    } else {
        const struct named *d = named_find(t->o->devices, name);
        if (!d) {
            (void)error_set(err, ENOENT, "device %s: --devices has no place for it: add one", name);
            return NULL;
        }
        const char *slash = strrchr(d->path, '/');
        (void)snprintf(f->base, sizeof(f->base), "%s", slash ? slash + 1 : d->path);
        if (output_make_private_parent(d->path, err) < 0)
            return NULL;
        f->out = output_begin(d->path, OUTPUT_FILE, 0600, err);
        if (!f->out)
            return NULL;
        *ret_fd = dup(output_fd(f->out));
        if (*ret_fd < 0) {
            (void)error_sys(err, "device %s", name);
            output_abort(steal_ptr(&f->out));
            return NULL;
        }
    }
    t->n++;
    return f;
}

static struct block *open_file(struct terminate *t, const struct file *f, struct error *err)
{
    cleanup_json struct json_object *layers = json_object_new_array();
    struct json_object *file = json_object_new_object();
    cleanup_free char *path = NULL;

    if (!layers || !file || json_object_array_add(layers, file) < 0 ||
        asprintf(&path, "%s%s%s", output_path(f->out ? f->out : t->folder), f->out ? "" : "/",
                 f->out ? "" : f->base) < 0) {
        (void)error_oom(err);
        return NULL;
    }
    json_object_object_add(file, "type", json_object_new_string("file"));
    json_object_object_add(file, "path", json_object_new_string(path));
    /* output.h holds a lock on a file that is being made. */
    json_object_object_add(file, "shared", json_object_new_boolean(1));
    return block_open_json(layers, f->name, t->ctx, err);
}

static int make_device(struct terminate *t, const struct wire_device *w,
                       const struct pull_options *opt, struct pull **ret_pull, struct error *err)
{
    enum blueprint_role role = blueprint_role_of(w->name);
    cleanup_close int fd = -1;

    if (blueprint_check_name(w->name, err) < 0)
        return -1;
    if (role != BLUEPRINT_MEMORY && role != BLUEPRINT_ROOT && role != BLUEPRINT_DISK)
        return error_set(err, EPROTO, "device %s: is not one that travels", w->name);
    struct file *f = make_file(t, w->name, &fd, err);
    if (!f)
        return -1;
    f->size = w->size;
    if (ftruncate(fd, (off_t)w->size) < 0)
        return error_sys(err, "device %s: %ju bytes", w->name, (uintmax_t)w->size);
    cleanup_block struct block *b = open_file(t, f, err);
    if (!b)
        return -1;
    f->block = pull_open(b, opt, t->ctx, &f->pull, err);
    if (!f->block)
        return -1;
    (void)steal_ptr(&b);
    *ret_pull = f->pull;
    report_device(t->report, w->name, w->size);
    return 0;
}

static int write_state(struct terminate *t, const uint8_t *state, size_t len, struct error *err)
{
    cleanup_close int fd = -1;
    struct file *f = make_file(t, "state", &fd, err);

    if (!f)
        return -1;
    f->size = package_padded(len);
    if (io_write(fd, state, len, f->base, err) < 0)
        return -1;
    return ftruncate(fd, (off_t)f->size) < 0 ? error_sys(err, "device state") : 0;
}

/* ---- The package -------------------------------------------------------------------------- */

static int add_device(struct terminate *t, struct package *pkg, const struct file *f,
                      struct error *err)
{
    struct blueprint_device d = {.size = f->size, .has_digest = true};
    cleanup_close int fd = f->out ? dup(output_fd(f->out))
                                  : openat(output_fd(t->folder), f->base, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return error_sys(err, "device %s", f->name);
    (void)snprintf(d.name, sizeof(d.name), "%s", f->name);
    (void)snprintf(d.file, sizeof(d.file), "%s", f->base);
    if (digest_of_fd(fd, f->base, d.sha256, NULL, err) < 0)
        return -1;
    return package_add_device(pkg, &d, err);
}

/* Flushes, hashes, writes the config: all but the names. */
static int write_package(struct terminate *t, struct error *err)
{
    cleanup_package struct package *pkg = package_new(err);
    cleanup_close int fd = -1;

    if (!pkg)
        return -1;
    for (size_t i = 0; i < t->n; i++) {
        struct file *f = &t->files[i];
        if (f->block && block_flush(f->block, err) < 0)
            return -1;
        context_progress(t->ctx, "hash", i, t->n, "devices");
        if (add_device(t, pkg, f, err) < 0)
            return -1;
    }
    pkg->liveness_port = t->pkg->liveness_port;
    pkg->agent_port = t->pkg->agent_port;
    pkg->machine = steal_ptr(&t->pkg->machine);
    if (!make_file(t, "config", &fd, err) || package_write_config(pkg, fd, "config", err) < 0)
        return -1;
    for (size_t i = 0; t->folder && i < t->n; i++) {
        cleanup_close int file =
            openat(output_fd(t->folder), t->files[i].base, O_RDONLY | O_CLOEXEC);
        if (file < 0 || fsync(file) < 0)
            return error_sys(err, "device %s: make it durable", t->files[i].name);
    }
    for (size_t i = 0; !t->folder && i < t->n; i++)
        if (fsync(output_fd(t->files[i].out)) < 0)
            return error_sys(err, "device %s: make it durable", t->files[i].name);
    return 0;
}

/* The config is last in the list: without it there is no package. */
static int publish(struct terminate *t, struct error *err)
{
    if (t->folder)
        return output_commit(&t->folder, true, err);
    for (size_t i = 0; i < t->n; i++)
        if (output_commit(&t->files[i].out, true, err) < 0)
            return -1;
    return 0;
}

/* ---- The engine's host -------------------------------------------------------------------- */

static int offer(void *opaque, const struct wire_device *offered, size_t n, const char *machine,
                 size_t machine_len, const struct pull_options *pull, struct pull **pulls,
                 uint8_t *shares_base, struct error *err)
{
    struct terminate *t = opaque;

    (void)shares_base;
    t->pkg = package_parse(machine, machine_len, "the offered machine", err);
    if (!t->pkg)
        return -1;
    if (t->pkg->foreign)
        return error_set(err, EPROTO, "the offered machine: says nothing of what it is");
    for (size_t i = 0; i < n; i++)
        if (make_device(t, &offered[i], &pull[i], &pulls[i], err) < 0)
            return -1;
    return 0;
}

static int load(void *opaque, const uint8_t *state, size_t len, struct error *err)
{
    struct terminate *t = opaque;

    for (size_t i = 0; i < t->n; i++)
        if (pull_wait(t->files[i].pull, err) < 0)
            return -1;
    if (write_state(t, state, len, err) < 0)
        return -1;
    return t->o->keep_running ? 1 : write_package(t, err);
}

static int run(void *opaque, struct error *err)
{
    return publish(opaque, err);
}

static void discard(void *opaque)
{
    (void)opaque; /* what is not published goes when all is closed */
}

static void watch_status(void *opaque, const struct migrate_status *s)
{
    struct terminate *t = opaque;

    report_status(t->report, &t->move, s);
}

static void watch_trace(void *opaque, enum migrate_trace_kind kind, const char *device,
                        uint64_t offset, uint64_t length)
{
    report_trace(((struct terminate *)opaque)->report, kind, device, offset, length);
}

static struct stream *reconnect(void *opaque, struct error *err)
{
    struct terminate *t = opaque;

    return stream_connect(t->o->raddr, &t->o->transport, t->ctx, err);
}

static int receive(struct terminate *t, struct migrate_result *result, struct error *err)
{
    struct migrate_watch watch = {
        .status = watch_status, .trace = t->o->trace ? watch_trace : NULL, .opaque = t};
    struct migrate_host host = {
        .offer = offer, .load = load, .run = run, .discard = discard, .opaque = t};
    struct migrate_receive_options options = {
        .postcopy_off = true, .reconnect = reconnect, .opaque = t, .watch = &watch};
    struct stream *s = stream_connect(t->o->raddr, &t->o->transport, t->ctx, err);

    if (!s)
        return -1;
    log_info(context_log(t->ctx), "Migrating from", log_str("remote", stream_peer(s)));
    report_begin(t->report, &t->move, "target", stream_peer(s));
    int rc = migrate_receive(s, &host, &options, t->ctx, result, err);
    if (rc == 0 && result->outcome == MIGRATE_COPIED) {
        rc = write_package(t, err);
        if (rc == 0)
            rc = publish(t, err);
    }
    report_end(t->report, &t->move, result, rc < 0 ? err : NULL);
    return rc;
}

/* ---- Start to end ------------------------------------------------------------------------- */

/* Nothing is replaced unasked, and nothing begins that could not end. */
static int check_free(const struct terminate_options *o, struct error *err)
{
    struct stat st;

    for (size_t i = 0; i < (o->output ? 1 : o->devices->n); i++) {
        const char *path = o->output ? o->output : o->devices->items[i].path;
        if (!o->replace && lstat(path, &st) == 0)
            return error_set(err, EEXIST,
                             "%s: is there already: --replace puts the new one in its "
                             "place",
                             path);
    }
    if (!o->output && (!named_find(o->devices, "state") || !named_find(o->devices, "config")))
        return error_set(err, EINVAL, "--devices: \"state\" or \"config\" is missing");
    return 0;
}

/* What is replaced may be what a machine runs in, and that would be its end. Locked until it is. */
static int hold_old(const struct terminate_options *o, int *ret_fd, struct error *err)
{
    const struct named *memory = o->output ? NULL : named_find(o->devices, "memory");
    cleanup_package struct package *pkg = o->output ? package_open(o->output, NULL) : NULL;
    const struct blueprint_device *d = pkg ? package_find(pkg, "memory") : NULL;
    char buf[BLUEPRINT_FILE_MAX + 1];
    cleanup_free char *path = NULL;

    if (!o->replace || (!o->output && !memory))
        return 0;
    const char *file = d ? d->file : blueprint_file_name("memory", buf);
    if (asprintf(&path, "%s%s%s", memory ? memory->path : o->output, memory ? "" : "/",
                 memory ? "" : file) < 0) {
        path = NULL;
        return error_oom(err);
    }
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) /* nothing that could run */
        return 0;
    if (folder_lock(fd, false, path, err) < 0)
        return error_wrap(err, "--replace");
    *ret_fd = steal_fd(&fd);
    return 0;
}

int terminate_run(const struct terminate_options *options, const struct context *ctx,
                  struct error *err)
{
    cleanup_free struct terminate *t = calloc(1, sizeof(*t));
    struct migrate_result result = {.outcome = MIGRATE_ROLLED_BACK};

    if (!t)
        return error_oom(err);
    cleanup_close int old = -1;
    if (check_free(options, err) < 0 || hold_old(options, &old, err) < 0)
        return -1;
    t->o = options;
    t->ctx = ctx;
    t->report = report_open(options->status_fd, options->trace, ctx, err);
    int rc = t->report ? 0 : -1;
    if (rc == 0 && options->output &&
        !(t->folder = output_begin(options->output, OUTPUT_DIR, 0700, err)))
        rc = -1;
    if (rc == 0)
        rc = receive(t, &result, err);
    for (size_t i = 0; i < t->n; i++) {
        (void)block_close(t->files[i].block, NULL);
        output_abort(t->files[i].out);
    }
    output_abort(t->folder);
    if (rc == 0)
        log_info(context_log(ctx),
                 options->keep_running ? "Copied the machine" : "Took the machine",
                 log_str("package", options->output ? options->output : "--devices"),
                 log_uint("ms", result.total_ns / 1000000),
                 log_uint("bytes_received", result.bytes_received));
    package_free(t->pkg);
    if (report_close(t->report, rc < 0 ? NULL : err) < 0)
        rc = -1;
    return rc;
}
