// SPDX-License-Identifier: Apache-2.0
/* inside.c - files in the VM directory, which belongs to a process that may have been taken over
 *
 * Theory of operation: the hypervisor's user can make, rename and remove anything in its directory,
 * at any moment. What we, with more rights, open there must not become a file of elsewhere: the
 * kernel itself resolves the path below the directory and through no link (openat2(2)), nothing is
 * emptied, given away or read before the open file was looked at, and no FIFO or device holds us
 * up. A second link to a file of somebody else would need no symlink: where the kernel lets users
 * make one (fs.protected_hardlinks, proc(5)), the count of links or the owner tells.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/vmm/driver.h"

/* Without openat2(2), as before Linux 5.6: component by component. Sets errno. */
static int open_by_parts(int dir_fd, const char *path, int flags, mode_t mode)
{
    cleanup_close int dir = -1;

    for (;;) {
        char part[NAME_MAX + 1];
        size_t n = strcspn(path, "/");
        const char *next = path + n + strspn(path + n, "/");
        if (n == 0 || n > NAME_MAX || (n == 2 && memcmp(path, "..", 2) == 0)) {
            errno = n > NAME_MAX ? ENAMETOOLONG : EXDEV;
            return -1;
        }
        memcpy(part, path, n);
        part[n] = '\0';
        int at = dir >= 0 ? dir : dir_fd;
        if (!*next)
            return openat(at, part, flags | O_NOFOLLOW, mode);
        int fd = openat(at, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0) {
            if (errno == ENOTDIR) /* of a link as well */
                errno = ELOOP;
            return -1;
        }
        cleanup_close_p(&dir);
        dir = fd;
        path = next;
    }
}

static int open_beneath(int dir_fd, const char *path, int flags, mode_t mode)
{
    const struct open_how how = {
        .flags = (uint64_t)(unsigned)flags,
        .mode = flags & O_CREAT ? mode : 0,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    int fd = (int)syscall(SYS_openat2, dir_fd, path, &how, sizeof(how));

    /* EPERM: what a filter of system calls may answer that does not know this one. */
    if (fd < 0 && (errno == ENOSYS || errno == EPERM))
        return open_by_parts(dir_fd, path, flags, mode);
    return fd;
}

static int refuse(const char *dir, const char *path, const char *what, struct error *err)
{
    return error_set(err, EPERM,
                     "%s/%s: %s where a file of the machine should be: its hypervisor put it "
                     "there, and nothing was done with it",
                     dir, path, what);
}

int vmm_open_inside(int dir_fd, const char *dir, const char *path, int flags, mode_t mode,
                    uid_t owner, struct error *err)
{
    struct stat st;

    if (vmm_path_check(path, dir, err) < 0)
        return -1;
    cleanup_close int fd =
        open_beneath(dir_fd, path, (flags & ~O_TRUNC) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, mode);
    if (fd < 0 && (errno == ELOOP || errno == EXDEV))
        return refuse(dir, path, "a link", err);
    if (fd < 0 && errno == EISDIR)
        return refuse(dir, path, "a folder", err);
    if (fd < 0 && errno == ENXIO) /* a FIFO without a reader, a socket */
        return refuse(dir, path, "no regular file", err);
    if (fd < 0)
        return error_sys(err, "%s/%s", dir, path);
    if (fstat(fd, &st) < 0)
        return error_sys(err, "%s/%s", dir, path);
    if (!S_ISREG(st.st_mode))
        return refuse(dir, path, S_ISDIR(st.st_mode) ? "a folder" : "no regular file", err);
    if (st.st_nlink != 1)
        return refuse(dir, path, "a file that has other names", err);
    if (st.st_uid != owner && st.st_uid != geteuid())
        return refuse(dir, path, "a file of another user", err);
    if ((flags & O_TRUNC) && ftruncate(fd, 0) < 0)
        return error_sys(err, "%s/%s", dir, path);
    return steal_fd(&fd);
}

/* The same with a relative link in the name's place, which a name of the machine's may be: its text
 * is read, and names a file inside or none. */
static int open_linked(struct vmm *vmm, const char *path, int flags, struct error *err)
{
    char target[VMM_PATH_MAX + 2];
    ssize_t n = readlinkat(vmm->dir_fd, path, target, sizeof(target) - 1);

    if (n < 0)
        return vmm_open_inside(vmm->dir_fd, vmm->directory, path, flags, 0600, vmm->uid, err);
    target[n] = '\0';
    return vmm_open_inside(vmm->dir_fd, vmm->directory, target, flags, 0600, vmm->uid, err);
}

int vmm_open_memory(struct vmm *vmm, bool create, struct error *err)
{
    const char *name = vmm_memory(vmm->machine);
    uint64_t want = (uint64_t)vmm->machine->memory_mib << 20;
    struct stat st;

    cleanup_close int fd = vmm->memory_fd >= 0
                               ? fcntl(vmm->memory_fd, F_DUPFD_CLOEXEC, 0)
                               : open_linked(vmm, name, O_RDWR | (create ? O_CREAT : 0), err);
    if (fd < 0 && vmm->memory_fd >= 0)
        return error_sys(err, "memory file %s/%s", vmm->directory, name);
    if (fd < 0)
        return error_wrap(err, "memory file");
    if (fstat(fd, &st) < 0)
        return error_sys(err, "memory file %s/%s", vmm->directory, name);
    if (S_ISREG(st.st_mode) && (uint64_t)st.st_size < want) {
        if (!create)
            return error_set(
                err, EBADMSG,
                "memory file %s/%s: %jd bytes, but the machine has %ju: it is cut short "
                "or of another machine",
                vmm->directory, name, (intmax_t)st.st_size, (uintmax_t)want);
        if (ftruncate(fd, (off_t)want) < 0)
            return error_sys(err, "memory file %s/%s: grow to %ju bytes", vmm->directory, name,
                             (uintmax_t)want);
    }
    if (create && vmm->uid != geteuid() && st.st_uid != vmm->uid &&
        fchown(fd, vmm->uid, vmm->gid) < 0 && errno != EPERM)
        return error_sys(err, "memory file %s/%s: chown", vmm->directory, name);
    return steal_fd(&fd);
}
