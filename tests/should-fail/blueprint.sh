#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# blueprint.sh - what must not become a blueprint, and what is said about it
. "$TEST_TOP/tests/lib/functions.sh"
plan 35

absent() { is "$1" "$(ls -A "$2" 2>/dev/null)" ""; }
host=$(uname -m)

# -- kernels --
printf 'not a kernel' >text
fails "a kernel that is no kernel" 1 'text: is no kernel' kernel-extract -o vmlinux text
head -c 100 /bin/ls >cut
fails "an ELF file cut off" 1 'cut: ' kernel-extract -o vmlinux cut
fails "a program" 1 'is a program for Linux, not a kernel' kernel-extract -o vmlinux /bin/ls
{ head -c 56 /dev/zero; printf 'ARM\x64'; head -c 600 /dev/zero; } >arm
fails "a kernel of another architecture" 1 'aarch64' kernel-extract -o vmlinux arm
fails "no kernel" 1 'nowhere: open: No such file' kernel-extract -o vmlinux nowhere
is "none of them left a kernel" "$(ls vmlinux .vmlinux* 2>/dev/null)" ""
fails "a kernel that is not there" 1 'no such kernel' "$TEST_TOP/blueprint/kernel/make-kernel.sh" k cache ./nowhere init
fails "no name of a package" 1 'is no name of a Debian package' "$TEST_TOP/blueprint/kernel/fetch-package.sh" cache '../x'
is "and no folder" "$(ls -d k k.tmp* 2>/dev/null)" ""

# -- a package that does not verify --
mkdir -p cache
echo content >cache/linux-image-x_1.deb
(cd cache && sha256sum linux-image-x_1.deb >linux-image-x.sha256)
ok "a package that was fetched before is taken" "$TEST_TOP/blueprint/kernel/fetch-package.sh" cache linux-image-x
echo changed >cache/linux-image-x_1.deb
fails "but not when it was changed" 1 'does not verify' "$TEST_TOP/blueprint/kernel/fetch-package.sh" cache linux-image-x

mkdir -p cache/packages-amd64
echo content >cache/packages-amd64/redis_1.deb
(cd cache/packages-amd64 && sha256sum redis_1.deb >SHA256SUMS && echo changed >redis_1.deb)
fails "nor one among those of a root" 1 'does not verify: redis_1.deb changed' \
    "$TEST_TOP/blueprint/rootfs/unpack-packages.sh" cache amd64 unpacked redis
is "and there is no root" "$(ls -d unpacked* 2>/dev/null)" ""

# -- roots --
mkdir -p root/sbin root/etc
tar -C root -cf empty.tar .
fails "a root without init" 1 'the root has no /sbin/init' rootfs-pack -o r.ext4 empty.tar
fails "a file that is no tar" 1 'text: is no tar' rootfs-pack -o r.ext4 text
printf '\x1f\x8bnonsense that is long enough' >bad.tar.gz
fails "a tar that does not unpack" 1 'bad.tar.gz' rootfs-pack -o r.ext4 bad.tar.gz
printf '#!/bin/sh\n' >root/sbin/init && chmod +x root/sbin/init
tar -C root -cf script.tar .
ok "a script as init is fine" rootfs-pack -o r.ext4 --free 1M script.tar
rm r.ext4
ln -sf /etc/nothing root/sbin/init && tar -C root -cf dangling.tar .
fails "an init that leads nowhere" 1 'the root has no /sbin/init' rootfs-pack -o r.ext4 dangling.tar
rm root/sbin/init
{ printf '\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xf3\0'; head -c 100 /dev/zero; } >root/sbin/init
chmod +x root/sbin/init && tar -C root -cf riscv.tar .
fails "a root of another architecture" 1 "is a program for riscv; machines here are $host" rootfs-pack -o r.ext4 riscv.tar
head -c 9000000 /dev/urandom >root/big && tar -C root -cf big.tar . && rm root/big
printf '#!/bin/sh\n' >root/sbin/init
tar -C root -cf top.tar .
fails "a root larger than its size" 1 'its files need [0-9]+ bytes, the size shall be 4194304' rootfs-pack -o r.ext4 --size 4M big.tar top.tar
is "none of them left an image" "$(ls r.ext4 .r.ext4* 2>/dev/null)" ""
ok "a given size is met" rootfs-pack -o r.ext4 --size 64M big.tar top.tar
is "to the byte" "$(stat -c %s r.ext4)" $((64 << 20))

# -- roots that are images already --
image() { rm -f i.ext4 && truncate -s 8M i.ext4 && mke2fs -q -F -t ext4 -d root i.ext4; }
ln -sf /bin/real root/sbin/init && mkdir -p root/bin && printf '#!/bin/sh\n' >root/bin/real && chmod +x root/bin/real
image
ok "an image with an init behind a link" rootfs-check i.ext4
fails "no ext4" 1 'text: is no ext4 file system' rootfs-check text
truncate -s 6M i.ext4
fails "an image that was cut off" 1 'i.ext4: the file system has 8388608 bytes, the file only 6291456' rootfs-check i.ext4
rm root/bin/real && image
fails "an image without init" 1 'i.ext4: the root has no /sbin/init' rootfs-check i.ext4
rm root/sbin/init && { printf '\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xf3\0'; head -c 100 /dev/zero; } >root/sbin/init
image
fails "an image whose init is no program" 1 'is no program' rootfs-check i.ext4
chmod +x root/sbin/init && image
fails "an image of another architecture" 1 "is a program for riscv; machines here are $host" rootfs-check i.ext4
build() { make -C "$TEST_TOP" --no-print-directory OUTPUT_DIR="$PWD/o" obj=out/obj/release guest-obj=out/obj/guest own-guest=out/obj/guest "$@"; }
fails "which make refuses" 2 'is a program for riscv' build build/os OS_ROOTFS="$PWD/i.ext4"
is "and leaves no root" "$(ls o/os/rootfs.ext4* 2>/dev/null)" ""

# -- a full disk --
if [ "$(id -u)" = 0 ] && mkdir full && mount -t tmpfs -o size=2m none full; then
    cleanup umount full
    fails "a full disk" 1 'No space left' rootfs-pack -o full/r.ext4 big.tar top.tar
    absent "leaves nothing behind" full
else
    skip "a full disk" "needs root"
    skip "leaves nothing behind" "needs root"
fi

# -- the blueprint --
fails "a device without a file" 2 'must be NAME=FILE' blueprint-make -o bp -d kernel
fails "a kernel that is none" 1 'device kernel: text: is no ELF' blueprint-make -o bp -d kernel=text
