#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# blueprint-boot.sh - `make blueprint`, the machine it describes, and the redis in it
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/machine.sh"
requires_command qemu-system-x86_64
requires_command mmdebstrap
[ "$(uname -m)" = x86_64 ] || skip_all "emulates x86_64 only"
plan 12

out=$PWD/out
bp=$out/blueprint
# Products go here, but objects stay where they are: a test must not link the programs others use anew.
build() {
    make -C "$TEST_TOP" --no-print-directory OUTPUT_DIR="$out" obj=out/obj/release guest-obj=out/obj/guest own-guest=out/obj/guest \
        "$@"
}

# Packages that an earlier make fetched are verified again, not fetched again.
mkdir -p "$out/cache"
cp -a "$TEST_TOP"/out/cache/linux-image-* "$out/cache/" 2>/dev/null
ok "make blueprint" build blueprint
cp "$bp/blueprint.json" first.json
digests() { (cd "$bp" && sha256sum vmlinux initrd.img rootfs.ext4); }
first=$(digests)

ok "the blueprint is what its manifest says" blueprint-check "$bp"
is "its devices" "$(blueprint-check "$bp" | cut -f1 | tr '\n' ' ')" "kernel initrd disk oci "
stamp() { stat -c '%n %Y %i' "$bp"/*; }
before=$(stamp)
ok "make blueprint again" build blueprint
is "touches nothing" "$(stamp)" "$before"

machine_start "$bp"
ok "redis answers" wait_for 240 machine_ping
ok "what the application prints is on the console" wait_line 60 console 'main: .*Ready to accept connections'
ok "the agent looks for its host" wait_line 60 console 'Waiting for the host|drafter-agent'
printf '\n' >&8
printf 'date +%%Y-clock; cat /sys/devices/system/clocksource/clocksource0/current_clocksource; poweroff\n' >&8
ok "the machine powers off" wait_for 120 machine_ended
like "the clock is not the TSC" "$(tr -d '\r' <console)" $'\n(hpet|acpi_pm|kvm-clock)\n'
like "the application ended on its own terms" "$(cat console)" 'bye bye'

build clean/kernel clean/os blueprint >rebuild.log 2>&1
is "two builds give the same bytes" "$(digests)" "$first"
