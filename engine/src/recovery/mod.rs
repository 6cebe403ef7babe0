//! From what is on disk to a log that can go on.
//!
//! Straight-line code over a [`Disk`], one operation or one window of reads at a time; no clock,
//! no thread. Only segments that are not sealed are read, and after a clean close none. Three
//! steps:
//!
//! 1. [`load`]: the manifest and the catalogue;
//! 2. [`tail::scan`]: where the log ends, what of it is proven durable, what is damaged; after a
//!    clean close the manifest and the index of the open segment say so ([`closed`]);
//! 3. [`resume::resume`] (writing only): the epoch is raised, what is not proven durable is written
//!    again, and the shard gets its start.
//!
//! Commit points: the manifest that raises the epoch, and the manifest that lists the rewritten
//! segments. A crash at any place leaves a state from which the same steps come to the same log.

mod closed;
pub(crate) mod rebuild;
pub(crate) mod resume;
pub(crate) mod table;
pub(crate) mod tail;
pub(crate) mod watch;

use std::time::Duration;

use ringlog_disk::{Disk, DiskError, DiskErrorKind, Done, Listed, Op, run};

use crate::error::{Corruption, OpenError};
use crate::format::Refused;
use crate::format::batch::{BatchHeader, FrameKind, FrameRef, check_body};
use crate::format::catalogue::{self, CatalogueEntry};
use crate::format::manifest::{CataloguePart, Manifest, ManifestSegment, SegmentState};
use crate::ids::{LogId, Lsn, Offset, SegmentId, StreamId};
use crate::limits::{STREAM_NAME_BYTES_MAX, STREAMS_MAX};
use crate::names;
use crate::shard::Streams;

/// What was found and done when a shard was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardRecovery {
    /// The shard.
    pub shard: u16,
    /// Whether the log had been closed cleanly.
    pub clean: bool,
    /// Listed segments, sealed ones included.
    pub segments: usize,
    /// Records found in the segments that were scanned.
    pub records: u64,
    /// Bytes read while scanning.
    pub bytes_scanned: u64,
    /// Bytes behind the end of the log that held remains of a batch which was never acknowledged.
    pub bytes_cut: u64,
    /// Why the log ends where it ends, when remains were cut.
    pub cut_reason: Option<String>,
    /// Records that were written again, because nothing proved that they were durable.
    pub records_rewritten: u64,
    /// Damage that was met; only in read-only mode is a log opened all the same.
    pub corruptions: Vec<Corruption>,
    /// How long scanning took.
    pub scan_time: Duration,
    /// How long all of it took.
    pub elapsed: Duration,
}

/// What identifies a shard on disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) log: LogId,
    pub(crate) shard: u16,
    pub(crate) segment_bytes: u64,
}

impl Identity {
    pub(crate) fn corruption(
        &self,
        segment: Option<SegmentId>,
        file: &str,
        file_offset: u64,
        lsn: Option<Lsn>,
        what: impl Into<String>,
    ) -> Corruption {
        let (file, what) = (file.to_owned(), what.into());
        Corruption { shard: self.shard, segment, file, file_offset, lsn, what }
    }

    /// An error for a small file that was refused.
    pub(crate) fn refused(&self, file: &str, refused: Refused) -> OpenError {
        match refused {
            Refused::Version(found) => OpenError::UnknownVersion {
                file: file.to_owned(),
                found,
                known: crate::format::VERSION,
            },
            Refused::Features(found) => OpenError::UnknownFeatures { file: file.to_owned(), found },
            Refused::Damaged(what) => {
                OpenError::Corrupt(self.corruption(None, file, 0, None, what))
            }
        }
    }
}

/// Runs an operation on names and gives what it brought.
pub(crate) fn ask(disk: &mut dyn Disk, op: Op) -> Result<Done, DiskError> {
    run(disk, op).result
}

pub(crate) fn load_file(
    disk: &mut dyn Disk,
    name: ringlog_disk::FileName,
    limit_bytes: u64,
) -> Result<Vec<u8>, DiskError> {
    match ask(disk, Op::Load { name, limit_bytes })? {
        Done::Loaded(content) => Ok(content),
        _ => Ok(Vec::new()),
    }
}

pub(crate) fn list_files(disk: &mut dyn Disk) -> Result<Vec<Listed>, DiskError> {
    match ask(disk, Op::List)? {
        Done::Listed { files, .. } => Ok(files),
        _ => Ok(Vec::new()),
    }
}

/// The manifest and the streams that the catalogue knows.
pub(crate) fn load(
    disk: &mut dyn Disk,
    identity: &Identity,
) -> Result<(Manifest, Streams), OpenError> {
    let manifest = load_manifest(disk, identity)?;
    let streams = load_streams(disk, identity, &manifest)?;
    Ok((manifest, streams))
}

/// The streams that the catalogue knows.
pub(crate) fn load_streams(
    disk: &mut dyn Disk,
    identity: &Identity,
    manifest: &Manifest,
) -> Result<Streams, OpenError> {
    let mut streams = Streams::default();
    for part in &manifest.catalogue {
        for entry in load_part(disk, identity, part)? {
            streams.catalogued(entry);
        }
    }
    Ok(streams)
}

/// One listed part of the catalogue.
pub(crate) fn load_part(
    disk: &mut dyn Disk,
    identity: &Identity,
    part: &CataloguePart,
) -> Result<Vec<CatalogueEntry>, OpenError> {
    let name = names::catalogue(part.number);
    let damaged =
        |what: &str| OpenError::Corrupt(identity.corruption(None, name.as_str(), 0, None, what));
    let file = match load_file(disk, name.clone(), catalogue::PART_BYTES_MAX) {
        Ok(file) => file,
        Err(error) if error.kind == DiskErrorKind::NotFound => {
            return Err(damaged("a listed part of the stream catalogue is missing"));
        }
        Err(error) if error.kind == DiskErrorKind::Unexpected => {
            return Err(damaged("expected a part of the stream catalogue, found something else"));
        }
        Err(error) => return Err(error.into()),
    };
    if file.len() as u64 != part.bytes || crc32fast::hash(&file) != part.crc {
        return Err(damaged("a part of the stream catalogue is not the one that is listed"));
    }
    let entries = catalogue::decode(&file, identity.log, identity.shard, part.number)
        .map_err(|refused| identity.refused(name.as_str(), refused))?;
    if entries.iter().any(|entry| entry.stream.0 >= STREAMS_MAX) {
        return Err(damaged("a stream number that is too large"));
    }
    Ok(entries)
}

pub(crate) fn load_manifest(
    disk: &mut dyn Disk,
    identity: &Identity,
) -> Result<Manifest, OpenError> {
    let name = names::manifest();
    let file = match load_file(disk, name.clone(), Manifest::FILE_BYTES_MAX) {
        Ok(file) => file,
        Err(error) if error.kind == DiskErrorKind::NotFound => {
            let what = "the manifest is missing";
            return Err(OpenError::Corrupt(identity.corruption(
                None,
                name.as_str(),
                0,
                None,
                what,
            )));
        }
        Err(error) => return Err(error.into()),
    };
    let manifest =
        Manifest::decode(&file).map_err(|refused| identity.refused(name.as_str(), refused))?;
    if manifest.log != identity.log || manifest.shard != identity.shard {
        let what = "a manifest of another log or shard";
        return Err(OpenError::Corrupt(identity.corruption(None, name.as_str(), 0, None, what)));
    }
    // Whoever walks through a segment goes as far as the manifest says.
    let too_long = |entry: &ManifestSegment| match entry.state {
        SegmentState::Sealed { sealed, .. } | SegmentState::Closed { so_far: sealed } => {
            sealed.end_lsn.0.saturating_sub(sealed.base_lsn.0) > identity.segment_bytes
        }
        SegmentState::Unsealed => false,
    };
    if let Some(entry) = manifest.segments.iter().find(|entry| too_long(entry)) {
        let what = format!("segment {} ends behind its file", entry.segment);
        return Err(OpenError::Corrupt(identity.corruption(None, name.as_str(), 0, None, what)));
    }
    Ok(manifest)
}

/// What a validated batch changes in the streams of its shard.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Consecutive records of one stream: the stream, the first offset, how many.
    pub(crate) runs: Vec<(StreamId, Offset, u32)>,
    pub(crate) created: Vec<(StreamId, std::sync::Arc<str>)>,
    /// Streams that were trimmed, each to an offset.
    pub(crate) trimmed: Vec<(StreamId, Offset)>,
    pub(crate) records: u64,
}

impl Effects {
    pub(crate) fn apply(self, streams: &mut Streams) {
        for (stream, name) in self.created {
            streams.created(stream, name);
        }
        for (stream, first, records) in self.runs {
            streams.found(stream, Offset(first.0.saturating_add(u64::from(records))));
        }
        for (stream, before) in self.trimmed {
            streams.trim(stream, before);
        }
    }
}

/// Validates the body of a batch and collects what it changes.
pub(crate) fn read_effects(
    header: &BatchHeader,
    batch: &[u8],
    identity: &Identity,
) -> Result<Effects, (usize, String)> {
    let mut effects = Effects::default();
    let mut bad = None;
    let visit = |frame: FrameRef| {
        if frame.stream.0 >= STREAMS_MAX {
            bad.get_or_insert("a stream number that is too large");
        }
        effects.records += u64::from(frame.stream != StreamId::CATALOGUE);
        match effects.runs.last_mut() {
            Some((stream, first, records))
                if *stream == frame.stream
                    && first.0.checked_add(u64::from(*records)) == Some(frame.offset.0) =>
            {
                *records += 1;
            }
            _ => effects.runs.push((frame.stream, frame.offset, 1)),
        }
        let start = frame.payload_start as usize;
        let payload = || &batch[start..start + frame.payload_bytes as usize];
        match frame.kind {
            FrameKind::CreateStream => match creation(payload()) {
                Some(created) => effects.created.push(created),
                None => {
                    bad.get_or_insert("a creation of a stream that cannot be read");
                }
            },
            FrameKind::TrimStream => match trim(payload()) {
                Some(trimmed) => effects.trimmed.push(trimmed),
                None => {
                    bad.get_or_insert("a trim of a stream that cannot be read");
                }
            },
            FrameKind::Record | FrameKind::Tombstone | FrameKind::Void => {}
        }
    };
    check_body(header, batch, identity.log, identity.shard, visit)?;
    match bad {
        None => Ok(effects),
        Some(what) => Err((0, what.to_owned())),
    }
}

/// Reads the payload of a frame that creates a stream.
pub(crate) fn creation(payload: &[u8]) -> Option<(StreamId, std::sync::Arc<str>)> {
    let (id, name) = payload.split_first_chunk::<4>()?;
    let id = StreamId(u32::from_le_bytes(*id));
    let name = std::str::from_utf8(name).ok()?;
    let fits = id != StreamId::CATALOGUE
        && id.0 < STREAMS_MAX
        && (1..=STREAM_NAME_BYTES_MAX).contains(&name.len());
    fits.then(|| (id, std::sync::Arc::from(name)))
}

/// Reads the payload of a frame that trims a stream.
pub(crate) fn trim(payload: &[u8]) -> Option<(StreamId, Offset)> {
    let (id, before) = payload.split_first_chunk::<4>()?;
    let id = StreamId(u32::from_le_bytes(*id));
    let before = Offset(u64::from_le_bytes(before.try_into().ok()?));
    (id != StreamId::CATALOGUE && id.0 < STREAMS_MAX).then_some((id, before))
}
