#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# stage.sh - one step of a pipeline: write a temporary, check it, rename it; nothing when nothing changed
#
#   stage.sh WHAT OUTPUT HINT [KEY...] -- COMMAND...
#
# Runs COMMAND, in which an argument "{}" stands for the temporary beside OUTPUT that it shall make (a
# file or a folder); without a "{}" the command makes OUTPUT whole by itself. KEYs are what OUTPUT is made
# from: texts, and "@FILE" for a file's content. When OUTPUT is there and was made from the same keys by the
# same command, nothing is done; without any KEY the step always runs. Two makes that want the same OUTPUT
# take turns. A failure leaves the old OUTPUT and prints HINT.
#
# Beside OUTPUT stands .NAME.stage, which holds the hash of the keys; the other way to make OUTPUT (a
# different command) writes another hash there, so each knows that the other one was last.
set -euo pipefail

what=$1 output=$2 hint=$3
shift 3
keys=()
while [ "$1" != -- ]; do
    keys+=("$1")
    shift
done
shift

say() { [ "${V:-0}" = 1 ] || printf '  %-7s %s\n' "$what" "$output"; }
hash_keys() {
    local k
    for k in "${keys[@]}" "$@"; do
        case $k in
        @*) sha256sum <"${k#@}" || printf 'absent\n' ;;
        *) printf '%s\0' "$k" ;;
        esac
    done 2>/dev/null | sha256sum | cut -d ' ' -f 1
}

folder=$(dirname "$output") name=$(basename "$output")
stamp=$folder/.$name.stage
mkdir -p "$folder"
exec 9>>"$stamp"
flock 9
key=$(hash_keys "$@")
if [ ${#keys[@]} -gt 0 ] && [ -e "$output" ] && [ "$(cat "$stamp")" = "$key" ]; then
    exit 0
fi

temporary=$folder/.$name.tmp-stage
clean() { [ ! -e "$temporary" ] || { chmod -R u+rwx "$temporary" 2>/dev/null || :; rm -rf "$temporary"; }; }
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
clean
: >"$stamp" # a stage that is cut short is to be done again

command=() made=
for a; do
    if [ "$a" = '{}' ]; then
        a=$temporary made=1
    fi
    command+=("$a")
done
say
[ "${V:-0}" != 1 ] || printf '%s\n' "${command[*]}"
status=0
# The lock is not the command's to hold: a daemon it leaves behind would keep it.
"${command[@]}" 9>&- || status=$?
if [ $status = 0 ] && [ -n "$made" ] && [ ! -e "$temporary" ]; then
    echo "stage: ${command[0]} reported success and made nothing" >&2
    status=1
fi
if [ $status != 0 ]; then
    [ -z "$hint" ] || echo "make: $what $output failed: $hint" >&2
    exit $status
fi
if [ -n "$made" ]; then
    if [ -d "$temporary" ] && [ -d "$output" ]; then
        old=$folder/.$name.old-stage
        rm -rf "$old"
        mv -T "$output" "$old"
        mv -T "$temporary" "$output"
        chmod -R u+rwx "$old" 2>/dev/null || :
        rm -rf "$old"
    else
        mv -T "$temporary" "$output"
    fi
fi
printf '%s\n' "$key" >"$stamp"
