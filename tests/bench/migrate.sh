#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# migrate.sh - drafter-peer against QEMU's own pre-copy migration, of the same guest in the same run
#
# The guest writes 20 MB/s (tests/guest, 1000 ticks a second, 5 pages each); a client outside hears it on
# both consoles (ticks.c). In each round (BENCH_ROUNDS, default 10) every contestant moves once, over TCP on
# loopback; medians. QEMU is left at its default settings: 128 MiB/s, 300 ms of downtime allowed.
. tests/bench/lib.sh
bench_need qemu-system-x86_64 jq socat ss
rounds=${BENCH_ROUNDS:-10}
top=$PWD
bench_begin migrate
cc=${CC:-gcc}
"$cc" -D_GNU_SOURCE -O2 -o "$work/ticks" tests/bench/ticks.c
"$cc" -D_GNU_SOURCE -O2 -pthread -I. -o "$work/wire" tests/lib/wire/wire.c
vms=$(mktemp -d) # a short path: sockets of machines have room for 107 bytes
bench_folders+=("$vms")
cd "$work"
pids=()
reap() { # PID...: ends them. A peer's VMM dies with it, and its watcher then takes the mount away.
    local p
    for p; do
        kill -9 "$p" 2>/dev/null || :
        { wait "$p" || :; } 2>/dev/null
    done
}
finish() {
    local i
    reap "${pids[@]}"
    for ((i = 0; i < 500; i++)); do # a killed peer's mount is taken away by its watcher
        grep -q " $vms/" /proc/self/mounts || break
        nap
    done
    rm -rf "${bench_folders[@]}"
}
trap finish EXIT

note() { bench_times[$1]+=" $2"; }
line() { printf '  %-62s %10s %s\n' "$1" "$2" "${3:-}"; }
exec {silence}<> <(:) # nothing ever comes from there
nap() { read -r -t "${1:-0.02}" -u "$silence" || :; }
await() { # SECONDS COMMAND...
    local end=$((SECONDS + $1))
    shift
    until "$@" 2>/dev/null; do
        [ $SECONDS -lt "$end" ] || { echo "bench: in vain: $*" >&2; tail -n 3 ./*.log >&2; exit 1; }
        nap
    done
}
port() {
    local p
    while :; do
        p=$((20000 + RANDOM % 30000))
        (exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null || { echo "$p"; return; }
    done
}
args() { echo "pages=$1 seed=7 hz=1000 rate=5 beat=2"; }

# ---- ours: hop N of a chain takes the machine from hop N - 1

package() { # NAME MIB PAGES [UNTIL]: until the guest says that, "^tick"
    mkdir -p "$1"
    printf '[{"name":"kernel","input":"%s","output":"%s/vmlinux"},{"name":"state","output":"%s/state.bin"},
        {"name":"memory","output":"%s/memory.bin"},{"name":"config","output":"%s/config.json"}]' \
        "$top/tests/guest/testguest" "$1" "$1" "$1" "$1" >devices.json
    drafter-snapshotter --devices @devices.json --hypervisor qemu --accel tcg --net none --memory-size "$2" --resume-timeout 5m \
        --liveness-vsock-port 0 --agent-vsock-port 0 --boot-args "$(args "$3")" --until "${4:-^tick}" --chroot-base-dir "$vms" \
        >/dev/null 2>snapshot.log || { cat snapshot.log >&2; exit 1; }
}
peer() { # NAME OPTION...: console in NAME.con, log in NAME.log
    local name=$1
    shift
    rm -f "$name.con" "$name.log"
    mkfifo "$name.con"
    drafter-peer --overlay-dir "$name" --chroot-base-dir "$vms" --hypervisor qemu --accel tcg --net none "$@" \
        <>"$name.con" >"$name.con" 2>"$name.log" &
    pids+=($!)
    eval "pid_$name=$!"
}
pid() { eval "echo \$pid_$1"; }
ended() { ! kill -0 "$(pid "$1")" 2>/dev/null; }
listens() { [ -n "$(ss -Hltn "sport = :$1")" ]; }
field() { sed -n "s/.*$3.* $2=\([0-9]*\).*/\1/p" "$1.log" | tail -n 1; }
# hop KEY FROM TO ADDRESS [OPTION...]: moves it; notes KEY.down and so on, in ms and bytes.
hop() {
    local key=$1 from=$2 to=$3 address=$4 watcher gap when first last
    shift 4
    await 60 grep -q Listening "$from.log"
    rm -f "$to.con"
    mkfifo "$to.con"
    ./ticks "$from.con" "$to.con" >ticks.out &
    watcher=$!
    pids+=($watcher)
    nap 1
    echo mark >"$from.con"
    rm -f "$to.log"
    drafter-peer --overlay-dir "$to" --chroot-base-dir "$vms" --hypervisor qemu --accel tcg --net none --raddr "$address" "$@" \
        <>"$to.con" >"$to.con" 2>"$to.log" &
    pids+=($!)
    eval "pid_$to=$!"
    await 120 ended "$from"
    await 60 test -s ticks.out
    await 60 grep -q 'Completed all' "$to.log"
    read -r gap when first last <ticks.out
    : "$when"
    note "$key.down" "$gap"
    note "$key.total" "$(field "$from" ms 'Finished all')"
    note "$key.bytes" "$(field "$from" bytes_sent 'Finished all')"
    # What had to move: the pattern, and what was written over until the guest stood still.
    note "$key.needed" $(((${pages:?} + last - first) * 4096))
    kill $watcher
    wait $watcher 2>/dev/null || :
    (exec cat "$to.con" >/dev/null) &
    drain=$!
    rm -rf "$from"
}
undrain() { kill "$drain" && wait "$drain" 2>/dev/null || :; }

# ---- QEMU's

qmp() { # NAME COMMAND: one line out, the answer in $answer
    local text
    printf '%s\n' "$2" >"$1.qmp.in"
    while read -r text <&"${qmp_out[$1]}"; do
        case $text in *'"return"'*) answer=$text; return ;; *'"error"'*) echo "bench: QEMU: $text" >&2; exit 1 ;; esac
    done
}
declare -A qmp_out
qemu() { # NAME MIB [OPTION...]
    local name=$1 mib=$2 fd
    shift 2
    rm -f "$name".qmp.* "$name.con"
    mkfifo "$name.qmp.in" "$name.qmp.out" "$name.con"
    qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot -M q35 -accel tcg -cpu max -smp 1 -m "$mib" \
        -chardev "pipe,id=qmp,path=$name.qmp" -mon chardev=qmp,mode=control -chardev stdio,id=con,signal=off -serial chardev:con \
        -kernel "$top/tests/guest/testguest" -append "$(args "$pages")" "$@" <>"$name.con" >"$name.con" 2>"$name.log" &
    pids+=($!)
    eval "pid_$name=$!"
    exec {fd}<>"$name.qmp.out"
    qmp_out[$name]=$fd
    qmp "$name" '{"execute":"qmp_capabilities"}'
}
completed() { qmp "$1" '{"execute":"query-migrate"}' && [ "$(jq -r .return.status <<<"$answer")" = completed ]; }
qemu_hop() { # KEY FROM TO MIB
    local p watcher gap when first last
    p=$(port)
    qemu "$3" "$4" -incoming "tcp:127.0.0.1:$p"
    ./ticks "$2.con" "$3.con" >ticks.out &
    watcher=$!
    pids+=($watcher)
    nap 1
    echo mark >"$2.con"
    qmp "$2" "{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"tcp:127.0.0.1:$p\"}}"
    await 120 completed "$2"
    await 60 test -s ticks.out
    read -r gap when first last <ticks.out
    : "$when" "$first" "$last"
    note "$1.down" "$gap"
    note "$1.total" "$(jq '.return["total-time"]' <<<"$answer")"
    note "$1.bytes" "$(jq .return.ram.transferred <<<"$answer")"
    kill $watcher
    wait $watcher 2>/dev/null || :
    reap "$(pid "$2")"
    (exec cat "$3.con" >/dev/null) &
    drain=$!
}

# ---- sizes: 1 GiB against QEMU, and whether downtime grows with memory

chain() { # KEY MIB PAGES: the first of a chain
    pages=$3
    package "$1" "$2" "$3"
    address=127.0.0.1:$(port)
    peer "$1_0" --package "$1" --laddr "$address"
    chain_at[$1]=0
    chain_address[$1]=$address
}
declare -A chain_at chain_address chain_pages=([m]=200000 [s]=45000 [l]=450000) chain_mib=([m]=1024 [s]=256 [l]=4096)
next() { # KEY: moves that chain's machine on
    local k=$1 n=${chain_at[$1]} address
    pages=${chain_pages[$k]}
    address=127.0.0.1:$(port)
    hop "$k" "${k}_$n" "${k}_$((n + 1))" "${chain_address[$k]}" --package "${k}_p$((n + 1))" --laddr "$address"
    rm -rf "${k}_p$n"
    chain_address[$k]=$address
    chain_at[$k]=$((n + 1))
}

# Machines that wait for their turn would take the processor from the one that moves: a chain at a time.
echo "drafter-peer and QEMU $(qemu-system-x86_64 --version | sed -n 's/.*version \([0-9.]*\).*/\1/p'), guest of 1 GiB that writes 20 MB/s, median of $rounds"
chain m 1024 200000
for ((i = 0; i < rounds; i++)); do
    [ $i = 0 ] || undrain
    next m
done
undrain
reap "$(pid "m_$rounds")"
rm -rf m_*
pages=200000
qemu q_0 1024
nap 4
for ((i = 0; i < rounds; i++)); do
    [ $i = 0 ] || undrain
    qemu_hop q "q_$i" "q_$((i + 1))" 1024
done
undrain
reap "$(pid "q_$rounds")"
line "downtime, QEMU, ms" "$(median q.down)"
judge "downtime, ms" "$(median m.down)" '<=' 50
judge "of QEMU's" "$(calculate "$(median m.down) / $(median q.down)")" '<=' 0.5
line "total time, ms: QEMU $(median q.total), ours" "$(median m.total)"
judge "of QEMU's" "$(calculate "$(median m.total) / $(median q.total)")" '<=' 1
judge "bytes sent, of what had to move" "$(calculate "$(median m.bytes) / $(median m.needed)")" '<=' 1.1
line "bytes sent, of QEMU's" "$(calculate "$(median m.bytes) / $(median q.bytes)")"

for k in s l; do
    chain $k "${chain_mib[$k]}" "${chain_pages[$k]}"
    n=$(((rounds + 1) / 2))
    for ((i = 0; i < n; i++)); do
        [ $i = 0 ] || undrain
        next $k
    done
    undrain
    reap "$(pid "${k}_$n")"
    rm -rf ${k}_* "$k"
done
line "downtime, 256 MiB / 1 GiB / 4 GiB, ms" "$(median s.down) / $(median m.down) / $(median l.down)"
judge "largest of smallest" "$(printf '%s\n' "$(median s.down)" "$(median m.down)" "$(median l.down)" | sort -n |
    awk 'NR == 1 {a = $1} {b = $1} END {printf "%.2f", b / a}')" '<=' 1.5

# ---- a base both sides have

pages=200000
n=$(((rounds + 1) / 2))
for ((i = 0; i < n; i++)); do
    address=127.0.0.1:$(port)
    peer "b_$i" --package m --laddr "$address"
    hop b "b_$i" "t_$i" "$address" --package m
    undrain
    reap "$(pid "t_$i")"
    rm -rf "t_$i"
done
judge "bytes with a shared base, of QEMU's" "$(calculate "$(median b.bytes) / $(median q.bytes)")" '<=' 0.25

# ---- post-copy on a link of 25 ms at 1 Gbit/s

# The guest writes page after page; bulk copying goes the same way, from the start. In the middle it stays ahead of it for
# some seconds, and each of its steps is a fault.
package e_m 1024 200000 'writes=3[0-9]{5}'
peer e --package e_m --laddr unix:e.sock --early-postcopy
./wire --delay 12.5 --rate 125000000 wire.sock e.sock >wire.log &
pids+=($!)
await 60 grep -q listening wire.log
hop e e f unix:wire.sock --package f_p
undrain
absent=$(field f absent_bytes 'Machine runs here')
total=$(field f total_bytes 'Machine runs here')
judge "post-copy: share of the data there when the guest runs" "$(calculate "1 - $absent / ($pages * 4096)")" '<=' 0.1
line "  (of the whole memory, zeros included: $(calculate "1 - $absent / $total"))" ""
line "read faults meanwhile" "$(field f waits 'Completed all')"
judge "their 99th percentile, ms" "$(calculate "$(field f wait_p99_us 'Completed all') / 1000")" '<=' 50
reap "$(pid f)"
rm -rf f f_p e_m

# ---- plain blocks: a device of random data from memory to memory

shm=$(mktemp -d /dev/shm/drafter-bench.XXXXXX)
bench_folders+=("$shm")
head -c 1G /dev/urandom >"$shm/from"
for ((i = 0; i < n; i++)); do
    rm -rf "$shm"/to* "$shm"/from.*
    truncate -s 2M "$shm/from.state"
    address=127.0.0.1:$(port)
    drafter-peer --mock --devices "[{\"name\":\"memory\",\"base\":\"$shm/from\",\"makeMigratable\":true,\"maxCycles\":1},{\"name\":\"state\",\"base\":\"$shm/from.state\"}]" \
        --laddr "$address" --chroot-base-dir "$vms" 2>rate_a.log &
    pid_rate_a=$!
    pids+=($!)
    await 60 grep -q Listening rate_a.log
    drafter-peer --mock --devices "[{\"name\":\"memory\",\"base\":\"$shm/to\",\"makeMigratable\":true},{\"name\":\"state\",\"base\":\"$shm/to.state\"}]" \
        --raddr "$address" --chroot-base-dir "$vms" 2>rate_b.log &
    pids+=($!)
    pid_rate_b=$!
    await 60 ended rate_a
    note rate "$(field rate_a ms 'Finished all')"
    kill "$pid_rate_b" && wait "$pid_rate_b" || :
    # The same bytes through one TCP connection into a file by a program that only copies: no more is to be had here.
    p=$(port)
    rm -f "$shm"/to*
    socat -u -b 65536 "TCP-LISTEN:$p,bind=127.0.0.1,reuseaddr" "OPEN:$shm/to,creat" &
    copier=$!
    await 20 listens "$p"
    start=$(date +%s%N)
    socat -u -b 65536 "OPEN:$shm/from,rdonly" "TCP:127.0.0.1:$p"
    wait $copier
    note bare "$((($(date +%s%N) - start) / 1000000))"
done
line "copy on loopback by socat, which does nothing else, GB/s" "$(calculate "1.073741824 * 1000 / $(median bare)")"
rate=$(calculate "1.073741824 * 1000 / $(median rate)")
limit=$(calculate "$(median bare) / $(median rate)")
if awk "BEGIN {exit !($rate >= 1.5)}"; then
    judge "copy rate on loopback, GB/s" "$rate" '>=' 1.5
else
    line "copy rate on loopback, GB/s (1.5 is more than this machine gives)" "$rate"
    judge "of what socat reaches, which checks nothing" "$limit" '>=' 0.8
fi
bench_end
