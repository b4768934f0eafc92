// SPDX-License-Identifier: Apache-2.0
/* blueprint.c - the manifest read and opened
 *
 * See blueprint.h for the format, and device.c for the list of devices in it. Everything in a
 * manifest is untrusted.
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
    return blueprint_device_find(bp->devices, bp->n_devices, name);
}

int blueprint_add(struct blueprint *bp, const char *name, const char *file, uint64_t size,
                  const uint8_t sha256[SHA256_SIZE], struct error *err)
{
    struct blueprint_device dev = {.size = size, .has_digest = true};
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
    return blueprint_device_add(&bp->devices, &bp->n_devices, &dev, err);
}

/* What both the reader and the writer demand of a whole manifest. */
static int check_whole(const struct blueprint *bp, struct error *err)
{
    bool kernel = false, root = false;
    for (size_t i = 0; i < bp->n_devices; i++) {
        kernel = kernel || bp->devices[i].role == BLUEPRINT_KERNEL;
        root = root || bp->devices[i].role == BLUEPRINT_ROOT;
    }
    if (!kernel)
        return error_set(err, EBADMSG, "devices: none has the role kernel");
    if (!root)
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

/* Here each device says its role, and has a digest. */
static int parse_device(struct json_object *obj, const char *what, struct blueprint_device *ret,
                        struct error *err)
{
    struct blueprint_device dev;
    const char *role;

    if (blueprint_device_parse(obj, what, &dev, err) < 0 ||
        json_required(json_get_string(obj, "role", what, &role, err), "role", what, err) < 0)
        return -1;
    if (blueprint_role_parse(role, &dev.role) < 0)
        return error_set(err, EBADMSG, "%s: role: \"%.80s\" is not known", what, role);
    if (!dev.has_digest)
        return error_set(err, EBADMSG, "%s: sha256 is missing", what);
    *ret = dev;
    return 0;
}

static int parse_manifest(struct blueprint *bp, struct json_object *doc, const char *what,
                          struct error *err)
{
    uint64_t port;
    struct json_object *devices, *sub;
    int got;

    if (json_check_format(doc, what, FORMAT_NAME, BLUEPRINT_VERSION,
                          "make the blueprint again with `make blueprint`", err) < 0)
        return -1;
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
        (void)snprintf(where, sizeof(where), "devices[%zu]", i);
        if (parse_device(json_object_array_get_idx(devices, i), where, &dev, err) < 0 ||
            blueprint_device_add(&bp->devices, &bp->n_devices, &dev, err) < 0)
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

/* Adds {"a_key": a, "b_key": b} under key, leaving out what is NULL; nothing when both are. */
static int add_pair(struct json_object *doc, const char *key, const char *a_key, const char *a,
                    const char *b_key, const char *b, struct error *err)
{
    if (!a && !b)
        return 0;
    struct json_object *obj = json_object_new_object();
    if (json_add(doc, key, obj, err) < 0 ||
        (a && json_add(obj, a_key, json_object_new_string(a), err) < 0) ||
        (b && json_add(obj, b_key, json_object_new_string(b), err) < 0))
        return -1;
    return 0;
}

char *blueprint_format(const struct blueprint *bp, struct error *err)
{
    if (check_whole(bp, err) < 0)
        return NULL;
    cleanup_json struct json_object *doc = json_object_new_object();
    struct json_object *devices = json_object_new_array();
    if (json_add(doc, "format", json_object_new_string(FORMAT_NAME), err) < 0 ||
        json_add(doc, "version", json_object_new_int(BLUEPRINT_VERSION), err) < 0 ||
        json_add(doc, "architecture", json_object_new_string(bp->architecture), err) < 0 ||
        json_add(doc, "bootArgs", json_object_new_string(bp->boot_args), err) < 0 ||
        json_add(doc, "livenessVSockPort", json_object_new_uint64(bp->liveness_port), err) < 0 ||
        json_add(doc, "agentVSockPort", json_object_new_uint64(bp->agent_port), err) < 0) {
        (void)json_object_put(devices);
        return NULL;
    }
    if (json_add(doc, "devices", devices, err) < 0)
        return NULL;
    for (size_t i = 0; i < bp->n_devices; i++)
        if (blueprint_device_format(devices, &bp->devices[i], true, err) < 0)
            return NULL;
    if (add_pair(doc, "image", "reference", bp->image_reference, "digest", bp->image_digest, err) <
            0 ||
        add_pair(doc, "made", "kernel", bp->made_kernel, "root", bp->made_root, err) < 0)
        return NULL;
    char *text = json_format(doc);
    if (!text)
        (void)error_oom(err);
    return text;
}

int blueprint_open_device(const struct blueprint *bp, const struct blueprint_device *dev, int flags,
                          int *ret_fd, struct error *err)
{
    if (blueprint_device_open(bp->dirfd, dev, flags, BLUEPRINT_MANIFEST, ret_fd, err) < 0)
        return error_wrap(err, "blueprint %s", bp->dir);
    return 0;
}

int blueprint_verify(const struct blueprint *bp, const struct context *ctx, struct error *err)
{
    if (blueprint_device_verify(bp->dirfd, bp->devices, bp->n_devices, BLUEPRINT_MANIFEST, ctx,
                                err) < 0)
        return error_wrap(err, "blueprint %s", bp->dir);
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
