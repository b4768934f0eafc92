#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# dist.sh - a source archive holds what is committed, builds and installs what a clone does, and makes itself again
. "$TEST_TOP/tests/lib/functions.sh"
if [ -e "$TEST_TOP/.git" ]; then
    requires_command git
    git -C "$TEST_TOP" rev-parse -q --verify HEAD >/dev/null 2>&1 || skip_all "git does not read this clone"
elif [ ! -e "$TEST_TOP/MANIFEST" ]; then
    skip_all "this is neither a clone nor an unpacked archive"
fi
plan 9

make_in() { # FOLDER GOAL [VARIABLE...]
    make -C "$1" --no-print-directory MAKEFLAGS= -j2 "${@:2}"
}
tree() { (cd "$1" && find . ! -type d | sort); }

ok "an archive is made" make_in "$TEST_TOP" dist OUTPUT_DIR="$PWD/made"
archive=$(echo made/drafter-*.tar.gz)
is "nothing but it" "$(find made -mindepth 1)" "$archive"
ok "it unpacks" tar -xzf "$archive"
top=$PWD/$(basename "$archive" .tar.gz)
ok "into a folder of its name, with all its manifest names" diff <(cd "$top" && find . ! -type d -printf '%P\n' | LC_ALL=C sort) "$top/MANIFEST"
[ ! -e "$TEST_TOP/.git" ] ||
    ok "which is what is committed" diff <(git -C "$TEST_TOP" ls-tree -r --name-only HEAD) <(grep -vx MANIFEST "$top/MANIFEST")
[ -e "$TEST_TOP/.git" ] || skip "which is what is committed" "no clone"

ok "it installs into an empty root" make_in "$top" install CFLAGS=-O0 DESTDIR="$PWD/root" PREFIX=/opt/drafter
make_in "$TEST_TOP" install DESTDIR="$PWD/clone" PREFIX=/opt/drafter >install.log 2>&1
# What is not committed yet may be built here, and not there.
ok "what the clone does" test -z "$(comm -23 <(tree root) <(tree clone))"
like "programs that run" "$(root/opt/drafter/bin/drafter-peer --version)" '^drafter-peer '

make_in "$top" dist >dist.log 2>&1
ok "an archive of the archive is the same" cmp "$archive" "$top/out/$(basename "$archive")"
