#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# commit.sh - spin explores every state of the commit (commit.pml), and finds each planted mistake
. "$TEST_TOP/tests/lib/functions.sh"
requires_command spin
plan 4

check() { # DEFINES...: explores the model; prints spin's verdict line
    rm -f pan pan.* ./*.trail
    spin -a "$@" "$TEST_TOP/tests/model/commit.pml" >/dev/null &&
        cc -O2 -DSAFETY -DMEMLIM=2048 -o pan pan.c &&
        ./pan -m100000 >pan.out && grep -q 'errors: 0' pan.out &&
        ! grep -q 'max search depth too small' pan.out
}
finds() { ! check "$@" && grep -qE 'assertion violated|invalid end state' pan.out; }

ok "every state of the commit keeps the rule" check
ok "a source that resumes by itself after its commit is found" finds -DBROKEN_RESUME
ok "a commit before the target is ready is found" finds -DBROKEN_EARLY
ok "a source that lets go before it heard RUNNING is found" finds -DBROKEN_FORGET
