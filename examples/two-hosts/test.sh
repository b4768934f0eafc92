#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# test.sh - examples/two-hosts as its README says: a redis machine behind the NAT of one host, reached through that
# host's forward, moved to the other host under load, and reached through that one's
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/machine.sh"
. "$TEST_TOP/tests/lib/peer.sh"
requires_root
for c in qemu-system-x86_64 mmdebstrap ip nft socat unshare nsenter jq; do requires_command $c; done
for f in /dev/fuse /dev/net/tun; do requires_file $f; done
[ "$(uname -m)" = x86_64 ] || skip_all "emulates x86_64 only"
if [ -z "${TWO_HOSTS_INSIDE:-}" ]; then
    bp=$(blueprint_shared) || skip_all "cannot make a blueprint"
    export bp
    # All processes, namespaces and mounts are those of the first process in there, and end with it.
    export TWO_HOSTS_INSIDE=1
    own_mounts --net --pid --fork --kill-child -- "$0"
fi
plan 38
here=$PWD
cd "$TEST_TOP" || exit 1
. examples/two-hosts/hosts.sh
cd "$here" || exit 1

# Outside: whoever connects is told the address he comes from.
for a in TCP4-LISTEN:7 TCP6-LISTEN:7,ipv6only; do
    # shellcheck disable=SC2016
    client socat -t 60 "$a,fork,reuseaddr" SYSTEM:'echo \"from $SOCAT_PEERADDR\"' 2>/dev/null &
done
# redis_at WHERE SOCAT-ADDRESS COMMAND: the first line of the answer.
redis_at() { printf '%s\r\n' "$3" | $1 socat -t 10 - "$2,connect-timeout=${patience:-10}" 2>/dev/null | head -n 1 | tr -d '\r'; }
answers() { [ "$(redis_at "$1" "$2" PING)" = +PONG ]; }
peer() { # HOST NAME [OPTION...]
    local host=$1 name=$2
    shift 2
    mkfifo "$name.in"
    # The VM directory is a path on which sockets lie: a short one, in the host's own /run.
    _exec=exec $host drafter-peer --hypervisor qemu --accel tcg --enable-input --overlay-dir "$name" --chroot-base-dir /run/vms "$@" \
        <>"$name.in" >"$name.out" 2>"$name.log" &
    eval "peer_$name=$!"
}
# asked NAME NUMBER COMMAND: what a command in the guest of a peer prints.
asked() {
    peer_type "$1" "echo; echo answer$2=\$($3)."
    wait_for "${seconds:-60}" grep -qaE "^answer$2=[^$]*" "$1.out" && grep -aoE "^answer$2=[^$]*\." "$1.out" | tail -n 1
}
# Counters of what is announced on a machine's tap: by the guest (coming in), by its peer (going out).
watch_announcements() { # HOST NETNS
    $1 ip netns exec "$2" nft -f - <<'RULES'
table netdev watch {
    chain guest {
        type filter hook ingress device tap0 priority 0;
        arp operation request arp saddr ip 172.16.0.2 arp daddr ip 172.16.0.2 counter comment "guest arp"
        icmpv6 type nd-neighbor-advert ip6 saddr fdd7:af7e:4000:10::2 ip6 daddr ff02::1 counter comment "guest nd"
    }
    chain peer {
        type filter hook egress device tap0 priority 0;
        arp operation request arp saddr ip 172.16.0.1 arp daddr ip 172.16.0.1 counter comment "peer arp"
        icmpv6 type nd-neighbor-advert ip6 saddr fdd7:af7e:4000:10::1 ip6 daddr ff02::1 counter comment "peer nd"
    }
}
RULES
}
announced() { # HOST NETNS WHO: whether it was, at least once
    $1 ip netns exec "$2" nft list table netdev watch | grep "\"$3\"" | grep -qv 'packets 0 '
}

ok "a package" drafter-snapshotter --blueprint "$bp" --output package --chroot-base-dir /run/vms --hypervisor qemu --accel tcg \
    --net user --memory-size 256 --resume-timeout 5m --until 'Ready to accept connections'
for h in host_a host_b; do
    ok "NAT on $h" start_ready $h $h-nat drafter-nat --namespaces 2
done
ok "a forward on host_a" start_ready host_a host_a-forwarder drafter-forwarder -p 6379:6379/tcp@ark0
ok "a forward on host_b" start_ready host_b host_b-forwarder drafter-forwarder -p 6379:6379/tcp@ark1
ok "(watching the taps)" eval 'watch_announcements host_a ark0 && watch_announcements host_b ark1'

peer host_a a --package package --raddr '' --netns ark0 --laddr 192.0.2.2:1337
up() { grep -q "$1" "$2.log" || ! kill -0 "$(peer_pid "$2")"; } # or it never comes
wait_for 300 up 'Listening for connections' a
ok "the machine runs on host_a" grep 'Listening for connections' a.log
grep -q 'Listening for connections' a.log || { diag "$(cat a.log)"; exit 1; }
ok "the client reaches it, IPv4" wait_for 120 answers client TCP4:192.0.2.2:6379
ok "IPv6" answers client 'TCP6:[2001:db8:a::2]:6379'
ok "host_a does, by its loopback address" answers host_a TCP4:127.0.0.1:6379
ok "IPv6" answers host_a 'TCP6:[::1]:6379'
ok "host_b does, by host_a's address" answers host_b TCP4:192.0.2.2:6379
ok "there is nothing yet behind host_b's forward" eval '! patience=1 answers client TCP4:198.51.100.2:6379'
peer_type a ''
like "the guest reaches the outside as host_a, IPv4" "$(asked a 1 'nc 203.0.113.2 7 </dev/null')" 'from.*192\.0\.2\.2'
like "IPv6" "$(asked a 2 'nc 2001:db8:c::2 7 </dev/null')" 'from.*2001:0?db8:0?0?0?a:.*2'
like "the guest's addresses" "$(asked a 3 'ip -o address show dev eth0 | tr "\n" " "')" '172.16.0.2/30.*fdd7:af7e:4000:10::2/64'
for w in 'peer arp' 'peer nd' 'guest arp' 'guest nd'; do
    ok "announced after the resume: $w" wait_for 60 announced host_a ark0 "$w"
done

# Moved while the client writes.
writer() {
    local n=0 answer
    # shellcheck disable=SC2016
    client bash -c '
        n=0
        exec 3<>/dev/tcp/192.0.2.2/6379
        while printf "SET key%d x\r\nSET counter %d\r\n" $((n + 1)) $((n + 1)) >&3 &&
            IFS= read -r -t 10 one <&3 && IFS= read -r -t 10 two <&3 && [ "${one%?}${two%?}" = +OK+OK ]; do
            n=$((n + 1)); echo $n
        done' 2>/dev/null
}
writer >acknowledged &
writer=$!
ok "the client writes" wait_line 60 acknowledged '^10$'
before=$(tail -n 1 acknowledged)
peer host_b b --package arrived --raddr 192.0.2.2:1337 --laddr '' --netns ark1
wait_for 300 up 'Completed all device migrations' b
ok "the machine is moved" grep 'Completed all device migrations' b.log
ok "the client reaches it through host_b's forward" wait_for 60 answers client TCP4:198.51.100.2:6379
wait "$writer"
acknowledged=$(tail -n 1 acknowledged)
# shellcheck disable=SC2154
wait "$peer_a"
is "the source ended well" $? 0
diag "$((acknowledged - before)) writes were acknowledged during the move: $(grep -ao 'Finished all.*' a.log)"
ok "IPv6" answers client 'TCP6:[2001:db8:b::2]:6379'
ok "host_b does, by its loopback address" answers host_b 'TCP6:[::1]:6379'
there=$(redis_at client TCP4:198.51.100.2:6379 'EVAL "return tonumber(redis.call([[GET]],[[counter]]))" 0')
ok "the last acknowledged write is there" [ "${there#:}" -ge "$acknowledged" ]
is "and all before it" "$(redis_at client TCP4:198.51.100.2:6379 \
    "EVAL \"for i=1,$acknowledged do if redis.call([[EXISTS]],[[key]]..i)==0 then return i end end return 0\" 0")" :0
ok "host_a's forward leads nowhere now" eval '! patience=1 answers client TCP4:192.0.2.2:6379'
peer_type b ''
like "the guest reaches the outside as host_b, IPv4" "$(asked b 4 'nc 203.0.113.2 7 </dev/null')" 'from.*198\.51\.100\.2'
like "IPv6" "$(asked b 5 'nc 2001:db8:c::2 7 </dev/null')" 'from.*2001:0?db8:0?0?0?b:.*2'
like "and has kept its addresses" "$(asked b 6 'ip -o address show dev eth0 | tr "\n" " "')" '172.16.0.2/30.*fdd7:af7e:4000:10::2/64'
for w in 'peer arp' 'peer nd' 'guest arp' 'guest nd'; do
    ok "announced after the migration: $w" wait_for 60 announced host_b ark1 "$w"
done
# shellcheck disable=SC2154
kill -TERM "$peer_b"
wait "$peer_b"
is "the machine is suspended" $? 0
fails "where there is no tap it is refused" 1 'was saved on a tap' host_b drafter-peer --hypervisor qemu --accel tcg \
    --package arrived --overlay-dir b --chroot-base-dir /run/vms --raddr '' --laddr '' --net user
