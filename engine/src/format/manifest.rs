//! The manifest: the atomic truth about the segments of a shard.
//!
//! It is one small file, replaced as a whole. Replacing it is the commit point of every change to
//! the set of segments: a segment is listed before its first batch is written, and is overwritten
//! only after a manifest without it is durable.

use super::Refused;
use super::bytes::Fields;
use super::meta::{unwrap, wrap};
use super::segment::{SEALED_BYTES, Sealed, decode_sealed, encode_sealed};
use crate::ids::{Epoch, LogId, Lsn, SegmentId};

/// Where a segment is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentState {
    /// Prepared, open or about to be sealed: recovery scans it.
    Unsealed,
    /// Immutable. `footer` tells whether a footer lies behind its last batch; recovery seals a
    /// segment without one.
    Sealed {
        /// What it holds.
        sealed: Sealed,
        /// Whether it has a footer.
        footer: bool,
    },
    /// The segment that was open when the log was closed cleanly, at most one. The next life goes
    /// on in it, and lists it as unsealed again before it writes.
    Closed {
        /// What it held then.
        so_far: Sealed,
    },
}

/// A listed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestSegment {
    /// Its number; numbers grow along the list.
    pub segment: SegmentId,
    /// Where it is in its life.
    pub state: SegmentState,
}

/// A listed part of the stream catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CataloguePart {
    /// Its number; names its file.
    pub number: u64,
    /// Length of the file.
    pub bytes: u64,
    /// Checksum of the whole file.
    pub crc: u32,
}

/// The content of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The log.
    pub log: LogId,
    /// The shard.
    pub shard: u16,
    /// Grows by one with each manifest.
    pub generation: u64,
    /// The life that wrote it.
    pub epoch: Epoch,
    /// Where that life began to write. Every batch from here on carries its epoch.
    pub life_lsn: Lsn,
    /// Everything before this is durable.
    pub proven_lsn: Lsn,
    /// Whether the log was closed cleanly: then `proven_lsn` is its end.
    pub clean: bool,
    /// The number of the next segment to be prepared.
    pub next_segment: SegmentId,
    /// Everything before this is in the catalogue: where the sealed segments end, or where the log
    /// was closed cleanly last.
    pub catalogued_lsn: Lsn,
    /// Where the log begins: the end of the last segment that was trimmed; 0 if there was none.
    pub trimmed_lsn: Lsn,
    /// Chain value of the last batch that was trimmed; 0 if there was none.
    pub trimmed_chain: u32,
    /// The catalogue, oldest part first.
    pub catalogue: Vec<CataloguePart>,
    /// The segments, oldest first.
    pub segments: Vec<ManifestSegment>,
}

const MAGIC: [u8; 4] = *b"RLm1";
const STATE_UNSEALED: u16 = 0;
const STATE_SEALED: u16 = 1;
const STATE_CLOSED: u16 = 2;

impl Manifest {
    /// The largest manifest that is read: about a million segments.
    pub const FILE_BYTES_MAX: u64 = 64 << 20;

    /// The whole file.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + self.segments.len() * 60);
        out.extend_from_slice(&self.log.0);
        out.extend_from_slice(&self.shard.to_le_bytes());
        out.extend_from_slice(&u16::from(self.clean).to_le_bytes());
        out.extend_from_slice(&(self.catalogue.len() as u32).to_le_bytes());
        for word in [
            self.generation,
            self.epoch.0,
            self.life_lsn.0,
            self.proven_lsn.0,
            self.next_segment.0,
            self.catalogued_lsn.0,
            self.trimmed_lsn.0,
            self.segments.len() as u64,
        ] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.trimmed_chain.to_le_bytes());
        for part in &self.catalogue {
            out.extend_from_slice(&part.number.to_le_bytes());
            out.extend_from_slice(&part.bytes.to_le_bytes());
            out.extend_from_slice(&part.crc.to_le_bytes());
        }
        for segment in &self.segments {
            out.extend_from_slice(&segment.segment.0.to_le_bytes());
            match segment.state {
                SegmentState::Unsealed => {
                    out.extend_from_slice(&STATE_UNSEALED.to_le_bytes());
                    out.extend_from_slice(&0_u16.to_le_bytes());
                }
                SegmentState::Sealed { sealed, footer } => {
                    put_sealed(&mut out, STATE_SEALED, u16::from(footer), &sealed);
                }
                SegmentState::Closed { so_far } => put_sealed(&mut out, STATE_CLOSED, 0, &so_far),
            }
        }
        wrap(MAGIC, &out)
    }

    /// Reads the whole file and checks what must hold between its fields.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(file: &[u8]) -> Result<Self, Refused> {
        let mut fields = Fields::new(unwrap(MAGIC, file, "manifest")?);
        let Some(manifest) = Self::decode_fields(&mut fields).filter(|_| fields.left() == 0) else {
            return Refused::damaged("a manifest of the wrong length");
        };
        manifest.check()?;
        Ok(manifest)
    }

    fn decode_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let mut log = [0; 16];
        log.copy_from_slice(fields.take(16)?);
        let shard = fields.u16()?;
        let clean = fields.u16()? != 0;
        let parts = fields.u32()? as usize;
        let mut manifest = Self {
            log: LogId(log),
            shard,
            generation: fields.u64()?,
            epoch: Epoch(fields.u64()?),
            life_lsn: Lsn(fields.u64()?),
            proven_lsn: Lsn(fields.u64()?),
            clean,
            next_segment: SegmentId(fields.u64()?),
            catalogued_lsn: Lsn(fields.u64()?),
            trimmed_lsn: Lsn(fields.u64()?),
            trimmed_chain: 0,
            catalogue: Vec::new(),
            segments: Vec::new(),
        };
        let segments = usize::try_from(fields.u64()?).ok()?;
        manifest.trimmed_chain = fields.u32()?;
        // Nothing is reserved on the word of a count: each entry has to be there first.
        for _ in 0..parts {
            manifest.catalogue.push(CataloguePart {
                number: fields.u64()?,
                bytes: fields.u64()?,
                crc: fields.u32()?,
            });
        }
        for _ in 0..segments {
            let segment = SegmentId(fields.u64()?);
            let (state, flags) = (fields.u16()?, fields.u16()?);
            let state = match state {
                STATE_UNSEALED => SegmentState::Unsealed,
                STATE_SEALED => SegmentState::Sealed {
                    sealed: decode_sealed(fields.take(SEALED_BYTES)?),
                    footer: flags & 1 == 1,
                },
                STATE_CLOSED => {
                    SegmentState::Closed { so_far: decode_sealed(fields.take(SEALED_BYTES)?) }
                }
                _ => return None,
            };
            manifest.segments.push(ManifestSegment { segment, state });
        }
        Some(manifest)
    }

    fn check(&self) -> Result<(), Refused> {
        let mut end = self.trimmed_lsn;
        let mut last = SegmentId(0);
        let mut unsealed_seen = false;
        for entry in &self.segments {
            if entry.segment <= last || entry.segment >= self.next_segment {
                return Refused::damaged("a manifest whose segments are out of order");
            }
            last = entry.segment;
            match entry.state {
                SegmentState::Unsealed => unsealed_seen = true,
                SegmentState::Sealed { sealed, .. } => {
                    let joins = end == sealed.base_lsn && sealed.base_lsn <= sealed.end_lsn;
                    if unsealed_seen || !joins {
                        return Refused::damaged("a manifest whose segments do not join");
                    }
                    end = sealed.end_lsn;
                }
                SegmentState::Closed { so_far } => {
                    let joins = end == so_far.base_lsn && so_far.base_lsn < so_far.end_lsn;
                    let is_end = self.clean && so_far.end_lsn == self.proven_lsn;
                    if unsealed_seen || !joins || !is_end {
                        return Refused::damaged("a manifest whose closed segment is not its end");
                    }
                    unsealed_seen = true;
                }
            }
        }
        if self.life_lsn > self.proven_lsn && self.clean {
            return Refused::damaged("a clean manifest that ends before its life began");
        }
        Ok(())
    }

    /// Where the unsealed segments begin: the LSN, and the chain value before it.
    pub fn sealed_end(&self) -> (Lsn, u32) {
        self.last_sealed().map_or((self.trimmed_lsn, self.trimmed_chain), |sealed| {
            (sealed.end_lsn, sealed.chain_end)
        })
    }

    fn last_sealed(&self) -> Option<Sealed> {
        self.segments.iter().rev().find_map(|entry| match entry.state {
            SegmentState::Sealed { sealed, .. } => Some(sealed),
            SegmentState::Unsealed | SegmentState::Closed { .. } => None,
        })
    }

    /// The segment that was open when the log was closed cleanly, and what it held.
    pub fn closed(&self) -> Option<(SegmentId, Sealed)> {
        self.segments.iter().rev().find_map(|entry| match entry.state {
            SegmentState::Closed { so_far } => Some((entry.segment, so_far)),
            SegmentState::Unsealed | SegmentState::Sealed { .. } => None,
        })
    }

    /// The segments that are not sealed, oldest first.
    pub fn unsealed(&self) -> impl Iterator<Item = SegmentId> {
        let sealed = |entry: &&ManifestSegment| matches!(entry.state, SegmentState::Sealed { .. });
        self.segments.iter().skip_while(sealed).map(|entry| entry.segment)
    }
}

fn put_sealed(out: &mut Vec<u8>, state: u16, flags: u16, sealed: &Sealed) {
    out.extend_from_slice(&state.to_le_bytes());
    out.extend_from_slice(&flags.to_le_bytes());
    let at = out.len();
    out.resize(at + SEALED_BYTES, 0);
    encode_sealed(sealed, &mut out[at..]);
}
