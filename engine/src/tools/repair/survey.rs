//! What is left of a damaged shard, put into the order of the log without overlap or omission.

use std::collections::BTreeSet;

use super::super::Meter;
use super::super::ShardFiles;
use super::super::ledger::{Catalogue, Ledger, merge};
use super::super::tail_walk::{cut, walk_unsealed};
use super::super::walk::{Hole, Item, Stretch};
use crate::error::{Corruption, OpenError};
use crate::format::batch::{BatchKind, Run};
use crate::format::catalogue;
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::segment::{SEGMENT_FOOTER_BYTES, SEGMENT_HEADER_BYTES, Sealed};
use crate::ids::{Epoch, Lsn, Offset, SegmentId, StreamId};
use crate::limits::{BLOCK_BYTES, STREAMS_MAX};
use crate::names;
use crate::recovery::{list_files, load_file, load_manifest, load_part, tail};
use crate::shard::Streams;

/// A segment as it shall be listed.
pub(super) struct Piece {
    pub(super) segment: SegmentId,
    pub(super) base: Lsn,
    /// Batches and holes, which cover it from its base to its end.
    pub(super) items: Vec<Item>,
    /// Whether its file is there and has a good header.
    pub(super) whole_file: bool,
    /// What its footer says, if it has a good one.
    pub(super) footer: Option<Sealed>,
    /// Whether it holds batches that nothing proves to be durable.
    pub(super) unproven: bool,
}

impl Piece {
    fn lost(segment: SegmentId, from: Lsn, to: Lsn) -> Self {
        let items = vec![Item::Hole(Hole::whole(from, to))];
        Self { segment, base: from, items, whole_file: false, footer: None, unproven: false }
    }

    pub(super) fn end(&self) -> Lsn {
        self.items.last().map_or(self.base, Item::to)
    }

    /// Whether it cannot stay as it is.
    pub(super) fn must_be_written(&self) -> bool {
        let hole = |item: &Item| matches!(item, Item::Hole(_));
        !self.whole_file || self.unproven || self.items.iter().any(hole)
    }

    pub(super) fn hole_bytes(&self) -> u64 {
        let bytes = |item: &Item| match item {
            Item::Batch(_) => 0,
            Item::Hole(hole) => hole.to.0 - hole.from.0,
        };
        self.items.iter().map(bytes).sum()
    }
}

/// See the module's text.
pub(super) struct Survey {
    pub(super) pieces: Vec<Piece>,
    /// Files of segments that are listed no more.
    pub(super) dropped: Vec<SegmentId>,
    /// The newest life that left anything.
    pub(super) epoch: Epoch,
    pub(super) generation: u64,
    pub(super) next_segment: SegmentId,
    pub(super) trimmed_lsn: Lsn,
    pub(super) trimmed_chain: u32,
    /// What is left of the catalogue.
    pub(super) catalogue: Catalogue,
    /// Where the catalogue stands, if it is whole.
    pub(super) catalogued: Option<Lsn>,
    /// Numbers of all parts of the catalogue that are listed or there.
    pub(super) part_numbers: Vec<u64>,
    pub(super) notes: Vec<String>,
}

/// Surveys a shard, by its manifest, or by its files where there is none.
///
/// # Errors
/// Of the disk, and an unknown version.
pub(super) fn survey(files: &mut ShardFiles, meter: &mut Meter<'_>) -> Result<Survey, OpenError> {
    let room = files.identity.segment_bytes - SEGMENT_HEADER_BYTES - SEGMENT_FOOTER_BYTES;
    let fits = |manifest: &Manifest| {
        manifest.segments.iter().all(|entry| match entry.state {
            SegmentState::Sealed { sealed, .. } | SegmentState::Closed { so_far: sealed } => {
                sealed.end_lsn.0 - sealed.base_lsn.0 <= room
            }
            SegmentState::Unsealed => true,
        })
    };
    let survey = match load_manifest(&mut files.disk, &files.identity) {
        Ok(manifest) if fits(&manifest) => by_manifest(files, &manifest, meter)?,
        Ok(manifest) => {
            let why = "the manifest lists a segment that holds more than it can";
            by_files(files, why, manifest.epoch, meter)?
        }
        Err(OpenError::Corrupt(Corruption { what, .. })) => {
            by_files(files, &what, Epoch(0), meter)?
        }
        Err(error) => return Err(error),
    };
    Ok(survey)
}

fn by_manifest(
    files: &mut ShardFiles,
    manifest: &Manifest,
    meter: &mut Meter<'_>,
) -> Result<Survey, OpenError> {
    let mut pieces = Vec::new();
    for entry in &manifest.segments {
        if let SegmentState::Sealed { sealed, .. } = entry.state {
            pieces.push(sealed_piece(files, entry.segment, &sealed, meter)?);
        }
    }
    let identity = files.identity;
    let streams = Streams::default();
    let tail = tail::scan_watched(
        &mut files.disk,
        &identity,
        manifest,
        streams,
        &files.pool,
        (tail::Purpose::Write, None),
    )?;
    let (unsealed, told) = walk_unsealed(files, manifest, &tail, meter)?;
    let mut spare_ids: Vec<SegmentId> = Vec::new();
    let mut dropped = Vec::new();
    for mut part in unsealed {
        strip_watermarks(&mut part.items, told);
        let Some(base) = part.base.filter(|_| !part.items.is_empty()) else {
            spare_ids.push(part.segment);
            dropped.extend(part.wrong.is_some().then_some(part.segment));
            continue;
        };
        pieces.push(Piece {
            segment: part.segment,
            base,
            unproven: part.items.last().is_some_and(|item| item.to() > told),
            items: part.items,
            whole_file: part.wrong.is_none(),
            footer: None,
        });
    }
    let mut next_segment = manifest.next_segment;
    let room = files.identity.segment_bytes - SEGMENT_HEADER_BYTES - SEGMENT_FOOTER_BYTES;
    let mut filler = Filler { room, ids: spare_ids, next_segment: &mut next_segment };
    let end = pieces.last().map_or(manifest.trimmed_lsn, Piece::end).max(told);
    let pieces = filler.join(pieces, manifest.trimmed_lsn, end);
    let mut catalogue = Catalogue::new();
    let mut whole = manifest.catalogued_lsn >= manifest.sealed_end().0;
    for part in &manifest.catalogue {
        match load_part(&mut files.disk, &identity, part) {
            Ok(entries) => merge(&mut catalogue, entries),
            Err(OpenError::Corrupt(_)) => whole = false,
            Err(error) => return Err(error),
        }
    }
    let listed = manifest.catalogue.iter().map(|part| part.number);
    Ok(Survey {
        pieces,
        dropped,
        epoch: manifest.epoch,
        generation: manifest.generation,
        next_segment,
        trimmed_lsn: manifest.trimmed_lsn,
        trimmed_chain: manifest.trimmed_chain,
        catalogue,
        catalogued: whole.then_some(manifest.catalogued_lsn),
        part_numbers: listed.chain(part_files(files)?).collect(),
        notes: Vec::new(),
    })
}

/// Watermarks behind the proven end hold nothing that anybody needs.
fn strip_watermarks(items: &mut Vec<Item>, told: Lsn) {
    let is_one = |item: &Item| match item {
        Item::Batch(batch) => {
            batch.header.kind == BatchKind::Watermark && batch.header.end() > told
        }
        Item::Hole(_) => false,
    };
    while items.last().is_some_and(is_one) {
        items.pop();
    }
}

fn sealed_piece(
    files: &mut ShardFiles,
    segment: SegmentId,
    sealed: &Sealed,
    meter: &mut Meter<'_>,
) -> Result<Piece, OpenError> {
    let (base, end) = (sealed.base_lsn, sealed.end_lsn);
    let Ok(mut file) = files.segment(segment)? else {
        let mut piece = Piece::lost(segment, base, end);
        if let Some(Item::Hole(hole)) = piece.items.last_mut() {
            hole.resume = Some(sealed.chain_end);
        }
        return Ok(piece);
    };
    let whole_file = file.check_header()?.is_none();
    let (chain, chain_end) = (Some(sealed.chain_before), Some(sealed.chain_end));
    let stretch = Stretch { base, end, chain, chain_end };
    let items = file.walk(&stretch, None, meter)?;
    let footer = file.footer(SEGMENT_HEADER_BYTES + (end.0 - base.0));
    file.close()?;
    let footer = footer.ok().filter(|footer| {
        let identity = files.identity;
        (footer.log, footer.shard, footer.segment) == (identity.log, identity.shard, segment)
    });
    let footer = footer.map(|footer| footer.sealed);
    Ok(Piece { segment, base, items, whole_file, footer, unproven: false })
}

fn part_files(files: &mut ShardFiles) -> Result<Vec<u64>, OpenError> {
    let numbers =
        list_files(&mut files.disk)?.into_iter().filter_map(|file| match names::kind(&file.name) {
            names::Kind::Catalogue(number) => Some(number),
            _ => None,
        });
    Ok(numbers.collect())
}

/// Puts gaps where whole segments are missing.
struct Filler<'a> {
    room: u64,
    /// Numbers that are listed, but have no content left.
    ids: Vec<SegmentId>,
    next_segment: &'a mut SegmentId,
}

impl Filler<'_> {
    fn join(&mut self, pieces: Vec<Piece>, start: Lsn, end: Lsn) -> Vec<Piece> {
        let mut joined: Vec<Piece> = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let at = joined.last().map_or(start, Piece::end);
            self.fill(&mut joined, at, piece.base, Some(piece.segment));
            joined.push(piece);
        }
        let at = joined.last().map_or(start, Piece::end);
        self.fill(&mut joined, at, end, None);
        joined
    }

    /// Gaps from `from` to `to`: in the last segment as far as it has room, then in segments with
    /// numbers before `before`.
    fn fill(&mut self, joined: &mut Vec<Piece>, mut from: Lsn, to: Lsn, before: Option<SegmentId>) {
        if from < to
            && let Some(last) = joined.last_mut()
        {
            let until = Lsn(last.base.0 + self.room).min(to);
            if from < until {
                last.items.push(Item::Hole(Hole::whole(from, until)));
                from = until;
            }
        }
        while from < to {
            let last = joined.last().map_or(SegmentId(0), |last| last.segment);
            let fits = |id: &SegmentId| *id > last && before.is_none_or(|before| *id < before);
            let id = match self.ids.iter().copied().find(fits) {
                Some(id) => id,
                None => match before {
                    // The numbers between two segments were given once.
                    Some(before) if before.0 > last.0 + 1 => SegmentId(last.0 + 1),
                    Some(_) => return,
                    None => {
                        let id = *self.next_segment;
                        *self.next_segment = SegmentId(id.0 + 1);
                        id
                    }
                },
            };
            let until = Lsn(from.0.saturating_add(self.room)).min(to);
            joined.push(Piece::lost(id, from, until));
            from = until;
        }
    }
}

/// Without a manifest: every segment that has a batch, where the batch says that it lies.
fn by_files(
    files: &mut ShardFiles,
    why: &str,
    epoch: Epoch,
    meter: &mut Meter<'_>,
) -> Result<Survey, OpenError> {
    let room = files.identity.segment_bytes - SEGMENT_HEADER_BYTES - SEGMENT_FOOTER_BYTES;
    let mut notes = vec![format!(
        "shard {}: the manifest was made anew ({why}): what was missing at the end of the log, and \
         what was trimmed but not yet overwritten, cannot be told",
        files.identity.shard
    )];
    let mut epoch = epoch;
    let mut found: Vec<(SegmentId, Lsn, bool)> = Vec::new();
    let mut ids = BTreeSet::new();
    for file in list_files(&mut files.disk)? {
        let names::Kind::Segment(id) = names::kind(&file.name) else { continue };
        ids.insert(id);
        let Ok(mut file) = files.segment(id)? else { continue };
        let whole = file.check_header()?.is_none();
        epoch = epoch.max(file.epoch());
        if let Some(base) = file.find_base(None) {
            found.push((id, base, whole));
        }
        file.close()?;
    }
    // Of two segments for the same part of the log the newer one counts: recovery wrote it.
    let mut bound = Lsn(u64::MAX);
    let mut placed = Vec::new();
    for (id, base, whole) in found.into_iter().rev() {
        if base < bound {
            placed.push((id, base, whole, bound));
            bound = base;
        }
    }
    placed.reverse();
    let mut pieces = Vec::new();
    let mut chain = None;
    for (segment, base, whole_file, bound) in placed {
        let Ok(mut file) = files.segment(segment)? else { continue };
        let end = Lsn(base.0.saturating_add(room)).min(bound);
        let stretch = Stretch { base, end, chain, chain_end: None };
        let mut items = file.walk(&stretch, None, meter)?;
        let footer = strip_footer(&mut file, base, &mut items);
        file.close()?;
        chain = match items.last() {
            Some(Item::Batch(batch)) if batch.header.end() == bound => Some(batch.chain),
            _ => None,
        };
        if !items.is_empty() {
            pieces.push(Piece { segment, base, items, whole_file, footer, unproven: false });
        }
    }
    let told = pieces.iter().flat_map(|piece| &piece.items).map(Item::durable_lsn).max();
    let told = told.unwrap_or_default();
    let mut parts: Vec<&mut Vec<Item>> = pieces.iter_mut().map(|piece| &mut piece.items).collect();
    cut(&mut parts, told);
    pieces.retain(|piece| !piece.items.is_empty());
    for piece in &mut pieces {
        strip_watermarks(&mut piece.items, told);
        piece.unproven = piece.end() > told;
        let epochs = piece.items.iter().filter_map(|item| match item {
            Item::Batch(batch) => Some(batch.header.epoch),
            Item::Hole(_) => None,
        });
        epoch = epochs.fold(epoch, Epoch::max);
    }
    pieces.retain(|piece| !piece.items.is_empty());
    drop_trimmed(&mut pieces, room, &mut notes);
    let kept: Vec<SegmentId> = pieces.iter().map(|piece| piece.segment).collect();
    let dropped = ids.iter().copied().filter(|id| !kept.contains(id)).collect();
    let mut next_segment = SegmentId(ids.last().map_or(1, |last| last.0 + 1));
    let start = pieces.first().map_or(Lsn(0), |piece| piece.base);
    let end = pieces.last().map_or(Lsn(0), Piece::end);
    let mut filler = Filler { room, ids: Vec::new(), next_segment: &mut next_segment };
    let mut pieces = filler.join(pieces, start, end);
    let first = pieces.first().and_then(|piece| piece.items.first());
    let trimmed_chain = first.and_then(Item::previous).unwrap_or(0);
    let (catalogue, part_numbers) = catalogue_by_files(files)?;
    end_with_what_the_catalogue_knows(&mut pieces, &catalogue, start, room, &mut next_segment);
    Ok(Survey {
        pieces,
        dropped,
        epoch,
        generation: 0,
        next_segment,
        trimmed_lsn: start,
        trimmed_chain,
        catalogue,
        catalogued: None,
        part_numbers,
        notes,
    })
}

/// What looks like a hole at the end of a segment may be its footer, and the room behind it.
fn strip_footer(
    file: &mut super::super::file::SegmentFile<'_>,
    base: Lsn,
    items: &mut Vec<Item>,
) -> Option<Sealed> {
    let (end, is_hole) = match items.last()? {
        Item::Hole(hole) => (hole.from, true),
        Item::Batch(batch) => (batch.header.end(), false),
    };
    let footer = file.footer(SEGMENT_HEADER_BYTES + (end.0 - base.0)).ok()?;
    if footer.segment != file.segment || footer.sealed.end_lsn != end {
        return None;
    }
    if is_hole {
        items.pop();
    }
    Some(footer.sealed)
}

/// Files of trimmed segments are kept for a while. Where they do not join the rest, they are
/// neither part of the log nor worth a gap of that size.
fn drop_trimmed(pieces: &mut Vec<Piece>, room: u64, notes: &mut Vec<String>) {
    let apart = |pair: &[Piece]| pair[1].base.0.saturating_sub(pair[0].end().0) > 2 * room;
    if let Some(at) = pieces.windows(2).rposition(apart) {
        let dropped: Vec<String> =
            pieces.drain(..=at).map(|piece| piece.segment.to_string()).collect();
        notes.push(format!(
            "segments {} lie far before the rest of the log: they are taken for trimmed ones, and \
             kept as copies only",
            dropped.join(", ")
        ));
    }
}

fn catalogue_by_files(files: &mut ShardFiles) -> Result<(Catalogue, Vec<u64>), OpenError> {
    let identity = files.identity;
    let mut catalogue = Catalogue::new();
    let numbers = part_files(files)?;
    for number in &numbers {
        let name = names::catalogue(*number);
        let Ok(file) = load_file(&mut files.disk, name, catalogue::PART_BYTES_MAX) else {
            continue;
        };
        if let Ok(entries) = catalogue::decode(&file, identity.log, identity.shard, *number)
            && entries.iter().all(|entry| entry.stream.0 < STREAMS_MAX)
        {
            merge(&mut catalogue, entries);
        }
    }
    Ok((catalogue, numbers))
}

/// Where the catalogue knows of records that are not there, the log ends with a gap that says so.
fn end_with_what_the_catalogue_knows(
    pieces: &mut Vec<Piece>,
    catalogue: &Catalogue,
    start: Lsn,
    room: u64,
    next_segment: &mut SegmentId,
) {
    let mut ledger = Ledger::new(start > Lsn(0));
    for item in pieces.iter().flat_map(|piece| &piece.items) {
        match item {
            Item::Batch(batch) => drop(ledger.batch(batch)),
            Item::Hole(hole) => ledger.hole(hole),
        }
    }
    let mut runs = Vec::new();
    for (stream, known) in catalogue {
        let next = known.next;
        let seen = ledger.streams.get(stream).map(|seen| seen.next);
        let begin = match seen {
            Some(seen) => seen,
            None if start > Lsn(0) => next.0,
            None => 0,
        };
        push_runs(&mut runs, *stream, begin, next);
    }
    if runs.is_empty() {
        return;
    }
    let from = pieces.last().map_or(start, Piece::end);
    let to = Lsn(from.0 + BLOCK_BYTES as u64);
    let hole = Hole { runs, runs_known: true, ..Hole::whole(from, to) };
    match pieces.last_mut() {
        Some(last) if to.0 - last.base.0 <= room => last.items.push(Item::Hole(hole)),
        _ => {
            let mut piece = Piece::lost(*next_segment, from, to);
            piece.items = vec![Item::Hole(hole)];
            pieces.push(piece);
            *next_segment = SegmentId(next_segment.0 + 1);
        }
    }
}

fn push_runs(runs: &mut Vec<Run>, stream: StreamId, mut from: u64, to: Offset) {
    while from < to.0 {
        let count = u32::try_from(to.0 - from).unwrap_or(u32::MAX);
        runs.push(Run { stream, count, base: Offset(from) });
        from += u64::from(count);
    }
}
