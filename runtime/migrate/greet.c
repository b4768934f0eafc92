// SPDX-License-Identifier: Apache-2.0
/* greet.c - what a target says first, looked at before it is known whose it is */
#include <string.h>

#include "runtime/migrate/link.h"

#define LAST_WORDS_NS (2 * UINT64_C(1000000000))

int migrate_peek(struct stream *stream, const struct context *ctx,
                 uint8_t ret_session[WIRE_SESSION_SIZE], struct error *err)
{
    uint8_t buf[GREETING_SIZE];
    struct greeting theirs;

    if (stream_read(stream, buf, sizeof(buf), LINK_IDLE_DEFAULT_NS, ctx, err) < 0)
        return -1;
    if (greeting_decode(buf, &theirs, err) < 0)
        return error_wrap(err, "%s", stream_peer(stream));
    stream_unread(stream, buf, sizeof(buf));
    memcpy(ret_session, theirs.session, WIRE_SESSION_SIZE);
    return 0;
}

bool migrate_is_new(const uint8_t session[WIRE_SESSION_SIZE])
{
    static const uint8_t none[WIRE_SESSION_SIZE];

    return memcmp(session, none, sizeof(none)) == 0;
}

void migrate_turn_away(struct stream *stream, const uint8_t session[WIRE_SESSION_SIZE],
                       const char *reason, const struct context *ctx)
{
    struct greeting theirs, ours = {.version_min = WIRE_VERSION,
                                    .version_max = WIRE_VERSION,
                                    .role = WIRE_SOURCE,
                                    .features = WIRE_FEATURE_ZSTD | WIRE_FEATURE_POSTCOPY};
    CLEANUP(cleanup_link_p) struct link *link = link_new(stream, LAST_WORDS_NS, 0, ctx, NULL);
    struct frame f;
    const uint8_t *payload;

    if (session)
        memcpy(ours.session, session, sizeof(ours.session));
    if (!link)
        return;
    link_expire(link, LAST_WORDS_NS);
    if (link_greet(link, &ours, &theirs, NULL) < 0 || !session)
        return;
    link_send_abort(link, 0, reason);
    /* Closing first could take the word back from the wire. */
    while (link_receive(link, &f, &payload, NULL) == 0)
        ;
}
