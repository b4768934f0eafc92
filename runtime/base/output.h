/* SPDX-License-Identifier: Apache-2.0 */
/* output.h - files and folders that appear whole or not at all
 *
 * Theory of operation: an output is made under a temporary name beside its final one
 * (".NAME.tmp-PID-RANDOM", O_EXCL), and output_commit() does fsync, rename, fsync of the folder.
 * Any way out of the scope before the commit removes the temporary. What a killed process left
 * behind is swept by the next output_begin() of the same name: the temporary is locked with
 * flock(2) while it is being made, so a leftover is one that can be locked.
 */
#ifndef RUNTIME_BASE_OUTPUT_H
#define RUNTIME_BASE_OUTPUT_H

#include <stdbool.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"

struct output;

enum output_kind {
    OUTPUT_FILE,
    OUTPUT_DIR,
};

/* Starts an output at `path` (parents are made). mode: permissions of the result, less the umask
 * for a file; a folder is made exactly so. The caller owns the result: output_commit() or
 * output_abort(). Returns NULL on failure. */
struct output *output_begin(const char *path, enum output_kind kind, unsigned mode,
                            struct error *err);

/* The open temporary: a read-write fd of the file, or an O_RDONLY|O_DIRECTORY fd of the folder.
 * Owned by the output. */
int output_fd(const struct output *out);

/* The temporary's path, for programs that must be told one. Owned by the output. */
const char *output_path(const struct output *out);

/* Makes the output appear under its final name, in place of what stood there (a folder that stood
 * there is swapped out atomically, then removed). durable: fsync the contents first; without it the
 * result is whole after a crash of the process but not after one of the machine. Frees *out and
 * sets it to NULL, also on failure, when the temporary is removed and the old content stays. */
int output_commit(struct output **out, bool durable, struct error *err);

/* Removes the temporary. NULL is fine. */
void output_abort(struct output *out);

/* Removes `name` below dirfd with all it holds, without following a symlink or crossing into
 * another mount. Absent is fine. Folders that deny access to their owner are made accessible. */
int output_remove_tree(int dirfd, const char *name, struct error *err);

/* mkdir -p for `path` with mode 0777 less the umask. */
int output_make_dirs(const char *path, struct error *err);

/* The same for a folder that others than its owner have no business in, as it holds what a guest
 * had in its memory: `path`, if it is made, has mode 0700, its parents are as above.
 * output_make_private_parent(): the folder that `path` lies in. */
int output_make_private_dirs(const char *path, struct error *err);
int output_make_private_parent(const char *path, struct error *err);

DEFINE_CLEANUP(cleanup_output_p, struct output *, output_abort)
#define cleanup_output CLEANUP(cleanup_output_p)

#endif
