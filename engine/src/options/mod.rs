//! What a user chooses: [`Format`] is frozen on disk when a log is created; [`Options`] holds for
//! one open.
//!
//! Every field has a method of the builder ([`OptionsBuilder`]), a variable of the environment
//! ([`VARIABLES`]) and, with the feature `serde`, a text in a configuration file. What a field may
//! be is checked in one place, [`Options::validate`]; nothing here knows of a directory or a disk.

mod builder;
mod env;
mod format;
#[cfg(feature = "serde")]
mod serial;
pub(crate) mod text;

use std::collections::BTreeMap;
use std::time::Duration;

pub use builder::OptionsBuilder;
pub use env::{VARIABLES, Variable};
pub use format::{Format, FrozenFormat};

use ringlog_disk::{IoKind, Primitive};

use crate::error::OpenError;
use crate::limits;

/// When an append counts as acknowledged. Chosen per append; [`Options::durability`] is the
/// default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Durability {
    /// The record is in the log's memory. Survives nothing; it is still written, in order, in the
    /// background.
    Memory,
    /// The device has accepted the write. Survives the death of the process, and of the kernel
    /// where the file system really writes directly (see [`crate::Stats::direct`]).
    Written,
    /// The flush that covers the record has completed. Survives power loss. The default.
    #[default]
    Synced,
}

/// When a shard flushes. A `Synced` append waits for the next flush that its policy makes; any
/// flush of a shard serves every stream of that shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Group commit: every commit that carries a `Synced` record is flushed, and the next commit
    /// begins when the disk is free; all that came meanwhile shares its flush. The default.
    #[default]
    EveryCommit,
    /// One flush for each append call, shared with nobody.
    EveryAppend,
    /// A flush when something unflushed is this old. 1 ms to 1 hour.
    Interval(Duration),
    /// A flush after this many records (at least 1), or after `max_delay`.
    EveryRecords {
        /// How many records.
        records: u64,
        /// The longest that a record waits for company.
        max_delay: Duration,
    },
    /// A flush after this many payload bytes (at least 1), or after `max_delay`.
    EveryBytes {
        /// How many bytes.
        bytes: u64,
        /// The longest that a record waits for company.
        max_delay: Duration,
    },
    /// Never, except when a segment is sealed, and at close. A `Synced` append is refused.
    Never,
}

/// Which records a reader sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Visibility {
    /// Durable ones: nothing takes them back. The default.
    #[default]
    Durable,
    /// Also those that the device has accepted and no flush has covered yet. Should the log fail or
    /// the power go off before one does, they may never have been: a follower then gets
    /// [`crate::ReadError::Retracted`].
    Written,
    /// Also those that have their place in the log and are on their way to the device.
    Staged,
}

/// What opening does when acknowledged data is damaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecoveryMode {
    /// Refuse to open, and say where the damage is. Nothing is changed. The default.
    #[default]
    Strict,
    /// Open for reading only, without changing anything on disk: everything that validates can be
    /// read, and readers report the gaps.
    ReadOnly,
}

/// What holds for one open.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct Options {
    /// Whether a log may be created where there is none. Default: yes.
    pub create: bool,
    /// The format of a log that is created, or that an existing log must have; what is `None` is
    /// the default at creation, and anything afterwards.
    pub format: Format,
    /// The durability of an append that does not name one. Default: `Synced`.
    pub durability: Durability,
    /// When shards flush. Default: `EveryCommit`.
    pub sync: SyncPolicy,
    /// Policies of streams that differ from `sync`, by the streams' names.
    pub stream_sync: BTreeMap<String, SyncPolicy>,
    /// What to do about damage. Default: `Strict`.
    pub recovery: RecoveryMode,
    /// How to reach the disk. Default: io_uring, else blocking calls (announced in
    /// [`crate::Stats::notes`]).
    #[cfg_attr(feature = "serde", serde(with = "serial::io"))]
    pub io: IoKind,
    /// The commit primitive. `None`: what suits the disk (see [`Options::profile_disk`]), else
    /// RWF_DSYNC.
    #[cfg_attr(feature = "serde", serde(with = "serial::primitive_or_none"))]
    pub primitive: Option<Primitive>,
    /// Whether the disk is measured when the log is created, and again when the log lies on
    /// another file system or device than its profile was measured on, or the profile is lost:
    /// about 50 ms, below 1 s on a slow disk. Without, a stored profile is used where there is one
    /// that holds, else defaults. Default: yes.
    pub profile_disk: bool,
    /// Whether writer threads are pinned: shard 0 to the CPU that takes the disk's interrupts, if
    /// that is one, the others to the allowed CPUs behind it in turn. Default: yes.
    pub pin: bool,
    /// Memory for records on their way to disk, for the whole log, in bytes: at least 4 MiB for
    /// each shard, 4 GiB at most. Default 32 MiB. All blocks count, also the writers' own, and what
    /// is kept of where the records of an open segment lie. Each shard has the same part of it.
    /// When a quarter is left, nothing waits for company any more; when it is used up, appends
    /// are refused.
    #[cfg_attr(feature = "serde", serde(with = "serial::memory_size"))]
    pub memory_bytes: usize,
    /// The largest record or atomic batch that must fit, in bytes including 16 bytes for each
    /// record, 64 KiB to 8 MiB. Default 2 MiB. Bounded by a quarter of the segment size, and of the
    /// memory of a shard, as well.
    #[cfg_attr(feature = "serde", serde(with = "serial::memory_size"))]
    pub batch_bytes_max: usize,
    /// How many commits may be in flight per shard, 1 to 8. `None`: what suits the disk, else
    /// [`limits::COMMITS_IN_FLIGHT_DEFAULT`].
    pub commits_in_flight: Option<usize>,
    /// How many bytes one commit may carry, 64 KiB to 64 MiB. `None`: what suits the disk, else
    /// [`limits::COMMIT_BYTES_DEFAULT`].
    #[cfg_attr(feature = "serde", serde(with = "serial::memory_size_or_none"))]
    pub commit_bytes: Option<usize>,
    /// How long a commit waits for company when the disk is free, up to 1 s. Default: not at all.
    #[cfg_attr(feature = "serde", serde(with = "serial::duration"))]
    pub linger: Duration,
    /// What is kept, beside what is wanted by hand. Default: everything.
    pub retention: Retention,
    /// A segment is sealed when its first record is this old, 1 s or more. Default: only when it
    /// is full.
    #[cfg_attr(feature = "serde", serde(with = "serial::duration_or_none"))]
    pub rotate_after: Option<Duration>,
    /// Memory for indexes of sealed segments that readers have used, per shard, in bytes: 64 KiB
    /// to 4 GiB. Default 32 MiB.
    #[cfg_attr(feature = "serde", serde(with = "serial::memory_size"))]
    pub index_cache_bytes: usize,
    /// Memory for the newest batches, kept for followers while there are any, per shard, in bytes:
    /// 64 KiB to 1 GiB. Default 4 MiB.
    #[cfg_attr(feature = "serde", serde(with = "serial::memory_size"))]
    pub tail_bytes: usize,
}

/// How much of a log is kept. Whole sealed segments go, oldest first, as soon as one of the bounds
/// is passed; the open segment stays. Each shard keeps to these bounds by itself. Looked at when
/// the log is opened, when a segment is sealed, and when the oldest sealed one becomes too old; so
/// an idle log ages out to the end where [`Options::rotate_after`] is set, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct Retention {
    /// Bytes of all segment files of a shard, at most: sealed, open, and prepared ahead (1 to 4,
    /// about 8 MiB); at least 4 segments. Files that a reader is in come on top, and segments that
    /// recovery writes again. `None`: any number.
    #[cfg_attr(feature = "serde", serde(with = "serial::size_or_none"))]
    pub max_bytes: Option<u64>,
    /// A segment goes when its last record is older than this, 1 s or more. Pauses after a jump of
    /// the wall clock: see [`crate::ShardStats::age_retention_paused`]. `None`: never.
    #[cfg_attr(feature = "serde", serde(with = "serial::duration_or_none"))]
    pub max_age: Option<Duration>,
    /// Sealed segments of a shard, at most. `None`: any number.
    pub max_segments: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            create: true,
            format: Format::default(),
            durability: Durability::Synced,
            sync: SyncPolicy::EveryCommit,
            stream_sync: BTreeMap::new(),
            recovery: RecoveryMode::Strict,
            io: IoKind::Auto,
            primitive: None,
            profile_disk: true,
            pin: true,
            memory_bytes: 32 << 20,
            batch_bytes_max: 2 << 20,
            commits_in_flight: None,
            commit_bytes: None,
            linger: Duration::ZERO,
            retention: Retention::default(),
            rotate_after: None,
            index_cache_bytes: 32 << 20,
            tail_bytes: 4 << 20,
        }
    }
}

impl Options {
    /// Checks every field against its bounds.
    ///
    /// # Errors
    /// [`OpenError::InvalidOption`] names the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), OpenError> {
        self.format.validate()?;
        let sizes = [
            ("memory_bytes", Some(self.memory_bytes), limits::MEMORY_BYTES_MIN, 4 << 30),
            ("batch_bytes_max", Some(self.batch_bytes_max), 64 << 10, limits::BATCH_BYTES_MAX),
            ("commits_in_flight", self.commits_in_flight, 1, limits::COMMITS_IN_FLIGHT_MAX),
            ("commit_bytes", self.commit_bytes, 64 << 10, 64 << 20),
            ("index_cache_bytes", Some(self.index_cache_bytes), 64 << 10, 4 << 30),
            ("tail_bytes", Some(self.tail_bytes), 64 << 10, 1 << 30),
        ];
        for (field, value, low, high) in sizes {
            if let Some(value) = value {
                within(field, value, low, high)?;
            }
        }
        if self.linger > Duration::from_secs(1) {
            return Err(invalid("linger", format!("{:?} is longer than 1 s", self.linger)));
        }
        for (field, span) in
            [("retention.max_age", self.retention.max_age), ("rotate_after", self.rotate_after)]
        {
            if let Some(span) = span.filter(|span| *span < Duration::from_secs(1)) {
                return Err(invalid(field, format!("{span:?} is shorter than 1 s")));
            }
        }
        self.sync.validate("sync")?;
        self.stream_sync
            .iter()
            .try_for_each(|(name, policy)| policy.validate(&format!("stream_sync[{name:?}]")))
    }

    /// Checks what depends on the format of the log that is opened.
    ///
    /// # Errors
    /// [`OpenError::InvalidOption`] names the first field that is out of bounds.
    pub(crate) fn validate_for(&self, format: FrozenFormat) -> Result<(), OpenError> {
        let shards = usize::from(format.shards);
        if self.memory_bytes < limits::MEMORY_BYTES_MIN * shards {
            let bytes = self.memory_bytes;
            let reason = format!("{bytes} is less than 4 MiB for each of {shards} shards");
            return Err(invalid("memory_bytes", reason));
        }
        let least = limits::RETENTION_SEGMENTS_MIN * format.segment_bytes;
        match self.retention.max_bytes {
            Some(bytes) if bytes < least => {
                let reason = format!("{bytes} is less than 4 segments, {least}");
                Err(invalid("retention.max_bytes", reason))
            }
            _ => Ok(()),
        }
    }

    /// The same options, to be changed and checked; `Options::builder()` begins with the defaults.
    pub fn to_builder(&self) -> OptionsBuilder {
        OptionsBuilder::from(self.clone())
    }

    /// Begins with the defaults. See [`OptionsBuilder`].
    pub fn builder() -> OptionsBuilder {
        OptionsBuilder::default()
    }

    /// The policy of a stream.
    pub(crate) fn sync_of(&self, stream: &str) -> SyncPolicy {
        self.stream_sync.get(stream).copied().unwrap_or(self.sync)
    }
}

impl SyncPolicy {
    /// Checks the policy's numbers.
    pub(crate) fn validate(&self, field: &str) -> Result<(), OpenError> {
        let delay =
            |d: Duration| (Duration::from_millis(1)..=Duration::from_secs(3600)).contains(&d);
        let reason = match *self {
            Self::Interval(d) if !delay(d) => "the interval must be within 1 ms to 1 h",
            Self::EveryRecords { records: 0, .. } => "records must be at least 1",
            Self::EveryBytes { bytes: 0, .. } => "bytes must be at least 1",
            Self::EveryRecords { max_delay, .. } | Self::EveryBytes { max_delay, .. }
                if !delay(max_delay) =>
            {
                "max_delay must be within 1 ms to 1 h"
            }
            _ => return Ok(()),
        };
        Err(invalid(field, reason))
    }
}

fn invalid(field: &str, reason: impl Into<String>) -> OpenError {
    OpenError::InvalidOption { field: field.into(), reason: reason.into() }
}

fn within(field: &str, value: usize, low: usize, high: usize) -> Result<(), OpenError> {
    match low <= value && value <= high {
        true => Ok(()),
        false => Err(invalid(field, format!("{value} is not within {low} to {high}"))),
    }
}

#[cfg(test)]
mod tests;
