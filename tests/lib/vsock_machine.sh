# SPDX-License-Identifier: Apache-2.0
# vsock_machine.sh - a Debian kernel under QEMU with our vsock device, and a shell on its console
#
#   vsock_prepare            kernel, initrd and the stream program, in ./kernel; skips the test without them
#   vsock_boot NAME [ARG...] starts vsockhost and QEMU in folder NAME, its console in NAME/console
#   vsock_guest NAME COMMAND a command for the guest; its output and "exit-N" follow in NAME/console
#   vsock_qmp NAME JSON      a QMP command; answers go to NAME/qmp.log
#
# The console's input is a FIFO; file descriptor 7 keeps it open.

vsock_modules="drivers/virtio/virtio_ring drivers/virtio/virtio drivers/virtio/virtio_pci_legacy_dev
    drivers/virtio/virtio_pci_modern_dev drivers/virtio/virtio_pci net/vmw_vsock/vsock
    net/vmw_vsock/vmw_vsock_virtio_transport_common net/vmw_vsock/vmw_vsock_virtio_transport
    drivers/char/virtio_console"

vsock_prepare() {
    local cache=$TEST_TOP/out/cache package deb m modules
    requires_command qemu-system-x86_64
    requires_command busybox
    requires_command cpio
    requires_file /dev/fuse
    mkdir -p kernel root/bin root/dev root/proc root/sys root/m
    deb=$("$TEST_TOP/blueprint/kernel/fetch-package.sh" "$cache" linux-image-cloud-amd64) || skip_all "cannot fetch a kernel"
    package=$(dpkg-deb -f "$deb" Depends | tr ',' '\n' | sed -n 's/^ *\(linux-image-[a-z0-9.+-]*\).*/\1/p' | head -n 1)
    deb=$("$TEST_TOP/blueprint/kernel/fetch-package.sh" "$cache" "$package") || skip_all "cannot fetch a kernel"
    dpkg-deb -x "$deb" kernel
    modules=$(echo kernel/lib/modules/*/kernel)
    "${CC:-gcc}" -D_GNU_SOURCE -O2 -static -o root/bin/vsock_stream "$TEST_TOP/tests/guest/vsock_stream.c" ||
        skip_all "cannot link a static program"
    cp root/bin/vsock_stream vsock_stream
    cp "$(command -v busybox)" root/bin/busybox
    {
        echo '#!/bin/busybox sh'
        echo 'export PATH=/bin; /bin/busybox --install -s /bin'
        echo 'mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; stty -echo'
        for m in $vsock_modules; do
            cp "$modules/$m.ko" root/m/ || return 1
            echo "insmod /m/${m##*/}.ko"
        done
        echo 'ulimit -n 4000; vsock_stream serve vsock:2:99 & echo guest-up'
        echo 'while read -r line; do eval "$line"; echo "exit-$?"; done'
    } >root/init
    chmod 755 root/init
    (cd root && find . | cpio -o -H newc --quiet) >kernel/initrd
}

vsock_boot() {
    local name=$1 shm
    shift
    mkdir -p "$name/mnt"
    # On tmpfs: a disk's writeback holds up a guest for seconds, and its connects have but two.
    if [ ! -e "$name/memory" ]; then
        shm=$(mktemp -d /dev/shm/dt.XXXXXX)
        cleanup rm -rf "$shm"
        : >"$shm/memory"
        ln -s "$shm/memory" "$name/memory"
    fi
    rm -f "$name"/in "$name"/qmp.in "$name"/qmp.out
    mkfifo "$name/in" "$name/qmp.in" "$name/qmp.out"
    exec 7<>"$name/in" 8<>"$name/qmp.in"
    cat "$name/qmp.out" >>"$name/qmp.log" 8>&- 7>&- &
    vsockhost --mount "$name/mnt" --path "$name/vsock.sock" --log-level debug -- \
        qemu-system-x86_64 -nodefaults -no-user-config -machine q35,memory-backend=mem -accel tcg,thread=multi \
        -cpu max -smp 2 -m 256 -object "memory-backend-file,id=mem,size=256M,mem-path=$name/memory,share=on" \
        -kernel "$(echo kernel/boot/vmlinuz-*)" -initrd kernel/initrd -append "console=ttyS0 quiet panic=-1 tsc=unstable" \
        -display none -no-reboot -serial stdio -qmp "pipe:$name/qmp" \
        -device "vhost-vsock-pci,id=vsock0,guest-cid=3,vhostfd={fd}" "$@" \
        <"$name/in" >>"$name/console" 2>"$name/log" 7>&- 8>&- &
    vsock_pid=$!
    cleanup kill "$vsock_pid"
    vsock_qmp "$name" '{"execute":"qmp_capabilities"}'
    vsock_qmp "$name" '{"execute":"migrate-set-capabilities","arguments":{"capabilities":[
        {"capability":"x-ignore-shared","state":true},{"capability":"events","state":true}]}}'
}

vsock_guest() { echo "$2" >&7; }
vsock_qmp() { echo "$2" >&8; }

# vsock_run SECONDS NAME COMMAND: a command in the guest; its exit status must be 0.
vsock_run() {
    local before
    before=$(grep -c '^exit-' "$2/console")
    vsock_guest "$2" "$3"
    wait_for "$1" vsock_done "$2" "$before" || return 1
    [ "$(tr -d '\r' <"$2/console" | grep '^exit-' | tail -n 1)" = exit-0 ]
}
vsock_done() { [ "$(grep -c '^exit-' "$1/console")" -gt "$2" ]; }
