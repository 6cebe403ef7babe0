#!/usr/bin/env bash
# The fault suites for so many minutes in all, one after the other, each with its share of the time:
# what CI runs at a bounded size, with other seeds and for longer.
#
#   scripts/long-run.sh [--minutes N] [--seed N] [--out DIR]
#
# Leaves what each suite said in DIR (default: long-run/ below the target directory) and prints the
# ends of all at the end. Histories go on through seeds from N on; crash states, power cuts, kills,
# fuzzing and the soak have a limit of time; the bits of a segment of 1 MiB are flipped all, or as
# far as the time goes one in so many. What this machine cannot run is skipped by name. Exits 1 if
# anything was wrong.
set -euo pipefail
cd "$(dirname "$0")/.."

minutes=60 seed=1000000 out=
while [ $# -gt 0 ]; do
    case $1 in
        --minutes) minutes=$2; shift 2 ;;
        --seed) seed=$2; shift 2 ;;
        --out) out=$2; shift 2 ;;
        *) echo "unknown argument $1" >&2; exit 2 ;;
    esac
done
# shellcheck source=scripts/real-lib.sh
. scripts/real-lib.sh
tool=$(ringlog_binary)
cargo build --release --quiet -p ringlog-sim --bin ringlog-sim
sim=$(dirname "$tool")/ringlog-sim
out=${out:-$(dirname "$tool")/../long-run}
mkdir -p "$out"
wrong=0 began=$SECONDS

# Runs `$3…` as the suite `$1`; `$2` is its share of the time in hundredths.
suite() {
    local name=$1 started=$SECONDS status=0
    share=$((minutes * 60 * $2 / 100))
    shift 2
    "$@" >"$out/$name" 2>&1 || status=$?
    case $status in
        0) ;;
        77) echo "SKIPPED by the suite itself" >>"$out/$name" ;;
        *) wrong=1; echo "WRONG: status $status" >>"$out/$name" ;;
    esac
    printf '=== %s: %d s\n' "$name" "$((SECONDS - started))" | tee -a "$out/$name"
}
in_minutes() { awk -v s="$share" 'BEGIN { printf "%.2f", s / 60 }'; }
# Ranges of seeds until the time is over.
histories() {
    local end=$((SECONDS + share)) at=$seed failed=0
    while [ "$SECONDS" -lt "$end" ]; do
        "$sim" --seeds "$at..$((at + 500))" || failed=1
        at=$((at + 500))
    done
    return "$failed"
}
crash_states() { "$sim" crash-states --states 500000000 --seed "$seed" --minutes "$(in_minutes)"; }
# 8.4 million bits in the sealed segment, and each opens the whole log: 613 a second beside other work.
bit_flips() {
    local stride=$((8400000 / (share * 600 + 1) + 1))
    "$sim" bit-flips --bytes 1048576 --seed "$seed" --stride "$stride"
}
errors() { "$sim" errors --runs $((share * 2500)) --seed "$seed"; }
power_cuts() { "$sim" power-cuts --ringlog "$tool" --seed "$seed" --cuts 1 --minutes "$(in_minutes)"; }
kills() { "$sim" kills --ringlog "$tool" --seed "$seed" --kills 1 --minutes "$(in_minutes)"; }
# Eight targets, two side by side.
fuzz() { scripts/fuzz.sh --seconds $((share / 4)) --seed "$((seed % 2147483648))"; }
soak() { "$sim" soak --ringlog "$tool" --minutes "$(in_minutes)" --seed "$seed"; }

suite histories 25 histories
suite crash-states 18 crash_states
suite bit-flips 15 bit_flips
suite errors 4 errors
suite power-cuts 12 power_cuts
suite kills 6 kills
suite fuzz 12 fuzz
suite soak 8 soak

for name in histories crash-states bit-flips errors power-cuts kills fuzz soak; do
    printf '\n--- %s\n' "$name"
    tail -n 16 "$out/$name"
done
echo
printf 'all in %d minutes\n' "$(((SECONDS - began) / 60))"
[ "$wrong" = 0 ] || echo "SOMETHING WAS WRONG"
exit "$wrong"
