#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# oci-unpack.sh - images to bundles and to ext4: against umoci, without root, and when things go wrong
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/images.sh"
requires_root
requires_command umoci
requires_command jq
requires_command setpriv
plan 24

# Three layers with all that a builder makes: links, devices, times, attributes, whiteouts, changes of
# type.
make_rich() {
    local l long
    long=$(printf 'n%.0s' {1..200})
    mkdir -p a/etc a/dev a/sub/deep a/gone a/opaque/low "a/$long" b/opaque b/type c/sub
    (
        cd a || exit
        echo root:x:0:0:root:/root:/bin/sh >etc/passwd
        printf 'x%.0s' {1..9000} >sub/file && ln sub/file sub/deep/hard && ln -s ../etc sub/link
        ln -s /nowhere sub/dangling && ln -P sub/link sub/hardlink-to-symlink
        mknod dev/null c 1 3 && mknod dev/sda b 8 0 && mkfifo dev/pipe
        truncate -s 1M sub/sparse && echo end >>sub/sparse
        echo setuid >sub/suid && chown 1000:1000 sub/suid && chmod 4755 sub/suid
        cp /bin/true sub/cap && setcap cap_net_raw+ep sub/cap
        setfattr -n user.note -v hello sub/file
        mkdir sub/sticky sub/closed && chmod 1777 sub/sticky && chmod 0 sub/closed
        echo x >gone/x && echo low >opaque/low/f && echo kept >opaque/k && echo t >type
        echo long >"$long/$long" && printf odd >"$(printf 'a b\xc3\xa9\xff')"
        touch -d '1965-03-04 05:06:07.123456789Z' etc/passwd
        touch -d '2001-01-01 00:00:00.5Z' sub sub/deep
    )
    touch b/.wh.gone b/opaque/.wh..wh..opq c/sub/.wh.sticky
    echo new >b/opaque/new && echo in >b/type/in && echo again >c/sub/file
    new_image rich || return
    for l in a b c; do
        make_layer $l $l.tar && add_layer rich $l.tar || return
    done
}

ok "makes an image" make_rich
ok "umoci unpacks it" umoci unpack --image rich:latest theirs
ok "oci-unpack does too" oci-unpack --image rich:latest --output ours
dump theirs/rootfs >theirs.txt
dump ours/rootfs >ours.txt
ok "the trees are the same" diff theirs.txt ours.txt
ok "so is config.json, after oci-config" sh -c 'oci-config theirs &&
    jq -S . theirs/config.json >t.json && jq -S . ours/config.json >o.json && diff t.json o.json'
is "others cannot get in" "$(stat -c %a ours)" 700

ok "oci-build needs no folder" oci-build --image rich:latest --output built.ext4
ok "oci-pack packs ours" oci-pack --output packed.ext4 ours
ok "to the same bytes" cmp built.ext4 packed.ext4

# The same by somebody who may do nothing. The work folder may lie where others cannot go: /tmp.
other=$(mktemp -d)
cleanup rm -rf "$other"
cp -r rich "$other" && cp "$TEST_TOP"/tools/oci-{unpack,pack,build} "$other" &&
    chmod -R a+rX "$other" && chown 65534:65534 "$other"
nobody() { (cd "$other" && exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"); }
ok "unpacks without root" nobody ./oci-unpack --image rich:latest --output bundle
ok "packs that without root" nobody ./oci-pack --output packed.ext4 bundle
ok "to the same bytes again" cmp built.ext4 "$other/packed.ext4"
ok "builds without root" nobody ./oci-build --image rich:latest --output built.ext4
ok "to the same bytes once more" cmp built.ext4 "$other/built.ext4"

# Refusals leave nothing behind, and what stood there stays.
mkdir d && echo x >d/x && tar -C d -P -cf evil.tar --transform 's,^x$,.,' x
new_image evil && add_layer evil evil.tar
fails "refuses a root that is no folder" 1 'image evil:latest: layer 1 of 1 .*root would become' \
    oci-unpack --image evil:latest --output ours
is "and leaves the old bundle" "$(dump ours/rootfs | sha256sum)" "$(sha256sum <ours.txt)"
cp -r rich bad
blob=$(find bad/blobs -type f -printf '%s %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2)
flip_byte "$blob" 200
fails "finds a changed blob" 1 'layer [123] of 3 .*the blob is sha256:.* promised' \
    oci-build --image bad:latest --output none.ext4
fails "limits what it unpacks" 1 'max-bytes' \
    oci-unpack --max-bytes 20K --image rich:latest --output none

mkdir small && mount -t tmpfs -o size=60k none small && cleanup umount small
fails "says so when the disk is full" 1 'No space left' \
    oci-unpack --image rich:latest --output small/b

# All or nothing, wherever the signal finds it. The program is stopped as soon as its temporary is there,
# and goes on with the signal waiting for it; should it have been at its very end, once more.
mkdir large && for i in {1..60}; do head -c 1M /dev/urandom >large/$i; done
new_image many && tar -C large -cf many.tar . && add_layer many many.tar && oci-unpack --image many:latest --output m
interrupt() { # SIGNAL OUTPUT COMMAND...
    local signal=$1 output=$2 try rc pid
    shift 2
    for try in {1..10}; do
        rm -rf "$output"
        env --default-signal=INT "$@" >interrupt.log 2>&1 &
        pid=$!
        until compgen -G ".$output.tmp-*" >/dev/null || ! kill -0 $pid 2>/dev/null; do :; done
        kill -STOP $pid 2>/dev/null
        kill -"$signal" $pid 2>/dev/null
        kill -CONT $pid 2>/dev/null
        rc=0
        wait $pid || rc=$?
        [ $rc = 0 ] || break
        diag "try $try: was done already"
        [ -e "$output" ] || return 1
    done
    cat interrupt.log
    [ $rc = 1 ] && grep -q interrupted interrupt.log && [ ! -e "$output" ] && ! compgen -G ".$output.tmp-*"
}
ok "oci-unpack stops on SIGINT with nothing" interrupt INT stopped oci-unpack --image many:latest --output stopped
ok "and on SIGTERM" interrupt TERM stopped oci-unpack --image many:latest --output stopped
ok "oci-build stops on SIGINT with nothing" \
    interrupt INT stopped.ext4 oci-build --image many:latest --output stopped.ext4
ok "oci-pack stops on SIGINT with nothing" interrupt INT stopped.ext4 oci-pack --output stopped.ext4 m
is "nothing is left of what failed" \
    "$(find . -maxdepth 2 -name '.*.tmp-*' -newer evil.tar | wc -l) $(find small -mindepth 1 | wc -l)" "0 0"
