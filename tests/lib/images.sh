# SPDX-License-Identifier: Apache-2.0
# images.sh - for shell tests: small images, and all that a folder says; read behind functions.sh

# Everything of a tree that an image can say.
dump() { # FOLDER
    (cd "$1" && find . -mindepth 1 -printf '%P %y %m %U %G %T@ %l %n\n' | sort &&
        find . -type f -printf '%P %s\n' | sort &&
        find . -type f -print0 | sort -z | xargs -0 -r sha256sum &&
        find . \( -type c -o -type b \) -exec stat -c '%n %t %T' {} + | sort &&
        find . ! -type d -links +1 -printf '%i %P\n' | sort -k 2 |
        awk '!($1 in first) { first[$1] = $2 } { print "same", first[$1], $0 }' | cut -d ' ' -f 1,2,4- &&
        getfattr -R -P -h -d -m - -e hex . 2>/dev/null)
}

new_image() { umoci init --layout "$1" && umoci new --image "$1:latest"; }

# A layer as it is, which umoci repack would not write.
add_layer() { umoci raw add-layer --image "$1:latest" "$2"; }

# A layer of all that lies in a folder.
make_layer() { # FOLDER TAR [OPTION...]
    local folder=$1 tar=$2
    shift 2
    tar --format=posix --xattrs --xattrs-include='*' --numeric-owner --sparse \
        --pax-option=delete=atime,delete=ctime "$@" -C "$folder" -cf "$tar" .
}
