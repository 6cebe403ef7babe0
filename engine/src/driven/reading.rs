//! Reading what a driven shard has written. The readers are those of [`crate::Stream`].

use std::ops::RangeBounds;
use std::sync::Arc;

use ringlog_disk::Disk;

use super::shard::DrivenShard;
use crate::error::ReadError;
use crate::ids::{Offset, StreamId};
use crate::reader::{Follower, Reader, Record, Wanted};

/// Readers read on the thread that uses them, beside the shard, and wait for the device there: a
/// loop that must not stand still sends them elsewhere. They may be used on any thread.
impl<D: Disk> DrivenShard<D> {
    /// Reads the records of a range of offsets, as [`crate::Stream::read`] does: what is durable as
    /// of the last turn.
    ///
    /// # Errors
    /// As [`crate::Stream::read`].
    pub fn read(
        &self,
        stream: StreamId,
        range: impl RangeBounds<Offset>,
    ) -> Result<Reader, ReadError> {
        let wanted = Wanted::range(stream, &range);
        wanted.check(|| self.next_offset(stream))?;
        Reader::new(Arc::clone(&self.place.reads), wanted)
    }

    /// Reads the records that were placed at or after a time, in nanoseconds since 1970, as
    /// [`crate::Stream::read_since`] does.
    ///
    /// # Errors
    /// As [`crate::Stream::read_since`].
    pub fn read_since(&self, stream: StreamId, timestamp_ns: u64) -> Result<Reader, ReadError> {
        let wanted = Wanted { stream, from: None, end: None };
        Reader::since(Arc::clone(&self.place.reads), wanted, timestamp_ns)
    }

    /// The record at an offset, which must be durable, as [`crate::Stream::get`] does.
    ///
    /// # Errors
    /// As [`crate::Stream::get`].
    pub fn get(&self, stream: StreamId, offset: Offset) -> Result<Record, ReadError> {
        let wanted = Wanted { stream, from: Some(offset), end: None };
        wanted.check(|| self.next_offset(stream))?;
        match Reader::new(Arc::clone(&self.place.reads), wanted)?.next() {
            Some(found) => found,
            None => Err(ReadError::OutOfRange { next: offset }),
        }
    }

    /// Follows a stream, as [`crate::Stream::follow`] does. A follower that waits belongs on
    /// another thread than the one that takes the turns.
    ///
    /// # Errors
    /// As [`crate::Stream::follow`].
    pub fn follow(&self, stream: StreamId, from: Offset) -> Result<Follower, ReadError> {
        Wanted { stream, from: Some(from), end: None }.check(|| self.next_offset(stream))?;
        Follower::new(Arc::clone(&self.place.reads), stream, Some(from))
    }
}
