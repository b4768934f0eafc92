#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# oci.sh - unpack, pack and build against umoci and mke2fs, as root (umoci unpack needs it)
#
# The image is made of Debian packages: 180 MB and 8,000 files or more, one gzip layer. Everything
# stays until the end: a file system slows down those who come after a large removal.
. tests/bench/lib.sh
[ "$(id -u)" = 0 ] || { echo "bench/oci: needs root, for umoci" >&2; exit 1; }
bench_need umoci mke2fs time jq
rounds=${BENCH_ROUNDS:-5}
bench_begin oci

image=${BENCH_IMAGE:-}
if [ -z "$image" ]; then
    image=$work/image:latest
    examples/run-an-image/make-redis-image.sh --cache "${OUTPUT_DIR:-out}/cache" \
        --packages git,python3,vim,tzdata "$work/image" >/dev/null
fi

right_sized() { # FOLDER: blocks of 4 KiB for mke2fs, content and 256 MiB
    du -s --block-size=4096 --apparent-size "$1" | awk '{print int($1 * 1.1) + 65536 + 8192}'
}
make_disk() { mke2fs -q -F -t ext4 -b 4096 -L oci -d "$1" "$2" "$(right_sized "$1")"; }
export -f right_sized make_disk

for ((i = 1; i <= rounds; i++)); do
    bench umoci umoci unpack --image "$image" "$work/umoci$i"
    bench unpack oci-unpack --image "$image" --output "$work/unpack$i"
    bench mke2fs bash -c 'make_disk "$@"' _ "$work/umoci$i" "$work/mke2fs$i"
    bench pack oci-pack --output "$work/pack$i" "$work/unpack$i"
    bench build oci-build --image "$image" --output "$work/build$i"
done
tree=$work/unpack1
disk_blocks=$(du -s --block-size=1K "$work/build1" | cut -f 1)
tree_blocks=$(du -s --block-size=1K "$tree" | cut -f 1)
echo "image: $(du -s --block-size=1M --apparent-size "$tree" | cut -f 1) MB, $(find "$tree" | wc -l) entries, $rounds rounds"
for n in umoci mke2fs unpack pack build; do
    printf '  %-58s %10s s  %s KiB\n' "$n" "$(median $n)" "$(memory $n)"
done
judge "build: times as fast as umoci unpack + mke2fs -d" \
    "$(calculate "($(median umoci) + $(median mke2fs)) / $(median build)")" '>=' 8
judge "unpack: times as fast as umoci unpack" \
    "$(calculate "$(median umoci) / $(median unpack)")" '>=' 4
judge "pack: times as fast as mke2fs -d" "$(calculate "$(median mke2fs) / $(median pack)")" '>=' 3
judge "blocks of the image file to the tree's own" "$(calculate "$disk_blocks / $tree_blocks")" '<=' 1.03
judge "peak memory of build, KiB" "$(memory build)" '<=' 98304
judge "peak memory of unpack, KiB" "$(memory unpack)" '<=' 98304

# One, four and sixteen times the same: a part of the image, copied.
part=$tree/rootfs/usr/share/perl
[ -d "$part" ] || part=$tree/rootfs/etc
for n in 1 4 16; do
    mkdir "$work/part$n"
    for ((i = 0; i < n * 4; i++)); do cp -a "$part" "$work/part$n/$i"; done
    umoci init --layout "$work/image$n" && umoci new --image "$work/image$n:latest"
    tar -C "$work/part$n" -cf "$work/part.tar" .
    umoci raw add-layer --image "$work/image$n:latest" "$work/part.tar"
done
for ((i = 1; i <= rounds; i++)); do
    for n in 1 4 16; do
        bench build$n oci-build --image "$work/image$n:latest" --output "$work/build-$n-$i"
        bench unpack$n oci-unpack --image "$work/image$n:latest" --output "$work/unpack-$n-$i"
    done
done
for what in build unpack; do
    printf '  %s of 1, 4, 16 times %d entries: %s\n' $what "$(find "$work/part1" | wc -l)" \
        "$(median ${what}1) s, $(median ${what}4) s, $(median ${what}16) s"
    judge "$what: 16 times the work, times as long as 4 times" \
        "$(calculate "$(median ${what}16) / $(median ${what}4)")" '<=' 6
done
bench_end
