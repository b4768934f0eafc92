// SPDX-License-Identifier: Apache-2.0
/* file_util.c - what layers do with files: locks, holes, extents */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "runtime/base/io.h"
#include "runtime/block/layer.h"

#define PUNCH_CHUNK 65536u

/* Who holds a flock(2) on the file: the first line of /proc/locks with its device and inode. 0 =
 * not told (another pid namespace, no /proc). Format: proc_locks(5), "1: FLOCK  ADVISORY  WRITE 708
 * fe:00:13 0 EOF". */
static long lock_holder(int fd)
{
    struct stat st;
    char line[256];

    cleanup_fclose FILE *f = fopen("/proc/locks", "re");
    if (!f || fstat(fd, &st) < 0)
        return 0;
    while (fgets(line, sizeof(line), f)) {
        long pid;
        unsigned major_no, minor_no;
        unsigned long long inode;
        if (sscanf(line, "%*d: FLOCK %*s %*s %ld %x:%x:%llu", &pid, &major_no, &minor_no, &inode) ==
                4 &&
            inode == st.st_ino && makedev(major_no, minor_no) == st.st_dev)
            return pid;
    }
    return 0;
}

int lock_file(int fd, bool exclusive, const char *what, struct error *err)
{
    while (flock(fd, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) < 0) {
        if (errno == EINTR)
            continue;
        if (errno != EWOULDBLOCK)
            return error_sys(err, "%s: lock", what);
        long pid = lock_holder(fd);
        if (pid > 0)
            return error_set(err, EBUSY, "%s: in use by process %ld; stop that one first", what,
                             pid);
        return error_set(err, EBUSY, "%s: in use by another process; stop that one first", what);
    }
    return 0;
}

int punch_file(int fd, uint64_t offset, uint64_t len, const char *what, struct error *err)
{
    static const char zeros[PUNCH_CHUNK];

    while (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len) <
           0) {
        if (errno == EINTR)
            continue;
        if (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL && errno != ENODEV)
            return error_sys(err, "%s: punch a hole", what);
        for (uint64_t done = 0; done < len;) {
            size_t n = len - done < PUNCH_CHUNK ? (size_t)(len - done) : PUNCH_CHUNK;
            if (io_pwrite(fd, zeros, n, offset + done, what, err) < 0)
                return -1;
            done += n;
        }
        return 0;
    }
    return 0;
}

int file_extents(int fd, uint64_t offset, uint64_t len, const char *what, struct extents *ret,
                 struct error *err)
{
    const uint64_t end = offset + len;

    while (offset < end) {
        off_t data = lseek(fd, (off_t)offset, SEEK_DATA);
        if (data < 0 && errno == ENXIO) /* only a hole, or nothing, from here on */
            return extents_add(ret, offset, end - offset, EXTENT_ZERO | EXTENT_HOLE, err);
        if (data < 0 && (errno == EINVAL || errno == EOPNOTSUPP)) /* a block device */
            return extents_add(ret, offset, end - offset, 0, err);
        if (data < 0)
            return error_sys(err, "%s: seek", what);
        uint64_t start = (uint64_t)data < end ? (uint64_t)data : end;
        if (start > offset &&
            extents_add(ret, offset, start - offset, EXTENT_ZERO | EXTENT_HOLE, err) < 0)
            return -1;
        if (start == end)
            return 0;
        off_t hole = lseek(fd, data, SEEK_HOLE);
        if (hole < 0 && errno != ENXIO)
            return error_sys(err, "%s: seek", what);
        uint64_t stop = hole < 0 || (uint64_t)hole > end ? end : (uint64_t)hole;
        if (stop <= start) /* The file changes while we look: call the rest data. */
            stop = end;
        if (extents_add(ret, start, stop - start, 0, err) < 0)
            return -1;
        offset = stop;
    }
    return 0;
}
