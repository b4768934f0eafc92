// SPDX-License-Identifier: Apache-2.0
/* rootfs-check.c - whether an ext4 image can be the root of a machine
 *
 * The image is only read. A journal that was not replayed is fine: the machine's kernel does that.
 */
#include <ext2fs/ext2fs.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "blueprint/rootfs/program.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/command.h"

struct opts {
    const char *init;
};

static const struct option options[] = {
    OPTION(struct opts, init, .name = "init", .kind = OPTION_STRING, .arg = "PATH",
           .def = "/sbin/init", .help = "Program in the root that the kernel shall start."),
};

DEFINE_CLEANUP(cleanup_ext2_file_p, ext2_file_t, (void)ext2fs_file_close)

static void free_fs(ext2_filsys *fs)
{
    if (*fs)
        (void)ext2fs_close_free(fs);
}

static int run(const void *p, int argc, char **argv, const struct context *ctx, struct error *err)
{
    const struct opts *o = p;
    const char *path = argv[0];
    ext2_filsys fs CLEANUP(free_fs) = NULL;
    ext2_file_t file CLEANUP(cleanup_ext2_file_p) = NULL;
    struct ext2_inode inode;
    struct stat st;
    ext2_ino_t ino;
    uint8_t head[PROGRAM_HEAD];
    unsigned got = 0;

    (void)argc;
    (void)ctx;
    if (stat(path, &st) < 0)
        return error_sys(err, "%s: stat", path);
    if (!S_ISREG(st.st_mode))
        return error_set(err, EINVAL, "%s: is no regular file", path);
    initialize_ext2_error_table(); /* texts of error_message() */
    errcode_t rc = ext2fs_open(path, EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &fs);
    if (rc == EXT2_ET_BAD_MAGIC || rc == EXT2_ET_SHORT_READ)
        return error_set(err, EBADMSG, "%s: is no ext4 file system", path);
    if (rc)
        return error_set(err, EBADMSG, "%s: open the file system: %s", path, error_message(rc));
    uint64_t size = ext2fs_blocks_count(fs->super) * fs->blocksize;
    if (size > (uint64_t)st.st_size)
        return error_set(err, EBADMSG,
                         "%s: the file system has %" PRIu64 " bytes, the file only %" PRIu64
                         ": it is cut off",
                         path, size, (uint64_t)st.st_size);
    if (!ext2fs_has_feature_extents(fs->super))
        return error_set(err, EBADMSG, "%s: is no ext4 file system (no extents)", path);
    rc = ext2fs_namei_follow(fs, EXT2_ROOT_INO, EXT2_ROOT_INO, o->init, &ino);
    if (rc)
        return error_set(err, ENOENT,
                         "%s: the root has no %s (%s): it would not start; give another with init= "
                         "in KERNEL_ARGS",
                         path, o->init, error_message(rc));
    rc = ext2fs_read_inode(fs, ino, &inode);
    if (rc)
        return error_set(err, EBADMSG, "%s: %s: %s", path, o->init, error_message(rc));
    if (!LINUX_S_ISREG(inode.i_mode) || !(inode.i_mode & 0111))
        return error_set(err, EINVAL, "%s: the root's %s is no program", path, o->init);
    rc = ext2fs_file_open(fs, ino, 0, &file);
    if (!rc)
        rc = ext2fs_file_read(file, head, sizeof(head), &got);
    if (rc)
        return error_set(err, EBADMSG, "%s: %s: read: %s", path, o->init, error_message(rc));
    return program_check(head, got, o->init, err) < 0 ? error_wrap(err, "%s", path) : 0;
}

static const struct command command = {
    .name = "rootfs-check",
    .summary = "check whether an ext4 image can be the root of a machine",
    .operands = "IMAGE",
    .min_operands = 1,
    .max_operands = 1,
    .options = options,
    .n_options = ARRAY_SIZE(options),
    .options_size = sizeof(struct opts),
    .run = run,
};

int main(int argc, char **argv)
{
    return command_main(&command, argc, argv);
}
