#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make-dist.sh - a source archive of this tree; `make dist` runs it
#
#   make-dist.sh NAME OUTPUT.tar.gz        all files lie below NAME/ in it
#
# In a clone: what is committed. In an unpacked archive: the files its MANIFEST names, as they are. An archive made of an
# archive that nobody changed is the same file, byte for byte.
set -euo pipefail
name=$1 output=$2
cd "$(dirname "$0")/.."
work=$(mktemp -d "$(realpath "$(dirname "$output")")/.dist.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

if [ -e .git ]; then
    command -v git >/dev/null || { echo "make-dist: git is not installed" >&2; exit 1; }
    mkdir "$work/tree"
    git archive --format=tar HEAD | tar -x -C "$work/tree"
    (git ls-tree -r --name-only HEAD; echo MANIFEST) | LC_ALL=C sort >"$work/tree/MANIFEST"
    touch -d "@$(git log -1 --format=%ct)" "$work/tree/MANIFEST"
    from=$work/tree
elif [ -s MANIFEST ]; then
    from=.
else
    echo "make-dist: this tree is neither a clone (.git) nor an unpacked archive (MANIFEST), so nobody can tell which" \
        "files are its own: make it in one of these" >&2
    exit 1
fi
tar -C "$from" --format=ustar --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --no-recursion --verbatim-files-from \
    --transform="s,^,$name/," -c -T "$from/MANIFEST" | gzip -9n >"$work/archive"
mv "$work/archive" "$output"
