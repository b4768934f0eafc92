/* SPDX-License-Identifier: Apache-2.0 */
/* options.h - the options that the commands which move machines share
 *
 * Entries for an option table (command.h); type: the command's options struct, m: the member.
 */
#ifndef RUNTIME_PEER_OPTIONS_H
#define RUNTIME_PEER_OPTIONS_H

#include "runtime/base/command.h"
#include "runtime/transport/transport.h"

/* m: a struct transport_options. */
#define TLS_OPTIONS(type, m)                                                                       \
    OPTION(type, m.tls_cert, .name = "tls-cert", .kind = OPTION_STRING, .arg = "FILE",             \
           .help = "Our certificate chain for tls: addresses, PEM."),                              \
        OPTION(type, m.tls_key, .name = "tls-key", .kind = OPTION_STRING, .arg = "FILE",           \
               .help = "Its private key, PEM."),                                                   \
        OPTION(type, m.tls_ca, .name = "tls-ca", .kind = OPTION_STRING, .arg = "FILE",             \
               .help = "Who signs the other side's certificate, PEM.")

/* Of a command that listens. */
#define TLS_LISTEN_OPTIONS(type, m)                                                                \
    OPTION(type, m.tls_anonymous_clients, .name = "tls-anonymous-clients", .kind = OPTION_FLAG,    \
           .help = "Listening: take clients without a certificate.")

/* What a command that sends does with its bytes: two uint64_t. */
#define SEND_OPTIONS(type, bandwidth_m, zstd_m)                                                    \
    OPTION(type, bandwidth_m, .name = "bandwidth-limit", .kind = OPTION_SIZE, .arg = "SIZE",       \
           .def = "0",                                                                             \
           .help = "Send at most so many bytes a second in one migration; 0: no limit."),          \
        OPTION(type, zstd_m, .name = "zstd-level", .kind = OPTION_UINT, .arg = "LEVEL",            \
               .def = "0", .max = 19, .help = "Compress what travels; 0: not.")

/* m: a uint64_t, for status_fd(). */
#define STATUS_OPTION(type, m)                                                                     \
    OPTION(type, m, .name = "status-fd", .kind = OPTION_UINT, .arg = "FD", .def = "0",             \
           .max = 65535, .help = "Descriptor that gets events, one JSON object a line; 0: none.")

static inline int status_fd(uint64_t given)
{
    return given ? (int)given : -1;
}

#define TRACE_OPTION(type, m)                                                                      \
    OPTION(type, m, .name = "trace", .kind = OPTION_STRING, .arg = "FILE",                         \
           .help = "Write which range moved when; tools/plot-migration draws it.")

#endif
