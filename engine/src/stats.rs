//! What a log tells of itself.

use std::time::Duration;

use hdrhistogram::Histogram;
use ringlog_disk::{DiskFacts, DiskProfile};

use crate::error::{AppendError, FullReason};
use crate::ids::{Epoch, LogId, Lsn};
use crate::index::IndexReport;
use crate::observe::{Histograms, flush_histogram};
use crate::profile::CommitSettings;
use crate::recovery::ShardRecovery;
use crate::runtime::Snapshot;
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
    /// What was measured of the disk below the log, its class and what follows; `None` in memory,
    /// and where it could not be measured or was not to be ([`crate::Options::profile_disk`]).
    pub profile: Option<DiskProfile>,
    /// How the log commits, and why: an option, the profile, or the default.
    pub settings: CommitSettings,
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
    /// Records acknowledged, each at the strongest level that was asked for by those which went to
    /// the writer with it in one chunk.
    pub records_acknowledged: u64,
    /// Their payload in bytes.
    pub bytes_acknowledged: u64,
    /// Records covered by a flush.
    pub records_flushed: u64,
    /// Their payload in bytes.
    pub bytes_flushed: u64,
    /// Records placed in batches, with the shard's own.
    pub records_placed: u64,
    /// Batches written.
    pub batches: u64,
    /// Write operations that carried them.
    pub commits: u64,
    /// Bytes of each commit as written, 4 KiB to 128 MiB, two digits. Histograms of several shards
    /// have the same bounds: `add` merges them.
    pub commit_bytes: Histogram<u64>,
    /// Records of each commit, two digits.
    pub commit_records: Histogram<u64>,
    /// Bytes written for batches, with headers and padding.
    pub bytes_written: u64,
    /// Bytes written beside the batches: headers and footers of segments, manifests, catalogue and
    /// indexes, in whole blocks of 4 KiB.
    pub bytes_written_beside: u64,
    /// Bytes of new segment files, which are written once before they are used. A segment made of
    /// a trimmed one needs none.
    pub bytes_prewritten: u64,
    /// Flushes completed.
    pub flushes: u64,
    /// Flushes that failed.
    pub flush_failures: u64,
    /// Time of the last flush, in nanoseconds since 1970; 0 if there was none.
    pub last_flush_ns: u64,
    /// Flushes that io_uring hands to a worker thread of the kernel by nature: each fdatasync,
    /// alone or behind its write. Writes that the kernel hands over for reasons of its own are not
    /// counted: it does not tell. `None` without io_uring.
    pub io_wq_flushes: Option<u64>,
    /// How long flushes took, with the write that they travelled with, in nanoseconds: 1 µs to 60
    /// s, three digits. Those of several shards can be added: see [`Stats::flush_latency`].
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
    /// Appends refused, by the reason why.
    pub rejections: Rejections,
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
    /// How long opening took.
    pub recovery_time: Duration,
}

/// How many appends were refused, by the reason why. One that waits for room counts once, when it
/// gives up. What the caller could have known is not counted: `Synced` under a policy that never
/// flushes, an empty batch, a log that is open for reading only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rejections {
    /// All memory for records on their way was in use.
    pub memory: u64,
    /// The disk is full.
    pub disk: u64,
    /// Larger than a batch may be.
    pub too_large: u64,
    /// The log was closed.
    pub closed: u64,
    /// A write or a flush had failed before.
    pub poisoned: u64,
}

impl Rejections {
    /// Each reason with its name.
    pub fn each(&self) -> [(&'static str, u64); 5] {
        let Self { memory, disk, too_large, closed, poisoned } = *self;
        [
            ("memory", memory),
            ("disk", disk),
            ("too_large", too_large),
            ("closed", closed),
            ("poisoned", poisoned),
        ]
    }

    pub(crate) fn note(&mut self, refused: &AppendError) {
        match refused {
            AppendError::Full { reason: FullReason::Memory } => self.memory += 1,
            AppendError::Full { reason: FullReason::Disk | FullReason::Behind } => self.disk += 1,
            AppendError::TooLarge { .. } => self.too_large += 1,
            AppendError::Closed => self.closed += 1,
            AppendError::Poisoned(_) => self.poisoned += 1,
            AppendError::EmptyBatch
            | AppendError::NeverSynced
            | AppendError::ReadOnly
            | AppendError::UnknownStream(_) => {}
        }
    }
}

impl std::ops::AddAssign for Rejections {
    fn add_assign(&mut self, other: Self) {
        self.memory += other.memory;
        self.disk += other.disk;
        self.too_large += other.too_large;
        self.closed += other.closed;
        self.poisoned += other.poisoned;
    }
}

impl Stats {
    /// How long flushes took, over all shards.
    pub fn flush_latency(&self) -> Histogram<u64> {
        let mut all = flush_histogram();
        for shard in &self.shards {
            // Cannot fail: the bounds are the same.
            let added = all.add(&shard.flush_latency);
            debug_assert!(added.is_ok(), "histograms of flush times have the same bounds");
        }
        all
    }

    /// Bytes that the log has written since it was opened for each byte of payload appended, over
    /// all shards; `None` before the first. Counted are batches, headers, footers, manifests,
    /// catalogue, indexes and the preparing of new segments; not what recovery has written again,
    /// nor what the file system writes of its own.
    pub fn write_amplification(&self) -> Option<f64> {
        let sum = |of: fn(&ShardStats) -> u64| self.shards.iter().map(of).sum::<u64>();
        let payload = sum(|shard| shard.bytes_appended);
        (payload > 0).then(|| sum(ShardStats::bytes_to_device) as f64 / payload as f64)
    }
}

impl ShardStats {
    /// All bytes that the shard has written since it was opened.
    pub fn bytes_to_device(&self) -> u64 {
        self.bytes_written + self.bytes_written_beside + self.bytes_prewritten
    }

    /// Mean of the time that flushes took, in nanoseconds; 0 if there was none.
    pub fn flush_latency_ns_mean(&self) -> f64 {
        self.flush_latency.mean()
    }

    /// The fields that come from a look at the writer; the others are zero.
    pub(crate) fn of(shard: u16, look: Snapshot, facts: &DiskFacts) -> Self {
        let Snapshot { counts, traffic, staged, written, histograms, .. } = look;
        let Histograms { flush_ns, commit_bytes, commit_records } =
            histograms.map(|all| *all).unwrap_or_default();
        let linked = facts.commit_primitive != "RWF_DSYNC";
        let fdatasyncs = traffic.file_flushes + if linked { traffic.own_flushes } else { 0 };
        Self {
            shard,
            epoch: Epoch(0),
            records_appended: 0,
            bytes_appended: 0,
            records_acknowledged: counts.acknowledged.records,
            bytes_acknowledged: counts.acknowledged.bytes,
            records_flushed: counts.flushed.records,
            bytes_flushed: counts.flushed.bytes,
            records_placed: counts.records,
            batches: counts.batches,
            commits: counts.commits,
            commit_bytes,
            commit_records,
            bytes_written: counts.bytes_written,
            bytes_written_beside: (traffic.written + traffic.small_files)
                .saturating_sub(counts.bytes_written),
            bytes_prewritten: traffic.prewritten,
            flushes: counts.flushes,
            flush_failures: counts.flush_failures,
            last_flush_ns: counts.last_flush_ns,
            io_wq_flushes: (facts.kind == "io_uring").then_some(fdatasyncs),
            flush_latency: flush_ns,
            rotations: counts.rotations,
            rotations_by_reason: counts.sealed,
            trimmed_segments: counts.trimmed,
            recycled_segments: counts.recycled,
            age_retention_paused: look.age_retention_paused,
            pressure_flushes: counts.pressure_flushes,
            rejections: Rejections::default(),
            queue_depth: 0,
            staged_lsn: staged,
            written_lsn: written,
            durable_lsn: Lsn(0),
            segments: 0,
            indexes: IndexReport::default(),
            recovery_time: Duration::ZERO,
        }
    }
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
