#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# fuzz.sh - runs each fuzzer in $FUZZERS over its corpus, then for FUZZ_SECONDS (or FUZZ_RUNS) more
#
# New inputs stay in the test's work folder; a crash is printed with the command that repeats it, and
# its input belongs into tests/should-fail or tests/golden under a telling name.
. "$TEST_TOP/tests/lib/functions.sh"
read -r -a fuzzers <<<"${FUZZERS:-}"
plan ${#fuzzers[@]}

fuzz() {
    local name
    name=$(basename "$1")
    mkdir -p "$name"
    local corpus=$TEST_TOP/tests/fuzz/corpus/$name
    [ -d "$corpus" ] || corpus=
    local program=$1
    case $program in /*) ;; *) program=$TEST_TOP/$program ;; esac
    # shellcheck disable=SC2086
    "$program" -max_total_time="${FUZZ_SECONDS:-5}" ${FUZZ_RUNS:+-runs=$FUZZ_RUNS} -timeout=20 -rss_limit_mb=2048 \
        -print_final_stats=1 -verbosity=0 -artifact_prefix="$name-" "$name" ${corpus:+"$corpus"}
}
for f in "${fuzzers[@]}"; do
    ok "$(basename "$f")" fuzz "$f"
done
