#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# peer.sh - in the outer machine of tests/lab/peer.sh: a machine in Firecracker that is suspended, cloned, killed, refused
. /lab/host.sh
. $TEST_TOP/tests/lib/guest.sh
declare -A place=([a]=0 [b]=1 [c]=2 [k]=2 [x0]=0 [x1]=1 [x2]=2 [small]=1 [packed]=0)
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

# Three at once of a machine that already had data when it was last suspended.
for i in 0 1 2; do cp -r --sparse=always a "x$i"; done
for i in 0 1 2; do
    guest_network "x$i"
    peer_start "x$i" "${network[@]}"
done
for i in 0 1 2; do
    peer_up "x$i" 120
    wait_for 60 redis_up $((7000 + i))
    is "clone $i of three at once has what was set before" "$(redis $((7000 + i)) 'EXISTS round1')" :1
    redis $((7000 + i)) "SET mine x$i" >/dev/null
done
for i in 0 1 2; do
    is "clone $i has its own too" "$(redis $((7000 + i)) "EVAL \"return redis.call('GET','mine')=='x$i' and 1 or 0\" 0")" :1
done
for i in 0 1 2; do peer_stop "x$i"; done
rm -r x0 x1 x2
diag "$SECONDS s: three at once"

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

# Archives and damage.
packed=(--package packed.tar.zst --package-cache cache)
drafter-packager --package package --package-path packed.tar.zst --level 1 2>packager.log
peer_from=${packed[*]} guest_start packed
ok "a machine resumes from an archive" wait_for 60 redis_up "$port"
peer_stop packed
rm -r cache packed
flip_byte packed.tar.zst $(($(stat -c %s packed.tar.zst) / 2))
refused "an archive with one flipped byte" 1 'archive packed.tar.zst: .*(damaged|checksum|digest)' "${packed[@]}" --overlay-dir n
truncate -s $(($(stat -c %s packed.tar.zst) / 2)) packed.tar.zst
refused "a truncated archive" 1 'archive packed.tar.zst: .*(cut off|damaged|checksum)' "${packed[@]}" --overlay-dir n
is "nothing half-extracted stays" "$(find cache -mindepth 1 -maxdepth 1 -type d)" ""
rm -r mute packed.tar.zst
cp --sparse=always package/memory.bin other/memory && mv other/memory other/memory.bin
ln -f package/config.json other/config.json
flip_byte other/memory.bin 12345678
refused "a package with one flipped byte" 1 'device memory.*damaged' --package other --overlay-dir n --verify
rm -r other

# The disk below the overlays is full.
mkdir small && mount -t tmpfs -o size=3m small small
guest_network small
peer_start small "${network[@]}"
peer_up small 120
redis "$port" 'SETRANGE dirty 20000000 x' >/dev/null
kill -TERM "$(peer_pid small)"
peer_wait small 120
like "a full disk under the overlays is an error that says so" "$peer_status $(tail -n 5 small.log)" '^1 .*No space left'
refused "what was half kept is refused" 1 'was not suspended.*--fresh' --package package --overlay-dir small
mount -o remount,size=400m small
guest_start small --fresh
ok "with room there, it starts afresh" wait_for 60 redis_up "$port"
is "from the package, which is as it was" "$(redis "$port" DBSIZE)" :0
peer_stop small
umount small

refused "another hypervisor's" 1 'saved by firecracker' --package package --overlay-dir n --hypervisor qemu
ok "nothing of all that stays" vms_empty
