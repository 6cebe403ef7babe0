#!/usr/bin/env bash
# Every state that a power cut may leave of small workloads, recovered by the engine and judged:
# five million of them.
#
#   scripts/ci-crash-states.sh [MORE ARGUMENTS OF ringlog-sim crash-states]
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --quiet --release -p ringlog-sim
exec "${CARGO_TARGET_DIR:-target}/release/ringlog-sim" crash-states --states 5000000 "$@"
