#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# install-packages.sh - installs the Debian packages named as arguments, only those that are missing.
# Uses sudo when not root. Asks apt for its lists only when something is missing.
set -euo pipefail

missing=()
for p; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null || :)" = installed ] && continue
    # A virtual name (pkg-config) counts as installed when something installed provides it.
    dpkg-query -W -f '${db:Status-Status} ${Provides},\n' 2>/dev/null |
        grep -qE "^installed .*\b$p( |,|\()" && continue
    missing+=("$p")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || {
        echo "install-packages: need root or sudo to install: ${missing[*]}" >&2
        exit 1
    }
    as_root=(sudo)
fi
echo "  DEPEND  ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { "${as_root[@]}" apt-get update -qq &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
        --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}"; } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    echo "install-packages: apt could not install: ${missing[*]}" >&2
    exit 1
fi
