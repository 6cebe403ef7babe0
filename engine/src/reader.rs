//! Reading the records of one stream, from any offset, in order.
//!
//! A reader has its own view of the files and its own buffers: it takes nothing from the writer.
//! It reads only what was durable when it was made, checks every byte that it passes, and holds the
//! segment that it is in, so that this one is not recycled under it. Damage is one item of the
//! iteration; the reader goes on behind it.

use std::collections::VecDeque;
use std::sync::Arc;

use ringlog_disk::{BlockPool, Disk, DiskErrorKind, Done, FileId, Op};

use crate::error::{Corruption, OpenError, ReadError};
use crate::format::batch::{BatchHeader, BatchKind, FrameKind, FrameRef, HeaderSeed, check_body};
use crate::format::segment::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::ids::{Lsn, Offset, SegmentId, StreamId};
use crate::limits::BLOCK_BYTES;
use crate::names;
use crate::published::Published;
use crate::recovery::{Identity, ask, load_manifest};
use crate::shard::SegmentRef;
use crate::window::{Window, pool_for};

const FILE: FileId = FileId(0);

/// A stored record. Owns its bytes together with the other records of its batch; cheap to clone.
#[derive(Clone)]
pub struct Record {
    batch: Arc<[u8]>,
    start: u32,
    len: u32,
    offset: Offset,
    lsn: Lsn,
    timestamp_ns: u64,
    tombstone: bool,
}

impl Record {
    /// Its position in its stream.
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// When it was placed, in nanoseconds since 1970. Never decreases along a shard.
    pub fn timestamp_ns(&self) -> u64 {
        self.timestamp_ns
    }

    /// The position of its batch in its shard.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// The user's bytes.
    pub fn payload(&self) -> &[u8] {
        &self.batch[self.start as usize..(self.start + self.len) as usize]
    }

    /// Whether it states that earlier data no longer holds.
    pub fn is_tombstone(&self) -> bool {
        self.tombstone
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record")
            .field("offset", &self.offset.0)
            .field("bytes", &self.payload().len())
            .finish()
    }
}

/// Iterates over the records of a stream. See [`crate::Stream::read`].
pub struct Reader {
    disk: Box<dyn Disk + Send>,
    pool: BlockPool,
    identity: Identity,
    published: Arc<Published>,
    stream: StreamId,
    /// The offset wanted next, once it is known.
    next: Offset,
    /// Whether records below `next` may be missing without a word: nothing was asked for by offset.
    any_start: bool,
    /// Whether an offset was asked for that was trimmed away.
    asked_below: bool,
    /// Whether the log still begins where it began.
    never_trimmed: bool,
    end: Option<Offset>,
    limit: Option<u64>,
    durable: Lsn,
    at: Lsn,
    chain: Option<u32>,
    open: Option<Open>,
    ready: VecDeque<(FrameRef, u64)>,
    batch: Arc<[u8]>,
    batch_lsn: Lsn,
    /// What explains a jump in the offsets that comes next.
    jump: Jump,
    /// An item that comes before the records that are ready.
    notice: Option<ReadError>,
    damage: Option<Corruption>,
    finished: bool,
    /// The writer is another process, which knows nothing of this reader.
    others_may_trim: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Jump {
    Start,
    None,
    Gap,
    Damage,
}

struct Open {
    segment: Arc<SegmentRef>,
    end: Option<Lsn>,
    window: Window,
}

/// What a reader is to read.
pub(crate) struct Wanted {
    pub(crate) stream: StreamId,
    pub(crate) from: Option<Offset>,
    pub(crate) end: Option<Offset>,
    /// The log is written, if at all, by another process.
    pub(crate) others_may_trim: bool,
}

impl Reader {
    pub(crate) fn new(
        disk: Box<dyn Disk + Send>,
        identity: Identity,
        published: Arc<Published>,
        wanted: &Wanted,
    ) -> Result<Self, ReadError> {
        let trimmed_before = published.trimmed_before(wanted.stream);
        let from = wanted.from.unwrap_or_default();
        Ok(Self {
            disk,
            pool: pool_for(identity.segment_bytes)?,
            identity,
            stream: wanted.stream,
            next: from.max(trimmed_before),
            asked_below: wanted.from.is_some() && from < trimmed_before,
            any_start: wanted.from.is_none(),
            end: wanted.end,
            limit: None,
            durable: published.durable(),
            at: published.first_lsn().unwrap_or_default(),
            never_trimmed: published.first_lsn() == Some(Lsn(0)),
            published,
            chain: None,
            open: None,
            ready: VecDeque::new(),
            batch: Arc::from([]),
            batch_lsn: Lsn(0),
            jump: Jump::Start,
            notice: None,
            damage: None,
            finished: false,
            others_may_trim: wanted.others_may_trim,
        })
    }

    /// Ends after `records` records.
    #[must_use]
    pub fn limit(mut self, records: u64) -> Self {
        self.limit = Some(records);
        self
    }

    fn advance(&mut self) -> Result<Option<Record>, ReadError> {
        loop {
            if self.limit == Some(0) || self.end.is_some_and(|end| self.next >= end) {
                return Ok(None);
            }
            if let Some(notice) = self.notice.take() {
                return Err(notice);
            }
            if let Some((frame, timestamp_ns)) = self.ready.pop_front() {
                if let Some(record) = self.take_frame(frame, timestamp_ns)? {
                    return Ok(Some(record));
                }
                continue;
            }
            if self.at >= self.durable {
                return match self.damage.take() {
                    Some(corruption) => Err(ReadError::Corrupt { corruption, resumes_at: None }),
                    None => Ok(None),
                };
            }
            self.next_batch()?;
        }
    }

    /// A frame of the stream, in order: a record, or a reason why the offsets jump.
    fn take_frame(
        &mut self,
        frame: FrameRef,
        timestamp_ns: u64,
    ) -> Result<Option<Record>, ReadError> {
        if frame.offset < self.next {
            return Ok(None);
        }
        if self.end.is_some_and(|end| frame.offset >= end) && self.damage.is_none() {
            self.finished = true;
            return Ok(None);
        }
        let jumped = frame.offset > self.next;
        let jump = std::mem::replace(&mut self.jump, Jump::None);
        let silent = jump == Jump::Start && self.any_start;
        if let Some(corruption) = self.damage.take() {
            let (first, resumes_at) = (frame.offset, Some(frame.offset));
            self.ready.push_front((frame, timestamp_ns));
            self.next = first;
            return Err(ReadError::Corrupt { corruption, resumes_at });
        }
        let below = std::mem::take(&mut self.asked_below);
        if below || jumped && !silent {
            let (first, next) = (self.next, frame.offset);
            self.ready.push_front((frame, timestamp_ns));
            self.next = next;
            return Err(match jump {
                Jump::Start => ReadError::Trimmed { first: next },
                _ if below => ReadError::Trimmed { first: next },
                _ => ReadError::Lost { first, next },
            });
        }
        self.next = Offset(frame.offset.0 + 1);
        if !matches!(frame.kind, FrameKind::Record | FrameKind::Tombstone) {
            return Ok(None);
        }
        if let Some(limit) = &mut self.limit {
            *limit -= 1;
        }
        Ok(Some(Record {
            batch: Arc::clone(&self.batch),
            start: frame.payload_start,
            len: frame.payload_bytes,
            offset: frame.offset,
            lsn: self.batch_lsn,
            timestamp_ns,
            tombstone: frame.kind == FrameKind::Tombstone,
        }))
    }

    /// Reads the batch at `self.at`, or finds out where the next one is.
    fn next_batch(&mut self) -> Result<(), ReadError> {
        if self.open.as_ref().is_none_or(|open| open.end.is_some_and(|end| self.at >= end)) {
            self.open_segment()?;
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        let segment = open.segment.segment;
        let seed = HeaderSeed::new(self.identity.log, self.identity.shard, segment);
        let file_offset = SEGMENT_HEADER_BYTES + (self.at.0 - open.segment.base_lsn.0);
        let block = open.window.get(self.disk.as_mut(), file_offset, BLOCK_BYTES)?;
        let decoded = BatchHeader::decode(block, seed, self.at);
        let (header, chain) = match decoded {
            Ok((header, chain)) if self.chain.is_none_or(|before| before == header.previous) => {
                (header, chain)
            }
            Ok(_) => {
                let what = "a batch that does not continue the one before it".to_owned();
                return self.damaged(file_offset, what);
            }
            Err(refused) => return self.damaged(file_offset, refused.to_string()),
        };
        let stored = header.stored_bytes as usize;
        let batch = open.window.get(self.disk.as_mut(), file_offset, stored)?;
        let (stream, ready) = (self.stream, &mut self.ready);
        let timestamp_ns = header.timestamp_ns;
        let checked = check_body(&header, batch, self.identity.log, self.identity.shard, |frame| {
            if frame.stream == stream {
                ready.push_back((frame, timestamp_ns));
            }
        });
        if let Err((at, what)) = checked {
            self.ready.clear();
            return self.damaged(file_offset + at as u64, what);
        }
        // At the start, what is missing may have been trimmed; but not where nothing ever was.
        let may_be_trimmed = self.jump == Jump::Start && !self.never_trimmed;
        if header.kind == BatchKind::Gap && self.jump != Jump::Damage && !may_be_trimmed {
            self.jump = Jump::Gap;
        }
        if self.ready.back().is_some_and(|(frame, _)| frame.offset >= self.next) {
            self.batch = Arc::from(batch);
            self.batch_lsn = header.lsn;
        } else {
            self.ready.clear();
        }
        self.chain = Some(chain);
        self.at = header.end();
        Ok(())
    }

    fn open_segment(&mut self) -> Result<(), ReadError> {
        self.close();
        let Some((segment, end)) = self.published.segment_at(self.at) else {
            self.at = self.durable;
            return Ok(());
        };
        if segment.base_lsn > self.at || self.chain.is_none() {
            // The start, or the head of the log was trimmed under the reader.
            if self.chain.is_some() && self.jump == Jump::None {
                (self.jump, self.any_start) = (Jump::Start, false);
            }
            self.at = self.at.max(segment.base_lsn);
            self.chain = (self.at == segment.base_lsn).then_some(segment.chain_before);
        }
        let name = names::segment(segment.segment);
        let opened = ask(self.disk.as_mut(), Op::Open { file: FILE, name, write: false });
        match opened {
            Ok(Done::Opened { bytes }) => {
                let window = Window::new(self.pool.clone(), FILE, bytes);
                self.open = Some(Open { segment, end, window });
                self.check_segment_header()
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
                self.damage = Some(self.identity.corruption(id, file, 0, Some(self.at), what));
                self.jump = Jump::Damage;
                self.chain = None;
                self.at = end.unwrap_or(self.durable);
                Ok(())
            }
            Err(error) => {
                self.finished = true;
                Err(error.into())
            }
        }
    }

    /// A segment that is another one than it should be is damage; what validates in it is read
    /// all the same.
    fn check_segment_header(&mut self) -> Result<(), ReadError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let segment = open.segment.segment;
        let block = open.window.get(self.disk.as_mut(), 0, BLOCK_BYTES)?;
        let what = match SegmentHeader::decode(block) {
            Ok(header)
                if header.log == self.identity.log
                    && header.shard == self.identity.shard
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
            self.damage = Some(self.identity.corruption(id, file, 0, Some(self.at), what));
            self.jump = Jump::Damage;
        }
        Ok(())
    }

    /// Whether a segment that does not read as it should was trimmed by another process since this
    /// reader was made. Then the reader goes on where the log begins now.
    fn is_gone(&mut self, segment: SegmentId) -> Result<bool, ReadError> {
        if !self.others_may_trim {
            return Ok(false);
        }
        if let Some(open) = &mut self.open {
            open.window.settle(self.disk.as_mut());
        }
        let manifest = match load_manifest(self.disk.as_mut(), &self.identity) {
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
        let Some(open) = &mut self.open else { return Ok(()) };
        let name = names::segment(segment);
        let corruption = self.identity.corruption(
            Some(segment),
            name.as_str(),
            file_offset,
            Some(self.at),
            what,
        );
        self.damage.get_or_insert(corruption);
        self.jump = Jump::Damage;
        self.chain = None;
        let seed = HeaderSeed::new(self.identity.log, self.identity.shard, segment);
        let end = open.end.unwrap_or(self.durable).min(self.durable);
        let base = open.segment.base_lsn.0;
        while self.at < end {
            self.at = Lsn(self.at.0 + BLOCK_BYTES as u64);
            let offset = SEGMENT_HEADER_BYTES + (self.at.0 - base);
            let block = open.window.get(self.disk.as_mut(), offset, BLOCK_BYTES)?;
            if BatchHeader::decode(block, seed, self.at).is_ok() {
                break;
            }
        }
        Ok(())
    }

    fn close(&mut self) {
        if let Some(mut open) = self.open.take() {
            open.window.drop_all(self.disk.as_mut());
            let _ = ask(self.disk.as_mut(), Op::Close { file: FILE }); // only read from
        }
    }
}

impl Iterator for Reader {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finished {
            return None;
        }
        match self.advance() {
            Ok(Some(record)) => Some(Ok(record)),
            Ok(None) => {
                self.finished = true;
                None
            }
            Err(error) => {
                self.finished |= matches!(error, ReadError::Disk(_));
                Some(Err(error))
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.close();
    }
}
