// SPDX-License-Identifier: Apache-2.0
/* testguest.c - a freestanding guest for tests: counts, writes memory in a pattern, talks
 *
 * testguest.h says what it does. One CPU, one interrupt (the timer), no SSE: it also runs where KVM
 * emulates every instruction, at a few million a second, so everything here is short.
 */
#include "tests/guest/testguest.h"

#include <stdbool.h>
#include <stddef.h>

#define COM1 0x3f8
#define TICK_HZ 100
#define CHUNK 16 /* pages written between two looks at the serial port */

/* start.S calls these and has those. */
void guest_main(const uint8_t *boot, int kind);
void fault(uint64_t vector, uint64_t rip, uint64_t address);
extern char timer_entry[], ignore_entry[], fault_stubs[];

static volatile struct testguest *const control = (void *)TESTGUEST_CONTROL;
static volatile uint64_t *const pattern = (void *)TESTGUEST_PATTERN;

/* The compiler may ask for these. */
void *memset(void *p, int c, size_t n);
void *memset(void *p, int c, size_t n)
{
    for (char *b = p; n > 0; n--)
        *b++ = (char)c;
    return p;
}

static void out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static uint8_t in8(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void put_char(char c)
{
    while (!(in8(COM1 + 5) & 0x20))
        ;
    out8(COM1, (uint8_t)c);
}

static void put(const char *text)
{
    while (*text)
        put_char(*text++);
}

static void put_number(const char *name, uint64_t n, unsigned base)
{
    char buf[20], *p = buf;

    put(name);
    do {
        *p++ = "0123456789abcdef"[n % base];
        n /= base;
    } while (n);
    while (p > buf)
        put_char(*--p);
}

void fault(uint64_t vector, uint64_t rip, uint64_t address)
{
    put_number("fault vector=", vector, 10);
    put_number(" rip=0x", rip, 16);
    put_number(" address=0x", address, 16);
    put("\n");
}

/* Interrupt descriptor table: exceptions to `fault`, vector 32 to the timer, all others to nothing.
 */
static struct {
    uint16_t low, segment;
    uint16_t flags, middle;
    uint32_t high, zero;
} idt[256];

static void set_gate(int vector, uint64_t entry)
{
    idt[vector].low = (uint16_t)entry;
    idt[vector].segment = 8;
    idt[vector].flags = 0x8e00;
    idt[vector].middle = (uint16_t)(entry >> 16);
    idt[vector].high = (uint32_t)(entry >> 32);
}

/* Timer by PIT and PIC: both VMMs have them, nothing has to be found first. */
static void start_timer(uint64_t hz)
{
    const struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) pointer = {sizeof(idt) - 1, (uint64_t)idt};
    const uint16_t divisor = (uint16_t)(1193182 / hz);

    for (int i = 0; i < 48; i++)
        set_gate(i, i < 32 ? (uint64_t)fault_stubs + 16 * (unsigned)i
                           : (uint64_t)(i == 32 ? timer_entry : ignore_entry));
    __asm__ volatile("lidt %0" : : "m"(pointer));
    /* Both PICs: initialise, vectors from 32, cascade on line 2, 8086 mode; all but line 0 masked.
     */
    out8(0x20, 0x11);
    out8(0xa0, 0x11);
    out8(0x21, 32);
    out8(0xa1, 40);
    out8(0x21, 4);
    out8(0xa1, 2);
    out8(0x21, 1);
    out8(0xa1, 1);
    out8(0x21, 0xfe);
    out8(0xa1, 0xff);
    /* The local APIC lets the PIC through (SVR: on; LINT0: ExtINT). Firmware did it, where there is
     * any. */
    *(volatile uint32_t *)0xfee000f0 = 0x1ff;
    *(volatile uint32_t *)0xfee00350 = 0x700;
    /* Channel 0, low then high byte, rate generator. */
    out8(0x43, 0x34);
    out8(0x40, divisor & 0xff);
    out8(0x40, divisor >> 8);
    __asm__ volatile("sti");
}

static void write_page(void)
{
    const uint64_t n = control->writes, page = n % control->pages;
    volatile uint64_t *w = pattern + page * TESTGUEST_WORDS;
    uint64_t value = testguest_base(control->seed, page, n);

    control->writing = page + 1;
    for (int i = 0; i < TESTGUEST_WORDS; i++, value += TESTGUEST_STEP)
        w[i] = value;
    /* An observer stops us between two instructions: while both are set the new page reads as half
     * done and complete, which testguest_check() takes. */
    control->writes = n + 1;
    control->writing = 0;
}

static void say_tick(void)
{
    put_number("tick ", control->ticks, 10);
    put_number(" writes=", control->writes, 10);
    put("\n");
}

static void verify(void)
{
    const struct testguest copy = {
        .pages = control->pages, .seed = control->seed, .writes = control->writes, .writing = 0};
    struct testguest_fault f;

    if (testguest_check(&copy, (const void *)pattern, &f) == 0) {
        control->verified++;
        put_number("verify ok writes=", copy.writes, 10);
    } else {
        put_number("verify BAD page=", f.page, 10);
        put_number(" word=", f.word, 10);
        put_number(" got=0x", f.got, 16);
        put_number(" want=0x", f.want, 16);
    }
    put("\n");
}

/* ACPI's S5 of q35, then the keyboard controller's reset, which is how Firecracker's guests end. */
static void power_off(void)
{
    __asm__ volatile("outw %0, %1" : : "a"((uint16_t)0x2000), "Nd"((uint16_t)0x604));
    out8(0x64, 0xfe);
    for (int i = 0; i < 100000; i++)
        __asm__ volatile("pause");
    /* QEMU's microvm has neither: an exception without a table to find its handler in resets any
     * PC. */
    const struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) nothing = {0, 0};
    __asm__ volatile("lidt %0; int3" : : "m"(nothing));
}

/* "NAME" at the start of text, followed by `end`. Returns what stands behind, or NULL. */
static const char *after(const char *text, const char *name, char end)
{
    while (*name)
        if (*text++ != *name++)
            return NULL;
    return *text == end ? text + (end != '\0') : NULL;
}

static uint64_t number(const char *text)
{
    uint64_t n = 0;

    while (*text >= '0' && *text <= '9')
        n = 10 * n + (uint64_t)(*text++ - '0');
    return n;
}

static void obey(const char *line)
{
    const char *arg;

    if (after(line, "verify", '\0')) {
        verify();
    } else if ((arg = after(line, "rate", ' '))) {
        control->rate = number(arg);
        put_number("rate=", control->rate, 10);
        put("\n");
    } else if ((arg = after(line, "write", ' '))) {
        for (uint64_t n = number(arg); n > 0; n--)
            write_page();
        put_number("wrote writes=", control->writes, 10);
        put("\n");
    } else if (after(line, "status", '\0')) {
        say_tick();
    } else if (after(line, "off", '\0')) {
        put("off\n");
        power_off();
    } else if (*line) {
        put("what?\n");
    }
}

static void hear(void)
{
    static char line[64];
    static unsigned len;

    while (in8(COM1 + 5) & 1) {
        char c = (char)in8(COM1);
        if (c == '\n' || c == '\r') {
            line[len] = '\0';
            len = 0;
            obey(line);
        } else if (len < sizeof(line) - 1) {
            line[len++] = c;
        }
    }
}

/* The command line, where either boot protocol keeps it: hvm_start_info.cmdline_paddr (Xen's
 * start_info.h) or boot_params.hdr.cmd_line_ptr (Linux' zero-page.rst). */
static const char *command_line(const uint8_t *boot, int kind)
{
    const char *none = "";
    uint64_t at = kind ? *(const uint32_t *)(boot + 0x228) : *(const uint64_t *)(boot + 24);

    return at ? (const char *)at : none;
}

static uint64_t parameter(const char *line, const char *name, uint64_t def)
{
    for (; *line; line++) {
        const char *arg = after(line, name, '=');
        if (arg)
            return number(arg);
        while (*line && *line != ' ')
            line++;
        if (!*line)
            break;
    }
    return def;
}

static void loop(uint64_t beat)
{
    uint64_t seen = control->ticks, due = 0, next_beat = seen + beat;

    for (;;) {
        __asm__ volatile("cli");
        if (due == 0 && control->ticks == seen)
            __asm__ volatile("sti; hlt"); /* nothing comes between the two (sti delays by one) */
        else
            __asm__ volatile("sti");
        const uint64_t now = control->ticks;
        if (now != seen) {
            hear();
            due = control->rate;
            if (beat && now >= next_beat) {
                say_tick();
                next_beat = now + beat;
            }
            seen = now;
        }
        for (int i = 0; i < CHUNK && due > 0; i++, due--)
            write_page();
    }
}

void guest_main(const uint8_t *boot, int kind)
{
    const char *line = command_line(boot, kind);
    const uint64_t pages = parameter(line, "pages", 256);
    const uint64_t beat = parameter(line, "beat", 100);
    const uint64_t hz = parameter(line, "hz", TICK_HZ);

    /* A machine's memory is zero at first, a warm reset's is not. */
    *control = (struct testguest){.pages = pages ? pages : 1,
                                  .seed = parameter(line, "seed", 1),
                                  .rate = parameter(line, "rate", 0)};
    while (control->writes < control->pages)
        write_page();
    control->magic = TESTGUEST_MAGIC;
    start_timer(hz >= 19 && hz <= 10000 ? hz : TICK_HZ);
    put_number("testguest ready pages=", control->pages, 10);
    put_number(" seed=", control->seed, 10);
    put_number(" rate=", control->rate, 10);
    put(kind ? " boot=linux\n" : " boot=pvh\n");
    loop(beat);
}
