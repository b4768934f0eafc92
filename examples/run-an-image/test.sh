#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# examples/run-an-image: an image boots, answers, is suspended and goes on with its data; and the same from a package
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/machine.sh"
. "$TEST_TOP/tests/lib/peer.sh"
requires_command qemu-system-x86_64
requires_command mmdebstrap
requires_file /dev/fuse
[ "$(uname -m)" = x86_64 ] || skip_all "emulates x86_64 only"
bp=$(blueprint_shared) || skip_all "cannot make a blueprint"
pkg=$(package_shared) || skip_all "cannot make a package"
plan 8

port=$(machine_pick_port)
run() {
    peer_from="--blueprint $bp" peer_start redis --net user --forward "tcp:127.0.0.1:$port-:6379" --memory-size 256 \
        --resume-timeout 5m
}
run
ok "the image's application answers" wait_for 180 redis_up "$port"
ok "what it prints is on the console" grep -q 'main: .*Ready to accept connections' redis.out
is "a value is set" "$(redis "$port" 'SET greeting hello')" +OK
ok "the machine is suspended" peer_stop redis
run
ok "the same command goes on" peer_up redis 120
is "with the data" "$(redis "$port" 'STRLEN greeting')" :5
peer_stop redis

port=$(machine_pick_port)
peer_from="--package $pkg" peer_start one --net user --forward "tcp:127.0.0.1:$port-:6379"
ok "a machine starts from a package" wait_for 120 redis_up "$port"
ok "and is suspended" peer_stop one
