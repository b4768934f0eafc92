#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make-kernel.sh - what a machine boots: vmlinux, initrd.img when the kernel has modules, made.txt
#
#   make-kernel.sh OUTPUT_DIR CACHE_DIR KERNEL INIT MODULE...
#
# KERNEL: a vmlinux or vmlinuz (a path: it has a slash or is there; modules are taken from lib/modules/RELEASE or
# modules/ beside it when there are any, words on how it was made from made.txt beside it), or the name of a Debian
# kernel package, whose dependency is followed when it is a meta-package. OUTPUT_DIR appears whole or not at all.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tools=$here/../../tools
output=$1 cache=$2 kernel=$3 init=$4
shift 4
fail() { echo "make-kernel: $*" >&2; exit 1; }
mkdir -p "$(dirname "$output")"
work=$(mktemp -d "$output.tmp.XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir "$work/result"

if [[ $kernel == */* || -e $kernel ]]; then
    [ -f "$kernel" ] || fail "$kernel: no such kernel"
    image=$kernel
    made="file ${kernel##*/}"
    [ ! -s "$(dirname "$kernel")/made.txt" ] || made=$(cat "$(dirname "$kernel")/made.txt")
    modules=
    for m in "$(dirname "$kernel")"/modules "$(dirname "$kernel")"/lib/modules/* "$(dirname "$kernel")"/../lib/modules/"${kernel##*/vmlinuz-}"; do
        [ -d "$m/kernel" ] && modules=$m && break
    done
else
    package=$kernel
    for _ in 1 2 3; do
        deb=$("$here/fetch-package.sh" "$cache" "$package")
        dpkg-deb -x "$deb" "$work/deb"
        image=$(echo "$work"/deb/boot/vmlinuz-*)
        [ -e "$image" ] && break
        # A meta-package: the kernel is what it depends on.
        package=$(dpkg-deb -f "$deb" Depends | tr ',' '\n' | sed -n 's/^ *\(linux-image-[a-z0-9.+-]*\).*/\1/p' | head -n 1)
        [ -n "$package" ] || fail "package $kernel holds no kernel and depends on none"
    done
    [ -e "$image" ] || fail "package $kernel holds no kernel"
    made="Debian package $(dpkg-deb -f "$deb" Package) $(dpkg-deb -f "$deb" Version)"
    modules=$(echo "$work"/deb/lib/modules/*)
    [ -d "$modules" ] || modules=$(echo "$work"/deb/usr/lib/modules/*)
    [ -d "$modules" ] || modules=
fi

"$tools/kernel-extract" -o "$work/result/vmlinux" "$image"
if [ -n "$modules" ]; then
    "$tools/initrd-make" -o "$work/result/initrd.img" --init "$init" --modules-dir "$modules" "$@"
fi
echo "$made" >"$work/result/made.txt"
touch "$work/result"
[ ! -e "$output" ] || mv "$output" "$work/old"
mv "$work/result" "$output"
