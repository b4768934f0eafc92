/* SPDX-License-Identifier: Apache-2.0 */
/* stack.h - for tests of block stacks */
#ifndef TESTS_LIB_STACK_H
#define TESTS_LIB_STACK_H

#include <string.h>

#include "runtime/block/block.h"
#include "tests/lib/unit.h"

/* Passes when the call returns >= 0; prints the error's text otherwise. Wants `struct error err`.
 */
#define OK(expr)                                                                                   \
    do {                                                                                           \
        if ((expr) < 0)                                                                            \
            ck_abort_msg("%s: %s", #expr, err.text);                                               \
    } while (0)

/* Passes when the call fails with a text that contains `part`. */
#define FAILS(expr, part)                                                                          \
    do {                                                                                           \
        err.text[0] = '\0';                                                                        \
        ck_assert_msg((expr) < 0, "%s: did not fail", #expr);                                      \
        ck_assert_msg(strstr(err.text, part), "\"%s\" is not in: %s", part, err.text);             \
    } while (0)

static inline struct block *open_stack(const char *text)
{
    struct error err = ERROR_INIT;
    struct block *b = block_open(text, strlen(text), "test", NULL, &err);

    if (!b)
        ck_abort_msg("%s: %s", text, err.text);
    return b;
}

/* block_open() that must fail with a text that contains `part`. */
static inline void refuse_stack(const char *text, const char *part)
{
    struct error err = ERROR_INIT;
    struct block *b = block_open(text, strlen(text), "test", NULL, &err);

    ck_assert_msg(!b, "%s: was opened", text);
    ck_assert_msg(strstr(err.text, part), "%s: \"%s\" is not in: %s", text, part, err.text);
}

#endif
