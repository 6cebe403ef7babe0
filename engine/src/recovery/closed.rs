//! The segment that was open at a clean close: its end is taken from the manifest, as that of a
//! sealed segment is, and what lies in it from its index.
//!
//! Nothing is scanned. The last batch alone is read: it must be whole and end where the manifest
//! says that the log ends. Whatever does not fit is no verdict: then the segment is scanned, which
//! tells damage from an index that is merely missing.

use std::sync::Arc;

use ringlog_disk::planted::{Bug, planted};
use ringlog_disk::{BlockPool, Disk, Done, Op};

use super::tail::{Part, SCAN_FILE, epoch_fits};
use super::{Identity, ask, load_file, read_effects};
use crate::error::OpenError;
use crate::format::batch::{BatchHeader, HeaderSeed};
use crate::format::manifest::Manifest;
use crate::format::segment::{SEGMENT_HEADER_BYTES, Sealed, SegmentHeader};
use crate::ids::{Lsn, SegmentId};
use crate::index;
use crate::limits::{BATCH_BYTES_MAX, BLOCK_BYTES};
use crate::names;
use crate::window::Window;

/// What the manifest of a clean close says of the open segment, if the index and the last batch
/// agree.
///
/// # Errors
/// Of the disk, when it cannot even close a file.
pub(super) fn part(
    disk: &mut dyn Disk,
    identity: &Identity,
    manifest: &Manifest,
) -> Result<Option<Part>, OpenError> {
    let Some((segment, so_far)) = manifest.closed() else { return Ok(None) };
    let limit_bytes = index::file_bytes_max(identity.segment_bytes);
    let Ok(file) = load_file(disk, names::index(segment), limit_bytes) else { return Ok(None) };
    let Identity { log, shard, .. } = *identity;
    let Some(postings) = index::restore(&file, log, shard, segment, &so_far) else {
        return Ok(None);
    };
    drop(file);
    let Some((block, blocks)) = postings.last_batch() else { return Ok(None) };
    let last_bytes = (blocks as usize).saturating_mul(BLOCK_BYTES);
    if !(BLOCK_BYTES..=BATCH_BYTES_MAX).contains(&last_bytes) {
        return Ok(None);
    }
    let open = Op::Open { file: SCAN_FILE, name: names::segment(segment), write: false };
    let Ok(Done::Opened { bytes }) = ask(disk, open) else { return Ok(None) };
    let mut window = Window::new(BlockPool::ordinary(1, last_bytes)?, SCAN_FILE, bytes);
    let last = (block, blocks);
    let fits = (is_sound(disk, identity, &mut window, segment, bytes)
        || planted(Bug::BelieveClosedSegment))
        && ends_with(disk, identity, manifest, &mut window, (segment, &so_far), last);
    window.drop_all(disk);
    ask(disk, Op::Close { file: SCAN_FILE })?;
    Ok(fits.then(|| Part { segment, so_far, postings: Arc::new(postings) }))
}

fn is_sound(
    disk: &mut dyn Disk,
    identity: &Identity,
    window: &mut Window,
    segment: SegmentId,
    bytes: u64,
) -> bool {
    let Ok(block) = window.peek(disk, 0, BLOCK_BYTES) else { return false };
    SegmentHeader::decode(block).is_ok_and(|header| {
        header.log == identity.log
            && header.shard == identity.shard
            && header.segment == segment
            && header.segment_bytes == identity.segment_bytes
            && bytes >= identity.segment_bytes
    })
}

/// Whether the batch at `block` is whole and the last one of what the manifest describes.
fn ends_with(
    disk: &mut dyn Disk,
    identity: &Identity,
    manifest: &Manifest,
    window: &mut Window,
    (segment, so_far): (SegmentId, &Sealed),
    (block, blocks): (u32, u32),
) -> bool {
    let at = u64::from(block) * BLOCK_BYTES as u64;
    let bytes = u64::from(blocks) * BLOCK_BYTES as u64;
    let lsn = Lsn(so_far.base_lsn.0.saturating_add(at));
    if lsn.0.saturating_add(bytes) != so_far.end_lsn.0 {
        return false;
    }
    let Ok(batch) = window.peek(disk, SEGMENT_HEADER_BYTES + at, bytes as usize) else {
        return false;
    };
    let seed = HeaderSeed::new(identity.log, identity.shard, segment);
    let Ok((header, chain)) = BatchHeader::decode(batch, seed, lsn) else { return false };
    header.end() == so_far.end_lsn
        && (chain == so_far.chain_end || planted(Bug::BelieveClosedChain))
        && epoch_fits(manifest, &header)
        && read_effects(&header, batch, identity).is_ok()
}
