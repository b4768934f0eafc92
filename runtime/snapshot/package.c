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
#define HASH_CHUNK (1u << 20)

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

const struct package_device *package_find(const struct package *pkg, const char *name)
{
    for (size_t i = 0; i < pkg->n_devices; i++)
        if (!strcmp(pkg->devices[i].name, name))
            return &pkg->devices[i];
    return NULL;
}

uint64_t package_padded(uint64_t len)
{
    return ((len + PACKAGE_ROOM - 1) / PACKAGE_ROOM + 1) * PACKAGE_ROOM;
}

int package_add_device(struct package *pkg, const struct package_device *dev, struct error *err)
{
    if (blueprint_check_name(dev->name, err) < 0 || blueprint_check_file(dev->file, err) < 0)
        return -1;
    if (!strcmp(dev->name, "config"))
        return error_set(err, EINVAL, "device config: it is the config itself");
    if (dev->size > BLUEPRINT_SIZE_MAX)
        return error_set(err, EINVAL, "device %s: %" PRIu64 " bytes are more than the limit of 64T",
                         dev->name, dev->size);
    if (pkg->n_devices == PACKAGE_DEVICES_MAX)
        return error_set(err, EINVAL, "device %s: there are %d devices already, the most allowed",
                         dev->name, PACKAGE_DEVICES_MAX);
    for (size_t i = 0; i < pkg->n_devices; i++) {
        if (!strcmp(pkg->devices[i].name, dev->name))
            return error_set(err, EINVAL, "device %s: is named twice", dev->name);
        if (!strcmp(pkg->devices[i].file, dev->file))
            return error_set(err, EINVAL, "device %s: its file %s is also that of device %s",
                             dev->name, dev->file, pkg->devices[i].name);
    }
    struct package_device *grown =
        reallocarray(pkg->devices, pkg->n_devices + 1, sizeof(*pkg->devices));
    if (!grown)
        return error_oom(err);
    pkg->devices = grown;
    pkg->devices[pkg->n_devices++] = *dev;
    return 0;
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
    const struct package_device *memory = package_find(pkg, "memory");
    if (memory->size < (uint64_t)pkg->machine->memory_mib << 20)
        return error_set(err, EBADMSG,
                         "device memory: %" PRIu64 " bytes, but the machine has %u MiB",
                         memory->size, pkg->machine->memory_mib);
    return 0;
}

/* ---- Reading ------------------------------------------------------------------------------ */

static int parse_device(struct json_object *obj, const char *what, struct package_device *ret,
                        struct error *err)
{
    static const char *const keys[] = {"name", "file", "size", "sha256", NULL};
    const char *name, *file, *hex = NULL;
    struct package_device dev = {.has_digest = false};

    if (!json_object_is_type(obj, json_type_object))
        return error_set(err, EBADMSG, "%s: is no JSON object", what);
    if (json_only_keys(obj, keys, what, err) < 0 ||
        json_required(json_get_string(obj, "name", what, &name, err), "name", what, err) < 0 ||
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
    (void)snprintf(dev.name, sizeof(dev.name), "%s", name);
    (void)snprintf(dev.file, sizeof(dev.file), "%s", file);
    *ret = dev;
    return 0;
}

static int parse_own(struct package *pkg, struct json_object *doc, const char *what,
                     struct error *err)
{
    static const char *const keys[] = {"agentVSockPort",    "format",       "version",
                                       "livenessVSockPort", "architecture", "made",
                                       "machine",           "devices",      NULL};
    const char *format, *architecture, *made = NULL;
    uint64_t version, port;
    struct json_object *machine, *devices;

    if (json_required(json_get_string(doc, "format", what, &format, err), "format", what, err) < 0)
        return -1;
    if (strcmp(format, FORMAT_NAME))
        return error_set(err, EBADMSG, "%s: format: \"%.80s\", not \"" FORMAT_NAME "\"", what,
                         format);
    if (json_required(json_get_u64(doc, "version", 0, UINT32_MAX, what, &version, err), "version",
                      what, err) < 0)
        return -1;
    if (version != PACKAGE_VERSION)
        return error_set(err, EBADMSG,
                         "%s: version: is %" PRIu64 ", this program reads version %d: make the "
                         "package again with drafter-snapshotter",
                         what, version, PACKAGE_VERSION);
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
        struct package_device dev;
        (void)snprintf(where, sizeof(where), "devices[%zu]", i);
        if (parse_device(json_object_array_get_idx(devices, i), where, &dev, err) < 0 ||
            package_add_device(pkg, &dev, err) < 0)
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

int package_open_device(const struct package *pkg, const struct package_device *dev, int flags,
                        int *ret_fd, struct error *err)
{
    struct stat st;

    cleanup_close int fd =
        openat(pkg->dirfd, dev->file, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_sys(err, "package %s: device %s: %s", pkg->dir, dev->name, dev->file);
    if (fstat(fd, &st) < 0)
        return error_sys(err, "package %s: device %s: %s", pkg->dir, dev->name, dev->file);
    if (!S_ISREG(st.st_mode))
        return error_set(err, ESTALE, "package %s: device %s: %s is no regular file", pkg->dir,
                         dev->name, dev->file);
    if ((uint64_t)st.st_size != dev->size)
        return error_set(err, ESTALE,
                         "package %s: device %s: %s has %jd bytes, but the config says %" PRIu64
                         ": get the package again",
                         pkg->dir, dev->name, dev->file, (intmax_t)st.st_size, dev->size);
    *ret_fd = steal_fd(&fd);
    return 0;
}

/* A foreign package is what stands under the names everybody uses. */
static int find_foreign(struct package *pkg, struct error *err)
{
    static const char *const names[] = {"kernel", "initrd", "disk", "oci", "state", "memory"};
    char buf[BLUEPRINT_FILE_MAX + 1];

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct package_device dev = {.has_digest = false};
        struct stat st;
        (void)snprintf(dev.name, sizeof(dev.name), "%s", names[i]);
        (void)snprintf(dev.file, sizeof(dev.file), "%s", blueprint_file_name(names[i], buf));
        if (fstatat(pkg->dirfd, dev.file, &st, AT_SYMLINK_NOFOLLOW) < 0) {
            if (errno == ENOENT)
                continue;
            return error_sys(err, "package %s: %s", pkg->dir, dev.file);
        }
        dev.size = (uint64_t)st.st_size;
        if (package_add_device(pkg, &dev, err) < 0)
            return -1;
    }
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
    if (pkg->foreign && find_foreign(pkg, err) < 0)
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

/* SHA-256 of a file, with progress. */
static int hash(int fd, const char *what, uint64_t size, uint64_t before, uint64_t total,
                const char *phase, const struct context *ctx, uint8_t ret[SHA256_SIZE],
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
        context_progress(ctx, phase, before + at, total, "bytes");
    }
    return digest_final(d, ret, err);
}

static int compare(const struct package_device *dev, const uint8_t sum[SHA256_SIZE],
                   struct error *err)
{
    char got[SHA256_HEX_SIZE], want[SHA256_HEX_SIZE];

    if (!memcmp(sum, dev->sha256, SHA256_SIZE))
        return 0;
    digest_hex(sum, got);
    digest_hex(dev->sha256, want);
    return error_set(err, ESTALE,
                     "device %s: %s is damaged or was changed: its SHA-256 is %s, but the config "
                     "says %s: get the package again",
                     dev->name, dev->file, got, want);
}

int package_verify_device(const struct package_device *dev, int fd, struct error *err)
{
    uint8_t sum[SHA256_SIZE];

    if (!dev->has_digest)
        return error_set(err, ENOTSUP, "device %s: its package has no digests", dev->name);
    if (digest_of_fd(fd, dev->file, sum, NULL, err) < 0)
        return -1;
    return compare(dev, sum, err);
}

int package_verify(const struct package *pkg, const struct context *ctx, struct error *err)
{
    uint64_t total = 0, done = 0;

    if (pkg->foreign)
        return error_set(err, ENOTSUP,
                         "package %s: upstream's config holds no digests to verify with", pkg->dir);
    for (size_t i = 0; i < pkg->n_devices; i++)
        total += pkg->devices[i].size;
    for (size_t i = 0; i < pkg->n_devices; i++) {
        const struct package_device *dev = &pkg->devices[i];
        uint8_t sum[SHA256_SIZE];
        cleanup_close int fd = -1;
        if (!dev->has_digest)
            return error_set(err, ENOTSUP,
                             "package %s: device %s: has no digest to verify with: a machine runs "
                             "on this package",
                             pkg->dir, dev->name);
        if (package_open_device(pkg, dev, O_RDONLY, &fd, err) < 0)
            return -1;
        if (hash(fd, dev->file, dev->size, done, total, "verify", ctx, sum, err) < 0 ||
            compare(dev, sum, err) < 0)
            return error_wrap(err, "package %s", pkg->dir);
        done += dev->size;
    }
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
    struct package_device dev = {.has_digest = true};
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
    if (io_size(fd, file, &dev.size, err) < 0 ||
        hash(fd, file, dev.size, 0, dev.size, "hash", ctx, dev.sha256, err) < 0)
        return error_wrap(err, "device %s", name);
    return package_add_device(pkg, &dev, err);
}

static int add(struct json_object *obj, const char *key, struct json_object *value,
               struct error *err)
{
    if (value && json_object_object_add(obj, key, value) == 0)
        return 0;
    (void)json_object_put(value);
    return error_oom(err);
}

static int add_device(struct json_object *list, const struct package_device *dev, struct error *err)
{
    char hex[SHA256_HEX_SIZE];
    cleanup_json struct json_object *obj = json_object_new_object();

    digest_hex(dev->sha256, hex);
    if (!obj)
        return error_oom(err);
    if (add(obj, "name", json_object_new_string(dev->name), err) < 0 ||
        add(obj, "file", json_object_new_string(dev->file), err) < 0 ||
        add(obj, "size", json_object_new_uint64(dev->size), err) < 0 ||
        (dev->has_digest && add(obj, "sha256", json_object_new_string(hex), err) < 0))
        return -1;
    if (json_object_array_add(list, json_object_get(obj)) < 0) {
        (void)json_object_put(obj);
        return error_oom(err);
    }
    return 0;
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
    if (!doc || !list || !described) {
        (void)json_object_put(described);
        (void)error_oom(err);
        return NULL;
    }
    for (size_t i = 0; i < pkg->n_devices; i++)
        if (add_device(list, &pkg->devices[i], err) < 0) {
            (void)json_object_put(described);
            return NULL;
        }
    if (add(doc, "machine", described, err) < 0 ||
        add(doc, "agentVSockPort", json_object_new_uint64(pkg->agent_port), err) < 0 ||
        add(doc, "format", json_object_new_string(FORMAT_NAME), err) < 0 ||
        add(doc, "version", json_object_new_int(PACKAGE_VERSION), err) < 0 ||
        add(doc, "livenessVSockPort", json_object_new_uint64(pkg->liveness_port), err) < 0 ||
        add(doc, "architecture", json_object_new_string(pkg->architecture), err) < 0 ||
        (pkg->made[0] && add(doc, "made", json_object_new_string(pkg->made), err) < 0) ||
        add(doc, "devices", json_object_get(list), err) < 0)
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
