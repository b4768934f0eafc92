#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# oci-fetch.sh - copies an image from anywhere skopeo can read into an OCI layout
#
#   oci-fetch.sh --architecture ARCHITECTURE[/VARIANT] --output LAYOUT [--old LAYOUT] [SKOPEO FLAG...] SOURCE
#
# SOURCE is skopeo's: docker://HOST/NAME:TAG, oci-archive:FILE, docker-archive:FILE, dir:FOLDER,
# containers-storage:NAME, ... The image stands in LAYOUT as "latest". Blobs that --old, an earlier
# LAYOUT, holds are linked and not fetched again.
#
# Without a policy.json of the user or the system, images are taken unsigned, as every engine's default
# has it; with one, it is obeyed. A registry on this machine (localhost, 127.*, [::1]) may talk plain HTTP.
set -euo pipefail

fail() {
    echo "oci-fetch: $*" >&2
    exit 1
}
usage() {
    echo "oci-fetch: $*" >&2
    echo "usage: oci-fetch.sh --architecture ARCHITECTURE --output LAYOUT [--old LAYOUT] [SKOPEO FLAG...] SOURCE" >&2
    exit 2
}

architecture='' output='' old='' flags=() source=''
while [ $# -gt 0 ]; do
    case $1 in
    --architecture) architecture=${2:?} && shift ;;
    --output) output=${2:?} && shift ;;
    --old) old=${2:?} && shift ;;
    -*) flags+=("$1") ;;
    *)
        [ -z "$source" ] || usage "more than one source: $source and $1"
        source=$1
        ;;
    esac
    shift
done
[ -n "$architecture" ] || usage "--architecture is missing"
[ -n "$output" ] || usage "--output is missing"
[ -n "$source" ] || usage "no source is given"
case $source in
*:*) ;;
*) usage "\"$source\" names no transport: docker://$source is an image of a registry, oci:$source a folder" ;;
esac
command -v skopeo >/dev/null || fail "skopeo is not installed: run 'make depend'"
command -v jq >/dev/null || fail "jq is not installed: run 'make depend'"

global=(--override-os linux --override-arch "${architecture%%/*}")
case $architecture in */*) global+=(--override-variant "${architecture#*/}") ;; esac
[ -e /etc/containers/policy.json ] || [ -e "${XDG_CONFIG_HOME:-$HOME/.config}/containers/policy.json" ] ||
    global+=(--insecure-policy)
case $source in
docker://localhost[:/]* | docker://127.*[:/]* | 'docker://[::1]'*) flags+=(--src-tls-verify=false) ;;
esac

log=$(mktemp)
trap 'rm -f "$log"' EXIT
mkdir -p "$output/blobs/sha256"
if [ -n "$old" ] && [ -d "$old/blobs/sha256" ]; then
    cp -al "$old/blobs/sha256/." "$output/blobs/sha256/" 2>/dev/null || :
fi
# -q would hide the warnings too; the log is shown when it fails.
if ! skopeo "${global[@]}" copy "${flags[@]}" "$source" "oci:$output:latest" >"$log" 2>&1 </dev/null; then
    # skopeo ends with one long line: time="..." level=fatal msg="...".
    text=$(sed -n 's/.*level=fatal msg="\(.*\)"$/\1/p' "$log" | tail -n 1 | sed 's/\\"/"/g')
    fail "$source (linux/$architecture): ${text:-$(tail -n 3 "$log")}"
fi

# What was linked from the old layout and is no part of this image goes.
manifest=$(jq -r '.manifests[0].digest | ltrimstr("sha256:")' "$output/index.json")
wanted=$(mktemp)
trap 'rm -f "$log" "$wanted"' EXIT
{
    echo "$manifest"
    jq -r '.config, .layers[] | .digest | ltrimstr("sha256:")' "$output/blobs/sha256/$manifest"
} >"$wanted"
for blob in "$output"/blobs/sha256/*; do
    grep -qxF "${blob##*/}" "$wanted" || rm -f "$blob"
done
