# SPDX-License-Identifier: Apache-2.0
# counting.sh - for shell tests: a client that counts up in a machine's redis by one connection, while the machine moves
#
#   bash count.sh ADDRESS KEY >FILE    (this file writes count.sh) counts until there is a file "enough"; prints which connection
#                                      that is, each answer, and the connection again
#   counts_on FILE LINES               whether it has come so far
#   unbroken FILE                      whether it was one connection, and no answer is missing or doubled

cat >count.sh <<'E2'
exec 7<>"/dev/tcp/$1/6379" || exit 1
ask() { printf '%s\r\n' "$1" >&7 && IFS= read -r -t 120 answer <&7 && printf '%s\n' "${answer%$'\r'}"; }
ask 'CLIENT ID'
until [ -e enough ]; do ask "INCR $2" || exit 1; done
ask 'CLIENT ID'
E2
counts_on() { [ "$(wc -l <"$1")" -ge "$2" ]; }
unbroken() { # FILE: connection, 1, 2, 3, ..., the same connection
    awk 'NR == 1 {c = $0; next} $0 == ":" (NR - 1) {last = NR; next} {end = $0; at = NR} END {exit !(end == c && at == NR && last == NR - 1)}' "$1"
}
