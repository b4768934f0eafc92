/* SPDX-License-Identifier: Apache-2.0 */
/* testguest.h - the freestanding test guest's memory, for itself and for tests that look from
 * outside
 *
 * The guest is a whole operating system of one loop: it counts ticks, writes memory in a pattern
 * and talks on the serial port. It needs no driver, no disk and milliseconds to boot, on QEMU (q35;
 * microvm with pic=on,pit=on) and on Firecracker. Guest-physical addresses below 2 GiB are offsets
 * in the memory file of all of them.
 *
 *     0x100000  code, data, page tables, stack
 *     0x200000  struct testguest: what it does, readable from outside at any time
 *     0x400000  the pattern, `pages` pages of 4 KiB
 *
 * The pattern: write number n (from 0) goes to page n % pages, and fills it with words that depend
 * on seed, page and n. So from `writes` alone follows what every page must hold: no page may be
 * stale, none may be ahead. Only the page in `writing` may be half done, its first words new, the
 * rest as before; the guest writes a page's words in order, and `writes` last.
 *
 * Command line (blank-separated, others are ignored):
 *     pages=N  size of the pattern, default 256. It must fit the machine's memory behind 4 MiB
 *     seed=N   default 1
 *     hz=N     ticks in a second of the guest's time (PIT), 19 to 10000, default 100
 *     rate=N   pages written in a tick, default 0; a rate the machine cannot hold makes it write
 *              all the time
 *     beat=N   ticks between two "tick" lines, default 100; 0 = none
 *
 * Lines it prints on ttyS0 (newline is "\n"):
 *     testguest ready pages=P seed=S rate=R boot=pvh|linux    once the pattern stands
 *     tick T writes=W                                         T, W decimal
 *     verify ok writes=W
 *     verify BAD page=P word=I got=0x.. want=0x..
 *     fault vector=V rip=0x.. address=0x..                    and it stands still
 *
 * Lines it takes there: "verify", "rate N", "write N" (at once; answers "wrote writes=W"), "status"
 * (answers with a tick line), "off" (ends the machine; QEMU with -no-reboot). Others are answered
 * with "what?".
 */
#ifndef TESTS_GUEST_TESTGUEST_H
#define TESTS_GUEST_TESTGUEST_H

#include <stdint.h>

#define TESTGUEST_CONTROL UINT64_C(0x200000)
#define TESTGUEST_PATTERN UINT64_C(0x400000)
#define TESTGUEST_MAGIC UINT64_C(0x3154534754534554) /* "TESTGST1" */
#define TESTGUEST_PAGE 4096
#define TESTGUEST_WORDS (TESTGUEST_PAGE / 8)

struct testguest {
    uint64_t magic; /* TESTGUEST_MAGIC once the pattern was written the first time */
    uint64_t ticks; /* counts up with each timer interrupt */
    uint64_t pages; /* of the pattern */
    uint64_t seed;
    uint64_t writes;  /* pages written so far */
    uint64_t writing; /* 0, or 1 + the page that is being written */
    uint64_t rate;
    uint64_t verified; /* how often "verify" found all well */
};

/* The number of the last write to a page after `writes` writes. The page must have been written:
 * page < writes. */
static inline uint64_t testguest_last_write(uint64_t page, uint64_t pages, uint64_t writes)
{
    return page + (writes - 1 - page) / pages * pages;
}

#define TESTGUEST_STEP UINT64_C(0x9e3779b97f4a7c15) /* odd: no two words of a page are equal */

/* Word 0 of a page after write n; word i is that plus i steps. */
static inline uint64_t testguest_base(uint64_t seed, uint64_t page, uint64_t n)
{
    uint64_t x = seed * UINT64_C(0xd1342543de82ef95) + page * UINT64_C(0xaf251af3b0f025b5) + n;

    x ^= x >> 32;
    x *= UINT64_C(0xd6e8feb86659fd93);
    x ^= x >> 32;
    return x;
}

/* What is wrong with a pattern. */
struct testguest_fault {
    uint64_t page, word, got, want;
};

/* Checks a whole pattern: control and pattern point at copies or mappings of both, of a machine
 * that stands still. Returns 0, or -1 with the first fault. Pages never written must be zero. */
static inline int testguest_check(const struct testguest *control, const void *pattern,
                                  struct testguest_fault *ret_fault)
{
    for (uint64_t page = 0; page < control->pages; page++) {
        const uint64_t *w = (const uint64_t *)pattern + page * TESTGUEST_WORDS;
        const int old = page < control->writes;
        uint64_t word = 0;
        if (control->writing == page + 1) {
            /* The new words first; where they end the old ones follow. */
            uint64_t want = testguest_base(control->seed, page, control->writes);
            while (word < TESTGUEST_WORDS && w[word] == want + word * TESTGUEST_STEP)
                word++;
        }
        uint64_t base =
            !old ? 0
                 : testguest_base(control->seed, page,
                                  testguest_last_write(page, control->pages, control->writes));
        for (; word < TESTGUEST_WORDS; word++) {
            uint64_t want = old ? base + word * TESTGUEST_STEP : 0;
            if (w[word] != want) {
                *ret_fault = (struct testguest_fault){page, word, w[word], want};
                return -1;
            }
        }
    }
    return 0;
}

#endif
