//! Reading everything back, and damaging what is stored.

use ringlog::format::batch::{BatchHeader, HeaderSeed};
use ringlog::format::manifest::Manifest;
use ringlog::testing::{DrivenShard, ShardIdentity};
use ringlog::{Lsn, ReadError};

use super::choices::Choices;
use crate::oracle::{Outcome, Recovered};
use crate::watch::WatchedDisk;
use crate::{SECTOR_BYTES, SimDisk, SimWorld};

/// All records of all streams, as a user reads them.
pub(super) fn read_all(world: &SimWorld, shard: &DrivenShard<WatchedDisk>) -> Outcome {
    let mut recovered = Recovered::default();
    for (id, name) in shard.streams() {
        let records = recovered.streams.entry(name.to_string()).or_default();
        let reader = match shard.read(Box::new(SimDisk::open(world)), *id, None) {
            Ok(reader) => reader,
            Err(error) => return Outcome::Refused(format!("read {name}: {error}")),
        };
        for item in reader {
            match item {
                Ok(record) => records.push((record.offset().0, record.payload().to_vec())),
                Err(ReadError::Corrupt { resumes_at, .. }) => {
                    let first = records.last().map_or(0, |(offset, _)| offset + 1);
                    let gap = first..resumes_at.map_or(u64::MAX, |offset| offset.0);
                    recovered.reported_gaps.entry(name.to_string()).or_default().push(gap);
                }
                Err(error) => return Outcome::Refused(format!("read {name}: {error}")),
            }
        }
    }
    Outcome::Opened(recovered)
}

/// The largest LSN that a manifest, or the header of a batch in a segment that is not sealed, says
/// to have been durable.
pub(super) fn proven_lsn(world: &SimWorld, identity: &ShardIdentity) -> u64 {
    if !world.files().iter().any(|(name, _)| name == "manifest") {
        return 0;
    }
    let Ok(manifest) = Manifest::decode(&world.read("manifest")) else { return 0 };
    let mut proven = manifest.proven_lsn.max(manifest.sealed_end().0);
    for segment in manifest.unsealed() {
        let seed = HeaderSeed::new(identity.log, identity.shard, segment);
        for block in world.read(&format!("{:016x}.seg", segment.0)).chunks(4096) {
            let lsn = block.get(8..16).and_then(|bytes| bytes.try_into().ok());
            let lsn = Lsn(lsn.map_or(0, u64::from_le_bytes));
            if let Ok((header, _)) = BatchHeader::decode(block, seed, lsn) {
                proven = proven.max(header.durable_lsn);
            }
        }
    }
    proven.0
}

/// Damages one file in one way; says which and how, or `None` when there was nothing to damage.
pub(super) fn damage(world: &SimWorld, rng: &mut Choices) -> Option<String> {
    let files: Vec<(String, u64)> =
        world.files().into_iter().filter(|(_, bytes)| *bytes > 0).collect();
    let (name, bytes) = files.get(rng.index(files.len()))?.clone();
    let content = world.read(&name);
    let blocks: Vec<u64> = content
        .chunks(4096)
        .enumerate()
        .filter(|(_, block)| block.iter().any(|byte| *byte != 0))
        .map(|(at, _)| at as u64)
        .collect();
    let block = *blocks.get(rng.index(blocks.len()))?;
    let at = (block * 4096 + rng.below(4096)).min(bytes - 1);
    let sector = at / SECTOR_BYTES * SECTOR_BYTES;
    let end = (sector + SECTOR_BYTES).min(bytes);
    let what = match rng.below(10) {
        0..=3 => {
            let bit = at * 8 + rng.below(8);
            world.flip_bit(&name, bit);
            format!("bit {bit} flipped")
        }
        4 => {
            world.zero(&name, sector..end);
            format!("sector at {sector} zeroed")
        }
        5 => {
            world.overwrite(&name, sector, &vec![0xff; (end - sector) as usize]);
            format!("sector at {sector} all ones")
        }
        6 => {
            world.set_unreadable(&name, sector);
            format!("sector at {sector} unreadable")
        }
        7 => {
            let len = rng.below(bytes);
            world.set_len(&name, len);
            format!("cut to {len} bytes")
        }
        8 => {
            world.delete(&name);
            "deleted".to_owned()
        }
        _ => {
            let (other, _) = files.get(rng.index(files.len()))?.clone();
            if other == name {
                return None;
            }
            world.swap(&name, &other);
            format!("swapped with {other}")
        }
    };
    Some(format!("{name}: {what}"))
}
