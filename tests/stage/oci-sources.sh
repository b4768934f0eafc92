#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# oci-sources.sh - `make build/oci` from every kind of source gives the same file system
. "$TEST_TOP/tests/lib/functions.sh"
for c in umoci skopeo jq docker-registry; do requires_command $c; done
plan 19

mkdir -p root/etc root/bin
echo 'redis:x:101:102::/data:/bin/false' >root/etc/passwd
head -c 100000 /dev/urandom >root/bin/redis
tar -C root --sort=name --mtime=@1700000000 --owner=0 --group=0 -cf layer.tar .
umoci init --layout l
for a in amd64 arm64; do
    umoci new --image l:$a
    umoci raw add-layer --image l:$a layer.tar
    umoci config --image l:$a --architecture $a --config.user redis --config.cmd $a --created 2023-11-14T00:00:00Z
done

# The programs stand there already; the other output folder must not make them anew.
run_make() { # GOAL VARIABLE=VALUE...
    env -u MAKEFLAGS -u MAKELEVEL make --no-print-directory -C "$TEST_TOP" OUTPUT_DIR="$PWD/out" \
        -o tools/oci-unpack -o tools/oci-pack -o tools/oci-build -o tools/oci-config OCI_FREE=1M "$@"
}
disk=out/blueprint/oci.ext4
build() { # URI
    rm -f $disk
    run_make build/oci OCI_IMAGE_URI="$1"
}
same_disk() { build "$1" && cmp $disk wanted.ext4; }

ok "a layout on this machine" build "oci:$PWD/l:amd64"
ok "is read where it lies" test ! -e out/oci-image
cp $disk wanted.ext4
unchanged=$(stat -c %y $disk)
ok "again without a change" run_make build/oci OCI_IMAGE_URI="oci:$PWD/l:amd64"
is "leaves the file alone" "$(stat -c %y $disk)" "$unchanged"
ok "a changed host name does not" run_make build/oci OCI_IMAGE_URI="oci:$PWD/l:amd64" OCI_IMAGE_HOSTNAME=other
ok "and shows" test "$(cmp -s $disk wanted.ext4; echo $?)" = 1

# Either unpacker makes the same bundle. Without root umoci's config is one for a container without root: its mounts and
# namespaces differ.
same='.'
[ "$(id -u)" = 0 ] || same='del(.mounts, .linux)'
bundle=out/oci-runtime-bundle
for u in drafter umoci; do
    ok "unpacks with $u" run_make unpack/oci OCI_UNPACKER=$u OCI_IMAGE_URI="oci:$PWD/l:amd64"
    jq -S "$same" $bundle/config.json >$u.json
    (cd $bundle/rootfs && find . -printf '%p %y %s %T@\n' | sort && find . -type f -print0 | sort -z | xargs -0 sha256sum) >$u.tree
done
ok "both to the same bundle" sh -c 'diff drafter.json umoci.json && diff drafter.tree umoci.tree'

for kind in oci-archive docker-archive dir; do
    target=$kind:$PWD/image.$kind
    [ $kind != docker-archive ] || target=$target:redis:latest
    skopeo --insecure-policy copy -q oci:l:amd64 "$target"
    ok "$kind" same_disk "$kind:$PWD/image.$kind"
done

cat >registry.yml <<END
version: 0.1
log: {level: info}
storage: {filesystem: {rootdirectory: $PWD/registry}}
http: {addr: "127.0.0.1:0"}
END
docker-registry serve registry.yml >registry.log 2>&1 &
cleanup kill $!
wait_line 60 registry.log 'listening on 127'
port=$(grep -oE 'listening on 127\.0\.0\.1:[0-9]+' registry.log | head -n 1 | grep -oE '[0-9]+$')
skopeo --insecure-policy copy -q --dest-tls-verify=false oci:l:amd64 "docker://localhost:$port/redis:latest"
ok "a registry on this machine" same_disk "docker://localhost:$port/redis:latest"
status=0
text=$(build "docker://localhost:$port/none:latest" 2>&1) || status=$?
like "an image that it does not have" "$status $text" "^2 .*oci-fetch: docker://localhost:$port/none:latest \(linux/amd64\): .*manifest unknown"

# An index within an index, as builders for several platforms write them.
put() { # TYPE FILE PLATFORM: writes a blob, prints its descriptor
    local sum
    sum=$(sha256sum <"$2" | cut -d ' ' -f 1)
    cp "$2" "l/blobs/sha256/$sum"
    jq -cn --arg t "application/vnd.oci.image.$1.v1+json" --arg d "sha256:$sum" --argjson s "$(stat -c %s "$2")" \
        --argjson p "$3" '{mediaType: $t, digest: $d, size: $s} + $p'
}
for a in amd64 arm64; do
    jq -c --arg a $a --arg n org.opencontainers.image.ref.name '.manifests[] | select(.annotations[$n] == $a) |
        del(.annotations) + {platform: {os: "linux", architecture: $a}}' l/index.json
done | jq -cs '{schemaVersion: 2, manifests: .}' >inner.json
put index inner.json '{}' | jq -cs '{schemaVersion: 2, manifests: .}' >outer.json
put index outer.json '{"annotations":{"org.opencontainers.image.ref.name":"multi"}}' |
    jq -s '{schemaVersion: 2, manifests: .}' >l/index.json
ok "nested indexes" same_disk "oci:$PWD/l:multi"
run_make unpack/oci OCI_IMAGE_URI="oci:$PWD/l:multi" OCI_IMAGE_ARCHITECTURE=arm64 >/dev/null 2>&1
is "the other platform" "$(jq -c .process.args out/oci-runtime-bundle/config.json)" '["arm64"]'
status=0
text=$(run_make build/oci OCI_IMAGE_URI="oci:$PWD/l:multi" OCI_IMAGE_ARCHITECTURE=s390x 2>&1) || status=$?
like "a platform that is not there" "$text" 'no image for linux/s390x; there is linux/amd64, linux/arm64'
ok "leaves what was there" cmp $disk wanted.ext4

text=$(run_make build/oci OCI_IMAGE_URI=redis:latest 2>&1) || :
like "a source that skopeo does not know" "$text" 'oci-fetch: redis:latest'
