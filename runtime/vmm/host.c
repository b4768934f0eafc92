// SPDX-License-Identifier: Apache-2.0
/* host.c - what this host can run machines with
 *
 * /dev/kvm alone says little: it may be there without permission, and on a PVM host (KVM without
 * vmx or svm, the guest in user mode) it runs only kernels made for that. Such a kernel contains
 * the two instructions by which a PVM guest asks its hypervisor for CPUID leaves, "invlpg
 * 0xffffffffff4d5650; cpuid" (Linux PVM series, Documentation/virt/kvm/x86/pvm-spec.rst,
 * PVM_SYNTHETIC_CPUID).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "runtime/base/io.h"
#include "runtime/vmm/driver.h"

#define CPUINFO_MAX (4u << 20)

enum kvm_state {
    KVM_WORKS,
    KVM_PVM, /* works, for PVM guests */
    KVM_ABSENT,
};

struct host {
    enum kvm_state kvm;
    char kvm_why[160];
    bool guest_is_pvm;
    char *firecracker, *jailer, *qemu; /* paths; NULL = not found */
};

static const uint8_t pvm_cpuid[] = {0x0f, 0x01, 0x3c, 0x25, 0x50, 0x56, 0x4d, 0xff, 0x0f, 0xa2};

/* Like execvp(3) finds it. Returns NULL when there is none. */
static char *find_program(const char *name)
{
    char *found = NULL;

    if (strchr(name, '/'))
        return access(name, X_OK) == 0 ? realpath(name, NULL) : NULL;
    const char *path = getenv("PATH");
    cleanup_free char *copy = strdup(path ? path : "/usr/local/bin:/usr/bin:/bin");
    char *save = NULL;
    for (char *dir = copy ? strtok_r(copy, ":", &save) : NULL; dir && !found;
         dir = strtok_r(NULL, ":", &save)) {
        struct stat st;
        cleanup_free char *candidate = NULL;
        if (asprintf(&candidate, "%s/%s", dir, name) < 0) {
            candidate = NULL;
            return NULL;
        }
        if (access(candidate, X_OK) == 0 && stat(candidate, &st) == 0 && S_ISREG(st.st_mode))
            found = steal_ptr(&candidate);
    }
    return found;
}

/* Whether the first "flags" line has the word. */
static bool has_flag(const char *cpuinfo, const char *flag)
{
    const char *line = strstr(cpuinfo, "\nflags");
    size_t n = strlen(flag);

    if (!line)
        return false;
    const char *end = line + 1 + strcspn(line + 1, "\n");
    for (const char *p = line + 1; (p = strstr(p, flag)) && p < end; p += n)
        if (p[-1] == ' ' && (p[n] == ' ' || p[n] == '\n' || p[n] == '\0'))
            return true;
    return false;
}

static void probe_kvm(struct host *h)
{
    cleanup_close int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    h->kvm = KVM_ABSENT;
    if (kvm < 0) {
        (void)snprintf(h->kvm_why, sizeof(h->kvm_why), "/dev/kvm: %s", strerror(errno));
        return;
    }
    if (ioctl(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION) {
        (void)snprintf(h->kvm_why, sizeof(h->kvm_why), "/dev/kvm does not speak API version %d",
                       KVM_API_VERSION);
        return;
    }
    cleanup_close int vm = ioctl(kvm, KVM_CREATE_VM, 0);
    if (vm < 0) {
        (void)snprintf(h->kvm_why, sizeof(h->kvm_why), "/dev/kvm makes no machine: %s",
                       strerror(errno));
        return;
    }
    cleanup_close int fd = open("/proc/cpuinfo", O_RDONLY | O_CLOEXEC);
    cleanup_free char *text = calloc(1, CPUINFO_MAX + 1);
    if (fd < 0 || !text || io_read(fd, text, CPUINFO_MAX, "/proc/cpuinfo", NULL) < 0 ||
        (!has_flag(text, "vmx") && !has_flag(text, "svm"))) {
        h->kvm = KVM_PVM;
        (void)snprintf(h->kvm_why, sizeof(h->kvm_why),
                       "/dev/kvm on a CPU without vmx or svm runs PVM kernels only");
        return;
    }
    h->kvm = KVM_WORKS;
    (void)snprintf(h->kvm_why, sizeof(h->kvm_why), "/dev/kvm works");
}

/* Whether the kernel image has PVM's instructions. */
static bool is_pvm_kernel(const char *path)
{
    struct stat st;
    cleanup_close int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size < 64)
        return false;
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED)
        return false;
    bool found = memmem(map, (size_t)st.st_size, pvm_cpuid, sizeof(pvm_cpuid)) != NULL;
    (void)munmap(map, (size_t)st.st_size);
    return found;
}

static bool kvm_usable(const struct host *h)
{
    return h->kvm == KVM_WORKS || (h->kvm == KVM_PVM && h->guest_is_pvm);
}

/* Firecracker, or why not. Returns 0 with `c` filled, -1 with the reason. */
static int try_firecracker(struct host *h, const struct vmm_wish *w, struct vmm_choice *c,
                           struct error *err)
{
    const char *bin = w->firecracker_bin ? w->firecracker_bin : "firecracker";
    const char *jailer = w->jailer_bin ? w->jailer_bin : "jailer";

    if (w->accel == VMM_ACCEL_TCG)
        return error_set(err, ENOTSUP, "Firecracker has no software emulation");
    /* Who named it hears from the choice of the network what to do. */
    if (w->user_net && w->hypervisor == VMM_AUTO)
        return error_set(err, ENOTSUP, "Firecracker has no user-mode network");
    if (!h->firecracker)
        return error_set(err, ENOENT, "program \"%s\" not found", bin);
    if (jailer[0] && !h->jailer)
        return error_set(err, ENOENT,
                         "program \"%s\" not found (an empty --jailer-bin runs without)", jailer);
    if (h->kvm == KVM_ABSENT)
        return error_set(err, ENOTSUP, "%s", h->kvm_why);
    /* Who names Firecracker on a PVM host gets it: guests other than Linux may run. */
    if (w->hypervisor == VMM_AUTO && !kvm_usable(h))
        return error_set(err, ENOTSUP, "%s%s", h->kvm_why,
                         w->kernel ? ", which this one is not" : "");
    c->hypervisor = VMM_FIRECRACKER;
    c->accel = VMM_ACCEL_KVM;
    c->bin = steal_ptr(&h->firecracker);
    c->jailer = steal_ptr(&h->jailer);
    return 0;
}

static int try_qemu(struct host *h, const struct vmm_wish *w, struct vmm_choice *c,
                    struct error *err)
{
    if (!h->qemu)
        return error_set(err, ENOENT, "program \"%s\" not found",
                         w->qemu_bin ? w->qemu_bin : "qemu-system-x86_64");
    if (w->accel == VMM_ACCEL_KVM && h->kvm == KVM_ABSENT)
        return error_set(err, ENOTSUP, "%s", h->kvm_why);
    bool kvm = w->accel == VMM_ACCEL_KVM || (w->accel == VMM_ACCEL_AUTO && kvm_usable(h));
    c->hypervisor = VMM_QEMU;
    c->accel = kvm ? VMM_ACCEL_KVM : VMM_ACCEL_TCG;
    c->bin = steal_ptr(&h->qemu);
    return 0;
}

int vmm_choose(const struct vmm_wish *w, const struct context *ctx, struct vmm_choice *ret_choice,
               struct error *err)
{
    struct host h = {0};
    struct vmm_choice c = {0};
    struct error no_firecracker = ERROR_INIT, no_qemu = ERROR_INIT;
    int rc = -1;

    if (w->hypervisor == VMM_QEMU && w->accel == VMM_ACCEL_TCG) {
        /* Both are decided, as with every package of an emulated machine: no need to look. */
        (void)snprintf(h.kvm_why, sizeof(h.kvm_why), "emulation was named");
    } else {
        probe_kvm(&h);
    }
    h.guest_is_pvm = h.kvm == KVM_PVM && is_pvm_kernel(w->kernel);
    if (w->hypervisor != VMM_QEMU)
        h.firecracker = find_program(w->firecracker_bin ? w->firecracker_bin : "firecracker");
    h.qemu = find_program(w->qemu_bin ? w->qemu_bin : "qemu-system-x86_64");
    if (h.firecracker && (!w->jailer_bin || w->jailer_bin[0]))
        h.jailer = find_program(w->jailer_bin ? w->jailer_bin : "jailer");
    if (w->hypervisor != VMM_QEMU)
        rc = try_firecracker(&h, w, &c, &no_firecracker);
    if (rc < 0 && w->hypervisor != VMM_FIRECRACKER)
        rc = try_qemu(&h, w, &c, &no_qemu);
    if (rc < 0) {
        error_set(err, no_firecracker.code ? no_firecracker.code : no_qemu.code,
                  "no hypervisor: %s%s%s%s%s", no_firecracker.text[0] ? "Firecracker: " : "",
                  no_firecracker.text, no_firecracker.text[0] && no_qemu.text[0] ? "; " : "",
                  no_qemu.text[0] ? "QEMU: " : "", no_qemu.text);
    } else {
        (void)snprintf(c.why, sizeof(c.why), "%.150s%s%.150s%s%s", h.kvm_why,
                       no_firecracker.text[0] ? "; no Firecracker: " : "", no_firecracker.text,
                       h.guest_is_pvm ? "; the kernel is a PVM guest" : "",
                       w->hypervisor == VMM_AUTO ? "" : "; the hypervisor was named");
        log_info(context_log(ctx), "Chose hypervisor",
                 log_str("hypervisor", vmm_hypervisor_name(c.hypervisor)),
                 log_str("accel", vmm_accel_name(c.accel)), log_str("program", c.bin),
                 log_str("why", c.why));
        *ret_choice = c;
    }
    free(h.firecracker);
    free(h.jailer);
    free(h.qemu);
    return rc;
}

void vmm_choice_clear(struct vmm_choice *choice)
{
    free(choice->bin);
    free(choice->jailer);
    *choice = (struct vmm_choice){0};
}
