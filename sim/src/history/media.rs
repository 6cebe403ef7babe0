//! What is stored: what of it proves to have been durable, and damage to it.

use ringlog::Lsn;
use ringlog::format::batch::{BatchHeader, HeaderSeed};
use ringlog::format::manifest::Manifest;
use ringlog::testing::ShardIdentity;

use super::choices::Choices;
use crate::{SECTOR_BYTES, SimWorld};

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
