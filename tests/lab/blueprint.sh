#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# blueprint.sh - a blueprint in Firecracker, by the command of blueprint/README.md, on a host with KVM (see lib.sh)
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/peer.sh"
. "$TEST_TOP/tests/lab/lib.sh"
[ -n "${FIRECRACKER_BIN:-}" ] || skip_all "needs FIRECRACKER_BIN"
requires_command mmdebstrap
requires_command jq
bp=$(blueprint_shared) || { echo "Bail out! no blueprint"; exit 1; }
plan 7

lab_begin virtio_pci virtio_blk tun || { echo "Bail out! no lab"; exit 1; }
lab_add_program "$FIRECRACKER_BIN" /bin/firecracker
lab_add_program "$(command -v jq)" /bin/jq
lab_add_program "$TEST_TOP/tools/guestctl" /bin/guestctl
# The command as it is documented: the indented lines below the heading.
sed -n '/^## In Firecracker/,/^## /s/^    //p' "$TEST_TOP/blueprint/README.md" >"$lab_root/lab/documented"
is "the command is documented" "$(grep -c '^firecracker ' "$lab_root/lab/documented")" 1

lab_disk "$bp"
lab_qemu=("${lab_disk[@]}")

# Variables of the machine's own network go in from outside, the rest is the outer machine's.
. "$TEST_TOP/blueprint/rootfs/overlay/etc/network.conf"
lab_run 900 "host6=$GATEWAY6 guest6=${ADDRESS6%/*}"'
mkdir -p out/blueprint && mount -t ext4 /dev/vda out/blueprint
mkdir -p /dev/net && [ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
tunctl -t tap0 >/dev/null && ip addr add 172.16.0.1/30 dev tap0 && ip link set tap0 up
ip -6 addr add $host6/64 dev tap0
guestctl --vsock-path vsock.sock --timeout 14m liveness before-suspend after-resume >acts 2>guestctl.log &
guestctl=$!
until grep -q Listening guestctl.log; do usleep 100000; done
mkfifo keys && exec 8<>keys
sh ./documented <keys >console 2>&1 &
wait $guestctl
echo "liveness and agent: $?"
cat acts
until echo PING | nc -w 3 172.16.0.2 6379 >answer 2>/dev/null && grep PONG answer; do usleep 200000; done
until ping -6 -c 1 -W 2 $guest6 >/dev/null; do usleep 200000; done
echo "it answers over IPv6"
echo >&8
echo reboot >&8
wait %2
echo "firecracker: $?"
tail -n 60 console
' >lab.log 2>&1
tail -n 80 lab.log | tr -d '\r' | sed 's/^/  # /'
like "Firecracker starts the machine" "$(cat lab.log)" 'main: '
like "liveness and agent answer through its vsock device" "$(cat lab.log)" 'liveness and agent: 0'
like "redis answers" "$(cat lab.log)" '\+PONG'
like "so does the machine over IPv6" "$(cat lab.log)" 'it answers over IPv6'
like "it shuts down on its own terms" "$(cat lab.log)" 'bye bye'
like "and Firecracker ends" "$(cat lab.log)" 'firecracker: 0'
