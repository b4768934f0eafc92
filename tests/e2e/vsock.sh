#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# vsock.sh - a Linux guest on QEMU talks through our vsock device, is saved, and goes on elsewhere
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/vsock_machine.sh"
ulimit -n 4096 2>/dev/null || skip_all "needs 4096 open files"
vsock_prepare || skip_all "the kernel package lacks a module"
bytes=${VSOCK_BYTES:-$((64 << 20))}
plan 14

serve() { # ADDRESS LOG [ARG...]
    local address=$1 log=$2
    shift 2
    ./vsock_stream "${@:-serve}" "$address" >"$log" 7>&- 8>&- &
    cleanup kill $!
    wait_line 60 "$log" serving
}
ended() { ! kill -0 "$1"; }

vsock_boot a
serve unix:a/vsock.sock_52 serve.log
ok "boots with the device" wait_line 120 a/console guest-up
[ $tap_failed = 0 ] || { diag "$(tail -n 5 a/log)"; exit 1; }
ok "guest to host: a stream with half close" vsock_run 60 a 'vsock_stream echo vsock:2:52 3 300000'
ok "guest to host: a port without a listener is refused" vsock_run 60 a '! vsock_stream echo vsock:2:53 1 1'
ok "host to guest: a stream with half close" timeout 60 ./vsock_stream echo guest:a/vsock.sock:99 3 300000
fails "host to guest: a port without a listener is refused" 1 refused timeout 60 ./vsock_stream echo guest:a/vsock.sock:98 1 1
ok "a thousand connections at once from the guest" vsock_run 120 a 'vsock_stream echo vsock:2:52 1000 3000'
ok "a thousand connections at once to the guest" timeout 120 ./vsock_stream echo guest:a/vsock.sock:99 1000 3000
./vsock_stream sink unix:a/vsock.sock_60 "$bytes" >sink.log 2>&1 7>&- 8>&- &
cleanup kill $!
wait_line 60 sink.log serving
ok "$bytes bytes through one connection, intact" vsock_run 300 a "vsock_stream send vsock:2:60 $bytes"
diag "$(grep '^sent' a/console) (guest to host)"

# Saved with open streams: both ends hear of it, and all works after the restore.
vsock_guest a 'vsock_stream hold vsock:2:52 &'
./vsock_stream hold guest:a/vsock.sock:99 >hold.log 2>&1 7>&- 8>&- &
wait_line 60 a/console '^held'
wait_line 60 hold.log held
vsock_qmp a '{"execute":"stop"}'
vsock_qmp a '{"execute":"migrate","arguments":{"uri":"exec:cat >a/state"}}'
ok "is saved" wait_line 60 a/qmp.log '"status": "completed"'
vsock_qmp a '{"execute":"quit"}'
ok "the host's stream ends with the stop" wait_line 60 hold.log '^hold ended'
wait_for 60 ended "$vsock_pid"
like "nothing malformed was seen" "$(cat a/log)" 'dropped=0'

mkdir b
ln a/memory b/memory
vsock_boot b -incoming defer
vsock_qmp b '{"execute":"migrate-incoming","arguments":{"uri":"exec:cat a/state"}}'
wait_line 60 b/qmp.log '"status": "completed"'
vsock_qmp b '{"execute":"cont"}'
serve unix:b/vsock.sock_52 serve2.log
ok "the guest's stream is reset after the restore" wait_line 60 b/console 'hold ended: Connection reset by peer'
ok "guest to host works after the restore" vsock_run 60 b 'vsock_stream echo vsock:2:52 3 300000'
ok "the guest's listener survived" timeout 60 ./vsock_stream echo guest:b/vsock.sock:99 3 300000
vsock_qmp b '{"execute":"quit"}'
wait_for 60 ended "$vsock_pid"
