#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# runtime.sh - block stack against the file itself and against nbdkit, guest memory against tmpfs, vsock
#
# Needs root: an ordinary user's FUSE mount keeps the kernel's limits on dirty pages. BENCH_ROUNDS
# (default 10) rounds, in which the contestants alternate; medians.
. tests/bench/lib.sh
[ "$(id -u)" = 0 ] || { echo "bench/runtime: needs root, to lift the limits of FUSE mounts" >&2; exit 1; }
bench_need nbdkit nbdfuse qemu-system-x86_64 fusermount3 fincore
rounds=${BENCH_ROUNDS:-10}
export BENCH_ROUNDS=$rounds
top=$PWD
bench_begin runtime
"${CC:-gcc}" -O2 -o "$work/io" tests/bench/io.c
pids=()
stop() {
    local p
    for p in "${pids[@]}"; do kill "$p" 2>/dev/null && wait "$p" || :; done
    pids=()
}
shm=$(mktemp -d /dev/shm/drafter-bench.XXXXXX)
bench_folders+=("$shm")
trap 'stop; rm -rf "${bench_folders[@]}"' EXIT

note() { bench_times[$1]+=" $2"; }
ratio() { calculate "$(median "$1") / $(median "$2")"; }
line() { printf '  %-58s %10s %s\n' "$1" "$2" "${3:-}"; }
order() { # ROUND A B: who goes first changes
    if (($1 % 2)); then echo "$3 $2"; else echo "$2 $3"; fi
}
wait_file() {
    local i
    for ((i = 0; i < 500; i++)); do
        [ ! -e "$1" ] || return 0
        read -r -t 0.02 <> <(:) || :
    done
    echo "bench: no $1" >&2
    exit 1
}
stack() { # FOLDER STACK: serves it as FOLDER/disk
    mkdir -p "$1"
    blockstack --stack "$2" "$1" >"$work/stack.log" 2>&1 &
    pids+=($!)
    wait_file "$1/disk"
}

# A disk of 1 GiB that no cache knows, and its overlay's stack as a VM has it.
cd "$work"
head -c 1G /dev/urandom >disk
sync disk
stack mnt '[{"type": "file", "path": "disk", "readonly": true},
    {"type": "cow", "overlay": "overlay", "state": "state"}, {"type": "dirty"}]'
cold() {
    ./io evict mnt/disk
    ./io evict disk
    [ "$(fincore -bnro PAGES disk)" -lt 100 ] || { echo "bench: the disk stays in the cache" >&2; exit 1; }
}
for ((i = 0; i < rounds; i++)); do
    for name in $(order $i file stack); do
        cold
        [ $name = file ] && path=disk || path=mnt/disk
        note $name "$(./io read $path)"
    done
done
echo "sequential read of a cold disk of 1 GiB, MB/s, medians of $rounds:"
line "the file itself" "$(median file)"
line "through the stack" "$(median stack)"
judge "ratio" "$(ratio stack file)" '>=' 0.7

# Each round writes onto a fresh overlay: a cow's first write of a block is the dear one.
stop
rm -f overlay state
writes=20000
mkdir -p nbd
for ((i = 0; i < rounds; i++)); do
    for how in write sync; do
        stack mnt '[{"type": "file", "path": "disk", "readonly": true},
            {"type": "cow", "overlay": "overlay", "state": "state"}]'
        note "stack-$how" "$(./io $how mnt/disk $writes $i)"
        stop
        rm -f overlay state
        nbdfuse nbd/disk [ nbdkit --exit-with-parent --filter=cow file disk ] >nbd.log 2>&1 &
        pids+=($!)
        wait_file nbd/disk
        note "nbd-$how" "$(./io $how nbd/disk $writes $i)"
        fusermount3 -u nbd
        wait "${pids[@]}" || :
        pids=()
    done
done
echo "random writes of 4 KiB on a cow, per second, medians of $rounds:"
line "nbdkit --filter=cow through nbdfuse, fsync at the end" "$(median nbd-write)"
line "our cow, fsync at the end" "$(median stack-write)"
judge "ratio" "$(ratio stack-write nbd-write)" '>=' 1
line "nbdkit --filter=cow through nbdfuse, each past the cache" "$(median nbd-sync)"
line "our cow, each past the cache" "$(median stack-sync)"
judge "ratio" "$(ratio stack-sync nbd-sync)" '>=' 1

# Two machines of the test guest, of which one works at a time: 4 times 256 MiB.
pages=65536 size=$((320 << 20))
stack mnt "[{\"type\": \"sparse\", \"size\": $size, \"path\": \"memory\"}, {\"type\": \"dirty\"}]"
machine() { # NAME FILE
    mkfifo "$1.in"
    qemu-system-x86_64 -nodefaults -no-user-config -machine q35,memory-backend=mem -accel tcg -cpu max -m 320 \
        -object "memory-backend-file,id=mem,size=320M,mem-path=$2,share=on" -kernel "$top/tests/guest/testguest" \
        -append "pages=$pages beat=0" -display none -no-reboot -serial stdio <"$1.in" >"$1.out" 2>"$1.err" &
    pids+=($!)
}
line_count() { grep -c "$2" "$1.out" || :; }
wait_count() { # NAME REGEX COUNT
    local i
    for ((i = 0; i < 12000; i++)); do
        [ "$(line_count "$1" "$2")" -lt "$3" ] || return 0
        read -r -t 0.005 <> <(:) || :
    done
    echo "bench: machine $1 says no \"$2\"" >&2
    exit 1
}
machine ours mnt/disk
exec {ours}>ours.in
machine tmpfs "$shm/memory"
exec {tmpfs}>tmpfs.in
wait_count ours ready 1
wait_count tmpfs ready 1
for ((i = 1; i <= rounds; i++)); do
    for name in $(order $i ours tmpfs); do
        start=${EPOCHREALTIME/./}
        echo "write $((4 * pages))" >&"${!name}"
        wait_count $name wrote $i
        note "memory-$name" "$(calculate "$((4 * pages * 4096)) / (${EPOCHREALTIME/./} - $start)")"
    done
done
echo "guest writes its memory, MB/s, medians of $rounds:"
line "memory file on tmpfs" "$(median memory-tmpfs)"
line "memory file on our device" "$(median memory-ours)"
judge "ratio" "$(ratio memory-ours memory-tmpfs)" '>=' 0.95
exec {ours}>&- {tmpfs}>&-
stop

bash "$top/tests/bench/vsock.sh" || bench_missed=1
bench_end
