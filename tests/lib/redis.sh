# SPDX-License-Identifier: Apache-2.0
# redis.sh - for shell tests: a database that is filled, written to and summed up; at 127.0.0.1:6379
#
#   redis_clients               ask.sh and write.sh, in the test's folder: programs, so that they run on another host too
#   bash ask.sh COMMAND [SECONDS]   the first line of the answer
#   bash write.sh               one key after the other until nobody answers; ./acknowledged holds the number of the last
#   redis_fill KEYS             the command that sets keys of 16 KiB, random: nothing that compresses or repeats
#   redis_sum KEYS              a checksum over their values
#   redis_wrote NUMBER          "all", when everything up to that acknowledged write is there
redis_clients() {
    cat >ask.sh <<'E2'
exec 7<>/dev/tcp/127.0.0.1/6379 || exit 1
printf '%s\r\n' "$1" >&7
read -r -t "${2:-20}" answer <&7 || exit 1
answer=${answer%$'\r'}
case $answer in \$*) read -r -t 20 answer <&7; answer=${answer%$'\r'} ;; esac
printf '%s\n' "$answer"
E2
    cat >write.sh <<'E2'
exec 7<>/dev/tcp/127.0.0.1/6379 || exit 1
n=0
while printf 'SET written:%d value-%d\r\n' $((n + 1)) $((n + 1)) >&7 && read -r -t 30 answer <&7; do
    [ "${answer%$'\r'}" = +OK ] || break
    n=$((n + 1))
    echo $n >acknowledged
done 2>/dev/null
E2
}
redis_fill() {
    printf '%s' "EVAL \"math.randomseed(7) local t={} for i=1,512 do t[i]=string.char(math.random(0,255)) end" \
        " local r=table.concat(t) for i=1,$1 do redis.call('SET','key:'..i,string.rep(redis.sha1hex(i)..r,30)) end" \
        " return redis.call('DBSIZE')\" 0"
}
redis_sum() {
    echo "EVAL \"local d='' for i=1,$1 do d=redis.sha1hex(d..redis.call('GET','key:'..i)) end return d\" 0"
}
redis_wrote() {
    echo "EVAL \"for i=1,$1 do if redis.call('GET','written:'..i)~='value-'..i then return i end end return 'all'\" 0"
}
