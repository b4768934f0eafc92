/* SPDX-License-Identifier: Apache-2.0 */
/* options.h - the options that every command has which writes a file system */
#ifndef OCI_EXT4_OPTIONS_H
#define OCI_EXT4_OPTIONS_H

#include "oci/ext4/ext4.h"
#include "runtime/base/command.h"

/* Members of an options struct; EXT4_OPTIONS() has their table entries. */
#define EXT4_MEMBERS                                                                               \
    const char *label, *epoch;                                                                     \
    uint64_t free_bytes

/* from: what the content is, for --help. */
/* clang-format off */
#define EXT4_OPTIONS(type, from)                                                                   \
    OPTION(type, free_bytes, .name = "free", .kind = OPTION_SIZE, .arg = "SIZE",                   \
           .def = "256M", .max = EXT4_SIZE_MAX,                                                    \
           .help = "Free space in the file system, a hole in the image."),                         \
    OPTION(type, label, .name = "label", .kind = OPTION_STRING, .arg = "TEXT", .def = "oci",       \
           .help = "Label of the file system, up to 16 bytes."),                                   \
    OPTION(type, epoch, .name = "source-date-epoch", .kind = OPTION_STRING,                        \
           .arg = "SECONDS|image", .def = "image",                                                 \
           .help = "The file system's own times, seconds since 1970; \"image\" takes "             \
                   "$SOURCE_DATE_EPOCH, or else the newest time of a file in the " from ".")
/* clang-format on */

/* The time that --source-date-epoch and the environment come to, for ext4_options. Returns 0. */
int ext4_choose_epoch(const char *option, int64_t *ret_epoch, struct error *err);

#endif
