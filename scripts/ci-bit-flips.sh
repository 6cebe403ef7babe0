#!/usr/bin/env bash
# Every bit of a closed log with a sealed segment of 128 KiB flipped once; each time it is opened
# and read.
#
#   scripts/ci-bit-flips.sh [MORE ARGUMENTS OF ringlog-sim bit-flips]
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --quiet --release -p ringlog-sim
exec "${CARGO_TARGET_DIR:-target}/release/ringlog-sim" bit-flips "$@"
