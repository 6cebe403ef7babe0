#!/usr/bin/env bash
# Profiles the disk on each file system that this machine can make, with `ringlog profile-disk`.
#
#   scripts/profile-file-systems.sh OUT_DIRECTORY [ROOT_DIRECTORY]
#
# Writes NAME.txt and NAME.json for: root (ROOT_DIRECTORY, default /var/tmp, on whatever it lies), and,
# on loop devices with direct I/O over images in RINGLOG_IMAGE_DIR (default /var/tmp), ext4 (with
# journal), xfs, btrfs, btrfs-nocow (chattr +C), and tmpfs. Each is measured three times as text and
# three times as JSON, taking turns; of each kind the run with the median flush is kept. What the
# machine cannot do is said and left out.
#
# RINGLOG_BIN names the tool; without it, a release build is made. Measure on a quiet machine.
#
# Exit status: 0 when at least the root was profiled; 1 when something failed that should not.
set -euo pipefail

usage() {
    sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0" >&2
    exit 2
}
say() { printf 'profile-file-systems: %s\n' "$*" >&2; }

here=$(cd "$(dirname "$0")" && pwd)

# The median of the flush in µs, from the reason of the class; 0 where it names none (memory).
flush_us() {
    awk 'match($0, /takes [0-9.]+ (µs|ms)/) {
        split(substr($0, RSTART, RLENGTH), word, " ")
        print word[3] == "ms" ? word[2] * 1000 : word[2]; found = 1; exit
    } END { if (!found) print 0 }' "$1"
}

# keep_median TO FILE…: the file with the median flush.
keep_median() {
    local to=$1 file
    shift
    for file in "$@"; do printf '%s %s\n' "$(flush_us "$file")" "$file"; done | sort -n |
        awk '{ file[NR] = $2 } END { print file[int((NR + 1) / 2)] }' |
        { read -r file && cp "$file" "$to"; }
}

# measure NAME DIRECTORY: three runs of each kind.
measure() {
    local name=$1 directory=$2 runs run
    runs=$(mktemp -d)
    for run in 1 2 3; do
        "$RINGLOG_BIN" profile-disk --dir "$directory" >"$runs/$run.txt"
        "$RINGLOG_BIN" profile-disk --dir "$directory" --json >"$runs/$run.json"
    done
    keep_median "$RINGLOG_PROFILES/$name.txt" "$runs"/*.txt
    keep_median "$RINGLOG_PROFILES/$name.json" "$runs"/*.json
    rm -r "$runs"
    say "$name: $(head -n 1 "$RINGLOG_PROFILES/$name.txt")"
}

# Called again on each mounted file system.
if [ "${1-}" = --mounted ]; then
    directory=$RINGLOG_TEST_DIR/profile
    mkdir "$directory"
    [ "$2" != btrfs-nocow ] || chattr +C "$directory"
    measure "$2" "$directory"
    exit 0
fi

[ $# -ge 1 ] && [ $# -le 2 ] && [ "${1#-}" = "$1" ] || usage
mkdir -p "$1"
RINGLOG_PROFILES=$(cd "$1" && pwd)
if [ -z "${RINGLOG_BIN-}" ]; then
    (cd "$here/.." && cargo build --release --locked -p ringlog-cli)
    target=${CARGO_TARGET_DIR:-$here/../target}
    RINGLOG_BIN=$(cd "$target/release" && pwd)/ringlog
fi
export RINGLOG_BIN RINGLOG_PROFILES

root=$(mktemp -d "${2:-/var/tmp}/ringlog-profile.XXXXXX")
trap 'rm -rf "$root"' EXIT
measure root "$root"
for name in ext4 xfs btrfs btrfs-nocow tmpfs; do
    status=0
    "$here/with-loop-fs.sh" "${name%-nocow}" 1024 -- "$0" --mounted "$name" || status=$?
    case $status in
    0) ;;
    77) say "$name: left out" ;;
    *) exit 1 ;;
    esac
done
