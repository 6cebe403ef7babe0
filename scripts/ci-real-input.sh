#!/usr/bin/env bash
# CI: real text through the command-line tool on every file system that this machine can make.
set -euo pipefail
exec "$(dirname "$0")/real-input-all.sh" --size quick --seed 1
