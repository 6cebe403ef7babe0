//! Reading a stream from its newest record to its oldest.
//!
//! Goes from segment to segment, newest first, and in each from batch to batch of the stream.

use std::sync::Arc;

use ringlog_disk::planted::{Bug, planted};

use super::walk::{Step, Walk};
use crate::error::ReadError;
use crate::ids::{Lsn, Offset, StreamId};
use crate::index::Posting;
use crate::limits::BLOCK_BYTES;
use crate::shard::SegmentRef;

/// See the module's text.
pub(super) struct Backward {
    pub(super) walk: Walk,
    stream: StreamId,
    /// Segments that were not visited yet, oldest first, each with where the next one begins.
    segments: Vec<(Arc<SegmentRef>, Lsn)>,
    /// Batches of the segment at hand that were not visited yet, oldest first.
    postings: Vec<Posting>,
    /// Frames of the batch at hand that were not given yet.
    frames: usize,
    /// Records at and above this were given, or are not wanted.
    above: Option<Offset>,
    from: Option<Offset>,
    /// Whether a record was met: what is missing above the first one was never there.
    begun: bool,
    finished: bool,
}

impl Backward {
    /// Takes over from a walk that has not begun.
    pub(super) fn new(
        walk: Walk,
        stream: StreamId,
        from: Option<Offset>,
        end: Option<Offset>,
    ) -> Self {
        let mut segments: Vec<(Arc<SegmentRef>, Lsn)> = Vec::new();
        for segment in walk.reads.published.segments().iter() {
            if segment.base_lsn >= walk.bound {
                break;
            }
            if let Some((_, end)) = segments.last_mut() {
                *end = segment.base_lsn;
            }
            segments.push((Arc::clone(segment), walk.bound));
        }
        Self {
            walk,
            stream,
            segments,
            postings: Vec::new(),
            frames: 0,
            above: end,
            from,
            begun: false,
            finished: false,
        }
    }

    /// Goes to the record before.
    pub(super) fn advance(&mut self) -> Result<Step, ReadError> {
        while !self.finished {
            if self.from.is_some() && self.above <= self.from && self.above.is_some() {
                break;
            }
            if let Some(at) = self.frames.checked_sub(1) {
                if self.take_frame(at)? {
                    return Ok(Step::Record);
                }
            } else if let Some(posting) = self.postings.pop() {
                if self.above.is_none_or(|above| posting.first < above)
                    && self.walk.load(&posting)?
                {
                    self.frames = self.walk.frames().len();
                }
            } else if let Some((segment, end)) = self.segments.pop() {
                self.enter(&segment, end)?;
            } else {
                self.finished = true;
                return self.at_the_head();
            }
        }
        self.finished = true;
        Ok(Step::End)
    }

    /// Looks at one frame of the batch at hand; whether it is the record to give.
    fn take_frame(&mut self, at: usize) -> Result<bool, ReadError> {
        let Some(frame) = self.walk.frames().get(at).copied() else {
            self.frames = 0;
            return Ok(false);
        };
        if self.above.is_some_and(|above| frame.offset >= above) {
            self.frames = at;
            return Ok(false);
        }
        if frame.offset < self.walk.trimmed() {
            self.finished = true;
            return self.at_the_head().map(|_| false);
        }
        let behind = Offset(frame.offset.0 + 1);
        if let Some(corruption) = self.walk.take_damage() {
            self.above = Some(behind);
            self.begun = true;
            return Err(ReadError::Corrupt { corruption, resumes_at: Some(frame.offset) });
        }
        if let Some(next) = self.above
            && next > behind
            && self.begun
        {
            self.above = Some(behind);
            return Err(ReadError::Lost { first: behind, next });
        }
        if self.from.is_some_and(|from| frame.offset < from) {
            self.finished = true;
            return Ok(false);
        }
        self.above = Some(frame.offset);
        self.begun = true;
        self.frames = at;
        self.walk.select(at);
        Ok(frame.kind.is_record())
    }

    fn enter(&mut self, segment: &Arc<SegmentRef>, end: Lsn) -> Result<(), ReadError> {
        self.frames = 0;
        self.walk.close();
        let known = match &mut self.walk.kit {
            Some(kit) => self.walk.reads.postings(kit, segment, self.stream, end),
            None => None,
        };
        if known.as_ref().is_some_and(Vec::is_empty) || !self.walk.enter(segment)? {
            return Ok(());
        }
        self.postings = match known {
            Some(postings) => postings,
            None => self.walk.survey(end)?,
        };
        let base = segment.base_lsn.0;
        self.postings.retain(|posting| {
            let behind = u64::from(posting.block) + u64::from(posting.blocks);
            let behind = behind + u64::from(planted(Bug::ReadBackwardsTooShort));
            base + behind * BLOCK_BYTES as u64 <= end.0
        });
        Ok(())
    }

    /// Everything was visited: what is still to be said?
    fn at_the_head(&mut self) -> Result<Step, ReadError> {
        if let Some(corruption) = self.walk.take_damage() {
            return Err(ReadError::Corrupt { corruption, resumes_at: None });
        }
        match (self.from, self.above) {
            (Some(from), Some(first)) if first > from && self.begun => {
                Err(ReadError::Trimmed { first })
            }
            _ => Ok(Step::End),
        }
    }
}
