#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# blueprint-boot.sh - `make blueprint`, the machine it describes, the redis in it, its liveness ping and its agent
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/machine.sh"
requires_command qemu-system-x86_64
requires_command mmdebstrap
[ "$(uname -m)" = x86_64 ] || skip_all "emulates x86_64 only"
requires_file /dev/fuse
plan 24

out=$PWD/out
bp=$out/blueprint
# Products go here, but objects stay where they are: a test must not link the programs others use anew. Packages that an
# earlier make fetched are verified again, not fetched again.
build() {
    make -C "$TEST_TOP" --no-print-directory OUTPUT_DIR="$out" cache-out="$TEST_TOP/out/cache" obj=out/obj/release \
        guest-obj=out/obj/guest own-guest=out/obj/guest "$@"
}

# Laid over: a disk that fstab names, and what the agent shall do.
mkdir -p "$out" overlay/etc
echo 'LABEL=mydisk /mymount ext4 defaults 0 2' >overlay/etc/fstab
printf '%s\n' '--before-suspend-cmd=date -s 2001-01-01 >/dev/null && echo the guest suspends >/dev/console' \
    '--after-resume-cmd=echo the guest resumes in $(date +%Y) >/dev/console' >overlay/etc/drafter-agent.args
overlay=$PWD/overlay
truncate -s 4M mydisk && mke2fs -q -t ext4 -L mydisk mydisk
ok "make blueprint" build blueprint OS_OVERLAY="$overlay"
cp "$bp/blueprint.json" first.json
digests() { (cd "$bp" && sha256sum vmlinux initrd.img rootfs.ext4 oci.ext4); }
first=$(digests)

ok "the blueprint is what its manifest says" blueprint-check "$bp"
is "its devices" "$(blueprint-check "$bp" | cut -f1 | tr '\n' ' ')" "kernel initrd disk oci "
stamp() { stat -c '%n %Y %i' "$bp"/*; }
before=$(stamp)
ok "make blueprint again" build blueprint OS_OVERLAY="$overlay"
is "touches nothing" "$(stamp)" "$before"

mkdir vsock
guestctl --vsock-path vsock/vsock.sock --timeout 5m liveness before-suspend after-resume >acts 2>guestctl.log &
guestctl=$!
cleanup kill "$guestctl"
ok "the host listens" wait_line 60 guestctl.log Listening
machine_vsock=vsock
machine_start "$bp" -drive file=mydisk,format=raw,if=none,id=mine,snapshot=on -device virtio-blk-pci,drive=mine
ok "redis answers" wait_for 240 machine_ping
ok "liveness and agent do what the host asks" wait "$guestctl"
is "each of them" "$(cut -f1 acts | tr '\n' ' ')" "liveness before-suspend after-resume "
diag "$(cat acts)"
ok "the guest ran the command for suspend" wait_line 60 console '^the guest suspends'
ok "and set its clock before the one for resume" wait_line 60 console "^the guest resumes in $(date +%Y)"
ok "what the application prints is on the console" wait_line 60 console 'main: .*Ready to accept connections'
ok "the random pool was reseeded" grep -q 'Reseeded the random pool' console
printf '\n' >&8
printf 'ip addr show dev eth0; ip route; ip -6 route; cat /sys/class/net/eth0/address; kill $(pidof redis-server)\n' >&8
accepting() { [ "$(grep -c 'main: .*Ready to accept connections' console)" -ge "$1" ]; }
ok "the application is started again when it ends" wait_for 240 accepting 2
. "$TEST_TOP/blueprint/rootfs/overlay/etc/network.conf"
has() { like "$1" "$(tr -d '\r' <console)" "$2"; }
has "eth0 has its address, 172.16.0.2/30" 'inet 172\.16\.0\.2/30'
has "and one of IPv6" "inet6 $ADDRESS6"
has "the gateway, 172.16.0.1" 'default via 172\.16\.0\.1 dev eth0'
has "both of them" "default via $GATEWAY6 dev eth0"
has "and its MAC" $'\n'"$MAC"$'\n'
printf 'grep -c /mymount /proc/mounts | sed s/^/mounts=/; cat /sys/devices/system/clocksource/clocksource0/current_clocksource; poweroff\n' >&8
ok "the machine powers off" wait_for 120 machine_ended
like "the clock is not the TSC" "$(tr -d '\r' <console)" $'\n(hpet|acpi_pm|kvm-clock)\n'
like "the disk of fstab is mounted" "$(cat console)" $'\nmounts=1'
like "the application ended on its own terms" "$(cat console)" 'bye bye'

build clean/kernel clean/os clean/blueprint blueprint OS_OVERLAY="$overlay" >rebuild.log 2>&1
is "two builds give the same bytes" "$(digests)" "$first"
