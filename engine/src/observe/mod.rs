//! What is seen of a writer at work: counts and histograms of what it hands to its disk, and, with
//! the feature `tracing`, spans and events.
//!
//! Knows operations and counters, never records or files. It stands beside the way of a record:
//! per commit, not per record, and nothing here can fail or wait.

#[cfg(feature = "metrics")]
pub(crate) mod metrics;
pub(crate) mod trace;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;
use ringlog_disk::{Content, Flush, Op};

use crate::limits::BLOCK_BYTES;
use crate::shard::ShardCounts;

/// A histogram of flush times: 1 µs to 60 s, three digits. Cannot fail: the bounds are constant.
pub(crate) fn flush_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 60_000_000_000, 3).expect("constant bounds")
}

/// A histogram of bytes of a commit: 4 KiB to 128 MiB, two digits. Cannot fail, as above.
fn commit_bytes_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(BLOCK_BYTES as u64, 128 << 20, 2).expect("constant bounds")
}

/// A histogram of records of a commit: 1 to 8 million, two digits. Cannot fail, as above.
fn commit_records_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 8 << 20, 2).expect("constant bounds")
}

/// Histograms of one shard. Those of different shards have the same bounds, so they can be added.
#[derive(Clone, Debug)]
pub(crate) struct Histograms {
    pub(crate) flush_ns: Histogram<u64>,
    pub(crate) commit_bytes: Histogram<u64>,
    pub(crate) commit_records: Histogram<u64>,
}

impl Default for Histograms {
    fn default() -> Self {
        Self {
            flush_ns: flush_histogram(),
            commit_bytes: commit_bytes_histogram(),
            commit_records: commit_records_histogram(),
        }
    }
}

/// Sealed segments by the name of the reason.
#[cfg(any(feature = "metrics", feature = "tracing"))]
pub(crate) fn by_reason(sealed: crate::shard::Rotations) -> [(&'static str, u64); 4] {
    let crate::shard::Rotations { size, age, memory, hand } = sealed;
    [("size", size), ("age", age), ("memory", memory), ("hand", hand)]
}

/// What was handed to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Bytes of all direct writes: batches, segment headers and footers.
    pub(crate) written: u64,
    /// Bytes of new segment files, which are written once before they are used.
    pub(crate) prewritten: u64,
    /// Bytes of small files that are written as a whole, in blocks.
    pub(crate) small_files: u64,
    /// Flushes of a whole file: alone, or behind a write.
    pub(crate) file_flushes: u64,
    /// Writes that flush themselves, by the disk's commit primitive.
    pub(crate) own_flushes: u64,
}

/// Counts for one writer.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    pub(crate) histograms: Box<Histograms>,
    traffic: Traffic,
    /// Bytes of small files that are made later, on another thread.
    made: Arc<AtomicU64>,
    commits: u64,
    records: u64,
}

impl Meter {
    /// The shard has given out an operation; `counts` are those after it. Gives the records of the
    /// commit, if it is one.
    pub(crate) fn handed_out(&mut self, op: &mut Op, counts: &ShardCounts) -> Option<u64> {
        let mut bytes = 0;
        match op {
            Op::Write { data, flush, .. } => {
                bytes = data.iter().map(|slice| slice.len as u64).sum();
                self.traffic.written += bytes;
                self.traffic.file_flushes += u64::from(*flush == Flush::File);
                self.traffic.own_flushes += u64::from(*flush == Flush::Own);
            }
            Op::Sync { .. } => self.traffic.file_flushes += 1,
            Op::Create { bytes, .. } => self.traffic.prewritten += *bytes,
            Op::Replace { content, .. } => self.traffic.small_files += in_blocks(content.len()),
            Op::Store { content: Content::Bytes(content), .. } => {
                self.traffic.small_files += in_blocks(content.len());
            }
            Op::Store { content, .. } => {
                // How much it is comes out where it is made.
                let made = Arc::clone(&self.made);
                let make = std::mem::replace(content, Content::Bytes(Vec::new()));
                *content = Content::made_by(move || {
                    let bytes = make.into_bytes();
                    made.fetch_add(in_blocks(bytes.len()), Ordering::Relaxed);
                    bytes
                });
            }
            _ => {}
        }
        let records = counts.records - self.records;
        if counts.commits == self.commits {
            return None;
        }
        self.commits = counts.commits;
        self.records = counts.records;
        self.histograms.commit_bytes.saturating_record(bytes);
        self.histograms.commit_records.saturating_record(records);
        Some(records)
    }

    /// What was handed out so far.
    pub(crate) fn traffic(&self) -> Traffic {
        let made = self.made.load(Ordering::Relaxed);
        Traffic { small_files: self.traffic.small_files + made, ..self.traffic }
    }

    pub(crate) fn flushed(&mut self, elapsed_ns: u64) {
        self.histograms.flush_ns.saturating_record(elapsed_ns);
    }
}

fn in_blocks(bytes: usize) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES) as u64
}
