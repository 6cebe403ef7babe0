//! A chunk: the frames of one producer, in one block, on their way to the writer.
//!
//! The producer copies and checksums each record straight into the block, behind room for the
//! headers that only the writer can fill in. A chunk knows nothing of where it will lie.

use std::sync::Arc;

use ringlog_disk::Block;

use crate::format::batch::{
    BATCH_HEADER_BYTES, FrameKind, FrameSeed, Nonce, RUN_BYTES, Run, SECTION_HEADER_BYTES,
    SectionHeader, encode_frame, frame_bytes,
};
use crate::ids::{LogId, Offset, StreamId};
use crate::options::Durability;
use crate::receipt::Ticket;
use crate::refusals::Refusals;

/// Where the frames of a chunk begin in its block.
pub const FRAMES_START: usize = BATCH_HEADER_BYTES + SECTION_HEADER_BYTES;

/// Bytes of frames and runs that fit a block of this size.
pub const fn chunk_capacity(block_bytes: usize) -> usize {
    block_bytes - FRAMES_START
}

/// An open or handed-over chunk.
#[derive(Debug)]
pub struct Chunk {
    /// The memory; frames begin at [`FRAMES_START`].
    pub block: Block,
    /// Bytes of frames so far.
    pub frames_bytes: usize,
    /// Number of frames so far.
    pub frames: u32,
    /// Consecutive frames by stream.
    pub runs: Vec<Run>,
    /// Its nonce.
    pub nonce: Nonce,
    /// The strongest durability asked for by any of its records.
    pub level: Durability,
    /// Bytes of payload of each run.
    pub run_bytes: Vec<u64>,
    /// It is one append call that shares its flush with nobody.
    pub apart: bool,
    /// Streams that this chunk creates.
    pub created: Vec<(StreamId, Arc<str>)>,
    /// Streams that this chunk trims, each to an offset.
    pub trimmed: Vec<(StreamId, Offset)>,
    /// What its receipts wait on. Without one, whoever drives the shard follows its `number`.
    pub ticket: Option<Arc<Ticket>>,
    /// How often its shard had refused what was taken when this was begun; the largest number where
    /// that does not concern it.
    pub refusals: Refusals,
    /// Its place in the order in which the shard took chunks, from 1; 0 before that.
    pub number: u64,
    seed: FrameSeed,
}

impl Chunk {
    /// An empty chunk in `block`.
    pub fn new(
        block: Block,
        log: LogId,
        shard: u16,
        nonce: Nonce,
        ticket: Option<Arc<Ticket>>,
    ) -> Self {
        Self {
            block,
            frames_bytes: 0,
            frames: 0,
            runs: Vec::with_capacity(1),
            nonce,
            level: Durability::Memory,
            run_bytes: Vec::with_capacity(1),
            apart: false,
            created: Vec::new(),
            trimmed: Vec::new(),
            ticket,
            refusals: Refusals::MAX,
            number: 0,
            seed: FrameSeed::new(log, shard, nonce),
        }
    }

    /// Whether frames of so many bytes in all, of one stream, fit.
    pub fn fits(&self, frames_bytes: usize) -> bool {
        let runs = (self.runs.len() + 1) * RUN_BYTES;
        self.frames_bytes + frames_bytes + runs <= chunk_capacity(self.block.len())
    }

    /// Adds one frame; the caller has checked that it fits. Gives the run that it lies in and its
    /// place there.
    pub fn push(&mut self, stream: StreamId, kind: FrameKind, payload: &[u8]) -> (u32, u32) {
        let start = FRAMES_START + self.frames_bytes;
        encode_frame(&mut self.block[start..], self.seed, self.frames, stream, kind, payload);
        self.frames_bytes += frame_bytes(payload.len());
        self.frames += 1;
        let bytes = payload.len() as u64;
        match (self.runs.last_mut(), self.run_bytes.last_mut()) {
            (Some(run), Some(sum)) if run.stream == stream => {
                run.count += 1;
                *sum += bytes;
            }
            _ => {
                self.runs.push(Run { stream, count: 1, base: Offset(0) });
                self.run_bytes.push(bytes);
            }
        }
        let run = self.runs.len() - 1;
        (run as u32, self.runs[run].count - 1)
    }

    /// Its section header as it will be stored.
    pub fn section(&self) -> SectionHeader {
        SectionHeader {
            nonce: self.nonce,
            frames_bytes: self.frames_bytes as u32,
            frames: self.frames,
            runs: self.runs.len() as u32,
        }
    }
}
