#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make-ext4.sh - tars, laid over one another as an image's layers are, become an ext4 file system
#
#   make-ext4.sh OUTPUT SIZE FREE TAR...       SIZE in bytes or "auto"; FREE: bytes kept free with "auto"; both may end in K, M, G
set -euo pipefail
output=$1 size=$2 free=$3
shift 3
[ "$size" = auto ] || size=$(numfmt --from=iec "$size")
free=$(numfmt --from=iec "$free")
work=$(mktemp -d)
trap 'rm -rf "$work" "$output.tmp"' EXIT
mkdir "$work/root"
for t; do
    tar -C "$work/root" --exclude='./dev/*' --keep-directory-symlink -xpf "$t"
    find "$work/root" -name '.wh.*' -printf '%h/%f\0' | while read -r -d '' wh; do
        gone=${wh##*/.wh.}
        rm -rf "${wh%/*}/$gone" "$wh"
    done
done
[ -e "$work/root/sbin/init" ] || [ -L "$work/root/sbin/init" ] || [ -e "$work/root/usr/sbin/init" ] || [ -L "$work/root/usr/sbin/init" ] || {
    echo "make-ext4: the root has no /sbin/init: it would not start" >&2
    exit 1
}
bytes=$(du -sb --apparent-size "$work/root" | cut -f1)
[ "$size" != auto ] || size=$((bytes * 11 / 10 + (free)))
rm -f "$output.tmp"
E2FSPROGS_FAKE_TIME=1700000000 mke2fs -q -F -t ext4 -d "$work/root" -b 4096 -L rootfs -U 5a4d1c5e-0000-4000-8000-647261667465 \
    -E hash_seed=5a4d1c5e-0000-4000-8000-647261667466,lazy_itable_init=0,nodiscard "$output.tmp" $((size >> 10))k >"$work/log" 2>&1 || { cat "$work/log" >&2; echo "make-ext4: the root does not fit into $((size >> 20)) MiB: give a larger OS_SIZE" >&2; exit 1; }
mv "$output.tmp" "$output"
