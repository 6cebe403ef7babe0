//! Looking at a log while another process writes it.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::common::{assert_exit, json, line, lines, on, ringlog, run, stderr};
use serde_json::Value;
use tempfile::tempdir;

/// Longer than a loaded machine needs for anything here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// An append of numbered lines, so many as it is told.
pub(crate) struct Writer {
    child: Child,
    /// How many lines it gets next.
    more: Sender<u64>,
    feeder: JoinHandle<()>,
    counter: JoinHandle<()>,
    /// How many records are acknowledged.
    acknowledged: Arc<AtomicU64>,
}

impl Writer {
    /// Starts it in a new log, and waits until one record is acknowledged.
    pub(crate) fn start(dir: &Path) -> Self {
        Self::start_at(dir, 0)
    }

    /// The same, in a log that holds so many records.
    pub(crate) fn start_at(dir: &Path, begin: u64) -> Self {
        let rest = ["--stream", "s", "--segment-bytes", "1M", "--print-acks"];
        Self::run(ringlog(&on("append", dir, &rest)), begin)
    }

    /// The same with a command line of one's own.
    pub(crate) fn run(mut command: Command, begin: u64) -> Self {
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let (more, wanted) = channel();
        let feeder = std::thread::spawn(move || {
            let mut number = begin;
            for count in wanted {
                // In an error the tool is dead.
                let _ = stdin.write_all(&lines(number..number + count));
                number += count;
            }
        });
        more.send(1).unwrap();
        let mut acks = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(acks.next().unwrap().unwrap(), begin.to_string());
        let acknowledged = Arc::new(AtomicU64::new(begin + 1));
        let counter = {
            let acknowledged = Arc::clone(&acknowledged);
            std::thread::spawn(move || {
                for ack in acks.map_while(Result::ok) {
                    // The last one may be torn when the tool is killed.
                    let count = ack.parse::<u64>().map_or(0, |offset| offset + 1);
                    acknowledged.fetch_max(count, Ordering::SeqCst);
                }
            })
        };
        Self { child, more, feeder, counter, acknowledged }
    }

    /// How many records of the log are acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Lets it append more, while something else is done.
    pub(crate) fn feed(&self, lines: u64) {
        self.more.send(lines).unwrap();
    }

    /// Waits until so many records of the log are acknowledged.
    #[track_caller]
    pub(crate) fn wait_for(&self, acknowledged: u64) {
        let begun = Instant::now();
        while self.acknowledged() < acknowledged {
            assert!(!self.counter.is_finished(), "the writer has ended");
            assert!(begun.elapsed() < PATIENCE, "{} of {acknowledged}", self.acknowledged());
            std::thread::yield_now();
        }
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends its input; gives how it ended, with how many acknowledgements, and what it said.
    pub(crate) fn finish(mut self) -> (ExitStatus, u64, String) {
        drop(self.more);
        self.feeder.join().unwrap();
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        let status = self.child.wait().unwrap();
        self.counter.join().unwrap();
        (status, self.acknowledged.load(Ordering::SeqCst), said)
    }

    /// Kills it; gives how many records of the log it has acknowledged.
    pub(crate) fn kill(mut self) -> u64 {
        self.child.kill().unwrap();
        drop(self.more);
        self.child.wait().unwrap();
        self.feeder.join().unwrap();
        self.counter.join().unwrap();
        self.acknowledged.load(Ordering::SeqCst)
    }
}

/// The payloads in the order of their offsets, from the lines of `export` or `dump`.
#[track_caller]
fn check_records(stdout: &[u8], at_least: u64) {
    let mut next = 0;
    for text in std::str::from_utf8(stdout).unwrap().lines() {
        let record: Value = serde_json::from_str(text).unwrap();
        if record["stream"] != "s" {
            continue;
        }
        assert_eq!(record["offset"], next);
        assert_eq!(record["payload"].as_str().unwrap().as_bytes(), line(next), "record {next}");
        next += 1;
    }
    assert!(next >= at_least, "{at_least} were acknowledged before, but {next} are shown");
}

#[test]
fn every_look_at_a_log_that_is_written_is_true() {
    let dir = tempdir().unwrap();
    let writer = Writer::start(dir.path());
    // Rotations go on meanwhile.
    for _ in 0..6 {
        let before = writer.acknowledged();
        for command in ["export", "dump"] {
            writer.feed(1_000);
            let output = run(&on(command, dir.path(), &["--json"]));
            assert_exit(&output, 0);
            check_records(&output.stdout, before);
        }
        writer.feed(1_000);
        let output = run(&on("read", dir.path(), &["--stream", "s", "--json"]));
        assert_exit(&output, 0);
        assert!(stderr(&output).is_empty(), "{}", stderr(&output));
        for command in ["streams", "inspect", "verify", "stats"] {
            writer.feed(1_000);
            let output = run(&on(command, dir.path(), &["--json"]));
            assert_exit(&output, 0);
            let found = json(&output);
            let next = match command {
                "streams" => &found[0]["next_offset"],
                "inspect" => &found["shards"][0]["streams"][0]["next_offset"],
                _ => &found["records"],
            };
            let next = next.as_u64().unwrap();
            assert!(next >= before, "{command}: {before} were acknowledged, {next} are shown");
        }
    }
    writer.kill();
    assert_exit(&run(&on("verify", dir.path(), &[])), 0);
}
