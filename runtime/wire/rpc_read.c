// SPDX-License-Identifier: Apache-2.0
/* rpc_read.c - the agent's messages: bytes to structs
 *
 * Two passes: the reader finds where a message ends by counting brackets outside strings, which any
 * JSON object survives; then the complete text is parsed strictly.
 */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "runtime/base/parse.h"
#include "runtime/wire/rpc.h"

/* A position in the text of one message. Functions return 0 and move it, or -1. */
struct text {
    const char *p, *end;
};

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void skip_space(struct text *t)
{
    while (t->p < t->end && is_space(*t->p))
        t->p++;
}

/* Takes the character c, white space before it allowed. */
static bool take(struct text *t, char c)
{
    skip_space(t);
    if (t->p == t->end || *t->p != c)
        return false;
    t->p++;
    return true;
}

static bool take_word(struct text *t, const char *word)
{
    size_t n = strlen(word);

    skip_space(t);
    if ((size_t)(t->end - t->p) < n || memcmp(t->p, word, n) != 0)
        return false;
    t->p += n;
    return true;
}

/* Where a decoded string goes. What does not fit is dropped at a character's boundary. */
struct sink {
    char *buf; /* NULL: the string is only checked */
    size_t size, len;
    bool cut; /* something was dropped */
    bool nul; /* a NUL character came (written as U+FFFD) */
    bool bad; /* a byte or an escape that is no character came (written as U+FFFD) */
};

static void sink_bytes(struct sink *s, const char *bytes, size_t n)
{
    if (!s->buf)
        return;
    if (s->cut || n > s->size - 1 - s->len) {
        s->cut = true;
        return;
    }
    memcpy(s->buf + s->len, bytes, n);
    s->len += n;
}

static void sink_char(struct sink *s, uint32_t c)
{
    char b[4];
    size_t n;

    s->nul |= c == 0;
    if (c == 0)
        c = 0xfffd;
    if (c < 0x80) {
        b[0] = (char)c;
        n = 1;
    } else if (c < 0x800) {
        b[0] = (char)(0xc0 | c >> 6);
        b[1] = (char)(0x80 | (c & 0x3f));
        n = 2;
    } else if (c < 0x10000) {
        b[0] = (char)(0xe0 | c >> 12);
        b[1] = (char)(0x80 | (c >> 6 & 0x3f));
        b[2] = (char)(0x80 | (c & 0x3f));
        n = 3;
    } else {
        b[0] = (char)(0xf0 | c >> 18);
        b[1] = (char)(0x80 | (c >> 12 & 0x3f));
        b[2] = (char)(0x80 | (c >> 6 & 0x3f));
        b[3] = (char)(0x80 | (c & 0x3f));
        n = 4;
    }
    sink_bytes(s, b, n);
}

static int take_hex4(struct text *t, uint32_t *ret)
{
    uint8_t b[2];

    if (t->end - t->p < 4 || parse_hex(t->p, 4, b, 2) < 0)
        return -1;
    t->p += 4;
    *ret = (uint32_t)b[0] << 8 | b[1];
    return 0;
}

/* After a backslash. A lone surrogate reads as U+FFFD, as in Go. */
static int take_escape(struct text *t, struct sink *s)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    uint32_t c, low;

    if (t->p == t->end)
        return -1;
    char e = *t->p++;
    const char *at = e ? strchr(from, e) : NULL;
    if (at) {
        sink_char(s, (unsigned char)to[at - from]);
        return 0;
    }
    if (e != 'u' || take_hex4(t, &c) < 0)
        return -1;
    if (c >= 0xd800 && c < 0xdc00 && t->end - t->p >= 6 && t->p[0] == '\\' && t->p[1] == 'u') {
        struct text ahead = {t->p + 2, t->end};
        if (take_hex4(&ahead, &low) < 0)
            return -1;
        if (low >= 0xdc00 && low < 0xe000) {
            *t = ahead;
            sink_char(s, 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00));
            return 0;
        }
    }
    if (c >= 0xd800 && c < 0xe000) {
        s->bad = true;
        c = 0xfffd;
    }
    sink_char(s, c);
    return 0;
}

/* One character of UTF-8 (RFC 3629: shortest form, no surrogates), or one bad byte as U+FFFD. */
static void take_utf8(struct text *t, struct sink *s)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned char b = (unsigned char)*t->p;
    size_t n = b < 0x80                ? 1
               : b >= 0xc2 && b < 0xe0 ? 2
               : (b & 0xf0) == 0xe0    ? 3
               : b >= 0xf0 && b < 0xf5 ? 4
                                       : 0;
    uint32_t c = n == 1 ? b : b & (0x7fu >> n);

    bool good = n > 0 && (size_t)(t->end - t->p) >= n;
    for (size_t i = 1; good && i < n; i++) {
        good = (t->p[i] & 0xc0) == 0x80;
        c = c << 6 | (t->p[i] & 0x3f);
    }
    if (!good || c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) {
        s->bad = true;
        c = 0xfffd;
        n = 1;
    }
    t->p += n;
    sink_char(s, c);
}

static int take_string(struct text *t, struct sink *s)
{
    if (!take(t, '"'))
        return -1;
    while (t->p < t->end) {
        unsigned char c = (unsigned char)*t->p;
        if (c < 0x20)
            return -1;
        if (c == '"') {
            t->p++;
            if (s->buf)
                s->buf[s->len] = '\0';
            return 0;
        }
        if (c == '\\') {
            t->p++;
            if (take_escape(t, s) < 0)
                return -1;
        } else {
            take_utf8(t, s);
        }
    }
    return -1;
}

static bool take_digits(struct text *t)
{
    const char *start = t->p;

    while (t->p < t->end && *t->p >= '0' && *t->p <= '9')
        t->p++;
    return t->p > start;
}

static int skip_number(struct text *t)
{
    if (t->p < t->end && *t->p == '-')
        t->p++;
    const char *start = t->p;
    if (!take_digits(t) || (*start == '0' && t->p > start + 1))
        return -1;
    if (t->p < t->end && *t->p == '.') {
        t->p++;
        if (!take_digits(t))
            return -1;
    }
    if (t->p < t->end && (*t->p == 'e' || *t->p == 'E')) {
        t->p++;
        if (t->p < t->end && (*t->p == '+' || *t->p == '-'))
            t->p++;
        if (!take_digits(t))
            return -1;
    }
    return 0;
}

static int skip_value(struct text *t, unsigned depth);

/* Walks a list of members or elements: `for (first = true; (rc = next_item(...)) > 0;)`. Returns 1
 * when an item follows, 0 after the closing character, -1. */
static int next_item(struct text *t, char close, bool *first)
{
    if (take(t, close))
        return 0;
    if (!*first && !take(t, ','))
        return -1;
    *first = false;
    skip_space(t);
    /* A comma before the closing character is no JSON. */
    return t->p < t->end && *t->p != close ? 1 : -1;
}

/* Takes `"key" :` and leaves the key, folded to lower case, in buf; one that does not fit is no key
 * of ours and becomes "". */
static int take_key(struct text *t, char *buf, size_t size)
{
    struct sink s = {.buf = buf, .size = size};

    if (take_string(t, &s) < 0 || !take(t, ':'))
        return -1;
    if (s.cut || s.nul)
        buf[0] = '\0';
    for (char *c = buf; *c; c++)
        *c = (char)(*c >= 'A' && *c <= 'Z' ? *c | 0x20 : *c);
    return 0;
}

static int skip_container(struct text *t, char close, unsigned depth)
{
    bool first = true;
    char key[2];
    int rc;

    if (depth == 0)
        return -1;
    while ((rc = next_item(t, close, &first)) > 0) {
        if (close == '}' && take_key(t, key, sizeof(key)) < 0)
            return -1;
        if (skip_value(t, depth - 1) < 0)
            return -1;
    }
    return rc;
}

/* Checks and skips any value; depth: how many levels of nesting are left. */
static int skip_value(struct text *t, unsigned depth)
{
    struct sink none = {.buf = NULL};

    skip_space(t);
    if (t->p == t->end)
        return -1;
    switch (*t->p) {
    case '"':
        return take_string(t, &none);
    case '{':
        t->p++;
        return skip_container(t, '}', depth);
    case '[':
        t->p++;
        return skip_container(t, ']', depth);
    default:
        break;
    }
    if (take_word(t, "true") || take_word(t, "false") || take_word(t, "null"))
        return 0;
    return skip_number(t);
}

/* Results of the field readers below. */
enum field {
    FIELD_OK,
    FIELD_NULL,  /* null: counts as absent */
    FIELD_WRONG, /* JSON, but of another type or too long; skipped */
    FIELD_BAD,   /* no JSON */
};

static enum field take_text_field(struct text *t, char *buf, size_t size, bool may_cut)
{
    struct sink s = {.buf = buf, .size = size};

    buf[0] = '\0';
    if (take_word(t, "null"))
        return FIELD_NULL;
    if (t->p == t->end || *t->p != '"')
        return skip_value(t, RPC_DEPTH_MAX) < 0 ? FIELD_BAD : FIELD_WRONG;
    if (take_string(t, &s) < 0)
        return FIELD_BAD;
    if (!may_cut && (s.cut || s.nul || s.bad)) {
        buf[0] = '\0';
        return FIELD_WRONG;
    }
    return FIELD_OK;
}

static enum field take_args(struct text *t, size_t *ret_n)
{
    bool first = true;
    size_t n = 0;
    int rc;

    *ret_n = 0;
    if (take_word(t, "null"))
        return FIELD_NULL;
    if (!take(t, '['))
        return skip_value(t, RPC_DEPTH_MAX) < 0 ? FIELD_BAD : FIELD_WRONG;
    while ((rc = next_item(t, ']', &first)) > 0) {
        if (skip_value(t, RPC_DEPTH_MAX) < 0)
            return FIELD_BAD;
        n++;
    }
    *ret_n = n;
    return rc < 0 ? FIELD_BAD : FIELD_OK;
}

/* The extension, see rpc.h. */
static enum field take_resume(struct text *t, struct rpc_resume *r)
{
    char key[16], value[2 * RPC_ENTROPY_SIZE + 1];
    enum field result = FIELD_OK, got;
    bool first = true;
    int rc;

    memset(r, 0, sizeof(*r));
    if (take_word(t, "null"))
        return FIELD_NULL;
    if (!take(t, '{'))
        return skip_value(t, RPC_DEPTH_MAX) < 0 ? FIELD_BAD : FIELD_WRONG;
    while ((rc = next_item(t, '}', &first)) > 0) {
        if (take_key(t, key, sizeof(key)) < 0)
            return FIELD_BAD;
        bool time = strcmp(key, "time") == 0, entropy = strcmp(key, "entropy") == 0;
        if (!time && !entropy) {
            if (skip_value(t, RPC_DEPTH_MAX) < 0)
                return FIELD_BAD;
            continue;
        }
        got = take_text_field(t, value, sizeof(value), false);
        if (got == FIELD_BAD)
            return FIELD_BAD;
        if (got == FIELD_OK && time &&
            parse_u64(value, 0, INT64_MAX, "time", &r->time_ns, NULL) < 0)
            got = FIELD_WRONG;
        if (got == FIELD_OK && entropy) {
            if (strlen(value) != sizeof(value) - 1 ||
                parse_hex(value, sizeof(value) - 1, r->entropy, RPC_ENTROPY_SIZE) < 0)
                got = FIELD_WRONG;
            else
                r->has_entropy = true;
        }
        if (got == FIELD_WRONG)
            result = FIELD_WRONG;
    }
    return rc < 0 ? FIELD_BAD : result;
}

/* Without a usable id nobody can be answered: that breaks the stream, all else is only a problem.
 */
static int take_request(struct text *t, struct rpc_message *m)
{
    enum field got;
    bool first = true;
    char key[16];
    int rc;

    while ((rc = next_item(t, '}', &first)) > 0) {
        if (take_key(t, key, sizeof(key)) < 0)
            return -1;
        if (strcmp(key, "call") == 0) {
            got = take_text_field(t, m->call, sizeof(m->call), false);
            if (got == FIELD_WRONG)
                return -1;
        } else if (strcmp(key, "function") == 0) {
            got = take_text_field(t, m->function, sizeof(m->function), false);
            if (got == FIELD_WRONG)
                m->problem = "the function's name is no string, or too long";
        } else if (strcmp(key, "args") == 0) {
            got = take_args(t, &m->n_args);
            if (got == FIELD_WRONG)
                m->problem = "args is no array";
        } else if (strcmp(key, "drafter") == 0) {
            got = take_resume(t, &m->resume);
            m->has_resume = got == FIELD_OK;
            if (got == FIELD_WRONG)
                m->problem = "the extension \"drafter\" needs time (decimal nanoseconds) and "
                             "entropy (64 hex digits) as strings";
        } else {
            got = skip_value(t, RPC_DEPTH_MAX) < 0 ? FIELD_BAD : FIELD_OK;
        }
        if (got == FIELD_BAD)
            return -1;
    }
    return rc;
}

/* Takes white space off both ends: upstream's caller compares the text after trimming it. */
static void trim(char *s)
{
    size_t n = strlen(s), lead = 0;

    while (n > 0 && (is_space(s[n - 1]) || s[n - 1] == '\v' || s[n - 1] == '\f'))
        n--;
    while (lead < n && (is_space(s[lead]) || s[lead] == '\v' || s[lead] == '\f'))
        lead++;
    memmove(s, s + lead, n - lead);
    s[n - lead] = '\0';
}

static int take_response(struct text *t, struct rpc_message *m)
{
    enum field got;
    bool first = true;
    char key[16];
    int rc;

    while ((rc = next_item(t, '}', &first)) > 0) {
        if (take_key(t, key, sizeof(key)) < 0)
            return -1;
        if (strcmp(key, "call") == 0)
            got = take_text_field(t, m->call, sizeof(m->call), false);
        else if (strcmp(key, "err") == 0)
            got = take_text_field(t, m->error, sizeof(m->error), true);
        else
            got = skip_value(t, RPC_DEPTH_MAX) < 0 ? FIELD_BAD : FIELD_OK;
        if (got == FIELD_BAD || got == FIELD_WRONG)
            return -1;
    }
    trim(m->error);
    return rc;
}

/* Parses into *m, which may be half filled on failure. */
static int decode(struct text *t, struct rpc_message *m)
{
    bool first = true, request = false, response = false;
    char key[16];
    int rc;

    if (!take(t, '{'))
        return -1;
    while ((rc = next_item(t, '}', &first)) > 0) {
        if (take_key(t, key, sizeof(key)) < 0)
            return -1;
        bool is_request = strcmp(key, "request") == 0, is_response = strcmp(key, "response") == 0;
        if ((!is_request && !is_response) || take_word(t, "null")) {
            if (!is_request && !is_response && skip_value(t, RPC_DEPTH_MAX) < 0)
                return -1;
            continue;
        }
        if (request || response || !take(t, '{'))
            return -1;
        if ((is_request ? take_request(t, m) : take_response(t, m)) < 0)
            return -1;
        request |= is_request;
        response |= is_response;
    }
    skip_space(t);
    if (rc < 0 || t->p != t->end || request == response)
        return -1;
    m->kind = request ? RPC_REQUEST : RPC_RESPONSE;
    return 0;
}

/* The first bytes of what was refused, printable, for an error text. */
static void excerpt(const char *text, size_t len, char buf[49])
{
    size_t n = len < 48 ? len : 48;

    for (size_t i = 0; i < n; i++)
        buf[i] = (char)(text[i] >= ' ' && text[i] < 0x7f ? text[i] : '?');
    buf[n] = '\0';
}

int rpc_decode(const char *text, size_t len, struct rpc_message *ret_message, struct error *err)
{
    struct text t = {text, text + len};
    struct rpc_message m;
    char start[49];

    memset(&m, 0, sizeof(m));
    if (len > RPC_MESSAGE_MAX)
        return error_set(err, EMSGSIZE, "message of %zu bytes: longer than %d", len,
                         RPC_MESSAGE_MAX);
    if (decode(&t, &m) < 0) {
        excerpt(text, len, start);
        return error_set(err, EBADMSG, "\"%s\": neither a request nor a response", start);
    }
    *ret_message = m;
    return 0;
}

void rpc_reader_init(struct rpc_reader *reader)
{
    reader->len = 0;
    reader->depth = 0;
    reader->in_string = false;
    reader->escaped = false;
}

/* Follows the brackets. True when c ends the message. */
static bool scan(struct rpc_reader *r, char c)
{
    if (r->in_string) {
        if (r->escaped)
            r->escaped = false;
        else if (c == '\\')
            r->escaped = true;
        else if (c == '"')
            r->in_string = false;
        return false;
    }
    if (c == '"')
        r->in_string = true;
    else if (c == '{' || c == '[')
        r->depth++;
    else if (c == '}' || c == ']')
        return --r->depth == 0;
    return false;
}

int rpc_reader_feed(struct rpc_reader *reader, const void *data, size_t len, size_t *ret_used,
                    struct rpc_message *ret_message, struct error *err)
{
    const char *bytes = data;
    char start[49];

    for (size_t i = 0; i < len; i++) {
        if (reader->len == 0) {
            if (is_space(bytes[i]))
                continue;
            if (bytes[i] != '{') {
                excerpt(bytes + i, len - i, start);
                return error_set(err, EBADMSG, "\"%s\": not the start of a message", start);
            }
        }
        if (reader->len == sizeof(reader->buf))
            return error_set(err, EMSGSIZE, "a message is longer than %d bytes", RPC_MESSAGE_MAX);
        reader->buf[reader->len++] = bytes[i];
        if (!scan(reader, bytes[i]))
            continue;
        size_t n = reader->len;
        rpc_reader_init(reader);
        if (rpc_decode(reader->buf, n, ret_message, err) < 0)
            return -1;
        *ret_used = i + 1;
        return 1;
    }
    *ret_used = len;
    return 0;
}
