// SPDX-License-Identifier: Apache-2.0
/* test_image.c - which image of a layout is opened, and what is refused */
#include "oci/image/image.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/json.h"
#include "runtime/base/output.h"
#include "tests/lib/layout.h"
#include "tests/lib/unit.h"

#define ROOTFS "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]}"
#define NAME(n) ",\"annotations\":{\"org.opencontainers.image.ref.name\":\"" n "\"}"
#define PLATFORM(a) ",\"platform\":{\"os\":\"linux\",\"architecture\":" a "}"

static const char *config_for(const char *arch)
{
    return layout_text("{\"os\":\"linux\",\"architecture\":\"%s\"," ROOTFS "}", arch);
}

/* Opens and expects the image whose config says `author`. */
static void opens(const char *ref, const char *arch, const char *author)
{
    struct error err = ERROR_INIT;
    const char *got = "";
    cleanup_image struct image *image = image_open("l", ref, arch, &err);

    ck_assert_msg(image != NULL, "%s", err.text);
    ck_assert_int_ge(json_get_string(image_config(image), "author", "x", &got, &err), 0);
    ck_assert_str_eq(got, author);
}

static void refuses(const char *ref, const char *arch, const char *part)
{
    struct error err = ERROR_INIT;
    struct image *image = image_open("l", ref, arch, &err);

    ck_assert_ptr_null(image);
    ck_assert_msg(strncmp(err.text, "image l", 7) == 0, "%s", err.text);
    ck_assert_msg(strstr(err.text, part) != NULL, "\"%s\" lacks \"%s\"", err.text, part);
}

static char *image_by(const char *author, const char *arch, const char *extra)
{
    return layout_image(
        "l",
        layout_text("{\"author\":\"%s\",\"os\":\"linux\",\"architecture\":\"%s\"," ROOTFS "}",
                    author, arch),
        extra);
}

UNIT_TEST(chooses_by_name)
{
    layout_make("l");
    layout_index("l", layout_text("%s,%s", image_by("a", "amd64", NAME("one")),
                                  image_by("b", "amd64", NAME("two"))));
    opens("one", "amd64", "a");
    opens("two", "amd64", "b");
    refuses(NULL, "amd64", "name one of: one, two");
    refuses("three", "amd64", "no image named \"three\"; there is one, two");
    layout_index("l", image_by("a", "amd64", ""));
    opens(NULL, "amd64", "a");
    opens("", "amd64", "a");
    layout_index("l", image_by("a", "amd64", NAME("one")));
    opens(NULL, "amd64", "a");
    layout_index("l", "");
    refuses(NULL, "amd64", "holds no image");
}
END_TEST

UNIT_TEST(chooses_by_platform)
{
    layout_make("l");
    layout_index("l", layout_text("%s,%s,%s,%s,%s", image_by("a", "amd64", PLATFORM("\"amd64\"")),
                                  image_by("b", "amd64", PLATFORM("\"amd64\",\"variant\":\"v3\"")),
                                  image_by("c", "arm64", PLATFORM("\"arm64\",\"variant\":\"v8\"")),
                                  image_by("d", "arm", PLATFORM("\"arm\",\"variant\":\"v7\"")),
                                  image_by("e", "x",
                                           ",\"platform\":{\"os\":\"unknown\","
                                           "\"architecture\":\"unknown\"}")));
    opens(NULL, "amd64", "a");
    opens(NULL, "amd64/v3", "b");
    opens(NULL, "arm64", "c");
    opens(NULL, "arm64/v8", "c");
    opens(NULL, "arm", "d");
    refuses(NULL, "arm/v6",
            "no image for linux/arm/v6; there is linux/amd64, linux/amd64/v3, "
            "linux/arm64/v8, linux/arm/v7");
    refuses(NULL, "amd64/", "architecture");
    refuses(NULL, "", "architecture");
    refuses(NULL, "a/b/c", "architecture");
    /* The plain one wins even where a particular one comes first. */
    layout_index("l", layout_text("%s,%s",
                                  image_by("b", "amd64", PLATFORM("\"amd64\",\"variant\":\"v3\"")),
                                  image_by("a", "amd64", PLATFORM("\"amd64\""))));
    opens(NULL, "amd64", "a");
    /* Without a platform in the descriptor the config tells. */
    layout_index("l", image_by("a", "riscv64", ""));
    opens(NULL, "riscv64", "a");
    refuses(NULL, "amd64", "there is linux/riscv64");
}
END_TEST

UNIT_TEST(follows_nested_indexes)
{
    layout_make("l");
    char *entry = image_by("deep", "arm64", PLATFORM("\"arm64\""));
    for (int depth = 1; depth <= IMAGE_INDEX_DEPTH_MAX + 1; depth++) {
        const char *text = layout_text(
            "{\"schemaVersion\":2,\"mediaType\":\"" OCI_INDEX "\",\"manifests\":[%s]}", entry);
        entry = layout_put("l", OCI_INDEX, text, NAME("n"));
        layout_index("l", entry);
        if (depth <= IMAGE_INDEX_DEPTH_MAX)
            opens("n", "arm64", "deep");
        else
            refuses("n", "arm64", "nested deeper than 8");
    }
}
END_TEST

UNIT_TEST(limits_entries)
{
    /* Eight levels of ten times the same index each would be 10^8 entries. */
    layout_make("l");
    char *entry = image_by("a", "amd64", PLATFORM("\"s390x\""));
    for (int depth = 0; depth < 8; depth++) {
        char *ten = layout_text("%s,%s,%s,%s,%s", entry, entry, entry, entry, entry);
        entry =
            layout_put("l", OCI_INDEX,
                       layout_text("{\"schemaVersion\":2,\"manifests\":[%s,%s]}", ten, ten), "");
    }
    layout_index("l", entry);
    refuses(NULL, "amd64", "more than 1024 entries");
}
END_TEST

/* One damaged layout a row: what index.json's only descriptor says, or a file put in place. */
UNIT_TEST(refuses_bad_descriptors)
{
    static const struct {
        const char *entry, *part;
    } rows[] = {
        {"{}", "digest is missing"},
        {"7", "not a JSON object"},
        {"{\"digest\":\"sha256:00\",\"size\":1}", "not a sha256 digest"},
        {"{\"digest\":\"sha256:../../../../../../../../../../../../../../../etc/"
         "passwd\",\"size\":1}",
         "not a sha256 digest"},
        {"{\"digest\":\"sha512:00\",\"size\":1}", "algorithm \"sha512\""},
        {"{\"digest\":\"../../x\",\"size\":1}", "is not a digest"},
        {"{\"digest\":\"\",\"size\":1}", "is not a digest"},
        {"{\"digest\":\":\",\"size\":1}", "is not a digest"},
        {"{\"digest\":\"sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\","
         "\"size\":1}",
         "lower-case"},
        {"{\"digest\":\"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\","
         "\"size\":1}",
         "not a sha256 digest"},
        {"{\"digest\":\"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}",
         "size is missing"},
        {"{\"digest\":\"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\","
         "\"size\":-1}",
         "out of range"},
        {"{\"digest\":\"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\","
         "\"size\":18446744073709551616}",
         "out of range"},
        {"{\"digest\":\"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\","
         "\"size\":\"1\"}",
         "int wanted"},
        {"{\"digest\":\"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\","
         "\"mediaType\":\"" OCI_MANIFEST "\",\"size\":9999999999}",
         "more than the limit"},
        {"{\"digest\":\"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\","
         "\"mediaType\":\"" OCI_MANIFEST "\",\"size\":9}",
         "No such file"},
        {"{\"digest\":\"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\","
         "\"mediaType\":\"application/x-art\",\"size\":9}",
         "there is \"application/x-art\""},
        {"{\"digest\":7,\"size\":9}", "string wanted"},
        {"{\"annotations\":7}", "object wanted"},
    };
    layout_make("l");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        layout_index("l", rows[i].entry);
        refuses(NULL, "amd64", rows[i].part);
    }
}
END_TEST

UNIT_TEST(refuses_bad_documents)
{
#define CONFIG "\"config\":%s"
    static const struct {
        const char *manifest, *part; /* %s: the config's descriptor */
    } rows[] = {
        {"{\"schemaVersion\":2," CONFIG "}", "layers is missing"},
        {"{\"schemaVersion\":1," CONFIG ",\"layers\":[]}", "schemaVersion 1"},
        {"{" CONFIG ",\"layers\":[]}", "schemaVersion is missing"},
        {"{\"schemaVersion\":2," CONFIG ",\"layers\":[],\"manifests\":[]}", "two images"},
        {"{\"schemaVersion\":2,\"mediaType\":\"" OCI_INDEX "\"," CONFIG ",\"layers\":[]}",
         "calls itself"},
        {"{\"schemaVersion\":2," CONFIG ",\"layers\":{}}", "array wanted"},
        {"{\"schemaVersion\":2," CONFIG ",\"layers\":[7]}", "layer 0: not a JSON object"},
        {"{\"schemaVersion\":2,\"layers\":[],\"x\":%s}", "config is missing"},
        {"{\"schemaVersion\":2," CONFIG ",\"layers\":[{\"mediaType\":\"text/plain\",\"size\":1,"
         "\"digest\":\"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}]"
         "}",
         "no layer type"},
        {"{\"schemaVersion\":2," CONFIG ",\"layers\":[{\"mediaType\":\"" OCI_LAYER "\",\"size\":1,"
         "\"digest\":\"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}]"
         "}",
         "0 diff_ids for the manifest's 1 layers"},
        {"{\"schemaVersion\":2," CONFIG ",\"layers\":[{\"mediaType\":\"" OCI_LAYER
         "+encrypted\",\"size\":1,"
         "\"digest\":\"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}]"
         "}",
         "decrypt"},
        {"{%s", "byte"},
    };
    static const struct {
        const char *config, *part;
    } configs[] = {
        {"{}", "rootfs is missing"},
        {"[]", "not a JSON object"},
        {"{\"rootfs\":{}}", "type is missing"},
        {"{\"rootfs\":{\"type\":\"x\"}}", "only \"layers\""},
        {"{\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"x\"]}}", "1 diff_ids"},
        {"{", "ends early"},
        {"", "JSON text ends early"},
    };
    layout_make("l");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char *config = layout_put("l", OCI_CONFIG, config_for("amd64"), "");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        char *text = layout_text(rows[i].manifest, config);
#pragma GCC diagnostic pop
        layout_index("l", layout_put("l", OCI_MANIFEST, text, PLATFORM("\"amd64\"")));
        refuses(NULL, "amd64", rows[i].part);
    }
    for (size_t i = 0; i < sizeof(configs) / sizeof(configs[0]); i++) {
        layout_index("l", layout_image("l", configs[i].config, PLATFORM("\"amd64\"")));
        refuses(NULL, "amd64", configs[i].part);
    }
    char *artifact = layout_put("l", "application/vnd.oci.empty.v1+json", "{}", "");
    layout_index(
        "l",
        layout_put("l", OCI_MANIFEST,
                   layout_text("{\"schemaVersion\":2,\"config\":%s,\"layers\":[]}", artifact), ""));
    refuses(NULL, "amd64", "an artifact");
    layout_index("l", layout_put("l", OCI_INDEX,
                                 "{\"schemaVersion\":2,\"manifests\":[],\"layers\":[]}", ""));
    refuses(NULL, "amd64", "two images");
    layout_file("l", "index.json", "{\"schemaVersion\":2}");
    refuses(NULL, "amd64", "manifests is missing");
}
END_TEST

UNIT_TEST(refuses_bad_layouts)
{
    layout_make("l");
    ck_assert_int_eq(output_remove_tree(AT_FDCWD, "l", NULL), 0);
    refuses(NULL, "amd64", "open the layout folder: No such file");
    layout_make("l");
    refuses(NULL, "amd64", "index.json: open");
    layout_index("l", image_by("a", "amd64", ""));
    opens(NULL, "amd64", "a");
    layout_file("l", "oci-layout", "{\"imageLayoutVersion\":\"2.0.0\"}");
    refuses(NULL, "amd64", "version \"2.0.0\"");
    layout_file("l", "oci-layout", "{}");
    refuses(NULL, "amd64", "imageLayoutVersion is missing");
    (void)unlink("l/oci-layout");
    refuses(NULL, "amd64", "not an OCI image layout");
    ck_assert_int_eq(mkfifo("l/oci-layout", 0600), 0); /* must not wait for a writer */
    refuses(NULL, "amd64", "not a regular file");
    (void)unlink("l/oci-layout");
    layout_make("l");
    layout_index("l", image_by("a", "amd64", ""));
    ck_assert_int_eq(rename("l/index.json", "index"), 0);
    ck_assert_int_eq(symlink("../index", "l/index.json"), 0);
    refuses(NULL, "amd64", "symlink");
}
END_TEST

UNIT_TEST(checks_blobs)
{
    char path[128];
    layout_make("l");
    const char *digest = layout_blob("l", "hello", 5);
    (void)snprintf(path, sizeof(path), "l/blobs/sha256/%s", digest + strlen("sha256:"));
    layout_index(
        "l",
        layout_text("{\"mediaType\":\"" OCI_MANIFEST "\",\"digest\":\"%s\",\"size\":5}", digest));
    refuses(NULL, "amd64", "manifest sha256:2cf2"); /* no JSON */
    layout_file("l", path + 2, "jello");
    refuses(NULL, "amd64", "damaged (it hashes to ");
    layout_file("l", path + 2, "hello\n");
    refuses(NULL, "amd64", "6 bytes, the descriptor says 5");
    ck_assert_int_eq(rename(path, "outside"), 0);
    ck_assert_int_eq(symlink("../../../outside", path), 0);
    refuses(NULL, "amd64", "symlink");
    (void)unlink(path);
    ck_assert_int_eq(mkdir(path, 0755), 0);
    refuses(NULL, "amd64", "not a regular file");
    /* The folder on the way is a symlink. */
    ck_assert_int_eq(rename("l/blobs/sha256", "elsewhere"), 0);
    ck_assert_int_eq(symlink("../../elsewhere", "l/blobs/sha256"), 0);
    refuses(NULL, "amd64", "symlink");
}
END_TEST

UNIT_TEST(lists_layers)
{
    static const struct {
        const char *type;
        enum image_compression want;
    } rows[] = {
        {OCI_LAYER, IMAGE_PLAIN},
        {OCI_LAYER "+gzip", IMAGE_GZIP},
        {OCI_LAYER "+zstd", IMAGE_ZSTD},
        {"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", IMAGE_GZIP},
        {"application/vnd.docker.image.rootfs.diff.tar.gzip", IMAGE_GZIP},
        {"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", IMAGE_GZIP},
        {"application/vnd.docker.image.rootfs.diff.tar.zstd", IMAGE_ZSTD},
        {"application/vnd.oci.image.layer.v1.tar.zstd", IMAGE_ZSTD},
    };
    struct error err = ERROR_INIT;
    const char *layers = "", *ids = "";
    const size_t n = sizeof(rows) / sizeof(rows[0]);

    layout_make("l");
    for (size_t i = 0; i < n; i++) {
        const char *text = layout_text("layer %zu", i);
        layers =
            layout_text("%s%s%s", layers, i ? "," : "", layout_put("l", rows[i].type, text, ""));
        ids = layout_text("%s%s\"sha256:%064zx\"", ids, i ? "," : "", i + 1);
    }
    char *config = layout_put("l", "application/vnd.docker.container.image.v1+json",
                              layout_text("{\"os\":\"linux\",\"architecture\":\"amd64\",\"rootfs\":"
                                          "{\"type\":\"layers\",\"diff_ids\":[%s]}}",
                                          ids),
                              "");
    layout_index("l", layout_put("l", "application/vnd.docker.distribution.manifest.v2+json",
                                 layout_text("{\"schemaVersion\":2,\"config\":%s,\"layers\":[%s]}",
                                             config, layers),
                                 ""));
    cleanup_image struct image *image = image_open("l", NULL, "amd64", &err);
    ck_assert_msg(image != NULL, "%s", err.text);
    ck_assert_uint_eq(image_layer_count(image), n);
    for (size_t i = 0; i < n; i++) {
        const struct image_layer *layer = image_layer(image, i);
        ck_assert_int_eq(layer->compression, rows[i].want);
        ck_assert_str_eq(layer->blob.media_type, rows[i].type);
        ck_assert_uint_eq(layer->blob.size, 7);
        ck_assert_uint_eq(layer->diff_id[SHA256_SIZE - 1], i + 1);
        cleanup_close int fd = -1;
        ck_assert_int_eq(image_open_blob(image, &layer->blob, &fd, &err), 0);
        char text[8] = "";
        ck_assert_int_eq(read(fd, text, sizeof(text)), 7);
        ck_assert_int_eq(text[6], '0' + (int)i);
    }
    struct image_descriptor wrong = image_layer(image, 0)->blob;
    wrong.size++;
    int fd = -1;
    ck_assert_int_eq(image_open_blob(image, &wrong, &fd, &err), -1);
    ck_assert_int_eq(fd, -1);
}
END_TEST
