// SPDX-License-Identifier: Apache-2.0
/* cgroup.c - a control group per machine */
#include "runtime/vmm/cgroup.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/io.h"

#define MOUNTINFO_MAX (4u << 20)
#define FIELDS_MAX 16

static bool has_option(const char *options, const char *want)
{
    size_t n = strlen(want);

    for (const char *p = options; *p;) {
        size_t len = strcspn(p, ",");
        if (len == n && strncmp(p, want, n) == 0)
            return true;
        p += len;
        p += *p == ',';
    }
    return false;
}

/* mountinfo writes blanks and backslashes of paths as \ooo. In place. */
static void unescape(char *s)
{
    char *out = s;

    for (; *s; s++) {
        if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && isdigit((unsigned char)s[2]) &&
            isdigit((unsigned char)s[3])) {
            *out++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
            s += 3;
        } else {
            *out++ = *s;
        }
    }
    *out = '\0';
}

/* One line: "36 35 98:0 / /mnt rw,noatime shared:1 - type source options". */
static char *match_line(char *line, int version)
{
    char *fields[FIELDS_MAX] = {0}, *save = NULL;
    size_t n = 0, dash = 0;

    for (char *f = strtok_r(line, " ", &save); f && n < FIELDS_MAX;
         f = strtok_r(NULL, " ", &save)) {
        if (!dash && n >= 6 && strcmp(f, "-") == 0)
            dash = n;
        fields[n++] = f;
    }
    if (!dash || dash + 3 >= n)
        return NULL;
    bool match = version == 2 ? strcmp(fields[dash + 1], "cgroup2") == 0
                              : strcmp(fields[dash + 1], "cgroup") == 0 &&
                                    has_option(fields[dash + 3], "cpuset");
    if (!match)
        return NULL;
    unescape(fields[4]);
    return strdup(fields[4]);
}

char *cgroup_mount(const char *mountinfo, int version)
{
    cleanup_free char *copy = strdup(mountinfo);
    char *save = NULL;

    for (char *line = copy ? strtok_r(copy, "\n", &save) : NULL; line;
         line = strtok_r(NULL, "\n", &save)) {
        char *found = match_line(line, version);
        if (found)
            return found;
    }
    return NULL;
}

int cgroup_find(int version, const char *parent, const char *id, struct cgroup *ret,
                struct error *err)
{
    struct cgroup cg = CGROUP_INIT;

    if (version != 1 && version != 2)
        return error_set(err, EINVAL, "cgroup version %d: 1 or 2 is allowed", version);
    if (!parent[0] || parent[0] == '/' || strstr(parent, ".."))
        return error_set(err, EINVAL,
                         "cgroup parent \"%s\": a relative path without \"..\" is "
                         "needed",
                         parent);
    cleanup_close int fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_sys(err, "/proc/self/mountinfo");
    cleanup_free char *text = calloc(1, MOUNTINFO_MAX + 1);
    if (!text)
        return error_oom(err);
    if (io_read(fd, text, MOUNTINFO_MAX, "/proc/self/mountinfo", err) < 0)
        return -1;
    cleanup_free char *mount = cgroup_mount(text, version);
    if (!mount)
        return error_set(err, ENOENT, "cgroup version %d: no such hierarchy is mounted here%s",
                         version,
                         version == 1 ? " (with the cpuset controller)" : "; try version 1");
    if (asprintf(&cg.parent, "%s/%s", mount, parent) < 0)
        return error_oom(err);
    if (asprintf(&cg.dir, "%s/%s", cg.parent, id) < 0) {
        free(cg.parent);
        return error_oom(err);
    }
    *ret = cg;
    return 0;
}

static int write_text(const char *dir, const char *file, const char *text, struct error *err)
{
    cleanup_free char *path = NULL;

    if (asprintf(&path, "%s/%s", dir, file) < 0) {
        path = NULL;
        return error_oom(err);
    }
    cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return error_sys(err, "%s", path);
    return io_write(fd, text, strlen(text), path, err);
}

/* A new cpuset of version 1 is empty and takes no process until it has CPUs and memory. */
static int inherit_cpuset(const char *dir, const char *from, struct error *err)
{
    static const char *const files[] = {"cpuset.cpus", "cpuset.mems"};
    char text[1024];

    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        cleanup_free char *path = NULL;
        if (asprintf(&path, "%s/%s", from, files[i]) < 0) {
            path = NULL;
            return error_oom(err);
        }
        cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return error_sys(err, "%s", path);
        ssize_t n = io_read(fd, text, sizeof(text) - 1, path, err);
        if (n < 0)
            return -1;
        text[n] = '\0';
        if (n > 1 && write_text(dir, files[i], text, err) < 0)
            return -1;
    }
    return 0;
}

static int bind_node(const char *dir, const struct numa_node *node, struct error *err)
{
    char mems[16];

    for (int i = 0; i < NUMA_NODES_MAX; i++)
        if (node->mask[(size_t)i / (8 * sizeof(long))] >> ((size_t)i % (8 * sizeof(long))) & 1) {
            (void)snprintf(mems, sizeof(mems), "%d", i);
            if (write_text(dir, "cpuset.mems", mems, err) < 0)
                return -1;
        }
    return write_text(dir, "cpuset.cpus", node->cpulist, err);
}

int cgroup_make(struct cgroup *cg, int version, const struct numa_node *node, struct error *err)
{
    cleanup_free char *above = strdup(cg->parent);
    cleanup_free char *procs = NULL;

    if (!above)
        return error_oom(err);
    *strrchr(above, '/') = '\0';
    if (mkdir(cg->parent, 0755) < 0 && errno != EEXIST)
        return error_sys(err, "cgroup %s", cg->parent);
    if (mkdir(cg->dir, 0755) < 0) {
        error_sys(err, "cgroup %s", cg->dir);
        (void)rmdir(cg->parent);
        return -1;
    }
    if (version == 1) {
        if (inherit_cpuset(cg->parent, above, err) < 0 ||
            inherit_cpuset(cg->dir, cg->parent, err) < 0 ||
            (node && bind_node(cg->dir, node, err) < 0))
            goto fail;
    } else if (node) {
        /* Version 2 has cpuset in a child only where all parents pass it on; the child process is
         * bound to the node by sched_setaffinity(2) and set_mempolicy(2) in any case. */
        (void)write_text(above, "cgroup.subtree_control", "+cpuset", NULL);
        (void)write_text(cg->parent, "cgroup.subtree_control", "+cpuset", NULL);
        (void)bind_node(cg->dir, node, NULL);
    }
    if (asprintf(&procs, "%s/cgroup.procs", cg->dir) < 0) {
        procs = NULL;
        error_oom(err);
        goto fail;
    }
    cg->procs_fd = open(procs, O_WRONLY | O_CLOEXEC);
    if (cg->procs_fd < 0) {
        error_sys(err, "%s", procs);
        goto fail;
    }
    return 0;
fail:
    (void)rmdir(cg->dir);
    (void)rmdir(cg->parent);
    return error_wrap(err, "cgroup %s", cg->dir);
}

void cgroup_clear(struct cgroup *cg)
{
    cleanup_close_p(&cg->procs_fd);
    if (cg->dir)
        (void)rmdir(cg->dir);
    if (cg->parent)
        (void)rmdir(cg->parent);
    free(cg->dir);
    free(cg->parent);
    cg->dir = cg->parent = NULL;
}
