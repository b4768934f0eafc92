// SPDX-License-Identifier: Apache-2.0
/* child.c - what a machine's process does to itself before it executes, and its watchdog */
#include "runtime/vmm/child.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/mempolicy.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum prepare_step {
    STEP_CGROUP,
    STEP_NETNS,
    STEP_TAP,
    STEP_DIRECTORY,
    STEP_NUMA,
    STEP_USER,
    STEP_DONE,
};
static const char *const step_texts[] = {
    "enter its cgroup",       "enter the network namespace", "open the tap device",
    "enter the VM directory", "bind to the NUMA node",       "become its user and group",
};
_Static_assert(ARRAY_SIZE(step_texts) == STEP_DONE, "one text a step");

int child_setup_init(struct child_setup *s, const struct process_options *o, struct error *err)
{
    *s = (struct child_setup){.opt = o};
    if (o->numa_node >= 0) {
        int rc = numa_read(o->numa_node, &s->node, err);
        if (rc < 0)
            return -1;
        s->has_node = rc > 0;
    }
    void *shared =
        mmap(NULL, sizeof(*s->step), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return error_sys(err, "mmap");
    s->step = shared;
    atomic_init(s->step, STEP_DONE);
    return 0;
}

void child_setup_end(struct child_setup *s)
{
    if (s->step)
        (void)munmap((void *)s->step, sizeof(*s->step));
    s->step = NULL;
}

const char *child_setup_failed(const struct child_setup *s)
{
    int step = atomic_load(s->step);

    return step < STEP_DONE ? step_texts[step] : NULL;
}

static int open_tap(const char *name, int at)
{
    /* Before the change of user, so that the tap needs no owner; QEMU asks the fd for its flags. */
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return -1;
    for (size_t i = 0; i < sizeof(ifr.ifr_name) - 1 && name[i]; i++)
        ifr.ifr_name[i] = name[i];
    if (ioctl(fd, TUNSETIFF, &ifr) < 0 || dup2(fd, at) < 0)
        return -1;
    return 0;
}

/* Has madvise(MADV_HUGEPAGE) fail, which QEMU calls for all of the guest's memory and shrugs off.
 * On such a mapping the kernel answers one fault by reading 4 MiB, whatever the file's read-ahead
 * is (mm/filemap.c, do_sync_mmap_readahead()): right for a file, wrong where each page comes over a
 * link. Without seccomp(2) faults take longer, nothing else. */
static void refuse_huge_pages(void)
{
    static const struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MADV_HUGEPAGE, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog fprog = {ARRAY_SIZE(program), (struct sock_filter *)program};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)
        (void)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &fprog);
}

int child_prepare(void *opaque)
{
    const struct child_setup *s = opaque;
    const struct process_options *o = s->opt;

    atomic_store(s->step, STEP_CGROUP);
    for (size_t i = 0; i < o->n_cgroup_procs; i++)
        if (write(o->cgroup_procs[i], "0", 1) != 1)
            return errno;
    atomic_store(s->step, STEP_NETNS);
    if (o->netns_fd >= 0 && setns(o->netns_fd, CLONE_NEWNET) < 0)
        return errno;
    atomic_store(s->step, STEP_TAP);
    if (o->tap && o->tap_fd >= 0 && open_tap(o->tap, o->tap_fd) < 0)
        return errno;
    atomic_store(s->step, STEP_DIRECTORY);
    if (o->dir_fd >= 0 && fchdir(o->dir_fd) < 0)
        return errno;
    atomic_store(s->step, STEP_NUMA);
    if (s->has_node) {
        if (sched_setaffinity(0, sizeof(s->node.cpus), &s->node.cpus) < 0)
            return errno;
        /* A kernel without NUMA has one node anyway: nothing to bind to. */
        if (syscall(SYS_set_mempolicy, MPOL_BIND, s->node.mask, NUMA_NODES_MAX + 1) < 0 &&
            errno != ENOSYS)
            return errno;
    }
    atomic_store(s->step, STEP_USER);
    if (o->change_user) {
        if (syscall(SYS_setgroups, o->n_groups, o->groups) < 0 ||
            syscall(SYS_setresgid, o->gid, o->gid, o->gid) < 0 ||
            syscall(SYS_setresuid, o->uid, o->uid, o->uid) < 0)
            return errno;
    }
    atomic_store(s->step, STEP_DONE);
    if (o->small_faults)
        refuse_huge_pages();
    return 0;
}

/* ---- The watchdog ------------------------------------------------------------------------- */

/* Forked without exec: plain system calls only. Ends when the pipe does. */
static _Noreturn void watchdog_main(int pipe_r, int pidfd, const struct process_options *o)
{
    char c;
    ssize_t n;

    (void)setsid(); /* neither Ctrl-C nor the terminal's end are for it */
    for (int sig = 1; sig < NSIG; sig++)
        if (sig != SIGKILL && sig != SIGSTOP)
            (void)signal(sig, SIG_IGN);
    /* It must not hold what only we should: pipes whose end others wait for. */
    int lo = pipe_r < pidfd ? pipe_r : pidfd, hi = pipe_r < pidfd ? pidfd : pipe_r;
    if (lo > 0)
        (void)close_range(0, (unsigned)lo - 1, 0);
    if (hi - lo > 1)
        (void)close_range((unsigned)lo + 1, (unsigned)hi - 1, 0);
    (void)close_range((unsigned)hi + 1, ~0U, 0);
    do
        n = read(pipe_r, &c, 1);
    while (n > 0 || (n < 0 && errno == EINTR));
    (void)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
    struct pollfd pfd = {.fd = pidfd, .events = POLLIN};
    while (poll(&pfd, 1, -1) < 0 && errno == EINTR)
        ;
    for (size_t i = 0; i < o->n_cgroup_dirs; i++)
        (void)rmdir(o->cgroup_dirs[i]);
    _exit(0);
}

int watchdog_start(const struct process_options *o, int pidfd, pid_t *ret_pid, int *ret_pipe,
                   struct error *err)
{
    int pipefd[2];

    if (pipe2(pipefd, O_CLOEXEC) < 0)
        return error_sys(err, "watchdog: pipe");
    pid_t pid = fork();
    if (pid < 0) {
        error_sys(err, "watchdog: fork");
        (void)close(pipefd[0]);
        (void)close(pipefd[1]);
        return -1;
    }
    if (pid == 0)
        watchdog_main(pipefd[0], pidfd, o);
    (void)close(pipefd[0]);
    *ret_pid = pid;
    *ret_pipe = pipefd[1];
    return 0;
}
