#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make-tar.sh - the packages of our own guest system, unpacked and nothing more, as a tar
#
#   make-tar.sh OUTPUT.tar CACHE_DIR PACKAGE...
#
# unpack-packages.sh says how. All files belong to root. The same packages give the same bytes: times are cut to
# SOURCE_DATE_EPOCH.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
output=$1 cache=$2
shift 2
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1700000000}
# What nobody in the machine reads. Licences stay.
excludes=('/usr/share/man/*' '/usr/share/locale/*' '/usr/share/info/*' '/usr/share/lintian/*' '/usr/share/doc/*'
    '/usr/lib/*/gconv/*' '/usr/share/bash-completion/*' '/usr/share/initramfs-tools/*' '/usr/lib/*.a' '/usr/lib/*/*.a')
args=()
for e in "${excludes[@]}"; do args+=("--dpkgopt=path-exclude=$e"); done
args+=('--dpkgopt=path-include=/usr/share/doc/*/copyright')

mkdir -p "$(dirname "$output")"
work=$(mktemp -d "$output.XXXXXX")
trap 'chmod -R u+rwx "$work" 2>/dev/null; rm -rf "$work" "$output.tmp"' EXIT
trap 'exit 130' INT TERM
packages=$(IFS=,; echo "$*")
"$here/unpack-packages.sh" "$cache" "$(dpkg --print-architecture)" "$work/root" "$packages" "${args[@]}"
# What differs with the privilege is not needed: the machine's kernel makes the nodes of /dev.
mkdir -p "$work/root/dev" && touch "$work/root"
tar -C "$work/root" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" --clamp-mtime \
    --exclude='./dev/*' --exclude='./var/lib/dpkg/*' --format=posix \
    --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime -cf "$output.tmp" .
mv "$output.tmp" "$output"
