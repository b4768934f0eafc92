#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# demo.sh - the whole way on this host: a blueprint becomes a package, two machines resume from it, and
# one of them moves to another peer while a client writes to it. `make demo` runs it.
#
#   demo.sh OUTPUT_DIR
#
# Needs OUTPUT_DIR/blueprint with an image that runs redis. What it starts it ends, also after Ctrl-C.
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
out=$1
runtime=$top/runtime
demo=$out/demo
package=$out/package
ports=(3333 3334 3335)
listen=127.0.0.1:1337
peers=()

stop() {
    trap - EXIT
    trap '' INT TERM
    local p late
    calm
    kill "${peers[@]}" 2>/dev/null || :
    # A child that has ended is there for kill(1) until it is waited for, so who takes too long is another's to end.
    (nap 20; kill -9 "${peers[@]}") 2>/dev/null &
    late=$!
    for p in "${peers[@]}"; do wait "$p" 2>/dev/null || :; done
    kill -9 $late
    wait $late 2>/dev/null || :
    rm -rf "$demo"
}
trap stop EXIT
trap 'exit 130' INT TERM

# What is being done: on a terminal a line with the seconds it takes, which the result replaces; else one line each.
doing=''
working() {
    calm
    if [ -t 1 ]; then
        (
            trap - EXIT
            trap 'exit 0' TERM
            for ((s = 0; ; s++)); do
                printf '\r\033[K%s ... %d s' "$1" $s
                nap 1
            done
        ) &
        doing=$!
    else
        printf '%s ...\n' "$1"
    fi
}
calm() {
    [ -n "$doing" ] || return 0
    kill "$doing" 2>/dev/null || :
    wait "$doing" 2>/dev/null || :
    doing=''
    printf '\r\033[K'
}
nap() { read -r -t "$1" <> <(:) || :; }
say() {
    calm
    printf '%-26s %s\n' "$1" "$2"
}
fail() {
    calm
    echo "demo: $1" >&2
    shift
    [ $# = 0 ] || tail -n 5 "$@" >&2
    exit 1
}

# wait_line FILE REGEX SECONDS PID: until a line matches; fails when the process ends before.
wait_line() {
    local end=$((SECONDS + $3))
    until grep -qE -- "$2" "$1" 2>/dev/null; do
        [ $SECONDS -lt $end ] || fail "waited $3 s in vain for \"$2\"" "$1"
        kill -0 "$4" 2>/dev/null || fail "a program ended early" "$1"
        nap 0.02
    done
}
# redis PORT WORD...: one command, its answer's first line; fails when nobody answers within 2 s.
redis() {
    local port=$1 line fd
    shift
    { exec {fd}<>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null || return 1
    printf '%s\r\n' "$*" >&"$fd"
    IFS= read -r -t 2 line <&"$fd" || { exec {fd}>&-; return 1; }
    if [ "${line:0:1}" = '$' ]; then IFS= read -r -t 2 line <&"$fd" || :; fi
    exec {fd}>&-
    printf '%s\n' "${line%$'\r'}"
}
wait_redis() { # PORT: until it answers, a minute at most
    local end=$((SECONDS + 60))
    until [ "$(redis "$1" PING || :)" = +PONG ]; do
        [ $SECONDS -lt $end ] || fail "redis does not answer on port $1" "$demo"/*.log
        nap 0.05
    done
}
field() { sed -nE "s/.*$2.* $3=([^ ]*).*/\\1/p" "$1" | tail -n 1; } # FILE MESSAGE KEY
mib() { echo "$((($1 + 524288) / 1048576)) MiB"; }
start_peer() { # NAME ARGUMENT...
    local name=$1
    shift
    "$runtime/drafter-peer" --enable-output=false --chroot-base-dir "$demo/vms" --net user "$@" \
        </dev/null >"$demo/$name.log" 2>&1 &
    peers+=($!)
}

[ -r /dev/fuse ] && [ -w /dev/fuse ] ||
    fail '/dev/fuse cannot be opened, through which machines see their devices: load the module fuse, or "chmod 666 /dev/fuse" as udev does'
rm -rf "$demo"
mkdir -p "$demo"
cd "$top"

say 'blueprint' "$out/blueprint, $(du -sh "$out/blueprint" | cut -f1)"
if [ ! -s "$package/config.json" ] || [ "$out/blueprint/blueprint.json" -nt "$package/config.json" ]; then
    working 'booting the blueprint, waiting for redis'
    "$runtime/drafter-snapshotter" --blueprint "$out/blueprint" --output "$package" --net user \
        --memory-size 256 --until 'Ready to accept connections' --enable-output=false \
        --chroot-base-dir "$demo/vms" </dev/null >"$demo/snapshotter.log" 2>&1 ||
        fail 'the snapshotter failed' "$demo/snapshotter.log"
    say 'booted and snapshotted' "guest up after $(field "$demo/snapshotter.log" 'Guest is up' ms) ms"
fi
say 'package' "$package, $(du -sh "$package" | cut -f1)"

working 'resuming two machines from the package'
start_peer one --package "$package" --overlay-dir "$demo/one" --raddr '' --laddr "$listen" \
    --forward "tcp:127.0.0.1:${ports[0]}-:6379"
start_peer two --package "$package" --overlay-dir "$demo/two" --raddr '' --laddr '' \
    --forward "tcp:127.0.0.1:${ports[1]}-:6379"
for i in 0 1; do
    name=$([ $i = 0 ] && echo one || echo two)
    wait_line "$demo/$name.log" 'Resumed VM' 60 "${peers[i]}"
    wait_redis "${ports[i]}"
    say "resumed machine $name" "$(field "$demo/$name.log" 'Resumed VM' ms) ms, redis on port ${ports[i]}"
done
redis "${ports[0]}" SET who one >/dev/null
redis "${ports[1]}" SET who two >/dev/null
[ "$(redis "${ports[0]}" GET who)$(redis "${ports[1]}" GET who)" = onetwo ] ||
    fail 'the machines are not independent'
say 'their data' 'independent'

working 'moving machine one while a client writes to it'
# A client writes a counter to the machine for as long as it can; the last answered value must arrive.
(
    n=0
    exec {fd}<>"/dev/tcp/127.0.0.1/${ports[0]}"
    while printf 'SET counter %d\r\n' $((n + 1)) >&"$fd" && IFS= read -r -t 5 answer <&"$fd" &&
        [ "${answer%$'\r'}" = +OK ]; do
        n=$((n + 1))
        echo "$n" >"$demo/acknowledged"
    done
) 2>/dev/null &
writer=$!
peers+=("$writer")
start_peer three --package "$demo/three" --raddr "$listen" --laddr '' \
    --forward "tcp:127.0.0.1:${ports[2]}-:6379"
three=${peers[-1]}
wait_line "$demo/three.log" 'Completed all device migrations' 120 "$three"
wait_line "$demo/one.log" 'Finished all migrations' 20 "$three"
wait_redis "${ports[2]}"
kill "$writer" 2>/dev/null || :
wait "$writer" 2>/dev/null || :
say 'moved machine one' "$(field "$demo/one.log" 'Finished all migrations' ms) ms, of which it stood still for $(
    field "$demo/one.log" 'Finished all migrations' suspended_ms) ms"
say 'sent' "$(mib "$(field "$demo/one.log" 'Finished all migrations' bytes_sent)") of $(mib "$(du -sb "$package" | cut -f1)")"
acknowledged=$(cat "$demo/acknowledged" 2>/dev/null || echo 0)
there=$(redis "${ports[2]}" GET counter)
[ "${there:-0}" -ge "$acknowledged" ] && [ "$(redis "${ports[2]}" GET who)" = one ] ||
    fail "the machine lost writes: $acknowledged were acknowledged, $there is there"
say 'writes acknowledged' "$acknowledged before the move ended its connection; last one there: $there"
echo
echo 'Play on by hand, each in a terminal of its own:'
cat <<EOF2
  runtime/drafter-peer --package $package --overlay-dir $out/play --fresh --laddr $listen --net user --forward tcp:127.0.0.1:${ports[0]}-:6379
  runtime/drafter-peer --package $package --overlay-dir $out/played --fresh --raddr $listen --net user --forward tcp:127.0.0.1:${ports[1]}-:6379
  echo PING | socat -t 5 - TCP:127.0.0.1:${ports[0]}     # after the second one: port ${ports[1]}
Ctrl-C suspends a machine; without --fresh the same command goes on with it.
EOF2
