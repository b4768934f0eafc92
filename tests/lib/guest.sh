# SPDX-License-Identifier: Apache-2.0
# guest.sh - for shell tests: a Linux guest that is suspended, resumed and cloned, and what it sees of that; read behind
# functions.sh and peer.sh
#
#   guest_disks BLUEPRINT         extra.ext4 and disk.ext4: a further disk, which the blueprint's root mounts by its label;
#                                 and vsock_stream, which is on that disk too. Fails when it cannot be compiled.
#   guest_devices BLUEPRINT       prints the device list of that machine, to be saved into ./package
#   guest_network NAME            the test's own: sets $port, where the guest's redis is reached, and $network, options
#   guest_start NAME [OPTION...]  a peer of ./package with a shell on its console; its folder is in $dir
#   guest NAME COMMAND            runs it in there; its output is in $answer
#   guest_acts ROUNDS             all that follows from being suspended so often, and cloned: $((13 + 2 * ROUNDS)) tests

guest_disks() {
    mkdir extra &&
        "${CC:-gcc}" -D_GNU_SOURCE -O2 -static -o extra/vsock_stream "$TEST_TOP/tests/guest/vsock_stream.c" &&
        cp extra/vsock_stream . || return 1
    echo "from the host" >extra/hello
    mke2fs -q -t ext4 -L mydisk -d extra extra.ext4 16M &&
        cp --sparse=always "$1/rootfs.ext4" disk.ext4 || return 1
    echo 'LABEL=mydisk /mymount ext4 defaults 0 2' >fstab
    debugfs -w -R 'rm /etc/fstab' disk.ext4 2>/dev/null
    debugfs -w -R 'write fstab /etc/fstab' disk.ext4 2>/dev/null
}
guest_devices() {
    cat <<END
[{"name": "kernel", "input": "$1/vmlinux", "output": "package/vmlinux"}, {"name": "initrd", "input": "$1/initrd.img", "output": "package/initrd.img"},
 {"name": "disk", "input": "disk.ext4", "output": "package/rootfs.ext4"}, {"name": "oci", "input": "$1/oci.ext4", "output": "package/oci.ext4"},
 {"name": "extra", "input": "extra.ext4", "output": "package/extra.ext4"}, {"name": "state", "output": "package/state.bin"},
 {"name": "memory", "output": "package/memory.bin"}, {"name": "config", "output": "package/config.json"}]
END
}

# A command's output comes back between two marks that the command line itself does not contain. The machine's program and
# its agent write to the same console whenever they like: their lines are not the command's.
guest_mark=0 answer=
guest() {
    guest_mark=$((guest_mark + 1))
    peer_type "$1" "echo; echo be''gin-$guest_mark; $2; echo e''nd-$guest_mark"
    wait_line 60 "$1.out" "^end-$guest_mark" || return 1
    answer=$(tr -d '\r' <"$1.out" | sed -n "/^begin-$guest_mark\$/,/^end-$guest_mark\$/p" | sed '1d;$d' |
        grep -avE '^(main: |[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z )' || :)
}
guest_start() {
    guest_network "$1"
    peer_start "$1" "${network[@]}" "${@:2}"
    peer_up "$1" 120 || return 1
    dir=$(sed -n 's/.*Resumed VM.* path=//p' "$1.log" | tail -n 1)
    peer_type "$1" '' # the shell starts with the first Enter
    wait_line 60 "$1.out" '/ #' && guest "$1" :
}

guest_acts() {
    local i name sums earliest latest port_of_a of_b rounds=$1
    ok "it resumes, and its console takes a login" guest_start a
    guest a 'cat /mymount/hello; for d in vda vdb vdc; do echo $(($(cat /sys/block/$d/size) * 512)); done'
    is "the disk is mounted; disks stand in the order given" "$answer" "from the host
$(stat -c %s package/rootfs.ext4 package/oci.ext4 package/extra.ext4)"

    # vsock, both ways, beside the agent's. The hypervisor may be another user.
    (umask 0 && exec ./vsock_stream serve "unix:$dir/vsock.sock_52") >serve.log &
    cleanup kill $!
    wait_line 60 serve.log serving
    guest a '/mymount/vsock_stream exchange vsock:2:52 3 100000 >/dev/null && echo well'
    is "guest to host" "$answer" well
    peer_type a '/mymount/vsock_stream serve vsock:2:99 &'
    # Refused until the guest's program listens.
    ok "host to guest" wait_for 60 timeout 30 ./vsock_stream exchange "guest:$dir/vsock.sock:99" 3 100000

    # Again and again, with sums over what lies in memory (redis, a tmpfs) and on the disks.
    wait_for 60 redis_up "$port"
    guest a 'head -c 300000 /dev/urandom >/tmp/m; head -c 300000 /dev/urandom >/mymount/d; sha256sum /tmp/m /mymount/d'
    sums=$answer
    like "sums are taken" "$sums" '[0-9a-f]{64}.*/tmp/m.*/mymount/d'
    for ((i = 1; i <= rounds; i++)); do
        redis "$port" "SET round$i $i" >/dev/null
        guest a "echo $i >>/mymount/rounds"
        ok "suspend $i" peer_stop a
        guest_start a
        wait_for 60 redis_up "$port"
        guest a 'sha256sum /tmp/m /mymount/d; wc -l </mymount/rounds'
        is "after $i nothing is lost" "$(redis "$port" DBSIZE) $answer" ":$i $sums
$i"
    done
    ok "host to guest, after all of these" timeout 60 ./vsock_stream exchange "guest:$dir/vsock.sock:99" 3 100000

    # A machine that was left standing: its clock is an hour behind when it comes back.
    guest a 'date -s "@$(($(date +%s) - 3600))" >/dev/null'
    peer_stop a
    guest_start a
    port_of_a=$port
    earliest=$(date +%s)
    guest a 'date +%s'
    latest=$(date +%s)
    ok "the clock is the host's, within a second ($earliest <= $answer <= $latest)" \
        test $((answer + 1)) -ge "$earliest" -a "$answer" -le $((latest + 1))

    # Clones: the further disk is their own too, and none draws what another does.
    guest_start b
    guest b 'ls -1 /mymount; head -c 16 /dev/urandom | od -An -tx1'
    of_b=$answer
    wait_for 60 redis_up "$port"
    redis "$port" 'SET mine b' >/dev/null
    guest_start c
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
    wait_for 60 redis_up "$port"
    is "nor what its database has; the first one's is as it was" "$(redis "$port" DBSIZE) $(redis "$port_of_a" DBSIZE)" ":0 :$rounds"
    guest_start b
    guest b 'cat /mymount/mine'
    is "and finds again when it comes back" "$answer" b
    for name in a b c; do peer_stop $name; done
    ok "nothing is left behind" vms_empty
}
