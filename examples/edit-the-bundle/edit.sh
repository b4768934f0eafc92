#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# edit.sh - changes a bundle's command, environment, mounts and files
#
#   edit.sh BUNDLE
set -euo pipefail
config=${1:?}/config.json

jq '.process.args = ["sh", "-c", "echo greeting: $GREETING; exec \"$0\" \"$@\""] + .process.args + ["--maxmemory", "16mb"]
    | .process.env += ["GREETING=hello"]
    | .mounts += [{destination: "/scratch", type: "tmpfs", source: "tmpfs", options: ["size=8m", "mode=1777"]}]' \
    "$config" >"$config.new"
mv "$config.new" "$config"
mkdir -p "$1/rootfs/scratch"
echo 'a file of its own' >"$1/rootfs/etc/edited"
