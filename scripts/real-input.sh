#!/usr/bin/env bash
# Sends real text through the command-line tool and back, and compares it byte for byte.
#
#   scripts/real-input.sh [--dir DIR] [--size quick|full|MEGABYTES] [--io auto|blocking]
#                         [--corpus DIR] [--rows FILE] [--seed N]
#
# For each durability mode (memory, written, synced), with segments of 1 MiB:
#   1. append every stream, read every stream back, compare; verify; count the segment files;
#   2. the same once more with `kill -9` in the middle of each stream. After each kill the log
#      verifies, what is read is a whole-line prefix of the input, and for written and synced that
#      prefix contains every acknowledgement that was printed before the kill. Then the rest is
#      appended, and the whole is compared.
# One stream goes in as atomic batches of 64 lines: after a kill, none of them may be there in part.
#
#   --dir     where the logs are put: a new directory below DIR (default RINGLOG_TEST_DIR, else
#             TMPDIR, else /tmp)
#   --size    quick: 20 MB, one kill per stream (default); full: at least 200 MB, two kills
#   --io      blocking: with RINGLOG_IO=blocking; and, where strace works, a further pass without it
#             in which the kernel refuses io_uring_setup (shown as `refused`)
#   --corpus  text that scripts/real-corpus.sh has gathered already
#   --rows    append the rows of the table to FILE instead of printing the table
#   --seed    chooses where the kills fall (default 1)
#
# RINGLOG_BIN names the binary; without it, it is built. Ends with a table; exit status 0 when every
# row is good, 1 when not, 2 for wrong arguments.
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
segment_bytes=1048576
batch_lines=64
# Nothing here takes this long; a command that hangs must not hang the run.
limit_s=900

parent=${RINGLOG_TEST_DIR:-${TMPDIR:-/tmp}}
size=quick
io=auto
corpus=
rows=
seed=1
usage() {
    sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0" >&2
    exit 2
}
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || usage
    case $1 in
    --dir) parent=$2 ;;
    --size) size=$2 ;;
    --io) io=$2 ;;
    --corpus) corpus=$2 ;;
    --rows) rows=$2 ;;
    --seed) seed=$2 ;;
    *) usage ;;
    esac
    shift 2
done
case $io in auto | blocking) ;; *) usage ;; esac
kills_per_stream=1
[ "$size" != full ] || kills_per_stream=2
RANDOM=$seed

# shellcheck source=scripts/real-lib.sh
. "$here/real-lib.sh"
bin=$(ringlog_binary)

work=$(mktemp -d "${TMPDIR:-/tmp}/ringlog-real.XXXXXX")
logs=$(mktemp -d "$parent/ringlog-real-logs.XXXXXX")
# The two processes of a run that is to be killed, while there is one.
feeder=
appender=
cleanup() {
    local status=$?
    trap - EXIT
    rm -rf "$logs" "$work"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ -z "$corpus" ]; then
    corpus=$work/corpus
    "$here/real-corpus.sh" "$corpus" "$size"
fi
inputs=("$corpus"/*.txt)
total_bytes=$(cat "${inputs[@]}" | wc -c)
total_records=$(cat "${inputs[@]}" | wc -l)

fs=$(file_system "$logs")
[ -n "$rows" ] || { rows=$work/rows && own_table=yes; }

# Words that go before every call of the tool, and what the environment adds.
wrap=()

run() { timeout -k 10 "$limit_s" "${wrap[@]}" "$bin" "$@"; }

# Ends the mode that runs (a subshell); its row then says so.
die() {
    printf 'FAILED %s, io %s, %s: %s\n' "$fs" "$io" "$mode" "$*" >&2
    [ ! -s "$work/stderr" ] || tail -n 5 "$work/stderr" >&2
    exit 1
}

stream_of() { basename "$1" .txt; }

# Options of `append` that depend on the stream and on whether the log exists yet.
append_options() { # INPUT
    [ -e "$log" ] || printf '%s\n' --segment-bytes "$segment_bytes"
    case $1 in */documents.txt) printf '%s\n' --batch "$batch_lines" ;; esac
}

append() { # INPUT [ARGUMENT]...: appends to INPUT's stream what the arguments name, or stdin
    local input=$1 options
    shift
    mapfile -t options < <(append_options "$input")
    run append --dir "$log" --stream "$(stream_of "$input")" --durability "$mode" --json \
        "${options[@]}" "$@" >"$work/summary" 2>"$work/stderr" ||
        die "append to $(stream_of "$input") ended with status $?"
}

compare_all() {
    local input
    for input in "${inputs[@]}"; do
        run read --dir "$log" --stream "$(stream_of "$input")" 2>"$work/stderr" |
            cmp - "$input" >&2 || die "$(stream_of "$input") came out different"
    done
}

verify() { # WHEN
    local status=0
    run verify --dir "$log" >"$work/verify" 2>"$work/stderr" || status=$?
    [ "$status" = 0 ] || {
        cat "$work/verify" >&2
        die "verify $1 ended with status $status"
    }
}

# Segments of 1 MiB can hold no more than their size: with fewer files nothing was rotated.
check_rotated() {
    local files
    files=$(find "$log" -type f | wc -l)
    [ "$files" -ge $((total_bytes / segment_bytes)) ] ||
        die "only $files files for $total_bytes bytes in segments of $segment_bytes"
}

append_everything() {
    local input started
    started=$(date +%s%N)
    for input in "${inputs[@]}"; do append "$input" "$input"; done
    speed=$(awk -v b="$total_bytes" -v ns="$(($(date +%s%N) - started))" \
        'BEGIN { printf "%.1f", b * 1000 / ns }')
}

# Appends $rest to INPUT's stream by way of a pipe that is never closed, and kills the process once
# it has printed a share of the acknowledgements. Sets acked_end, the offset after the last of them.
append_and_kill() { # INPUT BASE
    local input=$1 base=$2 options lines fed threshold acked deadline status=0
    lines=$(wc -l <"$work/rest")
    # A part of the input stays outside, so that the process can not come to an end by itself.
    fed=$((lines * 8 / 10))
    threshold=$((lines * (10 + RANDOM % 50) / 100 + 1))
    mapfile -t options < <(append_options "$input")
    rm -f "$work/pipe"
    mkfifo "$work/pipe"
    # The loop below may look before the process has opened it.
    : >"$work/acks"
    exec 9<>"$work/pipe"
    head -n "$fed" "$work/rest" >&9 9>&- &
    feeder=$!
    "${wrap[@]}" "$bin" append --dir "$log" --stream "$(stream_of "$input")" \
        --durability "$mode" --print-acks "${options[@]}" \
        <"$work/pipe" >"$work/acks" 2>"$work/stderr" 9>&- &
    appender=$!
    deadline=$((SECONDS + limit_s))
    while acked=$(wc -l <"$work/acks") && [ "$acked" -lt "$threshold" ]; do
        kill -0 "$appender" 2>/dev/null || die "append ended by itself after $acked acknowledgements"
        [ "$SECONDS" -lt "$deadline" ] || die "only $acked of $threshold acknowledgements came"
        sleep 0.005
    done
    kill -KILL "$appender"
    wait "$appender" 2>/dev/null || status=$?
    [ "$status" = 137 ] || die "append ended with status $status before the kill"
    kill -KILL "$feeder" 2>/dev/null || true
    wait "$feeder" 2>/dev/null || true
    exec 9>&-
    appender= feeder=
    kills=$((kills + 1))
    # The kill may have cut the last line short: only whole lines count.
    acked=$(wc -l <"$work/acks")
    head -n "$acked" "$work/acks" | awk -v base="$base" '$0 != base + NR - 1 { exit 1 }' ||
        die "the acknowledgements of $(stream_of "$input") do not count up from $base"
    acked_end=$((base + acked))
}

# Reads INPUT's stream after a kill and judges it. Sets kept, the number of records that are there.
judge() { # INPUT BASE
    local input=$1 base=$2 bytes name
    name=$(stream_of "$input")
    verify "after a kill"
    if ! run read --dir "$log" --stream "$name" >"$work/read" 2>"$work/stderr"; then
        # In memory mode the kill may come before the stream itself has reached the disk.
        [ "$mode" = memory ] && [ "$base" = 0 ] && [ ! -s "$work/read" ] &&
            grep -qi 'stream' "$work/stderr" || {
            [ "$mode" = memory ] || lost=$((lost + acked_end))
            die "$name cannot be read after a kill"
        }
    fi
    bytes=$(stat -c %s "$work/read")
    kept=$(wc -l <"$work/read")
    if [ "$bytes" -gt 0 ]; then
        [ -z "$(tail -c 1 "$work/read" | tr -d '\n')" ] || die "$name ends within a line"
        cmp -n "$bytes" "$work/read" "$input" >&2 || die "$name is no prefix after a kill"
    fi
    if [ "$mode" != memory ] && [ "$kept" -lt "$acked_end" ]; then
        lost=$((lost + acked_end - kept))
        die "$name lost $((acked_end - kept)) acknowledged records ($kept of $acked_end are there)"
    fi
    [ "$kept" -ge "$base" ] || die "$name lost records that were there at the kill before"
    case $name in
    documents)
        [ $(((kept - base) % batch_lines)) = 0 ] || die "$name holds a part of an atomic batch"
        ;;
    esac
}

append_with_kills() {
    local input base first
    for input in "${inputs[@]}"; do
        base=0
        cp "$input" "$work/rest"
        for _ in $(seq "$kills_per_stream"); do
            append_and_kill "$input" "$base"
            judge "$input" "$base"
            base=$kept
            tail -n "+$((base + 1))" "$input" >"$work/rest"
        done
        append "$input" "$work/rest"
        first=$(grep -Eo '"first_offset": *[0-9]+' "$work/summary" | grep -Eo '[0-9]+$' || true)
        [ "$first" = "$base" ] || die "the rest of $(stream_of "$input") began at ${first:-?}, not $base"
    done
}

end_children() {
    local process
    for process in $feeder $appender; do kill -KILL "$process" 2>/dev/null || true; done
}

# The end of a mode. What was reached is in variables, so one that failed half-way has its row too.
row() {
    end_children
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$fs" "$io" "$mode" "$total_records" "$speed" \
        "$identical" "$kills" "$lost" >>"$rows"
}

# Runs "$@" for $mode in a subshell with `set -e` and writes the row, however it ends.
failures=0
in_mode() {
    local status
    set +e
    (
        set -e
        speed=- identical=NO kills=0 lost=0
        trap row EXIT
        "$@"
        identical=yes
    )
    status=$?
    set -e
    [ "$status" = 0 ] || failures=$((failures + 1))
    rm -rf "${logs:?}"/*
}

plain_and_killed() {
    log=$logs/plain
    append_everything
    compare_all
    verify "after the append"
    check_rotated
    rm -rf "$log"
    log=$logs/killed
    append_with_kills
    compare_all
    verify "at the end"
}

# The kernel refuses io_uring to every process; the fallback must take over, and say so.
refused() {
    log=$logs/refused
    rm -f "$work/strace"
    append_everything
    grep -q 'io_uring_setup.*EPERM.*INJECTED' "$work/strace" ||
        die "io_uring_setup was never refused: this proves nothing"
    grep -qi blocking "$work/stderr" "$work/summary" || die "the fallback was not announced"
    compare_all
    verify "after the append"
}

for mode in memory written synced; do
    if [ "$io" = blocking ]; then export RINGLOG_IO=blocking; fi
    in_mode plain_and_killed
done

if [ "$io" = blocking ]; then
    unset RINGLOG_IO
    io=refused
    wrap=(strace -f --seccomp-bpf -qq -A -o "$work/strace" -e trace=io_uring_setup
        -e inject=io_uring_setup:error=EPERM)
    if "${wrap[@]}" true 2>/dev/null; then
        for mode in memory written synced; do in_mode refused; done
    else
        mode=-
        skipped_row "$fs" refused "strace does not work here" >>"$rows"
    fi
fi

[ -z "${own_table:-}" ] || print_table "$rows"
[ "$failures" = 0 ]
