//! Measures durability: ringlog, and what one would use instead of it, beside the bare disk.
//!
//! A [`contender::Contender`] is an engine in one mode. Whatever is measured becomes a
//! [`measurement::Measurement`], one JSON object a line, always with the floor that was measured
//! just before and after it. Invariants: an engine's own word is never taken for its durability, the
//! block device counts the flushes; histograms are merged, never averaged; a ratio is of one round.

mod bare;
mod bench;
mod cli;
mod compare;
pub mod contender;
pub mod counters;
mod driven;
mod environment;
mod figures;
mod filler;
pub mod floor;
mod floors;
mod group_commit;
mod hdr;
mod load;
pub mod measurement;
mod mode;
pub mod open_loop;
mod page;
mod pauses;
pub mod percentile;
mod read;
mod reads;
mod recommend;
mod recover;
mod report;
#[cfg(feature = "rivals")]
mod rivals;
mod rotate;
mod run;
mod scale;
mod series;
mod streams;
mod summary;
pub mod workload;

pub use cli::main;
