// SPDX-License-Identifier: Apache-2.0
/* test_block.c - random requests on stacks against a plain array; threads: yes */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/block/filter/dirty.h"
#include "runtime/block/filter/pull.h"
#include "tests/lib/stack.h"

#define SIZE (1u << 20)
#define ODD_SIZE (SIZE - 1234) /* no multiple of anything */
#define STEPS 600
UNIT_TIMEOUT(400);

static struct error err;
static uint64_t rng;

static uint64_t below(uint64_t n)
{
    return unit_random(&rng) % n;
}

static void fill(uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i += 8) {
        uint64_t word = unit_random(&rng);
        memcpy(p + i, &word, len - i < 8 ? len - i : 8);
    }
}

static void make_base(const char *path, uint8_t *model, size_t size)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_RDWR, 0600);

    ck_assert_int_ge(fd, 0);
    /* Tests of one file share a folder; another base's overlays would rightly be refused. */
    for (int i = 0; i < 4; i++)
        (void)unlink((const char *[]){"overlay1", "state1", "overlay2", "state2"}[i]);
    for (size_t at = 0; at < size; at += 4096) {
        size_t n = size - at < 4096 ? size - at : 4096;
        if (below(3)) /* a third stays a hole */
            fill(model + at, n);
        else
            memset(model + at, 0, n);
    }
    ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
    for (size_t at = 0; at < size; at += 4096) {
        size_t n = size - at < 4096 ? size - at : 4096;
        if (model[at] || model[at + 1])
            ck_assert_int_eq(pwrite(fd, model + at, n, (off_t)at), (ssize_t)n);
    }
    close(fd);
}

/* A range that likes the edges of pages and blocks. */
static void range(uint64_t size, uint64_t *offset, uint64_t *len)
{
    uint64_t unit = (const uint64_t[]){1, 512, 4096, 65536}[below(4)];

    *offset = below(size) / unit * unit;
    *len = 1 + below((const uint64_t[]){1, 5000, 70000, 300000}[below(4)]);
    if (below(2))
        *len = (*len + unit - 1) / unit * unit;
    if (*len > size - *offset)
        *len = size - *offset;
}

/* Extents tell of the whole range, and what they promise is true. */
static void check_extents(struct block *b, const uint8_t *model, uint64_t offset, uint64_t len)
{
    struct extents list = {0};
    uint64_t at = offset;

    OK(block_extents(b, offset, len, &list, &err));
    for (size_t i = 0; i < list.count; i++) {
        ck_assert_uint_eq(list.items[i].offset, at);
        ck_assert_uint_gt(list.items[i].len, 0);
        if (list.items[i].flags & EXTENT_ZERO)
            for (uint64_t k = 0; k < list.items[i].len; k++)
                ck_assert_uint_eq(model[at + k], 0);
        at += list.items[i].len;
    }
    ck_assert_uint_eq(at, offset + len);
    extents_free(&list);
}

/* `changed`: what a page's bit must say after each look; NULL when there is no dirty layer. */
static void random_requests(struct block *b, uint8_t *model, uint64_t size, int steps,
                            struct bitmap *changed)
{
    uint8_t *buf = malloc(SIZE);

    for (int i = 0; i < steps; i++) {
        uint64_t offset, len;
        range(size, &offset, &len);
        unsigned op = (unsigned)below(20);
        if (op < 8) {
            OK(block_read(b, buf, len, offset, &err));
            ck_assert_msg(memcmp(buf, model + offset, len) == 0,
                          "step %d: read of %llu at %llu differs", i, (unsigned long long)len,
                          (unsigned long long)offset);
            continue;
        }
        if (op == 18) {
            OK(block_flush(b, &err));
            continue;
        }
        if (op == 19) {
            check_extents(b, model, offset, len);
            continue;
        }
        if (op < 15) {
            fill(buf, len);
            OK(block_write(b, buf, len, offset, op == 14 ? IO_FUA : 0, &err));
            memcpy(model + offset, buf, len);
        } else if (op < 17) {
            OK(block_zero(b, len, offset, 0, &err));
            memset(model + offset, 0, len);
        } else {
            /* May stay or become zeros, page by page: take over what it chose. */
            OK(block_trim(b, len, offset, &err));
            OK(block_read(b, buf, len, offset, &err));
            for (uint64_t k = 0; k < len; k++) {
                ck_assert(buf[k] == 0 || buf[k] == model[offset + k]);
                model[offset + k] = buf[k];
            }
        }
        if (changed)
            bitmap_set_range(changed, offset / BLOCK_PAGE,
                             (offset + len - 1) / BLOCK_PAGE - offset / BLOCK_PAGE + 1);
    }
    OK(block_read(b, buf, size, 0, &err));
    ck_assert_int_eq(memcmp(buf, model, size), 0);
    free(buf);
}

#define COW(n, unit)                                                                               \
    "{\"type\":\"cow\",\"overlay\":\"overlay" #n "\",\"state\":\"state" #n                         \
    "\",\"blockSize\":" #unit "}"
#define BASE "{\"type\":\"file\",\"path\":\"base\",\"readonly\":true}"

static const char *const stacks[] = {
    "[{\"type\":\"file\",\"path\":\"base\"}]",
    "[" BASE "," COW(1, 65536) "]",
    "[" BASE "," COW(1, 4096) "]",
    "[" BASE "," COW(1, 65536) ",{\"type\":\"dirty\"},{\"type\":\"stats\"},{\"type\":\"log\"}]",
    "[" BASE ",{\"type\":\"delay\"}," COW(1, 16384) ",{\"type\":\"fault\",\"op\":\"flush\","
                                                    "\"after\":1000000}]",
    "[{\"type\":\"file\",\"path\":\"base\",\"round\":65536},{\"type\":\"dirty\"}]",
};

UNIT_TEST(stacks_behave_like_an_array)
{
    uint8_t *model = calloc(1, 2 * SIZE);

    rng = unit_seed();
    for (size_t i = 0; i < ARRAY_SIZE(stacks); i++) {
        uint64_t size = i % 2 ? SIZE : ODD_SIZE;
        memset(model, 0, SIZE);
        make_base("base", model, size);
        for (int again = 0; again < 3; again++) { /* what was closed is there when it is opened */
            struct block *b = open_stack(stacks[i]);
            struct bitmap changed, seen;
            OK(bitmap_init(&changed, (block_size(b) + BLOCK_PAGE - 1) / BLOCK_PAGE, &err));
            OK(bitmap_init(&seen, changed.size, &err));
            struct dirty *d = dirty_find(b);
            random_requests(b, model, block_size(b), STEPS / 3, &changed);
            if (d) {
                ck_assert_uint_eq(dirty_pages(d), bitmap_count(&changed));
                ck_assert_uint_eq(dirty_take(d, &seen), bitmap_count(&changed));
                ck_assert_int_eq(memcmp(seen.words, changed.words, (seen.size + 63) / 64 * 8), 0);
                ck_assert_uint_eq(dirty_take(d, &seen), 0);
            }
            bitmap_destroy(&changed);
            bitmap_destroy(&seen);
            OK(block_close(b, &err));
        }
    }
    free(model);
}
END_TEST

/* The base stays as it was, byte for byte, whatever goes on above; two overlays stack. */
UNIT_TEST(base_and_lower_overlay_stay)
{
    uint8_t *model = calloc(1, SIZE), *base = calloc(1, SIZE), *buf = calloc(1, SIZE);

    rng = unit_seed();
    make_base("base", model, SIZE);
    memcpy(base, model, SIZE);
    struct block *b = open_stack("[" BASE "," COW(1, 65536) "]");
    random_requests(b, model, SIZE, 300, NULL);
    OK(block_close(b, &err));
    uint8_t *lower = malloc(SIZE);
    memcpy(lower, model, SIZE);
    b = open_stack("[" BASE ",{\"type\":\"cow\",\"overlay\":\"overlay1\",\"state\":\"state1\","
                   "\"readonly\":true}," COW(2, 16384) "]");
    random_requests(b, model, SIZE, 1000, NULL);
    OK(block_close(b, &err));
    b = open_stack("[" BASE ",{\"type\":\"cow\",\"overlay\":\"overlay1\",\"state\":\"state1\","
                   "\"readonly\":true}]");
    OK(block_read(b, buf, SIZE, 0, &err));
    ck_assert_int_eq(memcmp(buf, lower, SIZE), 0);
    FAILS(block_write(b, "x", 1, 0, 0, &err), "read-only");
    OK(block_close(b, &err));
    b = open_stack("[" BASE "]");
    OK(block_read(b, buf, SIZE, 0, &err));
    ck_assert_int_eq(memcmp(buf, base, SIZE), 0);
    OK(block_close(b, &err));
    /* The lower one changes, in place: the upper one no longer fits. */
    b = open_stack("[" BASE "," COW(1, 65536) "]");
    OK(block_write(b, "changed", 7, 0, 0, &err));
    OK(block_close(b, &err));
    b = open_stack("[" BASE "," COW(1, 65536) "]");
    OK(block_write(b, "changed", 7, 0, 0, &err));
    OK(block_close(b, &err));
    refuse_stack("[" BASE ",{\"type\":\"cow\",\"overlay\":\"overlay1\",\"state\":\"state1\","
                 "\"readonly\":true}," COW(2, 16384) "]",
                 "state2: base has digest");
    free(model);
    free(base);
    free(buf);
    free(lower);
}
END_TEST

/* ---- many threads, each owner of its own pages: no one else's write may be lost ---- */

#define THREADS 4
#define PAGES (SIZE / BLOCK_PAGE)

struct writer {
    struct block *b;
    unsigned number;
    uint64_t rng;
    uint8_t *model; /* shared; a thread touches only its pages */
    int rounds;
    const char *failure;
};

static void *give_up(const char **failure, const char *why)
{
    *failure = why;
    return NULL;
}

static void *write_own_pages(void *opaque)
{
    struct writer *w = opaque;
    uint8_t buf[BLOCK_PAGE], got[BLOCK_PAGE];
    struct error e = ERROR_INIT;

    for (int i = 0; i < w->rounds; i++) {
        uint64_t page = unit_random(&w->rng) % (PAGES / THREADS) * THREADS + w->number;
        uint64_t offset = page * BLOCK_PAGE;
        switch (unit_random(&w->rng) % 4) {
        case 0: {
            uint64_t at = unit_random(&w->rng) % (BLOCK_PAGE - 64);
            memset(buf, (int)unit_random(&w->rng), 64);
            if (block_write(w->b, buf, 64, offset + at, 0, &e) < 0)
                return give_up(&w->failure, "write of a part");
            memcpy(w->model + offset + at, buf, 64);
            break;
        }
        case 1:
            memset(buf, (int)unit_random(&w->rng), sizeof(buf));
            if (block_write(w->b, buf, sizeof(buf), offset, 0, &e) < 0)
                return give_up(&w->failure, "write");
            memcpy(w->model + offset, buf, sizeof(buf));
            break;
        case 2:
            if (block_read(w->b, got, sizeof(got), offset, &e) < 0)
                return give_up(&w->failure, "read");
            if (memcmp(got, w->model + offset, sizeof(got)) != 0)
                return give_up(&w->failure, "a page differs from what was written");
            break;
        default:
            if (unit_random(&w->rng) % 16 == 0 && block_flush(w->b, &e) < 0)
                return give_up(&w->failure, "flush");
        }
    }
    return NULL;
}

static void many_writers(struct block *b, uint8_t *model, int rounds)
{
    pthread_t threads[THREADS];
    struct writer w[THREADS];

    for (unsigned i = 0; i < THREADS; i++) {
        w[i] = (struct writer){b, i, unit_random(&rng) | 1, model, rounds, NULL};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, write_own_pages, &w[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        ck_assert_msg(!w[i].failure, "thread %u: %s", i, w[i].failure);
    }
}

UNIT_TEST(many_writers_lose_nothing_in_cow)
{
    uint8_t *model = calloc(1, SIZE), *buf = malloc(SIZE);

    rng = unit_seed();
    make_base("base", model, SIZE);
    for (int again = 0; again < 2; again++) {
        struct block *b = open_stack("[" BASE "," COW(1, 65536) ",{\"type\":\"dirty\"}]");
        many_writers(b, model, 200);
        OK(block_read(b, buf, SIZE, 0, &err));
        ck_assert_int_eq(memcmp(buf, model, SIZE), 0);
        OK(block_close(b, &err));
    }
    free(model);
    free(buf);
}
END_TEST

/* ---- pull: a source answers requests and sends the rest, late and twice ---- */

struct feeder {
    struct pull *pull;
    const uint8_t *source;
    pthread_mutex_t lock;
    pthread_cond_t more;
    uint64_t wanted[SIZE / 65536 + 1];
    unsigned n_wanted;
    uint64_t rng;
    const char *failure;
};

static void request(void *opaque, uint64_t offset, uint64_t len)
{
    struct feeder *f = opaque;
    lock_scope(&f->lock);

    (void)len;
    f->wanted[f->n_wanted++] = offset;
    pthread_cond_signal(&f->more);
}

static void *feed(void *opaque)
{
    struct feeder *f = opaque;
    struct error e = ERROR_INIT;

    for (;;) {
        uint64_t offset;
        {
            lock_scope(&f->lock);
            if (f->n_wanted > 0)
                offset = f->wanted[--f->n_wanted];
            else if (pull_absent(f->pull) == 0)
                return NULL;
            else
                offset = unit_random(&f->rng) % (SIZE / 65536) * 65536;
        }
        /* In two halves, and the first of them again: late arrivals of what is here already. */
        for (int part = 0; part < 3; part++) {
            uint64_t from = offset + (part == 1 ? 32768 : 0);
            if (pull_arrive(f->pull, f->source + from, 32768, from, &e) < 0)
                return give_up(&f->failure, "arrive");
        }
    }
}

UNIT_TEST(pull_gives_what_the_source_has_or_what_was_written)
{
    uint8_t *source = malloc(SIZE), *model = malloc(SIZE), *buf = malloc(SIZE);
    struct feeder f = {.source = source};
    struct pull_options opt = {.block_size = 65536, .request = request, .opaque = &f};
    pthread_t thread;

    rng = unit_seed();
    fill(source, SIZE);
    memcpy(model, source, SIZE);
    struct block *b = open_stack("[{\"type\":\"sparse\",\"size\":1048576}]");
    b = pull_open(b, &opt, NULL, &f.pull, &err);
    ck_assert_ptr_nonnull(b);
    f.rng = unit_random(&rng);
    pthread_mutex_init(&f.lock, NULL);
    pthread_cond_init(&f.more, NULL);
    ck_assert_uint_eq(pull_absent(f.pull), PAGES);
    ck_assert_int_eq(pthread_create(&thread, NULL, feed, &f), 0);
    many_writers(b, model, 300);
    OK(pull_wait(f.pull, &err));
    pthread_join(thread, NULL);
    ck_assert_msg(!f.failure, "%s", f.failure);
    ck_assert_uint_eq(pull_absent(f.pull), 0);
    ck_assert_uint_eq(pull_next_absent(f.pull, 0), SIZE);
    OK(block_read(b, buf, SIZE, 0, &err));
    ck_assert_int_eq(memcmp(buf, model, SIZE), 0);
    OK(block_close(b, &err));
    free(source);
    free(model);
    free(buf);
}
END_TEST
