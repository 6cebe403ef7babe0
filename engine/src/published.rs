//! What a shard's writer lets others see: watermarks, the list of segments, and where streams
//! that were trimmed begin.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::ids::{Lsn, Offset, StreamId};
use crate::shard::SegmentRef;

/// Written by the writer only; read by anyone.
#[derive(Debug, Default)]
pub(crate) struct Published {
    durable: AtomicU64,
    segments: RwLock<Arc<Vec<Arc<SegmentRef>>>>,
    /// Only streams that were trimmed by themselves, and only trims that are durable.
    trimmed: RwLock<HashMap<StreamId, Offset>>,
}

impl Published {
    /// Everything before this may be read.
    pub(crate) fn durable(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::Acquire))
    }

    pub(crate) fn set_durable(&self, lsn: Lsn) {
        if self.durable.load(Ordering::Relaxed) != lsn.0 {
            self.durable.store(lsn.0, Ordering::Release);
        }
    }

    pub(crate) fn set_segments(&self, segments: Vec<Arc<SegmentRef>>) {
        *self.segments.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(segments);
    }

    /// The segment that holds the batch at `lsn`, or the first one behind it; with it the LSN
    /// where the next segment begins. Holding the segment keeps its file from being recycled.
    pub(crate) fn segment_at(&self, lsn: Lsn) -> Option<(Arc<SegmentRef>, Option<Lsn>)> {
        let list = Arc::clone(&self.segments.read().unwrap_or_else(PoisonError::into_inner));
        let behind = list.partition_point(|segment| segment.base_lsn <= lsn);
        let at = behind.saturating_sub(1);
        let segment = Arc::clone(list.get(at)?);
        Some((segment, list.get(at + 1).map(|next| next.base_lsn)))
    }

    /// Where the log begins.
    pub(crate) fn first_lsn(&self) -> Option<Lsn> {
        let list = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        list.first().map(|segment| segment.base_lsn)
    }

    /// Records of a stream below this are not there any more, whether or not their segment still
    /// is; 0 for a stream that was never trimmed by itself.
    pub(crate) fn trimmed_before(&self, stream: StreamId) -> Offset {
        let trimmed = self.trimmed.read().unwrap_or_else(PoisonError::into_inner);
        trimmed.get(&stream).copied().unwrap_or_default()
    }

    /// Trims that are durable.
    pub(crate) fn add_trims(&self, trims: impl IntoIterator<Item = (StreamId, Offset)>) {
        let mut trims = trims.into_iter().peekable();
        if trims.peek().is_none() {
            return;
        }
        let mut trimmed = self.trimmed.write().unwrap_or_else(PoisonError::into_inner);
        for (stream, before) in trims {
            let known = trimmed.entry(stream).or_default();
            *known = before.max(*known);
        }
    }

    /// How many segments hold batches.
    pub(crate) fn segment_count(&self) -> usize {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}
