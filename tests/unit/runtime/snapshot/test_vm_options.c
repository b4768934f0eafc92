// SPDX-License-Identifier: Apache-2.0
/* test_vm_options.c - which hypervisor a network takes; programs that are only looked for */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "runtime/snapshot/vm_options.h"
#include "tests/lib/unit.h"

/* A host with all three programs. */
static struct vm_opts host(const char *net)
{
    static const char *const programs[] = {"firecracker", "jailer", "qemu"};

    for (size_t i = 0; i < ARRAY_SIZE(programs); i++) {
        int fd = open(programs[i], O_CREAT | O_WRONLY | O_CLOEXEC, 0700);
        ck_assert_int_ge(fd, 0);
        (void)close(fd);
    }
    return (struct vm_opts){.hypervisor = "auto",
                            .accel = "auto",
                            .firecracker_bin = "./firecracker",
                            .jailer_bin = "./jailer",
                            .qemu_bin = "./qemu",
                            .net = net,
                            .netns = ""};
}

static void check_qemu(const struct vm_opts *o)
{
    cleanup_vm_setup struct vm_setup s = {.nic = VMM_NIC_NONE};
    struct error err = ERROR_INIT;

    ck_assert_msg(vm_setup_choose(o, VMM_AUTO, VMM_ACCEL_AUTO, NULL, NULL, &s, &err) == 0, "%s",
                  err.text);
    ck_assert_int_eq(s.choice.hypervisor, VMM_QEMU);
    ck_assert_int_eq(s.nic, VMM_NIC_USER);
    /* That, and not a KVM that this host lacks. */
    ck_assert_msg(strstr(s.choice.why, "Firecracker has no user-mode network") != NULL, "%s",
                  s.choice.why);
}

UNIT_TEST(auto_takes_qemu_for_a_user_network)
{
    struct vm_opts o = host("user");

    check_qemu(&o);
}
END_TEST

UNIT_TEST(auto_takes_qemu_for_a_forward)
{
    const char *forward = "tcp:127.0.0.1:3333-:6379";
    struct vm_opts o = host("auto");

    o.forwards = (struct option_list){.items = &forward, .count = 1};
    check_qemu(&o);
}
END_TEST

/* Without QEMU the reason names both. */
UNIT_TEST(without_qemu_it_fails)
{
    struct vm_opts o = host("user");
    struct vm_setup s;
    struct error err = ERROR_INIT;

    o.qemu_bin = "./none";
    ck_assert_int_eq(vm_setup_choose(&o, VMM_AUTO, VMM_ACCEL_AUTO, NULL, NULL, &s, &err), -1);
    ck_assert_msg(strstr(err.text, "no user-mode network") && strstr(err.text, "./none"), "%s",
                  err.text);
}
END_TEST

/* One that was named, or that a package is bound to, is not exchanged. */
UNIT_TEST(a_named_firecracker_is_refused)
{
    struct vm_opts o = host("user");
    struct vm_setup s;
    struct error err = ERROR_INIT;

    if (access("/dev/kvm", R_OK | W_OK) < 0)
        unit_skip("needs /dev/kvm");
    ck_assert_int_eq(vm_setup_choose(&o, VMM_FIRECRACKER, VMM_ACCEL_KVM, NULL, NULL, &s, &err), -1);
    ck_assert_msg(strstr(err.text, "--net user: Firecracker has no user-mode network") != NULL,
                  "%s", err.text);
}
END_TEST
