// SPDX-License-Identifier: Apache-2.0
/* drafter-forwarder.c - forwards ports of the host to virtual machines */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>

#include "runtime/base/command.h"
#include "runtime/base/io.h"
#include "runtime/base/notify.h"
#include "runtime/net/net.h"

#define DEFAULT_FORWARDS                                                                           \
    "[{\"netns\":\"ark0\",\"internalPort\":\"6379\",\"protocol\":\"tcp\","                         \
    "\"externalAddr\":\"127.0.0.1:3333\"}]"

struct opts {
    const char *host_veth_cidr, *host_veth_cidr6;
    const char *port_forwards;
    struct option_list publish;
    int64_t ready_fd;
};

static const struct option options[] = {
    OPTION(struct opts, host_veth_cidr, .name = "host-veth-cidr", .kind = OPTION_STRING,
           .arg = "CIDR", .def = "10.0.8.0/22", .help = "as drafter-nat was given"),
    OPTION(struct opts, host_veth_cidr6, .name = "host-veth-cidr6", .kind = OPTION_STRING,
           .arg = "CIDR", .def = "fdd7:af7e:4000:8::/64", .help = "as drafter-nat was given"),
    OPTION(struct opts, port_forwards, .name = "port-forwards", .kind = OPTION_STRING,
           .arg = "JSON|@FILE",
           .help = "the forwards, as a JSON array or a file that holds one and is read again on "
                   "SIGHUP; without this and --publish, port 6379 of ark0 at 127.0.0.1:3333"),
    OPTION(struct opts, publish, .name = "publish", .letter = 'p', .kind = OPTION_LIST,
           .arg = "[ADDRESS:]PORT:PORT[/PROTOCOL]@NETNS",
           .help = "one forward, as in 3333:6379/tcp@ark0; without an address, of all of the host"),
    OPTION(struct opts, ready_fd, .name = "ready-fd", .kind = OPTION_INT, .arg = "FD", .def = "-1",
           .min = (uint64_t)-1, .max = 1 << 20,
           .help = "write \"ready\" and a newline to this open descriptor when all forwards work, "
                   "and close it"),
};

static int read_forwards(const struct opts *o, struct net_forwards *list, struct error *err)
{
    const char *text = o->port_forwards;

    if (!text && o->publish.count == 0)
        text = DEFAULT_FORWARDS;
    if (text && text[0] == '@') {
        size_t len;
        cleanup_free char *file = io_read_file(AT_FDCWD, text + 1, NET_FORWARD_TEXT_MAX, &len, err);
        if (!file || net_forwards_parse(file, len, text + 1, list, err) < 0)
            return -1;
    } else if (text && net_forwards_parse(text, strlen(text), "--port-forwards", list, err) < 0) {
        return -1;
    }
    for (size_t i = 0; i < o->publish.count; i++)
        if (net_forwards_parse_short(o->publish.items[i], "--publish", list, err) < 0)
            return -1;
    return 0;
}

static int update(struct net_forwarder *fw, const struct opts *o, const struct log *log,
                  const char *message, struct error *err)
{
    cleanup_forwards struct net_forwards list = {0};

    if (read_forwards(o, &list, err) < 0 || net_forwarder_apply(fw, &list, err) < 0)
        return -1;
    for (size_t i = 0; i < list.count; i++) {
        char text[256];

        log_debug(log, "Forwarding",
                  log_str("forward", net_forward_format(&list.items[i], text, sizeof(text))));
    }
    log_info(log, message, log_uint("forwards", list.count),
             log_uint("ports", net_forwarder_count(fw)));
    return 0;
}

/* Links come in crowds: this long after the last one. */
#define LINKS_QUIET_MS 100

static void renew(struct net_forwarder *fw, const struct opts *o, const struct log *log,
                  const char *message)
{
    struct error why;

    if (update(fw, o, log, message, &why) < 0)
        log_warn(log, "could not change the forwards, keeping the old ones",
                 log_str("error", why.text));
}

/* Until the end is asked for. A change that fails leaves what is in force. */
static int serve(struct net_forwarder *fw, const struct opts *o, int hup, int links,
                 const struct context *ctx, struct error *err)
{
    struct pollfd p[3] = {{.fd = ctx->cancel->fd, .events = POLLIN},
                          {.fd = hup, .events = POLLIN},
                          {.fd = links, .events = POLLIN}};
    struct signalfd_siginfo info;
    bool changed = false;

    for (;;) {
        const int n = poll(p, 3, changed ? LINKS_QUIET_MS : -1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_sys(err, "wait");
        if (p[0].revents)
            return 0;
        if (p[2].revents)
            changed |= net_links_changed(links);
        if (n == 0) {
            changed = false;
            renew(fw, o, ctx->log, "Links were made anew, forwards renewed");
        }
        if (!p[1].revents)
            continue;
        if (io_read_exact(hup, &info, sizeof(info), "signals", err) < 0)
            return -1;
        (void)notify_state("RELOADING=1", NULL);
        renew(fw, o, ctx->log, "Forwards changed");
        (void)notify_state("READY=1", NULL);
    }
}

static int run(const void *opts, int argc, char **argv, const struct context *ctx,
               struct error *err)
{
    const struct opts *o = opts;
    sigset_t set;

    (void)argc;
    (void)argv;
    if (o->ready_fd >= 0 && fcntl((int)o->ready_fd, F_GETFD) < 0)
        return error_set(err, ERROR_USAGE, "--ready-fd %d is not an open descriptor",
                         (int)o->ready_fd);
    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    cleanup_close int hup = signalfd(-1, &set, SFD_CLOEXEC);
    if (hup < 0)
        return error_sys(err, "signalfd");
    cleanup_close int links = net_watch_links(err);
    if (links < 0)
        return -1;
    struct net_forwarder *fw = net_forwarder_start(o->host_veth_cidr, o->host_veth_cidr6, ctx, err);
    if (!fw)
        return -1;
    int rc = update(fw, o, ctx->log, "Forwards ready", err);
    if (rc == 0)
        rc = notify_ready_fd((int)o->ready_fd, err);
    if (rc == 0)
        rc = notify_state("READY=1", err);
    if (rc == 0)
        rc = serve(fw, o, hup, links, ctx, err);
    (void)notify_state("STOPPING=1", NULL);
    return net_forwarder_stop(fw, rc < 0 ? NULL : err) < 0 ? -1 : rc;
}

int main(int argc, char **argv)
{
    static const struct command cmd = {
        .name = "drafter-forwarder",
        .summary = "forward ports of the host to virtual machines",
        .options = options,
        .n_options = ARRAY_SIZE(options),
        .options_size = sizeof(struct opts),
        .run = run,
    };

    return command_main(&cmd, argc, argv);
}
