#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make-tar.sh - the packages of our own guest system, unpacked and nothing more, as a tar
#
#   make-tar.sh OUTPUT.tar PACKAGE...
#
# apt fetches and verifies them through mmdebstrap, in a user namespace when not root; their maintainer scripts do not
# run. The same packages give the same bytes: times are cut to SOURCE_DATE_EPOCH. OS_SUITE names the Debian release,
# OS_MIRROR says where it is (default: mmdebstrap's).
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

log=$(mktemp)
trap 'rm -f "$log" "$output.tmp"' EXIT
packages=$(IFS=,; echo "$*")
if ! mmdebstrap --quiet --variant=extract --include="$packages" "${args[@]}" --format=tar \
    --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
    "${OS_SUITE:-bookworm}" - ${OS_MIRROR:+"$OS_MIRROR"} </dev/null >"$output.tmp" 2>"$log"; then
    tail -n 15 "$log" >&2
    echo "make-tar: mmdebstrap could not unpack: $*" >&2
    exit 1
fi
mv "$output.tmp" "$output"
