// SPDX-License-Identifier: Apache-2.0
/* hazard.c - one image of a stranger, through the programs, with a victim beside it */
#include "tests/lib/hazard.h"

#include <dirent.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "runtime/base/digest.h"
#include "runtime/base/io.h"
#include "runtime/base/output.h"
#include "runtime/base/spawn.h"
#include "tests/lib/layout.h"
#include "tests/lib/unit.h"

struct error hazard_err;

/* -- the image --------------------------------------------------------------------------------- */

char *hazard_victim;

void hazard_put_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    ck_assert_ptr_nonnull(f);
    ck_assert_int_ge(fputs(text, f), 0);
    ck_assert_int_eq(fclose(f), 0);
}

/* Into an empty folder of this test's own, but for the victim. */
void hazard_enter(const char *test)
{
    char cwd[2048];

    ck_assert_int_eq(mkdir(test, 0755), 0);
    ck_assert_int_eq(chdir(test), 0);
    ck_assert_ptr_nonnull(getcwd(cwd, sizeof(cwd)));
    hazard_victim = layout_text("%s/victim", cwd);
    ck_assert_int_eq(mkdir("victim", 0755), 0);
    hazard_put_file("victim/passwd", "root:x:0:0:the host's:/root:\nhost:x:7:7::/:\n");
    ck_assert_int_eq(chmod("victim/passwd", 0600), 0);
}

static char *with_victim(const char *script)
{
    char *out = layout_text("%s", "");

    for (const char *at; (at = strstr(script, "VICTIM")); script = at + 6)
        out = layout_text("%s%.*s%s", out, (int)(at - script), script, hazard_victim);
    return layout_text("%s%s", out, script);
}

static struct tar_make gzipped(const struct tar_make *t)
{
    struct tar_make out = {0};
    uint8_t buf[65536];
    z_stream z = {.next_in = t->data, .avail_in = (uInt)t->len};

    ck_assert_int_eq(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    do {
        z.next_out = buf;
        z.avail_out = sizeof(buf);
        ck_assert_int_ge(deflate(&z, Z_FINISH), 0);
        tar_make_bytes(&out, buf, sizeof(buf) - z.avail_out);
    } while (z.avail_out == 0);
    deflateEnd(&z);
    return out;
}

void hazard_layout(const struct hazard *h)
{
    const char *layers = "", *ids = "", *next = with_victim(h->layers ?: "");

    layout_make("l");
    for (size_t i = 0; next; i++) {
        const char *end = strstr(next, " --");
        char *script = end ? layout_text("%.*s", (int)(end - next), next) : layout_text("%s", next);
        struct tar_make t = {0}, blob;
        uint8_t sum[SHA256_SIZE];
        char hex[SHA256_HEX_SIZE];
        next = end ? end + 3 : NULL;
        tar_make_script(&t, script);
        tar_make_end(&t);
        if (h->tar)
            h->tar(&t, i);
        ck_assert_int_eq(digest_of(t.data, t.len, sum, &hazard_err), 0);
        digest_hex(sum, hex);
        blob = h->gzip ? gzipped(&t) : t;
        layers = layout_text("%s%s{\"mediaType\":\"%s%s\",\"digest\":\"%s\",\"size\":%zu}", layers,
                             i ? "," : "", OCI_LAYER, h->gzip ? "+gzip" : "",
                             layout_blob("l", blob.data, blob.len), blob.len);
        ids = layout_text("%s%s\"sha256:%s\"", ids, i ? "," : "", hex);
        if (h->gzip)
            tar_make_free(&blob);
        tar_make_free(&t);
    }
    const char *config = layout_put("l", OCI_CONFIG,
                                    layout_text("{\"os\":\"linux\",\"architecture\":\"amd64\","
                                                "\"config\":%s,\"rootfs\":{\"type\":\"layers\","
                                                "\"diff_ids\":[%s]}}",
                                                h->config ?: "{}", ids),
                                    "");
    layout_index("l", layout_put("l", OCI_MANIFEST,
                                 layout_text("{\"schemaVersion\":2,\"mediaType\":\"" OCI_MANIFEST
                                             "\",\"config\":%s,\"layers\":[%s]}",
                                             config, layers),
                                 ""));
    if (h->layout)
        h->layout();
}

/* -- what stands there ------------------------------------------------------------------------- */

static void add(struct hazard_listing *l, const char *text)
{
    size_t at = strlen(l->text);

    ck_assert_uint_lt(at + strlen(text) + 1, sizeof(l->text));
    memcpy(l->text + at, text, strlen(text) + 1);
}

/* In the notation of test_merge.c: "a/ a/f=DATA l>TARGET p| second==first". */
static int not_dots(const struct dirent *e)
{
    return strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
}

void hazard_list(struct hazard_listing *l, const char *dir, const char *prefix)
{
    struct dirent **names;
    int n = scandir(dir, &names, not_dots, alphasort); /* no locale is set: by bytes */

    ck_assert_int_ge(n, 0);
    for (int i = 0; i < n; i++) {
        const char *name = names[i]->d_name;
        char target[4096];
        struct stat st;
        char *path = layout_text("%s/%s", dir, name), *shown = layout_text("%s%s", prefix, name);
        ck_assert_int_eq(lstat(path, &st), 0);
        add(l, *l->text ? " " : "");
        add(l, shown);
        size_t k = 0;
        while (k < l->n_seen && (l->seen[k].dev != st.st_dev || l->seen[k].ino != st.st_ino))
            k++;
        if (k < l->n_seen) {
            add(l, layout_text("==%s", l->seen[k].path));
        } else if (S_ISDIR(st.st_mode)) {
            add(l, "/");
            hazard_list(l, path, layout_text("%s/", shown));
        } else if (S_ISLNK(st.st_mode)) {
            ssize_t len = readlink(path, target, sizeof(target) - 1);
            ck_assert_int_ge(len, 0);
            add(l, layout_text(">%.*s", (int)len, target));
        } else if (S_ISFIFO(st.st_mode)) {
            add(l, "|");
        } else if (S_ISREG(st.st_mode)) {
            char *text = io_read_file(AT_FDCWD, path, 1 << 20, NULL, &hazard_err);
            ck_assert_msg(text != NULL, "%s", hazard_err.text);
            add(l, layout_text("=%s", text));
            free(text);
        }
        if (k == l->n_seen && !S_ISDIR(st.st_mode) && st.st_nlink > 1 && k < 64) {
            l->seen[k].dev = st.st_dev;
            l->seen[k].ino = st.st_ino;
            l->seen[l->n_seen++].path = shown;
        }
    }
    for (int i = 0; i < n; i++)
        free(names[i]);
    free(names);
}

/* The victim is as it was, and nothing but what is meant to stand here does. */
void hazard_check_around(const char *context, bool bundle, bool disk, bool packed)
{
    struct hazard_listing l = {0};
    struct stat st;
    DIR *d = opendir(".");

    hazard_list(&l, "victim", "");
    ck_assert_msg(strcmp(l.text, "passwd=root:x:0:0:the host's:/root:\nhost:x:7:7::/:\n") == 0,
                  "%s: the victim holds %s", context, l.text);
    ck_assert_int_eq(stat("victim/passwd", &st), 0);
    ck_assert_msg((st.st_mode & 07777) == 0600 && st.st_nlink == 1,
                  "%s: the victim's mode or links", context);
    for (const struct dirent *e; (e = readdir(d));) {
        const char *n = e->d_name;
        bool known = strcmp(n, ".") == 0 || strcmp(n, "..") == 0 || strcmp(n, "victim") == 0 ||
                     strcmp(n, "l") == 0 || strcmp(n, "stolen") == 0 ||
                     (bundle && strcmp(n, "bundle") == 0) || (disk && strcmp(n, "disk") == 0) ||
                     (packed && strcmp(n, "packed") == 0);
        ck_assert_msg(known, "%s: %s is left behind", context, n);
    }
    (void)closedir(d);
}

/* -- the programs ------------------------------------------------------------------------------ */

/* Runs tools/NAME with the arguments behind it; returns 0, or -1 with its stderr in err. */
int hazard_run(const char *name, const char *const *arguments)
{
    const char *argv[16] = {layout_text("%s/tools/%s", getenv("TEST_TOP"), name)};
    size_t n = 1;

    for (; *arguments; arguments++)
        if (**arguments)
            argv[n++] = *arguments;
    struct spawn_options opt = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    return spawn_run(&opt, NULL, 1 << 20, NULL, &hazard_err);
}

#define RUN(name, ...) hazard_run(name, (const char *const[]){__VA_ARGS__, NULL})

int hazard_unpack(const char *flag)
{
    return RUN("oci-unpack", "--image", "l", "--architecture", "amd64", "--output", "bundle",
               flag ?: "");
}

int hazard_build(const char *flag)
{
    return RUN("oci-build", "--image", "l", "--architecture", "amd64", "--output", "disk", "--free",
               "0", flag ?: "");
}

static void must_refuse(int rc, const char *program, const char *pattern)
{
    ck_assert_msg(rc < 0, "%s: took it", program);
    const char *text = strstr(hazard_err.text, layout_text("%s: image ", program));
    ck_assert_msg(strstr(hazard_err.text, "exit status 1") && text, "%s: %s", program,
                  hazard_err.text);
    const char *full = layout_text("%s: image l*%s*", program, pattern);
    ck_assert_msg(fnmatch(full, text, 0) == 0, "wanted %s, got %s", full, text);
    hazard_check_around(program, false, false, false);
}

void hazard_try(const char *test, const struct hazard *h)
{
    struct hazard_listing l = {0};

    hazard_enter(test);
    hazard_layout(h);
    if (h->want && h->want[0] == '!') {
        must_refuse(hazard_unpack(h->flag), "oci-unpack", h->want + 1);
        must_refuse(hazard_build(h->flag), "oci-build", h->want + 1);
        return;
    }
    ck_assert_msg(hazard_unpack(h->flag) == 0, "%s", hazard_err.text);
    hazard_check_around("oci-unpack", true, false, false);
    hazard_list(&l, "bundle/rootfs", "");
    ck_assert_msg(!h->want || strcmp(l.text, h->want) == 0, "got \"%s\", wanted \"%s\"", l.text,
                  h->want);
    ck_assert_msg(hazard_build(h->flag) == 0, "%s", hazard_err.text);
    ck_assert_msg(RUN("oci-pack", "--output", "packed", "--free", "0", "bundle") == 0, "%s",
                  hazard_err.text);
    hazard_check_around("oci-build and oci-pack", true, true, true);
    ck_assert_int_eq(system("cmp disk packed"), 0);
}
