#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# peer-folder.sh - a folder in which a machine runs, or ran: when it is a package, and when it is not
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/machine.sh"
. "$TEST_TOP/tests/lib/peer.sh"
requires_command qemu-system-x86_64
requires_file /dev/fuse
[ "$(uname -m)" = x86_64 ] || skip_all "emulates x86_64 only"
plan 34

testguest_package package 2>snapshotter.log || skip_all "no package: $(tail -n 1 snapshotter.log)"

# no_package NAME FOLDER REGEX: nobody takes the folder for one. (Who would does so until the timeout.)
no_package() {
    fails "$1: no peer starts from it" 1 "$3" \
        timeout 60 drafter-peer --package "$2" --overlay-dir other --chroot-base-dir vms "${peer_hypervisor[@]}"
    fails "$1: no registry serves it" 1 "$3" timeout 60 drafter-registry --package "$2" --laddr unix:r.sock
    fails "$1: no archive is made of it" 1 "$3" drafter-packager --package "$2" --package-path none.tar.zst
}
# arrive FOLDER ADDRESS PEER [OPTION...]: PEER takes the machine in, into FOLDER.
arrive() {
    local folder=$1 address=$2 peer=$3
    shift 3
    peer_from="--package $folder" peer_start "$peer" --raddr "$address" "$@"
    wait_line 120 "$peer.log" 'Completed all device migrations' && guest_verify "$peer"
}
bring() { # FOLDER PEER [OPTION...]: the same, from a new machine
    peer_start origin --fresh --laddr unix:origin.sock
    wait_line 60 origin.log Listening && arrive "$1" unix:origin.sock "${@:2}" && peer_wait origin
}

# -- while it runs there --
ok "a machine arrives in a folder" bring a here --laddr unix:here.sock
no_package "where it runs" a 'in use by'
printf '[{"name":"state","input":"a/state.bin"},{"name":"memory","input":"a/memory.bin"},{"name":"config","input":"a/config.json"}]' >list.json
fails "nor by its files" 1 'in use by' timeout 60 drafter-registry --devices @list.json --laddr unix:r.sock
sed 's/"input"/"path"/g' list.json >paths.json
fails "nor are these archived" 1 'in use by' drafter-packager --devices @paths.json --package-path none.tar.zst
fails "nor is another put in its place" 1 'in use by' drafter-terminator --raddr unix:none.sock --output a --replace
fails "nor in that of its files" 1 'in use by' drafter-terminator --raddr unix:none.sock --replace --devices \
    '[{"name":"state","output":"a/state.bin"},{"name":"memory","output":"a/memory.bin"},{"name":"config","output":"a/config.json"}]'

# -- it moved on --
ok "it moves on" arrive b unix:here.sock there
peer_wait here
is "its first host has ended" "$peer_status" 0
no_package "where it moved on from" a 'was moved to .*must not run twice.*--take-back'
fails "nor by its files, once more" 1 'was moved to' timeout 60 drafter-registry --devices @list.json --laddr unix:r.sock
fails "nor are these archived, once more" 1 'was moved to' drafter-packager --devices @paths.json --package-path none.tar.zst
ok "and nothing was made" [ ! -e none.tar.zst -a ! -e other/memory.bin.overlay ]

# -- suspended: as good as a package, for more than one --
ok "it is suspended where it went" peer_stop there
peer_from='--package b' peer_start c1
peer_from='--package b' peer_start c2
ok "two machines go on from it" peer_up c1
ok "each on its own" peer_up c2
ok "with the memory of the first" guest_verify c1
ok "and so the second" guest_verify c2
ok "it is archived beside them" drafter-packager --package b --package-path b.tar.zst
# In place it does not run while others lie on it.
in_place='[{"name":"memory","base":"b/memory.bin"},{"name":"state","base":"b/state.bin"},{"name":"config","base":"b/config.json"}]'
fails "but it does not run in place below them" 1 'in use by' \
    timeout 60 drafter-peer --devices "$in_place" --chroot-base-dir vms "${peer_hypervisor[@]}"
peer_stop c1
peer_stop c2
drafter-peer --devices "$in_place" --chroot-base-dir vms "${peer_hypervisor[@]}" --enable-output=false 2>place.log </dev/null &
place=$!
cleanup kill -9 $place
wait_line 60 place.log 'Resumed VM'
kill -TERM $place
wait $place
is "afterwards it does" $? 0
fails "which those who lay on it are told" 1 'device .*base' \
    timeout 60 drafter-peer --package b --overlay-dir c1 --chroot-base-dir vms "${peer_hypervisor[@]}"
peer_from='--package b' peer_start c3
ok "while new ones go on from there" peer_up c3
peer_stop c3
ok "nothing is left behind" vms_empty

# -- its peer was killed --
ok "another arrives" bring d killed
vmm=$(peer_vmm killed)
kill -9 "$(peer_pid killed)"
kill -9 $vmm
peer_wait killed
no_package "where its peer was killed" d 'was not suspended when its peer ended'

# -- moved, and taken back by a person --
fails "a machine that is elsewhere is nobody's clone" 1 'was moved to' \
    timeout 60 drafter-peer --package a --overlay-dir back --chroot-base-dir vms "${peer_hypervisor[@]}"
peer_from='--package a' peer_start back --take-back
ok "a person's word makes the folder a package again" peer_up back
ok "as it was when it left" guest_verify back
peer_stop back
