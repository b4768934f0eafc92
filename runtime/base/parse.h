/* SPDX-License-Identifier: Apache-2.0 */
/* parse.h - text and bytes from outside into checked values
 *
 * Every function follows one contract: success stores the value (and advances the cursor), failure
 * changes nothing.
 */
#ifndef RUNTIME_BASE_PARSE_H
#define RUNTIME_BASE_PARSE_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/base/error.h"

/* Whole-string parsers. `what` names the value in the error ("--memory-size").
 * Numbers: decimal, or 0x/0o/0b, with '_' between digits, as Go's flag package reads them. */
int parse_u64(const char *text, uint64_t min, uint64_t max, const char *what, uint64_t *ret_value,
              struct error *err);
int parse_i64(const char *text, int64_t min, int64_t max, const char *what, int64_t *ret_value,
              struct error *err);

/* "4096", "64K", "256M", "1G", "2T" (1024 based; also "KiB" and so on) to bytes. */
int parse_size(const char *text, uint64_t max, const char *what, uint64_t *ret_bytes,
               struct error *err);

/* "1m30s", "500ms", "1.5h", "0" to nanoseconds; a unit (ns us ms s m h) is required but for 0. */
int parse_duration(const char *text, const char *what, uint64_t *ret_ns, struct error *err);

/* "true false 1 0 t f T F TRUE FALSE True False". */
int parse_bool(const char *text, const char *what, int *ret_value, struct error *err);

/* 2 n lower-case or upper-case hex digits to n bytes. Returns 0, or -1 without an error text. */
int parse_hex(const char *hex, size_t hex_len, uint8_t *ret_bytes, size_t n);

/* A cursor over bytes from outside: get functions fail (-1, cursor unmoved) when too few are left.
 * Integers little-endian. */
struct cursor {
    const uint8_t *p;
    size_t left;
};

int cursor_u8(struct cursor *c, uint8_t *ret);
int cursor_u16(struct cursor *c, uint16_t *ret);
int cursor_u32(struct cursor *c, uint32_t *ret);
int cursor_u64(struct cursor *c, uint64_t *ret);
/* *ret points into the cursor's bytes. */
int cursor_bytes(struct cursor *c, size_t n, const uint8_t **ret);

#endif
