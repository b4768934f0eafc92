#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# ext4.sh - folders packed by oci-pack: e2fsck agrees, the kernel mounts them and sees the same
. "$TEST_TOP/tests/lib/functions.sh"
requires_command e2fsck
requires_command setfattr
export SOURCE_DATE_EPOCH=1700000000
plan 24

root() { [ "$(id -u)" = 0 ]; }
pack() { oci-pack --log-level warn --free 8M --output "$@"; }
sound() { e2fsck -fn "$1"; }
cleanup umount mnt
# listing DIR: everything that can be told of a tree, sorted
listing() (
    cd "$1" && find . -path ./lost+found -prune -o -printf '%P|%y|%m|%U|%G|%T@|%l|' \
        \( -type f -printf '%n %s' -o -true \) -print0 | LC_ALL=C sort -z | tr '\0' '\n' &&
        find . -path ./lost+found -prune -o -type f -size -2000000k -print0 | LC_ALL=C sort -z | xargs -0r sha256sum &&
        find . -path ./lost+found -prune -o -type f -size +1999999k -exec tail -c 1000000 {} \; | sha256sum &&
        find . -path ./lost+found -prune -o \( -type b -o -type c \) -exec stat -c '%n %t %T' {} + | LC_ALL=C sort &&
        find . -path ./lost+found -prune -o ! -type l -print0 | LC_ALL=C sort -z | xargs -0r getfattr -d -m - -e hex -h
)
# same DIR IMAGE: the kernel's view of the image is the folder
same() {
    mkdir -p mnt
    mount -o loop,ro "$2" mnt || return 1
    listing "$1" >want.txt 2>&1
    listing mnt >got.txt 2>&1
    umount mnt
    diff want.txt got.txt && [ -s want.txt ]
}
mounted_same() { # NAME DIR IMAGE
    if root; then ok "$1" same "$2" "$3"; else skip "$1" "needs root to mount"; fi
}

# --- a tree with one of everything
umask 022
head -c 4096 /dev/zero >block.zero
mkdir -p all/etc/deep/deeper all/dev all/holes all/xattr
echo hello >all/etc/hello
ln all/etc/hello all/dev/hard
ln -s hello all/etc/short
ln -s "$(printf 'y%.0s' $(seq 59))" all/etc/link59
ln -s "$(printf 'y%.0s' $(seq 60))" all/etc/link60
ln -s "$(printf 'a/%.0s' $(seq 2047))z" all/etc/link4095
mkfifo all/dev/fifo
printf 'x' >"all/etc/$(printf 'n%.0s' $(seq 255))"
printf 'x' >"all/etc/"$'\xff\xfe new\nline \xc3\xa4'
head -c 1000000 /dev/urandom >all/holes/dense
printf 'end' | dd of=all/holes/sparse bs=1 seek=5000000000 conv=notrunc status=none
head -c 300000 /dev/zero >all/holes/zeros
tooth=$(printf 'b%.0s' $(seq 4096)) # 800 blocks with a hole between any two
for i in $(seq 800); do printf '%s' "$tooth"; cat block.zero; done >comb.dense
cp --sparse=always comb.dense all/holes/comb
setfattr -n user.small -v v all/xattr
: >all/xattr/file
for i in 1 2 3; do setfattr -n user.m$i -v "$(printf "$i%.0s" $(seq 1000))" all/xattr/file; done
if root; then
    mknod all/dev/null c 1 3
    mknod all/dev/large b 4095 1048575
    mknod all/dev/middle c 10 300
    chown 70000:4000000000 all/etc/hello all/etc/deep
    chown -h 65534:65535 all/etc/short
    cp /bin/true all/etc/capable
    setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 all/etc/capable
    setfattr -n trusted.hidden -v secret all/etc/capable
    setfattr -n system.posix_acl_access -v 0x0200000001000600ffffffff020004000100000004000400ffffffff10000600ffffffff20000400ffffffff all/xattr/file
    setfattr -n system.posix_acl_default -v 0x0200000001000700ffffffff04000500ffffffff08000500e803000010000500ffffffff20000500ffffffff all/xattr
fi
chmod 4755 all/etc/hello
chmod 1777 all/etc/deep
touch -d '1960-03-04 05:06:07.123456789' all/etc/deep/old
touch -d '2200-01-01 00:00:00.999999999' all/etc/deep/late
touch -d '1950-01-01' all/dev
ok "packs one of everything" pack all.img all
ok "e2fsck agrees" sound all.img
mounted_same "the kernel sees the same" all all.img
is "the label is oci" "$(dumpe2fs -h all.img 2>/dev/null | sed -n 's/^Filesystem volume name: *//p')" oci

# --- same content, same bytes
reordered() { # made entry by entry from the last to the first, so that readdir differs
    mkdir reordered &&
        (cd all && find . -print0 | LC_ALL=C sort -rz |
            tar -c --null --no-recursion -T - --format=posix --xattrs --xattrs-include='*' --acls --sparse -f -) |
        tar -x -C reordered --xattrs --xattrs-include='*' --acls --same-owner --delay-directory-restore -p -f - || return 1
    listing all >want.txt 2>&1
    listing reordered >got.txt 2>&1
    diff want.txt got.txt
}
packs_alike() { pack again.img "$1" && cmp all.img again.img; }
again() { (umask 077 && TZ=Asia/Tokyo packs_alike all); }
ok "again, with another time zone and umask" again
filled() { # holes become zeros on disk
    cp -a all filled && cp -a --sparse=never all/holes/comb all/holes/zeros filled/holes/ &&
        touch -r all/holes filled/holes
    [ "$(stat -c %b filled/holes/comb)" -gt "$(stat -c %b all/holes/comb)" ] && packs_alike filled
}
ok "a copy whose holes are filled" filled
if root; then
    ok "copies the folder in another order" reordered
    ok "the copy gives the same bytes" packs_alike reordered
else
    skip "copies the folder in another order" "needs root to keep owners"
    skip "the copy gives the same bytes" "needs root to keep owners"
fi
other() {
    printf 'J' | dd of=filled/etc/hello bs=1 conv=notrunc status=none
    touch -r all/etc/hello filled/etc/hello
    pack again.img filled && ! cmp -s all.img again.img
}
ok "other content of the same size and time packs to other bytes" other
uuid() { dumpe2fs -h "$1" 2>/dev/null | sed -n 's/^Filesystem UUID: *//p'; }
ok "and has another UUID" test "$(uuid all.img)" != "$(uuid again.img)"

# --- sizes
mkdir empty
ok "packs an empty folder without free space" oci-pack --free 0 --output empty.img empty
ok "e2fsck agrees with it" sound empty.img
mounted_same "the kernel mounts it" empty empty.img
base=$(stat -c %s empty.img)
edges() { # sizes around the edges of groups, which differ in what they start with
    local g d free
    for g in 1 2 3 5 8; do
        for d in -2 -1 0 1 2 64 65 66 67; do
            free=$(((g * 32768 + d) * 4096 - base))
            oci-pack --log-level warn --free $free --output edge.img empty || return 1
            e2fsck -fn edge.img >edge.log 2>&1 || { echo "group $g block $d"; cat edge.log; return 1; }
            [ "$(dumpe2fs -h edge.img 2>/dev/null | awk '/^Free blocks:/{print $3}')" -ge $((free / 4096)) ] ||
                { echo "group $g block $d: too little free"; return 1; }
            if root && [ $d = 1 ]; then
                mkdir -p mnt && mount -o loop edge.img mnt && touch mnt/x && umount mnt || return 1
            fi
        done
    done
}
ok "sizes around edges of groups" edges

# --- attributes as large as the kernel takes them; a file system that has them here is tmpfs
if root && mkdir large && mount -t tmpfs -o size=8m none large && cleanup umount large && : >large/file &&
    setfattr -n user.large -v "$(head -c 65536 /dev/zero | tr '\0' x)" large/file 2>/dev/null; then
    mkdir large/folder && setfattr -n trusted.large -v "$(head -c 60000 /dev/zero | tr '\0' y)" large/folder
    ok "packs attributes of 64 KiB" pack large.img large
    ok "e2fsck agrees with them" sound large.img
    mounted_same "the kernel sees them" large large.img
else
    for t in "packs attributes of 64 KiB" "e2fsck agrees with them" "the kernel sees them"; do
        skip "$t" "needs root, and a tmpfs with extended attributes"
    done
fi

# --- scale
mkdir -p scale/flat scale/tree
(cd scale/flat && seq -f 'an-entry-of-a-large-folder-%06.0f' 100000 | xargs touch -d @1600000000)
(cd scale/tree && seq -f 'd%03.0f' 0 99 | xargs mkdir && for d in d*; do seq -f "$d/f%04.0f" 1000; done | xargs touch -d @1600000000)
ok "packs 200,000 files, 100,000 of them in one folder" pack scale.img scale
ok "e2fsck agrees with them" sound scale.img
found() { debugfs -R 'stat /flat/an-entry-of-a-large-folder-077777' scale.img 2>&1 | grep -q 'Type: regular'; }
ok "a name is found" found
if root; then
    grows() { # the kernel adds to the index and takes away from it
        mkdir -p mnt && mount -o loop scale.img mnt || return 1
        (cd mnt/flat && [ "$(ls | wc -l)" = 100000 ] &&
            seq -f 'an-entry-of-a-large-folder-%06.0f' 100000 | xargs stat -c %n | wc -l | grep -qx 100000 &&
            seq -f 'added-%.0f' 400 | xargs touch && seq -f 'an-entry-of-a-large-folder-%06.0f' 500 700 | xargs rm) ||
            { umount mnt; return 1; }
        umount mnt && e2fsck -fn scale.img
    }
    ok "the kernel finds, adds and removes names" grows
else
    skip "the kernel finds, adds and removes names" "needs root to mount"
fi

# --- refused
mkdir lost && : >lost/lost+found
fails "a file named lost+found" 1 'lost\+found: exists and is no folder' pack no.img lost
fails "a label that is too long" 1 'label' oci-pack --label 12345678901234567 --output no.img empty
full() { # a limit on file sizes stands for a full disk
    (ulimit -f 100; trap '' XFSZ; oci-pack --log-level warn --output no.img scale) 2>full.err
    [ $? = 1 ] && grep -q 'image' full.err && [ ! -e no.img ] && ! ls -A | grep -q '^\.no\.img'
}
ok "a full disk: an error and nothing left" full
