#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make-redis-image.sh - an OCI image with redis, from Debian packages, without root and without a registry
#
#   make-redis-image.sh [--architecture ARCHITECTURE] [--cache FOLDER] [--packages LIST] LAYOUT
#
# mmdebstrap fetches and unpacks the packages (their scripts do not run, so no chroot is needed and the
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
for c in mmdebstrap umoci; do
    command -v $c >/dev/null || {
        echo "make-redis-image: $c is not installed: run 'make depend'" >&2
        exit 1
    }
done

start=$(date +%s)
mkdir -p "$(dirname "$layout")"
work=$(mktemp -d "$(dirname "$layout")/.redis-image.XXXXXX")
trap 'chmod -R u+rwx "$work" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
cache=${cache:-$work}/packages-$architecture
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)

# The host's own sources, when it is the same Debian, so that a mirror set there is used.
sources=()
if grep -q '^VERSION_CODENAME=bookworm' /etc/os-release; then
    for f in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
        [ ! -s "$f" ] || sources+=("$f")
    done
fi
mode=chrootless
[ "$(id -u)" != 0 ] || mode=root
merged='for d in bin sbin lib lib64; do mkdir -p "$1/usr/$d"; ln -s "usr/$d" "$1/$d"; done'
if ! mmdebstrap --variant=extract --mode=$mode --architectures="${architecture/arm64\/v8/arm64}" \
    --include='?essential' --include="redis-server,ca-certificates${packages:+,$packages}" \
    --skip=download/empty,essential/unlink,cleanup/apt \
    --setup-hook="$merged; mkdir -p \"\$1/var/cache/apt/archives/partial\"" \
    --setup-hook="sync-in '$cache' /var/cache/apt/archives" \
    --extract-hook="sync-out /var/cache/apt/archives '$cache'" \
    bookworm "$work/root" "${sources[@]}" >"$work/log" 2>&1; then
    tail -n 20 "$work/log" >&2
    echo "make-redis-image: mmdebstrap failed" >&2
    exit 1
fi

# What package scripts would have done, as far as it is needed, and what only lies in the way.
cd "$work"
rm -rf root/dev root/var/cache/apt root/var/lib/apt root/var/log root/usr/share/{doc,man,locale}
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
