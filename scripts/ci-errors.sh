#!/usr/bin/env bash
# CI: every operation of short histories meets every error, once and for good.
set -euo pipefail
cd "$(dirname "$0")/.."
exec cargo run --quiet --release -p ringlog-sim -- errors --runs "${RUNS:-60000}"
