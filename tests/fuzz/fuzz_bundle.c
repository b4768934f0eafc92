// SPDX-License-Identifier: Apache-2.0
/* fuzz_bundle.c - passwd, group and configs from a stranger
 *
 * The input is four texts with a byte 0xff between: /etc/passwd, /etc/group, Config.User, and a
 * JSON document, which is taken for an image config and for a runtime config. An edit that succeeds
 * must change nothing the second time.
 */
#undef NDEBUG
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "oci/bundle/accounts.h"
#include "oci/bundle/bundle.h"
#include "runtime/base/json.h"

static void try_edit(struct json_object *doc)
{
    if (bundle_edit(doc, "guest", NULL) < 0)
        return;
    char *first = json_format(doc);
    assert(first && bundle_edit(doc, "guest", NULL) == 0);
    char *second = json_format(doc);
    assert(second && strcmp(first, second) == 0);
    free(first);
    free(second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), *part[4];
    struct account account;

    assert(text);
    if (size)
        memcpy(text, data, size);
    text[size] = '\0';
    char *p = text;
    for (int i = 0; i < 4; i++) {
        part[i] = p;
        char *cut = memchr(p, 0xff, (size_t)(text + size - p));
        if (cut) {
            *cut = '\0';
            p = cut + 1;
        } else {
            p = text + size;
        }
    }
    if (account_resolve_text(part[0], part[1], part[2], &account, NULL) == 0) {
        assert(account.uid != UINT32_MAX && account.gid != UINT32_MAX);
        assert(account.n_gids <= ACCOUNTS_GROUPS_MAX);
        account_destroy(&account);
    }
    struct json_object *doc = json_parse(part[3], strlen(part[3]), "input", NULL);
    struct tree *tree = tree_new(NULL);
    assert(tree);
    if (doc) {
        struct json_object *config = bundle_convert(doc, tree, NULL);
        if (config) {
            try_edit(config);
            (void)json_object_put(config);
        }
        if (json_object_is_type(doc, json_type_object))
            try_edit(doc);
        (void)json_object_put(doc);
    }
    tree_free(tree);
    free(text);
    return 0;
}
