#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# manual.sh - every program has a manual page that renders clean; page, --help and completion agree
. "$TEST_TOP/tests/lib/functions.sh"
requires_command mandoc

mains=("$TEST_TOP"/tools/*.c "$TEST_TOP"/runtime/drafter-*.c)
programs=()
for m in "${mains[@]}"; do [ ! -e "$m" ] || programs+=("${m%.c}"); done
plan $((1 + 3 * ${#programs[@]}))

for p in "${programs[@]}"; do "$p" --dump-command; done | awk -f "$TEST_TOP/mk/completion.awk" >completion
ok "the completion is a valid script" bash -n completion
. ./completion

# The options of the program on the command line "PROGRAM -".
completed() {
    COMP_WORDS=("$1" -) COMP_CWORD=1 COMPREPLY=()
    _drafter
    printf '%s\n' "${COMPREPLY[@]}" | sort
}
# The page with its source's lines told apart from the generated ones by nothing: one text.
make_page() {
    "$1" --dump-command | awk -v page="$1.1.in" -v version=1 -v date=2026-01-01 -f "$TEST_TOP/mk/man.awk" >page.1
}
clean_page() {
    make_page "$1" && mandoc -T lint -W warning page.1 >lint.log || { cat lint.log; return 1; }
    for section in NAME SYNOPSIS DESCRIPTION OPTIONS 'EXIT STATUS'; do
        [ "$(grep -cx "\.SH $section" page.1)" = 1 ] || { echo "not once: $section"; return 1; }
    done
}
for p in "${programs[@]}"; do
    name=$(basename "$p")
    : >page.1
    ok "$name: has a page without warnings" clean_page "$p"
    help=$("$p" --help | grep -oE '^  (-., )?--[a-z0-9-]+' | grep -oE -- '--[a-z0-9-]+$' | sort)
    is "$name: the page has the options of --help" \
        "$(mandoc -T utf8 page.1 | sed 's/.\x08//g' | awk '/^[A-Z]/{in_options = /^OPTIONS/} in_options' |
            grep -oE '^ {1,8}(-., )?--[a-z0-9-]+' | grep -oE -- '--[a-z0-9-]+$' | sort)" "$help"
    is "$name: the completion has the options of --help" "$(completed "$name")" "$help"
done
