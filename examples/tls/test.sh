#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# examples/tls: a machine moves between peers that know each other, and to no stranger
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/machine.sh"
. "$TEST_TOP/tests/lib/peer.sh"
requires_command qemu-system-x86_64
requires_command mmdebstrap
requires_command openssl
requires_file /dev/fuse
[ "$(uname -m)" = x86_64 ] || skip_all "emulates x86_64 only"
pkg=$(package_shared) || skip_all "cannot make a package"
plan 9

ok "certificates for two hosts" "$TEST_TOP/examples/tls/make-certificates.sh" tls alpha beta
ok "and a stranger's own" "$TEST_TOP/examples/tls/make-certificates.sh" stranger beta
as() { echo "--tls-ca $1/ca.pem --tls-cert $1/$2.pem --tls-key $1/$2.key"; }

port=$(machine_pick_port)
at=$(machine_pick_port)
# shellcheck disable=SC2046 # words
peer_from="--package $pkg" peer_start alpha --net user --forward "tcp:127.0.0.1:$port-:6379" \
    --laddr "tls:127.0.0.1:$at" $(as tls alpha)
ok "the source listens" wait_line 120 alpha.log Listening
wait_for 60 redis_up "$port"
is "its machine has data" "$(redis "$port" 'SET greeting hello')" +OK
fails "a stranger gets nothing" 1 '[Tt][Ll][Ss]|certificate' timeout 60 drafter-peer --package stolen --laddr '' \
    --chroot-base-dir vms --net user --raddr "tls:127.0.0.1:$at" $(as stranger beta)
is "the machine runs on" "$(redis "$port" 'STRLEN greeting')" :5

moved=$(machine_pick_port)
peer_from='--package moved' peer_start beta --net user --forward "tcp:127.0.0.1:$moved-:6379" \
    --laddr '' --raddr "tls:127.0.0.1:$at" $(as tls beta)
ok "the other host gets it" wait_for 120 redis_up "$moved"
is "with its data" "$(redis "$moved" 'STRLEN greeting')" :5
peer_wait alpha
is "the source ends well" "$peer_status" 0
peer_stop beta
