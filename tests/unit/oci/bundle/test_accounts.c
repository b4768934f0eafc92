// SPDX-License-Identifier: Apache-2.0
/* test_accounts.c - user and group of an image to numbers */
#include "oci/bundle/accounts.h"

#include <stdio.h>
#include <string.h>

#include "oci/bundle/bundle.h"
#include "runtime/base/io.h"
#include "tests/lib/unit.h"

static const char passwd[] = "# comment\n\n"
                             "root:x:0:0:root:/root:/bin/sh\n"
                             "broken:x:zero:0::/:\n"
                             "short:x\n"
                             "+nis\n"
                             "redis:x:101:102:Redis:/var/lib/redis:/bin/false\r\n"
                             "1000:x:7:8::/odd:\n"
                             "user:x:1000:1001::/home/user:/bin/sh\n"
                             "nohome:x:5:6:\n"
                             "big:x:4294967296:0::/:\n"
                             "minus:x:4294967295:0::/:\n"
                             "root:x:99:99::/second:";
static const char group[] = "root:x:0:root,redis\n"
                            "disk:x:6:root\n"
                            "cache:x:200:redisx,xredis\n"
                            "web:x:201:user,redis,nohome\n"
                            "bad:x:-1:redis\n"
                            "last:x:202:redis";

UNIT_TEST(resolves)
{
    static const struct {
        const char *user;
        uint32_t uid, gid;
        const char *home; /* NULL: none */
        const char *gids;
    } rows[] = {
        {"", 0, 0, "/root", "0 6 "},
        {"root", 0, 0, "/root", "0 6 "}, /* the first line counts */
        {"0", 0, 0, "/root", ""},
        {"redis", 101, 102, "/var/lib/redis", "0 201 202 "},
        {"redis:", 101, 102, "/var/lib/redis", "0 201 202 "},
        {"101", 101, 102, "/var/lib/redis", ""},
        {"redis:web", 101, 201, "/var/lib/redis", ""},
        {"redis:7", 101, 7, "/var/lib/redis", ""},
        {"101:web", 101, 201, "/var/lib/redis", ""},
        {"55", 55, 0, NULL, ""},
        {"55:66", 55, 66, NULL, ""},
        {":web", 0, 201, "/root", ""},
        {"1000", 1000, 1001, "/home/user", ""}, /* a number is a number, whatever names there are */
        {"nohome", 5, 6, "", "201 "},
        {"4294967294:4294967294", 4294967294u, 4294967294u, NULL, ""},
    };
    struct error err = ERROR_INIT;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct account a;
        char gids[64] = "";
        ck_assert_msg(account_resolve_text(passwd, group, rows[i].user, &a, &err) == 0, "%s: %s",
                      rows[i].user, err.text);
        for (size_t k = 0; k < a.n_gids; k++)
            (void)snprintf(gids + strlen(gids), sizeof(gids) - strlen(gids), "%u ", a.gids[k]);
        ck_assert_uint_eq(a.uid, rows[i].uid);
        ck_assert_uint_eq(a.gid, rows[i].gid);
        ck_assert_str_eq(gids, rows[i].gids);
        ck_assert_int_eq(!a.home, !rows[i].home);
        if (a.home)
            ck_assert_str_eq(a.home, rows[i].home);
        account_destroy(&a);
    }
}
END_TEST

UNIT_TEST(refuses)
{
    static const struct {
        const char *user, *part;
    } rows[] = {
        {"nobody", "no user \"nobody\""},
        {"redis:none", "no group \"none\""},
        {"redis:bad", "group \"bad\": its id"},
        {"broken", "user \"broken\": its user or group id"},
        {"big", "no number up to"},
        {"minus", "no number up to"},
        {"short", "no user"},
        {"4294967295", "above 4294967294"},
        {"4294967296", "above 4294967294"},
        {"99999999999999999999999999", "above"},
        {"0:4294967296", "group id 4294967296 is above"},
        {"-1", "no user \"-1\""},
        {"+5", "no user \"+5\""},
        {" 5", "no user \" 5\""},
        {"a:b:c", "USER:GROUP"},
        {"# comment", "no user"},
    };
    struct account a;
    struct error err = ERROR_INIT;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        ck_assert_int_eq(account_resolve_text(passwd, group, rows[i].user, &a, &err), -1);
        ck_assert_msg(strstr(err.text, rows[i].part) != NULL, "\"%s\" lacks \"%s\"", err.text,
                      rows[i].part);
    }
    ck_assert_int_eq(account_resolve_text(NULL, NULL, "redis", &a, &err), -1);
    ck_assert_int_eq(account_resolve_text(NULL, NULL, "5:6", &a, &err), 0);
    account_destroy(&a);
}
END_TEST

/* A tree whose file data is all in one file, "data". */
static int open_data(void *opaque, const struct tree_inode *inode, int *ret_fd, struct error *err)
{
    (void)inode;
    (void)err;
    *ret_fd = *(int *)opaque;
    return 0;
}

static void close_data(void *opaque, int fd)
{
    (void)opaque;
    (void)fd;
}

static struct tree_inode *add(struct tree *tree, struct tree_inode *dir, const char *name,
                              uint32_t mode)
{
    struct tree_inode *inode = tree_inode_new(tree, mode, NULL);

    ck_assert_ptr_nonnull(inode);
    ck_assert_ptr_nonnull(tree_link(tree, dir, name, strlen(name), inode, NULL));
    return inode;
}

UNIT_TEST(reads_the_tree_only)
{
    struct error err = ERROR_INIT;
    struct account a;
    FILE *data = fopen("data", "w+");
    ck_assert_ptr_nonnull(data);
    ck_assert_int_eq(fwrite(passwd, 1, sizeof(passwd) - 1, data), sizeof(passwd) - 1);
    ck_assert_int_eq(fflush(data), 0);
    int fd = fileno(data);
    cleanup_tree struct tree *tree = tree_new(&err);
    tree_set_data(tree, &(struct tree_data){open_data, close_data, &fd});

    /* No /etc at all; then an /etc/passwd that leads out of the image. */
    ck_assert_int_eq(account_resolve(tree, "7", &a, &err), 0);
    account_destroy(&a);
    ck_assert_int_eq(account_resolve(tree, "root", &a, &err), -1);
    struct tree_inode *etc = add(tree, tree_root(tree), "etc", S_IFDIR | 0755);
    struct tree_inode *link = add(tree, etc, "passwd", S_IFLNK | 0777);
    link->target = tree_strdup(tree, "../../../../../../etc/real", 26, &err);
    ck_assert_int_eq(account_resolve(tree, "root", &a, &err), -1);
    ck_assert_msg(strstr(err.text, "no user \"root\"") != NULL, "%s", err.text);

    struct tree_inode *real = add(tree, etc, "real", S_IFREG | 0644);
    real->size = sizeof(passwd) - 1;
    struct tree_extent extent = {.length = real->size};
    real->extents = &extent;
    real->n_extents = 1;
    ck_assert_msg(account_resolve(tree, "redis", &a, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(a.uid, 101);
    account_destroy(&a);

    real->size = BUNDLE_ACCOUNTS_MAX + 1;
    ck_assert_int_eq(account_resolve(tree, "0", &a, &err), -1);
    ck_assert_msg(strstr(err.text, "more than the limit") != NULL, "%s", err.text);
    real->size = 10; /* an extent beyond the end is somebody's bug, not a read out of bounds */
    ck_assert_int_eq(account_resolve(tree, "0", &a, &err), -1);
    real->mode = S_IFIFO | 0644;
    ck_assert_int_eq(account_resolve(tree, "0", &a, &err), -1);
    ck_assert_msg(strstr(err.text, "not a regular file") != NULL, "%s", err.text);
    link->target = tree_strdup(tree, "passwd", 6, &err);
    ck_assert_int_eq(account_resolve(tree, "0", &a, &err), -1);
    ck_assert_msg(strstr(err.text, "symlinks") != NULL, "%s", err.text);
    (void)fclose(data);
}
END_TEST
