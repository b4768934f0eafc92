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
# QEMU's software emulation includes AMD's SVM, so a Debian kernel in it has KVM like a real host,
# whatever the CPU here. The outer machine has a tmpfs as root (a jail cannot be made on the initial
# one), busybox, /proc, /sys, /dev and control groups version 2. Nothing of it stays.
lab_qemu=()
lab_begin() { # [MODULE...]
    local deb dir m
    lab_dir=$PWD/lab.$BASHPID
    lab_root=$lab_dir/root
    mkdir -p "$lab_root"/{bin,dev,proc,sys,tmp,lab,lib/modules,etc,run}
    deb=$("$TEST_TOP/blueprint/kernel/fetch-package.sh" "$TEST_TOP/out/cache" linux-image-cloud-amd64) || return 1
    m=$(dpkg-deb -f "$deb" Depends | tr ',' '\n' | sed -n 's/^ *\(linux-image-[a-z0-9.+-]*\).*/\1/p' | head -n 1)
    deb=$("$TEST_TOP/blueprint/kernel/fetch-package.sh" "$TEST_TOP/out/cache" "$m") || return 1
    dpkg-deb -x "$deb" "$lab_dir/deb" || return 1
    lab_vmlinuz=$(echo "$lab_dir"/deb/boot/vmlinuz-*)
    for m in irqbypass kvm kvm-amd "$@"; do
        dir=$(find "$lab_dir/deb" -name "$m.ko" | head -n 1)
        [ -n "$dir" ] || { echo "lab: kernel module $m: not there" >&2; return 1; }
        cp "$dir" "$lab_root/lib/modules/" && echo "$m" >>"$lab_root/lib/modules/order"
    done
    lab_add_program "$(command -v busybox)" /bin/busybox
    cat >"$lab_root/init" <<'INIT'
#!/bin/busybox sh
export PATH=/bin
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
    for opened in libcurl.so.4; do
        grep -qaF "$opened" "$1" || continue
        lib=$(/sbin/ldconfig -p | awk -v so="$opened" '$1 == so {print $NF; exit}')
        [ -n "$lib" ] || { echo "lab: $1 opens $opened: not there" >&2; return 1; }
        [ "$lib" = "$1" ] || [ -e "$lab_root$lib" ] || lab_add_program "$lib" "$lib" || return 1
    done
}

lab_run() { # SECONDS COMMANDS
    local status
    printf '%s\n' "$2" >"$lab_root/lab/commands"
    (cd "$lab_root" && find . | LC_ALL=C sort | cpio -o -H newc --quiet) >"$lab_dir/initrd" || return 1
    timeout "$1" qemu-system-x86_64 "${lab_qemu[@]}" -nodefaults -no-user-config -no-reboot -display none -sandbox on \
        -M q35 -accel tcg,thread=multi -cpu max -smp 2 -m "${LAB_MEMORY:-3072}" \
        -kernel "$lab_vmlinuz" -initrd "$lab_dir/initrd" -chardev stdio,id=con,signal=off -serial chardev:con \
        -append 'console=ttyS0 quiet panic=1 tsc=unstable clocksource=hpet mitigations=off' \
        </dev/null >"$lab_dir/console" 2>&1 || echo "lab: the outer machine ended with $?" >>"$lab_dir/console"
    tr -d '\r' <"$lab_dir/console"
    status=$(sed -n 's/^lab: exit status \([0-9]*\).*/\1/p' "$lab_dir/console" | tail -n 1)
    return "${status:-1}"
}
