//! What a shard's writer lets others see: watermarks, the list of segments, the newest batches; and
//! how those who wait for more are woken.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::task::Waker;
use std::time::Duration;

use ringlog_disk::planted::{Bug, planted};
use ringlog_disk::sync::ordered::{AtomicU32, AtomicU64, Ordering};
use ringlog_disk::sync::{Mutex, OnceLock, RwLock};
use ringlog_disk::{DiskError, futex};

use crate::ids::{Lsn, Offset, StreamId};
use crate::options::Visibility;
use crate::recent::Recent;
use crate::shard::SegmentRef;

/// Written by the writer only; read by anyone.
pub(crate) struct Published {
    durable: AtomicU64,
    written: AtomicU64,
    staged: AtomicU64,
    segments: RwLock<Arc<Vec<Arc<SegmentRef>>>>,
    /// Only streams that were trimmed by themselves, and only trims that are durable.
    trimmed: RwLock<HashMap<StreamId, Offset>>,
    /// The newest batches.
    pub(crate) recent: Arc<Recent>,
    /// Set when the writer has ended; with its failure, if it failed.
    ended: OnceLock<Option<DiskError>>,
    /// Changes whenever somebody who waits should look again.
    signal: AtomicU32,
    waiting: AtomicU32,
    wakers: Mutex<Vec<Waker>>,
}

/// Who waits for durable records only is not woken by others.
fn bit(visibility: Visibility) -> u32 {
    match visibility {
        Visibility::Durable => 0b001,
        Visibility::Written => 0b010,
        Visibility::Staged => 0b100,
    }
}

impl Published {
    /// Nothing yet. `recent_bytes`: memory for the newest batches.
    pub(crate) fn new(recent_bytes: usize) -> Self {
        Self {
            durable: AtomicU64::new(0),
            written: AtomicU64::new(0),
            staged: AtomicU64::new(0),
            segments: RwLock::default(),
            trimmed: RwLock::default(),
            recent: Arc::new(Recent::new(recent_bytes)),
            ended: OnceLock::new(),
            signal: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            wakers: Mutex::default(),
        }
    }

    /// Everything before this is durable.
    pub(crate) fn durable(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::SeqCst))
    }

    /// Everything before this may be read at this visibility.
    pub(crate) fn mark(&self, visibility: Visibility) -> Lsn {
        Lsn(match visibility {
            Visibility::Durable => &self.durable,
            Visibility::Written => &self.written,
            Visibility::Staged => &self.staged,
        }
        .load(Ordering::SeqCst))
    }

    /// Moves the watermarks, and wakes those whom that serves.
    pub(crate) fn set_marks(&self, staged: Lsn, written: Lsn, durable: Lsn) {
        let mut bits = 0;
        let marks = [
            (&self.staged, staged, Visibility::Staged),
            (&self.written, written, Visibility::Written),
            (&self.durable, durable, Visibility::Durable),
        ];
        for (mark, lsn, visibility) in marks {
            if mark.load(Ordering::Relaxed) != lsn.0 {
                mark.store(lsn.0, Ordering::SeqCst);
                bits |= bit(visibility);
            }
        }
        if bits != 0 {
            self.wake(bits);
        }
    }

    /// For a log without a writer: all marks are the same.
    pub(crate) fn set_durable(&self, lsn: Lsn) {
        self.set_marks(lsn, lsn, lsn);
    }

    /// The writer has ended, or failed: nothing more becomes durable.
    pub(crate) fn end(&self, failure: Option<DiskError>) {
        if self.ended.set(failure).is_ok() {
            self.wake(u32::MAX);
        }
    }

    /// Whether the writer has ended; with its failure, if it failed. What it published before can
    /// be seen by whoever sees this.
    pub(crate) fn ended(&self) -> Option<Option<DiskError>> {
        self.ended.get().cloned()
    }

    fn wake(&self, bits: u32) {
        // Whoever waits has said so before looking at the marks a last time.
        if self.waiting.load(Ordering::SeqCst) == 0 || planted(Bug::LoseFollowerWake) {
            return;
        }
        self.signal.fetch_add(1, Ordering::SeqCst);
        futex::wake_bits(&self.signal, bits);
        let wakers =
            std::mem::take(&mut *self.wakers.lock().unwrap_or_else(PoisonError::into_inner));
        self.waiting.fetch_sub(wakers.len() as u32, Ordering::SeqCst);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Waits until `look` has something, until the time is over (then what `look` gives), or
    /// returns early with nothing.
    pub(crate) fn wait_for<T>(
        &self,
        visibility: Visibility,
        at_most: Option<Duration>,
        look: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let seen = self.signal.load(Ordering::SeqCst);
        let found = look();
        if found.is_none() {
            futex::wait_bits(&self.signal, seen, at_most, bit(visibility));
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        found
    }

    /// Has a task woken at the next change. The caller looks once more afterwards.
    pub(crate) fn wake_task(&self, waker: &Waker) {
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
            self.waiting.fetch_add(1, Ordering::SeqCst);
        }
    }

    pub(crate) fn set_segments(&self, segments: Vec<Arc<SegmentRef>>) {
        *self.segments.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(segments);
    }

    /// The segments, oldest first.
    pub(crate) fn segments(&self) -> Arc<Vec<Arc<SegmentRef>>> {
        Arc::clone(&self.segments.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The segment that holds the batch at `lsn`, or the first one behind it; with it the LSN
    /// where the next segment begins. Holding the segment keeps its file from being recycled.
    pub(crate) fn segment_at(&self, lsn: Lsn) -> Option<(Arc<SegmentRef>, Option<Lsn>)> {
        let list = self.segments();
        let behind = list.partition_point(|segment| segment.base_lsn <= lsn);
        let at = behind.saturating_sub(1);
        let segment = Arc::clone(list.get(at)?);
        Some((segment, list.get(at + 1).map(|next| next.base_lsn)))
    }

    /// Where the first segment begins that lies behind the one with this base, which may have been
    /// trimmed.
    pub(crate) fn next_base(&self, base: Lsn) -> Option<Lsn> {
        let list = self.segments();
        let behind = list.partition_point(|segment| segment.base_lsn <= base);
        list.get(behind).map(|next| next.base_lsn)
    }

    /// Where the log begins.
    pub(crate) fn first_lsn(&self) -> Option<Lsn> {
        self.segments().first().map(|segment| segment.base_lsn)
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
        self.segments().len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::testing::WAKE_LIMIT;

    /// Runs `wait` on a thread of its own; fails if it does not come back.
    fn returns(wait: impl FnOnce(&Published) + Send + 'static) {
        let (done, end) = mpsc::channel();
        std::thread::spawn(move || {
            wait(&Published::new(0));
            let _ = done.send(());
        });
        end.recv_timeout(WAKE_LIMIT).expect("it waits for ever");
    }

    #[test]
    fn what_is_published_between_the_look_and_the_wait_wakes() {
        for visibility in [Visibility::Durable, Visibility::Written, Visibility::Staged] {
            returns(move |published| {
                let found = published.wait_for(visibility, None, || {
                    // It was not there when it was looked for, and is now.
                    published.set_durable(Lsn(4096));
                    None::<()>
                });
                assert_eq!(found, None);
                assert_eq!(published.mark(visibility), Lsn(4096));
            });
            returns(move |published| {
                published.wait_for(visibility, None, || {
                    published.end(None);
                    None::<()>
                });
            });
        }
    }

    #[test]
    fn a_trim_that_comes_late_takes_none_back() {
        let published = Published::new(0);
        published.add_trims([(StreamId(1), Offset(5)), (StreamId(2), Offset(7))]);
        published.add_trims([(StreamId(1), Offset(3)), (StreamId(2), Offset(8))]);
        let before = [1, 2, 3].map(|stream| published.trimmed_before(StreamId(stream)));
        assert_eq!(before, [Offset(5), Offset(8), Offset(0)]);
    }
}
