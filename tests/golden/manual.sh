#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# manual.sh - every manual page renders clean, refers to pages that are there, and is installed with its program;
# of every program page, --help and completion agree
. "$TEST_TOP/tests/lib/functions.sh"
requires_command mandoc

guests=("$TEST_TOP"/blueprint/guest/drafter-{agent,liveness})
mains=("$TEST_TOP"/tools/*.c "$TEST_TOP"/runtime/drafter-*.c)
programs=()
for m in "${mains[@]}"; do [ ! -e "$m" ] || programs+=("${m%.c}"); done
mapfile -t others < <(cd "$TEST_TOP" && find blueprint oci runtime -name '*.[578]' | sort)
plan $((4 + 3 * ${#programs[@]} + 2 * ${#guests[@]} + 2 * ${#others[@]}))

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
# renders PAGE: without a warning of mandoc, nor of man where that is installed.
renders() {
    mandoc -T lint -W warning "$1" >lint.log || { cat lint.log; return 1; }
    ! command -v groff >/dev/null || ! man --warnings=w -E UTF-8 -l -Tutf8 -Z "$1" 2>&1 >/dev/null | grep .
}
clean_page() {
    make_page "$1" && renders page.1 || return 1
    for section in NAME SYNOPSIS DESCRIPTION OPTIONS 'EXIT STATUS'; do
        [ "$(grep -cx "\.SH $section" page.1)" = 1 ] || { echo "not once: $section"; return 1; }
    done
}
# Programs of the guest have no completion there.
for p in "${programs[@]}" "${guests[@]}"; do
    name=$(basename "$p")
    : >page.1
    ok "$name: has a page without warnings" clean_page "$p"
    help=$("$p" --help | grep -oE '^  (-., )?--[a-z0-9-]+' | grep -oE -- '--[a-z0-9-]+$' | sort)
    is "$name: the page has the options of --help" \
        "$(mandoc -T utf8 page.1 | sed 's/.\x08//g' | awk '/^[A-Z]/{in_options = /^OPTIONS/} in_options' |
            grep -oE '^ {1,8}(-., )?--[a-z0-9-]+' | grep -oE -- '--[a-z0-9-]+$' | sort)" "$help"
    [[ $p == */guest/* ]] ||
        is "$name: the completion has the options of --help" "$(completed "$name")" "$help"
done

# Pages of no program: formats and overviews.
has_sections() {
    for section in NAME DESCRIPTION 'SEE ALSO'; do
        [ "$(grep -cx "\.SH $section" "$1")" = 1 ] || { echo "not once: $section"; return 1; }
    done
    local page=${1##*/}
    grep -qi "^\.TH ${page%.*} ${page##*.} " "$1" || { echo "its title is not $page"; return 1; }
}
for p in "${others[@]}"; do
    ok "$(basename "$p"): renders without warnings" renders "$TEST_TOP/$p"
    ok "$(basename "$p"): has a name and what a page has" has_sections "$TEST_TOP/$p"
done

# "drafter-x(N)" must be one of ours; pages of other projects are not looked for.
references() {
    for p in "${programs[@]}" "${guests[@]}"; do echo "$(basename "$p")(1)"; done >have
    for p in "${others[@]}"; do basename "$p" | sed 's/\.\([578]\)$/(\1)/'; done >>have
    for p in "${programs[@]}" "${guests[@]}"; do cat "$p.1.in"; done | cat - "${others[@]/#/$TEST_TOP/}" | sed 's/\\-/-/g' |
        grep -oE '^\.(BR|IR) (drafter|oci|blueprint)-[a-z-]+ \([0-9]' | sed -E 's/^\.[BI]R ([^ ]*) (\([0-9])/\1\2)/' | sort -u >wanted
    [ -s wanted ] && ! grep -vxF -f have wanted
}
ok "every page that is referred to is there" references

# The metrics of the source against those that the page explains, both ways.
metrics_explained() {
    tr -s ' \n' ' ' <"$TEST_TOP/runtime/peer/metrics.c" >metrics.c
    { grep -oE 'metric\(&t, "[a-z_]+"' metrics.c | sed 's/.*"\(.*\)"/drafter_peer_\1/'
        grep -oE 'drafter_device_[a-z_]+' metrics.c; } | sort -u >wanted
    sed -n '/^\.SH METRICS/,/^\.SH EXIT/s/^\.B \(drafter_[a-z_]*\)$/\1/p' "$TEST_TOP/runtime/drafter-peer.1.in" | sort >have
    [ "$(grep -c peer wanted)" -gt 20 ] && [ "$(grep -c device wanted)" -ge 4 ] && diff wanted have
}
ok "drafter-peer: the page explains every metric" metrics_explained

# What is installed: each program, its page, and the other pages; uninstall takes exactly that away again.
installs() {
    make -C "$TEST_TOP" --no-print-directory DESTDIR="$PWD/root" PREFIX=/usr "$@" >make.log 2>&1 || { cat make.log; return 1; }
}
tree() { (cd root && find . ! -type d | sort); }
check_install() {
    installs install || return 1
    for p in "${programs[@]}"; do
        local name=${p##*/}
        [ -x "root/usr/bin/$name" ] && [ -s "root/usr/share/man/man1/$name.1" ] &&
            [ -e "root/usr/share/bash-completion/completions/$name" ] || { echo "not installed whole: $name"; return 1; }
    done
    for p in "${guests[@]}"; do
        [ -x "root/usr/lib/drafter/guest/${p##*/}" ] && [ -s "root/usr/share/man/man1/${p##*/}.1" ] ||
            { echo "not installed whole: $p"; return 1; }
    done
    for p in "${others[@]}"; do
        [ -s "root/usr/share/man/man${p##*.}/$(basename "$p")" ] || { echo "not installed: $p"; return 1; }
    done
    installs uninstall || return 1
    [ -z "$(tree)" ] || { echo 'uninstall leaves:'; tree; return 1; }
}
ok "install puts all of that below DESTDIR, uninstall removes it" check_install
