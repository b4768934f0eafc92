/* SPDX-License-Identifier: Apache-2.0 */
/* folder.h - whose machine a folder's files are, before they serve as a package
 *
 * Theory of operation: files in which a machine runs or ran (one that a migration brought, or one
 * without overlays) look like a package. What became of that machine stands beside the file with
 * its memory: FILE.machine (mark.h) and FILE.moved (migrate.h). One that was suspended there is as
 * good as a package; of any other the files do not belong together, or the machine is another
 * host's.
 *
 * Who runs a machine in files locks them exclusively (flock(2)), and changes mark and record only
 * then; who uses files as a package locks them shared. So: lock first, then look, and hold the lock
 * for as long as the files are used.
 */
#ifndef RUNTIME_PEER_FOLDER_H
#define RUNTIME_PEER_FOLDER_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/snapshot/archive.h"
#include "runtime/snapshot/package.h"

#define FOLDER_FILES_MAX (PACKAGE_DEVICES_MAX + 2)

/* Takes flock(2) on fd without waiting; it ends with the last copy of fd. what: the file, for the
 * error. Returns 0, or -1: EBUSY when somebody else has it. */
int folder_lock(int fd, bool exclusive, const char *what, struct error *err);

/* Whether the file with a machine's memory may serve as a package's: nothing ran in it, or what did
 * was suspended in it. dirfd/name: the file, locked by the caller; what names it in messages.
 * Returns 0, or -1: ESTALE when the machine in it was not suspended, was powered off, or went
 * elsewhere. */
int folder_check(int dirfd, const char *name, const char *what, struct error *err);

/* A person's word that the machine of that file does not run where it was moved to: it stands there
 * again. Files that nobody moved a machine from, or that are not there, stay as they are. Returns
 * 0, or -1: EBUSY while the files are in use. */
int folder_take_back(const char *memory, struct error *err);

/* The same where the caller has the file locked exclusively: mark and record are given. */
int folder_stand_again(const char *mark, const char *record, struct error *err);

/* Files that are held: open, and locked shared. Initialise with FOLDER_FILES_INIT. */
struct folder_files {
    int fds[FOLDER_FILES_MAX];
    size_t n;
};
#define FOLDER_FILES_INIT                                                                          \
    {                                                                                              \
        .n = 0                                                                                     \
    }

/* Takes over fd, the file of that device at dirfd/name, and locks it shared; of the memory's what
 * became of its machine is looked at (folder_check()). The lock lasts until folder_release().
 * Returns 0, or -1: then fd is closed. */
int folder_hold(struct folder_files *files, int fd, const char *device, int dirfd, const char *name,
                const char *what, struct error *err);

/* Holds all files of a package. Returns 0. */
int folder_hold_package(struct folder_files *files, const struct package *pkg, struct error *err);

void folder_release(struct folder_files *files);

/* archive_make() of files that are held meanwhile; a blueprint's need not be. */
int folder_archive(const struct archive_options *options, const struct context *ctx,
                   struct error *err);
#define cleanup_folder_files CLEANUP(folder_release)

#endif
