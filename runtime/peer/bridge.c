// SPDX-License-Identifier: Apache-2.0
/* bridge.c - a cancel request of its own for one act */
#include "runtime/peer/bridge.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"

static void hear(struct bridge *b)
{
    lock_scope(&b->lock);
    if (b->deaf)
        log_info(context_log(&b->ctx), "Told to end, which has to wait", log_str("why", b->why));
    else
        cancel_request(&b->cancel);
}

void bridge_deafen(struct bridge *b, const char *why)
{
    lock_scope(&b->lock);
    if (!b->deaf)
        b->why = why;
    b->deaf = true;
    atomic_store(&b->deaf_word, true);
}

static void *watch(void *opaque)
{
    struct bridge *b = opaque;
    char word[512]; /* a signalfd_siginfo has 128 bytes */
    struct pollfd fds[3] = {{.fd = b->leave, .events = POLLIN},
                            {.fd = b->above, .events = POLLIN},
                            {.fd = b->word, .events = POLLIN}};

    for (;;) {
        if (poll(fds, 3, -1) < 0)
            continue;
        if (fds[0].revents)
            return NULL;
        if (fds[2].revents && read(b->word, word, sizeof(word)) > 0 && !atomic_load(&b->deaf_word))
            hear(b);
        if (fds[2].revents & ~POLLIN)
            fds[2].fd = -1;
        if (fds[1].revents) {
            hear(b);
            fds[1].fd = -1; /* it stays so */
        }
    }
}

int bridge_start(struct bridge *b, const struct context *above, int word, struct error *err)
{
    *b = (struct bridge){
        .ctx = *above, .above = above->cancel ? above->cancel->fd : -1, .word = word, .leave = -1};
    b->ctx.cancel = &b->cancel;
    atomic_init(&b->deaf_word, false);
    if (cancel_init(&b->cancel, err) < 0)
        return -1;
    char old[512]; /* a word that was said when there was nothing to call off */
    struct pollfd p = {.fd = word, .events = POLLIN};
    while (poll(&p, 1, 0) == 1 && (p.revents & POLLIN) && read(word, old, sizeof(old)) > 0)
        continue;
    (void)pthread_mutex_init(&b->lock, NULL);
    b->leave = eventfd(0, EFD_CLOEXEC);
    int rc = b->leave < 0 ? error_sys(err, "eventfd") : 0;
    if (rc == 0) {
        int n = pthread_create(&b->thread, NULL, watch, b);
        rc = n != 0 ? error_num(err, n, "thread") : 0;
    }
    if (rc < 0) {
        cleanup_close_p(&b->leave);
        (void)pthread_mutex_destroy(&b->lock);
        cancel_destroy(&b->cancel);
    }
    return rc;
}

void bridge_stop(struct bridge *b)
{
    (void)eventfd_write(b->leave, 1);
    (void)pthread_join(b->thread, NULL);
    cleanup_close_p(&b->leave);
    (void)pthread_mutex_destroy(&b->lock);
    cancel_destroy(&b->cancel);
}
