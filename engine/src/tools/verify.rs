//! Checking everything that a log holds.

use std::path::Path;

use ringlog_disk::{DiskErrorKind, Place};

use super::ledger::{Catalogue, Ledger, merge};
use super::tail_walk::walk_unsealed;
use super::walk::{Batch, Hole, Item, Stretch};
use super::{BadIndex, Meter, Progress, ShardFiles, open_dir, read_meta, shard_dir};
use crate::error::{Corruption, OpenError};
use crate::format::manifest::{Manifest, ManifestSegment, SegmentState};
use crate::format::meta::LogMeta;
use crate::format::segment::{SEGMENT_FOOTER_BYTES, SEGMENT_HEADER_BYTES, Sealed};
use crate::ids::{Lsn, Offset, SegmentId, StreamId};
use crate::index::{self, Postings};
use crate::limits::BLOCK_BYTES;
use crate::names;
use crate::recovery::{Identity, list_files, load_manifest, load_part, tail};
use crate::shard::Streams;

/// How often the end of a log that is being written is looked at again before what seems damaged
/// is called so.
const ATTEMPTS: usize = 16;

/// What a check has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Whether no damage was found.
    pub sound: bool,
    /// Listed segments.
    pub segments: u64,
    /// Batches that validate.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of these batches as stored.
    pub bytes: u64,
    /// All damage, in the order of the log, one entry for each place.
    pub damage: Vec<Corruption>,
    /// Indexes of sealed segments that are missing or wrong. That is no damage: readers make them
    /// anew.
    pub bad_indexes: Vec<BadIndex>,
    /// What is no damage but may be of interest: a torn end, files that belong to nothing.
    pub notes: Vec<String>,
}

/// Checks every checksum, chain, count and offset of a log, and tells `progress` now and then how
/// far it is. Changes nothing and takes no lock; the log may be written meanwhile.
///
/// Everything that was ever acknowledged as durable is checked. Not checked is what nothing is
/// stored in: the rest of a segment behind its last batch and footer, files that are not listed.
/// What lies behind the proven end and does not validate is remains of a write that was never
/// acknowledged: a note, no damage.
///
/// Cost: reads the log once.
///
/// # Errors
/// See [`OpenError`]: there is no log, or it is of a newer version, or the disk refuses. Damage is
/// no error.
pub fn verify(
    dir: impl AsRef<Path>,
    progress: &mut dyn FnMut(Progress),
) -> Result<VerifyReport, OpenError> {
    let path = dir.as_ref();
    let dir = open_dir(path)?;
    let mut report = VerifyReport::default();
    match read_meta(path, &dir) {
        Ok(meta) => verify_log(&dir, &meta, &mut report, &mut Meter::new(progress))?,
        Err(OpenError::Corrupt(corruption)) => report.damage.push(corruption),
        Err(error) => return Err(error),
    }
    report.sound = report.damage.is_empty();
    Ok(report)
}

fn verify_log(
    dir: &Place,
    meta: &LogMeta,
    report: &mut VerifyReport,
    meter: &mut Meter<'_>,
) -> Result<(), OpenError> {
    for entry in dir.entries()? {
        let listed = (0..meta.shards).any(|shard| names::shard(shard).as_str() == entry);
        let ours = [names::LOG_FILE, names::PROFILE_FILE].contains(&entry.as_str())
            || entry.starts_with(super::BACKUP_PREFIX);
        if !listed && !ours {
            report.notes.push(format!("{entry:?} belongs to nothing"));
        }
    }
    for shard in 0..meta.shards {
        match shard_dir(dir, shard)? {
            Ok(shard_dir) => {
                let files = ShardFiles::open(&shard_dir, meta, shard)?;
                ShardCheck::run(files, report, meter)?;
            }
            Err(corruption) => report.damage.push(corruption),
        }
    }
    Ok(())
}

/// The check of one shard.
pub(super) struct ShardCheck<'a, 'm> {
    files: ShardFiles,
    report: &'a mut VerifyReport,
    meter: &'a mut Meter<'m>,
    ledger: Ledger,
    /// Where the catalogue stands, until the walk gets there.
    catalogued: Option<Lsn>,
    /// What the catalogue says, if it is whole.
    catalogue: Option<Catalogue>,
    /// An unsealed segment was trimmed away while this looked.
    gone: bool,
}

impl<'a, 'm> ShardCheck<'a, 'm> {
    /// Checks a shard and adds what is found to the report.
    pub(super) fn run(
        files: ShardFiles,
        report: &'a mut VerifyReport,
        meter: &'a mut Meter<'m>,
    ) -> Result<(), OpenError> {
        let ledger = Ledger::default();
        Self { files, report, meter, ledger, catalogued: None, catalogue: None, gone: false }
            .check()
    }

    fn check(&mut self) -> Result<(), OpenError> {
        let Some((manifest, tail)) = self.settle()? else { return Ok(()) };
        self.ledger = Ledger::new(manifest.trimmed_lsn > Lsn(0));
        self.report.segments += manifest.segments.len() as u64;
        self.expect(&manifest);
        self.catalogue = self.catalogue(&manifest)?;
        for entry in &manifest.segments {
            if let SegmentState::Sealed { sealed, footer } = entry.state {
                self.sealed(entry.segment, &sealed, footer)?;
            }
        }
        match manifest.catalogued_lsn >= manifest.sealed_end().0 {
            true => self.catalogued = Some(manifest.catalogued_lsn),
            false => {
                let what = "the catalogue ends before the sealed segments end";
                self.damage(None, 0, Some(manifest.catalogued_lsn), what);
            }
        }
        self.unsealed(&manifest, &tail)?;
        if let Some(catalogue) = self.catalogue.take().filter(|_| !self.gone) {
            self.check_names(&catalogue);
        }
        self.unlisted(&manifest)
    }

    fn identity(&self) -> Identity {
        self.files.identity
    }

    fn manifest(&mut self) -> Result<Manifest, OpenError> {
        load_manifest(&mut self.files.disk, &self.files.identity)
    }

    /// The manifest, and the end of the log as recovery would see it. Damage at the end counts once
    /// it is found twice at the same place: what proves that something must be there was read
    /// before that place was read the second time.
    fn settle(&mut self) -> Result<Option<(Manifest, tail::Tail)>, OpenError> {
        let mut before: Option<(Corruption, Manifest)> = None;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let manifest = match self.manifest() {
                Ok(manifest) => manifest,
                Err(OpenError::Corrupt(corruption)) => {
                    self.report.damage.push(corruption);
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            let identity = self.identity();
            let (files, streams) = (&mut self.files, Streams::default());
            let tail = tail::scan(&mut files.disk, &identity, &manifest, streams, &files.pool)?;
            let Some(corruption) = &tail.corruption else { return Ok(Some((manifest, tail))) };
            let again = before.as_ref().is_some_and(|(known, at)| {
                known.segment == corruption.segment
                    && known.lsn == corruption.lsn
                    && at.epoch == manifest.epoch
            });
            if again || attempt == ATTEMPTS {
                return Ok(Some((manifest, tail)));
            }
            before = Some((corruption.clone(), manifest));
        }
    }

    fn expect(&mut self, manifest: &Manifest) {
        for entry in &manifest.segments {
            self.meter.expect(match entry.state {
                SegmentState::Sealed { sealed, .. } | SegmentState::Closed { so_far: sealed } => {
                    sealed.end_lsn.0 - sealed.base_lsn.0
                }
                SegmentState::Unsealed => self.files.identity.segment_bytes,
            });
        }
    }

    /// Whether a segment is still listed: one that is not was trimmed meanwhile.
    fn is_listed(&mut self, segment: SegmentId) -> Result<bool, OpenError> {
        match self.manifest() {
            Ok(manifest) => Ok(manifest.segments.iter().any(|entry| entry.segment == segment)),
            Err(OpenError::Corrupt(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn damage(
        &mut self,
        segment: Option<SegmentId>,
        file_offset: u64,
        lsn: Option<Lsn>,
        what: impl Into<String>,
    ) {
        let file = segment.map_or_else(names::manifest, names::segment);
        let identity = self.identity();
        let damage = identity.corruption(segment, file.as_str(), file_offset, lsn, what);
        self.report.damage.push(damage);
    }

    fn catalogue(&mut self, manifest: &Manifest) -> Result<Option<Catalogue>, OpenError> {
        let mut all = Catalogue::new();
        let mut whole = true;
        for part in &manifest.catalogue {
            let identity = self.identity();
            match load_part(&mut self.files.disk, &identity, part) {
                Ok(entries) => merge(&mut all, entries),
                Err(OpenError::Corrupt(corruption)) => {
                    // Parts are merged while the log is written.
                    let listed = match self.manifest() {
                        Ok(now) => now.catalogue.contains(part),
                        Err(_) => true,
                    };
                    whole = false;
                    if listed {
                        self.report.damage.push(corruption);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(whole.then_some(all))
    }

    /// A header of a segment that is damaged, or a file that is not there.
    fn opened_badly(&mut self, segment: SegmentId, what: String) -> Result<(), OpenError> {
        if self.is_listed(segment)? {
            self.damage(Some(segment), 0, None, what);
        } else {
            self.report.notes.push(format!("segment {segment} was trimmed meanwhile"));
        }
        Ok(())
    }

    fn sealed(
        &mut self,
        segment: SegmentId,
        sealed: &Sealed,
        footer: bool,
    ) -> Result<(), OpenError> {
        let room = self.identity().segment_bytes - SEGMENT_HEADER_BYTES - SEGMENT_FOOTER_BYTES;
        let used = sealed.end_lsn.0 - sealed.base_lsn.0;
        if used > room {
            self.damage(None, 0, None, format!("segment {segment} holds more than it can"));
            return Ok(());
        }
        let lost = Hole::whole(sealed.base_lsn, sealed.end_lsn);
        let mut file = match self.files.segment(segment)? {
            Ok(file) => file,
            Err(what) => {
                self.ledger.hole(&lost);
                return self.opened_badly(segment, what);
            }
        };
        let header = file.check_header()?;
        let stretch = Stretch {
            base: sealed.base_lsn,
            end: sealed.end_lsn,
            chain: Some(sealed.chain_before),
            chain_end: Some(sealed.chain_end),
        };
        let items = file.walk(&stretch, None, self.meter)?;
        let footer_at = SEGMENT_HEADER_BYTES + used;
        let found = footer.then(|| file.footer(footer_at));
        file.close()?;
        let holes = items.iter().any(|item| matches!(item, Item::Hole(_)));
        let footer_wrong = match &found {
            None => None,
            Some(Err(what)) => Some(what.clone()),
            Some(Ok(footer)) => {
                let same = footer.log == self.identity().log
                    && footer.shard == self.identity().shard
                    && footer.segment == segment
                    && footer.sealed == *sealed;
                (!same).then(|| "a footer that the manifest contradicts".to_owned())
            }
        };
        if (holes || header.is_some() || footer_wrong.is_some()) && !self.is_listed(segment)? {
            self.report.notes.push(format!("segment {segment} was trimmed meanwhile"));
            self.ledger.hole(&lost);
            return Ok(());
        }
        if let Some(what) = header {
            self.damage(Some(segment), 0, None, what);
        }
        self.take(segment, &items);
        if !holes {
            self.check_sums(segment, sealed, &items);
        }
        self.check_index(segment, sealed, &items)?;
        if let Some(what) = footer_wrong {
            self.damage(Some(segment), footer_at, Some(sealed.end_lsn), what);
        }
        Ok(())
    }

    /// The index of a sealed segment must be what its batches make; where some are damaged, it
    /// need only be whole.
    fn check_index(
        &mut self,
        segment: SegmentId,
        sealed: &Sealed,
        items: &[Item],
    ) -> Result<(), OpenError> {
        let identity = self.identity();
        let postings = Postings::default();
        let mut whole = true;
        for item in items {
            let Item::Batch(Batch { header, runs, .. }) = item else {
                whole = false;
                continue;
            };
            let block = (header.lsn.0 - sealed.base_lsn.0) / BLOCK_BYTES as u64;
            let blocks = header.stored_bytes / BLOCK_BYTES as u32;
            let runs = runs.iter().map(|run| (run.stream, run.base, run.count));
            postings.add_batch(block as u32, blocks, header.timestamp_ns, runs);
        }
        let snapshot = postings.snapshot();
        let due = index::encode(identity.log, identity.shard, segment, sealed, &snapshot);
        let due = due.filter(|_| whole);
        let bad = self.files.bad_index(segment, sealed, due.as_deref());
        if let Some(bad) = bad
            && self.is_listed(segment)?
        {
            self.report.bad_indexes.push(bad);
        }
        Ok(())
    }

    fn check_sums(&mut self, segment: SegmentId, sealed: &Sealed, items: &[Item]) {
        let batches = || {
            items.iter().filter_map(|item| match item {
                Item::Batch(batch) => Some(&batch.header),
                Item::Hole(_) => None,
            })
        };
        let frames: u64 = batches().map(|header| u64::from(header.frames)).sum();
        let first_ns = batches().next().map_or(0, |header| header.timestamp_ns);
        let last_ns = batches().next_back().map_or(0, |header| header.timestamp_ns);
        if (frames, first_ns, last_ns) != (sealed.records, sealed.first_ns, sealed.last_ns) {
            let what = format!(
                "segment {segment} holds {frames} entries of {first_ns} to {last_ns} ns, the \
                 manifest says {} of {} to {} ns",
                sealed.records, sealed.first_ns, sealed.last_ns
            );
            self.damage(None, 0, None, what);
        }
    }

    /// Counts what was found along a segment, and keeps the damage.
    fn take(&mut self, segment: SegmentId, items: &[Item]) {
        for item in items {
            self.reach(item.from());
            match item {
                Item::Batch(batch) => self.take_batch(segment, batch, items),
                Item::Hole(hole) => {
                    self.ledger.hole(hole);
                    let what = match hole.to.0.saturating_sub(hole.from.0) {
                        0..=4096 => hole.what.clone(),
                        bytes => format!("{} ({bytes} bytes without a valid batch)", hole.what),
                    };
                    self.damage(Some(segment), hole.file_offset, Some(hole.from), what);
                }
            }
        }
    }

    fn take_batch(&mut self, segment: SegmentId, batch: &Batch, items: &[Item]) {
        let header = &batch.header;
        self.report.batches += 1;
        self.report.bytes += u64::from(header.stored_bytes);
        let of_users = batch.runs.iter().filter(|run| run.stream != StreamId::CATALOGUE);
        self.report.records += of_users.map(|run| u64::from(run.count)).sum::<u64>();
        for what in self.ledger.batch(batch) {
            let base = items.first().map_or(header.lsn, Item::from);
            let offset = SEGMENT_HEADER_BYTES + (header.lsn.0 - base.0);
            self.damage(Some(segment), offset, Some(header.lsn), what);
        }
    }

    /// The walk is at `lsn`. Where the catalogue stands, each stream must be where it says: that is
    /// where the sealed segments end, or where the log was closed cleanly last.
    fn reach(&mut self, lsn: Lsn) {
        if self.catalogued.is_none_or(|at| lsn < at) {
            return;
        }
        self.catalogued = None;
        if let Some(catalogue) = self.catalogue.take() {
            self.check_catalogue(&catalogue);
            self.catalogue = Some(catalogue);
        }
    }

    fn check_catalogue(&mut self, catalogue: &Catalogue) {
        let seen: Vec<StreamId> = self.ledger.streams.keys().copied().collect();
        for stream in seen {
            let next = catalogue.get(&stream).map_or(Offset(0), |known| known.next);
            if let Some(what) = self.ledger.goes_on(stream, next) {
                self.damage(None, 0, None, what);
            }
        }
        for (stream, known) in catalogue {
            if !self.ledger.streams.contains_key(stream)
                && let Some(what) = self.ledger.goes_on(*stream, known.next)
            {
                self.damage(None, 0, None, what);
            }
        }
        for what in self.ledger.forgotten_trims(catalogue) {
            self.damage(None, 0, None, what);
        }
    }

    fn check_names(&mut self, catalogue: &Catalogue) {
        let named = |stream: &StreamId| {
            *stream == StreamId::CATALOGUE
                || self.ledger.created.contains_key(stream)
                || catalogue.get(stream).is_some_and(|known| known.name.is_some())
        };
        let nameless: Vec<u32> = self
            .ledger
            .streams
            .keys()
            .filter(|stream| !named(stream))
            .map(|stream| stream.0)
            .collect();
        for stream in nameless {
            self.damage(None, 0, None, format!("stream {stream} has records but no name"));
        }
    }

    fn unsealed(&mut self, manifest: &Manifest, tail: &tail::Tail) -> Result<(), OpenError> {
        let (all, _) = walk_unsealed(&mut self.files, manifest, tail, self.meter)?;
        for unsealed in all {
            let segment = unsealed.segment;
            if !self.is_listed(segment)? {
                // Whatever was read of it may be a part, or nothing: its file may be another's now.
                self.report.notes.push(format!("segment {segment} was trimmed meanwhile"));
                // The catalogue may stand before it, and knows no stream that was created in it.
                let from = unsealed.base.unwrap_or(manifest.sealed_end().0);
                self.reach(from);
                self.gone = true;
                let to = unsealed.items.last().map_or(from, Item::to).max(Lsn(from.0 + 1));
                self.ledger.hole(&Hole::whole(from, to));
                continue;
            }
            if let Some(what) = unsealed.wrong {
                self.damage(Some(segment), 0, None, what);
            }
            let holes = unsealed.items.iter().any(|item| matches!(item, Item::Hole(_)));
            self.take(segment, &unsealed.items);
            if let Some((closed, so_far)) = manifest.closed()
                && closed == segment
                && !holes
            {
                self.check_sums(segment, &so_far, &unsealed.items);
            }
        }
        self.reach(Lsn(u64::MAX));
        self.tell_end(tail);
        Ok(())
    }

    fn tell_end(&mut self, tail: &tail::Tail) {
        let shard = self.identity().shard;
        if let Some(corruption) = &tail.corruption {
            // What recovery refuses is damage, whatever else there is.
            let told = self.report.damage.iter().any(|known| known.shard == shard);
            if !told {
                self.report.damage.push(corruption.clone());
            }
        }
        if let Some(why) = &tail.cut_reason {
            self.report.notes.push(format!(
                "shard {shard}: {} bytes behind the end of the log (LSN {}) are remains of a \
                 write that was never acknowledged: {why}",
                tail.bytes_cut, tail.end
            ));
        }
    }

    fn unlisted(&mut self, manifest: &Manifest) -> Result<(), OpenError> {
        let files = match list_files(&mut self.files.disk) {
            Ok(files) => files,
            Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for file in files {
            let listed = match names::kind(&file.name) {
                names::Kind::Manifest => true,
                names::Kind::Segment(segment) | names::Kind::Index(segment) => {
                    let is = |entry: &ManifestSegment| entry.segment == segment;
                    // Numbers that the manifest does not know yet are those of a writer at work.
                    segment >= manifest.next_segment || manifest.segments.iter().any(is)
                }
                names::Kind::Catalogue(number) => {
                    let newest = manifest.catalogue.last().map_or(0, |part| part.number);
                    number > newest || manifest.catalogue.iter().any(|part| part.number == number)
                }
                names::Kind::Other => false,
            };
            if !listed {
                let shard = self.identity().shard;
                self.report.notes.push(format!("shard {shard}: {} is not listed", file.name));
            }
        }
        Ok(())
    }
}
