#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# peer-redis.sh - a database in a Linux guest: snapshot, clones, suspended and resumed, moved
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/machine.sh"
. "$TEST_TOP/tests/lib/peer.sh"
requires_command qemu-system-x86_64
requires_command mmdebstrap
requires_file /dev/fuse
[ "$(uname -m)" = x86_64 ] || skip_all "emulates x86_64 only"
bp=$(blueprint_shared) || skip_all "cannot make a blueprint"
plan 28

# The snapshot is taken with redis up: its "Ready" line comes after the guest's call.
snapshot() {
    drafter-snapshotter --blueprint "$bp" --output "$1" --chroot-base-dir vms --hypervisor qemu --accel tcg --net user \
        --memory-size 256 --resume-timeout "${resume_timeout:-3m}" "${@:2}"
}
ok "a package is made of the blueprint" snapshot first
ok "nothing else is left" vms_empty

# Data comes in through a first machine; what it was when suspended is what the clones start from.
port=$(machine_pick_port)
peer_from='--package first' peer_start seed --net user --forward "tcp:127.0.0.1:$port-:6379"
ok "it resumes" peer_up seed 120
ok "redis answers" wait_for 120 redis_up "$port"
is "a value is set" "$(redis "$port" 'SET before snapshot')" +OK
for i in 1 2 3; do
    redis "$port" "SET round$i $i" >/dev/null
    ok "suspend $i" peer_stop seed
    peer_from='--package first' peer_start seed --net user --forward "tcp:127.0.0.1:$port-:6379"
    peer_up seed 120
    is "after resume $i all is there" "$(redis "$port" DBSIZE)" ":$((i + 1))"
done
like "the guest's clock was set" "$(tr -d '\r' <seed.out)" 'Set the clock'
peer_stop seed

# Three clones at once.
for c in c1 c2 c3; do
    cp -r --sparse=always seed "$c"
    eval "port_$c=$(machine_pick_port)"
    eval "peer_from='--package first' peer_start $c --net user --forward tcp:127.0.0.1:\$port_$c-:6379"
done
for c in c1 c2 c3; do
    eval "port=\$port_$c"
    peer_up "$c" 120
    is "clone $c has the data" "$(redis "$port" 'STRLEN before')" :8
    redis "$port" "SET mine $c" >/dev/null
done
for c in c1 c2 c3; do
    eval "port=\$port_$c"
    is "and its own" "$(redis "$port" "EVAL \"return redis.call('GET','mine')=='$c' and 1 or 0\" 0")" :1
done
ok "a clone is suspended" peer_stop c3

# An agent that never answers: an error that says so, and a machine that is kept.
cp -al first mute
rm mute/config.json
sed 's/"agentVSockPort": 26/"agentVSockPort": 27/' first/config.json >mute/config.json
fails "an agent that never answers" 1 'agent.*after-resume' \
    drafter-peer --package mute --overlay-dir c3 --chroot-base-dir vms --net user --resume-timeout 2s
peer_from='--package first' peer_start c3 --net user --forward "tcp:127.0.0.1:$port_c3-:6379"
peer_up c3 120
is "loses nothing" "$(redis "$port_c3" 'EXISTS before mine')" :2
peer_stop c3

# Moved under writes.
target=$(machine_pick_port)
peer_stop c1
peer_from='--package first' peer_start c1 --net user --forward "tcp:127.0.0.1:$port_c1-:6379" --laddr unix:c1.sock
wait_line 120 c1.log Listening
written=0
peer_from='--package first' peer_start t --net user --forward "tcp:127.0.0.1:$target-:6379" --raddr unix:c1.sock
until peer_ended c1; do
    answer=$(redis "$port_c1" "SET key$((written + 1)) $written" 2>/dev/null) || break
    [ "$answer" = +OK ] && written=$((written + 1))
done
ok "the move is done" wait_line 120 t.log 'Completed all device migrations'
peer_wait c1
is "the source ended well" "$peer_status" 0
diag "$written writes during the move; $(grep -a 'Finished all' c1.log)"
ok "redis answers on the target" wait_for 60 redis_up "$target"
is "the last acknowledged write is there" "$(redis "$target" "EXISTS key$written before mine")" :3
is "and all before it" "$(redis "$target" "EVAL \"for i=1,$written do if redis.call('EXISTS','key'..i)==0 then return i end end return 0\" 0")" :0
ok "the target is suspended" peer_stop t
peer_stop c2
ok "nothing is left behind" vms_empty
