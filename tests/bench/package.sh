#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# package.sh - drafter-packager against tar --sparse and zstd, on a package of 1 GiB
#
# Usage: package.sh [DIR]. DIR is a package; without one, a package is made whose memory of 1 GiB holds programs and
# libraries of this machine, zeros and holes. All contestants sync what they wrote: tar and zstd by sync(1).
# RUNS rounds in turn (default 5), medians. Both compress at level 3 with a thread per processor.
. tests/bench/lib.sh
bench_need tar zstd
bench_begin package
package=${1:-$work/package}
if [ ! -d "$package" ]; then
    mkdir "$package"
    cd "$package"
    # What a guest's memory is like: a third is code and data, some pages were zeroed, the rest was never touched.
    truncate -s 1G memory.bin
    find /usr/lib /usr/bin -type f -size +64k -print0 2>/dev/null | sort -z | xargs -0 cat 2>/dev/null | head -c 400M >some || :
    dd if=some of=memory.bin bs=1M conv=notrunc status=none
    dd if=/dev/zero of=memory.bin bs=1M seek=500 count=100 conv=notrunc status=none
    dd if=some of=rootfs.ext4 bs=1M count=100 skip=300 status=none
    truncate -s 256M rootfs.ext4
    head -c 30M some >vmlinux
    head -c 50000 some >state.bin
    truncate -s 2M state.bin
    rm some
    printf '{"agentVSockPort":26}' >config.json
    truncate -s 1M config.json
    cd - >/dev/null
fi
rm -f "$work"/*.zst
theirs_pack() { tar -C "$1" --sparse -cf - . | zstd -q -T0 -f -o "$2" && sync "$2"; }
theirs_unpack() { rm -rf "$2" && mkdir "$2" && zstd -dqc "$1" | tar -xC "$2" && find "$2" -type f -exec sync {} +; }
ours_unpack() { rm -rf "$2" && drafter-packager --log-level warn --extract --package "$2" --package-path "$1"; }
export -f theirs_pack theirs_unpack ours_unpack
sync -f "$work"
for _ in $(seq "${RUNS:-5}"); do
    rm -f "$work/ours.zst" "$work/theirs.zst"
    bench ours-pack drafter-packager --log-level warn --package "$package" --package-path "$work/ours.zst"
    bench theirs-pack bash -c 'set -o pipefail; theirs_pack "$@"' _ "$package" "$work/theirs.zst"
    bench ours-unpack bash -c 'ours_unpack "$@"' _ "$work/ours.zst" "$work/ours"
    bench theirs-unpack bash -c 'set -o pipefail; theirs_unpack "$@"' _ "$work/theirs.zst" "$work/theirs"
done
echo "  archive: ours $(stat -c %s "$work/ours.zst") bytes, theirs $(stat -c %s "$work/theirs.zst")"
echo "  seconds: pack $(median ours-pack) against $(median theirs-pack), extract $(median ours-unpack) against $(median theirs-unpack)"
echo "  memory: pack $(($(memory ours-pack) / 1024)) MiB, extract $(($(memory ours-unpack) / 1024)) MiB"
judge "pack: times as fast as tar --sparse | zstd -T0" "$(calculate "$(median theirs-pack) / $(median ours-pack)")" ">=" 1
judge "extract: times as fast as zstd -d | tar -x" "$(calculate "$(median theirs-unpack) / $(median ours-unpack)")" ">=" 1
bench_end
