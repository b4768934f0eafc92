#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# plot-migration.sh - a trace gives the same picture for ever; what is no trace is refused by its line
. "$TEST_TOP/tests/lib/functions.sh"
requires_command plot-migration
plan 11

cat >trace <<'T'
drafter-trace 1
10 begin source
20 device disk 1048576
20 device memory 4194304
30 stage copy
40 implied disk 0 1048576
100 end rolled-back
1000 begin source
1010 device disk 1048576
1010 device memory 4194304
1020 stage greet
1030 stage copy
1040 implied disk 0 524288
1050 sent disk 524288 524288
1100 sent memory 0 65536
1200 sent memory 2097152 1048576
1300 stage settle
1400 dirtied memory 0 4096
1500 sent memory 0 4096
1800 stage suspend
1900 wanted memory 1048576 65536
1950 sent memory 1048576 65536
2000 stage commit
2100 stage drain
2900 later words are skipped
3000 end moved
T
plot-migration trace >got.svg
ok "it is the picture that was looked at" diff "$TEST_TOP/tests/golden/plot-migration.svg" got.svg
ok "into a file too" plot-migration --output file.svg trace
ok "the same" cmp got.svg file.svg
like "the first migration by number" "$(plot-migration --number 1 trace)" 'source, 0.1 ms, rolled-back'
fails "there is no third" 1 'no migration of that number' plot-migration --number 3 trace
bad() { # NAME LINE REGEX
    { head -n 9 trace; echo "$2"; } >bad
    fails "$1" 1 "$3" plot-migration bad
}
bad "an unknown device" '1020 sent disc 0 4096' 'bad: line 10:.*device'
bad "an offset beyond its end" '1020 sent disk 1048576 4096' 'line 10: offset'
bad "a size beyond all" '1020 device more 99999999999999999999' 'line 10: size'
bad "a name that is markup" '1020 device <svg 4096' 'line 10: .*name'
bad "a line that is none" 'hello' 'line 10: is not a line'
echo hello >bad
fails "a file that is none" 1 'is no trace' plot-migration bad
