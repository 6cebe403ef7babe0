# shellcheck shell=bash
# What scripts/real-input.sh and scripts/real-input-all.sh share. To be sourced.

# Prints the path of the binary `ringlog`: RINGLOG_BIN, else freshly built.
ringlog_binary() {
    if [ -n "${RINGLOG_BIN:-}" ]; then
        printf '%s\n' "$RINGLOG_BIN"
        return
    fi
    local root target
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    (cd "$root" && cargo build --release --quiet -p ringlog-cli --bin ringlog) >&2 || return
    target=$(cd "$root" && cargo metadata --no-deps --format-version 1 |
        grep -o '"target_directory":"[^"]*"' | cut -d '"' -f 4)
    printf '%s/release/ringlog\n' "$target"
}

# Prints the name of the file system that holds a directory.
file_system() {
    local name
    # A directory that is mounted over more than once gives a line for each; the last one counts.
    name=$(findmnt -n -o FSTYPE -T "$1" 2>/dev/null | tail -n 1) || name=$(stat -f -c %T "$1")
    printf '%s\n' "$name"
}

skipped_row() { # FILE_SYSTEM IO REASON
    printf '%s\t%s\tskipped: %s\n' "$@"
}

print_table() { # FILE
    awk -F '\t' '
        BEGIN {
            format = "%-8s %-9s %-9s %10s %9s  %-10s %6s  %s\n"
            printf "\n" format, "fs", "io", "mode", "records", "MB/s", "identical", "kills", \
                "acknowledged lost"
        }
        NF == 3 { printf "%-8s %-9s %s\n", $1, $2, $3; next }
        # A memory acknowledgement promises nothing after a kill.
        { printf format, $1, $2, $3, $4, $5, $6, $7, ($3 == "memory" ? "(any prefix)" : $8) }
    ' "$1"
}
