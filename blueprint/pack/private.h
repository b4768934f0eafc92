/* SPDX-License-Identifier: Apache-2.0 */
/* private.h - between the parts of pack: extents of a file, the stream being read, drafter.json */
#ifndef BLUEPRINT_PACK_PRIVATE_H
#define BLUEPRINT_PACK_PRIVATE_H

#include "blueprint/pack/pack.h"

/* ---- extents.c ---- */

struct pack_extent {
    uint64_t offset, len; /* bytes */
};

struct pack_extents {
    struct pack_extent *items; /* of data, ascending */
    size_t n, room;
    uint64_t gap; /* holes shorter than this count as data */
};

/* Adds data, at or after the end of the last. Keeps the list at `max` pieces by taking the
 * shortest holes for data. Returns 0. */
int pack_extents_add(struct pack_extents *e, uint64_t offset, uint64_t len, size_t max,
                     struct error *err);
void pack_extents_free(struct pack_extents *e);

/* What of a file of that size is data (lseek(2), SEEK_DATA), in PACK_EXTENTS_MAX pieces at most. A
 * file system that cannot tell has data only. The caller frees *ret, on failure too. */
int pack_extents_of(int fd, uint64_t size, const char *what, struct pack_extents *ret,
                    struct error *err);

/* True when no byte of the range is data. *cursor (0 at first) remembers where to look: ranges
 * ascend. */
bool pack_extents_hole(const struct pack_extents *e, size_t *cursor, uint64_t offset, uint64_t len);

#define cleanup_pack_extents CLEANUP(pack_extents_free)

/* ---- read.c ---- */

struct pack_reader;

/* Takes an fd (not over); what names the archive in errors. NULL on failure. */
struct pack_reader *pack_reader_new(int fd, const char *what, struct error *err);
void pack_reader_free(struct pack_reader *r); /* NULL is fine */

/* The next entry: a regular file with a name that pack_check_name() takes or PACK_TRAILER. All data
 * of the one before must have been read. name: room for BLUEPRINT_FILE_MAX + 1 bytes. Returns 1; 0
 * at the end, when the rest of the stream has been read and is as it must be; -1. */
int pack_reader_next(struct pack_reader *r, char *ret_name, uint64_t *ret_size, struct error *err);

/* The next piece of data, ascending, inside the entry; what lies between pieces is zeros. *ret_data
 * is valid until the next call. Returns 1; 0 at the entry's end; -1. */
int pack_reader_data(struct pack_reader *r, const uint8_t **ret_data, size_t *ret_len,
                     uint64_t *ret_offset, struct error *err);

/* Bytes of the compressed file read so far, and how many there are (0: not known). */
void pack_reader_progress(const struct pack_reader *r, uint64_t *ret_done, uint64_t *ret_total);

DEFINE_CLEANUP(cleanup_pack_reader_p, struct pack_reader *, pack_reader_free)
#define cleanup_pack_reader CLEANUP(cleanup_pack_reader_p)

/* ---- trailer.c ---- */

/* The name of an entry's file by convention; buf holds it. */
const char *pack_file_of(const char *name, char buf[BLUEPRINT_FILE_MAX + 1]);

/* drafter.json as text; the caller frees it. NULL on failure. */
char *pack_trailer_format(const struct pack_item *items, size_t n, struct error *err);

/* Compares what was read (order does not matter) with what drafter.json says, and takes the file
 * names from it. Entries that were not hashed are compared by name and size only. Returns 0. */
int pack_trailer_check(const char *text, size_t len, struct pack_listing *listing,
                       struct error *err);

/* ---- extract.c ---- */

/* Where an entry's content goes, besides being counted. */
#define PACK_VERIFY (-1) /* it is hashed */
#define PACK_SKIP (-2)   /* it is passed by */

struct pack_walk {
    uint64_t max_size;
    const char *phase; /* for progress */
    /* Called for each entry but drafter.json; *ret_fd becomes an fd (which stays the callee's), or
     * one of the above. Returns 0. */
    int (*want)(void *opaque, const char *name, int *ret_fd, struct error *err);
    void *opaque;
};

/* Reads an archive through and verifies it. Returns 0. */
int pack_walk(int fd, const char *what, const struct pack_walk *walk, const struct context *ctx,
              struct pack_listing *ret, struct error *err);

#endif
