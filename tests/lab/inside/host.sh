# SPDX-License-Identifier: Apache-2.0
# host.sh - read by tests that run in an outer machine (see ../lib.sh): what makes it a host of peers with Firecracker
#
#   host_network N [FORWARD...]   drafter-nat's namespaces ark0 to arkN-1, and forwards into them
#   $peer_hypervisor              options of drafter-peer and drafter-snapshotter: Firecracker, jailed as user 1000
#
# Results are printed as those of any test; lab_tap takes them from the console.
export TEST_TOP=/lab/top PATH=/usr/bin:/bin
. $TEST_TOP/tests/lib/functions.sh
. $TEST_TOP/tests/lib/machine.sh
. $TEST_TOP/tests/lib/peer.sh
ln -s /proc/self/mounts /etc/mtab # libfuse looks there
mkdir -m 755 /w && cd /w || exit 1
peer_hypervisor=(--hypervisor firecracker --accel kvm --firecracker-bin /bin/firecracker --jailer-bin /bin/jailer --uid 1000 --gid 1000
    --cgroup-version 2 --numa-node 0 --resume-timeout 5m)
ip link set lo up

# in_background NAME PROGRAM [OPTION...]: until it says on --ready-fd that it is ready.
in_background() {
    local name=$1
    shift
    "$@" --ready-fd 9 9>"$name.ready" 2>"$name.log" </dev/null &
    wait_line 60 "$name.ready" ready || { cat "$name.log"; return 1; }
}
host_network() {
    local n=$1 forwards=()
    shift
    # drafter-nat needs to know where outside is; a host without a cable gets one that leads nowhere.
    if [ -z "$(ip route show default)" ]; then
        ip link add nowhere type dummy && ip address add 192.0.2.1/24 dev nowhere && ip link set nowhere up &&
            ip route add default via 192.0.2.2 || return 1
    fi
    in_background nat drafter-nat --namespaces "$n" || return 1
    for f; do forwards+=(-p "$f"); done
    in_background forwarder drafter-forwarder "${forwards[@]}"
}

# A blueprint that is this machine's first disk.
mkdir /bp && { [ ! -e /dev/vda ] || mount -o ro /dev/vda /bp; }
