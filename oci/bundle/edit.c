// SPDX-License-Identifier: Apache-2.0
/* edit.c - the changes a container alone in a virtual machine needs
 *
 * Theory of operation: the guest's init starts one container and the machine is the boundary. So
 * the container has no terminal to wait for, takes part in the guest's network and name service,
 * and gets the capabilities that container engines give by default and umoci's template lacks. Each
 * edit looks for what it would add, so that doing it twice changes nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "oci/bundle/bundle.h"
#include "runtime/base/io.h"
#include "runtime/base/json.h"
#include "runtime/base/output.h"

/* Files of the guest that the container sees in place of the image's. */
static const char *const guest_files[] = {"/etc/resolv.conf", "/etc/hosts", "/etc/hostname"};

/* With umoci's AUDIT_WRITE, KILL and NET_BIND_SERVICE this is what engines grant by default, less
 * MKNOD and NET_RAW (upstream Drafter's list). */
static const char *const capabilities[] = {
    "CAP_CHOWN",  "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID",     "CAP_SETFCAP",
    "CAP_SETGID", "CAP_SETPCAP",      "CAP_SETUID", "CAP_SYS_CHROOT",
};

static const char *const capability_sets[] = {"bounding", "effective", "inheritable", "permitted",
                                              "ambient"};

/* obj[key], an array that is made when absent. */
static int array_of(struct json_object *obj, const char *key, const char *what,
                    struct json_object **ret, struct error *err)
{
    int rc = json_get_array(obj, key, what, ret, err);
    if (rc != JSON_ABSENT)
        return rc;
    struct json_object *array = json_object_new_array();
    if (json_add(obj, key, array, err) < 0)
        return -1;
    *ret = array;
    return 0;
}

static bool has_string(struct json_object *array, const char *text)
{
    for (size_t i = 0; i < json_object_array_length(array); i++) {
        struct json_object *v = json_object_array_get_idx(array, i);
        if (json_object_is_type(v, json_type_string) &&
            strcmp(json_object_get_string(v), text) == 0)
            return true;
    }
    return false;
}

static int edit_capabilities(struct json_object *process, struct error *err)
{
    struct json_object *caps, *set;

    int rc = json_get_object(process, "capabilities", "process", &caps, err);
    if (rc == JSON_ABSENT) {
        caps = json_object_new_object();
        rc = json_add(process, "capabilities", caps, err);
    }
    for (size_t s = 0; rc == 0 && s < ARRAY_SIZE(capability_sets); s++) {
        rc = array_of(caps, capability_sets[s], "process: capabilities", &set, err);
        for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(capabilities); i++)
            if (!has_string(set, capabilities[i]))
                rc = json_append(set, json_object_new_string(capabilities[i]), err);
    }
    return rc;
}

/* Sets mount's fields to a bind of the guest's file; another mount there gives way. */
static int set_bind(struct json_object *mount, const char *path, struct error *err)
{
    struct json_object *options = json_object_new_array();

    if (json_add(mount, "destination", json_object_new_string(path), err) < 0 ||
        json_add(mount, "type", json_object_new_string("bind"), err) < 0 ||
        json_add(mount, "source", json_object_new_string(path), err) < 0) {
        (void)json_object_put(options);
        return -1;
    }
    return json_add(mount, "options", options, err) < 0 ||
                   json_append(options, json_object_new_string("bind"), err) < 0 ||
                   json_append(options, json_object_new_string("rprivate"), err) < 0
               ? -1
               : 0;
}

static int edit_mount(struct json_object *mounts, const char *path, struct error *err)
{
    struct json_object *mount = NULL;

    for (size_t i = 0; i < json_object_array_length(mounts) && !mount; i++) {
        struct json_object *m = json_object_array_get_idx(mounts, i);
        const char *destination = "";
        if (json_get_string(m, "destination", "mounts", &destination, err) < 0)
            return -1;
        if (strcmp(destination, path) == 0)
            mount = m;
    }
    if (!mount) {
        mount = json_object_new_object();
        if (json_append(mounts, mount, err) < 0)
            return -1;
    }
    return set_bind(mount, path, err);
}

static int edit_namespaces(struct json_object *config, struct error *err)
{
    struct json_object *linux_part, *namespaces;

    int rc = json_get_object(config, "linux", "config", &linux_part, err);
    if (rc == JSON_OK)
        rc = json_get_array(linux_part, "namespaces", "linux", &namespaces, err);
    if (rc != JSON_OK)
        return rc == JSON_ABSENT ? 0 : -1;
    for (size_t i = json_object_array_length(namespaces); i-- > 0;) {
        const char *type = "";
        if (json_get_string(json_object_array_get_idx(namespaces, i), "type", "linux: namespaces",
                            &type, err) < 0)
            return -1;
        if (strcmp(type, "network") == 0 && json_object_array_del_idx(namespaces, i, 1) < 0)
            return error_oom(err);
    }
    return 0;
}

static int check_hostname(const char *name, struct error *err)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.";
    size_t len = strlen(name);

    if (len == 0 || len > BUNDLE_HOSTNAME_MAX || strspn(name, allowed) != len)
        return error_set(err, EINVAL,
                         "hostname \"%.80s\": 1 to %d letters, digits, '-' and '.' are wanted",
                         name, BUNDLE_HOSTNAME_MAX);
    return 0;
}

int bundle_edit(struct json_object *config, const char *hostname, struct error *err)
{
    struct json_object *process, *mounts;

    if (check_hostname(hostname, err) < 0 ||
        json_required(json_get_object(config, "process", "config", &process, err), "process",
                      "config", err) < 0 ||
        json_add(process, "terminal", json_object_new_boolean(0), err) < 0 ||
        json_add(config, "hostname", json_object_new_string(hostname), err) < 0 ||
        array_of(config, "mounts", "config", &mounts, err) < 0)
        return -1;
    for (size_t i = 0; i < ARRAY_SIZE(guest_files); i++)
        if (edit_mount(mounts, guest_files[i], err) < 0)
            return -1;
    if (edit_capabilities(process, err) < 0)
        return -1;
    return edit_namespaces(config, err);
}

/* Reads DIR/config.json, which must not be a symlink. */
static char *read_config(const char *dir, struct stat *ret_st, size_t *ret_len, struct error *err)
{
    cleanup_close int dirfd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0) {
        error_sys(err, "open the bundle folder");
        return NULL;
    }
    cleanup_close int fd = openat(dirfd, BUNDLE_CONFIG_NAME,
                                  O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, ret_st) < 0) {
        error_sys(err, "%s: open", BUNDLE_CONFIG_NAME);
        return NULL;
    }
    return io_read_fd(fd, BUNDLE_CONFIG_MAX, BUNDLE_CONFIG_NAME, ret_len, err);
}

static int write_config(const char *dir, const char *text, const struct stat *old,
                        struct error *err)
{
    cleanup_free char *path = NULL;
    if (asprintf(&path, "%s/%s", dir, BUNDLE_CONFIG_NAME) < 0) {
        path = NULL;
        return error_oom(err);
    }
    cleanup_output struct output *out = output_begin(path, OUTPUT_FILE, old->st_mode & 0777, err);
    if (!out || io_write(output_fd(out), text, strlen(text), BUNDLE_CONFIG_NAME, err) < 0)
        return -1;
    /* Owner first: a change of owner may clear mode bits. Only root can give a file away. */
    struct stat st;
    if (fstat(output_fd(out), &st) < 0 ||
        ((st.st_uid != old->st_uid || st.st_gid != old->st_gid) &&
         fchown(output_fd(out), old->st_uid, old->st_gid) < 0 && errno != EPERM) ||
        fchmod(output_fd(out), old->st_mode & 0777) < 0)
        return error_sys(err, "%s: set owner and permissions", BUNDLE_CONFIG_NAME);
    return output_commit(&out, true, err);
}

static int edit_file(const char *dir, const char *hostname, struct error *err)
{
    struct stat st;
    size_t len;

    cleanup_free char *text = read_config(dir, &st, &len, err);
    cleanup_json struct json_object *doc =
        text ? json_parse(text, len, BUNDLE_CONFIG_NAME, err) : NULL;
    if (!doc)
        return -1;
    cleanup_free char *before = json_format(doc);
    if (!before)
        return error_oom(err);
    if (bundle_edit(doc, hostname, err) < 0)
        return error_wrap(err, "%s", BUNDLE_CONFIG_NAME);
    cleanup_free char *after = json_format(doc);
    if (!after)
        return error_oom(err);
    return strcmp(before, after) == 0 ? 0 : write_config(dir, after, &st, err);
}

int bundle_edit_file(const char *dir, const char *hostname, struct error *err)
{
    return edit_file(dir, hostname, err) < 0 ? error_wrap(err, "bundle %s", dir) : 0;
}
