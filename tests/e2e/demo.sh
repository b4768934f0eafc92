#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# demo.sh - `make demo` from its blueprint on: Ctrl-C in the middle of the migration leaves nothing behind, and the next
# run goes the whole way
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/machine.sh"
. "$TEST_TOP/tests/lib/peer.sh"
requires_root
for c in qemu-system-x86_64 mmdebstrap unshare ip perl; do requires_command $c; done
requires_file /dev/fuse
[ "$(uname -m)" = x86_64 ] || skip_all "emulates x86_64 only"
if [ -z "${DEMO_INSIDE:-}" ]; then
    bp=$(blueprint_shared) || skip_all "cannot make a blueprint"
    pkg=$(package_shared) || skip_all "cannot make a package"
    mkdir out
    ln -s "$bp" out/blueprint
    ln -s "$pkg" out/package
    # Its ports are fixed: it gets a network of its own.
    export DEMO_INSIDE=1
    own_mounts --net -- "$0"
fi
plan 7
ip link set lo up

# As a terminal does: the signal goes to the whole group, in which it is not ignored.
perl -e '$SIG{INT} = "DEFAULT"; setpgrp; exec @ARGV' "$TEST_TOP/tools/demo.sh" "$PWD/out" >first.log 2>&1 &
demo=$!
cleanup kill -9 -- -$demo
ok "machines are moved" wait_line 120 first.log '^moving machine one'
ok "(the target has begun)" wait_line 60 out/demo/three.log 'Migrating from'
kill -INT -- -$demo
wait $demo
is "Ctrl-C ends it" $? 130
# Who watches over a mount ends when its peer has, a moment later.
ok "with all its processes" wait_for 60 eval "! kill -0 -- -$demo"
ok "and without mounts" eval '! grep -F "$PWD/out" /proc/self/mounts'
is "nor files" "$(ls -A out)" $'blueprint\npackage'
ok "the next run goes the whole way" "$TEST_TOP/tools/demo.sh" "$PWD/out"
diag "$(cat cmd.log)"
