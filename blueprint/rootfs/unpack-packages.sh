#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# unpack-packages.sh - Debian packages and what they depend on, unpacked into a folder and nothing more
#
#   unpack-packages.sh CACHE_DIR ARCHITECTURE ROOT PACKAGE[,PACKAGE...] [MMDEBSTRAP OPTION...]
#
# mmdebstrap lets apt fetch and verify them; there is no chroot and no maintainer script runs, so it needs no privilege.
# OS_SUITE names the Debian release (default bookworm), OS_MIRROR says where it is (default: the host's own sources when
# the host is of that release, else mmdebstrap's).
#
# Packages and apt's lists stay in CACHE_DIR. Lists serve for a day, so that what was fetched once is unpacked without
# the network; then apt asks whether they have changed. A package is used again after its SHA-256 was compared with the
# one written down when apt had verified it. Several may use one cache at once: packages appear in it whole, and a
# lock covers the lists, which must agree.
set -euo pipefail
fail() { echo "unpack-packages: $*" >&2; exit 1; }
# The sums of packages that are there, in the folder of packages.
kept() { while read -r sum name; do [ ! -e "$name" ] || echo "$sum  $name"; done <SHA256SUMS; }

# Two hooks of mmdebstrap: what the cache has goes in before apt looks for it, what is new comes out.
if [ "${1:-}" = --before ]; then
    debs=$2 lists=$3 root=$4
    for d in bin sbin lib lib64; do mkdir -p "$root/usr/$d" && ln -s "usr/$d" "$root/$d"; done
    mkdir -p "$root/var/cache/apt/archives/partial" "$root/var/lib/apt/lists/partial"
    cd "$debs"
    kept | awk '{print $2}' | xargs -r ln -t "$root/var/cache/apt/archives" 2>/dev/null ||
        kept | awk '{print $2}' | xargs -r cp -t "$root/var/cache/apt/archives"
    flock "$lists" find "$lists" -type f -exec cp -p -t "$root/var/lib/apt/lists" {} +
    exit
elif [ "${1:-}" = --after ]; then
    debs=$2 lists=$3 root=$4
    flock "$lists" find "$root/var/lib/apt/lists" -maxdepth 1 -type f ! -name lock -exec cp -p -t "$lists" {} +
    cd "$root/var/cache/apt/archives"
    for deb in *.deb; do
        [ -e "$deb" ] && [ ! -e "$debs/$deb" ] || continue
        sum=$(sha256sum "$deb")
        cp "$deb" "$debs/.$deb.$$"
        mv "$debs/.$deb.$$" "$debs/$deb"
        echo "$sum" >>"$debs/SHA256SUMS"
    done
    exit
fi

cache=$1 architecture=${2/arm64\/v8/arm64} root=$3 packages=$4
shift 4
suite=${OS_SUITE:-bookworm}
command -v mmdebstrap >/dev/null || fail "mmdebstrap is not installed: run 'make depend'"
here=$(cd "$(dirname "$0")" && pwd)
sources=()
if [ -n "${OS_MIRROR:-}" ]; then
    sources=("$OS_MIRROR")
elif grep -q "^VERSION_CODENAME=$suite\$" /etc/os-release; then
    for f in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
        [ ! -s "$f" ] || sources+=("$f")
    done
fi
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
debs=$cache/packages-$architecture
# Lists of one release in one place do not serve for another.
lists=$cache/lists-$architecture-$suite-$(printf '%s\n' "${sources[@]}" | sha256sum | head -c 8)
mkdir -p "$debs" "$lists" "$(dirname "$root")"
touch "$debs/SHA256SUMS"
damaged=$(cd "$debs" && kept | sha256sum --quiet -c 2>/dev/null | sed 's/: FAILED.*//' | paste -s -d' ' || :)
[ -z "$damaged" ] || fail "$debs does not verify: $damaged changed after apt vouched for it; remove it to fetch it again"

hook() { printf '%q %s %q %q "$1"' "$here/unpack-packages.sh" "$1" "$debs" "$lists"; }
mode=chrootless
[ "$(id -u)" != 0 ] || mode=root
unpack() { # WHAT TO SKIP MORE, OPTIONS
    local skip=$1
    shift
    mmdebstrap --variant=extract --mode=$mode --architectures="$architecture" --format=directory \
        --include="$packages" --skip=download/empty,essential/unlink,cleanup/apt"$skip" \
        --setup-hook="$(hook --before)" --extract-hook="$(hook --after)" "$@" \
        "$suite" "$root" "${sources[@]}" </dev/null >"$root.log" 2>&1
}
discard() { chmod -R u+rwx "$root" 2>/dev/null || :; rm -rf "$root" "$root.log"; }
# Whoever interrupts us need not read why mmdebstrap ended.
trap 'discard; exit 130' INT TERM
done=
if [ -n "$(find "$lists.updated" -mtime -1 2>/dev/null)" ]; then
    # What they name may be gone from the mirror since: then it is tried with new ones.
    unpack ,update "$@" && done=1 || discard
fi
if [ -z "$done" ]; then
    unpack '' "$@" || {
        tail -n 15 "$root.log" >&2
        discard
        fail "mmdebstrap could not unpack: $packages"
    }
    touch "$lists.updated"
fi
rm -rf "$root.log" "$root"/var/cache/apt "$root"/var/lib/apt
