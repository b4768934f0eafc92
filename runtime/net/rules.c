// SPDX-License-Identifier: Apache-2.0
/* rules.c - nftables through libnftables (libnftables(3)): one text is one transaction */
#include "runtime/net/rules.h"

#include <nftables/libnftables.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct rules {
    struct nft_ctx *nft;
};

struct rules *rules_open(struct error *err)
{
    cleanup_free struct rules *r = calloc(1, sizeof(*r));

    if (!r) {
        error_oom(err);
        return NULL;
    }
    r->nft = nft_ctx_new(NFT_CTX_DEFAULT);
    if (!r->nft) {
        error_set(err, EIO, "open nftables");
        return NULL;
    }
    /* Numbers instead of names: no look-up in /etc/services. */
    nft_ctx_output_set_flags(r->nft, NFT_CTX_OUTPUT_NUMERIC_ALL | NFT_CTX_OUTPUT_TERSE);
    if (nft_ctx_buffer_output(r->nft) != 0 || nft_ctx_buffer_error(r->nft) != 0) {
        nft_ctx_free(r->nft);
        error_oom(err);
        return NULL;
    }
    return steal_ptr(&r);
}

void rules_close(struct rules *r)
{
    if (!r)
        return;
    nft_ctx_free(r->nft);
    free(r);
}

int rules_run(struct rules *r, const char *text, const char *what, struct error *err)
{
    if (nft_run_cmd_from_buffer(r->nft, text) == 0)
        return 0;
    const int saved = errno;
    const char *why = nft_ctx_get_error_buffer(r->nft);
    const size_t line = strcspn(why, "\n");
    return error_set(err, saved ? saved : EIO, "set the rules of %s: nftables: %.*s", what,
                     (int)(line < 300 ? line : 300), why);
}

/* The word behind `key` in a line, up to a blank or ';'. */
static bool word_after(const char *line, const char *key, char *buf, size_t size)
{
    const char *at = strstr(line, key);

    if (!at)
        return false;
    at += strlen(key);
    (void)snprintf(buf, size, "%.*s", (int)strcspn(at, " ;\t\n"), at);
    return true;
}

void rules_warn_of_drops(struct rules *r, const struct log *log)
{
    char table[64] = "", chain[64] = "";

    if (nft_run_cmd_from_buffer(r->nft, "list chains") != 0)
        return; /* only a help */
    cleanup_free char *text = strdup(nft_ctx_get_output_buffer(r->nft));
    if (!text)
        return;
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        if (strncmp(line, "table ", 6) == 0) {
            char *name = strrchr(line, ' ');
            if (name && strcmp(name, " {") == 0)
                *name = '\0';
            (void)snprintf(table, sizeof(table), "%s", line + 6);
        } else if (!word_after(line, "chain ", chain, sizeof(chain)) &&
                   strstr(line, "hook forward") && strstr(line, "policy drop") &&
                   !strstr(table, " drafter_")) {
            log_warn(log,
                     "another table drops forwarded packets unless it accepts them itself; let it "
                     "accept ours",
                     log_str("table", table), log_str("chain", chain));
        }
    }
}
