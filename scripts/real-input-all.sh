#!/usr/bin/env bash
# scripts/real-input.sh on ext4, xfs, btrfs and tmpfs, and with io_uring refused; one table.
#
#   scripts/real-input-all.sh [--size quick|full|MEGABYTES] [--seed N]
#
# The disk file systems lie on loop devices, which needs root; without root they are shown as
# skipped, and the run is made in TMPDIR and on /dev/shm instead. Exit status 0 when every row that
# could be run is good.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
size=quick
seed=1
while [ $# -gt 0 ]; do
    case $1 in
    --size) size=${2:?} ;;
    --seed) seed=${2:?} ;;
    *) sed -n '4p' "$0" >&2; exit 2 ;;
    esac
    shift 2
done

# shellcheck source=scripts/real-lib.sh
. "$here/real-lib.sh"
RINGLOG_BIN=$(ringlog_binary)
export RINGLOG_BIN

work=$(mktemp -d "${TMPDIR:-/tmp}/ringlog-real-all.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$here/real-corpus.sh" "$work/corpus" "$size"
# Room for the frames of short lines, and for segments that are prepared ahead.
image_mb=$((512 + $(cat "$work/corpus"/*.txt | wc -c) * 5 / 1000000))

rows=$work/rows
failed=0
real_input=("$here/real-input.sh" --size "$size" --seed "$seed" --corpus "$work/corpus" --rows "$rows")

# $1: file system; the rest: further arguments. Sets status.
on() {
    local name=$1
    shift
    status=0
    "$here/with-loop-fs.sh" "$name" "$image_mb" -- "${real_input[@]}" "$@" || status=$?
    [ "$status" = 0 ] || [ "$status" = 77 ] || failed=1
}

for name in ext4 xfs btrfs tmpfs; do
    on "$name"
    [ "$status" != 77 ] || skipped_row "$name" auto "see the message above" >>"$rows"
done
on ext4 --io blocking
if [ "$status" = 77 ]; then
    "${real_input[@]}" || failed=1
    "${real_input[@]}" --io blocking || failed=1
    if [ -w /dev/shm ]; then
        "${real_input[@]}" --dir /dev/shm || failed=1
    fi
fi

print_table "$rows"
exit "$failed"
