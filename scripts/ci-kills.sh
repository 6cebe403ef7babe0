#!/usr/bin/env bash
# CI: kill -9 with an external journal of acknowledgements; and that the suite can fail.
#
# RINGLOG_KILLS says how many kills (default 100), RINGLOG_KILLS_SEED which; RINGLOG_TEST_DIR where.
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=scripts/real-lib.sh
. scripts/real-lib.sh
tool=$(ringlog_binary)
cargo build --release --quiet -p ringlog-sim --bin ringlog-sim
sim=$(dirname "$tool")/ringlog-sim

kills() { timeout --kill-after=20 900 "$sim" kills --ringlog "$tool" --seed "${RINGLOG_KILLS_SEED:-1}" "$@"; }

kills --kills "${RINGLOG_KILLS:-100}"
# Losses that are really there must be seen: after a kill, an older copy of the log is put back.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
kills --kills 20 --control >"$log" 2>&1 || {
    cat "$log" >&2
    exit 1
}
tail -n 1 "$log"
