#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# oci-unpack-umoci.sh - a bundle by `umoci unpack`, edited for a virtual machine
#
#   oci-unpack-umoci.sh --image LAYOUT[:REF] --architecture ARCHITECTURE --hostname NAME --output BUNDLE
#
# For comparison with oci-unpack and for those who trust umoci more. umoci takes an image by its name only:
# it cannot choose from an index of several platforms. Without root it maps all owners to the caller's.
set -euo pipefail

here=$(dirname "$0")
fail() {
    echo "oci-unpack-umoci: $*" >&2
    exit 1
}
image='' architecture='' hostname='' output=''
while [ $# -gt 1 ]; do
    case $1 in
    --image) image=$2 ;;
    --architecture) architecture=$2 ;;
    --hostname) hostname=$2 ;;
    --output) output=$2 ;;
    *) break ;;
    esac
    shift 2
done
[ $# = 0 ] && [ -n "$image" ] && [ -n "$architecture" ] && [ -n "$hostname" ] && [ -n "$output" ] || {
    echo "usage: oci-unpack-umoci.sh --image LAYOUT[:REF] --architecture A --hostname NAME --output BUNDLE" >&2
    exit 2
}
command -v umoci >/dev/null || fail "umoci is not installed: run 'make depend'"
case $image in
*:*) ;;
*) # umoci would take "latest"; the layout's only name is what is meant
    name=$(jq -r '.manifests[].annotations["org.opencontainers.image.ref.name"] // empty' "$image/index.json")
    [ "$(printf '%s' "$name" | grep -c .)" = 1 ] || fail "$image: which image? Its names are: ${name//$'\n'/, }"
    image=$image:$name
    ;;
esac
rootless=()
[ "$(id -u)" = 0 ] || rootless=(--rootless)
umoci --log=error unpack "${rootless[@]}" --image "$image" "$output" || fail "$image: umoci unpack failed"
got=$(jq -r '.annotations["org.opencontainers.image.architecture"]' "$output/config.json")
[ "$got" = "${architecture%%/*}" ] || fail "$image: is for linux/$got, linux/$architecture was wanted"
"$here/oci-config" --hostname "$hostname" "$output"
