#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# migrate-chain.sh - from host to host to host: the guest's memory is its pattern after every hop
#
# 10 hops in QEMU's emulation; 20 in Firecracker, when there is one and a KVM that runs the test guest.
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/peer.sh"
requires_command qemu-system-x86_64
requires_file /dev/fuse
[ "$(uname -m)" = x86_64 ] || skip_all "emulates x86_64 only"
plan 10

hop_peer() { # NAME OPTION...
    local name=$1
    shift
    mkdir -p "$name/base"
    rm -f "$name.in"
    mkfifo "$name.in"
    : >"$name.log"
    drafter-peer --devices "$(quick_devices "$name")" --chroot-base-dir vms "${vmm[@]}" --net none --enable-input \
        --laddr "unix:$name.sock" "$@" <>"$name.in" >"$name.out" 2>"$name.log" &
    eval "peer_$name=$!"
    cleanup kill -9 $!
}
# chain LETTER HOPS: the machine of ./package from LETTER0 to LETTERn.
chain() {
    local i l=$1 n=$2
    mkdir -p "${l}0/base"
    cp package/*.bin package/config.json "${l}0/base/"
    hop_peer "${l}0"
    wait_line 60 "${l}0.log" Listening || return 1
    for ((i = 1; i <= n; i++)); do
        hop_peer "$l$i" --raddr "unix:$l$((i - 1)).sock"
        wait_line 120 "$l$i.log" 'Listening for' || { diag "$(tail -n 5 "$l$i.log" "$l$((i - 1)).log")"; return 1; }
        peer_wait "$l$((i - 1))"
        [ "$peer_status" = 0 ] || { diag "hop $i: the source ended with $peer_status"; return 1; }
        guest_verify "$l$i" || { diag "hop $i: $(grep -a '^verify' "$l$i.out" | tail -n 1)"; return 1; }
        rm -rf "${l:?}$((i - 1))"
    done
}
# The guest's clock never goes back: what it did before a move it does not do again after it.
ticks_rise() {
    local i
    for ((i = 0; i <= $2; i++)); do cat "$1$i.out"; done | tr -d '\r' | sed -n 's/^tick \([0-9]*\) writes=.*/\1/p' >ticks
    sort -n -c ticks
}

vmm=(--hypervisor qemu --accel tcg)
ok "a package is made" testguest_package package "${vmm[@]}"
ok "10 hops, verified after each" chain q 10
ok "its time went on and never back" ticks_rise q 10
ok "the last one suspends it" peer_stop q10
ok "nothing is left behind" vms_empty

if [ -z "${FIRECRACKER_BIN:-}" ] || ! { [ -r /dev/kvm ] && [ -w /dev/kvm ]; }; then
    for t in "a package is made" "20 hops, verified after each" "its time went on and never back" "the last one suspends it" "nothing is left behind"; do
        skip "Firecracker: $t" "needs FIRECRACKER_BIN and /dev/kvm"
    done
    exit
fi
vmm=(--hypervisor firecracker --accel kvm --firecracker-bin "$FIRECRACKER_BIN" --jailer-bin "")
rm -rf package
# Where Firecracker has no true KVM below it the guest is slow: less to verify.
ok "Firecracker: a package is made" testguest_package package "${vmm[@]}" --resume-timeout 2m --boot-args "pages=160 seed=7 rate=2 beat=3"
ok "Firecracker: 20 hops, verified after each" chain f 20
ok "Firecracker: its time went on and never back" ticks_rise f 20
ok "Firecracker: the last one suspends it" peer_stop f20
ok "Firecracker: nothing is left behind" vms_empty
