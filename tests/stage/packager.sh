#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# packager.sh - drafter-packager: folders and devices into archives and back; GNU tar and zstd both ways
. "$TEST_TOP/tests/lib/functions.sh"
requires_command zstd
requires_command jq
plan 45

allocated() { echo $(($(stat -c %b "$1") * 512)); }
json() { jq -cn '[$ARGS.positional | _nwise(2) | {name: .[0], path: .[1]}]' --args "$@"; }

# -- a package of upstream's kind, with a memory of 9 GiB --
mkdir package
head -c 300000 /dev/urandom >package/vmlinux
head -c 3000000 /dev/urandom >package/rootfs.ext4
truncate -s 64M package/rootfs.ext4
head -c 100000 /dev/urandom >package/oci.ext4
head -c 50000 /dev/urandom >package/state.bin
truncate -s 9G package/memory.bin
for mib in 0 1234 9000; do
    head -c 1000000 /dev/urandom | dd of=package/memory.bin bs=1M seek=$mib conv=notrunc iflag=fullblock status=none
done
printf '{"agentVSockPort":26}' >package/config.json
truncate -s 1M package/config.json
modes() { stat -c %a "$@" | sort -u | paste -sd' '; }
same() { # DIR: has the same files, whose holes are holes
    diff <(ls package) <(ls "$1") || return 1
    local f
    for f in package/*; do
        # cmp reads all of a hole; what differs can only lie in data, and tar -S finds that.
        [ "$(stat -c %s "$f")" = "$(stat -c %s "$1/${f##*/}")" ] || return 1
        [ "$(allocated "$1/${f##*/}")" -le $(($(allocated "$f") + 65536)) ] || return 1
    done
    [ "$(tar -C package --sparse --format=gnu --mtime=@0 --sort=name --mode=0644 -cf - . | sha256sum)" = \
        "$(tar -C "$1" --sparse --format=gnu --mtime=@0 --sort=name --mode=0644 -cf - . | sha256sum)" ]
}
ok "a package becomes an archive" drafter-packager --package package --package-path p.tar.zst
ok "which is small" [ "$(stat -c %s p.tar.zst)" -lt 7500000 ]
ok "and a package again" drafter-packager -x -p out/package --package-path p.tar.zst
ok "all the same, holes too" same out/package
is "what was in a guest's memory is for nobody else" "$(modes p.tar.zst out/package out/package/*)" '600 700'
ok "the same once more gives the same bytes" drafter-packager -p package --threads 3 --package-path p2.tar.zst
ok "on any number of threads" cmp p.tar.zst p2.tar.zst
drafter-packager --list --package-path p.tar.zst >list 2>list.err
is "the list, in Drafter's order" "$(cut -d' ' -f1 list | paste -sd' ')" "kernel disk state memory config oci"
is "its sizes" "$(awk '$1 == "memory" {print $2}' list)" $((9 << 30))
is "its digests are what the manual says" "$(awk '$1 == "disk" {print $4}' list)" \
    "$(split -b 1M --filter='openssl sha256 -binary' package/rootfs.ext4 | sha256sum | cut -d' ' -f1)"
is "and no warning" "$(cat list.err)" ""

# -- by device, in any order --
ok "devices out of order" drafter-packager --extract --package-path p.tar.zst \
    --devices "$(json oci a/o memory a/m kernel a/k)"
is "taken out singly, too" "$(modes a a/*)" '600 700'
ok "kernel" cmp package/vmlinux a/k
ok "oci" cmp package/oci.ext4 a/o
is "memory is as sparse" "$(($(allocated a/m) <= $(allocated package/memory.bin) + 65536))" 1
is "and nothing else is there" "$(ls -A a | paste -sd' ')" "k m o"
ok "a device of any name" drafter-packager --package-path d.tar.zst \
    --devices "$(json kernel package/vmlinux my-data package/oci.ext4)"
json kernel b/k my-data b/d >devices.json
ok "devices from a file" drafter-packager --extract --package-path d.tar.zst --devices @devices.json
ok "come out" cmp package/oci.ext4 b/d
is "without a guest's memory for all" "$(modes d.tar.zst b b/*)" '644 755'
echo old >b/k
ok "files that stand there are replaced" drafter-packager -x --package-path d.tar.zst --devices @devices.json
ok "whole" cmp package/vmlinux b/k
ok "the default list and path" env -C out drafter-packager --extract --package-path ../p.tar.zst
is "are upstream's" "$(cd out/out/package && echo *)" "config.json memory.bin rootfs.ext4 state.bin vmlinux"

# -- GNU tar and zstd read ours --
mkdir theirs
ok "tar reads ours" bash -c 'set -o pipefail; zstd -dc p.tar.zst | tar -xC theirs'
is "all entries" "$(ls theirs | paste -sd' ')" "config disk drafter.json kernel memory oci state"
ok "a dense one" cmp theirs/disk package/rootfs.ext4
is "a sparse one of 9 GiB" "$(stat -c %s theirs/memory)" $((9 << 30))
is "with its data" "$(dd if=theirs/memory bs=1M skip=1234 count=1 status=none | sha256sum)" \
    "$(dd if=package/memory.bin bs=1M skip=1234 count=1 status=none | sha256sum)"

# -- we read theirs: upstream's kind (ustar, no holes, no digests), and every sparse kind --
mkdir up
(cd package && cp --sparse=always rootfs.ext4 ../up/disk && cp vmlinux ../up/kernel && cp oci.ext4 ../up/oci && cp config.json ../up/config)
for kind in "ustar" "pax" "pax --sparse --sparse-version=0.0" "pax --sparse --sparse-version=0.1" \
    "pax --sparse --sparse-version=1.0" "gnu --sparse"; do
    rm -rf c
    # shellcheck disable=SC2086 # the options are words
    tar -C up --format=$kind -cf - kernel disk config oci | zstd -q >up.tar.zst
    ok "tar --format=$kind" bash -c "drafter-packager -x --package-path up.tar.zst \
        --devices '$(json disk c/d kernel c/k)' && cmp c/d up/disk && cmp c/k up/kernel &&
        [ \$((\$(stat -c %b c/d) * 512)) -lt 4000000 ]"
done
is "the list warns of no digests" "$(drafter-packager --list --package-path up.tar.zst 2>&1 >list | grep -c 'states no digests')" 1

# -- a blueprint --
mkdir blueprint
cp package/vmlinux blueprint/
cp package/oci.ext4 blueprint/root.img
device() { jq -cn --arg n "$1" --arg r "$2" --arg f "$3" --argjson s "$(stat -c %s "blueprint/$3")" \
    --arg h "$(sha256sum <"blueprint/$3" | cut -d' ' -f1)" '{name: $n, role: $r, file: $f, size: $s, sha256: $h}'; }
jq -n --arg a "$(uname -m)" --argjson k "$(device kernel kernel vmlinux)" --argjson d "$(device disk root root.img)" \
    '{format: "drafter-blueprint", version: 1, architecture: $a, bootArgs: "quiet", livenessVSockPort: 25,
      agentVSockPort: 26, devices: [$k, $d]}' >blueprint/blueprint.json
ok "a blueprint becomes an archive" drafter-packager --verify -b blueprint --package-path b.tar.zst
ok "and a blueprint again" drafter-packager -x -b out/blueprint --package-path b.tar.zst
ok "with its own file names" diff -r blueprint out/blueprint
ok "in place of what stood there" drafter-packager -x -b out/blueprint --package-path b.tar.zst
ok "still the same" diff -r blueprint out/blueprint
is "only this and no rubbish" "$(ls -A out | paste -sd' ')" "blueprint out package"
flip_byte blueprint/root.img 5
fails "--verify sees a changed file" 1 'device disk: root.img is damaged or was changed' \
    drafter-packager --verify -b blueprint --package-path never.tar.zst
ok "and writes no archive" [ ! -e never.tar.zst ]
