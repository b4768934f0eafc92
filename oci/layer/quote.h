/* SPDX-License-Identifier: Apache-2.0 */
/* quote.h - names from an image, fit for an error text; inside of oci/layer */
#ifndef OCI_LAYER_QUOTE_H
#define OCI_LAYER_QUOTE_H

#include <stddef.h>
#include <stdio.h>

#define QUOTE_SIZE 400

/* Control characters, quotes, backslashes and bytes over 0x7e become \xNN; a long name loses its
 * middle. Returns buf. */
static inline const char *quote_name(const char *name, size_t len, char buf[QUOTE_SIZE])
{
    const size_t half = (QUOTE_SIZE - 8) / 2;
    size_t at = 0, start = 0;

    if (len > half / 4 * 2) {
        /* Both ends, so that the text fits even when every byte needs four. */
        size_t shown = half / 4;
        for (size_t i = 0; i < shown; i++)
            at += (size_t)snprintf(
                buf + at, QUOTE_SIZE - at,
                name[i] >= 0x20 && name[i] < 0x7f && name[i] != '"' && name[i] != '\\' ? "%c"
                                                                                       : "\\x%02x",
                (unsigned char)name[i]);
        at += (size_t)snprintf(buf + at, QUOTE_SIZE - at, "...");
        start = len - shown;
    }
    for (size_t i = start; i < len; i++)
        at += (size_t)snprintf(
            buf + at, QUOTE_SIZE - at,
            name[i] >= 0x20 && name[i] < 0x7f && name[i] != '"' && name[i] != '\\' ? "%c"
                                                                                   : "\\x%02x",
            (unsigned char)name[i]);
    buf[at] = '\0';
    return buf;
}

#endif
