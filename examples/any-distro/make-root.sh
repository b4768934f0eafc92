#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make-root.sh - a Debian with systemd and redis, installed as debootstrap would, as a tar
#
#   make-root.sh OUTPUT.tar
set -euo pipefail
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1700000000}
mkdir -p "$(dirname "$1")"
trap 'rm -f "$1.tmp"' EXIT
mmdebstrap --quiet --variant=minbase --include=systemd-sysv,udev,redis-server --format=tar \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='chroot "$1" systemctl enable systemd-networkd redis-server' \
    "${OS_SUITE:-bookworm}" - ${OS_MIRROR:+"$OS_MIRROR"} </dev/null >"$1.tmp"
mv "$1.tmp" "$1"
