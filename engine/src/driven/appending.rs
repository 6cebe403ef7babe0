//! Appending to a driven shard, and what comes of it: offsets at once, acknowledgement later.
//!
//! Records go into one open chunk; a [turn](DrivenShard::turn) pushes it to the shard.
//!
//! Invariants: offsets are given in the order of the appends, which is that of the chunks. A token
//! comes back exactly once.

use ringlog_disk::Disk;

use super::shard::{DrivenShard, Policy, StreamState};
use super::tokens::Event;
use crate::chunk::{Chunk, chunk_capacity};
use crate::error::{AppendError, FullReason, ReceiptError};
use crate::format::batch::{FrameKind, Nonce, RUN_BYTES, frame_bytes};
use crate::ids::{Lsn, Offset, StreamId};
use crate::options::Durability;
use crate::recovery::Identity;

/// An append that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The record's offset in its stream; for a batch, that of the first record. It holds unless
    /// the append fails (then no later record was acknowledged either).
    pub offset: Offset,
    chunk: u64,
    durability: Durability,
}

impl<D: Disk> DrivenShard<D> {
    // ---- appending ----

    /// Appends a record (it may be empty). Copies it and gives its offset; touches no disk: that
    /// begins with the next turn.
    ///
    /// # Errors
    /// See [`AppendError`]; the record is not stored then. [`AppendError::Full`] passes by itself:
    /// for want of memory, when turns have brought a commit to its end.
    pub fn append(
        &mut self,
        stream: StreamId,
        record: &[u8],
        durability: Durability,
    ) -> Result<Appended, AppendError> {
        self.put(stream, FrameKind::Record, std::slice::from_ref(&record), durability)
    }

    /// Appends several records, all or none: after a crash either all of them are there or none.
    /// They get consecutive offsets.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing of the batch is stored then.
    pub fn append_batch<R: AsRef<[u8]>>(
        &mut self,
        stream: StreamId,
        records: &[R],
        durability: Durability,
    ) -> Result<Appended, AppendError> {
        self.put(stream, FrameKind::Record, records, durability)
    }

    /// Appends a tombstone: a statement that earlier data no longer holds. Nothing is removed; what
    /// it refers to is the payload's business.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append_tombstone(
        &mut self,
        stream: StreamId,
        record: &[u8],
        durability: Durability,
    ) -> Result<Appended, AppendError> {
        self.put(stream, FrameKind::Tombstone, std::slice::from_ref(&record), durability)
    }

    fn put<R: AsRef<[u8]>>(
        &mut self,
        stream: StreamId,
        kind: FrameKind,
        records: &[R],
        durability: Durability,
    ) -> Result<Appended, AppendError> {
        let appended = self.put_into_chunk(stream, kind, records, durability);
        match &appended {
            Ok(_) => {
                self.counts.records += records.len() as u64;
                self.counts.bytes += records.iter().map(|r| r.as_ref().len() as u64).sum::<u64>();
            }
            Err(refused) => self.counts.rejections.note(refused),
        }
        appended
    }

    fn put_into_chunk<R: AsRef<[u8]>>(
        &mut self,
        stream: StreamId,
        kind: FrameKind,
        records: &[R],
        durability: Durability,
    ) -> Result<Appended, AppendError> {
        self.check_open()?;
        let known = self.streams.get(stream.0 as usize).filter(|_| stream != StreamId::CATALOGUE);
        let Some(StreamState { next: offset, policy }) = known.copied() else {
            return Err(AppendError::UnknownStream(stream));
        };
        if durability == Durability::Synced && policy == Policy::Never {
            return Err(AppendError::NeverSynced);
        }
        let bytes = records.iter().fold(0_usize, |sum, record| {
            sum.saturating_add(frame_bytes(record.as_ref().len().min(usize::MAX / 2)))
        });
        if records.is_empty() {
            return Err(AppendError::EmptyBatch);
        }
        if bytes > self.frames_bytes_max {
            return Err(AppendError::TooLarge { bytes, limit: self.frames_bytes_max });
        }
        let apart = policy == Policy::Apart;
        if apart {
            self.set_aside();
        }
        let large = self.large.id();
        let chunk = self.chunk_with_room(bytes)?;
        for record in records {
            chunk.push(stream, kind, record.as_ref());
        }
        chunk.level = chunk.level.max(durability);
        chunk.apart = apart;
        let number = chunk.number;
        let complete = apart || chunk.block.pool_id() == large || !chunk.fits(frame_bytes(0));
        if complete {
            self.set_aside();
        }
        self.count(stream, records.len() as u64);
        Ok(Appended { offset, chunk: number, durability })
    }

    pub(super) fn count(&mut self, stream: StreamId, records: u64) {
        if let Some(state) = self.streams.get_mut(stream.0 as usize) {
            state.next.0 += records;
        }
    }

    pub(super) fn check_open(&self) -> Result<(), AppendError> {
        let shard = &self.writer.shard;
        if let Some(error) = shard.poisoned() {
            Err(AppendError::Poisoned(error.clone()))
        } else if self.closing {
            Err(AppendError::Closed)
        } else if shard.is_disk_full() {
            Err(AppendError::Full { reason: FullReason::Disk })
        } else {
            Ok(())
        }
    }

    /// The open chunk if it has room, else a new one in its place.
    pub(super) fn chunk_with_room(&mut self, bytes: usize) -> Result<&mut Chunk, AppendError> {
        if self.open.as_ref().is_some_and(|chunk| !chunk.fits(bytes)) {
            self.set_aside();
        }
        if self.open.is_none() {
            let small = bytes + RUN_BYTES <= chunk_capacity(self.small.block_bytes());
            let pool = if small { &self.small } else { &self.large };
            let block = pool.take();
            self.pressed |= pool.available() < pool.count() as usize / 4;
            let Some(block) = block else {
                return Err(AppendError::Full { reason: FullReason::Memory });
            };
            let number = self.writer.shard.accepted_chunks() + self.full.len() as u64 + 1;
            let nonce = Nonce { epoch: self.epoch, count: number };
            let Identity { log, shard, .. } = self.place.identity;
            let mut chunk = Box::new(Chunk::new(block, log, shard, nonce, None));
            chunk.number = number;
            self.open = Some(chunk);
        }
        self.touched = true;
        match &mut self.open {
            Some(chunk) => Ok(chunk),
            None => Err(AppendError::Closed), // not reached: it was put there just now
        }
    }

    /// The open chunk, if any, takes no more.
    pub(super) fn set_aside(&mut self) {
        self.full.extend(self.open.take());
        self.open_since = None;
    }

    // ---- acknowledgement ----

    /// Leaves a token with an append: it comes back exactly once, among the
    /// [events](DrivenShard::events), when the append is acknowledged or has failed. Costs an entry
    /// in a list. Without it nothing is told, and nothing is remembered.
    pub fn notify(&mut self, appended: Appended, token: u64) {
        let Appended { chunk, durability, .. } = appended;
        if self.is_acknowledged(&appended) {
            self.tokens.events.push(Event::Acknowledged { token });
        } else if let Some(error) = self.failure_of(&appended) {
            self.tokens.events.push(Event::Failed { token, error });
        } else {
            self.tokens.wait(durability, chunk, token);
        }
    }

    /// Whether an append of this shard is acknowledged at the durability it asked for, as of the
    /// last turn. Compares two numbers.
    pub fn is_acknowledged(&self, appended: &Appended) -> bool {
        let (_, written_to, durable_to) = self.writer.shard.reached_chunks();
        let reached = match appended.durability {
            Durability::Memory => return true,
            Durability::Written => written_to,
            Durability::Synced => durable_to,
        };
        appended.chunk <= reached && !self.tokens.is_refused(appended.chunk)
    }

    /// Why an append will not be acknowledged; `None` where it is, or still may be.
    pub fn failure_of(&self, appended: &Appended) -> Option<ReceiptError> {
        if self.is_acknowledged(appended) {
            None
        } else if self.tokens.is_refused(appended.chunk) {
            Some(ReceiptError::DiskFull)
        } else {
            self.poisoned().map(|error| ReceiptError::Poisoned(error.clone()))
        }
    }

    /// Takes what has happened since the last call: tokens of appends, in the order of the appends
    /// for each durability, and answers to requests.
    pub fn events(&mut self) -> std::vec::Drain<'_, Event> {
        self.tokens.events.drain(..)
    }

    /// Everything before this is flushed.
    pub fn durable_lsn(&self) -> Lsn {
        self.writer.shard.durable()
    }

    /// Everything before this was accepted by the device.
    pub fn written_lsn(&self) -> Lsn {
        self.writer.shard.written()
    }

    /// Everything before this has its place on the disk; records in the open chunk come behind it.
    pub fn staged_lsn(&self) -> Lsn {
        self.writer.shard.staged()
    }
}
