#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# install-packages.sh - installs the Debian packages named as arguments, only those that are missing.
# Uses sudo when not root. Asks apt for its lists only when something is missing. Ctrl-C ends it while it fetches; what
# is being installed then is installed to its end, as a package that is half there breaks the next installation.
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
install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0)
# In a session of its own dpkg does not hear of Ctrl-C.
if ! { "${as_root[@]}" apt-get update -qq && "${as_root[@]}" "${install[@]}" --download-only "${missing[@]}" &&
    "${as_root[@]}" setsid -w "${install[@]}" "${missing[@]}"; } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    echo "install-packages: apt could not install: ${missing[*]}" >&2
    exit 1
fi
