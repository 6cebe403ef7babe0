//! A stream: appending to it, reading it, trimming it.

use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Inner, Writer};
use crate::error::{AppendError, LogError, ReadError, ReceiptError, TrimError};
use crate::format::batch::FrameKind;
use crate::ids::{Offset, StreamId};
use crate::inbox::{Admission, How, Inbox};
use crate::options::{Durability, SyncPolicy};
use crate::reader::{Follower, Reader, Record, ShardReads, Wanted};
use crate::receipt::Receipt;
use crate::shard::Request;

/// A named stream of a log. Cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Stream {
    pub(super) log: Arc<Inner>,
    pub(super) name: Arc<str>,
    pub(super) shard: usize,
    pub(super) id: StreamId,
    pub(super) policy: SyncPolicy,
}

impl Stream {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The shard that it belongs to, by its name alone.
    pub fn shard(&self) -> u16 {
        self.shard as u16
    }

    /// Appends a record (it may be empty) at the log's default durability. Returns at once.
    ///
    /// # Errors
    /// See [`AppendError`]; the record is not stored then.
    pub fn append(&self, record: &[u8]) -> Result<Receipt, AppendError> {
        self.append_with(record, self.log.options.durability)
    }

    /// Appends a record at this durability. Returns at once.
    ///
    /// # Errors
    /// See [`AppendError`]; the record is not stored then.
    pub fn append_with(
        &self,
        record: &[u8],
        durability: Durability,
    ) -> Result<Receipt, AppendError> {
        self.put(FrameKind::Record, std::slice::from_ref(&record), durability, None)
    }

    /// The same, but waits for room, at most so long.
    ///
    /// # Errors
    /// See [`AppendError`]; `Full` after the time is over.
    pub fn append_within(
        &self,
        record: &[u8],
        durability: Durability,
        at_most: Duration,
    ) -> Result<Receipt, AppendError> {
        self.put(FrameKind::Record, std::slice::from_ref(&record), durability, Some(at_most))
    }

    /// Appends several records, all or none: after a crash either all of them are there or none.
    /// They get consecutive offsets; the receipt tells the first. Returns at once.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing of the batch is stored then.
    pub fn append_batch<R: AsRef<[u8]>>(
        &self,
        records: &[R],
        durability: Durability,
    ) -> Result<Receipt, AppendError> {
        self.put(FrameKind::Record, records, durability, None)
    }

    /// The same, but waits for room, at most so long.
    ///
    /// # Errors
    /// See [`AppendError`]; `Full` after the time is over.
    pub fn append_batch_within<R: AsRef<[u8]>>(
        &self,
        records: &[R],
        durability: Durability,
        at_most: Duration,
    ) -> Result<Receipt, AppendError> {
        self.put(FrameKind::Record, records, durability, Some(at_most))
    }

    /// Appends a tombstone: a statement that earlier data no longer holds. Nothing is removed; what
    /// it refers to is the payload's business.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append_tombstone(
        &self,
        record: &[u8],
        durability: Durability,
    ) -> Result<Receipt, AppendError> {
        self.put(FrameKind::Tombstone, std::slice::from_ref(&record), durability, None)
    }

    /// The same, but waits for room, at most so long.
    ///
    /// # Errors
    /// See [`AppendError`]; `Full` after the time is over.
    pub fn append_tombstone_within(
        &self,
        record: &[u8],
        durability: Durability,
        at_most: Duration,
    ) -> Result<Receipt, AppendError> {
        self.put(FrameKind::Tombstone, std::slice::from_ref(&record), durability, Some(at_most))
    }

    fn put<R: AsRef<[u8]>>(
        &self,
        kind: FrameKind,
        records: &[R],
        level: Durability,
        at_most: Option<Duration>,
    ) -> Result<Receipt, AppendError> {
        let Writer::Running(shared, _) = &self.log.shards[self.shard].writer else {
            return Err(AppendError::ReadOnly);
        };
        if level == Durability::Synced && self.policy == SyncPolicy::Never {
            return Err(AppendError::NeverSynced);
        }
        let thread = Inbox::this_thread();
        let apart = self.policy == SyncPolicy::EveryAppend;
        let how = How { level, apart, will_try_again: false };
        match at_most {
            None => shared.inbox.append(thread, self.id, kind, records, how),
            Some(at_most) => {
                let deadline = Instant::now().checked_add(at_most);
                shared.inbox.append_until(thread, self.id, kind, records, how, deadline)
            }
        }
    }

    /// Reads the records of a range of offsets, in order, as far as they are durable now. A range
    /// without a start begins with the first record there is; one with a start that was trimmed
    /// gives [`ReadError::Trimmed`] as its first item and goes on with the first record there is;
    /// what is trimmed before the reader comes to it is told in the same way.
    /// The reader that this gives can be limited, turned round, and shown more than what is durable.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`] for a start behind the next offset, or behind the end of the
    /// range; [`ReadError::Disk`].
    pub fn read(&self, range: impl RangeBounds<Offset>) -> Result<Reader, ReadError> {
        let wanted = Wanted::range(self.id, &range);
        wanted.check(|| self.next_offset())?;
        Reader::new(Arc::clone(self.reads()), wanted)
    }

    /// Reads the records that were placed at or after a time, in nanoseconds since 1970, in order,
    /// as far as they are durable now. Time is the shard's: see [`crate::Record::timestamp_ns`].
    ///
    /// # Errors
    /// [`ReadError::Disk`].
    pub fn read_since(&self, timestamp_ns: u64) -> Result<Reader, ReadError> {
        let wanted = Wanted { stream: self.id, from: None, end: None };
        Reader::since(Arc::clone(self.reads()), wanted, timestamp_ns)
    }

    /// The record at an offset, which must be durable. Cost: with its segment sealed, about two
    /// reads from the device.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`] where there is none yet, [`ReadError::Trimmed`] where it is there
    /// no more; [`ReadError::Corrupt`], [`ReadError::Lost`], [`ReadError::Disk`].
    pub fn get(&self, offset: Offset) -> Result<Record, ReadError> {
        let end = Some(Offset(offset.0.saturating_add(1)));
        let wanted = Wanted { stream: self.id, from: Some(offset), end };
        match Reader::new(Arc::clone(self.reads()), wanted)?.next() {
            Some(found) => found,
            None if offset < self.next_offset() => {
                // It is there, but not durable; or what there is lies behind it.
                let wanted = Wanted { end: None, ..wanted };
                match Reader::new(Arc::clone(self.reads()), wanted)?.next() {
                    Some(Err(error)) => Err(error),
                    _ => Err(ReadError::OutOfRange { next: offset }),
                }
            }
            None => Err(ReadError::OutOfRange { next: self.next_offset() }),
        }
    }

    /// Follows the stream: gives its records from `from` on, and waits for those to come. Several
    /// may follow at once; at the tail they read from memory. A start that was trimmed gives
    /// [`ReadError::Trimmed`] as the first item and goes on with the first record there is.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`] for a start behind the next offset; [`ReadError::Disk`].
    pub fn follow(&self, from: Offset) -> Result<Follower, ReadError> {
        let wanted = Wanted { stream: self.id, from: Some(from), end: None };
        wanted.check(|| self.next_offset())?;
        Follower::new(Arc::clone(self.reads()), self.id, Some(from))
    }

    fn reads(&self) -> &Arc<ShardReads> {
        &self.log.reads[self.shard]
    }

    /// Trims the stream: its records below `before` cannot be read any more, durably once this
    /// returns. Offsets stay what they are. Readers that were made before may finish. The room is
    /// given back once all that lies in a segment is trimmed. Gives the offset that the stream
    /// begins at, which is larger where it was trimmed further before.
    ///
    /// # Errors
    /// See [`TrimError`].
    pub fn trim(&self, before: Offset) -> Result<Offset, TrimError> {
        let shard = &self.log.shards[self.shard];
        let Writer::Running(shared, _) = &shard.writer else {
            return Err(TrimError::Append(AppendError::ReadOnly));
        };
        let next = self.next_offset();
        if before > next {
            return Err(TrimError::OutOfRange { next });
        }
        let first = shard.published.trimmed_before(self.id);
        if before <= first {
            return Ok(first);
        }
        let thread = Inbox::this_thread();
        let receipt = match shared.inbox.append_trim(thread, self.id, before) {
            Err(AppendError::Full { .. }) => {
                // What is on its way makes room.
                let _ = shared.ask(Request::Flush); // the second attempt tells
                shared.inbox.append_trim(thread, self.id, before)
            }
            other => other,
        };
        let receipt = receipt.map_err(TrimError::Append)?;
        // Whatever the sync policy is, this does not wait for it.
        let _ = shared.ask(Request::Flush); // the receipt tells how it ended
        match receipt.wait() {
            Ok(_) => Ok(shard.published.trimmed_before(self.id)),
            Err(ReceiptError::DiskFull) => {
                Err(TrimError::Append(AppendError::Full { reason: crate::error::FullReason::Disk }))
            }
            Err(ReceiptError::Poisoned(error)) => Err(TrimError::Log(LogError::Poisoned(error))),
            Err(_) => Err(TrimError::Log(LogError::Closed)),
        }
    }

    /// The offset that the next record to be placed will have. Records that were appended but not
    /// placed yet come before it.
    pub fn next_offset(&self) -> Offset {
        self.log.next_offsets(self.shard, &[self.id]).first().copied().unwrap_or_default()
    }

    /// Whether appends are taken at this moment.
    pub fn is_open(&self) -> bool {
        match &self.log.shards[self.shard].writer {
            Writer::Running(shared, _) => shared.inbox.admission() == Admission::Open,
            Writer::ReadOnly { .. } => false,
        }
    }
}
