//! Going on with a log: the epoch is raised, what was not proven durable is written again.
//!
//! What lies behind the proven end may sit in the device's cache only, or may have failed to reach
//! it. So before it is served, and before anything new is acknowledged, it is written into fresh
//! segments under the new epoch, flushed, and swapped in by the manifest.

use std::sync::Arc;

use ringlog_disk::planted::{Bug, planted};
use ringlog_disk::{BlockPool, Disk, DiskError, DiskErrorKind, Done, FileId, Flush, Op, Slice};

use super::tail::{Part, SCAN_FILE, Tail, Unproven, differs, take_proven};
use super::{Effects, Identity, ask, list_files, read_effects};
use crate::error::OpenError;
use crate::format::batch::{BatchKind, HeaderSeed};
use crate::format::catalogue::{self, CatalogueEntry};
use crate::format::manifest::{CataloguePart, Manifest, ManifestSegment, SegmentState};
use crate::format::segment::{SEGMENT_FOOTER_BYTES, SEGMENT_HEADER_BYTES, Sealed, SegmentHeader};
use crate::ids::{Epoch, Lsn, SegmentId};
use crate::index;
use crate::limits::{BATCH_BYTES_MAX, BLOCK_BYTES};
use crate::names;
use crate::shard::{OpenSegment, SegmentRef, Start, Streams};
use crate::window::{Window, pool_for};

/// Listed segments without content that are kept ready, at most; more become spares.
const READY_MAX: usize = 4;

/// Makes the shard ready to be written. `now_ns`: nanoseconds since 1970.
/// Also gives how many records were written again.
///
/// # Errors
/// Of the disk. Calling it again after opening again goes on where it stopped.
pub(crate) fn resume(
    disk: &mut dyn Disk,
    identity: &Identity,
    manifest: Manifest,
    tail: Tail,
    now_ns: u64,
) -> Result<(Start, u64), OpenError> {
    let epoch = Epoch(manifest.epoch.0 + u64::from(!planted(Bug::SkipEpochBump)));
    let mut resume = Resume { disk, identity: *identity, manifest, epoch, now_ns };
    resume.run(tail)
}

struct Resume<'a> {
    disk: &'a mut dyn Disk,
    identity: Identity,
    manifest: Manifest,
    epoch: Epoch,
    now_ns: u64,
}

impl Resume<'_> {
    fn run(&mut self, mut tail: Tail) -> Result<(Start, u64), OpenError> {
        while planted(Bug::ServeUnprovenTail)
            && let Some(batch) = tail.unproven.pop_front()
        {
            take_proven(&mut tail, batch);
        }
        let mut entries: Vec<CatalogueEntry> = tail.catalogue.drain(..).flatten().collect();
        let mut parts = std::mem::take(&mut tail.proven_parts);
        let mut rewritten = 0;
        let proven = tail.proven;
        let mut chain = tail.proven_chain;
        if !tail.unproven.is_empty() {
            // The first write of a life comes after its epoch is durable. What is there already
            // stays valid: this life begins to write behind it.
            if !planted(Bug::RewriteBeforeEpoch) {
                self.raise_epoch(tail.end, proven)?;
            }
            entries.extend(tail.streams.take_changes());
            let fresh = self.rewrite(&mut tail, &parts, chain, &mut entries, &mut rewritten)?;
            chain = fresh.last().map_or(chain, |part| part.so_far.chain_end);
            parts.extend(fresh);
        }
        let end = parts.last().map_or(proven, |part| part.so_far.end_lsn);
        self.swap_in(&parts, &entries, proven, end)?;
        self.store_indexes(&parts);
        let open = match parts.last() {
            Some(part) => Some(self.open_for_writing(part)?),
            None => None,
        };
        let start = Start {
            prepared: self.open_prepared(open.as_ref().map(|open| open.segment))?,
            spares: self.clean_up()?,
            segments: segment_refs(
                &self.manifest,
                parts.get(parts.len().saturating_sub(1)..).unwrap_or(&[]),
            ),
            manifest: self.manifest.clone(),
            open,
            next_lsn: end,
            chain,
            streams: tail.streams,
            last_ns: tail.last_ns,
        };
        Ok((start, rewritten))
    }

    fn replace_manifest(&mut self) -> Result<(), DiskError> {
        self.manifest.generation += 1;
        let content = self.manifest.encode();
        ask(self.disk, Op::Replace { name: names::manifest(), content }).map(drop)
    }

    fn raise_epoch(&mut self, life_lsn: Lsn, proven: Lsn) -> Result<(), DiskError> {
        self.manifest.epoch = self.epoch;
        self.manifest.life_lsn = life_lsn;
        self.manifest.proven_lsn = proven;
        self.manifest.clean = false;
        self.replace_manifest()
    }

    /// The manifest with which the new life begins: all of `parts` but the last are sealed.
    fn swap_in(
        &mut self,
        parts: &[Part],
        entries: &[CatalogueEntry],
        life_lsn: Lsn,
        proven: Lsn,
    ) -> Result<(), OpenError> {
        let used: Vec<SegmentId> = parts.iter().map(|part| part.segment).collect();
        let mut list = std::mem::take(&mut self.manifest.segments);
        let mut unsealed = Vec::new();
        for entry in list.iter().filter(|entry| entry.state == SegmentState::Unsealed) {
            let is_behind = used.last().is_none_or(|last| entry.segment > *last);
            if is_behind && unsealed.len() < READY_MAX && self.is_ready(entry.segment)? {
                unsealed.push(entry.segment);
            }
        }
        list.retain(|entry| matches!(entry.state, SegmentState::Sealed { .. }));
        let last = parts.len().saturating_sub(1);
        for (at, part) in parts.iter().enumerate() {
            let state = match at == last {
                true => SegmentState::Unsealed,
                false => SegmentState::Sealed { sealed: part.so_far, footer: false },
            };
            list.push(ManifestSegment { segment: part.segment, state });
        }
        let ready = |segment| ManifestSegment { segment, state: SegmentState::Unsealed };
        list.extend(unsealed.into_iter().map(ready));
        self.manifest.segments = list;
        if parts.len() > 1 {
            self.manifest.catalogued_lsn = parts[last].so_far.base_lsn;
            self.write_part(entries)?;
        }
        self.manifest.epoch = self.epoch;
        if !planted(Bug::ForgetFirstLsn) {
            self.manifest.life_lsn = life_lsn;
        }
        self.manifest.proven_lsn = proven;
        self.manifest.clean &= planted(Bug::StayClean);
        self.replace_manifest()?;
        Ok(())
    }

    /// Stores the indexes of what is sealed now. Where that fails, readers make do without.
    fn store_indexes(&mut self, parts: &[Part]) {
        let Some((_, sealed)) = parts.split_last() else { return };
        let Identity { log, shard, .. } = self.identity;
        for Part { segment, so_far, postings } in sealed {
            let index = index::encode(log, shard, *segment, so_far, &postings.snapshot());
            let name = names::index(*segment);
            if let Some(index) = index {
                let _ = ask(self.disk, Op::Store { name, content: index.into() });
            }
        }
    }

    /// Whether an empty listed segment can be written as it is. Where it cannot, nothing is lost by
    /// leaving it out.
    fn is_ready(&mut self, segment: SegmentId) -> Result<bool, OpenError> {
        let identity = self.identity;
        let open = Op::Open { file: SCAN_FILE, name: names::segment(segment), write: false };
        let bytes = match ask(self.disk, open) {
            Ok(Done::Opened { bytes }) => bytes,
            Ok(_) => 0,
            Err(error)
                if matches!(error.kind, DiskErrorKind::NotFound | DiskErrorKind::Unexpected) =>
            {
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        let mut window = Window::new(BlockPool::ordinary(1, BLOCK_BYTES)?, SCAN_FILE, bytes);
        let header = match window.peek(self.disk, 0, BLOCK_BYTES) {
            Ok(block) => SegmentHeader::decode(block).ok(),
            Err(_) => None,
        };
        window.drop_all(self.disk);
        ask(self.disk, Op::Close { file: SCAN_FILE })?;
        Ok(bytes == identity.segment_bytes
            && header.is_some_and(|header| {
                header.log == identity.log
                    && header.shard == identity.shard
                    && header.segment == segment
                    && header.segment_bytes == bytes
            }))
    }

    fn write_part(&mut self, entries: &[CatalogueEntry]) -> Result<(), DiskError> {
        if entries.is_empty() {
            return Ok(());
        }
        let number = self.manifest.catalogue.last().map_or(1, |part| part.number + 1);
        let content = catalogue::encode(self.identity.log, self.identity.shard, number, entries);
        let (bytes, crc) = (content.len() as u64, crc32fast::hash(&content));
        ask(self.disk, Op::Replace { name: names::catalogue(number), content })?;
        self.manifest.catalogue.push(CataloguePart { number, bytes, crc });
        Ok(())
    }

    /// Writes what is not proven into fresh segments, and flushes them. They are not listed yet.
    fn rewrite(
        &mut self,
        tail: &mut Tail,
        proven_parts: &[Part],
        mut chain: u32,
        entries: &mut Vec<CatalogueEntry>,
        rewritten: &mut u64,
    ) -> Result<Vec<Part>, OpenError> {
        let in_use: Vec<SegmentId> = proven_parts
            .iter()
            .map(|part| part.segment)
            .chain(tail.unproven.iter().map(|batch| batch.segment))
            .collect();
        let newest = in_use.iter().max().copied();
        let mut prepared: Vec<SegmentId> = self
            .manifest
            .segments
            .iter()
            .filter(|entry| entry.state == SegmentState::Unsealed)
            .map(|entry| entry.segment)
            .filter(|segment| newest.is_none_or(|newest| *segment > newest))
            .rev()
            .collect();
        let capacity = self.identity.segment_bytes - SEGMENT_HEADER_BYTES - SEGMENT_FOOTER_BYTES;
        let pool = BlockPool::new(1, BATCH_BYTES_MAX.min(capacity as usize))?;
        let mut fresh: Vec<Part> = Vec::new();
        let mut source: Option<(SegmentId, Window)> = None;
        let target = FileId(0);
        while let Some(batch) = tail.unproven.pop_front() {
            let Unproven { segment, file_offset, mut header, effects, .. } = batch;
            let stored = u64::from(header.stored_bytes);
            let fits = fresh.last().is_some_and(|part: &Part| {
                part.so_far.end_lsn.0 - part.so_far.base_lsn.0 + stored <= capacity
            });
            if !fits {
                self.close_source(&mut source)?;
                if !fresh.is_empty() {
                    self.finish_fresh(target)?;
                    entries.extend(tail.streams.take_changes());
                }
                let id = self.begin_fresh(target, &mut prepared)?;
                fresh.push(new_part(id, header.lsn, chain));
            }
            let mut block = pool.take().ok_or_else(out_of_blocks)?;
            self.read_batch(&mut source, segment, file_offset, &mut block[..stored as usize])?;
            self.pause_source(&mut source);
            // It was whole when it was read the first time; what is written again is the only copy.
            if read_effects(&header, &block[..stored as usize], &self.identity).is_err() {
                return Err(differs(segment, file_offset));
            }
            let Some(part) = fresh.last_mut() else { continue };
            header.epoch = self.epoch;
            header.durable_lsn = tail.proven;
            header.previous = chain;
            let seed = HeaderSeed::new(self.identity.log, self.identity.shard, part.segment);
            chain = header.encode(seed, &mut block);
            let offset = SEGMENT_HEADER_BYTES + (header.lsn.0 - part.so_far.base_lsn.0);
            let data = vec![Slice { block, len: stored as usize }];
            let write = Op::Write { file: target, offset, data, flush: Flush::No };
            ask(self.disk, write)?;
            if header.kind == BatchKind::Records {
                *rewritten += effects.records;
            }
            note_batch(part, &header, chain, effects, &mut tail.streams);
        }
        self.close_source(&mut source)?;
        self.finish_fresh(target)?;
        if !planted(Bug::SkipDirectorySyncOfRewritten) {
            ask(self.disk, Op::SyncDir)?;
        }
        Ok(fresh)
    }

    fn begin_fresh(
        &mut self,
        file: FileId,
        prepared: &mut Vec<SegmentId>,
    ) -> Result<SegmentId, OpenError> {
        if let Some(segment) = prepared.pop() {
            ask(self.disk, Op::Open { file, name: names::segment(segment), write: true })?;
            return Ok(segment);
        }
        let bytes = self.identity.segment_bytes;
        // A crash may have left files of numbers that no manifest has seen.
        let segment = loop {
            let segment = self.manifest.next_segment;
            self.manifest.next_segment = SegmentId(segment.0 + 1);
            let name = names::segment(segment);
            match ask(self.disk, Op::Create { file, name, bytes }) {
                Ok(_) => break segment,
                Err(error) if error.kind == DiskErrorKind::Exists => {}
                Err(error) => return Err(error.into()),
            }
        };
        let pool = BlockPool::new(1, BLOCK_BYTES)?;
        let mut block = pool.take().ok_or_else(out_of_blocks)?;
        let header = SegmentHeader {
            log: self.identity.log,
            shard: self.identity.shard,
            segment,
            epoch: self.epoch,
            created_ns: self.now_ns,
            segment_bytes: bytes,
        };
        header.encode(&mut block);
        let data = vec![Slice { block, len: BLOCK_BYTES }];
        ask(self.disk, Op::Write { file, offset: 0, data, flush: Flush::No })?;
        Ok(segment)
    }

    fn finish_fresh(&mut self, file: FileId) -> Result<(), DiskError> {
        if !planted(Bug::SkipFlushOfRewritten) {
            ask(self.disk, Op::Sync { file })?;
        }
        ask(self.disk, Op::Close { file }).map(drop)
    }

    fn read_batch(
        &mut self,
        source: &mut Option<(SegmentId, Window)>,
        segment: SegmentId,
        offset: u64,
        out: &mut [u8],
    ) -> Result<(), OpenError> {
        if source.as_ref().is_none_or(|(open, _)| *open != segment) {
            self.close_source(source)?;
            let open = Op::Open { file: SCAN_FILE, name: names::segment(segment), write: false };
            let bytes = match ask(self.disk, open)? {
                Done::Opened { bytes } => bytes,
                _ => 0,
            };
            let pool = pool_for(self.identity.segment_bytes)?;
            *source = Some((segment, Window::new(pool, SCAN_FILE, bytes)));
        }
        let Some((_, window)) = source else { return Ok(()) };
        let bytes = window.get(self.disk, offset, out.len())?;
        if bytes.len() != out.len() {
            return Err(DiskError::new(DiskErrorKind::Io, "read a batch a second time").into());
        }
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn pause_source(&mut self, source: &mut Option<(SegmentId, Window)>) {
        if let Some((_, window)) = source {
            window.settle(self.disk);
        }
    }

    fn close_source(&mut self, source: &mut Option<(SegmentId, Window)>) -> Result<(), DiskError> {
        if let Some((_, mut window)) = source.take() {
            window.drop_all(self.disk);
            ask(self.disk, Op::Close { file: SCAN_FILE })?;
        }
        Ok(())
    }

    fn open_for_writing(&mut self, part: &Part) -> Result<OpenSegment, DiskError> {
        let file = FileId(0);
        ask(self.disk, Op::Open { file, name: names::segment(part.segment), write: true })?;
        let postings = Arc::clone(&part.postings);
        Ok(OpenSegment { segment: part.segment, file, postings, so_far: part.so_far })
    }

    fn open_prepared(
        &mut self,
        open: Option<SegmentId>,
    ) -> Result<Vec<(SegmentId, FileId)>, DiskError> {
        let ready: Vec<SegmentId> = self
            .manifest
            .segments
            .iter()
            .filter(|entry| entry.state == SegmentState::Unsealed && Some(entry.segment) != open)
            .map(|entry| entry.segment)
            .collect();
        let mut opened = Vec::with_capacity(ready.len());
        for (at, segment) in ready.into_iter().enumerate() {
            let file = FileId(at as u32 + 1);
            ask(self.disk, Op::Open { file, name: names::segment(segment), write: true })?;
            opened.push((segment, file));
        }
        Ok(opened)
    }

    /// Removes what no manifest lists; whole segment files are kept as spares.
    fn clean_up(&mut self) -> Result<Vec<SegmentId>, DiskError> {
        let mut spares = Vec::new();
        let segments = &self.manifest.segments;
        let is_listed = |segment: SegmentId| {
            segments.binary_search_by_key(&segment, |entry| entry.segment).is_ok()
        };
        for file in list_files(self.disk)? {
            let keep = match names::kind(&file.name) {
                names::Kind::Manifest => true,
                names::Kind::Segment(segment) => {
                    let listed = is_listed(segment);
                    let spare = !listed
                        && file.bytes == self.identity.segment_bytes
                        && segment < self.manifest.next_segment
                        && spares.len() < READY_MAX;
                    if spare {
                        spares.push(segment);
                    }
                    listed || spare
                }
                names::Kind::Catalogue(number) => {
                    self.manifest.catalogue.iter().any(|part| part.number == number)
                }
                names::Kind::Index(segment) => is_listed(segment),
                names::Kind::Other => !file.name.as_str().ends_with(".tmp"),
            };
            if !keep {
                // What cannot be removed only takes room.
                let _ = ask(self.disk, Op::Remove { name: file.name });
            }
        }
        Ok(spares)
    }
}

/// The segments that hold batches, as readers know them: the sealed ones, and `open` ones.
pub(crate) fn segment_refs(manifest: &Manifest, open: &[Part]) -> Vec<Arc<SegmentRef>> {
    let sealed = manifest.segments.iter().filter_map(|entry| match entry.state {
        SegmentState::Sealed { sealed, .. } => {
            let (base, chain) = (sealed.base_lsn, sealed.chain_before);
            let known = SegmentRef::new(entry.segment, base, chain, Arc::default());
            let _ = known.sealed.set(sealed); // it is new: nothing was set before
            Some(known)
        }
        SegmentState::Unsealed | SegmentState::Closed { .. } => None,
    });
    let open = open.iter().map(|part| {
        let (base, chain) = (part.so_far.base_lsn, part.so_far.chain_before);
        SegmentRef::new(part.segment, base, chain, Arc::clone(&part.postings))
    });
    sealed.chain(open).map(Arc::new).collect()
}

fn out_of_blocks() -> OpenError {
    OpenError::Disk(DiskError::new(DiskErrorKind::Limit, "take a block"))
}

fn new_part(segment: SegmentId, lsn: Lsn, chain: u32) -> Part {
    let so_far = Sealed {
        base_lsn: lsn,
        end_lsn: lsn,
        chain_before: chain,
        chain_end: chain,
        records: 0,
        first_ns: 0,
        last_ns: 0,
    };
    Part { segment, so_far, postings: Arc::default() }
}

fn note_batch(
    part: &mut Part,
    header: &crate::format::batch::BatchHeader,
    chain: u32,
    effects: Effects,
    streams: &mut Streams,
) {
    part.add(header, chain, &effects);
    effects.apply(streams);
}
