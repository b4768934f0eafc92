// SPDX-License-Identifier: Apache-2.0
/* cow_state.c - the file that says which blocks live in an overlay; see cow_state.h */
#include "runtime/block/filter/cow_state.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "runtime/base/bytes.h"
#include "runtime/base/io.h"

#define MAGIC "DRFTCOW\n"
#define VERSION 1u
#define PAGE COW_STATE_PAGE
#define PAGE_WORDS (COW_STATE_BITS / 64)
#define SUM_AT (PAGE - SHA256_SIZE)

struct cow_state {
    int fd;
    char *what;
    struct cow_header header; /* as committed */
    uint64_t n_blocks, n_pages;
    uint64_t newest;              /* highest generation anywhere in the file, committed or not */
    bool broken;                  /* a commit failed */
    atomic_ullong count;          /* bits set */
    _Atomic uint64_t *words;      /* PAGE_WORDS for each page */
    atomic_uchar *changed;        /* a page was changed since its last commit */
    uint8_t *slot;                /* where the committed page is: 0 or 1 */
    uint8_t (*sums)[SHA256_SIZE]; /* of the committed pages; zeros = never written */
};

static uint64_t page_offset(uint64_t page, unsigned slot)
{
    return (2 + 2 * page + slot) * (uint64_t)PAGE;
}

/* ---- header ---- */

int cow_header_encode(const struct cow_header *h, uint8_t buf[PAGE], struct error *err)
{
    memset(buf, 0, PAGE);
    memcpy(buf, MAGIC, 8);
    put_le32(buf + 8, VERSION);
    put_le32(buf + 20, h->block_size);
    put_le64(buf + 24, h->size);
    put_le64(buf + 32, h->generation);
    put_le64(buf + 40, h->count);
    memcpy(buf + 48, h->id, sizeof(h->id));
    put_le64(buf + 64, h->base.size);
    put_le64(buf + 72, (uint64_t)h->base.mtime_ns);
    put_le64(buf + 80, h->base.inode);
    put_le64(buf + 88, h->base.has_digest);
    memcpy(buf + 96, h->base.digest, SHA256_SIZE);
    memcpy(buf + 128, h->pages, SHA256_SIZE);
    return digest_of(buf, SUM_AT, buf + SUM_AT, err);
}

int cow_header_decode(const uint8_t buf[PAGE], struct cow_header *ret, struct error *err)
{
    uint8_t sum[SHA256_SIZE];

    if (memcmp(buf, MAGIC, 8) != 0)
        return error_set(err, EBADMSG,
                         "not a state file of an overlay (its first bytes are not DRFTCOW)");
    if (get_le32(buf + 8) != VERSION)
        return error_set(err, EBADMSG, "version %u of the format, this program knows %u",
                         get_le32(buf + 8), VERSION);
    if (digest_of(buf, SUM_AT, sum, err) < 0)
        return -1;
    if (memcmp(sum, buf + SUM_AT, SHA256_SIZE) != 0)
        return error_set(err, EBADMSG, "the header is torn or damaged (checksum)");
    if (get_le32(buf + 16) != 0)
        return error_set(err, EBADMSG, "the header needs features %#x that this program lacks",
                         get_le32(buf + 16));
    struct cow_header h = {
        .block_size = get_le32(buf + 20),
        .size = get_le64(buf + 24),
        .generation = get_le64(buf + 32),
        .count = get_le64(buf + 40),
        .base = {.size = get_le64(buf + 64),
                 .mtime_ns = (int64_t)get_le64(buf + 72),
                 .inode = get_le64(buf + 80),
                 .has_digest = get_le64(buf + 88) & 1},
    };
    memcpy(h.id, buf + 48, sizeof(h.id));
    memcpy(h.base.digest, buf + 96, SHA256_SIZE);
    memcpy(h.pages, buf + 128, SHA256_SIZE);
    if (h.block_size < BLOCK_SIZE_MIN || h.block_size > BLOCK_SIZE_MAX ||
        (h.block_size & (h.block_size - 1)))
        return error_set(err, EBADMSG, "the header's block size %u is none", h.block_size);
    if (h.size > BLOCK_DEVICE_MAX || h.size / h.block_size >= COW_STATE_BLOCKS_MAX)
        return error_set(err, EBADMSG, "the header's device size %llu is past the limit",
                         (unsigned long long)h.size);
    if (h.count > (h.size + h.block_size - 1) / h.block_size)
        return error_set(err, EBADMSG, "the header counts more blocks than the device has");
    if (h.generation > UINT64_MAX / 2)
        return error_set(err, EBADMSG, "the header's generation is past the limit");
    *ret = h;
    return 0;
}

static int write_header(struct cow_state *s, const struct cow_header *h, unsigned copy,
                        struct error *err)
{
    uint8_t buf[PAGE];

    if (cow_header_encode(h, buf, err) < 0)
        return -1;
    return io_pwrite(s->fd, buf, PAGE, copy * (uint64_t)PAGE, s->what, err);
}

static int sync_file(int fd, const char *what, struct error *err)
{
    while (fdatasync(fd) < 0)
        if (errno != EINTR)
            return error_sys(err, "%s: sync", what);
    return 0;
}

/* Over the checksums in s->sums. */
static int digest_pages(const struct cow_state *s, uint8_t ret[SHA256_SIZE], struct error *err)
{
    return digest_of(s->sums, s->n_pages * SHA256_SIZE, ret, err);
}

/* ---- opening ---- */

static void hex_of(const uint8_t sum[SHA256_SIZE], char hex[SHA256_HEX_SIZE])
{
    digest_hex(sum, hex);
    hex[16] = '\0'; /* enough to compare by eye */
}

static int compare_base(const char *what, const struct block_identity *had,
                        const struct block_identity *now, struct error *err)
{
    static const char way_out[] =
        "the overlay belongs to another base image; give that one, or start anew: drafter-peer "
        "--fresh, or remove overlay and state";
    char a[SHA256_HEX_SIZE], b[SHA256_HEX_SIZE];

    if (had->size != now->size)
        return error_set(err, ESTALE, "%s: base has %llu bytes, had %llu: %s", what,
                         (unsigned long long)now->size, (unsigned long long)had->size, way_out);
    if (had->has_digest && now->has_digest) {
        if (memcmp(had->digest, now->digest, SHA256_SIZE) == 0)
            return 0;
        hex_of(had->digest, a);
        hex_of(now->digest, b);
        return error_set(err, ESTALE, "%s: base has digest %s, had %s: %s", what, b, a, way_out);
    }
    if (had->mtime_ns != now->mtime_ns)
        return error_set(err, ESTALE, "%s: base was modified (at %lld.%09lld, was %lld.%09lld): %s",
                         what, (long long)(now->mtime_ns / 1000000000),
                         (long long)(now->mtime_ns % 1000000000),
                         (long long)(had->mtime_ns / 1000000000),
                         (long long)(had->mtime_ns % 1000000000), way_out);
    if (had->inode != now->inode)
        return error_set(err, ESTALE,
                         "%s: base is another file of the same size and time (inode %llu, was "
                         "%llu): %s",
                         what, (unsigned long long)now->inode, (unsigned long long)had->inode,
                         way_out);
    return 0;
}

static int check_header(const struct cow_state *s, const struct cow_header *h,
                        const struct cow_header *want, struct error *err)
{
    if (h->size != want->size)
        return error_set(err, ESTALE,
                         "%s: is the state of a device of %llu bytes, this one has %llu", s->what,
                         (unsigned long long)h->size, (unsigned long long)want->size);
    if (h->block_size != want->block_size)
        return error_set(err, EINVAL,
                         "%s: was made with blockSize %u, now %u is wanted; set it back", s->what,
                         h->block_size, want->block_size);
    return compare_base(s->what, &h->base, &want->base, err);
}

/* A committed or older page in buf? Its generation, 0 for a page never written; -1 for none. */
static int look_at_page(const uint8_t *buf, uint64_t page, uint64_t *ret_generation,
                        struct error *err)
{
    uint8_t sum[SHA256_SIZE];

    *ret_generation = 0;
    if (io_is_zero(buf, PAGE))
        return 1;
    if (digest_of(buf, SUM_AT, sum, err) < 0)
        return -1;
    if (memcmp(sum, buf + SUM_AT, SHA256_SIZE) != 0 || get_le64(buf + 8) != page ||
        get_le64(buf) == 0 || get_le64(buf) > UINT64_MAX / 2)
        return 0;
    *ret_generation = get_le64(buf);
    return 1;
}

static int take_page(struct cow_state *s, uint64_t page, unsigned slot, const uint8_t *buf,
                     struct error *err)
{
    uint64_t first = page * COW_STATE_BITS;
    uint64_t bits = s->n_blocks - first < COW_STATE_BITS ? s->n_blocks - first : COW_STATE_BITS;

    for (uint64_t w = 0; w < PAGE_WORDS; w++) {
        uint64_t word = get_le64(buf + 16 + 8 * w);
        uint64_t valid = w * 64 >= bits        ? 0
                         : bits - w * 64 >= 64 ? ~UINT64_C(0)
                                               : (UINT64_C(1) << (bits - w * 64)) - 1;
        if (word & ~valid)
            return error_set(err, EBADMSG, "%s: page %llu lists blocks past the device's end",
                             s->what, (unsigned long long)page);
        atomic_init(&s->words[page * PAGE_WORDS + w], word);
        s->count += (unsigned)__builtin_popcountll(word);
    }
    s->slot[page] = (uint8_t)slot;
    memcpy(s->sums[page], buf + SUM_AT, SHA256_SIZE);
    return 0;
}

static int load_page(struct cow_state *s, uint64_t page, struct error *err)
{
    uint8_t buf[2][PAGE];
    uint64_t generation[2];
    int best = -1;

    if (io_pread_exact(s->fd, buf, sizeof(buf), page_offset(page, 0), s->what, err) < 0)
        return -1;
    for (int i = 0; i < 2; i++) {
        int ok = look_at_page(buf[i], page, &generation[i], err);
        if (ok < 0)
            return -1;
        if (!ok)
            continue;
        if (generation[i] > s->newest)
            s->newest = generation[i];
        /* Newer than the header: a commit that did not come to its end. */
        if (generation[i] <= s->header.generation && (best < 0 || generation[i] > generation[best]))
            best = i;
    }
    if (best < 0)
        return error_set(err, EBADMSG, "%s: page %llu is torn or damaged (checksum)", s->what,
                         (unsigned long long)page);
    return take_page(s, page, (unsigned)best, buf[best], err);
}

static int load_pages(struct cow_state *s, struct error *err)
{
    uint8_t sum[SHA256_SIZE];

    s->newest = s->header.generation;
    for (uint64_t p = 0; p < s->n_pages; p++)
        if (load_page(s, p, err) < 0)
            return -1;
    if (digest_pages(s, sum, err) < 0)
        return -1;
    if (memcmp(sum, s->header.pages, SHA256_SIZE) != 0 || s->count != s->header.count)
        return error_set(err, EBADMSG,
                         "%s: its pages are not those of its last flush: torn or damaged", s->what);
    return 0;
}

/* Both headers, the newer valid one. Returns 0 when found, 1 when none was ever written. */
static int load_header(struct cow_state *s, const uint8_t buf[2][PAGE], struct error *err)
{
    struct cow_header h;
    struct error first = ERROR_INIT, second = ERROR_INIT;
    bool found = false;

    if (io_is_zero(buf, (size_t)2 * PAGE))
        return 1;
    if (cow_header_decode(buf[0], &h, &first) == 0) {
        s->header = h;
        found = true;
    }
    if (cow_header_decode(buf[1], &h, &second) == 0 &&
        (!found || h.generation > s->header.generation)) {
        s->header = h;
        found = true;
    }
    if (!found)
        return error_set(err, EBADMSG, "%s: %s", s->what, first.text);
    return 0;
}

static int begin(struct cow_state *s, const struct cow_header *want, struct error *err)
{
    s->header = *want;
    s->header.generation = s->newest = 1;
    s->header.count = 0;
    if (getrandom(s->header.id, sizeof(s->header.id), 0) != (ssize_t)sizeof(s->header.id))
        return error_sys(err, "%s: random id", s->what);
    if (digest_pages(s, s->header.pages, err) < 0)
        return -1;
    if (ftruncate(s->fd, (off_t)page_offset(s->n_pages, 0)) < 0)
        return error_sys(err, "%s: set the size", s->what);
    /* Not synced: what a power cut leaves of a state without blocks is one without blocks. The
     * first commit's sync brings all of it. */
    if (write_header(s, &s->header, 0, err) < 0 || write_header(s, &s->header, 1, err) < 0)
        return -1;
    return 0;
}

static int load(struct cow_state *s, const struct cow_header *want, bool readonly, bool *ret_fresh,
                struct error *err)
{
    uint8_t buf[2][PAGE] = {{0}, {0}};
    struct stat st;

    if (fstat(s->fd, &st) < 0)
        return error_sys(err, "%s: stat", s->what);
    if (!S_ISREG(st.st_mode))
        return error_set(err, EINVAL, "%s: not a regular file", s->what);
    if (io_pread(s->fd, buf, sizeof(buf), 0, s->what, err) < 0)
        return -1;
    int none = load_header(s, (const uint8_t(*)[PAGE])buf, err);
    if (none < 0)
        return -1;
    if (none && readonly)
        return error_set(err, ENODATA, "%s: holds no state, and may not be begun read-only",
                         s->what);
    *ret_fresh = none;
    if (none)
        return begin(s, want, err);
    if (check_header(s, &s->header, want, err) < 0)
        return -1;
    if ((uint64_t)st.st_size != page_offset(s->n_pages, 0))
        return error_set(err, EBADMSG, "%s: truncated: has %lld bytes, %llu wanted", s->what,
                         (long long)st.st_size, (unsigned long long)page_offset(s->n_pages, 0));
    return load_pages(s, err);
}

static inline void cleanup_state_p(struct cow_state **s)
{
    cow_state_free(*s);
}

struct cow_state *cow_state_open(int fd, const char *what, const struct cow_header *want,
                                 bool readonly, bool *ret_fresh, struct error *err)
{
    CLEANUP(cleanup_state_p) struct cow_state *s = calloc(1, sizeof(*s));
    bool fresh;

    if (!s) {
        error_oom(err);
        return NULL;
    }
    s->fd = fd;
    s->n_blocks = (want->size + want->block_size - 1) / want->block_size;
    if (s->n_blocks > COW_STATE_BLOCKS_MAX) {
        error_set(err, EFBIG, "%s: more than %llu blocks: choose a larger blockSize", what,
                  (unsigned long long)COW_STATE_BLOCKS_MAX);
        return NULL;
    }
    s->n_pages = (s->n_blocks + COW_STATE_BITS - 1) / COW_STATE_BITS;
    s->what = strdup(what);
    s->words = calloc(s->n_pages * PAGE_WORDS + 1, sizeof(*s->words));
    s->changed = calloc(s->n_pages + 1, sizeof(*s->changed));
    s->slot = calloc(s->n_pages + 1, sizeof(*s->slot));
    s->sums = calloc(s->n_pages + 1, sizeof(*s->sums));
    if (!s->what || !s->words || !s->changed || !s->slot || !s->sums) {
        error_oom(err);
        return NULL;
    }
    if (load(s, want, readonly, &fresh, err) < 0)
        return NULL;
    if (ret_fresh)
        *ret_fresh = fresh;
    return steal_ptr(&s);
}

void cow_state_free(struct cow_state *s)
{
    if (!s)
        return;
    free(s->what);
    free(s->words);
    free(s->changed);
    free(s->slot);
    free(s->sums);
    free(s);
}

/* ---- bits ---- */

static _Atomic uint64_t *word_of(const struct cow_state *s, uint64_t block)
{
    return &s->words[block / 64];
}
_Static_assert(COW_STATE_BITS % 64 == 0, "pages hold whole words, so words[] has no gaps");

bool cow_state_has(const struct cow_state *s, uint64_t block)
{
    return atomic_load_explicit(word_of(s, block), memory_order_acquire) >> (block % 64) & 1;
}

uint64_t cow_state_run(const struct cow_state *s, uint64_t from, uint64_t end, bool has)
{
    while (from < end && cow_state_has(s, from) == has)
        from++;
    return from;
}

void cow_state_set(struct cow_state *s, uint64_t block)
{
    const uint64_t bit = UINT64_C(1) << (block % 64);

    if (!(atomic_fetch_or(word_of(s, block), bit) & bit))
        atomic_fetch_add(&s->count, 1);
    /* After the bit: a commit that misses the bit leaves this mark for the next one. */
    atomic_store(&s->changed[block / COW_STATE_BITS], 1);
}

uint64_t cow_state_count(const struct cow_state *s)
{
    return atomic_load(&s->count);
}

const struct cow_header *cow_state_header(const struct cow_state *s)
{
    return &s->header;
}

/* ---- commit ---- */

struct page_copy {
    uint64_t page;
    uint8_t bytes[PAGE];
};

/* Copies of all changed pages as they are now, their marks taken down. */
static int collect(struct cow_state *s, uint64_t generation, struct page_copy **ret, size_t *ret_n,
                   struct error *err)
{
    size_t n = 0;

    for (uint64_t p = 0; p < s->n_pages; p++)
        n += atomic_load(&s->changed[p]) != 0;
    struct page_copy *copies = n ? malloc(n * sizeof(*copies)) : NULL;
    if (n && !copies)
        return error_oom(err);
    size_t k = 0;
    for (uint64_t p = 0; p < s->n_pages && k < n; p++) {
        if (!atomic_load(&s->changed[p]))
            continue;
        struct page_copy *c = &copies[k++];
        atomic_store(&s->changed[p], 0); /* before the bits are read, see cow_state_set() */
        c->page = p;
        memset(c->bytes, 0, PAGE);
        put_le64(c->bytes, generation);
        put_le64(c->bytes + 8, p);
        for (unsigned w = 0; w < PAGE_WORDS; w++)
            put_le64(c->bytes + 16 + 8 * w, atomic_load(&s->words[p * PAGE_WORDS + w]));
    }
    *ret = copies;
    *ret_n = k;
    return 0;
}

static uint64_t count_bits(const uint8_t *page)
{
    uint64_t n = 0;

    for (unsigned w = 0; w < PAGE_WORDS; w++)
        n += (unsigned)__builtin_popcountll(get_le64(page + 16 + 8 * w));
    return n;
}

/* Writes the copies and the header that makes them count. */
static int write_commit(struct cow_state *s, struct page_copy *copies, size_t n,
                        uint64_t generation, struct error *err)
{
    struct cow_header h = s->header;
    uint8_t old[PAGE];

    for (size_t i = 0; i < n; i++) {
        struct page_copy *c = &copies[i];
        if (io_pread_exact(s->fd, old, PAGE, page_offset(c->page, s->slot[c->page]), s->what, err) <
                0 ||
            digest_of(c->bytes, SUM_AT, c->bytes + SUM_AT, err) < 0 ||
            io_pwrite(s->fd, c->bytes, PAGE, page_offset(c->page, !s->slot[c->page]), s->what,
                      err) < 0)
            return -1;
        h.count += count_bits(c->bytes) - count_bits(old);
        memcpy(s->sums[c->page], c->bytes + SUM_AT, SHA256_SIZE);
    }
    if (digest_pages(s, h.pages, err) < 0 || sync_file(s->fd, s->what, err) < 0)
        return -1;
    h.generation = generation;
    if (write_header(s, &h, 0, err) < 0 || sync_file(s->fd, s->what, err) < 0)
        return -1;
    /* Committed. The copy is for a header that rots; the next commit's first sync covers it. */
    for (size_t i = 0; i < n; i++)
        s->slot[copies[i].page] ^= 1;
    s->header = h;
    return write_header(s, &h, 1, err);
}

int cow_state_commit(struct cow_state *s, int overlay_fd, const char *overlay, struct error *err)
{
    struct page_copy *copies = NULL;
    size_t n = 0;

    if (s->broken)
        return error_set(err, EIO,
                         "%s: an earlier flush failed; the disk is as the last good flush left it",
                         s->what);
    if (collect(s, s->newest + 1, &copies, &n, err) < 0)
        return -1;
    int rc = sync_file(overlay_fd, overlay, err);
    if (rc == 0 && n > 0)
        rc = write_commit(s, copies, n, ++s->newest, err);
    free(copies);
    s->broken = rc < 0;
    return rc;
}
