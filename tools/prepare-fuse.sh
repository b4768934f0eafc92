#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# prepare-fuse.sh - what udev and systemd do for FUSE, on a system that has neither (a bare root, a container):
# /dev/fuse open to users (50-udev-default.rules), and /etc/mtab, which fusermount3 looks into (tmpfiles.d/etc.conf).
# Changes nothing where they run, nor what is there already. Uses sudo when not root.
set -euo pipefail

as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo)

if [ ! -e /etc/mtab ] && [ ! -L /etc/mtab ]; then
    echo '  DEPEND  /etc/mtab -> ../proc/self/mounts'
    "${as_root[@]}" ln -s ../proc/self/mounts /etc/mtab
fi
if [ -c /dev/fuse ] && [ ! -w /dev/fuse ] && [ ! -d /run/udev ]; then
    echo '  DEPEND  /dev/fuse, mode 0666'
    "${as_root[@]}" chmod 0666 /dev/fuse
fi
