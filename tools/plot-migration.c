// SPDX-License-Identifier: Apache-2.0
/* plot-migration.c - draws the trace of a migration (drafter-migration(7)) as SVG
 *
 * Theory of operation: the trace is read once into a list of marks. Time and offsets are then cut
 * into cells of two pixels; a cell remembers as bits what happened in it, and shows the most
 * telling of them. So the size of the picture does not depend on that of the trace. What was sent a
 * second time is found with a bitmap of pages.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/bitmap.h"
#include "runtime/base/command.h"
#include "runtime/base/output.h"
#include "runtime/base/parse.h"

#define PAGE 4096u
#define COLUMNS 440
#define ROWS_ALL 220 /* of all devices; each has at least ROWS_MIN */
#define ROWS_MIN 12
#define CELL 2 /* pixels */
#define LEFT 120
#define TOP 78
#define GAP 18
#define DEVICES 64
#define NAME_MAX_LEN 64
#define DEVICE_MAX (UINT64_C(1) << 46)
#define MARKS_MAX (UINT64_C(1) << 27)
#define STAGES 32

/* In the order of what covers what: a cell shows its highest bit. */
enum kind { IMPLIED, DIRTIED, MOVED, AGAIN, WANTED, KINDS };

static const struct {
    const char *color, *text;
} looks[KINDS] = {
    [IMPLIED] = {"#d8dee4", "zeros or shared base"},
    [DIRTIED] = {"#f2c14e", "changed meanwhile"},
    [MOVED] = {"#4e86c6", "sent"},
    [AGAIN] = {"#8a4fbf", "sent again"},
    [WANTED] = {"#d1373c", "asked for"},
};

struct opts {
    const char *output;
    uint64_t number;
};

static const struct option options[] = {
    OPTION(struct opts, output, .name = "output", .letter = 'o', .kind = OPTION_STRING,
           .arg = "FILE", .help = "Where the picture goes; default: standard output."),
    OPTION(struct opts, number, .name = "number", .letter = 'n', .kind = OPTION_UINT, .arg = "N",
           .def = "0",
           .help =
               "Which of the migrations in the trace, from 1; 0: the last that moved anything."),
};

struct mark {
    uint64_t us, offset, length;
    uint16_t device;
    uint8_t kind;
};

struct device {
    char name[NAME_MAX_LEN + 1];
    uint64_t size;
    unsigned rows, y; /* where it is drawn: rows of cells, pixels */
    struct bitmap moved;
};

struct stage {
    char name[16];
    uint64_t us;
};

/* One migration of a trace. */
struct plot {
    char side[8], outcome[16];
    uint64_t begin_us, end_us;
    struct device devices[DEVICES];
    size_t n_devices;
    struct stage stages[STAGES];
    size_t n_stages;
    struct mark *marks;
    size_t n_marks, room;
    uint64_t bytes[KINDS];
    uint8_t *cells; /* of the device in hand: rows x COLUMNS bit sets */
};

static void plot_clear(struct plot *p)
{
    for (size_t i = 0; i < p->n_devices; i++)
        bitmap_destroy(&p->devices[i].moved);
    free(p->marks);
    free(p->cells);
    memset(p, 0, sizeof(*p));
}

/* ---- reading ---- */

static struct device *find(struct plot *p, const char *name)
{
    for (size_t i = 0; i < p->n_devices; i++)
        if (strcmp(p->devices[i].name, name) == 0)
            return &p->devices[i];
    return NULL;
}

static int take_device(struct plot *p, char *const *word, struct error *err)
{
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    uint64_t size;

    if (strlen(word[0]) > NAME_MAX_LEN || word[0][strspn(word[0], good)] || find(p, word[0]))
        return error_set(err, EBADMSG, "is no name of a device, or one that was said already");
    if (p->n_devices == DEVICES)
        return error_set(err, EBADMSG, "more than %d devices", DEVICES);
    if (parse_u64(word[1], 1, DEVICE_MAX, "size", &size, err) < 0)
        return -1;
    struct device *d = &p->devices[p->n_devices];
    *d = (struct device){.size = size};
    (void)snprintf(d->name, sizeof(d->name), "%s", word[0]);
    if (bitmap_init(&d->moved, (size + PAGE - 1) / PAGE, err) < 0)
        return -1;
    p->n_devices++;
    return 0;
}

static int take_mark(struct plot *p, uint64_t us, int kind, char *const *word, struct error *err)
{
    const struct device *d = find(p, word[0]);
    struct mark m = {.us = us, .kind = (uint8_t)kind};

    if (!d)
        return error_set(err, EBADMSG, "a device that was not said before");
    if (parse_u64(word[1], 0, d->size - 1, "offset", &m.offset, err) < 0 ||
        parse_u64(word[2], 1, DEVICE_MAX, "length", &m.length, err) < 0)
        return -1;
    if (m.length > d->size - m.offset) /* what is asked for may be a whole block at the end */
        m.length = d->size - m.offset;
    m.device = (uint16_t)(d - p->devices);
    if (p->n_marks == p->room) {
        size_t room = p->room ? 2 * p->room : 4096;
        struct mark *grown = room > MARKS_MAX ? NULL : reallocarray(p->marks, room, sizeof(m));
        if (!grown)
            return error_oom(err);
        p->marks = grown;
        p->room = room;
    }
    p->marks[p->n_marks++] = m;
    p->bytes[kind] += m.length;
    return 0;
}

static int kind_of(const char *word)
{
    static const char *const words[] = {"implied", "dirtied", "sent", "received", "wanted"};
    static const int kinds[] = {IMPLIED, DIRTIED, MOVED, MOVED, WANTED};

    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        if (strcmp(word, words[i]) == 0)
            return kinds[i];
    return -1;
}

/* One line, cut into words. Returns 1 when another migration begins, which is not taken. */
static int take_line(struct plot *p, char *const *word, size_t n, struct error *err)
{
    uint64_t us;

    if (n < 3 || parse_u64(word[0], 0, UINT64_MAX / 2, "time", &us, err) < 0)
        return n < 3 ? error_set(err, EBADMSG, "is not a line of a trace") : -1;
    if (strcmp(word[1], "begin") == 0) {
        if (p->side[0])
            return 1;
        (void)snprintf(p->side, sizeof(p->side), "%s",
                       strcmp(word[2], "target") == 0 ? "target" : "source");
        p->begin_us = p->end_us = us;
        return 0;
    }
    if (!p->side[0])
        return error_set(err, EBADMSG, "before the first migration begins");
    if (us > p->end_us)
        p->end_us = us;
    if (us < p->begin_us)
        us = p->begin_us;
    int kind = kind_of(word[1]);
    if (kind >= 0)
        return n == 5
                   ? take_mark(p, us, kind, word + 2, err)
                   : error_set(err, EBADMSG, "%s: needs a device, an offset and a length", word[1]);
    if (strcmp(word[1], "device") == 0 && n == 4)
        return take_device(p, word + 2, err);
    if (strcmp(word[1], "stage") == 0 && p->n_stages < STAGES) {
        struct stage *s = &p->stages[p->n_stages++];
        s->us = us;
        (void)snprintf(s->name, sizeof(s->name), "%.15s", word[2]);
        s->name[strspn(s->name, "abcdefghijklmnopqrstuvwxyz")] = '\0';
    } else if (strcmp(word[1], "end") == 0) {
        (void)snprintf(p->outcome, sizeof(p->outcome), "%.15s", word[2]);
        p->outcome[strspn(p->outcome, "abcdefghijklmnopqrstuvwxyz-")] = '\0';
    }
    return 0; /* words that later versions know */
}

static size_t split(char *line, char *word[], size_t max)
{
    size_t n = 0;
    char *save = NULL;

    line[strcspn(line, "\n")] = '\0';
    for (char *w = strtok_r(line, " ", &save); w && n < max; w = strtok_r(NULL, " ", &save))
        word[n++] = w;
    return n;
}

/* Reads on to the end of the migration that is wanted. number 0: the last with marks. */
static int read_trace(FILE *f, const char *path, uint64_t number, struct plot *p, struct error *err)
{
    cleanup_free char *line = NULL;
    cleanup_free struct plot *next = calloc(1, sizeof(*next));
    size_t room = 0;
    uint64_t at = 0, now = 1;
    int rc = 0;

    if (!next)
        return error_oom(err);
    while (rc == 0 && getline(&line, &room, f) > 0) {
        char *word[6];
        if (++at == 1) {
            if (strcmp(line, "drafter-trace 1\n") != 0)
                return error_set(err, EBADMSG, "%s: is no trace of version 1", path);
            continue;
        }
        size_t n = split(line, word, ARRAY_SIZE(word));
        rc = take_line(next, word, n, err);
        if (rc == 1 && now == number)
            break;
        if (rc == 1) {
            if (number == 0 && next->n_marks) {
                plot_clear(p);
                *p = *next;
                memset(next, 0, sizeof(*next));
            }
            plot_clear(next);
            now++;
            rc = take_line(next, word, n, err);
        }
    }
    if (rc < 0) {
        plot_clear(next);
        return error_wrap(err, "%s: line %" PRIu64, path, at);
    }
    if (number ? now == number : next->n_marks > 0 || !p->n_marks) {
        plot_clear(p);
        *p = *next;
    } else {
        plot_clear(next);
    }
    if (ferror(f))
        return error_sys(err, "%s: read", path);
    if (!p->n_marks)
        return error_set(err, EBADMSG, "%s: holds no migration%s in which anything moved", path,
                         number ? " of that number" : "");
    return 0;
}

/* ---- drawing ---- */

static void place(struct plot *p)
{
    uint64_t total = 0;
    unsigned y = TOP;

    for (size_t i = 0; i < p->n_devices; i++)
        total += p->devices[i].size;
    for (size_t i = 0; i < p->n_devices; i++) {
        struct device *d = &p->devices[i];
        d->rows = (unsigned)((__uint128_t)d->size * ROWS_ALL / total);
        d->rows = d->rows < ROWS_MIN ? ROWS_MIN : d->rows;
        d->y = y;
        y += d->rows * CELL + GAP;
    }
}

static unsigned column(const struct plot *p, uint64_t us)
{
    uint64_t span = p->end_us - p->begin_us + 1;

    return (unsigned)((__uint128_t)(us - p->begin_us) * COLUMNS / span);
}

static void fill(struct plot *p, struct device *d, const struct mark *m, int kind)
{
    unsigned first = (unsigned)((__uint128_t)m->offset * d->rows / d->size);
    unsigned last = (unsigned)((__uint128_t)(m->offset + m->length - 1) * d->rows / d->size);
    unsigned c = column(p, m->us);

    for (unsigned r = first; r <= last; r++)
        p->cells[(size_t)c * d->rows + r] |= (uint8_t)(1u << kind);
}

/* What moves a second time is told by the pages that moved before. */
static void collect(struct plot *p, size_t i)
{
    struct device *d = &p->devices[i];

    for (size_t k = 0; k < p->n_marks; k++) {
        const struct mark *m = &p->marks[k];
        int kind = m->kind;
        if (m->device != i)
            continue;
        if (kind == MOVED || kind == IMPLIED) {
            uint64_t first = m->offset / PAGE, last = (m->offset + m->length - 1) / PAGE;
            if (kind == MOVED && bitmap_next_set(&d->moved, first) <= last &&
                bitmap_next_set(&d->moved, first) < d->moved.size) {
                kind = AGAIN;
                p->bytes[AGAIN] += m->length;
            }
            bitmap_set_range(&d->moved, first, last - first + 1);
        }
        fill(p, d, m, kind);
    }
}

static int top_bit(uint8_t bits)
{
    int k = KINDS - 1;

    while (k >= 0 && !(bits & (1u << k)))
        k--;
    return k;
}

/* Cells of one column that look the same become one rectangle. */
static void draw_cells(const struct plot *p, const struct device *d, FILE *out)
{
    for (int kind = 0; kind < KINDS; kind++) {
        (void)fprintf(out, "<path fill=\"%s\" d=\"", looks[kind].color);
        for (unsigned c = 0; c < COLUMNS; c++) {
            const uint8_t *col = p->cells + (size_t)c * d->rows;
            for (unsigned r = 0, n; r < d->rows; r += n) {
                n = 1;
                if (top_bit(col[r]) != kind)
                    continue;
                while (r + n < d->rows && top_bit(col[r + n]) == kind)
                    n++;
                (void)fprintf(out, "M%u %uh%dv%uh-%dz", LEFT + c * CELL, d->y + r * CELL, CELL,
                              n * CELL, CELL);
            }
        }
        (void)fprintf(out, "\"/>\n");
    }
}

static void text(FILE *out, unsigned x, unsigned y, const char *more, const char *s)
{
    (void)fprintf(out, "<text x=\"%u\" y=\"%u\"%s>%s</text>\n", x, y, more, s);
}

/* From the machine's suspension to its running on the other side. */
static bool pause_of(const struct plot *p, uint64_t *ret_from, uint64_t *ret_to)
{
    bool found = false;

    *ret_to = p->end_us;
    for (size_t i = 0; i < p->n_stages; i++) {
        if (strcmp(p->stages[i].name, "suspend") == 0) {
            *ret_from = p->stages[i].us;
            found = true;
        } else if (found && (strcmp(p->stages[i].name, "drain") == 0 ||
                             strcmp(p->stages[i].name, "finished") == 0)) {
            *ret_to = p->stages[i].us;
            return true;
        }
    }
    return found;
}

static void draw_time(const struct plot *p, unsigned bottom, FILE *out)
{
    const uint64_t span = p->end_us - p->begin_us + 1;
    uint64_t step = 1, from = 0, to = 0;
    unsigned free_at = 0;
    char buf[64];

    if (pause_of(p, &from, &to)) {
        unsigned x = LEFT + column(p, from) * CELL, x2 = LEFT + column(p, to) * CELL + CELL;
        (void)fprintf(out,
                      "<rect x=\"%u\" y=\"%d\" width=\"%u\" height=\"%u\" fill=\"#d1373c\" "
                      "fill-opacity=\"0.15\" stroke=\"#d1373c\" stroke-width=\"0.5\"/>\n",
                      x, TOP - 6, x2 - x, bottom - TOP + 6);
        (void)snprintf(buf, sizeof(buf), "stands still %.1f ms", (double)(to - from) / 1000);
        text(out, x2 > LEFT + COLUMNS * CELL / 2 ? x - 3 : x2 + 3, bottom - 2,
             x2 > LEFT + COLUMNS * CELL / 2 ? " fill=\"#d1373c\" text-anchor=\"end\""
                                            : " fill=\"#d1373c\"",
             buf);
    }
    for (size_t i = 0; i < p->n_stages; i++) {
        unsigned x = LEFT + column(p, p->stages[i].us) * CELL;
        (void)fprintf(out,
                      "<path stroke=\"#57606a\" stroke-width=\"0.5\" stroke-dasharray=\"2 2\" "
                      "d=\"M%u %dV%u\"/>\n",
                      x, TOP - 6, bottom);
        if (x < free_at)
            continue; /* short stages: the line tells where */
        text(out, x + 2, TOP - 10, "", p->stages[i].name);
        free_at = x + 8 * (unsigned)strlen(p->stages[i].name);
    }
    while (span / step > 8)
        step *= span / step > 40 ? 10 : span / step > 16 ? 5 : 2;
    for (uint64_t us = 0; us < span; us += step) {
        unsigned x = LEFT + column(p, p->begin_us + us) * CELL;
        (void)fprintf(out, "<path stroke=\"#57606a\" d=\"M%u %uv5\"/>\n", x, bottom);
        if (step >= 1000000)
            (void)snprintf(buf, sizeof(buf), "%" PRIu64 " s", us / 1000000);
        else
            (void)snprintf(buf, sizeof(buf), "%g ms", (double)us / 1000);
        text(out, x, bottom + 18, " text-anchor=\"middle\"", buf);
    }
}

static void draw_legend(const struct plot *p, FILE *out)
{
    char buf[160];
    unsigned x = LEFT;

    (void)snprintf(buf, sizeof(buf), "%s, %.1f ms%s%s", p->side,
                   (double)(p->end_us - p->begin_us) / 1000, p->outcome[0] ? ", " : "", p->outcome);
    text(out, LEFT, 20, " font-size=\"15\" font-weight=\"bold\"", buf);
    for (int kind = KINDS - 1; kind >= 0; kind--) {
        const char *what =
            kind == MOVED && strcmp(p->side, "target") == 0 ? "received" : looks[kind].text;
        if (kind == AGAIN && strcmp(p->side, "target") == 0)
            what = "received again";
        (void)snprintf(buf, sizeof(buf), "%s %.1f MiB", what, (double)p->bytes[kind] / (1 << 20));
        (void)fprintf(out, "<rect x=\"%u\" y=\"34\" width=\"10\" height=\"10\" fill=\"%s\"/>\n", x,
                      looks[kind].color);
        text(out, x + 14, 43, "", buf);
        x += 30 + 7 * (unsigned)strlen(buf);
    }
}

static int draw(struct plot *p, FILE *out, struct error *err)
{
    unsigned bottom;
    char buf[64];

    place(p);
    const struct device *last = &p->devices[p->n_devices - 1];
    bottom = last->y + last->rows * CELL + 6;
    (void)fprintf(out,
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%u\" "
                  "font-family=\"sans-serif\" font-size=\"12\">\n"
                  "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
                  LEFT + COLUMNS * CELL + 40, bottom + 30);
    for (size_t i = 0; i < p->n_devices; i++) {
        struct device *d = &p->devices[i];
        free(p->cells);
        p->cells = calloc(COLUMNS, d->rows);
        if (!p->cells)
            return error_oom(err);
        collect(p, i);
        (void)fprintf(out,
                      "<rect x=\"%d\" y=\"%u\" width=\"%d\" height=\"%u\" fill=\"#f6f8fa\" "
                      "stroke=\"#afb8c1\" stroke-width=\"0.5\"/>\n",
                      LEFT, d->y, COLUMNS * CELL, d->rows * CELL);
        draw_cells(p, d, out);
        text(out, LEFT - 8, d->y + 12, " text-anchor=\"end\" font-weight=\"bold\"", d->name);
        (void)snprintf(buf, sizeof(buf), "%.1f MiB", (double)d->size / (1 << 20));
        text(out, LEFT - 8, d->y + 26, " text-anchor=\"end\" fill=\"#57606a\"", buf);
    }
    p->bytes[MOVED] -= p->bytes[AGAIN];
    draw_legend(p, out);
    draw_time(p, bottom, out);
    (void)fprintf(out, "</svg>\n");
    return 0;
}

static int write_picture(struct plot *p, const char *path, struct error *err)
{
    cleanup_output struct output *file = path ? output_begin(path, OUTPUT_FILE, 0644, err) : NULL;
    FILE *out = path ? NULL : stdout;

    if (path && !file)
        return -1;
    if (path && !(out = fdopen(dup(output_fd(file)), "w")))
        return error_sys(err, "%s", path);
    int rc = draw(p, out, err);
    bool failed = fflush(out) != 0 || ferror(out);
    if (path)
        (void)fclose(out);
    if (rc == 0 && failed)
        return error_sys(err, "%s: write", path ? path : "standard output");
    return rc < 0 || !path ? rc : output_commit(&file, false, err);
}

static int run(const void *opts, int argc, char **argv, const struct context *ctx,
               struct error *err)
{
    const struct opts *o = opts;
    cleanup_free struct plot *p = calloc(1, sizeof(*p));
    FILE *f = fopen(argv[0], "re");

    (void)argc;
    (void)ctx;
    if (!f)
        return error_sys(err, "%s", argv[0]);
    int rc = p ? read_trace(f, argv[0], o->number, p, err) : error_oom(err);
    (void)fclose(f);
    if (rc == 0)
        rc = write_picture(p, o->output, err);
    if (p)
        plot_clear(p);
    return rc;
}

int main(int argc, char **argv)
{
    static const struct command cmd = {
        .name = "plot-migration",
        .summary = "draw the trace of a migration as SVG",
        .operands = "TRACE",
        .min_operands = 1,
        .max_operands = 1,
        .options = options,
        .n_options = ARRAY_SIZE(options),
        .options_size = sizeof(struct opts),
        .run = run,
    };

    return command_main(&cmd, argc, argv);
}
