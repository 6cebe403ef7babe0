//! Checking the indexes of sealed segments, and making them anew.
//!
//! An index is derived: a bad one is no damage, and is never told as such.

use std::path::Path;
use std::time::Duration;

use ringlog_disk::{DiskError, DiskErrorKind, Op};

use super::{Meter, Progress, ShardFiles, open_dir, read_meta, shard_dir};
use crate::error::OpenError;
use crate::format::index::decode;
use crate::format::manifest::SegmentState;
use crate::format::segment::Sealed;
use crate::ids::SegmentId;
use crate::index::{Source, file_bytes_max};
use crate::names;
use crate::recovery::{ask, load_file, load_manifest, tail::SCAN_FILE};

/// How long the lock of another process that is just going is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// An index of a sealed segment that is missing or wrong. Readers make it anew when they need it;
/// no record is affected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadIndex {
    /// The shard.
    pub shard: u16,
    /// The segment.
    pub segment: SegmentId,
    /// Whether there is none; else it is wrong.
    pub missing: bool,
    /// What is wrong with it.
    pub what: String,
}

impl std::fmt::Display for BadIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "shard {}, segment {}: {}", self.shard, self.segment, self.what)
    }
}

/// What was done about the indexes of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexRebuildReport {
    /// Sealed segments.
    pub segments: u64,
    /// Indexes that were made anew and stored.
    pub rebuilt: u64,
    /// Bytes of segments that were read for it.
    pub bytes_read: u64,
    /// Indexes that were missing or wrong.
    pub bad: Vec<BadIndex>,
    /// Segments whose index could not be made or stored, and why. Of a segment with damaged batches
    /// none is stored.
    pub failed: Vec<BadIndex>,
}

/// Makes the index of each sealed segment anew that is missing or wrong, or, with `all`, of every
/// one. Tells `progress` now and then how far it is.
///
/// Readers do this by themselves, for the segments that they need; beforehand, it spares them the
/// time. Takes the log's lock; changes nothing but index files.
///
/// Cost: reads the indexes, and each segment whose index is made anew.
///
/// # Errors
/// See [`OpenError`]: there is no log, or it is open elsewhere, is damaged in what lists its
/// segments, or is of a newer version.
pub fn rebuild_indexes(
    dir: impl AsRef<Path>,
    all: bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<IndexRebuildReport, OpenError> {
    let path = dir.as_ref();
    let dir = open_dir(path)?;
    if !dir.is_writable()? {
        let doing = format!("open {} for writing", path.display());
        return Err(DiskError::new(DiskErrorKind::Access, doing).into());
    }
    if !dir.lock_exclusive(LOCK_PATIENCE)? {
        return Err(OpenError::Locked(path.to_owned()));
    }
    let meta = read_meta(path, &dir)?;
    let mut report = IndexRebuildReport::default();
    let mut meter = Meter::new(progress);
    for shard in 0..meta.shards {
        let shard_dir = shard_dir(&dir, shard)?.map_err(OpenError::Corrupt)?;
        let mut files = ShardFiles::open(&shard_dir, &meta, shard)?;
        let manifest = load_manifest(&mut files.disk, &files.identity)?;
        for entry in &manifest.segments {
            if let SegmentState::Sealed { sealed, .. } = entry.state {
                files.renew(entry.segment, &sealed, all, &mut report, &mut meter);
            }
        }
    }
    Ok(report)
}

impl ShardFiles {
    fn renew(
        &mut self,
        segment: SegmentId,
        sealed: &Sealed,
        all: bool,
        report: &mut IndexRebuildReport,
        meter: &mut Meter<'_>,
    ) {
        report.segments += 1;
        let bad = self.bad_index(segment, sealed, None);
        if bad.is_none() && !all {
            return;
        }
        let bytes = sealed.end_lsn.0.saturating_sub(sealed.base_lsn.0);
        meter.expect(bytes);
        report.bad.extend(bad);
        let shard = self.identity.shard;
        let failed = |what| BadIndex { shard, segment, missing: false, what };
        let source = Source {
            disk: &mut self.disk,
            file: SCAN_FILE,
            identity: &self.identity,
            segment,
            sealed,
            pool: self.pool.clone(),
        };
        match source.rebuild(None) {
            Ok(made) if made.passed_over_blocks > 0 => {
                report.bytes_read += made.bytes_read;
                let what = format!(
                    "{} blocks of 4096 bytes without a valid batch: run verify",
                    made.passed_over_blocks
                );
                report.failed.push(failed(what));
            }
            Ok(made) => {
                report.bytes_read += made.bytes_read;
                let store = Op::Store { name: names::index(segment), content: made.file.into() };
                match ask(&mut self.disk, store) {
                    Ok(_) => report.rebuilt += 1,
                    Err(error) => report.failed.push(failed(error.to_string())),
                }
            }
            Err(error) => report.failed.push(failed(error.to_string())),
        }
        meter.done(bytes);
    }

    /// What is wrong with the index of a segment, if anything. `due` is what it must be, where that
    /// is known.
    pub(super) fn bad_index(
        &mut self,
        segment: SegmentId,
        sealed: &Sealed,
        due: Option<&[u8]>,
    ) -> Option<BadIndex> {
        let (identity, name) = (self.identity, names::index(segment));
        let limit_bytes = file_bytes_max(identity.segment_bytes);
        let (missing, what) = match load_file(&mut self.disk, name, limit_bytes) {
            Ok(file) => match decode(&file, identity.log, identity.shard, segment) {
                Err(refused) => (false, refused.to_string()),
                Ok(content) if content.header.covers != *sealed => {
                    let covers = content.header.covers;
                    let what = format!(
                        "it covers LSN {} to {}, the segment holds {} to {}, or other batches",
                        covers.base_lsn, covers.end_lsn, sealed.base_lsn, sealed.end_lsn
                    );
                    (false, what)
                }
                Ok(_) if due.is_some_and(|due| due != file) => {
                    (false, "it does not tell what its segment holds".to_owned())
                }
                Ok(_) => return None,
            },
            Err(error) if error.kind == DiskErrorKind::NotFound => {
                (true, "the index is missing".to_owned())
            }
            Err(error) => (false, error.to_string()),
        };
        Some(BadIndex { shard: identity.shard, segment, missing, what })
    }
}
