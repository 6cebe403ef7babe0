//! Walking along a shard in the order of the log, for the records of one stream.
//!
//! A walk has its own view of the files and its own buffers: it takes nothing from the writer but
//! batches that are kept in memory anyway. It goes up to a bound that its owner moves, checks every
//! byte that it gives, and holds the segment that it is in, and towards its end the next one, so that
//! they are not recycled under it. Where it is known which batches hold the stream, it goes from one
//! to the next; what it finds there is checked like anything else, and where that is not what was
//! promised, it walks.
//! Damage is one item; the walk goes on behind it.

mod ahead;
mod batch;
mod enter;

use std::collections::VecDeque;
use std::sync::Arc;

use ringlog_disk::FileId;
use ringlog_disk::planted::{Bug, planted};

use self::ahead::Ahead;
use super::kit::{Kit, ShardReads};
use super::record::{Record, RecordRef};
use crate::error::{Corruption, ReadError};
use crate::format::batch::{FrameKind, FrameRef};
use crate::ids::{Epoch, Lsn, Offset, StreamId};
use crate::index::Posting;
use crate::limits::BLOCK_BYTES;
use crate::names;
use crate::recent::RecentBatch;
use crate::shard::SegmentRef;
use crate::window::Window;

/// What explains a jump in the offsets that comes next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Jump {
    Start,
    None,
    Gap,
    Damage,
}

/// The segment that the walk is in.
pub(super) struct Open {
    pub(super) segment: Arc<SegmentRef>,
    /// Where the next segment begins, once there is one.
    end: Option<Lsn>,
    file: FileId,
    file_bytes: u64,
    pub(super) window: Window,
    /// The batches that hold the stream, lie ahead and before `covered`, where that is known.
    postings: Option<VecDeque<Posting>>,
    covered: Lsn,
    /// They are so few that each is read by itself.
    hops: bool,
    /// The next segment, where that is read ahead.
    ahead: Option<Ahead>,
    /// Whether it was looked for.
    looked_ahead: bool,
}

/// Where the batch at hand is.
enum Bytes {
    Nowhere,
    /// In the window, from this place in the file on.
    Window(u64),
    Memory(Arc<RecentBatch>),
}

/// The batch at hand, and the frames in it that are the stream's.
struct Batch {
    bytes: Bytes,
    lsn: Lsn,
    timestamp_ns: u64,
    frames: Vec<FrameRef>,
    next: usize,
    /// The payloads of all frames one behind the other, once somebody wants to own one.
    copy: Option<Arc<[u8]>>,
    /// Where in `copy` the payload of the frame at hand begins.
    copied_to: u32,
}

/// What was trimmed under a walk since its last record.
enum Gone {
    Nothing,
    /// Segments; whether records of the stream were in them is not known.
    Something,
    /// No record below this offset is there, unless one comes before the bound.
    UpTo(Offset),
}

/// See the module's text.
pub(crate) struct Walk {
    pub(super) kit: Option<Kit>,
    pub(super) reads: Arc<ShardReads>,
    stream: StreamId,
    /// The offset wanted next.
    next: Offset,
    /// Whether records below `next` may be missing without a word: nothing was asked for by offset.
    any_start: bool,
    /// Below this the stream was trimmed by itself.
    trimmed: Offset,
    /// Another process has trimmed the log since this walk was made.
    head_went: bool,
    /// Records that were placed before this are passed over.
    since_ns: u64,
    /// Nothing at or behind this is read.
    pub(super) bound: Lsn,
    /// Whether batches may be taken from memory.
    pub(super) from_memory: bool,
    pub(super) at: Lsn,
    chain: Option<u32>,
    /// The life of the last good batch: what lies behind it is of the same or a later one.
    epoch: Epoch,
    open: Option<Open>,
    batch: Batch,
    jump: Jump,
    gone: Gone,
    damage: Option<Corruption>,
}

impl Walk {
    pub(crate) fn new(
        kit: Kit,
        reads: Arc<ShardReads>,
        stream: StreamId,
        from: Option<Offset>,
        bound: Lsn,
    ) -> Self {
        let at = reads.published.first_lsn().unwrap_or_default();
        Self {
            kit: Some(kit),
            stream,
            next: from.unwrap_or_default(),
            any_start: from.is_none(),
            trimmed: reads.published.trimmed_before(stream),
            head_went: false,
            since_ns: 0,
            bound,
            from_memory: false,
            at,
            chain: None,
            epoch: Epoch(0),
            open: None,
            batch: Batch {
                bytes: Bytes::Nowhere,
                lsn: Lsn(0),
                timestamp_ns: 0,
                frames: Vec::new(),
                next: 0,
                copy: None,
                copied_to: 0,
            },
            jump: Jump::Start,
            gone: Gone::Nothing,
            damage: None,
            reads,
        }
    }

    /// Goes straight to where the first record wanted lies, as far as that is known.
    pub(super) fn seek(&mut self, from: Option<Offset>) -> Result<(), ReadError> {
        let Some(from) = from.filter(|from| *from > Offset(0)) else { return Ok(()) };
        let Some(kit) = &mut self.kit else { return Ok(()) };
        if let Some(lsn) = self.reads.find(kit, self.stream, from, self.bound) {
            self.start_at(lsn);
        }
        Ok(())
    }

    /// Goes to the first record that was placed at or after a time.
    pub(super) fn seek_time(&mut self, timestamp_ns: u64) -> Result<(), ReadError> {
        self.since_ns = timestamp_ns;
        let Some(kit) = &mut self.kit else { return Ok(()) };
        if let Some(lsn) = self.reads.find_time(kit, timestamp_ns) {
            self.start_at(lsn);
        }
        Ok(())
    }

    /// Goes back to a batch that could not be read, to try it again later.
    pub(super) fn go_back(&mut self, lsn: Lsn, next: Offset) {
        self.close();
        self.batch.frames.clear();
        (self.at, self.chain, self.next) = (lsn, None, next);
        (self.jump, self.damage) = (Jump::None, None);
    }

    fn start_at(&mut self, lsn: Lsn) {
        if lsn > self.at {
            (self.at, self.chain) = (lsn, None);
        }
    }

    /// The offset behind the last record that was given.
    pub(super) fn next_offset(&self) -> Offset {
        self.next
    }

    /// Goes to the next record where that is the next frame at hand and nothing else is to be said or
    /// noted: what [`Walk::advance`] does then, without the rest of it. This is the way of nearly all
    /// records. `false`: nothing was done.
    #[inline]
    pub(super) fn step(&mut self, end: Option<Offset>) -> bool {
        let Some(frame) = self.batch.frames.get(self.batch.next) else { return false };
        let goes_on = frame.offset == self.next
            && frame.kind.is_record()
            && frame.offset >= self.trimmed
            && end.is_none_or(|end| frame.offset < end);
        let nothing_to_say = self.damage.is_none()
            && self.jump == Jump::None
            && !self.any_start
            && matches!(self.gone, Gone::Nothing)
            && self.batch.timestamp_ns >= self.since_ns;
        if !goes_on || !nothing_to_say {
            return false;
        }
        self.next = Offset(frame.offset.0 + 1);
        self.pass();
        true
    }

    /// Goes to the next record of the stream, below `end`.
    pub(super) fn advance(&mut self, end: Option<Offset>) -> Result<Step, ReadError> {
        loop {
            if end.is_some_and(|end| self.next >= end) {
                return Ok(Step::End);
            }
            if let Some(frame) = self.batch.frames.get(self.batch.next).copied() {
                match self.take_frame(frame, end)? {
                    Taken::Record => return Ok(Step::Record),
                    Taken::Nothing => continue,
                    Taken::End => return Ok(Step::End),
                }
            }
            if self.at >= self.bound {
                if matches!(self.gone, Gone::Something) && !self.any_start {
                    // The first record there is may lie behind what this walk was made for. All that
                    // the catalogue tells of lies before the new bound, so this happens once.
                    self.gone = Gone::UpTo(self.catalogued_next()?);
                    self.bound = self.bound.max(self.reads.published.durable());
                    continue;
                }
                return match self.damage.take() {
                    Some(corruption) => Err(ReadError::Corrupt { corruption, resumes_at: None }),
                    None if self.next < self.trimmed && !self.any_start => {
                        self.next = self.trimmed;
                        Err(ReadError::Trimmed { first: self.trimmed })
                    }
                    None => match std::mem::replace(&mut self.gone, Gone::Nothing) {
                        Gone::UpTo(first) if first > self.next => {
                            self.next = first;
                            Err(ReadError::Trimmed { first })
                        }
                        _ => Ok(Step::End),
                    },
                };
            }
            if !self.next_batch()? {
                return Ok(Step::NotYet);
            }
            self.look_ahead(end);
        }
    }

    /// The record that `advance` has gone to.
    pub(super) fn record_ref(&mut self) -> Option<RecordRef<'_>> {
        let batch = &self.batch;
        let frame = *batch.frames.get(batch.next.checked_sub(1)?)?;
        let (lsn, timestamp_ns) = (batch.lsn, batch.timestamp_ns);
        let payload = payload(&self.batch.bytes, &mut self.open, &frame);
        let tombstone = frame.kind == FrameKind::Tombstone;
        Some(RecordRef { payload, offset: frame.offset, lsn, timestamp_ns, tombstone })
    }

    /// The same as a record of its own; the records of one batch share their memory.
    pub(super) fn record(&mut self) -> Option<Record> {
        let at = self.batch.next.checked_sub(1)?;
        let frame = *self.batch.frames.get(at)?;
        let bytes = match &self.batch.copy {
            Some(bytes) => Arc::clone(bytes),
            None => {
                let frames = std::mem::take(&mut self.batch.frames);
                let total = frames[at..].iter().map(|frame| frame.payload_bytes as usize).sum();
                let mut all = Vec::with_capacity(total);
                for frame in &frames[at..] {
                    all.extend_from_slice(payload(&self.batch.bytes, &mut self.open, frame));
                }
                self.batch.frames = frames;
                self.batch.copied_to = 0;
                let bytes = Arc::<[u8]>::from(all);
                self.batch.copy = Some(Arc::clone(&bytes));
                bytes
            }
        };
        let start = self.batch.copied_to;
        Some(Record {
            bytes,
            start,
            len: frame.payload_bytes,
            offset: frame.offset,
            lsn: self.batch.lsn,
            timestamp_ns: self.batch.timestamp_ns,
            tombstone: frame.kind == FrameKind::Tombstone,
        })
    }

    /// A frame of the stream, in order: a record, or a reason why the offsets jump.
    fn take_frame(&mut self, frame: FrameRef, end: Option<Offset>) -> Result<Taken, ReadError> {
        let again = frame.offset < self.next && !planted(Bug::RepeatRecords);
        if again || frame.offset < self.trimmed {
            self.pass();
            return Ok(Taken::Nothing);
        }
        let went =
            !matches!(self.gone, Gone::Nothing) && !self.any_start && frame.offset > self.next;
        if end.is_some_and(|end| frame.offset >= end) && self.damage.is_none() && !went {
            return Ok(Taken::End);
        }
        let jumped = frame.offset > self.next;
        let jump = std::mem::replace(&mut self.jump, Jump::None);
        // What is missing at the start was trimmed or is too old; else it is lost.
        let from_the_first = self.since_ns == 0 && self.trimmed == Offset(0);
        let silent =
            jump == Jump::Start && self.any_start && !(from_the_first && self.never_trimmed());
        if let Some(corruption) = self.damage.take() {
            self.next = frame.offset;
            return Err(ReadError::Corrupt { corruption, resumes_at: Some(frame.offset) });
        }
        if jumped && !silent && !planted(Bug::HideLostRecords) {
            let (first, next) = (self.next, frame.offset);
            self.next = next;
            return Err(match jump {
                _ if first < self.trimmed => ReadError::Trimmed { first: next },
                Jump::Start if !self.never_trimmed() => ReadError::Trimmed { first: next },
                _ => ReadError::Lost { first, next },
            });
        }
        self.next = Offset(frame.offset.0 + 1);
        (self.any_start, self.gone) = (false, Gone::Nothing);
        self.pass();
        let is_record = frame.kind.is_record();
        match is_record && self.batch.timestamp_ns >= self.since_ns {
            true => Ok(Taken::Record),
            false => Ok(Taken::Nothing),
        }
    }

    /// Whether the log still begins where it began.
    fn never_trimmed(&self) -> bool {
        !self.head_went && self.reads.published.first_lsn() == Some(Lsn(0))
    }

    /// Moves behind the frame at hand.
    fn pass(&mut self) {
        if self.batch.copy.is_some() && self.batch.next > 0 {
            let before = self.batch.frames.get(self.batch.next - 1);
            self.batch.copied_to += before.map_or(0, |frame| frame.payload_bytes);
        }
        self.batch.next += 1;
    }

    /// For going backwards: reads the batch of a posting in the segment that was entered. `false`:
    /// it is damaged, which is noted.
    pub(super) fn load(&mut self, posting: &Posting) -> Result<bool, ReadError> {
        self.batch.frames.clear();
        self.batch.copy = None;
        let Some(open) = &self.open else { return Ok(false) };
        let bytes = posting.blocks as usize * BLOCK_BYTES;
        let id = open.segment.segment;
        self.at = Lsn(open.segment.base_lsn.0 + u64::from(posting.block) * BLOCK_BYTES as u64);
        (self.chain, self.epoch) = (None, Epoch(0));
        let at = self.at;
        match self.read_batch(bytes)? {
            Ok(()) => Ok(true),
            Err((file_offset, what)) => {
                let file = names::segment(id);
                let (id, file) = (Some(id), file.as_str());
                let identity = &self.reads.identity;
                let damage = identity.corruption(id, file, file_offset, Some(at), what);
                self.damage.get_or_insert(damage);
                Ok(false)
            }
        }
    }

    /// For going backwards: where the stream lies in the segment that was entered, found by walking
    /// through it up to `end`. Damage is noted.
    pub(super) fn survey(&mut self, end: Lsn) -> Result<Vec<Posting>, ReadError> {
        let mut found = Vec::new();
        let Some(open) = &mut self.open else { return Ok(found) };
        open.hops = false;
        open.window.read_on();
        let base = open.segment.base_lsn;
        let bound = std::mem::replace(&mut self.bound, end);
        (self.at, self.chain) = (base, Some(open.segment.chain_before));
        self.epoch = Epoch(0);
        while self.at < end && self.open.is_some() {
            self.batch.frames.clear();
            let before = self.at;
            self.batch_here()?;
            let (first, last) = (self.batch.frames.first(), self.batch.frames.last());
            if let (Some(first), Some(last)) = (first, last) {
                found.push(Posting {
                    stream: self.stream,
                    records: (last.offset.0 - first.offset.0 + 1) as u32,
                    first: first.offset,
                    block: ((before.0 - base.0) / BLOCK_BYTES as u64) as u32,
                    blocks: ((self.at.0 - before.0) / BLOCK_BYTES as u64) as u32,
                });
            }
        }
        self.bound = bound;
        self.batch.frames.clear();
        if let Some(open) = &mut self.open {
            open.hops = true;
        }
        Ok(found)
    }

    /// For going backwards: the frames of the batch at hand.
    pub(super) fn frames(&self) -> &[FrameRef] {
        &self.batch.frames
    }

    /// For going backwards: takes the `at`-th frame for the one at hand.
    pub(super) fn select(&mut self, at: usize) {
        self.batch.next = at + 1;
    }

    /// Below this the stream was trimmed by itself.
    pub(super) fn trimmed(&self) -> Offset {
        self.trimmed
    }

    /// What damage was met and not told yet.
    pub(super) fn take_damage(&mut self) -> Option<Corruption> {
        self.damage.take()
    }
}

/// What a step along the log has come to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A record.
    Record,
    /// There is none up to the bound, or up to the end of what is wanted.
    End,
    /// There is one, or may be, that the device does not have yet.
    NotYet,
}

enum Taken {
    Record,
    Nothing,
    End,
}

fn payload<'a>(bytes: &'a Bytes, open: &'a mut Option<Open>, frame: &FrameRef) -> &'a [u8] {
    let (start, len) = (frame.payload_start as usize, frame.payload_bytes as usize);
    match (bytes, open) {
        (Bytes::Memory(batch), _) => batch.bytes().get(start..start + len).unwrap_or_default(),
        (Bytes::Window(at), Some(open)) => open.window.view(at + start as u64, len),
        _ => &[],
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        self.close();
        if let Some(kit) = self.kit.take() {
            self.reads.give_back(kit);
        }
    }
}
