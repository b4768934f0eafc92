// SPDX-License-Identifier: Apache-2.0
/* machine.c - libdrafter's machines; the work is runtime/peer's */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "runtime/lib/library.h"
#include "runtime/peer/peer.h"

struct drafter_machine {
    struct drafter *d;
    struct drafter_machine_options o;
    struct vm_opts vm;
    struct peer_options po;
    struct peer *peer;
    int word; /* an eventfd: calls a move off */
};

static const enum migrate_postcopy postcopies[] = {MIGRATE_POSTCOPY_LAST, MIGRATE_POSTCOPY_OFF,
                                                   MIGRATE_POSTCOPY_EARLY};

static void machine_free(struct drafter_machine *m)
{
    cleanup_close_p(&m->word);
    free(m);
}
DEFINE_CLEANUP(cleanup_machine_p, struct drafter_machine *, machine_free)

static int check(const struct drafter_machine_options *o, struct error *err)
{
    if ((o->package != NULL) + (o->blueprint != NULL) + (o->devices != NULL) != 1)
        return error_set(err, ERROR_USAGE, "machine: one of package, blueprint and devices");
    if (o->postcopy < 0 || (size_t)o->postcopy >= ARRAY_SIZE(postcopies))
        return error_set(err, ERROR_USAGE, "machine: postcopy %d: must be 0, 1 or 2", o->postcopy);
    if ((o->laddr && *o->laddr && transport_check_address(o->laddr, true, err) < 0) ||
        (o->raddr && *o->raddr && transport_check_address(o->raddr, false, err) < 0))
        return -1;
    return 0;
}

static void fill(struct drafter_machine *m)
{
    const struct drafter_machine_options *o = &m->o;
    const bool model = o->cpu_template && strcmp(o->cpu_template, "None") != 0;

    m->po = (struct peer_options){
        .vm = &m->vm,
        .mock = o->mock,
        .verify = o->verify,
        .take_back = o->take_back,
        .fresh = o->fresh,
        .cpus = o->cpus ? o->cpus : 1,
        .memory_mib = o->memory_mib ? o->memory_mib : 1024,
        .cpu_model = model ? o->cpu_template : NULL,
        .boot_args = o->boot_args,
        .raddr = o->raddr,
        .laddr = o->laddr,
        .transport = {.tls_cert = o->tls_cert,
                      .tls_key = o->tls_key,
                      .tls_ca = o->tls_ca,
                      .tls_anonymous_clients = o->tls_anonymous_clients},
        .postcopy = postcopies[o->postcopy],
        .concurrency = o->concurrency,
        .zstd_level = o->zstd_level,
        .bandwidth = o->bandwidth,
        .downtime_limit_ns = library_ns(o->downtime_limit_ms),
        .idle_ns = library_ns(o->idle_timeout_ms),
        .retake_ns = library_ns(o->retake_timeout_ms),
        .status_fd = library_fd(o->status_fd),
        .cancel_fd = m->word,
        .trace = o->trace,
    };
}

struct drafter_machine *drafter_machine_new(struct drafter *d,
                                            const struct drafter_machine_options *options,
                                            struct drafter_error *error)
{
    struct error *err = library_error(error);
    struct drafter_machine *m CLEANUP(cleanup_machine_p) = calloc(1, sizeof(*m));

    if (!m) {
        (void)error_oom(err);
        return NULL;
    }
    m->d = d;
    m->word = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (m->word < 0) {
        (void)error_sys(err, "eventfd");
        return NULL;
    }
    if (library_options(&m->o, sizeof(m->o), options, "drafter_machine_options", err) < 0 ||
        check(&m->o, err) < 0 || library_vm(&m->o.vm, &m->vm, err) < 0)
        return NULL;
    fill(m);
    const struct plan_wish wish = {
        .package = m->o.package,
        .blueprint = m->o.blueprint,
        .devices = m->o.devices,
        .overlay_dir = m->o.overlay_dir ? m->o.overlay_dir : "out/overlay",
        .package_cache = m->o.package_cache,
        .into = m->o.raddr && *m->o.raddr,
    };
    struct plan *plan = plan_of_wish(&wish, &d->ctx, err);
    if (!plan)
        return NULL;
    m->peer = peer_new(plan, &m->po, &d->ctx, err);
    return m->peer ? steal_ptr(&m) : NULL;
}

static void tell(const struct drafter_machine *m, enum drafter_event_kind kind)
{
    const struct drafter_event event = {.kind = kind, .machine = m};

    library_event(m->d, &event);
}

int drafter_machine_start(struct drafter_machine *m, struct drafter_error *error)
{
    struct error *err = library_error(error);
    const bool takes = m->o.raddr && *m->o.raddr;

    if (m->po.status_fd >= 0 || m->po.trace) {
        m->peer->report = report_open(m->po.status_fd, m->po.trace, &m->d->ctx, err);
        if (!m->peer->report)
            return -1;
    }
    if ((takes                         ? peer_take(m->peer, err)
         : peer_open(m->peer, err) < 0 ? -1
                                       : peer_start(m->peer, err)) < 0)
        return -1;
    if (m->peer->running)
        tell(m, DRAFTER_EVENT_RUNNING);
    return 0;
}

int drafter_machine_serve(struct drafter_machine *m, struct drafter_error *error)
{
    const bool ran = m->peer->running;

    if (peer_serve(m->peer, library_error(error)) < 0)
        return -1;
    if (ran && !m->peer->running)
        tell(m, m->peer->gone ? DRAFTER_EVENT_MOVED : DRAFTER_EVENT_ENDED);
    return 0;
}

void drafter_machine_call_off(struct drafter_machine *m)
{
    const uint64_t one = 1;

    (void)!write(m->word, &one, sizeof(one)); /* full: it was said already */
}

int drafter_machine_suspend(struct drafter_machine *m, struct drafter_error *error)
{
    const bool ran = m->peer->running;
    int rc = peer_suspend(m->peer, library_error(error));

    if (ran && !m->peer->running)
        tell(m, DRAFTER_EVENT_SUSPENDED);
    return rc;
}

int drafter_machine_free(struct drafter_machine *m, struct drafter_error *error)
{
    if (!m)
        return 0;
    struct error *err = library_error(error);
    struct report *report = m->peer->report;
    int rc = peer_free(m->peer, err);
    if (report_close(report, rc < 0 ? NULL : err) < 0)
        rc = -1;
    machine_free(m);
    return rc;
}

bool drafter_machine_runs(const struct drafter_machine *m)
{
    return atomic_load(&m->peer->counters.running);
}

const char *drafter_machine_path(const struct drafter_machine *m)
{
    return m->peer->a ? assembly_path(m->peer->a) : NULL;
}

size_t drafter_machine_metrics(struct drafter_machine *m, char *buf, size_t size)
{
    cleanup_free char *text = malloc(PEER_METRICS_TEXT_MAX);

    if (size == 0)
        return 0;
    size_t n = text ? peer_metrics(m->peer, text, PEER_METRICS_TEXT_MAX) : 0;
    if (n > size - 1)
        n = size - 1;
    if (n > 0)
        memcpy(buf, text, n);
    buf[n] = '\0';
    return n;
}

/* ---- Into the guest ----------------------------------------------------------------------- */

/* "CONNECT PORT\n", answered by "OK HOSTPORT\n" (runtime/vsock/vsock.h). */
static int greet(int fd, uint32_t port, struct error *err)
{
    char line[64];
    size_t n = (size_t)snprintf(line, sizeof(line), "CONNECT %u\n", port);

    if (send(fd, line, n, MSG_NOSIGNAL) != (ssize_t)n)
        return error_sys(err, "vsock port %u", port);
    for (n = 0; n < sizeof(line) - 1; n++) {
        ssize_t got = recv(fd, line + n, 1, 0);
        if (got < 0 && errno == EINTR) {
            n--;
            continue;
        }
        if (got <= 0)
            return error_set(err, ECONNREFUSED, "vsock port %u: nobody listens in the guest", port);
        if (line[n] == '\n')
            return strncmp(line, "OK ", 3) == 0
                       ? 0
                       : error_set(err, EPROTO, "vsock port %u: an answer that is not OK", port);
    }
    return error_set(err, EPROTO, "vsock port %u: an answer without an end", port);
}

int drafter_machine_connect(struct drafter_machine *m, uint32_t port, struct drafter_error *error)
{
    struct error *err = library_error(error);
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    const char *path = drafter_machine_path(m);

    if (!path || !drafter_machine_runs(m))
        return error_set(err, EINVAL, "vsock port %u: the machine does not run", port);
    if ((size_t)snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/" VMM_VSOCK_NAME, path) >=
        sizeof(sa.sun_path))
        return error_set(err, ENAMETOOLONG, "%s/" VMM_VSOCK_NAME, path);
    cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
        return error_sys(err, "%s", sa.sun_path);
    return greet(fd, port, err) < 0 ? -1 : steal_fd(&fd);
}
