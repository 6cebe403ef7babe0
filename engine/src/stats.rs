//! What a log tells of itself.

use hdrhistogram::Histogram;

use crate::ids::{Epoch, LogId, Lsn};
use crate::index::IndexReport;
use crate::recovery::ShardRecovery;
use crate::shard::Rotations;

/// A look at a log: what it is and what it has done since it was opened.
#[derive(Clone, Debug)]
pub struct Stats {
    /// One for each shard.
    pub shards: Vec<ShardStats>,
    /// "io_uring" or "blocking".
    pub io: &'static str,
    /// Whether writes bypass the page cache. Where they do not, `Written` survives the death of
    /// the process only.
    pub direct: bool,
    /// The primitive by which a commit is made durable.
    pub commit_primitive: &'static str,
    /// The file system.
    pub file_system: String,
    /// What is missing or falls short on this machine, in words.
    pub notes: Vec<String>,
    /// The log's identity.
    pub log_id: LogId,
    /// Size of its segments in bytes.
    pub segment_bytes: u64,
}

/// A look at one shard. Counts begin at the open.
#[derive(Clone, Debug)]
pub struct ShardStats {
    /// The shard.
    pub shard: u16,
    /// This life.
    pub epoch: Epoch,
    /// Records taken from producers.
    pub records_appended: u64,
    /// Payload bytes taken from producers.
    pub bytes_appended: u64,
    /// Chunks acknowledged at the level they asked for.
    pub chunks_acknowledged: u64,
    /// Records placed in batches, with the shard's own.
    pub records_placed: u64,
    /// Batches written.
    pub batches: u64,
    /// Write operations that carried them.
    pub commits: u64,
    /// Bytes written for batches, with headers and padding.
    pub bytes_written: u64,
    /// Flushes completed.
    pub flushes: u64,
    /// Flushes that failed.
    pub flush_failures: u64,
    /// Time of the last flush, in nanoseconds since 1970; 0 if there was none.
    pub last_flush_ns: u64,
    /// How long flushes took, with the write that they travelled with, in nanoseconds.
    pub flush_latency: Histogram<u64>,
    /// Segments opened for writing.
    pub rotations: u64,
    /// Segments sealed, by the reason why.
    pub rotations_by_reason: Rotations,
    /// Segments trimmed, by hand or by retention.
    pub trimmed_segments: u64,
    /// Segments prepared from trimmed ones.
    pub recycled_segments: u64,
    /// Why nothing is trimmed because of its age, although [`crate::Retention::max_age`] says so:
    /// the wall clock has jumped, or stands before the newest record. It goes on when
    /// [`crate::Log::retain`] is called, or after opening again.
    pub age_retention_paused: Option<String>,
    /// Times that everything was written out at once, without waiting for company, because memory
    /// ran low.
    pub pressure_flushes: u64,
    /// Appends refused for want of memory.
    pub rejected_memory: u64,
    /// Appends refused because the disk is full.
    pub rejected_disk: u64,
    /// Chunks on their way to the writer.
    pub queue_depth: usize,
    /// Everything before this has its place.
    pub staged_lsn: Lsn,
    /// Everything before this was accepted by the device.
    pub written_lsn: Lsn,
    /// Everything before this is durable.
    pub durable_lsn: Lsn,
    /// Segments that hold records.
    pub segments: usize,
    /// What readers found of the indexes of sealed segments.
    pub indexes: IndexReport,
}

/// What was found and done when a log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// One for each shard.
    pub shards: Vec<ShardRecovery>,
}

/// What a trim removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrimReport {
    /// Segments.
    pub segments: u64,
    /// Their size on disk in bytes.
    pub bytes: u64,
}
