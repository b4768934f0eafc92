#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# vsock.sh - rate and round trip of our vsock device, guest to host, every byte checked
#
# Prints the rate of BYTES (default 1 GiB) through one connection in each of ROUNDS (default 3) rounds,
# beside the same two programs over a plain UNIX socket of the host, and the round trip of one byte.
: "${TEST_TOP:=$(cd "$(dirname "$0")/../.." && pwd)}"
export TEST_TOP
work=$(mktemp -d)
cd "$work" || exit 1
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/vsock_machine.sh"
cleanup rm -rf "$work"
vsock_prepare || skip_all "the kernel package lacks a module"
bytes=${BYTES:-$((1 << 30))}
rounds=${ROUNDS:-3}

median() { sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
rate() { sed -n 's/^got .*, \([0-9.]*\) MB.*/\1/p' sink.log; }
sink() {
    ./vsock_stream sink unix:a/vsock.sock_60 "$bytes" >sink.log 2>&1 7>&- 8>&- &
    wait_line 10 sink.log serving
}

vsock_boot a
wait_line 120 a/console guest-up || { cat a/log >&2; exit 1; }
./vsock_stream serve unix:a/vsock.sock_52 >serve.log 7>&- 8>&- &
cleanup kill $!
for ((i = 0; i < rounds; i++)); do
    sink
    vsock_run 600 a "vsock_stream send vsock:2:60 $bytes" || { tail -n 5 a/console sink.log >&2; exit 1; }
    rate >>vsock.rates
    sink
    ./vsock_stream send unix:a/vsock.sock_60 "$bytes" >/dev/null || exit 1
    rate >>unix.rates
done
vsock_run 120 a 'vsock_stream ping vsock:2:52 2000'
echo "guest to host:     $(tr '\n' ' ' <vsock.rates)MB/s, median $(median <vsock.rates)"
echo "plain UNIX socket: $(tr '\n' ' ' <unix.rates)MB/s, median $(median <unix.rates)"
echo "one byte, guest to host and back: $(sed -n 's/^round trip //p' a/console | tr -d '\r')"
echo "one byte, host to guest and back: $(./vsock_stream ping guest:a/vsock.sock:99 2000 | sed 's/^round trip //')"
vsock_qmp a '{"execute":"quit"}'
