//! Following a stream as it grows: from disk as far as that goes, then from the memory of the
//! writer, batch after batch by their place in the log, so that nothing is missed or given twice.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ringlog_disk::planted::{Bug, planted};

use super::kit::ShardReads;
use super::record::{Record, RecordRef};
use super::walk::{Step, Walk};
use crate::error::ReadError;
use crate::ids::{Lsn, Offset, StreamId};
use crate::options::Visibility;
use crate::recent::Following;

/// Gives the records of a stream, and waits for those to come. See [`crate::Stream::follow`].
///
/// Blocking: as an iterator, which ends when the log is closed, or with
/// [`Follower::next_timeout`]. Async, on any executor: [`Follower::next_async`] or
/// [`Follower::poll_next`].
///
/// A follower that does not keep up reads from disk; it holds back nobody. Where retention drops what
/// it has not read, it says so ([`ReadError::Trimmed`]), at the latest when the next record comes. Holding it
/// costs some memory of the log ([`crate::Options::tail_bytes`], shared by all followers of a shard).
pub struct Follower {
    walk: Walk,
    reads: Arc<ShardReads>,
    visibility: Visibility,
    following: Following,
    /// Given, and not known to be durable: where each batch ends, and its first record.
    unproven: VecDeque<(Lsn, Offset)>,
    finished: bool,
}

/// What a look along the log came to.
enum Looked {
    Record,
    /// Nothing new.
    Nothing,
    End,
}

impl Follower {
    pub(crate) fn new(
        reads: Arc<ShardReads>,
        stream: StreamId,
        from: Option<Offset>,
    ) -> Result<Self, ReadError> {
        let kit = reads.take_kit()?;
        let following = reads.published.recent.follow(false);
        let bound = reads.published.durable();
        let mut walk = Walk::new(kit, Arc::clone(&reads), stream, from, bound);
        walk.seek(from)?;
        walk.from_memory = true;
        Ok(Self {
            walk,
            reads,
            visibility: Visibility::Durable,
            following,
            unproven: VecDeque::new(),
            finished: false,
        })
    }

    /// Gives records as soon as they are visible at this level. What was not durable may be taken
    /// back when the log fails: [`ReadError::Retracted`].
    #[must_use]
    pub fn visibility(mut self, visibility: Visibility) -> Self {
        self.visibility = visibility;
        self.following = self.reads.published.recent.follow(visibility == Visibility::Staged);
        self
    }

    /// The offset of the record that comes next.
    pub fn next_offset(&self) -> Offset {
        self.walk.next_offset()
    }

    /// Waits for the next record, at most so long; `None` when the time is over, or when the log
    /// was closed (then [`Follower::is_finished`]).
    ///
    /// # Errors
    /// See [`ReadError`]; the follower goes on behind damage and trimmed records when it is asked
    /// again. After [`ReadError::Retracted`] and [`ReadError::Disk`] it has ended.
    pub fn next_timeout(&mut self, at_most: Duration) -> Result<Option<Record>, ReadError> {
        let deadline = Instant::now().checked_add(at_most);
        match self.wait(deadline)? {
            true => Ok(self.walk.record()),
            false => Ok(None),
        }
    }

    /// The same with a record whose bytes lie in the follower's buffer, or in the log's memory.
    ///
    /// # Errors
    /// As [`Follower::next_timeout`].
    pub fn next_ref_timeout(
        &mut self,
        at_most: Duration,
    ) -> Result<Option<RecordRef<'_>>, ReadError> {
        let deadline = Instant::now().checked_add(at_most);
        match self.wait(deadline)? {
            true => Ok(self.walk.record_ref()),
            false => Ok(None),
        }
    }

    /// The next record if it is there. Waits for nothing but the disk.
    ///
    /// # Errors
    /// As [`Follower::next_timeout`].
    pub fn try_next(&mut self) -> Result<Option<Record>, ReadError> {
        match self.look_afresh()? {
            Looked::Record => Ok(self.walk.record()),
            Looked::Nothing | Looked::End => Ok(None),
        }
    }

    /// Whether nothing more will come: the log was closed, or has failed.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// The next record, or `None` when the log was closed. Reads from disk on the polling thread
    /// where the record is in memory no more. For a log that is open for reading only use the
    /// blocking ways: its writer, in another process, can wake nobody here.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Record, ReadError>>> {
        for first in [true, false] {
            match self.try_next() {
                Ok(Some(record)) => return Poll::Ready(Some(Ok(record))),
                Ok(None) if self.finished => return Poll::Ready(None),
                Err(error) => return Poll::Ready(Some(Err(error))),
                // Looks once more behind it, so that nothing is missed in between.
                Ok(None) if first => {
                    self.reads.published.wake_task(cx.waker());
                    if planted(Bug::FollowLooksOnce) {
                        break;
                    }
                }
                Ok(None) => {}
            }
        }
        Poll::Pending
    }

    /// Waits for the next record without blocking the thread; `None` when the log was closed. No
    /// record is lost when the future is dropped.
    pub async fn next_async(&mut self) -> Option<Result<Record, ReadError>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Waits until there is a record; `false` when the time is over, or at the end.
    fn wait(&mut self, deadline: Option<Instant>) -> Result<bool, ReadError> {
        loop {
            match self.look_afresh()? {
                Looked::Record => return Ok(true),
                Looked::End => return Ok(false),
                Looked::Nothing => {}
            }
            let left = match deadline {
                None => None,
                Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                    Some(left) if !left.is_zero() => Some(left),
                    _ => return Ok(false),
                },
            };
            let reads = Arc::clone(&self.reads);
            match reads.wait_for_news(self.visibility, left, || self.look().transpose_nothing()) {
                None => {}
                Some(Ok(looked)) => return Ok(matches!(looked, Looked::Record)),
                Some(Err(error)) => return Err(error),
            }
        }
    }

    /// Goes on as far as the marks allow; only where that is nowhere, looks for what another process
    /// has written since, which costs more than a record.
    fn look_afresh(&mut self) -> Result<Looked, ReadError> {
        match self.look()? {
            Looked::Nothing => {
                self.reads.refresh()?;
                self.look()
            }
            other => Ok(other),
        }
    }

    /// Goes on as far as the marks allow.
    fn look(&mut self) -> Result<Looked, ReadError> {
        if self.finished {
            return Ok(Looked::End);
        }
        // In this order: what was published before the end can be seen.
        let ended = self.reads.published.ended();
        let durable = self.reads.published.durable();
        let failed = matches!(ended, Some(Some(_)));
        while self.unproven.front().is_some_and(|(end, _)| *end <= durable) {
            self.unproven.pop_front();
        }
        if failed
            && let Some((_, first)) = self.unproven.pop_front()
            && !planted(Bug::HideRetraction)
        {
            self.finished = true;
            return Err(ReadError::Retracted { first });
        }
        self.walk.bound = match failed {
            true => durable,
            false => self.reads.published.mark(self.visibility),
        };
        let next = self.walk.next_offset();
        let step = match self.walk.advance(None) {
            // What a failed flush has dropped is no damage: nobody was promised it. The log is about
            // to say so.
            Err(ReadError::Corrupt { corruption, .. })
                if corruption.lsn.is_some_and(|lsn| lsn >= durable) =>
            {
                self.walk.go_back(corruption.lsn.unwrap_or(durable), next);
                Step::NotYet
            }
            other => other?,
        };
        match step {
            Step::Record => {
                let end = self.walk.at;
                let known = self.unproven.back().is_some_and(|(last, _)| *last == end);
                if end > durable && !known {
                    let offset = self.walk.next_offset();
                    self.unproven.push_back((end, Offset(offset.0.saturating_sub(1))));
                }
                Ok(Looked::Record)
            }
            Step::NotYet if ended.is_none() => Ok(Looked::Nothing),
            Step::End if ended.is_none() => Ok(Looked::Nothing),
            Step::End | Step::NotYet => {
                self.finished = true;
                match ended.flatten() {
                    Some(error) => Err(ReadError::Disk(error)),
                    None => Ok(Looked::End),
                }
            }
        }
    }
}

trait NothingIsNone {
    fn transpose_nothing(self) -> Option<Result<Looked, ReadError>>;
}

impl NothingIsNone for Result<Looked, ReadError> {
    fn transpose_nothing(self) -> Option<Self> {
        match self {
            Ok(Looked::Nothing) => None,
            other => Some(other),
        }
    }
}

impl Iterator for Follower {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.wait(None) {
            Ok(true) => self.walk.record().map(Ok),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower")
            .field("next_offset", &self.next_offset())
            .field("visibility", &self.visibility)
            .field("finished", &self.finished)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Waker;

    use ringlog_disk::MemoryDevice;

    use super::*;
    use crate::ids::LogId;
    use crate::published::Published;
    use crate::reader::Live;
    use crate::recovery::Identity;

    /// Something happens with the second look.
    struct LateNews {
        published: Arc<Published>,
        looks: AtomicU32,
    }

    impl Live for LateNews {
        fn refresh(&self) -> Result<(), ReadError> {
            if self.looks.fetch_add(1, Ordering::Relaxed) == 1 {
                self.published.end(None);
            }
            Ok(())
        }

        fn nap(&self, _: Option<Duration>) {}
    }

    /// What happens between the look and the leaving of the waker would wake nobody.
    #[test]
    fn who_has_left_a_waker_looks_again() {
        let published = Arc::new(Published::new(0));
        let live = LateNews { published: Arc::clone(&published), looks: AtomicU32::new(0) };
        let identity = Identity { log: LogId([1; 16]), shard: 0, segment_bytes: 1 << 20 };
        let device = MemoryDevice::new();
        let open_disk = Box::new(move || Ok(Box::new(device.root().disk()) as _));
        let mut reads = ShardReads::new(identity, published, (false, false), open_disk);
        reads.live = Some(Arc::new(live));
        let mut follower = Follower::new(Arc::new(reads), StreamId(1), None).unwrap();
        let polled = follower.poll_next(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(None)), "{polled:?}");
    }
}
