//! The engine on the simulated disk, one property at a time, on workloads written by hand.

mod common;
mod limits;
mod order;
mod poison;
mod policies;
mod recovery;
