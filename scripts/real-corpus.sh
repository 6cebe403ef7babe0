#!/usr/bin/env bash
# Gathers real text of this machine into one file per stream.
#
#   scripts/real-corpus.sh DIR quick|full|MEGABYTES
#
# The text: the package manager's logs, every Debian changelog (unpacked), and licences, C headers
# and Perl documentation. `full` is at least 200 MB, holds every changelog once or more, and repeats
# what is shorter than its share; `quick` (20 MB) and a number of megabytes give each stream an equal
# share, repeated or cut after a whole line. Bytes are left as they are: lines are not always UTF-8,
# some are empty. Each file ends in a newline. Prints one line per file: records, bytes, name.
set -euo pipefail
export LC_ALL=C

[ $# = 2 ] || { sed -n '4p' "$0" >&2; exit 2; }
directory=$1
cut=yes
case $2 in
quick) megabytes=20 ;;
full) megabytes=200 cut= ;;
*[!0-9]* | '' | 0) sed -n '4p' "$0" >&2; exit 2 ;;
*) megabytes=$2 ;;
esac
share=$((megabytes * 1000000 / 4))
mkdir -p "$directory"

existing() { find "$@" -type f -readable -print0 2>/dev/null | sort -z || true; }
package_logs() { existing /var/log/dpkg.log /var/log/apt | xargs -0r cat; }
# The changelogs at odd (1) or even (0) places of the sorted list: two streams of about one size.
changelogs() {
    existing /usr/share/doc -maxdepth 2 -name 'changelog*.gz' |
        awk -v RS='\0' -v ORS='\0' -v parity="$1" 'NR % 2 == parity' | xargs -0r gzip -dc
}
documents() {
    existing /usr/share/common-licenses | xargs -0r cat
    existing /usr/include /usr/share/perl /usr/share/perl5 /usr/lib \
        '(' -name '*.h' -o -name '*.pod' -o -name '*.txt' ')' | xargs -0r cat
}

# $1: name; the text comes on standard input.
stream() {
    local file=$directory/$1.txt size
    # This sed adds a newline to a last line that has none, and changes nothing else.
    sed -e '$a\' >"$file"
    size=$(stat -c %s "$file")
    if [ "$size" = 0 ]; then
        echo "real-corpus: this machine has no text for the stream $1" >&2
        rm "$file"
        return
    fi
    while [ "$size" -lt "$share" ]; do
        cat "$file" "$file" >"$file.twice"
        mv "$file.twice" "$file"
        size=$((size * 2))
    done
    # `full` keeps a changelog stream whole, and cuts what was doubled or is no changelog.
    if [ -n "$cut" ] || [ "${1#changelogs}" = "$1" ]; then
        head -c "$share" "$file" | sed -e '$a\' >"$file.cut"
        mv "$file.cut" "$file"
    fi
    wc -lc "$file"
}

package_logs | stream package-logs
changelogs 1 | stream changelogs-odd
changelogs 0 | stream changelogs-even
documents | stream documents
[ -n "$(existing "$directory" -maxdepth 1 -name '*.txt' | tr '\0' '\n')" ] || {
    echo "real-corpus: no text was found on this machine" >&2
    exit 1
}
