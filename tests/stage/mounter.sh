#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# mounter.sh - drafter-mounter: devices as files, read-only and with overlays, as root and as another user
. "$TEST_TOP/tests/lib/functions.sh"
requires_file /dev/fuse
requires_command fusermount3
plan 31

mkdir package mnt
head -c 300000 /dev/urandom >package/vmlinux
head -c 3000000 /dev/urandom >package/rootfs.ext4
truncate -s 64M package/rootfs.ext4
head -c 100001 /dev/urandom >package/state.bin
truncate -s 9G package/memory.bin
printf late | dd of=package/memory.bin bs=1M seek=9000 conv=notrunc status=none
printf '{"agentVSockPort":26}' >package/config.json
truncate -s 1M package/config.json
before=$(sha256sum package/rootfs.ext4 package/state.bin)

# start ARGUMENTS...: the mounter in the background, on mnt; waits until it says that it is ready.
start() {
    : >ready
    drafter-mounter "$@" --ready-fd 3 mnt 3>>ready 2>mounter.log &
    mounter=$!
    cleanup kill "$mounter"
    wait_for 60 bash -c "grep -q ready ready || ! kill -0 $mounter" && grep -q ready ready
}
stop() { # SIGNAL
    kill -"$1" "$mounter" && wait "$mounter"
}

# -- read-only --
ok "mounts a package" start --package package
is "a file for each device" "$(ls mnt | paste -sd' ')" "config disk kernel memory state"
ok "with the base's content" cmp mnt/disk package/rootfs.ext4
is "and its size to the byte" "$(stat -c %s mnt/state)" 100001
is "what lies behind 9000 MiB of hole is there" "$(dd if=mnt/memory bs=1M skip=9000 count=1 status=none | head -c 4)" late
drafter-packager --package-path m.tar.zst --devices '[{"name": "memory", "path": "mnt/memory"}]'
is "and the hole is seen" "$(drafter-packager --list --package-path m.tar.zst | cut -d' ' -f1-3)" "memory $((9 << 30)) 4096"
ok "nobody can write" bash -c '! dd if=/dev/zero of=mnt/disk bs=4096 count=1 conv=notrunc'
is "the mode says so" "$(stat -c %a mnt/disk)" 400
ok "SIGTERM ends it well" stop TERM
ok "and the mount" bash -c "! grep -q ' $PWD/mnt fuse' /proc/self/mounts"
is "the bases are as they were" "$(sha256sum package/rootfs.ext4 package/state.bin)" "$before"

# -- with overlays --
ok "mounts with overlays" start --package package --overlay-dir over
is "the mode says that too" "$(stat -c %a mnt/disk)" 600
ok "takes writes" dd if=/dev/zero of=mnt/disk bs=100000 seek=3 count=2 conv=notrunc,fsync status=none
cp mnt/disk wanted
ok "a second user of the overlays is refused" bash -c \
    'mkdir -p mnt2; ! drafter-mounter --package package --overlay-dir over mnt2 2>second.log && grep -q over/ second.log'
ok "SIGINT ends it well" stop INT
is "the bases are as they were" "$(sha256sum package/rootfs.ext4 package/state.bin)" "$before"
ok "mounts what the overlays hold, to be looked at" start --package package --overlay-dir over --read-only
ok "it is what was written" cmp wanted mnt/disk
is "and cannot be written" "$(stat -c %a mnt/disk)" 400
ok "ends" stop TERM
ok "mounts by --devices" start --devices '[{"name": "a", "base": "package/rootfs.ext4",
    "overlay": "x.overlay", "state": "x.state"}, {"name": "b", "base": "package/state.bin"}]'
is "one is written, the other not" "$(stat -c %a mnt/a mnt/b | paste -sd' ')" "600 400"
ok "ends" stop TERM

# -- what it refuses --
fails "a folder that is no package" 1 'mnt' drafter-mounter --package mnt mnt
fails "a mount point that is not there" 1 'nowhere' drafter-mounter --package package nowhere
fails "two kinds at once" 2 'give one of' drafter-mounter --package package --blueprint package mnt
head -c 3000000 /dev/urandom | dd of=package/rootfs.ext4 conv=notrunc status=none
touch -d 2001-01-01 package/rootfs.ext4
fails "overlays of a base that has changed" 1 'over/rootfs.ext4.overlay' \
    drafter-mounter --package package --overlay-dir over mnt

# -- as another user --
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    # The programs and our folder may stand where another user may not go.
    other=$(mktemp -d "${TMPDIR:-/tmp}/mounter.XXXXXX")
    cleanup rm -rf "$other"
    cp "$TEST_TOP/runtime/drafter-mounter" "$other/"
    cp --sparse=always -r package "$other/package"
    mkdir "$other/mnt"
    chown -R 65534:65534 "$other"
    # In a mount namespace, with a /dev/fuse that everybody may use, as a Debian host has it.
    nobody() {
        (own_mounts -- bash -c 'mkdir "$0/dev" && mount -t tmpfs none "$0/dev" && mknod -m 666 "$0/dev/fuse" c 10 229 &&
            chmod 666 "$0/dev/fuse" && mount --bind "$0/dev/fuse" /dev/fuse && cd "$0" &&
            exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"' "$other" "$@")
    }
    cat >"$other/run" <<'END'
cd "$(dirname "$0")" || exit
mkfifo ready
./drafter-mounter --package package --overlay-dir over --ready-fd 3 mnt 3<>ready &
m=$!
read -r -t 60 line <>ready && [ "$line" = ready ] && echo hello | dd of=mnt/disk conv=notrunc,fsync status=none &&
    cat mnt/config >config
rc=$?
kill "$m" && wait "$m" && ! grep -q "$PWD/mnt" /proc/self/mounts && exit $rc
END
    ok "another user mounts, writes, reads and unmounts" nobody bash ./run
    ok "the right thing" cmp package/config.json "$other/config"
    ok "into the overlay" grep -q hello "$other/over/rootfs.ext4.overlay"
else
    for t in 1 2 3; do skip "as another user ($t)" "needs root and setpriv"; done
fi
