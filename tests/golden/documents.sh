#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# documents.sh - what README, FAQ and the pages of folders name is there: files, goals, variables, programs, options
. "$TEST_TOP/tests/lib/functions.sh"

top=$TEST_TOP
mapfile -t documents < <(cd "$top" && find . -maxdepth 3 -name '*.md' ! -path './out/*' -printf '%P\n' | sort)
plan $((4 * ${#documents[@]} + 2))

make -C "$top" --no-print-directory -s help >help
sed -n '/^Goals:/,/^Variables/p' help | grep -oE '^  [a-z][a-z/, ]*' | tr ', ' '\n\n' | grep . >goals
grep -ohE '^\.PHONY:.*' "$top"/mk/*.mk "$top"/*/*.mk | tr ' ' '\n' >>goals
sed -n '/^Variables/,$p' help | grep -oE '^  [A-Z][A-Z_, ]*' | tr ', ' '\n\n' | grep . >variables

# Lines of a document that people paste, with continued ones joined: indented or fenced code, and `inline code`.
commands() {
    sed -e ':a' -e '/\\$/N; s/\\\n */ /; ta' "$top/$1" |
        awk '/^ *```/ { fenced = !fenced; next }
            fenced || /^    / { print; next }
            { while (match($0, /`[^`]+`/)) { print substr($0, RSTART + 1, RLENGTH - 2); $0 = substr($0, RSTART + RLENGTH) } }'
}
links_exist() {
    local link dir
    dir=$(dirname "$top/$1")
    while read -r link; do
        [ -e "$dir/$link" ] || { echo "$1: no file $link"; return 1; }
    done < <(grep -oE '\]\([^)#:]+\)' "$top/$1" | sed 's/^](//; s/)$//')
    # Paths of the project in code, as far as they are no results and no placeholders.
    while read -r link; do
        [ -e "$top/$link" ] || [ -e "$dir/$link" ] || compgen -G "$top/$link*" >/dev/null || { echo "$1: no file $link"; return 1; }
    done < <(commands "$1" | grep -oE '(^|[ (])(examples|runtime|tools|tests|mk|oci|blueprint)/[A-Za-z0-9_./-]+' |
        sed 's/^[ (]//; s/[.,]$//' | sort -u)
}
goals_exist() { # `make a b NAME=value`
    local word
    for word in $(commands "$1" | grep -oE '(^|[$(; ] ?)make( [a-z][a-z/]*)+' | sed 's/.*make //'); do
        grep -qxF -e "$word" goals || { echo "$1: no goal $word"; return 1; }
    done
}
variables_exist() {
    local word
    for word in $(commands "$1" | grep -E '(^|[$ ])make ' | grep -oE ' [A-Z][A-Z_]+=' | tr -d ' ='); do
        grep -qxF -e "$word" variables || { echo "$1: no variable $word"; return 1; }
    done
}
options_exist() { # of our programs, up to the next program, pipe or comment on the line
    local program option line
    while read -r program line; do
        [ -x "$top/runtime/$program" ] || [ -x "$top/tools/$program" ] || { echo "$1: no program $program"; return 1; }
        "$program" --help >"help.$program" 2>&1
        for option in $(grep -oE '(^| )--[a-z0-9-]+' <<<"$line"); do
            grep -qE -- "(^|[ ,])$option( |\$)" "help.$program" || { echo "$1: $program has no $option"; return 1; }
        done
    done < <(commands "$1" | sed 's/ #.*//; s/[|;&]/\n/g' | grep -oE '(^|[ /])(drafter|oci|blueprint|rootfs)-[a-z]+ .*' |
        sed 's/^[ /]//' | grep -vE '^(oci-archive|drafter-agent|drafter-liveness|oci-runtime-bundle)')
}
for d in "${documents[@]}"; do
    ok "$d: files are there" links_exist "$d"
    ok "$d: goals are there" goals_exist "$d"
    ok "$d: variables are there" variables_exist "$d"
    ok "$d: programs have these options" options_exist "$d"
done

every_example() {
    local e
    for e in "$top"/examples/*/; do
        e=${e%/} e=${e##*/}
        [ -s "$top/examples/$e/README.md" ] || { echo "examples/$e has no README.md"; return 1; }
        [ -x "$top/examples/$e/test.sh" ] || [ -x "$top/tests/e2e/$e.sh" ] || { echo "examples/$e has no test.sh"; return 1; }
        grep -qF "examples/$e" "$top/README.md" || { echo "README.md does not name examples/$e"; return 1; }
    done
}
ok "every example has a page, a test, and its place in README" every_example

# In a clone in which nothing is built yet, too.
benches_have_guests() {
    local b
    make -C "$top" --no-print-directory -qp help >rules 2>/dev/null
    grep -q '^bench:' rules || { echo 'make knows no bench'; return 1; }
    for b in "$top"/tests/bench/*.sh; do
        b=${b##*/} b=${b%.sh}
        ! grep -qF '/tests/guest/testguest' "$top/tests/bench/$b.sh" || grep -q "^bench/$b:.* tests/guest/testguest" rules ||
            { echo "make bench/$b does not make the test guest"; return 1; }
        ! grep -qE '^bp=' "$top/tests/bench/$b.sh" || grep -qE "^bench/$b:.* blueprint( |$)" rules ||
            { echo "make bench/$b does not make the blueprint"; return 1; }
    done
}
ok "benchmarks are made with what they boot" benches_have_guests
