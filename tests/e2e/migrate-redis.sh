#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# migrate-redis.sh - a database with 256 MiB of keys, moved between two hosts while it is written to
#
# The hosts are two network namespaces with a cable between them. On the source's a client writes one key
# after the other and notes what was acknowledged, and redis-benchmark (where it is installed) writes as
# fast as it can; both go through the host's forwarded port. What was acknowledged is there afterwards.
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/peer.sh"
. "$TEST_TOP/tests/lib/redis.sh"
requires_root
for c in ip unshare qemu-system-x86_64 mmdebstrap; do requires_command $c; done
requires_file /dev/fuse
[ "$(uname -m)" = x86_64 ] || skip_all "emulates x86_64 only"
if [ -z "${MIGRATE_REDIS_INSIDE:-}" ]; then
    bp=$(blueprint_shared) || skip_all "cannot make a blueprint"
    export MIGRATE_REDIS_INSIDE=$bp
    own_mounts --net -- "$0"
fi
mount -t tmpfs tmpfs /run && mkdir /run/netns || exit 1
plan 11

keys=16384 # of 16 KiB
for n in 1 2; do
    ip netns add host$n
    ip -n host$n link set lo up
done
ip link add cable1 netns host1 type veth peer name cable2 netns host2
for n in 1 2; do
    ip -n host$n address add 10.77.0.$n/24 dev cable$n
    ip -n host$n link set cable$n up
done
on() { # HOST COMMAND...
    local h=$1
    shift
    nsenter --net="/run/netns/host$h" "$@"
}
# ask HOST COMMAND: redis there, through that host's forwarded port.
redis_clients
ask() { on "$1" bash ask.sh "${@:2}" 2>/dev/null; }
answers() { [ "$(ask "$1" PING)" = +PONG ]; }
digest() { ask "$1" "$(redis_sum $keys)" 300; }
host_peer() { # HOST NAME PACKAGE [OPTION...]
    local h=$1 name=$2 package=$3
    shift 3
    : >"$name.log"
    nsenter --net="/run/netns/host$h" drafter-peer --overlay-dir "$name" --chroot-base-dir vms --hypervisor qemu --accel tcg --package "$package" --net user \
        --forward tcp:127.0.0.1:6379-:6379 "$@" >"$name.out" 2>"$name.log" </dev/null &
    eval "peer_$name=$!"
    cleanup kill -9 $!
}

ok "a package is made of the blueprint" on 1 drafter-snapshotter --blueprint "$MIGRATE_REDIS_INSIDE" --output package --chroot-base-dir vms \
    --hypervisor qemu --accel tcg --net user --memory-size 512 --resume-timeout 5m
host_peer 1 source package --laddr 10.77.0.1:7000
ok "it runs on the first host" wait_line 120 source.log 'Listening for'
ok "redis answers" wait_for 120 answers 1
is "256 MiB of keys are set" "$(ask 1 "$(redis_fill $keys)" 300)" ":$keys"
before=$(digest 1)
like "they have a checksum" "$before" '^[0-9a-f]{40}$'

on 1 bash write.sh &
cleanup kill $!
if command -v redis-benchmark >/dev/null; then
    on 1 redis-benchmark -p 6379 -t set -r 4096 -d 1024 -n 100000000 -c 4 -q >benchmark.log 2>&1 &
    cleanup kill $!
fi
wait_for 60 test -s acknowledged
host_peer 2 target arrived --raddr 10.77.0.1:7000
ok "it moves" wait_line 300 target.log 'Completed all device migrations'
peer_wait source
is "the source has let go" "$peer_status" 0
written=$(cat acknowledged)
diag "$written writes acknowledged one by one; $(grep -a 'Finished all' source.log | sed 's/.*migrations//')"
ok "redis answers on the second host" wait_for 120 answers 2
is "every acknowledged write is there" "$(ask 2 "$(redis_wrote "$written")" 120)" all
is "and every key" "$(digest 2)" "$before"
ok "it is suspended there" peer_stop target
