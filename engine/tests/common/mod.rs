//! What the tests of damaged logs share.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringlog::{
    Durability, Format, IoKind, Log, Options, Primitive, ReadError, RecoveryMode, RepairReport,
    Stream,
};

/// Small segments, blocking calls.
pub fn options() -> Options {
    Options {
        format: Format { segment_bytes: Some(1 << 20), shards: None },
        io: IoKind::Blocking,
        primitive: Some(Primitive::Dsync),
        profile_disk: false,
        memory_bytes: 8 << 20,
        pin: false,
        ..Options::default()
    }
}

/// The same, changing nothing.
pub fn read_only() -> Options {
    Options { recovery: RecoveryMode::ReadOnly, create: false, ..options() }
}

/// Whether a log was there, or only files.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Every file below `dir`.
pub fn files(dir: &Path) -> Files {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.insert(path.clone(), Vec::new());
                left.push(path);
            } else {
                found.insert(path.clone(), std::fs::read(path).unwrap());
            }
        }
    }
    found
}

/// The record of a stream at an offset: its own bytes, so that no other can stand for it.
pub fn record(stream: &str, offset: u64) -> Vec<u8> {
    let mut record = format!("{stream} {offset} ").into_bytes();
    let bytes = offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
    record.resize(record.len() + bytes as usize, b'a' + (offset % 26) as u8);
    record
}

/// Streams of the fixture.
pub const STREAMS: [&str; 3] = ["alpha", "beta", "gamma"];

/// A closed log: one sealed segment, one open one, each with several batches of several streams.
pub struct Fixture {
    dir: tempfile::TempDir,
    /// Records of each stream.
    pub each: u64,
    /// Records of each stream in the sealed segment.
    pub sealed_each: u64,
}

/// Appends records of every stream from its next offset on, in small batches.
pub fn append_round(log: &Log, records: u64) {
    for name in STREAMS {
        let stream = log.stream(name).unwrap();
        let next = stream.next_offset().0;
        let batch: Vec<Vec<u8>> = (next..next + records).map(|at| record(name, at)).collect();
        let receipt = stream
            .append_batch_within(&batch, Durability::Synced, Duration::from_secs(10))
            .unwrap();
        receipt.wait().unwrap();
    }
}

impl Fixture {
    pub fn new() -> Self {
        Self::with(&options(), 4, 3)
    }

    pub fn with(options: &Options, sealed_rounds: u64, open_rounds: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), options.clone()).unwrap();
        for _ in 0..sealed_rounds {
            append_round(&log, 8);
        }
        log.rotate().unwrap();
        for _ in 0..open_rounds {
            append_round(&log, 8);
        }
        log.close().unwrap();
        let each = (sealed_rounds + open_rounds) * 8;
        Self { dir, each, sealed_each: sealed_rounds * 8 }
    }

    /// The same log, with these files in another directory.
    pub fn from_files(other: &Self, files: &Files) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let to = dir.path().join(path.strip_prefix(other.path()).unwrap());
            if path.is_dir() {
                std::fs::create_dir(&to).unwrap();
            } else {
                std::fs::write(&to, content).unwrap();
            }
        }
        Self { dir, each: other.each, sealed_each: other.sealed_each }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn records(&self) -> u64 {
        self.each * STREAMS.len() as u64
    }

    pub fn files(&self) -> Files {
        files(self.path())
    }

    pub fn shard(&self, name: &str) -> PathBuf {
        self.path().join("shard-000").join(name)
    }

    pub fn segment(&self, number: u64) -> PathBuf {
        self.shard(&format!("{number:016x}.seg"))
    }

    /// The stream catalogue, which is one part here: there is little to say.
    pub fn catalogue(&self) -> PathBuf {
        let is_part = |path: &PathBuf| path.extension().is_some_and(|end| end == "cat");
        let files = std::fs::read_dir(self.shard("")).unwrap();
        let parts: Vec<PathBuf> = files.map(|file| file.unwrap().path()).filter(is_part).collect();
        assert_eq!(parts.len(), 1, "{parts:?}");
        parts[0].clone()
    }

    /// Changes the content of a file.
    pub fn change(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(path).unwrap();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
    }
}

/// What reading every stream to its end brought.
#[derive(Debug, Default)]
pub struct Content {
    /// Offsets that were read, per stream; each record was the right one.
    pub offsets: BTreeMap<String, BTreeSet<u64>>,
    pub errors: Vec<ReadError>,
}

impl Content {
    pub fn of(log: &Log) -> Self {
        let mut content = Self::default();
        for name in STREAMS {
            let Ok(stream) = log.existing_stream(name) else { continue };
            content.read(&stream, name);
        }
        content
    }

    /// Reads a stream whose records were written as those of `name`.
    pub fn read(&mut self, stream: &Stream, name: &str) {
        let offsets = self.offsets.entry(stream.name().to_owned()).or_default();
        for item in stream.read(..).unwrap() {
            match item {
                Ok(found) => {
                    let offset = found.offset().0;
                    assert_eq!(found.payload(), record(name, offset), "{name} {offset}");
                    assert!(offsets.insert(offset), "{name} {offset} came twice");
                }
                Err(error) => self.errors.push(error),
            }
        }
    }

    pub fn count(&self) -> u64 {
        self.offsets.values().map(|offsets| offsets.len() as u64).sum()
    }
}

/// Repairs the fixture and checks everything that a repair promises. Gives what it said, and how
/// many of the fixture's records are left.
pub fn repair_and_check(fixture: &Fixture, options: &Options) -> (RepairReport, u64) {
    let before = fixture.files();
    let read_only = Options { recovery: RecoveryMode::ReadOnly, create: false, ..options.clone() };
    let readable = Log::open(fixture.path(), read_only).map(|log| Content::of(&log)).ok();
    let report = ringlog::repair(fixture.path(), &mut |_| {}).unwrap();

    // Whatever has changed was copied.
    let after = fixture.files();
    for (path, old) in before.iter().filter(|(path, old)| after.get(*path) != Some(old)) {
        if path.extension().is_some_and(|extension| extension == "tmp") {
            continue; // what an earlier repair left half-made
        }
        let backup = report.backup.as_ref().unwrap();
        let copy = backup.join(path.strip_prefix(fixture.path()).unwrap());
        assert_eq!(after.get(&copy), Some(old), "{path:?} has no copy");
    }

    let verified = ringlog::verify(fixture.path(), &mut |_| {}).unwrap();
    assert_eq!(verified.damage, [], "{report:?}");
    let again = ringlog::repair(fixture.path(), &mut |_| {}).unwrap();
    assert!(!again.changed(), "{again:?}");

    let log = Log::open(fixture.path(), options.clone()).unwrap();
    let content = Content::of(&log);
    for error in &content.errors {
        assert!(matches!(error, ReadError::Lost { .. }), "{error:?}");
    }
    if let Some(readable) = readable {
        for (stream, offsets) in &readable.offsets {
            let kept = content.offsets.get(stream).cloned().unwrap_or_default();
            assert!(offsets.is_subset(&kept), "{stream}: repair dropped what could be read");
        }
    }
    // Each record is there, or listed as lost; never both.
    let is_lost = |stream: &str, offset: u64| {
        report
            .lost
            .iter()
            .any(|lost| lost.stream == stream && (lost.first.0..lost.next.0).contains(&offset))
    };
    let nothing = BTreeSet::new();
    for name in STREAMS {
        let kept = content.offsets.get(name).unwrap_or(&nothing);
        if log.existing_stream(name).is_err() {
            continue; // under a name that was made up: the caller looks
        }
        for offset in 0..fixture.each {
            let there = kept.contains(&offset);
            assert_ne!(there, is_lost(name, offset), "{name} {offset}: there {there} {report:?}");
        }
    }
    // And the log goes on: no offset is given twice.
    for name in STREAMS {
        let Ok(stream) = log.existing_stream(name) else { continue };
        let next = stream.next_offset();
        assert!(next.0 >= fixture.each, "{name} goes on at {next}: {report:?}");
        let position = stream.append(&record(name, next.0)).unwrap().wait().unwrap();
        assert_eq!(position.offset, next);
    }
    log.close().unwrap();
    let log = Log::open(fixture.path(), options.clone()).unwrap();
    let reopened = Content::of(&log);
    assert_eq!(reopened.count(), content.count() + content.offsets.len() as u64);
    log.close().unwrap();
    assert_eq!(ringlog::verify(fixture.path(), &mut |_| {}).unwrap().damage, []);
    (report, content.count())
}
