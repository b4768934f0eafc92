// SPDX-License-Identifier: Apache-2.0
/* package.c - config.json read and written, and the folder it describes
 *
 * See package.h for the format. Like a blueprint's manifest all of it is untrusted: names are
 * checked before they reach openat(2), files are opened without following symlinks.
 */
#include "runtime/snapshot/package.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "runtime/base/io.h"
#include "runtime/base/json.h"
#include "runtime/base/parse.h"

#define FORMAT_NAME "drafter-package"

static struct package *new_empty(struct error *err)
{
    struct package *pkg = calloc(1, sizeof(*pkg));
    if (!pkg) {
        (void)error_oom(err);
        return NULL;
    }
    pkg->dirfd = -1;
    return pkg;
}

struct package *package_new(struct error *err)
{
    cleanup_package struct package *pkg = new_empty(err);
    if (!pkg)
        return NULL;
    pkg->architecture = strdup(blueprint_host_architecture());
    if (!pkg->architecture) {
        (void)error_oom(err);
        return NULL;
    }
    struct tm tm;
    time_t now = time(NULL);
    if (gmtime_r(&now, &tm))
        (void)strftime(pkg->made, sizeof(pkg->made), "%Y-%m-%dT%H:%M:%SZ", &tm);
    return steal_ptr(&pkg);
}

void package_free(struct package *pkg)
{
    if (!pkg)
        return;
    if (pkg->dirfd >= 0)
        (void)close(pkg->dirfd);
    free(pkg->dir);
    free(pkg->architecture);
    vmm_machine_free(pkg->machine);
    free(pkg->devices);
    free(pkg);
}

const struct blueprint_device *package_find(const struct package *pkg, const char *name)
{
    return blueprint_device_find(pkg->devices, pkg->n_devices, name);
}

uint64_t package_padded(uint64_t len)
{
    return ((len + PACKAGE_ROOM - 1) / PACKAGE_ROOM + 1) * PACKAGE_ROOM;
}

int package_add_device(struct package *pkg, const struct blueprint_device *dev, struct error *err)
{
    struct blueprint_device d = *dev;

    if (!strcmp(d.name, "config"))
        return error_set(err, EINVAL, "device config: it is the config itself");
    d.role = blueprint_role_of(d.name);
    return blueprint_device_add(&pkg->devices, &pkg->n_devices, &d, err);
}

/* What a reader and the writer demand of a whole config that is not foreign. */
static int check_whole(const struct package *pkg, struct error *err)
{
    static const char *const needed[] = {"state", "memory"};

    if (!pkg->machine)
        return error_set(err, EBADMSG, "machine: is missing");
    if (pkg->machine->hypervisor == VMM_AUTO)
        return error_set(err, EBADMSG, "machine: hypervisor: a package is bound to one");
    for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
        if (!package_find(pkg, needed[i]))
            return error_set(err, EBADMSG, "devices: none is named \"%s\"", needed[i]);
    for (size_t i = 0; i < pkg->machine->n_disks; i++)
        if (!package_find(pkg, pkg->machine->disks[i].name))
            return error_set(err, EBADMSG, "devices: the machine's disk \"%s\" is missing",
                             pkg->machine->disks[i].name);
    const struct blueprint_device *memory = package_find(pkg, "memory");
    if (memory->size < (uint64_t)pkg->machine->memory_mib << 20)
        return error_set(err, EBADMSG,
                         "device memory: %" PRIu64 " bytes, but the machine has %u MiB",
                         memory->size, pkg->machine->memory_mib);
    return 0;
}

/* ---- Reading ------------------------------------------------------------------------------ */

static int parse_device(struct package *pkg, struct json_object *obj, const char *what,
                        struct error *err)
{
    static const char *const keys[] = {"name", "file", "size", "sha256", NULL};
    struct blueprint_device dev;

    if (blueprint_device_parse(obj, what, &dev, err) < 0 ||
        json_only_keys(obj, keys, what, err) < 0)
        return -1;
    return package_add_device(pkg, &dev, err);
}

static int parse_own(struct package *pkg, struct json_object *doc, const char *what,
                     struct error *err)
{
    static const char *const keys[] = {"agentVSockPort",    "format",       "version",
                                       "livenessVSockPort", "architecture", "made",
                                       "machine",           "devices",      NULL};
    const char *architecture, *made = NULL;
    uint64_t port;
    struct json_object *machine, *devices;

    if (json_check_format(doc, what, FORMAT_NAME, PACKAGE_VERSION,
                          "make the package again with drafter-snapshotter", err) < 0)
        return -1;
    if (json_only_keys(doc, keys, what, err) < 0 ||
        json_required(json_get_u64(doc, "livenessVSockPort", 0, UINT32_MAX - 1, what, &port, err),
                      "livenessVSockPort", what, err) < 0 ||
        json_required(json_get_string(doc, "architecture", what, &architecture, err),
                      "architecture", what, err) < 0 ||
        json_get_string(doc, "made", what, &made, err) < 0 ||
        json_required(json_get_object(doc, "machine", what, &machine, err), "machine", what, err) <
            0 ||
        json_required(json_get_array(doc, "devices", what, &devices, err), "devices", what, err) <
            0)
        return -1;
    pkg->liveness_port = (uint32_t)port;
    if (strlen(architecture) > 32)
        return error_set(err, EBADMSG, "%s: architecture: is too long", what);
    pkg->architecture = strdup(architecture);
    if (!pkg->architecture)
        return error_oom(err);
    if (made &&
        (strlen(made) >= sizeof(pkg->made) || strspn(made, "0123456789-:TZ") < strlen(made)))
        return error_set(err, EBADMSG, "%s: made: is no time", what);
    (void)snprintf(pkg->made, sizeof(pkg->made), "%s", made ? made : "");
    const char *text = json_object_to_json_string(machine);
    pkg->machine = text ? vmm_machine_parse(text, strlen(text), err) : NULL;
    if (!pkg->machine)
        return text ? error_wrap(err, "%s", what) : error_oom(err);
    for (size_t i = 0; i < json_object_array_length(devices); i++) {
        char where[64];
        (void)snprintf(where, sizeof(where), "devices[%zu]", i);
        if (parse_device(pkg, json_object_array_get_idx(devices, i), where, err) < 0)
            return error_wrap(err, "%s", what);
    }
    if (check_whole(pkg, err) < 0)
        return error_wrap(err, "%s", what);
    return 0;
}

static int parse_config(struct package *pkg, struct json_object *doc, const char *what,
                        struct error *err)
{
    uint64_t port;

    if (!json_object_is_type(doc, json_type_object))
        return error_set(err, EBADMSG, "%s: is no JSON object", what);
    if (json_required(json_get_u64(doc, "agentVSockPort", 0, UINT32_MAX - 1, what, &port, err),
                      "agentVSockPort", what, err) < 0)
        return -1;
    pkg->agent_port = (uint32_t)port;
    pkg->foreign = !json_object_object_get_ex(doc, "format", NULL);
    return pkg->foreign ? 0 : parse_own(pkg, doc, what, err);
}

struct package *package_parse(const char *text, size_t len, const char *what, struct error *err)
{
    len = strnlen(text, len);
    if (len > PACKAGE_CONFIG_MAX) {
        (void)error_set(err, EBADMSG, "%s: larger than the limit of %u bytes", what,
                        PACKAGE_CONFIG_MAX);
        return NULL;
    }
    cleanup_json struct json_object *doc = json_parse(text, len, what, err);
    cleanup_package struct package *pkg = doc ? new_empty(err) : NULL;
    if (!pkg) {
        if (!doc && err && err->code != ENOMEM)
            err->code = EBADMSG;
        return NULL;
    }
    if (parse_config(pkg, doc, what, err) < 0) {
        /* Whatever the getters call it, to the caller it is a config that is wrong. */
        if (err && err->code != ENOMEM)
            err->code = EBADMSG;
        return NULL;
    }
    return steal_ptr(&pkg);
}

int package_open_device(const struct package *pkg, const struct blueprint_device *dev, int flags,
                        int *ret_fd, struct error *err)
{
    if (blueprint_device_open(pkg->dirfd, dev, flags, PACKAGE_CONFIG, ret_fd, err) < 0)
        return error_wrap(err, "package %s", pkg->dir);
    return 0;
}

struct package *package_open_at(int dirfd, const char *dir, struct error *err)
{
    char what[512];

    (void)snprintf(what, sizeof(what), "package %.400s: " PACKAGE_CONFIG, dir);
    cleanup_close int fd =
        openat(dirfd, PACKAGE_CONFIG, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        if (errno == ENOENT)
            (void)error_set(err, ENOENT,
                            "package %s: holds no " PACKAGE_CONFIG
                            ": make a package with drafter-snapshotter",
                            dir);
        else
            (void)error_sys(err, "%s", what);
        return NULL;
    }
    size_t len;
    cleanup_free char *text = io_read_fd(fd, 2 * PACKAGE_CONFIG_MAX, what, &len, err);
    cleanup_package struct package *pkg = text ? package_parse(text, len, what, err) : NULL;
    if (!pkg)
        return NULL;
    pkg->dir = strdup(dir);
    if (!pkg->dir) {
        (void)error_oom(err);
        return NULL;
    }
    pkg->dirfd = fcntl(dirfd, F_DUPFD_CLOEXEC, 3);
    if (pkg->dirfd < 0) {
        (void)error_sys(err, "package %s", dir);
        return NULL;
    }
    if (pkg->foreign && package_find_foreign(pkg, err) < 0)
        return NULL;
    for (size_t i = 0; i < pkg->n_devices; i++) {
        cleanup_close int device = -1;
        if (package_open_device(pkg, &pkg->devices[i], O_RDONLY, &device, err) < 0)
            return NULL;
    }
    return steal_ptr(&pkg);
}

struct package *package_open(const char *dir, struct error *err)
{
    cleanup_close int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        (void)error_sys(err, "package %s", dir);
        return NULL;
    }
    return package_open_at(fd, dir, err);
}

/* ---- Checking ----------------------------------------------------------------------------- */

int package_verify_device(const struct blueprint_device *dev, int fd, struct error *err)
{
    uint8_t sum[SHA256_SIZE];

    if (!dev->has_digest)
        return error_set(err, ENOTSUP, "device %s: its package has no digests", dev->name);
    if (digest_of_fd(fd, dev->file, sum, NULL, err) < 0)
        return -1;
    return blueprint_device_compare(dev, sum, PACKAGE_CONFIG, err);
}

int package_verify(const struct package *pkg, const struct context *ctx, struct error *err)
{
    if (pkg->foreign)
        return error_set(err, ENOTSUP,
                         "package %s: upstream's config holds no digests to verify with", pkg->dir);
    if (blueprint_device_verify(pkg->dirfd, pkg->devices, pkg->n_devices, PACKAGE_CONFIG, ctx,
                                err) < 0)
        return error_wrap(err, "package %s", pkg->dir);
    return 0;
}

int package_check_host(const struct package *pkg, enum vmm_hypervisor wish, struct error *err)
{
    const char *what = pkg->dir ? pkg->dir : "config";

    if (pkg->foreign)
        return 0;
    if (strcmp(pkg->architecture, blueprint_host_architecture()))
        return error_set(err, ENOTSUP,
                         "package %s: was made for %s, but this host is %s: make one there from "
                         "the blueprint",
                         what, pkg->architecture, blueprint_host_architecture());
    if (wish != VMM_AUTO && wish != pkg->machine->hypervisor)
        return error_set(err, ENOTSUP,
                         "package %s: was saved by %s and can be resumed by it only, not by %s: "
                         "make one with drafter-snapshotter --hypervisor %s",
                         what, vmm_hypervisor_name(pkg->machine->hypervisor),
                         vmm_hypervisor_name(wish), vmm_hypervisor_name(wish));
    return 0;
}

/* ---- Making ------------------------------------------------------------------------------- */

int package_add(struct package *pkg, const char *name, int dirfd, const char *file,
                const struct context *ctx, struct error *err)
{
    struct blueprint_device dev = {.has_digest = true};
    char buf[BLUEPRINT_FILE_MAX + 1];

    if (blueprint_check_name(name, err) < 0)
        return -1;
    if (!file)
        file = blueprint_file_name(name, buf);
    const char *base = strrchr(file, '/');
    base = base ? base + 1 : file;
    if (blueprint_check_file(base, err) < 0)
        return error_wrap(err, "device %s", name);
    (void)snprintf(dev.name, sizeof(dev.name), "%s", name);
    (void)snprintf(dev.file, sizeof(dev.file), "%s", base);
    cleanup_close int fd = openat(dirfd, file, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_sys(err, "device %s: %s", name, file);
    if (io_size(fd, file, &dev.size, err) < 0)
        return error_wrap(err, "device %s", name);
    const struct device_progress whole = {.phase = "hash", .total = dev.size};
    if (blueprint_device_hash(fd, file, dev.size, &whole, ctx, dev.sha256, err) < 0)
        return error_wrap(err, "device %s", name);
    return package_add_device(pkg, &dev, err);
}

char *package_format(const struct package *pkg, struct error *err)
{
    if (check_whole(pkg, err) < 0)
        return NULL;
    cleanup_free char *machine = vmm_machine_format(pkg->machine, err);
    if (!machine)
        return NULL;
    cleanup_json struct json_object *doc = json_object_new_object();
    cleanup_json struct json_object *list = json_object_new_array();
    struct json_object *described = json_parse(machine, strlen(machine), "machine", err);
    if (!described)
        return NULL;
    if (json_add(doc, "machine", described, err) < 0 ||
        json_add(doc, "agentVSockPort", json_object_new_uint64(pkg->agent_port), err) < 0 ||
        json_add(doc, "format", json_object_new_string(FORMAT_NAME), err) < 0 ||
        json_add(doc, "version", json_object_new_int(PACKAGE_VERSION), err) < 0 ||
        json_add(doc, "livenessVSockPort", json_object_new_uint64(pkg->liveness_port), err) < 0 ||
        json_add(doc, "architecture", json_object_new_string(pkg->architecture), err) < 0 ||
        (pkg->made[0] && json_add(doc, "made", json_object_new_string(pkg->made), err) < 0) ||
        json_add(doc, "devices", json_object_get(list), err) < 0)
        return NULL;
    for (size_t i = 0; i < pkg->n_devices; i++)
        if (blueprint_device_format(list, &pkg->devices[i], false, err) < 0)
            return NULL;
    char *text = json_format(doc);
    if (!text)
        (void)error_oom(err);
    return text;
}

int package_write_config(const struct package *pkg, int fd, const char *what, struct error *err)
{
    cleanup_free char *text = package_format(pkg, err);
    if (!text)
        return -1;
    size_t len = strlen(text);
    if (len > PACKAGE_CONFIG_MAX)
        return error_set(err, EFBIG, "%s: %zu bytes are more than the limit", what, len);
    if (io_pwrite(fd, text, len, 0, what, err) < 0)
        return -1;
    if (ftruncate(fd, (off_t)package_padded(len)) < 0)
        return error_sys(err, "%s", what);
    return 0;
}
