#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# peer.sh - tests/e2e/peer-guest.sh on Firecracker: suspended, resumed and cloned with the jailer on a host with KVM, behind
# drafter-nat; and what is refused there (see lib.sh). ROUNDS (default 10) of suspend and resume.
# timeout: 900
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/peer.sh"
. "$TEST_TOP/tests/lib/guest.sh"
. "$TEST_TOP/tests/lab/lib.sh"
[ -n "${FIRECRACKER_BIN:-}" ] || skip_all "needs FIRECRACKER_BIN"
[ -n "${JAILER_BIN:-}" ] || skip_all "needs JAILER_BIN"
requires_command mmdebstrap
requires_command debugfs
requires_command jq
bp=$(blueprint_shared) || { echo "Bail out! no blueprint"; exit 1; }
guest_disks "$bp" || skip_all "cannot link a static program"
rounds=${ROUNDS:-10}
plan $((2 + 13 + 2 * rounds + 8 + 6 + 5 + 4))

# shellcheck disable=SC2086
lab_begin $lab_peer_modules && lab_add_peer || { echo "Bail out! no lab"; exit 1; }
lab_add "$TEST_TOP/tests/lab/inside/peer.sh" /lab/peer.sh
lab_disk "$bp" disk.ext4 extra.ext4 vsock_stream
rm disk.ext4
lab_qemu=("${lab_disk[@]}")
lab_start host 1400 "export LAB_ROUNDS=$rounds; bash peer.sh"
lab_wait host
lab_tap host
diag "$SECONDS s in all"
