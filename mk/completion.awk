# SPDX-License-Identifier: Apache-2.0
# completion.awk - the programs' tables (--dump-command, one after another) to a bash completion
BEGIN {
    FS = "\t"
    print "# bash completion for Drafter's programs; made from their option tables"
    print "_drafter() {"
    print "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} words="
    print "    [ \"$prev\" != = ] || prev=${COMP_WORDS[COMP_CWORD - 2]}"
    print "    [ \"$cur\" != = ] || cur="
    print "    case ${COMP_WORDS[0]##*/}:$prev in"
}
$1 == "name" { program = $2; programs = programs " " $2; list[program] = "" }
$1 == "option" {
    list[program] = list[program] " --" $2
    if ($4 == "choice") {
        gsub(/\|/, " ", $5)
        printf "    %s:--%s | %s:-%s) words=\"%s\" ;;\n", program, $2, program, $2, $5
    } else if ($4 != "flag") {
        valued[program] = valued[program] (valued[program] ? " | " : "") program ":--" $2
    }
}
END {
    n = split(programs, p, " ")
    for (i = 1; i <= n; i++)
        if (valued[p[i]])
            printf "    %s) ;;\n", valued[p[i]]
    print "    *)"
    print "        [[ $cur == -* ]] && case ${COMP_WORDS[0]##*/} in"
    for (i = 1; i <= n; i++)
        printf "        %s) words=\"%s\" ;;\n", p[i], substr(list[p[i]], 2)
    print "        esac"
    print "        ;;"
    print "    esac"
    print "    # shellcheck disable=SC2207"
    print "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))"
    print "}"
    printf "complete -o bashdefault -o default -F _drafter%s\n", programs
}
