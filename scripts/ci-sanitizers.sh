#!/usr/bin/env bash
# CI: the disk crate and the engine under ThreadSanitizer, and under AddressSanitizer with LeakSanitizer:
# on the disk in memory and on the real one, through io_uring and blocking calls. Then each of the three
# must tell of a bug that is planted for it.
#
#   scripts/ci-sanitizers.sh [thread | address]
#
# Exits 77 if there is no nightly toolchain with its own sources: the standard library is built anew, or
# what it does under its locks would not be seen.
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')
case $host in
    x86_64-unknown-linux-gnu | aarch64-unknown-linux-gnu) ;;
    *) echo "sanitizers SKIPPED: $host has not both of them"; exit 77 ;;
esac
sources() {
    local sysroot
    sysroot=$(rustc +nightly --print sysroot 2>/dev/null) &&
        [ -e "$sysroot/lib/rustlib/src/rust/library/Cargo.lock" ]
}
if ! sources && ! timeout 300 rustup toolchain install nightly --profile minimal \
    --component rust-src >/dev/null 2>&1; then
    echo "sanitizers SKIPPED: there is no nightly toolchain with the component rust-src"
    exit 77
fi

scratch=$(mktemp -d)
cleanup() {
    local running
    running=$(jobs -p)
    # shellcheck disable=SC2086 # a list of numbers
    [ -z "$running" ] || kill $running 2>/dev/null || true
    rm -rf "$scratch"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
export TMPDIR=$scratch
# Bugs can be switched on in this build; none is, but for the controls.
unset RINGLOG_MUTANT
target=${CARGO_TARGET_DIR:-$PWD/target}

# Runs tests of both crates under a sanitizer: which test programs, `--`, which tests.
run() {
    local sanitizer=$1
    shift
    CARGO_TARGET_DIR=$target/sanitizer-$sanitizer RUSTFLAGS="-Zsanitizer=$sanitizer" \
        timeout 900 cargo +nightly test --quiet -Zbuild-std --target "$host" \
        -p ringlog-disk -p ringlog --features ringlog/__mutants "$@"
}

# Left out by name, each with its reason.
left_out=(
    # Threads that compute for themselves: slow, and safe Rust throughout.
    --skip index::tests::
    --skip profile::tests::
    # The contract is run on two rings, on blocking calls and in memory; these differ in the ring's options.
    --skip uring_keeps_the_contract_w
    --skip memory_file_systems_keep_the_contract
)

thread() {
    run thread --lib -- "${left_out[@]}"
    # Producers, the writer, followers, readers of another process, and shards that their callers drive.
    run thread --test following --test in_memory --test driven --test live --test log -- \
        --skip very_many_streams_are_created_reopened_and_read
    control thread TakeBlockUnordered "ThreadSanitizer: data race" \
        --lib -- --exact block::tests::who_takes_a_block_comes_after_its_last_user
    control thread TakeBlockUnordered "ThreadSanitizer: data race" \
        --test following -- --exact followers_see_every_record_once_while_the_log_rotates
}

address() {
    run address --lib -- "${left_out[@]}"
    run address --test following --test in_memory --test driven --test reading --test log \
        --test full_disk --test retention -- \
        --skip very_many_streams_are_created_reopened_and_read
    control address ReadClosedDirectory "AddressSanitizer: heap-use-after-free" \
        --lib -- --exact disk_tests::blocking_keeps_the_contract
    control address LeakDirectory "LeakSanitizer: detected memory leaks" \
        --lib -- --exact disk_tests::blocking_keeps_the_contract
}

# A bug without which the same tests pass: the sanitizer has to tell of it, and in these words.
control() {
    local sanitizer=$1 bug=$2 words=$3
    shift 3
    if RINGLOG_MUTANT=$bug run "$sanitizer" "$@" >"$scratch/control" 2>&1; then
        echo "WRONG: under the $sanitizer sanitizer nothing tells of $bug"
        return 1
    fi
    if ! grep -F "$words" "$scratch/control" >/dev/null; then
        echo "WRONG: with $bug there is no \"$words\", but:"
        tail -n 40 "$scratch/control"
        return 1
    fi
    echo "control: $bug: $words"
}

if [ $# = 0 ]; then set -- thread address; fi
declare -A pids
for sanitizer in "$@"; do
    case $sanitizer in thread | address) ;; *) echo "no sanitizer $sanitizer" >&2; exit 2 ;; esac
    (
        started=$SECONDS
        "$sanitizer"
        echo "sanitizer $sanitizer: nothing wrong, $((SECONDS - started)) s"
    ) >"$scratch/$sanitizer.log" 2>&1 &
    pids[$sanitizer]=$!
done
wrong=0
for sanitizer in "$@"; do
    status=0
    wait "${pids[$sanitizer]}" || status=$?
    cat "$scratch/$sanitizer.log"
    [ "$status" = 0 ] || { echo "sanitizer $sanitizer: WRONG (status $status)"; wrong=1; }
done
exit "$wrong"
