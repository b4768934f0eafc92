/* SPDX-License-Identifier: Apache-2.0 */
/* inflate.h - gzip, zstd and plain bytes behind one interface; inside of oci/layer */
#ifndef OCI_LAYER_INFLATE_H
#define OCI_LAYER_INFLATE_H

#include <stddef.h>
#include <stdint.h>

#include "oci/image/image.h"
#include "runtime/base/error.h"

struct inflate;

/* The caller owns the result: inflate_free(). NULL on failure. */
struct inflate *inflate_new(enum image_compression compression, struct error *err);
void inflate_free(struct inflate *z);

/* Takes input from *in, *in_len (both advanced) and adds output at out + *out_len (advanced, up to
 * out_size). Returns 0 once the input is used up or the output is full; when it is full there may
 * be more output without more input. Errors: EBADMSG. */
int inflate_run(struct inflate *z, const uint8_t **in, size_t *in_len, uint8_t *out,
                size_t out_size, size_t *out_len, struct error *err);

/* After the last input: EBADMSG when the stream is not complete. Returns 0. */
int inflate_end(struct inflate *z, struct error *err);

DEFINE_CLEANUP(cleanup_inflate_p, struct inflate *, inflate_free)
#define cleanup_inflate CLEANUP(cleanup_inflate_p)

#endif
