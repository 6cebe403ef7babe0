//! Sequential reading of a file through a disk, several pieces ahead; also beyond its end, into the
//! file that follows.
//!
//! Knows nothing of what the bytes mean. The disk must have nothing else in flight.

#[cfg(test)]
mod tests;

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
    /// The file that follows, once somebody has said which it is.
    ahead: Option<Ahead>,
    /// How many pieces may be ahead: one, until the window moves on, so that a look at the front of
    /// a file reads only that.
    depth: usize,
    scratch: Vec<u8>,
    hand: Hand,
    /// Bytes read from the disk so far.
    pub(crate) bytes_read: u64,
}

/// A file of which the first pieces are read while the last ones of another are still in use.
struct Ahead {
    file: FileId,
    file_bytes: u64,
    pieces: VecDeque<Piece>,
    from: u64,
    next_read: u64,
}

/// What the last look brought: bytes from `offset` on, in pieces one behind the other or in the
/// scratch memory.
#[derive(Clone, Copy, Default)]
struct Hand {
    offset: u64,
    /// None are at hand where this is 0.
    len: usize,
    /// The number of the first piece, how many they are (0: it is the scratch memory), and where in
    /// the first one the bytes begin.
    first: usize,
    count: usize,
    start: usize,
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

/// Of an operation whose outcome nobody waits for.
const NOBODYS: Tag = Tag(u64::MAX);

/// Names a read: offsets are multiples of a block, and ids of files are smaller than one.
fn tag(file: FileId, offset: u64) -> Tag {
    const { assert!((FileId::LIMIT as usize) < BLOCK_BYTES) };
    Tag(offset | u64::from(file.0))
}

/// Reads so many bytes into a block, or as many more as complete the last block of the device.
fn read_piece(disk: &mut dyn Disk, file: FileId, offset: u64, wanted: u64, block: Block) -> Piece {
    let wanted = wanted.next_multiple_of(BLOCK_BYTES as u64) as usize;
    disk.submit(tag(file, offset), Op::Read { file, offset, block, len: wanted });
    Piece { offset, block: None, wanted, len: 0, failed: None }
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
            ahead: None,
            depth: 1,
            scratch: Vec::new(),
            hand: Hand::default(),
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
            self.hand = Hand::default();
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
        self.hand = Hand::default();
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
    #[inline]
    pub(crate) fn view(&mut self, offset: u64, len: usize) -> &[u8] {
        let start = offset.wrapping_sub(self.hand.offset);
        let at_hand = start <= self.hand.len as u64 && self.hand.len - start as usize >= len;
        if !at_hand {
            return self.slice(offset, len).unwrap_or_default();
        }
        self.at_hand().get(start as usize..start as usize + len).unwrap_or_default()
    }

    /// More than the front will be wanted: from now on reads as far ahead as there are blocks.
    pub(crate) fn read_on(&mut self) {
        self.depth = self.pool.count() as usize;
    }

    fn slice(&mut self, offset: u64, len: usize) -> Result<&[u8], DiskError> {
        if let Some(hand) = self.in_place(offset, len) {
            self.hand = hand;
            return Ok(self.at_hand());
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
        self.hand = Hand { offset, len: self.scratch.len(), ..Hand::default() };
        Ok(&self.scratch)
    }

    /// Where these bytes lie as they were read: in one piece, or in several whose blocks happen to lie
    /// one behind the other, as most do, for they are used in turns.
    fn in_place(&self, offset: u64, len: usize) -> Option<Hand> {
        let ends = |piece: &Piece| piece.offset + piece.len as u64;
        let holds = |piece: &Piece| piece.offset <= offset && offset < ends(piece);
        let first = self.pieces.iter().position(holds)?;
        let start = (offset - self.pieces[first].offset) as usize;
        let end = offset + len as u64;
        let count = 1 + self.pieces.range(first..).position(|piece| ends(piece) >= end)?;
        let hand = Hand { offset, len, first, count, start };
        let mut all_but_last = self.pieces.range(first..first + count - 1);
        let whole = all_but_last.all(|piece| piece.len as u64 == self.piece_bytes);
        (whole && (count == 1 || self.joined(&hand).is_some())).then_some(hand)
    }

    fn joined(&self, hand: &Hand) -> Option<&[u8]> {
        let pieces = self.pieces.range(hand.first..hand.first + hand.count);
        if pieces.clone().any(|piece| piece.block.is_none()) {
            return None;
        }
        Block::joined(pieces.flat_map(|piece| &piece.block))
    }

    #[inline]
    fn at_hand(&self) -> &[u8] {
        let Hand { len, first, count, start, .. } = self.hand;
        let bytes = match count {
            0 => return &self.scratch,
            1 => self.pieces.get(first).and_then(|piece| piece.block.as_deref()),
            _ => self.joined(&self.hand),
        };
        bytes.and_then(|bytes| bytes.get(start..start + len)).unwrap_or_default()
    }

    fn read_ahead(&mut self, disk: &mut dyn Disk) {
        let mut submitted = false;
        while self.next_read < self.file_bytes && self.pieces.len() < self.depth {
            if !self.submit(disk, self.piece_bytes as usize) {
                break;
            }
            submitted = true;
        }
        if self.is_asked_for() {
            while self.submit_ahead(disk) {
                submitted = true;
            }
        }
        if submitted {
            // Sent off now, so that the disk reads while the caller works on what it has.
            self.look(disk);
        }
    }

    /// Sends off what was submitted, and takes what is there.
    fn look(&mut self, disk: &mut dyn Disk) {
        let mut out = Vec::new();
        disk.reap(Wait::No, &mut out);
        out.into_iter().for_each(|done| self.take(done));
    }

    fn is_asked_for(&self) -> bool {
        self.next_read >= self.file_bytes
    }

    /// Whether the file was read to its end, so that the disk rests.
    pub(crate) fn is_read(&mut self, disk: &mut dyn Disk) -> bool {
        if !self.is_asked_for() {
            return false;
        }
        self.look(disk);
        disk.in_flight() == 0
    }

    /// Names the file that follows, of so many bytes: begins to read it at or before `from`, as far
    /// as there are blocks. It is open already.
    pub(crate) fn follow(
        &mut self,
        disk: &mut dyn Disk,
        (file, file_bytes): (FileId, u64),
        from: u64,
    ) {
        let from = from / self.piece_bytes * self.piece_bytes;
        let pieces = VecDeque::new();
        self.ahead = Some(Ahead { file, file_bytes, pieces, from, next_read: from });
        self.read_on();
        self.read_ahead(disk);
    }

    /// The file that follows, if one was named.
    pub(crate) fn following(&self) -> Option<FileId> {
        self.ahead.as_ref().map(|ahead| ahead.file)
    }

    /// Goes over to the file that follows, and has the one before closed.
    pub(crate) fn turn(&mut self, disk: &mut dyn Disk) {
        let mut out = Vec::new();
        while self.pieces.iter().any(|piece| piece.block.is_none()) {
            disk.reap(Wait::Any, &mut out);
            out.drain(..).for_each(|done| self.take(done));
        }
        let Some(ahead) = self.ahead.take() else { return };
        disk.submit(NOBODYS, Op::Close { file: self.file });
        (self.file, self.file_bytes) = (ahead.file, ahead.file_bytes);
        (self.pieces, self.next_read) = (ahead.pieces, ahead.next_read);
        self.hand = Hand::default();
        self.read_ahead(disk);
    }

    /// What lies from `bytes` on is not there yet, and is not read; to be called again when more is.
    pub(crate) fn set_end(&mut self, bytes: u64) {
        self.file_bytes = self.file_bytes.max(bytes);
    }

    /// Reads the next piece, if there is a block for it.
    fn submit(&mut self, disk: &mut dyn Disk, wanted: usize) -> bool {
        let Some(block) = self.pool.take() else { return false };
        let left = self.file_bytes - self.next_read;
        let piece = read_piece(disk, self.file, self.next_read, left.min(wanted as u64), block);
        self.next_read += piece.wanted as u64;
        self.pieces.push_back(piece);
        true
    }

    /// The same for the file that follows, where that is not too much.
    fn submit_ahead(&mut self, disk: &mut dyn Disk) -> bool {
        let Some(ahead) = &mut self.ahead else { return false };
        let many = self.pieces.len() + ahead.pieces.len() >= self.depth;
        if many || ahead.next_read >= ahead.file_bytes {
            return false;
        }
        let Some(block) = self.pool.take() else { return false };
        let wanted = self.piece_bytes.min(ahead.file_bytes - ahead.next_read);
        let piece = read_piece(disk, ahead.file, ahead.next_read, wanted, block);
        ahead.next_read += piece.wanted as u64;
        ahead.pieces.push_back(piece);
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
        let ahead = self.ahead.as_mut().map(|ahead| (ahead.file, &mut ahead.pieces));
        let both = [Some((self.file, &mut self.pieces)), ahead];
        let mut all = both.into_iter().flatten().flat_map(|(file, pieces)| {
            pieces.iter_mut().map(move |piece| (tag(file, piece.offset), piece))
        });
        let Some((_, piece)) = all.find(|(tag, _)| *tag == done.tag) else { return };
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

    /// Forgets everything, as if nothing had been read: the next look reads only what it is for.
    pub(crate) fn begin_again(&mut self, disk: &mut dyn Disk) {
        self.drop_all(disk);
        self.depth = 1;
    }

    /// Waits for what is in flight and forgets everything. To be called before the file is closed.
    pub(crate) fn drop_all(&mut self, disk: &mut dyn Disk) {
        let mut out = Vec::new();
        while disk.in_flight() > 0 {
            disk.reap(Wait::Any, &mut out);
            out.clear();
        }
        self.hand = Hand::default();
        self.pieces.clear();
        if let Some(ahead) = &mut self.ahead {
            // What is read now may need all blocks.
            ahead.pieces.clear();
            ahead.next_read = ahead.from;
        }
    }
}
