#!/usr/bin/env bash
# CI: what is pure, and the unsafe code that Miri can run.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! cargo +nightly miri --version >/dev/null 2>&1 &&
    ! timeout 300 rustup component add --toolchain nightly miri rust-src >/dev/null 2>&1; then
    echo "miri SKIPPED: there is no nightly toolchain with the components miri and rust-src"
    exit 77
fi
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}/miri"
export MIRIFLAGS=-Zmiri-disable-isolation
timeout 500 cargo +nightly miri test -p ringlog-disk --lib -- block:: waker:: futex:: flight::
