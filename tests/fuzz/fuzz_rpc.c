// SPDX-License-Identifier: Apache-2.0
/* fuzz_rpc.c - the agent's messages: any bytes in any cut, and what was read must survive being
 * written */
#include <stdlib.h>
#include <string.h>

#include "runtime/wire/rpc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct rpc_message *m)
{
    static char buf[RPC_MESSAGE_MAX];
    struct rpc_message again;
    ssize_t n;

    if (m->kind == RPC_REQUEST)
        n = rpc_encode_request(buf, sizeof(buf), m->call, m->function,
                               m->has_resume ? &m->resume : NULL);
    else
        n = rpc_encode_response(buf, sizeof(buf), m->call, m->error);
    if (n < 0 || rpc_decode(buf, (size_t)n, &again, NULL) < 0 || again.kind != m->kind)
        abort();
    if (strcmp(again.call, m->call) != 0 || strcmp(again.function, m->function) != 0 ||
        strcmp(again.error, m->error) != 0 || again.has_resume != m->has_resume ||
        memcmp(&again.resume, &m->resume, m->has_resume ? sizeof(m->resume) : 0) != 0)
        abort();
}

/* The first byte says in what pieces the rest arrives. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rpc_reader reader;
    struct rpc_message m;
    struct error err;

    if (size == 0)
        return 0;
    const size_t piece = data[0] + 1u;
    rpc_reader_init(&reader);
    for (size_t at = 1; at < size;) {
        size_t used, len = size - at < piece ? size - at : piece;
        int rc = rpc_reader_feed(&reader, data + at, len, &used, &m, &err);
        if (rc < 0)
            break;
        at += used;
        if (rc > 0)
            check(&m);
    }
    return 0;
}
