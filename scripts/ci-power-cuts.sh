#!/usr/bin/env bash
# CI: live power cuts on ext4, xfs and btrfs; that the suite can fail; that it leaves nothing behind.
#
# Needs root, /dev/fuse and loop devices; exits 77 without. RINGLOG_POWER_CUTS says how many cuts
# (default 60), RINGLOG_POWER_SEED which.
set -euo pipefail
cd "$(dirname "$0")/.."

cuts=${RINGLOG_POWER_CUTS:-60}
seed=${RINGLOG_POWER_SEED:-1}

# shellcheck source=scripts/real-lib.sh
. scripts/real-lib.sh
tool=$(ringlog_binary)
cargo build --release --quiet -p ringlog-sim --bin ringlog-sim
sim=$(dirname "$tool")/ringlog-sim

# A directory of its own, so that what is left behind can be found by its name.
scratch=$(mktemp -d "${TMPDIR:-/tmp}/ringlog-ci-power.XXXXXX")
export TMPDIR=$scratch
trap 'rmdir "$scratch" 2>/dev/null || true' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

power_cuts() { timeout --kill-after=20 900 "$sim" power-cuts --ringlog "$tool" --seed "$seed" "$@"; }

# Mounts, also in other namespaces, loop devices, processes and files of a run that is over.
left_behind() {
    grep -l "$scratch" /proc/[0-9]*/mountinfo 2>/dev/null | sed 's/^/mounted: /' || true
    grep -l "^$scratch" /sys/block/loop*/loop/backing_file 2>/dev/null | sed 's/^/loop: /' || true
    local process
    for process in /proc/[0-9]*; do
        if tr '\0' ' ' 2>/dev/null <"$process/cmdline" | grep -F "$scratch/" >/dev/null; then
            printf 'process: %s\n' "$process"
        fi
    done
    ls -A "$scratch" | sed 's/^/file: /'
}

nothing_left() { # AFTER
    local left
    left=$(left_behind)
    if [ -n "$left" ]; then
        printf 'after %s there are left:\n%s\n' "$1" "$left" >&2
        exit 1
    fi
    printf 'nothing is left behind after %s\n' "$1"
}

status=0
power_cuts --cuts "$cuts" || status=$?
[ "$status" = 0 ] || exit "$status"
nothing_left "$cuts cuts"

# Losses that are really there must be seen: a disk that flushes nothing and is taken at its word.
power_cuts --cuts 60 --control no-flush >"$scratch.log" 2>&1 || {
    cat "$scratch.log" >&2
    rm -f "$scratch.log"
    exit 1
}
tail -n 1 "$scratch.log"
nothing_left "a disk that flushes nothing"

status=0
power_cuts --control panic >"$scratch.log" 2>&1 || status=$?
grep -F 'a panic, as was asked for' "$scratch.log" >/dev/null && [ "$status" = 101 ] || {
    cat "$scratch.log" >&2
    rm -f "$scratch.log"
    echo "status $status, not a panic" >&2
    exit 1
}
nothing_left "a panic"

for signal in INT TERM; do
    status=0
    # Job control: otherwise the shell has it ignore SIGINT.
    set -m
    "$sim" power-cuts --ringlog "$tool" --seed "$seed" --cuts 100000 >"$scratch.log" 2>&1 &
    run=$!
    set +m
    # In the middle of it: an agent runs on the mounted disk.
    seen=
    for _ in $(seq 3000); do
        if pgrep -f "agent --dir $scratch/" >/dev/null; then
            seen=yes
            break
        fi
        sleep 0.02
    done
    kill -s "$signal" "$run"
    wait "$run" || status=$?
    case "$seen $signal $status" in
    "yes INT 130" | "yes TERM 143") ;;
    *)
        cat "$scratch.log" >&2
        rm -f "$scratch.log"
        echo "SIG$signal ended it with status $status (an agent was seen: ${seen:-no})" >&2
        exit 1
        ;;
    esac
    nothing_left "SIG$signal"
done
rm -f "$scratch.log"
