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

/// What [`seal_crc`] would give for these bytes; compares nothing, copies nothing.
pub fn expected_crc(bytes: &[u8], field: usize, seed: u32) -> u32 {
    // A byte enters a checksum by being xored into its state. So a state into which the seed and what
    // the field holds were xored beforehand leaves the field as if the seed had been there.
    let before = if field == 0 { 0 } else { crc32fast::hash(&bytes[..field]) };
    let mut hasher = crc32fast::Hasher::new_with_initial(before ^ seed ^ get_u32(bytes, field));
    hasher.update(&bytes[field..]);
    hasher.finalize()
}

/// What each byte of 16 adds to their checksum, by its place and its value.
static OF_16: [[u32; 256]; 16] = of_16();

const fn of_16() -> [[u32; 256]; 16] {
    const POLYNOMIAL: u32 = 0xedb8_8320; // IEEE 802.3, bits reversed, as crc32fast has it
    let mut tables = [[0; 256]; 16];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[15][byte] = crc;
        byte += 1;
    }
    let mut place = 15;
    while place > 0 {
        place -= 1;
        let mut byte = 0;
        while byte < 256 {
            let after = tables[place + 1][byte];
            tables[place][byte] = after >> 8 ^ tables[15][(after & 0xff) as usize];
            byte += 1;
        }
    }
    tables
}

/// The same as `crc32fast::hash`, for the length of a frame's header: what comes behind it waits for
/// this, and the folding that is best for many bytes takes some 12 ns longer for 16 (slicing by 16:
/// Kounavis and Berry, "A systematic approach to building high performance software-based CRC
/// generators", ISCC 2005).
pub fn crc_of_16(bytes: &[u8; 16]) -> u32 {
    let mut crc = 0;
    for (place, table) in OF_16.iter().enumerate() {
        // The state that one begins with enters with the first four bytes.
        let begin = if place < 4 { 0xff } else { 0 };
        crc ^= table[usize::from(bytes[place] ^ begin)];
    }
    !crc
}

/// The checksum of some bytes, given that of the same bytes without the zeros at their end: fewer than 16.
pub fn crc_with_zeros(crc: u32, zeros: usize) -> u32 {
    let mut state = !crc;
    if zeros < 4 {
        for _ in 0..zeros {
            state = state >> 8 ^ OF_16[15][(state & 0xff) as usize];
        }
    } else {
        // The state enters with the first four of them, and the others add nothing.
        let tables = &OF_16[16 - zeros..];
        let bytes = state.to_le_bytes();
        state = bytes.iter().zip(tables).fold(0, |sum, (byte, of)| sum ^ of[usize::from(*byte)]);
    }
    !state
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
    u16::from_le_bytes(word(bytes, at))
}

/// Reads a number. The caller has checked the length.
pub fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(word(bytes, at))
}

/// Reads a number. The caller has checked the length.
pub fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(word(bytes, at))
}

/// One check and one load; byte by byte it would be as many as there are bytes.
#[inline]
fn word<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut word = [0; N];
    word.copy_from_slice(&bytes[at..at + N]);
    word
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_of_few_bytes_are_those_of_many() {
        let mut word = 1;
        for _ in 0..10_000 {
            let mut bytes = [0; 16];
            for half in bytes.chunks_exact_mut(8) {
                word = mix(word);
                half.copy_from_slice(&word.to_le_bytes());
            }
            assert_eq!(crc_of_16(&bytes), crc32fast::hash(&bytes), "{bytes:?}");
        }
        for zeros in 0..16 {
            let bytes: Vec<u8> = (0..40).map(|at| (mix(at) >> 40) as u8).collect();
            let with_zeros = [&bytes[..], &[0; 16][..zeros]].concat();
            let crc = crc_with_zeros(crc32fast::hash(&bytes), zeros);
            assert_eq!(crc, crc32fast::hash(&with_zeros), "{zeros}");
        }
        for place in 0..16 {
            for byte in 0..=u8::MAX {
                let mut bytes = [0; 16];
                bytes[place] = byte;
                assert_eq!(crc_of_16(&bytes), crc32fast::hash(&bytes), "{bytes:?}");
            }
        }
    }

    /// Every length from a lone field to far above what the checksum takes at once, at every place
    /// where a field may be.
    #[test]
    fn the_checksum_is_that_of_the_bytes_with_the_seed_in_the_field() {
        let content: Vec<u8> = (0..3000_u64).map(|at| (mix(at) >> 40) as u8).collect();
        let lengths = (16..700).chain([1023, 1024, 1025, 2048, 2999]);
        for length in lengths {
            for (field, seed) in
                [(0, 0), (0, 0xdead_beef), (4, 7), (5, u32::MAX), (12, 0x8000_0001)]
            {
                let bytes = &content[..length];
                let mut sealed = bytes.to_vec();
                let crc = seal_crc(&mut sealed, field, seed);
                assert_eq!(expected_crc(bytes, field, seed), crc, "{length}, {field}");
                assert_eq!(expected_crc(&sealed, field, seed), crc, "{length}, {field}");
                // What lies in the field decides nothing; any other bit does.
                for bit in [0, length * 4, length * 8 - 1] {
                    let mut other = sealed.clone();
                    other[bit / 8] ^= 1 << (bit % 8);
                    let same = (field..field + 4).contains(&(bit / 8));
                    assert_eq!(expected_crc(&other, field, seed) == crc, same, "{length}, {bit}");
                }
            }
        }
    }
}
