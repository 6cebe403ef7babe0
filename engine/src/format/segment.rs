//! The two blocks that frame a segment: its header, written before its first batch, and its
//! footer, written when it is sealed.
//!
//! The header does not say at which LSN the segment begins: it is written ahead of time, when that
//! is not known yet. The first batch says it, and the manifest once the segment is sealed.

use super::bytes::{
    expected_crc, get_log_id, get_u16, get_u32, get_u64, put_u16, put_u32, put_u64, seal_crc,
};
use super::{Refused, VERSION, check_format};
use crate::ids::{Epoch, LogId, Lsn, SegmentId};
use crate::limits::BLOCK_BYTES;

/// Batches begin behind the header.
pub const SEGMENT_HEADER_BYTES: u64 = BLOCK_BYTES as u64;
/// Bytes of a footer; it lies directly behind the last batch.
pub const SEGMENT_FOOTER_BYTES: u64 = BLOCK_BYTES as u64;

const HEADER_MAGIC: u32 = u32::from_le_bytes(*b"RLs1");
const FOOTER_MAGIC: u32 = u32::from_le_bytes(*b"RLf1");
const CRC_FIELD: usize = 4;

/// The first block of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The log.
    pub log: LogId,
    /// The shard.
    pub shard: u16,
    /// The segment.
    pub segment: SegmentId,
    /// The life in which the segment was prepared.
    pub epoch: Epoch,
    /// When it was prepared, in nanoseconds since 1970.
    pub created_ns: u64,
    /// Size of the file in bytes.
    pub segment_bytes: u64,
}

impl SegmentHeader {
    /// Fills one block.
    pub fn encode(&self, out: &mut [u8]) {
        let out = &mut out[..BLOCK_BYTES];
        out.fill(0);
        put_u32(out, 0, HEADER_MAGIC);
        put_u16(out, 8, VERSION);
        put_u16(out, 10, self.shard);
        out[16..32].copy_from_slice(&self.log.0);
        put_u64(out, 32, self.segment.0);
        put_u64(out, 40, self.epoch.0);
        put_u64(out, 48, self.created_ns);
        put_u64(out, 56, self.segment_bytes);
        seal_crc(out, CRC_FIELD, 0);
    }

    /// Reads one block.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refused> {
        let bytes = checked_block(bytes, HEADER_MAGIC, "segment header")?;
        Ok(Self {
            log: get_log_id(bytes, 16),
            shard: get_u16(bytes, 10),
            segment: SegmentId(get_u64(bytes, 32)),
            epoch: Epoch(get_u64(bytes, 40)),
            created_ns: get_u64(bytes, 48),
            segment_bytes: get_u64(bytes, 56),
        })
    }
}

/// What is known of a segment once nothing is added to it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// LSN of its first batch.
    pub base_lsn: Lsn,
    /// LSN behind its last batch.
    pub end_lsn: Lsn,
    /// Chain value before its first batch.
    pub chain_before: u32,
    /// Chain value of its last batch.
    pub chain_end: u32,
    /// Number of frames.
    pub records: u64,
    /// Time of the first batch, in nanoseconds since 1970; 0 when there is none.
    pub first_ns: u64,
    /// Time of the last batch.
    pub last_ns: u64,
}

/// The block behind the last batch of a sealed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFooter {
    /// The log.
    pub log: LogId,
    /// The shard.
    pub shard: u16,
    /// The segment.
    pub segment: SegmentId,
    /// What it holds.
    pub sealed: Sealed,
}

impl SegmentFooter {
    /// Fills one block.
    pub fn encode(&self, out: &mut [u8]) {
        let out = &mut out[..BLOCK_BYTES];
        out.fill(0);
        put_u32(out, 0, FOOTER_MAGIC);
        put_u16(out, 8, VERSION);
        put_u16(out, 10, self.shard);
        out[16..32].copy_from_slice(&self.log.0);
        put_u64(out, 32, self.segment.0);
        encode_sealed(&self.sealed, &mut out[40..40 + SEALED_BYTES]);
        seal_crc(out, CRC_FIELD, 0);
    }

    /// Reads one block.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refused> {
        let bytes = checked_block(bytes, FOOTER_MAGIC, "segment footer")?;
        Ok(Self {
            log: get_log_id(bytes, 16),
            shard: get_u16(bytes, 10),
            segment: SegmentId(get_u64(bytes, 32)),
            sealed: decode_sealed(&bytes[40..40 + SEALED_BYTES]),
        })
    }
}

/// Bytes of [`Sealed`] as stored.
pub(super) const SEALED_BYTES: usize = 48;

pub(super) fn encode_sealed(sealed: &Sealed, out: &mut [u8]) {
    put_u64(out, 0, sealed.base_lsn.0);
    put_u64(out, 8, sealed.end_lsn.0);
    put_u32(out, 16, sealed.chain_before);
    put_u32(out, 20, sealed.chain_end);
    put_u64(out, 24, sealed.records);
    put_u64(out, 32, sealed.first_ns);
    put_u64(out, 40, sealed.last_ns);
}

pub(super) fn decode_sealed(bytes: &[u8]) -> Sealed {
    Sealed {
        base_lsn: Lsn(get_u64(bytes, 0)),
        end_lsn: Lsn(get_u64(bytes, 8)),
        chain_before: get_u32(bytes, 16),
        chain_end: get_u32(bytes, 20),
        records: get_u64(bytes, 24),
        first_ns: get_u64(bytes, 32),
        last_ns: get_u64(bytes, 40),
    }
}

/// The front of `bytes` as a block of this kind: length, magic, checksum, version.
fn checked_block<'a>(bytes: &'a [u8], magic: u32, what: &str) -> Result<&'a [u8], Refused> {
    let Some(bytes) = bytes.get(..BLOCK_BYTES) else {
        return Refused::damaged(format!("a {what} is cut short"));
    };
    if get_u32(bytes, 0) != magic {
        return Refused::damaged(format!("expected a {what}, found other bytes"));
    }
    if expected_crc(bytes, CRC_FIELD, 0) != get_u32(bytes, CRC_FIELD) {
        return Refused::damaged(format!("the checksum of a {what} does not fit"));
    }
    check_format(get_u16(bytes, 8), get_u32(bytes, 12))?;
    Ok(bytes)
}
