// SPDX-License-Identifier: Apache-2.0
/* fuzz_image.c - index, manifest and image config from a stranger
 *
 * The input is three texts with a byte 0xff between: index.json, a second document that it leads to
 * by
 * "@1" (a manifest or a nested index), and a third that the second leads to by "@2" (an image
 * config or a manifest). "@1" and "@2" stand for the digest and size members of the document, which
 * no fuzzer could guess.
 */
#undef NDEBUG
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "oci/image/image.h"
#include "runtime/base/io.h"
#include "runtime/base/json.h"
#include "runtime/base/output.h"

#define TEXT_MAX (64u << 10)

static char folder[64];

static void remove_folder(void)
{
    (void)output_remove_tree(AT_FDCWD, folder, NULL);
}

static void write_file(const char *name, const char *text, size_t len)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert(fd >= 0 && io_write(fd, text, len, path, NULL) == 0);
    (void)close(fd);
}

/* Copies text into out with `mark` replaced by members that lead to document `doc`. */
static size_t fill_in(const char *text, size_t len, const char *mark, const char *doc,
                      size_t doc_len, char *out)
{
    uint8_t sum[SHA256_SIZE];
    char hex[SHA256_HEX_SIZE], members[160];
    size_t n = 0;

    assert(digest_of(doc, doc_len, sum, NULL) == 0);
    digest_hex(sum, hex);
    int m =
        snprintf(members, sizeof(members), "\"digest\":\"sha256:%s\",\"size\":%zu", hex, doc_len);
    for (size_t i = 0; i < len && n + sizeof(members) < TEXT_MAX;) {
        if (i + 2 <= len && memcmp(text + i, mark, 2) == 0) {
            memcpy(out + n, members, (size_t)m);
            n += (size_t)m;
            i += 2;
        } else {
            out[n++] = text[i++];
        }
    }
    return n;
}

static void blob_path(const char *doc, size_t len, char path[96])
{
    uint8_t sum[SHA256_SIZE];
    char hex[SHA256_HEX_SIZE];

    assert(digest_of(doc, len, sum, NULL) == 0);
    digest_hex(sum, hex);
    (void)snprintf(path, 96, "blobs/sha256/%s", hex);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    char path[128];

    (void)argc;
    (void)argv;
    (void)snprintf(folder, sizeof(folder), "%s/fuzz_image.XXXXXX",
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : ".");
    assert(mkdtemp(folder));
    (void)atexit(remove_folder);
    (void)snprintf(path, sizeof(path), "%s/blobs", folder);
    assert(mkdir(path, 0700) == 0);
    (void)snprintf(path, sizeof(path), "%s/blobs/sha256", folder);
    assert(mkdir(path, 0700) == 0);
    static const char version[] = "{\"imageLayoutVersion\":\"1.0.0\"}";
    write_file("oci-layout", version, strlen(version));
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char index[TEXT_MAX], second[TEXT_MAX];
    const char *part[3] = {"", "", ""}, *p = (const char *)data, *end = p + size;
    size_t len[3] = {0};
    char path[2][96], full[2][192];

    for (int i = 0; i < 3 && p <= end && size; i++) {
        const char *cut = i < 2 ? memchr(p, 0xff, (size_t)(end - p)) : NULL;
        part[i] = p;
        len[i] = (size_t)((cut ? cut : end) - p);
        p += len[i] + 1;
    }
    size_t n_second = fill_in(part[1], len[1], "@2", part[2], len[2], second);
    size_t n_index = fill_in(part[0], len[0], "@1", second, n_second, index);
    blob_path(part[2], len[2], path[0]);
    blob_path(second, n_second, path[1]);
    write_file(path[0], part[2], len[2]);
    write_file(path[1], second, n_second);
    write_file("index.json", index, n_index);

    struct error err = ERROR_INIT;
    struct image *image = image_open(folder, NULL, "amd64", &err);
    if (image) {
        assert(json_object_is_type(image_config(image), json_type_object));
        for (size_t i = 0; i < image_layer_count(image); i++)
            assert(image_layer(image, i)->blob.size <= IMAGE_LAYER_SIZE_MAX);
    } else {
        assert(err.code != 0 && err.text[0]);
    }
    image_close(image);
    for (int i = 0; i < 2; i++) {
        (void)snprintf(full[i], sizeof(full[i]), "%s/%s", folder, path[i]);
        (void)unlink(full[i]);
    }
    return 0;
}
