// SPDX-License-Identifier: Apache-2.0
/* user_net.c - ports of this host that lead into a guest with QEMU's user-mode network
 *
 * QEMU says of a forward that fails only that it could not be set up, and that late. So we look
 * first: what we find in use is an error before anything was started; the port may still be lost to
 * somebody faster, and QEMU has the last word.
 */
#include "runtime/snapshot/user_net.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/parse.h"

#define TEXT_MAX 96

struct forward {
    const char *text;
    int type; /* SOCK_STREAM or SOCK_DGRAM */
    struct sockaddr_in host;
};

static int refuse(const char *text, const char *why, struct error *err)
{
    return error_set(err, ERROR_USAGE,
                     "--forward %s: %s; write it like tcp:127.0.0.1:3333-:6379 "
                     "(PROTO:[HOST]:PORT-[GUEST]:GUESTPORT)",
                     text, why);
}

/* "[ADDRESS]:PORT", changed on the way. */
static int parse_end(char *end, const char *text, struct sockaddr_in *ret, struct error *err)
{
    char *colon = strrchr(end, ':');
    uint64_t port;

    *ret = (struct sockaddr_in){.sin_family = AF_INET};
    if (!colon)
        return refuse(text, "a port is missing", err);
    *colon = '\0';
    if (parse_u64(colon + 1, 1, 65535, "port", &port, NULL) < 0)
        return refuse(text, "a port is a number from 1 to 65535", err);
    ret->sin_port = htons((uint16_t)port);
    if (strchr(end, ':'))
        return error_set(err, ERROR_USAGE,
                         "--forward %s: a user-mode network forwards IPv4 addresses only; for IPv6 "
                         "use --net tap with drafter-nat and drafter-forwarder",
                         text);
    if (*end && inet_pton(AF_INET, end, &ret->sin_addr) != 1)
        return refuse(text, "an address is not an IPv4 address", err);
    return 0;
}

static int parse(const char *text, struct forward *f, struct error *err)
{
    char copy[TEXT_MAX];
    struct sockaddr_in guest;

    if (strlen(text) >= sizeof(copy) || strpbrk(text, ", \t\n"))
        return refuse("(...)", "has signs in it that are none of a forward", err);
    memcpy(copy, text, strlen(text) + 1);
    f->text = text;
    f->type = strncmp(copy, "udp:", 4) == 0 ? SOCK_DGRAM : SOCK_STREAM;
    if (f->type == SOCK_STREAM && strncmp(copy, "tcp:", 4) != 0)
        return refuse(text, "the protocol is neither tcp nor udp", err);
    char *dash = strchr(copy, '-');
    if (!dash)
        return refuse(text, "the guest's end is missing", err);
    *dash = '\0';
    return parse_end(copy + 4, text, &f->host, err) < 0 ||
                   parse_end(dash + 1, text, &guest, err) < 0
               ? -1
               : 0;
}

static int try_port(const struct forward *f, struct error *err)
{
    const int one = 1;
    cleanup_close int fd = socket(AF_INET, f->type | SOCK_CLOEXEC, 0);

    /* As QEMU takes it: a connection in TIME_WAIT is no use of the port. */
    if (fd < 0 ||
        (f->type == SOCK_STREAM && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0))
        return error_sys(err, "--forward %s", f->text);
    if (bind(fd, (const struct sockaddr *)&f->host, sizeof(f->host)) == 0)
        return 0;
    const int saved = errno;
    char addr[INET_ADDRSTRLEN] = "";
    (void)inet_ntop(AF_INET, &f->host.sin_addr, addr, sizeof(addr));
    if (saved == EADDRINUSE)
        return error_set(err, saved, "--forward %s: %s port %u of %s is in use", f->text,
                         f->type == SOCK_STREAM ? "tcp" : "udp", ntohs(f->host.sin_port), addr);
    return error_num(err, saved, "--forward %s: take port %u of %s", f->text,
                     ntohs(f->host.sin_port), addr);
}

int user_net_forwards(const struct option_list *list, char **ret, struct error *err)
{
    cleanup_free char *text = NULL;

    for (size_t i = 0; i < list->count; i++) {
        struct forward f;
        char *longer = NULL;

        if (parse(list->items[i], &f, err) < 0 || try_port(&f, err) < 0)
            return -1;
        if (asprintf(&longer, "%s%s%s", text ? text : "", text ? "," : "", list->items[i]) < 0)
            return error_oom(err);
        free(text);
        text = longer;
    }
    *ret = steal_ptr(&text);
    return 0;
}
