//! Reading and writing little-endian numbers, checksums with a seed, and the mixing that makes
//! seeds.

use crate::ids::LogId;

/// A checksum field that is being computed holds its seed; afterwards it holds the result.
/// `field` is the byte offset of that field in `bytes`.
pub fn seal_crc(bytes: &mut [u8], field: usize, seed: u32) -> u32 {
    put_u32(bytes, field, seed);
    let crc = crc32fast::hash(bytes);
    put_u32(bytes, field, crc);
    crc
}

/// What [`seal_crc`] would give for these bytes; compares nothing. The field lies within the first
/// 16 bytes.
pub fn expected_crc(bytes: &[u8], field: usize, seed: u32) -> u32 {
    // The field is replaced in a copy of the front. The checksum is several times as fast on runs
    // of at least 128 bytes as on shorter ones, so neither part is left short.
    const WHOLE: usize = 512;
    let mut copy = [0; WHOLE];
    let front_bytes = if bytes.len() <= WHOLE { bytes.len() } else { WHOLE / 2 };
    let (front, rest) = bytes.split_at(front_bytes);
    let copy = &mut copy[..front_bytes];
    copy.copy_from_slice(front);
    put_u32(copy, field, seed);
    if rest.is_empty() {
        return crc32fast::hash(copy);
    }
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(copy);
    hasher.update(rest);
    hasher.finalize()
}

/// Writes a number. The caller has checked the length.
pub fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

/// Writes a number. The caller has checked the length.
pub fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Writes a number. The caller has checked the length.
pub fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Reads a number. The caller has checked the length.
pub fn get_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// Reads a number. The caller has checked the length.
pub fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Reads a number. The caller has checked the length.
pub fn get_u64(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// Reads the identity of a log. The caller has checked the length.
pub fn get_log_id(bytes: &[u8], at: usize) -> LogId {
    let mut id = [0; 16];
    id.copy_from_slice(&bytes[at..at + 16]);
    LogId(id)
}

/// One step of splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", OOPSLA 2014): a bijection of 64-bit words that changes half of the bits on average.
pub fn mix(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Folds a log's identity and some numbers into one word that no other combination is likely to
/// have.
pub fn seed_of(log: LogId, parts: &[u64]) -> u64 {
    let mut word = mix(get_u64(&log.0, 0)) ^ mix(get_u64(&log.0, 8)).rotate_left(32);
    for part in parts {
        word = mix(word ^ *part);
    }
    word
}

/// Reads fields one after another, and fails softly at the end of the bytes.
pub struct Fields<'a> {
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Begins at the front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The next `count` bytes, or `None` when there are fewer.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.bytes.split_at_checked(count)?;
        self.bytes = tail;
        Some(head)
    }

    /// The next number.
    pub fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|b| get_u16(b, 0))
    }

    /// The next number.
    pub fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|b| get_u32(b, 0))
    }

    /// The next number.
    pub fn u64(&mut self) -> Option<u64> {
        self.take(8).map(|b| get_u64(b, 0))
    }

    /// How many bytes are left.
    pub fn left(&self) -> usize {
        self.bytes.len()
    }
}
