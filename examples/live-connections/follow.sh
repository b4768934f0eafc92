#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# follow.sh - connections through a host's NAT go on after their machine has moved to another host
#
#   follow.sh from NETNS LOCAL REMOTE    on the host that it leaves, before the move
#   follow.sh to NETNS LOCAL REMOTE      on the host that it comes to, before the move
#   follow.sh moved NETNS                on the first, when the machine runs on the second
#   follow.sh end NETNS                  on either, when nobody needs it any more
#
# NETNS: the machine's namespace on that host, made by drafter-nat; LOCAL, REMOTE: addresses of that host and of the other
# one. As root. The way between the hosts is a VXLAN (UDP port 4789), which nobody encrypts: not for a network of strangers.
#
# How: all connections through forwards look to the guest as if its gateway had made them, and the host that it left knows
# whose they are. So that host goes on to translate, and sends what is for the guest through the tunnel; there it comes out
# on the tap with the gateway's address again, and what the guest answers to such a connection goes back the same way. In the
# tunnel the gateway's address would be the other host's own: there it is one of the tunnel instead. A TCP connection of the
# guest's own is known by its packets, which do not begin one: they go back through the tunnel too, and new ones do not.
set -eEuo pipefail
act=${1:?see the head of $0} netns=${2:?see the head of $0} local=${3:-} remote=${4:-}
guest4=172.16.0.2 gateway4=172.16.0.1 near4=169.254.77.1 far4=169.254.77.2
guest6=fdd7:af7e:4000:10::2 gateway6=fdd7:af7e:4000:10::1 near6=fd77:77::1 far6=fd77:77::2

# What was done of "from" and "to" is undone when the rest fails.
undo() {
    ip link delete follow 2>/dev/null || ip -n "$netns" link delete follow 2>/dev/null || :
    ip netns exec "$netns" nft delete table inet drafter_follow 2>/dev/null || :
    for v in 4 6; do ip -n "$netns" -$v rule delete fwmark 77 2>/dev/null || :; done
}
tunnel() { # MY-ADDRESSES
    [ -n "$remote" ] || { echo "follow.sh: $act: NETNS, LOCAL and REMOTE are needed" >&2; exit 2; }
    ! ip -n "$netns" link show follow >/dev/null 2>&1 || { echo "follow.sh: $netns has a tunnel: end it first" >&2; exit 1; }
    trap undo ERR
    ip link add follow type vxlan id 77 local "$local" remote "$remote" dstport 4789
    ip link set follow netns "$netns"
    ip -n "$netns" address add "$1/30" dev follow
    ip -n "$netns" address add "$2/126" dev follow nodad
    # The guest's packets are as long as its tap's; the host cuts them into pieces.
    ip -n "$netns" link set follow mtu 1500 up
}
rules() { ip netns exec "$netns" nft -f -; }

case $act in
    from)
        tunnel $near4 $near6
        rules <<RULES
table inet drafter_follow {
    chain back {
        type filter hook prerouting priority raw
        iifname "follow" ip daddr $near4 ip daddr set $gateway4
        iifname "follow" ip6 daddr $near6 ip6 daddr set $gateway6
    }
}
RULES
        ;;
    to)
        tunnel $far4 $far6
        for v in 4 6; do
            near=near$v
            ip -n "$netns" -$v rule add fwmark 77 lookup 77
            ip -n "$netns" -$v route add default via "${!near}" table 77
        done
        # Either side may be the first to say something after the move. What comes out of the tunnel for a connection of the
        # guest's own is not to be translated once more.
        rules <<RULES
table inet drafter_follow {
    chain out {
        type filter hook prerouting priority raw
        iifname "follow" ip saddr $gateway4 ip saddr set $near4
        iifname "follow" ip6 saddr $gateway6 ip6 saddr set $near6
        iifname "follow" ip saddr != $near4 notrack
        iifname "follow" meta nfproto ipv6 ip6 saddr != $near6 notrack
    }
    chain own {
        type filter hook prerouting priority mangle
        iifname "tap0" ip daddr != $gateway4 ct state new tcp flags & (syn | rst) == 0 meta mark set 77
        iifname "tap0" ip6 daddr != $gateway6 ct state new tcp flags & (syn | rst) == 0 meta mark set 77
    }
    chain back {
        type nat hook prerouting priority dstnat - 1
        iifname "tap0" ip daddr $gateway4 tcp flags & (syn | rst) == 0 dnat ip to $near4
        iifname "tap0" ip6 daddr $gateway6 tcp flags & (syn | rst) == 0 dnat ip6 to $near6
    }
}
RULES
        ;;
    moved)
        ip -n "$netns" route replace $guest4/32 via $far4
        ip -n "$netns" -6 route replace $guest6/128 via $far6
        ;;
    end)
        ip -n "$netns" link delete follow
        ip netns exec "$netns" nft delete table inet drafter_follow
        for v in 4 6; do ip -n "$netns" -$v rule delete fwmark 77 2>/dev/null || :; done # on the second host
        ;;
    *)
        echo "follow.sh: $act: from, to, moved or end" >&2
        exit 2
        ;;
esac
