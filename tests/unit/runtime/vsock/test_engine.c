// SPDX-License-Identifier: Apache-2.0
/* test_engine.c - the whole device against a VMM that is a process of this test; threads: yes
 *
 * The child is the VMM and its guest: it opens the device's file, says the vhost ioctls in QEMU's
 * order, and sends a stream of bytes to a port of the host. Meanwhile threads of the parent take
 * them, connect to the guest (which refuses them all), and ask for figures.
 */
#include <fcntl.h>
#include <linux/vhost.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/io.h"
#include "runtime/block/expose/mount.h"
#include "runtime/vsock/vsock.h"
#include "tests/lib/unit.h"
#include "tests/lib/vsock_guest.h"

#define NUM 32
#define PACKETS 350u
#define PAYLOAD 1000u
#define SLOT 0x800u
#define TX_AT(i) (GUEST_HEAP + SLOT * (i))
#define RX_AT(i) (GUEST_HEAP + SLOT * (NUM + (i)))
#define GUEST_PORT 1234u
#define HOST_PORT 60u
#define WAIT_MS 60000

/* ---- the VMM: a process of its own, which tells what went wrong by its exit status ---- */

static _Alignas(4096) struct guest g;
static int kicks[QUEUES], calls[QUEUES];
static uint32_t credit_alloc, credit_done;
static bool opened, closed;
static unsigned tx_free = NUM, tx_next;

#define NEED(what)                                                                                 \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            (void)fprintf(stderr, "VMM, line %d: %s: %s\n", __LINE__, #what, strerror(errno));     \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

static uint8_t pattern(uint64_t at)
{
    return (uint8_t)(at * 7 + (at >> 8) * 13);
}

static void vmm_says(uint16_t op, uint32_t host_port, uint32_t guest_port, uint32_t len,
                     uint64_t at)
{
    struct packet p = {.src_cid = 3,
                       .dst_cid = PACKET_HOST_CID,
                       .src_port = guest_port,
                       .dst_port = host_port,
                       .type = PACKET_TYPE_STREAM,
                       .op = op,
                       .flags = op == PACKET_SHUTDOWN ? PACKET_SHUTDOWN_BOTH : 0,
                       .len = len,
                       .buf_alloc = 65536};
    unsigned i = tx_next++ % NUM;
    uint8_t *ram = g.ram + TX_AT(i);

    NEED(tx_free > 0);
    tx_free--;
    packet_encode(&p, ram);
    for (uint32_t k = 0; k < len; k++)
        ram[PACKET_HEADER_SIZE + k] = pattern(at + k);
    guest_desc(&g, QUEUES_TX, i, TX_AT(i), PACKET_HEADER_SIZE + len, 0, 0);
    __sync_synchronize();
    guest_avail(&g, QUEUES_TX, (uint16_t)i);
    NEED(eventfd_write(kicks[QUEUES_TX], 1) == 0);
}

/* Waits for an interrupt and works it off. */
static void vmm_turn(void)
{
    struct pollfd fds[QUEUES] = {{.fd = calls[0], .events = POLLIN},
                                 {.fd = calls[1], .events = POLLIN}};
    uint32_t head, len;
    eventfd_t n;

    NEED(poll(fds, QUEUES, WAIT_MS) > 0);
    for (unsigned i = 0; i < QUEUES; i++)
        if (fds[i].revents)
            (void)eventfd_read(calls[i], &n);
    __sync_synchronize();
    while (guest_used(&g, QUEUES_TX, &head, &len))
        tx_free++;
    while (guest_used(&g, QUEUES_RX, &head, &len)) {
        struct packet p;

        packet_decode(g.ram + RX_AT(head), &p);
        guest_avail(&g, QUEUES_RX, (uint16_t)head);
        NEED(eventfd_write(kicks[QUEUES_RX], 1) == 0);
        if (p.op == PACKET_REQUEST && tx_free > 2) { /* else its host waits in vain, or hears it */
            vmm_says(PACKET_RST, p.src_port, p.dst_port, 0, 0);
        } else if (p.dst_port == GUEST_PORT) {
            opened |= p.op == PACKET_RESPONSE;
            closed |= p.op == PACKET_RST;
            credit_alloc = p.buf_alloc;
            credit_done = p.fwd_cnt;
        }
    }
}

static void vmm_start(int fd)
{
    struct {
        struct vhost_memory head;
        struct vhost_memory_region region;
    } table = {
        .head.nregions = 1,
        .region = {.memory_size = GUEST_LOW, .userspace_addr = (uintptr_t)g.ram},
    };
    uint64_t features = UINT64_C(1) << 32, cid = 3;
    int on = 1;

    g.num = NUM;
    NEED(ioctl(fd, VHOST_SET_OWNER) == 0);
    NEED(ioctl(fd, VHOST_VSOCK_SET_GUEST_CID, &cid) == 0);
    NEED(ioctl(fd, VHOST_SET_FEATURES, &features) == 0);
    NEED(ioctl(fd, VHOST_SET_MEM_TABLE, &table) == 0);
    for (unsigned i = 0; i < QUEUES; i++) {
        struct vhost_vring_state state = {.index = i, .num = NUM};
        struct vhost_vring_addr addr = {.index = i,
                                        .desc_user_addr = (uintptr_t)g.ram + GUEST_DESC(i),
                                        .avail_user_addr = (uintptr_t)g.ram + GUEST_AVAIL(i),
                                        .used_user_addr = (uintptr_t)g.ram + GUEST_USED(i)};
        struct vhost_vring_file file = {.index = i};

        kicks[i] = eventfd(0, EFD_NONBLOCK);
        calls[i] = eventfd(0, EFD_NONBLOCK);
        NEED(kicks[i] >= 0 && calls[i] >= 0);
        NEED(ioctl(fd, VHOST_SET_VRING_NUM, &state) == 0);
        state.num = 0;
        NEED(ioctl(fd, VHOST_SET_VRING_BASE, &state) == 0);
        NEED(ioctl(fd, VHOST_SET_VRING_ADDR, &addr) == 0);
        file.fd = kicks[i];
        NEED(ioctl(fd, VHOST_SET_VRING_KICK, &file) == 0);
        file.fd = calls[i];
        NEED(ioctl(fd, VHOST_SET_VRING_CALL, &file) == 0);
    }
    for (uint16_t i = 0; i < NUM; i++) {
        guest_desc(&g, QUEUES_RX, i, RX_AT(i), SLOT, RING_DESC_WRITE, 0);
        guest_avail(&g, QUEUES_RX, i);
    }
    NEED(ioctl(fd, VHOST_VSOCK_SET_RUNNING, &on) == 0);
}

static _Noreturn void vmm(int go)
{
    struct vhost_vring_state base = {.index = QUEUES_TX};
    uint32_t head, len;
    int fd, off = 0;
    char c;

    (void)alarm(100);
    if (read(go, &c, 1) != 1)
        _exit(0);
    fd = open("mnt/vsock", O_RDWR);
    NEED(fd >= 0);
    vmm_start(fd);
    vmm_says(PACKET_REQUEST, HOST_PORT, GUEST_PORT, 0, 0);
    while (!opened)
        vmm_turn();
    for (uint32_t sent = 0; sent < PACKETS * PAYLOAD; sent += PAYLOAD) {
        while (tx_free < 8 || sent + PAYLOAD - credit_done > credit_alloc)
            vmm_turn();
        vmm_says(PACKET_RW, HOST_PORT, GUEST_PORT, PAYLOAD, sent);
    }
    while (tx_free < 8)
        vmm_turn();
    vmm_says(PACKET_SHUTDOWN, HOST_PORT, GUEST_PORT, 0, 0);
    while (!closed)
        vmm_turn();
    NEED(ioctl(fd, VHOST_VSOCK_SET_RUNNING, &off) == 0);
    NEED(ioctl(fd, VHOST_GET_VRING_BASE, &base) == 0);
    __sync_synchronize();
    /* What the device took it has given back before it stopped. */
    while (guest_used(&g, QUEUES_TX, &head, &len))
        tx_free++;
    NEED((uint16_t)base.num == g.used[QUEUES_TX]);
    _exit(0);
}

/* ---- the host ---- */

struct host {
    struct vsock *v;
    int listener;
    int vmm_over; /* readable then */
    uint64_t got;
    bool wrong;
    atomic_bool over;
};

static int unix_socket(const char *path, bool listening)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    if (listening ? bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 4) < 0
                  : connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

/* Takes some, and the rest when the VMM has ended: what a guest sent before it closed still comes.
 * The guest is never stuck: less is left than the device (256 KiB) and a socket keep. */
static void *taker(void *arg)
{
    struct host *h = arg;
    struct pollfd over = {.fd = h->vmm_over, .events = POLLIN};
    int fd = accept(h->listener, NULL, NULL);
    uint8_t buf[3000];
    ssize_t n;

    while (fd >= 0 && (n = read(fd, buf, sizeof(buf))) > 0) {
        for (ssize_t i = 0; i < n; i++)
            h->wrong |= buf[i] != pattern(h->got + (uint64_t)i);
        h->got += (uint64_t)n;
        if (h->got >= 100000)
            (void)poll(&over, 1, -1);
    }
    (void)close(fd);
    return NULL;
}

/* Connects to the guest, which refuses or never answers, and reads figures. */
static void *caller(void *arg)
{
    struct host *h = arg;
    struct vsock_stats stats;

    while (!atomic_load(&h->over)) {
        int fd = unix_socket("v.sock", false);
        struct pollfd p = {.fd = fd, .events = POLLIN};

        if (fd < 0)
            continue;
        if (write(fd, "CONNECT 99\n", 11) == 11)
            (void)poll(&p, 1, 20); /* bounds how many wait at once, nothing else */
        vsock_stats(h->v, &stats);
        (void)close(fd);
    }
    return NULL;
}

UNIT_TEST(stream_while_others_connect)
{
    struct vsock_options opt = {
        .uds_path = "v.sock", .guest_cid = 3, .uid = geteuid(), .gid = getegid()};
    struct error err = ERROR_INIT;
    struct vsock_stats stats;
    struct host h = {0};
    pthread_t threads[2];
    int go[2], over[2], status = -1;

    if (access("/dev/fuse", R_OK | W_OK) < 0)
        unit_skip("needs /dev/fuse");
    (void)signal(SIGPIPE, SIG_IGN);
    ck_assert_int_eq(mkdir("mnt", 0700), 0);
    ck_assert_int_eq(pipe2(go, O_CLOEXEC), 0);
    ck_assert_int_eq(pipe2(over, O_CLOEXEC), 0);
    h.vmm_over = over[0];
    pid_t pid = fork(); /* before there are threads */
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        (void)close(go[1]);
        vmm(go[0]);
    }
    (void)close(go[0]);
    struct mount *m = mount_new("mnt", NULL, &err);
    ck_assert_ptr_nonnull(m);
    h.v = vsock_new(m, "vsock", &opt, NULL, &err);
    ck_assert_msg(h.v != NULL, "%s", err.text);
    ck_assert_msg(mount_start(m, &err) == 0, "%s", err.text);
    ck_assert_msg(vsock_start(h.v, &err) == 0, "%s", err.text);
    h.listener = unix_socket("v.sock_60", true);
    ck_assert_int_ge(h.listener, 0);
    ck_assert_int_eq(pthread_create(&threads[0], NULL, taker, &h), 0);
    ck_assert_int_eq(pthread_create(&threads[1], NULL, caller, &h), 0);
    ck_assert_int_eq(write(go[1], "x", 1), 1);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    ck_assert_int_eq(write(over[1], "x", 1), 1);
    ck_assert_int_eq(pthread_join(threads[0], NULL), 0);
    vsock_stats(h.v, &stats);
    vsock_stop(h.v); /* while the caller goes on */
    atomic_store(&h.over, true);
    ck_assert_int_eq(pthread_join(threads[1], NULL), 0);
    ck_assert(!h.wrong);
    ck_assert_uint_eq(h.got, PACKETS * PAYLOAD);
    ck_assert_uint_eq(stats.bytes_from_guest, h.got);
    ck_assert_uint_eq(stats.connected, 1);
    ck_assert_uint_eq(stats.packets_dropped, 0);
    ck_assert_int_eq(stats.failed, 0);
    ck_assert_msg(mount_stop(m, &err) == 0, "%s", err.text);
    mount_free(m);
    vsock_free(h.v);
    (void)close(h.listener);
    (void)close(go[1]);
    (void)close(over[0]);
    (void)close(over[1]);
}
END_TEST
