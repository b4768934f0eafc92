#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# net.sh - drafter-nat and drafter-forwarder: what guests reach and what not, on both families, and
# that nothing stays behind, however it ends
#
# Everything happens in a network namespace and a /run of the test's own. A guest is a namespace at
# the other end of a veth that stands in for the tap.
. "$TEST_TOP/tests/lib/functions.sh"
requires_root
for c in ip nft iptables socat setpriv unshare; do requires_command $c; done
requires_file /dev/net/tun
if [ -z "${NET_TEST_INSIDE:-}" ]; then
    export NET_TEST_INSIDE=1
    own_mounts --net -- "$0"
fi
mount -t tmpfs tmpfs /run && mkdir /run/netns || exit 1
plan 98

pids=
outside() { ip netns exec outer "$@"; }
guest() { local g=$1; shift; ip netns exec "guest$g" "$@"; }
# serve NETNS TYPE:ADDRESS...: answers each client with the address it comes from.
serve() { # WHERE ADDRESS
    # shellcheck disable=SC2016
    ip netns exec "$1" socat -t 10 "$2" SYSTEM:'read -r x; echo \"from $SOCAT_PEERADDR\"' 2>/dev/null &
    cleanup kill $!
}
# ask ADDRESS: what the server answers; nothing when there is none.
ask() {
    local timeout=2
    printf 'hello\n' | timeout 10 socat -t 3 -T 3 - "$1${2:+,$2},$(case $1 in TCP*) echo connect-timeout=$timeout ;; *) echo shut-none ;; esac)" 2>/dev/null | head -n 1
}
export -f ask
answer() { "$@" bash -c 'ask "$0"' "$address"; }
reached() { # NAME ADDRESS REGEX WHO...
    local name=$1 address=$2 regex=$3 got
    shift 3
    got=$(answer "$@")
    for _ in 1 2 3 4 5 6 7 8 9; do # UDP may lose one, a machine may be busy
        [ -z "$got" ] || break
        got=$(answer "$@")
    done
    like "$name" "$got" "$regex"
}
unreached() { # NAME ADDRESS WHO...
    local name=$1 address=$2
    shift 2
    is "$name" "$(answer "$@")" ''
}
# nat ARG...: starts drafter-nat and waits until it is ready or has ended.
start() { # PROGRAM ARG...
    local program=$1
    shift
    : >ready
    "$program" "$@" --ready-fd 7 7>ready 2>"$program.log" &
    pid=$!
    cleanup kill -9 $pid
    wait_for 60 is_ready $pid && grep -q ready ready
}
is_ready() { grep -q ready ready || ! kill -0 "$1"; }
nat() { start drafter-nat "$@" && nat_pid=$pid; }
forwarder() { start drafter-forwarder "$@" && fw_pid=$pid; }
ended() { wait "$1"; }
stop() { # PID [SIGNAL]
    kill "-${2:-TERM}" "$1" && wait "$1" 2>/dev/null
}
give_guest() { # NUMBER
    local g=guest$1 n=ark$1
    ip netns add "$g" 2>/dev/null
    ip -n "$n" link delete tap0
    ip -n "$n" link add tap0 address 02:0e:d9:fd:68:3d type veth peer name eth0 netns "$g"
    ip -n "$n" address add 172.16.0.1/30 dev tap0
    ip -n "$n" -6 address add fdd7:af7e:4000:10::1/64 dev tap0 nodad
    ip -n "$n" link set tap0 up
    ip -n "$g" link set lo up
    ip -n "$g" address add 172.16.0.2/30 dev eth0
    ip -n "$g" -6 address add fdd7:af7e:4000:10::2/64 dev eth0 nodad
    ip -n "$g" link set eth0 up
    ip -n "$g" route add default via 172.16.0.1
    ip -n "$g" -6 route add default via fdd7:af7e:4000:10::1
}
sysctls() { cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding \
    /proc/sys/net/ipv6/conf/up0/accept_ra /proc/sys/net/ipv4/conf/all/route_localnet | tr '\n' ' '; }
# What is to be seen of us: nothing.
traces() {
    ls /run/netns /run/drafter/netns | grep -E '^(ark|bar)'
    ls /run/drafter | grep sysctl
    ip -o link | grep veth[01]
    ip route | grep 10.0
    nft list tables | grep drafter
}
others() { nft -s list table ip others; iptables -S; iptables -t nat -S; }

# The host's uplink, and what is behind it.
ip link set lo up
ip netns add outer
ip link add up0 type veth peer name out0 netns outer
ip address add 192.0.2.2/24 dev up0
ip -6 address add 2001:db8::2/64 dev up0 nodad
ip link set up0 up
ip route add default via 192.0.2.1
ip -6 route add default via 2001:db8::1 dev up0
ip -n outer link set lo up
for a in 192.0.2.1/24 198.51.100.1/32; do ip -n outer address add $a dev out0; done
for a in 2001:db8::1/64 2001:db8:b::1/128; do ip -n outer -6 address add $a dev out0 nodad; done
ip -n outer link set out0 up
ip -n outer route add 10.0.15.0/24 via 192.0.2.2
serve outer TCP6-LISTEN:7,fork,reuseaddr
# Rules of others, which must be there unchanged at the end.
nft add table ip others
nft add chain ip others forward '{ type filter hook forward priority 5; }'
nft add rule ip others forward counter drop comment '"never"' 2>/dev/null; nft flush chain ip others forward
nft add rule ip others forward ip daddr 203.0.113.9 drop
iptables -A FORWARD -d 203.0.113.8 -j DROP
iptables -t nat -A POSTROUTING -s 203.0.113.0/24 -j MASQUERADE
others >others.before
sysctls_before=$(sysctls)

# What is refused, with everything as before.
fails "a pool too small is refused by name" 2 '--host-veth-cidr 10.0.8.0/30' drafter-nat --host-veth-cidr 10.0.8.0/30
fails "more namespaces than addresses are refused" 2 '--namespace-veth-cidr .* 255' drafter-nat --namespaces 255
fails "overlapping pools are refused by name" 2 '--host-veth-cidr .* and --namespace-veth-cidr .* overlap' \
    drafter-nat --namespace-veth-cidr 10.0.10.0/24
fails "a malformed CIDR is refused by name" 2 '--blocked-subnet-cidr: "10.0.15" is not an IPv4 address' drafter-nat --blocked-subnet-cidr 10.0.15/24
fails "an uplink that is not there is refused" 1 '--host-interface eth7' drafter-nat --host-interface eth7
fails "a pool that holds the host's own address is refused" 1 '192.0.2.2/24 of link up0' \
    drafter-nat --namespace-veth-cidr 192.0.2.0/24 --blocked-subnet-cidr 192.0.2.0/24
fails "nor is one of IPv6 taken that is malformed" 2 '--host-veth-cidr6: "fdd7::/129"' drafter-nat --host-veth-cidr6 fdd7::/129
fails "or that overlaps" 2 '--host-veth-cidr6 .* and --namespace-veth-cidr6 .* overlap' drafter-nat --namespace-veth-cidr6 fdd7:af7e:4000:8::/80
cp "$TEST_TOP/runtime/drafter-nat" "$TEST_TOP/runtime/drafter-forwarder" /run/
fails "without root it says so" 1 'needs root' setpriv --reuid 65534 --clear-groups /run/drafter-nat
fails "nor does the forwarder run" 1 'needs root' setpriv --reuid 65534 --clear-groups /run/drafter-forwarder
ip netns add ark1
ip netns exec ark1 ip link set lo up
fails "a namespace of somebody else is refused by name" 1 'namespace ark1 exists' drafter-nat --namespaces 3
ok "and it is as it was" sh -c 'ip -n ark1 -o link | grep -c . | grep -qx 1'
ip netns delete ark1
ip link add bar17-veth1 type veth peer name other
fails "a failure half-way is one" 1 'namespace bar17: make the links' drafter-nat --namespace-prefix bar --namespaces 30
ip link delete bar17-veth1
is "and undoes what was done" "$(traces)" ''
is "with the sysctls" "$(sysctls)" "$sysctls_before"

blocked="--blocked-subnet-cidr 10.0.15.0/24,198.51.100.0/24 --blocked-subnet-cidr6 fdd7:af7e:4000:f::/64,2001:db8:b::/48"
# Killed when some are there, half made.
drafter-nat --namespaces 200 2>killed.log &
killed=$!
cleanup kill -9 $killed
ok "(killed half-way)" wait_for 60 ip netns exec ark7 true
kill -9 $killed
wait $killed 2>/dev/null
ip netns exec ark7 sh -c 'exec sleep 1000' & # a machine that goes on, in a namespace that is no longer wanted
cleanup kill $!
mkdir socket
socat -u UNIX-RECV:socket/notify OPEN:notified,creat,append &
cleanup kill $!
wait_for 60 test -S socket/notify
# shellcheck disable=SC2086
NOTIFY_SOCKET=$PWD/socket/notify ok "the next one mends that, and says when it is ready" nat --namespaces 3 $blocked
ok "to systemd too" wait_for 60 grep -q READY=1 notified
is "and has removed the others" "$(ls /run/netns | grep -c '^ark') $(ip -o link | grep -c veth1)" '3 3'
kill -0 "$nat_pid" || { diag "$(cat drafter-nat.log)"; exit 1; }
fails "a second one is refused" 1 'another drafter-nat' drafter-nat --namespaces 3
for g in 0 1; do
    give_guest $g
    serve guest$g TCP6-LISTEN:6379,fork,reuseaddr
    serve guest$g UDP4-LISTEN:53,fork,reuseaddr
    serve guest$g UDP6-LISTEN:54,fork,reuseaddr,ipv6only
    serve guest$g TCP6-LISTEN:6380,fork,reuseaddr
done
reached "a guest reaches the outside, as the host (IPv4)" TCP4:192.0.2.1:7 'c000:0202|192\.0\.2\.2' guest 0
reached "a guest reaches the outside, as the host (IPv6)" 'TCP6:[2001:db8::1]:7' 'from .*0db8:0*:0*:0*:0*:0*:0*2' guest 0
reached "the host reaches what is blocked (IPv4)" TCP4:198.51.100.1:7 from env
reached "the host reaches what is blocked (IPv6)" 'TCP6:[2001:db8:b::1]:7' from env
unreached "a guest does not (IPv4)" TCP4:198.51.100.1:7 guest 0
unreached "a guest does not (IPv6)" 'TCP6:[2001:db8:b::1]:7' guest 0
reached "the host reaches a guest (IPv4)" TCP4:10.0.8.5:6379 from env
reached "the host reaches a guest (IPv6)" 'TCP6:[fdd7:af7e:4000:8::5]:6379' from env
reached "by its own address too" TCP4:10.0.15.2:6379 from env
for a in TCP4:10.0.15.2:6379 TCP4:10.0.8.5:6379 'TCP6:[fdd7:af7e:4000:f::2]:6379' 'TCP6:[fdd7:af7e:4000:8::5]:6379'; do
    unreached "another guest does not: $a" "$a" guest 0
done
unreached "nor does the outside" TCP4:10.0.15.2:6379 outside
ip -n guest0 address add 10.0.15.2/32 dev eth0
address=TCP4:192.0.2.1:7,bind=10.0.15.2
is "a guest cannot speak for another" "$(answer guest 0)" ''
ip -n guest0 address delete 10.0.15.2/32 dev eth0
ip -n guest0 -6 address add fdd7:af7e:4000:f::2/128 dev eth0 nodad
address='TCP6:[2001:db8::1]:7,bind=[fdd7:af7e:4000:f::2]'
is "nor in IPv6" "$(answer guest 0)" ''
ip -n guest0 -6 address delete fdd7:af7e:4000:f::2/128 dev eth0

# Forwards.
fails "a namespace that is not there is named" 1 'ark9 is not there' drafter-forwarder -p 1234:1@ark9
socat TCP4-LISTEN:1235,bind=127.0.0.1 - </dev/null >/dev/null 2>&1 &
cleanup kill $!
ok "(a port is taken)" wait_for 60 sh -c 'ss -ltn | grep -q 127.0.0.1:1235'
fails "a port in use is named" 1 'tcp port 1235 of 127.0.0.1 is in use' drafter-forwarder -p 127.0.0.1:1235:1@ark0
fails "also by the wildcard" 1 'tcp port 1235 of 0.0.0.0 is in use' drafter-forwarder -p 0.0.0.0:1235:1@ark0
fails "two forwards of one port are refused" 1 'want the same port' drafter-forwarder -p 0.0.0.0:80:1@ark0 -p 127.0.0.1:80:1@ark1
cat >forwards.json <<'EOF'
[{"netns":"ark0","internalPort":"6379","protocol":"tcp","externalAddr":"127.0.0.1:3333"},
 {"netns":"ark0","internalPort":"6379","protocol":"tcp","externalAddr":"[::1]:3333"},
 {"netns":"ark1","internalPort":"6379-6380","protocol":"tcp","externalAddr":"192.0.2.2:4000-4001"},
 {"netns":"ark1","internalPort":"6379","protocol":"tcp","externalAddr":"[2001:db8::2]:4000"},
 {"netns":"ark0","internalPort":"6379","protocol":"tcp","externalAddr":"0.0.0.0:5000"},
 {"netns":"ark0","internalPort":"6379","protocol":"tcp","externalAddr":"[::]:5001"},
 {"netns":"ark0","internalPort":"53","protocol":"udp","externalAddr":"192.0.2.2:53"},
 {"netns":"ark0","internalPort":"54","protocol":"udp","externalAddr":"[2001:db8::2]:54"},
 {"netns":"ark0","internalPort":"53","protocol":"udp","externalAddr":"127.0.0.1:53"}]
EOF
ok "the forwarder starts" forwarder --port-forwards @forwards.json
kill -0 "$fw_pid" || { diag "$(cat drafter-forwarder.log)"; exit 1; }
reached "tcp, loopback, IPv4" TCP4:127.0.0.1:3333 from env
reached "tcp, loopback, IPv6" 'TCP6:[::1]:3333' from env
reached "udp, loopback" UDP4:127.0.0.1:53 from env
reached "tcp, an address, a range's first port, from outside" TCP4:192.0.2.2:4000 from outside
reached "tcp, an address, a range's last port, from the host" TCP4:192.0.2.2:4001 from env
reached "tcp, an address, IPv6, from outside" 'TCP6:[2001:db8::2]:4000' from outside
reached "tcp, wildcard, from outside" TCP4:192.0.2.2:5000 from outside
reached "tcp, wildcard, by loopback" TCP4:127.0.0.1:5000 from env
reached "tcp, wildcard, IPv6, from outside" 'TCP6:[2001:db8::2]:5001' from outside
reached "tcp, wildcard, IPv6, by loopback" 'TCP6:[::1]:5001' from env
reached "udp, from outside, IPv4" UDP4:192.0.2.2:53 from outside
reached "udp, from outside, IPv6" 'UDP6:[2001:db8::2]:54' from outside
unreached "a blocked subnet does not reach a guest by a forward (IPv4)" TCP4:192.0.2.2:5000,bind=198.51.100.1 outside
unreached "nor in IPv6" 'TCP6:[2001:db8::2]:5001,bind=[2001:db8:b::1]' outside
unreached "a loopback forward is not for the outside" TCP4:192.0.2.2:3333 outside
unreached "a guest does not reach another by a forward" TCP4:192.0.2.2:4000 guest 0
is "route_localnet only where needed" "$(cat /proc/sys/net/ipv4/conf/{all,lo,ark0-veth1,ark1-veth1}/route_localnet | tr '\n' ' ')" '0 0 1 0 '

# A change: what stays is not touched, not even a connection; what goes is gone.
mkfifo say
socat -T 60 - TCP4:127.0.0.1:3333 <say >heard 2>/dev/null &
held=$!
exec 9>say
sed -i '/4000-4001/d; s/:5000"/:5002"/' forwards.json
kill -HUP "$fw_pid"
ok "SIGHUP reads the file again" wait_line 60 drafter-forwarder.log 'Forwards changed'
echo hello >&9
ok "a connection through what stays lives on" wait_line 60 heard from
exec 9>&-
wait $held
reached "what is new works" TCP4:192.0.2.2:5002 from outside
unreached "what was taken out is gone" TCP4:192.0.2.2:4000 outside
echo '[{"netns":"nowhere","internalPort":"1","externalAddr":":1"}]' >forwards.json
kill -HUP "$fw_pid"
ok "a wrong change is a warning" wait_line 60 drafter-forwarder.log 'nowhere is not there'
reached "and what was in force stays" TCP4:192.0.2.2:5002 from outside
kill -9 "$fw_pid"
wait "$fw_pid" 2>/dev/null
ok "a killed forwarder's rules end with it" wait_for 60 sh -c '! nft list tables | grep drafter_forwarder'
ok "the short form" forwarder -p 3333:6379/tcp@ark0 -p 192.0.2.2:5300-5301:53-54/udp@ark1
reached "without an address: IPv4" TCP4:192.0.2.2:3333 from outside
reached "and IPv6" 'TCP6:[2001:db8::2]:3333' from outside
reached "a range of udp" UDP4:192.0.2.2:5300 from outside
stop "$fw_pid"
fails "ranges that differ in length are refused" 1 'equally long' drafter-forwarder -p 1000-1002:1-2@ark0
fails "a file that is not there is named" 1 'nothing.json' drafter-forwarder --port-forwards @nothing.json
awk 'BEGIN { printf "["; for (i = 0; i < 1000; i++) printf "%s{\"netns\":\"ark%d\",\"internalPort\":\"6379\",\"externalAddr\":\"127.0.0.1:%d\"}", i ? "," : "", i % 2, 20000 + i; print "]" }' >thousand.json
ok "1,000 forwards" forwarder --port-forwards @thousand.json
reached "the first of them" TCP4:127.0.0.1:20000 from env
reached "the last of them" TCP4:127.0.0.1:20999 from env
stop "$fw_pid"
is "nothing of the forwarder stays" "$(cat /proc/sys/net/ipv4/conf/ark?-veth1/route_localnet | tr -d '\n') $(ip -6 route show table local | grep -c 'local ::1 dev ark') $(nft list tables | grep -c forwarder)" '000 0 0'

# Deaths.
forwarder -p 3400:6379@ark0
inode=$(stat -L -c %i /run/netns/ark0)
kill -9 "$nat_pid"
wait "$nat_pid" 2>/dev/null
reached "after kill -9 guests go on" TCP4:192.0.2.1:7 from guest 0
# shellcheck disable=SC2086
ok "the next one starts" nat --namespaces 2 $blocked
ok "the forwarder notices" wait_line 60 drafter-forwarder.log 'made anew'
reached "and its forward of a loopback address works on, IPv4" TCP4:127.0.0.1:3400 from env
reached "and IPv6" 'TCP6:[::1]:3400' from env
stop "$fw_pid"
is "and keeps its own, less what it no longer wants" "$(stat -L -c %i /run/netns/ark0) $(ls /run/netns | grep -c ark)" "$inode 2"
reached "where a guest reaches the outside again" TCP4:192.0.2.1:7 from guest 0
stop "$nat_pid" INT
is "SIGINT takes everything away" "$(traces)" ''
# Otherwise than by default.
ip -n outer -6 route add fdd7:af7e:4000:f::/64 via 2001:db8::2
nat --namespaces 2 --ipv6-routed
give_guest 0
reached "routed IPv6: a guest goes out as itself" 'TCP6:[2001:db8::1]:7' 'fdd7:af7e:4000:0*f:0*:0*:0*:0*1|fdd7:af7e:4000:f::1' guest 0
reached "and is reached by its address" 'TCP6:[fdd7:af7e:4000:f::1]:6379' from outside
reached "IPv4 is translated all the same" TCP4:192.0.2.1:7 'c000:0202|192\.0\.2\.2' guest 0
stop "$nat_pid"
nat --namespaces 2 --ipv6=false --allow-incoming-traffic=false
give_guest 0
reached "no incoming traffic: a guest reaches the outside" TCP4:192.0.2.1:7 from guest 0
unreached "and the host does not reach it" TCP4:10.0.8.1:6379 env
is "without IPv6 nothing of it is set" "$(cat /proc/sys/net/ipv6/conf/all/forwarding)" 0
stop "$nat_pid"
iptables -P FORWARD DROP
nat --namespaces 2
ok "a policy that drops what we forward is warned of" grep -q 'drops forwarded packets' drafter-nat.log
iptables -P FORWARD ACCEPT
stop "$nat_pid" TERM
is "SIGTERM takes everything away" "$(traces)" ''
is "the sysctls are set back" "$(sysctls)" "$sysctls_before"
# A network namespace as a host of its own, beside this one.
ip netns add inner
ip -n inner link set lo up
nat --namespaces 2
: >inner.ready
nsenter --net=/run/netns/inner drafter-nat --namespaces 2 --host-interface lo --namespace-prefix in --ready-fd 7 7>inner.ready 2>inner.log &
inner=$!
cleanup kill -9 $inner
ok "two hosts at once" wait_line 60 inner.ready ready
is "each has its own" "$(ip netns exec inner ip -o link | grep -c 'in[01]-veth1') $(ip -o link | grep -c 'in[01]-veth1')" '2 0'
stop "$nat_pid"
ok "and the other one's stay" ip netns exec in1 ip link show tap0
stop $inner
ip netns exec inner drafter-nat --namespaces 1 --host-interface lo --namespace-prefix in 2>inner.log &
inner=$!
cleanup kill -9 $inner
ok "names that nobody else sees are warned of" wait_line 60 inner.log 'seen by this program alone'
stop $inner
others >others.after
is "the rules of others are as they were" "$(cat others.after)" "$(cat others.before)"
