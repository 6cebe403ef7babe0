//! Writing a segment anew: valid batches where they were, gap markers between them.

use ringlog_disk::{
    AnyDisk, Block, BlockPool, DiskError, DiskErrorKind, FileId, FileName, Flush, Op, Slice,
};

use super::super::ShardFiles;
use super::super::walk::{Hole, Item};
use super::survey::Piece;
use crate::clock::wall_ns;
use crate::error::OpenError;
use crate::format::batch::{BatchHeader, BatchKind, HeaderSeed};
use crate::format::segment::{SEGMENT_HEADER_BYTES, Sealed, SegmentFooter, SegmentHeader};
use crate::ids::{Epoch, Lsn};
use crate::limits::{BATCH_BYTES_MAX, BLOCK_BYTES};
use crate::names;
use crate::recovery::ask;

const TARGET: FileId = FileId(0);
const NEW_FILE: &str = "repair.tmp";

pub(super) struct Rebuilder<'a> {
    /// The old files.
    pub(super) files: &'a mut ShardFiles,
    /// The same directory, for writing.
    pub(super) disk: &'a mut AnyDisk,
    /// For gaps that have no batch before or behind them.
    pub(super) epoch: Epoch,
    /// Time of the last batch before this segment.
    pub(super) last_ns: u64,
}

impl Rebuilder<'_> {
    /// What a segment holds that stays as it is.
    pub(super) fn sums(&self, piece: &Piece, chain: u32) -> Sealed {
        let mut sealed = empty(piece.base, chain);
        for item in &piece.items {
            if let Item::Batch(batch) = item {
                add(&mut sealed, &batch.header, batch.chain);
            }
        }
        sealed
    }

    /// Writes the segment into a new file and gives it its name. `chain` is the chain value before
    /// it, `after` the one that the segment behind it expects.
    pub(super) fn rewrite(
        &mut self,
        piece: &Piece,
        chain: u32,
        after: Option<u32>,
    ) -> Result<Sealed, OpenError> {
        let identity = self.files.identity;
        let temporary = FileName::new(NEW_FILE)
            .ok_or_else(|| DiskError::new(DiskErrorKind::Unexpected, "name a new segment"))?;
        match ask(self.disk, Op::Remove { name: temporary.clone() }) {
            Err(error) if error.kind != DiskErrorKind::NotFound => return Err(error.into()),
            _ => {} // what a repair left that was cut short is gone
        }
        let bytes = identity.segment_bytes;
        ask(self.disk, Op::Create { file: TARGET, name: temporary.clone(), bytes })?;
        let blocks = BlockPool::new(1, BLOCK_BYTES)?;
        let header = SegmentHeader {
            log: identity.log,
            shard: identity.shard,
            segment: piece.segment,
            epoch: self.epoch,
            created_ns: wall_ns(),
            segment_bytes: bytes,
        };
        let mut block = take(&blocks)?;
        header.encode(&mut block);
        write(self.disk, 0, block, BLOCK_BYTES)?;
        let sealed = self.write_items(piece, chain, after, &blocks)?;
        let footer = SegmentFooter {
            log: identity.log,
            shard: identity.shard,
            segment: piece.segment,
            sealed,
        };
        let mut block = take(&blocks)?;
        footer.encode(&mut block);
        let footer_at = SEGMENT_HEADER_BYTES + (sealed.end_lsn.0 - sealed.base_lsn.0);
        write(self.disk, footer_at, block, BLOCK_BYTES)?;
        ask(self.disk, Op::Sync { file: TARGET })?;
        ask(self.disk, Op::Close { file: TARGET })?;
        ask(self.disk, Op::Rename { from: temporary, to: names::segment(piece.segment) })?;
        ask(self.disk, Op::SyncDir)?;
        Ok(sealed)
    }

    fn write_items(
        &mut self,
        piece: &Piece,
        chain: u32,
        after: Option<u32>,
        blocks: &BlockPool,
    ) -> Result<Sealed, OpenError> {
        let mut sealed = empty(piece.base, chain);
        let identity = self.files.identity;
        let seed = HeaderSeed::new(identity.log, identity.shard, piece.segment);
        let largest = BATCH_BYTES_MAX.min(identity.segment_bytes as usize);
        let batches = BlockPool::new(1, largest)?;
        let mut file = None;
        let mut epoch = piece.items.iter().find_map(epoch_of).unwrap_or(self.epoch);
        for (at, item) in piece.items.iter().enumerate() {
            match item {
                Item::Batch(batch) => {
                    if file.is_none() {
                        file = Some(match self.files.segment(piece.segment)? {
                            Ok(file) => file,
                            Err(_) => return Err(changed(piece)),
                        });
                    }
                    let Some(source) = file.as_mut() else { continue };
                    let mut block = take(&batches)?;
                    let len = batch.header.stored_bytes as usize;
                    let offset = SEGMENT_HEADER_BYTES + (batch.header.lsn.0 - piece.base.0);
                    let bytes = source.get(offset, len)?;
                    if bytes.len() != len {
                        return Err(changed(piece));
                    }
                    block[..len].copy_from_slice(bytes);
                    write(self.disk, offset, block, len)?;
                    add(&mut sealed, &batch.header, batch.chain);
                    epoch = batch.header.epoch;
                }
                Item::Hole(hole) => {
                    let next = match piece.items.get(at + 1) {
                        Some(next) => next.previous(),
                        None => after,
                    };
                    let resume = next.or(hole.resume).unwrap_or(sealed.chain_end);
                    let gap = Gap { seed, epoch, last_ns: self.last_ns, resume };
                    write_gap(self.disk, blocks, &gap, hole, &mut sealed)?;
                }
            }
        }
        if let Some(file) = file {
            file.close()?;
        }
        Ok(sealed)
    }
}

/// Gap markers over a hole. The new file is zeros all over, so their headers are enough.
fn write_gap(
    disk: &mut AnyDisk,
    blocks: &BlockPool,
    gap: &Gap,
    hole: &Hole,
    sealed: &mut Sealed,
) -> Result<(), OpenError> {
    let mut at = hole.from;
    while at < hole.to {
        let header = BatchHeader {
            kind: BatchKind::Gap,
            lsn: at,
            epoch: gap.epoch,
            durable_lsn: Lsn(0),
            timestamp_ns: sealed.last_ns.max(gap.last_ns),
            body_bytes: 0,
            stored_bytes: (hole.to.0 - at.0).min(BATCH_BYTES_MAX as u64) as u32,
            frames: 0,
            sections: 0,
            meta_crc: 0,
            previous: sealed.chain_end,
            resume: gap.resume,
        };
        let mut block = take(blocks)?;
        block.fill(0);
        let chain = header.encode(gap.seed, &mut block);
        let offset = SEGMENT_HEADER_BYTES + (at.0 - sealed.base_lsn.0);
        write(disk, offset, block, BLOCK_BYTES)?;
        add(sealed, &header, chain);
        at = header.end();
    }
    Ok(())
}

/// What the markers of one hole have in common.
struct Gap {
    seed: HeaderSeed,
    epoch: Epoch,
    last_ns: u64,
    resume: u32,
}

fn write(disk: &mut AnyDisk, offset: u64, block: Block, len: usize) -> Result<(), DiskError> {
    let data = vec![Slice { block, len }];
    ask(disk, Op::Write { file: TARGET, offset, data, flush: Flush::No }).map(drop)
}

fn epoch_of(item: &Item) -> Option<Epoch> {
    match item {
        Item::Batch(batch) => Some(batch.header.epoch),
        Item::Hole(_) => None,
    }
}

fn empty(base: Lsn, chain: u32) -> Sealed {
    Sealed {
        base_lsn: base,
        end_lsn: base,
        chain_before: chain,
        chain_end: chain,
        records: 0,
        first_ns: 0,
        last_ns: 0,
    }
}

fn add(sealed: &mut Sealed, header: &BatchHeader, chain: u32) {
    if sealed.base_lsn == sealed.end_lsn {
        sealed.first_ns = header.timestamp_ns;
    }
    sealed.end_lsn = header.end();
    sealed.chain_end = chain;
    sealed.records += u64::from(header.frames);
    sealed.last_ns = header.timestamp_ns;
}

fn take(pool: &BlockPool) -> Result<Block, DiskError> {
    pool.take().ok_or_else(|| DiskError::new(DiskErrorKind::Limit, "take a block"))
}

fn changed(piece: &Piece) -> OpenError {
    let doing = format!("read segment {} once more", piece.segment);
    DiskError::new(DiskErrorKind::Io, doing).into()
}
