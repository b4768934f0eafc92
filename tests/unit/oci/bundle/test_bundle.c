// SPDX-License-Identifier: Apache-2.0
/* test_bundle.c - image config to runtime config, and its edits */
#include "oci/bundle/bundle.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/io.h"
#include "runtime/base/json.h"
#include "tests/lib/layout.h"
#include "tests/lib/unit.h"

static struct json_object *convert(const char *image, struct error *err)
{
    cleanup_tree struct tree *tree = tree_new(err);
    cleanup_json struct json_object *doc = json_parse(image, strlen(image), "test", err);

    ck_assert_msg(tree && doc, "%s", err->text);
    return bundle_convert(doc, tree, err);
}

/* The member at a path of keys and indexes, "process.args.0", as compact JSON. */
static const char *member(struct json_object *doc, const char *path)
{
    char *copy = layout_text("%s", path), *save = NULL;

    for (char *key = strtok_r(copy, " ", &save); key && doc; key = strtok_r(NULL, " ", &save)) {
        struct json_object *v = NULL;
        if (json_object_is_type(doc, json_type_array))
            v = json_object_array_get_idx(doc, strtoul(key, NULL, 10));
        else
            (void)json_object_object_get_ex(doc, key, &v);
        doc = v;
    }
    return doc ? json_object_to_json_string_ext(doc, JSON_C_TO_STRING_PLAIN |
                                                         JSON_C_TO_STRING_NOSLASHESCAPE)
               : "absent";
}

#define PATH_ENV "\"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\""
#define A "annotations org.opencontainers.image."

UNIT_TEST(converts)
{
    static const struct {
        const char *config, *path, *want; /* config: behind "os":"linux" */
    } rows[] = {
        {"", "process args", "[\"sh\"]"},
        {"", "process env", "[" PATH_ENV ",\"TERM=xterm\"]"},
        {"", "process cwd", "\"/\""},
        {"", "process user", "{\"uid\":0,\"gid\":0}"},
        {"", A "created", "\"0001-01-01T00:00:00Z\""},
        {"", A "author", "\"\""},
        {"", A "variant", "absent"},
        {"", "root", "{\"path\":\"rootfs\"}"},
        {",\"config\":null", "process args", "[\"sh\"]"},
        {",\"config\":{\"Entrypoint\":null,\"Cmd\":[]}", "process args", "[\"sh\"]"},
        {",\"config\":{\"Entrypoint\":[\"a\",\"b\"],\"Cmd\":[\"c\",\"\"]}", "process args",
         "[\"a\",\"b\",\"c\",\"\"]"},
        {",\"config\":{\"Cmd\":[\"c\"]}", "process args", "[\"c\"]"},
        {",\"config\":{\"Env\":[\"B=2\",\"PATH=/x\",\"B=3\",\"C=\",\"D=a=b\"]}", "process env",
         "[\"PATH=/x\",\"TERM=xterm\",\"B=3\",\"C=\",\"D=a=b\"]"},
        {",\"config\":{\"WorkingDir\":\"/data\"}", "process cwd", "\"/data\""},
        {",\"config\":{\"WorkingDir\":\"\"}", "process cwd", "\"/\""},
        {",\"config\":{\"User\":\"12:34\"}", "process user", "{\"uid\":12,\"gid\":34}"},
        {",\"config\":{\"User\":\"3000000000\"}", "process user", "{\"uid\":3000000000,\"gid\":0}"},
        {",\"config\":{\"ExposedPorts\":{\"80/tcp\":{},\"443/tcp\":{}}}", A "exposedPorts",
         "\"443/tcp,80/tcp\""},
        {",\"config\":{\"StopSignal\":\"SIGINT\"}", A "stopSignal", "\"SIGINT\""},
        {",\"architecture\":\"arm\",\"variant\":\"v7\"", A "variant", "\"v7\""},
        {",\"created\":\"2020-01-02T03:04:05.120000000Z\"", A "created",
         "\"2020-01-02T03:04:05.12Z\""},
        {",\"created\":\"2020-01-02T03:04:05.000Z\"", A "created", "\"2020-01-02T03:04:05Z\""},
        {",\"created\":\"2020-01-02T03:04:05+00:00\"", A "created", "\"2020-01-02T03:04:05Z\""},
        {",\"created\":\"2020-01-02T03:04:50+02:00\"", A "created",
         "\"2020-01-02T03:04:50+02:00\""},
        /* A label wins over what is implied. */
        {",\"config\":{\"Labels\":{\"org.opencontainers.image.os\":\"x\",\"b\":\"2\",\"a\":\"1\"}}",
         "annotations",
         "{\"a\":\"1\",\"b\":\"2\",\"org.opencontainers.image.architecture\":\"\","
         "\"org.opencontainers.image.author\":\"\","
         "\"org.opencontainers.image.created\":\"0001-01-01T00:00:00Z\","
         "\"org.opencontainers.image.exposedPorts\":\"\",\"org.opencontainers.image.os\":\"x\","
         "\"org.opencontainers.image.stopSignal\":\"\"}"},
        {",\"config\":{\"Volumes\":{\"/b\":{},\"/a\":{}}}", "mounts 7",
         "{\"destination\":\"/a\",\"type\":\"tmpfs\",\"source\":\"none\","
         "\"options\":[\"rw\",\"nosuid\",\"nodev\",\"noexec\",\"relatime\"]}"},
        {",\"config\":{\"Volumes\":{\"/b\":{},\"/a\":{}}}", "mounts 8 destination", "\"/b\""},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct error err = ERROR_INIT;
        cleanup_json struct json_object *doc =
            convert(layout_text("{\"os\":\"linux\"%s}", rows[i].config), &err);
        ck_assert_msg(doc != NULL, "%s: %s", rows[i].config, err.text);
        ck_assert_str_eq(member(doc, rows[i].path), rows[i].want);
    }
}
END_TEST

UNIT_TEST(refuses)
{
    static const struct {
        const char *image, *part;
    } rows[] = {
        {"{}", "os is missing"},
        {"[]", "not a JSON object"},
        {"{\"os\":\"windows\"}", "only linux"},
        {"{\"os\":\"linux\",\"config\":[]}", "config"},
        {"{\"os\":\"linux\",\"config\":{\"User\":\"redis\"}}", "no user \"redis\""},
        {"{\"os\":\"linux\",\"config\":{\"User\":\"4294967296\"}}", "above"},
        {"{\"os\":\"linux\",\"config\":{\"User\":0}}", "string wanted"},
        {"{\"os\":\"linux\",\"config\":{\"Env\":[\"A\"]}}", "not NAME=VALUE"},
        {"{\"os\":\"linux\",\"config\":{\"Env\":[\"=x\"]}}", "not NAME=VALUE"},
        {"{\"os\":\"linux\",\"config\":{\"Env\":[1]}}", "Env[0]"},
        {"{\"os\":\"linux\",\"config\":{\"Env\":[\"A=\\u0000\"]}}", "Env[0]"},
        {"{\"os\":\"linux\",\"config\":{\"Cmd\":\"x\"}}", "array wanted"},
        {"{\"os\":\"linux\",\"config\":{\"Cmd\":[null]}}", "Cmd[0]"},
        {"{\"os\":\"linux\",\"config\":{\"WorkingDir\":\"x\"}}", "not absolute"},
        {"{\"os\":\"linux\",\"config\":{\"Labels\":{\"a\":1}}}", "Labels: a"},
        {"{\"os\":\"linux\",\"config\":{\"Volumes\":[]}}", "object wanted"},
        {"{\"os\":\"linux\",\"created\":5}", "created"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct error err = ERROR_INIT;
        struct json_object *doc = convert(rows[i].image, &err);
        ck_assert_ptr_null(doc);
        ck_assert_msg(strstr(err.text, rows[i].part) != NULL, "\"%s\" lacks \"%s\"", err.text,
                      rows[i].part);
    }
}
END_TEST

UNIT_TEST(edits_once)
{
    struct error err = ERROR_INIT;
    cleanup_json struct json_object *doc = convert("{\"os\":\"linux\"}", &err);

    ck_assert_ptr_nonnull(doc);
    ck_assert_int_eq(json_object_object_add(doc, "x-kept", json_object_new_double_s(0.1, "0.10")),
                     0);
    ck_assert_int_eq(bundle_edit(doc, "one", &err), 0);
    cleanup_free char *first = json_format(doc);
    ck_assert_int_eq(bundle_edit(doc, "one", &err), 0);
    cleanup_free char *second = json_format(doc);
    ck_assert_str_eq(first, second);
    ck_assert_str_eq(member(doc, "hostname"), "\"one\"");
    ck_assert_str_eq(member(doc, "process terminal"), "false");
    ck_assert_str_eq(member(doc, "x-kept"), "0.10");
    ck_assert_str_eq(member(doc, "mounts 9"),
                     "{\"destination\":\"/etc/hostname\",\"type\":\"bind\","
                     "\"source\":\"/etc/hostname\",\"options\":[\"bind\",\"rprivate\"]}");
    ck_assert_str_eq(member(doc, "mounts 10"), "absent");
    ck_assert_str_eq(member(doc, "process capabilities ambient"),
                     "[\"CAP_AUDIT_WRITE\",\"CAP_KILL\",\"CAP_NET_BIND_SERVICE\",\"CAP_CHOWN\","
                     "\"CAP_DAC_OVERRIDE\",\"CAP_FOWNER\",\"CAP_FSETID\",\"CAP_SETFCAP\","
                     "\"CAP_SETGID\",\"CAP_SETPCAP\",\"CAP_SETUID\",\"CAP_SYS_CHROOT\"]");
    ck_assert_str_eq(member(doc, "linux namespaces"),
                     "[{\"type\":\"pid\"},{\"type\":\"ipc\"},{\"type\":\"uts\"},"
                     "{\"type\":\"mount\"}]");
}
END_TEST

UNIT_TEST(edits_bundles_of_others)
{
    static const struct {
        const char *config, *path, *want; /* want: the member, or the error with path NULL */
    } rows[] = {
        {"{\"process\":{}}", "process capabilities permitted 8", "\"CAP_SYS_CHROOT\""},
        {"{\"process\":{}}", "mounts 0 source", "\"/etc/resolv.conf\""},
        {"{\"process\":{},\"mounts\":[{\"destination\":\"/etc/"
         "hosts\",\"options\":[\"ro\"],\"k\":1}]}",
         "mounts 0",
         "{\"destination\":\"/etc/hosts\",\"options\":[\"bind\",\"rprivate\"],\"k\":1,"
         "\"type\":\"bind\",\"source\":\"/etc/hosts\"}"},
        {"{\"process\":{},\"linux\":{\"namespaces\":[{\"type\":\"network\"},{\"type\":\"network\","
         "\"path\":\"/x\"},{\"type\":\"user\"}]}}",
         "linux namespaces", "[{\"type\":\"user\"}]"},
        {"{}", NULL, "process is missing"},
        {"{\"process\":[]}", NULL, "object wanted"},
        {"{\"process\":{},\"mounts\":{}}", NULL, "array wanted"},
        {"{\"process\":{},\"mounts\":[7]}", NULL, "not a JSON object"},
        {"{\"process\":{\"capabilities\":{\"ambient\":7}}}", NULL, "array wanted"},
        {"{\"process\":{},\"linux\":{\"namespaces\":[{\"type\":7}]}}", NULL, "string wanted"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct error err = ERROR_INIT;
        cleanup_json struct json_object *doc =
            json_parse(rows[i].config, strlen(rows[i].config), "test", &err);
        int rc = bundle_edit(doc, "h", &err);
        ck_assert_msg(rc == (rows[i].path ? 0 : -1), "%s: %s", rows[i].config, err.text);
        if (rows[i].path)
            ck_assert_str_eq(member(doc, rows[i].path), rows[i].want);
        else
            ck_assert_msg(strstr(err.text, rows[i].want) != NULL, "%s", err.text);
    }
}
END_TEST

UNIT_TEST(checks_hostnames)
{
    static const char *const bad[] = {
        "",   "a b",      "a/b",
        "\n", "\xc3\xa4", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    struct error err = ERROR_INIT;
    cleanup_json struct json_object *doc = json_parse("{\"process\":{}}", 14, "test", &err);

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_int_eq(bundle_edit(doc, bad[i], &err), -1);
}
END_TEST

UNIT_TEST(edits_files)
{
    struct error err = ERROR_INIT;
    struct stat first, second;

    (void)mkdir("b", 0755);
    layout_file("b", "config.json", "{\"process\":{}}");
    ck_assert_int_eq(chmod("b/config.json", 0640), 0);
    ck_assert_msg(bundle_edit_file("b", "h", &err) == 0, "%s", err.text);
    ck_assert_int_eq(stat("b/config.json", &first), 0);
    ck_assert_uint_eq(first.st_mode & 0777, 0640);
    ck_assert_int_eq(bundle_edit_file("b", "h", &err), 0);
    ck_assert_int_eq(stat("b/config.json", &second), 0);
    ck_assert_uint_eq(first.st_ino, second.st_ino); /* not touched */
    layout_file("b", "config.json", "{\"process\":7}");
    ck_assert_int_eq(bundle_edit_file("b", "h", &err), -1);
    ck_assert_msg(strstr(err.text, "bundle b: config.json: ") != NULL, "%s", err.text);
    cleanup_free char *text = io_read_file(-100, "b/config.json", 100, NULL, &err);
    ck_assert_str_eq(text, "{\"process\":7}");
    (void)unlink("b/config.json");
    layout_file("b", "target", "{\"process\":{}}");
    ck_assert_int_eq(symlink("target", "b/config.json"), 0);
    ck_assert_int_eq(bundle_edit_file("b", "h", &err), -1);
    ck_assert_int_eq(bundle_edit_file("absent", "h", &err), -1);
}
END_TEST
