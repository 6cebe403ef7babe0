//! The file of one segment, opened for reading by a tool.
//!
//! Knows the header, the footer and where a header of a batch may be; what a sequence of batches
//! means is for `walk`.

use ringlog_disk::{AnyDisk, BlockPool, DiskError, DiskErrorKind, Done, FileId, Op, Slice, run};

use super::ShardFiles;
use crate::error::OpenError;
use crate::format::Refused;
use crate::format::batch::{BATCH_HEADER_BYTES, BatchHeader, HeaderSeed};
use crate::format::bytes::get_u64;
use crate::format::manifest::Manifest;
use crate::format::segment::{SEGMENT_HEADER_BYTES, SegmentFooter, SegmentHeader};
use crate::ids::{Epoch, Lsn, SegmentId};
use crate::limits::BLOCK_BYTES;
use crate::names;
use crate::recovery::{Identity, ask, tail};
use crate::window::Window;

const FILE: FileId = tail::SCAN_FILE;
const BLOCK: u64 = BLOCK_BYTES as u64;

/// An open segment file, read ahead; a block that cannot be read fails alone.
pub(super) struct SegmentFile<'a> {
    disk: &'a mut AnyDisk,
    pub(super) identity: Identity,
    window: Window,
    single: BlockPool,
    scratch: Vec<u8>,
    pub(super) segment: SegmentId,
    pub(super) bytes: u64,
}

impl ShardFiles {
    /// Opens a segment's file; says in words what is wrong where there is none.
    pub(super) fn segment(
        &mut self,
        segment: SegmentId,
    ) -> Result<Result<SegmentFile<'_>, String>, OpenError> {
        let name = names::segment(segment);
        let opened = ask(&mut self.disk, Op::Open { file: FILE, name, write: false });
        let bytes = match opened {
            Ok(Done::Opened { bytes }) => bytes,
            Ok(_) => 0,
            Err(error) => {
                return match error.kind {
                    DiskErrorKind::NotFound => Ok(Err("a listed segment is missing".into())),
                    DiskErrorKind::Unexpected => {
                        Ok(Err("a listed segment is no regular file".into()))
                    }
                    DiskErrorKind::Io => Ok(Err(error.to_string())),
                    _ => Err(error.into()),
                };
            }
        };
        Ok(Ok(SegmentFile {
            window: Window::new(self.pool.clone(), FILE, bytes),
            single: BlockPool::new(1, BLOCK_BYTES)?,
            disk: &mut self.disk,
            identity: self.identity,
            scratch: Vec::new(),
            segment,
            bytes,
        }))
    }
}

impl SegmentFile<'_> {
    /// Ends reading.
    pub(super) fn close(mut self) -> Result<(), OpenError> {
        self.window.drop_all(self.disk);
        ask(self.disk, Op::Close { file: FILE })?;
        Ok(())
    }

    /// Bytes from `offset` on; fewer only at the end of the file.
    ///
    /// # Errors
    /// The device cannot read them.
    pub(super) fn get(&mut self, offset: u64, len: usize) -> Result<&[u8], DiskError> {
        // Twice, because of what the borrow checker can see; the second time nothing is read.
        if self.window.get(self.disk, offset, len).is_ok() {
            return self.window.get(self.disk, offset, len);
        }
        self.scratch.clear();
        let end = self.bytes.min(offset.saturating_add(len as u64));
        let mut at = offset / BLOCK * BLOCK;
        while at < end {
            let Some(block) = self.single.take() else {
                return Err(DiskError::new(DiskErrorKind::Limit, "take a block"));
            };
            let read = Op::Read { file: FILE, offset: at, block, len: BLOCK_BYTES };
            let done = run(self.disk, read);
            done.result?;
            if let Some(Slice { block, .. }) = done.slices.first() {
                let from = offset.max(at) - at;
                let to = (end - at).min(BLOCK);
                self.scratch.extend_from_slice(&block[from as usize..to as usize]);
            }
            at += BLOCK;
        }
        Ok(&self.scratch)
    }

    /// What is wrong with the header of the segment, if anything.
    ///
    /// # Errors
    /// An unknown version.
    pub(super) fn check_header(&mut self) -> Result<Option<String>, OpenError> {
        let identity = self.identity;
        let segment = self.segment;
        let bytes = self.bytes;
        let block = match self.get(0, BLOCK_BYTES) {
            Ok(block) => block,
            Err(error) => return Ok(Some(error.to_string())),
        };
        Ok(match SegmentHeader::decode(block) {
            Ok(header)
                if header.log == identity.log
                    && header.shard == identity.shard
                    && header.segment == segment
                    && header.segment_bytes == identity.segment_bytes =>
            {
                (bytes != identity.segment_bytes)
                    .then(|| format!("{bytes} bytes long instead of {}", identity.segment_bytes))
            }
            Ok(header) => Some(format!(
                "expected segment {segment} of log {}, shard {}; found segment {} of log {}, \
                 shard {}",
                identity.log, identity.shard, header.segment, header.log, header.shard
            )),
            Err(Refused::Damaged(what)) => Some(what),
            Err(refused @ (Refused::Version(_) | Refused::Features(_))) => {
                return Err(identity.refused(names::segment(segment).as_str(), refused));
            }
        })
    }

    /// The life in which the segment was prepared; 0 where its header is damaged.
    pub(super) fn epoch(&mut self) -> Epoch {
        let header = self.get(0, BLOCK_BYTES).map(SegmentHeader::decode);
        header.ok().and_then(Result::ok).map_or(Epoch(0), |header| header.epoch)
    }

    /// The footer at `offset`.
    pub(super) fn footer(&mut self, offset: u64) -> Result<SegmentFooter, String> {
        let block = self.get(offset, BLOCK_BYTES).map_err(|error| error.to_string())?;
        SegmentFooter::decode(block).map_err(|refused| refused.to_string())
    }

    /// Where the segment begins, according to the first header of a batch that can be read.
    pub(super) fn find_base(&mut self, life: Option<&Manifest>) -> Option<Lsn> {
        let mut offset = SEGMENT_HEADER_BYTES;
        while offset < self.bytes {
            if let Some(header) = self.any_header(offset)
                && life.is_none_or(|manifest| tail::epoch_fits(manifest, &header))
                && let Some(base) = header.lsn.0.checked_sub(offset - SEGMENT_HEADER_BYTES)
            {
                return Some(Lsn(base));
            }
            offset += BLOCK;
        }
        None
    }

    /// The header of a batch at `offset`, wherever in the log it says that it lies.
    pub(super) fn any_header(&mut self, offset: u64) -> Option<BatchHeader> {
        let seed = HeaderSeed::new(self.identity.log, self.identity.shard, self.segment);
        let block = self.get(offset, BATCH_HEADER_BYTES).ok()?;
        let lsn = Lsn(get_u64(block.get(8..16)?, 0));
        BatchHeader::decode(block, seed, lsn).ok().map(|(header, _)| header)
    }
}
