#!/usr/bin/env bash
# Every bug that can be planted in the engine is noticed by a layer of the suite, within ten seconds
# each; and no ordinary build has them. Arguments go to the command (see docs/mutants.md).
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export TMPDIR=$scratch

cargo build --release -p ringlog-sim
target=${CARGO_TARGET_DIR:-target}
timeout --kill-after=10 1200 "$target/release/ringlog-sim" mutants --json "$scratch/rows" "$@"

# The names are in the build with the bugs, so they would be seen in the other one.
grep -o '"name": "[A-Za-z]*"' "$scratch/rows" | sed 's/.*: "//; s/"//' |
    sort -u >"$scratch/names"
grep -aoF -f "$scratch/names" "$target/debug/ringlog-sim" | sort -u >"$scratch/planted"
if [ "$(wc -l <"$scratch/planted")" -lt "$(wc -l <"$scratch/names")" ]; then
    echo "WRONG: the build with the bugs does not tell their names"
    exit 1
fi
if grep -aoF -f "$scratch/names" "$target/release/ringlog-sim" | sort -u >"$scratch/ordinary"; then
    echo "WRONG: an ordinary build has planted bugs:"
    cat "$scratch/ordinary"
    exit 1
fi
echo "An ordinary build has none of the $(wc -l <"$scratch/names") names."
