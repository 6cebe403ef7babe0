//! Walking along a shard in the order of the log, for the records of one stream.
//!
//! A walk has its own view of the files and its own buffers: it takes nothing from the writer but
//! batches that are kept in memory anyway. It goes up to a bound that its owner moves, checks every
//! byte that it gives, and holds the segment that it is in, so that this one is not recycled under
//! it. Where it is known which batches hold the stream, it goes from one to the next; what it finds
//! there is checked like anything else, and where that is not what was promised, it walks.
//! Damage is one item; the walk goes on behind it.

use std::collections::VecDeque;
use std::sync::Arc;

use ringlog_disk::{DiskErrorKind, Done, Op};

use super::kit::{Kit, SEGMENT_FILE, ShardReads};
use super::record::{Record, RecordRef};
use crate::error::{Corruption, OpenError, ReadError};
use crate::format::batch::{BatchHeader, BatchKind, FrameKind, FrameRef, HeaderSeed, check_stream};
use crate::format::segment::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::ids::{Epoch, Lsn, Offset, SegmentId, StreamId};
use crate::index::Posting;
use crate::limits::BLOCK_BYTES;
use crate::names;
use crate::options::Visibility;
use crate::recent::RecentBatch;
use crate::recovery::{ask, load_manifest};
use crate::shard::SegmentRef;
use crate::window::Window;

/// One read at a place of its own costs about as much as reading on over this many bytes.
const SEEK_BYTES: u64 = 256 << 10;

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
    file_bytes: u64,
    pub(super) window: Window,
    /// The batches that hold the stream, lie ahead and before `covered`, where that is known.
    postings: Option<VecDeque<Posting>>,
    covered: Lsn,
    /// They are so few that each is read by itself.
    hops: bool,
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
                return match self.damage.take() {
                    Some(corruption) => Err(ReadError::Corrupt { corruption, resumes_at: None }),
                    None if self.next < self.trimmed && !self.any_start => {
                        self.next = self.trimmed;
                        Err(ReadError::Trimmed { first: self.trimmed })
                    }
                    None => Ok(Step::End),
                };
            }
            if !self.next_batch()? {
                return Ok(Step::NotYet);
            }
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
        if frame.offset < self.next || frame.offset < self.trimmed {
            self.pass();
            return Ok(Taken::Nothing);
        }
        if end.is_some_and(|end| frame.offset >= end) && self.damage.is_none() {
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
        if jumped && !silent {
            let (first, next) = (self.next, frame.offset);
            self.next = next;
            return Err(match jump {
                _ if first < self.trimmed => ReadError::Trimmed { first: next },
                Jump::Start if !self.never_trimmed() => ReadError::Trimmed { first: next },
                _ => ReadError::Lost { first, next },
            });
        }
        self.next = Offset(frame.offset.0 + 1);
        self.any_start = false;
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

    /// Reads the batch at `self.at`, or finds out where the next one is. `false`: the device does
    /// not have it yet, and neither has the memory.
    fn next_batch(&mut self) -> Result<bool, ReadError> {
        self.batch.frames.clear();
        self.batch.next = 0;
        self.batch.copy = None;
        if self.from_memory
            && let Some(batch) = self.reads.published.recent.get(self.at)
            && self.chain.is_none_or(|chain| chain == batch.header.previous)
        {
            self.close();
            self.batch_in_memory(batch);
            return Ok(true);
        }
        self.batch.bytes = Bytes::Nowhere;
        if self.at >= self.reads.published.mark(Visibility::Written) {
            return Ok(false);
        }
        if let Some(open) = &mut self.open
            && open.end.is_none()
        {
            // It was the last one when it was opened.
            open.end =
                self.reads.published.segment_at(open.segment.base_lsn).and_then(|(_, end)| end);
        }
        if self.open.as_ref().is_none_or(|open| open.end.is_some_and(|end| self.at >= end)) {
            self.open_segment()?;
        }
        if let Some(open) = &mut self.open {
            // Nothing is read, and kept, of what the device does not have yet.
            let written = self.reads.published.mark(Visibility::Written);
            let there = open.end.map_or(written, |end| end.min(written));
            let bytes = SEGMENT_HEADER_BYTES + there.0.saturating_sub(open.segment.base_lsn.0);
            open.window.set_end(bytes.min(open.file_bytes));
        }
        match self.open.as_ref().map(|open| open.postings.is_some()) {
            None => {}
            Some(true) => self.next_posting()?,
            Some(false) => self.batch_here()?,
        }
        Ok(true)
    }

    fn batch_in_memory(&mut self, batch: Arc<RecentBatch>) {
        let header = batch.header.clone();
        let frames = &mut self.batch.frames;
        let whose = (self.reads.identity.log, self.reads.identity.shard, self.stream);
        let checked = check_stream(&header, batch.bytes(), whose, |frame| frames.push(frame));
        if checked.is_err() {
            // Memory that went bad is not evidence about the disk.
            frames.clear();
            self.from_memory = false;
            return;
        }
        let chain = batch.chain;
        self.took(&header, chain, Bytes::Memory(batch));
    }

    /// The batch at hand is good.
    fn took(&mut self, header: &BatchHeader, chain: u32, bytes: Bytes) {
        // At the start, what is missing may have been trimmed; but not where nothing ever was.
        let may_be_trimmed = self.jump == Jump::Start && !self.never_trimmed();
        if header.kind == BatchKind::Gap && self.jump != Jump::Damage && !may_be_trimmed {
            self.jump = Jump::Gap;
        }
        self.trimmed = self.reads.published.trimmed_before(self.stream);
        let batch = &mut self.batch;
        batch.bytes = bytes;
        batch.lsn = header.lsn;
        batch.timestamp_ns = header.timestamp_ns;
        self.chain = Some(chain);
        self.epoch = header.epoch;
        self.at = header.end();
    }

    /// The next batch that is known to hold the stream.
    fn next_posting(&mut self) -> Result<(), ReadError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let base = open.segment.base_lsn.0;
        let Some(posting) = open.postings.as_mut().and_then(VecDeque::pop_front) else {
            // From here on it is not known where the stream is.
            if open.covered > self.at {
                (self.at, self.chain) = (open.covered, None);
            }
            open.postings = None;
            open.hops = false;
            return Ok(());
        };
        let lsn = Lsn(base + u64::from(posting.block) * BLOCK_BYTES as u64);
        if lsn < self.at {
            return Ok(()); // the same batch once more
        }
        let before = (self.at, self.chain);
        if lsn > self.at {
            (self.at, self.chain) = (lsn, None);
        }
        let bytes = posting.blocks as usize * BLOCK_BYTES;
        let found = self.read_batch(bytes)?;
        let as_promised = found.is_ok()
            && self.batch.frames.first().is_some_and(|frame| frame.offset <= posting.first)
            && self.batch.frames.last().is_some_and(|frame| frame.offset.0 + 1 >= posting.end().0);
        if !as_promised {
            // What is wrong, the batch or the promise, walking tells.
            self.batch.frames.clear();
            self.batch.bytes = Bytes::Nowhere;
            (self.at, self.chain) = before;
            if let Some(open) = &mut self.open {
                open.postings = None;
                open.hops = false;
            }
        }
        Ok(())
    }

    /// The batch at `self.at`, whatever it holds.
    fn batch_here(&mut self) -> Result<(), ReadError> {
        match self.read_batch(BLOCK_BYTES)? {
            Ok(()) => Ok(()),
            Err((file_offset, what)) => self.damaged(file_offset, what),
        }
    }

    /// Reads and checks the batch at `self.at`, which is probably of so many bytes. Inside: where
    /// in the file it is not as it should be.
    fn read_batch(&mut self, expected: usize) -> Result<Result<(), (u64, String)>, ReadError> {
        let (Some(open), Some(kit)) = (&mut self.open, &mut self.kit) else { return Ok(Ok(())) };
        let identity = &self.reads.identity;
        let disk = kit.disk.as_mut();
        let seed = HeaderSeed::new(identity.log, identity.shard, open.segment.segment);
        let file_offset = SEGMENT_HEADER_BYTES + (self.at.0 - open.segment.base_lsn.0);
        let block = match open.hops {
            true => open.window.get_exact(disk, file_offset, expected)?,
            false => open.window.get(disk, file_offset, BLOCK_BYTES)?,
        };
        let (header, chain) = match BatchHeader::decode(block, seed, self.at) {
            Ok((header, _)) if header.epoch < self.epoch => {
                let what = "a batch of an older life than the one before it".to_owned();
                return Ok(Err((file_offset, what)));
            }
            Ok((header, chain)) if self.chain.is_none_or(|before| before == header.previous) => {
                (header, chain)
            }
            Ok(_) => {
                let what = "a batch that does not continue the one before it".to_owned();
                return Ok(Err((file_offset, what)));
            }
            Err(refused) => return Ok(Err((file_offset, refused.to_string()))),
        };
        let stored = header.stored_bytes as usize;
        let batch = match open.hops {
            true => open.window.get_exact(disk, file_offset, stored)?,
            false => open.window.get(disk, file_offset, stored)?,
        };
        let whose = (identity.log, identity.shard, self.stream);
        let frames = &mut self.batch.frames;
        if let Err((at, what)) = check_stream(&header, batch, whose, |frame| frames.push(frame)) {
            frames.clear();
            return Ok(Err((file_offset + at as u64, what)));
        }
        self.took(&header, chain, Bytes::Window(file_offset));
        Ok(Ok(()))
    }

    fn open_segment(&mut self) -> Result<(), ReadError> {
        self.close();
        let Some((segment, end)) = self.reads.published.segment_at(self.at) else {
            self.at = self.bound;
            return Ok(());
        };
        if segment.base_lsn > self.at && self.jump == Jump::None {
            // The head of the log was trimmed under the reader.
            self.jump = Jump::Start;
        }
        if self.reads.others_may_trim && segment.base_lsn <= self.at {
            // A writer that started anew has written what was not proven a second time, under
            // headers of its own.
            self.chain = None;
        }
        if segment.base_lsn > self.at || self.chain.is_none() {
            self.at = self.at.max(segment.base_lsn);
            self.chain = (self.at == segment.base_lsn).then_some(segment.chain_before);
        }
        let Some(kit) = &mut self.kit else { return Ok(()) };
        let covered = end.unwrap_or(self.bound).min(self.bound);
        let mut postings = self.reads.postings(kit, &segment, self.stream, covered);
        let mut hops = false;
        if let Some(list) = &mut postings {
            let base = segment.base_lsn.0;
            list.retain(|posting| {
                let end = u64::from(posting.block) + u64::from(posting.blocks);
                posting.end() > self.next && base + end * BLOCK_BYTES as u64 <= covered.0
            });
            if list.is_empty() {
                (self.at, self.chain) = (covered, None);
                return Ok(());
            }
            let (mut reads, mut span) = (0_u64, (u64::MAX, 0));
            for posting in list.iter() {
                let end = u64::from(posting.block) + u64::from(posting.blocks);
                reads += SEEK_BYTES + u64::from(posting.blocks) * BLOCK_BYTES as u64;
                span = (span.0.min(u64::from(posting.block)), span.1.max(end));
            }
            hops = reads <= (span.1 - span.0) * BLOCK_BYTES as u64 + SEEK_BYTES;
        }
        let name = names::segment(segment.segment);
        let opened = ask(kit.disk.as_mut(), Op::Open { file: SEGMENT_FILE, name, write: false });
        match opened {
            Ok(Done::Opened { bytes }) => {
                let header = SEGMENT_HEADER_BYTES.min(bytes);
                let window = Window::new(kit.pool.clone(), SEGMENT_FILE, header);
                let checks_header = postings.is_none();
                let postings = postings.map(VecDeque::from);
                self.open =
                    Some(Open { segment, end, file_bytes: bytes, window, postings, covered, hops });
                if checks_header { self.check_segment_header() } else { Ok(()) }
            }
            Ok(_) => Ok(()),
            Err(error)
                if matches!(error.kind, DiskErrorKind::NotFound | DiskErrorKind::Unexpected) =>
            {
                if self.is_gone(segment.segment)? {
                    return Ok(());
                }
                let name = names::segment(segment.segment);
                let what = match error.kind {
                    DiskErrorKind::NotFound => "a listed segment is missing",
                    _ => "a listed segment is no regular file",
                };
                let (id, file) = (Some(segment.segment), name.as_str());
                let identity = &self.reads.identity;
                self.damage = Some(identity.corruption(id, file, 0, Some(self.at), what));
                self.jump = Jump::Damage;
                self.chain = None;
                self.at = end.unwrap_or(self.bound);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A segment that is another one than it should be is damage; what validates in it is read
    /// all the same.
    fn check_segment_header(&mut self) -> Result<(), ReadError> {
        let (Some(open), Some(kit)) = (&mut self.open, &mut self.kit) else { return Ok(()) };
        let segment = open.segment.segment;
        let identity = &self.reads.identity;
        let block = open.window.get(kit.disk.as_mut(), 0, BLOCK_BYTES)?;
        let what = match SegmentHeader::decode(block) {
            Ok(header)
                if header.log == identity.log
                    && header.shard == identity.shard
                    && header.segment == segment =>
            {
                return Ok(());
            }
            Ok(header) => {
                format!("segment {} of log {} lies here", header.segment, header.log)
            }
            Err(refused) => refused.to_string(),
        };
        if !self.is_gone(segment)? {
            let name = names::segment(segment);
            let (id, file) = (Some(segment), name.as_str());
            let identity = &self.reads.identity;
            self.damage = Some(identity.corruption(id, file, 0, Some(self.at), what));
            self.jump = Jump::Damage;
        }
        Ok(())
    }

    /// Whether a segment that does not read as it should was trimmed by another process since this
    /// walk was made. Then it goes on where the log begins now.
    fn is_gone(&mut self, segment: SegmentId) -> Result<bool, ReadError> {
        if !self.reads.others_may_trim {
            return Ok(false);
        }
        let Some(kit) = &mut self.kit else { return Ok(false) };
        if let Some(open) = &mut self.open {
            open.window.settle(kit.disk.as_mut());
        }
        let manifest = match load_manifest(kit.disk.as_mut(), &self.reads.identity) {
            Ok(manifest) => manifest,
            Err(OpenError::Disk(error)) => return Err(error.into()),
            Err(_) => return Ok(false), // no better witness than what was found
        };
        if manifest.segments.iter().any(|entry| entry.segment == segment) {
            return Ok(false);
        }
        self.close();
        self.at = self.at.max(manifest.trimmed_lsn);
        self.chain = None;
        self.jump = Jump::Start;
        self.head_went = true;
        self.any_start = false;
        Ok(true)
    }

    /// The batch at `self.at` is damaged: looks for the next valid one.
    fn damaged(&mut self, file_offset: u64, what: String) -> Result<(), ReadError> {
        let Some(segment) = self.open.as_ref().map(|open| open.segment.segment) else {
            return Ok(());
        };
        if self.is_gone(segment)? {
            return Ok(());
        }
        let (Some(open), Some(kit)) = (&mut self.open, &mut self.kit) else { return Ok(()) };
        let identity = &self.reads.identity;
        let name = names::segment(segment);
        let (id, file) = (Some(segment), name.as_str());
        let corruption = identity.corruption(id, file, file_offset, Some(self.at), what);
        self.damage.get_or_insert(corruption);
        self.jump = Jump::Damage;
        self.chain = None;
        open.hops = false;
        let seed = HeaderSeed::new(identity.log, identity.shard, segment);
        let end = open.end.unwrap_or(self.bound).min(self.bound);
        let base = open.segment.base_lsn.0;
        while self.at < end {
            self.at = Lsn(self.at.0 + BLOCK_BYTES as u64);
            let offset = SEGMENT_HEADER_BYTES + (self.at.0 - base);
            let block = open.window.get(kit.disk.as_mut(), offset, BLOCK_BYTES)?;
            // What lives before this one have left behind their end is no part of the log.
            let goes_on = |header: &BatchHeader| header.epoch >= self.epoch;
            if BatchHeader::decode(block, seed, self.at).is_ok_and(|(header, _)| goes_on(&header)) {
                break;
            }
        }
        Ok(())
    }

    /// For going backwards: opens a segment, to read batches at any place in it.
    pub(super) fn enter(&mut self, segment: &Arc<SegmentRef>) -> Result<bool, ReadError> {
        self.close();
        self.batch.frames.clear();
        let Some(kit) = &mut self.kit else { return Ok(false) };
        let name = names::segment(segment.segment);
        match ask(kit.disk.as_mut(), Op::Open { file: SEGMENT_FILE, name, write: false }) {
            Ok(Done::Opened { bytes }) => {
                let window = Window::new(kit.pool.clone(), SEGMENT_FILE, bytes);
                let (segment, covered) = (Arc::clone(segment), segment.base_lsn);
                self.open = Some(Open {
                    segment,
                    end: None,
                    file_bytes: bytes,
                    window,
                    postings: None,
                    covered,
                    hops: true,
                });
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(error)
                if matches!(error.kind, DiskErrorKind::NotFound | DiskErrorKind::Unexpected) =>
            {
                if !self.reads.others_may_trim {
                    let file = names::segment(segment.segment);
                    let (id, file) = (Some(segment.segment), file.as_str());
                    let what = "a listed segment is missing, or no regular file";
                    self.damage = Some(self.reads.identity.corruption(id, file, 0, None, what));
                }
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
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

    pub(super) fn close(&mut self) {
        if let (Some(mut open), Some(kit)) = (self.open.take(), &mut self.kit) {
            open.window.drop_all(kit.disk.as_mut());
            let _ = ask(kit.disk.as_mut(), Op::Close { file: SEGMENT_FILE }); // only read from
        }
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
