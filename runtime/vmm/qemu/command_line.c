// SPDX-License-Identifier: Apache-2.0
/* command_line.c - a machine as QEMU's arguments
 *
 * What has to be the same at save and at load is the same by construction: the machine type is
 * pinned, nothing comes by default (-nodefaults, -no-user-config), every device has an id and an
 * address that depend on nothing but the machine's description:
 *
 *     pcie.0  slot 3 vsock   4 NIC   5 rng   8.. disks in their order
 *
 * What may differ (tap names, descriptors, files' places) is in no device's state.
 */
#include "runtime/vmm/qemu/command_line.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define SLOT_VSOCK 3
#define SLOT_NIC 4
#define SLOT_RNG 5
#define SLOT_DISKS 8
_Static_assert(SLOT_DISKS + VMM_DISKS_MAX <= 0x1f, "slot 31 of q35 is its ISA bridge");

/* Argument list under construction; a failed allocation is seen once, at the end. */
struct builder {
    struct qemu_arguments a;
    size_t room;
    bool failed;
};

static void add_owned(struct builder *b, char *text)
{
    if (text && b->a.n + 2 > b->room) {
        size_t room = b->room ? b->room * 2 : 64;
        char **p = realloc(b->a.argv, room * sizeof(*p));
        if (!p) {
            free(text);
            text = NULL;
        } else {
            b->a.argv = p;
            b->room = room;
        }
    }
    if (!text) {
        b->failed = true;
        return;
    }
    b->a.argv[b->a.n++] = text;
    b->a.argv[b->a.n] = NULL;
}

static void add(struct builder *b, const char *text)
{
    add_owned(b, strdup(text));
}

static void addf(struct builder *b, const char *option, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void addf(struct builder *b, const char *option, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;

    add(b, option);
    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        text = NULL;
    va_end(ap);
    add_owned(b, text);
}

/* In QEMU's option syntax a comma within a value is written twice. The caller frees it. */
static char *escape(const char *value)
{
    char *out = malloc(2 * strlen(value) + 1), *o = out;

    if (!out)
        return NULL;
    for (; *value; value++) {
        if (*value == ',')
            *o++ = ',';
        *o++ = *value;
    }
    *o = '\0';
    return out;
}

int qemu_machine_defaults(struct vmm_machine *m, struct error *err)
{
    bool kvm = m->accel == VMM_ACCEL_KVM;

    if (m->cpu_model && strcmp(m->cpu_model, "None") == 0) {
        free((char *)m->cpu_model);
        m->cpu_model = NULL;
    }
    if (!m->qemu_machine && !(m->qemu_machine = strdup(kvm ? QEMU_MACHINE_KVM : QEMU_MACHINE_TCG)))
        return error_oom(err);
    if (!m->cpu_model && !(m->cpu_model = strdup(kvm ? QEMU_CPU_KVM : QEMU_CPU_TCG)))
        return error_oom(err);
    return 0;
}

static void add_machine(struct builder *b, const struct vmm_machine *m)
{
    const char *accel = m->accel == VMM_ACCEL_KVM ? "kvm" : "tcg";

    /* Leave out what a machine for containers does not have. HPET and PM timer stay in q35: under
     * TCG they are what the guest measures time with. Not "graphics=off": the firmware would then
     * clear the screen of whoever watches the serial console. */
    if (strcmp(m->qemu_machine, "microvm") == 0)
        addf(b, "-machine", "microvm,acpi=on,pcie=on,usb=off,memory-backend=ram");
    else if (strstr(m->qemu_machine, "q35"))
        addf(b, "-machine", "%s,memory-backend=ram,smbus=off,sata=off,usb=off,vmport=off,hpet=on",
             m->qemu_machine);
    else
        addf(b, "-machine", "%s,memory-backend=ram", m->qemu_machine);
    addf(b, "-accel", "%s%s", accel, m->accel == VMM_ACCEL_TCG ? ",thread=multi" : "");
    addf(b, "-cpu", "%s%s", m->cpu_model, m->accel == VMM_ACCEL_TCG ? ",enforce" : "");
    addf(b, "-smp", "cpus=%u,sockets=1,cores=%u,threads=1", m->cpus, m->cpus);
    addf(b, "-m", "%uM", m->memory_mib);
    cleanup_free char *path = escape(vmm_memory(m));
    if (!path) {
        b->failed = true;
        return;
    }
    addf(b, "-object",
         "memory-backend-file,id=ram,size=%uM,mem-path=%s,share=on,prealloc=off,merge=off",
         m->memory_mib, path);
}

static void add_disk(struct builder *b, const struct vmm_disk *d, unsigned slot)
{
    cleanup_free char *path = escape(vmm_disk_path(d));

    if (!path) {
        b->failed = true;
        return;
    }
    /* Through the page cache, with flushes: a flush of the guest is an fdatasync(2) of the file,
     * and "stop" drains and flushes every device, so nothing stays in QEMU. Locks are the business
     * of who owns the file: a target may be started while the source still has the machine. */
    const char *ro = d->read_only ? "on" : "off";
    addf(b, "-blockdev",
         "driver=file,node-name=file-%s,filename=%s,read-only=%s,auto-read-only=off,locking=off,"
         "aio=threads,cache.direct=off,cache.no-flush=off",
         d->name, path, ro);
    addf(b, "-blockdev", "driver=raw,node-name=raw-%s,file=file-%s,read-only=%s", d->name, d->name,
         ro);
    addf(b, "-device",
         "virtio-blk-pci,id=disk-%s,drive=raw-%s,bus=pcie.0,addr=0x%x,disable-legacy=on,write-"
         "cache=%s,serial=%.20s",
         d->name, d->name, slot, d->read_only ? "auto" : "on", d->name);
}

/* "tcp:127.0.0.1:3333-:6379,udp:..." to one hostfwd= each; the list's own commas separate. */
static int add_user_net(struct builder *b, const char *forwards, struct error *err)
{
    /* The guest's addresses are fixed (blueprint/rootfs): this network is the one it expects. */
    cleanup_free char *text =
        strdup("user,id=net,net=172.16.0.0/24,host=172.16.0.1,dhcpstart=172.16.0.2,"
               "ipv6-net=fdd7:af7e:4000:10::/64,ipv6-host=fdd7:af7e:4000:10::1,"
               "ipv6-dns=fdd7:af7e:4000:10::3");
    cleanup_free char *copy = strdup(forwards ? forwards : "");
    char *save = NULL;

    if (!text || !copy)
        return error_oom(err);
    for (char *f = strtok_r(copy, ",", &save); f; f = strtok_r(NULL, ",", &save)) {
        char *longer = NULL;
        if (strncmp(f, "tcp:", 4) != 0 && strncmp(f, "udp:", 4) != 0)
            return error_set(err, EINVAL,
                             "NIC: forward \"%s\": must read tcp:ADDRESS:PORT-ADDRESS:PORT", f);
        if (asprintf(&longer, "%s,hostfwd=%s", text, f) < 0)
            return error_oom(err);
        free(text);
        text = longer;
    }
    addf(b, "-netdev", "%s", text);
    return 0;
}

static int add_nic(struct builder *b, const struct vmm_nic *nic, const struct qemu_fds *fds,
                   struct error *err)
{
    switch (nic->kind) {
    case VMM_NIC_NONE:
        return 0;
    case VMM_NIC_TAP:
        addf(b, "-netdev", "tap,id=net,fd=%d", fds->tap);
        break;
    case VMM_NIC_USER:
        if (add_user_net(b, nic->forwards, err) < 0)
            return -1;
        break;
    case VMM_NIC_PASST:
        addf(b, "-netdev", "stream,id=net,server=off,addr.type=fd,addr.str=%d", fds->passt);
        break;
    }
    addf(b, "-device",
         "virtio-net-pci,id=nic-%s,netdev=net,mac=%s,bus=pcie.0,addr=0x%x,disable-legacy=on,"
         "romfile=",
         vmm_nic_id(nic), nic->mac, SLOT_NIC);
    return 0;
}

int qemu_command_line(const char *bin, const struct vmm_machine *m, enum vmm_purpose purpose,
                      const struct qemu_fds *fds, struct qemu_arguments *ret, struct error *err)
{
    struct builder b = {0};

    add(&b, bin);
    add(&b, "-nodefaults");
    add(&b, "-no-user-config");
    addf(&b, "-display", "none");
    add(&b, "-no-reboot"); /* a reboot ends the process, as with Firecracker */
    add(&b, "-S");
    addf(&b, "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    add_machine(&b, m);
    addf(&b, "-chardev", "socket,id=qmp,fd=%d", fds->qmp);
    addf(&b, "-mon", "chardev=qmp,mode=control");
    addf(&b, "-chardev", "stdio,id=console,signal=off");
    addf(&b, "-serial", "chardev:console");
    if (fds->serial >= 0) {
        addf(&b, "-chardev", "socket,id=serial,fd=%d", fds->serial);
        addf(&b, "-serial", "chardev:serial");
    }
    if (m->vsock && fds->vhost_vsock >= 0)
        addf(&b, "-device",
             "vhost-vsock-pci,id=vsock,guest-cid=%d,vhostfd=%d,bus=pcie.0,addr=0x%x,disable-legacy="
             "on",
             VMM_GUEST_CID, fds->vhost_vsock, SLOT_VSOCK);
    if (add_nic(&b, &m->nic, fds, err) < 0) {
        qemu_arguments_clear(&b.a);
        return -1;
    }
    if (m->rng) {
        addf(&b, "-object", "rng-random,id=random,filename=/dev/urandom");
        addf(&b, "-device",
             "virtio-rng-pci,id=rng,rng=random,bus=pcie.0,addr=0x%x,disable-legacy=on", SLOT_RNG);
    }
    for (size_t i = 0; i < m->n_disks; i++)
        add_disk(&b, &m->disks[i], SLOT_DISKS + (unsigned)i);
    if (purpose == VMM_LOAD) {
        addf(&b, "-incoming", "defer");
    } else {
        cleanup_free char *args = vmm_boot_args(m->boot_args, VMM_QEMU, m->accel, err);
        if (!args) {
            qemu_arguments_clear(&b.a);
            return -1;
        }
        addf(&b, "-kernel", "%s", vmm_kernel(m));
        if (m->initrd)
            addf(&b, "-initrd", "%s", m->initrd);
        addf(&b, "-append", "%s", args);
    }
    if (b.failed) {
        qemu_arguments_clear(&b.a);
        return error_oom(err);
    }
    *ret = b.a;
    return 0;
}

void qemu_arguments_clear(struct qemu_arguments *args)
{
    for (size_t i = 0; i < args->n; i++)
        free(args->argv[i]);
    free(args->argv);
    *args = (struct qemu_arguments){0};
}
