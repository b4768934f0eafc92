// SPDX-License-Identifier: Apache-2.0
/* tar_make.c - builds tar streams for tests */
#include "tests/lib/tar_make.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 512

static void append(uint8_t **data, size_t *len, size_t *room, const void *more, size_t n)
{
    if (*len + n > *room) {
        *room = (*len + n) * 2;
        *data = realloc(*data, *room);
        if (!*data)
            abort();
    }
    if (more)
        memcpy(*data + *len, more, n);
    else
        memset(*data + *len, 0, n);
    *len += n;
}

void tar_make_bytes(struct tar_make *t, const void *data, size_t len)
{
    if (len)
        append(&t->data, &t->len, &t->room, data, len);
}

void tar_make_zeros(struct tar_make *t, size_t len)
{
    if (len)
        append(&t->data, &t->len, &t->room, NULL, len);
}

void tar_make_pad(struct tar_make *t)
{
    tar_make_zeros(t, (BLOCK - t->len % BLOCK) % BLOCK);
}

void tar_make_pax(struct tar_make *t, const char *key, const void *value, size_t len)
{
    char head[300], number[32];
    size_t body = strlen(key) + len + 3, n = body;

    /* The length counts its own digits. */
    for (;;) {
        int digits = snprintf(number, sizeof(number), "%zu", n);
        if (n == body + (size_t)digits)
            break;
        n = body + (size_t)digits;
    }
    int h = snprintf(head, sizeof(head), "%zu %s=", n, key);
    append(&t->pax, &t->pax_len, &t->pax_room, head, (size_t)h);
    if (len)
        append(&t->pax, &t->pax_len, &t->pax_room, value, len);
    append(&t->pax, &t->pax_len, &t->pax_room, "\n", 1);
}

/* Octal, or base 256 when it does not fit. */
static void number(uint8_t *field, size_t len, uint64_t value)
{
    char text[32];

    (void)snprintf(text, sizeof(text), "%0*llo", (int)len - 1, (unsigned long long)value);
    if (strlen(text) < len) {
        memcpy(field, text, len);
        return;
    }
    memset(field, value >> 63 ? 0xff : 0, len);
    field[0] = value >> 63 ? 0xff : 0x80;
    for (size_t i = 0; i < 8 && i < len - (len > 8 ? 0 : 1); i++)
        field[len - 1 - i] = (uint8_t)(value >> 8 * i);
}

void tar_make_checksum(struct tar_make *t, size_t offset)
{
    uint8_t *h = t->data + offset;
    char text[8];
    unsigned sum = 0;

    memset(h + 148, ' ', 8);
    for (size_t i = 0; i < BLOCK; i++)
        sum += h[i];
    (void)snprintf(text, sizeof(text), "%06o", sum);
    memcpy(h + 148, text, 7);
}

void tar_make_header(struct tar_make *t, const struct tar_make_entry *e)
{
    size_t at = t->len, n;
    char type = e->type ? e->type : '0';

    tar_make_zeros(t, BLOCK);
    uint8_t *h = t->data + at;
    n = strlen(e->path);
    memcpy(h, e->path, n < 100 ? n : 100);
    number(h + 100, 8, e->mode ? e->mode : type == '5' ? 0755 : 0644);
    number(h + 108, 8, e->uid);
    number(h + 116, 8, e->gid);
    number(h + 124, 12, e->size_field ? e->size_field : e->size);
    number(h + 136, 12, (uint64_t)e->mtime);
    h[156] = (uint8_t)type;
    if (e->link) {
        n = strlen(e->link);
        memcpy(h + 157, e->link, n < 100 ? n : 100);
    }
    memcpy(h + 257, e->magic ? e->magic : "ustar\00000", 8);
    number(h + 329, 8, e->major);
    number(h + 337, 8, e->minor);
    tar_make_checksum(t, at);
}

void tar_make_entry(struct tar_make *t, const struct tar_make_entry *entry)
{
    struct tar_make_entry e = *entry;

    if (e.data && !e.size)
        e.size = strlen(e.data);
    if (strlen(e.path) > 100)
        tar_make_pax(t, "path", e.path, strlen(e.path));
    if (e.link && strlen(e.link) > 100)
        tar_make_pax(t, "linkpath", e.link, strlen(e.link));
    if (t->pax_len) {
        tar_make_header(
            t, &(struct tar_make_entry){.type = 'x', .path = "PaxHeaders/x", .size = t->pax_len});
        tar_make_bytes(t, t->pax, t->pax_len);
        tar_make_pad(t);
        t->pax_len = 0;
    }
    tar_make_header(t, &e);
    tar_make_bytes(t, e.data, e.data ? e.size : 0);
    tar_make_pad(t);
}

void tar_make_end(struct tar_make *t)
{
    tar_make_zeros(t, BLOCK * 2);
}

void tar_make_free(struct tar_make *t)
{
    free(t->data);
    free(t->pax);
    *t = (struct tar_make){0};
}

/* Copies one word of a script up to any of `stop`, with %XX and %*N,c replaced. */
static const char *word(const char *p, const char *stop, char *out, size_t size)
{
    size_t n = 0;

    while (*p && !strchr(stop, *p) && !(*p == ' ' && p[1] == '@') && *p != ';' && *p != '\n') {
        unsigned count = 1;
        char c = *p++;
        if (c == '%' && *p == '*') {
            char *end;
            count = (unsigned)strtoul(p + 1, &end, 10);
            c = end[1];
            p = end + 2;
        } else if (c == '%') {
            char hex[3] = {p[0], p[1], 0};
            c = (char)strtoul(hex, NULL, 16);
            p += 2;
        }
        while (count-- && n + 1 < size)
            out[n++] = c;
    }
    out[n] = '\0';
    return p;
}

void tar_make_script(struct tar_make *t, const char *p)
{
    static const char kinds[] = "dflhcbp", types[] = "5021346";
    static char path[10000], other[10000], attribute[4000];

    for (;;) {
        p += strspn(p, " ;\n");
        if (!*p)
            return;
        const char *kind = strchr(kinds, *p);
        if (!kind || p[1] != ' ')
            abort();
        struct tar_make_entry e = {.type = types[kind - kinds], .path = path};
        p = word(p + 2,
                 e.type == '0'                    ? "="
                 : e.type == '1' || e.type == '2' ? ">"
                                                  : ":",
                 path, sizeof(path));
        other[0] = '\0';
        if (*p == '=' || *p == '>') {
            p = word(p + 1, "", other, sizeof(other));
            if (e.type == '0')
                e.data = other;
            else
                e.link = other;
        } else if (*p == ':') {
            e.major = strtoull(p + 1, (char **)(uintptr_t)&p, 10);
            e.minor = strtoull(p + 1, (char **)(uintptr_t)&p, 10);
        }
        while (p[0] == ' ' && p[1] == '@') {
            char a = p[2];
            p = word(p + 3, " ", attribute, sizeof(attribute));
            if (a == 'm')
                e.mode = (unsigned)strtoul(attribute, NULL, 8);
            else if (a == 'u')
                e.uid = strtoull(attribute, NULL, 10);
            else if (a == 'g')
                e.gid = strtoull(attribute, NULL, 10);
            else if (a == 't')
                tar_make_pax(t, "mtime", attribute, strlen(attribute));
            else if (a == 'x') {
                char key[4100];
                char *eq = strchr(attribute, '=');
                *eq = '\0';
                (void)snprintf(key, sizeof(key), "SCHILY.xattr.%s", attribute);
                tar_make_pax(t, key, eq + 1, strlen(eq + 1));
            }
        }
        tar_make_entry(t, &e);
    }
}
