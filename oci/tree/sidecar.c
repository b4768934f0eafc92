// SPDX-License-Identifier: Apache-2.0
/* sidecar.c - attributes that an unpacked folder cannot hold when its maker is not root */
#include "oci/tree/sidecar.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "runtime/base/io.h"
#include "runtime/base/parse.h"

#define MAGIC "drafter-attributes"
#define VERSION 1

static void put_text(FILE *file, const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        if (*p > ' ' && *p < 0x7f && *p != '%' && *p != '=')
            (void)putc(*p, file);
        else
            (void)fprintf(file, "%%%02X", *p);
}

int sidecar_begin(FILE *file, uint32_t uid, uint32_t gid, struct error *err)
{
    if (fprintf(file, MAGIC " %d %" PRIu32 " %" PRIu32 "\n", VERSION, uid, gid) < 0)
        return error_sys(err, "%s: write", SIDECAR_NAME);
    return 0;
}

int sidecar_write(FILE *file, const struct sidecar_entry *e, struct error *err)
{
    put_text(file, e->path);
    (void)fprintf(file,
                  " %06" PRIo32 " %" PRIu32 " %" PRIu32 " %" PRIu32 ":%" PRIu32 " %06" PRIo32
                  " %" PRIu64 " %" PRId64 ".%09" PRIu32,
                  e->mode, e->uid, e->gid, e->rdev_major, e->rdev_minor, e->as_mode, e->as_size,
                  e->as_mtime_sec, e->as_mtime_nsec);
    for (size_t i = 0; i < e->n_xattrs; i++) {
        (void)putc(' ', file);
        put_text(file, e->xattrs[i].name);
        (void)putc('=', file);
        for (size_t k = 0; k < e->xattrs[i].size; k++)
            (void)fprintf(file, "%02x", e->xattrs[i].value[k]);
    }
    (void)putc('\n', file);
    if (ferror(file))
        return error_sys(err, "%s: write", SIDECAR_NAME);
    return 0;
}

bool sidecar_is(int fd)
{
    char head[sizeof(MAGIC)];

    return io_pread(fd, head, sizeof(head), 0, "", NULL) == sizeof(head) &&
           memcmp(head, MAGIC " ", sizeof(head)) == 0;
}

/* Cuts the next word off a line. */
static char *next_word(char **line)
{
    char *word = *line, *end;

    if (!word || !*word)
        return NULL;
    end = strchr(word, ' ');
    if (end)
        *end++ = '\0';
    *line = end;
    return word;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Undoes put_text() in place. */
static int get_text(char *text)
{
    char *to = text;

    for (const char *p = text; *p; p++) {
        if (*p != '%') {
            *to++ = *p;
            continue;
        }
        int high = hex_digit(p[1]), low = high < 0 ? -1 : hex_digit(p[2]);
        if (low < 0 || (high == 0 && low == 0))
            return -1;
        *to++ = (char)(high << 4 | low);
        p += 2;
    }
    *to = '\0';
    return 0;
}

/* A number of the given base that ends at `end`; *text moves behind it. */
static int get_number(char **text, char end, int base, uint64_t max, uint64_t *ret)
{
    uint64_t n = 0;
    char *p = *text;

    if (*p == end)
        return -1;
    for (; *p && *p != end; p++) {
        uint64_t digit = (uint64_t)(*p - '0');
        if (*p < '0' || digit >= (uint64_t)base || n > (max - digit) / (uint64_t)base)
            return -1;
        n = n * (uint64_t)base + digit;
    }
    if (*p != end)
        return -1;
    *ret = n;
    *text = p + (end != '\0');
    return 0;
}

static int get_u32(char **line, int base, uint32_t *ret)
{
    char *word = next_word(line);
    uint64_t n;

    if (!word || get_number(&word, '\0', base, UINT32_MAX, &n) < 0)
        return -1;
    *ret = (uint32_t)n;
    return 0;
}

static int get_entry(char **line, char **ret_path, struct sidecar_entry *e)
{
    uint64_t n;
    char *word = next_word(line);

    if (!word || get_text(word) < 0)
        return -1;
    *ret_path = word;
    if (get_u32(line, 8, &e->mode) < 0 || get_u32(line, 10, &e->uid) < 0 ||
        get_u32(line, 10, &e->gid) < 0)
        return -1;
    word = next_word(line);
    if (!word || get_number(&word, ':', 10, UINT32_MAX, &n) < 0)
        return -1;
    e->rdev_major = (uint32_t)n;
    if (get_number(&word, '\0', 10, UINT32_MAX, &n) < 0)
        return -1;
    e->rdev_minor = (uint32_t)n;
    if (get_u32(line, 8, &e->as_mode) < 0)
        return -1;
    word = next_word(line);
    if (!word || get_number(&word, '\0', 10, INT64_MAX, &e->as_size) < 0)
        return -1;
    word = next_word(line);
    if (!word)
        return -1;
    bool minus = *word == '-';
    word += minus;
    if (get_number(&word, '.', 10, INT64_MAX, &n) < 0)
        return -1;
    e->as_mtime_sec = minus ? -(int64_t)n : (int64_t)n;
    if (get_number(&word, '\0', 10, 999999999, &n) < 0)
        return -1;
    e->as_mtime_nsec = (uint32_t)n;
    switch (e->mode & S_IFMT) {
    case S_IFREG:
    case S_IFDIR:
    case S_IFLNK:
    case S_IFIFO:
    case S_IFSOCK:
        return (e->as_mode & S_IFMT) == (e->mode & S_IFMT) ? 0 : -1;
    case S_IFCHR:
    case S_IFBLK:
        return S_ISREG(e->as_mode) || (e->as_mode & S_IFMT) == (e->mode & S_IFMT) ? 0 : -1;
    }
    return -1;
}

/* The object at path, by names only: a symlink on the way is none of the unpacker's folders. */
static struct tree_inode *find(const struct tree *tree, const char *path)
{
    struct tree_inode *inode = tree_root(tree);

    while (*path) {
        size_t len = strcspn(path, "/");
        struct tree_entry *e = inode->dir ? tree_lookup(inode, path, len) : NULL;
        if (!e)
            return NULL;
        inode = e->inode;
        path += len;
        path += *path == '/';
    }
    return inode;
}

static int apply_entry(struct tree *tree, char *rest, const char *path,
                       const struct sidecar_entry *e, struct sidecar_result *result,
                       struct error *err)
{
    struct tree_inode *inode = find(tree, path);

    if (!inode || (inode->mode & S_IFMT) != (e->as_mode & S_IFMT) ||
        (!S_ISDIR(e->mode) && (inode->size != e->as_size || inode->mtime_sec != e->as_mtime_sec ||
                               inode->mtime_nsec != e->as_mtime_nsec))) {
        result->stale++;
        return 0;
    }
    for (char *word; (word = next_word(&rest));) {
        char *hex = strchr(word, '=');
        if (!hex)
            return error_set(err, EBADMSG, "an attribute without a value");
        *hex++ = '\0';
        size_t digits = strlen(hex);
        cleanup_free uint8_t *value = malloc(digits / 2 + 1);
        if (!value)
            return error_oom(err);
        if (get_text(word) < 0 || parse_hex(hex, digits, value, digits / 2) < 0)
            return error_set(err, EBADMSG, "attribute \"%.64s\": not in hex", word);
        if (tree_set_xattr(tree, inode, word, value, digits / 2, err) < 0)
            return -1;
    }
    uint32_t perm =
        (inode->mode & 07777) == (e->as_mode & 07777) ? e->mode & 07777 : inode->mode & 07777;
    inode->mode = (e->mode & S_IFMT) | perm;
    inode->uid = e->uid;
    inode->gid = e->gid;
    if (S_ISCHR(e->mode) || S_ISBLK(e->mode)) {
        inode->rdev_major = e->rdev_major;
        inode->rdev_minor = e->rdev_minor;
        inode->size = 0;
        inode->n_extents = 0;
    }
    result->applied++;
    return 0;
}

/* The first line: version and owner. Cuts the line up. */
static int get_head(char *line, uint32_t *ret_uid, uint32_t *ret_gid, struct error *err)
{
    uint32_t version;
    char *word = next_word(&line);

    if (!word || strcmp(word, MAGIC) != 0 || get_u32(&line, 10, &version) < 0)
        return error_set(err, EBADMSG, "line 1: is not \"" MAGIC " VERSION UID GID\"");
    if (version != VERSION)
        return error_set(err, ENOTSUP, "version %" PRIu32 " (this program knows %d)", version,
                         VERSION);
    if (get_u32(&line, 10, ret_uid) < 0 || get_u32(&line, 10, ret_gid) < 0 || line)
        return error_set(err, EBADMSG, "line 1: is not \"" MAGIC " VERSION UID GID\"");
    return 0;
}

int sidecar_owner(int fd, const char *what, uint32_t *ret_uid, uint32_t *ret_gid, struct error *err)
{
    char line[128];
    ssize_t n = io_pread(fd, line, sizeof(line) - 1, 0, what, err);

    if (n < 0)
        return -1;
    line[n] = '\0';
    line[strcspn(line, "\n")] = '\0';
    if (get_head(line, ret_uid, ret_gid, err) < 0)
        return error_wrap(err, "%s", what);
    return 0;
}

static int apply_lines(struct tree *tree, FILE *file, struct sidecar_result *result,
                       struct error *err)
{
    cleanup_free char *line = NULL;
    size_t size = 0;
    uint64_t number = 0;

    for (ssize_t len; (len = getline(&line, &size, file)) >= 0;) {
        struct sidecar_entry e = {0};
        char *rest = line, *path = NULL;
        uint32_t uid, gid;

        number++;
        if (len == 0 || line[len - 1] != '\n' || strlen(line) != (size_t)len)
            return error_set(err, EBADMSG, "line %" PRIu64 ": has no end, or a NUL byte", number);
        line[len - 1] = '\0';
        if (number == 1) {
            if (get_head(line, &uid, &gid, err) < 0)
                return -1;
            continue;
        }
        if (get_entry(&rest, &path, &e) < 0)
            return error_set(err, EBADMSG, "line %" PRIu64 ": malformed", number);
        if (apply_entry(tree, rest, path, &e, result, err) < 0)
            return error_wrap(err, "line %" PRIu64, number);
    }
    if (ferror(file))
        return error_sys(err, "read");
    return number ? 0 : error_set(err, EBADMSG, "is empty");
}

int sidecar_apply(struct tree *tree, int fd, const char *what, struct sidecar_result *ret_result,
                  struct error *err)
{
    struct sidecar_result result = {0};
    uint64_t size;

    if (io_size(fd, what, &size, err) < 0)
        return -1;
    if (size > SIDECAR_SIZE_MAX)
        return error_set(err, EFBIG, "%s: %" PRIu64 " bytes (at most %u)", what, size,
                         SIDECAR_SIZE_MAX);
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    cleanup_fclose FILE *file = copy < 0 ? NULL : fdopen(copy, "r");
    if (!file) {
        if (copy >= 0)
            (void)close(copy);
        return error_sys(err, "%s", what);
    }
    rewind(file);
    if (apply_lines(tree, file, &result, err) < 0)
        return error_wrap(err, "%s", what);
    if (ret_result)
        *ret_result = result;
    return 0;
}

static size_t put_field(uint8_t *to, uint8_t tag, uint32_t n)
{
    size_t len = 0;

    if (!n)
        return 0;
    to[len++] = tag;
    for (; n >= 0x80; n >>= 7)
        to[len++] = (uint8_t)(n | 0x80);
    to[len++] = (uint8_t)n;
    return len;
}

size_t rootless_encode(uint32_t uid, uint32_t gid, uint8_t ret_value[ROOTLESS_VALUE_MAX])
{
    size_t len = put_field(ret_value, 1 << 3, uid);

    return len + put_field(ret_value + len, 2 << 3, gid);
}

static int get_varint(struct cursor *c, uint64_t *ret)
{
    uint64_t n = 0;
    uint8_t byte;

    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (cursor_u8(c, &byte) < 0)
            return -1;
        n |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *ret = n;
            return 0;
        }
    }
    return -1;
}

/* Protocol buffers encoding: a tag is field number << 3 | wire type. */
int rootless_decode(const uint8_t *value, size_t size, uint32_t *ret_uid, uint32_t *ret_gid,
                    struct error *err)
{
    struct cursor c = {.p = value, .left = size};
    uint64_t owner[2] = {0, 0}, tag, n;
    const uint8_t *skipped;
    int rc = 0;

    while (rc == 0 && c.left) {
        rc = get_varint(&c, &tag);
        if (rc < 0)
            break;
        switch (tag & 7) {
        case 0:
            rc = get_varint(&c, &n);
            if (rc == 0 && (tag >> 3 == 1 || tag >> 3 == 2))
                owner[(tag >> 3) - 1] = n;
            break;
        case 1:
            rc = cursor_bytes(&c, 8, &skipped);
            break;
        case 2:
            rc = get_varint(&c, &n);
            if (rc == 0)
                rc = n <= c.left ? cursor_bytes(&c, (size_t)n, &skipped) : -1;
            break;
        case 5:
            rc = cursor_bytes(&c, 4, &skipped);
            break;
        default:
            rc = -1;
        }
    }
    if (rc < 0 || owner[0] > UINT32_MAX || owner[1] > UINT32_MAX)
        return error_set(err, EBADMSG, "xattr " ROOTLESS_XATTR ": malformed");
    *ret_uid = (uint32_t)owner[0];
    *ret_gid = (uint32_t)owner[1];
    return 0;
}
