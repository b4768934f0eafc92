#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# peer-testguest.sh - snapshot, resume, suspend, refuse, move: with the guest that boots in milliseconds
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/machine.sh"
. "$TEST_TOP/tests/lib/peer.sh"
requires_command qemu-system-x86_64
requires_command jq
requires_file /dev/fuse
[ "$(uname -m)" = x86_64 ] || skip_all "emulates x86_64 only"
plan 61

fails "a guest that never gets there is no package" 1 'in time' testguest_package none --until 'never' --resume-timeout 1s
ok "nor does anything of it stay" vms_empty
fails "no file either" 2 'No such file' ls none/config.json
drafter-snapshotter --devices @devices.json --hypervisor qemu --accel tcg --net none --memory-size 64 --chroot-base-dir vms \
    --liveness-vsock-port 0 --agent-vsock-port 0 --boot-args "pages=16" --until never 2>snapshotter.log &
snapshotter=$!
wait_line 60 snapshotter.log 'Booted VM'
kill -TERM $snapshotter
wait $snapshotter
is "an interrupted snapshot fails" $? 1
ok "and leaves nothing" vms_empty
ok "a package is made" testguest_package package
is "upstream can read its config" "$(tr '\0' '\n' <package/config.json | jq -c .agentVSockPort)" 0
is "all files have digests" "$(tr '\0' '\n' <package/config.json | jq -r '.devices[] | select(.sha256) | .name' | sort | tr '\n' ' ')" "kernel memory state "
modes() { stat -c %a "$@" | sort -u | paste -sd' '; }
is "nobody else reads what was in its memory" "$(modes package package/*)" '600 700'
before=$(cat package/* | sha256sum)

last=0
for i in 1 2 3; do
    peer_start a
    ok "resume $i" peer_up a
    ok "the guest's memory is what it wrote" guest_verify a
    ok "it is suspended by SIGTERM" peer_stop a
    [ "$(guest_writes a)" -gt "$last" ] || last=none
    last=$(guest_writes a)
done
like "each time it went on from where it stood" "$last" '^[0-9]+$'
is "the package is as it was" "$(cat package/* | sha256sum)" "$before"

peer_start a --log-level debug
peer_up a
kill -TERM "$peer_a"
peer_wait a
is "its data is flushed while it runs yet, and little while it stands" \
    "$(sed -n 's/.*\(Flushed what the guest wrote\|QMP event.*STOP\).*/\1/p' a.log | cut -c 1-7 | tr '\n' ' ')" 'Flushed QMP eve '

# A hypervisor that never gets ready, and a request to stop meanwhile.
printf '#!/bin/sh\nexec sleep 1000\n' >deaf
chmod 755 deaf
stopped_early() { # LOG PID: it was interrupted, its hypervisor is gone, and all that was made for it
    wait_for 120 process_gone "$2" && grep -q interrupted "$1" && ! grep -q 'in time' "$1" && vms_empty
}
process_gone() { ! kill -0 "$1" 2>/dev/null; }
deaf_pid() { sed -n 's/.*Started hypervisor.*pid=\([0-9]*\).*/\1/p' "$1"; }
peer_start d --log-level debug --qemu-bin "$PWD/deaf"
wait_line 60 d.log 'Started hypervisor'
kill -TERM "$peer_d"
peer_wait d 120
is "a peer is stopped while its hypervisor starts" "$peer_status" 1
ok "which goes with it" stopped_early d.log "$(deaf_pid d.log)"
ok "and its machine stands, as it never ran" grep '"status": "standing"' d/memory.bin.overlay.machine
testguest_devices never >devices.json
drafter-snapshotter --devices @devices.json --hypervisor qemu --accel tcg --net none --memory-size 64 --log-level debug \
    --liveness-vsock-port 0 --agent-vsock-port 0 --until never --chroot-base-dir vms --qemu-bin "$PWD/deaf" 2>deaf.log &
snapshotter=$!
wait_line 60 deaf.log 'Started hypervisor'
kill -TERM $snapshotter
wait $snapshotter
is "so is the snapshotter" $? 1
ok "and its hypervisor goes" stopped_early deaf.log "$(deaf_pid deaf.log)"

if [ "$(id -u)" = 0 ]; then
    peer_start u --uid 12345 --gid 12345
    ok "a hypervisor of another user gets what it needs of it" peer_up u
    is "and is one" "$(stat -c %u "/proc/$(peer_vmm u)")" 12345
    guest_verify u
    ok "it is suspended as any" peer_stop u
else
    skip "a hypervisor of another user gets what it needs of it" "needs root"
    skip "and is one" "needs root"
    skip "it is suspended as any" "needs root"
fi

peer_start a
peer_up a
peer_start b
ok "a second machine from the same package runs beside it" peer_up b
ok "on memory of its own" guest_verify b
fails "a second peer on the first one's overlays is refused" 1 'in use by process' \
    drafter-peer --package package --overlay-dir a --chroot-base-dir vms --hypervisor qemu
fails "nor does --fresh pull them away from under it" 1 'in use by' \
    drafter-peer --package package --overlay-dir a --chroot-base-dir vms --hypervisor qemu --fresh
kill -9 "$(peer_vmm b)"
peer_wait b
like "a killed hypervisor is an error that says so" "$peer_status $(tail -n 3 b.log)" '^1 .*killed by signal 9'
fails "what it left is refused" 1 'was not suspended.*--fresh' drafter-peer --package package --overlay-dir b --chroot-base-dir vms
peer_start b --fresh
ok "--fresh starts from the package" peer_up b
peer_type b off
peer_wait b
is "the guest powering off ends the peer" "$peer_status" 0
fails "what it left is refused too" 1 'was powered off' drafter-peer --package package --overlay-dir b --chroot-base-dir vms
ok "the first one did not notice any of that" guest_verify a
peer_stop a
is "nor what a machine wrote" "$(modes a a/*)" '600 700'

fails "another hypervisor's package" 1 'saved by qemu' drafter-peer --package package --overlay-dir c --chroot-base-dir vms --hypervisor firecracker
cp -r --sparse=always package flipped
flip_byte flipped/memory.bin 123456
fails "one flipped byte, with --verify" 1 'device memory.*damaged' drafter-peer --package flipped --overlay-dir c --chroot-base-dir vms --verify
truncate -s 1M flipped/memory.bin
fails "a file cut short" 1 'memory.bin has 1048576 bytes' drafter-peer --package flipped --overlay-dir c --chroot-base-dir vms
fails "a folder that is no package" 1 'holds no config.json' drafter-peer --package vms --overlay-dir c --chroot-base-dir vms
fails "nobody to take a machine from" 1 'm.sock' drafter-peer --package package --overlay-dir c --chroot-base-dir vms --raddr unix:m.sock
ok "refusals leave nothing" vms_empty

# A chain: a -> t1 -> t2, with the package as a base both have, then without one.
peer_start a --laddr unix:a.sock
wait_line 60 a.log Listening
peer_start t1 --raddr unix:a.sock --laddr unix:t1.sock
wait_line 120 t1.log Listening
peer_wait a
is "the source ends when the machine is gone" "$peer_status" 0
like "what both have does not travel" "$(grep Finished a.log)" 'pages_base=[1-9]'
ok "the machine runs on the target, its memory intact" guest_verify t1
fails "the source does not run it again" 1 'was moved to.*--take-back' drafter-peer --package package --overlay-dir a --chroot-base-dir vms
peer_start a --fresh
ok "but another one, asked to" peer_up a
ok "which is as the package is" guest_verify a
ok "and is suspended" peer_stop a
peer_from='--package arrived' peer_start t2 --raddr unix:t1.sock
wait_line 120 t2.log 'Completed all device migrations'
ok "and on the next, which had nothing" guest_verify t2
peer_wait t1
ok "where it is suspended" peer_stop t2
peer_from='--package arrived' peer_start t2
peer_up t2
ok "and goes on" guest_verify t2
peer_stop t2
is "what has arrived is no one else's either" "$(modes t2 t2/* arrived arrived/*)" '600 700'
fails "--raddr does not take another one over it" 1 'a machine here already.*--fresh' \
    drafter-peer --package arrived --overlay-dir t2 --chroot-base-dir vms --raddr unix:nobody.sock

# Storage alone, and the numbers.
port=$(machine_pick_port)
peer_start m1 --mock --laddr unix:m1.sock
wait_line 60 m1.log Listening
peer_from='--package mock' peer_start m2 --mock --raddr unix:m1.sock --metrics "127.0.0.1:$port"
wait_line 120 m2.log 'Completed all device migrations'
exec 7<>"/dev/tcp/127.0.0.1/$port"
printf 'GET /metrics HTTP/1.0\r\n\r\n' >&7
like "metrics count the migration" "$(cat <&7)" 'drafter_peer_migrations_received_total 1'
exec 7>&-
peer_stop m2
peer_wait m1
ok "without a machine the devices travel all the same" cmp mock/memory.bin package/memory.bin
ok "nothing is left behind" vms_empty
