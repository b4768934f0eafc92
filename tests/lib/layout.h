/* SPDX-License-Identifier: Apache-2.0 */
/* layout.h - small OCI layouts for tests */
#ifndef TESTS_LIB_LAYOUT_H
#define TESTS_LIB_LAYOUT_H

#include <stddef.h>

/* Makes folder `dir` anew with blobs/sha256 and an oci-layout file. */
void layout_make(const char *dir);
/* Writes a blob; returns its digest "sha256:HEX" in memory that lives until the program ends. */
const char *layout_blob(const char *dir, const void *data, size_t len);
/* Writes `text` as file `name` below dir. */
void layout_file(const char *dir, const char *name, const char *text);
/* printf into memory that lives until the program ends. */
char *layout_text(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* A descriptor of blob `text`, which is written too:
 * {"mediaType":TYPE,"digest":...,"size":...EXTRA}. extra: more members with a leading comma, or "".
 */
char *layout_put(const char *dir, const char *type, const char *text, const char *extra);

#define OCI_INDEX "application/vnd.oci.image.index.v1+json"
#define OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define OCI_CONFIG "application/vnd.oci.image.config.v1+json"
#define OCI_LAYER "application/vnd.oci.image.layer.v1.tar"

/* Writes an image without layers whose config document is `config`; returns its descriptor. */
char *layout_image(const char *dir, const char *config, const char *extra);
/* index.json with the given entries, separated by commas. */
void layout_index(const char *dir, const char *entries);

#endif
