// SPDX-License-Identifier: Apache-2.0
/* layout.c - a layout folder, descriptors, and blobs that are JSON
 *
 * Theory of operation: all bytes of a layout enter here. A path is made from a digest that was
 * parsed and printed anew, never from its text; openat2(2) keeps it beneath the layout and refuses
 * symlinks, so that a layout from a stranger cannot name a file of ours. JSON counts only after its
 * size and SHA-256 are those of the descriptor.
 */
#include "oci/image/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/base/io.h"
#include "runtime/base/json.h"
#include "runtime/base/parse.h"

/* image-layout.md: the only version there is. */
#define LAYOUT_VERSION "1.0.0"

static const struct image_media_type media_types[] = {
    {"application/vnd.oci.image.index.v1+json", IMAGE_KIND_INDEX, 0},
    {"application/vnd.oci.image.manifest.v1+json", IMAGE_KIND_MANIFEST, 0},
    {"application/vnd.oci.image.config.v1+json", IMAGE_KIND_CONFIG, 0},
    {"application/vnd.docker.distribution.manifest.list.v2+json", IMAGE_KIND_INDEX, 0},
    {"application/vnd.docker.distribution.manifest.v2+json", IMAGE_KIND_MANIFEST, 0},
    {"application/vnd.docker.container.image.v1+json", IMAGE_KIND_CONFIG, 0},
#define LAYER(name, compression)                                                                   \
    {                                                                                              \
        "application/vnd." name, IMAGE_KIND_LAYER, compression                                     \
    }
    LAYER("oci.image.layer.v1.tar", IMAGE_PLAIN),
    LAYER("oci.image.layer.v1.tar+gzip", IMAGE_GZIP),
    LAYER("oci.image.layer.v1.tar+zstd", IMAGE_ZSTD),
    LAYER("oci.image.layer.nondistributable.v1.tar", IMAGE_PLAIN),
    LAYER("oci.image.layer.nondistributable.v1.tar+gzip", IMAGE_GZIP),
    LAYER("oci.image.layer.nondistributable.v1.tar+zstd", IMAGE_ZSTD),
    LAYER("docker.image.rootfs.diff.tar", IMAGE_PLAIN),
    LAYER("docker.image.rootfs.diff.tar.gzip", IMAGE_GZIP),
    LAYER("docker.image.rootfs.diff.tar.zstd", IMAGE_ZSTD),
    LAYER("docker.image.rootfs.foreign.diff.tar", IMAGE_PLAIN),
    LAYER("docker.image.rootfs.foreign.diff.tar.gzip", IMAGE_GZIP),
    LAYER("docker.image.rootfs.foreign.diff.tar.zstd", IMAGE_ZSTD),
    /* In no specification, but written by some builders. */
    LAYER("oci.image.layer.v1.tar.gzip", IMAGE_GZIP),
    LAYER("oci.image.layer.v1.tar.zstd", IMAGE_ZSTD),
#undef LAYER
};

const struct image_media_type *image_media_type(const char *name)
{
    static const struct image_media_type other = {"", IMAGE_KIND_OTHER, 0};

    for (size_t i = 0; name && i < ARRAY_SIZE(media_types); i++)
        if (strcmp(media_types[i].name, name) == 0)
            return &media_types[i];
    return &other;
}

static int open_beneath(int dirfd, const char *path)
{
    /* O_NONBLOCK: a FIFO in a blob's place must not hold us up. */
    struct open_how how = {
        .flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    return (int)syscall(SYS_openat2, dirfd, path, &how, sizeof(how));
}

static int open_regular(int layout, const char *path, struct stat *st, struct error *err)
{
    cleanup_close int fd = open_beneath(layout, path);
    if (fd < 0) {
        if (errno == ELOOP || errno == EXDEV)
            return error_set(err, ELOOP, "%s: is a symlink, or reached through one", path);
        return error_sys(err, "%s: open", path);
    }
    if (fstat(fd, st) < 0)
        return error_sys(err, "%s: stat", path);
    if (!S_ISREG(st->st_mode))
        return error_set(err, EBADMSG, "%s: not a regular file", path);
    return steal_fd(&fd);
}

struct json_object *layout_read_file(int layout, const char *name, struct error *err)
{
    struct stat st;
    size_t len;
    cleanup_close int fd = open_regular(layout, name, &st, err);
    cleanup_free char *text = fd < 0 ? NULL : io_read_fd(fd, IMAGE_JSON_MAX, name, &len, err);

    return text ? json_parse(text, len, name, err) : NULL;
}

int layout_open(const char *dir, struct error *err)
{
    cleanup_close int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_sys(err, "open the layout folder");
    struct error cause = ERROR_INIT;
    cleanup_json struct json_object *doc = layout_read_file(fd, "oci-layout", &cause);
    if (!doc)
        return error_set(err, cause.code, "not an OCI image layout: %s", cause.text);
    const char *version = NULL;
    if (json_required(json_get_string(doc, "imageLayoutVersion", "oci-layout", &version, err),
                      "imageLayoutVersion", "oci-layout", err) < 0)
        return -1;
    if (strcmp(version, LAYOUT_VERSION) != 0)
        return error_set(err, ENOTSUP, "oci-layout: version \"%s\", only %s is known", version,
                         LAYOUT_VERSION);
    return steal_fd(&fd);
}

int layout_parse_digest(const char *text, const char *what, uint8_t ret_digest[SHA256_SIZE],
                        struct error *err)
{
    static const char prefix[] = "sha256:";
    const char *colon = strchr(text, ':');

    if (strncmp(text, prefix, strlen(prefix)) != 0) {
        size_t n = colon ? (size_t)(colon - text) : 0;
        if (n > 0 && strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789+._-") == n)
            return error_set(err, ENOTSUP, "%s: digest algorithm \"%.*s\", only sha256 is known",
                             what, (int)(n < 64 ? n : 64), text);
        return error_set(err, EBADMSG, "%s: \"%.100s\" is not a digest", what, text);
    }
    const char *hex = text + strlen(prefix);
    /* descriptor.md: lower case only; parse_hex() would take both. */
    if (strlen(hex) != 2 * (size_t)SHA256_SIZE ||
        strspn(hex, "0123456789abcdef") != 2 * (size_t)SHA256_SIZE ||
        parse_hex(hex, 2 * (size_t)SHA256_SIZE, ret_digest, SHA256_SIZE) < 0)
        return error_set(err, EBADMSG,
                         "%s: \"%.100s\" is not a sha256 digest (64 lower-case hex digits)", what,
                         text);
    return 0;
}

int layout_parse_descriptor(struct json_object *obj, uint64_t max, const char *what,
                            struct image_descriptor *ret, struct error *err)
{
    struct image_descriptor d = {.media_type = ""};
    const char *digest;
    char place[256];

    if (json_get_string(obj, "mediaType", what, &d.media_type, err) < 0 ||
        json_required(json_get_string(obj, "digest", what, &digest, err), "digest", what, err) <
            0 ||
        json_required(json_get_u64(obj, "size", 0, max, what, &d.size, err), "size", what, err) < 0)
        return -1;
    (void)snprintf(place, sizeof(place), "%s: digest", what);
    if (layout_parse_digest(digest, place, d.digest, err) < 0)
        return -1;
    *ret = d;
    return 0;
}

int layout_open_blob(int layout, const struct image_descriptor *blob, int *ret_fd,
                     struct error *err)
{
    char hex[SHA256_HEX_SIZE], path[sizeof("blobs/sha256/") + SHA256_HEX_SIZE];
    struct stat st;

    digest_hex(blob->digest, hex);
    (void)snprintf(path, sizeof(path), "blobs/sha256/%s", hex);
    cleanup_close int fd = open_regular(layout, path, &st, err);
    if (fd < 0)
        return -1;
    if ((uint64_t)st.st_size != blob->size)
        return error_set(err, EBADMSG, "%s: %lld bytes, the descriptor says %llu", path,
                         (long long)st.st_size, (unsigned long long)blob->size);
    *ret_fd = steal_fd(&fd);
    return 0;
}

struct json_object *layout_read_blob(int layout, const struct image_descriptor *blob,
                                     const char *what, struct error *err)
{
    char hex[SHA256_HEX_SIZE], got[SHA256_HEX_SIZE], name[160];
    uint8_t sum[SHA256_SIZE];
    cleanup_close int fd = -1;
    size_t len;

    digest_hex(blob->digest, hex);
    (void)snprintf(name, sizeof(name), "%s sha256:%s", what, hex);
    if (blob->size > IMAGE_JSON_MAX) {
        error_set(err, EFBIG, "%s: %llu bytes, more than the limit of %u", name,
                  (unsigned long long)blob->size, IMAGE_JSON_MAX);
        return NULL;
    }
    if (layout_open_blob(layout, blob, &fd, err) < 0) {
        error_wrap(err, "%s", what);
        return NULL;
    }
    cleanup_free char *text = io_read_fd(fd, IMAGE_JSON_MAX, name, &len, err);
    if (!text || digest_of(text, len, sum, err) < 0)
        return NULL;
    if (len != blob->size || memcmp(sum, blob->digest, SHA256_SIZE) != 0) {
        digest_hex(sum, got);
        error_set(err, EBADMSG, "%s: its content is damaged (it hashes to %s)", name, got);
        return NULL;
    }
    return json_parse(text, len, name, err);
}

static bool has(struct json_object *doc, const char *key)
{
    return json_object_object_get_ex(doc, key, NULL);
}

int layout_check_kind(struct json_object *doc, enum image_kind wanted, const char *what,
                      struct error *err)
{
    const char *type = NULL;
    uint64_t schema;
    bool index = wanted == IMAGE_KIND_INDEX;

    if (json_required(json_get_u64(doc, "schemaVersion", 0, UINT64_MAX, what, &schema, err),
                      "schemaVersion", what, err) < 0)
        return -1;
    if (schema != 2)
        return error_set(err, ENOTSUP, "%s: schemaVersion %llu, only 2 is known", what,
                         (unsigned long long)schema);
    if (json_get_string(doc, "mediaType", what, &type, err) < 0)
        return -1;
    if (type && image_media_type(type)->kind != wanted)
        return error_set(err, EBADMSG, "%s: calls itself \"%.100s\", it was announced as %s", what,
                         type, index ? "an index" : "a manifest");
    if (index ? has(doc, "layers") || has(doc, "config") : has(doc, "manifests"))
        return error_set(err, EBADMSG,
                         "%s: has fields of an index and of a manifest, so it could mean two "
                         "images; refused",
                         what);
    return 0;
}

int layout_parse_platform(struct json_object *obj, const char *what, struct image_platform *ret,
                          struct error *err)
{
    struct image_platform p = {"", "", ""};

    if (json_get_string(obj, "os", what, &p.os, err) < 0 ||
        json_get_string(obj, "architecture", what, &p.architecture, err) < 0 ||
        json_get_string(obj, "variant", what, &p.variant, err) < 0)
        return -1;
    *ret = p;
    return 0;
}
