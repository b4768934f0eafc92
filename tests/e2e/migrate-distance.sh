#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# migrate-distance.sh - moves over long and narrow links: 25 ms round trip at 1 Gbit/s, 150 ms at 100 Mbit/s
#
# tests/lib/wire stands for the link. How long things take is tests/bench/migrate.sh's matter.
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/peer.sh"
requires_command qemu-system-x86_64
requires_file /dev/fuse
[ "$(uname -m)" = x86_64 ] || skip_all "emulates x86_64 only"
"${CC:-gcc}" -D_GNU_SOURCE -O2 -pthread -I"$TEST_TOP" -o wire "$TEST_TOP/tests/lib/wire/wire.c" || skip_all "needs a C compiler"
plan 18

far_peer() { # NAME OPTION...
    local name=$1
    shift
    mkdir -p "$name/base"
    rm -f "$name.in"
    mkfifo "$name.in"
    : >"$name.log"
    drafter-peer --devices "$(quick_devices "$name")" --chroot-base-dir vms --hypervisor qemu --accel tcg --net none --enable-input \
        --laddr "unix:$name.sock" "$@" <>"$name.in" >"$name.out" 2>"$name.log" &
    eval "peer_$name=$!"
    cleanup kill -9 $!
}
link() { # MS-ONE-WAY BYTES-A-SECOND SOURCE
    ./wire --delay "$1" --rate "$2" wire.sock "$3.sock" >wire.log &
    wire=$!
    cleanup kill $wire
    wait_line 60 wire.log listening
}

ok "a package is made" testguest_package package
mkdir -p a/base
cp package/*.bin package/config.json a/base/
far_peer a
wait_line 60 a.log 'Listening for'
from=a n=0
for distance in "12.5 125000000" "75 12500000"; do
    for mode in --concurrency=0 --early-postcopy --disable-postcopy-migration "--zstd-level=3"; do
        n=$((n + 1)) to=b$n
        # shellcheck disable=SC2086
        link $distance $from
        # The source chooses when it suspends: its mode was given when it came.
        far_peer $to --raddr unix:wire.sock $mode
        ok "$from to $to, one way ${distance% *} ms" wait_line 200 $to.log 'Listening for'
        ok "its memory is intact" guest_verify $to
        diag "$(grep -a 'Finished all' $from.log | sed 's/.*addr=[^ ]* //'); $(grep -a 'Completed all' $to.log | sed 's/.*wants=/wants=/')"
        peer_wait $from
        kill $wire
        rm -rf $from
        from=$to
    done
done
ok "the last one suspends it" peer_stop $from
