// SPDX-License-Identifier: Apache-2.0
/* layout.c - small OCI layouts for tests */
#undef NDEBUG
#include "tests/lib/layout.h"

#include <assert.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/base/digest.h"
#include "runtime/base/output.h"

/* Texts live as long as the test: reachable from here, so that no leak checker minds. */
static char *texts[4096];
static size_t n_texts;

static char *keep(char *text)
{
    assert(text && n_texts < sizeof(texts) / sizeof(texts[0]));
    return texts[n_texts++] = text;
}

char *layout_text(const char *fmt, ...)
{
    char *text;
    va_list ap;

    va_start(ap, fmt);
    assert(vasprintf(&text, fmt, ap) >= 0);
    va_end(ap);
    return keep(text);
}

static void write_file(const char *path, const void *data, size_t len)
{
    FILE *f = fopen(path, "w");

    assert(f && fwrite(data, 1, len, f) == len);
    assert(fclose(f) == 0);
}

void layout_file(const char *dir, const char *name, const char *text)
{
    write_file(layout_text("%s/%s", dir, name), text, strlen(text));
}

void layout_make(const char *dir)
{
    assert(output_remove_tree(AT_FDCWD, dir, NULL) == 0);
    assert(mkdir(dir, 0755) == 0);
    (void)mkdir(layout_text("%s/blobs", dir), 0755);
    (void)mkdir(layout_text("%s/blobs/sha256", dir), 0755);
    layout_file(dir, "oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}");
}

const char *layout_blob(const char *dir, const void *data, size_t len)
{
    uint8_t sum[SHA256_SIZE];
    char hex[SHA256_HEX_SIZE];

    assert(digest_of(data, len, sum, NULL) == 0);
    digest_hex(sum, hex);
    write_file(layout_text("%s/blobs/sha256/%s", dir, hex), data, len);
    return layout_text("sha256:%s", hex);
}

char *layout_put(const char *dir, const char *type, const char *text, const char *extra)
{
    return layout_text("{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":%zu%s}", type,
                       layout_blob(dir, text, strlen(text)), strlen(text), extra);
}

char *layout_image(const char *dir, const char *config, const char *extra)
{
    const char *manifest = layout_text("{\"schemaVersion\":2,\"mediaType\":\"" OCI_MANIFEST
                                       "\",\"config\":%s,\"layers\":[]}",
                                       layout_put(dir, OCI_CONFIG, config, ""));
    return layout_put(dir, OCI_MANIFEST, manifest, extra);
}

void layout_index(const char *dir, const char *entries)
{
    layout_file(dir, "index.json",
                layout_text("{\"schemaVersion\":2,\"manifests\":[%s]}", entries));
}
