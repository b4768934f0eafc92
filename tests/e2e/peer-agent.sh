#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# peer-agent.sh - what a guest's agent is told: of a suspension, and that there was none after all; and a machine that is told
# to end before its agent has answered
#
# The agent is a script of the test's, which calls where the guest's would: at the socket in the machine's folder.
. "$TEST_TOP/tests/lib/functions.sh"
. "$TEST_TOP/tests/lib/machine.sh"
. "$TEST_TOP/tests/lib/peer.sh"
requires_command qemu-system-x86_64
requires_command jq
requires_command socat
requires_file /dev/fuse
[ "$(uname -m)" = x86_64 ] || skip_all "emulates x86_64 only"
plan 34

# What agent NAME was asked stands in NAME.asked. NAME.BeforeSuspend and NAME.AfterResume say how it answers, the next time
# only: "mute", or the text of an error; when they are not there, well.
cat >agent.sh <<'END'
while read -r line; do
    function=$(jq -r .request.function <<<"$line") call=$(jq -r .request.call <<<"$line")
    [ -n "$call" ] && [ "$call" != null ] || continue
    error=$(cat "$1.$function" 2>/dev/null)
    rm -f "$1.$function"
    echo "$function" >>"$1.asked"
    [ "$error" = mute ] || jq -cn --arg c "$call" --arg e "$error" '{request: null, response: {call: $c, value: null, err: $e}}'
done
END
known=' '
find_socket() {
    for socket in $(find vms -name vsock.sock_26); do [[ $known == *" $socket "* ]] || return 0; done
    return 1
}
# agent NAME: the machine that started last gets one.
agent() {
    : >"$1.asked"
    wait_for 60 find_socket || return 1
    known+="$socket "
    socat "UNIX-CONNECT:$socket" EXEC:"bash agent.sh $1" 2>/dev/null &
    cleanup kill -9 $!
}
asked() { paste -sd' ' "$1.asked"; }
was_asked() { wait_for 60 eval "[ \"\$(asked $1)\" = '$2' ]"; } # NAME CALLS
standing() { grep -q '"standing"' "$1/memory.bin.overlay.machine"; }
runs_on() { wait_for 60 eval "[ \$(grep -c 'Migration failed, the machine runs on here' $1.log) = $2 ]"; } # NAME TIMES

testguest_package package --agent-vsock-port 26 --resume-timeout 1m 2>snapshotter.log &
snapshotter=$!
agent s
ok "a package is made" wait $snapshotter
is "its agent was told" "$(asked s)" BeforeSuspend

# -- it runs on --
peer_start a --laddr unix:a.sock --downtime-limit 1us
agent a
ok "a machine is resumed" peer_up a
wait_line 60 a.log Listening
is "its agent was told" "$(asked a)" AfterResume
echo "no, I will not" >a.BeforeSuspend
fails "an agent that cannot prepare the guest ends a migration" 1 '' drafter-terminator --raddr unix:a.sock --output none
ok "the machine runs on" runs_on a 1
like "and why is said" "$(grep 'runs on here' a.log)" 'no, I will not'
ok "its agent is told that it runs on" was_asked a 'AfterResume BeforeSuspend AfterResume'
ok "it does" guest_verify a
fails "nor does one go that would stand still for too long" 1 '' drafter-terminator --raddr unix:a.sock --output none
ok "it runs on, too" runs_on a 2
ok "its agent is told that, too" was_asked a 'AfterResume BeforeSuspend AfterResume BeforeSuspend AfterResume'
ok "it does run on" guest_verify a
# Told to end while the agent prepares the guest: that is over first.
: >a.asked
echo mute >a.BeforeSuspend
drafter-terminator --raddr unix:a.sock --output none 2>taker.log &
taker=$!
was_asked a BeforeSuspend
kill -TERM "$(peer_pid a)"
peer_wait a
is "told to end while its agent prepares the guest, it does" "$peer_status" 0
is "and the agent was told of either" "$(asked a)" 'BeforeSuspend AfterResume BeforeSuspend'
wait $taker
is "who wanted the machine does not have it" "$? $(ls none 2>/dev/null)" "1 "
ok "it stands where it was" standing a

# -- told to end before the agent has answered --
echo mute >b.AfterResume
peer_start b
agent b
ok "a machine waits for its agent" was_asked b AfterResume
kill -TERM "$(peer_pid b)"
peer_wait b
is "told to end, it ends as ever" "$peer_status" 0
is "its agent was told" "$(asked b)" 'AfterResume BeforeSuspend'
ok "it stands" standing b
peer_start b --laddr unix:b.sock
agent b
ok "and goes on" peer_up b
ok "whole" guest_verify b
wait_line 60 b.log Listening
echo mute >c.AfterResume
peer_start c --raddr unix:b.sock
agent c
ok "so does one that was taken in" was_asked c AfterResume
kill -TERM "$(peer_pid c)"
peer_wait c
is "and told to end before its agent has answered" "$peer_status" 0
is "its agent was told as well" "$(asked c)" 'AfterResume BeforeSuspend'
peer_wait b
is "its source has ended" "$peer_status" 0
ok "it stands there" standing c
peer_start c
agent c
ok "and goes on there" peer_up c
ok "as whole" guest_verify c
peer_stop c

# -- one that was booted runs on as well --
truncate -s 1M root.raw
blueprint-make --output blueprint --device "kernel=$TEST_TOP/tests/guest/testguest" --device disk=root.raw --boot-args "pages=512 seed=3 rate=4 beat=3"
peer_from='--blueprint blueprint' peer_start d --laddr unix:d.sock --downtime-limit 1us --net none --memory-size 64
agent d && socat -u OPEN:/dev/null "UNIX-CONNECT:${socket%26}25" # its sign of life
wait_line 60 d.log Listening
fails "a machine that was booted does not go, either" 1 '' drafter-terminator --raddr unix:d.sock --output none
ok "it runs on here" runs_on d 1
ok "and does" guest_verify d
ok "and is suspended" peer_stop d
