// SPDX-License-Identifier: Apache-2.0
/* device.c - devices as a manifest lists them: names, files, sizes, digests
 *
 * A blueprint's manifest and a package's config (runtime/snapshot/package.h) share this part. All
 * of it is untrusted: names are checked against their alphabets before they reach openat(2), which
 * is told not to follow symlinks, and sizes are compared with the files before anyone maps them.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "blueprint/blueprint.h"
#include "runtime/base/io.h"
#include "runtime/base/json.h"
#include "runtime/base/parse.h"

#define HASH_CHUNK (1u << 20)

/* ---- Names -------------------------------------------------------------------------------- */

static const struct {
    const char *name, *file;
    enum blueprint_role role;
} known_devices[] = {
    {"kernel", "vmlinux", BLUEPRINT_KERNEL},     {"initrd", "initrd.img", BLUEPRINT_INITRD},
    {"disk", "rootfs.ext4", BLUEPRINT_ROOT},     {"oci", "oci.ext4", BLUEPRINT_DISK},
    {"state", "state.bin", BLUEPRINT_STATE},     {"memory", "memory.bin", BLUEPRINT_MEMORY},
    {"config", "config.json", BLUEPRINT_CONFIG},
};

static const char *const role_names[] = {
    [BLUEPRINT_KERNEL] = "kernel", [BLUEPRINT_INITRD] = "initrd", [BLUEPRINT_ROOT] = "root",
    [BLUEPRINT_DISK] = "disk",     [BLUEPRINT_STATE] = "state",   [BLUEPRINT_MEMORY] = "memory",
    [BLUEPRINT_CONFIG] = "config",
};

const char *blueprint_file_name(const char *name, char buf[BLUEPRINT_FILE_MAX + 1])
{
    for (size_t i = 0; i < ARRAY_SIZE(known_devices); i++)
        if (!strcmp(known_devices[i].name, name))
            return known_devices[i].file;
    (void)snprintf(buf, BLUEPRINT_FILE_MAX + 1, "%s.bin", name);
    return buf;
}

enum blueprint_role blueprint_role_of(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(known_devices); i++)
        if (!strcmp(known_devices[i].name, name))
            return known_devices[i].role;
    return BLUEPRINT_DISK;
}

const char *blueprint_role_name(enum blueprint_role role)
{
    return role_names[role];
}

int blueprint_role_parse(const char *text, enum blueprint_role *ret)
{
    for (size_t r = 0; r < ARRAY_SIZE(role_names); r++)
        if (!strcmp(role_names[r], text)) {
            *ret = (enum blueprint_role)r;
            return 0;
        }
    return -1;
}

static bool in_alphabet(const char *s, size_t max, const char *extra)
{
    size_t n = 0;
    for (; s[n]; n++) {
        char c = s[n];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (n == max || (!plain && !strchr(extra, c)))
            return false;
    }
    return n > 0;
}

int blueprint_check_name(const char *name, struct error *err)
{
    if (!in_alphabet(name, BLUEPRINT_NAME_MAX, "_"))
        return error_set(err, EINVAL,
                         "device name \"%.80s\": must be 1 to %d letters, digits and '_'", name,
                         BLUEPRINT_NAME_MAX);
    return 0;
}

int blueprint_check_file(const char *file, struct error *err)
{
    if (file[0] == '.' || !in_alphabet(file, BLUEPRINT_FILE_MAX, "._+-"))
        return error_set(err, EINVAL,
                         "file name \"%.80s\": must be 1 to %d letters, digits and \"._+-\", not "
                         "starting with '.'",
                         file, BLUEPRINT_FILE_MAX);
    if (!strcmp(file, BLUEPRINT_MANIFEST))
        return error_set(err, EINVAL, "file name \"%s\": is the manifest's own", file);
    return 0;
}

/* ---- Lists -------------------------------------------------------------------------------- */

const struct blueprint_device *blueprint_device_find(const struct blueprint_device *devices,
                                                     size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(devices[i].name, name))
            return &devices[i];
    return NULL;
}

int blueprint_device_add(struct blueprint_device **devices, size_t *n,
                         const struct blueprint_device *dev, struct error *err)
{
    if (blueprint_check_name(dev->name, err) < 0 || blueprint_check_file(dev->file, err) < 0)
        return -1;
    if (dev->size > BLUEPRINT_SIZE_MAX)
        return error_set(err, EINVAL, "device %s: %" PRIu64 " bytes are more than the limit of 64T",
                         dev->name, dev->size);
    if (*n == BLUEPRINT_DEVICES_MAX)
        return error_set(err, EINVAL, "device %s: there are %d devices already, the most allowed",
                         dev->name, BLUEPRINT_DEVICES_MAX);
    for (size_t i = 0; i < *n; i++) {
        const struct blueprint_device *o = &(*devices)[i];
        if (!strcmp(o->name, dev->name))
            return error_set(err, EINVAL, "device %s: is named twice", dev->name);
        if (!strcmp(o->file, dev->file))
            return error_set(err, EINVAL, "device %s: its file %s is also that of device %s",
                             dev->name, dev->file, o->name);
        if (o->role == dev->role && dev->role != BLUEPRINT_DISK)
            return error_set(err, EINVAL, "device %s: has the role of device %s, %s, too",
                             dev->name, o->name, role_names[dev->role]);
    }
    struct blueprint_device *grown = reallocarray(*devices, *n + 1, sizeof(**devices));
    if (!grown)
        return error_oom(err);
    *devices = grown;
    grown[(*n)++] = *dev;
    return 0;
}

/* ---- As JSON ------------------------------------------------------------------------------ */

int blueprint_device_parse(struct json_object *obj, const char *what, struct blueprint_device *ret,
                           struct error *err)
{
    const char *name, *file, *hex = NULL;
    struct blueprint_device dev = {.has_digest = false};

    if (!json_object_is_type(obj, json_type_object))
        return error_set(err, EBADMSG, "%s: is no JSON object", what);
    if (json_required(json_get_string(obj, "name", what, &name, err), "name", what, err) < 0 ||
        json_required(json_get_string(obj, "file", what, &file, err), "file", what, err) < 0 ||
        json_get_string(obj, "sha256", what, &hex, err) < 0 ||
        json_required(json_get_u64(obj, "size", 0, BLUEPRINT_SIZE_MAX, what, &dev.size, err),
                      "size", what, err) < 0)
        return -1;
    if (blueprint_check_name(name, err) < 0 || blueprint_check_file(file, err) < 0)
        return error_wrap(err, "%s", what);
    dev.has_digest = hex != NULL;
    if (hex && parse_hex(hex, strlen(hex), dev.sha256, SHA256_SIZE) < 0)
        return error_set(err, EBADMSG, "%s: sha256: is not 64 hex digits", what);
    dev.role = blueprint_role_of(name);
    (void)snprintf(dev.name, sizeof(dev.name), "%s", name);
    (void)snprintf(dev.file, sizeof(dev.file), "%s", file);
    *ret = dev;
    return 0;
}

int blueprint_device_format(struct json_object *list, const struct blueprint_device *dev, bool role,
                            struct error *err)
{
    char hex[SHA256_HEX_SIZE];
    struct json_object *obj = json_object_new_object();

    if (json_append(list, obj, err) < 0)
        return -1;
    digest_hex(dev->sha256, hex);
    if (json_add(obj, "name", json_object_new_string(dev->name), err) < 0 ||
        (role && json_add(obj, "role", json_object_new_string(role_names[dev->role]), err) < 0) ||
        json_add(obj, "file", json_object_new_string(dev->file), err) < 0 ||
        json_add(obj, "size", json_object_new_uint64(dev->size), err) < 0 ||
        (dev->has_digest && json_add(obj, "sha256", json_object_new_string(hex), err) < 0))
        return -1;
    return 0;
}

/* ---- Files -------------------------------------------------------------------------------- */

int blueprint_device_open(int dirfd, const struct blueprint_device *dev, int flags,
                          const char *manifest, int *ret_fd, struct error *err)
{
    struct stat st;
    /* O_NONBLOCK: a FIFO in the file's place must not hang us; it means nothing to a file. */
    cleanup_close int fd = openat(dirfd, dev->file, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0)
        return error_sys(err, "device %s: open %s", dev->name, dev->file);
    if (fstat(fd, &st) < 0)
        return error_sys(err, "device %s: stat %s", dev->name, dev->file);
    if (!S_ISREG(st.st_mode))
        return error_set(err, ESTALE, "device %s: %s is no regular file", dev->name, dev->file);
    if ((uint64_t)st.st_size != dev->size)
        return error_set(err, ESTALE,
                         "device %s: %s has %jd bytes, %s says %" PRIu64 ": make or get it again",
                         dev->name, dev->file, (intmax_t)st.st_size, manifest, dev->size);
    *ret_fd = steal_fd(&fd);
    return 0;
}

int blueprint_device_hash(int fd, const char *what, uint64_t size, const struct device_progress *p,
                          const struct context *ctx, uint8_t ret_sum[SHA256_SIZE],
                          struct error *err)
{
    cleanup_free char *buf = malloc(HASH_CHUNK);
    cleanup_digest struct digest *d = buf ? digest_new(err) : NULL;

    if (!d)
        return buf ? -1 : error_oom(err);
    for (uint64_t at = 0; at < size;) {
        size_t want = size - at < HASH_CHUNK ? (size_t)(size - at) : HASH_CHUNK;
        if (context_check(ctx, err) < 0 || io_pread_exact(fd, buf, want, at, what, err) < 0 ||
            digest_update(d, buf, want, err) < 0)
            return -1;
        at += want;
        context_progress(ctx, p->phase, p->before + at, p->total, "bytes");
    }
    return digest_final(d, ret_sum, err);
}

int blueprint_device_compare(const struct blueprint_device *dev, const uint8_t sum[SHA256_SIZE],
                             const char *manifest, struct error *err)
{
    char got[SHA256_HEX_SIZE], want[SHA256_HEX_SIZE];

    if (!memcmp(sum, dev->sha256, SHA256_SIZE))
        return 0;
    digest_hex(sum, got);
    digest_hex(dev->sha256, want);
    return error_set(err, ESTALE,
                     "device %s: %s is damaged or was changed: its SHA-256 is %s, %s says %s: make "
                     "or get it again",
                     dev->name, dev->file, got, manifest, want);
}

int blueprint_device_verify(int dirfd, const struct blueprint_device *devices, size_t n,
                            const char *manifest, const struct context *ctx, struct error *err)
{
    struct device_progress p = {.phase = "verify"};

    for (size_t i = 0; i < n; i++)
        p.total += devices[i].size;
    for (size_t i = 0; i < n; i++) {
        const struct blueprint_device *dev = &devices[i];
        uint8_t sum[SHA256_SIZE];
        cleanup_close int fd = -1;
        if (!dev->has_digest)
            return error_set(err, ENOTSUP,
                             "device %s: %s has no digest to verify it with: a machine runs on it",
                             dev->name, manifest);
        if (blueprint_device_open(dirfd, dev, O_RDONLY, manifest, &fd, err) < 0 ||
            blueprint_device_hash(fd, dev->file, dev->size, &p, ctx, sum, err) < 0 ||
            blueprint_device_compare(dev, sum, manifest, err) < 0)
            return -1;
        p.before += dev->size;
    }
    return 0;
}
