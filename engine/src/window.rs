//! Sequential reading of a file through a disk, several pieces ahead.
//!
//! Knows nothing of what the bytes mean. The disk must have nothing else in flight.

use std::collections::VecDeque;

use ringlog_disk::{
    Block, BlockPool, Completion, Disk, DiskError, DiskErrorKind, Done, FileId, Op, Tag, Wait, run,
};

use crate::limits::{BATCH_BYTES_MAX, BLOCK_BYTES};

/// Size and number of the pieces in which segments are read.
const PIECE_BYTES: usize = 1 << 20;
const PIECES_MAX: u64 = 10;

const _: () = assert!(BATCH_BYTES_MAX <= (PIECES_MAX as usize - 1) * PIECE_BYTES);

/// Blocks for reading segments of this size: enough for the largest batch and for reading ahead,
/// and no more than a segment and one piece.
pub(crate) fn pool_for(segment_bytes: u64) -> Result<BlockPool, DiskError> {
    let pieces = segment_bytes.div_ceil(PIECE_BYTES as u64).saturating_add(1).min(PIECES_MAX);
    BlockPool::new(pieces as u32, PIECE_BYTES)
}

/// A window that moves forward over one file.
pub(crate) struct Window {
    pool: BlockPool,
    piece_bytes: u64,
    file: FileId,
    file_bytes: u64,
    /// Pieces in order, all of the same size but for the end of the file.
    pieces: VecDeque<Piece>,
    next_read: u64,
    /// How many pieces may be ahead: one, until the window moves on, so that a look at the front of
    /// a file reads only that.
    depth: usize,
    scratch: Vec<u8>,
    /// Bytes read from the disk so far.
    pub(crate) bytes_read: u64,
}

struct Piece {
    offset: u64,
    /// Missing while it is being read.
    block: Option<Block>,
    /// Bytes asked for.
    wanted: usize,
    /// Bytes that are there.
    len: usize,
    failed: Option<DiskError>,
}

impl Window {
    /// A window over a file of `file_bytes`, reading ahead as many blocks as the pool has.
    pub(crate) fn new(pool: BlockPool, file: FileId, file_bytes: u64) -> Self {
        Self {
            piece_bytes: pool.block_bytes() as u64,
            pool,
            file,
            file_bytes,
            pieces: VecDeque::new(),
            next_read: 0,
            depth: 1,
            scratch: Vec::new(),
            bytes_read: 0,
        }
    }

    /// The bytes from `offset` on: `len` of them, or fewer at the end of the file. Going back to
    /// before the start of the last piece used is possible, and costs reading again.
    pub(crate) fn get(
        &mut self,
        disk: &mut dyn Disk,
        offset: u64,
        len: usize,
    ) -> Result<&[u8], DiskError> {
        let piece_bytes = self.piece_bytes;
        let end = self.file_bytes.min(offset.saturating_add(len as u64));
        if offset >= end {
            return Ok(&[]);
        }
        let first = self.pieces.front().map_or(self.next_read, |piece| piece.offset);
        if offset < first || offset >= self.next_read.saturating_add(piece_bytes) {
            self.drop_all(disk);
            self.next_read = offset / piece_bytes * piece_bytes;
        }
        while let Some(piece) = self.pieces.front() {
            if piece.block.is_none() || piece.offset + piece.wanted as u64 > offset {
                break;
            }
            self.pieces.pop_front();
            self.read_on();
        }
        let len = (end - offset) as usize;
        let whole = self.pool.count() as usize * piece_bytes as usize;
        if len > whole.saturating_sub(piece_bytes as usize) {
            return Err(DiskError::new(DiskErrorKind::Limit, "read more than the window holds"));
        }
        let missing = end.saturating_sub(self.next_read).div_ceil(piece_bytes);
        self.depth = self.depth.max(self.pieces.len() + missing as usize);
        self.read_ahead(disk);
        self.wait_for(disk, end)?;
        self.slice(offset, len)
    }

    /// The same for a look that nothing else may follow: reads no more than is asked for. `offset`
    /// and `len` are multiples of a block, and `len` is no longer than a piece.
    pub(crate) fn peek(
        &mut self,
        disk: &mut dyn Disk,
        offset: u64,
        len: usize,
    ) -> Result<&[u8], DiskError> {
        let free = if self.pieces.is_empty() { self.pool.take() } else { None };
        let Some(block) = free else { return self.get(disk, offset, len) };
        let done = run(disk, Op::Read { file: self.file, offset, block, len });
        let read = match done.result? {
            Done::Read(read) => read,
            _ => 0,
        };
        self.bytes_read += read as u64;
        self.scratch.clear();
        if let Some(slice) = done.slices.first() {
            self.scratch.extend_from_slice(&slice.block[..read]);
        }
        Ok(&self.scratch)
    }

    /// The bytes from `offset` on, `len` of them, and nothing around them: for a read at a place that
    /// no other is likely to follow. Both are multiples of a block. Fewer bytes come only at the end
    /// of the file.
    pub(crate) fn get_exact(
        &mut self,
        disk: &mut dyn Disk,
        offset: u64,
        len: usize,
    ) -> Result<&[u8], DiskError> {
        let end = self.file_bytes.min(offset.saturating_add(len as u64));
        if offset >= end {
            return Ok(&[]);
        }
        if self.slice(offset, (end - offset) as usize)?.len() as u64 != end - offset {
            self.drop_all(disk);
            self.next_read = offset;
            while self.next_read < end {
                let wanted = (end - self.next_read).min(self.piece_bytes) as usize;
                if !self.submit(disk, wanted) {
                    return Err(DiskError::new(
                        DiskErrorKind::Limit,
                        "read more than the window holds",
                    ));
                }
            }
            self.wait_for(disk, end)?;
        }
        self.slice(offset, (end - offset) as usize)
    }

    /// Bytes that the last `get` or `get_exact` brought, once more, or a part of them. Reads nothing.
    pub(crate) fn view(&mut self, offset: u64, len: usize) -> &[u8] {
        self.slice(offset, len).unwrap_or_default()
    }

    /// More than the front will be wanted: from now on reads as far ahead as there are blocks.
    pub(crate) fn read_on(&mut self) {
        self.depth = self.pool.count() as usize;
    }

    fn slice(&mut self, offset: u64, len: usize) -> Result<&[u8], DiskError> {
        let holds = |piece: &Piece| {
            piece.offset <= offset && offset + len as u64 <= piece.offset + piece.len as u64
        };
        if let Some(at) = self.pieces.iter().position(holds) {
            let piece = &self.pieces[at];
            let start = (offset - piece.offset) as usize;
            return Ok(piece.block.as_ref().map_or(&[], |block| &block[start..start + len]));
        }
        self.scratch.clear();
        let mut at = offset;
        for piece in &self.pieces {
            let Some(block) = &piece.block else { break };
            if (piece.offset..piece.offset + piece.len as u64).contains(&at) {
                let start = (at - piece.offset) as usize;
                let take = (piece.len - start).min(len - self.scratch.len());
                self.scratch.extend_from_slice(&block[start..start + take]);
                at += take as u64;
            }
        }
        Ok(&self.scratch)
    }

    fn read_ahead(&mut self, disk: &mut dyn Disk) {
        let mut submitted = false;
        while self.next_read < self.file_bytes && self.pieces.len() < self.depth {
            if !self.submit(disk, self.piece_bytes as usize) {
                break;
            }
            submitted = true;
        }
        if submitted {
            // Sent off now, so that the disk reads while the caller works on what it has.
            let mut out = Vec::new();
            disk.reap(Wait::No, &mut out);
            out.into_iter().for_each(|done| self.take(done));
        }
    }

    /// What lies from `bytes` on is not there yet, and is not read; to be called again when more is.
    pub(crate) fn set_end(&mut self, bytes: u64) {
        self.file_bytes = self.file_bytes.max(bytes);
    }

    /// Reads the next piece, if there is a block for it.
    fn submit(&mut self, disk: &mut dyn Disk, wanted: usize) -> bool {
        let Some(block) = self.pool.take() else { return false };
        let offset = self.next_read;
        let left = (self.file_bytes - offset).next_multiple_of(BLOCK_BYTES as u64);
        let wanted = left.min(wanted as u64) as usize;
        disk.submit(Tag(offset), Op::Read { file: self.file, offset, block, len: wanted });
        self.pieces.push_back(Piece { offset, block: None, wanted, len: 0, failed: None });
        self.next_read += wanted as u64;
        true
    }

    fn wait_for(&mut self, disk: &mut dyn Disk, end: u64) -> Result<(), DiskError> {
        let missing = |piece: &Piece| piece.block.is_none() && piece.offset < end;
        let mut out = Vec::new();
        while self.pieces.iter().any(missing) {
            disk.reap(Wait::Any, &mut out);
            for done in out.drain(..) {
                self.take(done);
            }
        }
        // A piece that could not be read fails only those who want it.
        let failed = |piece: &&mut Piece| piece.failed.is_some() && piece.offset < end;
        match self.pieces.iter_mut().find(failed).and_then(|piece| piece.failed.take()) {
            None => Ok(()),
            Some(error) => {
                self.drop_all(disk);
                Err(error)
            }
        }
    }

    fn take(&mut self, done: Completion) {
        let Some(piece) = self.pieces.iter_mut().find(|piece| piece.offset == done.tag.0) else {
            return;
        };
        piece.block = done.slices.into_iter().next().map(|slice| slice.block);
        match done.result {
            Ok(Done::Read(len)) => {
                piece.len = len;
                self.bytes_read += len as u64;
            }
            Ok(_) => {}
            Err(error) => piece.failed = Some(error),
        }
    }

    /// Waits for what is in flight, so that the disk can be used for something else in between.
    pub(crate) fn settle(&mut self, disk: &mut dyn Disk) {
        let mut out = Vec::new();
        while disk.in_flight() > 0 {
            disk.reap(Wait::Any, &mut out);
            for done in out.drain(..) {
                self.take(done);
            }
        }
    }

    /// Waits for what is in flight and forgets everything. To be called before the file is closed.
    pub(crate) fn drop_all(&mut self, disk: &mut dyn Disk) {
        let mut out = Vec::new();
        while disk.in_flight() > 0 {
            disk.reap(Wait::Any, &mut out);
            out.clear();
        }
        self.pieces.clear();
    }
}
