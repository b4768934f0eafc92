// SPDX-License-Identifier: Apache-2.0
/* place.c - the VM directory: BASE/PROGRAM/ID/root, as the jailer lays it out */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "runtime/base/output.h"
#include "runtime/vmm/driver.h"

#define ID_LENGTH 22 /* 128 bits in this alphabet */

/* Base 57: no 0 O, 1 I l. */
static const char id_alphabet[] = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

static int make_id(char *id, size_t size, struct error *err)
{
    const unsigned n = sizeof(id_alphabet) - 1;
    size_t len = 0;

    while (len < ID_LENGTH && len + 1 < size) {
        unsigned char byte;
        if (getrandom(&byte, 1, 0) != 1)
            return error_sys(err, "getrandom");
        if (byte < 256 / n * n) /* every letter equally likely */
            id[len++] = id_alphabet[byte % n];
    }
    id[len] = '\0';
    return 0;
}

static void place_free(struct vmm_place *place)
{
    free(place->base);
    free(place->program);
    free(place->path);
    *place = (struct vmm_place){0};
}

int vmm_place_make(const char *base, const struct vmm_choice *choice, uid_t uid, gid_t gid,
                   struct vmm_place *ret_place, struct error *err)
{
    struct vmm_place p = {0};
    const char *program = strrchr(choice->bin, '/');
    const struct sockaddr_un *un = NULL;

    program = program ? program + 1 : choice->bin;
    if (output_make_dirs(base, err) < 0)
        return error_wrap(err, "VM directory");
    p.base = realpath(base, NULL);
    if (!p.base)
        return error_sys(err, "VM directory %s", base);
    p.program = strdup(program);
    if (!p.program) {
        error_oom(err);
        goto fail;
    }
    if (make_id(p.id, sizeof(p.id), err) < 0)
        goto fail;
    if (asprintf(&p.path, "%s/%s/%s/root", p.base, program, p.id) < 0) {
        p.path = NULL;
        error_oom(err);
        goto fail;
    }
    size_t longest = strlen(p.path) + strlen("/" VMM_VSOCK_NAME "_4294967295");
    if (longest >= sizeof(un->sun_path)) {
        error_set(err, ENAMETOOLONG,
                  "VM directory %s: %zu bytes too deep for the sockets in it (unix(7) allows paths "
                  "of %zu bytes): choose a shorter base directory",
                  p.path, longest - (sizeof(un->sun_path) - 1), sizeof(un->sun_path) - 1);
        goto fail;
    }
    if (output_make_dirs(p.path, err) < 0) {
        error_wrap(err, "VM directory");
        goto fail;
    }
    /* Only a user other than ours needs it to be theirs; without the right to give it away we are
     * not going to become that user either, and the start says so. */
    if (chmod(p.path, 0700) < 0 ||
        ((uid != geteuid() || gid != getegid()) && chown(p.path, uid, gid) < 0 && errno != EPERM)) {
        error_sys(err, "VM directory %s", p.path);
        goto fail;
    }
    *ret_place = p;
    return 0;
fail:
    place_free(&p);
    return -1;
}

int vmm_place_remove(struct vmm_place *place, struct error *err)
{
    int rc = 0;

    if (place->path) {
        cleanup_free char *dir = NULL;
        if (asprintf(&dir, "%s/%s", place->base, place->program) < 0) {
            dir = NULL;
            rc = error_oom(err);
        } else {
            cleanup_close int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            if (fd < 0)
                rc = errno == ENOENT ? 0 : error_sys(err, "VM directory %s", dir);
            else if (output_remove_tree(fd, place->id, err) < 0)
                rc = error_wrap(err, "VM directory %s", place->path);
        }
    }
    place_free(place);
    return rc;
}
