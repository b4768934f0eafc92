#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# test.sh - examples/live-connections as its README says: a client's connections through the forward of a host count on in the
# machine's redis after it has moved to another host
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/peer.sh"
. "$TEST_TOP/tests/lib/counting.sh"
requires_root
for c in qemu-system-x86_64 mmdebstrap ip nft unshare nsenter; do requires_command $c; done
for f in /dev/fuse /dev/net/tun; do requires_file $f; done
[ "$(uname -m)" = x86_64 ] || skip_all "emulates x86_64 only"
unshare --net ip link add follow type vxlan id 77 remote 192.0.2.1 dstport 4789 2>/dev/null || skip_all "the kernel has no VXLAN"
if [ -z "${LIVE_CONNECTIONS_INSIDE:-}" ]; then
    package=$(package_shared) || skip_all "cannot make a package"
    export package LIVE_CONNECTIONS_INSIDE=1
    own_mounts --net --pid --fork --kill-child -- "$0"
fi
plan 20
here=$PWD
cd "$TEST_TOP" || exit 1
. examples/two-hosts/hosts.sh
cd "$here" || exit 1
follow=$TEST_TOP/examples/live-connections/follow.sh

peer() { # HOST NAME [OPTION...]
    local host=$1 name=$2
    shift 2
    : >"$name.log"
    mkfifo "$name.in"
    # The VM directory is a path on which sockets lie: a short one, in the host's own /run.
    _exec=exec $host drafter-peer --hypervisor qemu --accel tcg --enable-input --overlay-dir "$name" --chroot-base-dir /run/vms "$@" \
        <>"$name.in" >"$name.out" 2>"$name.log" &
    eval "peer_$name=$!"
}
for h in host_a host_b; do start_ready $h $h-nat drafter-nat --namespaces 2; done
start_ready host_a host_a-forwarder drafter-forwarder -p 6379:6379/tcp@ark0
start_ready host_b host_b-forwarder drafter-forwarder -p 6379:6379/tcp@ark1
peer host_a a --package "$package" --raddr '' --netns ark0 --laddr 192.0.2.2:1337
ok "the machine runs on host_a" wait_line 300 a.log 'Listening for connections'
ok "host_a: the tunnel is there" host_a bash "$follow" from ark0 192.0.2.2 198.51.100.2
ok "host_b: and there" host_b bash "$follow" to ark1 198.51.100.2 192.0.2.2

cat >listen.sh <<'E2'
exec 7<>"/dev/tcp/$1/6379" || exit 1
printf 'BLPOP list 120\r\n' >&7
while IFS= read -r -t 120 answer <&7; do
    printf '%s\n' "${answer%$'\r'}"
    [ "${answer%$'\r'}" != news ] || exit 0
done
E2
client bash count.sh 192.0.2.2 counter4 >counted4 2>/dev/null &
count4=$!
client bash count.sh 2001:db8:a::2 counter6 >counted6 2>/dev/null &
count6=$!
client bash listen.sh 192.0.2.2 >heard 2>/dev/null &
listener=$!
# The guest's own: it says a line whenever it has heard one.
for a in TCP4-LISTEN:7 TCP6-LISTEN:7,ipv6only; do
    v=${a#TCP}
    # shellcheck disable=SC2016
    client socat "$a,reuseaddr" SYSTEM:'echo begin; while read -r line; do echo "$line" >>'"$here/said${v:0:1}"'; echo more; done' 2>/dev/null &
done
peer_type a ''
wait_line 60 a.out '^[~/].* # '
for a in 203.0.113.2 2001:db8:c::2; do
    peer_type a "mkfifo /tmp/$a; n=0; while read -r x; do n=\$((n + 1)); echo \$n; done </tmp/$a | nc $a 7 >/tmp/$a &"
done
for v in 4 6; do ok "the guest's own connection counts, IPv$v" wait_for 120 counts_on said$v 20; done
for v in 4 6; do ok "a client's connection counts, IPv$v" wait_for 120 counts_on counted$v 20; done
peer host_b b --package arrived --raddr 192.0.2.2:1337 --laddr '' --netns ark1
ok "it moves" wait_line 300 b.log 'Machine runs here'
at4=$(wc -l <counted4) at6=$(wc -l <counted6) own4=$(wc -l <said4) own6=$(wc -l <said6)
ok "host_a sends on what comes for it" host_a bash "$follow" moved ark0
ok "the connection counts on, IPv4" wait_for 120 counts_on counted4 $((at4 + 50))
ok "IPv6" wait_for 120 counts_on counted6 $((at6 + 50))
for v in 4 6; do
    own=own$v
    ok "the guest's own counts on, IPv$v" wait_for 120 counts_on said$v $((${!own} + 50))
    is "nothing of it is missing or doubled, IPv$v" "$(awk '$0 != NR {print "line " NR ": " $0; exit}' said$v)" ""
done
: >enough
for v in 4 6; do
    pid=count$v
    wait "${!pid}"
    is "it was one connection, and no answer is missing or doubled, IPv$v" "$? $(unbroken counted$v && echo unbroken)" "0 unbroken"
done
# One connection has said nothing since before the move. It hears what comes through the other host's forward.
client bash -c 'exec 7<>/dev/tcp/198.51.100.2/6379 && printf "LPUSH list news\r\n" >&7 && read -r -t 60 answer <&7 && echo "$answer"' >pushed
like "a new connection goes to host_b" "$(cat pushed)" ':1'
wait "$listener"
like "and one that was silent hears of it through host_a" "$(tail -n 1 heard)" news
diag "$(tail -n 2 counted4 | head -n 1) and $(tail -n 2 counted6 | head -n 1) answers; $(grep -a 'Machine runs here' b.log | sed 's/.*here //')"
host_a bash "$follow" end ark0
host_b bash "$follow" end ark1
# shellcheck disable=SC2154
kill -TERM "$peer_b"
wait "$peer_b"
is "it is suspended there" $? 0
