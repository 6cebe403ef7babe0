//! What a user chooses: [`Format`] is frozen on disk when a log is created; [`Options`] holds for
//! one open.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

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

/// What is frozen when a log is created. Later opens find it on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Size of a segment file in bytes: a power of two from 1 MiB to 1 GiB. Default 64 MiB.
    pub segment_bytes: u64,
    /// Number of shards, 1 to 64: threads, total orders, directories. Default 1. A stream belongs
    /// to the shard that its name hashes to.
    pub shards: u16,
}

impl Default for Format {
    fn default() -> Self {
        Self { segment_bytes: limits::SEGMENT_BYTES_DEFAULT, shards: 1 }
    }
}

/// What holds for one open.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether a log may be created where there is none. Default: yes.
    pub create: bool,
    /// The format of a log that is created. Ignored when there is one.
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
    pub io: IoKind,
    /// The commit primitive; `None` measures both on the log's directory when it is created, and
    /// remembers the better one.
    pub primitive: Option<Primitive>,
    /// Whether writer threads are pinned: shard 0 to the CPU that takes the disk's interrupts, if
    /// that is one, the others to the allowed CPUs behind it in turn. Default: yes.
    pub pin: bool,
    /// Memory for records on their way to disk, for the whole log, in bytes: at least 4 MiB for
    /// each shard, 4 GiB at most. Default 32 MiB. All blocks count, also the writers' own, and what
    /// is kept of where the records of an open segment lie. Each shard has the same part of it.
    /// When a quarter is left, nothing waits for company any more; when it is used up, appends
    /// are refused.
    pub memory_bytes: usize,
    /// The largest record or atomic batch that must fit, in bytes including 16 bytes for each
    /// record, 64 KiB to 8 MiB. Default 2 MiB. Bounded by a quarter of the segment size, and of the
    /// memory of a shard, as well.
    pub batch_bytes_max: usize,
    /// How many commits may be in flight per shard, 1 to 8. Default 2.
    pub commits_in_flight: usize,
    /// How many bytes one commit may carry, 64 KiB to 64 MiB. Default 2 MiB.
    pub commit_bytes: usize,
    /// How long a commit waits for company when the disk is free, up to 1 s. Default: not at all.
    pub linger: Duration,
    /// What is kept, beside what is wanted by hand. Default: everything.
    pub retention: Retention,
    /// A segment is sealed when its first record is this old, 1 s or more. Default: only when it
    /// is full.
    pub rotate_after: Option<Duration>,
    /// Memory for indexes of sealed segments that readers have used, per shard, in bytes: 64 KiB
    /// to 4 GiB. Default 32 MiB.
    pub index_cache_bytes: usize,
    /// Memory for the newest batches, kept for followers while there are any, per shard, in bytes:
    /// 64 KiB to 1 GiB. Default 4 MiB.
    pub tail_bytes: usize,
}

/// How much of a log is kept. Whole sealed segments go, oldest first, as soon as one of the bounds
/// is passed; the open segment stays. Each shard keeps to these bounds by itself. Looked at when
/// the log is opened, when a segment is sealed, and when the oldest sealed one becomes too old; so
/// an idle log ages out to the end where [`Options::rotate_after`] is set, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Bytes of all segment files of a shard, at most: sealed, open, and prepared ahead (1 to 4,
    /// about 8 MiB); at least 4 segments. Files that a reader is in come on top, and segments that
    /// recovery writes again. `None`: any number.
    pub max_bytes: Option<u64>,
    /// A segment goes when its last record is older than this, 1 s or more. Pauses after a jump of
    /// the wall clock: see [`crate::ShardStats::age_retention_paused`]. `None`: never.
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
            pin: true,
            memory_bytes: 32 << 20,
            batch_bytes_max: 2 << 20,
            commits_in_flight: 2,
            commit_bytes: 2 << 20,
            linger: Duration::ZERO,
            retention: Retention::default(),
            rotate_after: None,
            index_cache_bytes: 32 << 20,
            tail_bytes: 4 << 20,
        }
    }
}

impl Options {
    /// The defaults, changed by the environment: `RINGLOG_DURABILITY` (memory, written, synced),
    /// `RINGLOG_SYNC` (a policy, as [`SyncPolicy`] is written),
    /// `RINGLOG_IO` (auto, uring, blocking), `RINGLOG_PRIMITIVE` (dsync, linked),
    /// `RINGLOG_PIN` (0, 1), `RINGLOG_MEMORY_BYTES`, `RINGLOG_COMMITS_IN_FLIGHT`,
    /// `RINGLOG_COMMIT_BYTES`, `RINGLOG_SEGMENT_BYTES`, `RINGLOG_SHARDS`.
    ///
    /// # Errors
    /// [`OpenError::InvalidOption`] names the variable that cannot be read.
    pub fn from_env() -> Result<Self, OpenError> {
        let mut options = Self::default();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().filter(|name| name.starts_with("RINGLOG_")) else {
                continue; // not ours, whatever it is
            };
            let Some(value) = value.to_str() else {
                let (field, reason) = (name.to_owned(), "is not text".to_owned());
                return Err(OpenError::InvalidOption { field, reason });
            };
            options.set_from_text(name, value)?;
        }
        Ok(options)
    }

    fn set_from_text(&mut self, name: &str, value: &str) -> Result<(), OpenError> {
        let invalid = |must_be: &'static str| OpenError::InvalidOption {
            field: name.to_owned(),
            reason: format!("{value:?} is not {must_be}"),
        };
        let number = || value.parse::<u64>().map_err(|_| invalid("a number"));
        let size = || value.parse::<usize>().map_err(|_| invalid("a number"));
        match name {
            "RINGLOG_DURABILITY" => {
                self.durability = match value {
                    "memory" => Durability::Memory,
                    "written" => Durability::Written,
                    "synced" => Durability::Synced,
                    _ => return Err(invalid("one of memory, written, synced")),
                }
            }
            "RINGLOG_SYNC" => {
                self.sync = value.parse().map_err(|reason: String| OpenError::InvalidOption {
                    field: name.to_owned(),
                    reason,
                })?;
            }
            "RINGLOG_IO" => {
                self.io = match value {
                    "auto" => IoKind::Auto,
                    "uring" => IoKind::Uring,
                    "blocking" => IoKind::Blocking,
                    _ => return Err(invalid("one of auto, uring, blocking")),
                }
            }
            "RINGLOG_PRIMITIVE" => {
                self.primitive = match value {
                    "dsync" => Some(Primitive::Dsync),
                    "linked" => Some(Primitive::LinkedSync),
                    _ => return Err(invalid("one of dsync, linked")),
                }
            }
            "RINGLOG_PIN" => {
                self.pin = match value {
                    "0" => false,
                    "1" => true,
                    _ => return Err(invalid("0 or 1")),
                }
            }
            "RINGLOG_MEMORY_BYTES" => self.memory_bytes = size()?,
            "RINGLOG_COMMITS_IN_FLIGHT" => self.commits_in_flight = size()?,
            "RINGLOG_COMMIT_BYTES" => self.commit_bytes = size()?,
            "RINGLOG_SEGMENT_BYTES" => self.format.segment_bytes = number()?,
            "RINGLOG_SHARDS" => {
                self.format.shards = value.parse().map_err(|_| invalid("a number below 65536"))?;
            }
            _ => {} // variables of other programs on top of ringlog
        }
        Ok(())
    }

    /// Checks every field against its bounds.
    ///
    /// # Errors
    /// [`OpenError::InvalidOption`] names the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), OpenError> {
        let check = |ok: bool, field: &str, reason: String| {
            if ok { Ok(()) } else { Err(OpenError::InvalidOption { field: field.into(), reason }) }
        };
        fn within<T: PartialOrd + Copy>(value: T, low: T, high: T) -> bool {
            low <= value && value <= high
        }
        let bound = |field: &str, value: usize, low: usize, high: usize| {
            check(within(value, low, high), field, format!("{value} is not within {low} to {high}"))
        };
        let segment = self.format.segment_bytes;
        check(
            segment.is_power_of_two()
                && within(segment, limits::SEGMENT_BYTES_MIN, limits::SEGMENT_BYTES_MAX),
            "format.segment_bytes",
            format!("{segment} is not a power of two from 1 MiB to 1 GiB"),
        )?;
        bound("format.shards", self.format.shards.into(), 1, limits::SHARDS_MAX)?;
        bound("memory_bytes", self.memory_bytes, limits::MEMORY_BYTES_MIN, 4 << 30)?;
        bound("batch_bytes_max", self.batch_bytes_max, 64 << 10, limits::BATCH_BYTES_MAX)?;
        bound("commits_in_flight", self.commits_in_flight, 1, limits::COMMITS_IN_FLIGHT_MAX)?;
        bound("commit_bytes", self.commit_bytes, 64 << 10, 64 << 20)?;
        check(
            self.linger <= Duration::from_secs(1),
            "linger",
            format!("{:?} is longer than 1 s", self.linger),
        )?;
        let second = Duration::from_secs(1);
        let not_below = |field: &str, span: Option<Duration>| {
            let ok = span.is_none_or(|span| span >= second);
            check(ok, field, format!("{:?} is shorter than 1 s", span.unwrap_or_default()))
        };
        not_below("retention.max_age", self.retention.max_age)?;
        not_below("rotate_after", self.rotate_after)?;
        self.sync.validate("sync")?;
        self.stream_sync
            .iter()
            .try_for_each(|(name, policy)| policy.validate(&format!("stream_sync[{name:?}]")))
    }

    /// Checks what depends on the format of the log that is opened.
    ///
    /// # Errors
    /// [`OpenError::InvalidOption`] names the first field that is out of bounds.
    pub(crate) fn validate_for(&self, format: Format) -> Result<(), OpenError> {
        let shards = usize::from(format.shards);
        if self.memory_bytes < limits::MEMORY_BYTES_MIN * shards {
            return Err(OpenError::InvalidOption {
                field: "memory_bytes".into(),
                reason: format!(
                    "{} is less than 4 MiB for each of {shards} shards",
                    self.memory_bytes
                ),
            });
        }
        let least = limits::RETENTION_SEGMENTS_MIN * format.segment_bytes;
        match self.retention.max_bytes {
            Some(bytes) if bytes < least => Err(OpenError::InvalidOption {
                field: "retention.max_bytes".into(),
                reason: format!("{bytes} is less than 4 segments, {least}"),
            }),
            _ => Ok(()),
        }
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
        Err(OpenError::InvalidOption { field: field.into(), reason: reason.into() })
    }
}

/// How long records wait for company under a count policy whose text names no delay.
const DELAY_DEFAULT: Duration = Duration::from_millis(10);

/// Reads `every-commit`, `every-append`, `interval:D`, `records:N[:D]`, `bytes:N[:D]` or `never`,
/// where D is a whole number with one of `us`, `ms`, `s`, `m`, `h`, and bytes may be in `K`, `M`,
/// `G` of 1024. Bounds are checked when the
/// log is opened.
impl FromStr for SyncPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let count = |number: &str| {
            number.parse::<u64>().map_err(|_| format!("{number:?} is not a whole number"))
        };
        let size = |text: &str| {
            let (number, unit) = match text.strip_suffix(['K', 'M', 'G']) {
                Some(number) if text.ends_with('K') => (number, 1 << 10),
                Some(number) if text.ends_with('M') => (number, 1 << 20),
                Some(number) => (number, 1_u64 << 30),
                None => (text, 1),
            };
            count(number)?.checked_mul(unit).ok_or_else(|| format!("{text:?} is too large"))
        };
        let delay_of = |delay: &[&str]| {
            delay.first().map_or(Ok(DELAY_DEFAULT), |text| duration_from_text(text))
        };
        match parts[..] {
            ["every-commit"] => Ok(Self::EveryCommit),
            ["every-append"] => Ok(Self::EveryAppend),
            ["never"] => Ok(Self::Never),
            ["interval", every] => Ok(Self::Interval(duration_from_text(every)?)),
            ["records", n, ref delay @ ..] if delay.len() < 2 => {
                Ok(Self::EveryRecords { records: count(n)?, max_delay: delay_of(delay)? })
            }
            ["bytes", n, ref delay @ ..] if delay.len() < 2 => {
                Ok(Self::EveryBytes { bytes: size(n)?, max_delay: delay_of(delay)? })
            }
            _ => Err(format!(
                "{text:?} is not a sync policy: every-commit, every-append, interval:10ms, \
                 records:N[:10ms], bytes:N[:10ms] or never"
            )),
        }
    }
}

/// The text that [`SyncPolicy::from_str`] reads.
impl fmt::Display for SyncPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EveryCommit => f.write_str("every-commit"),
            Self::EveryAppend => f.write_str("every-append"),
            Self::Interval(every) => write!(f, "interval:{}us", every.as_micros()),
            Self::EveryRecords { records, max_delay } => {
                write!(f, "records:{records}:{}us", max_delay.as_micros())
            }
            Self::EveryBytes { bytes, max_delay } => {
                write!(f, "bytes:{bytes}:{}us", max_delay.as_micros())
            }
            Self::Never => f.write_str("never"),
        }
    }
}

fn duration_from_text(text: &str) -> Result<Duration, String> {
    let expected = || format!("{text:?} is not a time span such as 500us, 10ms, 2s, 1m or 1h");
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(expected)?;
    let (number, unit) = text.split_at(unit_at);
    let micros_per_unit = match unit {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        _ => return Err(expected()),
    };
    let number: u64 = number.parse().map_err(|_| expected())?;
    number.checked_mul(micros_per_unit).map(Duration::from_micros).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn every_policy_can_be_written() {
        let good = [
            ("every-commit", SyncPolicy::EveryCommit),
            ("every-append", SyncPolicy::EveryAppend),
            ("never", SyncPolicy::Never),
            ("interval:10ms", SyncPolicy::Interval(10 * MS)),
            ("interval:1h", SyncPolicy::Interval(3_600_000 * MS)),
            ("records:7", SyncPolicy::EveryRecords { records: 7, max_delay: 10 * MS }),
            ("records:7:2s", SyncPolicy::EveryRecords { records: 7, max_delay: 2000 * MS }),
            ("bytes:64K", SyncPolicy::EveryBytes { bytes: 65536, max_delay: 10 * MS }),
            ("bytes:1:5ms", SyncPolicy::EveryBytes { bytes: 1, max_delay: 5 * MS }),
        ];
        for (text, policy) in good {
            assert_eq!(text.parse(), Ok(policy), "{text}");
            assert_eq!(policy.to_string().parse(), Ok(policy), "{text}, named");
        }
        for bad in [
            "",
            "sometimes",
            "interval",
            "interval:10",
            "interval:1ms:2ms",
            "records:",
            "records:-1",
            "records:1:1ms:",
            "bytes:1X",
            "interval:99999999999999999999h",
            "interval:9999999999999999h",
            "every-commit:1",
        ] {
            assert!(bad.parse::<SyncPolicy>().is_err(), "{bad:?} was taken for a policy");
        }
    }

    #[test]
    fn options_out_of_bounds_are_named() {
        let bad = [
            (Options { memory_bytes: 1, ..Options::default() }, "memory_bytes"),
            (Options { commits_in_flight: 9, ..Options::default() }, "commits_in_flight"),
            (Options { linger: 2000 * MS, ..Options::default() }, "linger"),
            (Options { sync: SyncPolicy::Interval(MS / 2), ..Options::default() }, "sync"),
            (
                Options {
                    format: Format { segment_bytes: 3 << 20, shards: 1 },
                    ..Options::default()
                },
                "format.segment_bytes",
            ),
        ];
        for (options, name) in bad {
            match options.validate() {
                Err(OpenError::InvalidOption { field, .. }) => assert_eq!(field, name),
                other => panic!("{name}: {other:?}"),
            }
        }
        assert_eq!(Options::default().validate(), Ok(()));
    }
}
