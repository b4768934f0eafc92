// SPDX-License-Identifier: Apache-2.0
/* served.c - a registry's package: opened once, read by many; see served.h */
#include "runtime/peer/served.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/base/io.h"
#include "runtime/base/json.h"
#include "runtime/block/device.h"
#include "runtime/wire/frame.h"

static bool travels(const char *name)
{
    enum blueprint_role role = blueprint_role_of(name);

    return role == BLUEPRINT_MEMORY || role == BLUEPRINT_ROOT || role == BLUEPRINT_DISK;
}

static int read_state(struct served *s, int fd, const char *what, struct error *err)
{
    s->state = (uint8_t *)io_read_fd(fd, WIRE_STATE_MAX, what, &s->state_len, err);
    if (!s->state)
        return error_wrap(err, "device state");
    while (s->state_len > 0 && s->state[s->state_len - 1] == 0)
        s->state_len--;
    if (s->state_len == 0)
        return error_set(err, EBADMSG, "device state: %s: is empty: this is no suspended machine",
                         what);
    return 0;
}

/* fd is held already. */
static int add(struct served *s, int fd, const char *name, const char *what, uint32_t block_size,
               struct error *err)
{
    struct stat st;

    if (s->n == ARRAY_SIZE(s->items))
        return error_set(err, E2BIG, "device %s: there are %zu already", name, s->n);
    if (fstat(fd, &st) < 0)
        return error_sys(err, "device %s: %s", name, what);
    struct served_item *it = &s->items[s->n++];
    it->fd = fd;
    it->size = (uint64_t)st.st_size;
    it->changed = st.st_mtim;
    it->block_size = block_size > WIRE_BLOCK_MAX ? WIRE_BLOCK_MAX : block_size;
    it->name = strdup(name);
    it->what = strdup(what);
    return it->name && it->what ? 0 : error_oom(err);
}

/* Takes fd over, whatever becomes of it. *ret_item: NULL when the device does not travel. */
static int take(struct served *s, int fd, const char *name, int dirfd, const char *file,
                const char *what, uint32_t block_size, struct served_item **ret_item,
                struct error *err)
{
    *ret_item = NULL;
    if (folder_hold(&s->files, fd, name, dirfd, file, what, err) < 0)
        return -1;
    if (!travels(name))
        return 0;
    if (add(s, fd, name, what, block_size, err) < 0)
        return -1;
    *ret_item = &s->items[s->n - 1];
    return 0;
}

/* ---- A folder ------------------------------------------------------------------------------ */

static int take_device(struct served *s, const struct package *pkg,
                       const struct blueprint_device *d, bool no_verify, struct error *err)
{
    const bool state = strcmp(d->name, "state") == 0;
    cleanup_free char *what = NULL;
    struct served_item *it;
    int fd;

    if (!state && !travels(d->name))
        return 0;
    if (asprintf(&what, "%s/%s", pkg->dir, d->file) < 0) {
        what = NULL;
        return error_oom(err);
    }
    if (package_open_device(pkg, d, O_RDONLY, &fd, err) < 0 ||
        take(s, fd, d->name, pkg->dirfd, d->file, what, BLOCK_SIZE_DEFAULT, &it, err) < 0)
        return -1;
    /* What is damaged is not served. */
    const bool verify = d->has_digest && !no_verify;
    if ((verify && package_verify_device(d, fd, err) < 0) ||
        (state && read_state(s, fd, what, err) < 0))
        return -1;
    if (it && verify) {
        it->has_digest = true;
        memcpy(it->sha256, d->sha256, SHA256_SIZE);
    }
    return 0;
}

static int load_package(struct served *s, const struct served_options *o, const struct context *ctx,
                        struct error *err)
{
    cleanup_package struct package *pkg = package_open(o->package, err);

    if (!pkg)
        return -1;
    for (size_t i = 0; i < pkg->n_devices; i++) {
        context_progress(ctx, "verify", i, pkg->n_devices, "devices");
        if (context_check(ctx, err) < 0 ||
            take_device(s, pkg, &pkg->devices[i], o->no_verify, err) < 0)
            return -1;
    }
    if (pkg->foreign && package_adopt(pkg, err) < 0)
        return error_wrap(err, "package %s", o->package);
    s->machine = package_format(pkg, err);
    return s->machine ? 0 : -1;
}

/* ---- A list -------------------------------------------------------------------------------- */

/* The config of a list of devices; upstream's says nothing of them. */
static struct package *read_config(const struct named_list *devices, const char *path,
                                   struct error *err)
{
    size_t len;
    cleanup_free char *text = io_read_file(AT_FDCWD, path, 2 * PACKAGE_CONFIG_MAX, &len, err);
    cleanup_package struct package *pkg = text ? package_parse(text, len, path, err) : NULL;

    for (size_t i = 0; pkg && pkg->foreign && i < devices->n; i++) {
        const struct named *d = &devices->items[i];
        struct blueprint_device dev = {.has_digest = false};
        char file[BLUEPRINT_FILE_MAX + 1];
        struct stat st;
        if (strcmp(d->name, "config") == 0)
            continue;
        if (stat(d->path, &st) < 0) {
            (void)error_sys(err, "device %s: %s", d->name, d->path);
            return NULL;
        }
        dev.size = (uint64_t)st.st_size;
        (void)snprintf(dev.name, sizeof(dev.name), "%s", d->name);
        (void)snprintf(dev.file, sizeof(dev.file), "%s", blueprint_file_name(d->name, file));
        if (package_add_device(pkg, &dev, err) < 0)
            return NULL;
    }
    if (pkg && pkg->foreign && package_adopt(pkg, err) < 0)
        return error_wrap(err, "%s", path), NULL;
    return steal_ptr(&pkg);
}

static int load_devices(struct served *s, const struct served_options *o, struct error *err)
{
    for (size_t i = 0; i < o->devices->n; i++) {
        const struct named *d = &o->devices->items[i];
        const bool state = strcmp(d->name, "state") == 0;
        struct served_item *it;
        if (strcmp(d->name, "config") == 0) {
            cleanup_package struct package *pkg = read_config(o->devices, d->path, err);
            s->machine = pkg ? package_format(pkg, err) : NULL;
            if (!s->machine)
                return -1;
        }
        if (!state && !travels(d->name))
            continue;
        int fd = open(d->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0)
            return error_sys(err, "device %s: %s", d->name, d->path);
        if (take(s, fd, d->name, AT_FDCWD, d->path, d->path, d->block_size, &it, err) < 0 ||
            (state && read_state(s, fd, d->path, err) < 0))
            return -1;
    }
    return s->machine ? 0 : error_set(err, EINVAL, "devices: \"config\" is missing");
}

int served_load(struct served *s, const struct served_options *options, const struct context *ctx,
                struct error *err)
{
    if ((options->package ? load_package(s, options, ctx, err) : load_devices(s, options, err)) < 0)
        return -1;
    if (!s->state)
        return error_set(err, EINVAL, "devices: \"state\" is missing");
    if (strlen(s->machine) > WIRE_MACHINE_MAX)
        return error_set(err, E2BIG, "config: more than %u bytes", WIRE_MACHINE_MAX);
    return s->n ? 0 : error_set(err, EINVAL, "devices: \"memory\" is missing");
}

void served_clear(struct served *s)
{
    for (size_t i = 0; i < s->n; i++) {
        free(s->items[i].name);
        free(s->items[i].what);
    }
    folder_release(&s->files);
    free(s->machine);
    free(s->state);
    memset(s, 0, sizeof(*s));
}

/* ---- A pull -------------------------------------------------------------------------------- */

static int check_unchanged(const struct served_item *it, struct error *err)
{
    struct stat st;

    if (fstat(it->fd, &st) < 0)
        return error_sys(err, "device %s: %s", it->name, it->what);
    if ((uint64_t)st.st_size == it->size && st.st_mtim.tv_sec == it->changed.tv_sec &&
        st.st_mtim.tv_nsec == it->changed.tv_nsec)
        return 0;
    return error_set(err, ESTALE,
                     "device %s: %s was written while it is served: start the registry anew, on "
                     "a package that nobody writes",
                     it->name, it->what);
}

struct block *served_open(const struct served_item *it, const struct context *ctx,
                          struct error *err)
{
    if (check_unchanged(it, err) < 0)
        return NULL;
    cleanup_json struct json_object *layers = json_object_new_array();
    struct json_object *file = json_object_new_object(), *dirty = json_object_new_object();
    char text[7 + SHA256_HEX_SIZE] = "sha256:", path[64];

    if (!layers || !file || !dirty || json_object_array_add(layers, file) < 0 ||
        json_object_array_add(layers, dirty) < 0) {
        (void)error_oom(err);
        return NULL;
    }
    /* The very file that is held, whatever has its name by now (proc(5)). */
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", it->fd);
    json_object_object_add(file, "type", json_object_new_string("file"));
    json_object_object_add(file, "path", json_object_new_string(path));
    json_object_object_add(file, "readonly", json_object_new_boolean(1));
    json_object_object_add(file, "round", json_object_new_uint64(BLOCK_PAGE));
    if (it->has_digest) {
        digest_hex(it->sha256, text + 7);
        json_object_object_add(file, "digest", json_object_new_string(text));
    }
    json_object_object_add(dirty, "type", json_object_new_string("dirty"));
    json_object_object_add(dirty, "blockSize", json_object_new_uint64(it->block_size));
    return block_open_json(layers, it->name, ctx, err);
}
