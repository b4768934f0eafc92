/* SPDX-License-Identifier: Apache-2.0 */
/* record.h - the source's durable memory of a commit, private to runtime/migrate
 *
 *   512 bytes, little-endian: 0 magic "DRAFTREC"  8 version (1)  12 state  16 session (16)
 *   32 length of peer (2)  34 peer (text)  508 CRC-32C of bytes 0..507
 *
 * The file is made and synced before the machine is suspended, so that the commit itself is one
 * synchronous write of one sector. A record that exists but cannot be read counts as COMMITTED: to
 * run a machine twice is worse than to ask a person.
 */
#ifndef RUNTIME_MIGRATE_RECORD_H
#define RUNTIME_MIGRATE_RECORD_H

#include "runtime/migrate/migrate.h"

struct record {
    int fd; /* -1: no record is kept */
    uint8_t sector[512];
    char *path;
};

/* Makes the record in state NONE, durable. path NULL: all calls do nothing. Refuses (EEXIST) when a
 * committed record stands there. Returns 0. */
int record_begin(struct record *r, const char *path, const uint8_t session[WIRE_SESSION_SIZE],
                 const char *peer, struct error *err);
/* Writes the state through to the disk. Returns 0. */
int record_mark(struct record *r, enum migrate_record_state state, struct error *err);
/* Removes the file: the migration never committed. */
void record_drop(struct record *r);
void record_close(struct record *r);

#endif
