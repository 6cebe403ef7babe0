//! The indexes of the segments of one open shard, shared by all that read it.
//!
//! A segment whose postings are in memory is looked up there; any other by its index file, of which
//! the front and the pages that were used are kept. An index that is missing, damaged, foreign or
//! older than its segment is never believed: it is made anew from the batches, once, however many
//! readers wait for it, and stored where the log is open for writing. Nothing here is evidence:
//! what is found is a place where the reader looks, and checks what it finds.
//!
//! Locks: the cache's is held for moments only; each segment has one under which its index is
//! loaded or made; one index is made at a time. Whoever wants another segment does not wait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringlog_disk::planted::{Bug, planted};
use ringlog_disk::{Disk, DiskError, DiskErrorKind, FileId, Op};

use super::cache::Cache;
use super::file::{Fault, IndexFile, Loaded};
use super::postings::{Posting, Snapshot};
use super::rebuild::{Known, Rebuilt, Source};
use super::restore;
use super::search::{Pages, Search};
use crate::format::index::{IndexHeader, PAGE_BYTES};
use crate::format::segment::Sealed;
use crate::ids::{Lsn, Offset, SegmentId, StreamId};
use crate::names;
use crate::recovery::{Identity, ask};
use crate::shard::SegmentRef;
use crate::window::pool_for;

/// The front of an index is read in one piece together with what follows, up to this size.
const FIRST_BYTES_MAX: usize = 256 << 10;
/// Pages that are wanted one after another are read in pieces of so many.
const RUN_PAGES_MAX: u64 = 16;
/// How many reasons are kept.
const REASONS_MAX: usize = 8;

/// What became of the indexes of a shard since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexReport {
    /// Indexes that were read from their file and believed.
    pub loaded: u64,
    /// Indexes that were made anew from their whole segment.
    pub rebuilt: u64,
    /// Indexes of which only what was missing was made.
    pub rebuilt_partly: u64,
    /// Bytes of segments that were read for that.
    pub rebuild_bytes: u64,
    /// Why the last ones were made anew, in words.
    pub reasons: Vec<String>,
    /// Memory that indexes take now, in bytes.
    pub memory_bytes: u64,
}

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The number of its segment in the list that was given.
    pub(crate) at: usize,
    /// Where to begin to read: blocks behind the segment's header.
    pub(crate) block: u32,
    /// The records there; `None` where damage in the segment hides what it holds.
    pub(crate) posting: Option<Posting>,
}

/// See the module's text.
pub(crate) struct Indexes {
    identity: Identity,
    /// Whether an index that was made anew is stored.
    stores: bool,
    first_bytes: usize,
    cache: Mutex<Cache>,
    /// Segments whose index is being loaded or made.
    gates: Mutex<BTreeMap<SegmentId, Arc<Mutex<()>>>>,
    rebuilding: Mutex<()>,
    report: Mutex<(IndexReport, VecDeque<String>)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is known of a segment.
enum View {
    Noted(Snapshot),
    Stored(Arc<Loaded>),
}

impl Indexes {
    /// For one shard; keeps about `bytes_max` bytes.
    pub(crate) fn new(identity: Identity, bytes_max: usize, stores: bool) -> Self {
        let first = (bytes_max / 8).clamp(PAGE_BYTES, FIRST_BYTES_MAX);
        Self {
            identity,
            stores,
            first_bytes: first / PAGE_BYTES * PAGE_BYTES,
            cache: Mutex::new(Cache::new(bytes_max)),
            gates: Mutex::default(),
            rebuilding: Mutex::default(),
            report: Mutex::default(),
        }
    }

    /// What has happened so far.
    pub(crate) fn report(&self) -> IndexReport {
        let report = lock(&self.report);
        let memory_bytes = lock(&self.cache).memory_bytes() as u64;
        let reasons = report.1.iter().cloned().collect();
        IndexReport { reasons, memory_bytes, ..report.0.clone() }
    }

    /// The first offset of a stream in a segment, and the one behind its last there.
    ///
    /// # Errors
    /// The segment cannot be read, here and below; the disk has nothing else in flight, and `file`
    /// is an id that is free.
    pub(crate) fn stream_bounds(
        &self,
        disk: &mut dyn Disk,
        file: FileId,
        segment: &SegmentRef,
        stream: StreamId,
    ) -> Result<Option<(Offset, Offset)>, DiskError> {
        self.look(
            disk,
            file,
            segment,
            |noted| noted.bounds(stream),
            |pages| Search::new(pages).bounds(stream),
        )
    }

    /// All postings of a stream in a segment, in order. `None` where the segment holds, before
    /// `until`, what is not known without walking through it: batches that do not validate, whose
    /// index had to be made anew, or batches behind damage at the end of the log.
    pub(crate) fn postings(
        &self,
        disk: &mut dyn Disk,
        file: FileId,
        segment: &SegmentRef,
        stream: StreamId,
        until: Lsn,
    ) -> Result<Option<Vec<Posting>>, DiskError> {
        self.look(
            disk,
            file,
            segment,
            |noted| covers(noted, segment, until).then(|| noted.of(stream)),
            |pages| match pages.index().has_holes {
                true => Ok(None),
                false => Search::new(pages).postings(stream).map(Some),
            },
        )
    }

    /// The posting of a stream that holds an offset, or the first one behind it in the segment.
    pub(crate) fn posting_at(
        &self,
        disk: &mut dyn Disk,
        file: FileId,
        segment: &SegmentRef,
        stream: StreamId,
        offset: Offset,
    ) -> Result<Option<Posting>, DiskError> {
        self.look(
            disk,
            file,
            segment,
            |noted| noted.posting_at(stream, offset),
            |pages| Search::new(pages).posting_at(stream, offset),
        )
    }

    /// Where a batch begins, in blocks behind the segment's header, that lies at or before the
    /// first one placed at this time (nanoseconds since 1970) or later.
    pub(crate) fn block_at_time(
        &self,
        disk: &mut dyn Disk,
        file: FileId,
        segment: &SegmentRef,
        timestamp_ns: u64,
    ) -> Result<u32, DiskError> {
        self.look(
            disk,
            file,
            segment,
            |noted| noted.block_at_time(timestamp_ns),
            |pages| Search::new(pages).block_at_time(timestamp_ns),
        )
    }

    /// The streams of a segment, each with its first offset there and the one behind its last.
    #[cfg(test)]
    pub(crate) fn streams_of(
        &self,
        disk: &mut dyn Disk,
        file: FileId,
        segment: &SegmentRef,
    ) -> Result<Vec<(StreamId, Offset, Offset)>, DiskError> {
        self.look(disk, file, segment, Snapshot::streams, |pages| Search::new(pages).streams())
    }

    /// Whether everything that a segment holds before `until` is known.
    fn is_whole(
        &self,
        disk: &mut dyn Disk,
        file: FileId,
        segment: &SegmentRef,
        until: Lsn,
    ) -> Result<bool, DiskError> {
        let noted = |noted: &Snapshot| covers(noted, segment, until);
        self.look(disk, file, segment, noted, |pages| Ok(!pages.index().has_holes))
    }

    /// Where to read to find the record of a stream at an offset, or the first one behind it, in
    /// what lies before `until`. `segments` are in the order of the log. `None`: there is neither.
    pub(crate) fn find(
        &self,
        disk: &mut dyn Disk,
        file: FileId,
        segments: &[Arc<SegmentRef>],
        stream: StreamId,
        offset: Offset,
        until: Lsn,
    ) -> Result<Option<Place>, DiskError> {
        let segments = &segments[..segments.partition_point(|one| one.base_lsn < until)];
        // Everything before `low` ends at or before the offset, as far as it is known; `best` is
        // the first segment from `high` on that has the stream.
        let (mut low, mut high, mut best) = (0, segments.len(), None);
        while low < high {
            let middle = low + (high - low) / 2;
            let mut found = None;
            for (at, segment) in segments.iter().enumerate().take(high).skip(middle) {
                if let Some(bounds) = self.stream_bounds(disk, file, segment, stream)? {
                    found = Some((at, bounds));
                    break;
                }
            }
            match found {
                Some((at, (_, end))) if end <= offset => low = at + 1,
                Some((at, (first, _))) => {
                    (high, best) = (middle, Some(at));
                    if first <= offset {
                        break;
                    }
                }
                None => high = middle,
            }
        }
        let mut place = None;
        if let Some(at) = best {
            let found = self.posting_at(disk, file, &segments[at], stream, offset)?;
            place = found.map(|found| Place { at, block: found.block, posting: Some(found) });
        }
        let is_there = |place: &Place| place.posting.is_some_and(|found| found.first <= offset);
        if place.as_ref().is_some_and(is_there) {
            return Ok(place);
        }
        // It is not where it would be. It may be where damage hides what there is.
        let last = best.map_or(segments.len(), |best| best + 1);
        for at in low.saturating_sub(1)..last {
            let next = segments.get(at + 1).map_or(until, |next| next.base_lsn.min(until));
            if !self.is_whole(disk, file, &segments[at], next)? {
                return Ok(Some(Place { at, block: 0, posting: None }));
            }
        }
        Ok(place)
    }

    /// Looks in what the writer has noted of a segment, or in its index. An index that turns out to
    /// be bad is made anew, and looked in once more.
    fn look<T>(
        &self,
        disk: &mut dyn Disk,
        file: FileId,
        segment: &SegmentRef,
        noted: impl FnOnce(&Snapshot) -> T,
        stored: impl Fn(&mut PagesOf<'_>) -> Result<T, Fault>,
    ) -> Result<T, DiskError> {
        let loaded = match self.view(disk, file, segment)? {
            View::Noted(snapshot) => return Ok(noted(&snapshot)),
            View::Stored(loaded) => loaded,
        };
        let mut access = Access { all: self, disk, file, segment: segment.segment };
        match stored(&mut PagesOf { access: access.again(), index: Arc::clone(&loaded) }) {
            Ok(found) => Ok(found),
            Err(fault) => {
                let Some(sealed) = segment.sealed.get() else { return Err(unusable(&fault)) };
                let index = access.replace(sealed, &loaded, &fault)?;
                let mut pages = PagesOf { access, index };
                stored(&mut pages).map_err(|fault| unusable(&fault))
            }
        }
    }

    fn view(
        &self,
        disk: &mut dyn Disk,
        file: FileId,
        segment: &SegmentRef,
    ) -> Result<View, DiskError> {
        let snapshot = segment.postings.snapshot();
        match segment.sealed.get() {
            Some(sealed) if snapshot.end_block == 0 && sealed.end_lsn > sealed.base_lsn => {
                let mut access = Access { all: self, disk, file, segment: segment.segment };
                access.load(sealed).map(View::Stored)
            }
            _ => Ok(View::Noted(snapshot)),
        }
    }

    /// The index of a segment that is in memory, if it is of these batches.
    fn known(&self, id: SegmentId, sealed: &Sealed) -> Option<Arc<Loaded>> {
        lock(&self.cache).front(id).filter(|known| known.header.covers == *sealed)
    }

    /// Runs `make` while nobody else loads or makes the index of this segment.
    fn alone<T>(&self, id: SegmentId, make: impl FnOnce() -> T) -> T {
        let gate = Arc::clone(lock(&self.gates).entry(id).or_default());
        let made = {
            let _alone = lock(&gate);
            make()
        };
        let mut gates = lock(&self.gates);
        // Two: this one and the one in the map. Others that wait keep it.
        if Arc::strong_count(&gate) <= 2 {
            gates.remove(&id);
        }
        made
    }

    fn count(&self, rebuilt: &Rebuilt, why: String) {
        let mut report = lock(&self.report);
        let (counts, reasons) = &mut *report;
        match rebuilt.partly {
            true => counts.rebuilt_partly += 1,
            false => counts.rebuilt += 1,
        }
        counts.rebuild_bytes += rebuilt.bytes_read;
        if reasons.len() == REASONS_MAX {
            reasons.pop_front();
        }
        reasons.push_back(why);
    }
}

/// Whether everything that a segment holds before `until` is noted.
fn covers(noted: &Snapshot, segment: &SegmentRef, until: Lsn) -> bool {
    let noted_bytes = u64::from(noted.end_block) * PAGE_BYTES as u64;
    segment.base_lsn.0 + noted_bytes >= until.0
}

fn unusable(fault: &Fault) -> DiskError {
    DiskError::new(DiskErrorKind::Unexpected, format!("look in an index: {}", fault.0))
}

/// A reader's own way to the index of one segment.
struct Access<'a> {
    all: &'a Indexes,
    disk: &'a mut dyn Disk,
    file: FileId,
    segment: SegmentId,
}

impl Access<'_> {
    fn again(&mut self) -> Access<'_> {
        Access { all: self.all, disk: &mut *self.disk, file: self.file, segment: self.segment }
    }

    /// The index: from memory, from its file, or made anew.
    fn load(&mut self, sealed: &Sealed) -> Result<Arc<Loaded>, DiskError> {
        let (all, id) = (self.all, self.segment);
        if let Some(known) = all.known(id, sealed) {
            return Ok(known);
        }
        all.alone(id, || {
            if let Some(known) = all.known(id, sealed) {
                return Ok(known);
            }
            let (known, why) = match self.read_file(sealed) {
                Ok(Ok(loaded)) => {
                    lock(&all.report).0.loaded += 1;
                    let loaded = Arc::new(loaded);
                    lock(&all.cache).put_front(id, Arc::clone(&loaded));
                    return Ok(loaded);
                }
                Ok(Err(known)) => {
                    let covers = known.covers;
                    let why = format!(
                        "it ends at LSN {}, the segment at {}",
                        covers.end_lsn, sealed.end_lsn
                    );
                    (Some(known), why)
                }
                Err(Fault(why)) => (None, why),
            };
            self.make(sealed, known, &why)
        })
    }

    /// The index as its file has it, or all of an older one that covers the front of the segment.
    fn read_file(&mut self, sealed: &Sealed) -> Result<Result<Loaded, Known>, Fault> {
        let Identity { log, shard, .. } = self.all.identity;
        let (id, first_bytes) = (self.segment, self.all.first_bytes);
        let mut file = IndexFile::open(self.disk, self.file, id)?;
        match file.load(&self.all.identity, id, sealed, first_bytes)? {
            Some(loaded) => Ok(Ok(loaded)),
            None => {
                let all = file.read_all(FIRST_BYTES_MAX)?;
                let covers = IndexHeader::decode(&all, log, shard, id).map(|header| header.covers);
                let covers = covers.map_err(|refused| Fault(refused.to_string()))?;
                match restore(&all, log, shard, id, &covers) {
                    Some(postings) => Ok(Err(Known { covers, postings })),
                    None => Err(Fault("it is older than its segment, and damaged".to_owned())),
                }
            }
        }
    }

    /// Another index in place of one that has turned out to be bad.
    fn replace(
        &mut self,
        sealed: &Sealed,
        bad: &Arc<Loaded>,
        fault: &Fault,
    ) -> Result<Arc<Loaded>, DiskError> {
        let (all, id) = (self.all, self.segment);
        all.alone(id, || match all.known(id, sealed) {
            // Somebody else was faster.
            Some(known) if !Arc::ptr_eq(&known, bad) => Ok(known),
            _ => self.make(sealed, None, &fault.0),
        })
    }

    fn make(
        &mut self,
        sealed: &Sealed,
        known: Option<Known>,
        why: &str,
    ) -> Result<Arc<Loaded>, DiskError> {
        let (all, segment) = (self.all, self.segment);
        let one_at_a_time = lock(&all.rebuilding);
        let source = Source {
            disk: &mut *self.disk,
            file: self.file,
            identity: &all.identity,
            segment,
            sealed,
            pool: pool_for(all.identity.segment_bytes)?,
        };
        let rebuilt = source.rebuild(known)?;
        drop(one_at_a_time);
        let mut why = format!("index of segment {segment}: {why}");
        // What is told of a damaged segment may be less than what was there: that is not stored.
        let whole = rebuilt.passed_over_blocks == 0 || planted(Bug::StoreIndexWithHoles);
        if all.stores && whole {
            let store =
                Op::Store { name: names::index(segment), content: rebuilt.file.clone().into() };
            if let Err(error) = ask(self.disk, store) {
                why = format!("{why}; not stored again: {error}");
            }
        }
        all.count(&rebuilt, why);
        let has_holes = rebuilt.passed_over_blocks > 0;
        let loaded = Loaded::whole(rebuilt.file, &all.identity, segment);
        let mut loaded = loaded.map_err(|fault| unusable(&fault))?;
        loaded.has_holes = has_holes;
        let loaded = Arc::new(loaded);
        lock(&all.cache).put_front(segment, Arc::clone(&loaded));
        Ok(loaded)
    }
}

/// The pages of an index, from the cache or from the file.
struct PagesOf<'a> {
    access: Access<'a>,
    index: Arc<Loaded>,
}

impl Pages for PagesOf<'_> {
    fn index(&self) -> &Arc<Loaded> {
        &self.index
    }

    fn read(&mut self, number: u64, behind: u64) -> Result<Arc<[u8]>, Fault> {
        let Access { all, disk, file, segment } = &mut self.access;
        if let Some(page) = lock(&all.cache).page(*segment, number) {
            return Ok(page);
        }
        let count = (behind.saturating_sub(number)).clamp(1, RUN_PAGES_MAX);
        let pages = IndexFile::open(*disk, *file, *segment)?.pages(
            &self.index.header,
            number,
            count as usize,
        )?;
        let pages: Vec<Arc<[u8]>> = pages.chunks_exact(PAGE_BYTES).map(Arc::from).collect();
        let mut cache = lock(&all.cache);
        // The one that is wanted now is the newest.
        for (at, page) in pages.iter().enumerate().rev() {
            cache.put_page(*segment, &self.index, number + at as u64, Arc::clone(page));
        }
        pages.into_iter().next().ok_or_else(|| Fault("it is cut short".to_owned()))
    }
}
