#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# run.sh - runs test programs that speak TAP and sums up
#
#   run.sh WORKDIR PROGRAM...
#
# Each program runs in an empty folder of its own, JOBS at a time (default: one per
# processor), at most TEST_TIMEOUT seconds (default 600; a script that says "# timeout: SECONDS" in its first lines has so
# much longer). Its output is kept in WORKDIR/NAME.log.
# Shown are failures, with their log, and what was skipped, with the reason; the last line is
# "N passed, N failed, N skipped". A program that prints no plan, ends early or exits non-zero
# without a "not ok" counts as one failure. Exit status 1 when anything failed.
set -u

work=$1
shift
jobs=${JOBS:-$(nproc)}
limit=${TEST_TIMEOUT:-600}
top=$PWD
rm -rf "$work"
mkdir -p "$work"
work=$(cd "$work" && pwd)
export TEST_TOP=$top

run_one() {
    local program=$1 name dir status start more=
    name=$(printf '%s' "$program" | tr / - | sed 's/^out-obj-//; s/^tests-//')
    # A short path: sockets of machines have room for 107 bytes (unix(7)). Others may pass through it.
    dir=$(mktemp -d "${TMPDIR:-/tmp}/dt.XXXXXX") && chmod 755 "$dir" || exit 1
    case $program in /*) ;; *) program=$top/$program ;; esac
    start=$SECONDS
    case $program in *.sh) more=$(sed -n '1,20s/^# timeout: \([0-9]*\)$/\1/p' "$program") ;; esac
    (cd "$dir" && exec timeout -k 10 $((limit + ${more:-0})) "$program") >"$work/$name.log" 2>&1 </dev/null
    status=$?
    awk -v status=$status -v name="$name" '
        /^1\.\.[0-9]+/ { planned = substr($1, 4) + 0; plan = 1; if (/# SKIP/) { sub(/.*# SKIP */, ""); all = $0 } }
        /^ok /     { seen++; if (/# SKIP/) { skipped++; t = $0; sub(/^ok [0-9]+ *-? */, "", t); print "skip " name ": " t } else passed++ }
        /^not ok / { seen++; if (/# TODO/) skipped++; else { failed++; t = $0; sub(/^not ok [0-9]+ *-? */, "", t); print "FAIL " name ": " t } }
        END {
            if (all != "") { print "skip " name ": all: " all; skipped++ }
            else if (status == 124 || status == 137) { failed++; print "FAIL " name ": timed out" }
            else if (!plan) { failed++; print "FAIL " name ": printed no plan (exit status " status ")" }
            else if (seen != planned) { failed++; print "FAIL " name ": " seen " of " planned " tests ran (exit status " status ")" }
            else if (status != 0 && !failed) { failed++; print "FAIL " name ": exit status " status }
            print "count " passed + 0, failed + 0, skipped + 0
        }' "$work/$name.log" >"$work/$name.sum"
    if grep -q '^FAIL' "$work/$name.sum"; then
        { grep '^FAIL' "$work/$name.sum"; tail -n 60 "$work/$name.log" | sed 's/^/    | /'; }
    elif [ "${V:-0}" = 1 ] || [ -t 1 ]; then
        printf '  %-7s %s (%d s)\n' ok "$name" $((SECONDS - start))
    fi
    ! grep -q '^FAIL' "$work/$name.sum" || echo "    | its folder: $dir"
    # What a passing test left behind is of no use to anyone; unshared folders may need a chmod.
    grep -q '^FAIL' "$work/$name.sum" || { chmod -R u+rwx "$dir" 2>/dev/null; rm -rf "$dir"; }
}
export -f run_one
export work limit top

trap 'kill 0' INT TERM
printf '%s\0' "$@" | xargs -0 -r -n 1 -P "$jobs" bash -c 'run_one "$1"' _

cat "$work"/*.sum 2>/dev/null | grep '^skip ' | sort | uniq
cat "$work"/*.sum 2>/dev/null | grep '^FAIL ' | sort
cat "$work"/*.sum 2>/dev/null | awk '
    /^count / { p += $2; f += $3; s += $4 }
    END { printf "%d passed, %d failed, %d skipped\n", p, f, s; exit f > 0 || p == 0 }'
