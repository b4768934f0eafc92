# SPDX-License-Identifier: Apache-2.0
# lib.sh - for benchmarks: rounds, medians, ratios against the alternative in the same run
#
#   . tests/bench/lib.sh          (in the project's folder)
#   bench_begin oci               $work: an empty folder that is removed at the end
#   bench NAME COMMAND...         runs it once, keeps its seconds and peak memory under NAME
#   median NAME                  of all runs of NAME so far, seconds
#   memory NAME                   the largest peak so far, KiB
#   judge TEXT VALUE OP LIMIT     one line of the result; a miss makes bench_end fail
#
# Alternate the contestants within a round: a machine's mood then hits all of them.
set -euo pipefail
export LC_ALL=C.UTF-8
PATH=$PWD/tools:$PWD/runtime:$PATH
declare -A bench_times bench_memory
bench_missed=0
bench_folders=()
trap 'chmod -R u+rwx "${bench_folders[@]}" 2>/dev/null; rm -rf "${bench_folders[@]}"' EXIT

bench_begin() { # NAME: sets $work
    mkdir -p "${OUTPUT_DIR:-out}/bench"
    work=$(mktemp -d "$(cd "${OUTPUT_DIR:-out}/bench" && pwd)/$1.XXXXXX")
    bench_folders+=("$work")
}
bench_need() {
    local c
    for c; do
        command -v "$c" >/dev/null || { echo "bench: $c is not installed: run 'make depend'" >&2; exit 1; }
    done
}
bench() {
    local name=$1 out
    shift
    if ! command time -f '%e %M' "$@" >/dev/null 2>"$work/bench.err"; then
        echo "bench: $*: failed" >&2
        tail -n 5 "$work/bench.err" >&2
        exit 1
    fi
    out=$(tail -n 1 "$work/bench.err")
    bench_times[$name]+=" ${out% *}"
    [ "${out#* }" -le "${bench_memory[$name]:-0}" ] || bench_memory[$name]=${out#* }
}
median() { printf '%s\n' ${bench_times[$1]} | sort -n | awk '{v[NR] = $1} END {print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2}'; }
memory() { echo "${bench_memory[$1]}"; }
calculate() { awk "BEGIN {printf \"%.2f\", $*}"; }
judge() {
    local verdict=ok
    awk "BEGIN {exit !($2 $3 $4)}" || { verdict=MISSED; bench_missed=1; }
    printf '  %-58s %10s  (%s %s)  %s\n' "$1" "$2" "$3" "$4" "$verdict"
}
bench_end() { exit $bench_missed; }
