// SPDX-License-Identifier: Apache-2.0
/* folder.c - locks on a package's files, and what became of a machine in them; see folder.h */
#include "runtime/peer/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

#include "runtime/migrate/migrate.h"
#include "runtime/peer/mark.h"

int folder_lock(int fd, bool exclusive, const char *what, struct error *err)
{
    while (flock(fd, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) < 0) {
        if (errno == EINTR)
            continue;
        if (errno != EWOULDBLOCK)
            return error_sys(err, "%s: lock", what);
        return error_set(err, EBUSY, "%s: in use by another process; stop that one first", what);
    }
    return 0;
}

/* The path of dirfd/nameSUFFIX, for who knows paths only. */
static char *beside(int dirfd, const char *name, const char *suffix, struct error *err)
{
    char *path = NULL;
    int rc = dirfd == AT_FDCWD ? asprintf(&path, "%s%s", name, suffix)
                               : asprintf(&path, "/proc/self/fd/%d/%s%s", dirfd, name, suffix);

    if (rc >= 0)
        return path;
    (void)error_oom(err);
    return NULL;
}

static int check_record(const char *path, const char *what, struct error *err)
{
    enum migrate_record_state state;
    char where[WIRE_REASON_MAX + 1] = "";

    if (migrate_record_read(path, &state, where, err) < 0)
        return -1;
    if (state == MIGRATE_RECORD_NONE)
        return 0;
    return error_set(err, ESTALE,
                     "%s: its machine %s %s (%s.moved), and must not run twice: take the package "
                     "from there; if it does not run there, start a peer from here with "
                     "--take-back",
                     what, state == MIGRATE_RECORD_MOVED ? "was moved to" : "was being moved to",
                     where, what);
}

static int check_mark(const char *path, const char *what, struct error *err)
{
    enum mark mark;

    if (mark_read(path, &mark, err) < 0)
        return error_wrap(err, "%s", what);
    if (mark == MARK_NONE || mark == MARK_STANDING)
        return 0;
    return error_set(err, ESTALE,
                     "%s: its machine %s (%s.machine), so its memory and its saved state do not "
                     "belong together: this is no package; use another one",
                     what,
                     mark == MARK_ENDED ? "was powered off by its guest"
                                        : "was not suspended when its peer ended",
                     what);
}

int folder_check(int dirfd, const char *name, const char *what, struct error *err)
{
    cleanup_free char *record = beside(dirfd, name, ".moved", err);
    cleanup_free char *mark = record ? beside(dirfd, name, ".machine", err) : NULL;

    if (!mark)
        return -1;
    return check_record(record, what, err) < 0 ? -1 : check_mark(mark, what, err);
}

int folder_stand_again(const char *mark, const char *record, struct error *err)
{
    enum migrate_record_state state;
    char where[WIRE_REASON_MAX + 1] = "";

    if (migrate_record_read(record, &state, where, err) < 0)
        return -1;
    /* All of it was on disk before the record said "committed"; the mark was left for now. */
    if (state != MIGRATE_RECORD_NONE && mark_write(mark, MARK_STANDING, true, err) < 0)
        return -1;
    return migrate_take_back(record, err);
}

int folder_take_back(const char *memory, struct error *err)
{
    cleanup_free char *record = beside(AT_FDCWD, memory, ".moved", err);
    cleanup_free char *mark = record ? beside(AT_FDCWD, memory, ".machine", err) : NULL;
    enum migrate_record_state state;
    char where[WIRE_REASON_MAX + 1] = "";

    if (!mark || migrate_record_read(record, &state, where, err) < 0)
        return -1;
    if (state == MIGRATE_RECORD_NONE)
        return 0;
    cleanup_close int fd = open(memory, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT ? 0 : error_sys(err, "%s", memory);
    return folder_lock(fd, true, memory, err) < 0 ? -1 : folder_stand_again(mark, record, err);
}

int folder_hold(struct folder_files *files, int fd, const char *device, int dirfd, const char *name,
                const char *what, struct error *err)
{
    cleanup_close int own = fd;

    if (files->n == FOLDER_FILES_MAX)
        return error_set(err, E2BIG, "device %s: there are %zu already", device, files->n);
    if (folder_lock(own, false, what, err) < 0 ||
        (blueprint_role_of(device) == BLUEPRINT_MEMORY && folder_check(dirfd, name, what, err) < 0))
        return error_wrap(err, "device %s", device);
    files->fds[files->n++] = steal_fd(&own);
    return 0;
}

int folder_hold_package(struct folder_files *files, const struct package *pkg, struct error *err)
{
    for (size_t i = 0; i < pkg->n_devices; i++) {
        const struct blueprint_device *d = &pkg->devices[i];
        cleanup_free char *what = NULL;
        int fd;
        if (asprintf(&what, "%s/%s", pkg->dir, d->file) < 0) {
            what = NULL;
            return error_oom(err);
        }
        if (package_open_device(pkg, d, O_RDONLY, &fd, err) < 0 ||
            folder_hold(files, fd, d->name, pkg->dirfd, d->file, what, err) < 0)
            return -1;
    }
    return 0;
}

void folder_release(struct folder_files *files)
{
    while (files->n > 0)
        (void)close(files->fds[--files->n]);
}

int folder_archive(const struct archive_options *o, const struct context *ctx, struct error *err)
{
    struct folder_files held cleanup_folder_files = FOLDER_FILES_INIT;

    if (!o->blueprint) {
        cleanup_package struct package *pkg = package_open(o->dir, err);
        if (!pkg || folder_hold_package(&held, pkg, err) < 0)
            return -1;
    }
    return archive_make(o, ctx, err);
}
