//! Reading the records of one stream: from any offset or time, in order or backwards, up to what is
//! visible when the reader is made; and following it as it grows.
//!
//! A reader takes nothing from the writer. Every byte that it gives was checked. Damage is one item
//! of the iteration; the reader goes on behind it.

mod backward;
mod follow;
mod kit;
mod record;
mod walk;

use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use ringlog_disk::planted::{Bug, planted};

use crate::error::ReadError;
use crate::ids::{Offset, StreamId};
use crate::options::Visibility;

pub use follow::Follower;
pub(crate) use kit::{Live, OpenDisk, ShardReads};
pub use record::{Record, RecordRef};

use backward::Backward;
use walk::{Step, Walk};

/// What a reader is to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) stream: StreamId,
    pub(crate) from: Option<Offset>,
    pub(crate) end: Option<Offset>,
}

impl Wanted {
    /// A range of offsets of a stream, as users write it.
    pub(crate) fn range(stream: StreamId, range: &impl RangeBounds<Offset>) -> Self {
        let from = match range.start_bound() {
            Bound::Included(from) => Some(*from),
            Bound::Excluded(from) => Some(Offset(from.0.saturating_add(1))),
            Bound::Unbounded => None,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => Some(Offset(end.0.saturating_add(1))),
            Bound::Excluded(end) => Some(*end),
            Bound::Unbounded => None,
        };
        Self { stream, from, end }
    }

    /// Refuses what begins behind the next offset of the stream, or behind its own end. Asks for
    /// the next offset only where it matters.
    pub(crate) fn check(&self, next: impl Fn() -> Offset) -> Result<(), ReadError> {
        let from = self.from.unwrap_or_default();
        let out = self.end.is_some_and(|end| from > end) || from > Offset(0) && from > next();
        if out { Err(ReadError::OutOfRange { next: next() }) } else { Ok(()) }
    }
}

enum Way {
    Forward(Box<Walk>),
    Backward(Box<Backward>),
    /// Only while the way is being changed.
    Nowhere,
}

/// Iterates over the records of a stream, owned ones; [`Reader::next_ref`] gives borrowed ones. See
/// [`crate::Stream::read`].
pub struct Reader {
    reads: Arc<ShardReads>,
    way: Way,
    wanted: Wanted,
    visibility: Visibility,
    limit: Option<u64>,
    finished: bool,
}

impl Reader {
    pub(crate) fn new(reads: Arc<ShardReads>, wanted: Wanted) -> Result<Self, ReadError> {
        reads.refresh()?;
        let kit = reads.take_kit()?;
        let bound = match planted(Bug::ReadBeyondDurable) {
            true => reads.published.mark(Visibility::Written),
            false => reads.published.durable(),
        };
        let mut walk = Walk::new(kit, Arc::clone(&reads), wanted.stream, wanted.from, bound);
        walk.seek(wanted.from)?;
        Ok(Self {
            reads,
            way: Way::Forward(Box::new(walk)),
            wanted,
            visibility: Visibility::Durable,
            limit: None,
            finished: false,
        })
    }

    /// From the first record on that was placed at or after a time.
    pub(crate) fn since(
        reads: Arc<ShardReads>,
        wanted: Wanted,
        timestamp_ns: u64,
    ) -> Result<Self, ReadError> {
        let mut reader = Self::new(reads, wanted)?;
        if let Way::Forward(walk) = &mut reader.way {
            walk.seek_time(timestamp_ns)?;
        }
        Ok(reader)
    }

    /// Ends after `records` records.
    #[must_use]
    pub fn limit(mut self, records: u64) -> Self {
        self.limit = Some(records);
        self
    }

    /// Reads up to what is visible now at this level. To be chosen before the first record is
    /// taken. At [`Visibility::Staged`] the reader may wait for the device to accept the last
    /// records.
    #[must_use]
    pub fn visibility(mut self, visibility: Visibility) -> Self {
        self.visibility = visibility;
        let bound = self.reads.published.mark(visibility);
        if let Way::Forward(walk) = &mut self.way {
            walk.bound = bound.max(walk.bound);
        }
        self
    }

    /// Goes from the last record of the range to the first. To be chosen before the first record is
    /// taken, and after the visibility. Where the head of the range was trimmed away,
    /// [`ReadError::Trimmed`] is the last item.
    #[must_use]
    pub fn reverse(mut self) -> Self {
        self.way = match std::mem::replace(&mut self.way, Way::Nowhere) {
            Way::Forward(walk) => {
                let Wanted { stream, from, end } = self.wanted;
                Way::Backward(Box::new(Backward::new(*walk, stream, from, end)))
            }
            other => other,
        };
        self
    }

    /// The next record, whose bytes lie in the reader's buffer: nothing is copied (but for a record
    /// that happens to lie across the border of two buffers). `None` at the end.
    ///
    /// # Errors
    /// See [`ReadError`]; the reader goes on behind damage when it is asked again.
    pub fn next_ref(&mut self) -> Option<Result<RecordRef<'_>, ReadError>> {
        match self.advance() {
            Ok(true) => match &mut self.way {
                Way::Forward(walk) => walk.record_ref(),
                Way::Backward(back) => back.walk.record_ref(),
                Way::Nowhere => None,
            }
            .map(Ok),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }

    #[inline]
    fn advance(&mut self) -> Result<bool, ReadError> {
        if !self.finished
            && self.limit.is_none()
            && let Way::Forward(walk) = &mut self.way
            && walk.step(self.wanted.end)
        {
            return Ok(true);
        }
        self.advance_in_full()
    }

    fn advance_in_full(&mut self) -> Result<bool, ReadError> {
        if self.finished || self.limit == Some(0) {
            return Ok(false);
        }
        let step = loop {
            let step = match &mut self.way {
                Way::Forward(walk) => walk.advance(self.wanted.end),
                Way::Backward(back) => back.advance(),
                Way::Nowhere => Ok(Step::End),
            };
            match step {
                Ok(Step::NotYet) if self.reads.wait_for_device() => {}
                // What a failed flush has dropped is no damage: nobody was promised it.
                Err(ReadError::Corrupt { corruption, .. })
                    if self.visibility != Visibility::Durable
                        && corruption
                            .lsn
                            .is_some_and(|lsn| lsn >= self.reads.published.durable()) => {}
                other => break other,
            }
        };
        match step {
            Ok(Step::Record) => {
                if let Some(limit) = &mut self.limit {
                    *limit -= 1;
                }
                Ok(true)
            }
            Ok(Step::End | Step::NotYet) => {
                self.finished = true;
                Ok(false)
            }
            Err(error) => {
                self.finished |= matches!(error, ReadError::Disk(_));
                Err(error)
            }
        }
    }
}

impl Iterator for Reader {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.advance() {
            Ok(true) => match &mut self.way {
                Way::Forward(walk) => walk.record(),
                Way::Backward(back) => back.walk.record_ref().map(|record| record.to_record()),
                Way::Nowhere => None,
            }
            .map(Ok),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("wanted", &self.wanted)
            .field("visibility", &self.visibility)
            .field("finished", &self.finished)
            .finish()
    }
}
