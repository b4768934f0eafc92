// SPDX-License-Identifier: Apache-2.0
/* liveness.c - waits for the guest's sign of life */
#include <errno.h>
#include <poll.h>

#include "runtime/guestlink/listen.h"

struct guestlink_liveness {
    pthread_mutex_t lock; /* guards conn */
    struct guest_listener listener;
    uint32_t port;
    int conn; /* kept open, as upstream does: the guest may still be in its connect(2). -1 = none
                 yet */
};

int guestlink_liveness_listen(const struct guestlink_address *address,
                              struct guestlink_liveness **ret_liveness, struct error *err)
{
    if (address->port == 0) {
        *ret_liveness = NULL;
        return 0;
    }
    cleanup_free struct guestlink_liveness *l = calloc(1, sizeof(*l));
    if (!l)
        return error_oom(err);
    if (guest_listener_open(address, &l->listener, err) < 0)
        return error_wrap(err, "liveness");
    (void)pthread_mutex_init(&l->lock, NULL);
    l->port = address->port;
    l->conn = -1;
    *ret_liveness = steal_ptr(&l);
    return 0;
}

/* True when the guest is here. */
static bool take(struct guestlink_liveness *l)
{
    lock_scope(&l->lock);
    if (l->conn < 0)
        l->conn = guest_listener_accept(&l->listener);
    return l->conn >= 0;
}

int guestlink_liveness_wait(struct guestlink_liveness *liveness, uint64_t timeout_ns,
                            const struct context *ctx, struct error *err)
{
    const uint64_t deadline = guest_deadline(timeout_ns);

    while (liveness && !take(liveness)) {
        struct pollfd fds[2] = {[1] = {.fd = liveness->listener.fd, .events = POLLIN}};
        int rc = guest_poll(fds, 2, deadline, ctx, err);
        if (rc < 0)
            return error_wrap(err, "wait for the guest's liveness");
        if (rc == 0)
            return error_set(err, ETIMEDOUT,
                             "the guest showed no sign of life within %.1f s: its drafter-liveness "
                             "did not connect to vsock port %u; its console says how far it came",
                             (double)timeout_ns / 1e9, liveness->port);
    }
    return 0;
}

void guestlink_liveness_close(struct guestlink_liveness *liveness)
{
    if (!liveness)
        return;
    guest_listener_close(&liveness->listener);
    cleanup_close_p(&liveness->conn);
    (void)pthread_mutex_destroy(&liveness->lock);
    free(liveness);
}
