#!/usr/bin/env bash
# The fuzz targets under libFuzzer, two side by side, each for so many seconds:
#
#   scripts/fuzz.sh [--seconds N | --counted] [--seed N] [--jobs N] [--asan] [TARGET …]
#
# `--counted` makes as many runs of each target as 20 seconds gave on two cores of 2026, however long that
# takes, so that a red run can be repeated: with one seed the same inputs come.
#
# Begins with the inputs in fuzz/corpus and fuzz/regressions; what it finds besides stays below
# fuzz/found (more inputs) and fuzz/artifacts (failures), which git does not keep. `--asan` adds
# AddressSanitizer, which needs a nightly toolchain and makes a run five to ten times slower: all but
# the crate of the disks is safe Rust. Exits 1 if a promise was broken, 77 if this machine cannot fuzz.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=20 seed=20260101 jobs=2 sanitizer=none counted=
targets=()
while [ $# -gt 0 ]; do
    case $1 in
        --seconds) seconds=$2; shift 2 ;;
        --counted) counted=1; shift ;;
        --seed) seed=$2; shift 2 ;;
        --jobs) jobs=$2; shift 2 ;;
        --asan) sanitizer=address; shift ;;
        -*) echo "unknown option $1" >&2; exit 2 ;;
        *) targets+=("$1"); shift ;;
    esac
done
known=(recovery differential files segment batch manifest small index)
declare -A runs=([recovery]=28000 [differential]=12000 [files]=600 [segment]=30000
    [batch]=2000000 [manifest]=2500000 [small]=2000000 [index]=300000)
[ ${#targets[@]} -gt 0 ] || targets=("${known[@]}")

cargo_fuzz_version=0.13.2
if ! cargo fuzz --version >/dev/null 2>&1; then
    if ! timeout 600 cargo install cargo-fuzz --locked --version "$cargo_fuzz_version"; then
        echo "fuzz SKIPPED: cargo-fuzz is not installed and cannot be (see above)"
        exit 77
    fi
fi
# A directory of its own: the flags of the fuzzer would have everything else built anew.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}/fuzz-$sanitizer"
cargo=(cargo)
if [ "$sanitizer" = address ]; then
    cargo=(cargo +nightly)
    if ! "${cargo[@]}" --version >/dev/null 2>&1; then
        echo "fuzz with AddressSanitizer SKIPPED: there is no nightly toolchain"
        exit 77
    fi
else
    # The coverage of the fuzzer is an unstable option; the stable compiler has it all the same.
    export RUSTC_BOOTSTRAP=1
    # Memory of one run is not given back to the system, only to be asked for again.
    export MALLOC_TRIM_THRESHOLD_=1000000000 MALLOC_MMAP_THRESHOLD_=1000000000
fi
host=$(rustc -vV | sed -n 's/^host: //p')
"${cargo[@]}" fuzz build --fuzz-dir fuzz --sanitizer "$sanitizer"
binaries="$CARGO_TARGET_DIR/$host/release"

logs=$(mktemp -d)
cleanup() {
    local running
    running=$(jobs -p)
    # shellcheck disable=SC2086 # a list of numbers
    [ -z "$running" ] || kill $running 2>/dev/null || true
    rm -rf "$logs"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Runs a target for its time. The seed, the inputs that it begins with and the limits are fixed; how
# far it comes in its time is not.
run() {
    local target=$1
    mkdir -p "fuzz/found/$target" "fuzz/artifacts/$target" "fuzz/corpus/$target" \
        "fuzz/regressions/$target"
    local limit=(-max_total_time="$seconds") patience=$((seconds + 120))
    if [ -n "$counted" ]; then
        limit=(-runs="${runs[$target]}" -reload=0) patience=600
    fi
    timeout "$patience" "$binaries/$target" \
        "fuzz/found/$target" "fuzz/corpus/$target" "fuzz/regressions/$target" \
        -artifact_prefix="fuzz/artifacts/$target/" -seed="$seed" "${limit[@]}" \
        -timeout=20 -rss_limit_mb=1536 -malloc_limit_mb=512 -max_len=16384 \
        -print_final_stats=1 >"$logs/$target" 2>&1
}

# What is to be told of a run: how often, how far, and how it ended.
tell() {
    local target=$1 status=$2 executed coverage
    executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$logs/$target")
    coverage=$(sed -n 's/.* cov: \([0-9]*\) ft: \([0-9]*\) .*/\1 edges, \2 features/p' \
        "$logs/$target" | tail -n 1)
    printf '%-13s %10s runs, %s: ' "$target" "${executed:-?}" "${coverage:-?}"
    if [ "$status" = 0 ]; then
        echo "nothing wrong"
    else
        echo "WRONG (status $status)"
        grep -E 'panicked|ERROR|SUMMARY|Test unit written' -A 2 "$logs/$target" | head -n 30
    fi
}

started=$SECONDS
wrong=0
for ((at = 0; at < ${#targets[@]}; at += jobs)); do
    pids=() group=("${targets[@]:at:jobs}")
    for target in "${group[@]}"; do
        run "$target" &
        pids+=($!)
    done
    for i in "${!group[@]}"; do
        status=0
        wait "${pids[$i]}" || status=$?
        [ "$status" = 0 ] || wrong=$((wrong + 1))
        tell "${group[$i]}" "$status"
    done
done
echo "fuzz: ${#targets[@]} targets, seed $seed, $wrong wrong, $((SECONDS - started)) s after the build"
[ "$wrong" = 0 ]
