#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# oci-layout.sh - layouts from strangers: refused by name and cause, and nothing is written
. "$TEST_TOP/tests/lib/functions.sh"
requires_command umoci
requires_command jq
plan 35

mkdir root
echo hello >root/file
tar -C root -cf layer.tar .
umoci init --layout good
umoci new --image good:latest
umoci raw add-layer --image good:latest layer.tar
digest() { jq -r '.manifests[0].digest | ltrimstr("sha256:")' "$1/index.json"; }
ok "the good one" oci-unpack --image good --architecture amd64 --output bundle
rm -rf bundle

refused() { # NAME REGEX: folder "bad" is tried by both programs
    fails "$1" 1 "^oci-unpack: image bad.*$2" oci-unpack --image bad --architecture amd64 --output bundle
    fails "$1 (oci-build)" 1 "^oci-build: image bad.*$2" oci-build --image bad --architecture amd64 --output disk.ext4
    [ ! -e bundle ] && [ ! -e disk.ext4 ] && [ "$(ls -A | grep -c 'tmp-')" = 0 ] || {
        tap_failed=1
        diag "$1: something is left: $(ls -A)"
    }
}
fresh() { rm -rf bad; cp -r good bad; }
edit() { jq -c "$2" "bad/$1" >edited && cat edited >"bad/$1"; }
# Replaces the manifest by a changed one under its right digest.
edit_manifest() {
    local old sum
    old=bad/blobs/sha256/$(digest bad)
    jq -c "$1" "$old" >edited
    sum=$(sha256sum <edited | cut -d ' ' -f 1)
    cp edited "bad/blobs/sha256/$sum"
    edit index.json ".manifests[0].digest = \"sha256:$sum\" | .manifests[0].size = $(stat -c %s edited)"
}

fresh; rm bad/oci-layout
refused "no oci-layout" 'not an OCI image layout'
fresh; edit oci-layout '.imageLayoutVersion = "9.0.0"'
refused "another version" 'version "9.0.0"'
fresh; edit index.json '.manifests[0].digest = "sha256:../../../../../../../../../../../../../../../../../../../../etc/x"'
refused "a digest that is a path" 'not a sha256 digest'
fresh; edit index.json '.manifests[0].digest = "md5:d41d8cd98f00b204e9800998ecf8427e"'
refused "another hash" 'algorithm "md5"'
fresh; edit index.json '.manifests[0].size = -1'
refused "a negative size" 'size: -1 is out of range'
fresh; edit index.json '.manifests[0].size = 4611686018427387904'
refused "a huge size" 'more than the limit'
fresh; echo >>"bad/blobs/sha256/$(digest bad)"
refused "a byte too many" 'the descriptor says'
fresh; edit "blobs/sha256/$(digest bad)" '.schemaVersion = 3'
refused "a damaged manifest" 'its content is damaged'
fresh; f=bad/blobs/sha256/$(digest bad); cp "$f" stolen; ln -sf "$PWD/stolen" "$f"
refused "a blob that is a symlink" 'is a symlink'
fresh; f=bad/blobs/sha256/$(digest bad); rm "$f"; mkfifo "$f"
refused "a blob that is a FIFO" 'not a regular file'
fresh; mv bad/blobs elsewhere; ln -s ../elsewhere bad/blobs
refused "a folder that is a symlink" 'reached through one'
rm -rf elsewhere
fresh; edit_manifest '.manifests = []'
refused "manifest and index in one (CVE-2021-41190)" 'could mean two images'
fresh; edit_manifest '.mediaType = "application/vnd.oci.image.index.v1+json"'
refused "a manifest that calls itself an index" 'calls itself'
fresh; edit_manifest '.layers += .layers'
refused "more layers than diff_ids" "1 diff_ids for the manifest's 2 layers"
fresh; edit_manifest '.layers[0].mediaType = "application/octet-stream"'
refused "a layer of another type" 'layer 0: media type "application/octet-stream"'
fresh; edit_manifest '.layers[0].size = -5'
refused "a layer of negative size" 'layer 0: size: -5 is out of range'
fresh; edit index.json '.manifests = []'
refused "an empty index" 'holds no image'
