//! A log that was not closed: another process fills it and is killed.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use ringlog::{Durability, Options, SyncPolicy};
use ringlog_disk::IoKind;

use crate::workload::{self, incompressible};

/// What the log holds: most of one open segment.
const FILLED_BYTES: u64 = 60 << 20;
/// Payload of its records, and what each takes on disk.
pub(crate) const FILLED_RECORD_BYTES: usize = 256;
const FRAMED_BYTES: u64 = 272;
/// Where a filled segment has records and a prepared one has zeros.
const DATA_AT: u64 = 1 << 20;

/// A process that fills a log; killed when this goes.
pub(crate) struct Filler(Child);

impl Filler {
    /// Starts it.
    ///
    /// # Errors
    /// When there is no such process, in words.
    pub(crate) fn start(dir: &Path, io: IoKind) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| format!("own program: {error}"))?;
        let io = match io {
            IoKind::Auto => "auto",
            IoKind::Uring => "uring",
            IoKind::Blocking => "blocking",
        };
        Command::new(program)
            .arg("fill-until-killed")
            .arg(dir)
            .arg(FILLED_BYTES.to_string())
            .arg(io)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map(Self)
            .map_err(|error| format!("start the filling process: {error}"))
    }

    /// Waits until the log is full, and kills.
    ///
    /// # Errors
    /// When the process ended before, in words.
    pub(crate) fn kill_when_full(mut self) -> Result<(), String> {
        let stdout = self.0.stdout.take().ok_or("the filling process has no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).map_err(|error| format!("fill: {error}"))?;
        if line.trim() == "full" { Ok(()) } else { Err("the filling process ended".to_owned()) }
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        // Both only fail when the process has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The filling process: appends about `bytes`, flushes, says "full", and waits for its end.
///
/// # Errors
/// What went wrong before it was full, in words.
pub(crate) fn fill_until_killed(dir: &Path, bytes: u64, io: IoKind) -> Result<(), String> {
    let options = Options { io, ..Options::default() };
    let log = workload::open(dir, SyncPolicy::EveryCommit, &options)?;
    let stream = log.stream("filling").map_err(|error| format!("stream: {error}"))?;
    let record = incompressible(FILLED_RECORD_BYTES, 1);
    for _ in 0..bytes / FRAMED_BYTES {
        // The flush below answers for all of them.
        drop(
            stream
                .append_within(&record, Durability::Memory, Duration::from_secs(60))
                .map_err(|error| format!("append: {error}"))?,
        );
    }
    log.flush().map_err(|error| format!("flush: {error}"))?;
    // An idle log notes within some 5 ms how far it is durable.
    thread::sleep(Duration::from_millis(50));
    println!("full");
    loop {
        thread::park();
    }
}

/// The segment below `dir` that holds the records. A prepared one is as large, and may be younger,
/// but holds zeros: the records reach far beyond the place looked at.
pub(crate) fn filled_segment(dir: &Path) -> Option<PathBuf> {
    std::fs::read_dir(dir).ok()?.flatten().find_map(|entry| {
        let facts = entry.metadata().ok()?;
        if facts.is_dir() {
            return filled_segment(&entry.path());
        }
        let mut bytes = [0; 4096];
        let file = std::fs::File::open(entry.path()).ok()?;
        file.read_exact_at(&mut bytes, DATA_AT).ok()?;
        bytes.iter().any(|byte| *byte != 0).then(|| entry.path())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filled_segment_is_found_beside_a_younger_prepared_one() {
        let dir = tempfile::tempdir().unwrap();
        let shard = dir.path().join("shard");
        std::fs::create_dir(&shard).unwrap();
        std::fs::write(shard.join("manifest"), "small").unwrap();
        std::fs::write(shard.join("a-prepared"), vec![0; 2 << 20]).unwrap();
        assert_eq!(filled_segment(dir.path()), None);
        std::fs::write(shard.join("filled"), vec![7; 2 << 20]).unwrap();
        std::fs::write(shard.join("z-prepared"), vec![0; 2 << 20]).unwrap();
        assert_eq!(filled_segment(dir.path()), Some(shard.join("filled")));
    }
}
