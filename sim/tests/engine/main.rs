//! The engine on the simulated disk, one property at a time, on workloads written by hand.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod closed;
mod common;
mod driven;
mod following;
mod limits;
mod order;
mod poison;
mod policies;
mod pressure;
mod recovery;
mod retention;
mod trim;
mod visibility;
