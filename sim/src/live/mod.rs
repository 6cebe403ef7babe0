//! The real log in a process of its own, and a judge that stands outside.
//!
//! The [`agent`] opens a log, tells what it finds, appends what the [`plan`] says, and prints each
//! acknowledgement the moment it has it. Whoever runs it keeps the [`journal`] of that, takes the
//! process or the disk away under it, and has the [`judge`] compare what the next life finds. The
//! plan gives every byte of every record from a seed, so nothing but the journal has to be kept.
//!
//! [`kills`] takes the process away; `powercut` takes the disk away.

pub mod agent;
pub mod child;
pub mod journal;
pub mod judge;
pub mod kills;
pub mod plan;
