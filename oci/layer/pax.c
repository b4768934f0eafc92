// SPDX-License-Identifier: Apache-2.0
/* pax.c - the records of a pax extended header
 *
 * A record is "LENGTH KEY=VALUE\n", LENGTH counting itself (POSIX.1-2017 pax, "pax Extended
 * Header"). Known are the keys that decide what a file is; others (atime, comment, uname, vendors')
 * are no part of an image. An empty value takes a key back, but for extended attributes, where it
 * is an attribute with an empty value.
 */
#include "oci/layer/pax.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define SCHILY_XATTR "SCHILY.xattr."
#define LIBARCHIVE_XATTR "LIBARCHIVE.xattr."

int pax_decimal(const char *text, size_t len, uint64_t *ret_value)
{
    uint64_t v = 0;

    if (len == 0)
        return -1;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9' || v > (UINT64_MAX - 9) / 10)
            return -1;
        v = v * 10 + (uint64_t)(text[i] - '0');
    }
    *ret_value = v;
    return 0;
}

static int bad_value(const char *key, size_t key_len, struct error *err)
{
    return error_set(err, EBADMSG, "extended header: %.*s has a value that cannot be read",
                     key_len > 64 ? 64 : (int)key_len, key);
}

static int signed_decimal(const char *text, size_t len, int64_t *ret_value)
{
    bool minus = len && text[0] == '-';
    uint64_t v;

    if (pax_decimal(text + minus, len - minus, &v) < 0 || v > INT64_MAX)
        return -1;
    *ret_value = minus ? -(int64_t)v : (int64_t)v;
    return 0;
}

/* "-1.5" is half a second before -1: whole seconds round down, nanoseconds count up from there.
 * Digits behind the ninth are cut off. */
static int parse_time(const char *text, size_t len, int64_t *ret_sec, uint32_t *ret_nsec)
{
    const char *dot = memchr(text, '.', len);
    size_t whole = dot ? (size_t)(dot - text) : len;
    bool minus = len && text[0] == '-';
    uint64_t v, nsec = 0;

    if (pax_decimal(text + minus, whole - minus, &v) < 0 || v > INT64_MAX - 1)
        return -1;
    if (dot) {
        size_t digits = len - whole - 1;
        for (size_t i = 0; i < digits; i++)
            if (dot[1 + i] < '0' || dot[1 + i] > '9')
                return -1;
        for (size_t i = 0; i < 9; i++)
            nsec = nsec * 10 + (i < digits ? (uint64_t)(dot[1 + i] - '0') : 0);
    }
    *ret_sec = minus ? -(int64_t)v : (int64_t)v;
    if (minus && nsec) {
        *ret_sec -= 1;
        nsec = 1000000000 - nsec;
    }
    *ret_nsec = (uint32_t)nsec;
    return 0;
}

static int set_text(struct pax_text *t, const char *key, const char *value, size_t len,
                    struct error *err)
{
    free(t->text);
    t->text = NULL;
    t->len = 0;
    if (len == 0)
        return 0;
    if (len > TAR_PATH_MAX)
        return error_set(err, E2BIG, "extended header: %s has %zu bytes (at most %d)", key, len,
                         TAR_PATH_MAX);
    if (memchr(value, '\0', len))
        return error_set(err, EBADMSG, "extended header: %s contains a NUL byte", key);
    t->text = malloc(len + 1);
    if (!t->text)
        return error_oom(err);
    memcpy(t->text, value, len);
    t->text[len] = '\0';
    t->len = len;
    return 0;
}

static int add_xattr(struct pax *pax, char *name, size_t name_len, uint8_t *value, size_t size,
                     struct error *err)
{
    if (pax->n_xattrs == TAR_XATTRS_MAX)
        return error_set(err, E2BIG, "more than %d extended attributes", TAR_XATTRS_MAX);
    if (name_len == 0 || name_len > TREE_XATTR_NAME_MAX || memchr(name, '\0', name_len))
        return error_set(err, EBADMSG,
                         "an extended attribute's name is empty, longer than %d bytes or contains "
                         "a NUL byte",
                         TREE_XATTR_NAME_MAX);
    if (size > TREE_XATTR_VALUE_MAX)
        return error_set(err, E2BIG, "extended attribute \"%.*s\": %zu bytes (at most %d)",
                         (int)name_len, name, size, TREE_XATTR_VALUE_MAX);
    if (pax->n_xattrs == pax->xattrs_room) {
        size_t room = pax->xattrs_room ? pax->xattrs_room * 2 : 8;
        struct tar_xattr *all = realloc(pax->xattrs, room * sizeof(*all));
        if (!all)
            return error_oom(err);
        pax->xattrs = all;
        pax->xattrs_room = room;
    }
    char *n = malloc(name_len + 1);
    uint8_t *v = malloc(size ? size : 1);
    if (!n || !v) {
        free(n);
        free(v);
        return error_oom(err);
    }
    memcpy(n, name, name_len);
    n[name_len] = '\0';
    if (size)
        memcpy(v, value, size);
    pax->xattrs[pax->n_xattrs++] = (struct tar_xattr){.name = n, .value = v, .size = size};
    return 0;
}

static int hex_digit(int c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* libarchive writes names with %XX and values in base64, with or without padding. */
static int add_libarchive_xattr(struct pax *pax, const char *name, size_t name_len,
                                const char *value, size_t len, struct error *err)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    cleanup_free char *n = malloc(name_len + 1);
    cleanup_free uint8_t *v = malloc(len / 4 * 3 + 4);
    size_t n_len = 0, v_len = 0;
    uint32_t bits = 0, have = 0;

    if (!n || !v)
        return error_oom(err);
    for (size_t i = 0; i < name_len; i++) {
        int hi = -1, lo = -1;
        if (name[i] == '%' && i + 2 < name_len) {
            hi = hex_digit(name[i + 1]);
            lo = hex_digit(name[i + 2]);
        }
        if (hi >= 0 && lo >= 0) {
            n[n_len++] = (char)(hi * 16 + lo);
            i += 2;
        } else {
            n[n_len++] = name[i];
        }
    }
    while (len && value[len - 1] == '=')
        len--;
    for (size_t i = 0; i < len; i++) {
        const char *d = value[i] ? strchr(digits, value[i]) : NULL;
        if (!d)
            return bad_value(LIBARCHIVE_XATTR, strlen(LIBARCHIVE_XATTR), err);
        bits = bits << 6 | (uint32_t)(d - digits);
        have += 6;
        if (have >= 8) {
            have -= 8;
            v[v_len++] = (uint8_t)(bits >> have);
        }
    }
    return add_xattr(pax, n, n_len, v, v_len, err);
}

int pax_add_piece(struct pax *pax, uint64_t offset, uint64_t length, struct error *err)
{
    uint64_t end;

    if (__builtin_add_overflow(offset, length, &end) || end > INT64_MAX)
        return error_set(err, EBADMSG, "sparse file: a piece lies beyond any file's end");
    if (pax->n_map) {
        const struct tree_extent *last = &pax->map[pax->n_map - 1];
        if (offset < last->offset + last->length)
            return error_set(err, EBADMSG, "sparse file: its pieces overlap or are not in order");
    }
    if (length == 0)
        return 0;
    if (pax->n_map == TAR_SPARSE_MAX)
        return error_set(err, E2BIG, "sparse file: more than %d pieces", TAR_SPARSE_MAX);
    if (pax->n_map == pax->map_room) {
        size_t room = pax->map_room ? pax->map_room * 2 : 16;
        struct tree_extent *map = realloc(pax->map, room * sizeof(*map));
        if (!map)
            return error_oom(err);
        pax->map = map;
        pax->map_room = room;
    }
    pax->map[pax->n_map++] = (struct tree_extent){.offset = offset, .length = length};
    return 0;
}

/* GNU.sparse.map of format 0.1: "offset,length,offset,length". */
static int parse_map(struct pax *pax, const char *text, size_t len, struct error *err)
{
    uint64_t pair[2] = {0};
    unsigned which = 0;

    pax->n_map = 0;
    while (len) {
        const char *comma = memchr(text, ',', len);
        size_t n = comma ? (size_t)(comma - text) : len;
        if (pax_decimal(text, n, &pair[which]) < 0)
            return bad_value("GNU.sparse.map", 14, err);
        if (which == 1 && pax_add_piece(pax, pair[0], pair[1], err) < 0)
            return -1;
        which ^= 1;
        text += n + (comma ? 1 : 0);
        len -= n + (comma ? 1 : 0);
    }
    return which ? bad_value("GNU.sparse.map", 14, err) : 0;
}

static bool is_key(const char *key, size_t key_len, const char *name)
{
    return key_len == strlen(name) && memcmp(key, name, key_len) == 0;
}

/* Records "GNU.sparse.*"; key is without that. */
static int sparse_record(struct pax *pax, const char *key, size_t key_len, const char *value,
                         size_t len, struct error *err)
{
    uint64_t v = 0;

    if (is_key(key, key_len, "name"))
        return set_text(&pax->sparse_name, "GNU.sparse.name", value, len, err);
    if (is_key(key, key_len, "map")) {
        pax->have |= PAX_SPARSE_0;
        return parse_map(pax, value, len, err);
    }
    bool size = is_key(key, key_len, "size") || is_key(key, key_len, "realsize");
    bool offset = is_key(key, key_len, "offset"), bytes = is_key(key, key_len, "numbytes");
    bool major = is_key(key, key_len, "major"), minor = is_key(key, key_len, "minor");
    if (!size && !offset && !bytes && !major && !minor)
        return 0; /* numblocks and others repeat what is known */
    if (pax_decimal(value, len, &v) < 0 || v > INT64_MAX)
        return bad_value("GNU.sparse", 10, err);
    if (size) {
        pax->real_size = v;
        pax->have |= PAX_REALSIZE;
    } else if (major || minor) {
        *(major ? &pax->sparse_major : &pax->sparse_minor) = v;
    } else if (offset) {
        pax->have |= PAX_SPARSE_0;
        if (pax->map_open || pax_add_piece(pax, v, 1, err) < 0)
            return bad_value("GNU.sparse.offset", 17, err);
        pax->map_open = true;
    } else {
        if (!pax->map_open)
            return bad_value("GNU.sparse.numbytes", 19, err);
        uint64_t at = pax->map[--pax->n_map].offset;
        pax->map_open = false;
        return pax_add_piece(pax, at, v, err);
    }
    return 0;
}

static int number_record(struct pax *pax, const char *key, size_t key_len, const char *value,
                         size_t len, struct error *err)
{
    unsigned field = 0;
    int rc = 0;

    if (is_key(key, key_len, "size")) {
        field = PAX_SIZE;
        rc = len ? pax_decimal(value, len, &pax->size) : 0;
    } else if (is_key(key, key_len, "uid")) {
        field = PAX_UID;
        rc = len ? signed_decimal(value, len, &pax->uid) : 0;
    } else if (is_key(key, key_len, "gid")) {
        field = PAX_GID;
        rc = len ? signed_decimal(value, len, &pax->gid) : 0;
    } else if (is_key(key, key_len, "mtime")) {
        field = PAX_MTIME;
        rc = len ? parse_time(value, len, &pax->mtime_sec, &pax->mtime_nsec) : 0;
    }
    if (rc < 0)
        return bad_value(key, key_len, err);
    pax->have = len ? pax->have | field : pax->have & ~field;
    return 0;
}

static bool has_prefix(const char *key, size_t key_len, const char *prefix)
{
    return key_len >= strlen(prefix) && memcmp(key, prefix, strlen(prefix)) == 0;
}

static int record(struct pax *pax, const char *key, size_t key_len, const char *value, size_t len,
                  struct error *err)
{
    if (is_key(key, key_len, "path"))
        return set_text(&pax->path, "path", value, len, err);
    if (is_key(key, key_len, "linkpath"))
        return set_text(&pax->linkpath, "linkpath", value, len, err);
    if (has_prefix(key, key_len, "GNU.sparse."))
        return sparse_record(pax, key + 11, key_len - 11, value, len, err);
    if (has_prefix(key, key_len, SCHILY_XATTR)) {
        size_t n = strlen(SCHILY_XATTR);
        return add_xattr(pax, (char *)(uintptr_t)key + n, key_len - n, (uint8_t *)(uintptr_t)value,
                         len, err);
    }
    if (has_prefix(key, key_len, LIBARCHIVE_XATTR)) {
        size_t n = strlen(LIBARCHIVE_XATTR);
        return add_libarchive_xattr(pax, key + n, key_len - n, value, len, err);
    }
    return number_record(pax, key, key_len, value, len, err);
}

int pax_parse(struct pax *pax, const uint8_t *data, size_t len, struct error *err)
{
    const char *p = (const char *)data;

    while (len) {
        const char *blank = memchr(p, ' ', len < 20 ? len : 20);
        uint64_t n;
        if (!blank || pax_decimal(p, (size_t)(blank - p), &n) < 0 || n > len ||
            n < (uint64_t)(blank - p) + 3 || p[n - 1] != '\n')
            return error_set(err, EBADMSG, "extended header: a record's length is wrong");
        const char *key = blank + 1, *end = p + n - 1;
        const char *eq = memchr(key, '=', (size_t)(end - key));
        if (!eq || eq == key)
            return error_set(err, EBADMSG, "extended header: a record has no key");
        if (record(pax, key, (size_t)(eq - key), eq + 1, (size_t)(end - eq - 1), err) < 0)
            return -1;
        p += n;
        len -= (size_t)n;
    }
    if (pax->map_open)
        return bad_value("GNU.sparse.offset", 17, err);
    if (pax->sparse_major == 1 && pax->sparse_minor == 0)
        pax->have |= PAX_SPARSE_1_0;
    else if (pax->sparse_major > 0)
        return error_set(err, EBADMSG, "sparse file: format %llu.%llu is not known",
                         (unsigned long long)pax->sparse_major,
                         (unsigned long long)pax->sparse_minor);
    return 0;
}

void pax_clear(struct pax *pax)
{
    free(pax->path.text);
    free(pax->linkpath.text);
    free(pax->sparse_name.text);
    for (size_t i = 0; i < pax->n_xattrs; i++) {
        free(pax->xattrs[i].name);
        free(pax->xattrs[i].value);
    }
    free(pax->xattrs);
    free(pax->map);
    memset(pax, 0, sizeof(*pax));
}
