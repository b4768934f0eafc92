#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# migrate.sh - in both outer machines of tests/lab/migrate.sh: host 1 has a database, host 2 takes it over
#
# The hosts tell each other how far they are by lines on connections of their own.
. /lab/host.sh
. $TEST_TOP/tests/lib/redis.sh
ip address add "10.77.0.${lab_name:?}/24" dev eth0
ip link set eth0 up mtu "$LAB_MTU"
ip route add default via 10.77.0.$((3 - lab_name)) # drafter-nat's uplink
redis_clients
ask() { bash ask.sh "$@" 2>/dev/null; }
answers() { [ "$(ask PING)" = +PONG ]; }
say() { (exec 5<>"/dev/tcp/10.77.0.$((3 - lab_name))/$1" && echo "$2" >&5) 2>/dev/null; } # PORT LINE
hear() { timeout 400 nc -l -p "$1" </dev/null; } # PORT: the line
peer() { # NAME [OPTION...]
    peer_from= peer_start "$1" --netns ark0 --idle-timeout 5m "${@:2}"
}

if [ "$lab_name" = 1 ]; then
    ok "host 1: NAT and a forward" host_network 1 127.0.0.1:6379:6379/tcp@ark0
    ok "host 1: a package is made of the blueprint" drafter-snapshotter --blueprint /bp --output package --chroot-base-dir vms \
        "${peer_hypervisor[@]}" --netns ark0 --memory-size "$LAB_GUEST_MIB"
    diag "host 1: $SECONDS s: package"
    peer source --package package --laddr 10.77.0.1:7000
    ok "host 1: it runs" wait_line 120 source.log 'Listening for'
    ok "host 1: redis answers through the forward" wait_for 120 answers
    is "host 1: keys are set" "$(ask "$(redis_fill "$LAB_KEYS")" 300)" ":$LAB_KEYS"
    before=$(ask "$(redis_sum "$LAB_KEYS")" 300)
    like "host 1: they have a checksum" "$before" '^[0-9a-f]{40}$'
    diag "host 1: $SECONDS s: keys"
    [ $tap_failed = 0 ] || { tail -n 30 source.log source.out; exit 1; } # the other host need not begin
    tc qdisc add dev eth0 root netem delay 12500us rate 1gbit limit 20000 || diag "no netem"
    bash write.sh &
    if command -v redis-benchmark >/dev/null; then
        redis-benchmark -p 6379 -t set -r 1024 -d 1024 -n 100000000 -c 4 -q >benchmark.log 2>&1 &
    fi
    wait_for 60 test -s acknowledged
    started=$(cat acknowledged)
    ok "host 1: the other host is told" wait_for 120 say 7001 go
    ok "host 1: the source ends" peer_wait source 400
    is "host 1: it has let go" "${peer_status:-} $(grep -c 'Finished all migrations' source.log)" "0 1"
    [ $tap_failed = 0 ] || { tail -n 30 source.log source.out; exit 1; }
    written=$(cat acknowledged)
    diag "host 1: $SECONDS s: moved; $((written - started)) writes acknowledged meanwhile; $(grep -a 'Finished all' source.log | sed 's/.*migrations//')"
    ok "host 1: written to while it moved" test "$written" -gt "$started"
    ok "host 1: (the other host is told)" wait_for 60 say 7002 "$written $before"
    ok "host 1: nothing is left behind" vms_empty
    tail -n 30 source.log source.out
else
    tap_number=$LAB_FIRST
    ok "host 2: NAT and a forward" host_network 1 127.0.0.1:6379:6379/tcp@ark0
    tc qdisc add dev eth0 root netem delay 12500us rate 1gbit limit 20000
    is "host 2: the machine is ready to be taken" "$(hear 7001)" go
    peer target --package arrived --raddr 10.77.0.1:7000
    ok "host 2: it moves" wait_line 400 target.log 'Completed all device migrations'
    read -r written before < <(hear 7002)
    diag "host 2: $SECONDS s: here"
    ok "host 2: redis answers through this host's forward" wait_for 120 answers
    is "host 2: every acknowledged write is there" "$(ask "$(redis_wrote "$written")" 120)" all
    is "host 2: and every key" "$(ask "$(redis_sum "$LAB_KEYS")" 300)" "$before"
    ok "host 2: it is suspended" peer_stop target
    ok "host 2: nothing is left behind" vms_empty
    tail -n 30 target.log target.out
fi
