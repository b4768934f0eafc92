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
    cleanup_named struct named_list list = {0};

    if (library_options(&o, sizeof(o), options, "drafter_registry_options", err) < 0)
        return -1;
    if (!o.package == !o.devices)
        return error_set(err, ERROR_USAGE, "registry: one of package and devices");
    if (o.devices && named_parse(o.devices, "input", &list, err) < 0)
        return error_usage(err);
    if (o.pulls > REGISTRY_PULLS_MAX)
        return error_set(err, ERROR_USAGE, "registry: at most %d pulls", REGISTRY_PULLS_MAX);
    const struct registry_options ro = {
        .package = o.package,
        .devices = &list,
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
        .status_fd = library_fd(o.status_fd),
    };
    return registry_run(&ro, &d->ctx, err);
}

int drafter_terminate(struct drafter *d, const struct drafter_terminate_options *options,
                      struct drafter_error *error)
{
    struct error *err = library_error(error);
    struct drafter_terminate_options o;
    cleanup_named struct named_list list = {0};

    if (library_options(&o, sizeof(o), options, "drafter_terminate_options", err) < 0)
        return -1;
    if (!o.raddr || !o.package == !o.devices)
        return error_set(err, ERROR_USAGE,
                         "terminate: raddr must be named, and one of package and devices");
    if (o.devices && named_parse(o.devices, "output", &list, err) < 0)
        return error_usage(err);
    const struct terminate_options to = {
        .raddr = o.raddr,
        .transport = {.tls_cert = o.tls_cert, .tls_key = o.tls_key, .tls_ca = o.tls_ca},
        .output = o.package,
        .devices = &list,
        .replace = o.replace,
        .keep_running = o.keep_running,
        .status_fd = library_fd(o.status_fd),
        .trace = o.trace,
    };
    return terminate_run(&to, &d->ctx, err);
}
