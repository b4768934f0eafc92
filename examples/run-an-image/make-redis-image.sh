#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make-redis-image.sh - an OCI image with redis, from Debian packages, without root and without a registry
#
#   make-redis-image.sh [--architecture ARCHITECTURE] [--cache FOLDER] [--packages LIST] LAYOUT
#
# The packages are unpacked by unpack-packages.sh (their scripts do not run, so no chroot is needed and the
# result is the same for root and for others), umoci makes the image "latest" in the OCI layout
# LAYOUT. Packages stay in FOLDER, so that the next image takes seconds. The same packages give the same
# image: all files belong to root, and the newest file's time is the image's.
set -euo pipefail

architecture=amd64 cache='' packages='' layout=''
while [ $# -gt 0 ]; do
    case $1 in
    --architecture) architecture=${2:?} && shift ;;
    --cache) cache=${2:?} && shift ;;
    --packages) packages=${2:?} && shift ;;
    -*)
        echo "make-redis-image: $1: unknown option" >&2
        exit 2
        ;;
    *) layout=$1 ;;
    esac
    shift
done
[ -n "$layout" ] || {
    echo "usage: make-redis-image.sh [--architecture A] [--cache FOLDER] [--packages LIST] LAYOUT" >&2
    exit 2
}
command -v umoci >/dev/null || {
    echo "make-redis-image: umoci is not installed: run 'make depend'" >&2
    exit 1
}

start=$(date +%s)
mkdir -p "$(dirname "$layout")"
# Absolute: what the trap removes does not depend on where we are then.
work=$(mktemp -d "$(realpath "$(dirname "$layout")")/.redis-image.XXXXXX")
trap 'chmod -R u+rwx "$work" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
here=$(cd "$(dirname "$0")" && pwd)
"$here/../../blueprint/rootfs/unpack-packages.sh" "${cache:-$work/cache}" "$architecture" "$work/root" \
    "redis-server,ca-certificates${packages:+,$packages}" --include='?essential'

# What package scripts would have done, as far as it is needed, and what only lies in the way.
cd "$work"
rm -rf root/dev root/var/log root/usr/share/{doc,man,locale}
mkdir -p root/{dev,proc,sys,data,var/cache/apt,var/lib/apt,var/log}
cp root/usr/share/base-passwd/passwd.master root/etc/passwd
cp root/usr/share/base-passwd/group.master root/etc/group
echo 'redis:x:101:102:Redis:/data:/usr/sbin/nologin' >>root/etc/passwd
echo 'redis:x:102:' >>root/etc/group
printf 'bookworm\n' >root/etc/hostname
chmod 1777 root/tmp root/var/tmp root/data

# What the packages brought is older than this run.
epoch=${SOURCE_DATE_EPOCH:-$(find root -type f -printf '%Ts\n' | awk -v start="$start" '$1 < start && $1 > m { m = $1 } END { print m + 0 }')}
tar -C root --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$epoch" --clamp-mtime \
    --format=posix --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime -cf layer.tar .
date=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)
umoci init --layout new
umoci new --image new:latest
umoci raw add-layer --image new:latest --history.created "$date" --history.created_by 'Debian packages' layer.tar
umoci config --image new:latest --no-history --created "$date" --author '' --architecture "${architecture%%/*}" \
    --config.user redis --config.workingdir /data --config.exposedports 6379/tcp --config.stopsignal SIGTERM \
    --config.entrypoint redis-server --config.cmd --protected-mode --config.cmd no --config.cmd --bind \
    --config.cmd '* -::*' --config.cmd '--save ""'
umoci gc --layout new
cd - >/dev/null
rm -rf "$layout"
mv -T "$work/new" "$layout"
