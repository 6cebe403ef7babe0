//! Where the records of each stream lie: kept in memory while a segment is being written, stored
//! beside it once it is sealed.
//!
//! An index is derived from the batches of its segment and from nothing else. It is never evidence
//! about the log: what is found through it is checked as if it had been found by walking.

mod cache;
mod file;
mod indexes;
mod postings;
mod rebuild;
mod restore;
mod search;
#[cfg(test)]
mod tests;

use crate::format;
use crate::format::segment::Sealed;
use crate::ids::{LogId, SegmentId};

pub use indexes::IndexReport;
pub(crate) use indexes::Indexes;
pub(crate) use postings::{Posting, Postings, Snapshot};
pub(crate) use rebuild::Source;
pub(crate) use restore::{file_bytes_max, restore};

/// The index file of a segment: `snapshot` is of exactly the batches that `covers` tells of. `None`
/// where it cannot be written down; readers then make it anew when they need it.
///
/// Cost: linear in the number of postings.
pub(crate) fn encode(
    log: LogId,
    shard: u16,
    segment: SegmentId,
    covers: &Sealed,
    snapshot: &Snapshot,
) -> Option<Vec<u8>> {
    let mut postings: Vec<Posting> = snapshot.iter().copied().collect();
    format::index::encode(log, shard, segment, covers, &mut postings, &snapshot.times)
}
