#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# peer-guest.sh - what a Linux guest sees of being suspended and cloned: an extra disk, vsock, clock, randomness, a console
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/machine.sh"
. "$TEST_TOP/tests/lib/peer.sh"
requires_command qemu-system-x86_64
requires_command mmdebstrap
requires_command debugfs
requires_file /dev/fuse
[ "$(uname -m)" = x86_64 ] || skip_all "emulates x86_64 only"
bp=$(blueprint_shared) || skip_all "cannot make a blueprint"
mkdir extra
"${CC:-gcc}" -D_GNU_SOURCE -O2 -static -o extra/vsock_stream "$TEST_TOP/tests/guest/vsock_stream.c" ||
    skip_all "cannot link a static program"
cp extra/vsock_stream .
plan 33

# The blueprint with one more disk, which the guest mounts by its label because its fstab says so.
echo "from the host" >extra/hello
mke2fs -q -t ext4 -L mydisk -d extra extra.ext4 16M
cp --sparse=always "$bp/rootfs.ext4" disk.ext4
echo 'LABEL=mydisk /mymount ext4 defaults 0 2' >fstab
debugfs -w -R 'rm /etc/fstab' disk.ext4 2>/dev/null
debugfs -w -R 'write fstab /etc/fstab' disk.ext4 2>/dev/null
cat >devices.json <<END
[{"name": "kernel", "input": "$bp/vmlinux", "output": "package/vmlinux"}, {"name": "initrd", "input": "$bp/initrd.img", "output": "package/initrd.img"},
 {"name": "disk", "input": "disk.ext4", "output": "package/rootfs.ext4"}, {"name": "oci", "input": "$bp/oci.ext4", "output": "package/oci.ext4"},
 {"name": "extra", "input": "extra.ext4", "output": "package/extra.ext4"}, {"name": "state", "output": "package/state.bin"},
 {"name": "memory", "output": "package/memory.bin"}, {"name": "config", "output": "package/config.json"}]
END
ok "a package with a further disk is made" drafter-snapshotter --devices @devices.json --chroot-base-dir vms --hypervisor qemu \
    --accel tcg --net user --memory-size 256 --resume-timeout 3m --boot-args "$(jq -r .bootArgs "$bp/blueprint.json")"

# The console has a shell. A command's output comes back between two marks that the command line itself does not contain.
mark=0 answer=
guest() { # PEER COMMAND: its output in $answer
    mark=$((mark + 1))
    peer_type "$1" "echo; echo be''gin-$mark; $2; echo e''nd-$mark"
    wait_line 60 "$1.out" "^end-$mark" || return 1
    answer=$(tr -d '\r' <"$1.out" | sed -n "/^begin-$mark\$/,/^end-$mark\$/{//!p}")
}
start() { # NAME [OPTION...]: its port in $port, its folder in $dir, a shell on its console
    port=$(machine_pick_port)
    peer_start "$1" --net user --forward "tcp:127.0.0.1:$port-:6379" "${@:2}"
    peer_up "$1" 120 || return 1
    dir=$(sed -n 's/.*Resumed VM.* path=//p' "$1.log" | tail -n 1)
    peer_type "$1" '' # the shell starts with the first Enter
    wait_line 60 "$1.out" '/ #' && guest "$1" :
}
ok "it resumes, and its console takes a login" start a
guest a 'cat /mymount/hello; for d in vda vdb vdc; do cat /sys/block/$d/serial; echo; done'
is "the disk is mounted; disks stand in the order given" "$answer" "from the host
disk
oci
extra"

# vsock, both ways, beside the agent's.
./vsock_stream serve "unix:$dir/vsock.sock_52" >serve.log &
cleanup kill $!
wait_line 10 serve.log serving
guest a '/mymount/vsock_stream echo vsock:2:52 3 100000 >/dev/null && echo well'
is "guest to host" "$answer" well
peer_type a '/mymount/vsock_stream serve vsock:2:99 &'
# Refused until the guest's program listens.
ok "host to guest" wait_for 60 timeout 30 ./vsock_stream echo "guest:$dir/vsock.sock:99" 3 100000

# Ten times, with sums over what lies in memory (redis, a tmpfs) and on the disks.
wait_for 60 redis_up "$port"
guest a 'head -c 300000 /dev/urandom >/tmp/m; head -c 300000 /dev/urandom >/mymount/d; sha256sum /tmp/m /mymount/d'
sums=$answer
like "sums are taken" "$sums" '[0-9a-f]{64}.*/tmp/m.*/mymount/d'
for i in 1 2 3 4 5 6 7 8 9 10; do
    redis "$port" "SET round$i $i" >/dev/null
    guest a "echo $i >>/mymount/rounds"
    ok "suspend $i" peer_stop a
    start a
    wait_for 60 redis_up "$port"
    guest a 'sha256sum /tmp/m /mymount/d; wc -l </mymount/rounds'
    is "after $i nothing is lost" "$(redis "$port" DBSIZE) $answer" ":$i $sums
$i"
done
ok "host to guest, after all of these" timeout 60 ./vsock_stream echo "guest:$dir/vsock.sock:99" 3 100000

# A machine that was left standing: its clock is an hour behind when it comes back.
guest a 'date -s "@$(($(date +%s) - 3600))" >/dev/null'
peer_stop a
start a
earliest=$(date +%s)
guest a 'date +%s'
latest=$(date +%s)
ok "the clock is the host's, within a second ($earliest <= $answer <= $latest)" \
    test $((answer + 1)) -ge "$earliest" -a "$answer" -le $((latest + 1))

# Clones: the further disk is their own too, and none draws what another does.
start b
guest b 'ls -1 /mymount; head -c 16 /dev/urandom | od -An -tx1'
of_b=$answer
start c
guest c 'ls -1 /mymount; head -c 16 /dev/urandom | od -An -tx1'
like "a clone's further disk is as in the package" "$of_b" '^hello
lost\+found
vsock_stream
'
ok "two clones draw different random bytes" test "${of_b##*
}" != "${answer##*
}" -a -n "${answer##*
}"
guest b 'echo b >/mymount/mine; sync; cat /mymount/mine'
peer_stop b
guest c 'cat /mymount/mine 2>/dev/null || echo none'
is "what one writes the other does not see" "$answer" none
start b
guest b 'cat /mymount/mine'
is "and finds again when it comes back" "$answer" b
for name in a b c; do peer_stop $name; done
ok "nothing is left behind" vms_empty
