// SPDX-License-Identifier: Apache-2.0
/* test_tree_scan.c - a folder becomes a tree: nothing followed, attributes restored */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "oci/tree/sidecar.h"
#include "oci/tree/tree.h"
#include "tests/lib/unit.h"

static struct tree *scan(const char *path, int *ret_fd)
{
    struct error err = ERROR_INIT;
    struct tree *tree = tree_new(&err);

    *ret_fd = open(path, O_RDONLY | O_DIRECTORY);
    ck_assert_int_ge(*ret_fd, 0);
    ck_assert_msg(tree_scan(tree, *ret_fd, path, NULL, &err) == 0, "%s", err.text);
    return tree;
}

static struct tree_inode *at(struct tree *tree, const char *path)
{
    struct tree_inode *inode;
    struct error err = ERROR_INIT;

    ck_assert_msg(tree_resolve(tree, path, strlen(path), false, &inode, &err) == 0, "%s: %s", path,
                  err.text);
    return inode;
}

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    ck_assert_ptr_nonnull(f);
    (void)fputs(text, f);
    ck_assert_int_eq(fclose(f), 0);
}

UNIT_TEST(reads_and_opens)
{
    const struct tree_data *data;
    struct error err = ERROR_INIT;
    char text[6] = "";
    int dirfd, fd;

    ck_assert_int_eq(
        system("mkdir -p d/sub secret && ln -s ../secret d/out && ln -s nowhere d/sub/l"
               " && mkfifo d/fifo && truncate -s 1M d/sparse"
               " && printf tail | dd of=d/sparse bs=1 seek=1048576 conv=notrunc"
               " status=none"),
        0);
    put("d/sub/f", "hello");
    put("d/sub/g", "hello");
    put("secret/g", "secret");
    ck_assert_int_eq(link("d/sub/f", "d/hard"), 0);
    struct tree *tree = scan("d", &dirfd);
    ck_assert_uint_eq(tree_count(tree_root(tree)), 5);
    ck_assert_str_eq(at(tree, "out")->target, "../secret");
    ck_assert_ptr_eq(at(tree, "sub/f"), at(tree, "hard"));
    ck_assert_uint_eq(at(tree, "hard")->names, 2);
    ck_assert(S_ISFIFO(at(tree, "fifo")->mode));
    struct tree_inode *sparse = at(tree, "sparse");
    ck_assert_uint_eq(sparse->size, (1u << 20) + 4);
    ck_assert_uint_ge(sparse->n_extents, 1);
    ck_assert_uint_eq(sparse->extents[sparse->n_extents - 1].offset +
                          sparse->extents[sparse->n_extents - 1].length,
                      sparse->size);

    data = tree_get_data(tree);
    ck_assert_int_eq(data->open(data->opaque, at(tree, "hard"), &fd, &err), 0);
    ck_assert_int_eq(read(fd, text, 5), 5);
    ck_assert_str_eq(text, "hello");
    data->close(data->opaque, fd);

    /* A folder swapped for a symlink on the way is not followed; a changed file is noticed. */
    ck_assert_int_eq(system("mv d/sub d/gone && ln -s ../secret d/sub"), 0);
    ck_assert_int_eq(data->open(data->opaque, at(tree, "sub/g"), &fd, &err), -1);
    ck_assert_int_eq(system("rm d/sub && mv d/gone d/sub && printf more >>d/sub/g"), 0);
    ck_assert_int_eq(data->open(data->opaque, at(tree, "sub/g"), &fd, &err), -1);
    ck_assert_int_eq(err.code, EBUSY);
    tree_free(tree);
    close(dirfd);
}
END_TEST

/* Deeper than PATH_MAX: opened step by step. */
UNIT_TEST(deep_folder)
{
    const struct tree_data *data;
    struct error err = ERROR_INIT;
    char name[201], text[3] = "";
    int fd, dirfd;

    memset(name, 'n', 200);
    name[200] = '\0';
    ck_assert_int_eq(mkdir("deep", 0755), 0);
    fd = open("deep", O_RDONLY | O_DIRECTORY);
    for (unsigned i = 0; i < 60; i++) {
        ck_assert_int_eq(mkdirat(fd, name, 0755), 0);
        int next = openat(fd, name, O_RDONLY | O_DIRECTORY);
        close(fd);
        fd = next;
    }
    int file = openat(fd, "f", O_WRONLY | O_CREAT, 0644);
    ck_assert_int_eq(write(file, "ok", 2), 2);
    close(file);
    close(fd);
    struct tree *tree = scan("deep", &dirfd);
    struct tree_inode *inode = tree_root(tree);
    for (unsigned i = 0; i < 60; i++)
        inode = tree_lookup(inode, name, 200)->inode;
    inode = tree_lookup(inode, "f", 1)->inode;
    data = tree_get_data(tree);
    ck_assert_msg(data->open(data->opaque, inode, &fd, &err) == 0, "%s", err.text);
    ck_assert_int_eq(read(fd, text, 2), 2);
    ck_assert_str_eq(text, "ok");
    data->close(data->opaque, fd);
    tree_free(tree);
    close(dirfd);
}
END_TEST

UNIT_TEST(bundle_made_without_root)
{
    struct error err = ERROR_INIT;
    uint8_t value[ROOTLESS_VALUE_MAX];
    struct stat st;
    int dirfd;

    ck_assert_int_eq(system("mkdir -p b/rootfs/dev"), 0);
    put("b/config.json", "{}");
    put("b/rootfs/file", "x");
    put("b/rootfs/dev/null", "");
    size_t len = rootless_encode(33, 44, value);
    if (setxattr("b/rootfs/file", ROOTLESS_XATTR, value, len, 0) < 0)
        unit_skip("needs a file system with user xattrs");
    ck_assert_int_eq(setxattr("b/rootfs/file", "user.kept", "y", 1, 0), 0);
    ck_assert_int_eq(stat("b/rootfs/dev/null", &st), 0);
    FILE *f = fopen("b/" SIDECAR_NAME, "w");
    struct sidecar_entry null = {.path = "rootfs/dev/null",
                                 .mode = S_IFCHR | 0666,
                                 .rdev_major = 1,
                                 .rdev_minor = 3,
                                 .as_mode = st.st_mode,
                                 .as_mtime_sec = st.st_mtim.tv_sec,
                                 .as_mtime_nsec = (uint32_t)st.st_mtim.tv_nsec};
    ck_assert_int_eq(sidecar_begin(f, geteuid(), getegid(), &err), 0);
    ck_assert_int_eq(sidecar_write(f, &null, &err), 0);
    ck_assert_int_eq(fclose(f), 0);

    struct tree *tree = scan("b", &dirfd);
    ck_assert_uint_eq(tree_count(tree_root(tree)), 2); /* no sidecar */
    ck_assert_uint_eq(at(tree, "config.json")->uid, 0);
    ck_assert_uint_eq(at(tree, "rootfs/file")->uid, 33);
    ck_assert_uint_eq(at(tree, "rootfs/file")->gid, 44);
    ck_assert_uint_eq(at(tree, "rootfs/file")->n_xattrs, 1);
    ck_assert_str_eq(at(tree, "rootfs/file")->xattrs[0].name, "user.kept");
    ck_assert(S_ISCHR(at(tree, "rootfs/dev/null")->mode));
    tree_free(tree);
    close(dirfd);

    /* umoci's bookkeeping says which owners are meant, and is left out. */
    char text[256];
    (void)snprintf(text, sizeof(text),
                   "{\"map_options\":{\"uid_mappings\":[{\"container_id\":5,\"host_id\":%u,"
                   "\"size\":1}],\"gid_mappings\":[],\"rootless\":true}}",
                   geteuid());
    ck_assert_int_eq(unlink("b/" SIDECAR_NAME), 0);
    put("b/umoci.json", text);
    tree = scan("b", &dirfd);
    ck_assert_uint_eq(tree_count(tree_root(tree)), 2);
    ck_assert_uint_eq(at(tree, "config.json")->uid, 5);
    tree_free(tree);
    close(dirfd);

    /* A file that only has the sidecar's name is a file. */
    put("b/" SIDECAR_NAME, "mine");
    tree = scan("b", &dirfd);
    ck_assert_uint_eq(at(tree, SIDECAR_NAME)->size, 4);
    tree_free(tree);
    close(dirfd);
}
END_TEST
