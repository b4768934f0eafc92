#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# user-net.sh - a network without root: QEMU's, IPv4 and IPv6, tcp and udp forwards, and what is refused
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/machine.sh"
. "$TEST_TOP/tests/lib/peer.sh"
for c in qemu-system-x86_64 mmdebstrap socat jq; do requires_command $c; done
requires_file /dev/fuse
[ "$(uname -m)" = x86_64 ] || skip_all "emulates x86_64 only"
bp=$(blueprint_shared) || skip_all "cannot make a blueprint"
plan 23

peer() { drafter-peer --blueprint "$bp" --overlay-dir none --chroot-base-dir vms --hypervisor qemu --accel tcg --raddr '' --laddr '' "$@"; }
fails "a forward of a protocol that does not exist" 2 'forward sctp:.*neither tcp nor udp' peer --net user --forward sctp::1-:2
fails "without the guest's end" 2 "forward tcp::3333: the guest's end is missing" peer --net user --forward tcp::3333
fails "a port that is none" 2 'a port is a number from 1 to 65535' peer --net user --forward tcp::70000-:1
fails "an address that is none" 2 'not an IPv4 address' peer --net user --forward tcp:localhost:3333-:1
fails "IPv6" 2 'IPv4 addresses only; for IPv6 use --net tap' peer --net user --forward 'tcp:[::1]:3333-:6379'
fails "more options of QEMU behind a comma" 2 'signs in it' peer --net user --forward tcp::3333-:6379,smb=/
fails "a forward without its network" 2 'needs --net user' peer --net none --forward tcp::3333-:6379
fails "a forward and a tap" 2 'drafter-forwarder forwards' peer --net tap --forward tcp::3333-:6379
printf '#!/bin/sh\nexit 1\n' >vmm && chmod +x vmm
vmmctl --user-net '' --firecracker-bin ./vmm --jailer-bin '' --qemu-bin ./vmm --kernel vmm --chroot-base-dir vms run 2>vmmctl.log
like "a Firecracker that is there is not taken for it" "$(cat vmmctl.log)" 'hypervisor=qemu .*Firecracker has no user-mode network'
fails "a namespace that is not there" 1 'nowhere is not there' peer --net tap --netns nowhere
taken=$(machine_pick_port)
socat -u "TCP4-LISTEN:$taken,bind=127.0.0.1" - >/dev/null 2>&1 &
cleanup kill $!
socat -u "UDP4-RECV:$taken,bind=127.0.0.1" - >/dev/null 2>&1 &
cleanup kill $!
ok "(a port is taken)" wait_for 60 sh -c "ss -ltn | grep -q ':$taken ' && ss -lun | grep -q ':$taken '"
for p in tcp udp; do
    fails "a $p port in use is named" 1 "$p port $taken of 127.0.0.1 is in use" peer --net user --forward "$p:127.0.0.1:$taken-:1"
done
ok "nothing was started" vms_empty

tcp=$(machine_pick_port) udp=$(machine_pick_port) six=$(machine_pick_port) four=$(machine_pick_port)
# shellcheck disable=SC2016
for a in "TCP6-LISTEN:$six,bind=[::1]" "TCP4-LISTEN:$four,bind=127.0.0.1"; do
    socat -t 60 "$a,fork,reuseaddr" SYSTEM:'echo \"hello from $SOCAT_PEERADDR\"' 2>/dev/null &
    cleanup kill $!
done
peer_from="--blueprint $bp" peer_start m --raddr '' --laddr '' --net user --memory-size 256 --resume-timeout 5m \
    --forward "tcp:127.0.0.1:$tcp-:6379" --forward "udp:127.0.0.1:$udp-172.16.0.2:5353"
wait_for 400 eval "grep -q 'Booted VM' m.log || peer_ended m"
ok "the machine boots" grep 'Booted VM' m.log
ok "a tcp forward" wait_for 120 redis_up "$tcp"
asked() { # NUMBER COMMAND: what a command in the guest prints
    peer_type m "echo; echo answer$1=\$($2)."
    wait_for 60 grep -qaE "^answer$1=[^$]*\." m.out && grep -aoE "^answer$1=[^$]*\." m.out | tail -n 1
}
peer_type m ''
like "the guest has both addresses" "$(asked 1 'ip -o address show dev eth0 | tr "\n" " "')" '172.16.0.2/30.*fdd7:af7e:4000:10::2/64'
like "it reaches the host, IPv4" "$(asked 2 "nc 172.16.0.1 $four </dev/null")" 'hello from'
like "and IPv6" "$(asked 3 "nc fdd7:af7e:4000:10::1 $six </dev/null")" 'hello from'
peer_type m "crun exec main perl -MIO::Socket::INET -e '\$s=IO::Socket::INET->new(Proto=>\"udp\",LocalPort=>5353);while(\$s->recv(\$m,99)){\$s->send(\"got \$m\")}' &"
echoed() { [[ $(echo ping | timeout 5 socat -t 1 - "UDP4:127.0.0.1:$udp,shut-none" 2>/dev/null) == 'got ping'* ]]; }
ok "a udp forward" wait_for 60 echoed
ok "the machine is suspended" peer_stop m
peer_from="--blueprint $bp" peer_start m --raddr '' --laddr '' --net user --forward "tcp:127.0.0.1:$tcp-:6379"
peer_up m 120
ok "and resumed, with a forward" wait_for 60 redis_up "$tcp"
peer_stop m
ok "nothing is left behind" vms_empty
