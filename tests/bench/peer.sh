#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# peer.sh - how long a peer takes to have a machine run, and to suspend it, against QEMU alone
#
# Needs root and a blueprint that runs redis: BLUEPRINT (default out/blueprint). BENCH_ROUNDS (default 10) rounds in which
# the contestants alternate; medians. QEMU alone restores the same state with the same arguments, its memory and disks
# plain files, its vsock device served by vsockhost; from exec to the answer of "cont". With FIRECRACKER_BIN also a machine
# of the test guest on Firecracker. CLONES (default 20) at once are asked for an answer of their redis.
. tests/bench/lib.sh
. tests/lib/machine.sh
[ "$(id -u)" = 0 ] || { echo "bench/peer: needs root, to lift the limits of FUSE mounts" >&2; exit 1; }
bench_need qemu-system-x86_64 jq fincore
rounds=${BENCH_ROUNDS:-10} clones=${CLONES:-20}
top=$PWD
bp=$(realpath "${BLUEPRINT:-${OUTPUT_DIR:-out}/blueprint}")
[ -e "$bp/blueprint.json" ] || { echo "bench/peer: no blueprint: run 'make blueprint' first" >&2; exit 1; }
bench_begin peer
"${CC:-gcc}" -O2 -D_GNU_SOURCE -o "$work/restore" tests/bench/restore.c
cd "$work"
vms=$(mktemp -d "${TMPDIR:-/tmp}/dp.XXXXXX") # a short path: sockets lie below
bench_folders+=("$vms")
pids=()
stop() {
    local p
    for p in "${pids[@]}"; do kill "$p" 2>/dev/null || :; done
    for p in "${pids[@]}"; do wait "$p" 2>/dev/null || :; done
    pids=()
}
trap 'stop; rm -rf "${bench_folders[@]}"' EXIT
note() { bench_times[$1]+=" $2"; }
line() { printf '  %-58s %10s %s\n' "$1" "$2" "${3:-}"; }
redis() { # PORT COMMAND: the answer's first line
    local answer
    { exec 7<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || return 1
    printf '%s\r\n' "$2" >&7
    IFS= read -r -t 5 answer <&7 || answer=
    exec 7>&-
    [ -n "$answer" ] && printf '%s\n' "${answer%$'\r'}"
}
wait_redis() {
    local end=$((SECONDS + 120))
    until [ "$(redis "$1" PING)" = +PONG ]; do
        [ $SECONDS -lt $end ] || { echo "bench/peer: redis on port $1 does not answer" >&2; return 1; }
        read -r -t 0.02 <> <(:) || :
    done
}

common=(--hypervisor qemu --accel tcg --net user --chroot-base-dir "$vms" --enable-output=false)
if [ -n "${PACKAGE:-}" ]; then package=$(cd "$top" && realpath "$PACKAGE"); else
    package=$work/package
    drafter-snapshotter --blueprint "$bp" --output package "${common[@]}" --memory-size 1024 --resume-timeout 5m \
        --until 'Ready to accept connections' --log-level warn
fi

# QEMU's arguments as the peer gives them, taken from a peer's process: other descriptors and files, the rest is the same.
peer() { echo "drafter-peer --package $package --overlay-dir $1 ${common[*]}"; }
drafter-peer --package "$package" --overlay-dir first "${common[@]}" 2>first.log </dev/null &
first=$!
pids+=($first)
until grep -q 'VM runs' first.log; do
    kill -0 $first 2>/dev/null || { cat first.log >&2; exit 1; }
    read -r -t 0.02 <> <(:) || :
done
mapfile -d '' qemu <"/proc/$(pgrep -P $first qemu)/cmdline"
stop
for i in "${!qemu[@]}"; do
    case ${qemu[i]} in
        socket,id=qmp,fd=*) qemu[i]=socket,id=qmp,fd=60 ;; # a number that vsockhost does not give its own
        stdio,id=console*) qemu[i]=null,id=console ;;
        vhost-vsock-pci,*) qemu[i]=$(sed 's/vhostfd=[0-9]*/vhostfd={fd}/' <<<"${qemu[i]}") ;;
    esac
done
mkdir -p bare/mnt
bare() {
    (cd bare && rm -f memory && cp --sparse=always "$package/memory.bin" memory && cat memory disk oci >/dev/null &&
        RESTORE_ACT='exec guestctl --log-level warn --vsock-path vsock.sock after-resume >&2' \
            vsockhost --log-level warn --mount mnt --path vsock.sock -- "$work/restore" bare "$package/state.bin" 60 "${qemu[@]}" 2>../bare.log) ||
        { tail -n 5 bare.log >&2; exit 1; }
}
cp --sparse=always "$package/rootfs.ext4" bare/disk
cp --sparse=always "$package/oci.ext4" bare/oci
cat "$package"/* >/dev/null
for ((i = 0; i < rounds; i++)); do
    read -r runs answer < <(bare)
    note bare "$runs"
    note bare_answer "$answer"
    read -r runs answer _ < <("$work/restore" lines 'VM runs' 'Resumed VM' -- $(peer "o$i") </dev/null)
    note runs "$runs"
    note answer "$answer"
    rm -rf "o$i"
done
echo "milliseconds from exec, package of 1 GiB, medians of $rounds:"
line "QEMU alone restores it on plain files" "$(median bare)"
judge "drafter-peer: the guest runs" "$(median runs)" '<=' 60
judge "drafter-peer against QEMU alone" "$(calculate "$(median runs) / $(median bare)")" '<=' 1.4
line "QEMU alone: the guest's agent has answered" "$(median bare_answer)"
judge "drafter-peer: the guest's agent has answered" "$(median answer)" '<=' 100

# 20 MB of the guest's memory are written between a resume and the signal.
for ((i = 0; i < rounds; i++)); do
    port=$(machine_pick_port)
    mkfifo go
    RESTORE_WAIT=1 "$work/restore" lines 'Resumed VM' -- $(peer s) --forward "tcp:127.0.0.1:$port-:6379" <go >suspend &
    suspend=$!
    exec 8>go
    wait_redis "$port"
    redis "$port" 'SETRANGE dirty 20000000 x' >/dev/null
    exec 8>&-
    wait $suspend
    note suspend "$(awk '{print $2}' suspend)"
    rm -rf s go
done
echo "milliseconds from SIGTERM to exit, 20 MB dirty, medians of $rounds:"
judge "drafter-peer suspends" "$(median suspend)" '<=' 150

# Clones. What a second one holds stands in its control group's memory.stat. What its guest
# touched are the pages that its hypervisor has of the memory file.
group=
for dir in /sys/fs/cgroup/memory /sys/fs/cgroup; do
    if [ -e "$dir/memory.usage_in_bytes" ] || grep -qw memory "$dir/cgroup.subtree_control" 2>/dev/null; then
        mkdir "$dir/drafter-bench.$$" && group=$dir/drafter-bench.$$ && break
    fi
done
trap 'stop; rm -rf "${bench_folders[@]}"; [ -z "$group" ] || rmdir "$group"' EXIT
clone() { # NAME [GROUP]: its port in port_NAME
    local port
    port=$(machine_pick_port)
    eval "port_$1=$port"
    (
        [ -z "${2:-}" ] || echo $BASHPID >"$2/cgroup.procs"
        exec drafter-peer --package "$package" --overlay-dir "$1" "${common[@]}" --forward "tcp:127.0.0.1:$port-:6379" </dev/null 2>"$1.log"
    ) &
    pids+=($!)
}
if [ -n "$group" ]; then
    clone c0
    wait_redis "$port_c0"
    clone c1 "$group"
    wait_redis "$port_c1"
    qemu_pid=$(pgrep -P "${pids[-1]}" qemu)
    touched=$(awk '/^[0-9a-f]+-/ {m = $6 ~ /memory$/} m && $1 == "Rss:" {n += $2} END {print int(n / 1024)}' "/proc/$qemu_pid/smaps")
    # Anonymous memory and mapped pages; the rest is clean cache around what was touched, which the kernel drops when it needs room.
    read -r held cache < <(awk '$1 ~ /^(rss|anon|mapped_file|file_mapped)$/ {n += $2} $1 ~ /^(cache|file)$/ {c += $2}
        END {print int(n / 1048576), int(c / 1048576)}' "$group/memory.stat")
    echo "a second clone, MiB:"
    line "it holds" "$held" "(its control group's page cache: $cache)"
    line "its guest touched" "$touched"
    judge "beyond that" $((held - touched)) '<=' 60
    stop
else
    line "a second clone's memory" skipped "no memory controller"
fi
for ((i = 0; i < clones; i++)); do clone "d$i"; done
answering=0
for ((i = 0; i < clones; i++)); do
    eval "port=\$port_d$i"
    if wait_redis "$port"; then answering=$((answering + 1)); fi
done
judge "clones at once, answering" $answering '>=' "$clones"
stop

if [ -n "${FIRECRACKER_BIN:-}" ]; then
    printf '[{"name":"kernel","input":"%s","output":"fc/vmlinux"},{"name":"state","output":"fc/state.bin"},
        {"name":"memory","output":"fc/memory.bin"},{"name":"config","output":"fc/config.json"}]' "$top/tests/guest/testguest" >devices.json
    fc=(--hypervisor firecracker --accel kvm --firecracker-bin "$FIRECRACKER_BIN" --jailer-bin= --net none --chroot-base-dir "$vms" --enable-output=false)
    drafter-snapshotter --devices @devices.json "${fc[@]}" --memory-size 64 --liveness-vsock-port 0 --agent-vsock-port 0 \
        --boot-args 'pages=2048 seed=7 rate=8 beat=3' --until '^tick' --resume-timeout 2m --log-level warn
    for ((i = 0; i < rounds; i++)); do
        read -r runs _ < <("$work/restore" lines 'VM runs' -- drafter-peer --package fc --overlay-dir f "${fc[@]}" </dev/null)
        note firecracker "$runs"
        rm -rf f
    done
    judge "drafter-peer on Firecracker: the test guest runs, ms" "$(median firecracker)" '<=' 25
else
    line "on Firecracker" "skipped" "no FIRECRACKER_BIN"
fi
bench_end
