#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# boot.sh - from QEMU's exec to redis answering, against the same kernel that only prints and powers off
#
# Run by `make bench/boot`, on $OUTPUT_DIR/blueprint. Both in turn, BENCH_ROUNDS times (default 5), medians; exit
# status 1 when the ratio is over 2.5.
set -euo pipefail
output=$(cd "${OUTPUT_DIR:-out}" && pwd)
bp=$output/blueprint
rounds=${BENCH_ROUNDS:-5}
export TEST_TOP=$PWD
rm -rf "$output/bench/boot"
mkdir -p "$output/bench/boot"
cd "$output/bench/boot"
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/machine.sh"

mkdir -p bare/dev
"${GUEST_CC:-musl-gcc}" -static -Os -o bare/init "$TEST_TOP/tests/bench/poweroff.c"
(cd bare && printf '%s\n' . dev init | cpio -o -H newc --quiet) >bare.img
args=$(jq -r .bootArgs "$bp/blueprint.json")

now() { date +%s%N; }
bare() {
    local t
    t=$(now)
    qemu-system-x86_64 -machine q35 -accel tcg,thread=multi -cpu max -m 512 -nodefaults -display none -no-reboot \
        -serial file:bare.console -kernel "$bp/vmlinux" -initrd bare.img -append "$args"
    grep -q up bare.console
    echo $((($(now) - t) / 1000000))
}
full() {
    local t
    t=$(now)
    machine_patience=0.1
    machine_start "$bp"
    wait_for 300 machine_ping
    took=$((($(now) - t) / 1000000))
    kill "$machine"
    wait "$machine" 2>/dev/null || :
}
median() { sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }

for ((i = 0; i < rounds; i++)); do
    bare >>bare.ms
    full
    echo "$took" >>full.ms
done
b=$(median <bare.ms)
f=$(median <full.ms)
set +e # the cleanups of functions.sh may fail
awk -v b="$b" -v f="$f" -v n="$rounds" 'BEGIN {
    printf "boot: redis answers after %d ms, bare kernel ends after %d ms, ratio %.2f (at most 2.5; median of %d)\n", f, b, f / b, n
    exit f > 2.5 * b }'
