//! The life of segments: prepared, open, sealing, sealed, trimmed, recycled.
//!
//! ```text
//!   (new file | spare) --header, flush--> prepared --names, manifest--> ready --first batch--> open
//!   open --full or asked--> sealing --data flushed, footer, flush, catalogue, manifest--> sealed
//!   sealed --index stored--> indexed
//!   sealed --trim: manifest--> retired --no reader left--> spare, or removed; index removed
//!   open --close: index stored, catalogue, manifest--> closed (the next life goes on in it)
//! ```
//!
//! Everything here happens beside the way of a record. One job runs at a time, one operation of
//! it is in flight at a time. Commit points: a segment exists once the manifest that lists it is
//! durable, is sealed once the manifest says so, and is gone once a manifest without it is durable.
//! Opening the next segment needs no operation at all. Prepared segments are listed by the next
//! manifest that seals one, so that a rotation replaces it once; only when none is ready do they get
//! a manifest of their own. What is prepared and not listed when the log is closed is a spare of the
//! next life.
//!
//! The index of a segment is derived: that it cannot be stored is counted, and harms nothing. A
//! reader sees a segment as sealed before its postings are dropped, and these only once its index
//! is stored, or could not be.

use std::collections::VecDeque;
use std::sync::Arc;

use ringlog_disk::{Content, DiskError, DiskErrorKind, Done, FileId, Flush, Op, Slice, Tag};

use super::reclaim::Look;
use super::retention::{self, Reason, Wanted};
use super::{Flight, OpenSegment, SegmentRef, Shard, ShardConfig, Time};
use crate::format::catalogue::{self, CatalogueEntry};
use crate::format::manifest::{CataloguePart, Manifest, ManifestSegment, SegmentState};
use crate::format::segment::{
    SEGMENT_FOOTER_BYTES, SEGMENT_HEADER_BYTES, Sealed, SegmentFooter, SegmentHeader,
};
use crate::ids::{Lsn, SegmentId};
use crate::index::{self, Postings};
use crate::limits::{BLOCK_BYTES, SEALING_MAX};
use crate::names;

/// How long after a full disk was met it is tried again.
const RETRY_AFTER_NS: u64 = 200_000_000;
/// Segments that are prepared ahead hold about this much.
const AHEAD_BYTES: u64 = 8 << 20;
/// Parts of the catalogue before they are merged, at least.
const CATALOGUE_PARTS: usize = 8;

/// A segment that gets no more batches.
struct Sealing {
    open: OpenSegment,
    entries: Vec<CatalogueEntry>,
    /// The entries replace all parts before them.
    whole: bool,
    /// How they are listed, once they are on their way.
    part: Option<CataloguePart>,
}

enum JobKind {
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
        entries: Vec<CatalogueEntry>,
        part: Option<CataloguePart>,
    },
}

struct Job {
    kind: JobKind,
    step: u8,
    in_flight: bool,
    /// The disk was full; not before then again.
    retry_at: Option<u64>,
}

enum Step {
    Do(Box<Op>),
    Skip,
    Finished,
    Later,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Closing {
    No,
    Wanted,
    Done,
}

/// See the module's text.
pub(super) struct Rotation {
    pub(super) manifest: Manifest,
    pub(super) open: Option<OpenSegment>,
    ready: VecDeque<(SegmentId, FileId)>,
    /// Prepared, and in no manifest yet.
    prepared: Vec<(SegmentId, FileId)>,
    sealing: VecDeque<Sealing>,
    /// Sealed, with the footer on its way; its file is still open.
    sealed_to: Lsn,
    spares: Vec<SegmentId>,
    retired: Vec<Arc<SegmentRef>>,
    /// Segments that are gone, whose index may still be there.
    stale_indexes: Vec<SegmentId>,
    files: Vec<(SegmentId, FileId)>,
    job: Option<Job>,
    disk_full: bool,
    /// There was no room for another segment; not before then again.
    prepare_at: Option<u64>,
    trims: Vec<(u64, Wanted)>,
    trimmed: Vec<(u64, u64)>,
    closing: Closing,
}

impl Rotation {
    pub(super) fn new(
        manifest: Manifest,
        open: Option<OpenSegment>,
        ready: Vec<(SegmentId, FileId)>,
        spares: Vec<SegmentId>,
    ) -> Self {
        let open_file = open.iter().map(|open| (open.segment, open.file));
        let files = open_file.chain(ready.iter().copied()).collect();
        Self {
            sealed_to: manifest.sealed_end().0,
            manifest,
            open,
            ready: ready.into(),
            prepared: Vec::new(),
            sealing: VecDeque::new(),
            spares,
            retired: Vec::new(),
            stale_indexes: Vec::new(),
            files,
            job: None,
            disk_full: false,
            prepare_at: None,
            trims: Vec::new(),
            trimmed: Vec::new(),
            closing: Closing::No,
        }
    }

    /// Bytes of batches that still fit the open segment.
    pub(super) fn room(&self, config: &ShardConfig) -> u64 {
        let Some(open) = &self.open else { return 0 };
        let used = open.so_far.end_lsn.0 - open.so_far.base_lsn.0;
        let capacity = config.segment_bytes - SEGMENT_HEADER_BYTES - SEGMENT_FOOTER_BYTES;
        capacity.saturating_sub(used)
    }

    pub(super) fn has_next(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn retry_at_ns(&self) -> Option<u64> {
        self.job.as_ref().and_then(|job| job.retry_at).or(self.prepare_at)
    }

    pub(super) fn sealing_len(&self) -> usize {
        let at_work = matches!(&self.job, Some(Job { kind: JobKind::Seal { .. }, .. }));
        self.sealing.len() + usize::from(at_work)
    }

    pub(super) fn file_of(&self, segment: SegmentId) -> Option<FileId> {
        self.files.iter().find(|(id, _)| *id == segment).map(|(_, file)| *file)
    }

    pub(super) fn want_trim(&mut self, id: u64, wanted: Wanted) {
        self.trims.push((id, wanted));
    }

    pub(super) fn take_trimmed(&mut self, id: u64) -> Option<super::Reply> {
        let at = self.trimmed.iter().position(|(trimmed, _)| *trimmed == id)?;
        let (_, segments) = self.trimmed.swap_remove(at);
        Some(super::Reply::Trimmed { segments })
    }

    pub(super) fn want_close(&mut self) {
        self.closing = Closing::Wanted;
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing != Closing::No
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closing == Closing::Done
    }

    /// Whether the open segment has no successor because the disk is full: none could be prepared,
    /// or too many segments cannot be sealed.
    pub(super) fn cannot_go_on(&self) -> bool {
        let unsealed = self.is_blocked() && self.sealing_len() >= SEALING_MAX;
        let unlisted = self.prepared.is_empty() || self.is_blocked();
        self.disk_full && (self.ready.is_empty() && unlisted || unsealed)
    }

    /// Whether a job waits for room on the disk.
    pub(super) fn is_blocked(&self) -> bool {
        self.job.as_ref().is_some_and(|job| job.retry_at.is_some())
    }

    pub(super) fn is_sealed_to(&self, lsn: Lsn) -> bool {
        self.sealed_to >= lsn
    }

    fn free_file(&self) -> Option<FileId> {
        (0..FileId::LIMIT).map(FileId).find(|file| self.files.iter().all(|(_, used)| used != file))
    }

    /// Whether nothing keeps the next job from being begun.
    pub(super) fn may_begin_job(&self) -> bool {
        self.job.is_none() && self.closing == Closing::No
    }

    /// How many segments are to be ready.
    pub(super) fn ahead(&self, config: &ShardConfig) -> usize {
        let ahead = (AHEAD_BYTES / config.segment_bytes).clamp(1, 4) as usize;
        ahead.min(retention::ahead_max(config))
    }

    /// A large segment is prepared only once the open one is in use, so that a small log stays
    /// small.
    fn wants_segment(&self, config: &ShardConfig, waited_for: bool) -> bool {
        let count = self.ready.len() + self.prepared.len();
        if self.closing != Closing::No {
            return waited_for && count == 0;
        }
        let begun = self.open.as_ref().is_some_and(|_| {
            config.segment_bytes <= AHEAD_BYTES
                || self.room(config) < config.segment_bytes - config.segment_bytes / 16
        });
        let wanted = match &self.open {
            Some(_) if !begun => 0,
            Some(_) => self.ahead(config),
            None => 1,
        };
        count < wanted || (waited_for && count == 0)
    }
}

impl Shard {
    /// Takes the next prepared segment. Needs no operation: it is listed and flushed already.
    pub(super) fn open_next_segment(&mut self) -> bool {
        let Some((segment, file)) = self.rotation.ready.pop_front() else { return false };
        let postings = Arc::new(Postings::default());
        self.rotation.open = Some(OpenSegment {
            segment,
            file,
            postings: Arc::clone(&postings),
            so_far: Sealed {
                base_lsn: self.staged,
                end_lsn: self.staged,
                chain_before: self.chain,
                chain_end: self.chain,
                records: 0,
                first_ns: 0,
                last_ns: 0,
            },
        });
        let segment = SegmentRef::new(segment, self.staged, self.chain, postings);
        self.segments.push(Arc::new(segment));
        self.segments_changed = true;
        self.counts.rotations += 1;
        true
    }

    /// No more batches go into the open segment. An empty one stays open.
    pub(super) fn seal_open_segment(&mut self, reason: Reason) {
        let Some(open) = self.rotation.open.take() else { return };
        if open.so_far.end_lsn == open.so_far.base_lsn {
            self.rotation.open = Some(open);
            return;
        }
        let parts = &self.rotation.manifest.catalogue;
        let deltas: u64 = parts.iter().skip(1).map(|part| part.bytes).sum();
        let whole = parts.len() >= CATALOGUE_PARTS
            && (parts.first().is_none_or(|base| deltas >= base.bytes) || parts.len() >= 64);
        let entries = if whole { self.streams.take_all() } else { self.streams.take_changes() };
        self.sync_wanted = self.sync_wanted.max(open.so_far.end_lsn);
        self.rotation.sealing.push_back(Sealing { open, entries, whole, part: None });
        self.counts.sealed.note(reason);
        self.keeper.segments_changed();
    }

    /// The next operation of the job at hand, or of the next one.
    pub(super) fn next_job_op(&mut self, now: Time) -> Option<(Tag, Op)> {
        if self.rotation.job.as_ref().is_some_and(|job| job.in_flight) {
            return None;
        }
        let due = |at: &mut Option<u64>| {
            if at.is_some_and(|at| at <= now.mono_ns) {
                *at = None;
            }
        };
        due(&mut self.rotation.prepare_at);
        if let Some(job) = &mut self.rotation.job {
            due(&mut job.retry_at);
            if job.retry_at.is_some() {
                return None;
            }
        }
        loop {
            let mut job = self.rotation.job.take().or_else(|| self.pick_job(now))?;
            match self.step(&mut job, now) {
                Step::Do(op) => {
                    job.in_flight = true;
                    self.rotation.job = Some(job);
                    return Some((self.take_off(Flight::Job), *op));
                }
                Step::Skip => {
                    job.step += 1;
                    self.rotation.job = Some(job);
                }
                Step::Finished => {}
                Step::Later => {
                    self.rotation.job = Some(job);
                    return None;
                }
            }
        }
    }

    fn pick_job(&mut self, now: Time) -> Option<Job> {
        let start = |kind| Some(Job { kind, step: 0, in_flight: false, retry_at: None });
        let durable = self.durable;
        let rotation = &mut self.rotation;
        if rotation.ready.is_empty() && !rotation.prepared.is_empty() {
            return start(JobKind::List);
        }
        let sealable = |sealing: &Sealing| sealing.open.so_far.end_lsn <= durable;
        if rotation.sealing.front().is_some_and(sealable) {
            let sealing = rotation.sealing.pop_front()?;
            return start(JobKind::Seal { sealing, obsolete: Vec::new() });
        }
        if !rotation.trims.is_empty() && rotation.sealing.is_empty() {
            // Whoever asks for room gets what the trims of streams have freed, too.
            if let Some(look) = self.look_at_once() {
                return start(JobKind::Look(look));
            }
            let rotation = &mut self.rotation;
            let (id, wanted) = rotation.trims.remove(0);
            let segments = self.wanted_away(wanted, now);
            return start(JobKind::Trim { id: Some(id), segments });
        }
        if self.rotation.closing == Closing::No {
            let segments = self.expired(now);
            if !segments.is_empty() {
                return start(JobKind::Trim { id: None, segments });
            }
            if let Some(look) = self.look_for_trimmed(now) {
                return start(JobKind::Look(look));
            }
        }
        self.recycle();
        let waited_for = !self.pending.is_empty();
        let rotation = &mut self.rotation;
        if let Some(segment) = rotation.stale_indexes.pop() {
            return start(JobKind::RemoveIndex { segment });
        }
        let files = rotation.manifest.segments.len()
            + rotation.prepared.len()
            + rotation.spares.len()
            + rotation.retired.len();
        let too_many = retention::too_many_files(&self.config, files);
        if rotation.spares.len() > if too_many { 0 } else { SPARES_MAX } {
            let segment = rotation.spares.remove(0);
            return start(JobKind::Remove { segment });
        }
        if rotation.prepare_at.is_none() && rotation.wants_segment(&self.config, waited_for) {
            let file = rotation.free_file()?;
            let segment = rotation.manifest.next_segment;
            rotation.manifest.next_segment = SegmentId(segment.0 + 1);
            let spare = rotation.spares.pop();
            return start(JobKind::Prepare { segment, file, spare });
        }
        let quiet = self.pending.is_empty() && self.durable == self.staged;
        if self.rotation.closing == Closing::Wanted && quiet && self.rotation.sealing.is_empty() {
            return start(JobKind::Close { entries: self.streams.take_changes(), part: None });
        }
        None
    }

    /// Retired segments that no reader holds any more become spares.
    fn recycle(&mut self) {
        let rotation = &mut self.rotation;
        let (spares, stale_indexes) = (&mut rotation.spares, &mut rotation.stale_indexes);
        let before = spares.len();
        rotation.retired.retain(|segment| {
            let held = Arc::strong_count(segment) > 1;
            if !held {
                spares.push(segment.segment);
                stale_indexes.push(segment.segment);
            }
            held
        });
        if spares.len() > before {
            rotation.prepare_at = None; // there is room again
        }
    }

    fn step(&mut self, job: &mut Job, now: Time) -> Step {
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
                Op::Write { file: *file, offset: 0, data, flush: Flush::File }
            }
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
                Op::Write { file, offset, data, flush: Flush::File }
            }
            (JobKind::Seal { sealing: Sealing { entries, part, .. }, .. }, 1)
            | (JobKind::Close { entries, part }, 1) => {
                if entries.is_empty() {
                    return Step::Skip;
                }
                let (log, shard, number) = (self.config.log, self.config.shard, self.next_part());
                let content = catalogue::encode(log, shard, number, entries);
                let (bytes, crc) = (content.len() as u64, crc32fast::hash(&content));
                *part = Some(CataloguePart { number, bytes, crc });
                Op::Replace { name: names::catalogue(number), content }
            }
            (JobKind::Seal { .. }, 2) if self.rotation.prepared.is_empty() => return Step::Skip,
            (JobKind::Seal { .. }, 2) => Op::SyncDir,
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
                        manifest.trimmed_chain = sealed.chain_end;
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
            (JobKind::Close { part, .. }, 2) => {
                self.list_closed(*part);
                self.replace_manifest()
            }
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
        manifest.generation += 1;
        manifest.proven_lsn = self.durable;
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
        if sealing.whole && sealing.part.is_some() {
            obsolete.extend(manifest.catalogue.drain(..).map(|part| part.number));
        }
        manifest.catalogue.extend(sealing.part);
    }

    /// Lists the open segment with what it holds, and the last part of the catalogue. Doing it
    /// twice is the same as once.
    fn list_closed(&mut self, part: Option<CataloguePart>) {
        if self.rotation.manifest.clean {
            return;
        }
        let Rotation { manifest, open, .. } = &mut self.rotation;
        manifest.clean = true;
        manifest.catalogued_lsn = self.durable;
        manifest.catalogue.extend(part);
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

    pub(super) fn job_op_completed(&mut self, result: Result<Done, DiskError>, now: Time) {
        let Some(mut job) = self.rotation.job.take() else { return };
        job.in_flight = false;
        if let JobKind::Look(look) = &mut job.kind {
            // Without an index, the segment stays.
            self.looked(look, result.as_ref().ok(), now);
            self.rotation.job = Some(job);
            return;
        }
        match result {
            Ok(_) => {
                self.rotation.disk_full = self.rotation.prepare_at.is_some();
                self.step_done(job);
            }
            Err(_) if job.stores_index() => {
                self.counts.index_failures += 1;
                self.step_done(job);
            }
            Err(error) if Self::is_full(&error) && job.may_wait_for_room() => {
                self.rotation.disk_full = true;
                let retry_at = Some(now.mono_ns + RETRY_AFTER_NS);
                match job.kind {
                    // Others may make room meanwhile.
                    JobKind::Prepare { segment, spare: None, .. } if job.step == 0 => {
                        self.rotation.manifest.next_segment = segment;
                        self.rotation.prepare_at = retry_at;
                    }
                    _ => {
                        job.retry_at = retry_at;
                        self.rotation.job = Some(job);
                    }
                }
            }
            Err(error) => match job.kind {
                // The spare is not what it should be: make a new file instead.
                // (Under a new number: the rename may have happened.)
                JobKind::Prepare { spare: Some(_), .. } if job.step <= 1 => {}
                // A crash has left a file of a number that no manifest has seen, and it could not
                // be removed: the next number will do.
                JobKind::Prepare { .. } if job.step == 0 && error.kind == DiskErrorKind::Exists => {
                }
                // What cannot be removed is left; the next open tries again.
                JobKind::Remove { .. } | JobKind::RemoveIndex { .. } => {}
                JobKind::Seal { .. } if job.step > CLOSE_SEALED => self.rotation.job = Some(job),
                _ => self.fail(error),
            },
        }
    }

    fn step_done(&mut self, mut job: Job) {
        match (&mut job.kind, job.step) {
            (JobKind::Prepare { segment, file, spare }, 2) => {
                self.rotation.prepared.push((*segment, *file));
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
            (JobKind::Close { .. }, 2) => {
                self.rotation.closing = Closing::Done;
                return;
            }
            _ => {}
        }
        job.step += 1;
        self.rotation.job = Some(job);
    }
}

/// Files kept for recycling, at most; more are removed.
const SPARES_MAX: usize = 4;
/// The step of sealing that replaces the manifest, ...
const LIST_SEALED: u8 = 3;
/// ... that stores the index, ...
const STORE_SEALED: u8 = 4;
/// ... and that closes the file.
const CLOSE_SEALED: u8 = 5;
/// The step of closing that does.
const STORE_CLOSED: u8 = 0;

impl Job {
    /// Whether a full disk stops this operation without anything being lost: only names are, not
    /// the writing of a header or footer.
    fn may_wait_for_room(&self) -> bool {
        match &self.kind {
            JobKind::Prepare { .. } => self.step != 2,
            JobKind::Seal { .. } => self.step != 0,
            JobKind::List | JobKind::Trim { .. } | JobKind::Look(_) | JobKind::Close { .. } => true,
            JobKind::Remove { .. } | JobKind::RemoveIndex { .. } => true,
        }
    }

    fn stores_index(&self) -> bool {
        match &self.kind {
            JobKind::Seal { .. } => self.step == STORE_SEALED,
            JobKind::Close { .. } => self.step == STORE_CLOSED,
            _ => false,
        }
    }
}
