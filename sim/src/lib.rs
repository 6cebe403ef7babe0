//! A deterministic world in which ringlog is tested.
//!
//! A [`SimWorld`] is the disk of one machine: media, a volatile cache, one directory. A
//! [`SimDisk`] drives it through the I/O contract, as the engine does with a real disk. The test
//! cuts the power, kills the process, arms faults and damages files through the world, opens a new
//! [`SimDisk`] on what is left, and lets the [`oracle`] judge what recovery made of it.
//!
//! Everything follows from one seed: no clock, no thread, no map with a random order. So the same
//! seed gives the same trace, and a failing seed can be run again.
//!
//! [`history`] puts the engine into this world: one seed gives one history of several lives, with
//! appends, requests, faults and recoveries, each recovery judged. [`watch`] looks over the
//! engine's shoulder while it runs.
//!
//! Beside that world, [`live`] and [`powercut`] take the real log on the real kernel: they kill its
//! process, and the power of the disk below its file system. [`soak`] does so for hours, under load.
//!
//! The world and the oracle may not know the engine or its format; `history` and `watch` do.

pub mod bit_flips;
pub mod crash;
pub mod crash_states;
pub mod cuts;
pub mod error_sweep;
pub mod faults;
pub mod fuzz;
pub mod history;
pub mod live;
pub mod mutants;
pub mod oracle;
pub mod powercut;
pub mod reference;
pub mod rng;
pub mod soak;
pub mod watch;

mod access;
mod content;
mod disk;
mod inode;
mod names;
mod names_ops;
mod power;
mod reading;
mod stats;
mod world;

pub use access::{SimWorld, WorldOptions};
pub use crash::{Crash, Keep, KeepNames, Kill, Moment, crash_states};
pub use disk::SimDisk;
pub use faults::{Class, Effect, Fault, Landed, When};
pub use inode::SECTOR_BYTES;
pub use rng::Rng;
pub use stats::SimStats;
