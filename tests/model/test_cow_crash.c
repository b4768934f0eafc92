// SPDX-License-Identifier: Apache-2.0
/* test_cow_crash.c - the writer of an overlay is killed at random moments, 200 times
 *
 * A child writes stamped pages from several threads and flushes; what it began, what was answered
 * and what a flush covered stands in memory that outlives it. After each SIGKILL the overlay is
 * opened anew: every page must be whole, no older than its last flush, no newer than what was
 * begun.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/output.h"
#include "tests/lib/stack.h"

#define BLOCK 65536u
#define SIZE (15 * BLOCK)
#define PAGES (SIZE / BLOCK_PAGE)
#define KILLS 200
#define WRITERS 2

static struct error err;
UNIT_TIMEOUT(300);

struct shared {
    atomic_ullong begun[PAGES], answered[PAGES], flushed[PAGES];
    atomic_uint flushes; /* how many flushes were answered, of all children */
};

struct child {
    struct block *b;
    struct shared *s;
    uint64_t rng;
    unsigned number;
};

static const char stack[] = "[{\"type\":\"file\",\"path\":\"base\",\"readonly\":true},"
                            "{\"type\":\"cow\",\"overlay\":\"o\",\"state\":\"s\"}]";

static void stamp(uint64_t *page, uint64_t number, uint64_t sequence)
{
    for (unsigned i = 0; i < BLOCK_PAGE / 8; i++)
        page[i] = number << 40 | sequence;
}

/* Each writer owns every WRITERSth page, so neighbours in a block belong to different threads. */
static void *write_pages(void *opaque)
{
    struct child *c = opaque;
    uint64_t page[BLOCK_PAGE / 8];

    for (;;) {
        uint64_t n = unit_random(&c->rng) % (PAGES / WRITERS) * WRITERS + c->number;
        uint64_t sequence = atomic_load(&c->s->begun[n]) + 1;
        stamp(page, n, sequence);
        atomic_store(&c->s->begun[n], sequence);
        if (block_write(c->b, page, sizeof(page), n * BLOCK_PAGE, 0, NULL) < 0)
            _exit(3);
        atomic_store(&c->s->answered[n], sequence);
    }
    return NULL;
}

static void *flush_all(void *opaque)
{
    struct child *c = opaque;
    static uint64_t covered[PAGES];

    for (;;) {
        for (unsigned n = 0; n < PAGES; n++)
            covered[n] = atomic_load(&c->s->answered[n]);
        if (block_flush(c->b, NULL) < 0)
            _exit(4);
        for (unsigned n = 0; n < PAGES; n++)
            atomic_store(&c->s->flushed[n], covered[n]);
        atomic_fetch_add(&c->s->flushes, 1);
    }
    return NULL;
}

_Noreturn static void child(struct shared *s, uint64_t seed)
{
    static struct child c[WRITERS + 1];
    struct block *b = block_open(stack, sizeof(stack) - 1, "crash", NULL, &err);
    pthread_t thread;

    if (!b)
        _exit(2);
    for (unsigned i = 0; i <= WRITERS; i++) {
        c[i] = (struct child){b, s, unit_random(&seed) | 1, i};
        if (pthread_create(&thread, NULL, i < WRITERS ? write_pages : flush_all, &c[i]) != 0)
            _exit(5);
    }
    for (;;)
        pause();
}

/* What the pages hold now; it becomes what the next child starts from. */
static void verify(struct shared *s, unsigned round)
{
    struct block *b = open_stack(stack);
    uint64_t page[BLOCK_PAGE / 8];

    for (uint64_t n = 0; n < PAGES; n++) {
        OK(block_read(b, page, sizeof(page), n * BLOCK_PAGE, &err));
        for (unsigned i = 1; i < BLOCK_PAGE / 8; i++)
            ck_assert_msg(page[i] == page[0], "round %u: page %llu is torn at %u: %llx, %llx",
                          round, (unsigned long long)n, i * 8, (unsigned long long)page[0],
                          (unsigned long long)page[i]);
        uint64_t sequence = page[0] & ((UINT64_C(1) << 40) - 1);
        ck_assert_uint_eq(page[0] >> 40, n);
        ck_assert_msg(sequence >= atomic_load(&s->flushed[n]),
                      "round %u: page %llu: write %llu was flushed, found is %llu", round,
                      (unsigned long long)n, (unsigned long long)s->flushed[n],
                      (unsigned long long)sequence);
        ck_assert_uint_le(sequence, atomic_load(&s->begun[n]));
        atomic_store(&s->begun[n], sequence);
        atomic_store(&s->answered[n], sequence);
        atomic_store(&s->flushed[n], sequence);
    }
    OK(block_close(b, &err));
}

UNIT_TEST(killed_200_times_nothing_flushed_is_lost)
{
    uint64_t rng = unit_seed(), page[BLOCK_PAGE / 8];
    char dir[] = "/dev/shm/drafter-crash-XXXXXX";
    struct shared *s =
        mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    unsigned wrote = 0;

    ck_assert(s != MAP_FAILED);
    /* Killing a process does not care for the disk; memory makes 200 rounds of syncs quick. */
    bool in_memory = mkdtemp(dir) && chdir(dir) == 0;
    int fd = open("base", O_CREAT | O_WRONLY, 0600);
    for (uint64_t n = 0; n < PAGES; n++) {
        stamp(page, n, 0);
        ck_assert_int_eq(write(fd, page, sizeof(page)), sizeof(page));
    }
    close(fd);
    for (unsigned round = 0; round < KILLS; round++) {
        if (round % 25 == 0) { /* blocks move into the overlay only once: begin anew now and then */
            (void)unlink("o");
            (void)unlink("s");
            memset(s, 0, sizeof(*s));
        }
        pid_t pid = fork();
        ck_assert_int_ge(pid, 0);
        if (pid == 0)
            child(s, unit_random(&rng));
        usleep((useconds_t)(unit_random(&rng) % 8000));
        ck_assert_int_eq(kill(pid, SIGKILL), 0);
        int status;
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert_msg(WIFSIGNALED(status), "round %u: the child ended with %d", round,
                      WEXITSTATUS(status));
        wrote += atomic_load(&s->flushes) > 0;
        verify(s, round);
    }
    /* On the slowest machine some children get to a flush before they die. */
    ck_assert_uint_gt(wrote, 0);
    if (in_memory) {
        (void)!chdir("/");
        OK(output_remove_tree(AT_FDCWD, dir, &err));
    }
}
END_TEST
