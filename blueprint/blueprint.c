// SPDX-License-Identifier: Apache-2.0
/* blueprint.c - names of devices, and the manifest read and opened
 *
 * See blueprint.h for the format. Everything in a manifest is untrusted: names are checked against
 * their alphabets before they reach openat(2), which is told not to follow symlinks, and sizes are
 * compared with the files before anyone maps them.
 */
#include "blueprint/blueprint.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/base/io.h"
#include "runtime/base/json.h"
#include "runtime/base/parse.h"

#define FORMAT_NAME "drafter-blueprint"

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

const char *blueprint_host_architecture(void)
{
#if defined(__x86_64__)
    return "x86_64";
#elif defined(__aarch64__)
    return "aarch64";
#else
#error "machines are made for x86_64 and aarch64 only"
#endif
}

void blueprint_free(struct blueprint *bp)
{
    if (!bp)
        return;
    if (bp->dirfd >= 0)
        (void)close(bp->dirfd);
    free(bp->dir);
    free(bp->architecture);
    free(bp->boot_args);
    free(bp->devices);
    free(bp->image_reference);
    free(bp->image_digest);
    free(bp->made_kernel);
    free(bp->made_root);
    free(bp);
}

static struct blueprint *new_empty(struct error *err)
{
    struct blueprint *bp = calloc(1, sizeof(*bp));
    if (!bp) {
        (void)error_oom(err);
        return NULL;
    }
    bp->dirfd = -1;
    bp->liveness_port = BLUEPRINT_LIVENESS_PORT;
    bp->agent_port = BLUEPRINT_AGENT_PORT;
    return bp;
}

struct blueprint *blueprint_new(struct error *err)
{
    cleanup_blueprint struct blueprint *bp = new_empty(err);
    if (!bp)
        return NULL;
    bp->architecture = strdup(blueprint_host_architecture());
    bp->boot_args = strdup("");
    if (!bp->architecture || !bp->boot_args) {
        (void)error_oom(err);
        return NULL;
    }
    return steal_ptr(&bp);
}

const struct blueprint_device *blueprint_find(const struct blueprint *bp, const char *name)
{
    for (size_t i = 0; i < bp->n_devices; i++)
        if (!strcmp(bp->devices[i].name, name))
            return &bp->devices[i];
    return NULL;
}

static int add_device(struct blueprint *bp, const struct blueprint_device *dev, struct error *err)
{
    if (blueprint_check_name(dev->name, err) < 0 || blueprint_check_file(dev->file, err) < 0)
        return -1;
    if (dev->size > BLUEPRINT_SIZE_MAX)
        return error_set(err, EINVAL, "device %s: %" PRIu64 " bytes are more than the limit of 64T",
                         dev->name, dev->size);
    if (bp->n_devices == BLUEPRINT_DEVICES_MAX)
        return error_set(err, EINVAL, "device %s: there are %d devices already, the most allowed",
                         dev->name, BLUEPRINT_DEVICES_MAX);
    for (size_t i = 0; i < bp->n_devices; i++) {
        const struct blueprint_device *o = &bp->devices[i];
        if (!strcmp(o->name, dev->name))
            return error_set(err, EINVAL, "device %s: is named twice", dev->name);
        if (!strcmp(o->file, dev->file))
            return error_set(err, EINVAL, "device %s: its file %s is also that of device %s",
                             dev->name, dev->file, o->name);
        if (o->role == dev->role && dev->role != BLUEPRINT_DISK)
            return error_set(err, EINVAL, "device %s: has the role of device %s, %s, too",
                             dev->name, o->name, role_names[dev->role]);
    }
    struct blueprint_device *grown =
        reallocarray(bp->devices, bp->n_devices + 1, sizeof(*bp->devices));
    if (!grown)
        return error_oom(err);
    bp->devices = grown;
    bp->devices[bp->n_devices++] = *dev;
    return 0;
}

int blueprint_add(struct blueprint *bp, const char *name, const char *file, uint64_t size,
                  const uint8_t sha256[SHA256_SIZE], struct error *err)
{
    struct blueprint_device dev = {.size = size};
    char buf[BLUEPRINT_FILE_MAX + 1];
    if (blueprint_check_name(name, err) < 0)
        return -1;
    if (!file)
        file = blueprint_file_name(name, buf);
    if (blueprint_check_file(file, err) < 0)
        return -1;
    (void)snprintf(dev.name, sizeof(dev.name), "%s", name);
    (void)snprintf(dev.file, sizeof(dev.file), "%s", file);
    dev.role = blueprint_role_of(name);
    memcpy(dev.sha256, sha256, SHA256_SIZE);
    return add_device(bp, &dev, err);
}

/* What both the reader and the writer demand of a whole manifest. */
static int check_whole(const struct blueprint *bp, struct error *err)
{
    bool have[ARRAY_SIZE(role_names)] = {false};
    for (size_t i = 0; i < bp->n_devices; i++)
        have[bp->devices[i].role] = true;
    if (!have[BLUEPRINT_KERNEL])
        return error_set(err, EBADMSG, "devices: none has the role kernel");
    if (!have[BLUEPRINT_ROOT])
        return error_set(err, EBADMSG, "devices: none has the role root");
    for (const char *p = bp->boot_args; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            return error_set(err, EBADMSG, "bootArgs: holds a control character");
    if (strlen(bp->boot_args) > BLUEPRINT_BOOT_ARGS_MAX)
        return error_set(err, EBADMSG, "bootArgs: %zu bytes, at most %d are allowed",
                         strlen(bp->boot_args), BLUEPRINT_BOOT_ARGS_MAX);
    const char *const texts[] = {bp->architecture, bp->image_reference, bp->image_digest,
                                 bp->made_kernel, bp->made_root};
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        if (texts[i] && strlen(texts[i]) > BLUEPRINT_TEXT_MAX)
            return error_set(err, EBADMSG, "a text of %zu bytes, at most %d are allowed",
                             strlen(texts[i]), BLUEPRINT_TEXT_MAX);
    return 0;
}

/* JSON_OK with a copy in *ret, or JSON_ABSENT, or -1. */
static int dup_string(struct json_object *obj, const char *key, const char *what, char **ret,
                      struct error *err)
{
    const char *s;
    int got = json_get_string(obj, key, what, &s, err);
    if (got != JSON_OK)
        return got;
    char *copy = strdup(s);
    if (!copy)
        return error_oom(err);
    *ret = copy;
    return JSON_OK;
}

static int parse_device(struct json_object *obj, const char *what, struct blueprint_device *ret,
                        struct error *err)
{
    const char *name, *file, *role, *hex;
    struct blueprint_device dev = {.size = 0};

    if (json_required(json_get_string(obj, "name", what, &name, err), "name", what, err) < 0 ||
        json_required(json_get_string(obj, "file", what, &file, err), "file", what, err) < 0 ||
        json_required(json_get_string(obj, "role", what, &role, err), "role", what, err) < 0 ||
        json_required(json_get_string(obj, "sha256", what, &hex, err), "sha256", what, err) < 0 ||
        json_required(json_get_u64(obj, "size", 0, BLUEPRINT_SIZE_MAX, what, &dev.size, err),
                      "size", what, err) < 0)
        return -1;
    if (blueprint_check_name(name, err) < 0 || blueprint_check_file(file, err) < 0)
        return error_wrap(err, "%s", what);
    size_t r = 0;
    while (r < ARRAY_SIZE(role_names) && strcmp(role_names[r], role))
        r++;
    if (r == ARRAY_SIZE(role_names))
        return error_set(err, EBADMSG, "%s: role: \"%.80s\" is not known", what, role);
    dev.role = (enum blueprint_role)r;
    if (parse_hex(hex, strlen(hex), dev.sha256, SHA256_SIZE) < 0)
        return error_set(err, EBADMSG, "%s: sha256: is not 64 hex digits", what);
    (void)snprintf(dev.name, sizeof(dev.name), "%s", name);
    (void)snprintf(dev.file, sizeof(dev.file), "%s", file);
    *ret = dev;
    return 0;
}

static int parse_manifest(struct blueprint *bp, struct json_object *doc, const char *what,
                          struct error *err)
{
    const char *format;
    uint64_t version, port;
    struct json_object *devices, *sub;
    int got;

    if (!json_object_is_type(doc, json_type_object))
        return error_set(err, EBADMSG, "%s: is no JSON object", what);
    if (json_required(json_get_string(doc, "format", what, &format, err), "format", what, err) < 0)
        return -1;
    if (strcmp(format, FORMAT_NAME))
        return error_set(err, EBADMSG, "%s: format: \"%.80s\", not \"" FORMAT_NAME "\"", what,
                         format);
    if (json_required(json_get_u64(doc, "version", 0, UINT32_MAX, what, &version, err), "version",
                      what, err) < 0)
        return -1;
    if (version != BLUEPRINT_VERSION)
        return error_set(err, EBADMSG,
                         "%s: version: is %" PRIu64 ", this program reads version %d: make the "
                         "blueprint again with `make blueprint`",
                         what, version, BLUEPRINT_VERSION);
    if (json_required(dup_string(doc, "architecture", what, &bp->architecture, err), "architecture",
                      what, err) < 0 ||
        json_required(dup_string(doc, "bootArgs", what, &bp->boot_args, err), "bootArgs", what,
                      err) < 0 ||
        json_required(json_get_array(doc, "devices", what, &devices, err), "devices", what, err) <
            0)
        return -1;

    if (json_required(json_get_u64(doc, "livenessVSockPort", 1, UINT32_MAX - 1, what, &port, err),
                      "livenessVSockPort", what, err) < 0)
        return -1;
    bp->liveness_port = (uint32_t)port;
    if (json_required(json_get_u64(doc, "agentVSockPort", 1, UINT32_MAX - 1, what, &port, err),
                      "agentVSockPort", what, err) < 0)
        return -1;
    bp->agent_port = (uint32_t)port;

    got = json_get_object(doc, "image", what, &sub, err);
    if (got < 0 ||
        (got == JSON_OK && (dup_string(sub, "reference", "image", &bp->image_reference, err) < 0 ||
                            dup_string(sub, "digest", "image", &bp->image_digest, err) < 0)))
        return -1;
    got = json_get_object(doc, "made", what, &sub, err);
    if (got < 0 ||
        (got == JSON_OK && (dup_string(sub, "kernel", "made", &bp->made_kernel, err) < 0 ||
                            dup_string(sub, "root", "made", &bp->made_root, err) < 0)))
        return -1;

    size_t n = json_object_array_length(devices);
    for (size_t i = 0; i < n; i++) {
        char where[64];
        struct blueprint_device dev;
        struct json_object *item = json_object_array_get_idx(devices, i);
        (void)snprintf(where, sizeof(where), "devices[%zu]", i);
        if (!json_object_is_type(item, json_type_object))
            return error_set(err, EBADMSG, "%s: %s: is no JSON object", what, where);
        if (parse_device(item, where, &dev, err) < 0 || add_device(bp, &dev, err) < 0)
            return error_wrap(err, "%s", what);
    }
    if (check_whole(bp, err) < 0)
        return error_wrap(err, "%s", what);
    return 0;
}

struct blueprint *blueprint_parse(const char *text, size_t len, const char *what, struct error *err)
{
    if (len > BLUEPRINT_MANIFEST_MAX) {
        (void)error_set(err, EBADMSG, "%s: larger than the limit of %u bytes", what,
                        BLUEPRINT_MANIFEST_MAX);
        return NULL;
    }
    cleanup_json struct json_object *doc = json_parse(text, len, what, err);
    cleanup_blueprint struct blueprint *bp = doc ? new_empty(err) : NULL;
    if (!bp)
        return NULL;
    if (parse_manifest(bp, doc, what, err) < 0) {
        /* Whatever the getters call it, to the caller it is a manifest that is wrong. */
        if (err && err->code != ENOMEM)
            err->code = EBADMSG;
        return NULL;
    }
    return steal_ptr(&bp);
}

static int add_string(struct json_object *obj, const char *key, const char *value,
                      struct error *err)
{
    struct json_object *s = json_object_new_string(value);
    if (!s || json_object_object_add(obj, key, s) < 0) {
        (void)json_object_put(s);
        return error_oom(err);
    }
    return 0;
}

static int add_u64(struct json_object *obj, const char *key, uint64_t value, struct error *err)
{
    struct json_object *n = json_object_new_uint64(value);
    if (!n || json_object_object_add(obj, key, n) < 0) {
        (void)json_object_put(n);
        return error_oom(err);
    }
    return 0;
}

/* Adds {"a_key": a, "b_key": b} under key, leaving out what is NULL; nothing when both are. */
static int add_pair(struct json_object *doc, const char *key, const char *a_key, const char *a,
                    const char *b_key, const char *b, struct error *err)
{
    if (!a && !b)
        return 0;
    cleanup_json struct json_object *obj = json_object_new_object();
    if (!obj || (a && add_string(obj, a_key, a, err) < 0) ||
        (b && add_string(obj, b_key, b, err) < 0) ||
        json_object_object_add(doc, key, json_object_get(obj)) < 0)
        return error_oom(err);
    return 0;
}

char *blueprint_format(const struct blueprint *bp, struct error *err)
{
    if (check_whole(bp, err) < 0)
        return NULL;
    cleanup_json struct json_object *doc = json_object_new_object();
    cleanup_json struct json_object *devices = json_object_new_array();
    if (!doc || !devices) {
        (void)error_oom(err);
        return NULL;
    }
    if (add_string(doc, "format", FORMAT_NAME, err) < 0 ||
        add_u64(doc, "version", BLUEPRINT_VERSION, err) < 0 ||
        add_string(doc, "architecture", bp->architecture, err) < 0 ||
        add_string(doc, "bootArgs", bp->boot_args, err) < 0 ||
        add_u64(doc, "livenessVSockPort", bp->liveness_port, err) < 0 ||
        add_u64(doc, "agentVSockPort", bp->agent_port, err) < 0)
        return NULL;
    for (size_t i = 0; i < bp->n_devices; i++) {
        const struct blueprint_device *dev = &bp->devices[i];
        char hex[SHA256_HEX_SIZE];
        digest_hex(dev->sha256, hex);
        cleanup_json struct json_object *obj = json_object_new_object();
        if (!obj || add_string(obj, "name", dev->name, err) < 0 ||
            add_string(obj, "role", role_names[dev->role], err) < 0 ||
            add_string(obj, "file", dev->file, err) < 0 ||
            add_u64(obj, "size", dev->size, err) < 0 || add_string(obj, "sha256", hex, err) < 0 ||
            json_object_array_add(devices, json_object_get(obj)) < 0) {
            (void)error_oom(err);
            return NULL;
        }
    }
    if (json_object_object_add(doc, "devices", json_object_get(devices)) < 0 ||
        add_pair(doc, "image", "reference", bp->image_reference, "digest", bp->image_digest, err) <
            0 ||
        add_pair(doc, "made", "kernel", bp->made_kernel, "root", bp->made_root, err) < 0) {
        (void)error_oom(err);
        return NULL;
    }
    char *text = json_format(doc);
    if (!text)
        (void)error_oom(err);
    return text;
}

int blueprint_open_device(const struct blueprint *bp, const struct blueprint_device *dev, int flags,
                          int *ret_fd, struct error *err)
{
    struct stat st;
    /* O_NONBLOCK: a FIFO in the file's place must not hang us; it means nothing to a file. */
    cleanup_close int fd =
        openat(bp->dirfd, dev->file, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return error_sys(err, "blueprint %s: device %s: open %s", bp->dir, dev->name, dev->file);
    if (fstat(fd, &st) < 0)
        return error_sys(err, "blueprint %s: device %s: stat", bp->dir, dev->name);
    if (!S_ISREG(st.st_mode))
        return error_set(err, ESTALE, "blueprint %s: device %s: %s is no regular file", bp->dir,
                         dev->name, dev->file);
    if ((uint64_t)st.st_size != dev->size)
        return error_set(err, ESTALE,
                         "blueprint %s: device %s: %s has %jd bytes, the manifest says %" PRIu64
                         ": make the blueprint again",
                         bp->dir, dev->name, dev->file, (intmax_t)st.st_size, dev->size);
    *ret_fd = steal_fd(&fd);
    return 0;
}

struct blueprint *blueprint_open(const char *dir, struct error *err)
{
    char what[ERROR_TEXT_MAX / 2];
    size_t len;
    cleanup_close int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0) {
        (void)error_sys(err, "blueprint %s: open", dir);
        return NULL;
    }
    struct error cause = ERROR_INIT;
    cleanup_free char *text =
        io_read_file(dirfd, BLUEPRINT_MANIFEST, BLUEPRINT_MANIFEST_MAX, &len, &cause);
    if (!text) {
        (void)error_set(err, cause.code, "blueprint %s: %s%s", dir, cause.text,
                        cause.code == ENOENT ? ": make one with `make blueprint`" : "");
        return NULL;
    }
    (void)snprintf(what, sizeof(what), "%s/" BLUEPRINT_MANIFEST, dir);
    cleanup_blueprint struct blueprint *bp = blueprint_parse(text, len, what, err);
    if (!bp)
        return NULL;
    if (!(bp->dir = strdup(dir))) {
        (void)error_oom(err);
        return NULL;
    }
    bp->dirfd = steal_fd(&dirfd);
    for (size_t i = 0; i < bp->n_devices; i++) {
        cleanup_close int fd = -1;
        if (blueprint_open_device(bp, &bp->devices[i], O_RDONLY, &fd, err) < 0)
            return NULL;
    }
    return steal_ptr(&bp);
}
