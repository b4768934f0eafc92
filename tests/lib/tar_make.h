/* SPDX-License-Identifier: Apache-2.0 */
/* tar_make.h - builds tar streams for tests, damaged and impossible ones too
 *
 * Out of memory ends the test. Nothing is checked: what the caller says is what gets written.
 */
#ifndef TESTS_LIB_TAR_MAKE_H
#define TESTS_LIB_TAR_MAKE_H

#include <stddef.h>
#include <stdint.h>

struct tar_make {
    uint8_t *data;
    size_t len, room;
    uint8_t *pax; /* records for the next entry */
    size_t pax_len, pax_room;
};

struct tar_make_entry {
    char type; /* '0' when 0 */
    const char *path, *link;
    unsigned mode; /* 0644, folders 0755, when 0 */
    uint64_t uid, gid, major, minor;
    int64_t mtime;
    const void *data;
    size_t size;         /* of data; 0 with data set: strlen */
    uint64_t size_field; /* written instead of size when not 0 */
    const char *magic;   /* 8 bytes; NULL = ustar */
};

void tar_make_bytes(struct tar_make *t, const void *data, size_t len);
void tar_make_zeros(struct tar_make *t, size_t len);
/* Rounds up to a block. */
void tar_make_pad(struct tar_make *t);
/* Adds a pax record to the next entry. */
void tar_make_pax(struct tar_make *t, const char *key, const void *value, size_t len);
/* A header alone; its checksum is right. */
void tar_make_header(struct tar_make *t, const struct tar_make_entry *e);
/* Header (behind a pax header, if records wait), data and padding. A path or link that does not fit
 * becomes a pax record. */
void tar_make_entry(struct tar_make *t, const struct tar_make_entry *e);
/* Sets the checksum of the header that begins at offset. */
void tar_make_checksum(struct tar_make *t, size_t offset);
/* Two blocks of zeros. */
void tar_make_end(struct tar_make *t);
void tar_make_free(struct tar_make *t);

/* One entry a line (or ';'):
 *     d PATH | f PATH=DATA | l PATH>TARGET | h PATH>TARGET | c PATH:MAJOR:MINOR | b ... | p PATH
 * followed by attributes " @m0700 @u1000 @g5 @t123 @xuser.name=value". In PATH and DATA "%XX" is a
 * byte,
 * "%*N,c" N times the character c. */
void tar_make_script(struct tar_make *t, const char *script);

#endif
