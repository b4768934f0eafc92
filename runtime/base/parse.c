// SPDX-License-Identifier: Apache-2.0
/* parse.c - text and bytes from outside into checked values */
#include "runtime/base/parse.h"

#include <errno.h>
#include <string.h>

#include "runtime/base/bytes.h"
#include "runtime/base/cleanup.h"

static int digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* Reads the digits of one number up to *end. Returns 0, -1 for no number, -2 for too large. */
static int scan_u64(const char *text, const char **end, uint64_t *ret_value)
{
    unsigned base = 10;
    uint64_t value = 0;
    int digits = 0, overflow = 0;

    if (text[0] == '0' && text[1] != '\0') {
        char c = (char)(text[1] | 0x20);
        base = c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 10;
        if (base != 10)
            text += 2;
    }
    for (;; text++) {
        if (*text == '_' && digits && digit_value(text[1]) >= 0)
            continue;
        int d = digit_value(*text);
        if (d < 0 || (unsigned)d >= base)
            break;
        digits++;
        overflow |= __builtin_mul_overflow(value, base, &value);
        overflow |= __builtin_add_overflow(value, (uint64_t)d, &value);
    }
    *end = text;
    if (!digits)
        return -1;
    if (overflow)
        return -2;
    *ret_value = value;
    return 0;
}

int parse_u64(const char *text, uint64_t min, uint64_t max, const char *what, uint64_t *ret_value,
              struct error *err)
{
    const char *end;
    uint64_t value = 0;
    int rc = scan_u64(text, &end, &value);

    if (rc == -1 || *end != '\0')
        return error_set(err, EINVAL, "%s: \"%s\" is not a number", what, text);
    if (rc == -2 || value < min || value > max)
        return error_set(err, ERANGE, "%s: %s is out of range (%llu to %llu)", what, text,
                         (unsigned long long)min, (unsigned long long)max);
    *ret_value = value;
    return 0;
}

int parse_i64(const char *text, int64_t min, int64_t max, const char *what, int64_t *ret_value,
              struct error *err)
{
    const char *digits = text, *end;
    uint64_t magnitude = 0;
    int negative = *text == '-';

    if (*text == '-' || *text == '+')
        digits++;
    int rc = scan_u64(digits, &end, &magnitude);
    if (rc == -1 || *end != '\0')
        return error_set(err, EINVAL, "%s: \"%s\" is not a number", what, text);
    int64_t value = 0;
    int bad = rc == -2;
    if (negative)
        bad |= __builtin_sub_overflow((int64_t)0, magnitude, &value);
    else
        bad |= __builtin_add_overflow((int64_t)0, magnitude, &value);
    if (bad || value < min || value > max)
        return error_set(err, ERANGE, "%s: %s is out of range (%lld to %lld)", what, text,
                         (long long)min, (long long)max);
    *ret_value = value;
    return 0;
}

int parse_size(const char *text, uint64_t max, const char *what, uint64_t *ret_bytes,
               struct error *err)
{
    static const char units[] = "KMGTPE";
    const char *end;
    uint64_t value = 0;
    int rc = scan_u64(text, &end, &value);
    unsigned shift = 0;

    if (rc == -1)
        return error_set(err, EINVAL, "%s: \"%s\" is not a size (say 4096, 64K, 256M, 1G)", what,
                         text);
    const char *suffix = end;
    if (*suffix != '\0' && *suffix != 'B' && *suffix != 'b') {
        const char *u = strchr(units, *suffix & ~0x20);
        if (!u)
            return error_set(err, EINVAL, "%s: \"%s\" has an unknown unit (K, M, G, T, P or E)",
                             what, text);
        shift = 10 * (unsigned)(u - units + 1);
        suffix++;
        if (*suffix == 'i')
            suffix++;
    }
    if (*suffix == 'B' || *suffix == 'b')
        suffix++;
    if (*suffix != '\0')
        return error_set(err, EINVAL, "%s: \"%s\" is not a size (say 4096, 64K, 256M, 1G)", what,
                         text);
    if (rc == -2 || __builtin_mul_overflow(value, UINT64_C(1) << shift, &value) || value > max)
        return error_set(err, ERANGE, "%s: %s is too large (at most %llu bytes)", what, text,
                         (unsigned long long)max);
    *ret_bytes = value;
    return 0;
}

/* One "12.5ms" of a duration, at *text; advances *text and adds to *sum. */
static int scan_duration_part(const char **text, uint64_t *sum)
{
    static const struct {
        const char *name;
        uint64_t ns;
    } units[] = {
        {"ns", 1},         {"us", 1000},       {"\xc2\xb5s", 1000},  {"ms", 1000000},
        {"s", 1000000000}, {"m", 60000000000}, {"h", 3600000000000},
    };
    const char *p = *text;
    uint64_t whole = 0, fraction = 0, scale = 1;
    int digits = 0;

    for (; *p >= '0' && *p <= '9'; p++, digits++)
        if (__builtin_mul_overflow(whole, (uint64_t)10, &whole) ||
            __builtin_add_overflow(whole, (uint64_t)(*p - '0'), &whole))
            return -1;
    if (*p == '.') {
        for (p++; *p >= '0' && *p <= '9'; p++, digits++) {
            if (scale < 1000000000) {
                fraction = fraction * 10 + (uint64_t)(*p - '0');
                scale *= 10;
            }
        }
    }
    if (!digits)
        return -1;
    for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
        size_t n = strlen(units[i].name);
        /* "m" must not take the first letter of "ms". */
        if (strncmp(p, units[i].name, n) != 0 || (p[n] >= 'a' && p[n] <= 'z'))
            continue;
        uint64_t ns;
        if (__builtin_mul_overflow(whole, units[i].ns, &ns))
            return -1;
        __uint128_t part = (__uint128_t)fraction * units[i].ns / scale;
        if (__builtin_add_overflow(ns, (uint64_t)part, &ns) ||
            __builtin_add_overflow(*sum, ns, sum))
            return -1;
        *text = p + n;
        return 0;
    }
    return -1;
}

int parse_duration(const char *text, const char *what, uint64_t *ret_ns, struct error *err)
{
    const char *p = text;
    uint64_t sum = 0;

    if (strcmp(text, "0") == 0) {
        *ret_ns = 0;
        return 0;
    }
    do {
        if (scan_duration_part(&p, &sum) < 0)
            return error_set(err, EINVAL,
                             "%s: \"%s\" is not a duration (a number and ns, us, ms, s, m or h, "
                             "as in 500ms or 1m30s)",
                             what, text);
    } while (*p);
    *ret_ns = sum;
    return 0;
}

int parse_bool(const char *text, const char *what, int *ret_value, struct error *err)
{
    static const char *const yes[] = {"1", "t", "T", "true", "TRUE", "True"};
    static const char *const no[] = {"0", "f", "F", "false", "FALSE", "False"};

    for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
        if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
            *ret_value = strcmp(text, yes[i]) == 0;
            return 0;
        }
    }
    return error_set(err, EINVAL, "%s: \"%s\" is neither true nor false", what, text);
}

int parse_hex(const char *hex, size_t hex_len, uint8_t *ret_bytes, size_t n)
{
    if (hex_len != 2 * n)
        return -1;
    for (size_t i = 0; i < 2 * n; i++)
        if (digit_value(hex[i]) < 0)
            return -1;
    for (size_t i = 0; i < n; i++)
        ret_bytes[i] = (uint8_t)(digit_value(hex[2 * i]) * 16 + digit_value(hex[2 * i + 1]));
    return 0;
}

int cursor_bytes(struct cursor *c, size_t n, const uint8_t **ret)
{
    if (c->left < n)
        return -1;
    *ret = c->p;
    c->p += n;
    c->left -= n;
    return 0;
}

#define CURSOR_INT(name, type, get)                                                                \
    int name(struct cursor *c, type *ret)                                                          \
    {                                                                                              \
        const uint8_t *p;                                                                          \
        if (cursor_bytes(c, sizeof(type), &p) < 0)                                                 \
            return -1;                                                                             \
        *ret = (type)get(p);                                                                       \
        return 0;                                                                                  \
    }

#define get_u8(p) (*(p))
CURSOR_INT(cursor_u8, uint8_t, get_u8)
CURSOR_INT(cursor_u16, uint16_t, get_le16)
CURSOR_INT(cursor_u32, uint32_t, get_le32)
CURSOR_INT(cursor_u64, uint64_t, get_le64)
