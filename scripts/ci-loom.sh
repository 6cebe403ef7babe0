#!/usr/bin/env bash
# CI: the models of what threads share, under every schedule with a bounded number of preemptions
# (loom). The code is the real one, with loom's atomics and locks in place of the standard ones.
set -euo pipefail
cd "$(dirname "$0")/.."
# A directory of its own: the flag would have everything else built anew.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}/loom"
export RUSTFLAGS="${RUSTFLAGS:-} --cfg loom"
export LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-3}"
# A model that has become too large ends with a failure, and not never.
export LOOM_MAX_BRANCHES=20000
for package in ringlog-disk ringlog; do
    cargo test --release --no-run -p "$package" --lib
    timeout 300 cargo test --release -p "$package" --lib loom_
done
