# SPDX-License-Identifier: Apache-2.0
# man.awk - a program's own table (--dump-command) and its NAME.1.in to a manual page
#
#   PROGRAM --dump-command | awk -v page=NAME.1.in -v version=V -v date=YYYY-MM-DD -f man.awk
#
# NAME and SYNOPSIS come from the table, as do OPTIONS at the line "@OPTIONS@" and EXIT STATUS, which goes
# in front of what usually follows it. The rest is the page's own roff.

# Text for roff: backslashes, hyphens that are meant as such, and lines that would be requests.
function roff(s) {
    gsub(/\\/, "\\e", s)
    gsub(/-/, "\\-", s)
    if (s ~ /^[.']/)
        s = "\\\\&" s
    return s
}
function options(   i, n) {
    if (last != ".SH OPTIONS")
        print ".SH OPTIONS"
    print "An option's value follows after a blank or after \\(oq=\\(cq; \\fB\\-x\\fR and \\fB\\-\\-x\\fR are the same."
    for (i = 1; i <= n_options; i++) {
        print ".TP"
        printf "%s\\fB\\-\\-%s\\fR%s\n", letter[i] != "-" ? "\\fB\\-" letter[i] "\\fR, " : "", roff(name[i]), \
            arg[i] != "-" ? " \\fI" roff(arg[i]) "\\fR" : ""
        print roff(help[i]) (help[i] ~ /\.$/ ? "" : ".")
        if (required[i] == "required")
            print "Required."
        if (def[i] != "-")
            print "Default: " roff(def[i]) "."
    }
    printed = 1
}
function exit_status() {
    print ".SH EXIT STATUS"
    print "0: done. 1: failed; one line on standard error says what, and why. 2: wrong usage."
    exited = 1
}
BEGIN { FS = "\t" }
$1 == "name" { program = $2 }
$1 == "summary" { summary = $2 }
$1 == "operands" { operands = $2 }
$1 == "option" {
    n_options++
    name[n_options] = $2; letter[n_options] = $3; arg[n_options] = $5; def[n_options] = $6
    required[n_options] = $7; help[n_options] = $8
}
END {
    if (!program || !n_options) {
        print "man.awk: no table came from the program" > "/dev/stderr"
        exit 1
    }
    printf ".TH %s 1 %s \"Drafter %s\" \"Drafter Manual\"\n", roff(toupper(program)), date, version
    sub(/\.$/, "", summary)
    printf ".SH NAME\n%s \\- %s\n", roff(program), roff(summary)
    printf ".SH SYNOPSIS\n.B %s\n[\\fIOPTION\\fR...]%s\n", roff(program), operands != "-" ? " " roff(operands) : ""
    while ((got = (getline line < page)) > 0) {
        if (line == "@OPTIONS@") {
            options()
        } else {
            if (line == ".SH EXIT STATUS")
                exited = 1
            if (printed && !exited && line ~ /^\.SH "?(FILES|ENVIRONMENT|EXAMPLES|NOTES|BUGS|SEE ALSO)/)
                exit_status()
            # Comments of the source are none of the reader's business.
            if (line !~ /^\.\\"/)
                print line
        }
        if (line !~ /^[ \t]*$/)
            last = line
    }
    if (got < 0) {
        print page ": cannot read" > "/dev/stderr"
        exit 1
    }
    if (!printed)
        options()
    if (!exited)
        exit_status()
}
