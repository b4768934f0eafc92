// SPDX-License-Identifier: Apache-2.0
/* test_ext4.c - a fixed tree gives fixed bytes; what ext4 cannot hold is refused by name */
#include "oci/ext4/ext4.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/digest.h"
#include "tests/lib/unit.h"

/* Each open of the data gives `path`. */
static int file_open(void *opaque, const struct tree_inode *inode, int *ret_fd, struct error *err)
{
    (void)inode;
    int fd = open(opaque, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_sys(err, "%s", (const char *)opaque);
    *ret_fd = fd;
    return 0;
}

static void file_close(void *opaque, int fd)
{
    (void)opaque;
    (void)close(fd);
}

static struct tree *new_tree(void)
{
    static char path[] = "data";
    struct error err;
    struct tree *tree = tree_new(&err);
    FILE *f = fopen(path, "w");

    ck_assert(tree && f);
    for (unsigned i = 0; i < 20000; i++)
        (void)fprintf(f, "%06u\n", i);
    ck_assert_int_eq(fclose(f), 0);
    tree_set_data(tree,
                  &(struct tree_data){.open = file_open, .close = file_close, .opaque = path});
    return tree;
}

static struct tree_inode *add(struct tree *tree, struct tree_inode *dir, const char *name,
                              uint32_t mode)
{
    struct error err = ERROR_INIT;
    struct tree_inode *inode = tree_inode_new(tree, mode, &err);

    ck_assert_ptr_nonnull(inode);
    ck_assert_msg(tree_link(tree, dir, name, strlen(name), inode, &err) != NULL, "%s", err.text);
    return inode;
}

static void one_extent(struct tree *tree, struct tree_inode *inode, uint64_t size)
{
    struct error err;

    inode->extents = tree_alloc(tree, sizeof(*inode->extents), &err);
    ck_assert_ptr_nonnull(inode->extents);
    *inode->extents = (struct tree_extent){.length = size};
    inode->n_extents = 1;
    inode->size = size;
}

static int write_to(struct tree *tree, const char *path, const struct context *ctx,
                    struct error *err)
{
    struct ext4_options options = {.label = "oci", .free_bytes = 8 << 20, .epoch = 1700000000};
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    ck_assert_int_ge(fd, 0);
    int rc = ext4_write(tree, fd, &options, ctx, NULL, err);
    ck_assert_int_eq(close(fd), 0);
    return rc;
}

/* These bytes change only with the format's own version: raise "ext4 1" in plan.c with them, and
 * say so in the change. */
UNIT_TEST(golden_bytes)
{
    static const char want[] = "44490b08c4f928e1e16d68dcb60a05e06eb26e4716c3383148efcf729e973444";
    struct error err = ERROR_INIT;
    struct tree *tree = new_tree();
    struct tree_inode *etc = add(tree, tree_root(tree), "etc", S_IFDIR | 0755);
    struct tree_inode *file = add(tree, etc, "file", S_IFREG | 04755);
    uint8_t sum[SHA256_SIZE], large[5000];
    char hex[SHA256_HEX_SIZE], name[32];

    one_extent(tree, file, 123456);
    file->uid = 70000;
    file->mtime_sec = -5;
    file->mtime_nsec = 7;
    memset(large, 'v', sizeof(large));
    ck_assert_int_eq(tree_set_xattr(tree, file, "user.large", large, sizeof(large), &err), 0);
    ck_assert_int_eq(tree_set_xattr(tree, file, "user.small", "x", 1, &err), 0);
    ck_assert_ptr_nonnull(tree_link(tree, tree_root(tree), "hard", 4, file, &err));
    add(tree, etc, "link", S_IFLNK | 0777)->target = tree_strdup(tree, "file", 4, &err);
    struct tree_inode *null = add(tree, tree_root(tree), "null", S_IFCHR | 0666);
    null->rdev_major = 1;
    null->rdev_minor = 3;
    for (unsigned i = 0; i < 500; i++) {
        (void)snprintf(name, sizeof(name), "entry-%u", i);
        add(tree, etc, name, S_IFREG | 0644);
    }
    ck_assert_msg(write_to(tree, "image", NULL, &err) == 0, "%s", err.text);
    int fd = open("image", O_RDONLY);
    ck_assert_int_eq(digest_of_fd(fd, "image", sum, NULL, &err), 0);
    digest_hex(sum, hex);
    ck_assert_str_eq(hex, want);
    ck_assert_int_eq(close(fd), 0);
    ck_assert_int_eq(system("e2fsck -fn image >e2fsck.log 2>&1 || { cat e2fsck.log; exit 1; }"), 0);
    tree_free(tree);
}
END_TEST

static void refused(struct tree *tree, int code, const char *text)
{
    struct error err = ERROR_INIT;

    ck_assert_int_eq(write_to(tree, "image", NULL, &err), -1);
    ck_assert_msg(strstr(err.text, text) != NULL, "\"%s\" lacks \"%s\"", err.text, text);
    ck_assert_int_eq(err.code, code);
    tree_free(tree);
}

UNIT_TEST(names_what_it_refuses)
{
    struct error err = ERROR_INIT;
    struct tree *tree;
    struct tree_inode *dir, *file;
    char name[300];

#define SETUP()                                                                                    \
    tree = new_tree();                                                                             \
    dir = add(tree, tree_root(tree), "dir", S_IFDIR | 0755);                                       \
    file = add(tree, dir, "file", S_IFREG | 0644)

    SETUP();
    file->size = UINT64_C(1) << 45;
    refused(tree, EFBIG, "dir/file: ");

    SETUP();
    for (unsigned i = 0; i < 65000; i++) {
        (void)snprintf(name, sizeof(name), "%u", i);
        ck_assert_ptr_nonnull(tree_link(tree, dir, name, strlen(name), file, &err));
    }
    refused(tree, EMLINK, ": 65001 names");

    SETUP();
    ck_assert_int_eq(tree_set_xattr(tree, file, "system.nfs4_acl", "x", 1, &err), 0);
    refused(tree, EOPNOTSUPP, "dir/file: xattr \"system.nfs4_acl\"");

    SETUP();
    ck_assert_int_eq(tree_set_xattr(tree, file, "system.posix_acl_access", "x", 1, &err), 0);
    refused(tree, EBADMSG, "dir/file: xattr");

    SETUP();
    for (unsigned i = 0; i < 20; i++) {
        (void)snprintf(name, sizeof(name), "user.%0240u", i);
        ck_assert_int_eq(tree_set_xattr(tree, file, name, "", 0, &err), 0);
    }
    refused(tree, ENOSPC, "dir/file: the names of its extended attributes");

    SETUP();
    one_extent(tree, file, 200000); /* the data file has 140000 */
    refused(tree, EBUSY, "dir/file: data ends at byte 140000");

    SETUP();
    one_extent(tree, file, 100);
    ck_assert_int_eq(unlink("data"), 0);
    refused(tree, ENOENT, "dir/file: ");

    SETUP();
    one_extent(tree, file, 100);
    file->size = 99;
    refused(tree, EINVAL, "dir/file: its extents");

    SETUP();
    add(tree, dir, "dev", S_IFBLK)->rdev_major = 4096;
    refused(tree, EOVERFLOW, "dir/dev: device 4096:0");

    SETUP();
    add(tree, tree_root(tree), "lost+found", S_IFREG);
    refused(tree, ENOTDIR, "lost+found");
}
END_TEST

UNIT_TEST(stops_when_told)
{
    struct error err = ERROR_INIT;
    struct cancel cancel;
    struct context ctx = {.cancel = &cancel};
    struct tree *tree = new_tree();

    ck_assert_int_eq(cancel_init(&cancel, &err), 0);
    cancel_request(&cancel);
    ck_assert_int_eq(write_to(tree, "image", &ctx, &err), -1);
    ck_assert_int_eq(err.code, ECANCELED);
    cancel_destroy(&cancel);
    tree_free(tree);
}
END_TEST

/* A lost+found of the tree's own keeps what it is and holds. */
UNIT_TEST(own_lost_found)
{
    struct error err = ERROR_INIT;
    struct tree *tree = new_tree();
    struct tree_inode *lost = add(tree, tree_root(tree), "lost+found", S_IFDIR | 0711);

    add(tree, lost, "#12", S_IFREG | 0600);
    ck_assert_msg(write_to(tree, "image", NULL, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(lost->scratch, 11);
    ck_assert_int_eq(system("e2fsck -fn image >e2fsck.log 2>&1 || { cat e2fsck.log; exit 1; }"), 0);
    ck_assert_int_eq(system("debugfs -R 'stat /lost+found/#12' image 2>&1 | grep -q 'Mode:  0600'"),
                     0);
    tree_free(tree);
}
END_TEST
