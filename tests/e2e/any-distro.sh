#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# any-distro.sh - examples/any-distro as its README says: a Debian with systemd, redis in the guest itself, no image
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/machine.sh"
requires_command qemu-system-x86_64
requires_command mmdebstrap
requires_file /dev/fuse
requires_root # or user namespaces with subordinate ids, which a test cannot rely on
[ "$(uname -m)" = x86_64 ] || skip_all "emulates x86_64 only"
plan 5

out=$PWD/out
bp=$out/blueprint
mkdir -p "$out"
ok "a root as debootstrap makes it" "$TEST_TOP/examples/any-distro/make-root.sh" "$out/root.tar"
ok "becomes a blueprint" make -C "$TEST_TOP" --no-print-directory OUTPUT_DIR="$out" cache-out="$TEST_TOP/out/cache" \
    obj=out/obj/release guest-obj=out/obj/guest own-guest=out/obj/guest \
    OCI_IMAGE_URI= OS_ROOTFS="$out/root.tar" OS_OVERLAY=examples/any-distro/overlay OS_FREE=64M blueprint
is "without an image" "$(blueprint-check "$bp" | cut -f1 | tr '\n' ' ')" "kernel initrd disk "
mkdir vsock
# A systemd takes seconds to start, or minutes in emulation on a machine that does other things too: the limits are
# there for what never comes.
guestctl --vsock-path vsock/vsock.sock --timeout 12m liveness before-suspend after-resume >acts 2>guestctl.log &
guestctl=$!
cleanup kill "$guestctl"
wait_line 60 guestctl.log Listening
machine_vsock=vsock
machine_start "$bp"
ok "systemd starts liveness and agent" wait "$guestctl"
diag "$(cat acts)"
ok "redis answers" wait_for 300 machine_ping
[ "$tap_failed" = 0 ] || diag "$(tail -n 40 console | tr -d '\r')"
