//! One enum per operation, few variants, each telling the caller what to do.

use std::fmt;
use std::path::PathBuf;

use ringlog_disk::DiskError;

use crate::ids::{Lsn, Offset, SegmentId, StreamId};

/// Where stored bytes are not what they must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// The shard.
    pub shard: u16,
    /// The segment, where the damage lies in one.
    pub segment: Option<SegmentId>,
    /// The name of the file.
    pub file: String,
    /// Byte offset in the file.
    pub file_offset: u64,
    /// Position in the shard, where it is known.
    pub lsn: Option<Lsn>,
    /// What was expected and what was found.
    pub what: String,
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {}, {} at byte {}", self.shard, self.file, self.file_offset)?;
        if let Some(lsn) = self.lsn {
            write!(f, " (LSN {lsn})")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// Why a log was not opened. Nothing on disk was changed, except where the variant says so.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// An option is out of bounds: correct it.
    InvalidOption {
        /// Which one.
        field: String,
        /// The bound that it breaks.
        reason: String,
    },
    /// The log was created with another format than the options ask for: take out what is asked, or
    /// make a new log and copy the records.
    FormatDiffers {
        /// Which field of the options.
        field: String,
        /// What the options ask for.
        asked: u64,
        /// What the log has, for good.
        found: u64,
    },
    /// There is no log, and creating one was not asked for.
    NotFound(PathBuf),
    /// The directory holds something else than a log: choose another one.
    NotALog {
        /// The directory.
        dir: PathBuf,
        /// What is in the way.
        reason: String,
    },
    /// Another process, or another handle of this one, has the log open for writing: close it.
    Locked(PathBuf),
    /// The log was written by a newer version of ringlog: use that one.
    UnknownVersion {
        /// The file.
        file: String,
        /// Its format version.
        found: u16,
        /// The newest that this version knows.
        known: u16,
    },
    /// The log uses features of its format that this version does not know: use a newer one.
    UnknownFeatures {
        /// The file.
        file: String,
        /// The flags.
        found: u32,
    },
    /// Acknowledged data is damaged. Open with [`crate::RecoveryMode::ReadOnly`] to read what is
    /// left, restore a copy, or run [`crate::repair`].
    Corrupt(Corruption),
    /// The disk refused: see its kind. Recovery may have begun; opening again goes on with it.
    Disk(DiskError),
    /// A thread could not be started.
    Thread(String),
}

/// Why a record was not appended. Nothing of it is stored, and nothing will be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AppendError {
    /// The log cannot take more just now: try again later, or wait with a deadline.
    Full {
        /// What is used up.
        reason: FullReason,
    },
    /// The record or batch is larger than one batch may be: split it.
    TooLarge {
        /// What was to be appended, in bytes as stored.
        bytes: usize,
        /// The largest that fits.
        limit: usize,
    },
    /// A batch of no records: there is nothing to acknowledge.
    EmptyBatch,
    /// The shard has no stream of this number: use one that it has given.
    UnknownStream(StreamId),
    /// The log's sync policy never flushes, so the append could not be acknowledged as `Synced`:
    /// choose another durability or another policy.
    NeverSynced,
    /// The log is open for reading only.
    ReadOnly,
    /// The log was closed.
    Closed,
    /// A write or a flush failed before; the log takes nothing until it is opened again.
    Poisoned(DiskError),
}

/// What an append was refused for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FullReason {
    /// All memory for records on their way to disk is in use: the disk is slower than the
    /// producers.
    Memory,
    /// The disk, the quota or a limit of this process (descriptors, file size) has no room for the
    /// next segment. Appends go on by themselves once there is room.
    Disk,
    /// Records that this thread appended before were taken, and then given up for want of room:
    /// their receipts say so. This is told once, so that who keeps many appends outstanding stores
    /// nothing behind them unawares; the next append is taken. Told as well to threads of which
    /// nothing was given up, where many append.
    Behind,
}

/// Why a record whose append had begun is not known to be acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReceiptError {
    /// Not yet acknowledged when the time was over. The record goes on; wait again.
    Timeout,
    /// The disk was full before the record was written: it is not stored, and will not be.
    DiskFull,
    /// A write or a flush failed. Whether the record survives is known only after opening again.
    Poisoned(DiskError),
    /// The log was closed before the record was acknowledged at the level asked for. It may be
    /// stored.
    Closed,
}

/// Why a stream was not opened or created.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamError {
    /// A name has 1 to 255 bytes.
    InvalidName {
        /// The length of the refused name.
        bytes: usize,
    },
    /// There is no stream of that name.
    NotFound(String),
    /// The stream belongs to another shard of the log: use that one.
    OtherShard {
        /// Which one.
        shard: u16,
    },
    /// A shard holds no more streams than [`crate::limits::STREAMS_MAX`].
    TooMany,
    /// The creation of the stream could not be appended.
    Append(AppendError),
}

/// Why a read did not bring a record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadError {
    /// The offset was trimmed away: begin at `first`.
    Trimmed {
        /// The first offset there is.
        first: Offset,
    },
    /// The range begins behind its end, or behind the next offset of the stream.
    OutOfRange {
        /// The offset that the next record will have.
        next: Offset,
    },
    /// Stored bytes are damaged. The reader goes on behind them; `resumes_at` is the first offset
    /// that can be read again, where that is known.
    Corrupt {
        /// Where.
        corruption: Corruption,
        /// The first offset behind the damage.
        resumes_at: Option<Offset>,
    },
    /// Records are missing that a repair gave up: a gap marker stands in their place.
    Lost {
        /// The first offset that is lost.
        first: Offset,
        /// The first offset that is there again.
        next: Offset,
    },
    /// The log failed, and records from `first` on, which were given although they were not durable,
    /// may never have been. Only a [`crate::Follower`] that asked for such records meets this.
    Retracted {
        /// The first offset that was given and is not durable.
        first: Offset,
    },
    /// The disk refused.
    Disk(DiskError),
}

/// Why an operation on the whole log failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogError {
    /// The log is open for reading only.
    ReadOnly,
    /// The log was closed.
    Closed,
    /// The disk is full: the operation could not be completed.
    DiskFull,
    /// A write or a flush failed; the log takes nothing until it is opened again.
    Poisoned(DiskError),
}

/// Why a stream was not trimmed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrimError {
    /// The offset lies behind the next one of the stream: trim to `next` at most.
    OutOfRange {
        /// The offset that the next record will have.
        next: Offset,
    },
    /// The trim was not taken, and will not happen.
    Append(AppendError),
    /// The trim is not known to be durable: after opening again it holds or it does not.
    Log(LogError),
}

impl fmt::Display for TrimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange { next } => {
                write!(f, "out of range; the next record will have offset {next}")
            }
            Self::Append(error) => write!(f, "the trim could not be appended: {error}"),
            Self::Log(error) => write!(f, "the trim is not known to be durable: {error}"),
        }
    }
}

impl std::error::Error for TrimError {}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidOption { field, reason } => write!(f, "option {field}: {reason}"),
            Self::FormatDiffers { field, asked, found } => {
                write!(f, "the log was created with {field} {found}; {asked} is asked for")
            }
            Self::NotFound(dir) => write!(f, "there is no log in {}", dir.display()),
            Self::NotALog { dir, reason } => {
                write!(f, "{} is not a ringlog directory: {reason}", dir.display())
            }
            Self::Locked(dir) => {
                write!(f, "the log in {} is open for writing elsewhere", dir.display())
            }
            Self::UnknownVersion { file, found, known } => write!(
                f,
                "{file} has format version {found}; this version of ringlog knows up to {known}"
            ),
            Self::UnknownFeatures { file, found } => {
                write!(f, "{file} uses features {found:#x} that this version of ringlog lacks")
            }
            Self::Corrupt(corruption) => write!(f, "acknowledged data is damaged: {corruption}"),
            Self::Disk(error) => write!(f, "disk: {error}"),
            Self::Thread(error) => write!(f, "a thread could not be started: {error}"),
        }
    }
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { reason: FullReason::Memory } => f.write_str("the log's memory is in use"),
            Self::Full { reason: FullReason::Disk } => f.write_str(
                "the disk is full, or a limit is met (a quota, descriptors, the size of files)",
            ),
            Self::Full { reason: FullReason::Behind } => {
                f.write_str("records before it were given up, because the disk was full")
            }
            Self::TooLarge { bytes, limit } => {
                write!(f, "{bytes} bytes are more than the {limit} that fit one batch")
            }
            Self::EmptyBatch => f.write_str("a batch holds at least one record"),
            Self::UnknownStream(StreamId(id)) => write!(f, "the shard has no stream {id}"),
            Self::NeverSynced => f.write_str(
                "a synced append is never acknowledged under a policy that never flushes",
            ),
            Self::ReadOnly => f.write_str("the log is open for reading only"),
            Self::Closed => f.write_str("the log was closed"),
            Self::Poisoned(error) => write!(f, "the log failed before: {error}"),
        }
    }
}

impl fmt::Display for ReceiptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("not yet acknowledged"),
            Self::DiskFull => f.write_str("the disk was full: the record is not stored"),
            Self::Poisoned(error) => write!(f, "the log failed: {error}"),
            Self::Closed => f.write_str("the log was closed before the acknowledgement"),
        }
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidName { bytes } => {
                write!(f, "a stream's name has 1 to 255 bytes, not {bytes}")
            }
            Self::NotFound(name) => write!(f, "there is no stream {name:?}"),
            Self::OtherShard { shard } => write!(f, "the stream belongs to shard {shard}"),
            Self::TooMany => f.write_str("the shard holds no more streams"),
            Self::Append(error) => write!(f, "the stream could not be created: {error}"),
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trimmed { first } => write!(f, "trimmed; the first offset is {first}"),
            Self::OutOfRange { next } => {
                write!(f, "out of range; the next record will have offset {next}")
            }
            Self::Corrupt { corruption, .. } => write!(f, "damaged: {corruption}"),
            Self::Lost { first, next } => write!(f, "offsets {first} to before {next} were lost"),
            Self::Retracted { first } => {
                write!(f, "the log failed: offset {first} and later ones may never have been")
            }
            Self::Disk(error) => write!(f, "disk: {error}"),
        }
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReadOnly => f.write_str("the log is open for reading only"),
            Self::Closed => f.write_str("the log was closed"),
            Self::DiskFull => f.write_str("the disk is full"),
            Self::Poisoned(error) => write!(f, "the log failed: {error}"),
        }
    }
}

impl std::error::Error for OpenError {}
impl std::error::Error for AppendError {}
impl std::error::Error for ReceiptError {}
impl std::error::Error for StreamError {}
impl std::error::Error for ReadError {}
impl std::error::Error for LogError {}

impl From<DiskError> for OpenError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

impl From<DiskError> for ReadError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}
