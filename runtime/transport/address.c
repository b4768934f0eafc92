// SPDX-License-Identifier: Apache-2.0
/* address.c - what an address text means */
#define RUNTIME_TRANSPORT_INTERNAL
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "runtime/base/parse.h"
#include "runtime/transport/stream_private.h"

static int parse_host_port(const char *text, const char *whole, bool listening, struct address *a,
                           struct error *err)
{
    const char *host = text, *colon;
    size_t len;
    uint64_t port;

    if (*text == '[') {
        const char *end = strchr(text, ']');
        if (!end || end[1] != ':')
            return error_set(err, EINVAL, "address \"%s\": a port is missing after ']'", whole);
        host = text + 1;
        len = (size_t)(end - host);
        colon = end + 1;
    } else {
        colon = strrchr(text, ':');
        if (!colon)
            return error_set(err, EINVAL,
                             "address \"%s\": not HOST:PORT, unix:PATH, tls:HOST:PORT, fd:N or "
                             "stdio",
                             whole);
        len = (size_t)(colon - text);
        if (memchr(text, ':', len))
            return error_set(err, EINVAL,
                             "address \"%s\": an IPv6 address needs brackets: [%.*s]:%s", whole,
                             (int)len, text, colon + 1);
    }
    if (len > HOST_MAX)
        return error_set(err, EINVAL, "address \"%s\": the host name is too long", whole);
    if (len == 0 && !listening)
        return error_set(err, EINVAL, "address \"%s\": a host to connect to is missing", whole);
    if (parse_u64(colon + 1, listening ? 0 : 1, 65535, "port", &port, err) < 0)
        return error_wrap(err, "address \"%s\"", whole);
    memcpy(a->host, host, len);
    a->host[len] = '\0';
    (void)snprintf(a->port, sizeof(a->port), "%u", (unsigned)port);
    return 0;
}

static int parse_fds(const char *text, const char *whole, struct address *a, struct error *err)
{
    char first[16];
    uint64_t in, out;
    size_t n = strcspn(text, ",");

    if (n >= sizeof(first))
        return error_set(err, EINVAL, "address \"%s\": not fd:N or fd:N,M", whole);
    memcpy(first, text, n);
    first[n] = '\0';
    if (parse_u64(first, 0, INT32_MAX, "descriptor", &in, err) < 0)
        return error_wrap(err, "address \"%s\"", whole);
    out = in;
    if (text[n] && parse_u64(text + n + 1, 0, INT32_MAX, "descriptor", &out, err) < 0)
        return error_wrap(err, "address \"%s\"", whole);
    a->fd_in = (int)in;
    a->fd_out = (int)out;
    return 0;
}

int address_parse(const char *text, bool listening, struct address *ret, struct error *err)
{
    struct address a = {.kind = ADDRESS_TCP};

    if (strcmp(text, "stdio") == 0) {
        a.kind = ADDRESS_STDIO;
    } else if (strncmp(text, "unix:", 5) == 0) {
        a.kind = ADDRESS_UNIX;
        a.path = text + 5;
        if (!*a.path || strlen(a.path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
            return error_set(err, EINVAL, "address \"%s\": a path of 1 to %zu bytes is wanted",
                             text, sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
    } else if (strncmp(text, "fd:", 3) == 0) {
        a.kind = ADDRESS_FD;
        if (parse_fds(text + 3, text, &a, err) < 0)
            return -1;
    } else if (strncmp(text, "tls:", 4) == 0) {
        a.kind = ADDRESS_TLS;
        if (parse_host_port(text + 4, text, listening, &a, err) < 0)
            return -1;
    } else if (parse_host_port(text, text, listening, &a, err) < 0) {
        return -1;
    }
    *ret = a;
    return 0;
}

int transport_check_address(const char *address, bool listening, struct error *err)
{
    struct address a;

    return address_parse(address, listening, &a, err);
}
