//! A full disk, for real: a small tmpfs. Needs the right to mount; skipped by name without it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ringlog::{AppendError, Durability, Format, FullReason, IoKind, Log, Options, ReceiptError};

struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(megabytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        mount(dir.path(), &format!("size={megabytes}m")).then_some(Self(dir))
    }

    fn grow(&self, megabytes: u32) {
        assert!(mount(self.0.path(), &format!("remount,size={megabytes}m")));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

fn mount(at: &Path, options: &str) -> bool {
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", options, "ringlog-test"]).arg(at);
    command.stderr(std::process::Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[test]
fn a_full_disk_refuses_keeps_what_is_acknowledged_and_goes_on_by_itself() {
    for io in [IoKind::Auto, IoKind::Blocking] {
        let Some(disk) = Mounted::new(8) else {
            skipped(format_args!("a_full_disk_refuses…: no right to mount a tmpfs"));
            return;
        };
        let dir = disk.0.path().join("log");
        let format = Format { segment_bytes: Some(1 << 20), shards: None };
        let options = Options { io, format, ..Options::default() };
        let log = Log::open(&dir, options.clone()).unwrap();
        let stream = log.stream("s").unwrap();
        let record = vec![5; 50_000];
        let mut acknowledged = 0_u64;
        let refused = loop {
            match stream.append_with(&record, Durability::Synced) {
                Ok(receipt) => match receipt.wait() {
                    Ok(position) => {
                        assert_eq!(position.offset.0, acknowledged);
                        acknowledged += 1;
                    }
                    Err(error) => {
                        assert_eq!(error, ReceiptError::DiskFull);
                    }
                },
                Err(error) => break error,
            }
        };
        assert_eq!(refused, AppendError::Full { reason: FullReason::Disk });
        assert!(acknowledged > 20, "only {acknowledged} records fitted 8 MiB");
        assert_eq!(stream.read(..).unwrap().filter(Result::is_ok).count() as u64, acknowledged);
        assert!(log.stats().shards[0].rejections.disk > 0);

        disk.grow(64);
        let begun = Instant::now();
        let receipt =
            stream.append_within(&record, Durability::Synced, Duration::from_secs(30)).unwrap();
        assert_eq!(receipt.wait().unwrap().offset.0, acknowledged);
        assert!(begun.elapsed() < Duration::from_secs(30));
        log.close().unwrap();
        let log = Log::open(&dir, options).unwrap();
        let stream = log.stream("s").unwrap();
        let read: Vec<_> = stream.read(..).unwrap().map(|record| record.unwrap()).collect();
        assert_eq!(read.len() as u64, acknowledged + 1);
        assert!(read.iter().all(|found| found.payload() == record));
    }
}

#[test]
fn a_full_disk_can_be_freed_by_trimming() {
    let Some(disk) = Mounted::new(8) else {
        skipped(format_args!("a_full_disk_can_be_freed…: no right to mount a tmpfs"));
        return;
    };
    let format = Format { segment_bytes: Some(1 << 20), shards: None };
    let log = Log::open(disk.0.path().join("log"), Options { format, ..Options::default() });
    let log = log.unwrap();
    let stream = log.stream("s").unwrap();
    let record = vec![5; 50_000];
    while stream.append(&record).map(|receipt| receipt.wait()).is_ok() {}
    assert!(log.trim(1).unwrap().segments > 0);
    let receipt = stream.append_within(&record, Durability::Synced, Duration::from_secs(30));
    receipt.unwrap().wait().unwrap();
    log.close().unwrap();
}

#[test]
fn what_waits_in_memory_for_room_holds_up_neither_a_flush_nor_a_trim() {
    let Some(disk) = Mounted::new(8) else {
        skipped(format_args!("what_waits_in_memory…: no right to mount a tmpfs"));
        return;
    };
    let format = Format { segment_bytes: Some(1 << 20), shards: None };
    let log = Log::open(disk.0.path().join("log"), Options { format, ..Options::default() });
    let log = log.unwrap();
    let stream = log.stream("s").unwrap();
    let record = vec![5; 200_000];
    let mut taken = 0;
    loop {
        match stream.append_with(&record, Durability::Memory) {
            Ok(receipt) => {
                drop(receipt);
                taken += 1;
            }
            Err(AppendError::Full { reason: FullReason::Memory }) => std::thread::yield_now(),
            Err(_) => break,
        }
    }
    assert_eq!(log.flush().err(), Some(ringlog::LogError::DiskFull));
    assert!(log.trim(1).unwrap().segments > 0);
    disk.grow(128); // more waits in memory than the trim made room for
    let begun = Instant::now();
    while log.flush().is_err() {
        // What found no room goes on by itself; until then it is said again.
        assert!(begun.elapsed() < Duration::from_secs(30));
        std::thread::yield_now();
    }
    let receipt = stream.append_within(&record, Durability::Synced, Duration::from_secs(30));
    // Everything that was taken has its place before this one: nothing was given up.
    assert_eq!(receipt.unwrap().wait().unwrap().offset.0, taken);
    log.close().unwrap();
}

#[test]
fn a_full_disk_closes_without_waiting_for_ever() {
    let Some(disk) = Mounted::new(6) else {
        skipped(format_args!("a_full_disk_closes…: no right to mount a tmpfs"));
        return;
    };
    let dir = disk.0.path().join("log");
    let format = Format { segment_bytes: Some(1 << 20), shards: None };
    let log = Log::open(&dir, Options { format, ..Options::default() }).unwrap();
    let stream = log.stream("s").unwrap();
    let record = vec![5; 50_000];
    let mut refused = 0;
    while refused < 3 {
        match stream.append_with(&record, Durability::Memory) {
            Ok(receipt) => drop(receipt),
            Err(AppendError::Full { reason: FullReason::Memory }) => std::thread::yield_now(),
            Err(_) => refused += 1,
        }
    }
    let _ = log.close(); // full or not, it returns
}

/// Says that a test cannot be run here; past the test runner, which keeps the output of tests that
/// pass to itself.
fn skipped(what: std::fmt::Arguments<'_>) {
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("skipped: {what}\n"));
}
