//! Where the records of each stream lie: kept in memory while a segment is being written, stored
//! beside it once it is sealed.
//!
//! An index is derived from the batches of its segment and from nothing else. It is never evidence
//! about the log: what is found through it is checked as if it had been found by walking.

mod postings;

pub(crate) use postings::{Posting, Postings, Snapshot, TimePoint};
