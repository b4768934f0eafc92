#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# build-source.sh - a kernel from Debian's source package
#
#   build-source.sh config FOLDER CACHE_DIR PACKAGE FRAGMENT...     FOLDER/src, FOLDER/config
#   build-source.sh build FOLDER CACHE_DIR                          FOLDER/vmlinux, FOLDER/made.txt
#
# PACKAGE (linux-source, or one it depends on) is fetched and verified by fetch-package.sh. The configuration is
# allnoconfig and the fragments, and it is refused when one of their lines does not hold in it. `config` unpacks only
# what a configuration is made from, `build` the rest; that takes a quarter of an hour on two processors. The same
# source, configuration and compiler give the same bytes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
act=$1 folder=$2
shift 2
fail() { echo "build-source: $*" >&2; exit 1; }
for c in flex bison bc xz gcc make; do
    command -v $c >/dev/null || fail "$c is missing: run 'make depend/kernel'"
done
[ -e /usr/include/libelf.h ] || fail "libelf.h is missing: run 'make depend/kernel'"
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
# Nothing of this project's make, nor of the caller's environment, goes into a kernel.
kernel_make() {
    env -i PATH="$PATH" HOME="$folder" LC_ALL=C KBUILD_BUILD_TIMESTAMP="@${SOURCE_DATE_EPOCH:-1700000000}" \
        KBUILD_BUILD_USER=drafter KBUILD_BUILD_HOST=drafter make -C "$folder/src" O="$folder/build" -s "$@" </dev/null
}

# unpack CACHE_DIR PACKAGE PART [TAR ARGUMENT...]: so much of the package's tarball into FOLDER/src, unless it is there.
unpack() {
    local deb tarball package=$2 part=$3 now
    deb=$("$here/fetch-package.sh" "$1" "$package")
    if [[ $(dpkg-deb -f "$deb" Depends) =~ ^(linux-source-[0-9.]+) ]]; then
        package=${BASH_REMATCH[1]}
        deb=$("$here/fetch-package.sh" "$1" "$package")
    fi
    shift 3
    made="Debian package $package $(dpkg-deb -f "$deb" Version)"
    now=$(cat "$folder/src.txt" 2>/dev/null || :)
    case $now in "$made, whole" | "$made, $part") return ;; esac
    [[ $now == "$made, "* ]] || rm -rf "$folder"/{src,build}
    rm -rf "$folder"/{src.txt,deb}
    mkdir -p "$folder"/{src,deb}
    dpkg-deb -x "$deb" "$folder/deb"
    tarball=$(echo "$folder"/deb/usr/src/linux-source-*.tar.xz)
    [ -e "$tarball" ] || fail "package $package holds no source of a kernel"
    xz -dc -T0 "$tarball" | tar -C "$folder/src" --strip-components=1 "$@" -xf -
    rm -rf "$folder/deb"
    echo "$package" >"$folder/package.txt"
    echo "$made, $part" >"$folder/src.txt"
}

config() {
    local cache=$1 package=$2 line
    shift 2
    unpack "$cache" "$package" kconfig --wildcards '*/Kconfig*' '*/scripts/*' '*/arch/x86/Makefile*' \
        --no-wildcards-match-slash '*/Makefile' '*/Kbuild'
    rm -f "$folder/config"
    mkdir -p "$folder/build"
    cat "$@" >"$folder/fragment"
    kernel_make KCONFIG_ALLCONFIG="$folder/fragment" allnoconfig >"$folder/config.log" 2>&1 ||
        { tail -n 15 "$folder/config.log" >&2; fail "the kernel could not be configured"; }
    # What stands last counts, as in a configuration.
    awk '/^CONFIG_[A-Z0-9_]+=/ { n = $0; sub(/=.*/, "", n); v[n] = $0 }
        /^# CONFIG_[A-Z0-9_]+ is not set$/ { v[$2] = $0 }
        END { for (n in v) print v[n] }' "$folder/fragment" | sort >"$folder/wanted"
    while read -r line; do
        case $line in
        \#*) ! grep -q "^${line:2:${#line}-13}=" "$folder/build/.config" || echo "$line" ;;
        *) grep -qxF -- "$line" "$folder/build/.config" || echo "$line" ;;
        esac
    done <"$folder/wanted" >"$folder/missing"
    [ ! -s "$folder/missing" ] ||
        fail "$made does not take these options (unknown there, or what they depend on is off): $(paste -s -d' ' "$folder/missing")"
    cp "$folder/build/.config" "$folder/config.tmp"
    mv "$folder/config.tmp" "$folder/config"
}

build() {
    [ -s "$folder/config" ] || fail "$folder holds no configuration"
    unpack "$1" "$(cat "$folder/package.txt")" whole
    cmp -s "$folder/config" "$folder/build/.config" || cp "$folder/config" "$folder/build/.config"
    kernel_make -j "${KERNEL_JOBS:-$(nproc)}" vmlinux >"$folder/build.log" 2>&1 ||
        { grep -E -A3 'error:|Error ' "$folder/build.log" | tail -n 15 >&2; fail "the kernel did not build: $folder/build.log"; }
    objcopy --strip-debug "$folder/build/vmlinux" "$folder/vmlinux.tmp"
    echo "$made, configuration $(sha256sum <"$folder/config" | head -c 16)" >"$folder/made.txt"
    mv "$folder/vmlinux.tmp" "$folder/vmlinux"
}

case $act in
config | build) "$act" "$@" ;;
*) fail "$act: no such act" ;;
esac
