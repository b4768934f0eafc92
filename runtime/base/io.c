// SPDX-License-Identifier: Apache-2.0
/* io.c - whole reads and writes, small files, and holes */
#include "runtime/base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"

#define COPY_CHUNK (1u << 20)

static ssize_t read_at(int fd, void *buf, size_t len, uint64_t offset, bool positioned,
                       const char *what, struct error *err)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = positioned ? pread(fd, (char *)buf + done, len - done, (off_t)(offset + done))
                               : read(fd, (char *)buf + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_sys(err, "%s: read", what);
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

ssize_t io_read(int fd, void *buf, size_t len, const char *what, struct error *err)
{
    return read_at(fd, buf, len, 0, false, what, err);
}

ssize_t io_pread(int fd, void *buf, size_t len, uint64_t offset, const char *what,
                 struct error *err)
{
    return read_at(fd, buf, len, offset, true, what, err);
}

int io_read_exact(int fd, void *buf, size_t len, const char *what, struct error *err)
{
    ssize_t n = read_at(fd, buf, len, 0, false, what, err);
    if (n < 0)
        return -1;
    if ((size_t)n < len)
        return error_set(err, EBADMSG, "%s: ended after %zd of %zu bytes", what, n, len);
    return 0;
}

int io_pread_exact(int fd, void *buf, size_t len, uint64_t offset, const char *what,
                   struct error *err)
{
    ssize_t n = read_at(fd, buf, len, offset, true, what, err);
    if (n < 0)
        return -1;
    if ((size_t)n < len)
        return error_set(err, EBADMSG, "%s: ended at byte %llu, %llu wanted", what,
                         (unsigned long long)(offset + (size_t)n),
                         (unsigned long long)(offset + len));
    return 0;
}

static int write_at(int fd, const void *buf, size_t len, uint64_t offset, bool positioned,
                    const char *what, struct error *err)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = positioned
                        ? pwrite(fd, (const char *)buf + done, len - done, (off_t)(offset + done))
                        : write(fd, (const char *)buf + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_sys(err, "%s: write", what);
        done += (size_t)n;
    }
    return 0;
}

int io_write(int fd, const void *buf, size_t len, const char *what, struct error *err)
{
    return write_at(fd, buf, len, 0, false, what, err);
}

int io_pwrite(int fd, const void *buf, size_t len, uint64_t offset, const char *what,
              struct error *err)
{
    return write_at(fd, buf, len, offset, true, what, err);
}

char *io_read_fd(int fd, size_t limit, const char *what, size_t *ret_len, struct error *err)
{
    struct stat st;

    if (fstat(fd, &st) < 0) {
        error_sys(err, "%s: stat", what);
        return NULL;
    }
    if (!S_ISREG(st.st_mode)) {
        error_set(err, EINVAL, "%s: not a regular file", what);
        return NULL;
    }
    if ((uint64_t)st.st_size > limit) {
        error_set(err, EFBIG, "%s: %lld bytes, more than the limit of %zu", what,
                  (long long)st.st_size, limit);
        return NULL;
    }
    /* One byte more than the size tells a file that grew meanwhile from one that did not. */
    size_t size = (size_t)st.st_size;
    cleanup_free char *buf = malloc(size + 1);
    if (!buf) {
        error_oom(err);
        return NULL;
    }
    ssize_t n = io_pread(fd, buf, size + 1, 0, what, err);
    if (n < 0)
        return NULL;
    if ((size_t)n > size) {
        error_set(err, EBUSY, "%s: grew while it was read", what);
        return NULL;
    }
    buf[n] = '\0';
    if (ret_len)
        *ret_len = (size_t)n;
    return steal_ptr(&buf);
}

char *io_read_file(int dirfd, const char *path, size_t limit, size_t *ret_len, struct error *err)
{
    /* O_NONBLOCK: a FIFO in the file's place must not hold us up. */
    cleanup_close int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        error_sys(err, "%s: open", path);
        return NULL;
    }
    return io_read_fd(fd, limit, path, ret_len, err);
}

/* The fallback where copy_file_range(2) does not work between the two files. */
static int copy_by_hand(int from, uint64_t from_off, int to, uint64_t to_off, uint64_t len,
                        const char *what, struct error *err)
{
    cleanup_free char *buf = malloc(COPY_CHUNK);
    if (!buf)
        return error_oom(err);
    while (len > 0) {
        size_t n = len < COPY_CHUNK ? (size_t)len : COPY_CHUNK;
        if (io_pread_exact(from, buf, n, from_off, what, err) < 0)
            return -1;
        if (!io_is_zero(buf, n) && io_pwrite(to, buf, n, to_off, what, err) < 0)
            return -1;
        from_off += n;
        to_off += n;
        len -= n;
    }
    return 0;
}

static int copy_data(int from, uint64_t from_off, int to, uint64_t to_off, uint64_t len,
                     const char *what, struct error *err)
{
    while (len > 0) {
        off_t in = (off_t)from_off, out = (off_t)to_off;
        ssize_t n = copy_file_range(from, &in, to, &out, len < (1u << 30) ? len : (1u << 30), 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP ||
                      errno == EPERM))
            return copy_by_hand(from, from_off, to, to_off, len, what, err);
        if (n < 0)
            return error_sys(err, "%s: copy", what);
        if (n == 0) /* Some file systems answer 0 for files they cannot copy (procfs, FUSE). */
            return copy_by_hand(from, from_off, to, to_off, len, what, err);
        from_off += (size_t)n;
        to_off += (size_t)n;
        len -= (size_t)n;
    }
    return 0;
}

int io_copy_range(int from, uint64_t from_off, int to, uint64_t to_off, uint64_t len,
                  const char *what, struct error *err)
{
    const uint64_t end = from_off + len;
    uint64_t pos = from_off;

    while (pos < end) {
        off_t data = lseek(from, (off_t)pos, SEEK_DATA);
        if (data < 0 && errno == ENXIO) { /* Only a hole is left, or the file ends early. */
            off_t eof = lseek(from, 0, SEEK_END);
            if (eof >= 0 && (uint64_t)eof < end)
                return error_set(err, EBADMSG, "%s: ended at byte %lld, %llu wanted", what,
                                 (long long)eof, (unsigned long long)end);
            return 0;
        }
        if (data < 0) /* No SEEK_DATA here (a pipe, an odd file system): all of it is data. */
            return copy_data(from, pos, to, to_off + (pos - from_off), end - pos, what, err);
        if ((uint64_t)data >= end)
            return 0;
        off_t hole = lseek(from, data, SEEK_HOLE);
        uint64_t stop = hole < 0 || (uint64_t)hole > end ? end : (uint64_t)hole;
        if (copy_data(from, (uint64_t)data, to, to_off + ((uint64_t)data - from_off),
                      stop - (uint64_t)data, what, err) < 0)
            return -1;
        pos = stop;
    }
    return 0;
}

int io_is_zero(const void *buf, size_t len)
{
    const unsigned char *p = buf;

    /* The first 16 bytes by hand, then the buffer against itself: memcmp is vectorised. */
    size_t head = len < 16 ? len : 16;
    for (size_t i = 0; i < head; i++)
        if (p[i])
            return 0;
    return len <= 16 || memcmp(p, p + 16, len - 16) == 0;
}

int io_size(int fd, const char *what, uint64_t *ret_size, struct error *err)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return error_sys(err, "%s: stat", what);
    if (S_ISREG(st.st_mode)) {
        *ret_size = (uint64_t)st.st_size;
        return 0;
    }
    if (S_ISBLK(st.st_mode)) {
        uint64_t size;
        if (ioctl(fd, BLKGETSIZE64, &size) < 0)
            return error_sys(err, "%s: BLKGETSIZE64", what);
        *ret_size = size;
        return 0;
    }
    return error_set(err, EINVAL, "%s: neither a regular file nor a block device", what);
}
