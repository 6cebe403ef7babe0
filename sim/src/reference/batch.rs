//! A batch: its header, sections, frames and runs.

use super::small::format;
use super::{BLOCK, Bad, crc, crc_with_seed, seed, u16_at, u32_at, u64_at};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 96;
const BATCH_BYTES_MAX: usize = 8 << 20;

/// What the header of a batch says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the document names and explains each of them")]
pub struct Header {
    pub lsn: u64,
    pub epoch: u64,
    pub durable: u64,
    pub time: u64,
    pub body: usize,
    pub stored: usize,
    pub frames: u32,
    pub sections: u32,
    pub meta: u32,
    pub previous: u32,
    pub kind: u16,
    /// What the next batch has in its field of the batch before.
    pub chain: u32,
}

/// A frame with the offset that its run gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the document names and explains each of them")]
pub struct Frame {
    pub stream: u32,
    pub offset: u64,
    pub kind: u16,
    pub payload: Vec<u8>,
}

/// A valid batch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are what their types are")]
pub struct Batch {
    pub header: Header,
    pub frames: Vec<Frame>,
}

/// The seed of the headers of a segment.
pub fn header_seed(log: &[u8; 16], shard: u16, segment: u64) -> u32 {
    seed(log, &[1, shard.into(), segment])
}

/// The seed of frame number `i` of a chunk.
pub fn frame_seed(log: &[u8; 16], shard: u16, (epoch, count): (u64, u64), i: u32) -> u32 {
    seed(log, &[2, shard.into(), epoch, count]).wrapping_add(i.wrapping_mul(0x9E37_79B1))
}

/// Reads a header, wherever it lies: rules 1 and 3 of a valid batch.
pub fn header(bytes: &[u8], seed: u32) -> Result<Header, Bad> {
    let bytes = bytes.get(..HEADER_BYTES).ok_or(Bad::Damaged("length"))?;
    if &bytes[..4] != b"RLb1" {
        return Err(Bad::Damaged("magic"));
    }
    let crc = u32_at(bytes, 4);
    if crc_with_seed(bytes, 4, seed) != crc {
        return Err(Bad::Damaged("checksum"));
    }
    format(u16_at(bytes, 66), u32_at(bytes, 72))?;
    let kind = u16_at(bytes, 64);
    let header = Header {
        lsn: u64_at(bytes, 8),
        epoch: u64_at(bytes, 16),
        durable: u64_at(bytes, 24),
        time: u64_at(bytes, 32),
        body: u32_at(bytes, 40) as usize,
        stored: u32_at(bytes, 44) as usize,
        frames: u32_at(bytes, 48),
        sections: u32_at(bytes, 52),
        meta: u32_at(bytes, 56),
        previous: u32_at(bytes, 60),
        kind,
        chain: if kind == 2 { u32_at(bytes, 68) } else { crc },
    };
    let fits = kind <= 2
        && header.stored.is_multiple_of(BLOCK)
        && header.stored <= BATCH_BYTES_MAX
        && HEADER_BYTES + header.body <= header.stored
        && header.lsn.checked_add(header.stored as u64).is_some()
        && header.durable <= header.lsn;
    fits.then_some(header).ok_or(Bad::Damaged("fields of a header"))
}

/// Reads what lies behind a header: rule 6. `bytes` begin at the header.
pub fn batch(header: Header, bytes: &[u8], log: &[u8; 16], shard: u16) -> Option<Batch> {
    read(header, bytes, (log, shard), false)
}

/// The same for who wants what is left of it: frames that are damaged in themselves are left out.
pub fn remains(header: Header, bytes: &[u8], log: &[u8; 16], shard: u16) -> Option<Batch> {
    read(header, bytes, (log, shard), true)
}

fn read(
    header: Header,
    bytes: &[u8],
    (log, shard): (&[u8; 16], u16),
    lenient: bool,
) -> Option<Batch> {
    let bytes = bytes.get(..header.stored)?;
    let end = HEADER_BYTES + header.body;
    let mut meta = Vec::new();
    let (mut frames, mut count) = (Vec::new(), 0);
    let mut at = HEADER_BYTES;
    for _ in 0..header.sections {
        let section = bytes[..end].get(at..at + 32)?;
        let (frames_bytes, runs) = (u32_at(section, 16) as usize, u32_at(section, 24) as usize);
        let frames_end = at + 32 + frames_bytes;
        let runs_end = frames_end + runs * 16;
        let body = bytes[..end].get(at + 32..frames_end)?;
        let table = bytes[..end].get(frames_end..runs_end)?;
        meta.extend_from_slice(section);
        meta.extend_from_slice(table);
        let nonce = (u64_at(section, 0), u64_at(section, 8));
        let seed = |i| frame_seed(log, shard, nonce, i);
        let here = section_frames(body, table, u32_at(section, 20), seed, lenient)?;
        count += here.len();
        frames.extend(here.into_iter().flatten());
        at = runs_end;
    }
    let whole = at == end
        && count == header.frames as usize
        && crc(meta) == header.meta
        && (lenient || bytes[end..].iter().all(|byte| *byte == 0));
    whole.then_some(Batch { header, frames })
}

fn section_frames(
    mut body: &[u8],
    table: &[u8],
    count: u32,
    seed: impl Fn(u32) -> u32,
    lenient: bool,
) -> Option<Vec<Option<Frame>>> {
    let mut frames = Vec::new();
    for run in table.chunks_exact(16) {
        let (stream, first) = (u32_at(run, 0), u64_at(run, 8));
        if u32_at(run, 4) == 0 && !lenient {
            return None;
        }
        for in_run in 0..u32_at(run, 4) {
            let payload = u32_at(body.get(..16)?, 4) as usize;
            let frame = body.get(..(16 + payload).next_multiple_of(16))?;
            body = &body[frame.len()..];
            let kind = u16_at(frame, 12);
            let good = crc_with_seed(frame, 0, seed(frames.len() as u32)) == u32_at(frame, 0)
                && u32_at(frame, 8) == stream
                && (1..=5).contains(&kind)
                && frame[16 + payload..].iter().all(|byte| *byte == 0);
            if !good && !lenient {
                return None;
            }
            let offset = first.checked_add(in_run.into())?;
            let payload = frame[16..16 + payload].to_vec();
            frames.push(good.then_some(Frame { stream, offset, kind, payload }));
        }
    }
    (body.is_empty() && frames.len() == count as usize).then_some(frames)
}

impl Batch {
    /// What the frames of the catalogue stream must look like, and which streams there can be.
    pub fn is_sensible(&self) -> bool {
        self.frames.iter().all(|frame| {
            let number = |bytes: &[u8]| (1..1 << 24).contains(&u32_at(bytes, 0));
            let payload = &frame.payload[..];
            frame.stream < 1 << 24
                && match frame.kind {
                    4 => {
                        (5..=4 + 255).contains(&payload.len())
                            && number(payload)
                            && std::str::from_utf8(&payload[4..]).is_ok()
                    }
                    5 => payload.len() == 12 && number(payload),
                    _ => true,
                }
        })
    }
}
