//! Recovery of a damaged log, for real: what it serves was written, all of it or a loud error, and
//! the next recovery finds the same.

use std::collections::BTreeMap;

use ringlog::testing::DrivenShard;
use ringlog::{OpenError, ReadError};

use super::base::{Base, bases, open};
use super::input::Input;
use super::mutate::damaged;
use crate::{Kill, SimDisk, SimWorld};

/// No reader gives so many items for a log of this size.
const ITEMS_MAX: usize = 100_000;

/// What the readers of all streams find.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ReadBack {
    /// Payloads, by stream and offset.
    pub(super) records: BTreeMap<(u32, u64), Vec<u8>>,
    /// LSN of each.
    pub(super) lsns: BTreeMap<(u32, u64), u64>,
    /// Loud ones: damage, and disks that refuse.
    pub(super) errors: usize,
    /// Items that say that a stream begins later.
    pub(super) trimmed: usize,
}

/// Reads all streams from their beginnings.
pub(super) fn read_all(world: &SimWorld, shard: &DrivenShard<SimDisk>) -> ReadBack {
    let mut all = ReadBack::default();
    for (stream, _) in shard.streams() {
        let reader = match shard.read(Box::new(SimDisk::open(world)), *stream, None) {
            Ok(reader) => reader,
            Err(_) => {
                all.errors += 1;
                continue;
            }
        };
        let mut last = None;
        for (count, item) in reader.enumerate() {
            assert!(count < ITEMS_MAX, "a reader of stream {stream:?} does not end");
            match item {
                Ok(record) => {
                    let offset = record.offset().0;
                    assert!(last.is_none_or(|last| last < offset), "offsets go back");
                    last = Some(offset);
                    all.lsns.insert((stream.0, offset), record.lsn().0);
                    all.records.insert((stream.0, offset), record.payload().to_vec());
                }
                Err(ReadError::Trimmed { .. }) => all.trimmed += 1,
                Err(_) => all.errors += 1,
            }
        }
    }
    all
}

/// A log damaged by up to six operations, none of which makes a checksum fit.
pub fn recovery(data: &[u8]) {
    let mut input = Input(data);
    let bases = bases();
    let base = &bases.all[input.below(bases.all.len())];
    let (world, damage) = damaged(bases, base, &mut input, false);
    let told = || damage.story.join("; ");
    let names_before = world.files();
    let same_manifest = names_before.iter().any(|(name, _)| name == "manifest")
        && world.read("manifest") == base.manifest;
    let shard = match open(&world) {
        Ok(shard) => shard,
        Err(OpenError::Corrupt(_) | OpenError::Disk(_)) => {
            assert!(!damage.story.is_empty(), "a sound log is refused");
            assert_eq!(world.files(), names_before, "refused, and changed: {}", told());
            return;
        }
        Err(error) => panic!("{error:?} of damage: {}", told()),
    };
    let found = read_all(&world, &shard);
    for (place, payload) in &found.records {
        let known = bases.written.get(place).is_some_and(|known| known.contains(payload));
        assert!(known, "{place:?} was never written: {}", told());
    }
    let end = shard.watermarks().2;
    if same_manifest {
        nothing_is_lost_in_silence(base, end.0, &found, &told());
    }
    drop(shard);
    world.kill(Kill::LandAll);
    let again = match open(&world) {
        Ok(again) => again,
        Err(OpenError::Corrupt(_)) if !same_manifest || damage.from_the_future => return,
        Err(OpenError::Disk(_)) if damage.unreadable => return,
        Err(error) => panic!("opened once, then {error}: {}", told()),
    };
    let second = read_all(&world, &again);
    if same_manifest && !damage.from_the_future {
        assert_eq!(again.watermarks().2, end, "another end the second time: {}", told());
        assert_eq!(second, found, "the second recovery finds something else: {}", told());
    }
    // A life that the manifest knows nothing of has the epoch of the one that now begins: where it
    // went on at the end, it is found by the second recovery. It takes nothing away.
    let kept = found
        .records
        .iter()
        .all(|(place, payload)| second.records.get(place) == Some(payload) || second.errors > 0);
    assert!(kept, "the second recovery has lost something: {}", told());
}

/// With the manifest as it was, and nothing said of damage, everything that the manifest proves to
/// be durable is there.
fn nothing_is_lost_in_silence(base: &Base, end: u64, found: &ReadBack, told: &str) {
    assert!(end >= base.proven, "the log ends at {end} before {}: {told}", base.proven);
    let lost = base.found.records.iter().find(|(place, payload)| {
        base.found.lsns.get(place).is_some_and(|lsn| *lsn < base.proven)
            && found.records.get(place) != Some(payload)
    });
    assert!(lost.is_none() || found.errors > 0, "{lost:?} is lost in silence: {told}");
}
