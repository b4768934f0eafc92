#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# install.sh - makes greet.pl what a bundle runs
#
#   install.sh BUNDLE
set -euo pipefail
config=${1:?}/config.json

install -D -m 755 "$(dirname "$0")/greet.pl" "$1/rootfs/usr/local/bin/greet.pl"
jq '.process.args = ["perl", "/usr/local/bin/greet.pl"]' "$config" >"$config.new"
mv "$config.new" "$config"
