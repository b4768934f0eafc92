#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make-overlay.sh - what is laid over the packages to make them our guest system, as a tar
#
#   make-overlay.sh OUTPUT.tar OWN|GUEST BASE.tar PROGRAM...
#
# OWN: for our own system: init, its scripts, a name for every applet of the busybox in BASE, and the programs.
# GUEST: for any other system: the programs, and systemd units that start them. A ".wh.NAME" removes NAME from what
# is below, as in an OCI layer.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
output=$1 kind=$2 base=$3
shift 3
epoch=${SOURCE_DATE_EPOCH:-1700000000}
work=$(mktemp -d)
trap 'rm -rf "$work" "$output.tmp"' EXIT
root=$work/root
mkdir -p "$root/usr/bin"

if [ "$kind" = OWN ]; then
    cp -a "$here/overlay/." "$root/"
    mkdir -p "$root"/usr/sbin "$root"/{dev,proc,sys,run,tmp,root,mnt,oci-runtime-bundle}
    # The names busybox knows, where no package brought a program of that name.
    tar -xOf "$base" ./usr/bin/busybox >"$work/busybox"
    chmod +x "$work/busybox"
    tar -tf "$base" | sed -n 's|^\./usr/s\?bin/||p' | sort >"$work/taken"
    "$work/busybox" --list-full | while read -r path; do
        grep -qxF "${path##*/}" "$work/taken" && continue
        case $path in sbin/* | usr/sbin/*) dir=usr/sbin ;; *) dir=usr/bin ;; esac
        ln -s /usr/bin/busybox "$root/$dir/${path##*/}"
    done
    ln -sf /usr/bin/busybox "$root/usr/sbin/init"
    # What apt and dpkg left on their way.
    mkdir -p "$root/etc" "$root/var/lib"
    touch "$root"/etc/.wh.{apt,dpkg} "$root"/var/lib/.wh.{apt,dpkg} "$root"/var/.wh.{cache,log}
    chmod 1777 "$root/tmp"
    chmod 700 "$root/root"
else
    mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
    for unit in "$here"/../guest/systemd/*.service; do
        cp "$unit" "$root/etc/systemd/system/"
        ln -s "/etc/systemd/system/${unit##*/}" "$root/etc/systemd/system/multi-user.target.wants/${unit##*/}"
    done
fi
for p; do install -m 755 "$p" "$root/usr/bin/${p##*/}"; done

# Permissions do not depend on the umask of the one who checked this out.
find "$root" -type f -perm /111 -exec chmod 755 {} + -o -type f -exec chmod 644 {} +
find "$root" -type d ! -perm -1000 ! -path "$root/root" -exec chmod 755 {} +
tar -C "$root" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$epoch" --format=posix \
    --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime -cf "$output.tmp" .
mv "$output.tmp" "$output"
