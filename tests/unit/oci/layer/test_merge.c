// SPDX-License-Identifier: Apache-2.0
/* test_merge.c - layers onto a tree: a table of scripts, and what the tree is then
 *
 * Layers are separated by "--". Expected is a listing, in the order of names: "PATH/" a folder,
 * "PATH=DATA" a file, "PATH>TARGET" a symlink, "PATH:c1:3" a device, "PATH|" a FIFO; further names
 * of an inode are "PATH==FIRST". "!TEXT": an error that contains TEXT.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "oci/layer/layer.h"
#include "runtime/base/io.h"
#include "tests/lib/tar_make.h"
#include "tests/lib/unit.h"

struct fixture {
    struct tree *tree;
    struct layer_store *store;
};

static struct fixture begin(const struct layer_limits *limits)
{
    struct fixture f;
    struct error err;
    int dir = open(".", O_RDONLY | O_DIRECTORY);

    f.tree = tree_new(&err);
    f.store = layer_store_new(f.tree, dir, limits, NULL, &err);
    ck_assert_msg(f.store != NULL, "%s", err.text);
    close(dir);
    return f;
}

static void end(struct fixture *f)
{
    layer_store_free(f->store);
    tree_free(f->tree);
}

struct pieces {
    const uint8_t *data;
    size_t len, piece;
};

static int next_piece(void *opaque, const uint8_t **ret_data, size_t *ret_len, struct error *err)
{
    struct pieces *p = opaque;
    size_t n = p->len < p->piece ? p->len : p->piece;

    (void)err;
    *ret_data = p->data;
    *ret_len = n;
    p->data += n;
    p->len -= n;
    return 0;
}

static int apply(struct fixture *f, const struct tar_make *t, size_t piece, struct error *err)
{
    struct pieces p = {.data = t->data, .len = t->len, .piece = piece};

    return layer_apply(f->store, next_piece, &p, err);
}

static void add(char *out, size_t size, const char *fmt, const char *a, const char *b)
{
    size_t at = strlen(out);

    (void)snprintf(out + at, size - at, fmt, a, b);
}

static void list(struct fixture *f, struct tree_inode *dir, const char *prefix, char *out,
                 size_t size)
{
    struct error err;
    size_t n;
    struct tree_entry *const *entries = tree_sorted(dir, &n, &err);

    for (size_t i = 0; i < n; i++) {
        struct tree_inode *inode = entries[i]->inode;
        char *path, *text = NULL;
        ck_assert_int_gt(asprintf(&path, "%s%s", prefix, entries[i]->name), 0);
        if (*out)
            add(out, size, " %s%s", "", "");
        if (inode->names > 1 && inode->scratch) {
            add(out, size, "%s==%s", path, (const char *)(uintptr_t)inode->scratch);
        } else if (S_ISDIR(inode->mode)) {
            ck_assert_int_eq(inode->names, 1);
            ck_assert_ptr_eq(inode->parent, dir);
            add(out, size, "%s/%s", path, "");
            ck_assert_int_gt(asprintf(&text, "%s/", path), 0);
            list(f, inode, text, out, size);
        } else if (S_ISLNK(inode->mode)) {
            add(out, size, "%s>%s", path, inode->target);
        } else if (S_ISFIFO(inode->mode)) {
            add(out, size, "%s|%s", path, "");
        } else if (S_ISREG(inode->mode)) {
            struct tree_data data = layer_store_data(f->store);
            int fd;
            ck_assert_int_eq(data.open(data.opaque, inode, &fd, &err), 0);
            text = calloc(1, inode->size + 1);
            for (size_t k = 0; k < inode->n_extents; k++)
                ck_assert_int_eq(io_pread_exact(fd, text + inode->extents[k].offset,
                                                inode->extents[k].length,
                                                inode->extents[k].source_offset, "x", &err),
                                 0);
            add(out, size, "%s=%s", path, text);
        } else {
            ck_assert_int_gt(asprintf(&text, "%c%u:%u", S_ISBLK(inode->mode) ? 'b' : 'c',
                                      inode->rdev_major, inode->rdev_minor),
                             0);
            add(out, size, "%s:%s", path, text);
        }
        free(text);
        if (inode->names > 1 && !inode->scratch)
            inode->scratch = (uintptr_t)tree_strdup(f->tree, path, strlen(path), &err);
        free(path);
    }
}

static const struct {
    const char *name, *layers, *want;
} cases[] = {
    /* plain things */
    {"nothing", "", ""},
    {"all kinds", "d a; f a/f=x; l a/l>f; c a/c:1:3; b a/b:8:1; p a/p",
     "a/ a/b:b8:1 a/c:c1:3 a/f=x a/l>f a/p|"},
    {"empty file", "f a=", "a="},
    {"implied parents", "f a/b/c=x", "a/ a/b/ a/b/c=x"},
    {"bytes as names", "f %ff%fe=x; f %c3%a9=y", "\xc3\xa9=y \xff\xfe=x"},
    {"longest name", "f %*255,n=x",
     "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"
     "n"
     "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"
     "n"
     "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn=x"},
    {"name too long", "f %*256,n=x", "!longer than 255"},
    {"implied name too long", "f %*256,n/x=x", "!longer than 255"},
    {"path too long", "f %*5000,/x=x", "!at most 4096"},
    {"target too long", "l a>%*4096,t", "!4096 bytes (1 to 4095)"},
    {"symlink to nothing", "l a>", "!a symlink whose target has 0 bytes"},
    {"no name", "f =x", "!an entry without a name"},
    /* what names mean */
    {"dots and slashes", "f ./a=1; f /b=2; f c//./d=3; d e/", "a=1 b=2 c/ c/d=3 e/"},
    {"up stops at the root", "f ../../a=1; f /../b=2", "a=1 b=2"},
    {"up is text", "f x/../a=1", "a=1"},
    {"root entries", "d .; d /; d ./; d ..; f a=1", "a=1"},
    {"root as a symlink", "l .>/tmp", "!the root would become"},
    {"root as a file", "f /=x", "!the root would become"},
    {"root as a device", "c ./:1:3", "!the root would become"},
    {"root as a hard link", "f a=1; h .>a", "!the root would become"},
    {"root by way of up", "l x/..>/tmp", "!the root would become"},
    /* symlinks on the way */
    {"through an absolute symlink", "l a>/tmp/x; f a/f=1", "a>/tmp/x tmp/ tmp/x/ tmp/x/f=1"},
    {"through a climbing symlink", "l a>../../../etc; f a/f=1", "a>../../../etc etc/ etc/f=1"},
    {"through a chain", "d d; l a>b; l b>/d; f a/f=1", "a>b b>/d d/ d/f=1"},
    {"through a loop", "l a>b; l b>a; f a/f=1", "!more than 40 symlinks"},
    {"through a link to itself", "l a>a; f a/f=1", "!more than 40 symlinks"},
    {"through a link to the root", "l a>/; f a/f=1", "a>/ f=1"},
    {"through a link to the root by dots", "l a>.; f a/f=1", "a>. f=1"},
    {"link below a link", "l a>/; l a/b>/etc; f b/passwd=1", "a>/ b>/etc etc/ etc/passwd=1"},
    {"last symlink is not followed", "l a>b; f b=1; f a=2", "a=2 b=1"},
    {"last symlink to a folder is replaced", "d b; l a>b; d a; f a/x=1", "a/ a/x=1 b/"},
    {"in the next layer", "l a>/tmp -- f a/f=1", "a>/tmp tmp/ tmp/f=1"},
    {"up behind a link is text", "l a>/x/y; f a/../f=1", "a>/x/y f=1"},
    {"below a file", "f a=1; f a/b=2", "!not a folder"},
    {"below a file of a lower layer", "f a=1 -- f a/b=2", "!not a folder"},
    {"below a device", "c a:1:3; f a/b=2", "!not a folder"},
    /* hard links */
    {"hard link", "f a=1; h b>a", "a=1 b==a"},
    {"to an absolute name", "f a=1; h b>/a", "a=1 b==a"},
    {"to a climbing name", "f a=1; h b>../../a", "a=1 b==a"},
    {"to a lower layer", "f a=1 -- h b>a", "a=1 b==a"},
    {"to a symlink", "l a>x; h b>a", "a>x b==a"},
    {"to a device", "c a:1:3; h b>a", "a:c1:3 b==a"},
    {"through a symlink", "d d; f d/f=1; l l>/d; h x>l/f", "d/ d/f=1 l>/d x==d/f"},
    {"into the host", "h b>/etc/shadow", "!hard link to \"/etc/shadow\": \"etc\": no such entry"},
    {"into the host by a symlink", "l l>/etc; h b>l/shadow", "!hard link to \"l/shadow\""},
    {"to nothing", "h b>a", "!hard link to \"a\": \"a\": no such entry"},
    {"to nothing yet", "h b>a; f a=1", "!no such entry"},
    {"to a folder", "d a; h b>a", "!which is a folder"},
    {"to the root", "h b>/", "!which is a folder"},
    {"to itself", "f a=1; h a>a", "a=1"},
    {"to itself, absent", "h a>a", "!no such entry"},
    {"over a file", "f a=1; f b=2; h b>a", "a=1 b==a"},
    {"over its own folder", "d a; f a/b=1; h a>a/b", "a=1"},
    {"one name replaced", "f a=1; h b>a -- f a=2", "a=2 b=1"},
    {"one name removed", "f a=1; h b>a -- f .wh.a=", "b=1"},
    {"below a hard link to a symlink", "d d; l l>d; h m>l; f m/f=1", "d/ d/f=1 l>d m==l"},
    /* devices */
    {"largest device", "c a:4095:1048575", "a:c4095:1048575"},
    {"major too large", "c a:4096:0", "!out of range"},
    {"minor too large", "b a:0:1048576", "!out of range"},
    /* duplicates and changes of type */
    {"twice in a layer", "f a=1; f a=2", "a=2"},
    {"folder twice keeps what is in it", "d a; f a/f=1; d a", "a/ a/f=1"},
    {"folder in the next layer keeps it too", "d a; f a/f=1 -- d a", "a/ a/f=1"},
    {"folder to file", "d a; f a/f=1 -- f a=2", "a=2"},
    {"folder to symlink", "d a; f a/f=1 -- l a>b", "a>b"},
    {"file to folder", "f a=1 -- d a; f a/f=2", "a/ a/f=2"},
    {"symlink to folder", "d b; l a>b -- d a; f a/f=2", "a/ a/f=2 b/"},
    {"symlink to file", "l a>/etc/passwd -- f a=1", "a=1"},
    {"device to file", "c a:1:3 -- f a=1", "a=1"},
    /* whiteouts */
    {"whiteout", "f a=1; f b=2 -- f .wh.a=", "b=2"},
    {"of a folder", "d a; f a/b/c=1 -- f .wh.a=", ""},
    {"below a folder", "f a/b=1; f a/c=2 -- f a/.wh.b=", "a/ a/c=2"},
    {"of what is absent", "f .wh.a=; f x/y/.wh.b=", ""},
    {"below a file", "f a=1 -- f a/.wh.b=", "a=1"},
    {"then made anew", "f a=1 -- f .wh.a=; f a=2", "a=2"},
    {"made anew before", "f a=1 -- f a=2; f .wh.a=", "a=2"},
    {"folder made anew", "f a/x=1 -- f .wh.a=; f a/y=2", "a/ a/y=2"},
    {"folder made anew before", "f a/x=1 -- f a/y=2; f .wh.a=", "a/ a/y=2"},
    {"of its own layer only", "f a=1; f .wh.a=", "a=1"},
    {"in the third layer", "f a=1 -- f b=2 -- f .wh.a=", "b=2"},
    {"and back", "f a=1 -- f .wh.a= -- f a=3", "a=3"},
    {"through a symlink", "d d; f d/f=1; l l>d -- f l/.wh.f=", "d/ l>d"},
    {"of the symlink", "d d; f d/f=1; l l>d -- f .wh.l=", "d/ d/f=1"},
    {"alone is nothing", "f .wh.=", "!a whiteout that names nothing"},
    {"of a dot", "f a/.wh..=", "!a whiteout that names nothing"},
    {"of two dots", "f a/.wh...=", "!a whiteout that names nothing"},
    {"as a folder", "f a=1 -- d .wh.a", ""},
    {"as a parent", "f .wh.a/b=1", "!a folder whose name is a whiteout's"},
    {"aufs' own", "f a=1 -- d .wh..wh.plnk; f .wh..wh.plnk/1.2=x; f .wh..wh.aufs=", "a=1"},
    {"opaque", "f a/x=1; f a/s/y=2 -- f a/.wh..wh..opq=; f a/z=3", "a/ a/z=3"},
    {"opaque at the end", "f a/x=1 -- f a/z=3; f a/.wh..wh..opq=", "a/ a/z=3"},
    {"opaque in the middle", "f a/x=1 -- f a/z=3; f a/.wh..wh..opq=; f a/w=4", "a/ a/w=4 a/z=3"},
    {"opaque deep", "f a/s/x=1; f a/t/x=1 -- f a/s/y=2; f a/.wh..wh..opq=", "a/ a/s/ a/s/y=2"},
    {"opaque deep with folder", "f a/s/x=1 -- d a/s; f a/.wh..wh..opq=", "a/ a/s/"},
    {"opaque root", "f a=1 -- f b=2; f .wh..wh..opq=", "b=2"},
    {"opaque of what is absent", "f a/.wh..wh..opq=", ""},
    {"opaque of a file", "f a=1 -- f a/.wh..wh..opq=", "a=1"},
    {"opaque below and above",
     "f a/b/x=1; f a/y=1 -- f a/b/.wh..wh..opq=; f a/b/z=2; f "
     "a/.wh..wh..opq=; f a/b/.wh..wh..opq=",
     "a/ a/b/ a/b/z=2"},
    {"opaque in the next layer again",
     "f a/x=1 -- f a/.wh..wh..opq=; f a/y=2 -- f "
     "a/.wh..wh..opq=; f a/z=3",
     "a/ a/z=3"},
    {"opaque leaves hard links elsewhere", "f a/x=1; h b>a/x -- f a/.wh..wh..opq=", "a/ b=1"},
    {"hard link to what a whiteout took", "f a=1 -- f .wh.a=; h b>a", "!no such entry"},
    {"hard link, then whiteout", "f a=1 -- h b>a; f .wh.a=", "b=1"},
    /* owners */
    {"largest owner", "f a=1 @u4294967294 @g4294967294", "a=1"},
    {"owner -1", "f a=1 @u4294967295", "!out of range"},
    {"owner over 32 bits", "f a=1 @u4294967296", "!out of range"},
    {"group over 32 bits", "f a=1 @g8589934592", "!out of range"},
    {"damaged capability", "f a=1 @xsecurity.capability=zz", "!security.capability is damaged"},
};

UNIT_TEST(table)
{
    static char got[8192];

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        /* In pieces of one byte too: nothing may depend on where the stream is cut. */
        for (size_t piece = 1; piece < 100000; piece *= 317) {
            struct fixture f = begin(NULL);
            struct error err = ERROR_INIT;
            char *layers = strdup(cases[i].layers), *next = layers;
            int rc = 0;
            while (next && rc == 0) {
                char *layer = next;
                next = strstr(layer, " --");
                if (next) {
                    *next = '\0';
                    next += 3;
                }
                struct tar_make t = {0};
                tar_make_script(&t, layer);
                tar_make_end(&t);
                rc = apply(&f, &t, piece, &err);
                tar_make_free(&t);
            }
            got[0] = '\0';
            if (rc == 0)
                list(&f, tree_root(f.tree), "", got, sizeof(got));
            if (cases[i].want[0] == '!')
                ck_assert_msg(rc < 0 && strstr(err.text, cases[i].want + 1),
                              "%s: got \"%s\" \"%s\"", cases[i].name, got, err.text);
            else
                ck_assert_msg(rc == 0 && strcmp(got, cases[i].want) == 0, "%s: got \"%s\" \"%s\"",
                              cases[i].name, got, err.text);
            free(layers);
            end(&f);
        }
    }
}
END_TEST

static struct tree_inode *one(struct fixture *f, const char *path)
{
    struct tree_inode *inode = NULL;
    struct error err;

    ck_assert_int_eq(tree_resolve(f->tree, path, strlen(path), false, &inode, &err), 0);
    return inode;
}

static struct fixture of_script(const char *script)
{
    struct fixture f = begin(NULL);
    struct tar_make t = {0};
    struct error err;

    tar_make_script(&t, script);
    tar_make_end(&t);
    ck_assert_msg(apply(&f, &t, 512, &err) == 0, "%s", err.text);
    tar_make_free(&t);
    return f;
}

UNIT_TEST(attributes)
{
    struct fixture f =
        of_script("d a @m1777 @u7 @g8 @t12.5; f s=x @m6755 @t-1.5; f b=y @t-0.000000001; "
                  "f c=z @t-5; l l>t @m0600; f d=1 @t99999999999.9; f e=1 @t-99999999999; d . "
                  "@m0711 @u3 @t1");
    struct tree_inode *i = one(&f, "a");

    ck_assert_uint_eq(i->mode, S_IFDIR | 01777);
    ck_assert_uint_eq(i->uid, 7);
    ck_assert_uint_eq(i->gid, 8);
    ck_assert_int_eq(i->mtime_sec, 12);
    ck_assert_uint_eq(i->mtime_nsec, 500000000);
    i = one(&f, "s");
    ck_assert_uint_eq(i->mode, S_IFREG | 06755);
    ck_assert_int_eq(i->mtime_sec, -2);
    ck_assert_uint_eq(i->mtime_nsec, 500000000);
    i = one(&f, "b");
    ck_assert_int_eq(i->mtime_sec, -1);
    ck_assert_uint_eq(i->mtime_nsec, 999999999);
    i = one(&f, "c");
    ck_assert_int_eq(i->mtime_sec, -5);
    ck_assert_uint_eq(i->mtime_nsec, 0);
    ck_assert_uint_eq(one(&f, "l")->mode, S_IFLNK | 0777);
    i = one(&f, "d");
    ck_assert_int_eq(i->mtime_sec, 15032385535);
    ck_assert_uint_eq(i->mtime_nsec, 0);
    ck_assert_int_eq(one(&f, "e")->mtime_sec, -2147483648);
    i = tree_root(f.tree);
    ck_assert_uint_eq(i->mode, S_IFDIR | 0711);
    ck_assert_uint_eq(i->uid, 3);
    ck_assert_int_eq(i->mtime_sec, 1);
    end(&f);
}
END_TEST

UNIT_TEST(xattrs)
{
    struct fixture f =
        of_script("f a=1 @xuser.b=2 @xuser.a=1 @xuser.b=3 @xtrusted.t= @xcom.apple.q=x "
                  "@xuser.rootlesscontainers=x @xsystem.nfs4_acl=x @xsecurity.selinux=x; "
                  "l l>a @xuser.b=2 @xtrusted.t=9; d d @xuser.d=1");
    struct tree_inode *i = one(&f, "a");

    ck_assert_uint_eq(i->n_xattrs, 3);
    ck_assert_str_eq(i->xattrs[0].name, "trusted.t");
    ck_assert_uint_eq(i->xattrs[0].size, 0);
    ck_assert_str_eq(i->xattrs[1].name, "user.a");
    ck_assert_str_eq(i->xattrs[2].name, "user.b");
    ck_assert_mem_eq(i->xattrs[2].value, "3", 1);
    i = one(&f, "l");
    ck_assert_uint_eq(i->n_xattrs, 1);
    ck_assert_str_eq(i->xattrs[0].name, "trusted.t");
    ck_assert_uint_eq(one(&f, "d")->n_xattrs, 1);
    end(&f);
}
END_TEST

/* acl(5) as the kernel gives it: version 2, then tag, permissions and id of each entry. */
#define ACL(...) "\2\0\0\0" __VA_ARGS__
#define ACL_ENTRY(tag, perm, id) tag "\0" perm "\0" id
#define NOBODY "\xff\xff\xff\xff"
#define JOE "\xe8\x03\0\0"

UNIT_TEST(acls)
{
    static const char named[] = ACL(
        ACL_ENTRY("\1", "\6", "\0\0\0\0") ACL_ENTRY("\2", "\4", JOE) ACL_ENTRY("\4", "\0", NOBODY)
            ACL_ENTRY("\x10", "\7", NOBODY) ACL_ENTRY("\x20", "\7", NOBODY));
    static const char same[] = ACL(ACL_ENTRY("\1", "\6", NOBODY) ACL_ENTRY("\4", "\4", NOBODY)
                                       ACL_ENTRY("\x20", "\4", NOBODY));
    static const struct {
        const char *name, *value;
        size_t size;
        char type;
        int kept; /* -1: refused */
    } tries[] = {
        {"system.posix_acl_access", named, sizeof(named) - 1, '0', 1},
        {"system.posix_acl_access", named, sizeof(named) - 1, '5', 1},
        {"system.posix_acl_access", named, sizeof(named) - 1, '6', 1},
        {"system.posix_acl_access", named, sizeof(named) - 1, '2', 0}, /* a symlink has none */
        {"system.posix_acl_access", same, sizeof(same) - 1, '0', 0},   /* the mode says it all */
        {"system.posix_acl_access", same, 4, '0', 0},
        {"system.posix_acl_default", same, sizeof(same) - 1, '5', 1},
        {"system.posix_acl_default", same, sizeof(same) - 1, '0', 0}, /* folders only */
        {"system.posix_acl_default", same, 4, '5', 0},
        {"system.posix_acl_access", named, sizeof(named) - 2, '0', -1},
        {"system.posix_acl_access", named, 3, '0', -1},
        {"system.posix_acl_access", named, 0, '0', -1},
        {"system.posix_acl_access", named, 4 + 32, '0', -1}, /* without others */
        {"system.posix_acl_default", named + 8, 20, '5', -1},
        {"system.posix_acl_access", ACL(ACL_ENTRY("\3", "\6", NOBODY)), 12, '0', -1},
        {"system.posix_acl_access", ACL(ACL_ENTRY("\1", "\x8", NOBODY)), 12, '0', -1},
        {"system.posix_acl_access",
         ACL(ACL_ENTRY("\4", "\6", NOBODY) ACL_ENTRY("\1", "\6", NOBODY)
                 ACL_ENTRY("\x20", "\6", NOBODY)),
         28, '0', -1},
        {"system.posix_acl_access",
         ACL(ACL_ENTRY("\1", "\6", NOBODY) ACL_ENTRY("\2", "\6", NOBODY) ACL_ENTRY(
             "\4", "\6", NOBODY) ACL_ENTRY("\x10", "\6", NOBODY) ACL_ENTRY("\x20", "\6", NOBODY)),
         44, '0', -1},
        {"system.posix_acl_access",
         ACL(ACL_ENTRY("\1", "\6", NOBODY) ACL_ENTRY("\2", "\6", JOE) ACL_ENTRY("\4", "\6", NOBODY)
                 ACL_ENTRY("\x20", "\6", NOBODY)),
         36, '0', -1}, /* without the mask */
    };

    for (size_t i = 0; i < ARRAY_SIZE(tries); i++) {
        char key[64];
        struct fixture f = begin(NULL);
        struct tar_make t = {0};
        struct error err = ERROR_INIT;
        (void)snprintf(key, sizeof(key), "SCHILY.xattr.%s", tries[i].name);
        tar_make_pax(&t, key, tries[i].value, tries[i].size);
        tar_make_entry(&t, &(struct tar_make_entry){
                               .path = "a", .type = tries[i].type, .link = "x", .mode = 0751});
        tar_make_end(&t);
        int rc = apply(&f, &t, 512, &err);
        ck_assert_msg(rc == (tries[i].kept < 0 ? -1 : 0), "try %zu: %s", i, err.text);
        if (rc < 0)
            ck_assert_ptr_nonnull(strstr(err.text, "is damaged"));
        else
            ck_assert_msg((int)one(&f, "a")->n_xattrs == tries[i].kept, "try %zu", i);
        if (i == 0) { /* follows the mode, the group's by way of the mask, and its ids are clean */
            const struct tree_xattr *x = one(&f, "a")->xattrs;
            static const char want[] =
                ACL(ACL_ENTRY("\1", "\7", NOBODY) ACL_ENTRY("\2", "\4", JOE)
                        ACL_ENTRY("\4", "\0", NOBODY) ACL_ENTRY("\x10", "\5", NOBODY)
                            ACL_ENTRY("\x20", "\1", NOBODY));
            ck_assert_uint_eq(x->size, sizeof(want) - 1);
            ck_assert_mem_eq(x->value, want, x->size);
        }
        tar_make_free(&t);
        end(&f);
    }
}
END_TEST

/* A later layer's attributes of a folder replace the old ones whole. */
UNIT_TEST(folder_attributes_are_replaced)
{
    struct fixture f = of_script("d a @m0700 @xuser.a=1 @xuser.b=2");
    struct tar_make t = {0};
    struct error err;

    tar_make_script(&t, "d a @m0755 @xuser.c=3");
    tar_make_end(&t);
    ck_assert_int_eq(apply(&f, &t, 512, &err), 0);
    tar_make_free(&t);
    struct tree_inode *i = one(&f, "a");
    ck_assert_uint_eq(i->mode, S_IFDIR | 0755);
    ck_assert_uint_eq(i->n_xattrs, 1);
    ck_assert_str_eq(i->xattrs[0].name, "user.c");
    end(&f);
}
END_TEST

static void limited(const struct layer_limits *limits, const char *script, const char *want)
{
    struct fixture f = begin(limits);
    struct tar_make t = {0};
    struct error err = ERROR_INIT;

    tar_make_script(&t, script);
    tar_make_end(&t);
    ck_assert_int_eq(apply(&f, &t, 512, &err), -1);
    ck_assert_int_eq(err.code, E2BIG);
    ck_assert_msg(strstr(err.text, want), "%s", err.text);
    tar_make_free(&t);
    end(&f);
}

UNIT_TEST(limits)
{
    limited(&(struct layer_limits){.max_entries = 3}, "f a=1; f b=1; f c=1; f d=1",
            "--max-entries");
    limited(&(struct layer_limits){.max_entries = 3}, "f a/b/c/d=1", "--max-entries");
    limited(&(struct layer_limits){.max_bytes = 1024}, "f a=1; f b=2", "--max-bytes");
    limited(&(struct layer_limits){.max_file_size = 3}, "f a=1234", "--max-file-size");
    limited(&(struct layer_limits){.max_metadata = 1000}, "l a>%*900,x", "--max-metadata");
}
END_TEST

UNIT_TEST(depth)
{
    char script[8192] = "f ";
    struct fixture f = begin(NULL);
    struct tar_make t = {0};
    struct error err = ERROR_INIT;

    for (int i = 0; i < 1030; i++)
        strcat(script, "d/");
    strcat(script, "f=1");
    tar_make_script(&t, script);
    tar_make_end(&t);
    ck_assert_int_eq(apply(&f, &t, 4096, &err), -1);
    ck_assert_msg(strstr(err.text, "nested deeper than 1024"), "%s", err.text);
    tar_make_free(&t);
    end(&f);
}
END_TEST

/* A folder of many names, whited out as often: quadratic work would take hours. */
UNIT_TEST(whiteouts_are_linear)
{
    struct fixture f = begin(NULL);
    struct tar_make t = {0};
    struct error err = ERROR_INIT;
    char name[64];

    for (int i = 0; i < 20000; i++) {
        (void)snprintf(name, sizeof(name), "f a/%d=", i);
        tar_make_script(&t, name);
    }
    tar_make_end(&t);
    ck_assert_int_eq(apply(&f, &t, 65536, &err), 0);
    tar_make_free(&t);
    for (int i = 0; i < 20000; i++) {
        (void)snprintf(name, sizeof(name), "f a/new%d=; f a/.wh..wh..opq=; f .wh.a=", i);
        tar_make_script(&t, name);
    }
    tar_make_end(&t);
    ck_assert_msg(apply(&f, &t, 65536, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(tree_count(one(&f, "a")), 20000);
    tar_make_free(&t);
    end(&f);
}
END_TEST
