#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# test.sh - libdrafter as it is installed: its symbols, and a machine resumed by a program of another's
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/peer.sh"
requires_command qemu-system-x86_64
requires_command pkg-config
requires_file /dev/fuse
[ "$(uname -m)" = x86_64 ] || skip_all "emulates x86_64 only"
plan 16

example=$TEST_TOP/examples/embed
install() { make -C "$TEST_TOP" --no-print-directory MAKEFLAGS= DESTDIR="$PWD/root" PREFIX=/opt/drafter install; }
ok "it is installed" install
lib=$PWD/root/opt/drafter/lib
export PKG_CONFIG_PATH=$lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$PWD/root
ok "a program is built with the shared library" cc -Wall -Werror -o shared "$example/embed.c" $(pkg-config --cflags --libs drafter)
static_libs=$(pkg-config --static --libs-only-l drafter | sed "s/-ldrafter//")
ok "and with the static one" cc -Wall -Werror -o static "$example/embed.c" -I"$PWD/root/opt/drafter/include" "$lib/libdrafter.a" $static_libs
cat >plus.cc <<'END'
#include <drafter.h>
int main() { return drafter_version()[0] == 0; }
END
ok "the header is C++ too" c++ -Wall -Werror -o plus plus.cc $(pkg-config --cflags --libs drafter)

# What the header declares, the library exports, and nothing else.
tr '\n' ' ' <"$TEST_TOP/runtime/drafter.h" | grep -oE 'DRAFTER_PUBLIC [^;]*' | grep -oE 'drafter_[a-z_]+\(' | tr -d '(' | sort -u >declared
nm -D --defined-only "$lib/libdrafter.so.0" | awk '$2 != "A" {sub("@.*", "", $3); print $3}' | sort -u >exported
nm --defined-only --extern-only "$lib/libdrafter.a" | awk 'NF == 3 {print $3}' | sort -u >static.exported
ok "the header declares functions" test -s declared
ok "exactly these are exported" diff declared exported
ok "by the static library too" diff declared static.exported
is "with no writable state of its own" "$(objdump -t "$lib/libdrafter.so.0" | grep -E ' \.(data|bss)[[:space:]]' | awk '{print $NF}' |
    grep -vE '^(\.data|\.bss|completed.*|__dso_handle|__TMC_END__|_edata|__bss_start|_end)$' | sort | tr '\n' ' ')" ""

# A package of a list of devices, as a program of its own makes one.
cat >snap.c <<'END'
#include <drafter.h>
#include <stdio.h>
int main(int argc, char **argv)
{
    struct drafter_error err = {0};
    struct drafter_snapshot_options o = DRAFTER_SNAPSHOT_OPTIONS_INIT;
    struct drafter *d = argc == 3 ? drafter_new(NULL, &err) : NULL;
    o.devices = argv[1], o.boot_args = argv[2], o.until = "^tick", o.memory_mib = 64;
    o.no_liveness = o.no_agent = 1;
    o.vm.hypervisor = "qemu", o.vm.accel = "tcg", o.vm.net = "none", o.vm.folder = "vms";
    int rc = d ? drafter_snapshot(d, &o, &err) : -1;
    if (rc < 0)
        fprintf(stderr, "snap: %s\n", err.text);
    drafter_free(d);
    return rc < 0;
}
END
export LD_LIBRARY_PATH=$lib
ok "a program that makes packages is built" cc -Wall -Werror -o snap snap.c $(pkg-config --cflags --libs drafter)
ok "a package is made" ./snap "$(testguest_devices package)" "pages=2048 seed=7 rate=8 beat=3"
for how in shared static; do
    ./$how package "overlay-$how" >"$how.out" 2>"$how.log" </dev/null &
    pid=$!
    cleanup kill -9 $pid
    ok "$how: a machine resumes" wait_line 60 "$how.log" '^it runs'
    kill -TERM $pid
    wait $pid
    is "$how: it is suspended" "$? $(tail -n 1 "$how.log")" "0 it stands, and is kept"
done
fails "what it cannot do it says" 1 'embed: .*nowhere' ./shared nowhere overlay
ok "nothing is left behind" test -z "$(find out/vms -mindepth 2 -print -quit 2>/dev/null)"
