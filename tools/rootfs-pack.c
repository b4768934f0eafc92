// SPDX-License-Identifier: Apache-2.0
/* rootfs-pack.c - tars, laid over one another, become the root file system of a machine
 *
 * Each tar is taken as a layer of an image is: a later one replaces what an earlier one holds, and
 * ".wh.NAME" in it removes NAME. Nothing is unpacked on this machine, so no root is needed and
 * names in a tar mean nothing here.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "blueprint/rootfs/program.h"
#include "oci/ext4/ext4.h"
#include "oci/layer/layer.h"
#include "oci/tree/tree.h"
#include "runtime/base/command.h"
#include "runtime/base/io.h"
#include "runtime/base/output.h"
#include "runtime/base/parse.h"
#include "runtime/base/spawn.h"

#define CHUNK (1u << 20)

struct opts {
    const char *output, *label, *size, *init;
    uint64_t free_bytes, epoch;
};

static const struct option options[] = {
    OPTION(struct opts, output, .name = "output", .letter = 'o', .kind = OPTION_STRING,
           .arg = "FILE", .required = true, .help = "The image to write."),
    OPTION(struct opts, size, .name = "size", .kind = OPTION_STRING, .arg = "SIZE", .def = "auto",
           .help = "Size of the image; \"auto\" is what the files need and --free."),
    OPTION(struct opts, free_bytes, .name = "free", .kind = OPTION_SIZE, .arg = "SIZE",
           .def = "16M", .max = EXT4_SIZE_MAX, .help = "Free space when the size is \"auto\"."),
    OPTION(struct opts, label, .name = "label", .kind = OPTION_STRING, .arg = "TEXT",
           .def = "rootfs", .help = "Label of the file system, up to 16 bytes."),
    OPTION(struct opts, init, .name = "init", .kind = OPTION_STRING, .arg = "PATH",
           .def = "/sbin/init", .help = "Program in the root that the kernel shall start."),
    OPTION(struct opts, epoch, .name = "source-date-epoch", .kind = OPTION_UINT, .arg = "SECONDS",
           .def = "1700000000", .max = UINT32_MAX,
           .help = "The file system's own times, seconds since 1970."),
};

/* A tar being read, through a decompressor's pipe when it is compressed. */
struct tar {
    const char *path;
    int fd;
    pid_t child; /* 0 = none */
    uint8_t *chunk;
};

static void tar_close(struct tar *t)
{
    if (t->fd >= 0)
        (void)close(t->fd); /* a decompressor that still writes gets SIGPIPE */
    if (t->child)
        (void)spawn_wait(t->child, NULL, NULL, NULL);
    free(t->chunk);
}

static int tar_open(struct tar *t, const char *path, struct error *err)
{
    static const struct {
        const char *magic, *program;
        size_t len;
    } packers[] = {{"\x1f\x8b", "gzip", 2},
                   {"\x28\xb5\x2f\xfd", "zstd", 4},
                   {"\xfd\x37zXZ", "xz", 5},
                   {"BZh", "bzip2", 3}};
    uint8_t head[512];
    int ends[2];

    *t = (struct tar){.path = path, .fd = -1};
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_sys(err, "%s: open", path);
    ssize_t n = io_pread(fd, head, sizeof(head), 0, path, err);
    if (n < 0)
        return -1;
    if (!(t->chunk = malloc(CHUNK)))
        return error_oom(err);
    for (size_t i = 0; i < ARRAY_SIZE(packers); i++) {
        if ((size_t)n < packers[i].len || memcmp(head, packers[i].magic, packers[i].len))
            continue;
        if (pipe2(ends, O_CLOEXEC) < 0)
            return error_sys(err, "%s: pipe", path);
        t->fd = ends[0];
        cleanup_close int in = ends[1];
        const char *const argv[] = {packers[i].program, "-dc", NULL};
        const struct spawn_options opt = {
            .argv = argv, .stdin_fd = fd, .stdout_fd = in, .stderr_fd = -1};
        return spawn_start(&opt, &t->child, NULL, err) < 0 ? error_wrap(err, "%s: unpack", path)
                                                           : 0;
    }
    if (n < 512 || memcmp(head + 257, "ustar", 5))
        return error_set(err, EBADMSG, "%s: is no tar, plain or packed by gzip, zstd, xz or bzip2",
                         path);
    t->fd = steal_fd(&fd);
    return 0;
}

static int tar_next(void *opaque, const uint8_t **ret_data, size_t *ret_len, struct error *err)
{
    struct tar *t = opaque;
    int status = 0;
    ssize_t n = io_read(t->fd, t->chunk, CHUNK, t->path, err);
    if (n < 0)
        return -1;
    if (n == 0 && t->child) {
        pid_t child = t->child;
        t->child = 0;
        if (spawn_wait(child, NULL, &status, err) < 0)
            return -1;
        if (status)
            return error_set(err, EBADMSG, "%s: does not unpack", t->path);
    }
    *ret_data = t->chunk;
    *ret_len = (size_t)n;
    return 0;
}

/* The root must hold the program that the kernel will start, and that for this architecture. */
static int check_init(const struct tree *tree, const char *init, struct error *err)
{
    struct tree_inode *inode;
    uint8_t head[PROGRAM_HEAD];
    struct error cause = ERROR_INIT;

    if (tree_resolve(tree, init, strlen(init), true, &inode, &cause) < 0)
        return error_set(err, ENOENT,
                         "the root has no %s (%s): it would not start; give another with init= in "
                         "KERNEL_ARGS",
                         init, cause.text);
    if (!S_ISREG(inode->mode) || !(inode->mode & 0111))
        return error_set(err, EINVAL, "the root's %s is no program", init);
    if (inode->size < sizeof(head) || !inode->n_extents || inode->extents[0].offset != 0 ||
        inode->extents[0].length < sizeof(head))
        return 0; /* too short for an ELF file: a script */
    const struct tree_data *data = tree_get_data(tree);
    int fd;
    if (data->open(data->opaque, inode, &fd, err) < 0)
        return -1;
    int got = io_pread_exact(fd, head, sizeof(head), inode->extents[0].source_offset, init, err);
    data->close(data->opaque, fd);
    if (got < 0)
        return -1;
    return program_check(head, sizeof(head), init, err);
}

/* Writes the image. A wanted size is reached in two passes: the first tells what the files need.
 * The tables grow a little with the free space, so the file system may stay just below its size. */
static int write_image(const struct opts *o, struct tree *tree, const struct context *ctx,
                       struct error *err)
{
    struct ext4_options ext4 = {
        .label = o->label, .free_bytes = o->free_bytes, .epoch = (int64_t)o->epoch};
    struct ext4_result result;
    uint64_t wanted = 0;
    bool sized = strcmp(o->size, "auto") != 0;

    if (sized && parse_size(o->size, EXT4_SIZE_MAX, "--size", &wanted, err) < 0)
        return -1;
    if (sized)
        ext4.free_bytes = 0;
    for (unsigned pass = 0; pass < 8; pass++) {
        cleanup_output struct output *out = output_begin(o->output, OUTPUT_FILE, 0666, err);
        if (!out || ext4_write(tree, output_fd(out), &ext4, ctx, &result, err) < 0)
            return -1;
        if (sized && result.size > wanted) {
            if (ext4.free_bytes == 0)
                return error_set(err, ENOSPC,
                                 "its files need %" PRIu64 " bytes, the size shall be %" PRIu64
                                 ": give a larger OS_SIZE",
                                 result.size, wanted);
            uint64_t over = result.size - wanted;
            ext4.free_bytes = ext4.free_bytes > over ? ext4.free_bytes - over : 0;
            continue;
        }
        if (sized && pass == 0 && wanted > result.size) {
            ext4.free_bytes = wanted - result.size;
            continue;
        }
        if (sized && ftruncate(output_fd(out), (off_t)wanted) < 0)
            return error_sys(err, "%s: set the size", o->output);
        return output_commit(&out, false, err);
    }
    return error_set(err, EOVERFLOW, "no file system of exactly %s came out; try another size",
                     o->size);
}

static int run(const void *p, int argc, char **argv, const struct context *ctx, struct error *err)
{
    const struct opts *o = p;

    cleanup_free char *path = strdup(o->output);
    if (!path)
        return error_oom(err);
    const char *dir = dirname(path);
    if (output_make_dirs(dir, err) < 0)
        return -1;
    cleanup_close int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0)
        return error_sys(err, "%s: open", dir);
    cleanup_tree struct tree *tree = tree_new(err);
    if (!tree)
        return -1;
    cleanup_layer_store struct layer_store *store = layer_store_new(tree, dirfd, NULL, ctx, err);
    if (!store)
        return -1;
    for (int i = 0; i < argc; i++) {
        struct tar tar CLEANUP(tar_close);
        if (tar_open(&tar, argv[i], err) < 0)
            return -1;
        if (layer_apply(store, tar_next, &tar, err) < 0)
            return error_wrap(err, "%s", argv[i]);
    }
    if (check_init(tree, o->init, err) < 0 || write_image(o, tree, ctx, err) < 0)
        return error_wrap(err, "pack %s", o->output);
    return 0;
}

static const struct command command = {
    .name = "rootfs-pack",
    .summary = "pack tars, laid over one another, into the root file system of a machine",
    .operands = "TAR...",
    .min_operands = 1,
    .max_operands = -1,
    .options = options,
    .n_options = ARRAY_SIZE(options),
    .options_size = sizeof(struct opts),
    .run = run,
};

int main(int argc, char **argv)
{
    return command_main(&command, argc, argv);
}
