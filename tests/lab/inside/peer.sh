#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# peer.sh - in the outer machine of tests/lab/peer.sh: a machine in Firecracker that is suspended, cloned, killed, refused
. /lab/host.sh
. $TEST_TOP/tests/lib/guest.sh
declare -A place=([a]=0 [b]=1 [c]=2 [k]=2)
guest_network() { # each machine in a namespace of its own, as they all have the same address
    port=$((7000 + place[$1]))
    network=(--netns "ark${place[$1]}")
}
cp /bp/{disk,extra}.ext4 /bp/vsock_stream .

ok "NAT and forwards" host_network 3 127.0.0.1:7000:6379/tcp@ark0 127.0.0.1:7001:6379/tcp@ark1 127.0.0.1:7002:6379/tcp@ark2
guest_devices /bp >devices.json
ok "a package with a further disk is made" drafter-snapshotter --devices @devices.json --chroot-base-dir vms "${peer_hypervisor[@]}" \
    --netns ark0 --memory-size 256 --boot-args "$(jq -r .bootArgs /bp/blueprint.json)"
rm disk.ext4 extra.ext4
diag "$SECONDS s: package"
guest_acts "$LAB_ROUNDS"
diag "$SECONDS s: suspended, cloned"

# What is refused, and what goes wrong.
refused() { # NAME STATUS REGEX [OPTION...]
    fails "$1" "$2" "$3" drafter-peer --chroot-base-dir vms "${peer_hypervisor[@]}" --netns ark2 "${@:4}"
}
guest_start k
wait_for 60 redis_up "$port"
redis "$port" 'SET kept yes' >/dev/null
refused "a second peer on the first one's overlays" 1 'in use by process' --package package --overlay-dir k
peer_stop k
guest_start k
kill -9 "$(peer_vmm k)"
peer_wait k
like "a killed Firecracker is an error that says so" "$peer_status $(tail -n 3 k.log)" '^1 .*killed by signal 9'
refused "what it left is refused" 1 'was not suspended.*--fresh' --package package --overlay-dir k
guest_start k --fresh
wait_for 60 redis_up "$port"
is "with --fresh it starts from the package" "$(redis "$port" DBSIZE)" :0
redis "$port" 'SET kept yes' >/dev/null
peer_stop k
mkdir mute other
ln package/* mute/ && ln package/* other/ && rm mute/config.json other/config.json
sed 's/"agentVSockPort": 26/"agentVSockPort": 27/' package/config.json >mute/config.json
refused "an agent that never answers" 1 'agent.*after-resume' --package mute --overlay-dir k --resume-timeout 2s
guest_start k
wait_for 60 redis_up "$port"
is "loses nothing" "$(redis "$port" 'EXISTS kept')" :1
peer_stop k
refused "another hypervisor's" 1 'saved by firecracker' --package package --overlay-dir n --hypervisor qemu
ok "nothing of all that stays" vms_empty
