// SPDX-License-Identifier: Apache-2.0
/* plan.c - packages, blueprints and device lists, as devices a peer can open */
#include "runtime/peer/plan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/base/io.h"
#include "runtime/base/json.h"
#include "runtime/base/output.h"
#include "runtime/peer/folder.h"
#include "runtime/snapshot/archive.h"

#define STATE_ROOM (UINT64_C(16) << 20) /* for the state of a machine that was booted here */

static char *format(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static char *format(struct error *err, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    int rc = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (rc < 0) {
        (void)error_oom(err);
        return NULL;
    }
    return text;
}

static void clear_device(struct device *d)
{
    struct devices one = {.items = calloc(1, sizeof(*d)), .count = 1};

    if (!one.items)
        return; /* a leak at the end of a process without memory */
    *one.items = *d;
    devices_free(&one);
    memset(d, 0, sizeof(*d));
}

void plan_free(struct plan *plan)
{
    if (!plan)
        return;
    for (size_t i = 0; i < plan->count; i++)
        clear_device(&plan->items[i].d);
    free(plan->items);
    package_free(plan->pkg);
    blueprint_free(plan->bp);
    free(plan->config);
    free(plan->mark);
    free(plan->record);
    free(plan->overlay_dir);
    free(plan);
}

struct plan_device *plan_find(const struct plan *plan, const char *name)
{
    for (size_t i = 0; i < plan->count; i++)
        if (strcmp(plan->items[i].d.name, name) == 0)
            return &plan->items[i];
    return NULL;
}

static struct plan *new_plan(const char *overlay_dir, struct error *err)
{
    cleanup_plan struct plan *plan = calloc(1, sizeof(*plan));

    if (plan)
        plan->items = calloc(DEVICES_MAX, sizeof(*plan->items));
    if (plan && overlay_dir)
        plan->overlay_dir = strdup(overlay_dir);
    if (!plan || !plan->items || (overlay_dir && !plan->overlay_dir)) {
        (void)error_oom(err);
        return NULL;
    }
    return steal_ptr(&plan);
}

/* Adds a device through the parser, so that every default is the documented one. overlay: file name
 * in the overlay folder; NULL = none. */
static struct plan_device *add(struct plan *plan, const char *name, const char *base,
                               const char *overlay, bool shares_base, struct error *err)
{
    cleanup_json struct json_object *list = json_object_new_array();
    struct json_object *obj = json_object_new_object();
    cleanup_devices struct devices parsed = {0};

    if (plan->count == DEVICES_MAX) {
        (void)error_set(err, E2BIG, "device %s: there are %d already", name, DEVICES_MAX);
        return NULL;
    }
    if (!list || !obj || json_object_array_add(list, obj) < 0) {
        (void)error_oom(err);
        return NULL;
    }
    json_object_object_add(obj, "name", json_object_new_string(name));
    json_object_object_add(obj, "base", json_object_new_string(base));
    json_object_object_add(obj, "sharedbase", json_object_new_boolean(shares_base));
    if (overlay) {
        cleanup_free char *file = format(err, "%s/%s.overlay", plan->overlay_dir, overlay);
        cleanup_free char *state = format(err, "%s/%s.overlay.state", plan->overlay_dir, overlay);
        if (!file || !state)
            return NULL;
        json_object_object_add(obj, "overlay", json_object_new_string(file));
        json_object_object_add(obj, "state", json_object_new_string(state));
    }
    const char *text = json_object_to_json_string(list);
    if (!text) {
        (void)error_oom(err);
        return NULL;
    }
    if (devices_parse(text, strlen(text), &parsed, err) < 0)
        return NULL;
    struct plan_device *p = &plan->items[plan->count++];
    *p = (struct plan_device){.d = parsed.items[0], .role = blueprint_role_of(name)};
    memset(&parsed.items[0], 0, sizeof(parsed.items[0]));
    return p;
}

static const char *last_path(const struct device *d)
{
    return d->n_overlays ? d->overlays[d->n_overlays - 1] : d->base;
}

/* Where the machine's own two files stand. */
static int place_marks(struct plan *plan, struct error *err)
{
    const struct plan_device *memory = plan_find(plan, "memory");

    if (!memory)
        return error_set(err, EINVAL, "devices: \"memory\" is missing");
    plan->mark = format(err, "%s.machine", last_path(&memory->d));
    plan->record = format(err, "%s.moved", last_path(&memory->d));
    return plan->mark && plan->record ? 0 : -1;
}

/* ---- Package ------------------------------------------------------------------------------ */

static int package_device(struct plan *plan, const struct blueprint_device *dev, struct error *err)
{
    enum blueprint_role role = blueprint_role_of(dev->name);

    /* A machine that was saved needs neither kernel nor initrd. */
    if (role == BLUEPRINT_KERNEL || role == BLUEPRINT_INITRD)
        return 0;
    cleanup_free char *base = format(err, "%s/%s", plan->pkg->dir, dev->file);
    if (!base)
        return -1;
    struct plan_device *p = add(plan, dev->name, base, dev->file, dev->has_digest, err);
    if (!p)
        return -1;
    p->has_digest = dev->has_digest;
    memcpy(p->sha256, dev->sha256, SHA256_SIZE);
    return 0;
}

/* A folder that a migration turns into a package: every device is a plain file in it. */
static struct plan *empty_package(const char *dir, struct error *err)
{
    cleanup_plan struct plan *plan = new_plan(dir, err);

    if (!plan)
        return NULL;
    plan->config = format(err, "%s/" PACKAGE_CONFIG, dir);
    plan->write_config = true;
    if (!plan->config || !plan_add_incoming(plan, "memory", err) ||
        !plan_add_incoming(plan, "state", err) || place_marks(plan, err) < 0)
        return NULL;
    return steal_ptr(&plan);
}

struct plan *plan_package(const char *dir, const char *overlay_dir, bool into, struct error *err)
{
    struct error why = ERROR_INIT;
    struct package *pkg = package_open(dir, &why);

    if (!pkg && into && why.code == ENOENT)
        return empty_package(dir, err);
    if (!pkg) {
        if (err)
            *err = why;
        return NULL;
    }
    cleanup_plan struct plan *plan = new_plan(overlay_dir, err);
    if (!plan) {
        package_free(pkg);
        return NULL;
    }
    plan->pkg = pkg;
    plan->config = format(err, "%s/" PACKAGE_CONFIG, dir);
    if (!plan->config)
        return NULL;
    for (size_t i = 0; i < pkg->n_devices; i++)
        if (package_device(plan, &pkg->devices[i], err) < 0)
            return NULL;
    if (place_marks(plan, err) < 0)
        return error_wrap(err, "package %s", dir), NULL;
    return steal_ptr(&plan);
}

/* ---- Blueprint ---------------------------------------------------------------------------- */

struct plan_device *plan_add_incoming(struct plan *plan, const char *name, struct error *err)
{
    char buf[BLUEPRINT_FILE_MAX + 1];

    if (blueprint_check_name(name, err) < 0)
        return NULL;
    if (!plan->overlay_dir) {
        (void)error_set(err, ENOENT,
                        "device %s: is offered, but --devices has no place for it: add one", name);
        return NULL;
    }
    cleanup_free char *base =
        format(err, "%s/%s", plan->overlay_dir, blueprint_file_name(name, buf));
    struct plan_device *p = base ? add(plan, name, base, NULL, false, err) : NULL;
    if (p)
        p->made = true;
    return p;
}

static int read_config(struct plan *plan, bool required, struct error *err)
{
    size_t len;

    if (!required && access(plan->config, F_OK) < 0 && errno == ENOENT)
        return 0;
    cleanup_free char *text =
        io_read_file(AT_FDCWD, plan->config, 2 * PACKAGE_CONFIG_MAX, &len, err);
    if (!text)
        return -1;
    plan->pkg = package_parse(text, len, plan->config, err);
    return plan->pkg ? 0 : -1;
}

struct plan *plan_blueprint(const char *dir, const char *overlay_dir, struct error *err)
{
    cleanup_plan struct plan *plan = new_plan(overlay_dir, err);

    if (!plan)
        return NULL;
    plan->bp = blueprint_open(dir, err);
    plan->config = format(err, "%s/" PACKAGE_CONFIG, overlay_dir);
    plan->write_config = true;
    if (!plan->bp || !plan->config)
        return NULL;
    for (size_t i = 0; i < plan->bp->n_devices; i++) {
        const struct blueprint_device *dev = &plan->bp->devices[i];
        bool fixed = dev->role == BLUEPRINT_KERNEL || dev->role == BLUEPRINT_INITRD;
        cleanup_free char *base = format(err, "%s/%s", dir, dev->file);
        struct plan_device *p =
            base ? add(plan, dev->name, base, fixed ? NULL : dev->file, !fixed, err) : NULL;
        if (!p)
            return NULL;
        p->read_only = fixed;
        p->has_digest = true;
        memcpy(p->sha256, dev->sha256, SHA256_SIZE);
    }
    if (!plan_add_incoming(plan, "memory", err) || !plan_add_incoming(plan, "state", err) ||
        read_config(plan, false, err) < 0 || place_marks(plan, err) < 0)
        return NULL;
    return steal_ptr(&plan);
}

/* ---- Device list -------------------------------------------------------------------------- */

struct plan *plan_devices(const char *json, struct error *err)
{
    cleanup_devices struct devices list = {0};
    cleanup_plan struct plan *plan = new_plan(NULL, err);

    if (!plan || devices_parse(json, strlen(json), &list, err) < 0)
        return NULL;
    for (size_t i = 0; i < list.count; i++) {
        struct device *d = &list.items[i];
        enum blueprint_role role = blueprint_role_of(d->name);
        if (role == BLUEPRINT_CONFIG) {
            plan->config = strdup(d->base);
            if (!plan->config) {
                (void)error_oom(err);
                return NULL;
            }
            continue;
        }
        if (role == BLUEPRINT_KERNEL || role == BLUEPRINT_INITRD)
            continue;
        plan->items[plan->count++] = (struct plan_device){.d = *d, .role = role};
        memset(d, 0, sizeof(*d));
    }
    if (place_marks(plan, err) < 0)
        return NULL;
    if (!plan_find(plan, "state")) {
        (void)error_set(err, EINVAL, "devices: \"state\" is missing");
        return NULL;
    }
    if (plan->config && *plan->config && read_config(plan, false, err) < 0)
        return NULL;
    plan->write_config = !plan->pkg && plan->config && *plan->config;
    return steal_ptr(&plan);
}

/* ---- Bases --------------------------------------------------------------------------------- */

bool plan_may_share(const struct plan_device *p)
{
    return p->d.sharedbase && p->d.n_overlays;
}

int plan_prove_base(struct plan_device *p, const struct context *ctx, struct error *err)
{
    struct error why = ERROR_INIT;
    uint8_t sum[SHA256_SIZE];

    if (!plan_may_share(p))
        return 0;
    if (p->proved)
        return 1;
    cleanup_close int fd = open(p->d.base, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        (void)error_sys(&why, "%s", p->d.base);
    else if (digest_of_fd_watched(fd, p->d.base, "hash", ctx, sum, NULL, &why) == 0 &&
             p->has_digest && memcmp(sum, p->sha256, SHA256_SIZE) != 0)
        (void)error_set(&why, ESTALE, "%s: is not what its config says", p->d.base);
    if (why.code && context_check(ctx, err) < 0)
        return -1;
    if (why.code) {
        log_warn(context_log(ctx), "Base is not shared: all of it travels, ignoring",
                 log_str("device", p->d.name), log_str("error", why.text));
        p->d.sharedbase = false;
        return 0;
    }
    memcpy(p->sha256, sum, SHA256_SIZE);
    p->has_digest = p->proved = true;
    return 1;
}

struct plan *plan_of_wish(const struct plan_wish *w, const struct context *ctx, struct error *err)
{
    const char *package = w->package ? w->package : "out/package";
    const char *cache = w->package_cache ? w->package_cache : "out/packages";
    cleanup_free char *folder = NULL;
    struct stat st;

    if ((w->package != NULL) + (w->blueprint != NULL) + (w->devices != NULL) > 1) {
        (void)error_set(err, ERROR_USAGE,
                        "--package, --blueprint and --devices: one of them, not more");
        return NULL;
    }
    if (w->blueprint && w->into) {
        (void)error_set(err, ERROR_USAGE, "--blueprint: a machine that is taken in does not boot");
        return NULL;
    }
    if (w->devices)
        return plan_devices(w->devices, err);
    if (w->blueprint)
        return plan_blueprint(w->blueprint, w->overlay_dir, err);
    if (stat(package, &st) == 0 && S_ISREG(st.st_mode)) {
        folder = archive_cached(package, cache, ctx, err);
        if (!folder)
            return NULL;
        package = folder;
    }
    return plan_package(package, w->overlay_dir, w->into, err);
}

/* ---- Opening ------------------------------------------------------------------------------ */

static int make_parents(const struct device *d, struct error *err)
{
    for (size_t i = 0; i < d->n_overlays; i++)
        if (output_make_private_parent(d->overlays[i], err) < 0 ||
            output_make_private_parent(d->states[i], err) < 0)
            return -1;
    return 0;
}

/* The base's digest, where it is known, is what says that a base elsewhere is the same. */
static int add_digest(const struct plan_device *p, struct json_object *layers, struct error *err)
{
    char text[7 + SHA256_HEX_SIZE] = "sha256:";

    if (!p->has_digest)
        return 0;
    digest_hex(p->sha256, text + 7);
    if (json_object_object_add(json_object_array_get_idx(layers, 0), "digest",
                               json_object_new_string(text)) < 0)
        return error_oom(err);
    return 0;
}

static struct block *open_read_only(const struct plan_device *p, const struct context *ctx,
                                    struct error *err)
{
    cleanup_json struct json_object *layers = json_object_new_array();
    struct json_object *file = json_object_new_object();

    if (!layers || !file || json_object_array_add(layers, file) < 0) {
        (void)error_oom(err);
        return NULL;
    }
    json_object_object_add(file, "type", json_object_new_string("file"));
    json_object_object_add(file, "path", json_object_new_string(p->d.base));
    json_object_object_add(file, "readonly", json_object_new_boolean(1));
    return block_open_json(layers, p->d.name, ctx, err);
}

/* skipsilo: overlays in the VM directory, which goes when the machine does. */
static int forget_later(struct device *d, const char *vm_dir, struct error *err)
{
    d->n_overlays = 1;
    d->overlays[0] = format(err, "%s/%s.copy", vm_dir, d->name);
    d->states[0] = format(err, "%s/%s.copy.state", vm_dir, d->name);
    return d->overlays[0] && d->states[0] ? 0 : -1;
}

struct block *plan_open(const struct plan_device *p, const char *vm_dir, const struct context *ctx,
                        struct error *err)
{
    if (p->read_only)
        return open_read_only(p, ctx, err);
    struct device d = p->d;
    if (d.skipsilo && forget_later(&d, vm_dir, err) < 0)
        return NULL;
    struct block *b = NULL;
    cleanup_json struct json_object *layers = device_stack(&d, err);
    if (layers && make_parents(&d, err) == 0 && add_digest(p, layers, err) == 0)
        b = block_open_json(layers, d.name, ctx, err);
    if (d.skipsilo) {
        free(d.overlays[0]);
        free(d.states[0]);
    }
    return b;
}

/* A sparse file of that size where there is none. */
static int make_file(const struct plan_device *p, uint64_t size, bool anew, struct error *err)
{
    const char *path = p->d.base;
    int flags = p->made && !anew ? O_EXCL : 0;
    struct stat st;

    if (output_make_private_parent(path, err) < 0)
        return -1;
    cleanup_close int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | flags, 0600);
    if (fd < 0 && errno == EEXIST)
        return error_set(err, EEXIST,
                         "device %s: %s is there already, perhaps of an attempt that did not end "
                         "well: --fresh removes it",
                         p->d.name, path);
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_sys(err, "device %s: %s", p->d.name, path);
    if (p->made && anew) {
        /* Emptied under the lock that its user holds. */
        if (folder_lock(fd, true, path, err) < 0)
            return error_wrap(err, "device %s", p->d.name);
        if (ftruncate(fd, 0) < 0)
            return error_sys(err, "device %s: %s", p->d.name, path);
        st.st_size = 0;
    }
    if (S_ISREG(st.st_mode) && st.st_size == 0 && ftruncate(fd, (off_t)size) < 0)
        return error_sys(err, "device %s: %s", p->d.name, path);
    return 0;
}

struct block *plan_open_incoming(struct plan_device *p, uint64_t size, bool anew,
                                 const struct context *ctx, struct error *err)
{
    if (p->role == BLUEPRINT_STATE)
        size = STATE_ROOM;
    if (make_file(p, size, anew, err) < 0 || make_parents(&p->d, err) < 0)
        return NULL;
    p->created = true;
    struct device d = p->d;
    d.make_migratable = false; /* dirty tracking stands above the pull filter */
    cleanup_json struct json_object *layers = device_stack(&d, err);
    if (!layers || add_digest(p, layers, err) < 0)
        return NULL;
    return block_open_json(layers, d.name, ctx, err);
}

struct block *plan_upper(const struct plan_device *p, struct block *below,
                         const struct context *ctx, struct error *err)
{
    cleanup_json struct json_object *layers = json_object_new_array();
    struct json_object *dirty = json_object_new_object();

    if (!layers || !dirty || json_object_array_add(layers, dirty) < 0) {
        (void)error_oom(err);
        return NULL;
    }
    json_object_object_add(dirty, "type", json_object_new_string("dirty"));
    json_object_object_add(dirty, "blockSize", json_object_new_uint64(p->d.block_size));
    json_object_object_add(dirty, "expiry", json_object_new_uint64(p->d.expiry_ns));
    return block_stack(below, layers, p->d.name, ctx, err);
}

/* ---- Starting over ------------------------------------------------------------------------ */

static int drop(const char *path, struct error *err)
{
    return unlink(path) < 0 && errno != ENOENT ? error_sys(err, "%s", path) : 0;
}

/* Files that are locked until they are gone. */
struct locked {
    int fds[DEVICES_MAX * (2 * DEVICE_OVERLAYS_MAX + 1)];
    size_t n;
};

static void unlock(struct locked *l)
{
    while (l->n > 0)
        (void)close(l->fds[--l->n]);
}

/* Refuses a file that somebody has in use. */
static int lock_unused(struct locked *l, const char *path, struct error *err)
{
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT ? 0 : error_sys(err, "%s", path);
    if (folder_lock(fd, true, path, err) < 0)
        return -1;
    l->fds[l->n++] = steal_fd(&fd);
    return 0;
}

int plan_start_over(const struct plan *plan, struct error *err)
{
    struct locked locked CLEANUP(unlock) = {.n = 0};

    for (size_t i = 0; i < plan->count; i++) {
        const struct plan_device *p = &plan->items[i];
        if (!p->d.n_overlays && !p->read_only && !p->d.shared && !p->d.skipsilo && !p->made)
            return error_set(err, EINVAL,
                             "--fresh: device %s has no overlay that could be dropped: its base %s "
                             "was written; get the package again",
                             p->d.name, p->d.base);
        for (size_t k = 0; k < p->d.n_overlays; k++)
            if (lock_unused(&locked, p->d.overlays[k], err) < 0 ||
                lock_unused(&locked, p->d.states[k], err) < 0)
                return -1;
        if (p->made && lock_unused(&locked, p->d.base, err) < 0)
            return -1;
    }
    for (size_t i = 0; i < plan->count; i++) {
        const struct plan_device *p = &plan->items[i];
        for (size_t k = 0; k < p->d.n_overlays; k++)
            if (drop(p->d.overlays[k], err) < 0 || drop(p->d.states[k], err) < 0)
                return -1;
        if (p->made && drop(p->d.base, err) < 0)
            return -1;
    }
    if (plan->write_config && drop(plan->config, err) < 0)
        return -1;
    return drop(plan->mark, err);
}

void plan_discard(const struct plan *plan)
{
    for (size_t i = 0; i < plan->count; i++) {
        const struct plan_device *p = &plan->items[i];
        if (!p->created)
            continue;
        for (size_t k = 0; k < p->d.n_overlays; k++) {
            (void)drop(p->d.overlays[k], NULL);
            (void)drop(p->d.states[k], NULL);
        }
        if (p->made)
            (void)drop(p->d.base, NULL);
    }
    (void)drop(plan->mark, NULL);
}
