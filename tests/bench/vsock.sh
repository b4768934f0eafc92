#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# vsock.sh - rate and round trip of our vsock device, guest to host, every byte checked
#
# Prints the rate of BYTES (default 1 GiB) through one connection in each of BENCH_ROUNDS (default 3)
# rounds, beside the same guest's virtio-serial port and the same two programs over a plain UNIX socket
# of the host, and the round trip of one byte.
: "${TEST_TOP:=$(cd "$(dirname "$0")/../.." && pwd)}"
export TEST_TOP
work=$(mktemp -d)
cd "$work" || exit 1
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/vsock_machine.sh"
cleanup rm -rf "$work"
vsock_prepare || skip_all "the kernel package lacks a module"
bytes=${BYTES:-$((1 << 30))}
rounds=${BENCH_ROUNDS:-3}

median() { sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
rate() { sed -n 's/^got .*, \([0-9.]*\) MB.*/\1/p' sink.log; }
sink() { # sink|take ADDRESS
    : >sink.log # or the line of the last one is taken for this one's
    ./vsock_stream "$1" "$2" "$bytes" >sink.log 2>&1 7>&- 8>&- &
    wait_line 60 sink.log serving
}

vsock_boot a -device virtio-serial-pci -chardev socket,id=port,path=a/port.sock,server=on,wait=off \
    -device virtserialport,chardev=port,nr=1,name=bench
wait_line 120 a/console guest-up || { cat a/log >&2; exit 1; }
./vsock_stream serve unix:a/vsock.sock_52 >serve.log 7>&- 8>&- &
cleanup kill $!
for ((i = 0; i < rounds; i++)); do
    sink sink unix:a/vsock.sock_60
    vsock_run 600 a "vsock_stream send vsock:2:60 $bytes" || { tail -n 5 a/console sink.log >&2; exit 1; }
    rate >>vsock.rates
    sink take unix:a/port.sock
    vsock_run 600 a "vsock_stream send port:\$(echo /dev/vport*p1) $bytes" || { tail -n 5 a/console sink.log >&2; exit 1; }
    rate >>port.rates
    sink sink unix:a/plain.sock
    ./vsock_stream send unix:a/plain.sock "$bytes" >/dev/null || exit 1
    rate >>unix.rates
done
vsock_run 120 a 'vsock_stream ping vsock:2:52 2000'
vsock_guest a 'vsock_stream mirror port:$(echo /dev/vport*p1) &'
echo "guest to host, MB/s, medians of $rounds:"
for what in vsock port unix; do
    case $what in vsock) text="vsock" ;; port) text="virtio-serial" ;; *) text="plain UNIX socket of the host" ;; esac
    printf '  %-58s %10s\n' "$text" "$(median <$what.rates)"
done
echo "one byte:"
printf '  %-58s %10s us\n' "vsock, guest to host and back" "$(sed -n 's/^round trip \([0-9]*\) us.*/\1/p' a/console)" \
    "vsock, host to guest and back" "$(./vsock_stream ping guest:a/vsock.sock:99 2000 | tr -dc 0-9)" \
    "virtio-serial, host to guest and back" "$(timeout 60 ./vsock_stream ping unix:a/port.sock 2000 | tr -dc 0-9)"
vsock_qmp a '{"execute":"quit"}'
