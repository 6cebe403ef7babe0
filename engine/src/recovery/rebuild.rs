//! The streams of a shard, found again from its sealed segments where the catalogue is damaged.
//!
//! For reading only: what cannot be validated is passed over, so a stream may be missing whose
//! creation was trimmed or lies in a damaged batch.

use ringlog_disk::{BlockPool, Disk, Done, Op};

use super::tail::SCAN_FILE;
use super::{Identity, ask, read_effects};
use crate::error::OpenError;
use crate::format::batch::{BatchHeader, HeaderSeed};
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::segment::{SEGMENT_HEADER_BYTES, Sealed};
use crate::ids::{Lsn, SegmentId};
use crate::limits::BLOCK_BYTES;
use crate::names;
use crate::shard::Streams;
use crate::window::Window;

/// Reads every segment whose end is known. Cost: the whole log.
///
/// # Errors
/// Of the disk, but for segments that cannot be opened or read: those are passed over.
pub(crate) fn streams(
    disk: &mut dyn Disk,
    identity: &Identity,
    manifest: &Manifest,
    pool: &BlockPool,
) -> Result<Streams, OpenError> {
    let mut streams = Streams::default();
    for entry in &manifest.segments {
        if let SegmentState::Sealed { sealed, .. } | SegmentState::Closed { so_far: sealed } =
            entry.state
        {
            segment(disk, identity, (entry.segment, sealed), pool, &mut streams)?;
        }
    }
    Ok(streams)
}

fn segment(
    disk: &mut dyn Disk,
    identity: &Identity,
    (id, sealed): (SegmentId, Sealed),
    pool: &BlockPool,
    streams: &mut Streams,
) -> Result<(), OpenError> {
    let open = Op::Open { file: SCAN_FILE, name: names::segment(id), write: false };
    let Ok(Done::Opened { bytes }) = ask(disk, open) else { return Ok(()) };
    let mut window = Window::new(pool.clone(), SCAN_FILE, bytes);
    let seed = HeaderSeed::new(identity.log, identity.shard, id);
    let mut lsn = sealed.base_lsn;
    while lsn < sealed.end_lsn {
        let offset = SEGMENT_HEADER_BYTES + (lsn.0 - sealed.base_lsn.0);
        let mut next = Lsn(lsn.0 + BLOCK_BYTES as u64);
        let header = match window.get(disk, offset, BLOCK_BYTES) {
            Ok(block) => BatchHeader::decode(block, seed, lsn).ok(),
            Err(_) => None,
        };
        if let Some((header, _)) = header
            && let Ok(batch) = window.get(disk, offset, header.stored_bytes as usize)
            && let Ok(effects) = read_effects(&header, batch, identity)
        {
            effects.apply(streams);
            next = header.end();
        }
        lsn = next;
    }
    window.drop_all(disk);
    ask(disk, Op::Close { file: SCAN_FILE })?;
    Ok(())
}
