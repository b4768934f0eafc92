// SPDX-License-Identifier: Apache-2.0
/* resume.c - what a machine that comes back from a snapshot must mend: clock, randomness,
 * neighbours
 */
#include "blueprint/guest/resume.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <linux/random.h>
#include <linux/rtc.h>

#include "runtime/base/cleanup.h"
#include "runtime/net/announce.h"

#define SECOND INT64_C(1000000000)

/* A told or PTP time is as exact as the way of the message, the RTC's only to the second; a clock
 * that is nearer than this is left alone, so that a time daemon keeps its work. */
#define NEAR_EXACT (5 * SECOND / 1000)
#define NEAR_RTC (2 * SECOND)

#define NICE_FIRST (-15)

/* Where a time came from. */
struct true_time {
    const char *source;
    int64_t ns; /* since 1970 */
    int64_t near_ns;
};

static int64_t to_ns(const struct timespec *ts)
{
    return (int64_t)ts->tv_sec * SECOND + ts->tv_nsec;
}

/* The hypervisor's clock: a PTP device is a POSIX clock, its id made from the descriptor
 * (clock_getres(2), "Dynamic clocks"). Only the KVM one shows the host's real time. */
static bool time_from_ptp(struct true_time *t)
{
    char name[32] = "";
    struct timespec ts;

    cleanup_close int sys = open("/sys/class/ptp/ptp0/clock_name", O_RDONLY | O_CLOEXEC);
    if (sys < 0 || read(sys, name, sizeof(name) - 1) <= 0 || strncmp(name, "KVM", 3) != 0)
        return false;
    cleanup_close int fd = open("/dev/ptp0", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || clock_gettime((clockid_t)(~(unsigned)fd << 3 | 3), &ts) < 0)
        return false;
    *t = (struct true_time){"ptp", to_ns(&ts), NEAR_EXACT};
    return true;
}

static bool time_from_rtc(struct true_time *t)
{
    struct rtc_time rt;

    cleanup_close int fd = open("/dev/rtc0", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, RTC_RD_TIME, &rt) < 0)
        return false;
    struct tm tm = {.tm_sec = rt.tm_sec,
                    .tm_min = rt.tm_min,
                    .tm_hour = rt.tm_hour,
                    .tm_mday = rt.tm_mday,
                    .tm_mon = rt.tm_mon,
                    .tm_year = rt.tm_year};
    *t = (struct true_time){"rtc", (int64_t)timegm(&tm) * SECOND, NEAR_RTC};
    return t->ns > 0;
}

static void set_clock(const struct rpc_resume *told, bool dry, struct resume_done *ret,
                      const struct log *log)
{
    struct true_time t;
    struct timespec now;

    if (told && told->time_ns)
        t = (struct true_time){"host", (int64_t)told->time_ns, NEAR_EXACT};
    else if (!time_from_ptp(&t) && !time_from_rtc(&t)) {
        log_warn(log, "No source of the true time, the clock may be behind, ignoring");
        return;
    }
    (void)clock_gettime(CLOCK_REALTIME, &now);
    const int64_t off = t.ns - to_ns(&now);
    if (off < t.near_ns && off > -t.near_ns)
        return;
    struct timespec ts = {.tv_sec = (time_t)(t.ns / SECOND), .tv_nsec = (long)(t.ns % SECOND)};
    if (!dry && clock_settime(CLOCK_REALTIME, &ts) < 0) {
        log_warn(log, "Cannot set the clock, ignoring", log_str("error", strerror(errno)));
        return;
    }
    ret->clock_set = true;
    ret->clock_source = t.source;
    ret->clock_ms = off / (SECOND / 1000);
}

/* Bytes of the machine's own generator. It may not be there, and must not hold us up. */
static size_t read_hwrng(uint8_t *buf, size_t size)
{
    cleanup_close int fd = open("/dev/hwrng", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, buf, size);

    return n < 0 ? 0 : (size_t)n;
}

static void open_urandom(struct resume_ready *ready)
{
    if (ready->urandom < 0)
        ready->urandom = open("/dev/urandom", O_RDWR | O_CLOEXEC);
}

/* RNDADDENTROPY mixes bytes in and counts them as unknown to others, RNDRESEEDCRNG makes the next
 * output depend on them at once (random(4)). */
static void reseed(struct resume_ready *ready, const struct rpc_resume *told, bool dry,
                   struct resume_done *ret, const struct log *log)
{
    struct {
        struct rand_pool_info info;
        union {
            uint8_t bytes[2 * RPC_ENTROPY_SIZE];
            struct timespec clocks[2]; /* no entropy, but other than in the other copies */
        };
    } pool;
    size_t n = sizeof(pool.clocks), counted = 0;

    if (dry) {
        ret->entropy = told && told->has_entropy ? RPC_ENTROPY_SIZE : 0;
        return;
    }
    memset(&pool, 0, sizeof(pool));
    (void)clock_gettime(CLOCK_REALTIME, &pool.clocks[0]);
    (void)clock_gettime(CLOCK_MONOTONIC_RAW, &pool.clocks[1]);
    if (told && told->has_entropy) {
        memcpy(pool.bytes + n, told->entropy, RPC_ENTROPY_SIZE);
        n += RPC_ENTROPY_SIZE;
        counted += RPC_ENTROPY_SIZE;
    }
    if (!counted) {
        size_t hw = read_hwrng(pool.bytes + n, RPC_ENTROPY_SIZE);
        n += hw;
        counted += hw;
    }
    pool.info.entropy_count = (int)(8 * counted);
    pool.info.buf_size = (int)((n + 3) & ~(size_t)3);
    open_urandom(ready);
    if (ready->urandom < 0 || ioctl(ready->urandom, RNDADDENTROPY, &pool) < 0 ||
        ioctl(ready->urandom, RNDRESEEDCRNG) < 0)
        log_warn(log, "Cannot reseed the random pool, ignoring", log_str("error", strerror(errno)));
    else if (counted)
        ret->reseeded = true;
    else
        log_warn(log, "No source of entropy, copies of this machine may draw the same random "
                      "numbers, ignoring");
    ret->entropy = counted;
    explicit_bzero(&pool, sizeof(pool));
}

/* What is behind our links may know us elsewhere, or not at all. */
static void announce(bool dry, const struct log *log)
{
    struct error err;
    unsigned count = 0;

    if (dry) {
        log_info(log, "Would announce the addresses");
        return;
    }
    if (net_announce(NULL, &count, &err) < 0)
        log_warn(log, "Cannot announce the addresses, ignoring", log_str("error", err.text));
    else
        log_debug(log, "Announced the addresses", log_uint("count", count));
}

void resume_prepare(struct resume_ready *ready, bool dry)
{
    open_urandom(ready);
    if (!dry)
        (void)mlockall(MCL_CURRENT);
}

void resume_go_first(struct resume_ready *ready, bool first)
{
    if (ready->first == first)
        return;
    if (first)
        ready->nice = getpriority(PRIO_PROCESS, 0);
    (void)setpriority(PRIO_PROCESS, 0, first ? NICE_FIRST : ready->nice);
    ready->first = first;
}

void resume_unprepare(struct resume_ready *ready)
{
    cleanup_close_p(&ready->urandom);
}

void resume_apply(struct resume_ready *ready, const struct rpc_resume *told, bool dry,
                  struct resume_done *ret, const struct log *log)
{
    *ret = (struct resume_done){0};
    set_clock(told, dry, ret, log);
    reseed(ready, told, dry, ret, log);
}

void resume_finish(const struct resume_done *done, bool dry, const struct log *log)
{
    announce(dry, log);
    if (done->clock_set)
        log_info(log, dry ? "Would set the clock" : "Set the clock",
                 log_str("from", done->clock_source), log_int("ms", done->clock_ms));
    if (done->reseeded || dry)
        log_info(log, dry ? "Would reseed the random pool" : "Reseeded the random pool",
                 log_uint("bytes", done->entropy));
}
