//! The small files, and the two blocks around a segment.

use super::{BLOCK, Bad, crc_with_seed, take, u16_at, u32_at, u64_at};

/// The content of a small file.
pub fn envelope<'a>(file: &'a [u8], magic: &[u8; 4]) -> Result<&'a [u8], Bad> {
    if file.len() < 16 {
        return Err(Bad::Damaged("length"));
    }
    if file[..4] != magic[..] {
        return Err(Bad::Damaged("magic"));
    }
    if crc_with_seed(file, 4, 0) != u32_at(file, 4) {
        return Err(Bad::Damaged("checksum"));
    }
    format(u16_at(file, 8), u16_at(file, 10).into())?;
    if u32_at(file, 12) as usize != file.len() - 16 {
        return Err(Bad::Damaged("length of the content"));
    }
    Ok(&file[16..])
}

pub(super) fn format(version: u16, features: u32) -> Result<(), Bad> {
    if version != 1 {
        return Err(Bad::Version(version));
    }
    if features != 0 {
        return Err(Bad::Features(features));
    }
    Ok(())
}

/// What is said of a sealed or closed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// LSN of its first batch.
    pub base: u64,
    /// LSN behind its last batch.
    pub end: u64,
    /// Chain value before its first batch.
    pub before: u32,
    /// Chain value of its last batch.
    pub last: u32,
    /// Number of frames.
    pub frames: u64,
    /// Times of the first and of the last batch.
    pub times: (u64, u64),
}

fn span(bytes: &[u8]) -> Span {
    Span {
        base: u64_at(bytes, 0),
        end: u64_at(bytes, 8),
        before: u32_at(bytes, 16),
        last: u32_at(bytes, 20),
        frames: u64_at(bytes, 24),
        times: (u64_at(bytes, 32), u64_at(bytes, 40)),
    }
}

/// The states of a listed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// 0.
    Unsealed,
    /// 1.
    Sealed(Span),
    /// 2.
    Closed(Span),
}

/// A listed segment: its number and its state.
pub type Segment = (u64, State);

/// The content of a manifest, in the order of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the document names and explains each of them")]
pub struct Manifest {
    pub log: [u8; 16],
    pub shard: u16,
    pub clean: bool,
    pub generation: u64,
    pub epoch: u64,
    pub life_lsn: u64,
    pub proven_lsn: u64,
    pub next_segment: u64,
    pub catalogued_lsn: u64,
    pub trimmed_lsn: u64,
    pub trimmed_chain: u32,
    /// Number, length, crc.
    pub parts: Vec<(u64, u64, u32)>,
    pub segments: Vec<Segment>,
}

/// Reads a manifest and checks what the document says of its fields.
pub fn manifest(file: &[u8]) -> Result<Manifest, Bad> {
    let mut left = envelope(file, b"RLm1")?;
    let read = fields(&mut left).filter(|_| left.is_empty());
    let manifest = read.ok_or(Bad::Damaged("fields of a manifest"))?;
    let mut number = 0;
    let mut end = manifest.trimmed_lsn;
    let mut only_unsealed = false;
    for (segment, state) in &manifest.segments {
        if *segment <= number || *segment >= manifest.next_segment {
            return Err(Bad::Damaged("segments in growing order"));
        }
        number = *segment;
        let (State::Sealed(span) | State::Closed(span)) = state else {
            only_unsealed = true;
            continue;
        };
        let closed = matches!(state, State::Closed(_));
        let ends = manifest.clean && span.end == manifest.proven_lsn && span.base < span.end;
        if only_unsealed || span.base != end || span.base > span.end || closed && !ends {
            return Err(Bad::Damaged("segments that join"));
        }
        (end, only_unsealed) = (span.end, closed);
    }
    if manifest.clean && manifest.life_lsn > manifest.proven_lsn {
        return Err(Bad::Damaged("a life that begins behind the end"));
    }
    Ok(manifest)
}

fn fields(left: &mut &[u8]) -> Option<Manifest> {
    let head = take(left, 92)?;
    let word = |n: usize| u64_at(head, 24 + 8 * n);
    let mut parts = Vec::new();
    for _ in 0..u32_at(head, 20) {
        let part = take(left, 20)?;
        parts.push((u64_at(part, 0), u64_at(part, 8), u32_at(part, 16)));
    }
    let mut segments = Vec::new();
    for _ in 0..word(7) {
        let entry = take(left, 12)?;
        let state = match u16_at(entry, 8) {
            0 => State::Unsealed,
            1 => State::Sealed(span(take(left, 48)?)),
            2 => State::Closed(span(take(left, 48)?)),
            _ => return None,
        };
        segments.push((u64_at(entry, 0), state));
    }
    Some(Manifest {
        log: head[..16].try_into().ok()?,
        shard: u16_at(head, 16),
        clean: u16_at(head, 18) != 0,
        generation: word(0),
        epoch: word(1),
        life_lsn: word(2),
        proven_lsn: word(3),
        next_segment: word(4),
        catalogued_lsn: word(5),
        trimmed_lsn: word(6),
        trimmed_chain: u32_at(head, 88),
        parts,
        segments,
    })
}

/// What a catalogue part says of a stream: number, next offset, trimmed before, name.
pub type Entry = (u32, u64, u64, Option<String>);

/// Reads a part of the catalogue.
pub fn catalogue(file: &[u8], log: &[u8; 16], shard: u16, number: u64) -> Result<Vec<Entry>, Bad> {
    let mut left = envelope(file, b"RLc1")?;
    let damaged = Bad::Damaged("fields of a catalogue part");
    let head = take(&mut left, 32).ok_or(damaged)?;
    if head[..16] != log[..] || u64_at(head, 16) != u64::from(shard) || u64_at(head, 24) != number {
        return Err(Bad::Damaged("a catalogue part of something else"));
    }
    let mut entries = Vec::new();
    while !left.is_empty() {
        entries.push(entry(&mut left).ok_or(damaged)?);
    }
    Ok(entries)
}

fn entry(left: &mut &[u8]) -> Option<Entry> {
    let head = take(left, 14)?;
    let (stream, next, bytes) = (u32_at(head, 0), u64_at(head, 4), u16_at(head, 12));
    let trimmed = match bytes & 0x8000 {
        0 => 0,
        _ => u64_at(take(left, 8)?, 0).checked_sub(1)? + 1, // more than 0
    };
    let bytes = usize::from(bytes & 0x7fff);
    let name = std::str::from_utf8(take(left, bytes)?).ok()?.to_owned();
    (trimmed <= next && bytes <= 255).then_some((
        stream,
        next,
        trimmed,
        (bytes > 0).then_some(name),
    ))
}

fn block<'a>(bytes: &'a [u8], magic: &[u8; 4]) -> Result<&'a [u8], Bad> {
    let block = bytes.get(..BLOCK).ok_or(Bad::Damaged("length"))?;
    if block[..4] != magic[..] {
        return Err(Bad::Damaged("magic"));
    }
    if crc_with_seed(block, 4, 0) != u32_at(block, 4) {
        return Err(Bad::Damaged("checksum"));
    }
    format(u16_at(block, 8), u32_at(block, 12))?;
    Ok(block)
}

/// Reads the header of a segment: its log, shard, number and size.
pub fn segment_header(bytes: &[u8]) -> Result<([u8; 16], u16, u64, u64), Bad> {
    let block = block(bytes, b"RLs1")?;
    let mut log = [0; 16];
    log.copy_from_slice(&block[16..32]);
    Ok((log, u16_at(block, 10), u64_at(block, 32), u64_at(block, 56)))
}

/// Reads the footer of a segment: its number, and what it says of it.
pub fn footer(bytes: &[u8]) -> Result<(u64, Span), Bad> {
    let block = block(bytes, b"RLf1")?;
    Ok((u64_at(block, 32), span(&block[40..88])))
}
