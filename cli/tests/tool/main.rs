//! The tool as its users meet it: as a process, with arguments, pipes and exit codes.

#![expect(clippy::unwrap_used, reason = "also the helpers of tests end the test")]

mod abuse;
mod acks;
mod append_and_read;
mod common;
mod index;
mod limits;
mod live;
mod profile_disk;
mod records;
mod refusals;
mod surroundings;
mod tail;
mod tools;
