/* SPDX-License-Identifier: Apache-2.0 */
/* accounts.h - private to oci/bundle: who "redis:cache" is in an image */
#ifndef OCI_BUNDLE_ACCOUNTS_H
#define OCI_BUNDLE_ACCOUNTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "oci/tree/tree.h"
#include "runtime/base/error.h"

#define ACCOUNTS_GROUPS_MAX 65536 /* supplementary groups (NGROUPS_MAX of setgroups(2)) */

struct account {
    uint32_t uid, gid;
    char *home;     /* NULL when the user has no line in passwd */
    uint32_t *gids; /* supplementary groups in file order */
    size_t n_gids;
};

/* Resolves image-spec's Config.User ("", user, uid, user:group, uid:gid, ...). Numbers are taken
 * verbatim, names looked up in the tree's /etc/passwd and /etc/group. An unknown name is an error.
 * The caller owns the result: account_destroy(). Returns 0. */
int account_resolve(const struct tree *tree, const char *user, struct account *ret,
                    struct error *err);

/* The same with the files' texts given (either may be NULL: no such file). For tests and fuzzing.
 */
int account_resolve_text(const char *passwd, const char *group, const char *user,
                         struct account *ret, struct error *err);

void account_destroy(struct account *account);

#endif
