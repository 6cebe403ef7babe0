#!/usr/bin/env bash
# Runs a command on a file system of its own and removes that file system afterwards.
#
#   scripts/with-loop-fs.sh FS SIZE_MB -- COMMAND [ARGUMENT]...
#
# FS is ext4, xfs, btrfs or tmpfs. Except for tmpfs the file system lies on a loop device with
# direct I/O over a sparse image, so O_DIRECT writes and flushes reach the disk below. The image is
# made in RINGLOG_IMAGE_DIR (default /var/tmp), which must not be a tmpfs itself.
#
# COMMAND finds the mounted directory in RINGLOG_TEST_DIR and the file system's name in
# RINGLOG_TEST_FS. Mount, loop device and image are removed when it ends, when it fails, and on
# SIGINT, SIGTERM and SIGHUP.
#
# Exit status: COMMAND's own; 77 when the machine cannot do it (not root, no mkfs, no loop device,
# the kernel lacks the file system); 2 for wrong arguments; 1 when a step of the set-up failed.
set -euo pipefail

usage() {
    sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0" >&2
    exit 2
}
say() { printf 'with-loop-fs: %s\n' "$*" >&2; }
skip() {
    say "skipped: $*"
    exit 77
}

[ $# -ge 4 ] && [ "$3" = "--" ] || usage
fs=$1
size_mb=$2
shift 3
case $fs in ext4 | xfs | btrfs | tmpfs) ;; *) usage ;; esac
case $size_mb in '' | *[!0-9]*) usage ;; esac

[ "$(id -u)" = 0 ] || skip "mounting $fs needs root"
if [ "$fs" != tmpfs ]; then
    command -v "mkfs.$fs" >/dev/null || skip "mkfs.$fs is not installed"
    command -v losetup >/dev/null || skip "losetup is not installed"
fi
if ! grep -qw "$fs" /proc/filesystems; then
    modprobe "$fs" 2>/dev/null || true
    grep -qw "$fs" /proc/filesystems || skip "this kernel has no $fs"
fi
if [ "$fs" != tmpfs ]; then
    losetup --find >/dev/null 2>&1 || skip "no loop device can be had"
fi

image=
device=
directory=
mounted=
child=

cleanup() {
    local status=$?
    trap - EXIT
    # A second signal must not leave half of this undone.
    trap '' INT TERM HUP
    set +e
    # The command runs in a process group of its own, so what it left running ends with it.
    if [ -n "$child" ]; then
        kill -TERM -- "-$child" 2>/dev/null
        for _ in $(seq 50); do
            kill -0 -- "-$child" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL -- "-$child" 2>/dev/null
        wait "$child" 2>/dev/null
    fi
    if [ -n "$mounted" ]; then
        # io_uring lets go of a dead process's files a little after the process is gone.
        for _ in $(seq 50); do
            umount "$directory" 2>/dev/null && mounted= && break
            sleep 0.1
        done
        if [ -n "$mounted" ]; then
            say "$directory is still in use: it is detached now and goes when its last user does"
            umount -l "$directory"
            [ "$status" != 0 ] || status=1
        fi
    fi
    [ -z "$device" ] || losetup --detach "$device"
    [ -z "$image" ] || rm -f "$image"
    [ -z "$directory" ] || rmdir "$directory"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

directory=$(mktemp -d "${TMPDIR:-/tmp}/ringlog-$fs.XXXXXX")
if [ "$fs" = tmpfs ]; then
    mount -t tmpfs -o "size=${size_mb}m,mode=0700" ringlog-test "$directory"
else
    image=$(mktemp "${RINGLOG_IMAGE_DIR:-/var/tmp}/ringlog-$fs.XXXXXX.img")
    truncate --size="${size_mb}M" "$image"
    device=$(losetup --find --show --direct-io=on "$image")
    case $fs in
    ext4) mkfs.ext4 -q -F "$device" ;;
    xfs) mkfs.xfs -q -f "$device" ;;
    btrfs) mkfs.btrfs -q -f "$device" >/dev/null ;; # -q still prints a note
    esac
    mount -t "$fs" "$device" "$directory"
fi
mounted=yes

export RINGLOG_TEST_DIR=$directory RINGLOG_TEST_FS=$fs
# Job control gives the command its own process group; `wait` lets a signal be handled at once.
set -m
"$@" <&0 &
child=$!
set +m
status=0
wait "$child" || status=$?
exit "$status"
