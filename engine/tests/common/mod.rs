//! What the tests of damaged logs share.
#![expect(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringlog::{Durability, Format, IoKind, Log, Options, Primitive, RecoveryMode};

/// Small segments, blocking calls.
pub fn options() -> Options {
    Options {
        format: Format { segment_bytes: 1 << 20, shards: 1 },
        io: IoKind::Blocking,
        primitive: Some(Primitive::Dsync),
        memory_bytes: 4 << 20,
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

    /// Changes the content of a file.
    pub fn change(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(path).unwrap();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
    }
}
