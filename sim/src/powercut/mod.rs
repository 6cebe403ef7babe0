//! Live power cuts: the real log on a real file system on a disk that loses its cache.
//!
//! A [`device::Device`] is served by [`fuse`], lies under a loop device with direct I/O, carries ext4,
//! XFS or btrfs, and a process appends to a log on it. The disk dies at a chosen write or flush; what
//! is left is mounted, recovered by the file system and by the log, and judged.
//!
//! What is random follows from the seed: plans, faults, the operation of the cut, and what of the
//! cache it keeps. How the threads of the kernel and of the log interleave does not, so a seed tells
//! what was tried, and does not replay it to the byte.

mod chance;
pub mod device;
pub mod fuse;
pub mod image;
pub mod mounts;
mod report;
mod rig;
mod scratch;

pub use report::{Report, Totals};
pub use rig::{Control, Settings, run};
