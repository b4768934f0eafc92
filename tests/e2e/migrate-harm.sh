#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# migrate-harm.sh - real machines moved over a wire that does harm, and peers killed on the way
#
# Each point: a machine runs on one peer, another takes it over through tests/lib/wire, and at a frame
# chosen at random the wire cuts, truncates, stalls, flips a bit, drops, repeats, swaps, or holds while
# one side is killed. Afterwards exactly one side has the machine, its memory is the pattern and its disk
# the file it was made of, the side that failed said why, and the next try succeeds.
#
# SEED=N repeats a run; POINTS=N (default 44) makes it longer. With FIRECRACKER_BIN (and a KVM that runs
# the test guest) MIGRATE_HARM_VMM=firecracker does the same there.
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/peer.sh"
requires_command qemu-system-x86_64
requires_file /dev/fuse
[ "$(uname -m)" = x86_64 ] || skip_all "emulates x86_64 only"
points=${POINTS:-44}
seed=${SEED:-$((RANDOM * 32768 + RANDOM))}
RANDOM=$seed
"${CC:-gcc}" -D_GNU_SOURCE -O2 -pthread -I"$TEST_TOP" -o wire "$TEST_TOP/tests/lib/wire/wire.c" || skip_all "needs a C compiler"
plan 4
diag "seed $seed"

vmm=(--hypervisor qemu --accel tcg) load="pages=1024 rate=8"
if [ "${MIGRATE_HARM_VMM:-qemu}" = firecracker ]; then
    [ -n "${FIRECRACKER_BIN:-}" ] || skip_all "needs FIRECRACKER_BIN"
    vmm=(--hypervisor firecracker --accel kvm --firecracker-bin "$FIRECRACKER_BIN" --jailer-bin "")
    load="pages=160 rate=2" # with no true KVM below it the guest is slow: less to verify
fi
head -c 3M /dev/urandom >disk.raw
head -c 1M /dev/zero >>disk.raw
mkdir -p package
printf '[{"name":"kernel","input":"%s","output":"package/vmlinux"},{"name":"disk","input":"disk.raw","output":"package/disk.raw"},
    {"name":"state","output":"package/state.bin"},{"name":"memory","output":"package/memory.bin"},
    {"name":"config","output":"package/config.json"}]' "$TEST_TOP/tests/guest/testguest" >snapshot.json
ok "a package is made" drafter-snapshotter --devices @snapshot.json "${vmm[@]}" --net none --memory-size 32 \
    --liveness-vsock-port 0 --agent-vsock-port 0 --boot-args "$load seed=$((seed % 1000)) beat=5" \
    --until '^tick' --chroot-base-dir vms

start() { # NAME [OPTION...]
    local name=$1
    shift
    rm -f "$name.in" "$name.log" "$name.out"
    mkfifo "$name.in"
    : >"$name.log"
    drafter-peer --devices "$(quick_devices "$name" disk)" --chroot-base-dir vms "${vmm[@]}" --net none --enable-input \
        --idle-timeout 4s --retake-timeout 3s --laddr "unix:$name.sock" "$@" <>"$name.in" >"$name.out" 2>"$name.log" &
    eval "peer_$name=$!"
    cleanup kill -9 $!
}
fresh_source() { # NAME: a new machine from the package
    rm -rf "$1" && mkdir -p "$1/base" && cp package/*.bin package/config.json package/disk.raw "$1/base/" && start "$1" && listening "$1"
}
fresh_target() { # NAME WIRE [OPTION...]
    rm -rf "$1" && mkdir -p "$1/base"
    start "$1" --raddr "unix:$2" "${@:3}"
}
listening() { wait_line 60 "$1.log" 'Listening for'; }
gone() { peer_ended "$1"; }
reason() { tail -n 1 "$1.log" | tr -d '\r'; }
sentence() { [[ $1 =~ ^(drafter-peer:|.*(warn|info|error)).{20,} ]]; }
disk_is() { # NAME: what the machine's disk holds
    local path
    path=$(sed -n 's/.*\(Resumed\|Booted\) VM.* path=\([^ ]*\).*/\2/p' "$1.log" | tail -n 1)
    cmp -s "$path/disk" disk.raw
}
machines() { # how many peers of these two run a machine: a VMM that is a child of theirs, and the peer says so
    local n=0 p
    for p in "$@"; do
        gone "$p" || ! grep -qE 'Resumed VM' "$p.log" || ! listening_now "$p" || n=$((n + 1))
    done
    echo $n
}
listening_now() { [ "$(grep -c 'Listening for' "$1.log")" -gt 0 ]; }

# A try is over when the target has ended or listens in its turn, and the source has ended or says that it failed.
failed() { grep -c 'Migration failed' "$1.log"; }
settled() { # SOURCE TARGET FAILURES: how often the source had failed before
    { gone "$2" || listening_now "$2"; } && { gone "$1" || [ "$(failed "$1")" -gt "$3" ]; }
}

wrong() { # TEXT
    failures+="point $point ($what): $1"$'\n'
    for side in "$from" "$to" wire; do failures+=$(sed "s/^/    $side: /" "$side.log" 2>/dev/null | tail -n 6)$'\n'; done
}
intact() { # NAME
    guest_verify "$1" || { wrong "the memory of $1 is not what the guest wrote: $(grep -a '^verify' "$1.out" | tail -n 1)"; return 1; }
    disk_is "$1" || { wrong "the disk of $1 is not what it was"; return 1; }
}

# Points: "SIDE TYPE NUMBERS", of which one number is taken.
places=("source 1 1" "source 3 60" "source 3 60" "source 6 3" "source 5 1" "source 7 1" "source 9 1" "source 9 1" "source 12 1"
    "target 2 1" "target 8 1" "target 8 1" "target 10 1" "target 10 1" "target 11 1")
kinds=(cut truncate stall corrupt drop repeat swap kill-source kill-target kill-source kill-target cut corrupt)
strike_once() {
    local kind side type numbers number wire_pid was
    was=$(failed "$from")
    read -r side type numbers <<<"${places[RANDOM % ${#places[@]}]}"
    kind=${kinds[RANDOM % ${#kinds[@]}]}
    number=$((RANDOM % numbers))
    what="$kind at $side's frame $number of type $type"
    rm -f wire.in && mkfifo wire.in
    local harm=$kind
    case $kind in kill-*) harm=hold ;; esac
    ./wire --harm "$harm" --from "$side" --type "$type" --number "$number" wire.sock "$from.sock" <>wire.in >wire.log 2>&1 &
    wire_pid=$!
    cleanup kill -9 $wire_pid
    wait_line 60 wire.log listening
    fresh_target "$to" wire.sock
    case $kind in
        kill-*)
            wait_for 60 struck_or_over
            if grep -q struck wire.log; then
                [ "$kind" = kill-source ] && kill -9 "$(peer_pid "$from")" || kill -9 "$(peer_pid "$to")"
                echo >wire.in
            fi
            ;;
    esac
    wait_for 90 settled "$from" "$to" "$was" || wrong "it does not come to an end"
    grep -q struck wire.log && struck=$((struck + 1))
    kill -9 $wire_pid
    wait $wire_pid 2>/dev/null
    judge "$kind"
}
struck_or_over() { grep -q struck wire.log || settled "$from" "$to" "$was"; }

# Who has the machine now? Leaves the one that has it in $from.
judge() {
    local n
    n=$(machines "$from" "$to")
    if ! gone "$to" && gone "$from" && listening_now "$to"; then # moved
        intact "$to" || return
        kinds_seen[moved]=$((${kinds_seen[moved]:-0} + 1))
        swap_names
    elif gone "$to" && ! gone "$from"; then # it never went
        [ "$1" = kill-target ] || sentence "$(reason "$to")" || wrong "$to ended without a word: $(reason "$to")"
        sentence "$(grep 'Migration failed' "$from.log" | tail -n 1)" || wrong "$from does not say what failed"
        intact "$from" || return
        ! grep -aq '^tick' "$to.out" || wrong "it ran on $to as well"
        kinds_seen[stayed]=$((${kinds_seen[stayed]:-0} + 1))
    elif gone "$to" && gone "$from"; then
        take_back "$1" || return
    else
        wrong "both live, $n run a machine"
        restart
    fi
}
# Neither runs it: a side was killed. A commit nobody confirmed is taken back, a crash is a crash.
take_back() {
    start "$from"
    wait_for 60 either_up "$from"
    if gone "$from"; then
        if grep -q 'take-back' "$from.log"; then
            kinds_seen[taken-back]=$((${kinds_seen[taken-back]:-0} + 1))
            start "$from" --take-back
            listening "$from" && intact "$from" && return
            wrong "it cannot be taken back"
        elif [ "$1" = kill-source ] && grep -q 'was not suspended' "$from.log"; then
            kinds_seen[crashed]=$((${kinds_seen[crashed]:-0} + 1))
        else
            wrong "it is lost"
        fi
        restart
    else
        wrong "the source runs it again without being told to"
    fi
}
either_up() { gone "$1" || listening_now "$1"; }
swap_names() { local t=$from; from=$to; to=$t; }
restart() {
    kill -9 "$(peer_pid "$from")" "$(peer_pid "$to")" 2>/dev/null
    from=s$((++serial)) to=t$serial
    fresh_source "$from" || { wrong "no new machine"; exit 1; }
}

# After a move that failed the next one, unharmed, succeeds.
next_try() {
    local was
    was=$(failed "$from")
    fresh_target "$to" "$from.sock"
    wait_for 90 settled "$from" "$to" "$was" || { wrong "the next try does not end"; return; }
    if gone "$from" && ! gone "$to"; then
        intact "$to" && swap_names
    else
        wrong "the next try fails: $(reason "$to")"
        gone "$from" && restart
    fi
}

declare -A kinds_seen=()
failures='' struck=0 serial=0 from=s0 to=t0 point=0
fresh_source "$from"
for ((point = 1; point <= points; point++)); do
    before=$from
    strike_once
    [ "$from" != "$before" ] || next_try
done
diag "$points points, $struck struck: $(for k in "${!kinds_seen[@]}"; do printf '%s %s, ' "$k" "${kinds_seen[$k]}"; done)"
is "after every point one side has the machine, whole, and the next try succeeds" "$failures" ""
ok "the harm was done" test "$struck" -ge $((points * 3 / 4))
peer_stop "$from"
is "the last one is suspended" "${peer_status:-}" 0
