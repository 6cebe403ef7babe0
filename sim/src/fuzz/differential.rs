//! The engine and the reference reader on the same damaged log, also with checksums that were made
//! to fit: both refuse it, or both find the same end and the same records.

use std::collections::BTreeMap;

use ringlog::OpenError;
use ringlog::testing::{DrivenShard, examine};

use super::base::{IDENTITY, bases, open, shard_of};
use super::input::Input;
use super::mutate::damaged;
use super::recovery::{ReadBack, read_all};
use crate::SimDisk;
use crate::reference::{Found, Outcome, recover};

/// A log damaged by up to six operations, some of which make the checksums fit again.
pub fn differential(data: &[u8]) {
    let mut input = Input(data);
    let bases = bases();
    let base = &bases.all[input.below(bases.all.len())];
    let (world, damage) = damaged(bases, base, &mut input, true);
    let told = || damage.story.join("; ");
    if damage.unreadable {
        return; // the reference reader knows no sectors
    }
    let examined = examine(&mut SimDisk::open(&world), IDENTITY);
    let found = match (examined, recover(&shard_of(&world))) {
        (Ok(end), Outcome::Opened(found)) => {
            assert_eq!(end.0, found.end, "the ends differ: {}", told());
            found
        }
        (Err(_), Outcome::Refused(_)) => return,
        // The reference reader does not read the index that would have to be good for this.
        (Err(OpenError::Corrupt(_)), Outcome::Opened(found)) if found.on_trust => return,
        (engine, Outcome::Opened(found)) => {
            panic!("engine {engine:?}, reference ends at {}: {}", found.end, told())
        }
        (engine, Outcome::Refused(why)) => {
            panic!("engine {engine:?}, reference refuses, {why}: {}", told())
        }
    };
    let shard = match open(&world) {
        Ok(shard) => shard,
        Err(error) => panic!("examined, but not opened, {error}: {}", told()),
    };
    if !damage.forged {
        let named =
            |(id, name): &(ringlog::StreamId, std::sync::Arc<str>)| (id.0, Some(name.to_string()));
        let engine: BTreeMap<_, _> = shard.streams().iter().map(named).collect();
        let named = found.streams.iter().filter(|(_, name)| name.is_some());
        let expected: BTreeMap<_, _> = named.map(|(id, name)| (*id, name.clone())).collect();
        assert_eq!(engine, expected, "the streams differ: {}", told());
    }
    let read = read_all(&world, &shard);
    only_its_records(&found, &read, &told());
    if found.sealed_sound && !found.is_ambiguous && !damage.forged_index {
        all_its_records(&found, &read, &shard, &told());
    }
}

fn only_its_records(found: &Found, read: &ReadBack, told: &str) {
    for ((stream, offset), payload) in &read.records {
        let known = found.records.get(stream).and_then(|all| all.get(offset));
        let same = known.is_some_and(|(lsn, expected, _)| {
            expected == payload && read.lsns.get(&(*stream, *offset)) == Some(lsn)
        });
        assert!(
            same || found.is_ambiguous,
            "the engine gives {offset} of stream {stream}, the reference {known:?}: {told}"
        );
    }
}

fn all_its_records(found: &Found, read: &ReadBack, shard: &DrivenShard<SimDisk>, told: &str) {
    assert_eq!(read.errors, jumps(found, shard), "a sound log is called damaged: {told}");
    for (id, _) in shard.streams() {
        let from = found.trimmed.get(&id.0).copied().unwrap_or(0);
        for offset in found.records.get(&id.0).into_iter().flat_map(|all| all.keys()) {
            let there = read.records.contains_key(&(id.0, *offset));
            assert!(there || *offset < from, "{offset} of {id:?} is not read: {told}");
        }
    }
}

/// Jumps in the offsets of the streams, which a reader tells: only forged batches have any.
fn jumps(found: &Found, shard: &DrivenShard<SimDisk>) -> usize {
    let jumps = |stream: u32| {
        let all: Vec<u64> = found.records.get(&stream)?.keys().copied().collect();
        Some(all.windows(2).filter(|pair| pair[0] + 1 != pair[1]).count())
    };
    shard.streams().iter().filter_map(|(id, _)| jumps(id.0)).sum()
}
