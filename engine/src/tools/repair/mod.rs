//! Making a damaged log whole again, without what is damaged.
//!
//! For each shard: what is there is walked as `verify` walks it; then each segment with damage is
//! written anew, with its valid batches where they were and gap markers between them; then the
//! catalogue; and last the manifest, which lists all of it as sealed, under a new life.
//!
//! Nothing is changed in place. Every file is copied before another one takes its name, and takes
//! its name by a rename of a file that is complete and flushed. So a repair that was cut short
//! leaves a log that is damaged as before, or less, and can be repaired again. The commit point of
//! a shard is its manifest.

mod backup;
mod meta;
mod rebuild;
mod survey;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ringlog_disk::planted::{Bug, planted};
use ringlog_disk::{AnyDisk, DiskError, DiskErrorKind, IoKind, Op, Place};

use self::backup::Backup;
use self::rebuild::Rebuilder;
use self::survey::{Piece, Survey, survey};
use super::ledger::{Catalogue, Ledger, Missing};
use super::verify::{ShardCheck, VerifyReport};
use super::walk::Item;
use super::{Meter, Progress, ShardFiles, open_dir};
use crate::error::OpenError;
use crate::format::catalogue::{self, CatalogueEntry};
use crate::format::manifest::{CataloguePart, Manifest, ManifestSegment, SegmentState};
use crate::format::meta::LogMeta;
use crate::ids::{Epoch, Offset, StreamId};
use crate::names;
use crate::open::{empty_manifest, reading_disk};
use crate::recovery::ask;

/// How long the lock of a process that is just going is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Records of a stream that are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostRange {
    /// The stream.
    pub stream: String,
    /// The first offset that is lost.
    pub first: Offset,
    /// The first offset that is not.
    pub next: Offset,
}

/// What a repair has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// Where copies of all changed files are; `None` when nothing had to be changed.
    pub backup: Option<PathBuf>,
    /// Segments that were written anew.
    pub segments_repaired: u64,
    /// Bytes of log in whose place there is a gap now.
    pub bytes_dropped: u64,
    /// Every offset range that is missing from the repaired shards, also those that an earlier
    /// repair gave up. Where it cannot be told how many records were lost at the end of a stream,
    /// the range is the largest possible one, and the stream goes on behind it: no offset is ever
    /// given twice.
    pub lost: Vec<LostRange>,
    /// What was done besides, and what cannot be told.
    pub notes: Vec<String>,
}

impl RepairReport {
    /// Whether anything had to be changed.
    pub fn changed(&self) -> bool {
        self.backup.is_some()
    }
}

/// Makes a damaged log whole again: keeps every valid batch at its place, gives up what is damaged,
/// puts gap markers there, and says which offsets are lost. Afterwards the log opens, and readers
/// tell of the gaps with [`crate::ReadError::Lost`]. A log that is sound is not touched.
///
/// Copies each file that it replaces into a new directory `repair-<n>` in the log's directory
/// first; nothing ever removes that but you. Cut short, it can be run again.
///
/// Cost: reads the log once, a damaged shard three times, and writes each damaged segment twice (the copy and the new one).
///
/// # Errors
/// See [`OpenError`]: the log is open elsewhere, is of a newer version, or the disk refuses.
pub fn repair(
    dir: impl AsRef<Path>,
    progress: &mut dyn FnMut(Progress),
) -> Result<RepairReport, OpenError> {
    let path = dir.as_ref();
    let dir = open_dir(path)?;
    if !dir.is_writable()? {
        let doing = format!("open {} for writing", path.display());
        return Err(DiskError::new(DiskErrorKind::Access, doing).into());
    }
    if !dir.lock_exclusive(LOCK_PATIENCE)? {
        return Err(OpenError::Locked(path.to_owned()));
    }
    let _ = dir.hold_writer_mark(); // who cannot see it takes what it finds for damage, and says so
    let mut report = RepairReport::default();
    let mut backup = Backup::new(path);
    let meta = meta::find_or_rebuild(path, &dir, &mut backup, &mut report)?;
    let mut meter = Meter::new(progress);
    for shard in 0..meta.shards {
        ShardRepair::run(&dir, &meta, shard, &mut backup, &mut report, &mut meter)?;
    }
    report.backup = backup.made();
    Ok(report)
}

/// What is known of the streams of a shard.
struct Book {
    next_offsets: BTreeMap<StreamId, Offset>,
    names: BTreeMap<StreamId, Arc<str>>,
    trimmed_before: BTreeMap<StreamId, Offset>,
}

struct ShardRepair<'a> {
    files: ShardFiles,
    /// For writing; `files` reads meanwhile.
    disk: AnyDisk,
    shard: u16,
    backup: &'a mut Backup,
    report: &'a mut RepairReport,
}

impl<'a> ShardRepair<'a> {
    fn run(
        dir: &Place,
        meta: &LogMeta,
        shard: u16,
        backup: &'a mut Backup,
        report: &'a mut RepairReport,
        meter: &mut Meter<'_>,
    ) -> Result<(), OpenError> {
        let name = names::shard(shard);
        let (shard_dir, is_new) = match dir.subdir(&name, false) {
            Ok(shard_dir) => (shard_dir, false),
            Err(error) if error.kind == DiskErrorKind::NotFound => {
                backup.begin()?;
                report
                    .notes
                    .push(format!("shard {shard} was missing as a whole: all of it is lost"));
                (dir.subdir(&name, true)?, true)
            }
            Err(error) => return Err(error.into()),
        };
        let mut repair = Self {
            files: ShardFiles::open(&shard_dir, meta, shard)?,
            disk: reading_disk(&shard_dir, IoKind::Blocking)?,
            shard,
            backup,
            report,
        };
        if is_new {
            let content = empty_manifest(meta.log, shard).encode();
            ask(&mut repair.disk, Op::Replace { name: names::manifest(), content })?;
            return Ok(());
        }
        let mut checked = VerifyReport::default();
        ShardCheck::run(ShardFiles::open(&shard_dir, meta, shard)?, &mut checked, meter)?;
        if checked.damage.is_empty() {
            return Ok(());
        }
        let found = survey(&mut repair.files, meter)?;
        repair.apply(found)
    }

    fn apply(&mut self, mut found: Survey) -> Result<(), OpenError> {
        self.backup.begin()?;
        self.report.notes.append(&mut found.notes);
        let book = self.book(&found);
        let mut segments = Vec::with_capacity(found.pieces.len());
        let mut chain = found.trimmed_chain;
        let mut last_ns = 0;
        for at in 0..found.pieces.len() {
            let after = found.pieces.get(at + 1).and_then(|next| next.items.first());
            let after = after.and_then(Item::previous);
            let piece = &found.pieces[at];
            let new = piece.must_be_written() && {
                self.backup_segment(piece)?;
                true
            };
            let mut rebuilder = Rebuilder {
                files: &mut self.files,
                disk: &mut self.disk,
                epoch: found.epoch,
                last_ns,
            };
            let sealed = match new {
                true => rebuilder.rewrite(piece, chain, after)?,
                false => rebuilder.sums(piece, chain),
            };
            let footer = new || piece.footer == Some(sealed);
            self.report.segments_repaired += u64::from(new);
            self.report.bytes_dropped += piece.hole_bytes();
            (chain, last_ns) = (sealed.chain_end, last_ns.max(sealed.last_ns));
            let state = SegmentState::Sealed { sealed, footer };
            segments.push(ManifestSegment { segment: piece.segment, state });
        }
        for dropped in &found.dropped {
            self.backup.copy(self.shard, names::segment(*dropped).as_str())?;
        }
        self.commit(&found, segments, &book)
    }

    fn backup_segment(&mut self, piece: &Piece) -> Result<(), OpenError> {
        if planted(Bug::RepairWithoutCopy) {
            return Ok(());
        }
        self.backup.copy(self.shard, names::segment(piece.segment).as_str())
    }

    /// The catalogue, then the manifest.
    fn commit(
        &mut self,
        found: &Survey,
        segments: Vec<ManifestSegment>,
        book: &Book,
    ) -> Result<(), OpenError> {
        for number in &found.part_numbers {
            self.backup.copy(self.shard, names::catalogue(*number).as_str())?;
        }
        self.backup.copy(self.shard, names::MANIFEST_FILE)?;
        let number = found.part_numbers.iter().max().copied().unwrap_or(0) + 1;
        let trimmed = |stream| book.trimmed_before.get(stream).copied().unwrap_or_default();
        let entries: Vec<CatalogueEntry> = book
            .next_offsets
            .iter()
            .map(|(stream, next_offset)| CatalogueEntry {
                stream: *stream,
                next_offset: *next_offset,
                trimmed_before: trimmed(stream).min(*next_offset),
                name: book.names.get(stream).cloned(),
            })
            .collect();
        let identity = self.files.identity;
        let mut parts = Vec::new();
        if !entries.is_empty() {
            let content = catalogue::encode(identity.log, identity.shard, number, &entries);
            let (bytes, crc) = (content.len() as u64, crc32fast::hash(&content));
            ask(&mut self.disk, Op::Replace { name: names::catalogue(number), content })?;
            parts.push(CataloguePart { number, bytes, crc });
        }
        let mut manifest = Manifest {
            generation: found.generation + 1,
            epoch: Epoch(found.epoch.0 + 1),
            next_segment: found.next_segment,
            trimmed_lsn: found.trimmed_lsn,
            trimmed_chain: found.trimmed_chain,
            catalogue: parts,
            segments,
            ..empty_manifest(identity.log, identity.shard)
        };
        let (end, _) = manifest.sealed_end();
        manifest.life_lsn = end;
        manifest.proven_lsn = end;
        manifest.catalogued_lsn = end;
        let content = manifest.encode();
        ask(&mut self.disk, Op::Replace { name: names::manifest(), content })?;
        Ok(())
    }

    /// Where each stream begins and goes on, what it is called, and what of it is lost.
    fn book(&mut self, found: &Survey) -> Book {
        let mut ledger = Ledger::new(found.trimmed_lsn.0 > 0);
        let mut catalogued = found.catalogued;
        for item in found.pieces.iter().flat_map(|piece| &piece.items) {
            if catalogued.take_if(|at| *at <= item.from()).is_some() {
                goes_on(&mut ledger, &found.catalogue);
            }
            match item {
                Item::Batch(batch) => drop(ledger.batch(batch)),
                Item::Hole(hole) => ledger.hole(hole),
            }
        }
        if catalogued.is_some() {
            goes_on(&mut ledger, &found.catalogue);
        }
        for (stream, known) in &found.catalogue {
            ledger.know(*stream, known.next);
        }
        for stream in ledger.created.keys().copied().collect::<Vec<_>>() {
            ledger.know(stream, Offset(0));
        }
        let mut lost = std::mem::take(&mut ledger.missing);
        let seen = ledger.streams.iter();
        let mut next_offsets: BTreeMap<StreamId, Offset> =
            seen.map(|(stream, seen)| (*stream, Offset(seen.next))).collect();
        for missing in ledger.open_ended() {
            if !planted(Bug::RepairGivesOffsetsTwice) {
                next_offsets.insert(missing.stream, missing.next);
            }
            lost.push(missing);
        }
        let mut names: BTreeMap<StreamId, Arc<str>> = BTreeMap::new();
        let catalogued = found.catalogue.iter();
        names.extend(catalogued.filter_map(|(id, known)| Some((*id, known.name.clone()?))));
        names.extend(ledger.created.iter().map(|(id, name)| (*id, Arc::clone(name))));
        let mut taken: BTreeSet<Arc<str>> = names.values().cloned().collect();
        for stream in next_offsets.keys().filter(|stream| **stream != StreamId::CATALOGUE) {
            if names.contains_key(stream) {
                continue;
            }
            let mut name = format!("recovered-{}-{}", self.shard, stream.0);
            while taken.contains(name.as_str()) {
                name.push('-');
            }
            self.report.notes.push(format!("the name of a stream was lost; it is {name} now"));
            let name = Arc::<str>::from(name);
            taken.insert(Arc::clone(&name));
            names.insert(*stream, name);
        }
        let mut trimmed_before = std::mem::take(&mut ledger.trimmed_before);
        for (stream, known) in &found.catalogue {
            let before = trimmed_before.entry(*stream).or_default();
            *before = known.trimmed_before.max(*before);
        }
        for missing in &mut lost {
            // What was trimmed before it was damaged is not lost.
            let before = trimmed_before.get(&missing.stream).copied().unwrap_or_default();
            missing.first = missing.first.max(before);
        }
        lost.retain(|missing| missing.first < missing.next);
        if !planted(Bug::RepairHidesLoss) {
            self.tell_lost(lost, &ledger, &names);
        }
        Book { next_offsets, names, trimmed_before }
    }

    fn tell_lost(
        &mut self,
        mut lost: Vec<Missing>,
        ledger: &Ledger,
        names: &BTreeMap<StreamId, Arc<str>>,
    ) {
        lost.sort_by_key(|missing| (missing.stream, missing.first));
        let mut ranges: Vec<Missing> = Vec::new();
        for missing in lost.into_iter().filter(|missing| missing.stream != StreamId::CATALOGUE) {
            match ranges.last_mut() {
                Some(last) if last.stream == missing.stream && last.next >= missing.first => {
                    last.next = last.next.max(missing.next);
                }
                _ => ranges.push(missing),
            }
        }
        for Missing { stream, first, next } in ranges {
            if let Some(name) = names.get(&stream) {
                self.report.lost.push(LostRange { stream: name.to_string(), first, next });
            }
        }
        for name in ledger.unclear.iter().filter_map(|stream| names.get(stream)) {
            self.report.notes.push(format!(
                "stream {name:?} begins behind a gap in a log whose head was trimmed: records \
                 before its first one may be lost"
            ));
        }
    }
}

fn goes_on(ledger: &mut Ledger, catalogue: &Catalogue) {
    for (stream, known) in catalogue {
        // A contradiction is settled by taking the larger offset.
        drop(ledger.goes_on(*stream, known.next));
    }
}
