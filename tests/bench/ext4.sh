#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# ext4.sh - oci-pack against a right-sized mke2fs -d, in turns, on a tree of Debian packages
#
# Usage: ext4.sh [TREE]. Without TREE mmdebstrap makes one (needs a Debian mirror). Both fsync what
# they write. Prints medians of RUNS (default 5) as ratios.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/bench-ext4.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
tree=${1:-$work/tree}
[ -d "$tree" ] || mmdebstrap --quiet --variant=extract --include=perl,python3,git,vim,redis-server bookworm "$tree" >/dev/null 2>&1
bytes=$(du -s --block-size=1 "$tree" | cut -f1)
files=$(find "$tree" | wc -l)
echo "tree: $((bytes / 1000000)) MB allocated, $files files"

median() { sort -n "$1" | awk '{v[NR]=$1} END {print v[int((NR + 1) / 2)]}'; }
timed() { # LOG COMMAND...: appends "seconds kilobytes"
    local log=$1
    shift
    /usr/bin/time -a -o "$log" -f '%e %M' "$@"
}
pack() { rm -f ours.img; timed "$1" "$top/tools/oci-pack" --log-level warn --free 0 --output ours.img "$2"; }
runs=${RUNS:-5}
for _ in $(seq "$runs"); do
    pack ours.log "$tree"
    rm -f mke2fs.img
    truncate -s "$(($(stat -c %s ours.img) + (48 << 20)))" mke2fs.img
    timed mke2fs.log mke2fs -q -t ext4 -m 0 -d "$tree" mke2fs.img
done
a=$(median ours.log) b=$(median mke2fs.log)
awk -v a="$a" -v b="$b" 'BEGIN {printf "pack: %.2f s, mke2fs -d: %.2f s, ratio %.1f (goal 3)\n", a, b, b / a}'
awk -v i="$(($(stat -c %b ours.img) * 512))" -v t="$bytes" 'BEGIN {printf "allocated: %.3f of the tree (goal 1.03)\n", i / t}'
echo "peak memory: $(sort -k2n ours.log | tail -1 | awk '{printf "%.1f", $2 / 1024}') MiB (goal 96)"
# Linear: a part of the tree 1, 4 and 16 times.
one=
for n in 1 4 16; do
    mkdir many
    rm -f scale.log
    for i in $(seq "$n"); do
        mkdir "many/$i"
        cp -a "$tree/usr/share" "many/$i/"
    done
    for _ in 1 2 3; do pack scale.log many; done
    t=$(median scale.log)
    one=${one:-$t}
    awk -v n="$n" -v t="$t" -v o="$one" 'BEGIN {printf "%dx: %.2f s, %.1f times 1x\n", n, t, t / o}'
    rm -rf many
done
