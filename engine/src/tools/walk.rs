//! Walking a segment batch by batch, and over what is damaged in it.
//!
//! Knows where the segment begins, and where it must end, if that is known. What it gives covers
//! the stretch without overlap: valid batches, and holes between them. A batch is valid when its
//! header and its body validate and it continues the chain.

use std::sync::Arc;

use super::Meter;
use super::file::SegmentFile;
use crate::error::OpenError;
use crate::format::Refused;
use crate::format::batch::{
    BATCH_HEADER_BYTES, BatchHeader, BatchKind, FrameKind, HeaderSeed, Run, check_body, read_runs,
};
use crate::format::bytes::{get_u32, get_u64};
use crate::format::manifest::Manifest;
use crate::format::segment::SEGMENT_HEADER_BYTES;
use crate::ids::{Epoch, Lsn, Offset, StreamId};
use crate::limits::{BATCH_BYTES_MAX, BLOCK_BYTES, STREAMS_MAX};
use crate::names;
use crate::recovery::{Identity, creation, tail, trim};

const BLOCK: u64 = BLOCK_BYTES as u64;

/// The part of a segment file that is to be walked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    /// Where the segment begins.
    pub(super) base: Lsn,
    /// Nothing from here on is looked at.
    pub(super) end: Lsn,
    /// The chain value before `base`, where it is known.
    pub(super) chain: Option<u32>,
    /// The chain value at `end`, where it is known.
    pub(super) chain_end: Option<u32>,
}

/// A valid batch.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) header: BatchHeader,
    pub(super) chain: u32,
    /// Which offsets of which streams it holds.
    pub(super) runs: Vec<Run>,
    pub(super) created: Vec<(StreamId, Arc<str>)>,
    /// Streams that it trims, each to an offset.
    pub(super) trimmed: Vec<(StreamId, Offset)>,
}

/// A range without a valid batch.
#[derive(Clone, Debug)]
pub(super) struct Hole {
    pub(super) from: Lsn,
    pub(super) to: Lsn,
    /// Where in the file the damage is.
    pub(super) file_offset: u64,
    pub(super) what: String,
    /// Which offsets were there, as far as that can be known.
    pub(super) runs: Vec<Run>,
    /// Whether `runs` is all that was there.
    pub(super) runs_known: bool,
    /// The chain value that whatever follows expects, where it is known.
    pub(super) resume: Option<u32>,
    /// What a good header of a batch with a bad body says was durable.
    pub(super) durable_lsn: Lsn,
}

impl Hole {
    /// A range of which nothing is left.
    pub(super) fn whole(from: Lsn, to: Lsn) -> Self {
        Self {
            from,
            to,
            file_offset: SEGMENT_HEADER_BYTES,
            what: "nothing is left".to_owned(),
            runs: Vec::new(),
            runs_known: false,
            resume: None,
            durable_lsn: Lsn(0),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Item {
    Batch(Batch),
    Hole(Hole),
}

impl Item {
    /// Where it begins.
    pub(super) fn from(&self) -> Lsn {
        match self {
            Self::Batch(batch) => batch.header.lsn,
            Self::Hole(hole) => hole.from,
        }
    }

    /// Where it ends.
    pub(super) fn to(&self) -> Lsn {
        match self {
            Self::Batch(batch) => batch.header.end(),
            Self::Hole(hole) => hole.to,
        }
    }

    /// The chain value before it, where it is known.
    pub(super) fn previous(&self) -> Option<u32> {
        match self {
            Self::Batch(batch) => Some(batch.header.previous),
            Self::Hole(_) => None,
        }
    }

    /// What it says was durable.
    pub(super) fn durable_lsn(&self) -> Lsn {
        match self {
            Self::Batch(batch) => batch.header.durable_lsn,
            Self::Hole(hole) => hole.durable_lsn,
        }
    }
}

/// What is at a place in a segment.
enum Place {
    Batch(Batch),
    /// The header is good, the body is not.
    Body {
        header: BatchHeader,
        chain: u32,
        hole: Hole,
    },
    /// No header. The hole ends one block behind.
    Nothing(Hole),
}

impl SegmentFile<'_> {
    /// Walks a stretch. `life` is given for what is not sealed: which lives may have written there.
    ///
    /// # Errors
    /// An unknown version. What cannot be read is a hole.
    pub(super) fn walk(
        &mut self,
        stretch: &Stretch,
        life: Option<&Manifest>,
        meter: &mut Meter<'_>,
    ) -> Result<Vec<Item>, OpenError> {
        let mut items: Vec<Item> = Vec::new();
        let mut at = stretch.base;
        let mut chain = stretch.chain;
        let mut epoch = Epoch(0);
        while at < stretch.end {
            let place = self.place(stretch, at, true)?;
            let header = match &place {
                Place::Batch(batch) => Some(&batch.header),
                Place::Body { header, .. } => Some(header),
                Place::Nothing(_) => None,
            };
            let foreign = header.and_then(|header| foreign(header, epoch, life));
            let joins = header.is_some_and(|header| chain.is_none_or(|c| c == header.previous));
            let before = at;
            match (place, foreign) {
                (Place::Nothing(hole), _) => {
                    let hole = self.extend_hole(hole, stretch, epoch, life)?;
                    (at, chain) = (hole.to, hole.resume);
                    items.push(Item::Hole(hole));
                }
                (_, Some(what)) => {
                    let hole = self.hole(stretch, before, before, what);
                    let hole = self.extend_hole(hole, stretch, epoch, life)?;
                    (at, chain) = (hole.to, hole.resume);
                    items.push(Item::Hole(hole));
                }
                (place @ (Place::Batch(_) | Place::Body { .. }), None) => {
                    let (header, own_chain) = match &place {
                        Place::Batch(batch) => (batch.header.clone(), batch.chain),
                        Place::Body { header, chain, .. } => (header.clone(), *chain),
                        Place::Nothing(_) => continue,
                    };
                    if !joins && !self.blame_the_one_before(&mut items, &header, stretch) {
                        let what = "a batch that does not continue the one before it";
                        let hole = self.hole(stretch, before, before, what.into());
                        let hole = self.extend_hole(hole, stretch, epoch, life)?;
                        (at, chain) = (hole.to, hole.resume);
                        items.push(Item::Hole(hole));
                    } else {
                        (at, chain, epoch) = (header.end(), Some(own_chain), header.epoch);
                        items.push(match place {
                            Place::Batch(batch) => Item::Batch(batch),
                            Place::Body { hole, .. } | Place::Nothing(hole) => Item::Hole(hole),
                        });
                    }
                }
            }
            meter.done(at.0 - before.0);
        }
        self.close_stretch(&mut items, stretch);
        Ok(items)
    }

    /// The last batch must end with the chain value that the end of the stretch has.
    fn close_stretch(&self, items: &mut [Item], stretch: &Stretch) {
        let Some(chain_end) = stretch.chain_end else { return };
        match items.last_mut() {
            Some(Item::Hole(hole)) => hole.resume = Some(chain_end),
            Some(last @ Item::Batch(_)) => {
                let Item::Batch(batch) = &*last else { return };
                if batch.chain != chain_end {
                    let what = "a batch that what follows does not continue".to_owned();
                    let mut hole = self.hole(stretch, batch.header.lsn, stretch.end, what);
                    hole.resume = Some(chain_end);
                    *last = Item::Hole(hole);
                }
            }
            None => {}
        }
    }

    /// A batch that does not continue the chain: where the one before is damaged, or of an older
    /// life, that one is to blame.
    fn blame_the_one_before(
        &self,
        items: &mut [Item],
        header: &BatchHeader,
        stretch: &Stretch,
    ) -> bool {
        match items.last_mut() {
            Some(Item::Hole(hole)) => {
                hole.resume = Some(header.previous);
                true
            }
            Some(last @ Item::Batch(_)) => {
                let Item::Batch(batch) = &*last else { return false };
                if batch.header.epoch >= header.epoch {
                    return false;
                }
                let what = "a batch of an older life, which the next one does not continue";
                let mut hole = self.hole(stretch, batch.header.lsn, header.lsn, what.to_owned());
                hole.resume = Some(header.previous);
                *last = Item::Hole(hole);
                true
            }
            None => false,
        }
    }

    fn hole(&self, stretch: &Stretch, from: Lsn, to: Lsn, what: String) -> Hole {
        let file_offset = SEGMENT_HEADER_BYTES + (from.0 - stretch.base.0);
        Hole { file_offset, what, ..Hole::whole(from, to) }
    }

    /// Extends a hole to the next header of a batch, or to the end.
    fn extend_hole(
        &mut self,
        mut hole: Hole,
        stretch: &Stretch,
        epoch: Epoch,
        life: Option<&Manifest>,
    ) -> Result<Hole, OpenError> {
        let claimed = hole.to.0 - hole.from.0;
        hole.to = Lsn(hole.from.0 + BLOCK);
        hole.resume = stretch.chain_end;
        while hole.to < stretch.end {
            match self.place(stretch, hole.to, false)? {
                Place::Batch(Batch { header, .. }) | Place::Body { header, .. }
                    if foreign(&header, epoch, life).is_none() =>
                {
                    hole.resume = Some(header.previous);
                    break;
                }
                _ => hole.to = Lsn(hole.to.0 + BLOCK),
            }
        }
        hole.to = hole.to.min(stretch.end);
        // What the damaged batch says of itself may be less than what is missing.
        hole.runs_known &= hole.to.0 - hole.from.0 == claimed;
        Ok(hole)
    }

    /// What lies at `at`. Without `body`, only the header is looked at.
    fn place(&mut self, stretch: &Stretch, at: Lsn, body: bool) -> Result<Place, OpenError> {
        let identity = self.identity;
        let segment = self.segment;
        let seed = HeaderSeed::new(identity.log, identity.shard, segment);
        let nothing = self.hole(stretch, at, at, String::new());
        let offset = nothing.file_offset;
        let (header, chain) = match self.get(offset, BLOCK_BYTES) {
            Err(error) => return Ok(Place::Nothing(Hole { what: error.to_string(), ..nothing })),
            Ok(block) => match BatchHeader::decode(block, seed, at) {
                Ok(decoded) => decoded,
                Err(refused @ (Refused::Version(_) | Refused::Features(_))) => {
                    return Err(identity.refused(names::segment(segment).as_str(), refused));
                }
                Err(Refused::Damaged(what)) => {
                    let nothing = Hole { what, ..nothing };
                    return Ok(Place::Nothing(match body {
                        true => self.salvage(nothing),
                        false => nothing,
                    }));
                }
            },
        };
        if header.end() > stretch.end {
            let what = "a batch that reaches past the end of what is there".to_owned();
            return Ok(Place::Nothing(Hole { what, ..nothing }));
        }
        if !body {
            let (runs, created, trimmed) = (Vec::new(), Vec::new(), Vec::new());
            return Ok(Place::Batch(Batch { header, chain, runs, created, trimmed }));
        }
        let durable_lsn = header.durable_lsn;
        let mut bad = Hole { to: header.end(), resume: Some(chain), durable_lsn, ..nothing };
        let bytes = match self.get(offset, header.stored_bytes as usize) {
            Ok(bytes) => bytes,
            Err(error) => {
                bad.what = error.to_string();
                return Ok(Place::Body { header, chain, hole: bad });
            }
        };
        match read_batch(&header, bytes, &identity) {
            Ok((runs, created, trimmed)) => {
                Ok(Place::Batch(Batch { header, chain, runs, created, trimmed }))
            }
            Err((bad_at, what)) => {
                if let Some(runs) = read_runs(&header, bytes) {
                    bad.runs = runs;
                    bad.runs_known = true;
                }
                bad.file_offset = offset + bad_at as u64;
                bad.what = what;
                Ok(Place::Body { header, chain, hole: bad })
            }
        }
    }

    /// Where only a header is damaged, what it says of its sections still holds: it says that it
    /// lies here, and everything behind it fits its checksums.
    fn salvage(&mut self, mut hole: Hole) -> Hole {
        let offset = hole.file_offset;
        let identity = self.identity;
        let Ok(front) = self.get(offset, BATCH_HEADER_BYTES) else { return hole };
        if front.len() < BATCH_HEADER_BYTES {
            return hole;
        }
        let claimed = BatchHeader {
            kind: BatchKind::Records,
            lsn: Lsn(get_u64(front, 8)),
            epoch: Epoch(0),
            durable_lsn: Lsn(0),
            timestamp_ns: 0,
            body_bytes: get_u32(front, 40),
            stored_bytes: get_u32(front, 44),
            frames: get_u32(front, 48),
            sections: get_u32(front, 52),
            meta_crc: get_u32(front, 56),
            previous: 0,
            resume: 0,
        };
        let plausible = claimed.lsn == hole.from
            && claimed.sections > 0
            && claimed.stored_bytes as usize <= BATCH_BYTES_MAX
            && u64::from(claimed.stored_bytes) <= self.bytes.saturating_sub(offset);
        if !plausible {
            return hole;
        }
        let Ok(bytes) = self.get(offset, claimed.stored_bytes as usize) else { return hole };
        if let Ok((runs, ..)) = read_batch(&claimed, bytes, &identity) {
            hole.runs = runs;
            hole.runs_known = true;
            hole.to = Lsn(hole.from.0 + u64::from(claimed.stored_bytes));
        }
        hole
    }
}

/// Why a batch with a good header may not lie here.
fn foreign(header: &BatchHeader, epoch: Epoch, life: Option<&Manifest>) -> Option<String> {
    if header.epoch < epoch {
        return Some(format!("a batch of life {} behind one of life {}", header.epoch.0, epoch.0));
    }
    let fits = life.is_none_or(|manifest| tail::epoch_fits(manifest, header));
    (!fits).then(|| "a batch of a life that cannot have written here".to_owned())
}

/// Runs, creations of streams, trims of streams.
type Content = (Vec<Run>, Vec<(StreamId, Arc<str>)>, Vec<(StreamId, Offset)>);

/// Validates the body of a batch.
fn read_batch(
    header: &BatchHeader,
    bytes: &[u8],
    identity: &Identity,
) -> Result<Content, (usize, String)> {
    let mut runs: Vec<Run> = Vec::new();
    let mut creations = Vec::new();
    let mut trims = Vec::new();
    let mut too_large = None;
    check_body(header, bytes, identity.log, identity.shard, |frame| {
        if frame.stream.0 >= STREAMS_MAX {
            too_large.get_or_insert(frame.payload_start as usize);
        }
        match runs.last_mut() {
            Some(run)
                if run.stream == frame.stream
                    && run.base.0.checked_add(run.count.into()) == Some(frame.offset.0)
                    && run.count < u32::MAX =>
            {
                run.count += 1;
            }
            _ => runs.push(Run { stream: frame.stream, count: 1, base: frame.offset }),
        }
        if frame.kind == FrameKind::CreateStream {
            creations.push((frame.payload_start as usize, frame.payload_bytes as usize));
        }
        if frame.kind == FrameKind::TrimStream {
            trims.push((frame.payload_start as usize, frame.payload_bytes as usize));
        }
    })?;
    if let Some(at) = too_large {
        return Err((at, "a stream number that is too large".into()));
    }
    let mut created = Vec::with_capacity(creations.len());
    for (start, len) in creations {
        match creation(&bytes[start..start + len]) {
            Some(stream) => created.push(stream),
            None => return Err((start, "a creation of a stream that cannot be read".into())),
        }
    }
    let mut trimmed = Vec::with_capacity(trims.len());
    for (start, len) in trims {
        match trim(&bytes[start..start + len]) {
            Some(trim) => trimmed.push(trim),
            None => return Err((start, "a trim of a stream that cannot be read".into())),
        }
    }
    Ok((runs, created, trimmed))
}
