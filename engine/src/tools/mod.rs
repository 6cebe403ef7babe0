//! Looking at a log without opening it: [`inspect`], [`dump`], [`verify`], and, the only ones that
//! change anything, [`repair`] and [`rebuild_indexes`].
//!
//! All but these two take no lock and write nothing. They may run beside a writer: damage is
//! told only when it is still damage after the manifest has been read again, so a segment that was
//! trimmed meanwhile, or a batch that was just being written, is never called damaged.
//!
//! Knows the files of a log and what they must hold; nothing of writers, readers or handles.

mod dump;
mod file;
mod index;
mod inspect;
mod ledger;
mod repair;
mod tail_walk;
mod verify;
mod walk;

use std::path::Path;

use ringlog_disk::{AnyDisk, BlockPool, Dir, DiskErrorKind, IoKind, Place};

use crate::error::{Corruption, OpenError};
use crate::format::meta::LogMeta;
use crate::names;
use crate::open::{find_meta, reading_disk};
use crate::recovery::Identity;
use crate::window::pool_for;

pub use dump::{Dumped, Entry, EntryKind, dump};
pub use index::{BadIndex, IndexRebuildReport, rebuild_indexes};
pub use inspect::{
    IndexState, Inspection, SegmentInspection, SegmentLife, SegmentStream, ShardInspection,
    StreamInspection, inspect, inspect_segments,
};
pub use repair::{LostRange, RepairReport, repair};
pub use verify::{VerifyReport, verify};

/// Repair keeps copies of what it changes in directories of this name and a number.
pub(crate) const BACKUP_PREFIX: &str = "repair-";

/// How far a tool, or the opening of a log, has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read and checked so far, or passed over.
    pub done_bytes: u64,
    /// Bytes to be read in all, as far as that is known by now.
    pub total_bytes: u64,
}

/// Counts for a caller who watches.
struct Meter<'a> {
    progress: Progress,
    tell: &'a mut dyn FnMut(Progress),
}

impl<'a> Meter<'a> {
    fn new(tell: &'a mut dyn FnMut(Progress)) -> Self {
        Self { progress: Progress::default(), tell }
    }

    fn expect(&mut self, bytes: u64) {
        self.progress.total_bytes += bytes;
    }

    fn done(&mut self, bytes: u64) {
        self.progress.done_bytes += bytes;
        self.progress.total_bytes = self.progress.total_bytes.max(self.progress.done_bytes);
        (self.tell)(self.progress);
    }
}

/// The files of one shard, for reading.
struct ShardFiles {
    identity: Identity,
    disk: AnyDisk,
    pool: BlockPool,
}

impl ShardFiles {
    fn open(dir: &Place, meta: &LogMeta, shard: u16) -> Result<Self, OpenError> {
        Ok(Self {
            identity: identity(meta, shard),
            disk: reading_disk(dir, IoKind::Auto)?,
            pool: pool_for(meta.segment_bytes)?,
        })
    }
}

fn identity(meta: &LogMeta, shard: u16) -> Identity {
    Identity { log: meta.log, shard, segment_bytes: meta.segment_bytes }
}

/// Opens the directory of a log, which must be there.
fn open_dir(path: &Path) -> Result<Place, OpenError> {
    Dir::open(path).map(Place::from).map_err(|error| match error.kind {
        DiskErrorKind::NotFound => OpenError::NotFound(path.to_owned()),
        DiskErrorKind::Unexpected => {
            OpenError::NotALog { dir: path.to_owned(), reason: "it is not a directory".into() }
        }
        _ => OpenError::Disk(error),
    })
}

/// What the file `log` says.
fn read_meta(path: &Path, dir: &Place) -> Result<LogMeta, OpenError> {
    let meta = find_meta(path, dir)?.ok_or_else(|| OpenError::NotFound(path.to_owned()))?;
    Ok(meta)
}

/// The directory of a shard, or how it is damaged.
fn shard_dir(dir: &Place, shard: u16) -> Result<Result<Place, Corruption>, OpenError> {
    let name = names::shard(shard);
    let what = match dir.subdir(&name, false) {
        Ok(dir) => return Ok(Ok(dir)),
        Err(error) => match error.kind {
            DiskErrorKind::NotFound => "the directory of a shard is missing",
            DiskErrorKind::Unexpected => "it is not the directory of a shard",
            _ => return Err(error.into()),
        },
    };
    Ok(Err(Corruption {
        shard,
        segment: None,
        file: name.to_string(),
        file_offset: 0,
        lsn: None,
        what: what.into(),
    }))
}
