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
//! manifest that seals one, so that a rotation replaces it once, or by the manifest of a clean close;
//! only when none is ready do they get a manifest of their own.
//!
//! The index of a segment is derived: that it cannot be stored is counted, and harms nothing. A
//! reader sees a segment as sealed before its postings are dropped, and these only once its index
//! is stored, or could not be.

use std::collections::VecDeque;
use std::sync::Arc;

use ringlog_disk::planted::{Bug, planted};
use ringlog_disk::{DiskError, DiskErrorKind, Done, FileId, Op, Tag};

use super::jobs::{CLOSE_SEALED, Job, JobKind, LIST_CLOSED, NextPart, Sealing, Step};
use super::retention::{self, Reason, Wanted};
use super::{Flight, OpenSegment, SegmentRef, Shard, ShardConfig, Time};
use crate::format::manifest::Manifest;
use crate::format::segment::{SEGMENT_FOOTER_BYTES, SEGMENT_HEADER_BYTES, Sealed};
use crate::ids::{Lsn, SegmentId};
use crate::index::Postings;
use crate::limits::{BLOCK_BYTES, SEALING_MAX};

/// How long after a full disk was met it is tried again.
const RETRY_AFTER_NS: u64 = 200_000_000;
/// Segments that are prepared ahead hold about this much.
const AHEAD_BYTES: u64 = 8 << 20;
/// Files kept for recycling, at most; more are removed.
const SPARES_MAX: usize = 4;
/// Parts of the catalogue before they are merged, at least.
const CATALOGUE_PARTS: usize = 8;
/// And at most.
const CATALOGUE_PARTS_MAX: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    No,
    Wanted,
    Done,
}

/// See the module's text.
pub(super) struct Rotation {
    pub(super) manifest: Manifest,
    pub(super) open: Option<OpenSegment>,
    pub(super) ready: VecDeque<(SegmentId, FileId)>,
    /// Prepared, and in no manifest yet.
    pub(super) prepared: Vec<(SegmentId, FileId)>,
    sealing: VecDeque<Sealing>,
    /// Sealed, with the footer on its way; its file is still open.
    pub(super) sealed_to: Lsn,
    spares: Vec<SegmentId>,
    pub(super) retired: Vec<Arc<SegmentRef>>,
    /// Segments that are gone, whose index may still be there.
    stale_indexes: Vec<SegmentId>,
    pub(super) files: Vec<(SegmentId, FileId)>,
    pub(super) job: Option<Job>,
    disk_full: bool,
    /// There was no room for another segment; not before then again.
    prepare_at: Option<u64>,
    trims: Vec<(u64, Wanted)>,
    pub(super) trimmed: Vec<(u64, u64)>,
    pub(super) closing: Closing,
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

    /// The request will not be carried out, unless it is under way.
    pub(super) fn take_back(&mut self, id: u64) {
        self.trims.retain(|(wanted, _)| *wanted != id);
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
        self.sealed_to >= lsn || planted(Bug::AnswerRotateAtOnce)
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
        let catalogue = self.next_catalogue_part();
        self.sync_wanted = self.sync_wanted.max(open.so_far.end_lsn);
        self.rotation.sealing.push_back(Sealing { open, catalogue });
        self.counts.sealed.note(reason);
        self.keeper.segments_changed();
    }

    /// What has changed in the streams since the last part of the catalogue; or all there is to say of
    /// them, where the parts have become many, or are small enough that one of them holds it all.
    fn next_catalogue_part(&mut self) -> NextPart {
        let parts = &self.rotation.manifest.catalogue;
        let deltas: u64 = parts.iter().skip(1).map(|part| part.bytes).sum();
        let base = parts.first().map_or(0, |base| base.bytes);
        let whole = match parts.len() {
            0 => false,
            CATALOGUE_PARTS_MAX.. => true,
            CATALOGUE_PARTS.. if deltas >= base => true,
            _ => base + deltas <= BLOCK_BYTES as u64,
        };
        let whole = whole && self.streams.has_changes();
        let entries = if whole { self.streams.take_all() } else { self.streams.take_changes() };
        NextPart { entries, whole, part: None }
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
        let sealable = |sealing: &Sealing| {
            sealing.open.so_far.end_lsn <= durable || planted(Bug::SealBeforeDurable)
        };
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
        let durable = self.durable == self.staged || planted(Bug::CloseBeforeDurable);
        let quiet = self.pending.is_empty() && durable;
        if self.rotation.closing == Closing::Wanted && quiet && self.rotation.sealing.is_empty() {
            let (catalogue, obsolete) = (self.next_catalogue_part(), Vec::new());
            return start(JobKind::Close { catalogue, obsolete });
        }
        None
    }

    /// Retired segments that no reader holds any more become spares.
    fn recycle(&mut self) {
        let rotation = &mut self.rotation;
        let (spares, stale_indexes) = (&mut rotation.spares, &mut rotation.stale_indexes);
        let before = spares.len();
        rotation.retired.retain(|segment| {
            let held = Arc::strong_count(segment) > 1 && !planted(Bug::RecycleUnderReader);
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
                let full = self.rotation.prepare_at.is_some();
                self.rotation.disk_full = full && !planted(Bug::ForgetFullDisk);
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
                JobKind::Close { .. } if job.step > LIST_CLOSED => self.step_done(job),
                _ => self.fail(error),
            },
        }
    }
}
