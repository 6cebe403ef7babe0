//! The batch: what is written, validated and recovered as a whole.
//!
//! ```text
//! batch   = header (96) · section* · zero padding to a multiple of 4096
//! section = section header (32) · frame* · run*        one chunk of one producer
//! frame   = crc, length, stream, kind, flags (16) · payload · zero padding to a multiple of 16
//! run     = stream, count, base offset (16)            consecutive frames of one stream
//! ```
//!
//! Three checksums cover every byte: the header's own (seeded with log, shard and segment; it
//! covers LSN and epoch), one over all section headers and runs (kept in the header), and one per
//! frame (seeded with the log, the nonce of its chunk and the frame's index in it). A producer
//! computes the last one before it is known where the chunk will lie; the writer computes the
//! first two and never touches a payload. Padding must be zero.
//!
//! A batch is chained to the one before it by that one's header checksum.

use ringlog_disk::planted::{Bug, planted};

use super::bytes::{
    crc_of_16, crc_with_zeros, expected_crc, get_u16, get_u32, get_u64, put_u16, put_u32, put_u64,
    seal_crc, seed_of,
};
use super::{Refused, VERSION, check_format};
use crate::ids::{Epoch, LogId, Lsn, Offset, SegmentId, StreamId};
use crate::limits::{BATCH_BYTES_MAX, BLOCK_BYTES};

/// Bytes of a batch header.
pub const BATCH_HEADER_BYTES: usize = 96;
/// Bytes of a section header.
pub const SECTION_HEADER_BYTES: usize = 32;
/// Bytes of a frame before its payload.
pub const FRAME_HEADER_BYTES: usize = 16;
/// Bytes of a run.
pub const RUN_BYTES: usize = 16;
/// Frames begin at multiples of this, counted from their section.
pub const FRAME_ALIGN: usize = 16;

const MAGIC: u32 = u32::from_le_bytes(*b"RLb1");
const CRC_FIELD: usize = 4;

/// What a batch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchKind {
    /// Holds records.
    Records,
    /// Holds nothing but the durable LSN of its header.
    Watermark,
    /// Stands, after a repair, where batches were lost.
    Gap,
}

/// The header of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// What it is for.
    pub kind: BatchKind,
    /// Where it begins.
    pub lsn: Lsn,
    /// The life in which it was written.
    pub epoch: Epoch,
    /// What was durable when it was written.
    pub durable_lsn: Lsn,
    /// When it was placed, in nanoseconds since 1970; never smaller than that of the batch before.
    pub timestamp_ns: u64,
    /// Bytes of all sections.
    pub body_bytes: u32,
    /// Bytes of the whole batch on disk: header, sections, padding.
    pub stored_bytes: u32,
    /// Number of frames.
    pub frames: u32,
    /// Number of sections.
    pub sections: u32,
    /// Checksum of all section headers and runs.
    pub meta_crc: u32,
    /// Chain value of the batch before.
    pub previous: u32,
    /// For a gap: the chain value that the batch behind it expects.
    pub resume: u32,
}

impl BatchHeader {
    /// Where the next batch begins.
    pub fn end(&self) -> Lsn {
        Lsn(self.lsn.0 + u64::from(self.stored_bytes))
    }

    /// Writes the header and returns the batch's chain value.
    pub fn encode(&self, seed: HeaderSeed, out: &mut [u8]) -> u32 {
        let out = &mut out[..BATCH_HEADER_BYTES];
        out.fill(0);
        put_u32(out, 0, MAGIC);
        put_u64(out, 8, self.lsn.0);
        put_u64(out, 16, self.epoch.0);
        put_u64(out, 24, self.durable_lsn.0);
        put_u64(out, 32, self.timestamp_ns);
        put_u32(out, 40, self.body_bytes);
        put_u32(out, 44, self.stored_bytes);
        put_u32(out, 48, self.frames);
        put_u32(out, 52, self.sections);
        put_u32(out, 56, self.meta_crc);
        put_u32(out, 60, self.previous);
        put_u16(
            out,
            64,
            match self.kind {
                BatchKind::Records => 0,
                BatchKind::Watermark => 1,
                BatchKind::Gap => 2,
            },
        );
        put_u16(out, 66, VERSION);
        put_u32(out, 68, self.resume);
        let crc = seal_crc(out, CRC_FIELD, seed.0);
        if self.kind == BatchKind::Gap { self.resume } else { crc }
    }

    /// Reads and checks a header; gives it with its chain value. `lsn` is where it must lie.
    ///
    /// # Errors
    /// In words: what was expected and what was found.
    pub fn decode(bytes: &[u8], seed: HeaderSeed, lsn: Lsn) -> Result<(BatchHeader, u32), Refused> {
        let Some(bytes) = bytes.get(..BATCH_HEADER_BYTES) else {
            return Refused::damaged("a batch header is cut short");
        };
        if get_u32(bytes, 0) != MAGIC {
            return Refused::damaged("expected a batch header, found other bytes");
        }
        let crc = get_u32(bytes, CRC_FIELD);
        let zero = planted(Bug::AcceptZeroHeaderCrc) && crc == 0;
        if expected_crc(bytes, CRC_FIELD, seed.0) != crc && !zero {
            return Refused::damaged(
                "the checksum of a batch header does not fit its content, log, shard or segment",
            );
        }
        check_format(get_u16(bytes, 66), get_u32(bytes, 72))?;
        let kind = match get_u16(bytes, 64) {
            0 => BatchKind::Records,
            1 => BatchKind::Watermark,
            2 => BatchKind::Gap,
            other => return Refused::damaged(format!("unknown kind of batch {other}")),
        };
        let header = BatchHeader {
            kind,
            lsn: Lsn(get_u64(bytes, 8)),
            epoch: Epoch(get_u64(bytes, 16)),
            durable_lsn: Lsn(get_u64(bytes, 24)),
            timestamp_ns: get_u64(bytes, 32),
            body_bytes: get_u32(bytes, 40),
            stored_bytes: get_u32(bytes, 44),
            frames: get_u32(bytes, 48),
            sections: get_u32(bytes, 52),
            meta_crc: get_u32(bytes, 56),
            previous: get_u32(bytes, 60),
            resume: get_u32(bytes, 68),
        };
        header.check(lsn)?;
        let chain = if kind == BatchKind::Gap { header.resume } else { crc };
        Ok((header, chain))
    }

    /// What must hold between the fields of a header, whoever wrote it.
    fn check(&self, lsn: Lsn) -> Result<(), Refused> {
        if self.lsn != lsn {
            return Refused::damaged(format!(
                "a batch of LSN {} lies where LSN {lsn} belongs",
                self.lsn
            ));
        }
        let stored = self.stored_bytes as usize;
        let sizes_fit = stored.is_multiple_of(BLOCK_BYTES)
            && (BLOCK_BYTES..=BATCH_BYTES_MAX).contains(&stored)
            && self.body_bytes as usize <= stored - BATCH_HEADER_BYTES
            && self.lsn.0.checked_add(u64::from(self.stored_bytes)).is_some();
        if !sizes_fit {
            return Refused::damaged(format!(
                "a batch of {} bytes stored in {stored} bytes",
                self.body_bytes
            ));
        }
        if self.durable_lsn > self.lsn {
            return Refused::damaged(format!(
                "a batch at LSN {} says that LSN {} was durable",
                self.lsn, self.durable_lsn
            ));
        }
        Ok(())
    }
}

/// The seed of the header checksums of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderSeed(u32);

impl HeaderSeed {
    /// For one segment of one shard of one log.
    pub fn new(log: LogId, shard: u16, segment: SegmentId) -> Self {
        let segment = if planted(Bug::SeedWithoutSegment) { 0 } else { segment.0 };
        Self(seed_of(log, &[1, u64::from(shard), segment]) as u32)
    }
}

/// Distinguishes a chunk from every other chunk of the log, in all its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Nonce {
    /// The life in which the chunk was filled.
    pub epoch: Epoch,
    /// Its number in that life and shard.
    pub count: u64,
}

/// The seed of the frame checksums of one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameSeed(u32);

impl FrameSeed {
    /// For one chunk.
    pub fn new(log: LogId, shard: u16, nonce: Nonce) -> Self {
        Self(seed_of(log, &[2, u64::from(shard), nonce.epoch.0, nonce.count]) as u32)
    }

    /// The seed of the `index`-th frame of the chunk: an odd step, so that no two frames of a
    /// chunk share one.
    fn of(self, index: u32) -> u32 {
        self.0.wrapping_add(index.wrapping_mul(0x9e37_79b1))
    }
}

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A record of a user.
    Record,
    /// A user's statement that earlier data no longer holds.
    Tombstone,
    /// Takes an offset, but readers pass over it.
    Void,
    /// The creation of a stream; lies in the catalogue stream. Payload: the stream's number (u32)
    /// and its name.
    CreateStream,
    /// The records of a stream below an offset are not there any more; lies in the catalogue
    /// stream. Payload: the stream's number (u32) and the offset (u64).
    TrimStream,
}

impl FrameKind {
    /// Whether readers give it.
    pub(crate) fn is_record(self) -> bool {
        matches!(self, Self::Record | Self::Tombstone)
    }

    fn code(self) -> u16 {
        match self {
            Self::Record => 1,
            Self::Tombstone => 2,
            Self::Void => 3,
            Self::CreateStream => 4,
            Self::TrimStream => 5,
        }
    }

    fn from_code(code: u16) -> Option<Self> {
        match code {
            1 => Some(Self::Record),
            2 => Some(Self::Tombstone),
            3 => Some(Self::Void),
            4 => Some(Self::CreateStream),
            5 => Some(Self::TrimStream),
            _ => None,
        }
    }
}

/// Bytes that a frame takes with its header and padding.
pub const fn frame_bytes(payload: usize) -> usize {
    (FRAME_HEADER_BYTES + payload).next_multiple_of(FRAME_ALIGN)
}

/// Writes one frame at the front of `out`, which holds at least [`frame_bytes`] of the payload.
/// Cost: one copy and one checksum of the payload.
///
/// The checksum is taken where the payload comes from, and `out` is only written to: the device has read
/// that memory last, and reading back what was just written there waits until the cache lines are ours.
pub fn encode_frame(
    out: &mut [u8],
    seed: FrameSeed,
    index: u32,
    stream: StreamId,
    kind: FrameKind,
    payload: &[u8],
) {
    let end = FRAME_HEADER_BYTES + payload.len();
    let out = &mut out[..frame_bytes(payload.len())];
    let mut header = [0; FRAME_HEADER_BYTES];
    put_u32(&mut header, 0, seed.of(index));
    put_u32(&mut header, 4, payload.len() as u32);
    put_u32(&mut header, 8, stream.0);
    put_u16(&mut header, 12, kind.code());
    out[FRAME_HEADER_BYTES..end].copy_from_slice(payload);
    let padding = &mut out[end..];
    padding.fill(0);
    let mut crc = crc32fast::Hasher::new_with_initial(crc_of_16(&header));
    crc.update(payload);
    put_u32(&mut header, 0, crc_with_zeros(crc.finalize(), padding.len()));
    out[..FRAME_HEADER_BYTES].copy_from_slice(&header);
}

/// Consecutive frames of one stream in a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The stream.
    pub stream: StreamId,
    /// How many frames.
    pub count: u32,
    /// The offset of the first; filled in when the chunk is placed.
    pub base: Offset,
}

/// A section header as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionHeader {
    /// The chunk's nonce.
    pub nonce: Nonce,
    /// Bytes of all frames.
    pub frames_bytes: u32,
    /// Number of frames.
    pub frames: u32,
    /// Number of runs.
    pub runs: u32,
}

impl SectionHeader {
    /// Bytes of the whole section.
    pub fn section_bytes(&self) -> usize {
        SECTION_HEADER_BYTES + self.frames_bytes as usize + self.runs as usize * RUN_BYTES
    }

    /// Writes the header, and the runs behind the frames, into `section`, which is
    /// [`Self::section_bytes`] long; adds both to the checksum of the batch.
    pub fn encode(&self, runs: &[Run], section: &mut [u8], meta: &mut crc32fast::Hasher) {
        debug_assert_eq!(runs.len(), self.runs as usize);
        put_u64(section, 0, self.nonce.epoch.0);
        put_u64(section, 8, self.nonce.count);
        put_u32(section, 16, self.frames_bytes);
        put_u32(section, 20, self.frames);
        put_u32(section, 24, self.runs);
        put_u32(section, 28, 0);
        meta.update(&section[..SECTION_HEADER_BYTES]);
        let table = &mut section[SECTION_HEADER_BYTES + self.frames_bytes as usize..];
        for (run, slot) in runs.iter().zip(table.chunks_exact_mut(RUN_BYTES)) {
            put_u32(slot, 0, run.stream.0);
            put_u32(slot, 4, run.count);
            put_u64(slot, 8, run.base.0);
        }
        meta.update(&table[..runs.len() * RUN_BYTES]);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..SECTION_HEADER_BYTES)?;
        Some(Self {
            nonce: Nonce { epoch: Epoch(get_u64(bytes, 0)), count: get_u64(bytes, 8) },
            frames_bytes: get_u32(bytes, 16),
            frames: get_u32(bytes, 20),
            runs: get_u32(bytes, 24),
        })
    }
}

/// A frame in a validated batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRef {
    /// Its stream.
    pub stream: StreamId,
    /// Its offset in the stream.
    pub offset: Offset,
    /// What it is for.
    pub kind: FrameKind,
    /// Where its payload begins, counted from the front of the batch.
    pub payload_start: u32,
    /// Bytes of payload.
    pub payload_bytes: u32,
}

/// Checks everything in a batch behind its header, and calls `visit` for each frame in order.
/// `batch` is the whole batch, [`BatchHeader::stored_bytes`] long. Frames that were visited before
/// an error was met count for nothing.
///
/// # Errors
/// The byte offset in the batch, and what was expected there.
pub fn check_body(
    header: &BatchHeader,
    batch: &[u8],
    log: LogId,
    shard: u16,
    mut visit: impl FnMut(FrameRef),
) -> Result<(), (usize, String)> {
    let body_end = BATCH_HEADER_BYTES + header.body_bytes as usize;
    if batch.len() != header.stored_bytes as usize || body_end > batch.len() {
        return Err((0, "the batch is cut short".into()));
    }
    check_meta(header, batch, body_end)?;
    let mut at = BATCH_HEADER_BYTES;
    while at < body_end {
        // check_meta walked the same way: these cannot be out of bounds.
        let Some(section) = SectionHeader::decode(&batch[at..body_end]) else { break };
        let seed = FrameSeed::new(log, shard, section.nonce);
        check_section(&section, &batch[at..at + section.section_bytes()], at, seed, &mut visit)?;
        at += section.section_bytes();
    }
    if let Some(bad) = batch[body_end..].iter().position(|byte| *byte != 0)
        && !planted(Bug::SkipPadding)
    {
        return Err((body_end + bad, "padding that is not zero".into()));
    }
    Ok(())
}

/// Checks what a reader of one stream relies on: all section headers and runs, and the frames of
/// that stream, for each of which `visit` is called in order. Frames of other streams are passed
/// over by their lengths alone. Cost: that of the stream's own frames, and a few nanoseconds for
/// each other frame of a section that holds the stream.
///
/// # Errors
/// The byte offset in the batch, and what was expected there. Frames that were visited before
/// count for nothing.
pub fn check_stream(
    header: &BatchHeader,
    batch: &[u8],
    (log, shard, stream): (LogId, u16, StreamId),
    mut visit: impl FnMut(FrameRef),
) -> Result<(), (usize, String)> {
    let body_end = BATCH_HEADER_BYTES + header.body_bytes as usize;
    if batch.len() != header.stored_bytes as usize || body_end > batch.len() {
        return Err((0, "the batch is cut short".into()));
    }
    check_meta(header, batch, body_end)?;
    let mut at = BATCH_HEADER_BYTES;
    while at < body_end {
        let Some(section) = SectionHeader::decode(&batch[at..body_end]) else { break };
        let bytes = &batch[at..at + section.section_bytes()];
        let table = SECTION_HEADER_BYTES + section.frames_bytes as usize;
        let mut runs = bytes[table..].chunks_exact(RUN_BYTES).map(decode_run);
        if runs.any(|run| run.stream == stream) {
            let seed = FrameSeed::new(log, shard, section.nonce);
            check_frames_of(stream, &section, bytes, at, seed, &mut visit)?;
        }
        at += section.section_bytes();
    }
    Ok(())
}

fn check_frames_of(
    stream: StreamId,
    section: &SectionHeader,
    bytes: &[u8],
    start: usize,
    seed: FrameSeed,
    visit: &mut impl FnMut(FrameRef),
) -> Result<(), (usize, String)> {
    let frames_end = SECTION_HEADER_BYTES + section.frames_bytes as usize;
    let mut at = SECTION_HEADER_BYTES;
    let mut index: u32 = 0;
    for run in bytes[frames_end..].chunks_exact(RUN_BYTES).map(decode_run) {
        if run.count == 0 || u64::from(index) + u64::from(run.count) > u64::from(section.frames) {
            return Err((start, "frames and runs do not add up to their section".into()));
        }
        for in_run in 0..run.count {
            if frames_end - at < FRAME_HEADER_BYTES {
                return Err((start + at, format!("frame {index}: cut short")));
            }
            let payload_bytes = get_u32(bytes, at + 4) as usize;
            if payload_bytes > frames_end - at - FRAME_HEADER_BYTES
                || at + frame_bytes(payload_bytes) > frames_end
            {
                return Err((start + at, format!("frame {index}: longer than its section")));
            }
            let end = at + frame_bytes(payload_bytes);
            if run.stream == stream {
                let frame = &bytes[at..end];
                let kind = check_frame(frame, payload_bytes, seed, index, stream)
                    .map_err(|what| (start + at, format!("frame {index}: {what}")))?;
                let Some(offset) = run.base.0.checked_add(u64::from(in_run)) else {
                    return Err((start + at, format!("frame {index}: its offset overflows")));
                };
                visit(FrameRef {
                    stream,
                    offset: Offset(offset),
                    kind,
                    payload_start: (start + at + FRAME_HEADER_BYTES) as u32,
                    payload_bytes: payload_bytes as u32,
                });
            }
            index += 1;
            at = end;
        }
    }
    Ok(())
}

/// Checks one frame, which is as long as its header says.
fn check_frame(
    frame: &[u8],
    payload_bytes: usize,
    seed: FrameSeed,
    index: u32,
    stream: StreamId,
) -> Result<FrameKind, &'static str> {
    let fits = expected_crc(frame, 0, seed.of(index)) == get_u32(frame, 0);
    let zero = planted(Bug::AcceptZeroFrameCrc) && get_u32(frame, 0) == 0;
    if !fits && !zero && !planted(Bug::AcceptEveryFrame) {
        return Err("the checksum does not fit");
    }
    if frame[FRAME_HEADER_BYTES + payload_bytes..].iter().any(|byte| *byte != 0) {
        return Err("padding that is not zero");
    }
    let kind = FrameKind::from_code(get_u16(frame, 12)).ok_or("unknown kind")?;
    if stream.0 != get_u32(frame, 8) {
        return Err("its stream is not that of its run");
    }
    Ok(kind)
}

/// Which offsets of which streams a batch holds, by its section headers and runs alone: where they
/// fit their checksum, this is known although a frame is damaged. `None` where they do not.
pub fn read_runs(header: &BatchHeader, batch: &[u8]) -> Option<Vec<Run>> {
    let body_end = BATCH_HEADER_BYTES.checked_add(header.body_bytes as usize)?;
    if body_end > batch.len() {
        return None;
    }
    check_meta(header, batch, body_end).ok()?;
    let mut runs = Vec::new();
    let mut at = BATCH_HEADER_BYTES;
    while at < body_end {
        let section = SectionHeader::decode(&batch[at..body_end])?;
        let end = at + section.section_bytes();
        let table = at + SECTION_HEADER_BYTES + section.frames_bytes as usize;
        runs.extend(batch[table..end].chunks_exact(RUN_BYTES).map(decode_run));
        at = end;
    }
    Some(runs)
}

fn decode_run(bytes: &[u8]) -> Run {
    Run {
        stream: StreamId(get_u32(bytes, 0)),
        count: get_u32(bytes, 4),
        base: Offset(get_u64(bytes, 8)),
    }
}

/// Walks the section headers and runs, which must fill the body exactly and fit their checksum.
fn check_meta(header: &BatchHeader, batch: &[u8], body_end: usize) -> Result<(), (usize, String)> {
    let mut meta = crc32fast::Hasher::new();
    let mut at = BATCH_HEADER_BYTES;
    let mut frames: u64 = 0;
    for _ in 0..header.sections {
        let Some(section) = SectionHeader::decode(&batch[at..body_end]) else {
            return Err((at, "a section header is cut short".into()));
        };
        let runs_at = at as u64 + SECTION_HEADER_BYTES as u64 + u64::from(section.frames_bytes);
        let end = runs_at + u64::from(section.runs) * RUN_BYTES as u64;
        if end > body_end as u64 {
            return Err((at, "a section is longer than its batch".into()));
        }
        meta.update(&batch[at..at + SECTION_HEADER_BYTES]);
        meta.update(&batch[runs_at as usize..end as usize]);
        frames += u64::from(section.frames);
        at = end as usize;
    }
    if at != body_end || frames != u64::from(header.frames) {
        return Err((at, "sections that do not add up to their batch".into()));
    }
    if meta.finalize() != header.meta_crc && !planted(Bug::SkipSectionChecksum) {
        return Err((
            BATCH_HEADER_BYTES,
            "the checksum of the section headers does not fit".into(),
        ));
    }
    Ok(())
}

fn check_section(
    section: &SectionHeader,
    bytes: &[u8],
    start: usize,
    seed: FrameSeed,
    visit: &mut impl FnMut(FrameRef),
) -> Result<(), (usize, String)> {
    let frames_end = SECTION_HEADER_BYTES + section.frames_bytes as usize;
    let mut runs = bytes[frames_end..].chunks_exact(RUN_BYTES).map(decode_run);
    let mut run = Run { stream: StreamId(0), count: 0, base: Offset(0) };
    let mut in_run = 0;
    let mut at = SECTION_HEADER_BYTES;
    for index in 0..section.frames {
        let fail = |what: &str| Err((start + at, format!("frame {index}: {what}")));
        if frames_end - at < FRAME_HEADER_BYTES {
            return fail("cut short");
        }
        let payload_bytes = get_u32(bytes, at + 4) as usize;
        if payload_bytes > frames_end - at - FRAME_HEADER_BYTES {
            return fail("longer than its section");
        }
        let end = at + frame_bytes(payload_bytes);
        if end > frames_end {
            return fail("longer than its section");
        }
        if in_run == run.count {
            let next = runs.next().filter(|run| run.count > 0);
            let Some(next) = next else { return fail("no run for it") };
            (run, in_run) = (next, 0);
        }
        let kind = match check_frame(&bytes[at..end], payload_bytes, seed, index, run.stream) {
            Ok(kind) => kind,
            Err(what) => return fail(what),
        };
        let Some(offset) = run.base.0.checked_add(u64::from(in_run)) else {
            return fail("its offset overflows");
        };
        visit(FrameRef {
            stream: run.stream,
            offset: Offset(offset),
            kind,
            payload_start: (start + at + FRAME_HEADER_BYTES) as u32,
            payload_bytes: payload_bytes as u32,
        });
        in_run += 1;
        at = end;
    }
    if at != frames_end || in_run != run.count || runs.next().is_some() {
        return Err((start + at, "frames and runs do not add up to their section".into()));
    }
    Ok(())
}
