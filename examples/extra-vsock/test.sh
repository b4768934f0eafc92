#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# examples/extra-vsock: host and guest talk over vsock ports of their own, also after a suspend
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/machine.sh"
. "$TEST_TOP/tests/lib/peer.sh"
requires_command qemu-system-x86_64
requires_command mmdebstrap
requires_command socat
requires_file /dev/fuse
[ "$(uname -m)" = x86_64 ] || skip_all "emulates x86_64 only"
example_out || skip_all "cannot make a blueprint"
plan 9

ok "a bundle" make_out unpack/oci OCI_IMAGE_URI="oci:$PWD/out/images/redis:latest"
ok "with another program" "$TEST_TOP/examples/extra-vsock/install.sh" out/oci-runtime-bundle
ok "becomes a blueprint" make_out pack/oci blueprint

# talk LINE...: a connection to the guest's port 5000; prints what comes back.
talk() {
    printf '%s\n' 'CONNECT 5000' "$@" bye | timeout 60 socat -,ignoreeof "UNIX-CONNECT:$vm/vsock.sock" | sed 's/^OK .*/OK/'
}
start() {
    peer_from='--blueprint out/blueprint' peer_start greeter --net none --memory-size 256 --resume-timeout 5m
    peer_up greeter 180
    vm=$(sed -nE 's/.*(Booted|Resumed) VM.* path=([^ ]*).*/\2/p' greeter.log)
}
start
program=${vm%/*/root}
ok "the page goes to the machine's folder" grep -qF "cd out/vms/${program##*/}/*/root" "$TEST_TOP/examples/extra-vsock/README.md"
ok "the program listens" wait_line 60 greeter.out 'greeter: listening'
is "the host reaches it" "$(talk world)" "$(printf 'OK\nhello, world')"
timeout 60 socat -u "UNIX-LISTEN:$vm/vsock.sock_5001" - >called &
caller=$!
cleanup kill "$caller"
wait_for 60 test -S "$vm/vsock.sock_5001"
is "is told to call" "$(talk call)" "$(printf 'OK\ncalled')"
wait "$caller"
is "and calls the host" "$(cat called)" 'greetings from the guest'
peer_stop greeter
start
is "both after a suspend and a resume" "$(talk again)" "$(printf 'OK\nhello, again')"
peer_stop greeter
