//! What a log consists of.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use ringlog_disk::{BlockPool, Disk, DiskErrorKind, DiskProfile, Op, run};

use super::walk::{Item, Stretch};
use super::{Meter, ShardFiles, open_dir, read_meta, shard_dir};
use crate::error::{Corruption, OpenError};
use crate::format::index::IndexHeader;
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::segment::Sealed;
use crate::ids::{Epoch, LogId, Lsn, Offset, SegmentId, StreamId};
use crate::limits::BLOCK_BYTES;
use crate::names;
use crate::options::FrozenFormat;
use crate::profile;
use crate::recovery::{ask, list_files, load, tail};
use crate::shard::Streams;

/// How often a log that changes while it is looked at is looked at again.
const ATTEMPTS: usize = 8;

/// What a log consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The log's identity.
    pub log_id: LogId,
    /// The newest life of any of its shards.
    pub epoch: Epoch,
    /// What was frozen when it was created.
    pub format: FrozenFormat,
    /// When it was created, in nanoseconds since 1970.
    pub created_ns: u64,
    /// What was measured of the disk, where a profile is stored that holds here.
    pub profile: Option<DiskProfile>,
    /// Its shards, in order.
    pub shards: Vec<ShardInspection>,
}

/// What a shard consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardInspection {
    /// Its number.
    pub shard: u16,
    /// Whether it was closed cleanly.
    pub clean: bool,
    /// Everything before this is known to be durable.
    pub proven_lsn: Lsn,
    /// Its listed segments, oldest first.
    pub segments: Vec<SegmentInspection>,
    /// Its streams, by number.
    pub streams: Vec<StreamInspection>,
    /// Damage to what was durable once, met in the segments that are not sealed. What lies behind
    /// it is not described here.
    pub damage: Option<Corruption>,
}

/// Where a segment is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentLife {
    /// Ready to be written, empty.
    Prepared,
    /// Being written, or about to be sealed.
    Open,
    /// Immutable.
    Sealed,
}

impl fmt::Display for SegmentLife {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepared => "prepared",
            Self::Open => "open",
            Self::Sealed => "sealed",
        })
    }
}

/// A listed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInspection {
    /// Its number.
    pub id: SegmentId,
    /// Where it is in its life.
    pub state: SegmentLife,
    /// LSN of its first batch; where the log ends, for an empty one.
    pub base_lsn: Lsn,
    /// LSN behind its last batch.
    pub end_lsn: Lsn,
    /// How many entries it holds: records and creations of streams.
    pub records: u64,
    /// Length of its file in bytes; 0 when it is missing.
    pub bytes: u64,
    /// Time of its first batch, in nanoseconds since 1970.
    pub first_time_ns: Option<u64>,
    /// Time of its last batch, in nanoseconds since 1970.
    pub last_time_ns: Option<u64>,
    /// Its index, for a sealed one.
    pub index: Option<IndexState>,
    /// Which offsets of which streams it holds, by number; `None` where that was not asked for.
    pub streams: Option<Vec<SegmentStream>>,
}

/// The index of a sealed segment, by its first page. None is needed: one that is not good is made
/// anew when a reader wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IndexState {
    /// It covers the segment.
    Present,
    /// It covers the beginning of the segment; only the rest has to be indexed.
    Behind,
    /// There is none.
    Missing,
    /// It is damaged, or of something else.
    Wrong,
}

impl fmt::Display for IndexState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Present => "present",
            Self::Behind => "behind",
            Self::Missing => "missing",
            Self::Wrong => "wrong",
        })
    }
}

/// What a segment holds of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentStream {
    /// The stream's number in its shard.
    pub id: StreamId,
    /// The first offset.
    pub first_offset: Offset,
    /// The last offset.
    pub last_offset: Offset,
    /// How many offsets lie here.
    pub records: u64,
}

/// A stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInspection {
    /// Its name.
    pub name: String,
    /// Its number in its shard.
    pub id: StreamId,
    /// How many offsets there are from the first to the next, gaps included.
    pub records: u64,
    /// The first offset that is still there; the next one where nothing is.
    pub first_offset: Offset,
    /// The offset that its next record gets.
    pub next_offset: Offset,
}

/// Tells what a log consists of. Changes nothing and takes no lock; the log may be written
/// meanwhile, then this is how it was at some moment of the call.
///
/// Cost: reads what recovery would read; where the head of a shard was trimmed, also its batches
/// from the head on, until the first record of each stream has been met.
///
/// # Errors
/// See [`OpenError`]. Damage in sealed segments goes unnoticed; damage that keeps the log from
/// being described is [`OpenError::Corrupt`]: use [`crate::verify`].
pub fn inspect(dir: impl AsRef<Path>) -> Result<Inspection, OpenError> {
    look(dir.as_ref(), false)
}

/// The same, and tells which offsets of which streams each segment holds.
///
/// Cost: reads the log once.
///
/// # Errors
/// As [`inspect`]. What is damaged in a sealed segment is left out.
pub fn inspect_segments(dir: impl AsRef<Path>) -> Result<Inspection, OpenError> {
    look(dir.as_ref(), true)
}

fn look(path: &Path, segment_streams: bool) -> Result<Inspection, OpenError> {
    let dir = open_dir(path)?;
    let meta = read_meta(path, &dir)?;
    let mut shards = Vec::with_capacity(meta.shards.into());
    let mut epoch = Epoch(0);
    for shard in 0..meta.shards {
        let shard_dir = shard_dir(&dir, shard)?.map_err(OpenError::Corrupt)?;
        let mut files = ShardFiles::open(&shard_dir, &meta, shard)?;
        let (of_shard, inspection) = inspect_shard(&mut files, segment_streams)?;
        epoch = epoch.max(of_shard);
        shards.push(inspection);
    }
    Ok(Inspection {
        log_id: meta.log,
        epoch,
        format: meta.into(),
        created_ns: meta.created_ns,
        profile: profile::look(&dir, meta.log),
        shards,
    })
}

/// Tries again while the files change under it.
fn inspect_shard(
    files: &mut ShardFiles,
    segment_streams: bool,
) -> Result<(Epoch, ShardInspection), OpenError> {
    let mut attempt = 1;
    loop {
        match try_inspect(files, segment_streams) {
            Err(OpenError::Corrupt(_)) if attempt < ATTEMPTS => attempt += 1,
            // A writer at work may have gone on between two looks.
            Ok((_, inspection)) if inspection.damage.is_some() && attempt < ATTEMPTS => {
                attempt += 1;
            }
            Err(OpenError::Disk(error))
                if error.kind == DiskErrorKind::NotFound && attempt < ATTEMPTS =>
            {
                attempt += 1;
            }
            result => return result,
        }
    }
}

fn try_inspect(
    files: &mut ShardFiles,
    segment_streams: bool,
) -> Result<(Epoch, ShardInspection), OpenError> {
    let disk: &mut dyn Disk = &mut files.disk;
    let (manifest, streams) = load(disk, &files.identity)?;
    let mut tail = tail::scan(disk, &files.identity, &manifest, streams, &files.pool)?;
    while let Some(batch) = tail.unproven.pop_front() {
        tail::take_proven(&mut tail, batch);
    }
    let mut segments = segments(files, &manifest, &tail)?;
    if segment_streams {
        for segment in &mut segments {
            segment.streams = Some(streams_of(files, segment)?);
        }
    }
    let firsts = first_offsets(files, &manifest, &segments, &tail.streams)?;
    let next = |id| tail.streams.next(id);
    let trimmed_before: BTreeMap<StreamId, Offset> = tail.streams.trims().collect();
    let streams = tail.streams.named().map(|(id, name)| {
        let next_offset = next(id);
        let trimmed = trimmed_before.get(&id).copied().unwrap_or_default();
        let first_offset = firsts.get(&id).copied().unwrap_or(next_offset);
        let first_offset = first_offset.max(trimmed).min(next_offset);
        StreamInspection {
            name: name.to_string(),
            id,
            records: next_offset.0 - first_offset.0,
            first_offset,
            next_offset,
        }
    });
    let inspection = ShardInspection {
        shard: files.identity.shard,
        clean: manifest.clean,
        proven_lsn: tail.proven,
        streams: streams.collect(),
        segments,
        damage: tail.corruption,
    };
    Ok((manifest.epoch, inspection))
}

fn segments(
    files: &mut ShardFiles,
    manifest: &Manifest,
    tail: &tail::Tail,
) -> Result<Vec<SegmentInspection>, OpenError> {
    let listed = list_files(&mut files.disk)?;
    let mut segments = Vec::with_capacity(manifest.segments.len());
    for entry in &manifest.segments {
        let open = tail.proven_parts.iter().find(|part| part.segment == entry.segment);
        let (state, held) = match (entry.state, open) {
            (SegmentState::Sealed { sealed, .. }, _) => (SegmentLife::Sealed, Some(sealed)),
            (SegmentState::Closed { so_far }, _) => (SegmentLife::Open, Some(so_far)),
            (SegmentState::Unsealed, Some(part)) => (SegmentLife::Open, Some(part.so_far)),
            (SegmentState::Unsealed, None) => (SegmentLife::Prepared, None),
        };
        let name = names::segment(entry.segment);
        let bytes = listed.iter().find(|file| file.name == name).map_or(0, |file| file.bytes);
        let index = match (state, held) {
            (SegmentLife::Sealed, Some(sealed)) => Some(index_state(files, entry.segment, &sealed)),
            _ => None,
        };
        segments.push(SegmentInspection {
            id: entry.segment,
            state,
            base_lsn: held.map_or(tail.end, |held| held.base_lsn),
            end_lsn: held.map_or(tail.end, |held| held.end_lsn),
            records: held.map_or(0, |held| held.records),
            bytes,
            first_time_ns: held.map(|held: Sealed| held.first_ns).filter(|ns| *ns > 0),
            last_time_ns: held.map(|held| held.last_ns).filter(|ns| *ns > 0),
            index,
            streams: None,
        });
    }
    Ok(segments)
}

/// Looks at the first page of an index.
fn index_state(files: &mut ShardFiles, segment: SegmentId, sealed: &Sealed) -> IndexState {
    let open = Op::Open { file: tail::SCAN_FILE, name: names::index(segment), write: false };
    let disk = &mut files.disk;
    match ask(disk, open) {
        Ok(_) => {}
        Err(error) if error.kind == DiskErrorKind::NotFound => return IndexState::Missing,
        Err(_) => return IndexState::Wrong,
    }
    let identity = files.identity;
    let block = BlockPool::new(1, BLOCK_BYTES).ok().and_then(|pool| pool.take());
    let header = block.and_then(|block| {
        let read = Op::Read { file: tail::SCAN_FILE, offset: 0, block, len: BLOCK_BYTES };
        let done = run(disk, read);
        let page = done.result.ok().and(done.slices.first())?;
        IndexHeader::decode(&page.block, identity.log, identity.shard, segment).ok()
    });
    let _ = ask(disk, Op::Close { file: tail::SCAN_FILE }); // only read from
    match header {
        Some(header) if header.covers == *sealed => IndexState::Present,
        Some(IndexHeader { covers, .. })
            if covers.base_lsn == sealed.base_lsn && covers.end_lsn < sealed.end_lsn =>
        {
            IndexState::Behind
        }
        _ => IndexState::Wrong,
    }
}

/// Which offsets of which streams a segment holds.
fn streams_of(
    files: &mut ShardFiles,
    segment: &SegmentInspection,
) -> Result<Vec<SegmentStream>, OpenError> {
    let mut streams: BTreeMap<StreamId, SegmentStream> = BTreeMap::new();
    if segment.base_lsn == segment.end_lsn {
        return Ok(Vec::new());
    }
    let Ok(mut file) = files.segment(segment.id)? else { return Ok(Vec::new()) };
    let stretch =
        Stretch { base: segment.base_lsn, end: segment.end_lsn, chain: None, chain_end: None };
    let items = file.walk(&stretch, None, &mut Meter::new(&mut |_| {}))?;
    file.close()?;
    let batches = items.iter().filter_map(|item| match item {
        Item::Batch(batch) => Some(batch),
        Item::Hole(_) => None,
    });
    let runs = batches.flat_map(|batch| &batch.runs);
    for run in runs.filter(|run| run.stream != StreamId::CATALOGUE && run.count > 0) {
        let last_offset = Offset(run.base.0.saturating_add(u64::from(run.count) - 1));
        streams
            .entry(run.stream)
            .and_modify(|known| {
                known.last_offset = last_offset;
                known.records += u64::from(run.count);
            })
            .or_insert(SegmentStream {
                id: run.stream,
                first_offset: run.base,
                last_offset,
                records: run.count.into(),
            });
    }
    Ok(streams.into_values().collect())
}

/// The first offset of each stream that has records.
fn first_offsets(
    files: &mut ShardFiles,
    manifest: &Manifest,
    segments: &[SegmentInspection],
    streams: &Streams,
) -> Result<BTreeMap<StreamId, Offset>, OpenError> {
    let all: Vec<StreamId> = streams.named().map(|(id, _)| id).collect();
    if manifest.trimmed_lsn == Lsn(0) {
        return Ok(all.into_iter().map(|id| (id, Offset(0))).collect());
    }
    let mut wanted = all.iter().filter(|id| streams.next(**id) > Offset(0)).count();
    let mut firsts = BTreeMap::new();
    let mut ignored = |_| {};
    let mut meter = Meter::new(&mut ignored);
    for segment in segments.iter().filter(|segment| segment.base_lsn < segment.end_lsn) {
        if wanted == 0 {
            break;
        }
        let Ok(mut file) = files.segment(segment.id)? else { continue };
        let stretch =
            Stretch { base: segment.base_lsn, end: segment.end_lsn, chain: None, chain_end: None };
        for item in file.walk(&stretch, None, &mut meter)? {
            let Item::Batch(batch) = item else { continue };
            for run in batch.runs.iter().filter(|run| run.stream != StreamId::CATALOGUE) {
                firsts.entry(run.stream).or_insert_with(|| {
                    wanted = wanted.saturating_sub(1);
                    run.base
                });
            }
        }
        file.close()?;
    }
    Ok(firsts)
}
