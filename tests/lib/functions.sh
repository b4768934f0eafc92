# SPDX-License-Identifier: Apache-2.0
# functions.sh - for shell tests: TAP, requirements, cleanup, waiting for events
#
#   . "$TEST_TOP/tests/lib/functions.sh"
#   plan 2
#   requires_root                     # or: requires_command skopeo, requires_file /dev/kvm
#   ok "packs an empty rootfs" pack_it      # passes when the command does
#   is "prints the size" "$got" "4096"
#   skip "boots in Firecracker" "no FIRECRACKER_BIN"
#
# A test runs in an empty folder of its own; $TEST_TOP is the project's folder. Commands given to
# cleanup run in reverse order however the test ends. Nothing here sleeps: wait_for watches a
# command's result with a deadline, wait_line a file that grows.
set -u
: "${TEST_TOP:?run this through make check, or set TEST_TOP to the project folder}"
PATH=$TEST_TOP/tools:$TEST_TOP/runtime:$PATH
export LC_ALL=C.UTF-8
tap_number=0
tap_failed=0
cleanup_commands=()

# own_mounts [UNSHARE-OPTION...] -- COMMAND [ARGUMENT...]: becomes the command, in namespaces of its own, that of mounts
# among them; what is mounted there is seen there alone. Below a chroot(2) "/" is no mount, without which unshare(1) and
# `ip netns exec` fail: it is made one.
own_mounts() {
    local options=()
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    # shellcheck disable=SC2016
    exec unshare --mount --propagation unchanged "${options[@]}" sh -c '
        mount --make-rprivate / 2>/dev/null && exec "$@"
        mount --rbind / /mnt && mount --make-rprivate /mnt &&
            exec chroot /mnt sh -c "cd \"\$0\" && exec \"\$@\"" "$PWD" "$@"' own_mounts "$@"
}

# flip_byte FILE OFFSET: changes that byte, whatever it was; writing a fixed one over random data changes nothing once in
# 256 runs.
flip_byte() {
    local byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1") && [ -n "$byte" ] || return 1
    # shellcheck disable=SC2059
    printf "\\x$(printf %x $((byte ^ 16)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

plan() { echo "1..$1"; tap_planned=$1; }
skip_all() { echo "1..0 # SKIP $1"; exit 0; }
diag() { printf '%s\n' "$*" | sed 's/^/  # /'; }

tap_result() { # STATUS NAME
    tap_number=$((tap_number + 1))
    if [ "$1" = 0 ]; then echo "ok $tap_number - $2"; else
        echo "not ok $tap_number - $2"
        tap_failed=1
    fi
}
ok() { # NAME COMMAND...
    local name=$1 rc=0
    shift
    "$@" >cmd.log 2>&1 || rc=$?
    tap_result $rc "$name"
    [ $rc = 0 ] || { diag "exit status $rc: $*"; diag "$(tail -n 20 cmd.log)"; }
    return 0
}
is() { # NAME GOT WANTED
    if [ "$2" = "$3" ]; then tap_result 0 "$1"; else
        tap_result 1 "$1"
        diag "got:    $2"
        diag "wanted: $3"
    fi
}
like() { # NAME TEXT REGEX
    if [[ $2 =~ $3 ]]; then tap_result 0 "$1"; else
        tap_result 1 "$1"
        diag "got:      $2"
        diag "no match: $3"
    fi
}
# fails NAME STATUS REGEX COMMAND...: the command must exit with STATUS and print REGEX to stderr.
fails() {
    local name=$1 want=$2 regex=$3 rc=0 text
    shift 3
    "$@" >fails.out 2>fails.err || rc=$?
    text=$(cat fails.err)
    if [ $rc = "$want" ] && [[ $text =~ $regex ]]; then tap_result 0 "$name"; else
        tap_result 1 "$name"
        diag "exit status $rc, $want wanted; stderr: $text"
        diag "wanted: $regex"
    fi
}
skip() { # NAME REASON
    tap_number=$((tap_number + 1))
    echo "ok $tap_number - $1 # SKIP $2"
}
requires_root() { [ "$(id -u)" = 0 ] || skip_all "needs root"; }
requires_command() { command -v "$1" >/dev/null || skip_all "needs $1"; }
requires_file() { [ -e "$1" ] || skip_all "needs $1"; }

cleanup() { cleanup_commands+=("$(printf '%q ' "$@")"); }
run_cleanups() {
    local i rc=$?
    trap - EXIT
    for ((i = ${#cleanup_commands[@]} - 1; i >= 0; i--)); do eval "${cleanup_commands[i]}" >/dev/null 2>&1; done
    [ $rc = 0 ] && rc=$tap_failed
    exit $rc
}
trap run_cleanups EXIT
trap 'exit 130' INT TERM

# wait_for SECONDS COMMAND...: until the command succeeds. The only place where a test may nap.
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        read -r -t 0.02 <> <(:) || :
    done
}
# wait_line SECONDS FILE REGEX: until a line of FILE matches.
wait_line() { wait_for "$1" grep -qE -- "$3" "$2"; }
