#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# kernel-source.sh - `make config/kernel OS_KERNEL=source`: Debian's source takes the committed configuration
#
# The kernel itself is not built here, which takes a quarter of an hour.
. "$TEST_TOP/tests/lib/functions.sh"
for c in flex bison bc xz; do requires_command $c; done
requires_file /usr/include/libelf.h
plan 6

build() {
    make -C "$TEST_TOP" --no-print-directory OUTPUT_DIR="$PWD/out" cache-out="$TEST_TOP/out/cache" obj=out/obj/release \
        guest-obj=out/obj/guest own-guest=out/obj/guest "$@"
}
ok "source is fetched, verified and configured" build config/kernel OS_KERNEL=source
is "nothing is a module" "$(grep -c '=m$' out/linux/config)" 0
is "the machine's devices are built in" \
    "$(grep -cxE 'CONFIG_(VIRTIO_(BLK|NET|MMIO|PCI|VSOCKETS)|PVH|EXT4_FS|OVERLAY_FS|SERIAL_8250_CONSOLE)=y' out/linux/config)" 9
cp out/linux/config first
echo 'CONFIG_USB_STORAGE=y' >more.config
fails "an option whose dependency is off is named" 2 'does not take these options.*: CONFIG_USB_STORAGE=y' \
    build config/kernel OS_KERNEL=source KERNEL_CONFIG="$PWD/more.config"
is "and there is no configuration then" "$(ls out/linux/config 2>/dev/null)" ""
build config/kernel OS_KERNEL=source >again.log 2>&1
ok "the same again" cmp first out/linux/config
