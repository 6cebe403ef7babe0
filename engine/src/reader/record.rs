//! What a reader gives: a record that owns its bytes, or one that borrows them.

use std::fmt;
use std::sync::Arc;

use crate::ids::{Lsn, Offset};

/// A stored record. Owns its bytes together with the other records of its stream and batch; cheap
/// to clone.
#[derive(Clone)]
pub struct Record {
    pub(super) bytes: Arc<[u8]>,
    pub(super) start: u32,
    pub(super) len: u32,
    pub(super) offset: Offset,
    pub(super) lsn: Lsn,
    pub(super) timestamp_ns: u64,
    pub(super) tombstone: bool,
}

impl Record {
    /// Its position in its stream.
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// When it was placed, in nanoseconds since 1970. Never decreases along a shard.
    pub fn timestamp_ns(&self) -> u64 {
        self.timestamp_ns
    }

    /// The position of its batch in its shard.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// The user's bytes.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.start as usize..(self.start + self.len) as usize]
    }

    /// Whether it states that earlier data no longer holds.
    pub fn is_tombstone(&self) -> bool {
        self.tombstone
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("offset", &self.offset.0)
            .field("bytes", &self.payload().len())
            .finish()
    }
}

/// A stored record whose bytes lie in the reader's own buffer, and are good until the reader is
/// asked for the next one.
#[derive(Clone, Copy)]
pub struct RecordRef<'a> {
    pub(super) payload: &'a [u8],
    pub(super) offset: Offset,
    pub(super) lsn: Lsn,
    pub(super) timestamp_ns: u64,
    pub(super) tombstone: bool,
}

impl<'a> RecordRef<'a> {
    /// Its position in its stream.
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// When it was placed, in nanoseconds since 1970. Never decreases along a shard.
    pub fn timestamp_ns(&self) -> u64 {
        self.timestamp_ns
    }

    /// The position of its batch in its shard.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// The user's bytes.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Whether it states that earlier data no longer holds.
    pub fn is_tombstone(&self) -> bool {
        self.tombstone
    }

    /// A record of its own. Cost: one allocation and a copy of the payload.
    pub fn to_record(&self) -> Record {
        Record {
            bytes: Arc::from(self.payload),
            start: 0,
            len: self.payload.len() as u32,
            offset: self.offset,
            lsn: self.lsn,
            timestamp_ns: self.timestamp_ns,
            tombstone: self.tombstone,
        }
    }
}

impl fmt::Debug for RecordRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordRef")
            .field("offset", &self.offset.0)
            .field("bytes", &self.payload.len())
            .finish()
    }
}
