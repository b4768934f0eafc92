/* SPDX-License-Identifier: Apache-2.0 */
/* options.h - the options that every command has which reads an image */
#ifndef OCI_ASSEMBLE_OPTIONS_H
#define OCI_ASSEMBLE_OPTIONS_H

#include "oci/assemble/assemble.h"
#include "runtime/base/command.h"

/* Members of an options struct; ASSEMBLE_OPTIONS() has their table entries. */
#define ASSEMBLE_MEMBERS                                                                           \
    const char *image, *architecture, *hostname;                                                   \
    uint64_t max_bytes, max_ratio, max_entries, max_file_size, max_metadata

/* clang-format off */
#define ASSEMBLE_OPTIONS(type)                                                                     \
    OPTION(type, image, .name = "image", .kind = OPTION_STRING, .arg = "DIR[:REF]",                \
           .required = true,                                                                       \
           .help = "The image: an OCI image layout and, when it holds several, which one."),       \
    OPTION(type, architecture, .name = "architecture", .kind = OPTION_STRING, .arg = "ARCH",       \
           .def = "amd64", .help = "The platform to take from an image that has several."),        \
    OPTION(type, hostname, .name = "hostname", .kind = OPTION_STRING, .arg = "NAME",               \
           .def = "drafterguest", .help = "Host name inside the container."),                      \
    OPTION(type, max_bytes, .name = "max-bytes", .kind = OPTION_SIZE, .arg = "SIZE",               \
           .def = "64G", .min = 1, .help = "Limit for all uncompressed layers together."),         \
    OPTION(type, max_ratio, .name = "max-ratio", .kind = OPTION_UINT, .arg = "N",                  \
           .def = "500", .min = 1,                                                                 \
           .help = "How many times its size a layer of more than 64 MiB may inflate to."),         \
    OPTION(type, max_entries, .name = "max-entries", .kind = OPTION_UINT, .arg = "N",              \
           .def = "4000000", .min = 1, .help = "Limit for entries of all layers together."),       \
    OPTION(type, max_file_size, .name = "max-file-size", .kind = OPTION_SIZE, .arg = "SIZE",       \
           .def = "1T", .min = 1, .help = "Limit for one file, its holes included."),              \
    OPTION(type, max_metadata, .name = "max-metadata", .kind = OPTION_SIZE, .arg = "SIZE",         \
           .def = "2G", .min = 1, .help = "Limit for the memory that names and attributes take.")

/* The assemble_options that such a struct `o` (a pointer) stands for. */
#define ASSEMBLE_FROM(o, dirfd)                                                                    \
    ((struct assemble_options){                                                                    \
        .image = (o)->image,                                                                       \
        .architecture = (o)->architecture,                                                         \
        .hostname = (o)->hostname,                                                                 \
        .limits = {.max_bytes = (o)->max_bytes,                                                    \
                   .max_ratio = (o)->max_ratio,                                                    \
                   .max_entries = (o)->max_entries,                                                \
                   .max_file_size = (o)->max_file_size,                                            \
                   .max_metadata = (o)->max_metadata},                                             \
        .spool_dirfd = (dirfd),                                                                    \
    })
/* clang-format on */

#endif
