//! **ringlog** is an embeddable, append-only, durable log.
//!
//! ```no_run
//! use ringlog::{Log, Offset, Options};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The default: acknowledged means that the record survives power loss.
//! let log = Log::open("data", Options::default())?;
//! let orders = log.stream("orders")?;
//! let receipt = orders.append(b"first")?; // returns at once
//! receipt.wait()?; // now it is durable
//! for record in orders.read(Offset(0)..)? {
//!     println!("{:?}", record?.payload());
//! }
//! log.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! One pinned writer thread per shard drains a bounded lock-free queue into aligned blocks and
//! commits them with io_uring, many records to a flush. See `docs/architecture.md`,
//! `docs/durability.md` and `docs/format.md` in the repository.
#![forbid(unsafe_code)]

mod chunk;
mod clock;
pub mod driven;
mod error;
mod failure;
#[doc(hidden)]
pub mod format;
mod ids;
mod inbox;
mod index;
pub mod limits;
mod live;
mod log;
#[cfg(all(test, loom))]
mod loom_tests;
mod names;
mod observe;
mod open;
mod options;
mod profile;
mod published;
mod queue;
mod reader;
mod receipt;
mod recent;
mod recovery;
mod refusals;
mod registry;
mod regroup;
mod runtime;
mod shard;
mod starting;
mod stats;
#[doc(hidden)]
pub mod testing;
mod tools;
mod window;

/// What is measured of a disk, and what follows from it.
pub mod disk_profile {
    pub use ringlog_disk::{
        Choice, DepthFigure, DiskClass, DiskFigures, DiskPlace, DiskProfile, Effort, Latency,
        SizeFigure,
    };
}

pub use error::{
    AppendError, Corruption, FullReason, LogError, OpenError, ReadError, ReceiptError, StreamError,
    TrimError,
};
pub use ids::{Epoch, LogId, Lsn, Offset, Position, SegmentId, StreamId};
pub use index::IndexReport;
pub use log::{Log, Stream, StreamInfo};
pub use options::{
    Durability, Format, FrozenFormat, Options, OptionsBuilder, RecoveryMode, Retention, SyncPolicy,
    VARIABLES, Variable, Visibility,
};
pub use profile::{CommitSettings, measure_disk, measure_disk_of_log};
pub use reader::{Follower, Reader, Record, RecordRef};
pub use receipt::Receipt;
pub use recovery::ShardRecovery;
pub use ringlog_disk::{DiskError, DiskErrorKind, IoKind, MemoryDevice, Primitive};
pub use shard::Rotations;
#[doc(hidden)]
pub use shard::{Reply, Request, ShardCounts, Time};
pub use stats::{RecoveryReport, Rejections, ShardStats, Stats, TrimReport};
pub use tools::{
    BadIndex, Dumped, Entry, EntryKind, IndexRebuildReport, IndexState, Inspection, LostRange,
    Progress, RepairReport, SegmentInspection, SegmentLife, SegmentStream, ShardInspection,
    StreamInspection, VerifyReport, dump, inspect, inspect_segments, rebuild_indexes, repair,
    verify,
};

/// The example of the README is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
