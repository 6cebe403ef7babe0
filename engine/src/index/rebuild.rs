//! Making the index of a sealed segment from its batches.
//!
//! Only headers, section headers and runs are used, each under its checksum; what lies in frames is
//! checked by whoever reads them. Batches that do not validate are passed over and counted.

use ringlog_disk::{BlockPool, Disk, DiskError, DiskErrorKind, Done, FileId, Op};

use super::postings::Postings;
use crate::format::batch::{BatchHeader, HeaderSeed, Run, read_runs};
use crate::format::segment::{SEGMENT_HEADER_BYTES, Sealed};
use crate::ids::{Lsn, SegmentId};
use crate::limits::{BLOCK_BYTES, STREAMS_MAX};
use crate::names;
use crate::recovery::{Identity, ask};
use crate::window::Window;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// An index that was made anew.
pub(crate) struct Rebuilt {
    /// The whole file.
    pub(crate) file: Vec<u8>,
    /// Blocks of the segment that no valid batch covers: what they held is not known.
    pub(crate) passed_over_blocks: u64,
    /// Bytes of the segment that were read.
    pub(crate) bytes_read: u64,
    /// Whether only what an older index did not cover was read.
    pub(crate) partly: bool,
}

/// What an older index tells of the front of a segment.
pub(crate) struct Known {
    pub(super) covers: Sealed,
    pub(super) postings: Postings,
}

/// What is to be indexed, and a way to it.
pub(crate) struct Source<'a> {
    pub(crate) disk: &'a mut dyn Disk,
    /// The id under which the segment is opened; free again afterwards.
    pub(crate) file: FileId,
    pub(crate) identity: &'a Identity,
    pub(crate) segment: SegmentId,
    pub(crate) sealed: &'a Sealed,
    /// Blocks to read with.
    pub(crate) pool: BlockPool,
}

impl Source<'_> {
    /// Makes the index. Where `known` is a good index of the front of the segment, only the rest is
    /// read. Cost: reads what is not known of the segment.
    ///
    /// # Errors
    /// The segment cannot be opened or read.
    pub(crate) fn rebuild(mut self, known: Option<Known>) -> Result<Rebuilt, DiskError> {
        let open = Op::Open { file: self.file, name: names::segment(self.segment), write: false };
        let bytes = match ask(self.disk, open)? {
            Done::Opened { bytes } => bytes,
            _ => 0,
        };
        let used = self.sealed.end_lsn.0.saturating_sub(self.sealed.base_lsn.0);
        let end = bytes.min(SEGMENT_HEADER_BYTES.saturating_add(used));
        let mut window = Window::new(self.pool.clone(), self.file, end);
        let made = self.read(&mut window, known);
        window.drop_all(self.disk);
        ask(self.disk, Op::Close { file: self.file })?;
        let (postings, passed_over_blocks, partly) = made?;
        let (log, shard) = (self.identity.log, self.identity.shard);
        let snapshot = postings.snapshot();
        let Some(file) = super::encode(log, shard, self.segment, self.sealed, &snapshot) else {
            let what = format!("make an index of segment {}", self.segment);
            return Err(DiskError::new(DiskErrorKind::Unexpected, what));
        };
        Ok(Rebuilt { file, passed_over_blocks, bytes_read: window.bytes_read, partly })
    }

    fn read(
        &mut self,
        window: &mut Window,
        known: Option<Known>,
    ) -> Result<(Postings, u64, bool), DiskError> {
        let sealed = *self.sealed;
        let mut postings = Postings::default();
        let mut at = sealed.base_lsn;
        let mut partly = false;
        if let Some(known) = known {
            let (end, chain) = (known.covers.end_lsn, known.covers.chain_end);
            // The next batch names the last one that is covered, and that one all before it.
            let next = self.batch(window, end)?;
            if next.is_some_and(|(header, _)| header.previous == chain) {
                (postings, at, partly) = (known.postings, end, true);
            }
        }
        window.read_on();
        let mut passed_over = 0;
        while at < sealed.end_lsn {
            let Some((header, runs)) = self.batch(window, at)? else {
                passed_over += 1;
                at = Lsn(at.0 + BLOCK);
                continue;
            };
            let block = ((at.0 - sealed.base_lsn.0) / BLOCK) as u32;
            let blocks = header.stored_bytes / BLOCK_BYTES as u32;
            let runs = runs.iter().map(|run| (run.stream, run.base, run.count));
            postings.add_batch(block, blocks, header.timestamp_ns, runs);
            at = header.end();
        }
        Ok((postings, passed_over, partly))
    }

    /// The valid batch at an LSN.
    fn batch(
        &mut self,
        window: &mut Window,
        lsn: Lsn,
    ) -> Result<Option<(BatchHeader, Vec<Run>)>, DiskError> {
        let seed = HeaderSeed::new(self.identity.log, self.identity.shard, self.segment);
        let offset = SEGMENT_HEADER_BYTES + (lsn.0 - self.sealed.base_lsn.0);
        let front = window.get(self.disk, offset, BLOCK_BYTES)?;
        let Ok((header, _)) = BatchHeader::decode(front, seed, lsn) else { return Ok(None) };
        if header.end() > self.sealed.end_lsn {
            return Ok(None);
        }
        let batch = window.get(self.disk, offset, header.stored_bytes as usize)?;
        let runs = read_runs(&header, batch).filter(|runs| {
            let frames: u64 = runs.iter().map(|run| u64::from(run.count)).sum();
            let fits = |run: &Run| {
                let end = run.base.0.checked_add(u64::from(run.count));
                run.stream.0 < STREAMS_MAX && run.count > 0 && end.is_some()
            };
            frames == u64::from(header.frames) && runs.iter().all(fits)
        });
        Ok(runs.map(|runs| (header, runs)))
    }
}
