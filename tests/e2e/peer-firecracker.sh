#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# peer-firecracker.sh - the same acts on Firecracker's live-migration fork, when there is one
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/peer.sh"
[ -n "${FIRECRACKER_BIN:-}" ] || skip_all "needs FIRECRACKER_BIN"
{ [ -r /dev/kvm ] && [ -w /dev/kvm ]; } || skip_all "needs /dev/kvm"
requires_file /dev/fuse
plan 9

fc=(--hypervisor firecracker --accel kvm --firecracker-bin "$FIRECRACKER_BIN" --jailer-bin "" --net none)
ok "a package is made" testguest_package package "${fc[@]}" --resume-timeout 2m
for i in 1 2; do
    peer_start a "${fc[@]}"
    ok "resume $i" peer_up a
    ok "the guest's memory is what it wrote" guest_verify a
    ok "it is suspended" peer_stop a
done
peer_start a "${fc[@]}" --laddr unix:a.sock
wait_line 60 a.log Listening
peer_start b "${fc[@]}" --raddr unix:a.sock
wait_line 120 b.log 'Completed all device migrations'
ok "moved, its memory is intact" guest_verify b
peer_wait a
peer_stop b
ok "nothing is left behind" vms_empty
