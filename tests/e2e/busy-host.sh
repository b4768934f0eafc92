#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# busy-host.sh - machines boot beside busy loops on every core: the test guest, and a Debian kernel
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/vsock_machine.sh"
vsock_prepare || skip_all "the kernel package lacks a module"
plan 4

loops=()
for ((i = 0; i < $(nproc); i++)); do
    (while [ $SECONDS -lt 500 ]; do :; done) &  # ends by itself if nobody ends it
    loops+=($!)
    cleanup kill -9 $!
done
busy() { local p; for p in "${loops[@]}"; do kill -0 "$p" || return 1; done; }

for i in 1 2 3; do
    ok "the test guest boots and its clock ticks ($i)" timeout 120 vmmctl --hypervisor qemu --accel tcg \
        --chroot-base-dir "$PWD/vms" --kernel "$TEST_TOP/tests/guest/testguest" --boot-args "beat=10" \
        --memory-size 32 --until '^tick' run
done
vsock_boot a
linux() {
    wait_line 240 a/console guest-up && vsock_run 60 a 'echo "$((6 * 7)) is it"' && grep -q '42 is it' a/console && busy
}
ok "Debian's kernel boots to a shell that answers" linux
vsock_qmp a '{"execute":"quit"}'
