#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# registry.sh - drafter-registry and drafter-terminator: pulls, backups, clients that misbehave, events and traces
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/machine.sh"
. "$TEST_TOP/tests/lib/peer.sh"
requires_command qemu-system-x86_64
requires_command jq
requires_command socat
requires_command "${CC:-gcc}"
requires_file /dev/fuse
[ "$(uname -m)" = x86_64 ] || skip_all "emulates x86_64 only"
plan 71

testguest_package package 2>snapshotter.log || skip_all "no package: $(tail -n 1 snapshotter.log)"
before=$(cat package/* | sha256sum)
same_devices() { cmp "$1/memory.bin" "$2/memory.bin" && cmp "$1/state.bin" "$2/state.bin"; }
config() { tr -d '\0' <"$1/config.json"; }
rss() { awk '/^VmHWM/ {print $2}' "/proc/$1/status"; }

# -- a registry --
registry() { # NAME OPTION...
    local name=$1
    shift
    : >"$name.log"
    drafter-registry --package package --laddr "unix:$name.sock" "$@" 2>"$name.log" &
    eval "$name=$!"
    cleanup kill -9 $!
    wait_line 60 "$name.log" 'Serving addr'
}
ok "a registry serves" registry r --status-fd 7 7>r.events
ok "a terminator fetches the package" drafter-terminator --raddr unix:r.sock --output fetched
ok "all of it" same_devices package fetched
is "with its ports and machine" "$(config fetched | jq -c '[.agentVSockPort, .machine]')" "$(config package | jq -c '[.agentVSockPort, .machine]')"
is "and digests of its own" "$(config fetched | jq -r '.devices[] | select(.name == "memory") | .sha256')" "$(sha256sum fetched/memory.bin | cut -d' ' -f1)"
fails "it replaces nothing unasked" 1 'is there already' drafter-terminator --raddr unix:r.sock --output fetched
ok "but asked" drafter-terminator --raddr unix:r.sock --output fetched --replace

# Several at once, of both kinds; two of them on the package as their base.
for i in 1 2 3; do
    drafter-terminator --raddr unix:r.sock --output "many$i" 2>"many$i.log" &
    eval "many$i=$!"
done
peer_from='--package pulled' peer_start p1 --raddr unix:r.sock
peer_start p2 --raddr unix:r.sock
peer_start p3 --raddr unix:r.sock
rc=0
for i in 1 2 3; do eval "wait \$many$i" && same_devices package "many$i" || rc=1; done
is "three terminators at once fetch it whole" $rc 0
for p in p1 p2 p3; do
    wait_line 120 "$p.log" 'Completed all device migrations'
    ok "$p runs what it pulled" guest_verify $p
done
is "what p2 has already did not travel" "$(grep -c 'Completed.*pages_base=[1-9]' r.log)" 2
sum=$(grep -o 'bytes_sent=[0-9]* pages_base=[1-9]' r.log | sed 's/.*sent=//;s/ .*//' | sort -n | tail -n 1)
is "at most a hundredth of it" "$((sum < $(stat -c %b package/memory.bin) * 512 / 100 + 300000))" 1
for p in p1 p2 p3; do peer_stop $p; done
is "each has written on its own" "$(cat package/* | sha256sum)" "$before"
peer_from='--package pulled' peer_start p1
ok "what was pulled is a machine that goes on" peer_up p1
ok "as it was" guest_verify p1
peer_stop p1

# A link that breaks when the machine runs already, before most of it has come.
"${CC:-gcc}" -D_GNU_SOURCE -O2 -pthread -I"$TEST_TOP" -o wire "$TEST_TOP/tests/lib/wire/wire.c"
registry slowly --bandwidth-limit 4M
./wire --harm cut --from target --type 10 wire.sock slowly.sock >wire.log 2>&1 &
cleanup kill -9 $!
wait_line 60 wire.log listening
peer_from='--package broken' peer_start p4 --raddr unix:wire.sock
wait_line 120 p4.log 'Completed all device migrations'
ok "a broken link is taken up again" grep -q 'Took the link to the source up again' p4.log
ok "and nothing is lost" guest_verify p4
like "the registry counts it as served" "$(grep Completed slowly.log)" 'bytes_sent'
peer_stop p4
kill -TERM "$slowly"
wait "$slowly"

# Clients that say nothing, nonsense, or leave in the middle; then one that behaves.
exec 8<> <(:)
socat -u OPEN:/dev/null,ignoreeof UNIX-CONNECT:r.sock &
cleanup kill -9 $!
head -c 100000 /dev/urandom | socat -u - UNIX-CONNECT:r.sock 2>/dev/null
ok "nonsense is turned away" wait_line 60 r.log 'turned away.*greeting'
for n in 1 64 65 104 2000; do
    # The first n bytes of what a puller says, and an end; what the registry says is not read.
    head -c "$n" /dev/zero | socat -u - UNIX-CONNECT:r.sock 2>/dev/null
done
for i in 1 2 3; do
    drafter-terminator --raddr unix:r.sock --output "killed$i" 2>/dev/null &
    wait_for 60 test -n "$(find . -maxdepth 1 -name '.killed*')"
    kill -9 $!
    wait $! 2>/dev/null
done
ok "it serves on" drafter-terminator --raddr unix:r.sock --output after
ok "the same" same_devices package after
is "in little memory" "$(($(rss "$r") < 200000))" 1
# Those killed may have had everything before.
like "its events say what was served" "$(jq -r 'select(.event == "ended" and .outcome == "moved") | .side' r.events | sort | uniq -c | tr -d '\n ')" '^(9|10|11|12)source$'
kill -TERM "$r"
wait "$r"
is "it ends when told" $? 0
ok "nobody listens any more" [ ! -e r.sock ]

# Those that have not said what they want take no place of a pull.
registry few --pulls 1 --disable-postcopy-migration --bandwidth-limit 4M --laddr unix:few.sock
for i in 1 2 3; do
    socat -u OPEN:/dev/null,ignoreeof UNIX-CONNECT:few.sock &
    cleanup kill -9 $!
done
drafter-terminator --raddr unix:few.sock --output slow 2>slow.log &
slow=$!
wait_line 60 few.log 'Migrating to'
fails "more than --pulls are turned away" 1 'closed the connection|reset|Broken pipe' drafter-terminator --raddr unix:few.sock --output more
kill -TERM "$few"
wait "$few"
is "told to end, it calls off what does not run yet" $? 0
wait $slow
is "whose puller fails" $? 1
like "and says why" "$(tail -n 1 slow.log)" 'called it off|closed the connection'
ok "leaving nothing" [ ! -e slow ]
# Of a puller that owes a word and takes nothing; here at once, a unit test has one that is mute.
registry short --answer-timeout 1ns
fails "a puller that does not answer is given up" 1 'answer timeout|Broken pipe|closed the connection|reset' \
    drafter-terminator --raddr unix:short.sock --output never
ok "and why is said" wait_line 60 short.log 'A pull failed.*answer to the offer did not come.*answer timeout'
kill -TERM "$short"
wait "$short"

# Upstream's packages: a config that says nothing of the machine, in a folder and by a list.
cp -r --sparse=always package upstreams
printf '{"agentVSockPort":26}' >upstreams/config.json
truncate -s 1M upstreams/config.json
truncate -s +1M upstreams/memory.bin # it pads this one too
registry up --package upstreams
ok "a package of upstream's is served" drafter-terminator --raddr unix:up.sock --output adopted
ok "all of it" same_devices upstreams adopted
is "as a machine of Firecracker's" "$(config adopted | jq -c '[.agentVSockPort, .machine.hypervisor, .machine.memoryMiB]')" '[26,"firecracker",64]'
ok "a copy of what stands still is a copy" drafter-terminator --raddr unix:up.sock --output adopted2 --keep-running
ok "and no failure" wait_line 60 up.log 'A copy was taken'
kill -TERM "$up"
wait "$up"
printf '[{"name":"state","input":"upstreams/state.bin"},{"name":"memory","input":"upstreams/memory.bin"},{"name":"config","input":"upstreams/config.json"}]' >up.json
: >listed.log
drafter-registry --devices @up.json --laddr unix:listed.sock 2>listed.log &
listed=$!
cleanup kill -9 $!
wait_line 60 listed.log 'Serving addr'
ok "and by its devices" drafter-terminator --raddr unix:listed.sock --output adopted3
ok "the same" same_devices adopted adopted3
kill -TERM $listed
wait $listed

# A package that is replaced, as a whole and file by file, while it is served.
cp -r --sparse=always package shelf
registry shelf --package shelf
mv shelf gone && cp -r --sparse=always upstreams shelf && rm -r gone
ok "a package that has gone is served as it was" drafter-terminator --raddr unix:shelf.sock --output held
ok "all of it" same_devices package held
kill -TERM "$shelf"
wait "$shelf"
rm -r shelf && cp -r --sparse=always package shelf
registry shelf --package shelf
head -c 64M /dev/urandom >shelf/memory.new && mv shelf/memory.new shelf/memory.bin
fails "a peer of its own cannot run in it" 1 'in use by' \
    timeout 60 drafter-peer --devices '[{"name":"memory","base":"shelf/memory.bin"},{"name":"state","base":"shelf/state.bin"},{"name":"config","base":"shelf/config.json"}]' \
    --chroot-base-dir vms "${peer_hypervisor[@]}"
ok "nor is new memory served with an old state" drafter-terminator --raddr unix:shelf.sock --output held2
ok "but what belongs together" same_devices package held2
kill -TERM "$shelf"
wait "$shelf"
rm -r shelf && cp -r --sparse=always package shelf
touch -d '2020-01-01' shelf/memory.bin
registry shelf --package shelf
flip_byte shelf/memory.bin 4096
fails "a file that is written in place is served no longer" 1 'closed the connection|reset|Broken pipe|called it off' \
    drafter-terminator --raddr unix:shelf.sock --output held3
ok "and why is said" wait_line 60 shelf.log 'A pull failed.*memory.bin was written while it is served'
kill -TERM "$shelf"
wait "$shelf"

cp -r --sparse=always package flipped
flip_byte flipped/memory.bin 123456
fails "a damaged package is not served" 1 'device memory.*damaged|SHA-256' drafter-registry --package flipped --laddr unix:x.sock
cp package/memory.bin flipped/ && flip_byte flipped/state.bin 100
fails "nor one whose state is" 1 'device state.*damaged|SHA-256' drafter-registry --package flipped --laddr unix:x.sock

# -- a terminator and a running machine --
called_off() { # NAME REGEX: the machine of NAME was given up and runs on; its taker failed, saying REGEX
    wait_line 60 "$1.log" 'Migration failed, the machine runs on' && guest_verify "$1" && ! wait $taker &&
        [[ $(tail -n 1 taker.log) =~ $2 ]] && [ ! -e given-up ]
}
called_off_before() { grep -q 'Migration failed, the machine runs on' "$1.log" && guest_verify "$1" && [ ! -e given-up ]; }
peer_start u --laddr unix:u.sock --bandwidth-limit 1M --status-fd 9 9>u.events
wait_line 60 u.log Listening
drafter-terminator --raddr unix:u.sock --output given-up 2>taker.log &
taker=$!
wait_line 60 u.events '"stage":"copy"'
kill -USR1 "$(peer_pid u)"
ok "SIGUSR1 calls a migration off, the machine runs on" called_off u 'called it off|closed the connection|middle of a message'
ok "until it is told to end" peer_stop u
peer_start d --laddr unix:d.sock --downtime-limit 1us
wait_line 60 d.log Listening
drafter-terminator --raddr unix:d.sock --output given-up 2>taker.log &
taker=$!
ok "a machine that would stand still for too long runs on" called_off d 'longer than the limit'
peer_stop d
# READY is lost, and the link: the source has rolled back when its target comes to take the link up again.
peer_start w --laddr unix:w.sock
wait_line 60 w.log Listening
./wire --harm cut --from target --type 8 wire2.sock w.sock >wire2.log 2>&1 &
cleanup kill -9 $!
wait_line 60 wire2.log listening
fails "a target whose source has rolled back is told, and lets go" 1 'called it off.*rolled back, the machine runs on here' \
    drafter-terminator --raddr unix:wire2.sock --output given-up
ok "it was by the source" wait_line 60 w.log 'Told a target that its migration was rolled back'
ok "whose machine runs on" called_off_before w
ok "and is there for the next" drafter-terminator --raddr unix:w.sock --output given-later
peer_wait w
peer_start a --laddr unix:a.sock --trace a.trace --status-fd 9 9>a.events
wait_line 60 a.log Listening
ok "a copy is taken" drafter-terminator --raddr unix:a.sock --output copy --keep-running --trace copy.trace
ok "the machine goes on" guest_verify a
ok "its peer says what it was" grep -q 'A copy was taken, the machine runs on here' a.log
fails "and not that it failed" 1 '' grep 'Migration failed' a.log
ok "and is taken for good" drafter-terminator --raddr unix:a.sock --output taken
peer_wait a
is "then the source ends" "$peer_status" 0
peer_from='--package copy' peer_start c1
peer_up c1
ok "the copy is whole" guest_verify c1
first=$(guest_writes c1)
peer_stop c1
peer_from='--package taken' peer_start c2
peer_up c2
ok "and the package too" guest_verify c2
peer_stop c2
is "events say that it was copied, and then moved" \
    "$(jq -r 'select(.event == "ended") | .outcome' a.events | paste -sd' ')" "copied moved"
is "every stage was reported" "$(jq -r 'select(.event == "progress") | .stage' a.events | uniq | paste -sd' ')" \
    "greet offer copy settle suspend greet offer copy settle suspend commit drain finished"
is "rounds found what the guest wrote" "$(jq -s '[.[] | select(.event == "progress" and .stage == "settle") | .dirty_pages] | max > 0' a.events)" true
is "each has its number" "$(jq -s '[.[] | select(.event == "progress" and .stage == "settle") | .round] | max >= 1' a.events)" true
ok "the trace can be drawn" plot-migration -o a.svg a.trace
plot-migration copy.trace >copy.svg
like "the target's too, with its pause" "$(cat copy.svg)" 'stands still [0-9.]+ ms.*</svg>'
like "the source's shows both" "$(plot-migration --number 1 a.trace)" 'copied'

