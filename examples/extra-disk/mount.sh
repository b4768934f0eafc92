#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# mount.sh - gives a bundle's application the machine's third disk at /data
#
#   mount.sh BUNDLE
set -euo pipefail
config=${1:?}/config.json

# The mount is made inside the container's control group, which must let it open the device.
jq '.mounts += [{destination: "/data", type: "ext4", source: "/dev/vdc", options: ["noatime"]}]
    | .linux.resources.devices += [{allow: true, type: "b", access: "rw"}]' "$config" >"$config.new"
mv "$config.new" "$config"
