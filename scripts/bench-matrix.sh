#!/usr/bin/env bash
# The whole matrix of measurements on this machine, and one folder with all of it:
#
#   scripts/bench-matrix.sh [--dir DIR] [--machine NAME] [--rounds N] [--seconds S] [--quick] [--rivals]
#
# Leaves results/<date>-<NAME>/ with environment.txt, for each subcommand its table (.txt) and its JSON
# lines (.jsonl), histograms (hdr/) and report.html. NAME says what machine it is; without, the
# operating system and the file system of DIR. `--seconds` is the length of one measurement, 2 unless
# chosen; the figures have lengths of their own. `--quick` measures everything once and briefly, to see
# that it runs; `--rivals` builds and measures those, too. Nothing else should run meanwhile. Takes
# some 20 minutes with three rounds, and twice that with rivals. A subcommand that fails leaves what it
# has, the others go on, and the status is 1 in the end.
set -euo pipefail
cd "$(dirname "$0")/.."

dir=. machine= rounds=3 seconds= quick= features=()
while [ $# -gt 0 ]; do
    case $1 in
        --dir) dir=$2; shift 2 ;;
        --machine) machine=$2; shift 2 ;;
        --rounds) rounds=$2; shift 2 ;;
        --seconds) seconds=$2; shift 2 ;;
        --quick) quick=1; shift ;;
        --rivals) features=(--features rivals); shift ;;
        *) echo "unknown argument $1" >&2; exit 2 ;;
    esac
done
machine=${machine:-$(uname -s | tr '[:upper:]' '[:lower:]')-$(stat -f -c %T "$dir" | tr -c 'a-z0-9\n' '-')}
out=results/$(date -u +%Y-%m-%d)-$machine
mkdir -p "$out/hdr"

# Before anything is written: what this leaves is no change of the program.
commit=$(git rev-parse HEAD)$(git diff --quiet HEAD || echo ', with changes')
cargo build --release --quiet -p bench-harness "${features[@]}"
bench=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release/ringlog-bench
{
    echo "commit: $commit"
    echo "rustc: $(rustc -V)"
    echo "kernel: $(uname -srm)"
    echo "cpus: $(nproc) x $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
    grep -E '^(MemTotal|MemAvailable|Hugepagesize)' /proc/meminfo
    echo "load: $(cut -d' ' -f1-3 /proc/loadavg)"
    echo "command: scripts/bench-matrix.sh --rounds $rounds${seconds:+ --seconds $seconds}${quick:+ --quick}${features[*]:+ --rivals}"
} >"$out/environment.txt"

failed=()
# Runs one subcommand; `$1` names its files.
measure() {
    local name=$1
    shift
    echo "=== $name"
    "$bench" "$@" --dir "$dir" --name "$machine" --rounds "$rounds" \
        --json "$out/$name.jsonl" --hdr "$out/hdr/$name" 2>&1 | tee "$out/$name.txt" || failed+=("$name")
}
if [ -n "$quick" ]; then
    rounds=1
    brief=(--seconds 0.2 --max-bytes 33554432)
    small=(--bytes 33554432)
    streams=(--streams 1,1000)
else
    brief=(${seconds:+--seconds "$seconds"}) small=() streams=()
fi
measure compare compare "${brief[@]}"
measure floor floor "${brief[@]}"
measure load load "${brief[@]}"
measure scale scale "${brief[@]}"
measure streams streams "${brief[@]}" "${streams[@]}"
measure recover recover "${brief[@]}" "${small[@]}"
measure read read "${brief[@]}" "${small[@]}"
measure rotate rotate "${brief[@]}"
[ -n "$quick" ] || measure figures figures
[ ${#features[@]} = 0 ] || measure rivals rivals "${brief[@]}" "${small[@]}"

"$bench" report "$out"/*.jsonl --out "$out/report.html" || failed+=(report)
echo
echo "$out"
if [ ${#failed[@]} -gt 0 ]; then
    echo "FAILED: ${failed[*]}"
    exit 1
fi
