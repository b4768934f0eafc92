#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# peer-guest.sh - what a Linux guest sees of being suspended and cloned: an extra disk, vsock, clock, randomness, a console
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/machine.sh"
. "$TEST_TOP/tests/lib/peer.sh"
. "$TEST_TOP/tests/lib/guest.sh"
requires_command qemu-system-x86_64
requires_command mmdebstrap
requires_command debugfs
requires_file /dev/fuse
[ "$(uname -m)" = x86_64 ] || skip_all "emulates x86_64 only"
bp=$(blueprint_shared) || skip_all "cannot make a blueprint"
guest_disks "$bp" || skip_all "cannot link a static program"
plan 34

guest_devices "$bp" >devices.json
ok "a package with a further disk is made" drafter-snapshotter --devices @devices.json --chroot-base-dir vms --hypervisor qemu \
    --accel tcg --net user --memory-size 256 --resume-timeout 3m --boot-args "$(jq -r .bootArgs "$bp/blueprint.json")"

guest_network() {
    port=$(machine_pick_port)
    network=(--net user --forward "tcp:127.0.0.1:$port-:6379")
}
guest_acts 10
