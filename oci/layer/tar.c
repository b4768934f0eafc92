// SPDX-License-Identifier: Apache-2.0
/* tar.c - entries of a tar stream: v7, ustar, pax and GNU headers
 *
 * Theory of operation: what an archive means is decided the way Go's archive/tar decides it, since
 * that is what every builder and every other unpacker of images uses: a stream that two readers see
 * differently is how entries are smuggled. So: the size of a pax header overrides the header's own
 * and governs where the next header lies; links, folders, devices and FIFOs have no data whatever
 * their size says; two zero blocks end the archive, and so does the end of the stream between two
 * entries; a lone zero block, a wrong checksum or an unknown kind of entry is an error. Numbers are
 * octal, or base 256 with the top bit set.
 *
 * Differences, all of them refusals or more exact: NUL bytes in names of pax records, maps of
 * sparse files that do not fit their data, and header data over named limits are errors; pax times
 * are exact on both sides of 1970.
 *
 * Why not libarchive, which reads archives elsewhere in this project: 3.6.2 (Debian 12) takes a pax
 * mtime of -1.5 for -0.5, and it does not say where in the stream a file's data lies, which is all
 * that the spool (layer.h) needs to know.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "oci/layer/tar_private.h"
#include "runtime/base/io.h"

/* Offset and size of the header's fields, POSIX.1-2017 pax "ustar Interchange Format"; those of GNU
 * from 345 on as in its tar.h. */
#define F_NAME 0, 100
#define F_MODE 100, 8
#define F_UID 108, 8
#define F_GID 116, 8
#define F_SIZE 124, 12
#define F_MTIME 136, 12
#define F_CHECKSUM 148, 8
#define F_TYPE 156
#define F_LINK 157, 100
#define F_MAGIC 257
#define F_MAJOR 329, 8
#define F_MINOR 337, 8
#define F_PREFIX 345, 155
#define F_STAR_PREFIX 345, 131
#define F_STAR_TRAILER 508

enum tar_format {
    FORMAT_V7,
    FORMAT_USTAR,
    FORMAT_STAR,
    FORMAT_GNU,
};

struct tar_reader *tar_reader_new(const struct tar_source *source, struct error *err)
{
    struct tar_reader *r = calloc(1, sizeof(*r));

    if (r)
        r->source = *source;
    else
        error_oom(err);
    return r;
}

static void forget(struct tar_reader *r)
{
    pax_clear(&r->pax);
    free(r->long_name.text);
    free(r->long_link.text);
    r->long_name = r->long_link = (struct pax_text){0};
}

void tar_reader_free(struct tar_reader *r)
{
    if (!r)
        return;
    forget(r);
    free(r);
}

const char *tar_reader_path(const struct tar_reader *r, size_t *ret_len)
{
    *ret_len = r->name_len;
    return r->name;
}

int tar_truncated(struct error *err)
{
    return error_set(err, EBADMSG, "the tar archive ends in the middle");
}

/* Makes at least one byte available. Returns 1, or 0 at the end of the stream. */
static int fill(struct tar_reader *r, struct error *err)
{
    if (r->left)
        return 1;
    if (r->source.read(r->source.opaque, &r->data, &r->left, err) < 0)
        return -1;
    return r->left ? 1 : 0;
}

/* Copies up to len bytes; *ret_got fewer only at the end of the stream. */
int tar_take(struct tar_reader *r, void *buf, size_t len, size_t *ret_got, struct error *err)
{
    size_t got = 0;

    while (got < len) {
        int rc = fill(r, err);
        if (rc < 0)
            return -1;
        if (rc == 0)
            break;
        size_t n = len - got < r->left ? len - got : r->left;
        memcpy((uint8_t *)buf + got, r->data, n);
        r->data += n;
        r->left -= n;
        r->at += n;
        got += n;
    }
    *ret_got = got;
    return 0;
}

/* Passes over what lies before offset `to`. The last padding of an archive may be missing. */
int tar_skip_to(struct tar_reader *r, uint64_t to, uint64_t needed, struct error *err)
{
    while (r->at < to) {
        int rc = fill(r, err);
        if (rc < 0)
            return -1;
        if (rc == 0)
            return r->at >= needed ? 0 : tar_truncated(err);
        uint64_t n = to - r->at < r->left ? to - r->at : r->left;
        r->data += n;
        r->left -= (size_t)n;
        r->at += n;
    }
    return 0;
}

/* The next 512 bytes into r->block. Returns 1, or 0 when the stream ends just here. */
int tar_take_block(struct tar_reader *r, struct error *err)
{
    size_t got;

    if (tar_take(r, r->block, TAR_BLOCK_SIZE, &got, err) < 0)
        return -1;
    if (got && got < TAR_BLOCK_SIZE)
        return tar_truncated(err);
    return got ? 1 : 0;
}

/* A numeric field: base 256 (two's complement, its top bit is the mark) or octal, padded with
 * blanks and NULs on both sides. An empty field is 0. */
int tar_number(const struct tar_reader *r, size_t offset, size_t len, const char *what,
               int64_t *ret_value, struct error *err)
{
    const uint8_t *p = r->block + offset;
    uint64_t v = 0;

    if (p[0] & 0x80) {
        bool minus = p[0] & 0x40;
        v = minus ? UINT64_MAX : 0;
        for (size_t i = 0; i < len; i++) {
            uint8_t c = i || minus ? p[i] : p[i] & 0x7f;
            /* What is shifted out, and the sign, must agree with what stays. */
            if ((v >> 55) != (minus ? 0x1ff : 0))
                return error_set(err, EBADMSG, "header: its %s is out of range", what);
            v = v << 8 | c;
        }
        *ret_value = (int64_t)v;
        return 0;
    }
    while (len && (*p == ' ' || *p == '\0')) {
        p++;
        len--;
    }
    for (; len && *p >= '0' && *p <= '7'; p++, len--) {
        if (v >> 60)
            return error_set(err, EBADMSG, "header: its %s is out of range", what);
        v = v << 3 | (uint64_t)(*p - '0');
    }
    if (len && *p != ' ' && *p != '\0')
        return error_set(err, EBADMSG, "header: its %s is no number", what);
    *ret_value = (int64_t)v;
    return 0;
}

/* The sum over the header with blanks for the checksum itself; some old programs summed signed. */
static int check_sum(struct tar_reader *r, struct error *err)
{
    int64_t want, sum = 0, signed_sum = 0;

    if (tar_number(r, F_CHECKSUM, "checksum", &want, err) < 0)
        return -1;
    for (size_t i = 0; i < TAR_BLOCK_SIZE; i++) {
        uint8_t c = i >= 148 && i < 156 ? ' ' : r->block[i];
        sum += c;
        signed_sum += (int8_t)c;
    }
    if (want != sum && want != signed_sum)
        return error_set(err, EBADMSG,
                         "header: its checksum is wrong; this is no tar archive or a "
                         "damaged one");
    return 0;
}

static enum tar_format format_of(const struct tar_reader *r)
{
    const uint8_t *magic = r->block + F_MAGIC;

    if (memcmp(magic, "ustar  \0", 8) == 0)
        return FORMAT_GNU;
    if (memcmp(magic, "ustar\0", 6) != 0)
        return FORMAT_V7;
    return memcmp(r->block + F_STAR_TRAILER, "tar\0", 4) == 0 ? FORMAT_STAR : FORMAT_USTAR;
}

/* Data of an extended header, in memory the caller frees; NUL-terminated. */
static int take_extended(struct tar_reader *r, uint64_t size, uint8_t **ret_data, struct error *err)
{
    if (size > TAR_EXTENDED_MAX)
        return error_set(err, E2BIG, "an extended header of %llu bytes (at most %u)",
                         (unsigned long long)size, TAR_EXTENDED_MAX);
    cleanup_free uint8_t *data = malloc((size_t)size + 1);
    size_t got;
    if (!data)
        return error_oom(err);
    if (tar_take(r, data, (size_t)size, &got, err) < 0)
        return -1;
    if (got < size)
        return tar_truncated(err);
    data[size] = '\0';
    *ret_data = steal_ptr(&data);
    return tar_skip_to(r, r->next, r->at, err);
}

/* One header block and, for headers that only extend the next one, what belongs to them. Returns 1
 * with a file's header in r->block, 2 after an extending one, 0 at the end of the archive. */
static int take_header(struct tar_reader *r, struct error *err)
{
    int64_t size;
    int rc = tar_take_block(r, err);

    if (rc <= 0)
        return rc;
    if (io_is_zero(r->block, TAR_BLOCK_SIZE)) {
        rc = tar_take_block(r, err);
        if (rc > 0 && !io_is_zero(r->block, TAR_BLOCK_SIZE))
            return error_set(err, EBADMSG, "a block of zeros stands between two entries");
        return rc < 0 ? -1 : 0;
    }
    if (check_sum(r, err) < 0 || tar_number(r, F_SIZE, "size", &size, err) < 0)
        return -1;
    if (size < 0 || size > INT64_MAX - TAR_BLOCK_SIZE)
        return error_set(err, EBADMSG, "header: its size is out of range");
    r->next = r->at + (((uint64_t)size + TAR_BLOCK_SIZE - 1) & ~(uint64_t)(TAR_BLOCK_SIZE - 1));

    uint8_t type = r->block[F_TYPE];
    if (type != 'x' && type != 'g' && type != 'L' && type != 'K')
        return 1;
    cleanup_free uint8_t *data = NULL;
    if (take_extended(r, (uint64_t)size, &data, err) < 0)
        return -1;
    if (type == 'x') {
        pax_clear(&r->pax);
        if (pax_parse(&r->pax, data, (size_t)size, err) < 0)
            return -1;
    } else if (type != 'g') { /* what holds for all entries means nothing in a layer */
        struct pax_text *t = type == 'L' ? &r->long_name : &r->long_link;
        size_t len = strlen((char *)data);
        if (len > TAR_PATH_MAX)
            return error_set(err, E2BIG, "a name of %zu bytes (at most %d)", len, TAR_PATH_MAX);
        free(t->text);
        t->text = (char *)steal_ptr(&data);
        t->len = len;
    }
    return 2;
}

static size_t field_len(const struct tar_reader *r, size_t offset, size_t len)
{
    return strnlen((const char *)r->block + offset, len);
}

static void set_name(char *to, size_t *to_len, const char *text, size_t len)
{
    if (len)
        memcpy(to, text, len);
    to[len] = '\0';
    *to_len = len;
}

/* Long names outrank pax records, those outrank the header, as in Go. */
static void set_names(struct tar_reader *r, enum tar_format format)
{
    const char *block = (const char *)r->block;
    size_t prefix = 0, n = field_len(r, F_NAME);

    if (r->long_name.text) {
        set_name(r->name, &r->name_len, r->long_name.text, r->long_name.len);
    } else if (r->pax.sparse_name.text) {
        set_name(r->name, &r->name_len, r->pax.sparse_name.text, r->pax.sparse_name.len);
    } else if (r->pax.path.text) {
        set_name(r->name, &r->name_len, r->pax.path.text, r->pax.path.len);
    } else {
        if (format == FORMAT_USTAR)
            prefix = field_len(r, F_PREFIX);
        else if (format == FORMAT_STAR)
            prefix = field_len(r, F_STAR_PREFIX);
        set_name(r->name, &r->name_len, block + 345, prefix);
        if (prefix)
            r->name[prefix++] = '/';
        set_name(r->name + prefix, &r->name_len, block, n);
        r->name_len = prefix + n;
    }
    if (r->long_link.text)
        set_name(r->link, &r->link_len, r->long_link.text, r->long_link.len);
    else if (r->pax.linkpath.text)
        set_name(r->link, &r->link_len, r->pax.linkpath.text, r->pax.linkpath.len);
    else
        set_name(r->link, &r->link_len, block + 157, field_len(r, F_LINK));
}

static int set_type(struct tar_reader *r, struct error *err)
{
    uint8_t type = r->block[F_TYPE];

    switch (type) {
    case '\0': /* v7 knew folders by their name */
        r->entry.type = r->name_len && r->name[r->name_len - 1] == '/' ? TAR_FOLDER : TAR_FILE;
        return 0;
    case '0':
    case '7': /* "contiguous", a file anywhere today */
    case 'S': /* GNU sparse */
        r->entry.type = TAR_FILE;
        return 0;
    case '1':
        r->entry.type = TAR_HARD_LINK;
        return 0;
    case '2':
        r->entry.type = TAR_SYMLINK;
        return 0;
    case '3':
        r->entry.type = TAR_CHAR;
        return 0;
    case '4':
        r->entry.type = TAR_BLOCK;
        return 0;
    case '5':
        r->entry.type = TAR_FOLDER;
        return 0;
    case '6':
        r->entry.type = TAR_FIFO;
        return 0;
    default:
        return error_set(err, EBADMSG, "entries of type 0x%02x are not known", type);
    }
}

/* Where a file's data lies. r->at is just behind the header. */
static int set_data(struct tar_reader *r, uint64_t size, struct error *err)
{
    uint64_t real = size, used = 0;

    r->next = r->at + ((size + TAR_BLOCK_SIZE - 1) & ~(uint64_t)(TAR_BLOCK_SIZE - 1));
    if (r->block[F_TYPE] == 'S') {
        if (tar_gnu_sparse_map(r, &real, err) < 0)
            return -1;
        return tar_place_pieces(r, size, real, err);
    }
    if (r->pax.have & (PAX_SPARSE_1_0 | PAX_SPARSE_0)) {
        if (!(r->pax.have & PAX_REALSIZE))
            return error_set(err, EBADMSG, "sparse file: its size is missing");
        real = r->pax.real_size;
        if (r->pax.have & PAX_SPARSE_1_0 && tar_pax_sparse_map(r, size, &used, err) < 0)
            return -1;
        return tar_place_pieces(r, size - used, real, err);
    }
    r->whole = (struct tree_extent){.length = size, .source_offset = r->at};
    r->entry.extents = &r->whole;
    r->entry.n_extents = size ? 1 : 0;
    r->entry.size = size;
    return 0;
}

static int set_numbers(struct tar_reader *r, enum tar_format format, struct error *err)
{
    struct tar_entry *e = &r->entry;
    int64_t mode, major = 0, minor = 0;

    if (tar_number(r, F_MODE, "mode", &mode, err) < 0 ||
        tar_number(r, F_UID, "uid", &e->uid, err) < 0 ||
        tar_number(r, F_GID, "gid", &e->gid, err) < 0 ||
        tar_number(r, F_MTIME, "mtime", &e->mtime_sec, err) < 0)
        return -1;
    if (format != FORMAT_V7 && (e->type == TAR_CHAR || e->type == TAR_BLOCK) &&
        (tar_number(r, F_MAJOR, "major number", &major, err) < 0 ||
         tar_number(r, F_MINOR, "minor number", &minor, err) < 0))
        return -1;
    if (major < 0 || minor < 0)
        return error_set(err, EBADMSG, "header: its device number is negative");
    e->mode = (uint32_t)mode & 07777;
    e->major = (uint64_t)major;
    e->minor = (uint64_t)minor;
    e->mtime_nsec = 0;
    if (r->pax.have & PAX_UID)
        e->uid = r->pax.uid;
    if (r->pax.have & PAX_GID)
        e->gid = r->pax.gid;
    if (r->pax.have & PAX_MTIME) {
        e->mtime_sec = r->pax.mtime_sec;
        e->mtime_nsec = r->pax.mtime_nsec;
    }
    return 0;
}

static int set_entry(struct tar_reader *r, struct error *err)
{
    enum tar_format format = format_of(r);
    int64_t size;

    memset(&r->entry, 0, sizeof(r->entry));
    set_names(r, format);
    if (set_type(r, err) < 0 || set_numbers(r, format, err) < 0 ||
        tar_number(r, F_SIZE, "size", &size, err) < 0)
        return -1;
    if (r->pax.have & PAX_SIZE)
        size = r->pax.size > INT64_MAX ? -1 : (int64_t)r->pax.size;
    if (size < 0 || size > INT64_MAX - TAR_BLOCK_SIZE ||
        r->at > INT64_MAX - TAR_BLOCK_SIZE - (uint64_t)size)
        return error_set(err, EBADMSG, "header: its size is out of range");
    r->entry.path = r->name;
    r->entry.path_len = r->name_len;
    r->entry.target = r->link;
    r->entry.target_len = r->link_len;
    r->entry.xattrs = r->pax.xattrs;
    r->entry.n_xattrs = r->pax.n_xattrs;
    if (r->entry.type == TAR_FILE)
        return set_data(r, (uint64_t)size, err);
    r->next = r->at;
    return 0;
}

/* Whoever checks digests wants to see every byte, garbage behind the archive too. */
static int drain(struct tar_reader *r, struct error *err)
{
    int rc;

    while ((rc = fill(r, err)) > 0) {
        r->at += r->left;
        r->left = 0;
    }
    r->at_end = rc == 0;
    return rc;
}

int tar_reader_next(struct tar_reader *r, const struct tar_entry **ret_entry, struct error *err)
{
    int rc;

    if (r->at_end)
        return 0;
    /* The data of the last file of a stream may lack its padding, but not a byte of its own. */
    uint64_t needed = r->next;
    if (r->entry.type == TAR_FILE && r->entry.n_extents) {
        const struct tree_extent *last = &r->entry.extents[r->entry.n_extents - 1];
        needed = last->source_offset + last->length;
    }
    rc = tar_skip_to(r, r->next, needed, err);
    if (rc < 0)
        return -1;
    forget(r);
    r->entry = (struct tar_entry){0};
    r->name_len = 0;
    r->name[0] = '\0';
    unsigned extending = 0;
    while ((rc = take_header(r, err)) == 2)
        if (++extending > 16)
            return error_set(err, EBADMSG, "more than 16 extended headers before one entry");
    if (rc < 0)
        return -1;
    if (rc == 0) {
        if (r->long_name.text || r->pax.path.text)
            return tar_truncated(err);
        return drain(r, err);
    }
    if (set_entry(r, err) < 0)
        return -1;
    *ret_entry = &r->entry;
    return 1;
}
