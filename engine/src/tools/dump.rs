//! Everything that a log holds, in the order of the log.
//!
//! Each segment is walked first, so that what is shown is valid and continues the chain, and then
//! read once more for the payloads. What lies in a segment that a writer trims meanwhile is not
//! called damaged.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::tail_walk::walk_unsealed;
use super::walk::{Hole, Item, Stretch};
use super::{Meter, Progress, ShardFiles, open_dir, read_meta, shard_dir};
use crate::error::{Corruption, OpenError};
use crate::format::batch::{BatchHeader, FrameKind, FrameRef, check_body};
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::segment::SEGMENT_HEADER_BYTES;
use crate::ids::{Lsn, Offset, SegmentId, StreamId};
use crate::names;
use crate::recovery::{load, load_manifest, rebuild, tail};
use crate::shard::Streams;

/// How often the end of a log that is being written is looked at again before damage is believed.
const ATTEMPTS: usize = 8;

/// What an entry of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryKind {
    /// A record.
    Record,
    /// A record that states that earlier data no longer holds.
    Tombstone,
    /// An offset without a record.
    Void,
    /// An entry of the shard's own, such as the creation of a stream.
    Internal,
}

/// An entry of the log: a record, or what the shard notes for itself.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The shard that holds it.
    pub shard: u16,
    /// The segment that holds it.
    pub segment: SegmentId,
    /// The position of its batch in the shard.
    pub lsn: Lsn,
    /// The number of its stream in the shard.
    pub stream: StreamId,
    /// The name of its stream; `None` where nothing tells it, and for the shard's own entries.
    pub name: Option<&'a str>,
    /// Its position in its stream.
    pub offset: Offset,
    /// When it was placed, in nanoseconds since 1970.
    pub timestamp_ns: u64,
    /// What it is.
    pub kind: EntryKind,
    /// Whether it was trimmed from its stream, and lies here only until its segment goes.
    pub trimmed: bool,
    /// Its bytes.
    pub payload: &'a [u8],
}

/// What [`dump`] meets.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Dumped<'a> {
    /// An entry.
    Entry(Entry<'a>),
    /// Something that cannot be read; what follows lies behind it.
    Damage(Corruption),
    /// A segment that a writer has trimmed since the call began; the rest of it is gone.
    Trimmed {
        /// The shard.
        shard: u16,
        /// The segment.
        segment: SegmentId,
    },
}

/// Gives every entry of every stream that was placed at `since_ns` (nanoseconds since 1970) or
/// later to `visit`, shard by shard, each in the order of the log, until it asks to stop; and tells
/// `progress` now and then how far it is. Changes nothing and takes no lock; the log may be written
/// meanwhile. What a recovery would keep is shown.
///
/// Cost: reads the log twice, without the sealed segments that are older than `since_ns`.
///
/// # Errors
/// See [`OpenError`]: there is no log, or it is of a newer version, or the disk refuses, or a
/// manifest is damaged. Damage elsewhere is an item.
pub fn dump(
    dir: impl AsRef<Path>,
    since_ns: u64,
    progress: &mut dyn FnMut(Progress),
    visit: &mut dyn FnMut(Dumped<'_>) -> ControlFlow<()>,
) -> Result<(), OpenError> {
    let path = dir.as_ref();
    let dir = open_dir(path)?;
    let meta = read_meta(path, &dir)?;
    let mut meter = Meter::new(progress);
    for shard in 0..meta.shards {
        let shard_dir = match shard_dir(&dir, shard)? {
            Ok(shard_dir) => shard_dir,
            Err(damage) => match visit(Dumped::Damage(damage)) {
                ControlFlow::Continue(()) => continue,
                ControlFlow::Break(()) => return Ok(()),
            },
        };
        let files = ShardFiles::open(&shard_dir, &meta, shard)?;
        let mut dump = ShardDump { files, streams: Streams::default(), since_ns, visit };
        if dump.run(&mut meter)?.is_break() {
            break;
        }
    }
    Ok(())
}

struct ShardDump<'v> {
    files: ShardFiles,
    /// For the names.
    streams: Streams,
    since_ns: u64,
    visit: &'v mut dyn FnMut(Dumped<'_>) -> ControlFlow<()>,
}

type Flow = Result<ControlFlow<()>, OpenError>;

impl ShardDump<'_> {
    fn run(&mut self, meter: &mut Meter<'_>) -> Flow {
        let (manifest, mut tail) = self.settle()?;
        while let Some(batch) = tail.unproven.pop_front() {
            tail::take_proven(&mut tail, batch);
        }
        self.streams = std::mem::take(&mut tail.streams);
        for entry in &manifest.segments {
            meter.expect(match entry.state {
                SegmentState::Sealed { sealed, .. } => sealed.end_lsn.0 - sealed.base_lsn.0,
                SegmentState::Unsealed | SegmentState::Closed { .. } => 0,
            });
        }
        for entry in &manifest.segments {
            let SegmentState::Sealed { sealed, .. } = entry.state else { continue };
            if sealed.last_ns < self.since_ns {
                meter.done(sealed.end_lsn.0 - sealed.base_lsn.0);
                continue;
            }
            let stretch = Stretch {
                base: sealed.base_lsn,
                end: sealed.end_lsn,
                chain: Some(sealed.chain_before),
                chain_end: Some(sealed.chain_end),
            };
            let items = match self.files.segment(entry.segment)? {
                Ok(mut file) => {
                    let items = file.walk(&stretch, None, meter)?;
                    file.close()?;
                    items
                }
                Err(what) => {
                    let hole = Hole::whole(stretch.base, stretch.end);
                    vec![Item::Hole(Hole { file_offset: 0, what, ..hole })]
                }
            };
            if self.segment(entry.segment, &items)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        let (unsealed, _) = walk_unsealed(&mut self.files, &manifest, &tail, meter)?;
        for part in unsealed {
            if self.segment(part.segment, &part.items)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The manifest and the end of the log, looked at again while a writer changes them.
    fn settle(&mut self) -> Result<(Manifest, tail::Tail), OpenError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let files = &mut self.files;
            let loaded = match load(&mut files.disk, &files.identity) {
                Err(OpenError::Corrupt(_)) if attempt < ATTEMPTS => continue,
                Err(OpenError::Corrupt(_)) => {
                    // Where only the catalogue is damaged, the segments tell of their streams.
                    let manifest = load_manifest(&mut files.disk, &files.identity)?;
                    let (disk, pool) = (&mut files.disk, &files.pool);
                    let streams = rebuild::streams(disk, &files.identity, &manifest, pool)?;
                    (manifest, streams)
                }
                other => other?,
            };
            let (manifest, streams) = loaded;
            let (disk, identity) = (&mut files.disk, &files.identity);
            let tail = tail::scan(disk, identity, &manifest, streams, &files.pool)?;
            if tail.corruption.is_none() || attempt >= ATTEMPTS {
                return Ok((manifest, tail));
            }
        }
    }

    /// Shows what a walk has found in a segment.
    fn segment(&mut self, segment: SegmentId, items: &[Item]) -> Flow {
        let Some(base) = items.first().map(Item::from) else {
            return Ok(ControlFlow::Continue(()));
        };
        let mut rest = items;
        while let Some(item) = rest.first() {
            let (seen, trouble) = match item {
                Item::Hole(hole) => (1, Some((hole.file_offset, hole.from, hole.what.clone()))),
                Item::Batch(_) => match self.batches(segment, base, rest)? {
                    Batches::Seen(seen) => (seen, None),
                    Batches::Trouble(seen, what) => (seen, Some(what)),
                    Batches::Stopped => return Ok(ControlFlow::Break(())),
                },
            };
            rest = &rest[seen..];
            let Some((file_offset, lsn, what)) = trouble else { continue };
            let damaged = self.damaged(segment, file_offset, lsn, what)?;
            let trimmed = matches!(damaged, Dumped::Trimmed { .. });
            if (self.visit)(damaged).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            if trimmed {
                break;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Shows the batches that `items` begins with, as far as they read as they did before.
    fn batches(
        &mut self,
        segment: SegmentId,
        base: Lsn,
        items: &[Item],
    ) -> Result<Batches, OpenError> {
        let identity = self.files.identity;
        let mut file = match self.files.segment(segment)? {
            Ok(file) => file,
            Err(what) => return Ok(Batches::Trouble(items.len(), (0, items[0].from(), what))),
        };
        let mut frames: Vec<FrameRef> = Vec::new();
        let mut ended = Batches::Seen(items.len());
        for (seen, item) in items.iter().enumerate() {
            let Item::Batch(batch) = item else {
                ended = Batches::Seen(seen);
                break;
            };
            let header = &batch.header;
            if header.timestamp_ns < self.since_ns {
                continue;
            }
            let at = SEGMENT_HEADER_BYTES + (header.lsn.0 - base.0);
            frames.clear();
            let checked = match file.get(at, header.stored_bytes as usize) {
                Ok(bytes) => check_body(header, bytes, identity.log, identity.shard, |frame| {
                    frames.push(frame);
                })
                .map(|()| bytes),
                Err(error) => Err((0, error.to_string())),
            };
            let bytes = match checked {
                Ok(bytes) => bytes,
                Err((bad_at, what)) => {
                    let place = (at + bad_at as u64, header.lsn, what);
                    ended = Batches::Trouble(seen + 1, place);
                    break;
                }
            };
            let stopped = frames.iter().any(|frame| {
                let entry = entry(&self.streams, identity.shard, segment, header, frame, bytes);
                (self.visit)(Dumped::Entry(entry)).is_break()
            });
            if stopped {
                ended = Batches::Stopped;
                break;
            }
        }
        file.close()?;
        Ok(ended)
    }

    /// What seems damaged: it is, unless the segment has gone meanwhile.
    fn damaged(
        &mut self,
        segment: SegmentId,
        file_offset: u64,
        lsn: Lsn,
        what: String,
    ) -> Result<Dumped<'static>, OpenError> {
        let identity = self.files.identity;
        let listed = match load_manifest(&mut self.files.disk, &identity) {
            Ok(now) => now.segments.iter().any(|entry| entry.segment == segment),
            Err(OpenError::Corrupt(_)) => true,
            Err(error) => return Err(error),
        };
        if !listed {
            return Ok(Dumped::Trimmed { shard: identity.shard, segment });
        }
        let file = names::segment(segment);
        let file = file.as_str();
        Ok(Dumped::Damage(identity.corruption(Some(segment), file, file_offset, Some(lsn), what)))
    }
}

/// Where showing batches has ended, after so many items.
enum Batches {
    Seen(usize),
    /// Something that cannot be read: where in the file, where in the log, and what.
    Trouble(usize, (u64, Lsn, String)),
    Stopped,
}

fn entry<'a>(
    streams: &'a Streams,
    shard: u16,
    segment: SegmentId,
    header: &BatchHeader,
    frame: &FrameRef,
    batch: &'a [u8],
) -> Entry<'a> {
    let start = frame.payload_start as usize;
    Entry {
        shard,
        segment,
        lsn: header.lsn,
        stream: frame.stream,
        name: streams.name(frame.stream).map(Arc::as_ref),
        offset: frame.offset,
        timestamp_ns: header.timestamp_ns,
        kind: match frame.kind {
            FrameKind::Record => EntryKind::Record,
            FrameKind::Tombstone => EntryKind::Tombstone,
            FrameKind::Void => EntryKind::Void,
            _ => EntryKind::Internal,
        },
        trimmed: frame.offset < streams.trimmed_before(frame.stream),
        payload: &batch[start..start + frame.payload_bytes as usize],
    }
}
