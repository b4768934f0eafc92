# SPDX-License-Identifier: Apache-2.0
# check-layers.awk - reads a compiler's dependency file and refuses headers of modules above
# Variables: src (the source), allowed (modules it may see, blank-separated).
BEGIN { n = split(allowed, mods, " "); bad = 0 }
{
    for (i = 1; i <= NF; i++) {
        f = $i
        sub(/:$/, "", f)
        if (f !~ /\.h$/ || f ~ /^\//)
            continue
        while (sub(/[^\/]+\/\.\.\//, "", f))
            ;
        ok = 0
        for (k = 1; k <= n && !ok; k++)
            ok = index(f, mods[k] "/") == 1
        if (!ok && !(f in seen)) {
            seen[f] = 1
            printf "%s: includes %s, which its layer may not see (mk/deps.mk)\n", src, f > "/dev/stderr"
            bad = 1
        }
    }
}
END { exit bad }
