// SPDX-License-Identifier: Apache-2.0
/* test_pack.c - archives: round trips, maps of holes, what a damaged one may do
 * threads: yes */
#include "tests/lib/unit.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "blueprint/pack/chunks.h"
#include "blueprint/pack/private.h"
#include "runtime/base/io.h"

#define MIB (1u << 20)

static void make_file(const char *path, uint64_t size, uint64_t *seed, unsigned pieces)
{
    static uint8_t buf[3 * MIB];
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
    for (unsigned i = 0; i < pieces && size; i++) {
        uint64_t at = unit_random(seed) % size;
        size_t len = (size_t)(unit_random(seed) % sizeof(buf));
        len = len > size - at ? (size_t)(size - at) : len;
        for (size_t j = 0; j < len; j++)
            buf[j] = (uint8_t)(unit_random(seed) >> 50);
        ck_assert_int_eq(pwrite(fd, buf, len, (off_t)at), (ssize_t)len);
    }
    ck_assert_int_eq(close(fd), 0);
}

static char *slurp(const char *path, size_t *len)
{
    char *p = io_read_file(AT_FDCWD, path, 64 * MIB, len, NULL);
    ck_assert_ptr_nonnull(p);
    return p;
}

static void same(const char *a, const char *b)
{
    size_t la, lb;
    cleanup_free char *x = slurp(a, &la), *y = slurp(b, &lb);

    ck_assert_uint_eq(la, lb);
    ck_assert_int_eq(memcmp(x, y, la), 0);
}

static void create(const char *path, const struct pack_source *sources, size_t n)
{
    struct error err = ERROR_INIT;
    const struct pack_create c = {
        .path = path, .sources = sources, .n_sources = n, .level = 1, .threads = 2};

    ck_assert_msg(pack_create(&c, NULL, &err) == 0, "%s", err.text);
}

UNIT_TEST(round_trip_of_random_files)
{
    static const char *const names[] = {"kernel", "memory", "my-disk", "state"};
    struct pack_source sources[4];
    struct pack_target targets[4];
    struct pack_listing l;
    struct error err = ERROR_INIT;
    uint64_t seed = unit_seed();
    char paths[8][16];

    for (unsigned i = 0; i < 4; i++) {
        (void)snprintf(paths[i], sizeof(paths[i]), "in%u", i);
        (void)snprintf(paths[4 + i], sizeof(paths[i]), "out%u", i);
        make_file(paths[i], i ? unit_random(&seed) % (20 * MIB) : 0, &seed, i);
        sources[i] = (struct pack_source){.name = names[i], .path = paths[i]};
        targets[3 - i] = (struct pack_target){.name = names[i], .path = paths[4 + i]};
    }
    create("a.tar.zst", sources, 4);
    ck_assert_msg(pack_extract("a.tar.zst", targets, 4, PACK_SIZE_MAX, false, NULL, &l, &err) == 0,
                  "%s", err.text);
    ck_assert(l.has_digests);
    ck_assert_uint_eq(l.n_items, 4);
    for (unsigned i = 0; i < 4; i++)
        same(paths[i], paths[4 + i]);
    ck_assert_str_eq(l.items[0].file, "vmlinux");
    ck_assert_str_eq(l.items[2].file, "my-disk");
    /* The same again, byte by byte. */
    create("b.tar.zst", sources, 4);
    same("a.tar.zst", "b.tar.zst");
}
END_TEST

UNIT_TEST(holes_stay_holes)
{
    struct error err = ERROR_INIT;
    const struct pack_source src = {.name = "memory", .path = "mem"};
    const struct pack_target dst = {.name = "memory", .path = "out"};
    struct pack_listing l;
    struct stat st;
    int fd = open("mem", O_RDWR | O_CREAT | O_TRUNC, 0644);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, INT64_C(9) << 30), 0);
    ck_assert_int_eq(pwrite(fd, "here", 4, INT64_C(8) << 30), 4);
    ck_assert_int_eq(pwrite(fd, "end", 3, (INT64_C(9) << 30) - 3), 3);
    create("a.tar.zst", &src, 1);
    ck_assert_msg(pack_extract("a.tar.zst", &dst, 1, PACK_SIZE_MAX, false, NULL, &l, &err) == 0,
                  "%s", err.text);
    ck_assert_uint_le(l.items[0].stored, 64u << 10);
    ck_assert_int_eq(stat("out", &st), 0);
    ck_assert_int_eq(st.st_size, INT64_C(9) << 30);
    ck_assert_int_le(st.st_blocks, 512);
    int out = open("out", O_RDONLY);
    char buf[4];
    ck_assert_int_eq(pread(out, buf, 4, INT64_C(8) << 30), 4);
    ck_assert_int_eq(memcmp(buf, "here", 4), 0);
    ck_assert_int_eq(pread(out, buf, 4, (INT64_C(9) << 30) - 3), 3);
    ck_assert_int_eq(memcmp(buf, "end", 3), 0);
    ck_assert_int_eq(pack_extract("a.tar.zst", &dst, 1, UINT64_C(8) << 30, false, NULL, NULL, &err),
                     -1);
    ck_assert_int_eq(err.code, EFBIG);
}
END_TEST

UNIT_TEST(the_digest_is_that_of_the_pieces)
{
    struct error err = ERROR_INIT;
    static uint8_t data[2 * MIB + 77];
    uint8_t sums[3 * SHA256_SIZE], want[SHA256_SIZE];
    uint64_t seed = unit_seed();
    struct pack_listing l;
    const struct pack_source src = {.name = "x", .path = "x"};

    for (size_t i = 0; i < MIB; i++) /* the second piece is zeros */
        data[i] = (uint8_t)(unit_random(&seed) >> 40);
    data[2 * MIB + 76] = 1;
    ck_assert_int_eq(digest_of(data, MIB, sums, &err), 0);
    ck_assert_int_eq(digest_of(data + MIB, MIB, sums + 32, &err), 0);
    ck_assert_int_eq(digest_of(data + 2 * MIB, 77, sums + 64, &err), 0);
    ck_assert_int_eq(digest_of(sums, sizeof(sums), want, &err), 0);
    int fd = open("x", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    ck_assert_int_eq(io_write(fd, data, sizeof(data), "x", &err), 0);
    create("a.tar.zst", &src, 1);
    ck_assert_int_eq(pack_list("a.tar.zst", PACK_SIZE_MAX, NULL, &l, &err), 0);
    ck_assert_int_eq(memcmp(l.items[0].sum, want, SHA256_SIZE), 0);
}
END_TEST

/* The map against a plain bitmap of pages. */
UNIT_TEST(extents_cover_all_data_within_their_limit)
{
    uint64_t seed = unit_seed();
    struct error err = ERROR_INIT;

    for (unsigned round = 0; round < 50; round++) {
        enum { PAGES = 4096 };
        static bool page[PAGES];
        struct pack_extents e = {0};
        size_t max = 2 + unit_random(&seed) % 40, cursor = 0, at = 0;
        memset(page, 0, sizeof(page));
        while (at < PAGES) {
            at += unit_random(&seed) % 50;
            size_t len = 1 + unit_random(&seed) % 20;
            if (at + len > PAGES)
                break;
            memset(page + at, 1, len);
            ck_assert_int_eq(pack_extents_add(&e, at * 4096, len * 4096, max, &err), 0);
            at += len;
        }
        ck_assert_uint_le(e.n, max);
        for (size_t i = 1; i < e.n; i++)
            ck_assert_uint_gt(e.items[i].offset, e.items[i - 1].offset + e.items[i - 1].len);
        for (size_t i = 0; i < PAGES; i++)
            if (pack_extents_hole(&e, &cursor, i * 4096, 4096))
                ck_assert(!page[i]);
        pack_extents_free(&e);
    }
}
END_TEST

/* ---- archives by other hands ---- */

struct other {
    const char *name, *content;
    unsigned type; /* AE_IF... */
};

static void make_other(const char *path, const struct other *list, size_t n, size_t cut_tar,
                       bool checksum)
{
    static char tar[8 * MIB], packed[8 * MIB];
    size_t used = 0;
    struct archive *a = archive_write_new();

    archive_write_set_format_pax_restricted(a);
    archive_write_add_filter_none(a);
    archive_write_set_bytes_per_block(a, 0);
    ck_assert_int_eq(archive_write_open_memory(a, tar, sizeof(tar), &used), ARCHIVE_OK);
    for (size_t i = 0; i < n; i++) {
        struct archive_entry *e = archive_entry_new();
        archive_entry_set_pathname(e, list[i].name);
        archive_entry_set_filetype(e, list[i].type ? list[i].type : AE_IFREG);
        archive_entry_set_perm(e, 0644);
        if (list[i].type == AE_IFLNK)
            archive_entry_set_symlink(e, list[i].content);
        else
            archive_entry_set_size(e, (la_int64_t)strlen(list[i].content));
        ck_assert_int_eq(archive_write_header(a, e), ARCHIVE_OK);
        if (list[i].type != AE_IFLNK)
            ck_assert_int_ge(archive_write_data(a, list[i].content, strlen(list[i].content)), 0);
        archive_entry_free(e);
    }
    ck_assert_int_eq(archive_write_close(a), ARCHIVE_OK);
    archive_write_free(a);
    ZSTD_CCtx *z = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(z, ZSTD_c_checksumFlag, checksum);
    size_t len = ZSTD_compress2(z, packed, sizeof(packed), tar, used - cut_tar);
    ck_assert(!ZSTD_isError(len));
    ZSTD_freeCCtx(z);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    ck_assert_int_eq(io_write(fd, packed, len, path, NULL), 0);
    (void)close(fd);
}

static void refused(const char *path, int code, const char *text)
{
    struct error err = ERROR_INIT;
    struct pack_listing l;
    const struct pack_target t = {.name = "kernel", .path = "refused"};

    ck_assert_int_eq(pack_list(path, PACK_SIZE_MAX, NULL, &l, &err), -1);
    ck_assert_msg(err.code == code && strstr(err.text, text) && strstr(err.text, path), "%d %s",
                  err.code, err.text);
    ck_assert_int_eq(pack_extract(path, &t, 1, PACK_SIZE_MAX, false, NULL, NULL, &err), -1);
    ck_assert_int_ne(access("refused", F_OK), 0);
}

UNIT_TEST(other_hands_archives)
{
    struct error err = ERROR_INIT;
    struct pack_listing l;
    const struct other good[] = {{"kernel", "vm", 0}, {"disk", "", 0}, {"a-b.c", "x", 0}};

    make_other("good", good, 3, 0, true);
    ck_assert_msg(pack_list("good", PACK_SIZE_MAX, NULL, &l, &err) == 0, "%s", err.text);
    ck_assert(!l.has_digests);
    ck_assert_str_eq(l.items[1].file, "rootfs.ext4");

    make_other("end", good, 3, 1024, true);
    refused("end", EBADMSG, "cut off");
    const struct other twice[] = {{"kernel", "a", 0}, {"disk", "", 0}, {"kernel", "b", 0}};
    make_other("twice", twice, 3, 0, true);
    refused("twice", EBADMSG, "entry kernel: is there twice");
    const struct other up[] = {{"kernel", "a", 0}, {"../kernel", "a", 0}};
    make_other("up", up, 2, 0, true);
    refused("up", EBADMSG, "../kernel");
    const struct other link[] = {{"kernel", "/etc/passwd", AE_IFLNK}};
    make_other("link", link, 1, 0, true);
    refused("link", EBADMSG, "entry \"kernel\": is no regular file");
    const struct other behind[] = {{PACK_TRAILER, "{}", 0}, {"kernel", "a", 0}};
    make_other("behind", behind, 2, 0, true);
    refused("behind", EBADMSG, "must be the last");
    static const char trailer[] =
        "{\"format\":\"drafter-archive\",\"version\":1,\"entries\":[{\"name\":\"disk\",\"file\":"
        "\"d\",\"size\":1,\"chunks\":"
        "\"0000000000000000000000000000000000000000000000000000000000000000\"}]}";
    const struct other lost[] = {{"kernel", "a", 0}, {PACK_TRAILER, trailer, 0}};
    make_other("lost", lost, 2, 0, true);
    refused("lost", EBADMSG, "missing device: disk");
    const struct other wrong[] = {{"disk", "a", 0}, {PACK_TRAILER, trailer, 0}};
    make_other("wrong", wrong, 2, 0, true);
    refused("wrong", EBADMSG, "entry disk: is damaged");
    const struct other size[] = {{"disk", "ab", 0}, {PACK_TRAILER, trailer, 0}};
    make_other("size", size, 2, 0, true);
    refused("size", EBADMSG, "has 2 bytes, drafter.json says 1");
    const struct other more[] = {{"disk", "a", 0}, {"kernel", "b", 0}, {PACK_TRAILER, trailer, 0}};
    make_other("more", more, 3, 0, true);
    refused("more", EBADMSG, "damaged"); /* found first */
}
END_TEST

/* Every cut, and a bit wrong in any byte: an error, or (a bit that says nothing, as zstd's reserved
 * ones) the very same content; never a crash, never a file that is wrong. */
UNIT_TEST(a_damaged_archive_gives_nothing)
{
    const struct pack_source src = {.name = "kernel", .path = "k"};
    const struct pack_target dst = {.name = "kernel", .path = "o"};
    struct error err = ERROR_INIT;
    size_t len;
    int fd = open("k", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    ck_assert_int_eq(io_write(fd, "some text, not long", 19, "k", NULL), 0);
    create("whole", &src, 1);
    cleanup_free char *whole = slurp("whole", &len);
    for (size_t i = 0; i < 2 * len; i++) {
        bool cut = i >= len;
        size_t at = cut ? i - len : i;
        int out = open("bad", O_RDWR | O_CREAT | O_TRUNC, 0644);
        whole[at] ^= cut ? 0 : 1 << (at % 8);
        ck_assert_int_eq(io_write(out, whole, cut ? at : len, "bad", NULL), 0);
        whole[at] ^= cut ? 0 : 1 << (at % 8);
        (void)close(out);
        int rc = pack_extract("bad", &dst, 1, PACK_SIZE_MAX, false, NULL, NULL, &err);
        if (rc == 0) {
            ck_assert(!cut);
            same("k", "o");
            ck_assert_int_eq(unlink("o"), 0);
        }
        ck_assert_int_ne(access("o", F_OK), 0);
    }
}
END_TEST

UNIT_TEST(a_full_disk_is_said)
{
    struct error err = ERROR_INIT;
    const struct pack_source src = {.name = "x", .path = "x"};
    uint64_t seed = unit_seed();
    uint8_t sum[SHA256_SIZE];

    make_file("x", 3 * MIB, &seed, 4);
    create("a", &src, 1);
    /* /dev/full refuses every write. */
    int full = open("/dev/full", O_WRONLY);
    ck_assert_int_ge(full, 0);
    cleanup_chunks struct chunks *c = chunks_new(2, &err);
    chunks_begin(c, full, "file");
    int rc = 0;
    for (unsigned i = 0; i < 40 && rc == 0; i++) {
        uint8_t *p = chunks_get(c, &err);
        if (!p) {
            rc = -1;
            break;
        }
        memset(p, 1, PACK_CHUNK);
        rc = chunks_put(c, PACK_CHUNK, &err);
    }
    if (rc == 0)
        rc = chunks_end(c, sum, &err);
    ck_assert_int_eq(rc, -1);
    ck_assert_int_eq(err.code, ENOSPC);
}
END_TEST
