//! Memory is bounded, and nothing waits for company while it runs low.

use std::time::Duration;

use ringlog::{AppendError, Durability, FullReason, Options, Receipt, SyncPolicy};

use crate::common::{MS, Running, open_with, options, poll, try_open, world};

fn fill(shard: &Running, durability: Durability) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    loop {
        match shard.append(&[7; 20_000], durability) {
            Ok(receipt) => receipts.push(receipt),
            Err(error) => {
                assert_eq!(error, AppendError::Full { reason: FullReason::Memory });
                return receipts;
            }
        }
        assert!(receipts.len() < 1000, "memory without end");
    }
}

#[test]
fn what_lingers_is_written_at_once_when_a_producer_finds_no_memory() {
    let linger = Duration::from_secs(1);
    let options = Options { linger, ..options(SyncPolicy::EveryCommit) };
    let mut shard = try_open(&world(), &options).unwrap();
    shard.turns(40);
    shard.pass(1001 * MS);
    shard.turns(40);
    let waits = shard.append(b"alone", Durability::Synced).unwrap();
    shard.pass(2 * MS);
    shard.turns(40);
    assert!(!waits.is_acknowledged(), "it waits for company");
    let before = shard.shard.counts().pressure_flushes;
    let mut receipts = fill(&shard, Durability::Synced);
    shard.turns(200);
    assert!(shard.shard.counts().pressure_flushes > before);
    assert!(waits.is_acknowledged(), "no time has passed");
    assert!(receipts.iter_mut().all(|receipt| poll(receipt) == Some(Ok(()))));
    let _receipt = shard.append(&[7; 20_000], Durability::Synced).expect("there is memory again");
    shard.check();
}

#[test]
fn a_flush_that_waits_for_a_count_comes_at_once_when_memory_runs_low() {
    let max_delay = Duration::from_secs(1000);
    let policies = [
        SyncPolicy::EveryRecords { records: 1_000_000, max_delay },
        SyncPolicy::EveryBytes { bytes: 1 << 40, max_delay },
        SyncPolicy::Interval(max_delay),
    ];
    for policy in policies {
        let mut shard = open_with(&world(), &options(policy));
        let before = shard.flushes();
        let mut waits = shard.append(b"alone", Durability::Synced).unwrap();
        shard.pass(2 * MS);
        shard.turns(40);
        assert_eq!((poll(&mut waits), shard.flushes()), (None, before));
        let _receipts = fill(&shard, Durability::Written);
        shard.turns(200);
        assert_eq!(poll(&mut waits), Some(Ok(())), "{policy:?}");
        let pressed = shard.flushes() - before;
        assert!((1..20).contains(&pressed), "{pressed} flushes");
        shard.check();
    }
}

#[test]
fn never_stays_never() {
    let mut shard = open_with(&world(), &options(SyncPolicy::Never));
    let before = shard.flushes();
    for _ in 0..3 {
        let mut receipts = fill(&shard, Durability::Written);
        shard.turns(200);
        assert!(receipts.iter_mut().all(|receipt| poll(receipt) == Some(Ok(()))));
    }
    let rotated = shard.shard.counts().sealed.size as usize;
    assert!(shard.flushes() - before <= rotated, "{rotated} segments were sealed");
}

/// A record takes 48 bytes on disk and 32 in memory if its neighbours are of other streams.
#[test]
fn a_segment_of_which_much_is_kept_in_memory_is_sealed_early() {
    let mut options = options(SyncPolicy::EveryCommit);
    options.memory_bytes = 4 << 20;
    let mut shard = open_with(&world(), &options);
    let other = shard.shard.create_stream("other").unwrap();
    let mut records = 0;
    while shard.shard.counts().sealed.memory < 3 {
        for _ in 0..200 {
            for stream in [shard.stream, other] {
                let _receipt = shard.shard.append(0, stream, &[[]], Durability::Memory).unwrap();
                records += 1;
            }
        }
        shard.pass(2 * MS);
        shard.turns(20);
        assert!(records < 200_000, "{:?}", shard.shard.counts());
    }
    assert_eq!(shard.shard.counts().sealed.size, 0, "none of them was full");
    shard.check();
}
