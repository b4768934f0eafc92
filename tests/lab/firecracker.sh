#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# firecracker.sh - a Linux guest in Firecracker, with the jailer, on a host with KVM (see lib.sh)
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lab/lib.sh"
[ -n "${FIRECRACKER_BIN:-}" ] || skip_all "needs FIRECRACKER_BIN"
[ -n "${JAILER_BIN:-}" ] || skip_all "needs JAILER_BIN"
requires_root
plan 7

lab_begin || { echo "Bail out! no lab"; exit 1; }
lab_add_program "$FIRECRACKER_BIN" /bin/firecracker
lab_add_program "$JAILER_BIN" /bin/jailer
lab_add_program "$TEST_TOP/tools/vmmctl" /bin/vmmctl
lab_add "$TEST_TOP/tests/guest/testguest" /lab/testguest
"$TEST_TOP/tools/kernel-extract" -o "$lab_root/lab/vmlinux" "$lab_vmlinuz"

# The guest: a shell that counts.
mkdir -p inner/bin inner/dev inner/proc
cp "$(command -v busybox)" inner/bin/
cat >inner/init <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
echo "guest is up"
i=0
while :; do
    i=$((i + 1))
    echo "count $i"
    /bin/busybox sleep 0.3
done
INIT
chmod 755 inner/init
(cd inner && find . | cpio -o -H newc --quiet) >"$lab_root/lab/initrd.img"

lab_run 280 '
vm="vmmctl --chroot-base-dir /dev/shm/vms --jailer-bin jailer --uid 1000 --gid 1000 --numa-node 0 --cgroup-version 2"
$vm --kernel vmlinux --initrd initrd.img --boot-args "console=ttyS0 panic=1 quiet" --memory-size 128 \
    --memory /dev/shm/m --state /dev/shm/s --machine /dev/shm/j --until "^count 3$" snapshot
echo "snapshot: $?"
$vm --memory /dev/shm/m --state /dev/shm/s --machine /dev/shm/j --until "^count [0-9]+$" --cycles 3 restore
echo "restore: $?"
find /dev/shm/vms /sys/fs/cgroup/firecracker -mindepth 1 -name "??????????????????????"
echo "left: $?"
vmmctl --chroot-base-dir /dev/shm/vms --hypervisor auto --kernel testguest --boot-args "beat=10" \
    --memory-size 32 --until "^tick" run
echo "unjailed: $?"
' >lab.log 2>&1
tail -n 40 lab.log | sed 's/^/  # /'
like "auto finds KVM and Firecracker" "$(cat lab.log)" 'hypervisor=firecracker accel=kvm'
like "a Linux guest boots in the jail" "$(cat lab.log)" 'guest is up'
like "it is saved" "$(cat lab.log)" 'snapshot: 0'
like "it is restored, three times" "$(cat lab.log)" 'restore: 0'
is "each restore goes on where the save stopped" \
    "$(grep -o '^count [0-9]*' lab.log | sort -V | uniq -d | wc -l)" 0
is "neither directories nor control groups stay" "$(grep -cE '/[0-9A-Za-z]{22}$' lab.log)" 0
like "it runs without the jailer too" "$(cat lab.log)" 'unjailed: 0'
