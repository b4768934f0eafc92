// SPDX-License-Identifier: Apache-2.0
/* record.c - the source's durable memory of a commit */
#include "runtime/migrate/record.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "runtime/base/bytes.h"
#include "runtime/base/io.h"
#include "runtime/base/output.h"

static const char magic[8] = {'D', 'R', 'A', 'F', 'T', 'R', 'E', 'C'};

#define RECORD_VERSION 1
#define PEER_MAX 400
#define CRC_AT 508

static void seal(uint8_t *sector, enum migrate_record_state state)
{
    put_le32(sector + 12, state);
    put_le32(sector + CRC_AT, wire_crc32c(sector, CRC_AT));
}

int migrate_record_read(const char *path, enum migrate_record_state *ret_state, char *ret_peer,
                        struct error *err)
{
    uint8_t sector[512];
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0 && errno == ENOENT) {
        *ret_state = MIGRATE_RECORD_NONE;
        ret_peer[0] = '\0';
        return 0;
    }
    if (fd < 0)
        return error_sys(err, "%s: open the migration record", path);
    ssize_t n = io_read(fd, sector, sizeof(sector), path, err);
    if (n < 0)
        return -1;
    uint32_t state = n == sizeof(sector) ? get_le32(sector + 12) : UINT32_MAX;
    if (n != sizeof(sector) || memcmp(sector, magic, sizeof(magic)) != 0 ||
        get_le32(sector + CRC_AT) != wire_crc32c(sector, CRC_AT) ||
        get_le32(sector + 8) != RECORD_VERSION || state > MIGRATE_RECORD_MOVED ||
        get_le16(sector + 32) > PEER_MAX) {
        *ret_state = MIGRATE_RECORD_COMMITTED;
        static const char unknown[] = "an unknown host (the record is damaged)";
        memcpy(ret_peer, unknown, sizeof(unknown));
        return 0;
    }
    *ret_state = state;
    reason_decode(sector + 34, get_le16(sector + 32), ret_peer);
    return 0;
}

int migrate_take_back(const char *path, struct error *err)
{
    if (unlink(path) < 0 && errno != ENOENT)
        return error_sys(err, "%s: remove the migration record", path);
    return 0;
}

int record_begin(struct record *r, const char *path, const uint8_t session[WIRE_SESSION_SIZE],
                 const char *peer, struct error *err)
{
    enum migrate_record_state state;
    char old_peer[WIRE_REASON_MAX + 1];

    memset(r, 0, sizeof(*r));
    r->fd = -1;
    if (!path)
        return 0;
    if (migrate_record_read(path, &state, old_peer, err) < 0)
        return -1;
    if (state != MIGRATE_RECORD_NONE)
        return error_set(err, EEXIST,
                         "%s: this machine went to %s before; take it back first if it does not "
                         "run there",
                         path, old_peer);
    size_t len = strnlen(peer, PEER_MAX);
    memcpy(r->sector, magic, sizeof(magic));
    put_le32(r->sector + 8, RECORD_VERSION);
    memcpy(r->sector + 16, session, WIRE_SESSION_SIZE);
    put_le16(r->sector + 32, (uint16_t)len);
    memcpy(r->sector + 34, peer, len);
    seal(r->sector, MIGRATE_RECORD_NONE);

    cleanup_output struct output *out = output_begin(path, OUTPUT_FILE, 0600, err);
    if (!out || io_write(output_fd(out), r->sector, sizeof(r->sector), path, err) < 0 ||
        output_commit(&out, true, err) < 0)
        return -1;
    r->path = strdup(path);
    if (!r->path)
        return error_oom(err);
    r->fd = open(path, O_WRONLY | O_DSYNC | O_CLOEXEC);
    if (r->fd < 0)
        return error_sys(err, "%s: open", path);
    return 0;
}

int record_mark(struct record *r, enum migrate_record_state state, struct error *err)
{
    if (r->fd < 0)
        return 0;
    seal(r->sector, state);
    return io_pwrite(r->fd, r->sector, sizeof(r->sector), 0, r->path, err);
}

void record_drop(struct record *r)
{
    if (r->path)
        (void)unlink(r->path);
    record_close(r);
}

void record_close(struct record *r)
{
    cleanup_close_p(&r->fd);
    free(r->path);
    r->path = NULL;
}
