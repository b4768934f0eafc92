// SPDX-License-Identifier: Apache-2.0
/* convert.c - image config to runtime config
 *
 * Theory of operation: image-spec's conversion.md says which fields go where; everything it leaves
 * open (capabilities, namespaces, mounts, ...) is the template below, with the values of umoci 0.4,
 * so that a bundle is the same whichever tool unpacked it. Where umoci 0.4 departs from the
 * specification the specification wins: labels over implicit annotations, a HOME set in the image
 * over the one in passwd, no supplementary groups for a numeric user. Keys are written in a fixed
 * order, those of maps sorted, so that the same image gives the same bytes.
 */
#include <errno.h>
#include <json-c/json_object_iterator.h>
#include <string.h>

#include "oci/bundle/accounts.h"
#include "oci/bundle/bundle.h"
#include "runtime/base/json.h"

static const char template[] =
    "{\"ociVersion\":\"1.0.0\",\"process\":{\"terminal\":true,\"user\":{\"uid\":0,\"gid\":0},"
    "\"args\":[\"sh\"],\"env\":[],\"cwd\":\"/\",\"capabilities\":{"
#define CAPS "[\"CAP_AUDIT_WRITE\",\"CAP_KILL\",\"CAP_NET_BIND_SERVICE\"]"
    "\"bounding\":" CAPS ",\"effective\":" CAPS ",\"inheritable\":" CAPS ",\"permitted\":" CAPS
    ",\"ambient\":" CAPS "},"
#undef CAPS
    "\"rlimits\":[{\"type\":\"RLIMIT_NOFILE\",\"hard\":1024,\"soft\":1024}],"
    "\"noNewPrivileges\":true},\"root\":{\"path\":\"" BUNDLE_ROOTFS_NAME "\"},"
    "\"hostname\":\"umoci-default\",\"mounts\":["
    "{\"destination\":\"/proc\",\"type\":\"proc\",\"source\":\"proc\"},"
    "{\"destination\":\"/dev\",\"type\":\"tmpfs\",\"source\":\"tmpfs\","
    "\"options\":[\"nosuid\",\"strictatime\",\"mode=755\",\"size=65536k\"]},"
    "{\"destination\":\"/dev/pts\",\"type\":\"devpts\",\"source\":\"devpts\","
    "\"options\":[\"nosuid\",\"noexec\",\"newinstance\",\"ptmxmode=0666\",\"mode=0620\",\"gid=5\"]}"
    ","
    "{\"destination\":\"/dev/shm\",\"type\":\"tmpfs\",\"source\":\"shm\","
    "\"options\":[\"nosuid\",\"noexec\",\"nodev\",\"mode=1777\",\"size=65536k\"]},"
    "{\"destination\":\"/dev/mqueue\",\"type\":\"mqueue\",\"source\":\"mqueue\","
    "\"options\":[\"nosuid\",\"noexec\",\"nodev\"]},"
    "{\"destination\":\"/sys\",\"type\":\"sysfs\",\"source\":\"sysfs\","
    "\"options\":[\"nosuid\",\"noexec\",\"nodev\",\"ro\"]},"
    "{\"destination\":\"/sys/fs/cgroup\",\"type\":\"cgroup\",\"source\":\"cgroup\","
    "\"options\":[\"nosuid\",\"noexec\",\"nodev\",\"relatime\",\"ro\"]}],"
    "\"annotations\":{},"
    "\"linux\":{\"resources\":{\"devices\":[{\"allow\":false,\"access\":\"rwm\"}]},"
    "\"namespaces\":[{\"type\":\"pid\"},{\"type\":\"network\"},{\"type\":\"ipc\"},"
    "{\"type\":\"uts\"},{\"type\":\"mount\"}],"
    "\"maskedPaths\":[\"/proc/kcore\",\"/proc/latency_stats\",\"/proc/timer_list\","
    "\"/proc/timer_stats\",\"/proc/sched_debug\",\"/sys/firmware\",\"/proc/scsi\"],"
    "\"readonlyPaths\":[\"/proc/asound\",\"/proc/bus\",\"/proc/fs\",\"/proc/irq\",\"/proc/sys\","
    "\"/proc/sysrq-trigger\"]}}";

/* The document is being made of these; parts belong to doc. */
struct conversion {
    struct json_object *image;  /* the image config document */
    struct json_object *config; /* its "config" member; NULL when absent */
    struct json_object *doc, *process, *mounts, *annotations;
    struct account account;
};

/* A string member of "config"; "" when absent. */
static int config_string(const struct conversion *c, const char *key, const char **ret,
                         struct error *err)
{
    *ret = "";
    if (!c->config)
        return 0;
    return json_get_string(c->config, key, "image config", ret, err) < 0 ? -1 : 0;
}

/* An array of strings in "config", checked to be one; NULL when absent. */
static int config_strings(const struct conversion *c, const char *key, struct json_object **ret,
                          struct error *err)
{
    struct json_object *array = NULL;

    *ret = NULL;
    if (!c->config)
        return 0;
    int rc = json_get_array(c->config, key, "image config", &array, err);
    if (rc != JSON_OK)
        return rc == JSON_ABSENT ? 0 : -1;
    for (size_t i = 0; i < json_object_array_length(array); i++) {
        struct json_object *v = json_object_array_get_idx(array, i);
        if (!json_object_is_type(v, json_type_string) ||
            strlen(json_object_get_string(v)) != (size_t)json_object_get_string_len(v))
            return error_set(err, EBADMSG, "image config: %s[%zu]: not a string without NUL bytes",
                             key, i);
    }
    *ret = array;
    return 0;
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The keys of a map in "config", sorted. *ret_keys is the caller's to free, what it points to is
 * not. An absent map has no keys. */
static int config_keys(const struct conversion *c, const char *key, const char ***ret_keys,
                       size_t *ret_n, struct error *err)
{
    struct json_object *map = NULL;

    if (c->config && json_get_object(c->config, key, "image config", &map, err) < 0)
        return -1;
    size_t n = 0, max = map ? (size_t)json_object_object_length(map) : 0;
    const char **keys = calloc(max + 1, sizeof(*keys));
    if (!keys)
        return error_oom(err);
    if (map) {
        struct json_object_iterator end = json_object_iter_end(map);
        for (struct json_object_iterator it = json_object_iter_begin(map);
             n < max && !json_object_iter_equal(&it, &end); json_object_iter_next(&it))
            keys[n++] = json_object_iter_peek_name(&it);
    }
    qsort(keys, n, sizeof(*keys), compare_texts);
    *ret_keys = keys;
    *ret_n = n;
    return 0;
}

/* Sets variable `entry` ("NAME=value"), in the place of one of that name. */
static int set_env(struct json_object *env, const char *entry, bool replace, struct error *err)
{
    size_t name = (size_t)(strchr(entry, '=') - entry) + 1;

    for (size_t i = 0; i < json_object_array_length(env); i++) {
        const char *old = json_object_get_string(json_object_array_get_idx(env, i));
        if (strncmp(old, entry, name) != 0)
            continue;
        if (!replace)
            return 0;
        struct json_object *value = json_object_new_string(entry);
        if (!value || json_object_array_put_idx(env, i, value) < 0) {
            (void)json_object_put(value);
            return error_oom(err);
        }
        return 0;
    }
    return json_append(env, json_object_new_string(entry), err);
}

static int convert_env(struct conversion *c, struct error *err)
{
    struct json_object *env, *image_env;

    if (json_get_array(c->process, "env", "process", &env, err) != JSON_OK ||
        config_strings(c, "Env", &image_env, err) < 0 ||
        json_append(env,
                    json_object_new_string(
                        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
                    err) < 0 ||
        json_append(env, json_object_new_string("TERM=xterm"), err) < 0)
        return -1;
    for (size_t i = 0; image_env && i < json_object_array_length(image_env); i++) {
        const char *entry = json_object_get_string(json_object_array_get_idx(image_env, i));
        if (!strchr(entry, '=') || entry[0] == '=')
            return error_set(err, EBADMSG, "image config: Env[%zu]: \"%.100s\" is not NAME=VALUE",
                             i, entry);
        if (set_env(env, entry, true, err) < 0)
            return -1;
    }
    if (!c->account.home || !*c->account.home)
        return 0;
    cleanup_free char *home = NULL;
    if (asprintf(&home, "HOME=%s", c->account.home) < 0) {
        home = NULL;
        return error_oom(err);
    }
    return set_env(env, home, false, err);
}

static int convert_args(struct conversion *c, struct error *err)
{
    static const char *const keys[] = {"Entrypoint", "Cmd"};
    cleanup_json struct json_object *args = json_object_new_array();

    if (!args)
        return error_oom(err);
    for (size_t k = 0; k < ARRAY_SIZE(keys); k++) {
        struct json_object *part;
        if (config_strings(c, keys[k], &part, err) < 0)
            return -1;
        for (size_t i = 0; part && i < json_object_array_length(part); i++)
            if (json_append(args, json_object_get(json_object_array_get_idx(part, i)), err) < 0)
                return -1;
    }
    if (json_object_array_length(args) == 0)
        return 0; /* the template's shell */
    return json_add(c->process, "args", steal_ptr(&args), err);
}

static int convert_user(struct conversion *c, struct error *err)
{
    struct json_object *user = json_object_new_object();
    const struct account *a = &c->account;

    if (json_add(c->process, "user", user, err) < 0 ||
        json_add(user, "uid", json_object_new_int64(a->uid), err) < 0 ||
        json_add(user, "gid", json_object_new_int64(a->gid), err) < 0)
        return -1;
    if (a->n_gids == 0)
        return 0;
    struct json_object *gids = json_object_new_array();
    if (json_add(user, "additionalGids", gids, err) < 0)
        return -1;
    for (size_t i = 0; i < a->n_gids; i++)
        if (json_append(gids, json_object_new_int64(a->gids[i]), err) < 0)
            return -1;
    return 0;
}

static int convert_cwd(struct conversion *c, struct error *err)
{
    const char *cwd;

    if (config_string(c, "WorkingDir", &cwd, err) < 0)
        return -1;
    if (!*cwd)
        return 0;
    if (cwd[0] != '/')
        return error_set(err, EBADMSG, "image config: WorkingDir: \"%.200s\" is not absolute", cwd);
    return json_add(c->process, "cwd", json_object_new_string(cwd), err);
}

static int convert_volumes(struct conversion *c, struct error *err)
{
    static const char *const options[] = {"rw", "nosuid", "nodev", "noexec", "relatime"};
    cleanup_free const char **keys = NULL;
    size_t n;

    if (config_keys(c, "Volumes", &keys, &n, err) < 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        struct json_object *mount = json_object_new_object(), *list = json_object_new_array();
        if (!list || json_append(c->mounts, mount, err) < 0) {
            (void)json_object_put(list);
            return error_oom(err);
        }
        if (json_add(mount, "destination", json_object_new_string(keys[i]), err) < 0 ||
            json_add(mount, "type", json_object_new_string("tmpfs"), err) < 0 ||
            json_add(mount, "source", json_object_new_string("none"), err) < 0) {
            (void)json_object_put(list);
            return -1;
        }
        if (json_add(mount, "options", list, err) < 0)
            return -1;
        for (size_t k = 0; k < ARRAY_SIZE(options); k++)
            if (json_append(list, json_object_new_string(options[k]), err) < 0)
                return -1;
    }
    return 0;
}

/* image-spec wants RFC 3339 and Go's tools print it in its shortest form: no zeros at the end of
 * the fraction, "Z" for an offset of zero. Text that is longer than any such time stays as it is.
 */
static void shorten_time(const char *text, char *ret, size_t size)
{
    (void)snprintf(ret, size, "%s", text);
    char *dot = strchr(ret, '.');
    size_t digits = dot ? strspn(dot + 1, "0123456789") : 0;
    if (digits > 0) {
        size_t keep = digits;
        while (keep > 0 && dot[keep] == '0')
            keep--;
        char *from = dot + 1 + digits, *to = keep ? dot + 1 + keep : dot;
        memmove(to, from, strlen(from) + 1);
    }
    size_t len = strlen(ret);
    if (len > 6 && strcmp(ret + len - 6, "+00:00") == 0)
        memcpy(ret + len - 6, "Z", 2);
}

/* Joins keys with commas. The caller frees the result. */
static char *join(const char *const *keys, size_t n)
{
    size_t len = 1;

    for (size_t i = 0; i < n; i++)
        len += strlen(keys[i]) + 1;
    char *text = malloc(len), *p = text;
    for (size_t i = 0; text && i < n; i++) {
        if (i)
            *p++ = ',';
        p = stpcpy(p, keys[i]);
    }
    if (text)
        *p = '\0';
    return text;
}

struct annotation {
    const char *key, *value;
};

static int compare_annotations(const void *a, const void *b)
{
    return strcmp(((const struct annotation *)a)->key, ((const struct annotation *)b)->key);
}

#define IMPLICIT_MAX 8

static int implicit_annotations(struct conversion *c, const char *created, const char *ports,
                                struct annotation *ret, size_t *ret_n, struct error *err)
{
    static const char prefix[] = "image config";
    const char *os = "", *arch = "", *author = "", *stop = "", *variant = "";
    size_t n = 0;

    if (json_get_string(c->image, "os", prefix, &os, err) < 0 ||
        json_get_string(c->image, "architecture", prefix, &arch, err) < 0 ||
        json_get_string(c->image, "author", prefix, &author, err) < 0 ||
        json_get_string(c->image, "variant", prefix, &variant, err) < 0 ||
        config_string(c, "StopSignal", &stop, err) < 0)
        return -1;
#define IMAGE "org.opencontainers.image."
    ret[n++] = (struct annotation){IMAGE "architecture", arch};
    ret[n++] = (struct annotation){IMAGE "author", author};
    ret[n++] = (struct annotation){IMAGE "created", created};
    ret[n++] = (struct annotation){IMAGE "exposedPorts", ports};
    ret[n++] = (struct annotation){IMAGE "os", os};
    ret[n++] = (struct annotation){IMAGE "stopSignal", stop};
    if (*variant)
        ret[n++] = (struct annotation){IMAGE "variant", variant};
#undef IMAGE
    *ret_n = n;
    return 0;
}

static int convert_annotations(struct conversion *c, struct error *err)
{
    cleanup_free const char **ports = NULL;
    cleanup_free const char **labels = NULL;
    const char *created = "0001-01-01T00:00:00Z"; /* Go's zero time, as umoci writes it */
    struct annotation implicit[IMPLICIT_MAX];
    struct json_object *map = NULL;
    size_t n_ports, n_labels, n_implicit;
    char time[64];

    if (config_keys(c, "ExposedPorts", &ports, &n_ports, err) < 0 ||
        config_keys(c, "Labels", &labels, &n_labels, err) < 0 ||
        json_get_string(c->image, "created", "image config", &created, err) < 0 ||
        (c->config && json_get_object(c->config, "Labels", "image config", &map, err) < 0))
        return -1;
    cleanup_free char *port_list = join(ports, n_ports);
    cleanup_free struct annotation *all = calloc(n_labels + IMPLICIT_MAX, sizeof(*all));
    if (!port_list || !all)
        return error_oom(err);
    shorten_time(created, time, sizeof(time));
    if (implicit_annotations(c, strlen(created) < sizeof(time) ? time : created, port_list,
                             implicit, &n_implicit, err) < 0)
        return -1;
    size_t n = 0;
    for (size_t i = 0; i < n_labels; i++) {
        all[n].key = labels[i];
        all[n].value = "";
        if (json_get_string(map, labels[i], "image config: Labels", &all[n].value, err) < 0)
            return -1;
        n++;
    }
    for (size_t i = 0; i < n_implicit; i++)
        if (!map || !json_object_object_get_ex(map, implicit[i].key, NULL))
            all[n++] = implicit[i];
    qsort(all, n, sizeof(*all), compare_annotations);
    for (size_t i = 0; i < n; i++)
        if (json_add(c->annotations, all[i].key, json_object_new_string(all[i].value), err) < 0)
            return -1;
    return 0;
}

static int begin(struct conversion *c, struct json_object *image_config, struct error *err)
{
    const char *os = NULL;

    c->image = image_config;
    if (json_required(json_get_string(image_config, "os", "image config", &os, err), "os",
                      "image config", err) < 0)
        return -1;
    if (strcmp(os, "linux") != 0)
        return error_set(err, ENOTSUP, "image config: os is \"%.64s\", only linux can be run", os);
    if (json_get_object(image_config, "config", "image config", &c->config, err) < 0)
        return -1;
    c->doc = json_parse(template, strlen(template), "template", err);
    if (!c->doc || json_get_object(c->doc, "process", "template", &c->process, err) != JSON_OK ||
        json_get_array(c->doc, "mounts", "template", &c->mounts, err) != JSON_OK ||
        json_get_object(c->doc, "annotations", "template", &c->annotations, err) != JSON_OK)
        return -1;
    return 0;
}

struct json_object *bundle_convert(struct json_object *image_config, const struct tree *tree,
                                   struct error *err)
{
    struct conversion c = {0};
    const char *user;

    int rc = begin(&c, image_config, err);
    if (rc == 0)
        rc = config_string(&c, "User", &user, err);
    if (rc == 0)
        rc = account_resolve(tree, user, &c.account, err);
    if (rc == 0 && (convert_user(&c, err) < 0 || convert_args(&c, err) < 0 ||
                    convert_env(&c, err) < 0 || convert_cwd(&c, err) < 0 ||
                    convert_volumes(&c, err) < 0 || convert_annotations(&c, err) < 0))
        rc = -1;
    account_destroy(&c.account);
    if (rc < 0)
        cleanup_json_p(&c.doc);
    return c.doc;
}

char *bundle_config(const struct image *image, const struct tree *tree, const char *hostname,
                    struct error *err)
{
    cleanup_json struct json_object *doc = bundle_convert(image_config(image), tree, err);

    if (!doc || bundle_edit(doc, hostname, err) < 0)
        return NULL;
    char *text = json_format(doc);
    if (!text)
        error_oom(err);
    return text;
}
