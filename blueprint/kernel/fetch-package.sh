#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# fetch-package.sh - a Debian package's file out of apt's archive, verified, without root
#
#   fetch-package.sh CACHE_DIR PACKAGE     prints the path of the .deb
#
# apt checks the package against its signed lists. A machine whose apt has no lists (or an old one that names a file
# that is gone) gets lists of its own in CACHE_DIR/apt. What was fetched once is used again after its SHA-256 was
# compared with the one written down then.
set -euo pipefail
cache=$1 package=$2
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
note=$cache/$package.sha256
fail() { echo "fetch-package: $*" >&2; exit 1; }
[[ $package =~ ^[a-z0-9][a-z0-9+.-]*$ ]] || fail "\"$package\" is no name of a Debian package"

if [ -s "$note" ]; then
    deb=$cache/$(awk '{print $2}' "$note")
    if [ -e "$deb" ]; then
        (cd "$cache" && sha256sum --quiet --status -c "$note") ||
            fail "$deb does not verify: its SHA-256 is not the one apt vouched for; remove it to fetch it again"
        echo "$deb"
        exit 0
    fi
fi

work=$(mktemp -d "$cache/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
private=(-o "Dir::State=$cache/apt/state" -o "Dir::Cache=$cache/apt/cache" -o Dir::State::status=/var/lib/dpkg/status)
fetch() { (cd "$work" && apt-get "$@" -o APT::Sandbox::User=root -qq download "$package" >log 2>&1 </dev/null); }
if ! fetch; then
    mkdir -p "$cache"/apt/state/lists/partial "$cache"/apt/cache/archives/partial
    apt-get "${private[@]}" -qq update >"$work/log" 2>&1 </dev/null || { tail -n 5 "$work/log" >&2; fail "apt could not update its lists"; }
    fetch "${private[@]}" || { tail -n 5 "$work/log" >&2; fail "apt could not fetch $package"; }
fi
deb=$(cd "$work" && echo *.deb)
[ -e "$work/$deb" ] || fail "apt fetched nothing for $package"
(cd "$work" && sha256sum "$deb") >"$work/note"
mv "$work/$deb" "$cache/$deb"
mv "$work/note" "$note"
echo "$cache/$deb"
