// SPDX-License-Identifier: Apache-2.0
/* network.c - libdrafter's acts on packages over a network: registry, terminate */
#include "runtime/lib/library.h"
#include "runtime/peer/registry.h"
#include "runtime/peer/terminate.h"

int drafter_registry(struct drafter *d, const struct drafter_registry_options *options,
                     struct drafter_error *error)
{
    struct error *err = library_error(error);
    struct drafter_registry_options o;

    if (library_options(&o, sizeof(o), options, "drafter_registry_options", err) < 0)
        return -1;
    if (!o.package)
        return error_set(err, ERROR_USAGE, "registry: a package must be named");
    if (o.pulls > REGISTRY_PULLS_MAX)
        return error_set(err, ERROR_USAGE, "registry: at most %d pulls", REGISTRY_PULLS_MAX);
    const struct registry_options ro = {
        .package = o.package,
        .laddr = o.laddr ? o.laddr : ":1600",
        .transport = {.tls_cert = o.tls_cert,
                      .tls_key = o.tls_key,
                      .tls_ca = o.tls_ca,
                      .tls_anonymous_clients = o.tls_anonymous_clients},
        .pulls = o.pulls ? o.pulls : 64,
        .concurrency = o.concurrency,
        .no_verify = o.no_verify,
        .postcopy_off = o.no_postcopy,
        .zstd_level = o.zstd_level,
        .bandwidth = o.bandwidth,
        .status_fd = -1,
    };
    return registry_run(&ro, &d->ctx, err);
}

int drafter_terminate(struct drafter *d, const struct drafter_terminate_options *options,
                      struct drafter_error *error)
{
    struct error *err = library_error(error);
    struct drafter_terminate_options o;

    if (library_options(&o, sizeof(o), options, "drafter_terminate_options", err) < 0)
        return -1;
    if (!o.raddr || !o.package)
        return error_set(err, ERROR_USAGE, "terminate: raddr and package must be named");
    const struct terminate_options to = {
        .raddr = o.raddr,
        .transport = {.tls_cert = o.tls_cert, .tls_key = o.tls_key, .tls_ca = o.tls_ca},
        .output = o.package,
        .replace = o.replace,
        .keep_running = o.keep_running,
        .status_fd = -1,
    };
    return terminate_run(&to, &d->ctx, err);
}
