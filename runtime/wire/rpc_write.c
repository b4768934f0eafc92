// SPDX-License-Identifier: Apache-2.0
/* rpc_write.c - the agent's messages: structs to bytes
 *
 * Escapes as Go's encoding/json does ('<', '>', '&', U+2028 and U+2029 too), so that what we write
 * cannot be told from upstream's.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "runtime/wire/rpc.h"

struct out {
    char *buf;
    size_t size, len;
    bool full;
};

static void put(struct out *o, const char *bytes, size_t n)
{
    if (o->full || n > o->size - o->len) {
        o->full = true;
        return;
    }
    memcpy(o->buf + o->len, bytes, n);
    o->len += n;
}

static void put_text(struct out *o, const char *text)
{
    put(o, text, strlen(text));
}

/* Length of the UTF-8 character at s (RFC 3629), 0 when there is none. The NUL at the end of s
 * stops the look ahead. */
static size_t utf8_length(const unsigned char *s)
{
    size_t n = s[0] < 0x80                   ? 1
               : s[0] >= 0xc2 && s[0] < 0xe0 ? 2
               : (s[0] & 0xf0) == 0xe0       ? 3
               : s[0] >= 0xf0 && s[0] < 0xf5 ? 4
                                             : 0;

    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] >= 0xa0) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] >= 0x90))
        return 0;
    return n;
}

static void put_string(struct out *o, const char *text)
{
    static const char special[] = "\"\\\n\r\t", shown[] = "\"\\nrt";

    put(o, "\"", 1);
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        size_t n = utf8_length(s);
        const char *at = n == 1 ? strchr(special, *s) : NULL;
        char esc[8];
        if (at) {
            esc[0] = '\\';
            esc[1] = shown[at - special];
            put(o, esc, 2);
        } else if (n == 1 && (*s < 0x20 || *s == '<' || *s == '>' || *s == '&')) {
            (void)snprintf(esc, sizeof(esc), "\\u%04x", *s);
            put(o, esc, 6);
        } else if (n == 3 && s[0] == 0xe2 && s[1] == 0x80 && (s[2] == 0xa8 || s[2] == 0xa9)) {
            put_text(o, s[2] == 0xa8 ? "\\u2028" : "\\u2029");
        } else if (n == 0) {
            put_text(o, "\\ufffd");
            n = 1;
        } else {
            put(o, (const char *)s, n);
        }
        s += n;
    }
    put(o, "\"", 1);
}

static void put_resume(struct out *o, const struct rpc_resume *r)
{
    char text[32], byte[3];

    put_text(o, ",\"drafter\":{");
    if (r->time_ns) {
        (void)snprintf(text, sizeof(text), "\"time\":\"%" PRIu64 "\"", r->time_ns);
        put_text(o, text);
    }
    if (r->has_entropy) {
        put_text(o, r->time_ns ? ",\"entropy\":\"" : "\"entropy\":\"");
        for (size_t i = 0; i < RPC_ENTROPY_SIZE; i++) {
            (void)snprintf(byte, sizeof(byte), "%02x", r->entropy[i]);
            put(o, byte, 2);
        }
        put(o, "\"", 1);
    }
    put(o, "}", 1);
}

ssize_t rpc_encode_request(char *buf, size_t size, const char *call, const char *function,
                           const struct rpc_resume *resume)
{
    struct out o = {.buf = buf, .size = size};

    put_text(&o, "{\"request\":{\"call\":");
    put_string(&o, call);
    put_text(&o, ",\"function\":");
    put_string(&o, function);
    put_text(&o, ",\"args\":[]");
    if (resume)
        put_resume(&o, resume);
    put_text(&o, "},\"response\":null}\n");
    return o.full ? -1 : (ssize_t)o.len;
}

ssize_t rpc_encode_response(char *buf, size_t size, const char *call, const char *error)
{
    struct out o = {.buf = buf, .size = size};

    put_text(&o, "{\"request\":null,\"response\":{\"call\":");
    put_string(&o, call);
    put_text(&o, ",\"value\":null,\"err\":");
    put_string(&o, error);
    put_text(&o, "}}\n");
    return o.full ? -1 : (ssize_t)o.len;
}

void rpc_call_id(const uint8_t random[16], char ret_call[37])
{
    uint8_t b[16];
    char *p = ret_call;

    memcpy(b, random, sizeof(b));
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *p++ = '-';
        p += snprintf(p, 3, "%02x", b[i]);
    }
}
