#!/usr/bin/env bash
# CI: a soak of half a minute, so that scripts/soak is known to work when somebody needs it.
#
# RINGLOG_SOAK_MINUTES says how long. Without power cuts, which have a step of their own.
set -euo pipefail
cd "$(dirname "$0")/.."
timeout --kill-after=20 900 scripts/soak --minutes "${RINGLOG_SOAK_MINUTES:-0.5}" --no-power-cuts
