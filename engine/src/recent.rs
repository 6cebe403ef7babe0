//! The newest batches of a shard, kept in memory for followers, so that however many there are, the
//! disk is not read at the tail.
//!
//! Nothing is kept while nobody follows. What is kept is bounded; a follower that falls behind
//! reads from disk. The writer hands over the blocks of large batches as they come back from the
//! disk, and copies small ones, whose blocks it needs itself.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringlog_disk::Block;

use crate::format::batch::BatchHeader;
use crate::ids::Lsn;

/// Where the bytes of a batch are.
pub(crate) enum Kept {
    Copied(Box<[u8]>),
    Block(Block, usize),
}

/// A batch in memory: whole, as it was written.
pub(crate) struct RecentBatch {
    pub(crate) header: BatchHeader,
    pub(crate) chain: u32,
    bytes: Kept,
}

impl RecentBatch {
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Kept::Copied(bytes) => bytes,
            Kept::Block(block, len) => &block[..*len],
        }
    }

    /// Memory that it holds.
    fn cost(&self) -> usize {
        match &self.bytes {
            Kept::Copied(bytes) => bytes.len(),
            Kept::Block(block, _) => block.len(),
        }
    }
}

#[derive(Default)]
struct Inner {
    /// In the order of the log; there may be holes.
    batches: VecDeque<Arc<RecentBatch>>,
    bytes: usize,
}

/// See the module's text.
pub(crate) struct Recent {
    bytes_max: usize,
    followers: AtomicUsize,
    /// Followers that want what is not written yet.
    eager: AtomicUsize,
    inner: Mutex<Inner>,
}

impl Recent {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let (followers, eager) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { bytes_max, followers, eager, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether written batches are to be kept.
    pub(crate) fn is_wanted(&self) -> bool {
        self.followers.load(Ordering::Relaxed) > 0
    }

    /// Whether batches are to be kept as soon as they have their place.
    pub(crate) fn is_wanted_early(&self) -> bool {
        self.eager.load(Ordering::Relaxed) > 0
    }

    /// Whether a batch is there.
    pub(crate) fn holds(&self, lsn: Lsn) -> bool {
        find(&self.lock().batches, lsn).is_ok()
    }

    /// Adds a batch. Batches may come a little out of order.
    pub(crate) fn keep(&self, header: BatchHeader, chain: u32, bytes: Kept) {
        let batch = RecentBatch { header, chain, bytes };
        let mut inner = self.lock();
        let Err(at) = find(&inner.batches, batch.header.lsn) else { return };
        inner.bytes += batch.cost();
        inner.batches.insert(at, Arc::new(batch));
        while inner.bytes > self.bytes_max {
            let Some(oldest) = inner.batches.pop_front() else { break };
            inner.bytes -= oldest.cost();
        }
    }

    /// The batch at an LSN.
    pub(crate) fn get(&self, lsn: Lsn) -> Option<Arc<RecentBatch>> {
        let inner = self.lock();
        find(&inner.batches, lsn).ok().and_then(|at| inner.batches.get(at)).map(Arc::clone)
    }

    /// The memory is needed elsewhere, or nobody follows any more.
    pub(crate) fn clear(&self) {
        let gone = std::mem::take(&mut *self.lock());
        drop(gone);
    }

    /// From now on there is a follower, until what is given back is dropped.
    pub(crate) fn follow(self: &Arc<Self>, eager: bool) -> Following {
        self.followers.fetch_add(1, Ordering::Relaxed);
        self.eager.fetch_add(usize::from(eager), Ordering::Relaxed);
        Following { recent: Arc::clone(self), eager }
    }
}

fn find(batches: &VecDeque<Arc<RecentBatch>>, lsn: Lsn) -> Result<usize, usize> {
    batches.binary_search_by(|batch| batch.header.lsn.cmp(&lsn))
}

/// The interest of one follower.
pub(crate) struct Following {
    recent: Arc<Recent>,
    eager: bool,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.recent.eager.fetch_sub(usize::from(self.eager), Ordering::Relaxed);
        if self.recent.followers.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.recent.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::batch::BatchKind;
    use crate::ids::Epoch;

    fn header(lsn: u64) -> BatchHeader {
        BatchHeader {
            kind: BatchKind::Records,
            lsn: Lsn(lsn),
            epoch: Epoch(1),
            durable_lsn: Lsn(0),
            timestamp_ns: 0,
            body_bytes: 0,
            stored_bytes: 4096,
            frames: 0,
            sections: 0,
            meta_crc: 0,
            previous: 0,
            resume: 0,
        }
    }

    #[test]
    fn the_oldest_go_first_and_all_go_with_the_last_follower() {
        let recent = Arc::new(Recent::new(3 * 4096));
        let first = recent.follow(false);
        let second = recent.follow(true);
        assert!(recent.is_wanted() && recent.is_wanted_early());
        for lsn in [0, 8192, 4096, 12288] {
            recent.keep(header(lsn), 1, Kept::Copied(vec![0; 4096].into()));
        }
        assert!(!recent.holds(Lsn(0)));
        for lsn in [4096, 8192, 12288] {
            assert_eq!(recent.get(Lsn(lsn)).map(|batch| batch.header.lsn), Some(Lsn(lsn)));
        }
        drop(second);
        assert!(recent.is_wanted() && !recent.is_wanted_early());
        assert!(recent.holds(Lsn(4096)));
        drop(first);
        assert!(!recent.is_wanted() && !recent.holds(Lsn(4096)));
    }
}
