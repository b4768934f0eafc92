/* SPDX-License-Identifier: Apache-2.0 */
/* io.h - whole reads and writes, small files, and holes
 *
 * All functions retry after EINTR. `what` names the object in the error text ("layout/index.json").
 */
#ifndef RUNTIME_BASE_IO_H
#define RUNTIME_BASE_IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "runtime/base/error.h"

/* Reads up to len bytes, fewer only at the end of the stream. Returns the count. */
ssize_t io_read(int fd, void *buf, size_t len, const char *what, struct error *err);

/* Reads exactly len bytes; an earlier end of the stream is an error (EBADMSG). Returns 0. */
int io_read_exact(int fd, void *buf, size_t len, const char *what, struct error *err);
int io_pread_exact(int fd, void *buf, size_t len, uint64_t offset, const char *what,
                   struct error *err);

/* Reads up to len bytes at offset, fewer only at the end of the file. Returns the count. */
ssize_t io_pread(int fd, void *buf, size_t len, uint64_t offset, const char *what,
                 struct error *err);

/* Writes all len bytes. Returns 0. */
int io_write(int fd, const void *buf, size_t len, const char *what, struct error *err);
int io_pwrite(int fd, const void *buf, size_t len, uint64_t offset, const char *what,
              struct error *err);

/* Reads a whole regular file of at most `limit` bytes below dirfd (AT_FDCWD allowed); a larger one,
 * or one that is no regular file, is refused. A NUL byte is appended that *ret_len (may be NULL)
 * does not count. The caller frees the result. Returns NULL on failure. Follows symlinks: for paths
 * from outside use an fd that was opened beneath its root and io_read_fd(). */
char *io_read_file(int dirfd, const char *path, size_t limit, size_t *ret_len, struct error *err);
char *io_read_fd(int fd, size_t limit, const char *what, size_t *ret_len, struct error *err);

/* Copies len bytes between files with copy_file_range(2), falling back to read and write. Holes of
 * the source (SEEK_DATA) are not written: the target range must read as zeros before. Returns 0. */
int io_copy_range(int from, uint64_t from_off, int to, uint64_t to_off, uint64_t len,
                  const char *what, struct error *err);

/* True when all len bytes are zero. */
int io_is_zero(const void *buf, size_t len);

/* Size in bytes of a regular file or block device. Returns 0. */
int io_size(int fd, const char *what, uint64_t *ret_size, struct error *err);

#endif
