# The everyday commands. `just` alone lists them.

set shell := ["bash", "-euo", "pipefail", "-c"]

_default:
    @just --list --unsorted

# Format everything.
fmt:
    cargo fmt --all

# Fail if something is not formatted.
fmt-check:
    cargo fmt --all -- --check

# Clippy on every target with every feature; a warning is an error.
lint:
    cargo clippy --workspace --all-targets --all-features -- -D warnings

# The test command of the README; arguments go to cargo (for example `just test -p ringlog`).
test *ARGS:
    cargo test {{ if ARGS == "" { "--workspace" } else { ARGS } }}

# The tests of the engine's optional features.
features:
    cargo test -p ringlog --all-features --test metrics --test tracing --test options --test stats

# Build the documentation; a broken link is an error.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace

# Licences, banned crates and sources of the dependencies.
deny:
    cargo deny check licenses bans sources

# Known vulnerabilities in the dependencies (fetches the advisory database).
advisories:
    cargo deny check advisories

# What to run before a commit.
check: fmt-check lint test features doc deny

# Durability modes beside the bare disk; arguments go to the harness (for example `--dir /mnt/fast`).
bench-compare *ARGS:
    cargo run --release -p bench-harness -- compare {{ ARGS }}

# Holds the name of the baseline that `bench-save` has saved last.
last_baseline := env("CARGO_TARGET_DIR", "target") / "last-bench-baseline"

# Micro-benchmarks, kept as a baseline; arguments go to criterion (for example `just bench-save before frame`).
bench-save NAME="saved" *ARGS:
    cargo bench -p bench-harness -- --save-baseline {{ NAME }} {{ ARGS }}
    @echo {{ NAME }} >"{{ last_baseline }}"

# Micro-benchmarks, compared with the baseline that `bench-save` has saved last.
bench *ARGS:
    @test -s "{{ last_baseline }}" || { echo "there is no baseline yet: just bench-save" >&2; exit 1; }
    cargo bench -p bench-harness -- --baseline-lenient "$(cat "{{ last_baseline }}")" {{ ARGS }}

# Real text through the command-line tool and back, in one directory; see scripts/real-input.sh.
real-input *ARGS:
    scripts/real-input.sh {{ ARGS }}

# The same on ext4, xfs, btrfs and tmpfs, and with io_uring refused (the loop devices need root).
real-input-all *ARGS:
    scripts/real-input-all.sh {{ ARGS }}

# A command on a file system of its own, as root: `just on-fs xfs 512 cargo test -p ringlog-disk`.
on-fs FS SIZE_MB +COMMAND:
    scripts/with-loop-fs.sh {{ FS }} {{ SIZE_MB }} -- {{ COMMAND }}

# Everything that CI runs.
ci:
    .ci/run
