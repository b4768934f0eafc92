/* SPDX-License-Identifier: Apache-2.0 */
/* library.h - libarchive, loaded by whoever has an archive
 *
 * With it come libxml2, ICU, the C++ runtime and nettle; to link with them costs every start of a
 * program 1.6 ms, which a machine that resumes from a folder would wait for in vain.
 */
#ifndef BLUEPRINT_PACK_LIBRARY_H
#define BLUEPRINT_PACK_LIBRARY_H

#include <archive.h>
#include <archive_entry.h>

#include "runtime/base/error.h"

#define PACK_LIBRARY_CALLS(X)                                                                      \
    X(archive_entry_filetype)                                                                      \
    X(archive_entry_free)                                                                          \
    X(archive_entry_hardlink)                                                                      \
    X(archive_entry_new)                                                                           \
    X(archive_entry_pathname)                                                                      \
    X(archive_entry_set_filetype)                                                                  \
    X(archive_entry_set_mtime)                                                                     \
    X(archive_entry_set_pathname)                                                                  \
    X(archive_entry_set_perm)                                                                      \
    X(archive_entry_set_size)                                                                      \
    X(archive_entry_size)                                                                          \
    X(archive_entry_sparse_add_entry)                                                              \
    X(archive_error_string)                                                                        \
    X(archive_filter_bytes)                                                                        \
    X(archive_read_data_block)                                                                     \
    X(archive_read_free)                                                                           \
    X(archive_read_new)                                                                            \
    X(archive_read_next_header)                                                                    \
    X(archive_read_open)                                                                           \
    X(archive_read_support_format_tar)                                                             \
    X(archive_set_error)                                                                           \
    X(archive_write_add_filter_none)                                                               \
    X(archive_write_close)                                                                         \
    X(archive_write_data)                                                                          \
    X(archive_write_finish_entry)                                                                  \
    X(archive_write_free)                                                                          \
    X(archive_write_header)                                                                        \
    X(archive_write_new)                                                                           \
    X(archive_write_open)                                                                          \
    X(archive_write_set_bytes_per_block)                                                           \
    X(archive_write_set_format_pax_restricted)

#define PACK_LIBRARY_MEMBER(name) typeof(&name) name; /* as libarchive(3) has it */
struct pack_library {
    PACK_LIBRARY_CALLS(PACK_LIBRARY_MEMBER)
};

/* Loads libarchive, which stays loaded. Any thread. Returns 0; ENOENT when it is not there. */
int pack_library_load(struct pack_library *ret, struct error *err);

#endif
