#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# oci-umoci.sh - images of several kinds: our tree is umoci's tree, and oci-build's file system oci-pack's
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/images.sh"
requires_root
requires_command umoci
requires_command setcap
plan 26

# compare NAME: four tests.
compare() {
    ok "$1: umoci unpacks it" umoci unpack --image "$1:latest" "$1.theirs"
    ok "$1: oci-unpack does" oci-unpack --image "$1:latest" --output "$1.ours"
    dump "$1.theirs/rootfs" >theirs.txt
    dump "$1.ours/rootfs" >ours.txt
    ok "$1: to the same tree" diff theirs.txt ours.txt
    built() {
        oci-build --image "$1:latest" --free 1M --output built.ext4 && oci-pack --free 1M --output packed.ext4 "$1.ours" &&
            cmp built.ext4 packed.ext4
    }
    ok "$1: oci-build and oci-pack agree" built "$1"
}

# One program, hundreds of names.
mkdir -p busybox/bin busybox/sbin busybox/etc
cp /bin/busybox busybox/bin/busybox
for i in $(busybox --list); do ln busybox/bin/busybox "busybox/bin/$i" 2>/dev/null; done
ln -s ../bin/busybox busybox/sbin/init
new_image busybox.image && make_layer busybox busybox.tar && add_layer busybox.image busybox.tar
compare busybox.image

# Random changes, layer by layer, on few names: whiteouts, opaque folders, changes of type, links to what
# lower layers have.
RANDOM=${SEED:-4711}
new_image layers
what=(file file file folder folder link fifo device)
for n in {1..24}; do
    mkdir -p "l$n"
    for ((i = 0; i < 12; i++)); do
        path=l$n
        for ((depth = RANDOM % 3; depth >= 0; depth--)); do
            path=$path/$((RANDOM % 4))
            if [ $depth = 0 ]; then break; fi
            [ -d "$path" ] || [ ! -e "$path" ] && [ ! -L "$path" ] || break
            mkdir -p "$path"
        done
        [ ! -e "$path" ] && [ ! -L "$path" ] || continue
        case ${what[RANDOM % 8]} in
        file) echo "$n $i" >"$path" ;;
        folder) mkdir "$path" && chmod $((RANDOM % 8))$((RANDOM % 8))5 "$path" ;;
        link) ln -s "$((RANDOM % 4))/../$((RANDOM % 4))" "$path" ;;
        fifo) mkfifo "$path" ;;
        device) mknod "$path" c $((RANDOM % 9)) $((RANDOM % 9)) ;;
        esac
    done
    for ((i = 0; i < 3; i++)); do
        folder=$(find "l$n" -type d | sort | sed -n $((RANDOM % 4 + 1))p)
        name=$((RANDOM % 4))
        [ -z "$folder" ] || [ -e "$folder/$name" ] || [ -L "$folder/$name" ] || : >"$folder/.wh.$name"
    done
    folder=$(find "l$n" -mindepth 1 -type d | sort | sed -n $((RANDOM % 5 + 1))p)
    [ -z "$folder" ] || : >"$folder/.wh..wh..opq"
    # A second name for something of a layer below: a tar of both, without the first.
    if [ $n = 1 ]; then echo kept >l1/target; else ln l1/target "l$n/target" && ln "l$n/target" "l$n/target$n"; fi
    find "l$n" -exec touch -h -d "@$((1500000000 + n)).5" {} +
    make_layer "l$n" "l$n.tar" --sort=name
    [ $n = 1 ] || tar --delete -f "l$n.tar" ./target
    add_layer layers "l$n.tar"
done
compare layers

# Attributes of all kinds.
acl=0x0200000001000600ffffffff02000400e803000004000400ffffffff10000400ffffffff20000400ffffffff
mkdir -p attributes/folder/sub
(
    cd attributes/folder || exit
    for i in cap user trusted acl all; do echo $i >$i; done
    setcap cap_net_raw,cap_sys_admin+ep cap
    setfattr -n user.note -v note user && setfattr -n user.long -v "$(printf 'x%.0s' {1..3000})" user
    setfattr -n trusted.t -v 0x000102ff trusted && ln -s user link && setfattr -h -n trusted.l -v l link
    mkfifo fifo && setfattr -n trusted.f -v f fifo
    setfattr -n system.posix_acl_access -v $acl acl && setfattr -n system.posix_acl_access -v $acl sub
    setfattr -n system.posix_acl_default -v $acl sub
    setfattr -n security.own -v own all && setfattr -n user.all -v all all && setcap cap_chown+i all
    chown 65534:7 all && setcap cap_chown+i all && setfattr -n user.dir -v d . && chmod 2775 .
)
new_image attributes.image && make_layer attributes attributes.tar && add_layer attributes.image attributes.tar
compare attributes.image

# Long and odd names, deep folders.
long=$(printf 'n%.0s' {1..255})
deep=$(printf 'd/%.0s' {1..500})
mkdir -p "names/$deep" "names/$long"
(
    cd names || exit
    echo deep >"${deep}file" && echo long >"$long/$long" && ln -s "$(printf 't%.0s' {1..4000})" target
    for i in 'a b' $'new\nline' $'\x01\x7f' '\' '"' "'" '*' '-x' '.x' '..x' ' ' $'\xc3\xa9' $'\xff\xfe' .whx .w; do
        echo odd >"$i"
    done
    ln "$long/$long" "$long/hard" && touch -d '1901-12-14 00:00:00.999999999Z' .w
)
new_image names.image && make_layer names names.tar && add_layer names.image names.tar
compare names.image

# Sparse files in each format.
mkdir -p sparse
new_image sparse.image
truncate -s 64M sparse/empty && truncate -s 5M sparse/ends && echo end >>sparse/ends
for i in {0..99}; do printf $i | dd of=sparse/many bs=1 seek=$((i * 50000)) conv=notrunc status=none; done
make_layer sparse sparse.tar --sparse-version=1.0 && add_layer sparse.image sparse.tar
for v in 0.0 0.1; do
    mkdir "s$v" && cp -r --sparse=always sparse "s$v/$v" && make_layer "s$v" "s$v.tar" --sparse-version=$v &&
        add_layer sparse.image "s$v.tar"
done
compare sparse.image

# What umoci 0.4.7 refuses or gets wrong is compared with what went in: GNU's old sparse format, times
# after 2262, attributes with an empty value.
mkdir -p other
cp -a sparse other && touch -d '2400-01-01 00:00:00.5Z' other/late && setfattr -n user.empty other/late
touch -d '2020-01-01Z' other/sparse other/sparse/* other
new_image other.image && tar --format=gnu --sparse -C other -cf gnu.tar . && add_layer other.image gnu.tar
make_layer other late.tar --exclude=sparse && add_layer other.image late.tar
ok "other.image: oci-unpack does" oci-unpack --image other.image:latest --output other.ours
dump other >theirs.txt
dump other.ours/rootfs >ours.txt
ok "other.image: to what went in" diff theirs.txt ours.txt

# Nothing, and a layer of nothing.
mkdir none && new_image none.image && make_layer none none.tar && add_layer none.image none.tar
compare none.image
