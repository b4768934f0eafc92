#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# examples/extra-disk: what the application writes is on the disk of its own
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/machine.sh"
. "$TEST_TOP/tests/lib/peer.sh"
requires_command qemu-system-x86_64
requires_command mmdebstrap
requires_file /dev/fuse
[ "$(uname -m)" = x86_64 ] || skip_all "emulates x86_64 only"
example_out || skip_all "cannot make a blueprint"
plan 9

PATH=$PATH:/sbin:/usr/sbin
ok "a disk" mke2fs -q -t ext4 -L mydisk -E root_owner=101:102 out/mydisk.ext4 64M
before=$(sha256sum <out/mydisk.ext4)
ok "a bundle" make_out unpack/oci OCI_IMAGE_URI="oci:$PWD/out/images/redis:latest"
ok "that mounts it" "$TEST_TOP/examples/extra-disk/mount.sh" out/oci-runtime-bundle
ok "and a blueprint of both" make_out pack/oci blueprint OS_DISKS="mydisk=$PWD/out/mydisk.ext4"

port=$(machine_pick_port)
peer_from='--blueprint out/blueprint' peer_start disk --net user --forward "tcp:127.0.0.1:$port-:6379" --memory-size 256 \
    --resume-timeout 5m
wait_for 180 redis_up "$port"
redis "$port" 'SET greeting hello' >/dev/null
is "the database writes its file" "$(redis "$port" SAVE)" +OK
wait_line 60 disk.out 'press Enter'
peer_type disk ''
peer_type disk poweroff
ok "the machine powers off" peer_wait disk 120
is "and its peer ends well" "${peer_status:-}" 0

mkdir mnt
drafter-mounter --blueprint out/blueprint --overlay-dir disk mnt 2>mounter.log &
mounter=$!
cleanup kill "$mounter"
wait_line 60 mounter.log 'Mounted devices'
like "the file is on the disk" "$(debugfs -R 'ls -p /' mnt/mydisk 2>&1)" dump.rdb
kill "$mounter"
wait "$mounter"
is "the disk that was given is as it was" "$(sha256sum <out/mydisk.ext4)" "$before"
