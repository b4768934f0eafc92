/* SPDX-License-Identifier: Apache-2.0 */
/* bytes.h - fixed-width integers in a byte order, for disk and wire formats
 *
 * Every format of this project and every one it reads says its byte order; these helpers are the
 * only place where a byte order is turned into a number. Pointers need no alignment.
 */
#ifndef RUNTIME_BASE_BYTES_H
#define RUNTIME_BASE_BYTES_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define BYTES_ACCESSOR(bits, order)                                                                \
    static inline uint##bits##_t get_##order##bits(const void *p)                                  \
    {                                                                                              \
        uint##bits##_t v;                                                                          \
        memcpy(&v, p, sizeof(v));                                                                  \
        return order##bits##toh(v);                                                                \
    }                                                                                              \
    static inline void put_##order##bits(void *p, uint##bits##_t n)                                \
    {                                                                                              \
        uint##bits##_t v = hto##order##bits(n);                                                    \
        memcpy(p, &v, sizeof(v));                                                                  \
    }

BYTES_ACCESSOR(16, le)
BYTES_ACCESSOR(32, le)
BYTES_ACCESSOR(64, le)
BYTES_ACCESSOR(16, be)
BYTES_ACCESSOR(32, be)
BYTES_ACCESSOR(64, be)

#undef BYTES_ACCESSOR

#endif
