//! What the writer of a shard notes of each batch, for whoever looks for a record in a segment
//! that is not sealed yet.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use crate::format::index::{Posting, TimePoint};
use crate::ids::{Offset, StreamId};

/// Postings that are kept together: a reader shares full pieces with the writer.
const PIECE: usize = 4096;
/// A point in time is noted for a batch that lies this many blocks behind the last one noted.
pub(crate) const TIME_STEP_BLOCKS: u32 = 16;

#[derive(Debug, Default)]
struct Inner {
    full: Vec<Arc<[Posting]>>,
    last: Vec<Posting>,
    times: Vec<TimePoint>,
    /// Blocks that are covered.
    end_block: u32,
}

/// The postings of one segment, in the order of the log. Shared by the writer, which adds, and
/// readers, which take a snapshot.
#[derive(Debug, Default)]
pub(crate) struct Postings(Mutex<Inner>);

/// What a segment held at some moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pieces: Vec<Arc<[Posting]>>,
    /// In order; a sparse selection of the batches, the first one included.
    pub(crate) times: Vec<TimePoint>,
    /// Blocks behind the segment's header that this covers.
    pub(crate) end_block: u32,
}

impl Postings {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch of `blocks` blocks at `block` holds these runs: stream, first offset, records.
    pub(crate) fn add_batch(
        &self,
        block: u32,
        blocks: u32,
        timestamp_ns: u64,
        runs: impl IntoIterator<Item = (StreamId, Offset, u32)>,
    ) {
        let mut inner = self.lock();
        let step = inner.times.last().is_none_or(|last| block - last.block >= TIME_STEP_BLOCKS);
        if step {
            inner.times.push(TimePoint { timestamp_ns, block });
        }
        for (stream, first, records) in runs {
            match inner.last.last_mut() {
                Some(last)
                    if last.stream == stream && last.block == block && last.end() == first =>
                {
                    last.records += records;
                    continue;
                }
                _ => {}
            }
            if inner.last.len() == PIECE {
                let full = std::mem::replace(&mut inner.last, Vec::with_capacity(PIECE));
                inner.full.push(full.into());
            }
            inner.last.push(Posting { stream, records, first, block, blocks });
        }
        inner.end_block = block + blocks;
    }

    /// Where the last batch begins and how many blocks it has, if anything was noted. Behind the
    /// last batch with records lie only watermarks, of one block each.
    pub(crate) fn last_batch(&self) -> Option<(u32, u32)> {
        let inner = self.lock();
        let last = inner.last.last().or_else(|| inner.full.last().and_then(|full| full.last()));
        let of_records = last.filter(|last| last.block + last.blocks >= inner.end_block);
        match of_records {
            Some(last) => Some((last.block, last.blocks)),
            None => inner.end_block.checked_sub(1).map(|block| (block, 1)),
        }
    }

    /// What is there now. Cost: a copy of at most 4096 postings.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let inner = self.lock();
        let mut pieces = inner.full.clone();
        if !inner.last.is_empty() {
            pieces.push(inner.last.as_slice().into());
        }
        Snapshot { pieces, times: inner.times.clone(), end_block: inner.end_block }
    }

    /// The postings of what an index covers, in the order of the log.
    pub(crate) fn restored(all: &[Posting], times: Vec<TimePoint>, end_block: u32) -> Self {
        let pieces = all.chunks_exact(PIECE);
        let last = pieces.remainder().to_vec();
        Self(Mutex::new(Inner { full: pieces.map(Arc::from).collect(), last, times, end_block }))
    }

    /// Memory in use, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let inner = self.lock();
        (inner.full.len() + 1) * PIECE * size_of::<Posting>()
            + inner.times.len() * size_of::<TimePoint>()
    }

    /// Gives the memory back, once the index is stored.
    pub(crate) fn clear(&self) {
        *self.lock() = Inner::default();
    }
}

impl Snapshot {
    /// All postings, in the order of the log.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Posting> {
        self.pieces.iter().flat_map(|piece| piece.iter())
    }

    /// The postings of one stream, in order. Cost: a look at every posting.
    pub(crate) fn of(&self, stream: StreamId) -> Vec<Posting> {
        self.iter().filter(|posting| posting.stream == stream).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_runs_of_a_batch_are_one_posting_and_pieces_are_shared() {
        let postings = Postings::default();
        let run = |stream, first, records| (StreamId(stream), Offset(first), records);
        postings.add_batch(0, 2, 10, [run(1, 0, 3), run(1, 3, 1), run(2, 0, 1)]);
        let before = postings.snapshot();
        for at in 0..PIECE as u64 {
            postings.add_batch(2 + at as u32, 1, 11 + at, [run(1, 4 + at, 1)]);
        }
        assert_eq!(before.iter().count(), 2);
        assert_eq!(before.of(StreamId(1))[0].end(), Offset(4));
        let now = postings.snapshot();
        assert_eq!(now.iter().count(), 2 + PIECE);
        assert_eq!(now.of(StreamId(1)).len(), 1 + PIECE);
        assert_eq!(now.end_block, 2 + PIECE as u32);
        assert_eq!(now.times[0], TimePoint { timestamp_ns: 10, block: 0 });
        assert_eq!(now.times[1].block, TIME_STEP_BLOCKS);
        postings.clear();
        assert_eq!(postings.snapshot().iter().count(), 0);
    }
}
