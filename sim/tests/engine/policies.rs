//! How many flushes each sync policy makes, exactly.

use std::time::Duration;

use ringlog::{Durability, Receipt, Request, SyncPolicy};

use crate::common::{MS, open, poll, world};

#[test]
fn group_commit_shares_a_flush_among_all_that_waits() {
    let mut shard = open(&world(), SyncPolicy::EveryCommit);
    let before = shard.flushes();
    let mut receipts: Vec<_> =
        (0..20).map(|_| shard.append(b"x", Durability::Synced).unwrap()).collect();
    shard.watch.hold(true);
    shard.turn();
    receipts.extend((0..30).map(|_| shard.append(b"y", Durability::Synced).unwrap()));
    shard.turn();
    shard.pass(2 * MS); // the shard has taken them by now
    shard.turns(3);
    assert_eq!(shard.flushes() - before, 1, "the others wait for the first flush");
    shard.watch.hold(false);
    shard.turns(5);
    assert_eq!(shard.flushes() - before, 2);
    assert!(receipts.iter_mut().all(|receipt| poll(receipt) == Some(Ok(()))));
    shard.check();
}

#[test]
fn group_commit_flushes_nothing_that_nobody_wants_flushed() {
    let mut shard = open(&world(), SyncPolicy::EveryCommit);
    let before = shard.flushes();
    for _ in 0..20 {
        shard.append_and_wait(b"x", Durability::Written);
    }
    assert_eq!(shard.flushes() - before, 0);
    shard.append_and_wait(b"x", Durability::Synced);
    assert_eq!(shard.flushes() - before, 1);
    shard.check();
}

#[test]
fn every_append_has_a_flush_of_its_own() {
    let mut shard = open(&world(), SyncPolicy::EveryAppend);
    let before = shard.flushes();
    let mut receipts: Vec<_> =
        (0..20).map(|_| shard.append(b"x", Durability::Synced).unwrap()).collect();
    shard.turns(50);
    assert_eq!(shard.flushes() - before, 20);
    assert!(receipts.iter_mut().all(|receipt| poll(receipt) == Some(Ok(()))));
    shard.check();
}

#[test]
fn an_interval_makes_one_flush_for_all_that_came_in_it() {
    let mut shard = open(&world(), SyncPolicy::Interval(Duration::from_millis(10)));
    let before = shard.flushes();
    let mut receipts = Vec::new();
    for _ in 0..9 {
        receipts.push(shard.append(b"x", Durability::Synced).unwrap());
        shard.turns(3);
        shard.pass(MS - 3_000);
    }
    shard.turns(3);
    assert_eq!(shard.flushes() - before, 0);
    assert!(receipts.iter().all(|receipt| !receipt.is_acknowledged()));
    shard.pass(MS);
    shard.turns(3);
    assert_eq!(shard.flushes() - before, 1);
    assert!(receipts.iter().all(Receipt::is_acknowledged));
    shard.check();
}

#[test]
fn a_count_of_records_makes_a_flush_and_so_does_its_delay() {
    let max_delay = Duration::from_millis(50);
    let mut shard = open(&world(), SyncPolicy::EveryRecords { records: 5, max_delay });
    let before = shard.flushes();
    for at in 1..=12 {
        let _receipt = shard.append(b"x", Durability::Written).unwrap();
        shard.pass(2 * MS); // a chunk for which nobody waits is taken within 1 ms
        shard.turns(4);
        assert_eq!(shard.flushes() - before, at / 5, "after {at}");
    }
    shard.pass(50 * MS);
    shard.turns(3);
    assert_eq!(shard.flushes() - before, 3);
    shard.check();
}

#[test]
fn a_count_of_bytes_makes_a_flush_and_so_does_its_delay() {
    let max_delay = Duration::from_millis(50);
    let mut shard = open(&world(), SyncPolicy::EveryBytes { bytes: 1000, max_delay });
    let before = shard.flushes();
    for at in 1..=7 {
        let _receipt = shard.append(&[1; 400], Durability::Written).unwrap();
        shard.pass(2 * MS);
        shard.turns(4);
        assert_eq!(shard.flushes() - before, at / 3, "after {at}");
    }
    let last = shard.append(&[1; 10], Durability::Synced).unwrap();
    shard.turns(4);
    assert!(!last.is_acknowledged());
    shard.pass(50 * MS);
    shard.turns(4);
    assert_eq!(shard.flushes() - before, 3);
    assert!(last.is_acknowledged());
    shard.check();
}

#[test]
fn never_flushes_only_to_seal_and_to_close() {
    let mut shard = open(&world(), SyncPolicy::Never);
    let before = shard.flushes();
    for _ in 0..20 {
        shard.append_and_wait(&[1; 5000], Durability::Written);
        shard.pass(100 * MS);
        shard.turns(3);
    }
    assert_eq!(shard.flushes() - before, 0);
    shard.ask_and_wait(Request::Rotate);
    assert_eq!(shard.flushes() - before, 1);
    shard.append_and_wait(b"x", Durability::Written);
    shard.ask_and_wait(Request::Close);
    // What is to be closed is flushed, and nothing else.
    assert_eq!(shard.flushes() - before, 2);
    shard.check();
}
