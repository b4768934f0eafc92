#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# migrate.sh - a database in Firecracker, moved under load between two hosts that share no kernel
#
# The hosts are two outer machines (see lib.sh) with a cable between them, 25 ms there and back. On each drafter-nat,
# drafter-forwarder and drafter-peer with the jailer; on the first a client writes one key after the other and
# redis-benchmark (where it is installed) as fast as it can, through the host's forward. tests/e2e/migrate-redis.sh is
# the same with QEMU and 256 MiB of keys; here everything is emulated twice, so there are fewer.
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/peer.sh"
. "$TEST_TOP/tests/lab/lib.sh"
[ -n "${FIRECRACKER_BIN:-}" ] || skip_all "needs FIRECRACKER_BIN"
[ -n "${JAILER_BIN:-}" ] || skip_all "needs JAILER_BIN"
requires_command mmdebstrap
bp=$(blueprint_shared) || { echo "Bail out! no blueprint"; exit 1; }
on_1=12 on_2=8
plan $((on_1 + on_2))

# shellcheck disable=SC2086
lab_begin $lab_peer_modules && lab_add_peer || { echo "Bail out! no lab"; exit 1; }
lab_add "$TEST_TOP/tests/lab/inside/migrate.sh" /lab/migrate.sh
lab_disk "$bp"
for n in 1 2; do
    # shellcheck disable=SC2207
    lab_qemu=($(lab_cable $n))
    [ $n = 2 ] || lab_qemu+=("${lab_disk[@]}")
    LAB_MEMORY=2048 lab_start $n 560 "export LAB_KEYS=4096 LAB_GUEST_MIB=256 LAB_FIRST=$on_1 LAB_MTU=9000; bash migrate.sh"
done
lab_wait 1 || lab_stop 2 # which waits for it in vain
lab_wait 2
lab_tap 1 2
diag "64 MiB of keys in a guest of 256 MiB; $SECONDS s in all"
