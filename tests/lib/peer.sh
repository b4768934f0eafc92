# SPDX-License-Identifier: Apache-2.0
# peer.sh - for shell tests: packages, peers in the background, and their redis
#
#   peer_start NAME [OPTION...]   drafter-peer on ./package with overlays in ./NAME; console in NAME.out,
#                                 log in NAME.log, input through NAME.in (fd kept open), pid in peer_NAME
#   peer_stop NAME                SIGTERM; its exit status in $peer_status
#   peer_wait NAME                the same without the signal
#
# The hypervisor is QEMU in emulation: these tests run anywhere. $peer_hypervisor makes it another.
peer_hypervisor=(--hypervisor qemu --accel tcg)

peer_start() { # NAME [OPTION...]
    local name=$1
    shift
    rm -f "$name.in" "$name.log"
    mkfifo "$name.in"
    : >"$name.log"
    drafter-peer --overlay-dir "$name" --chroot-base-dir vms "${peer_hypervisor[@]}" --enable-input \
        ${peer_from---package package} "$@" <>"$name.in" >>"$name.out" 2>"$name.log" &
    eval "peer_$name=$!"
    cleanup kill -9 $!
}
peer_pid() { eval "echo \$peer_$1"; }
peer_ended() { ! kill -0 "$(peer_pid "$1")" 2>/dev/null; }
peer_wait() { # NAME [SECONDS]
    wait_for "${2:-60}" peer_ended "$1" || return 1
    wait "$(peer_pid "$1")"
    peer_status=$?
}
peer_stop() {
    kill -TERM "$(peer_pid "$1")"
    peer_wait "$1"
    [ "${peer_status:-}" = 0 ]
}
peer_up() { wait_line "${2:-60}" "$1.log" 'Resumed VM|Booted VM'; }
peer_type() { echo "$2" >"$1.in"; }

# start_ready HOST NAME PROGRAM [OPTION...]: a program in the background; HOST, a function, runs it. Returns when it is ready.
start_ready() {
    local host=$1 name=$2
    shift 2
    $host "$@" --ready-fd 7 7>"$name.ready" 2>"$name.log" </dev/null &
    wait_line 60 "$name.ready" ready
}

# Guest processes of a peer: its VMM.
peer_vmm() { sed -n "s/^\([0-9]*\) (\(qemu\|firecracker\)[^)]*) [A-Z] $(peer_pid "$1") .*/\1/p" /proc/[0-9]*/stat 2>/dev/null; }

# testguest_devices DIR: the device list of a package of the freestanding guest.
testguest_devices() {
    printf '[{"name":"kernel","input":"%s","output":"%s/vmlinux"},{"name":"state","output":"%s/state.bin"},
        {"name":"memory","output":"%s/memory.bin"},{"name":"config","output":"%s/config.json"}]' \
        "$TEST_TOP/tests/guest/testguest" "$1" "$1" "$1" "$1"
}
# testguest_package DIR [OPTION...]: the freestanding guest, running for a moment.
testguest_package() {
    local dir=$1
    shift
    testguest_devices "$dir" >devices.json
    drafter-snapshotter --devices @devices.json --hypervisor qemu --accel tcg --net none --memory-size 64 \
        --liveness-vsock-port 0 --agent-vsock-port 0 --boot-args "pages=2048 seed=7 rate=8 beat=3" --until '^tick' \
        --chroot-base-dir vms "$@"
}
# guest_verify NAME: the test guest looks at its own memory.
guest_verify() {
    local before
    before=$(grep -c '^verify' "$1.out")
    peer_type "$1" verify
    wait_for 60 guest_verified "$1" "$before" && tail -n 50 "$1.out" | tr -d '\r' | grep '^verify' | tail -n 1 | grep -q '^verify ok'
}
guest_verified() { [ "$(grep -c '^verify' "$1.out")" -gt "$2" ]; }
# guest_writes NAME: pages the guest has written, by its last line.
guest_writes() { grep -a '^tick' "$1.out" | tail -n 1 | tr -d '\r' | sed 's/.*writes=//'; }

# vms_empty: nothing of a machine is left: no folder, no mount.
vms_empty() { [ -z "$(find vms -mindepth 2 -print -quit 2>/dev/null)" ] && ! grep -q " $PWD/vms" /proc/self/mounts; }

# blueprint_shared: path of the redis blueprint, made once for all tests; the one that stands in out/ when it is of the
# redis image as it is, and not of something else that somebody plays with.
blueprint_shared() {
    local out=$TEST_TOP/out/tests/shared
    if jq -e '.image | .digest and (.reference | test("images/redis:"))' "$TEST_TOP/out/blueprint/blueprint.json" \
        >/dev/null 2>&1 && blueprint-check "$TEST_TOP/out/blueprint" >/dev/null; then
        echo "$TEST_TOP/out/blueprint"
        return
    fi
    mkdir -p "$out/cache"
    (
        flock 9
        cp -a "$TEST_TOP"/out/cache/linux-image-* "$out/cache/" 2>/dev/null
        make -C "$TEST_TOP" --no-print-directory OUTPUT_DIR="$out" obj=out/obj/release guest-obj=out/obj/guest \
            own-guest=out/obj/guest blueprint >&2
    ) 9>"$out/lock" && echo "$out/blueprint"
}

# package_shared: path of a package of that blueprint, redis waiting for clients, made once for all tests.
package_shared() {
    local out=$TEST_TOP/out/tests/shared bp
    mkdir -p "$out"
    (
        flock 9
        bp=$(blueprint_shared) || exit 1
        [ -e "$out/package/config.json" ] || drafter-snapshotter --blueprint "$bp" --output "$out/package" \
            --hypervisor qemu --accel tcg --net user --memory-size 256 --resume-timeout 3m \
            --until 'Ready to accept connections' --chroot-base-dir vms --enable-output=false </dev/null >&2
    ) 9>"$out/package.lock" && echo "$out/package"
}

# example_out: ./out gets what the shared blueprint was made of, so that another one takes seconds. make_out GOAL...
# is make on that folder, with the programs that stand here.
example_out() {
    local from
    from=$(blueprint_shared) && from=${from%/blueprint} && mkdir -p out || return 1
    cp -a --sparse=always "$from"/{kernel,kernel.inputs,os,images} out/
}
make_out() {
    make -C "$TEST_TOP" --no-print-directory OUTPUT_DIR="$PWD/out" obj=out/obj/release guest-obj=out/obj/guest \
        own-guest=out/obj/guest "$@"
}

# redis PORT COMMAND: the first line of the answer.
redis() {
    local answer rc
    exec 7<>"/dev/tcp/127.0.0.1/$1" || return 1
    printf '%s\r\n' "$2" >&7
    read -r -t 10 answer <&7
    rc=$?
    exec 7>&-
    [ $rc = 0 ] && printf '%s\n' "${answer%$'\r'}"
}
redis_up() { [ "$(redis "$1" PING 2>/dev/null)" = +PONG ]; }

# quick_devices DIR [NAME...]: the device list of a machine kept in DIR (bases in DIR/base), for --devices; its rounds of
# settle follow each other at once. NAMEs: disks besides memory, state and config.
quick_devices() {
    local dir=$1 d knobs='"makeMigratable":true,"maxDirtyBlocks":1000,"minCycles":1,"maxCycles":2,"cycleThrottle":1000000'
    shift
    printf '[{"name":"config","base":"%s/base/config.json"}' "$dir"
    for d in "$@" memory state; do
        printf ',{"name":"%s","base":"%s","overlay":"%s","state":"%s",%s}' "$d" "$dir/base/$d.$([ -e "package/$d.raw" ] && echo raw || echo bin)" \
            "$dir/$d.overlay" "$dir/$d.state" "$knobs"
    done
    printf ']'
}
