#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# peer-archive.sh - packages as archives, of another architecture, damaged; and a full disk under the overlays
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/machine.sh"
. "$TEST_TOP/tests/lib/peer.sh"
requires_command qemu-system-x86_64
requires_file /dev/fuse
[ "$(uname -m)" = x86_64 ] || skip_all "emulates x86_64 only"
plan 19

refused() { fails "$1" 1 "$2" drafter-peer --package "$3" --package-cache cache --overlay-dir c --chroot-base-dir vms; }

ok "a package is made" testguest_package package
ok "and an archive of it" drafter-packager --package package --package-path p.tar.zst
for name in a b; do peer_from='--package p.tar.zst --package-cache cache' peer_start $name; done
for name in a b; do
    ok "$name resumes from the archive" peer_up $name
    ok "$name's memory is intact" guest_verify $name
done
is "it was extracted once" "$(find cache -mindepth 1 -maxdepth 1 -type d | wc -l)" 1
peer_stop a
peer_from='--package p.tar.zst --package-cache cache' peer_start a
ok "it goes on from where it stood" peer_up a
ok "with its memory" guest_verify a
peer_stop a
peer_stop b

cp p.tar.zst flipped.tar.zst
flip_byte flipped.tar.zst $(($(stat -c %s p.tar.zst) / 2))
refused "one flipped byte" 'archive flipped.tar.zst: .*(damaged|checksum|digest)' flipped.tar.zst
head -c $(($(stat -c %s p.tar.zst) / 2)) p.tar.zst >cut.tar.zst
refused "a truncated archive" 'archive cut.tar.zst: .*cut off' cut.tar.zst
printf 'no archive' >none.tar.zst
refused "what is no archive" 'archive none.tar.zst' none.tar.zst
is "nothing half-extracted stays" "$(find cache -mindepth 1 -maxdepth 1 -type d | wc -l)" 1

cp -r --sparse=always package foreign
tr -d '\0' <package/config.json | sed 's/"architecture": "x86_64"/"architecture": "aarch64"/' >foreign/config.json
truncate -s 2M foreign/config.json
refused "a package of another architecture" 'aarch64' foreign

# The disk below the overlays is full: what the guest wrote cannot be kept, and that is said; nothing else is harmed.
if [ "$(id -u)" = 0 ] && mkdir small && mount -t tmpfs -o size=3m small small; then
    cleanup umount -l small
    before=$(cat package/* | sha256sum)
    peer_start small
    peer_up small
    wait_for 60 test "$(guest_writes small)" -gt 0
    kill -TERM "$(peer_pid small)"
    peer_wait small 120
    like "a full disk under the overlays is an error that says so" "$peer_status $(tail -n 5 small.log)" '^1 .*No space left'
    fails "what was half kept is refused" 1 'was not suspended.*--fresh' \
        drafter-peer --package package --overlay-dir small --chroot-base-dir vms
    is "the package is as it was" "$(cat package/* | sha256sum)" "$before"
    mount -o remount,size=200m small
    peer_start small --fresh
    peer_up small
    ok "with room there, it starts afresh" guest_verify small
    peer_stop small
else
    for i in 1 2 3 4; do skip "a full disk under the overlays" "needs to mount a tmpfs"; done
fi
ok "nothing is left behind" vms_empty
