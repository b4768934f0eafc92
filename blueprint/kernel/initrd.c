// SPDX-License-Identifier: Apache-2.0
/* initrd.c - modules in order, as a cpio archive */
#include "blueprint/kernel/initrd.h"

#include <fcntl.h>
#include <fts.h>
#include <lzma.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <zstd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/io.h"

#define BUILTIN_MAX (1u << 20) /* bytes of modules.builtin */

/* A module there is, by its normal name ('-' is '_'). */
struct found {
    char name[MODULE_NAME_MAX + 1];
    char *path;
};

struct picked {
    char name[MODULE_NAME_MAX + 1];
    uint8_t *ko;
    size_t len;
};

struct build {
    struct found *found; /* sorted by name */
    size_t n_found, room;
    char *builtin; /* modules.builtin, "" when absent */
    struct picked picked[INITRD_MODULES_MAX];
    size_t n_picked;
    unsigned inode; /* of the archive's next entry */
};

static void build_free(struct build *b)
{
    for (size_t i = 0; i < b->n_found; i++)
        free(b->found[i].path);
    for (size_t i = 0; i < b->n_picked; i++)
        free(b->picked[i].ko);
    free(b->found);
    free(b->builtin);
    free(b);
}
DEFINE_CLEANUP(cleanup_build_p, struct build *, build_free)

DEFINE_CLEANUP(cleanup_fts_p, FTS *, (void)fts_close)

/* Copies a name up to `end` in its normal form. Returns false when it is empty or too long. */
static bool normal_name(char out[MODULE_NAME_MAX + 1], const char *p, const char *end)
{
    if (p == end || end - p > MODULE_NAME_MAX)
        return false;
    size_t n = (size_t)(end - p);
    for (size_t i = 0; i < n; i++)
        out[i] = p[i];
    for (size_t i = 0; i < n; i++)
        if (out[i] == '-')
            out[i] = '_';
    out[n] = '\0';
    return true;
}

/* The ".ko" that ends a module's name, with or without a compression's suffix; NULL = no module. */
static const char *module_suffix(const char *name, size_t len)
{
    static const char *const suffixes[] = {".ko", ".ko.xz", ".ko.zst"};
    for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
        size_t n = strlen(suffixes[i]);
        if (len > n && !memcmp(name + len - n, suffixes[i], n))
            return name + len - n;
    }
    return NULL;
}

static int by_name(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    /* Two files of one name (updates/, extra/): the first path wins, on every machine. */
    return order ? order : strcmp(x->path, y->path);
}

static int find_modules(struct build *b, const char *dir, struct error *err)
{
    char *roots[] = {(char *)(uintptr_t)dir, NULL};
    FTS *fts CLEANUP(cleanup_fts_p) = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    if (!fts)
        return error_sys(err, "modules %s: open", dir);
    for (FTSENT *e; errno = 0, (e = fts_read(fts));) {
        if (e->fts_info == FTS_DNR || e->fts_info == FTS_ERR || e->fts_info == FTS_NS)
            return error_num(err, e->fts_errno, "modules %s: read %s", dir, e->fts_path);
        const char *ko = e->fts_info == FTS_F ? module_suffix(e->fts_name, e->fts_namelen) : NULL;
        struct found one = {.path = NULL};
        if (!ko || !normal_name(one.name, e->fts_name, ko))
            continue;
        if (b->n_found == b->room) {
            size_t room = b->room ? b->room * 2 : 256;
            struct found *grown = reallocarray(b->found, room, sizeof(*grown));
            if (!grown)
                return error_oom(err);
            b->found = grown;
            b->room = room;
        }
        if (!(one.path = strdup(e->fts_path)))
            return error_oom(err);
        b->found[b->n_found++] = one;
    }
    if (errno)
        return error_sys(err, "modules %s: read", dir);
    if (b->n_found)
        qsort(b->found, b->n_found, sizeof(*b->found), by_name);
    return 0;
}

static const char *find_module(const struct build *b, const char *name)
{
    for (size_t i = 0; i < b->n_found; i++)
        if (!strcmp(b->found[i].name, name))
            return b->found[i].path;
    return NULL;
}

/* Lines of modules.builtin: "kernel/fs/ext4/ext4.ko". */
static bool is_builtin(const struct build *b, const char *name)
{
    for (const char *line = b->builtin; *line;) {
        size_t len = strcspn(line, "\n");
        const char *base = memrchr(line, '/', len), *ko = module_suffix(line, len);
        char buf[MODULE_NAME_MAX + 1];
        base = base ? base + 1 : line;
        if (ko && ko > base && normal_name(buf, base, ko) && !strcmp(buf, name))
            return true;
        line += len + (line[len] == '\n');
    }
    return false;
}

/* Unpacks a module whose file is compressed, in place of *ko. */
static int unpack_module(uint8_t **ko, size_t *len, const char *path, struct error *err)
{
    bool xz = *len > 6 && !memcmp(*ko, "\xfd\x37zXZ", 6);
    bool zst = *len > 4 && !memcmp(*ko, "\x28\xb5\x2f\xfd", 4);
    if (!xz && !zst)
        return 0;
    size_t room = INITRD_MODULE_MAX, in = 0, n = 0;
    cleanup_free uint8_t *out = malloc(room);
    if (!out)
        return error_oom(err);
    if (xz) {
        uint64_t memory = INITRD_MODULE_MAX;
        lzma_ret got = lzma_stream_buffer_decode(&memory, 0, NULL, *ko, &in, *len, out, &n, room);
        if (got != LZMA_OK)
            return error_set(err, EBADMSG, "%s: does not unpack (liblzma status %d)", path,
                             (int)got);
    } else {
        n = ZSTD_decompress(out, room, *ko, *len);
        if (ZSTD_isError(n))
            return error_set(err, EBADMSG, "%s: does not unpack (zstd: %s)", path,
                             ZSTD_getErrorName(n));
    }
    uint8_t *fit = realloc(out, n ? n : 1);
    if (fit)
        out = fit;
    free(*ko);
    *ko = steal_ptr(&out);
    *len = n;
    return 0;
}

/* Appends module `name` and, before it, all it depends on. depth bounds a circle of dependencies.
 */
static int pick(struct build *b, const char *name, bool optional, unsigned depth, struct error *err)
{
    for (size_t i = 0; i < b->n_picked; i++)
        if (!strcmp(b->picked[i].name, name))
            return 0;
    const char *path = find_module(b, name);
    if (!path && (optional || is_builtin(b, name)))
        return 0;
    if (!path)
        return error_set(err, ENOENT, "module %s: the kernel has it neither built in nor beside it",
                         name);
    if (depth > 32)
        return error_set(err, ELOOP, "module %s: depends on itself", name);

    const char *depends;
    size_t len;
    cleanup_free uint8_t *ko =
        (uint8_t *)io_read_file(AT_FDCWD, path, INITRD_MODULE_MAX, &len, err);
    if (!ko || unpack_module(&ko, &len, path, err) < 0 ||
        module_depends(ko, len, path, &depends, err) < 0)
        return -1;
    while (*depends) {
        size_t n = strcspn(depends, ",");
        char other[MODULE_NAME_MAX + 1];
        if (!normal_name(other, depends, depends + n))
            return error_set(err, EBADMSG, "%s: depends on \"%.60s\", which is no name", path,
                             depends);
        if (pick(b, other, false, depth + 1, err) < 0)
            return error_wrap(err, "module %s", name);
        depends += n + (depends[n] == ',');
    }
    if (b->n_picked == INITRD_MODULES_MAX)
        return error_set(err, E2BIG, "more than %d modules", INITRD_MODULES_MAX);
    struct picked *p = &b->picked[b->n_picked++];
    (void)snprintf(p->name, sizeof(p->name), "%s", name);
    p->ko = steal_ptr(&ko);
    p->len = len;
    return 0;
}

static int put_padded(int fd, const void *data, size_t len, size_t before, struct error *err)
{
    static const char zeros[4];
    if (len && io_write(fd, data, len, "initrd", err) < 0)
        return -1;
    size_t pad = (4 - (before + len) % 4) % 4;
    return pad ? io_write(fd, zeros, pad, "initrd", err) : 0;
}

static int put_entry(struct build *b, int fd, const char *name, unsigned mode, dev_t rdev,
                     const void *data, size_t len, struct error *err)
{
    char head[111];
    size_t name_size = strlen(name) + 1;
    /* magic ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize
     * check, each eight hex digits */
    int n = snprintf(head, sizeof(head),
                     "070701%08X%08X%08X%08X%08X%08X%08zX%08X%08X%08X%08X%08zX%08X", b->inode++,
                     mode, 0u, 0u, 1u, 0u, len, 0u, 0u, major(rdev), minor(rdev), name_size, 0u);
    if (n != 110)
        return error_set(err, EOVERFLOW, "initrd: entry %s does not fit its header", name);
    if (io_write(fd, head, 110, "initrd", err) < 0 || put_padded(fd, name, name_size, 110, err) < 0)
        return -1;
    return put_padded(fd, data, len, 0, err);
}

static int write_archive(struct build *b, int fd, const char *init, size_t init_len,
                         struct error *err)
{
    static const char *const folders[] = {"dev", "modules", "proc", "root", "sys"};
    char name[MODULE_NAME_MAX + 32];
    cleanup_free char *order = calloc(b->n_picked + 1, sizeof(b->picked[0].name) + 4);
    if (!order)
        return error_oom(err);
    char *end = order;
    for (size_t i = 0; i < b->n_picked; i++)
        end += sprintf(end, "%s.ko\n", b->picked[i].name);

    for (size_t i = 0; i < ARRAY_SIZE(folders); i++)
        if (put_entry(b, fd, folders[i], S_IFDIR | 0755, 0, NULL, 0, err) < 0)
            return -1;
    if (put_entry(b, fd, "dev/console", S_IFCHR | 0600, makedev(5, 1), NULL, 0, err) < 0 ||
        put_entry(b, fd, "init", S_IFREG | 0755, 0, init, init_len, err) < 0 ||
        put_entry(b, fd, "modules/order", S_IFREG | 0644, 0, order, (size_t)(end - order), err) < 0)
        return -1;
    for (size_t i = 0; i < b->n_picked; i++) {
        (void)snprintf(name, sizeof(name), "modules/%s.ko", b->picked[i].name);
        if (put_entry(b, fd, name, S_IFREG | 0644, 0, b->picked[i].ko, b->picked[i].len, err) < 0)
            return -1;
    }
    return put_entry(b, fd, "TRAILER!!!", 0, 0, NULL, 0, err);
}

int initrd_build(const struct initrd_options *opt, int fd, size_t *ret_loaded, struct error *err)
{
    struct build *b CLEANUP(cleanup_build_p) = calloc(1, sizeof(*b));
    if (!b)
        return error_oom(err);
    b->inode = 1;

    cleanup_free char *path = NULL;
    if (asprintf(&path, "%s/modules.builtin", opt->modules_dir) < 0) {
        path = NULL;
        return error_oom(err);
    }
    struct error cause = ERROR_INIT;
    b->builtin = io_read_file(AT_FDCWD, path, BUILTIN_MAX, NULL, &cause);
    if (!b->builtin && cause.code != ENOENT)
        return error_set(err, cause.code, "%s", cause.text);
    if (!b->builtin && !(b->builtin = strdup("")))
        return error_oom(err);

    if (find_modules(b, opt->modules_dir, err) < 0)
        return -1;
    for (size_t i = 0; i < opt->n_modules; i++) {
        const char *word = opt->modules[i], *end = word + strlen(word);
        bool optional = end > word && end[-1] == '?';
        char name[MODULE_NAME_MAX + 1];
        if (!normal_name(name, word, end - optional))
            return error_set(err, EINVAL, "module \"%.80s\": is no name", word);
        if (pick(b, name, optional, 0, err) < 0)
            return error_wrap(err, "modules %s", opt->modules_dir);
    }
    if (b->n_picked) {
        size_t len;
        cleanup_free char *init = io_read_file(AT_FDCWD, opt->init, INITRD_INIT_MAX, &len, err);
        if (!init || write_archive(b, fd, init, len, err) < 0)
            return -1;
    }
    *ret_loaded = b->n_picked;
    return 0;
}
