//! The batches of a walk: taken from memory, read where the stream is known to be, or read one
//! after the other. Each is checked before a byte of it is given.

use std::collections::VecDeque;
use std::sync::Arc;

use ringlog_disk::planted::{Bug, planted};

use super::{Bytes, Jump, Walk};
use crate::error::ReadError;
use crate::format::batch::{BatchHeader, BatchKind, HeaderSeed, check_stream};
use crate::format::segment::SEGMENT_HEADER_BYTES;
use crate::ids::Lsn;
use crate::limits::BLOCK_BYTES;
use crate::names;
use crate::options::Visibility;
use crate::recent::RecentBatch;

impl Walk {
    /// Reads the batch at `self.at`, or finds out where the next one is. `false`: the device does
    /// not have it yet, and neither has the memory.
    pub(super) fn next_batch(&mut self) -> Result<bool, ReadError> {
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
            open.end = self.reads.published.next_base(open.segment.base_lsn);
        }
        if self.open.as_ref().is_none_or(|open| open.end.is_some_and(|end| self.at >= end)) {
            self.open_segment()?;
        }
        if let Some(open) = &mut self.open {
            // Nothing is read, and kept, of what the device does not have yet.
            let written = self.reads.published.mark(Visibility::Written);
            let there = open.end.map_or(written, |end| end.min(written));
            let bytes = SEGMENT_HEADER_BYTES + there.0.saturating_sub(open.segment.base_lsn.0);
            let bytes = if planted(Bug::ReadPastWritten) { u64::MAX } else { bytes };
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
        if !planted(Bug::ReadTrimmedRecords) {
            self.trimmed = self.reads.published.trimmed_before(self.stream);
        }
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
    pub(super) fn batch_here(&mut self) -> Result<(), ReadError> {
        match self.read_batch(BLOCK_BYTES)? {
            Ok(()) => Ok(()),
            Err((file_offset, what)) => self.damaged(file_offset, what),
        }
    }

    /// Reads and checks the batch at `self.at`, which is probably of so many bytes. Inside: where
    /// in the file it is not as it should be.
    pub(super) fn read_batch(
        &mut self,
        expected: usize,
    ) -> Result<Result<(), (u64, String)>, ReadError> {
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
            Ok((header, _)) if header.epoch < self.epoch && !planted(Bug::ReadOlderLife) => {
                let what = "a batch of an older life than the one before it".to_owned();
                return Ok(Err((file_offset, what)));
            }
            Ok((header, chain))
                if self.chain.is_none_or(|before| before == header.previous)
                    || planted(Bug::ReadUnchained) =>
            {
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
            let goes_on =
                |header: &BatchHeader| header.epoch >= self.epoch || planted(Bug::ReadOlderLife);
            if BatchHeader::decode(block, seed, self.at).is_ok_and(|(header, _)| goes_on(&header)) {
                break;
            }
        }
        Ok(())
    }
}
