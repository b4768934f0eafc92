#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# net.sh - drafter-nat against the same namespaces made with ip and iptables, in turns
#
# Namespaces, taps, veths, addresses, routes and rules of 254 namespaces, in a network namespace of
# the benchmark's own. The other contestant does for IPv4 what people's scripts do, one command for
# each step; drafter-nat does IPv6 too. Prints medians of RUNS (default 3).
. tests/bench/lib.sh
count=${NAMESPACES:-254}
if [ -z "${BENCH_INSIDE:-}" ]; then
    [ "$(id -u)" = 0 ] || { echo "bench: needs root" >&2; exit 1; }
    bench_need ip iptables unshare
    BENCH_INSIDE=1 exec unshare --net --mount --propagation private bash "$0"
fi
bench_begin net
bench_need time
mount -t tmpfs tmpfs /run
mkdir /run/netns
ip link set lo up
ip netns add outer
ip link add up0 type veth peer name out0 netns outer
ip address add 192.0.2.2/24 dev up0
ip link set up0 up
ip route add default via 192.0.2.1

cat >"$work/commands" <<'EOF'
set -e
echo 1 >/proc/sys/net/ipv4/ip_forward
iptables -w -t nat -A POSTROUTING -o up0 -j MASQUERADE
iptables -w -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
for ((i = 0; i < count; i++)); do
    n=ark$i in=10.0.$((8 + i / 64)).$((i % 64 * 4 + 1)) out=10.0.$((8 + i / 64)).$((i % 64 * 4 + 2)) host=10.0.15.$((i + 1))
    ip netns add $n
    ip -n $n tuntap add tap0 mode tap
    ip -n $n address add 172.16.0.1/30 dev tap0
    ip -n $n link set tap0 address 02:0e:d9:fd:68:3d up
    ip -n $n link add $n-veth0 type veth peer name $n-veth1 netns $$
    ip -n $n address add $in/30 dev $n-veth0
    ip -n $n link set $n-veth0 up
    ip address add $out/30 dev $n-veth1
    ip link set $n-veth1 up
    ip -n $n route add default via $out
    ip netns exec $n iptables -w -t nat -A POSTROUTING -o $n-veth0 -s 172.16.0.2 -j SNAT --to $host
    ip netns exec $n iptables -w -t nat -A PREROUTING -i $n-veth0 -d $host -j DNAT --to 172.16.0.2
    ip netns exec $n iptables -w -t nat -A PREROUTING -d $in -j DNAT --to-destination 172.16.0.2
    ip netns exec $n iptables -w -t nat -A POSTROUTING -d 172.16.0.2 -j MASQUERADE
    ip route add $host/32 via $in
    iptables -w -A FORWARD -i $n-veth1 -o up0 -j ACCEPT
    iptables -w -A FORWARD -s 10.0.15.0/24 -d $out -j DROP
    iptables -w -A FORWARD -s $out -d 10.0.15.0/24 -j DROP
done
EOF
cat >"$work/ours" <<'EOF'
set -e
drafter-nat --namespaces "$count" --ready-fd 7 7>"$work/ready" 2>"$work/log" &
pid=$!; echo $pid >"$work/pid"
until grep -q ready "$work/ready"; do
    kill -0 $pid 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    read -r -t 0.005 <> <(:) || :
done
EOF
export count work
forget() {
    local n
    iptables -F; iptables -t nat -F
    for n in $(ip netns list | grep -o '^ark[0-9]*'); do
        ip link delete "$n-veth1"
        ip netns delete "$n"
    done
}
# A failed run leaves a drafter-nat, which ends with its namespace only when it is told to.
stop_ours() { [ ! -s "$work/pid" ] || kill "$(cat "$work/pid")" 2>/dev/null || :; }
trap 'stop_ours; rm -rf "${bench_folders[@]}"' EXIT
ended() { while kill -0 "$1" 2>/dev/null; do read -r -t 0.02 <> <(:) || :; done; }
spent() { awk '{print ($14 + $15) / 100}' "/proc/$1/stat"; }
for _ in $(seq "${RUNS:-3}"); do
    rm -f "$work/ready"
    bench ours bash "$work/ours"
    pid=$(cat "$work/pid")
    cpu=$(spent "$pid")
    kill "$pid"
    ended "$pid"
    : >"$work/pid"
    bench commands bash "$work/commands"
    forget
done
ours=$(median ours) commands=$(median commands)
echo "net: $count namespaces; ip and iptables $commands s, drafter-nat $ours s ($cpu s of processor time)"
judge "seconds until $count namespaces are ready" "$ours" '<=' 1
judge "times as fast as ip and iptables" "$(calculate "$commands / $ours")" '>=' 5
bench_end
