// SPDX-License-Identifier: Apache-2.0
/* test_sidecar.c - what could not be stored comes back, unless a person has changed it */
#include "oci/tree/sidecar.h"

#include <fcntl.h>
#include <string.h>

#include "tests/lib/unit.h"

/* A tree as scanned: rootfs/dev/null, a stand-in; "rootfs/a b%=" a file. */
static struct tree *sample(void)
{
    struct error err;
    struct tree *tree = tree_new(&err);
    struct tree_inode *rootfs = tree_inode_new(tree, S_IFDIR | 0755, &err);
    struct tree_inode *dev = tree_inode_new(tree, S_IFDIR | 0755, &err);
    struct tree_inode *null = tree_inode_new(tree, S_IFREG | 0644, &err);
    struct tree_inode *odd = tree_inode_new(tree, S_IFREG | 0755, &err);

    null->mtime_sec = -5;
    null->mtime_nsec = 7;
    odd->size = 100;
    ck_assert_ptr_nonnull(tree_link(tree, tree_root(tree), "rootfs", 6, rootfs, &err));
    ck_assert_ptr_nonnull(tree_link(tree, rootfs, "dev", 3, dev, &err));
    ck_assert_ptr_nonnull(tree_link(tree, dev, "null", 4, null, &err));
    ck_assert_ptr_nonnull(tree_link(tree, rootfs, "a b%=\n", 6, odd, &err));
    return tree;
}

static struct tree_inode *at(struct tree *tree, const char *path)
{
    struct tree_inode *inode;
    struct error err;

    ck_assert_int_eq(tree_resolve(tree, path, strlen(path), false, &inode, &err), 0);
    return inode;
}

static int written(void)
{
    static uint8_t bytes[] = {0, 1, 0xfe, 0xff};
    struct tree_xattr caps = {.name = (char *)"security.capability", .value = bytes, .size = 4};
    struct sidecar_entry null = {.path = "rootfs/dev/null",
                                 .mode = S_IFCHR | 0666,
                                 .uid = 3,
                                 .gid = 70000,
                                 .rdev_major = 1,
                                 .rdev_minor = 1048575,
                                 .as_mode = S_IFREG | 0644,
                                 .as_mtime_sec = -5,
                                 .as_mtime_nsec = 7};
    struct sidecar_entry odd = {.path = "rootfs/a b%=\n",
                                .mode = S_IFREG | 04755,
                                .uid = 33,
                                .gid = 34,
                                .as_mode = S_IFREG | 0755,
                                .as_size = 100,
                                .xattrs = &caps,
                                .n_xattrs = 1};
    struct error err;
    FILE *f = fopen("sidecar", "w");

    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(sidecar_begin(f, 1000, 1001, &err), 0);
    ck_assert_int_eq(sidecar_write(f, &null, &err), 0);
    ck_assert_int_eq(sidecar_write(f, &odd, &err), 0);
    ck_assert_int_eq(fclose(f), 0);
    int fd = open("sidecar", O_RDONLY);
    ck_assert(fd >= 0 && sidecar_is(fd));
    return fd;
}

UNIT_TEST(attributes_come_back)
{
    struct sidecar_result result;
    struct error err = ERROR_INIT;
    struct tree *tree = sample();
    uint32_t uid, gid;
    int fd = written();

    ck_assert_int_eq(sidecar_owner(fd, "sidecar", &uid, &gid, &err), 0);
    ck_assert_uint_eq(uid, 1000);
    ck_assert_uint_eq(gid, 1001);
    ck_assert_msg(sidecar_apply(tree, fd, "sidecar", &result, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(result.applied, 2);
    ck_assert_uint_eq(result.stale, 0);
    struct tree_inode *null = at(tree, "rootfs/dev/null"), *odd = at(tree, "rootfs/a b%=\n");
    ck_assert_uint_eq(null->mode, S_IFCHR | 0666);
    ck_assert_uint_eq(null->uid, 3);
    ck_assert_uint_eq(null->gid, 70000);
    ck_assert_uint_eq(null->rdev_major, 1);
    ck_assert_uint_eq(null->rdev_minor, 1048575);
    ck_assert_uint_eq(odd->mode, S_IFREG | 04755);
    const struct tree_xattr *caps = tree_get_xattr(odd, "security.capability");
    ck_assert_ptr_nonnull(caps);
    ck_assert_uint_eq(caps->size, 4);
    ck_assert_mem_eq(caps->value, "\0\1\xfe\xff", 4);
    tree_free(tree);
    close(fd);
}
END_TEST

UNIT_TEST(edits_win)
{
    struct sidecar_result result;
    struct error err = ERROR_INIT;
    struct tree *tree = sample();
    int fd = written();

    at(tree, "rootfs/dev/null")->mtime_nsec++;         /* replaced */
    at(tree, "rootfs/a b%=\n")->mode = S_IFREG | 0700; /* chmod */
    ck_assert_int_eq(sidecar_apply(tree, fd, "sidecar", &result, &err), 0);
    ck_assert_uint_eq(result.applied, 1);
    ck_assert_uint_eq(result.stale, 1);
    ck_assert_uint_eq(at(tree, "rootfs/dev/null")->mode, S_IFREG | 0644);
    ck_assert_uint_eq(at(tree, "rootfs/dev/null")->uid, 0);
    ck_assert_uint_eq(at(tree, "rootfs/a b%=\n")->mode, S_IFREG | 0700);
    ck_assert_uint_eq(at(tree, "rootfs/a b%=\n")->uid, 33);
    tree_free(tree);

    /* Removed: the path is gone, or is another kind of object now. */
    tree = tree_new(&err);
    ck_assert_int_eq(sidecar_apply(tree, fd, "sidecar", &result, &err), 0);
    ck_assert_uint_eq(result.stale, 2);
    tree_free(tree);
    close(fd);
}
END_TEST

UNIT_TEST(malformed_is_refused)
{
    static const char *const bad[] = {
        "",
        "drafter-attributes",
        "drafter-attributes 2 0 0\n",
        "drafter-attributes 1 0\n",
        "drafter-attributes 1 0 0 0\n",
        "drafter-attributes 1 0 0",
        "drafter-attributes 1 0 0\nx\n",
        "drafter-attributes 1 0 0\nx 100644 0 0 0:0 100644 0 0.0\n\n",
        "drafter-attributes 1 0 0\nx 100644 0 0 0:0 040755 0 0.0\n",
        "drafter-attributes 1 0 0\nx 020666 0 0 1:3 040755 0 0.0\n",
        "drafter-attributes 1 0 0\nx 100648 0 0 0:0 100644 0 0.0\n",
        "drafter-attributes 1 0 0\nx 100644 4294967296 0 0:0 100644 0 0.0\n",
        "drafter-attributes 1 0 0\nx 100644 0 0 0 100644 0 0.0\n",
        "drafter-attributes 1 0 0\nx%0 100644 0 0 0:0 100644 0 0.0\n",
        "drafter-attributes 1 0 0\nx%00 100644 0 0 0:0 100644 0 0.0\n",
        "drafter-attributes 1 0 0\nrootfs/dev/null 100644 0 0 0:0 100644 0 -5.000000007 a\n",
        "drafter-attributes 1 0 0\nrootfs/dev/null 100644 0 0 0:0 100644 0 -5.000000007 a=0\n",
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct error err = ERROR_INIT;
        struct tree *tree = sample();
        FILE *f = fopen("bad", "w+");
        ck_assert(f && fputs(bad[i], f) >= 0 && fflush(f) == 0);
        ck_assert_msg(sidecar_apply(tree, fileno(f), "bad", NULL, &err) == -1, "text %zu", i);
        ck_assert_msg(strncmp(err.text, "bad: ", 5) == 0, "%s", err.text);
        (void)fclose(f);
        tree_free(tree);
    }
}
END_TEST

UNIT_TEST(rootless_xattr)
{
    static const uint32_t owners[][2] = {{0, 0},     {1, 0},         {0, 1},
                                         {1000, 33}, {0x80, 0x3fff}, {UINT32_MAX, UINT32_MAX}};
    uint8_t value[ROOTLESS_VALUE_MAX];
    struct error err;
    uint32_t uid, gid;

    for (size_t i = 0; i < ARRAY_SIZE(owners); i++) {
        size_t len = rootless_encode(owners[i][0], owners[i][1], value);
        ck_assert_int_eq(rootless_decode(value, len, &uid, &gid, &err), 0);
        ck_assert_uint_eq(uid, owners[i][0]);
        ck_assert_uint_eq(gid, owners[i][1]);
    }
    /* What umoci writes for 1000:33. */
    ck_assert_uint_eq(rootless_encode(1000, 33, value), 5);
    ck_assert_mem_eq(value, "\x08\xe8\x07\x10\x21", 5);
    /* An unknown field is skipped, a cut one refused. */
    ck_assert_int_eq(rootless_decode((const uint8_t *)"\x1a\x02hi\x08\x05", 6, &uid, &gid, &err),
                     0);
    ck_assert_uint_eq(uid, 5);
    ck_assert_int_eq(rootless_decode((const uint8_t *)"\x08\xe8", 2, &uid, &gid, &err), -1);
    ck_assert_int_eq(rootless_decode((const uint8_t *)"\x1a\x7fhi", 4, &uid, &gid, &err), -1);
    ck_assert_uint_eq(uid, 5);
}
END_TEST
