#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# peer-options.sh - carriers, certificates, knobs and bases of a migration: devices alone, without a machine
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/machine.sh"
. "$TEST_TOP/tests/lib/peer.sh"
requires_command openssl
requires_command socat
requires_command jq
requires_command script
requires_file /dev/fuse
plan 60

# -- what moves: 6 MiB of memory, 16 MiB of disk, of which 4 MiB are text --
mkdir package
head -c 6M /dev/urandom >package/memory.bin
{ head -c 4M /dev/zero | tr '\0' 'x' && head -c 4M /dev/urandom; } >package/rootfs.ext4
truncate -s 16M package/rootfs.ext4
head -c 50000 /dev/urandom >package/state.bin
truncate -s 1M package/state.bin
printf '{"agentVSockPort":0}' >package/config.json
truncate -s 1M package/config.json

n=0
# source ADDRESS [OPTION...]: a peer that hands ./package on; sets $s.
source_at() {
    local address=$1
    shift
    s=s$((++n))
    peer_start $s --mock --laddr "$address" "$@" 7>$s.events --status-fd 7
    wait_line 60 $s.log 'Listening'
}
# take ADDRESS [OPTION...]: a peer that takes it over, into ./t$n, and is told to end when it has it.
take() {
    local address=$1
    shift
    t=t$n
    peer_from="${into---package $t}" peer_start $t --mock --raddr "$address" "$@"
    wait_for 60 took_or_failed $t
    grep -q 'Completed all' $t.log || return 1
    peer_stop $t && peer_wait $s && [ "$peer_status" = 0 ]
}
took_or_failed() { grep -q 'Completed all' "$1.log" || peer_ended "$1"; }
same() { cmp package/memory.bin t$n/memory.bin && cmp package/rootfs.ext4 t$n/rootfs.ext4; }
sent() { jq -r 'select(.event == "ended") | .bytes_sent' $s.events | tail -n 1; }
moved() { take "$@" && same; }

# -- carriers --
# silent PORT: three clients that connect and say nothing, for as long as the test lasts.
silent() {
    for _ in 1 2 3; do
        socat -u OPEN:/dev/null,ignoreeof "TCP:127.0.0.1:$1" &
        cleanup kill -9 $!
    done
}
source_at 127.0.0.1:0
port=$(sed -n 's/.*Listening.*:\([0-9]*\)$/\1/p' $s.log)
silent "$port"
ok "IPv4, beside clients that say nothing" moved "127.0.0.1:$port"
like "the source says where it went" "$(grep 'Finished all migrations' $s.log)" 'addr=127.0.0.1:'
if [ -e /proc/net/if_inet6 ] && grep -q ' lo$' /proc/net/if_inet6; then
    source_at '[::1]:0'
    port=$(sed -n 's/.*Listening.*:\([0-9]*\)$/\1/p' $s.log)
    ok "IPv6" moved "[::1]:$port"
else skip "IPv6" "no IPv6 on loopback"; fi
source_at unix:u.sock
ok "a UNIX socket" moved unix:u.sock

# One stream between inherited descriptors, and between standard input and output as ssh has it.
s=s$((++n)) t=t$n
mkfifo there back
exec 5<>there 6<>back
drafter-peer --package package --overlay-dir $s --mock --laddr fd:5,6 2>$s.log &
eval "peer_$s=$!"
drafter-peer --package $t --overlay-dir $t --mock --raddr fd:6,5 2>$t.log &
eval "peer_$t=$!"
exec 5>&- 6>&-
wait_for 60 took_or_failed $t
ok "descriptors" same
peer_stop $t
peer_wait $s
is "the source ends with 0" "$peer_status" 0
source_at unix:ssh.sock
t=t$n
# socat stands for ssh: it runs the other side with its stdin and stdout as the stream.
socat UNIX-CONNECT:ssh.sock EXEC:"drafter-peer --package $t --overlay-dir $t --mock --raddr stdio" 2>$t.log &
cleanup kill -9 $!
wait_for 60 grep -q 'Completed all' $t.log
ok "standard input and output" same
peer_wait $s
is "and that source ends with 0" "$peer_status" 0

# -- certificates --
cert() { # NAME CA [OPTION...]: NAME.pem and NAME.key, signed by CA
    local name=$1 ca=$2
    shift 2
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$name.key" -subj "/CN=$name" -out "$name.csr" 2>/dev/null
    printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\n' >"$name.ext"
    openssl x509 -req -in "$name.csr" -CA "$ca.pem" -CAkey "$ca.key" -CAcreateserial -extfile "$name.ext" -out "$name.pem" "$@" 2>/dev/null
}
for ca in ca other; do
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $ca.key -subj "/CN=$ca" -days 2 -out $ca.pem 2>/dev/null
done
cert host ca -days 2
cert stranger other -days 2
cert expired ca -days -1
tls() { echo "--tls-cert $1.pem --tls-key $1.key --tls-ca $2.pem"; }
source_at tls:127.0.0.1:0 $(tls host ca)
port=$(sed -n 's/.*Listening.*:\([0-9]*\)$/\1/p' $s.log)
refused() { # NAME REGEX OPTION...
    local name=$1 regex=$2
    shift 2
    fails "$name" 1 "$regex" drafter-peer --package none --overlay-dir none --mock --raddr "tls:127.0.0.1:$port" "$@"
}
refused "a target without a certificate" 'alert certificate required|refused our certificate' --tls-ca ca.pem
refused "one that a stranger signed" 'unknown ca|refused our certificate' $(tls stranger ca)
refused "one that has expired" 'expired|refused our certificate' $(tls expired ca)
refused "a target that trusts another CA" 'verify failed' $(tls host other)
fails "a target that speaks without TLS" 1 '' timeout 30 drafter-peer --package none --overlay-dir none --mock --raddr "127.0.0.1:$port"
ok "nothing of them stays" [ ! -e none/memory.bin ]
silent "$port"
ok "the one with a certificate has it, beside those that do not shake hands" moved "tls:127.0.0.1:$port" $(tls host ca)
source_at tls:127.0.0.1:0 $(tls expired ca)
port=$(sed -n 's/.*Listening.*:\([0-9]*\)$/\1/p' $s.log)
refused "a source whose certificate has expired" 'expired' $(tls host ca)
peer_stop $s
fails "a source without a certificate does not listen" 1 'tls-ca|tls-cert' \
    drafter-peer --package package --overlay-dir none --mock --laddr tls:127.0.0.1:0
source_at tls:127.0.0.1:0 $(tls host ca) --tls-anonymous-clients
port=$(sed -n 's/.*Listening.*:\([0-9]*\)$/\1/p' $s.log)
ok "told so, it takes targets without one" moved "tls:127.0.0.1:$port" --tls-ca ca.pem

# -- what is sent --
source_at unix:o.sock
ok "plain" moved unix:o.sock
plain=$(sent)
is "zeros take no room" "$((plain > 14000000 && plain < 15500000))" 1
source_at unix:o.sock --zstd-level 3 --concurrency 2
ok "compressed" moved unix:o.sock
is "by what can be: 4 MiB of text" "$(($(sent) < plain - 4000000))" 1
source_at unix:o.sock --bandwidth-limit 20M
ok "limited to 20 MiB a second" moved unix:o.sock
us=$(jq -r 'select(.event == "ended") | .total_us' $s.events)
is "it takes as long as that" "$((us > 500000))" 1
source_at unix:o.sock --disable-postcopy-migration
ok "everything before it runs" moved unix:o.sock
source_at unix:o.sock --early-postcopy
ok "nearly everything after" moved unix:o.sock
is "with no round" "$(jq -r 'select(.event == "ended") | .rounds' $s.events)" 0

# -- bases that both sides have, by --devices: their digests are computed --
devices() { # BASES OVERLAYS MEMORY_EXTRA DISK_EXTRA: JSON
    jq -n --arg b "$1" --arg o "$2" --argjson m "$3" --argjson x "$4" '[
        {name: "state", base: "\($b)/state.bin", overlay: "\($o)/state", state: "\($o)/state.s"},
        {name: "memory", base: "\($b)/memory.bin", overlay: "\($o)/memory", state: "\($o)/memory.s"} + $m,
        {name: "disk", base: "\($b)/rootfs.ext4", overlay: "\($o)/disk", state: "\($o)/disk.s"} + $x,
        {name: "config", base: "\($b)/config.json"}]'
}
cp -r --sparse=always package elsewhere
both() { # SOURCE_EXTRA TARGET_EXTRA [MEMORY_EXTRA]: of the disk, and of the memory as of the disk
    devices package "s$((n + 1))" "${3:-$1}" "$1" >s.json
    devices elsewhere "t$((n + 1))" "${3:-$2}" "$2" >t.json
    peer_from='--devices @s.json' source_at unix:o.sock
    into='--devices @t.json' take unix:o.sock
}
ok "with sharedbase" both '{"sharedbase": true}' '{"sharedbase": true}'
shared=$(sent)
is "nothing of it travels" "$((shared < 200000))" 1
ok "unless one side does not say so" both '{"sharedbase": true}' '{}'
is "then all does" "$(($(sent) > 14000000))" 1
flip_byte elsewhere/rootfs.ext4 5000000
ok "a base of which one byte is another" both '{"sharedbase": true}' '{"sharedbase": true}'
is "is not shared: all of the disk travels" "$(($(sent) > 8000000 && $(sent) < 9000000))" 1
ok "a disk that does not travel" both '{"makeMigratable": false}' '{"makeMigratable": false}' '{}'
is "does not" "$(($(sent) < 8000000))" 1
ok "one that is shared: as it stands" both '{"shared": true, "overlay": "", "state": ""}' '{"shared": true, "overlay": "", "state": ""}' '{}'
is "does not either" "$(($(sent) < 8000000))" 1
ok "blocks of 4 KiB there, of 1 MiB here" both '{"blockSize": 4096}' '{"blockSize": 1048576}'

# -- watched --
source_at unix:o.sock --bandwidth-limit 2M --metrics unix:m.sock
metrics() { printf 'GET /metrics HTTP/1.0\r\n\r\n' | socat -t 20 - UNIX-CONNECT:m.sock | tr -d '\r' | sed '1,/^$/d' >metrics.txt; }
metric() { sed -n "s/^drafter_peer_$1 //p" metrics.txt; }
# One that says nothing is not waited for.
socat -u OPEN:/dev/null,ignoreeof UNIX-CONNECT:m.sock &
cleanup kill -9 $!
metrics
is "metrics before" "$(metric migrating_to) $(metric migrations_failed_total)" "0 0"
script -qefc 'drafter-peer --package watched --overlay-dir watched --chroot-base-dir vms --mock --raddr unix:o.sock' /dev/null </dev/null >bar.log 2>&1 &
watched=$!
cleanup kill -9 $watched
wait_for 60 grep -q 's left' bar.log
metrics
like "a bar: phase, bytes, rate, what is left" "$(tr '\r' '\n' <bar.log | grep 's left' | head -n 1)" \
    'copy +\[#*-+\] +[0-9]+% [0-9]+\.[0-9] MiB, [0-9]+\.[0-9] MiB/s, [0-9]+ s left$'
is "metrics meanwhile: it goes, and copies" "$(metric migrating_to) $(metric migration_stage)" "1 2"
is "of all bytes" "$(metric migration_bytes)" $(((6 + 16) << 20))
is "some are there" "$(($(metric migration_settled_bytes) > 0 && $(metric migration_settled_bytes) < (22 << 20)))" 1
is "by the wire" "$(($(metric migration_wire_bytes) > 1000000))" 1
kill -USR1 "$(peer_pid $s)"
wait_line 60 $s.log 'Migration failed, the machine runs on here'
wait $watched
is "called off, that one fails" $? 1
metrics
is "metrics after" "$(metric migrating_to) $(metric migrations_failed_total) $(metric migrations_sent_total)" "0 1 0"
is "bytes of what failed count too" "$(($(metric migration_sent_bytes_total) > 1000000))" 1
is "every sample has its kind, and a help, once" "$(awk '/^# HELP/ { h[$3]++ } /^# TYPE/ { t[$3]++; ok += $4 ~ /^(counter|gauge)$/ }
    /^[^#]/ { n = $1; sub(/{.*/, "", n); if (h[n] != 1 || t[n] != 1 || $2 + 0 != $2) print }' metrics.txt)" ""
is "events have the rate and an end" "$(jq -s '[.[] | select(.event == "progress" and .stage == "copy" and .bytes_per_second > 0 and .eta_ms > 0)] | length > 0' $s.events)" true
is "they follow what is there" "$(jq -s '[.[] | select(.event == "progress" and .stage == "copy") | .bytes_settled] | . == sort and last > first' $s.events)" true
is "and end with why" "$(jq -r 'select(.event == "ended") | .outcome + " " + (.error | test("interrupted") | tostring)' $s.events)" "rolled-back true"
peer_stop $s

# -- called off --
source_at unix:o.sock --bandwidth-limit 2M
peer_from='--package off' peer_start off --mock --raddr unix:o.sock
wait_line 60 $s.log 'Migrating to'
wait_line 60 $s.events '"stage":"copy"'
kill -USR1 "$(peer_pid $s)"
ok "SIGUSR1 calls it off" wait_line 60 $s.log 'Migration failed, the machine runs on here'
peer_wait off
is "the target fails" "$peer_status" 1
like "and says why" "$(tail -n 1 off.log)" 'called it off.*interrupted|closed the connection|middle of a message'
ok "nothing of it stays there" [ ! -e off/memory.bin ]
peer_from='--package off' peer_start off2 --mock --raddr unix:o.sock
wait_for 60 eval "[ \$(grep -c '\"event\":\"started\"' $s.events) = 2 ]"
kill -TERM "$(peer_pid off2)"
peer_wait off2
is "a target that is told to end fails" "$peer_status" 1
ok "the source listens on, until it is told to end" peer_stop $s

# -- killed --
source_at unix:o.sock --bandwidth-limit 2M
peer_from='--package torn' peer_start torn --mock --raddr unix:o.sock
wait_line 60 $s.events '"stage":"copy"'
kill -9 "$(peer_pid torn)"
wait_line 60 $s.log 'Migration failed, the machine runs on here'
peer_stop $s
source_at unix:o.sock
fails "what a killed target left is in the way" 1 'there already.*--fresh' \
    drafter-peer --package torn --overlay-dir torn --mock --raddr unix:o.sock
peer_from='--package torn' peer_start torn --mock --raddr unix:o.sock --fresh
wait_for 60 took_or_failed torn
peer_stop torn
peer_wait $s
ok "--fresh removes it" cmp package/rootfs.ext4 torn/rootfs.ext4
ok "all of it" cmp package/memory.bin torn/memory.bin
