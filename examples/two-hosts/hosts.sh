#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# hosts.sh - two hosts, a router between them, and somebody outside, on one machine
#
#   unshare --mount --net --pid --fork --kill-child bash --rcfile examples/two-hosts/hosts.sh
#
#    host_a ── 192.0.2.2, 2001:db8:a::2 ──┐
#                                       router ── 203.0.113.2, 2001:db8:c::2 ── client
#    host_b ── 198.51.100.2, 2001:db8:b::2 ──┘
#
# Each is a network namespace and a mount namespace with a /run of its own, so that namespaces on either host have the
# same names. Processes, namespaces and mounts are those of the shell that reads this, in a process namespace of its
# own: they end with it, however it ends.
#
# Functions host_a, host_b, router, client: run a command there.
[ "$$" = 1 ] || { echo "hosts.sh: run me as its head says, with a process namespace of my own" >&2; exit 2; }
[ -z "${BASH_VERSION:-}" ] || PS1='two-hosts# '
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
PATH=$PWD/runtime:$PWD/tools:$PATH

_there() { # NAME COMMAND...
    local pid=_pid_$1
    shift
    ${_exec:-} nsenter --target "${!pid}" --mount --root --net --wd="$PWD" -- "$@"
}
host_a() { _there host_a "$@"; }
host_b() { _there host_b "$@"; }
router() { _there router "$@"; }
client() { _there client "$@"; }

for _name in router host_a host_b client; do
    mkfifo "/run/$_name"
    # shellcheck disable=SC2016
    unshare --mount --net --propagation private sh -c '
        exec 9>"/run/$0"; mount -t tmpfs tmpfs /run; mkdir /run/netns; mount -t sysfs sysfs /sys
        ip link set lo up; echo ready >&9; exec 9>&-; exec sleep infinity' "$_name" </dev/null &
    declare "_pid_$_name=$!"
    read -r _ <"/run/$_name"
done
_link() { # NAME IPv4-NET IPv6-NET
    local pid=_pid_$1
    router ip link add "to-$1" type veth peer name eth0 netns "${!pid}"
    router ip address add "$2.1/24" dev "to-$1"
    router ip address add "$3::1/64" dev "to-$1" nodad
    router ip link set "to-$1" up
    _there "$1" ip link set eth0 up
    _there "$1" ip address add "$2.2/24" dev eth0
    _there "$1" ip address add "$3::2/64" dev eth0 nodad
    _there "$1" ip route add default via "$2.1"
    _there "$1" ip -6 route add default via "$3::1"
}
router sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
_link host_a 192.0.2 2001:db8:a
_link host_b 198.51.100 2001:db8:b
_link client 203.0.113 2001:db8:c
