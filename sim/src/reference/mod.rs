//! A slow, obvious reader of a shard, written from `docs/format.md` alone, to compare the engine with.
//!
//! Everything is read into memory, nothing is cached, indexes are ignored, checksums are computed
//! byte by byte. It shares no code with the engine: no decoder, no checksum, no table of decisions.
//! Where the engine and this reader disagree, one of the two or the document is wrong.

mod batch;
mod recover;
mod small;

use std::collections::BTreeMap;

pub use batch::{
    Batch, Frame, HEADER_BYTES, Header, batch, frame_seed, header, header_seed, remains,
};
pub use recover::{Found, Outcome, Record, recover};
pub use small::{
    Entry, Manifest, Segment, Span, State, catalogue, envelope, footer, manifest, segment_header,
};

/// A block, in bytes.
pub const BLOCK: usize = 4096;

/// One shard of a log as it lies on disk.
#[derive(Clone, Debug)]
pub struct Shard {
    /// The log's identity.
    pub log: [u8; 16],
    /// The shard's number.
    pub number: u16,
    /// Size of its segments in bytes.
    pub segment_bytes: u64,
    /// Its files by their names.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// Why bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// They are not what they should be.
    Damaged(&'static str),
    /// They are whole, but of an unknown version.
    Version(u16),
    /// They are whole, but use unknown features.
    Features(u32),
}

/// CRC-32 as in zlib over `bytes`, whose four bytes at `field` count as the seed.
pub fn crc_with_seed(bytes: &[u8], field: usize, seed: u32) -> u32 {
    let seed = seed.to_le_bytes();
    let byte = |(at, byte): (usize, &u8)| match at.checked_sub(field) {
        Some(inside @ 0..4) => seed[inside],
        _ => *byte,
    };
    crc(bytes.iter().enumerate().map(byte))
}

/// CRC-32 as in zlib.
pub fn crc(bytes: impl IntoIterator<Item = u8>) -> u32 {
    const fn row(byte: u32) -> u32 {
        let (mut value, mut bit) = (byte, 0);
        while bit < 8 {
            value = if value & 1 == 1 { value >> 1 ^ 0xedb8_8320 } else { value >> 1 };
            bit += 1;
        }
        value
    }
    const TABLE: [u32; 256] = {
        let (mut table, mut byte) = ([0; 256], 0);
        while byte < 256 {
            table[byte] = row(byte as u32);
            byte += 1;
        }
        table
    };
    let step = |crc: u32, byte: u8| crc >> 8 ^ TABLE[((crc ^ u32::from(byte)) & 0xff) as usize];
    !bytes.into_iter().fold(u32::MAX, step)
}

/// `seed(a, b, …)` of the document, its low 32 bits.
pub fn seed(log: &[u8; 16], numbers: &[u64]) -> u32 {
    fn mix(x: u64) -> u64 {
        let z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }
    let word = mix(u64_at(log, 0)) ^ mix(u64_at(log, 8)).rotate_left(32);
    numbers.iter().fold(word, |word, number| mix(word ^ number)) as u32
}

/// A number at a place that is there.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from(bytes[at]) | u16::from(bytes[at + 1]) << 8
}

/// A number at a place that is there.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

/// A number at a place that is there.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Takes from the front of `bytes`; `None` where there is not enough.
fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (front, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(front)
}
