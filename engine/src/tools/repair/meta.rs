//! The file `log`, made anew from the headers of segments.

use std::collections::BTreeMap;
use std::path::Path;

use ringlog_disk::{Disk, FileName, IoKind, Op, Place};

use super::RepairReport;
use super::backup::Backup;
use crate::error::OpenError;
use crate::format::Refused;
use crate::format::meta::LogMeta;
use crate::format::segment::SegmentHeader;
use crate::ids::LogId;
use crate::limits::{BLOCK_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SHARDS_MAX};
use crate::names;
use crate::open::{find_meta, reading_disk};
use crate::recovery::{Identity, ask, list_files, tail::SCAN_FILE};
use crate::window::{Window, pool_for};

/// What the file says; where it is damaged or missing, what everything else says.
pub(super) fn find_or_rebuild(
    path: &Path,
    dir: &Place,
    backup: &mut Backup,
    report: &mut RepairReport,
) -> Result<LogMeta, OpenError> {
    let corruption = match find_meta(path, dir) {
        Ok(Some(meta)) => return Ok(meta),
        Ok(None) => return Err(OpenError::NotFound(path.to_owned())),
        Err(OpenError::Corrupt(corruption)) => corruption,
        Err(error) => return Err(error),
    };
    let Some(meta) = gather(dir)? else { return Err(OpenError::Corrupt(corruption)) };
    backup.copy_top(names::LOG_FILE)?;
    let mut disk = reading_disk(dir, IoKind::Blocking)?;
    if let Some(name) = FileName::new(names::LOG_FILE) {
        ask(&mut disk, Op::Replace { name, content: meta.encode() })?;
    }
    report.notes.push(format!(
        "the file `log` was made anew: {} shards, segments of {} bytes",
        meta.shards, meta.segment_bytes
    ));
    Ok(meta)
}

#[derive(Default)]
struct Votes {
    /// Log and segment size, as the headers of segments have them.
    segments: BTreeMap<([u8; 16], u64), usize>,
    created_ns: BTreeMap<[u8; 16], u64>,
}

/// What most headers say. `None` where there is not one.
fn gather(dir: &Place) -> Result<Option<LogMeta>, OpenError> {
    let mut votes = Votes::default();
    let mut shards = 0;
    for shard in 0..SHARDS_MAX as u16 {
        let Ok(shard_dir) = dir.subdir(&names::shard(shard), false) else { continue };
        shards = shard + 1;
        let mut disk = reading_disk(&shard_dir, IoKind::Blocking)?;
        votes.take(&mut disk)?;
    }
    let Some(((log, segment_bytes), _)) = votes.segments.iter().max_by_key(|(_, count)| **count)
    else {
        return Ok(None);
    };
    Ok(Some(LogMeta {
        log: LogId(*log),
        created_ns: votes.created_ns.get(log).copied().unwrap_or(0),
        segment_bytes: *segment_bytes,
        shards,
    }))
}

impl Votes {
    fn take(&mut self, disk: &mut dyn Disk) -> Result<(), OpenError> {
        for file in list_files(disk)? {
            if let names::Kind::Segment(_) = names::kind(&file.name) {
                self.take_header(disk, &file.name)?;
            }
        }
        Ok(())
    }

    fn take_header(&mut self, disk: &mut dyn Disk, name: &FileName) -> Result<(), OpenError> {
        let open = Op::Open { file: SCAN_FILE, name: name.clone(), write: false };
        if ask(disk, open).is_err() {
            return Ok(());
        }
        let pool = pool_for(SEGMENT_BYTES_MIN)?;
        let mut window = Window::new(pool, SCAN_FILE, BLOCK_BYTES as u64);
        let header = match window.get(disk, 0, BLOCK_BYTES) {
            Ok(block) => SegmentHeader::decode(block),
            Err(_) => Err(crate::format::Refused::Damaged(String::new())),
        };
        window.drop_all(disk);
        ask(disk, Op::Close { file: SCAN_FILE })?;
        match header {
            Ok(header) => {
                let bytes = header.segment_bytes;
                let fits = bytes.is_power_of_two()
                    && (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes);
                if fits {
                    *self.segments.entry((header.log.0, bytes)).or_default() += 1;
                    let created = self.created_ns.entry(header.log.0).or_insert(u64::MAX);
                    *created = (*created).min(header.created_ns);
                }
                Ok(())
            }
            Err(refused @ (Refused::Version(_) | Refused::Features(_))) => {
                let identity = Identity { log: LogId([0; 16]), shard: 0, segment_bytes: 0 };
                Err(identity.refused(name.as_str(), refused))
            }
            Err(Refused::Damaged(_)) => Ok(()),
        }
    }
}
