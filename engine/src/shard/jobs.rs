//! The jobs in the life of segments, step by step: what each has the disk do, and what is so once
//! it is done. Which job is next, and what comes of a failure, is told in `rotate`.

use ringlog_disk::planted::{Bug, planted};
use ringlog_disk::{Content, FileId, Flush, Op, Slice};

use super::reclaim::Look;
use super::rotate::{Closing, Rotation};
use super::{OpenSegment, Shard, Time};
use crate::format::catalogue::{self, CatalogueEntry};
use crate::format::manifest::{CataloguePart, ManifestSegment, SegmentState};
use crate::format::segment::{SEGMENT_HEADER_BYTES, SegmentFooter, SegmentHeader};
use crate::ids::SegmentId;
use crate::index;
use crate::limits::BLOCK_BYTES;
use crate::names;

/// The step of sealing and of closing that flushes the directory.
const SYNC_NAMES: u8 = 2;
/// The step of sealing that replaces the manifest, ...
const LIST_SEALED: u8 = 3;
/// ... that stores the index, ...
const STORE_SEALED: u8 = 4;
/// ... and that closes the file.
pub(super) const CLOSE_SEALED: u8 = 5;
/// The step of closing that does.
const STORE_CLOSED: u8 = 0;
/// The step of closing that replaces the manifest.
pub(super) const LIST_CLOSED: u8 = 3;

/// A segment that gets no more batches.
pub(super) struct Sealing {
    pub(super) open: OpenSegment,
    pub(super) catalogue: NextPart,
}

/// What the next part of the catalogue holds.
pub(super) struct NextPart {
    pub(super) entries: Vec<CatalogueEntry>,
    /// The entries replace all parts before them.
    pub(super) whole: bool,
    /// How it is listed, once it is on its way.
    pub(super) part: Option<CataloguePart>,
}

impl NextPart {
    /// Lists the part, and gives the numbers of those that it replaces. Doing it twice is not the same
    /// as once.
    fn list(&self, parts: &mut Vec<CataloguePart>) -> Vec<u64> {
        let replaced = match (self.whole, &self.part) {
            (true, Some(_)) => parts.drain(..).map(|part| part.number).collect(),
            _ => Vec::new(),
        };
        parts.extend(self.part);
        replaced
    }
}

pub(super) enum JobKind {
    Prepare {
        segment: SegmentId,
        file: FileId,
        spare: Option<SegmentId>,
    },
    /// Lists what is prepared.
    List,
    Seal {
        sealing: Sealing,
        obsolete: Vec<u64>,
    },
    /// Without an `id`, nobody has asked for it.
    Trim {
        id: Option<u64>,
        segments: Vec<SegmentId>,
    },
    /// Looks which segments can go because all in them was trimmed.
    Look(Look),
    Remove {
        segment: SegmentId,
    },
    RemoveIndex {
        segment: SegmentId,
    },
    Close {
        catalogue: NextPart,
        obsolete: Vec<u64>,
    },
}

pub(super) struct Job {
    pub(super) kind: JobKind,
    pub(super) step: u8,
    pub(super) in_flight: bool,
    /// The disk was full; not before then again.
    pub(super) retry_at: Option<u64>,
}

pub(super) enum Step {
    Do(Box<Op>),
    Skip,
    Finished,
    Later,
}

impl Shard {
    pub(super) fn step(&mut self, job: &mut Job, now: Time) -> Step {
        let op = match (&mut job.kind, job.step) {
            (JobKind::Prepare { segment, file, spare: None }, 0) => Op::Create {
                file: *file,
                name: names::segment(*segment),
                bytes: self.config.segment_bytes,
            },
            (JobKind::Prepare { segment, spare: Some(spare), .. }, 0) => {
                Op::Rename { from: names::segment(*spare), to: names::segment(*segment) }
            }
            (JobKind::Prepare { spare: None, .. }, 1) => return Step::Skip,
            (JobKind::Prepare { segment, file, .. }, 1) => {
                Op::Open { file: *file, name: names::segment(*segment), write: true }
            }
            (JobKind::Prepare { segment, file, .. }, 2) => {
                let header = SegmentHeader {
                    log: self.config.log,
                    shard: self.config.shard,
                    segment: *segment,
                    epoch: self.config.epoch,
                    created_ns: now.wall_ns,
                    segment_bytes: self.config.segment_bytes,
                };
                let Some(mut block) = self.config.meta_blocks.take() else { return Step::Later };
                header.encode(&mut block);
                let data = vec![Slice { block, len: BLOCK_BYTES }];
                let flush = if planted(Bug::SkipHeaderFlush) { Flush::No } else { Flush::File };
                Op::Write { file: *file, offset: 0, data, flush }
            }
            (JobKind::List, 0) if planted(Bug::SkipDirectorySync) => return Step::Skip,
            (JobKind::List, 0) => Op::SyncDir,
            (JobKind::List, 1) => {
                self.list_prepared();
                self.replace_manifest()
            }
            (JobKind::Seal { sealing, .. }, 0) => {
                let OpenSegment { segment, file, so_far, .. } = sealing.open;
                let footer = SegmentFooter {
                    log: self.config.log,
                    shard: self.config.shard,
                    segment,
                    sealed: so_far,
                };
                let Some(mut block) = self.config.meta_blocks.take() else { return Step::Later };
                footer.encode(&mut block);
                let data = vec![Slice { block, len: BLOCK_BYTES }];
                let offset = SEGMENT_HEADER_BYTES + (so_far.end_lsn.0 - so_far.base_lsn.0);
                let flush = if planted(Bug::SkipFooterFlush) { Flush::No } else { Flush::File };
                Op::Write { file, offset, data, flush }
            }
            (JobKind::Seal { sealing: Sealing { catalogue, .. }, .. }, 1)
            | (JobKind::Close { catalogue, .. }, 1) => {
                let NextPart { entries, part, .. } = catalogue;
                if entries.is_empty() || planted(Bug::SkipCatalogue) {
                    return Step::Skip;
                }
                let (log, shard, number) = (self.config.log, self.config.shard, self.next_part());
                let content = catalogue::encode(log, shard, number, entries);
                let (bytes, crc) = (content.len() as u64, crc32fast::hash(&content));
                *part = Some(CataloguePart { number, bytes, crc });
                Op::Replace { name: names::catalogue(number), content }
            }
            (JobKind::Seal { .. } | JobKind::Close { .. }, SYNC_NAMES) => {
                if self.rotation.prepared.is_empty() || planted(Bug::SkipDirectorySync) {
                    return Step::Skip;
                }
                Op::SyncDir
            }
            (JobKind::Seal { sealing, obsolete }, LIST_SEALED) => {
                self.list_sealed(sealing, obsolete);
                self.list_prepared();
                self.replace_manifest()
            }
            (JobKind::Seal { sealing, .. }, STORE_SEALED) => self.store_index(&sealing.open),
            (JobKind::Seal { sealing, .. }, CLOSE_SEALED) => Op::Close { file: sealing.open.file },
            (JobKind::Seal { obsolete, .. }, _) => match obsolete.pop() {
                Some(number) => Op::Remove { name: names::catalogue(number) },
                None => return Step::Finished,
            },
            (JobKind::Trim { id, segments }, 0) if segments.is_empty() => {
                self.rotation.trimmed.extend(id.map(|id| (id, 0)));
                return Step::Finished;
            }
            (JobKind::Trim { segments, .. }, 0) => {
                let last = segments.last().copied();
                let manifest = &mut self.rotation.manifest;
                for entry in &manifest.segments {
                    if let SegmentState::Sealed { sealed, .. } = entry.state
                        && Some(entry.segment) == last
                    {
                        manifest.trimmed_lsn = sealed.end_lsn;
                        if !planted(Bug::ForgetTrimmedChain) {
                            manifest.trimmed_chain = sealed.chain_end;
                        }
                    }
                }
                manifest.segments.retain(|entry| last.is_none_or(|last| entry.segment > last));
                self.replace_manifest()
            }
            (JobKind::Look(look), _) => match self.look_op(look) {
                Some(op) => op,
                None if look.gone.is_empty() => return Step::Finished,
                None => {
                    let segments = std::mem::take(&mut look.gone);
                    job.kind = JobKind::Trim { id: None, segments };
                    job.step = 0;
                    return self.step(job, now);
                }
            },
            (JobKind::Remove { segment }, 0) => Op::Remove { name: names::segment(*segment) },
            (JobKind::RemoveIndex { segment }, 0) => Op::Remove { name: names::index(*segment) },
            (JobKind::Close { .. }, STORE_CLOSED) => match &self.rotation.open {
                Some(open) if open.so_far.base_lsn < open.so_far.end_lsn => self.store_index(open),
                _ => return Step::Skip,
            },
            (JobKind::Close { catalogue, obsolete }, LIST_CLOSED) => {
                self.list_closed(catalogue, obsolete);
                self.list_prepared();
                self.replace_manifest()
            }
            (JobKind::Close { obsolete, .. }, _) => match obsolete.pop() {
                Some(number) => Op::Remove { name: names::catalogue(number) },
                None => return Step::Finished,
            },
            _ => return Step::Finished,
        };
        Step::Do(Box::new(op))
    }

    /// Stores where the records lie in a segment, as far as it goes. The making is left to whoever
    /// carries it out.
    fn store_index(&self, open: &OpenSegment) -> Op {
        let (log, shard) = (self.config.log, self.config.shard);
        let (segment, so_far, snapshot) = (open.segment, open.so_far, open.postings.snapshot());
        let content = Content::made_by(move || {
            // Empty where it cannot be written down: no index, and none is believed.
            index::encode(log, shard, segment, &so_far, &snapshot).unwrap_or_default()
        });
        Op::Store { name: names::index(segment), content }
    }

    fn next_part(&self) -> u64 {
        self.rotation.manifest.catalogue.last().map_or(1, |part| part.number + 1)
    }

    /// The manifest with what is known now. Replacing it is the commit point of every job.
    fn replace_manifest(&mut self) -> Op {
        let manifest = &mut self.rotation.manifest;
        manifest.generation += u64::from(!planted(Bug::KeepGeneration));
        manifest.proven_lsn = if planted(Bug::ProveTooMuch) { self.written } else { self.durable };
        Op::Replace { name: names::manifest(), content: manifest.encode() }
    }

    /// Lists what is prepared, whose names are flushed. Doing it twice is the same as once.
    fn list_prepared(&mut self) {
        let list = &mut self.rotation.manifest.segments;
        for (segment, _) in &self.rotation.prepared {
            if list.last().is_none_or(|last| last.segment < *segment) {
                list.push(ManifestSegment { segment: *segment, state: SegmentState::Unsealed });
            }
        }
    }

    /// Marks a segment as sealed, and its part of the catalogue as listed. Doing it twice is the
    /// same as once.
    fn list_sealed(&mut self, sealing: &Sealing, obsolete: &mut Vec<u64>) {
        let so_far = sealing.open.so_far;
        let manifest = &mut self.rotation.manifest;
        let state = SegmentState::Sealed { sealed: so_far, footer: true };
        let Some(entry) =
            manifest.segments.iter_mut().find(|entry| entry.segment == sealing.open.segment)
        else {
            return;
        };
        if entry.state == state {
            return;
        }
        entry.state = state;
        manifest.catalogued_lsn = so_far.end_lsn;
        obsolete.extend(sealing.catalogue.list(&mut manifest.catalogue));
    }

    /// Lists the open segment with what it holds, and the last part of the catalogue. Doing it
    /// twice is the same as once.
    fn list_closed(&mut self, catalogue: &NextPart, obsolete: &mut Vec<u64>) {
        if self.rotation.manifest.clean {
            return;
        }
        let Rotation { manifest, open, .. } = &mut self.rotation;
        manifest.clean = true;
        manifest.catalogued_lsn = self.durable;
        obsolete.extend(catalogue.list(&mut manifest.catalogue));
        let Some(open) = open.as_ref().filter(|open| open.so_far.base_lsn < open.so_far.end_lsn)
        else {
            return;
        };
        for entry in &mut manifest.segments {
            if entry.segment == open.segment {
                entry.state = SegmentState::Closed { so_far: open.so_far };
            }
        }
    }

    pub(super) fn step_done(&mut self, mut job: Job) {
        match (&mut job.kind, job.step) {
            (JobKind::Prepare { segment, file, spare }, 2) => {
                match planted(Bug::OpenUnlisted) {
                    true => self.rotation.ready.push_back((*segment, *file)),
                    false => self.rotation.prepared.push((*segment, *file)),
                }
                self.rotation.files.push((*segment, *file));
                self.counts.recycled += u64::from(spare.is_some());
                return;
            }
            (JobKind::List, 1) => {
                let Rotation { ready, prepared, .. } = &mut self.rotation;
                ready.extend(prepared.drain(..));
                return;
            }
            (JobKind::Seal { sealing, .. }, LIST_SEALED) => {
                let Rotation { ready, prepared, .. } = &mut self.rotation;
                ready.extend(prepared.drain(..));
                let OpenSegment { segment, so_far, .. } = sealing.open;
                self.rotation.sealed_to = so_far.end_lsn;
                let known = self.segments.iter().rev().find(|known| known.segment == segment);
                if let Some(known) = known {
                    let _ = known.sealed.set(so_far); // it is sealed once
                }
                self.keeper.segments_changed();
                self.reclaimer.note();
            }
            (JobKind::Seal { sealing, .. }, STORE_SEALED) => sealing.open.postings.clear(),
            (JobKind::Seal { sealing, .. }, CLOSE_SEALED) => {
                let segment = sealing.open.segment;
                self.rotation.files.retain(|(id, _)| *id != segment);
            }
            (JobKind::Trim { id, segments }, 0) => {
                self.counts.trimmed += segments.len() as u64;
                self.rotation.trimmed.extend(id.map(|id| (id, segments.len() as u64)));
                let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.segments)
                    .into_iter()
                    .partition(|segment| segments.contains(&segment.segment));
                self.segments = kept;
                self.segments_changed = true;
                self.rotation.retired.extend(gone);
                return;
            }
            (JobKind::Close { obsolete, .. }, LIST_CLOSED..) if obsolete.is_empty() => {
                self.rotation.closing = Closing::Done;
                return;
            }
            _ => {}
        }
        job.step += 1;
        self.rotation.job = Some(job);
    }
}

impl Job {
    /// Whether a full disk stops this operation without anything being lost: only names are, not
    /// the writing of a header or footer; nor a flush of the directory, which after a failure may
    /// say that all is well and have flushed nothing.
    pub(super) fn may_wait_for_room(&self) -> bool {
        match &self.kind {
            JobKind::Prepare { .. } => self.step != 2,
            JobKind::List => self.step != 0,
            JobKind::Seal { .. } => self.step != 0 && self.step != SYNC_NAMES,
            JobKind::Close { .. } => self.step != SYNC_NAMES,
            JobKind::Trim { .. } | JobKind::Look(_) => true,
            JobKind::Remove { .. } | JobKind::RemoveIndex { .. } => true,
        }
    }

    pub(super) fn stores_index(&self) -> bool {
        match &self.kind {
            JobKind::Seal { .. } => self.step == STORE_SEALED,
            JobKind::Close { .. } => self.step == STORE_CLOSED,
            _ => false,
        }
    }
}
