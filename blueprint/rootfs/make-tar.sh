#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make-tar.sh - the packages of our own guest system, unpacked and nothing more, as a tar
#
#   make-tar.sh OUTPUT.tar PACKAGE...
#
# apt fetches and verifies them through mmdebstrap, without a chroot and so without privilege; their maintainer scripts do
# not run, all files belong to root. The same packages give the same bytes: times are cut to SOURCE_DATE_EPOCH. OS_SUITE
# names the Debian release, OS_MIRROR says where it is (default: mmdebstrap's).
set -euo pipefail
output=$1
shift
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1700000000}
# What nobody in the machine reads. Licences stay.
excludes=('/usr/share/man/*' '/usr/share/locale/*' '/usr/share/info/*' '/usr/share/lintian/*' '/usr/share/doc/*'
    '/usr/lib/*/gconv/*' '/usr/share/bash-completion/*' '/usr/share/initramfs-tools/*' '/usr/lib/*.a' '/usr/lib/*/*.a')
args=()
for e in "${excludes[@]}"; do args+=("--dpkgopt=path-exclude=$e"); done
args+=('--dpkgopt=path-include=/usr/share/doc/*/copyright')

mode=chrootless
[ "$(id -u)" != 0 ] || mode=root
mkdir -p "$(dirname "$output")"
work=$(mktemp -d "$output.XXXXXX")
trap 'chmod -R u+rwx "$work" 2>/dev/null; rm -rf "$work" "$output.tmp"' EXIT
trap 'exit 130' INT TERM
packages=$(IFS=,; echo "$*")
if ! mmdebstrap --quiet --variant=extract --mode=$mode --include="$packages" "${args[@]}" --format=directory \
    --setup-hook='for d in bin sbin lib lib64; do mkdir -p "$1/usr/$d"; ln -s "usr/$d" "$1/$d"; done' \
    "${OS_SUITE:-bookworm}" "$work/root" ${OS_MIRROR:+"$OS_MIRROR"} </dev/null >"$work/log" 2>&1; then
    tail -n 15 "$work/log" >&2
    echo "make-tar: mmdebstrap could not unpack: $*" >&2
    exit 1
fi
# What differs with the privilege is not needed: the machine's kernel makes the nodes of /dev.
mkdir -p "$work/root/dev" && touch "$work/root"
tar -C "$work/root" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" --clamp-mtime \
    --exclude='./dev/*' --exclude='./var/lib/dpkg/*' --format=posix \
    --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime -cf "$output.tmp" .
mv "$output.tmp" "$output"
