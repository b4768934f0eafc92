#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# oci-config.sh - config.json is what umoci makes of the same image, plus the edits
. "$TEST_TOP/tests/lib/functions.sh"
requires_command umoci
requires_command jq
plan 9

mkdir -p root/etc
cat >root/etc/passwd <<'END'
root:x:0:0:root:/root:/bin/sh
redis:x:101:102:Redis:/data:/bin/false
END
cat >root/etc/group <<'END'
root:x:0:root
bin:x:1:root,bin
redis:x:102:
web:x:200:other,redis
END
tar -C root --owner=0 --group=0 -cf layer.tar .
umoci init --layout l

image() { # NAME UMOCI-CONFIG-OPTION...
    umoci new --image "l:$1"
    umoci raw add-layer --image "l:$1" layer.tar
    local name=$1
    shift
    umoci config --image "l:$name" "$@"
}
same_config() { # NAME [JQ FILTER for what both must agree in]
    local filter=${2:-.}
    rm -rf theirs
    mkdir theirs
    oci-unpack --image "l:$1" --architecture amd64 --hostname guest --output ours &&
        umoci raw runtime-config --image "l:$1" --rootfs ours/rootfs theirs/config.json &&
        oci-config --hostname guest theirs || return 1
    # umoci takes volumes and ports from a map without order.
    local order='.mounts |= sort_by(.destination) |
        .annotations["org.opencontainers.image.exposedPorts"] |= (split(",") | sort)'
    diff <(jq -S "$order | $filter" theirs/config.json) <(jq -S "$order | $filter" ours/config.json)
}

image plain
ok "an image that says nothing" same_config plain
image full --config.user redis --config.workingdir /data --config.entrypoint redis-server --config.cmd a \
    --config.cmd 'b c' --config.env A=1 --config.env PATH=/x --config.env B==2 --config.exposedports 80/tcp \
    --config.exposedports 443/udp --config.volume /data --config.volume /a --config.label k=v \
    --config.label "org.example=ä\"\\" --config.stopsignal SIGINT --author 'A. Author' --created 2020-02-03T04:05:06.500Z
ok "an image that says everything" same_config full
image group --config.user redis:web
ok "user and group by name" same_config group
image root --config.user root
ok "root with supplementary groups" same_config root
image unknown_id --config.user 4000:5000
ok "numbers that the image does not know" same_config unknown_id
image numeric --config.user 101
ok "a number with an account, but for its supplementary groups" same_config numeric 'del(.process.user.additionalGids)'
is "a number gets no supplementary groups" "$(jq -c .process.user ours/config.json)" '{"uid":101,"gid":102}'
image nobody --config.user nobody
fails "a user that the image does not know" 1 'no user "nobody" in /etc/passwd of the image' \
    oci-unpack --image l:nobody --architecture amd64 --output none
ok "and nothing is left of it" test ! -e none
