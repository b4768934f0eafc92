// SPDX-License-Identifier: Apache-2.0
/* test_machine.c - descriptions, command lines, state files */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/base/bytes.h"
#include "runtime/base/io.h"
#include "runtime/vmm/cgroup.h"
#include "runtime/vmm/driver.h"
#include "runtime/vmm/firecracker/arguments.h"
#include "runtime/vmm/qemu/command_line.h"
#include "runtime/vmm/qemu/state.h"
#include "tests/lib/unit.h"

static const struct vmm_disk disks[] = {{.name = "disk"},
                                        {.name = "oci", .path = "dev,ices/oci", .read_only = true}};

static struct vmm_machine sample(void)
{
    return (struct vmm_machine){.hypervisor = VMM_QEMU,
                                .accel = VMM_ACCEL_TCG,
                                .cpus = 2,
                                .memory_mib = 256,
                                .disks = disks,
                                .n_disks = 2,
                                .nic = {.kind = VMM_NIC_TAP, .mac = "02:0e:d9:fd:68:3d"},
                                .vsock = true,
                                .rng = true};
}

/* ---- Descriptions ------------------------------------------------------------------------- */

UNIT_TEST(json_round_trip)
{
    struct error err = ERROR_INIT;
    struct vmm_machine m = sample();

    m.qemu_machine = "pc-q35-7.2";
    m.cpu_model = "Haswell-v2,-pcid";
    cleanup_free char *a = vmm_machine_format(&m, &err);
    ck_assert_ptr_nonnull(a);
    cleanup_vmm_machine struct vmm_machine *p = vmm_machine_parse(a, strlen(a), &err);
    ck_assert_msg(p != NULL, "%s", err.text);
    cleanup_free char *b = vmm_machine_format(p, &err);
    ck_assert_str_eq(a, b);
    ck_assert_int_eq(p->disks[1].read_only, true);
    ck_assert_int_eq(p->nic.kind, VMM_NIC_TAP);
}
END_TEST

UNIT_TEST(hostile_descriptions)
{
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"[]", "not a JSON object"},
        {"{\"cpuCount\":1}", "memoryMiB is missing"},
        {"{\"cpuCount\":0,\"memoryMiB\":1}", "cpuCount"},
        {"{\"cpuCount\":33,\"memoryMiB\":1}", "cpuCount"},
        {"{\"cpuCount\":1,\"memoryMiB\":99999999999999999999}", "memoryMiB"},
        {"{\"cpuCount\":1,\"memoryMiB\":1,\"kernel\":\"/etc/passwd\"}", "kernel"},
        {"{\"cpuCount\":1,\"memoryMiB\":1,\"disks\":[{}]}", "disks[0]: name is missing"},
        {"{\"cpuCount\":1,\"memoryMiB\":1,\"disks\":[7]}", "disks[0]: not an object"},
        {"{\"cpuCount\":1,\"memoryMiB\":1,\"disks\":[{\"name\":\"a\"},{\"name\":\"a\"}]}",
         "two disks"},
        {"{\"cpuCount\":1,\"memoryMiB\":1,\"disks\":[{\"name\":\"a,b=c\"}]}", "letters"},
        {"{\"cpuCount\":1,\"memoryMiB\":1,\"disks\":[{\"name\":\"\"}]}", "1 to 32"},
        {"{\"cpuCount\":1,\"memoryMiB\":1,\"qemuMachine\":\"q35 -device x\"}", "not allowed"},
        {"{\"cpuCount\":1,\"memoryMiB\":1,\"nic\":{\"mac\":\"02:0e:d9:fd:68\"}}", "MAC"},
        {"{\"cpuCount\":1,\"memoryMiB\":1,\"nic\":{\"mac\":\"03:0e:d9:fd:68:3d\"}}", "multicast"},
        {"{\"cpuCount\":1,\"memoryMiB\":1,\"nic\":{\"mac\":\"02:0e:d9:fd:68:3d,script=x\"}}",
         "MAC"},
        {"{\"cpuCount\":1,\"memoryMiB\":1,\"hypervisor\":\"xen\"}", "xen"},
    };
    static char many[8192];
    struct error err;
    char *p = many;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        err.text[0] = '\0';
        ck_assert_ptr_null(vmm_machine_parse(cases[i].text, strlen(cases[i].text), &err));
        ck_assert_msg(strstr(err.text, cases[i].want) != NULL, "case %zu: %s", i, err.text);
    }
    p += sprintf(p, "{\"cpuCount\":1,\"memoryMiB\":1,\"disks\":[");
    for (int i = 0; i <= VMM_DISKS_MAX; i++)
        p += sprintf(p, "%s{\"name\":\"d%d\"}", i ? "," : "", i);
    (void)sprintf(p, "]}");
    ck_assert_ptr_null(vmm_machine_parse(many, strlen(many), &err));
    ck_assert_ptr_nonnull(strstr(err.text, "17 disks"));
}
END_TEST

UNIT_TEST(paths_stay_in_the_vm_directory)
{
    static const char *const bad[] = {"", "/etc/passwd", "..", "a/../../b", "a/..", "a\nb"};
    static const char *const good[] = {"memory", "devices/memory", "..a", "a..b/c"};
    struct error err;

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        ck_assert_msg(vmm_path_check(bad[i], "x", &err) < 0, "%s", bad[i]);
    for (size_t i = 0; i < ARRAY_SIZE(good); i++)
        ck_assert_msg(vmm_path_check(good[i], "x", &err) == 0, "%s: %s", good[i], err.text);
}
END_TEST

UNIT_TEST(boot_arguments)
{
    static const struct {
        enum vmm_hypervisor hypervisor;
        enum vmm_accel accel;
        const char *in, *out;
    } cases[] = {
        {VMM_QEMU, VMM_ACCEL_TCG,
         "console=ttyS0 pci=off clocksource=tsc tsc=unstable root=/dev/vda",
         "console=ttyS0 root=/dev/vda net.ifnames=0 mitigations=off tsc=unstable clocksource=hpet"},
        {VMM_QEMU, VMM_ACCEL_KVM, "a pci=off clocksource=tsc  -- b c",
         "a clocksource=tsc net.ifnames=0 -- b c"},
        {VMM_QEMU, VMM_ACCEL_TCG, " mitigations=auto -- pci=off",
         "mitigations=auto net.ifnames=0 tsc=unstable clocksource=hpet -- pci=off"},
        {VMM_FIRECRACKER, VMM_ACCEL_KVM, "console=ttyS0 reboot=t i8042.noaux",
         "console=ttyS0 reboot=t i8042.noaux pci=off i8042.nomux i8042.nopnp i8042.dumbkbd"},
    };
    struct error err = ERROR_INIT;
    char longest[VMM_BOOT_ARGS_MAX + 1];

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        cleanup_free char *got =
            vmm_boot_args(cases[i].in, cases[i].hypervisor, cases[i].accel, &err);
        ck_assert_str_eq(got, cases[i].out);
    }
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    ck_assert_ptr_null(vmm_boot_args(longest, VMM_QEMU, VMM_ACCEL_TCG, &err));
    ck_assert_int_eq(err.code, E2BIG);
}
END_TEST

/* ---- Command lines ------------------------------------------------------------------------ */

static char *joined(char *const *argv)
{
    char *text = calloc(1, 16384), *p = text;

    for (; *argv; argv++)
        p += sprintf(p, "%s%s", p == text ? "" : (*argv)[0] == '-' ? "\n" : " ", *argv);
    return text;
}

UNIT_TEST(qemu_golden)
{
    static const char want_boot[] =
        "qemu\n-nodefaults\n-no-user-config\n-display none\n-no-reboot\n-S\n"
        "-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny\n"
        "-machine pc-q35-7.2,memory-backend=ram,smbus=off,sata=off,usb=off,vmport=off,hpet=on\n"
        "-accel tcg,thread=multi\n"
        "-cpu Haswell-v2,-pcid,-x2apic,-tsc-deadline,-invpcid,enforce\n"
        "-smp cpus=2,sockets=1,cores=2,threads=1\n-m 256M\n"
        "-object memory-backend-file,id=ram,size=256M,mem-path=memory,share=on,prealloc=off,"
        "merge=off\n"
        "-chardev socket,id=qmp,fd=10\n-mon chardev=qmp,mode=control\n"
        "-chardev stdio,id=console,signal=off\n-serial chardev:console\n"
        "-device vhost-vsock-pci,id=vsock,guest-cid=3,vhostfd=12,bus=pcie.0,addr=0x3,disable-"
        "legacy=on\n"
        "-netdev tap,id=net,fd=11\n"
        "-device virtio-net-pci,id=nic-tap0,netdev=net,mac=02:0e:d9:fd:68:3d,bus=pcie.0,addr=0x4,"
        "disable-legacy=on,romfile=\n"
        "-object rng-random,id=random,filename=/dev/urandom\n"
        "-device virtio-rng-pci,id=rng,rng=random,bus=pcie.0,addr=0x5,disable-legacy=on\n"
        "-blockdev driver=file,node-name=file-disk,filename=disk,read-only=off,auto-read-only=off,"
        "locking=off,aio=threads,cache.direct=off,cache.no-flush=off\n"
        "-blockdev driver=raw,node-name=raw-disk,file=file-disk,read-only=off\n"
        "-device virtio-blk-pci,id=disk-disk,drive=raw-disk,bus=pcie.0,addr=0x8,disable-legacy=on,"
        "write-cache=on,serial=disk\n"
        "-blockdev driver=file,node-name=file-oci,filename=dev,,ices/oci,read-only=on,auto-read-"
        "only=off,locking=off,aio=threads,cache.direct=off,cache.no-flush=off\n"
        "-blockdev driver=raw,node-name=raw-oci,file=file-oci,read-only=on\n"
        "-device virtio-blk-pci,id=disk-oci,drive=raw-oci,bus=pcie.0,addr=0x9,disable-legacy=on,"
        "write-cache=auto,serial=oci";
    struct vmm_machine m = sample();
    struct qemu_fds fds = {.qmp = 10, .tap = 11, .vhost_vsock = 12, .passt = -1, .serial = -1};
    struct qemu_arguments args;
    struct error err = ERROR_INIT;
    char tail[256];

    cleanup_vmm_machine struct vmm_machine *c = vmm_machine_copy(&m, &err);
    ck_assert_int_eq(qemu_machine_defaults(c, &err), 0);
    ck_assert_int_eq(qemu_command_line("qemu", c, VMM_BOOT, &fds, &args, &err), 0);
    cleanup_free char *boot = joined(args.argv);
    (void)snprintf(tail, sizeof(tail),
                   "\n-kernel kernel\n-append %s net.ifnames=0 "
                   "mitigations=off tsc=unstable clocksource=hpet",
                   VMM_BOOT_ARGS_DEFAULT);
    ck_assert_int_eq(strncmp(boot, want_boot, strlen(want_boot)), 0);
    ck_assert_str_eq(boot + strlen(want_boot), tail);
    qemu_arguments_clear(&args);

    /* A target has the very same devices. */
    ck_assert_int_eq(qemu_command_line("qemu", c, VMM_LOAD, &fds, &args, &err), 0);
    cleanup_free char *load = joined(args.argv);
    ck_assert_int_eq(strncmp(load, want_boot, strlen(want_boot)), 0);
    ck_assert_str_eq(load + strlen(want_boot), "\n-incoming defer");
    qemu_arguments_clear(&args);
}
END_TEST

UNIT_TEST(jailer_golden)
{
    struct vmm_choice choice = {
        .hypervisor = VMM_FIRECRACKER, .bin = (char *)"/bin/fc", .jailer = (char *)"/bin/j"};
    struct vmm_place place = {.base = (char *)"/vms",
                              .program = (char *)"fc",
                              .id = "ID",
                              .path = (char *)"/vms/fc/ID/root"};
    struct vmm_options o = VMM_OPTIONS_INIT;
    struct numa_node node = {.cpulist = "0-1,4"};
    struct firecracker_arguments a;
    struct error err = ERROR_INIT;

    o.choice = &choice;
    o.place = &place;
    o.uid = 12;
    o.gid = 13;
    o.netns = "/var/run/netns/ark0";
    o.numa_node = 0;
    o.cgroup_version = 2;
    ck_assert_int_eq(firecracker_arguments(&o, &node, &a, &err), 0);
    cleanup_free char *got = joined((char *const *)a.argv);
    ck_assert_str_eq(got, "/bin/j\n--id ID\n--uid 12\n--gid 13\n--exec-file /bin/fc\n"
                          "--cgroup cpuset.mems=0\n--cgroup cpuset.cpus=0-1,4\n"
                          "--cgroup-version 2\n--chroot-base-dir /vms\n"
                          "--netns /var/run/netns/ark0\n--\n"
                          "--api-sock firecracker.sock\n--level Off");
}
END_TEST

UNIT_TEST(cgroup_mounts)
{
    static const char text[] =
        "30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
        "31 30 0:27 / /sys/fs/cgroup/uni\\040fied rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
        "short line\n"
        "34 30 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:12 - cgroup cgroup rw,cpu,cpuacct\n"
        "35 30 0:31 / /sys/fs/cgroup/cpuset rw shared:13 - cgroup cgroup rw,cpuset\n";

    cleanup_free char *two = cgroup_mount(text, 2);
    cleanup_free char *one = cgroup_mount(text, 1);
    ck_assert_str_eq(two, "/sys/fs/cgroup/uni fied");
    ck_assert_str_eq(one, "/sys/fs/cgroup/cpuset");
    ck_assert_ptr_null(cgroup_mount("", 1));
}
END_TEST

UNIT_TEST(cpu_lists)
{
    static const char *const bad[] = {"x", "0-", "3-1", "0,,1", "0;1", "99999", "-1"};
    cpu_set_t set;

    ck_assert_int_eq(numa_parse_cpulist("0-2,7\n", &set), 0);
    ck_assert_int_eq(CPU_COUNT(&set), 4);
    ck_assert(CPU_ISSET(7, &set));
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        ck_assert_msg(numa_parse_cpulist(bad[i], &set) < 0, "%s", bad[i]);
}
END_TEST

/* ---- State files -------------------------------------------------------------------------- */

static struct vmm_machine stated(void)
{
    struct vmm_machine m = sample();

    m.qemu_machine = "pc-q35-7.2";
    m.cpu_model = "Haswell-v2";
    return m;
}

static int read_back(int fd, const char *version, const struct vmm_machine *m, struct error *err)
{
    cleanup_free void *data = NULL;
    size_t len = 0;

    if (qemu_state_read(fd, "state", version, m, &data, &len, err) < 0)
        return -1;
    ck_assert_int_eq(len, 10);
    ck_assert_int_eq(memcmp(data, "0123456789", 10), 0);
    return 0;
}

UNIT_TEST(state_every_byte_counts)
{
    struct vmm_machine m = stated();
    struct error err = ERROR_INIT;
    struct stat st;

    cleanup_close int fd = open("state", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ck_assert_int_eq(qemu_state_write(fd, "state", "7.2.22", &m, "0123456789", 10, &err), 0);
    ck_assert_int_eq(fstat(fd, &st), 0);
    /* A longer old content behind it means nothing. */
    ck_assert_int_eq(io_pwrite(fd, "tail", 4, (uint64_t)st.st_size, "state", &err), 0);
    ck_assert_int_eq(read_back(fd, "9.0.0", &m, &err), 0);
    for (off_t i = 0; i < st.st_size; i++) {
        char c, flipped;
        ck_assert_int_eq(pread(fd, &c, 1, i), 1);
        flipped = (char)(c ^ 1);
        ck_assert_int_eq(pwrite(fd, &flipped, 1, i), 1);
        ck_assert_msg(read_back(fd, "7.2.22", &m, &err) < 0, "byte %jd", (intmax_t)i);
        ck_assert_int_eq(pwrite(fd, &c, 1, i), 1);
    }
    for (off_t n = st.st_size - 1; n >= 0; n--) {
        ck_assert_int_eq(ftruncate(fd, n), 0);
        ck_assert_msg(read_back(fd, "7.2.22", &m, &err) < 0, "%jd bytes", (intmax_t)n);
    }
}
END_TEST

UNIT_TEST(state_of_another_machine)
{
    struct vmm_machine m = stated(), other = m;
    struct error err = ERROR_INIT;
    enum vmm_hypervisor driver;
    uint8_t head[16] = {0};

    cleanup_close int fd = open("state", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ck_assert_int_eq(qemu_state_write(fd, "state", "7.2.22", &m, "0123456789", 10, &err), 0);
    ck_assert_int_eq(vmm_state_driver(fd, "state", &driver, &err), 0);
    ck_assert_int_eq(driver, VMM_QEMU);
    other.memory_mib = 512;
    ck_assert_int_eq(read_back(fd, "7.2.22", &other, &err), -1);
    ck_assert_str_eq(err.text,
                     "state: was saved of another machine: memoryMiB was 256, here it is 512");
    other = m;
    other.nic.kind = VMM_NIC_NONE;
    ck_assert_int_eq(read_back(fd, "7.2.22", &other, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "nic was"));
    other = m;
    other.qemu_machine = "microvm";
    ck_assert_int_eq(qemu_state_write(fd, "state", "7.2.22", &other, "0123456789", 10, &err), 0);
    ck_assert_int_eq(read_back(fd, "7.2.1", &other, &err), 0);
    ck_assert_int_eq(read_back(fd, "8.0.0", &other, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "same version"));

    put_le64(head, 12554);
    put_le64(head + 8, UINT64_C(0x0710198486640000));
    ck_assert_int_eq(io_pwrite(fd, head, sizeof(head), 0, "state", &err), 0);
    ck_assert_int_eq(vmm_state_driver(fd, "state", &driver, &err), 0);
    ck_assert_int_eq(driver, VMM_FIRECRACKER);
    ck_assert_int_eq(read_back(fd, "7.2.22", &m, &err), -1);
    ck_assert_str_eq(err.text, "state: is a state of firecracker, not of QEMU");
    memset(head, 0, sizeof(head));
    ck_assert_int_eq(io_pwrite(fd, head, sizeof(head), 0, "state", &err), 0);
    ck_assert_int_eq(vmm_state_driver(fd, "state", &driver, &err), -1);
    ck_assert_int_eq(err.code, EBADMSG);
}
END_TEST

/* ---- Places ------------------------------------------------------------------------------- */

UNIT_TEST(places)
{
    struct vmm_choice choice = {.bin = (char *)"/usr/bin/qemu-x"};
    struct vmm_place a, b;
    struct error err = ERROR_INIT;
    char deep[200] = "vms/";

    ck_assert_int_eq(mkdir("vms", 0755), 0);
    cleanup_free char *here = realpath("vms", NULL);
    if (strlen(here) < 40) {
        ck_assert_int_eq(vmm_place_make("vms", &choice, geteuid(), getegid(), &a, &err), 0);
        ck_assert_int_eq(vmm_place_make("vms", &choice, geteuid(), getegid(), &b, &err), 0);
        ck_assert_str_ne(a.id, b.id);
        ck_assert_int_eq(strlen(a.id), 22);
        ck_assert_int_eq(access(a.path, F_OK), 0);
        ck_assert_int_eq(vmm_place_remove(&a, &err), 0);
        ck_assert_int_eq(vmm_place_remove(&b, &err), 0);
    }
    memset(deep + 4, 'd', 120);
    ck_assert_int_eq(vmm_place_make(deep, &choice, geteuid(), getegid(), &a, &err), -1);
    ck_assert_int_eq(err.code, ENAMETOOLONG);
}
END_TEST
