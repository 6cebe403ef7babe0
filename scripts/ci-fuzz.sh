#!/usr/bin/env bash
# CI: every fuzz target, as many runs as 20 seconds gave where they were counted. A failure leaves its input below fuzz/artifacts: put it into
# fuzz/regressions/TARGET, where the tests replay it.
set -euo pipefail
exec "$(dirname "$0")/fuzz.sh" --counted --seed 20260101
