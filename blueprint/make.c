// SPDX-License-Identifier: Apache-2.0
/* make.c - a folder becomes a blueprint
 *
 * The manifest is the mark of completeness: it is taken away before the first file changes and
 * written after the last. Device files are replaced one by one, each whole.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "blueprint/blueprint.h"
#include "blueprint/kernel/kernel.h"
#include "runtime/base/io.h"
#include "runtime/base/output.h"

struct mapping {
    void *p;
    size_t len;
};

static void unmap_p(struct mapping *m)
{
    if (m->len)
        (void)munmap(m->p, m->len);
}

static int check_kernel(int fd, uint64_t size, const char *what, const char *architecture,
                        struct error *err)
{
    bool pvh;
    if (size > KERNEL_ELF_MAX)
        return error_set(err, EFBIG, "%s: %" PRIu64 " bytes are more than a kernel's limit of %u",
                         what, size, KERNEL_ELF_MAX);
    if (size == 0)
        return error_set(err, EBADMSG, "%s: is empty", what);
    struct mapping map CLEANUP(unmap_p) = {NULL, 0};
    void *p = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        return error_sys(err, "%s: map", what);
    map = (struct mapping){p, size};
    return kernel_check(p, size, what, architecture, &pvh, err);
}

static bool same_file(int dirfd, const char *name, const struct stat *st)
{
    struct stat there;
    return fstatat(dirfd, name, &there, AT_SYMLINK_NOFOLLOW) == 0 && there.st_dev == st->st_dev &&
           there.st_ino == st->st_ino;
}

static int copy_in(int fd, uint64_t size, const char *dir, const char *file, struct error *err)
{
    cleanup_free char *path = NULL;
    if (asprintf(&path, "%s/%s", dir, file) < 0) {
        path = NULL;
        return error_oom(err);
    }
    cleanup_output struct output *out = output_begin(path, OUTPUT_FILE, 0666, err);
    if (!out)
        return -1;
    if (ftruncate(output_fd(out), (off_t)size) < 0)
        return error_sys(err, "%s: set the size", path);
    if (io_copy_range(fd, 0, output_fd(out), 0, size, path, err) < 0)
        return -1;
    return output_commit(&out, false, err);
}

static int take_device(struct blueprint *bp, int dirfd, const char *dir,
                       const struct blueprint_source *src, const struct context *ctx,
                       struct error *err)
{
    char buf[BLUEPRINT_FILE_MAX + 1];
    uint8_t sum[SHA256_SIZE];
    struct stat st;

    if (blueprint_check_name(src->name, err) < 0)
        return -1;
    const char *file = blueprint_file_name(src->name, buf);
    cleanup_close int fd = open(src->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_sys(err, "device %s: open %s", src->name, src->path);
    if (fstat(fd, &st) < 0)
        return error_sys(err, "device %s: stat %s", src->name, src->path);
    if (!S_ISREG(st.st_mode))
        return error_set(err, EINVAL, "device %s: %s is no regular file", src->name, src->path);
    uint64_t size = (uint64_t)st.st_size;
    if (blueprint_role_of(src->name) == BLUEPRINT_KERNEL &&
        check_kernel(fd, size, src->path, bp->architecture, err) < 0)
        return error_wrap(err, "device %s", src->name);
    if (digest_of_fd(fd, src->path, sum, &size, err) < 0)
        return error_wrap(err, "device %s", src->name);
    if (blueprint_add(bp, src->name, NULL, size, sum, err) < 0)
        return -1;
    if (!same_file(dirfd, file, &st) && copy_in(fd, size, dir, file, err) < 0)
        return error_wrap(err, "device %s", src->name);
    context_progress(ctx, "blueprint", size, 0, "bytes");
    return context_check(ctx, err);
}

static int set_text(char **member, const char *text, struct error *err)
{
    if (!text || !*text)
        return 0;
    char *copy = strdup(text);
    if (!copy)
        return error_oom(err);
    free(*member);
    *member = copy;
    return 0;
}

/* Removes what only the old manifest named. An old manifest that cannot be read names nothing. */
static void remove_stale(const struct blueprint *old, const struct blueprint *bp, int dirfd)
{
    for (size_t i = 0; old && i < old->n_devices; i++) {
        bool kept = false;
        for (size_t j = 0; j < bp->n_devices; j++)
            kept = kept || !strcmp(bp->devices[j].file, old->devices[i].file);
        if (!kept)
            (void)unlinkat(dirfd, old->devices[i].file, 0);
    }
}

int blueprint_make(const struct blueprint_make *make, const struct context *ctx, struct error *err)
{
    if (output_make_dirs(make->dir, err) < 0)
        return -1;
    cleanup_close int dirfd = open(make->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0)
        return error_sys(err, "blueprint %s: open", make->dir);

    size_t old_len;
    cleanup_free char *old_text =
        io_read_file(dirfd, BLUEPRINT_MANIFEST, BLUEPRINT_MANIFEST_MAX, &old_len, NULL);
    cleanup_blueprint struct blueprint *old =
        old_text ? blueprint_parse(old_text, old_len, BLUEPRINT_MANIFEST, NULL) : NULL;
    if (unlinkat(dirfd, BLUEPRINT_MANIFEST, 0) < 0 && errno != ENOENT)
        return error_sys(err, "blueprint %s: remove the old manifest", make->dir);

    cleanup_blueprint struct blueprint *bp = blueprint_new(err);
    if (!bp || set_text(&bp->boot_args, make->boot_args, err) < 0 ||
        set_text(&bp->image_reference, make->image_reference, err) < 0 ||
        set_text(&bp->image_digest, make->image_digest, err) < 0 ||
        set_text(&bp->made_kernel, make->made_kernel, err) < 0 ||
        set_text(&bp->made_root, make->made_root, err) < 0)
        return -1;
    bp->liveness_port = make->liveness_port;
    bp->agent_port = make->agent_port;
    for (size_t i = 0; i < make->n_devices; i++)
        if (take_device(bp, dirfd, make->dir, &make->devices[i], ctx, err) < 0)
            return error_wrap(err, "blueprint %s", make->dir);

    cleanup_free char *text = blueprint_format(bp, err);
    if (!text)
        return error_wrap(err, "blueprint %s", make->dir);
    remove_stale(old, bp, dirfd);
    cleanup_free char *path = NULL;
    if (asprintf(&path, "%s/" BLUEPRINT_MANIFEST, make->dir) < 0) {
        path = NULL;
        return error_oom(err);
    }
    cleanup_output struct output *out = output_begin(path, OUTPUT_FILE, 0666, err);
    if (!out || io_write(output_fd(out), text, strlen(text), path, err) < 0)
        return -1;
    return output_commit(&out, true, err);
}
