//! What is done to a log that is being written: the process is stopped, files and directories are
//! taken away, others write as well. The user is told, by name, and what was acknowledged is kept
//! or its loss is loud.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::tempdir;

use crate::common::{
    assert_exit, feed_and_wait, line, lines, on, read, ringlog, run, run_with, stderr,
};
use crate::live::{PATIENCE, Writer};

/// The first segment, the manifest, and who the log is.
const SEGMENT: &str = "shard-000/0000000000000001.seg";
const MANIFEST: &str = "shard-000/manifest";
const META: &str = "log";

fn writing(dir: &Path, io: &str) -> Command {
    let rest = ["--stream", "s", "--segment-bytes", "1M", "--print-acks"];
    let mut command = ringlog(&on("append", dir, &rest));
    command.env("RINGLOG_IO", io);
    command
}

/// A process that is stopped until this is dropped.
struct Stopped(Pid);

impl Stopped {
    /// Stops it; returns when each of its threads stands still.
    fn new(process: u32) -> Self {
        let pid = Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
        let stopped = Self(pid);
        kill_process(pid, Signal::STOP).unwrap();
        let begun = Instant::now();
        while !stands_still(process) {
            assert!(begun.elapsed() < PATIENCE, "it does not stop");
            std::thread::yield_now();
        }
        stopped
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT); // it may be gone
    }
}

/// Whether all threads are stopped. (The kernel's own, of the ring, have no say.)
fn stands_still(process: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let Some((name, rest)) = stat.rsplit_once(')') else { return true };
        name.contains("(iou-") || rest.trim_start().starts_with(['T', 't'])
    })
}

#[track_caller]
fn refused_as_locked(dir: &Path) {
    let output = run_with(&on("append", dir, &["--stream", "s"]), b"intruder\n");
    assert_exit(&output, 2);
    assert!(stderr(&output).contains("open for writing"), "{}", stderr(&output));
}

#[track_caller]
fn assert_good_end(writer: Writer, records: u64) {
    let (status, acknowledged, said) = writer.finish();
    assert_eq!(status.code(), Some(0), "{said}");
    assert_eq!(acknowledged, records);
}

/// SIGSTOP and SIGCONT, two hundred times, at whatever it is doing; also for longer.
#[test]
fn a_stopped_append_goes_on_where_it_was() {
    for io in ["auto", "blocking"] {
        let dir = tempdir().unwrap();
        let writer = Writer::run(writing(dir.path(), io), 0);
        let mut fed = 1;
        for stop in 0..200 {
            writer.feed(100);
            writer.wait_for(fed + stop % 50);
            fed += 100;
            let stopped = Stopped::new(writer.id());
            if stop % 50 == 49 {
                // It stands still, and still has the log. Others can read it, but for the last
                // commits, which nothing speaks for until it goes on.
                refused_as_locked(dir.path());
                let stored = read(dir.path(), &[]);
                assert!(stored.starts_with(&lines(0..fed - 1_000)), "{io}: {fed}");
                assert!(lines(0..fed).starts_with(&stored), "{io}: {fed}");
            }
            drop(stopped);
        }
        writer.wait_for(fed);
        assert_good_end(writer, fed);
        assert_exit(&run(&on("verify", dir.path(), &[])), 0);
        assert!(read(dir.path(), &[]) == lines(0..fed), "{io}");
    }
}

/// One at a time gets in; each of the others is told why not; nobody's line is lost or mixed.
#[test]
fn many_processes_that_begin_at_once() {
    for _ in 0..5 {
        let dir = tempdir().unwrap();
        let log = dir.path().join("log");
        let args = on("append", &log, &["--stream", "s", "--segment-bytes", "1M"]);
        let writers: Vec<_> =
            (0..8).map(|_| ringlog(&args).stdin(Stdio::piped()).spawn().unwrap()).collect();
        let mut expected = Vec::new();
        for (number, child) in (0..).zip(writers) {
            let output = feed_and_wait(child, &lines(number..number + 1));
            match output.status.code() {
                Some(0) => expected.push(line(number)),
                _ => {
                    assert_exit(&output, 2);
                    let said = stderr(&output);
                    assert!(said.contains("open for writing"), "{said}");
                }
            }
        }
        assert!(!expected.is_empty(), "nobody got in");
        assert_exit(&run(&on("verify", &log, &[])), 0);
        let stored = read(&log, &[]);
        let mut stored: Vec<&[u8]> = stored.split(|byte| *byte == b'\n').collect();
        assert_eq!(stored.pop(), Some(&b""[..]));
        stored.sort_unstable();
        expected.sort_unstable();
        assert!(stored == expected, "{} lines of {}", stored.len(), expected.len());
    }
}

/// There is no lock file that could be removed: the lock is on the directory itself.
#[test]
fn removed_files_of_a_running_log_let_no_second_writer_in() {
    for file in [META, MANIFEST] {
        let dir = tempdir().unwrap();
        let writer = Writer::start(dir.path());
        writer.feed(999);
        writer.wait_for(1_000);
        let path = dir.path().join(file);
        let saved = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        refused_as_locked(dir.path());
        // It goes on, through rotations as well.
        writer.feed(9_000);
        writer.wait_for(10_000);
        refused_as_locked(dir.path());
        assert_good_end(writer, 10_000);
        if file == META {
            // It is written once, and missed, by name. A copy does.
            for command in [
                on("verify", dir.path(), &[]),
                on("append", dir.path(), &["--stream", "s"]),
                on("read", dir.path(), &["--stream", "s"]),
            ] {
                let output = run(&command);
                assert_exit(&output, 1);
                let said = stderr(&output) + &String::from_utf8_lossy(&output.stdout);
                assert!(said.contains("log at byte 0: the file is missing"), "{said}");
            }
            fs::write(&path, saved).unwrap();
        }
        assert_exit(&run(&on("verify", dir.path(), &[])), 0);
        assert!(read(dir.path(), &[]) == lines(0..10_000), "{file}");
    }
}

fn wait_until_there(path: &Path) {
    let begun = Instant::now();
    while !path.exists() {
        assert!(begun.elapsed() < PATIENCE, "{} does not appear", path.display());
        std::thread::yield_now();
    }
}

/// What is not deleted is kept, the rest is missed by name: while it is written and afterwards.
#[test]
fn a_sealed_segment_that_is_deleted_is_missed_by_name() {
    let dir = tempdir().unwrap();
    let writer = Writer::start(dir.path());
    writer.feed(9_999);
    writer.wait_for(10_000);
    let segment = dir.path().join(SEGMENT);
    wait_until_there(&segment.with_extension("idx"));
    fs::remove_file(&segment).unwrap();
    let name = segment.file_name().unwrap().to_str().unwrap().to_owned();
    let rest_is_there = |records: u64| {
        let output = run(&on("read", dir.path(), &["--stream", "s"]));
        assert_exit(&output, 1);
        assert!(stderr(&output).contains(&name), "{}", stderr(&output));
        let all = lines(0..records);
        assert!(all.ends_with(&output.stdout) && output.stdout.len() < all.len());
        assert!(output.stdout.len() * 2 > all.len(), "only one segment is gone");
        assert_eq!(all[all.len() - output.stdout.len() - 1], b'\n', "whole records");
        let verify = run(&on("verify", dir.path(), &[]));
        assert_exit(&verify, 1);
        let said = String::from_utf8_lossy(&verify.stdout).into_owned() + &stderr(&verify);
        assert!(said.contains(&name) && said.contains("a listed segment is missing"), "{said}");
    };
    rest_is_there(10_000);
    writer.feed(2_000);
    writer.wait_for(12_000);
    assert_good_end(writer, 12_000);
    rest_is_there(12_000);
}

/// What goes into a file that has no name any more ends with the process: nothing can keep it. The
/// next who opens the log is told.
#[test]
fn an_open_segment_that_is_deleted_is_missed_at_the_next_open() {
    let dir = tempdir().unwrap();
    let writer = Writer::start(dir.path());
    let segments: Vec<PathBuf> = fs::read_dir(dir.path().join("shard-000"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    assert!(!segments.is_empty());
    for segment in segments {
        fs::remove_file(segment).unwrap();
    }
    writer.feed(99);
    writer.wait_for(100);
    writer.finish();
    for command in [on("verify", dir.path(), &[]), on("append", dir.path(), &["--stream", "s"])] {
        let output = run(&command);
        assert_exit(&output, 1);
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output);
        assert!(said.contains(".seg at byte 0"), "{said}");
        assert!(said.contains("a listed segment is missing"), "{said}");
    }
}

/// The log goes with its directory, lock and all.
#[test]
fn a_log_whose_directory_is_renamed_goes_on_there() {
    let home = tempdir().unwrap();
    let (here, there) = (home.path().join("here"), home.path().join("there"));
    let writer = Writer::start(&here);
    fs::rename(&here, &there).unwrap();
    refused_as_locked(&there);
    assert_exit(&run(&on("read", &here, &["--stream", "s"])), 2);
    writer.feed(9_999);
    writer.wait_for(10_000);
    assert_good_end(writer, 10_000);
    assert_exit(&run(&on("verify", &there, &[])), 0);
    assert!(read(&there, &[]) == lines(0..10_000));
}

#[test]
fn a_log_whose_directory_is_deleted_fails_and_says_so() {
    let home = tempdir().unwrap();
    let dir = home.path().join("log");
    let writer = Writer::start(&dir);
    // The log prepares files meanwhile, so that a directory may be found filled again.
    let limit = Instant::now() + PATIENCE;
    while fs::remove_dir_all(&dir).is_err() && dir.exists() {
        assert!(Instant::now() < limit, "the directory is never empty");
    }
    writer.feed(30_000);
    let (status, _, said) = writer.finish();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("No such file or directory"), "{said}");
    assert!(!dir.exists());
}
