#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# migrate-connection.sh - connections that a client holds to a machine live through its move
#
# Two hosts and a client behind a router, which are network namespaces. The machine's addresses are routed to the host it is
# on; when the target says that it runs there, they are routed to that one, as a routing daemon would do it. The client's two
# connections, IPv4 and IPv6, are made once and count on in the machine's redis before, during and after the move.
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/peer.sh"
. "$TEST_TOP/tests/lib/counting.sh"
requires_root
for c in ip unshare qemu-system-x86_64 mmdebstrap; do requires_command $c; done
for f in /dev/fuse /dev/net/tun; do requires_file $f; done
[ "$(uname -m)" = x86_64 ] || skip_all "emulates x86_64 only"
if [ -z "${MIGRATE_CONNECTION_INSIDE:-}" ]; then
    package=$(package_shared) || skip_all "cannot make a package"
    export MIGRATE_CONNECTION_INSIDE=$package
    own_mounts --net -- "$0"
fi
mount -t tmpfs tmpfs /run && mkdir /run/netns && mount -t sysfs sysfs /sys || exit 1
plan 11

guest4=172.16.0.2 guest6=fdd7:af7e:4000:10::2
for n in 1 2; do
    ip netns add host$n
    ip link add cable$n type veth peer name eth0 netns host$n
    ip address add 10.77.$n.1/24 dev cable$n
    ip address add fd77:$n::1/64 dev cable$n nodad
    ip link set cable$n up
    on() { ip -n host$n "$@"; }
    on link set lo up
    on address add 10.77.$n.2/24 dev eth0
    on address add fd77:$n::2/64 dev eth0 nodad
    on link set eth0 up
    on route add default via 10.77.$n.1
    on route add default via fd77:$n::1
    on tuntap add tap0 mode tap
    on address add 172.16.0.1/30 dev tap0
    on address add fdd7:af7e:4000:10::1/64 dev tap0 nodad
    on link set tap0 up
    nsenter --net=/run/netns/host$n sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
done
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
ip link set lo up
ip address add 203.0.113.1/32 dev lo
ip address add fd77:c::1/128 dev lo nodad
route_to() { # HOST-NUMBER
    ip route replace $guest4/32 via 10.77.$1.2 src 203.0.113.1 && ip -6 route replace $guest6/128 via fd77:$1::2 src fd77:c::1
}
host_peer() { # HOST-NUMBER NAME PACKAGE [OPTION...]
    local n=$1 name=$2 package=$3
    shift 3
    : >"$name.log"
    nsenter --net=/run/netns/host$n drafter-peer --overlay-dir "$name" --chroot-base-dir vms --hypervisor qemu --accel tcg --package "$package" \
        --netns /run/netns/host$n "$@" >"$name.out" 2>"$name.log" </dev/null &
    eval "peer_$name=$!"
    cleanup kill -9 $!
}

host_peer 1 source "$MIGRATE_CONNECTION_INSIDE" --laddr 10.77.1.2:7000
ok "the machine runs on the first host" wait_line 120 source.log 'Listening for'
ok "its addresses are routed there" route_to 1
for v in 4 6; do
    guest=guest$v
    bash count.sh "${!guest}" counter$v >counted$v 2>count$v.log &
    eval "count$v=$!"
    cleanup kill $!
    ok "a client's connection counts, IPv$v" wait_for 120 counts_on counted$v 20
done
host_peer 2 target arrived --raddr 10.77.1.2:7000
ok "it moves" wait_line 120 target.log 'Machine runs here'
at4=$(wc -l <counted4) at6=$(wc -l <counted6)
ok "its addresses are routed to the second host" route_to 2
ok "the connection counts on there, IPv4" wait_for 120 counts_on counted4 $((at4 + 50))
ok "IPv6" wait_for 120 counts_on counted6 $((at6 + 50))
peer_wait source
: >enough
for v in 4 6; do
    pid=count$v
    wait "${!pid}"
    is "it was one connection, and no answer is missing or doubled, IPv$v" "$? $(unbroken counted$v && echo unbroken)" "0 unbroken"
done
diag "$(tail -n 2 counted4 | head -n 1) and $(tail -n 2 counted6 | head -n 1) answers; $(grep -a 'Machine runs here' target.log | sed 's/.*here //')"
ok "it is suspended there" peer_stop target
