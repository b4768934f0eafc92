# SPDX-License-Identifier: Apache-2.0
# machine.sh - for shell tests: a blueprint's machine in QEMU, emulated
#
#   . "$TEST_TOP/tests/lib/machine.sh"
#   machine_start BLUEPRINT [QEMU ARGUMENTS]     console in ./console, input through ./keys, pid in $machine
#
# This is the command line of blueprint/README.md ("In QEMU"). The guest's port 6379 is at 127.0.0.1:$machine_port.
# All writes of the guest are thrown away. With machine_vsock=FOLDER it has a vsock device, the socket being
# FOLDER/vsock.sock.

machine_pick_port() { # a port nobody listens on now
    local port
    for _ in $(seq 50); do
        port=$((20000 + RANDOM % 30000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return 0; }
    done
    return 1
}

machine_start() {
    local bp=$1 args=() name file
    shift
    machine_port=$(machine_pick_port)
    while IFS=$'\t' read -r name role file _; do
        case $role in
            kernel) args+=(-kernel "$bp/$file") ;;
            initrd) args+=(-initrd "$bp/$file") ;;
            root | disk) args+=(-drive "file=$bp/$file,format=raw,if=none,id=$name,snapshot=on" -device "virtio-blk-pci,drive=$name") ;;
        esac
    done < <(blueprint-check --digests=false "$bp")
    rm -f keys
    mkfifo keys
    exec 8<>keys
    local memory=${machine_memory:-512} wrap=() end=-9
    if [ -n "${machine_vsock:-}" ]; then
        mkdir -p "$machine_vsock/mnt"
        end=-TERM
        wrap=(vsockhost --mount "$machine_vsock/mnt" --path "$machine_vsock/vsock.sock" --)
        args+=(-machine memory-backend=mem
            -object "memory-backend-file,id=mem,size=${memory}M,mem-path=$machine_vsock/memory,share=on"
            -device "vhost-vsock-pci,guest-cid=3,vhostfd={fd}")
    fi
    "${wrap[@]}" qemu-system-x86_64 -machine q35 -accel tcg,thread=multi -cpu max -m "$memory" -nodefaults -display none \
        -no-reboot -chardev stdio,id=console,signal=off -serial chardev:console \
        -append "$(jq -r .bootArgs "$bp/blueprint.json") ${machine_args:-}" "${args[@]}" \
        -netdev "user,id=net,net=172.16.0.0/24,host=172.16.0.1,dhcpstart=172.16.0.2,hostfwd=tcp:127.0.0.1:$machine_port-172.16.0.2:6379" \
        -device virtio-net-pci,netdev=net,romfile= "$@" <keys >console 2>qemu.log &
    machine=$!
    cleanup machine_kill $end "$machine"
}

machine_kill() { kill "$1" "$2"; wait "$2"; } # SIGNAL PID: to its end, and that of its mount

# machine_ping: whether the guest's redis answers within machine_patience seconds. A connection made before the guest
# listens hangs in QEMU's network: short of that time nothing is learned, so a benchmark makes it short.
machine_ping() {
    local answer
    exec 7<>"/dev/tcp/127.0.0.1/$machine_port" || return 1
    printf 'PING\r\n' >&7
    read -r -t "${machine_patience:-3}" answer <&7
    local rc=$?
    exec 7>&-
    [ $rc = 0 ] && [[ $answer == +PONG* ]]
}
machine_ended() { ! kill -0 "$machine" 2>/dev/null; }
