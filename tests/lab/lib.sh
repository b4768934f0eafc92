# SPDX-License-Identifier: Apache-2.0
# lib.sh - a lab: an outer machine with a true /dev/kvm, emulated, in which a test's commands run
#
#   . "$TEST_TOP/tests/lab/lib.sh"
#   lab_begin                                  # or lab_begin tun vsock: further modules
#   lab_add_program "$TEST_TOP/tools/vmmctl" /bin/vmmctl      # with the libraries it needs
#   lab_add testguest /lab/testguest
#   lab_run 240 'vmmctl ... /lab/testguest'    # prints what the commands print; their exit status
#
# lab_qemu=(-drive ...) adds devices to the outer machine, whose drivers lab_begin must name.
#
# Two outer machines with a cable between them, and a test program of ours in each:
#
#   lab_begin $lab_peer_modules && lab_add_peer          # what drafter-peer with Firecracker needs
#   lab_add here.sh /lab/here.sh ...
#   for n in 1 2; do lab_qemu=($(lab_cable $n)); lab_start $n 400 'bash /lab/here.sh'; done
#   for n in 1 2; do lab_wait $n; done; lab_tap 1 2      # their results, as ours
#
# QEMU's software emulation includes AMD's SVM, so a Debian kernel in it has KVM like a real host,
# whatever the CPU here. The outer machine has a tmpfs as root (a jail cannot be made on the initial
# one), busybox, /proc, /sys, /dev and control groups version 2. Nothing of it stays.
lab_qemu=()
lab_begin() { # [MODULE...]
    local deb m
    lab_dir=$PWD/lab.$BASHPID
    lab_root=$lab_dir/root
    mkdir -p "$lab_root"/{bin,dev,proc,sys,tmp,lab,lib/modules,etc,run}
    deb=$("$TEST_TOP/blueprint/kernel/fetch-package.sh" "$TEST_TOP/out/cache" linux-image-cloud-amd64) || return 1
    m=$(dpkg-deb -f "$deb" Depends | tr ',' '\n' | sed -n 's/^ *\(linux-image-[a-z0-9.+-]*\).*/\1/p' | head -n 1)
    deb=$("$TEST_TOP/blueprint/kernel/fetch-package.sh" "$TEST_TOP/out/cache" "$m") || return 1
    dpkg-deb -x "$deb" "$lab_dir/deb" || return 1
    lab_vmlinuz=$(echo "$lab_dir"/deb/boot/vmlinuz-*)
    for m in kvm-amd "$@"; do lab_module "$m" || return 1; done
    lab_add_program "$(command -v busybox)" /bin/busybox
    cat >"$lab_root/init" <<'INIT'
#!/bin/busybox sh
export PATH=/usr/bin:/bin
/bin/busybox --install -s /bin
if [ ! -e /lab/moved ]; then
    mkdir /n && mount -t tmpfs -o size=80% tmpfs /n
    for d in bin lab lib lib64 usr etc init; do [ -e /$d ] && cp -a /$d /n/; done
    mkdir -p /n/dev /n/proc /n/sys /n/tmp /n/run
    touch /n/lab/moved
    exec switch_root /n /init
fi
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
ln -s /proc/self/fd /dev/fd
mkdir -p /dev/shm && mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
while read -r m; do insmod /lib/modules/$m.ko; done </lib/modules/order
cd /lab
sh /lab/commands 2>&1 </dev/null
echo "lab: exit status $?"
sync
poweroff -f
INIT
    chmod 755 "$lab_root/init"
}

lab_add() { # FILE PATH
    mkdir -p "$lab_root$(dirname "$2")" && cp -L "$1" "$lab_root$2"
}

lab_add_program() { # FILE PATH
    local lib opened
    lab_add "$1" "$2" && chmod 755 "$lab_root$2" || return 1
    for lib in $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*'); do
        [ -e "$lab_root$lib" ] || lab_add "$lib" "$lib" || return 1
    done
    # Libraries that a program opens by itself, when it needs them (dlopen(3)).
    for opened in libcurl.so.4 libarchive.so.13; do
        grep -qaF "$opened" "$1" || continue
        lib=$(/sbin/ldconfig -p | awk -v so="$opened" '$1 == so {print $NF; exit}')
        [ -n "$lib" ] || { echo "lab: $1 opens $opened: not there" >&2; return 1; }
        [ "$lib" = "$1" ] || [ -e "$lab_root$lib" ] || lab_add_program "$lib" "$lib" || return 1
    done
}

# lab_module NAME: a module of the kernel, behind those it needs.
lab_module() {
    local file need
    ! grep -qsx "$1" "$lab_root/lib/modules/order" || return 0
    file=$(find "$lab_dir/deb" -name "$1.ko" -o -name "${1//_/-}.ko" | head -n 1)
    [ -n "$file" ] || { echo "lab: kernel module $1: not there" >&2; return 1; }
    for need in $(tr '\0' '\n' <"$file" | sed -n 's/^depends=//p' | tr ',' ' '); do lab_module "$need" || return 1; done
    ! grep -qsx "$(basename "$file" .ko)" "$lab_root/lib/modules/order" || return 0
    cp "$file" "$lab_root/lib/modules/" && basename "$file" .ko >>"$lab_root/lib/modules/order"
}

# lab_start NAME SECONDS COMMANDS: an outer machine in the background; its console in NAME.console. $lab_name is NAME in
# the commands.
lab_start() {
    printf '%s\n' "$3" >"$lab_root/lab/commands"
    (cd "$lab_root" && find . | LC_ALL=C sort | cpio -o -H newc --quiet) >"$lab_dir/initrd.$1" || return 1
    timeout "$2" qemu-system-x86_64 "${lab_qemu[@]}" -nodefaults -no-user-config -no-reboot -display none -sandbox on \
        -M q35 -accel tcg,thread=multi -cpu max -smp 2 -m "${LAB_MEMORY:-3072}" \
        -kernel "$lab_vmlinuz" -initrd "$lab_dir/initrd.$1" -chardev stdio,id=con,signal=off -serial chardev:con \
        -append "console=ttyS0 quiet panic=1 tsc=unstable clocksource=hpet mitigations=off lab_name=$1" \
        </dev/null >"$1.console" 2>&1 &
    eval "lab_pid_$1=$!"
    cleanup kill $!
}

# lab_wait NAME: until it has ended; the exit status of its commands.
lab_wait() {
    local status
    eval "wait \$lab_pid_$1" || echo "lab: the outer machine ended with $?" >>"$1.console"
    status=$(sed -n 's/^lab: exit status \([0-9]*\).*/\1/p' "$1.console" | tail -n 1)
    return "${status:-1}"
}

lab_stop() { eval "kill \$lab_pid_$1"; } # NAME

lab_run() { # SECONDS COMMANDS
    local status=0
    lab_start lab "$@" && lab_wait lab || status=$?
    tr -d '\r' <lab.console
    return $status
}

# lab_cable N: options that give outer machine N (1 or 2) one end of a cable. A machine that is not there yet, or not any
# more, is an end that nobody listens at.
lab_cable() {
    echo "-netdev dgram,id=cable,local.type=unix,local.path=$lab_dir/end$1,remote.type=unix,remote.path=$lab_dir/end$((3 - $1))" \
        "-device virtio-net-pci,netdev=cable,mac=52:54:00:00:00:0$1,romfile="
}

# lab_disk BLUEPRINT [FILE...]: options in $lab_disk that make a blueprint, and further files, a disk of the outer machine;
# what it writes there is thrown away.
lab_disk() {
    local f
    mkdir "$lab_dir/disk"
    for f in "$1"/{vmlinux,initrd.img,rootfs.ext4,oci.ext4,blueprint.json} "${@:2}"; do
        [ ! -e "$f" ] || cp --sparse=always "$f" "$lab_dir/disk/"
    done
    mke2fs -q -t ext4 -m 0 -d "$lab_dir/disk" "$lab_dir/disk.ext4" 2G >mke2fs.log 2>&1 || diag "$(cat mke2fs.log)"
    rm -r "$lab_dir/disk"
    lab_disk=(-drive "file=$lab_dir/disk.ext4,format=raw,if=none,id=disk,snapshot=on" -device virtio-blk-pci,drive=disk)
}

# Modules for drafter-peer with taps in namespaces of drafter-nat, a cable between hosts, and disks.
lab_peer_modules="virtio_pci virtio_blk virtio_net fuse tun veth dummy nf_tables nft_chain_nat nft_nat nft_masq nft_ct nft_fib_inet sch_netem"

# lab_add_peer: the programs a test of peers needs, and tests/lib in $TEST_TOP.
lab_add_peer() {
    local p
    lab_add_program "$FIRECRACKER_BIN" /bin/firecracker && lab_add_program "$JAILER_BIN" /bin/jailer || return 1
    for p in drafter-snapshotter drafter-packager drafter-peer drafter-nat drafter-forwarder; do
        lab_add_program "$TEST_TOP/runtime/$p" "/bin/$p" || return 1
    done
    for p in bash cp ip tc jq redis-benchmark; do
        ! p=$(command -v $p) || lab_add_program "$p" "/usr/bin/${p##*/}" || return 1
    done
    for p in functions peer machine guest redis; do lab_add "$TEST_TOP/tests/lib/$p.sh" "/lab/top/tests/lib/$p.sh" || return 1; done
    # bash complains without the locale of our tests
    mkdir -p "$lab_root/usr/lib/locale" && cp -r /usr/lib/locale/C.utf8 "$lab_root/usr/lib/locale/" || return 1
    lab_add "$TEST_TOP/tests/lab/inside/host.sh" /lab/host.sh
}

# lab_tap NAME...: results of tests that ran in outer machines, and the end of the console where there is a failure. The
# outer kernel itself may be what failed: now and then, some fifty starts of a guest in, QEMU 7.2's emulation of SVM hands
# it back from VMRUN with the guest's GS base, and it overflows its stack in the first exception (exc_page_fault).
lab_tap() {
    local n
    for n; do
        tr -d '\r' <"$n.console" | grep -aE '^(ok|not ok) [0-9]+|^  # '
        ! grep -aq '^not ok' "$n.console" || tap_failed=1
        ! grep -aq 'stack guard page was hit' "$n.console" ||
            diag "the outer machine's kernel died, which is QEMU's emulation of SVM, not what is tested: try again"
        grep -aq '^lab: exit status 0' "$n.console" || { diag "console of $n:"; diag "$(tail -n 60 "$n.console" | tr -d '\r')"; }
    done
}
