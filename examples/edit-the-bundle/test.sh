#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# examples/edit-the-bundle: what is edited between unpack and pack is what runs, and make blueprint does not undo it
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/machine.sh"
. "$TEST_TOP/tests/lib/peer.sh"
requires_command qemu-system-x86_64
requires_command mmdebstrap
requires_command socat
requires_file /dev/fuse
[ "$(uname -m)" = x86_64 ] || skip_all "emulates x86_64 only"
example_out || skip_all "cannot make a blueprint"
plan 10

image=oci:$PWD/out/images/redis:latest
ok "a bundle" make_out unpack/oci OCI_IMAGE_URI="$image"
ok "is edited" "$TEST_TOP/examples/edit-the-bundle/edit.sh" out/oci-runtime-bundle
ok "and packed into a blueprint" make_out pack/oci blueprint
make_out blueprint >made 2>&1
like "that stays as it is" "$(cat made)" KEEP
like "and says what it is of" "$(jq -r .image.reference out/blueprint/blueprint.json)" "^$image\$"

port=$(machine_pick_port)
peer_from='--blueprint out/blueprint' peer_start edited --net user --forward "tcp:127.0.0.1:$port-:6379" --memory-size 256 \
    --resume-timeout 5m
ok "its application answers" wait_for 180 redis_up "$port"
like "with the argument" "$(echo CONFIG GET maxmemory | socat -t 10 - "TCP:127.0.0.1:$port" | tr -d '\r')" $'\n16777216$'
# The machine's own shell shows the application's mounts and files.
wait_line 60 edited.out 'press Enter'
peer_type edited ''
for look in 'grep scratch $p/mounts' 'cat $p/root/etc/edited'; do
    peer_type edited "p=/proc/\$(pidof redis-server); $look"
done
ok "the variable" wait_line 60 edited.out 'main: greeting: hello'
ok "the mount" wait_line 60 edited.out '^tmpfs /scratch '
ok "and the file are there" wait_line 60 edited.out '^a file of its own'
peer_stop edited
