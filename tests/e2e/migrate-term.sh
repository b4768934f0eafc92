#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# migrate-term.sh - signals, and a person's --take-back, while a machine is between two peers
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/machine.sh"
. "$TEST_TOP/tests/lib/peer.sh"
requires_command qemu-system-x86_64
requires_command "${CC:-gcc}"
requires_file /dev/fuse
[ "$(uname -m)" = x86_64 ] || skip_all "emulates x86_64 only"
plan 28

"${CC:-gcc}" -D_GNU_SOURCE -O2 -pthread -I"$TEST_TOP" -o wire "$TEST_TOP/tests/lib/wire/wire.c"
testguest_package package 2>snapshotter.log || skip_all "no package: $(tail -n 1 snapshotter.log)"

# hold NAME SOURCE SIDE TYPE: a wire to peer SOURCE which holds SIDE's first frame of that type.
hold() {
    ./wire --harm hold --from "$3" --type "$4" "$1.sock" "$2.sock" <> <(:) >"$1.log" 2>&1 &
    wire=$!
    cleanup kill -9 $wire
    wait_line 60 "$1.log" listening
}
held() { wait_line 60 "$1.log" struck; }
# cut NAME SOURCE: that wire is gone; when the source has noticed, there is a new one.
cut() {
    kill -9 $wire
    wait_line 60 "$2.log" 'Lost the target after the commit, waiting for it|has not confirmed' || return 1
    : >"$1.log"
    ./wire "$1.sock" "$2.sock" >"$1.log" 2>&1 &
    cleanup kill -9 $!
    wait_line 60 "$1.log" listening
}
source_of() { # NAME [OPTION...]
    peer_start "$1" --laddr "unix:$1.sock" --early-postcopy --bandwidth-limit 512K "${@:2}"
    wait_line 60 "$1.log" Listening
}
target_of() { # NAME WIRE [OPTION...]
    peer_from="--package arrived-$1" peer_start "$1" --raddr "unix:$2.sock" --laddr "unix:$1.sock" "${@:3}"
}
ends() { peer_wait "$1" && [ "$peer_status" = 0 ]; } # NAME: within a minute, with 0

# -- the target runs it, and the source has not heard of that: it keeps what the target lacks --
source_of a
hold w1 a target 10
target_of t w1 --early-postcopy --bandwidth-limit 512K
ok "the source has committed, its target runs" held w1
wait_line 60 t.log 'Machine runs here'
fails "nobody takes the machine back from under it" 1 'in use by' \
    timeout 60 drafter-peer --package package --overlay-dir a --chroot-base-dir vms "${peer_hypervisor[@]}" --take-back
ok "nor is the record touched" [ -e a/memory.bin.overlay.moved ]
fails "nor does --fresh with it" 1 'in use by' \
    timeout 60 drafter-peer --package package --overlay-dir a --chroot-base-dir vms "${peer_hypervisor[@]}" --take-back --fresh
ok "nor is the record touched by that" [ -e a/memory.bin.overlay.moved ]
kill -TERM "$(peer_pid a)"
ok "SIGTERM to the source has to wait" wait_line 60 a.log 'Told to end, which has to wait.*target needs'
kill -USR1 "$(peer_pid t)"
ok "the link breaks for a while" cut w1 a
ok "and is taken up again" wait_line 60 t.log 'Took the link to the source up again'
ok "the target gets all" wait_line 120 t.log 'Completed all device migrations'
[ $tap_failed = 0 ] || exit 1 # what follows would only wait
ok "and the source ends well" ends a
ok "saying that it is gone" grep -q 'Finished all migrations' a.log
ok "the machine is whole" guest_verify t
fails "it is the target's alone" 1 'was moved to' \
    timeout 60 drafter-peer --package package --overlay-dir a --chroot-base-dir vms "${peer_hypervisor[@]}"

# -- the same with a target that is told to end: it takes in what it needs first --
hold w2 t target 10
target_of u w2 --early-postcopy
ok "it goes on to another" held w2
wait_line 60 u.log 'Machine runs here'
kill -TERM "$(peer_pid u)"
ok "SIGTERM to that one has to wait" wait_line 60 u.log 'Told to end, which has to wait.*taken in first'
ok "while its link breaks" cut w2 t
ok "until it has everything" wait_line 120 u.log 'Completed all device migrations'
[ $tap_failed = 0 ] || exit 1
ok "then it suspends the machine" ends u
ok "and its source ends" ends t
peer_from='--package arrived-u' peer_start again
ok "the machine goes on from there" peer_up again
ok "whole" guest_verify again
peer_stop again

# -- the word to run it is on its way, and the target is told to end: it never runs it --
source_of b
hold w3 b source 9
target_of v w3
ok "the word is on its way" held w3
kill -TERM "$(peer_pid v)"
peer_wait v
is "the target ends, without the machine" "$peer_status $(ls arrived-v 2>/dev/null)" "1 "
ok "the source hears that it never ran there" wait_line 60 b.log 'Migration failed, the machine runs on here'
ok "where it is whole" guest_verify b
ok "and the record gone" [ ! -e b/memory.bin.overlay.moved ]
ok "it is suspended when the source is told" peer_stop b
ok "nothing is left behind" vms_empty
