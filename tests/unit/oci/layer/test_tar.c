// SPDX-License-Identifier: Apache-2.0
/* test_tar.c - headers and records of tar streams: formats, numbers, sparse files, damage
 *
 * Every stream is read whole and in pieces of one byte: nothing may depend on where it is cut.
 */
#include "oci/layer/tar.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/lib/tar_make.h"
#include "tests/lib/unit.h"

#define GNU_MAGIC "ustar  \0"
#define V7_MAGIC "\0\0\0\0\0\0\0\0"

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

/* "TYPE PATH[>TARGET] SIZE OFFSET+LENGTH=DATA... ;" for each entry, or "!ERROR" in place of the
 * rest. */
static void describe(const struct tar_make *t, size_t piece, char *out, size_t size)
{
    struct pieces p = {.data = t->data, .len = t->len, .piece = piece};
    struct tar_source source = {.read = next_piece, .opaque = &p};
    struct error err = ERROR_INIT;
    cleanup_tar_reader struct tar_reader *r = tar_reader_new(&source, &err);
    const struct tar_entry *e;
    FILE *f = fmemopen(out, size, "w");
    int rc;

    while ((rc = tar_reader_next(r, &e, &err)) > 0) {
        (void)fprintf(f, "%c %s", "fhlcbdp"[e->type], e -> path);
        ck_assert_uint_eq(strlen(e->path), e->path_len);
        if (e->target_len)
            (void)fprintf(f, ">%s", e->target);
        if (e->type == TAR_FILE)
            (void)fprintf(f, " %llu", (unsigned long long)e->size);
        for (size_t i = 0; i < e->n_extents; i++) {
            const struct tree_extent *x = &e->extents[i];
            (void)fprintf(f, " %llu+%llu=", (unsigned long long)x->offset,
                          (unsigned long long)x->length);
            if (x->source_offset + x->length <= t->len && x->length <= 32)
                (void)fwrite(t->data + x->source_offset, 1, x->length, f);
        }
        (void)fprintf(f, ";");
    }
    if (rc < 0)
        (void)fprintf(f, "!%s", err.text);
    (void)fclose(f);
}

/* want: the whole description, or with a '!' in front a part of the error behind any entries. */
static void expect(struct tar_make *t, const char *want)
{
    static char got[65536];

    for (size_t piece = 1; piece < 1000000; piece *= 999) {
        describe(t, piece, got, sizeof(got));
        const char *bang = strchr(got, '!');
        if (want[0] == '!')
            ck_assert_msg(bang && strstr(bang, want + 1), "wanted \"%s\", got \"%s\"", want, got);
        else
            ck_assert_msg(strcmp(got, want) == 0, "wanted \"%s\", got \"%s\"", want, got);
    }
    tar_make_free(t);
}

static void put(struct tar_make *t, const struct tar_make_entry *e)
{
    tar_make_entry(t, e);
}
#define PUT(t, ...) put(t, &(struct tar_make_entry){__VA_ARGS__})

static void pax(struct tar_make *t, const char *key, const char *value)
{
    tar_make_pax(t, key, value, strlen(value));
}

/* Writes into the header that begins at offset and sets its checksum right. */
static void poke(struct tar_make *t, size_t header, size_t at, const void *bytes, size_t len)
{
    memcpy(t->data + header + at, bytes, len);
    tar_make_checksum(t, header);
}

UNIT_TEST(formats)
{
    struct tar_make t = {0};
    char magic[9];

    PUT(&t, .path = "old", .data = "1", .magic = V7_MAGIC);
    PUT(&t, .path = "folder/", .magic = V7_MAGIC);
    poke(&t, 1024, 156, "\0", 1);
    PUT(&t, .path = "gnu", .data = "2", .magic = GNU_MAGIC);
    PUT(&t, .path = "ustar", .data = "3");
    PUT(&t, .path = "contiguous", .data = "4", .type = '7');
    tar_make_end(&t);
    expect(&t, "f old 1 0+1=1;d folder/;f gnu 1 0+1=2;f ustar 1 0+1=3;f contiguous 1 0+1=4;");

    /* The prefix field means something in ustar, and less of it in star; GNU has other things
     * there. */
    memcpy(magic, "ustar\00000", 9);
    for (int star = 0; star < 3; star++) {
        PUT(&t, .path = "name", .magic = star == 2 ? GNU_MAGIC : magic);
        poke(&t, 0, 345, "pre", 3);
        if (star == 1)
            poke(&t, 0, 508, "tar\0", 4);
        tar_make_end(&t);
        expect(&t, star == 2 ? "f name 0;" : "f pre/name 0;");
    }
    /* Fields that are full have no NUL. */
    char name[101] = "", prefix[156] = "", want[300];
    memset(name, 'n', 100);
    memset(prefix, 'p', 155);
    PUT(&t, .path = name);
    poke(&t, 0, 345, prefix, 155);
    tar_make_end(&t);
    (void)snprintf(want, sizeof(want), "f %s/%s 0;", prefix, name);
    expect(&t, want);
}
END_TEST

UNIT_TEST(ends)
{
    struct tar_make t = {0};

    tar_make_end(&t);
    expect(&t, "");
    expect(&t, ""); /* no byte at all */
    PUT(&t, .path = "a", .data = "1");
    expect(&t, "f a 1 0+1=1;"); /* without an end */
    PUT(&t, .path = "a", .data = "1");
    t.len = 513;
    expect(&t, "f a 1 0+1=1;"); /* without the padding */
    PUT(&t, .path = "a", .data = "12");
    t.len = 513;
    expect(&t, "!ends in the middle");
    PUT(&t, .path = "a");
    t.len = 511;
    expect(&t, "!ends in the middle");
    PUT(&t, .path = "a");
    tar_make_zeros(&t, 512);
    PUT(&t, .path = "b");
    expect(&t, "!a block of zeros");
    PUT(&t, .path = "a");
    tar_make_end(&t);
    PUT(&t, .path = "hidden");
    expect(&t, "f a 0;");
    pax(&t, "path", "x");
    PUT(&t, .path = "a");
    t.len = 1024;
    expect(&t, "!ends in the middle");
    PUT(&t, .path = "a", .type = 'Z');
    expect(&t, "!entries of type 0x5a are not known");
}
END_TEST

UNIT_TEST(checksums)
{
    struct tar_make t = {0};

    PUT(&t, .path = "a");
    t.data[0] = 'b';
    expect(&t, "!checksum is wrong");
    PUT(&t, .path = "a");
    memcpy(t.data + 148, "\0\0\0\0\0\0\0\0", 8);
    expect(&t, "!checksum is wrong");
    PUT(&t, .path = "a");
    memcpy(t.data + 148, "12x4567", 8);
    expect(&t, "!checksum is no number");
    /* Some old programs summed signed bytes: 0xff counts -1, 256 less. */
    PUT(&t, .path = "\xff");
    unsigned sum = (unsigned)strtoul((char *)t.data + 148, NULL, 8) - 256;
    (void)snprintf((char *)t.data + 148, 8, "%06o", sum);
    expect(&t, "f \xff 0;");
}
END_TEST

UNIT_TEST(numbers)
{
    static const struct {
        const char *field; /* 12 bytes of the size */
        const char *want;
    } tries[] = {
        {"00000000003\0", "f a 3 0+3=abc;"},
        {"          3 ", "f a 3 0+3=abc;"},
        {"3\0\0\0\0\0\0\0\0\0\0\0", "f a 3 0+3=abc;"},
        {"\0\0\0\0\0\0\0\0\0\0\0\0", "f a 0;!checksum"},
        {"000000000003", "f a 3 0+3=abc;"},
        {"\x80\0\0\0\0\0\0\0\0\0\0\3", "f a 3 0+3=abc;"},
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "!size is out of range"},
        {"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", "!size is out of range"},
        {"\x80\0\0\0\x80\0\0\0\0\0\0\0", "!size is out of range"},
        {"\x80\1\0\0\0\0\0\0\0\0\0\0", "!size is out of range"},
        {"-0000000001\0", "!size is no number"},
        {"8\0\0\0\0\0\0\0\0\0\0\0", "!size is no number"},
        {"0x3\0\0\0\0\0\0\0\0\0", "!size is no number"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(tries); i++) {
        struct tar_make t = {0};
        PUT(&t, .path = "a", .data = "abc");
        poke(&t, 0, 124, tries[i].field, 12);
        tar_make_end(&t);
        if (strchr(tries[i].want, '!') && tries[i].want[0] != '!') {
            expect(&t, "!checksum"); /* the data is read as a header */
            continue;
        }
        expect(&t, tries[i].want);
    }
    /* A negative time in base 256, as GNU tar writes those before 1970. */
    struct tar_make t = {0};
    PUT(&t, .path = "a", .mtime = -2);
    struct pieces p = {.data = t.data, .len = t.len, .piece = 512};
    struct tar_source source = {.read = next_piece, .opaque = &p};
    struct error err = ERROR_INIT;
    cleanup_tar_reader struct tar_reader *r = tar_reader_new(&source, &err);
    const struct tar_entry *e;
    ck_assert_int_eq(tar_reader_next(r, &e, &err), 1);
    ck_assert_int_eq(e->mtime_sec, -2);
    tar_make_free(&t);
}
END_TEST

/* The smuggler's cases: which size governs where the next header is. */
UNIT_TEST(sizes)
{
    struct tar_make t = {0};

    pax(&t, "size", "600");
    PUT(&t, .path = "a"); /* its own size is 0 */
    PUT(&t, .path = "smuggled");
    tar_make_zeros(&t, 1024 - 512);
    PUT(&t, .path = "b");
    tar_make_end(&t);
    expect(&t, "f a 600 0+600=;f b 0;");
    pax(&t, "size", "0");
    PUT(&t, .path = "a", .size_field = 512);
    PUT(&t, .path = "b");
    tar_make_end(&t);
    expect(&t, "f a 0;f b 0;");
    pax(&t, "size", "18446744073709551600");
    PUT(&t, .path = "a");
    expect(&t, "!size is out of range");
    pax(&t, "size", "-1");
    PUT(&t, .path = "a");
    expect(&t, "!size has a value that cannot be read");
    pax(&t, "size", "");
    PUT(&t, .path = "a", .data = "1");
    expect(&t, "f a 1 0+1=1;");
    /* What has no data has none, whatever its size says. */
    for (const char *type = "12346"; *type; type++) {
        char want[32];
        PUT(&t, .path = "a", .link = "x", .type = *type, .size_field = 1024);
        PUT(&t, .path = "b");
        tar_make_end(&t);
        (void)snprintf(want, sizeof(want), "%c a>x;f b 0;", "0hlcb0p"[*type - '0']);
        expect(&t, want);
    }
}
END_TEST

UNIT_TEST(long_names)
{
    static char name[TAR_PATH_MAX + 2], want[3 * TAR_PATH_MAX];
    struct tar_make t = {0};

    memset(name, 'x', TAR_PATH_MAX);
    PUT(&t, .type = 'L', .path = "././@LongLink", .data = name, .magic = GNU_MAGIC);
    PUT(&t, .type = 'K', .path = "././@LongLink", .data = "target", .magic = GNU_MAGIC);
    pax(&t, "path", "less");
    PUT(&t, .path = "least", .type = '2', .link = "least", .magic = GNU_MAGIC);
    PUT(&t, .path = "next", .magic = GNU_MAGIC);
    (void)snprintf(want, sizeof(want), "l %s>target;f next 0;", name);
    expect(&t, want);
    name[TAR_PATH_MAX] = 'x';
    PUT(&t, .type = 'L', .path = "././@LongLink", .data = name);
    PUT(&t, .path = "a");
    expect(&t, "!a name of 4097 bytes");
    pax(&t, "path", name);
    PUT(&t, .path = "a");
    expect(&t, "!path has 4097 bytes");
    /* It ends at its NUL, and whatever stands behind that is nothing. */
    PUT(&t, .type = 'L', .path = "l", .data = "abc\0def", .size = 7);
    PUT(&t, .path = "a");
    expect(&t, "f abc 0;");
    tar_make_pax(&t, "path", "a\0b", 3);
    PUT(&t, .path = "a");
    expect(&t, "!contains a NUL byte");
    tar_make_pax(&t, "linkpath", "a\0b", 3);
    PUT(&t, .path = "a");
    expect(&t, "!contains a NUL byte");
    tar_make_pax(&t, "SCHILY.xattr.user.a\0b", "", 0);
    PUT(&t, .path = "a");
    expect(&t, "f a 0;"); /* tar_make_pax() ends the key at its NUL */
}
END_TEST

UNIT_TEST(records)
{
    static const struct {
        const char *data, *want;
    } tries[] = {
        {"9 path=b\n", "f b 0;"},
        {"9 path=b\n9 path=c\n", "f c 0;"}, /* the last one counts */
        {"9 path=b\n8 path=\n", "f a 0;"},  /* an empty one takes it back */
        {"20 comment=whatever\n9 path=b\n", "f b 0;"},
        {"0 path=b\n", "!record's length"},
        {"8 path=b\n", "!record's length"},
        {"11 path=b\n", "!record's length"},
        {"99999999999999999999 path=b\n", "!record's length"},
        {"-9 path=b\n", "!record's length"},
        {" 9 path=b\n", "!record's length"},
        {"9path=b\n", "!record's length"},
        {"9 path=bc", "!record's length"},
        {"9 pathbb\n", "!has no key"},
        {"9 =pathb\n", "!has no key"},
        {"8 uid=x\n", "!uid has a value"},
        {"12 mtime=1.x\n", "!record's length"},
        {"13 mtime=1.x\n", "!mtime has a value"},
        {"30 mtime=99999999999999999999\n", "!mtime has a value"},
        {"31 mtime=999999999999999999999\n", "!mtime has a value"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(tries); i++) {
        struct tar_make t = {0};
        PUT(&t, .type = 'x', .path = "x", .data = tries[i].data);
        PUT(&t, .path = "a");
        tar_make_end(&t);
        expect(&t, tries[i].want);
    }
    /* What holds for all entries means nothing here, and nothing of one entry goes on to the next.
     */
    struct tar_make t = {0};
    PUT(&t, .type = 'g', .path = "g", .data = "9 path=b\n");
    PUT(&t, .path = "a");
    pax(&t, "path", "c");
    PUT(&t, .path = "a");
    PUT(&t, .path = "d");
    expect(&t, "f a 0;f c 0;f d 0;");
    static uint8_t large[TAR_EXTENDED_MAX + 1];
    PUT(&t, .type = 'x', .path = "x", .data = large, .size = sizeof(large));
    PUT(&t, .path = "a");
    expect(&t, "!an extended header of 1048577 bytes");
    for (int i = 0; i < 17; i++)
        PUT(&t, .type = 'g', .path = "g");
    PUT(&t, .path = "a");
    expect(&t, "!more than 16 extended headers");
    char key[300] = "SCHILY.xattr.user.";
    memset(key + 18, 'k', 256);
    pax(&t, key, "v");
    PUT(&t, .path = "a");
    expect(&t, "!attribute's name is empty, longer than 255");
    pax(&t, "SCHILY.xattr.", "v");
    PUT(&t, .path = "a");
    expect(&t, "!attribute's name is empty");
    static char value[TREE_XATTR_VALUE_MAX + 1];
    tar_make_pax(&t, "SCHILY.xattr.user.a", value, sizeof(value));
    PUT(&t, .path = "a");
    expect(&t, "!65537 bytes");
    for (int i = 0; i <= TAR_XATTRS_MAX; i++)
        pax(&t, "SCHILY.xattr.user.a", "v");
    PUT(&t, .path = "a");
    expect(&t, "!more than 1024 extended attributes");
}
END_TEST

UNIT_TEST(libarchive_attributes)
{
    struct tar_make t = {0};
    struct error err = ERROR_INIT;
    const struct tar_entry *e;

    pax(&t, "LIBARCHIVE.xattr.user.a%3db%", "aGVsbG8=");
    pax(&t, "SCHILY.xattr.user.c", "");
    PUT(&t, .path = "a");
    struct pieces p = {.data = t.data, .len = t.len, .piece = 512};
    struct tar_source source = {.read = next_piece, .opaque = &p};
    cleanup_tar_reader struct tar_reader *r = tar_reader_new(&source, &err);
    ck_assert_msg(tar_reader_next(r, &e, &err) == 1, "%s", err.text);
    ck_assert_uint_eq(e->n_xattrs, 2);
    ck_assert_str_eq(e->xattrs[0].name, "user.a=b%");
    ck_assert_uint_eq(e->xattrs[0].size, 5);
    ck_assert_mem_eq(e->xattrs[0].value, "hello", 5);
    ck_assert_uint_eq(e->xattrs[1].size, 0);
    tar_make_free(&t);
    pax(&t, "LIBARCHIVE.xattr.user.a", "a*b");
    PUT(&t, .path = "a");
    expect(&t, "!LIBARCHIVE.xattr. has a value");
}
END_TEST

/* -- sparse files: the three formats in pax records, and GNU's old one ------------------------- */

static void sparse_1_0(struct tar_make *t, const char *size, const char *map, const char *data)
{
    char block[1024] = "";

    (void)snprintf(block, sizeof(block), "%s", map);
    size_t used = (strlen(map) + 511) / 512 * 512;
    memcpy(block + used, data, strlen(data));
    pax(t, "GNU.sparse.major", "1");
    pax(t, "GNU.sparse.minor", "0");
    pax(t, "GNU.sparse.name", "real");
    pax(t, "GNU.sparse.realsize", size);
    PUT(t, .path = "GNUSparseFile.0/real", .data = block, .size = used + strlen(data));
    PUT(t, .path = "next");
    tar_make_end(t);
}

UNIT_TEST(sparse_in_front)
{
    struct tar_make t = {0};

    sparse_1_0(&t, "5000", "2\n10\n3\n4000\n2\n", "abcde");
    expect(&t, "f real 5000 10+3=abc 4000+2=de;f next 0;");
    sparse_1_0(&t, "5000", "0\n", "");
    expect(&t, "f real 5000;f next 0;");
    sparse_1_0(&t, "5000", "1\n5000\n0\n", "");
    expect(&t, "f real 5000;f next 0;");
    sparse_1_0(&t, "4", "1\n0\n5\n", "abcde");
    expect(&t, "!does not fit its data or size");
    sparse_1_0(&t, "50", "1\n0\n6\n", "abcde");
    expect(&t, "!does not fit its data or size");
    sparse_1_0(&t, "50", "1\n0\n4\n", "abcde");
    expect(&t, "!leaves out 1 bytes");
    sparse_1_0(&t, "50", "2\n4\n2\n0\n3\n", "abcde");
    expect(&t, "!overlap or are not in order");
    sparse_1_0(&t, "50", "2\n0\n3\n2\n2\n", "abcde");
    expect(&t, "!overlap or are not in order");
    sparse_1_0(&t, "50", "1\n18446744073709551600\n100\n", "a");
    expect(&t, "!beyond any file's end");
    sparse_1_0(&t, "50", "1\n9223372036854775807\n1\n", "a");
    expect(&t, "!beyond any file's end");
    sparse_1_0(&t, "50", "999999999\n", "");
    expect(&t, "!more than 262144 pieces");
    sparse_1_0(&t, "50", "-1\n", "");
    expect(&t, "!its map is damaged");
    sparse_1_0(&t, "50", "x\n", "");
    expect(&t, "!its map is damaged");
    sparse_1_0(&t, "50", "9999999999999999999999999\n", "");
    expect(&t, "!its map is damaged");
    pax(&t, "GNU.sparse.major", "1");
    pax(&t, "GNU.sparse.minor", "0");
    pax(&t, "GNU.sparse.realsize", "5");
    PUT(&t, .path = "a", .data = "3");
    expect(&t, "!longer than its data");
    pax(&t, "GNU.sparse.major", "1");
    pax(&t, "GNU.sparse.minor", "0");
    PUT(&t, .path = "a", .data = "0\n");
    expect(&t, "!its size is missing");
    pax(&t, "GNU.sparse.major", "2");
    PUT(&t, .path = "a");
    expect(&t, "!format 2.0 is not known");
}
END_TEST

UNIT_TEST(sparse_in_records)
{
    struct tar_make t = {0};

    /* 0.1: one record */
    pax(&t, "GNU.sparse.name", "real");
    pax(&t, "GNU.sparse.size", "5000");
    pax(&t, "GNU.sparse.numblocks", "2");
    pax(&t, "GNU.sparse.map", "10,3,4000,2");
    PUT(&t, .path = "x", .data = "abcde");
    PUT(&t, .path = "next");
    expect(&t, "f real 5000 10+3=abc 4000+2=de;f next 0;");
    /* 0.0: two records a piece */
    pax(&t, "GNU.sparse.size", "5000");
    pax(&t, "GNU.sparse.numblocks", "3");
    pax(&t, "GNU.sparse.offset", "10");
    pax(&t, "GNU.sparse.numbytes", "3");
    pax(&t, "GNU.sparse.offset", "4000");
    pax(&t, "GNU.sparse.numbytes", "2");
    pax(&t, "GNU.sparse.offset", "5000");
    pax(&t, "GNU.sparse.numbytes", "0");
    PUT(&t, .path = "a", .data = "abcde");
    PUT(&t, .path = "next");
    expect(&t, "f a 5000 10+3=abc 4000+2=de;f next 0;");
    static const char *const bad[][2] = {
        {"GNU.sparse.map", "10"},      {"GNU.sparse.map", "10,"},     {"GNU.sparse.map", ",,"},
        {"GNU.sparse.map", "3,2,1,1"}, {"GNU.sparse.map", "x,1"},     {"GNU.sparse.offset", "1"},
        {"GNU.sparse.numbytes", "1"},  {"GNU.sparse.realsize", "-1"}, {"GNU.sparse.offset", ""},
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        pax(&t, "GNU.sparse.size", "5000");
        pax(&t, bad[i][0], bad[i][1]);
        PUT(&t, .path = "a", .data = "abcde");
        expect(&t, "!");
    }
    pax(&t, "GNU.sparse.map", "0,5");
    PUT(&t, .path = "a", .data = "abcde");
    expect(&t, "!its size is missing");
}
END_TEST

/* tar.h of GNU tar: from 386 on four pieces of two numbers, a mark at 482 and the size at 483; in
 * the blocks behind, 21 pieces and a mark at 504. */
static void old_sparse(struct tar_make *t, unsigned pieces, unsigned extended, const char *real)
{
    size_t header = t->len;
    char text[24];

    tar_make_header(
        t, &(struct tar_make_entry){.path = "a", .type = 'S', .size = pieces, .magic = GNU_MAGIC});
    uint8_t *h = t->data + header;
    for (unsigned i = 0; i < pieces && i < 4; i++) {
        (void)snprintf(text, sizeof(text), "%011o", 100 * i);
        memcpy(h + 386 + 24 * i, text, 12);
        memcpy(h + 386 + 24 * i + 12, "00000000001", 12);
    }
    h[482] = extended > 0;
    memcpy(h + 483, real, strlen(real));
    tar_make_checksum(t, header);
    for (unsigned block = 0; block < extended; block++) {
        size_t at = t->len;
        tar_make_zeros(t, 512);
        for (unsigned i = 0; i < 21 && 4 + 21 * block + i < pieces; i++) {
            (void)snprintf(text, sizeof(text), "%011o", 100 * (4 + 21 * block + i));
            memcpy(t->data + at + 24 * i, text, 12);
            memcpy(t->data + at + 24 * i + 12, "00000000001", 12);
        }
        t->data[at + 504] = block + 1 < extended;
    }
    for (unsigned i = 0; i < pieces; i++)
        tar_make_bytes(t, &(char){(char)('a' + i % 26)}, 1);
    tar_make_pad(t);
    PUT(t, .path = "next");
    tar_make_end(t);
}

UNIT_TEST(sparse_old_gnu)
{
    struct tar_make t = {0};
    static char want[4096];

    old_sparse(&t, 3, 0, "00000010000");
    expect(&t, "f a 4096 0+1=a 100+1=b 200+1=c;f next 0;");
    old_sparse(&t, 30, 2, "00000010000");
    int n = snprintf(want, sizeof(want), "f a 4096");
    for (int i = 0; i < 30; i++)
        n += snprintf(want + n, sizeof(want) - (size_t)n, " %d+1=%c", 100 * i, 'a' + i % 26);
    (void)snprintf(want + n, sizeof(want) - (size_t)n, ";f next 0;");
    expect(&t, want);
    old_sparse(&t, 3, 0, "00000000144"); /* 100 bytes */
    expect(&t, "!does not fit its data or size");
    old_sparse(&t, 4, 3, "00000010000"); /* empty blocks in the chain */
    expect(&t, "!its map is damaged");
    old_sparse(&t, 3, 0, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff");
    expect(&t, "!a negative size");
    old_sparse(&t, 3, 0, "00000010000");
    poke(&t, 0, 386, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12);
    expect(&t, "!a negative offset or size");
    old_sparse(&t, 30, 2, "00000010000");
    t.len = 512;
    expect(&t, "!ends in the middle");
}
END_TEST
