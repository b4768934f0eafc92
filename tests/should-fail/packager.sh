#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# packager.sh - archives that must not be taken, and what is said about them; nothing stays behind
. "$TEST_TOP/tests/lib/functions.sh"
requires_command zstd
plan 42

mkdir in
head -c 200000 /dev/urandom >in/kernel
head -c 3000000 /dev/urandom >in/disk
one='[{"name": "kernel", "path": "out/k"}]'
two='[{"name": "kernel", "path": "out/k"}, {"name": "disk", "path": "out/d"}]'
drafter-packager --package-path good.tar.zst \
    --devices '[{"name": "kernel", "path": "in/kernel"}, {"name": "disk", "path": "in/disk"}]'
size=$(stat -c %s good.tar.zst)
refuse() { # NAME REGEX ARCHIVE [DEVICES]
    fails "$1" 1 "$2" drafter-packager --extract --package-path "$3" --devices "${4:-$two}"
    is "$1: nothing is written" "$(ls -A out 2>/dev/null)" ""
}

# -- damaged --
cp good.tar.zst flipped.tar.zst
flip_byte flipped.tar.zst $((size / 2))
refuse "one flipped bit" 'archive flipped.tar.zst: entry disk: is damaged near byte [0-9]+: zstd: ' flipped.tar.zst
head -c $((size / 2)) good.tar.zst >cut.tar.zst
refuse "a truncated archive" 'archive cut.tar.zst: entry disk: is cut off after [0-9]+ bytes' cut.tar.zst
zstd -dqc good.tar.zst >good.tar
head -c 700000 good.tar | zstd -q >short.tar.zst
refuse "a tar cut off in a whole zstd stream" 'archive short.tar.zst: entry disk: is no good tar: Truncated' short.tar.zst
# Changed and compressed anew: zstd's checksum is right, ours is not.
cp good.tar other.tar && flip_byte other.tar 100000 && zstd -q other.tar
refuse "a byte changed by who compressed it again" 'archive other.tar.zst: entry kernel: is damaged' other.tar.zst
{ cat good.tar; echo more; } | zstd -q >behind.tar.zst
refuse "something behind the end" "archive behind.tar.zst: .* end mark" behind.tar.zst
: >empty.tar.zst
refuse "an empty file" 'archive empty.tar.zst: .*is empty' empty.tar.zst
cp in/kernel noise.tar.zst
refuse "no archive at all" 'archive noise.tar.zst: .*no zstd stream' noise.tar.zst
refuse "a folder" 'in: read: Is a directory' in
refuse "nothing there" 'archive nowhere.tar.zst: open: No such file' nowhere.tar.zst

# -- wrong entries --
mkdir bad && ln -s /etc/passwd bad/kernel
tar -C bad -cf - kernel | zstd -q >link.tar.zst
refuse "a symlink" 'archive link.tar.zst: entry "kernel": is no regular file' link.tar.zst "$one"
cp in/kernel bad/k2 && tar -C bad --transform 's/k2/..\/kernel/' -P -cf - k2 | zstd -q >up.tar.zst
refuse "a name that leaves the folder" 'archive up.tar.zst: entry "../kernel"' up.tar.zst "$one"
tar -C in -cf - kernel disk ./kernel | zstd -q >dot.tar.zst
refuse "a name in another spelling" 'archive dot.tar.zst: entry "./kernel"' dot.tar.zst
tar -C in --hard-dereference -cf - kernel disk kernel | zstd -q >twice.tar.zst
refuse "an entry that is there twice" 'archive twice.tar.zst: entry kernel: is there twice' twice.tar.zst
refuse "a missing device" 'archive good.tar.zst: missing device: memory: it holds kernel, disk' good.tar.zst \
    '[{"name": "kernel", "path": "out/k"}, {"name": "memory", "path": "out/m"}]'
truncate -s 1T bad/memory && tar -C bad --sparse --format=pax -cf - memory | zstd -q >bomb.tar.zst
fails "more than --max-size" 1 'entry memory: has 1099511627776 bytes: all together' \
    drafter-packager --list --max-size 1G --package-path bomb.tar.zst
fails "a package that is none" 1 'holds no package: ' drafter-packager -x --package-path good.tar.zst --package out/p
fails "a blueprint that is none" 1 'holds no blueprint: blueprint.json is missing; extract its devices' \
    drafter-packager -x --package-path good.tar.zst --blueprint out/p
rmdir out

# -- wrong requests --
mkdir mine && echo precious >mine/letter
fails "a folder with other things" 1 'mine: holds letter, which is no part of a package and would be lost' \
    drafter-packager -x --package-path good.tar.zst --package mine
fails "two of a name" 1 'named twice' drafter-packager --extract --package-path good.tar.zst \
    --devices '[{"name": "kernel", "path": "x"}, {"name": "kernel", "path": "y"}]'
fails "a key that is not known" 1 'devices\[0\]: .*pth' drafter-packager --devices '[{"name": "kernel", "pth": "x"}]'
fails "two acts" 2 'give one of' drafter-packager --extract --list
fails "a device that is not there" 1 'archive n.tar.zst: device kernel: open nowhere: No such file' \
    drafter-packager --package-path n.tar.zst --devices '[{"name": "kernel", "path": "nowhere"}]'
fails "a folder as device" 1 'device kernel: in is no regular file' \
    drafter-packager --package-path n.tar.zst --devices '[{"name": "kernel", "path": "in"}]'
is "no archive was begun" "$(ls -A | grep -c 'n\.tar')" 0

# -- a full disk --
if [ "$(id -u)" = 0 ] && mkdir full && mount -t tmpfs -o size=1m none full; then
    cleanup umount full
    fails "a full disk" 1 'archive good.tar.zst: entry disk: .*No space left' \
        drafter-packager -x --package-path good.tar.zst --devices \
        '[{"name": "disk", "path": "full/d"}, {"name": "kernel", "path": "full/k"}]'
    is "leaves nothing" "$(ls -A full)" ""
    fails "a full disk under the archive" 1 'archive full/a.tar.zst: .*No space left' drafter-packager --package-path full/a.tar.zst \
        --devices '[{"name": "disk", "path": "in/disk"}]'
    is "leaves nothing there" "$(ls -A full)" ""
else
    for t in 1 2 3 4; do skip "a full disk ($t)" "needs root"; done
fi
