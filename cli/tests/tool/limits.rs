//! Limits of the process, a directory without permission, a full disk: an error that says so, or a
//! note and a slower way; never a lost acknowledgement.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::tempdir;

use crate::common::{assert_exit, feed_and_wait, lines, on, read, ringlog, run, stderr};
use crate::live::Writer;

const XFSZ: i32 = 25;

/// A command line of the tool behind a piece of shell that ends in `exec "$0" "$@"`.
fn in_shell(before: &str, args: &[&str]) -> Command {
    let plain = ringlog(args);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{before}; exec \"$0\" \"$@\"")]);
    command.arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn append_args(dir: &Path) -> Vec<&str> {
    on("append", dir, &["--stream", "s", "--segment-bytes", "1M", "--print-acks"])
}

/// How many records of the log are acknowledged after this; the last line may be torn.
fn acknowledged(output: &Output, before: u64) -> u64 {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().last().map_or(before, |ack| ack.parse::<u64>().unwrap() + 1)
}

/// The log is sound and holds lines from the first on, at least so many; gives how many.
#[track_caller]
fn stored(dir: &Path, at_least: u64) -> u64 {
    let verify = run(&on("verify", dir, &[]));
    // A log that could not be created, a stream of which nothing was ever stored: need not be there.
    if at_least > 0 || verify.status.code() != Some(2) {
        assert_exit(&verify, 0);
    }
    let output = run(&on("read", dir, &["--stream", "s"]));
    if at_least > 0 || output.status.code() != Some(2) {
        assert_exit(&output, 0);
    }
    let count = output.stdout.iter().filter(|byte| **byte == b'\n').count() as u64;
    assert!(output.stdout == lines(0..count), "these are not the first {count} lines");
    assert!(count >= at_least, "{at_least} were acknowledged, {count} are stored");
    count
}

/// Appends so many more lines behind a piece of shell; gives what came of it, and how many are
/// stored then.
fn append_under(before: &str, dir: &Path, begin: u64, count: u64) -> (Output, u64) {
    let child = in_shell(before, &append_args(dir)).stdin(Stdio::piped()).spawn().unwrap();
    let output = feed_and_wait(child, &lines(begin..begin + count));
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
    let stored = stored(dir, acknowledged(&output, begin));
    (output, stored)
}

/// Smaller than a segment, and in the middle of one. Who does not ignore SIGXFSZ is killed by it, as
/// any program is; that loses nothing either.
#[test]
fn a_limit_on_the_size_of_files() {
    for (signal, kibibytes) in
        [("", 100), ("", 700), ("trap '' XFSZ; ", 100), ("trap '' XFSZ; ", 700)]
    {
        let dir = tempdir().unwrap();
        let before = format!("{signal}ulimit -c 0; ulimit -f {}", kibibytes * 2); // in 512 bytes
        let check = |output: &Output| match signal {
            "" => assert_eq!(output.status.signal(), Some(XFSZ), "{}", stderr(output)),
            _ => {
                assert_exit(output, 1);
                assert!(stderr(output).contains("error"), "{}", stderr(output));
            }
        };
        // No segment can be made …
        let (output, none) = append_under(&before, dir.path(), 0, 5_000);
        check(&output);
        assert_eq!(none, 0);
        // … and one that is there can be filled up to the limit.
        let (output, begin) = append_under("true", dir.path(), 0, 10);
        assert_exit(&output, 0);
        let (output, more) = append_under(&before, dir.path(), begin, 5_000);
        check(&output);
        // Without the limit it goes on.
        let (output, all) = append_under("true", dir.path(), more, 5_000);
        assert_exit(&output, 0);
        assert_eq!(all, more + 5_000);
    }
}

#[test]
fn a_limit_on_descriptors() {
    let dir = tempdir().unwrap();
    let (mut begin, mut refused, mut done) = (0, 0, 0);
    for descriptors in 7..24 {
        let limit = format!("ulimit -n {descriptors}");
        let (output, stored) = append_under(&limit, dir.path(), begin, 5_000);
        begin = stored;
        let said = stderr(&output);
        match output.status.code() {
            Some(0) => done += 1,
            Some(1 | 2) => {
                assert!(said.contains("Too many open files") || said.contains("limit"), "{said}");
                refused += 1;
            }
            other => panic!("{descriptors} descriptors: {other:?} {said}"),
        }
    }
    assert!(refused > 0 && done > 0, "{refused} refused, {done} done");
}

#[test]
fn no_memory_may_be_locked() {
    // Root may lock what it likes, so it gives that right away.
    let drop = "exec setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock --no-new-privs";
    let drop = if is_root() { drop } else { "exec" };
    if is_root()
        && !Command::new("setpriv").arg("--version").output().is_ok_and(|o| o.status.success())
    {
        return skipped("no_memory_may_be_locked", "no setpriv");
    }
    let dir = tempdir().unwrap();
    // The `exec` of this line is the one that runs.
    let before = format!("ulimit -l 0; {drop} \"$0\" \"$@\"");
    let (output, stored) = append_under(&before, dir.path(), 0, 5_000);
    assert_exit(&output, 0);
    assert_eq!(stored, 5_000);
    assert!(stderr(&output).contains("ulimit -l"), "no note: {}", stderr(&output));
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The permission to write is taken away under the writer, then from who opens the log, then given
/// back.
#[test]
fn a_directory_that_becomes_read_only() {
    let test = "a_directory_that_becomes_read_only";
    const NOBODY: u32 = 65534;
    let home = tempdir().unwrap();
    let dir = home.path().join("log");
    fs::create_dir(&dir).unwrap();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let mut before = "true".to_owned();
    if is_root() {
        // Root writes where it likes, so it becomes somebody else.
        mode(home.path(), 0o755);
        std::os::unix::fs::chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
        before =
            format!("exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups \"$0\" \"$@\"");
        let tried = in_shell(&before, &["--version"]).output();
        if !tried.is_ok_and(|output| output.status.success()) {
            return skipped(test, "setpriv cannot run the tool as nobody here");
        }
    }
    let writer = Writer::run(in_shell(&before, &append_args(&dir)), 0);
    writer.feed(99);
    writer.wait_for(100);
    let shard = dir.join("shard-000");
    mode(&shard, 0o500);
    mode(&dir, 0o500);
    // The open segment can still be filled; then there is none to go on with.
    writer.feed(30_000);
    let (status, acknowledged, said) = writer.finish();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("Permission denied"), "{said}");
    let begin = stored(&dir, acknowledged);
    let (output, still) = append_under(&before, &dir, begin, 10);
    assert_exit(&output, 2);
    assert!(stderr(&output).contains("for writing: no permission"), "{}", stderr(&output));
    assert_eq!(still, begin);
    mode(&dir, 0o700);
    mode(&shard, 0o700);
    let (output, all) = append_under(&before, &dir, begin, 5_000);
    assert_exit(&output, 0);
    assert_eq!(all, begin + 5_000);
}

/// A file system of its own that can grow; taken away in the end.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn mount(&self, options: &str) -> bool {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "ringlog-test"]).arg(self.0.path());
        command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let mut command = Command::new("umount");
        let _ = command.arg("--lazy").arg(self.0.path()).stderr(Stdio::null()).status();
    }
}

#[test]
fn a_full_disk_that_has_room_again() {
    let disk = Mounted(tempdir().unwrap());
    if !disk.mount("size=8m") {
        return skipped("a_full_disk_that_has_room_again", "no right to mount a tmpfs");
    }
    let dir = disk.0.path().join("log");
    let (output, full) = append_under("true", &dir, 0, 60_000);
    assert_exit(&output, 1);
    assert!(stderr(&output).contains("the disk is full"), "{}", stderr(&output));
    assert!(full > 10_000, "only {full} records fitted 8 MiB");
    // Again and again: nothing changes, nothing is lost.
    for _ in 0..3 {
        let (output, still) = append_under("true", &dir, full, 60_000);
        assert_exit(&output, 1);
        assert!(still >= full && still < full + 10_000, "{full} {still}");
        if still > full {
            break; // a segment that was prepared had room left
        }
    }
    let full = stored(&dir, full);
    assert!(disk.mount("remount,size=64m"));
    let (output, all) = append_under("true", &dir, full, 5_000);
    assert_exit(&output, 0);
    assert_eq!(all, full + 5_000);
    assert!(read(&dir, &[]) == lines(0..all));
}

/// Says that a test cannot be run here; past the test runner, which keeps the output of tests that
/// pass to itself.
fn skipped(test: &str, why: &str) {
    let line = format!("skipped: {test}: {why}\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}
