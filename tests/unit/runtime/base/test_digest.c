// SPDX-License-Identifier: Apache-2.0
/* test_digest.c - SHA-256 in pieces, at once, and of files (vectors: FIPS 180-4 examples) */
#include "runtime/base/digest.h"

#include <fcntl.h>
#include <string.h>

#include "tests/lib/unit.h"

#define ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

UNIT_TEST(known_answers)
{
    uint8_t sum[SHA256_SIZE];
    char hex[SHA256_HEX_SIZE];
    struct error err = ERROR_INIT;

    ck_assert_int_eq(digest_of("abc", 3, sum, &err), 0);
    digest_hex(sum, hex);
    ck_assert_str_eq(hex, ABC);
    cleanup_digest struct digest *d = digest_new(&err);
    for (int round = 0; round < 2; round++) { /* it starts anew after an end */
        ck_assert_int_eq(digest_update(d, "a", 1, &err), 0);
        ck_assert_int_eq(digest_update(d, "", 0, &err), 0);
        ck_assert_int_eq(digest_update(d, "bc", 2, &err), 0);
        ck_assert_int_eq(digest_final(d, sum, &err), 0);
        digest_hex(sum, hex);
        ck_assert_str_eq(hex, ABC);
    }
    ck_assert_int_eq(digest_final(d, sum, &err), 0);
    digest_hex(sum, hex);
    ck_assert_str_eq(hex, EMPTY);
}
END_TEST

UNIT_TEST(files)
{
    uint8_t sum[SHA256_SIZE];
    char hex[SHA256_HEX_SIZE];
    uint64_t size = 0;
    cleanup_close int fd = open("f", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    ck_assert_int_eq(write(fd, "abc", 3), 3);
    ck_assert_int_eq(digest_of_fd(fd, "f", sum, &size, NULL), 0);
    digest_hex(sum, hex);
    ck_assert_str_eq(hex, ABC);
    ck_assert_uint_eq(size, 3);
    ck_assert_int_eq(lseek(fd, 0, SEEK_CUR), 3);
}
END_TEST
