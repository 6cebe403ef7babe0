//! Walking the segments that are not sealed, also where recovery stops because of damage.
//!
//! Recovery goes from batch to batch and refuses at the first damaged one. Here each segment is
//! placed by the first batch in it that can be read, so that what lies behind damage is found.

use super::walk::{Hole, Item, Stretch};
use super::{Meter, ShardFiles};
use crate::error::OpenError;
use crate::format::manifest::Manifest;
use crate::format::segment::{SEGMENT_FOOTER_BYTES, SEGMENT_HEADER_BYTES};
use crate::ids::{Lsn, SegmentId};
use crate::recovery::tail::Tail;

/// A segment that is not sealed.
pub(super) struct Unsealed {
    pub(super) segment: SegmentId,
    /// What is wrong with its file or its header.
    pub(super) wrong: Option<String>,
    /// Where it begins, for one that holds batches.
    pub(super) base: Option<Lsn>,
    /// What it holds, without what lies behind the end of the log.
    pub(super) items: Vec<Item>,
}

/// Walks all unsealed segments up to the end of the log. Whatever is damaged before an LSN that was
/// durable once is a hole; what does not validate behind it is left out. Also gives that LSN.
///
/// # Errors
/// Of the disk, and an unknown version.
pub(super) fn walk_unsealed(
    files: &mut ShardFiles,
    manifest: &Manifest,
    tail: &Tail,
    meter: &mut Meter<'_>,
) -> Result<(Vec<Unsealed>, Lsn), OpenError> {
    let mut all = place(files, manifest)?;
    let room = files.identity.segment_bytes - SEGMENT_HEADER_BYTES - SEGMENT_FOOTER_BYTES;
    let bases: Vec<Option<Lsn>> = all.iter().map(|unsealed| unsealed.base).collect();
    let (sealed_end, chain) = manifest.sealed_end();
    let mut before = Some((sealed_end, chain));
    for (at, unsealed) in all.iter_mut().enumerate() {
        let Some(base) = unsealed.base else { continue };
        let full = Lsn(base.0.saturating_add(room));
        let next = bases[at + 1..].iter().flatten().min().copied().unwrap_or(full);
        let chain = before.filter(|(end, _)| *end == base).map(|(_, chain)| chain);
        let mut stretch = Stretch { base, end: next.min(full), chain, chain_end: None };
        if let Some((closed, so_far)) = manifest.closed()
            && closed == unsealed.segment
        {
            stretch = Stretch { end: so_far.end_lsn, chain_end: Some(so_far.chain_end), ..stretch };
        }
        let Ok(mut file) = files.segment(unsealed.segment)? else {
            unsealed.items = vec![Item::Hole(Hole::whole(base, stretch.end))];
            continue;
        };
        unsealed.items = file.walk(&stretch, Some(manifest), meter)?;
        file.close()?;
        before = match unsealed.items.last() {
            Some(Item::Batch(batch)) => Some((batch.header.end(), batch.chain)),
            _ => None,
        };
    }
    let mut told = manifest.proven_lsn.max(tail.told_durable);
    if tail.corruption.is_some() {
        // Recovery may have stopped before it has met the last word on this.
        let items = all.iter().flat_map(|unsealed| &unsealed.items);
        told = items.map(Item::durable_lsn).fold(told, Lsn::max);
    }
    let mut parts: Vec<&mut Vec<Item>> = all.iter_mut().map(|part| &mut part.items).collect();
    cut(&mut parts, told);
    Ok((all, told))
}

/// Opens each unsealed segment, checks its header and finds out where it begins.
fn place(files: &mut ShardFiles, manifest: &Manifest) -> Result<Vec<Unsealed>, OpenError> {
    let mut all = Vec::new();
    let (sealed_end, _) = manifest.sealed_end();
    for segment in manifest.unsealed() {
        let is_first = all.is_empty();
        let (wrong, base) = match files.segment(segment)? {
            Ok(mut file) => {
                let wrong = file.check_header()?;
                let base = match is_first {
                    true => Some(sealed_end),
                    false => file.find_base(Some(manifest)).filter(|base| *base >= sealed_end),
                };
                file.close()?;
                (wrong, base)
            }
            Err(what) => (Some(what), is_first.then_some(sealed_end)),
        };
        all.push(Unsealed { segment, wrong, base, items: Vec::new() });
    }
    Ok(all)
}

/// Leaves out what lies behind the end of the log: behind the first hole that nothing proves to
/// have been more. `parts` are what consecutive segments hold.
pub(super) fn cut(parts: &mut [&mut Vec<Item>], told: Lsn) {
    let mut ended = false;
    let last_filled = parts.iter().rposition(|items| !items.is_empty());
    for (at, items) in parts.iter_mut().enumerate() {
        if ended {
            items.clear();
            continue;
        }
        let beyond = |item: &Item| matches!(item, Item::Hole(hole) if hole.from >= told);
        if let Some(end) = items.iter().position(beyond) {
            items.truncate(end);
            ended = true;
        }
        if let Some(Item::Hole(last)) = items.last_mut()
            && Some(at) == last_filled
        {
            last.to = last.to.min(told);
        }
    }
}
