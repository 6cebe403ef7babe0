//! The I/O contract of ringlog.
//!
//! A [`Disk`] takes operations ([`Op`]) and gives back completions ([`Completion`]). It holds one
//! flat directory of files; the engine above names files and never sees a path or a descriptor.
//! Memory that the kernel may touch travels inside the operation as an owned [`Block`] and comes
//! back inside the completion, so nobody can free or change a buffer that is still in flight.
//!
//! This is the only crate of the project that contains `unsafe` code.
//!
//! Invariants that every disk keeps, and that the contract suite checks:
//! - each submitted operation gives exactly one completion, with all its blocks, also on failure;
//! - a completed write was written at full length; a short write is resumed by the disk;
//! - a completed flush covers what the operation says that it covers, else it is an error;
//! - dropping a disk waits for every operation in flight.

mod any;
pub mod block;
pub mod blocking;
mod desk;
pub mod device;
pub mod dir;
mod direct;
mod event;
pub mod floor;
#[cfg(not(loom))]
pub mod futex;
#[cfg(loom)]
#[path = "futex_loom.rs"]
pub mod futex;
#[cfg(any(test, feature = "suite"))]
pub mod hail;
pub mod memory;
mod names;
pub mod op;
pub mod options;
pub mod place;
#[doc(hidden)]
pub mod planted;
pub mod profile;
pub mod resident;
#[cfg(any(test, feature = "suite"))]
pub mod suite;
#[doc(hidden)]
pub mod sync;
mod sys;
pub mod uring;
pub mod waker;

pub use any::{AnyDisk, open, open_movable};
#[doc(hidden)]
pub use block::keep_mappings;
pub use block::{Block, BlockPool};
pub use blocking::BlockingDisk;
pub use device::{DeviceStats, block_device_stats, interrupt_cpu};
pub use dir::{Dir, entropy};
pub use memory::{MemoryDevice, MemoryDir, MemoryDisk};
pub use op::{
    Completion, Content, Disk, DiskError, DiskErrorKind, DiskFacts, Done, FileId, FileName, Flush,
    Listed, Op, Slice, Tag, Wait, run,
};
pub use options::{DiskOptions, IoKind, Primitive, Restrict};
pub use place::Place;
pub use profile::{
    Choice, DepthFigure, DiskClass, DiskFigures, DiskPlace, DiskProfile, Effort, Latency,
    SizeFigure, profile_disk, profile_disk_until,
};
pub use resident::MakingResident;
pub use uring::UringDisk;
pub use waker::Waker;

#[cfg(test)]
mod disk_tests;
#[cfg(test)]
mod kernel_tests;
#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(test)]
mod mark_tests;
#[cfg(test)]
mod replace_tests;
