// SPDX-License-Identifier: Apache-2.0
/* test_ext4.c - random trees, written as ext4 and read back with libext2fs
 *
 * The reference is the tree itself. File data comes from one pattern file, so a file's content is
 * known from its extents. The same tree with its extents cut otherwise must give the same bytes.
 */
#include <ext2fs/ext2fs.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "oci/ext4/ext4.h"
#include "runtime/base/digest.h"
#include "tests/lib/unit.h"

#define PATTERN (1u << 20)
#define BLOCK 4096u

/* Bytes that look like nothing in particular; the third quarter has blocks of zeros. */
static uint8_t pattern_byte(uint64_t at)
{
    if (at >= PATTERN / 2 && at < PATTERN * 3 / 4 && at / BLOCK % 3)
        return 0;
    uint64_t h = (at / 7 + 1) * UINT64_C(0x9E3779B97F4A7C15);
    return (uint8_t)(h >> (at % 7 * 8));
}

static int pattern_open(void *opaque, const struct tree_inode *inode, int *ret_fd,
                        struct error *err)
{
    (void)inode;
    int fd = open(opaque, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_sys(err, "pattern");
    *ret_fd = fd;
    return 0;
}

static void pattern_close(void *opaque, int fd)
{
    (void)opaque;
    (void)close(fd);
}

static struct tree *new_tree(void)
{
    static char path[] = "pattern";
    struct error err;
    struct tree *tree = tree_new(&err);

    ck_assert_ptr_nonnull(tree);
    if (access(path, F_OK) < 0) {
        FILE *f = fopen(path, "w");
        for (uint64_t i = 0; i < PATTERN; i++)
            (void)putc(pattern_byte(i), f);
        ck_assert_int_eq(fclose(f), 0);
    }
    tree_set_data(
        tree, &(struct tree_data){.open = pattern_open, .close = pattern_close, .opaque = path});
    return tree;
}

static uint64_t below(uint64_t *state, uint64_t n)
{
    return unit_random(state) % n;
}

static void random_file(struct tree *tree, struct tree_inode *inode, uint64_t *state)
{
    struct error err;
    unsigned n = (unsigned)below(state, below(state, 8) ? 4 : 700);
    uint64_t at = 0;

    inode->extents = tree_alloc(tree, (n + 1) * sizeof(*inode->extents), &err);
    ck_assert_ptr_nonnull(inode->extents);
    for (unsigned i = 0; i < n; i++) {
        uint64_t len = 1 + below(state, below(state, 3) ? 9000 : 100000);
        if (n > 100)
            len = 1 + below(state, 5000);
        at += below(state, 2) ? below(state, 20000) : 0;
        if (below(state, 500) == 0)
            at += UINT64_C(5) << 30;
        inode->extents[inode->n_extents++] = (struct tree_extent){
            .offset = at, .length = len, .source_offset = below(state, PATTERN - len)};
        at += len;
    }
    inode->size = at + (below(state, 3) ? 0 : below(state, 100000));
}

static void random_xattrs(struct tree *tree, struct tree_inode *inode, uint64_t *state)
{
    static const char *const spaces[] = {"user.", "trusted.", "security."};
    struct error err = ERROR_INIT;
    uint8_t *value = malloc(TREE_XATTR_VALUE_MAX);
    unsigned n = (unsigned)below(state, 6);

    for (unsigned i = 0; i < n; i++) {
        char name[64];
        size_t size = below(state, 4)   ? below(state, 60)
                      : below(state, 2) ? below(state, 4000)
                                        : below(state, TREE_XATTR_VALUE_MAX + 1);
        (void)snprintf(name, sizeof(name), "%sn%u",
                       spaces[below(state, S_ISREG(inode->mode) ? 3 : 2)],
                       (unsigned)below(state, 1000000));
        for (size_t k = 0; k < size; k++)
            value[k] = pattern_byte(k + i);
        ck_assert_int_eq(tree_set_xattr(tree, inode, name, value, size, &err), 0);
    }
    free(value);
}

static struct tree *random_tree(uint64_t *state, unsigned n)
{
    static const uint32_t types[] = {S_IFREG, S_IFREG, S_IFREG, S_IFDIR, S_IFDIR,
                                     S_IFLNK, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK};
    struct error err = ERROR_INIT;
    struct tree *tree = new_tree();
    struct tree_inode **dirs = calloc(n + 1, sizeof(*dirs)),
                      **others = calloc(n + 1, sizeof(*dirs));
    size_t n_dirs = 1, n_others = 0;
    bool one_folder = below(state, 3) == 0;

    dirs[0] = tree_root(tree);
    for (unsigned i = 0; i < n; i++) {
        struct tree_inode *dir = dirs[one_folder ? 0 : below(state, n_dirs)];
        char name[256];
        size_t len = 1 + below(state, below(state, 4) ? 20 : 255);
        for (size_t k = 0; k < len; k++)
            do
                name[k] = (char)(1 + below(state, 255));
            while (name[k] == '/');
        if (tree_lookup(dir, name, len) || (len < 3 && name[0] == '.'))
            continue;
        if (n_others && below(state, 10) == 0) { /* a hard link */
            ck_assert_ptr_nonnull(
                tree_link(tree, dir, name, len, others[below(state, n_others)], &err));
            continue;
        }
        struct tree_inode *inode = tree_inode_new(
            tree, types[below(state, ARRAY_SIZE(types))] | (uint32_t)below(state, 010000), &err);
        inode->uid = (uint32_t)unit_random(state) >> below(state, 31);
        inode->gid = (uint32_t)unit_random(state) >> below(state, 31);
        inode->mtime_sec =
            (int64_t)below(state, EXT4_EPOCH_MAX + (INT64_C(1) << 31)) - (INT64_C(1) << 31);
        inode->mtime_nsec = (uint32_t)below(state, 1000000000);
        if (S_ISREG(inode->mode))
            random_file(tree, inode, state);
        if (S_ISLNK(inode->mode)) {
            size_t size = 1 + below(state, below(state, 2) ? 80 : TREE_TARGET_MAX);
            inode->target = tree_alloc(tree, size + 1, &err);
            memset(inode->target, 't', size);
            inode->target[size] = '\0';
        }
        if (S_ISCHR(inode->mode) || S_ISBLK(inode->mode)) {
            inode->rdev_major = (uint32_t)below(state, below(state, 2) ? 256 : 4096);
            inode->rdev_minor = (uint32_t)below(state, below(state, 2) ? 256 : 1048576);
        }
        if (below(state, 5) == 0)
            random_xattrs(tree, inode, state);
        ck_assert_ptr_nonnull(tree_link(tree, dir, name, len, inode, &err));
        if (inode->dir)
            dirs[n_dirs++] = inode;
        else
            others[n_others++] = inode;
    }
    free(dirs);
    free(others);
    return tree;
}

/* --- reading back --- */

static uint8_t expected_byte(const struct tree_inode *inode, uint64_t at)
{
    for (size_t i = 0; i < inode->n_extents; i++)
        if (at >= inode->extents[i].offset &&
            at - inode->extents[i].offset < inode->extents[i].length)
            return pattern_byte(inode->extents[i].source_offset + at - inode->extents[i].offset);
    return 0;
}

/* All data, and the first and last byte of each hole. */
static void check_data(ext2_filsys fs, ext2_ino_t ino, const struct tree_inode *inode)
{
    ext2_file_t file;
    static uint8_t got[PATTERN];
    unsigned n;

    ck_assert_int_eq(ext2fs_file_open(fs, ino, 0, &file), 0);
    for (size_t i = 0; i < inode->n_extents; i++) {
        const struct tree_extent *e = &inode->extents[i];
        ck_assert_int_eq(ext2fs_file_llseek(file, e->offset, EXT2_SEEK_SET, NULL), 0);
        ck_assert_int_eq(ext2fs_file_read(file, got, (unsigned)e->length, &n), 0);
        ck_assert_uint_eq(n, e->length);
        for (uint64_t k = 0; k < n; k++)
            if (got[k] != pattern_byte(e->source_offset + k))
                ck_assert_msg(got[k] == pattern_byte(e->source_offset + k), "extent %zu byte %zu",
                              i, (size_t)k);
        uint64_t ends[] = {e->offset + e->length, e->offset ? e->offset - 1 : 0};
        for (unsigned k = 0; k < 2; k++) {
            if (ends[k] >= inode->size)
                continue;
            ck_assert_int_eq(ext2fs_file_llseek(file, ends[k], EXT2_SEEK_SET, NULL), 0);
            ck_assert_int_eq(ext2fs_file_read(file, got, 1, &n), 0);
            ck_assert_uint_eq(got[0], expected_byte(inode, ends[k]));
        }
    }
    ck_assert_int_eq(ext2fs_file_close(file), 0);
}

static void check_xattrs(ext2_filsys fs, ext2_ino_t ino, const struct tree_inode *inode)
{
    struct ext2_xattr_handle *h;
    size_t count;

    ck_assert_int_eq(ext2fs_xattrs_open(fs, ino, &h), 0);
    ck_assert_int_eq(ext2fs_xattrs_read(h), 0);
    ck_assert_int_eq(ext2fs_xattrs_count(h, &count), 0);
    ck_assert_uint_eq(count, inode->n_xattrs);
    for (size_t i = 0; i < inode->n_xattrs; i++) {
        void *value = NULL;
        size_t size;
        ck_assert_int_eq(ext2fs_xattr_get(h, inode->xattrs[i].name, &value, &size), 0);
        ck_assert_uint_eq(size, inode->xattrs[i].size);
        ck_assert(size == 0 || memcmp(value, inode->xattrs[i].value, size) == 0);
        ext2fs_free_mem(&value);
    }
    ck_assert_int_eq(ext2fs_xattrs_close(&h), 0);
}

static int64_t seconds(uint32_t low, uint32_t extra)
{
    return (int64_t)(int32_t)low + ((int64_t)(extra & 3) << 32);
}

static void check_inode(ext2_filsys fs, ext2_ino_t ino, const struct tree_inode *inode)
{
    struct ext2_inode_large got;

    ck_assert_int_eq(ext2fs_read_inode_full(fs, ino, (struct ext2_inode *)&got, sizeof(got)), 0);
    ck_assert_uint_eq(got.i_mode, inode->mode);
    ck_assert_uint_eq(inode_uid(got), inode->uid);
    ck_assert_uint_eq(inode_gid(got), inode->gid);
    ck_assert_int_eq(seconds(got.i_mtime, got.i_mtime_extra), inode->mtime_sec);
    ck_assert_uint_eq(got.i_mtime_extra >> 2, inode->mtime_nsec);
    ck_assert_int_eq(seconds(got.i_crtime, got.i_crtime_extra), inode->mtime_sec);
    check_xattrs(fs, ino, inode);
    if (!inode->dir)
        ck_assert_uint_eq(got.i_links_count, inode->names);
    if (S_ISREG(inode->mode)) {
        ck_assert_uint_eq(EXT2_I_SIZE(&got), inode->size);
        check_data(fs, ino, inode);
    } else if (S_ISLNK(inode->mode)) {
        char target[BLOCK + 1] = "";
        size_t len = strlen(inode->target);
        ck_assert_uint_eq(EXT2_I_SIZE(&got), len);
        if (len < 60) {
            ck_assert_mem_eq(got.i_block, inode->target, len);
        } else {
            ext2_file_t file;
            unsigned n;
            ck_assert_int_eq(ext2fs_file_open(fs, ino, 0, &file), 0);
            ck_assert_int_eq(ext2fs_file_read(file, target, BLOCK, &n), 0);
            ck_assert_uint_eq(n, len);
            ck_assert_mem_eq(target, inode->target, len);
            ck_assert_int_eq(ext2fs_file_close(file), 0);
        }
    } else if (S_ISCHR(inode->mode) || S_ISBLK(inode->mode)) {
        uint32_t old = got.i_block[0], new = got.i_block[1];
        if (old) {
            ck_assert_uint_eq(old >> 8, inode->rdev_major);
            ck_assert_uint_eq(old & 0xff, inode->rdev_minor);
        } else {
            ck_assert_uint_eq((new >> 8) & 0xfff, inode->rdev_major);
            ck_assert_uint_eq((new & 0xff) | (new >> 12 & 0xfff00), inode->rdev_minor);
        }
    }
}

struct listing {
    ext2_filsys fs;
    const struct tree_inode *dir;
    uint32_t *inos; /* by tree inode's scratch */
    size_t n;
};

static int visit(struct ext2_dir_entry *entry, int offset, int size, char *buf, void *opaque)
{
    struct listing *l = opaque;
    size_t len = (size_t)ext2fs_dirent_name_len(entry);

    (void)offset;
    (void)size;
    (void)buf;
    if ((len == 1 && entry->name[0] == '.') || (len == 2 && memcmp(entry->name, "..", 2) == 0) ||
        (entry->inode == 11 && len == 10))
        return 0;
    struct tree_entry *e = tree_lookup(l->dir, entry->name, len);
    ck_assert_ptr_nonnull(e);
    ck_assert_uint_eq(entry->inode, e->inode->scratch);
    l->n++;
    return 0;
}

static void check_folder(ext2_filsys fs, const struct tree_inode *dir)
{
    struct listing l = {.fs = fs, .dir = dir};
    struct tree_entry *e;
    size_t cursor = 0;

    check_inode(fs, (ext2_ino_t)dir->scratch, dir);
    ck_assert_int_eq(ext2fs_dir_iterate(fs, (ext2_ino_t)dir->scratch, 0, NULL, visit, &l), 0);
    ck_assert_uint_eq(l.n, tree_count(dir));
    while ((e = tree_next(dir, &cursor))) {
        ext2_ino_t ino;
        ck_assert_int_eq(
            ext2fs_lookup(fs, (ext2_ino_t)dir->scratch, e->name, (int)e->name_len, NULL, &ino), 0);
        ck_assert_uint_eq(ino, e->inode->scratch);
        if (e->inode->dir)
            check_folder(fs, e->inode);
        else
            check_inode(fs, ino, e->inode);
    }
}

static void write_image(struct tree *tree, const char *path, uint64_t free_bytes,
                        uint8_t ret_sum[SHA256_SIZE])
{
    struct ext4_options options = {.label = "model", .free_bytes = free_bytes, .epoch = 1};
    struct ext4_result result;
    struct error err = ERROR_INIT;
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    ck_assert_int_ge(fd, 0);
    ck_assert_msg(ext4_write(tree, fd, &options, NULL, &result, &err) == 0, "%s", err.text);
    ck_assert_int_eq(lseek(fd, 0, SEEK_END), (off_t)result.size);
    ck_assert_uint_ge(result.size - result.used, free_bytes);
    ck_assert_int_eq(digest_of_fd(fd, path, ret_sum, NULL, &err), 0);
    ck_assert_int_eq(close(fd), 0);
}

/* The same content told in smaller pieces, some of them told as holes. */
static void cut_extents(struct tree *tree, struct tree_inode *dir, uint64_t *state)
{
    struct tree_entry *e;
    size_t cursor = 0;

    while ((e = tree_next(dir, &cursor))) {
        struct tree_inode *inode = e->inode;
        struct error err;
        if (inode->dir)
            cut_extents(tree, inode, state);
        if (!inode->n_extents || inode->layer)
            continue;
        inode->layer = 1; /* done, whatever other name leads here */
        struct tree_extent *cut = tree_alloc(tree, 3 * inode->n_extents * sizeof(*cut), &err);
        size_t n = 0;
        for (size_t i = 0; i < inode->n_extents; i++) {
            struct tree_extent left = inode->extents[i];
            for (unsigned k = 0; k < 2 && left.length > 1; k++) {
                uint64_t len = 1 + below(state, left.length - 1);
                cut[n++] = (struct tree_extent){left.offset, len, left.source_offset};
                left.offset += len;
                left.source_offset += len;
                left.length -= len;
            }
            cut[n++] = left;
        }
        inode->extents = cut;
        inode->n_extents = n;
    }
}

UNIT_TEST(random_trees)
{
    uint64_t state = unit_seed() | 1;
    uint8_t sum[SHA256_SIZE], again[SHA256_SIZE];

    for (unsigned round = 0; round < 5; round++) {
        struct tree *tree = random_tree(&state, 1 + (unsigned)below(&state, 200));
        uint64_t room = below(&state, 2) ? 0 : below(&state, 1000) << 20;
        ext2_filsys fs;

        write_image(tree, "image", room, sum);
        ck_assert_int_eq(ext2fs_open("image", 0, 0, 0, unix_io_manager, &fs), 0);
        ck_assert_int_eq(ext2fs_read_bitmaps(fs), 0);
        check_folder(fs, tree_root(tree));
        ck_assert_int_eq(ext2fs_close(fs), 0);
        ck_assert_int_eq(system("e2fsck -fn image >e2fsck.log 2>&1 || { cat e2fsck.log; exit 1; }"),
                         0);
        cut_extents(tree, tree_root(tree), &state);
        write_image(tree, "image2", room, again);
        ck_assert_mem_eq(sum, again, SHA256_SIZE);
        tree_free(tree);
    }
}
END_TEST

/* Data that ends around the edge of a group, where the next one starts with a copy of the
 * descriptors; the journal and tables then straddle it. */
UNIT_TEST(content_around_group_edges)
{
    for (int d = -4; d <= 4; d += 2) {
        struct error err;
        struct tree *tree = new_tree();
        struct tree_inode *inode = tree_inode_new(tree, S_IFREG | 0644, &err);
        uint8_t sum[SHA256_SIZE];
        unsigned n = 128;
        ext2_filsys fs;

        inode->extents = tree_alloc(tree, n * sizeof(*inode->extents), &err);
        uint64_t left = (uint64_t)(32768 - 5 + d) * BLOCK, at = 0;
        while (left) { /* the first half of the pattern has no zeros */
            uint64_t len = left < PATTERN / 2 ? left : PATTERN / 2;
            if (inode->n_extents == n) {
                struct tree_extent *more = tree_alloc(tree, 2 * n * sizeof(*more), &err);
                memcpy(more, inode->extents, n * sizeof(*more));
                inode->extents = more;
                n *= 2;
            }
            inode->extents[inode->n_extents++] = (struct tree_extent){.offset = at, .length = len};
            at += len;
            left -= len;
        }
        inode->size = at;
        ck_assert_ptr_nonnull(tree_link(tree, tree_root(tree), "f", 1, inode, &err));
        write_image(tree, "image", 0, sum);
        ck_assert_int_eq(system("e2fsck -fn image >e2fsck.log 2>&1 || { cat e2fsck.log; exit 1; }"),
                         0);
        ck_assert_int_eq(ext2fs_open("image", 0, 0, 0, unix_io_manager, &fs), 0);
        inode->n_extents = 1; /* enough to compare */
        inode->size = inode->extents[0].length;
        check_data(fs, (ext2_ino_t)inode->scratch, inode);
        ck_assert_int_eq(ext2fs_close(fs), 0);
        tree_free(tree);
    }
}
END_TEST
