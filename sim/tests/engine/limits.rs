//! What happens when memory or the disk is full.

use ringlog::{AppendError, Durability, FullReason, Receipt, ReceiptError, Request, SyncPolicy};
use ringlog_sim::Rng;

use crate::common::{MS, SEGMENT_BYTES, open, poll, world};

#[test]
fn a_disk_that_completes_nothing_refuses_for_memory_and_goes_on_afterwards() {
    let mut shard = open(&world(), SyncPolicy::EveryCommit);
    shard.watch.hold(true);
    let mut receipts = Vec::new();
    let record = [7; 20_000];
    let refused = loop {
        match shard.append(&record, Durability::Synced) {
            Ok(receipt) => receipts.push(receipt),
            Err(error) => break error,
        }
        shard.turn();
        assert!(receipts.len() < 1000, "memory without end");
    };
    assert_eq!(refused, AppendError::Full { reason: FullReason::Memory });
    shard.turns(20);
    assert!(shard.append(&record, Durability::Memory).is_err(), "nothing has become free");
    assert!(receipts.iter().all(|receipt| !receipt.is_acknowledged()));
    shard.watch.hold(false);
    shard.turns(200);
    assert!(receipts.iter_mut().all(|receipt| poll(receipt) == Some(Ok(()))));
    shard.append_and_wait(&record, Durability::Synced);
    assert_eq!(shard.read(), vec![record.to_vec(); receipts.len() + 1]);
    shard.check();
}

#[test]
fn a_full_disk_refuses_keeps_what_is_acknowledged_and_goes_on_by_itself() {
    let world = world();
    let mut shard = open(&world, SyncPolicy::EveryCommit);
    world.set_capacity(Some(world.used_bytes() + SEGMENT_BYTES / 2));
    let mut acknowledged = Vec::new();
    let mut refused_later = 0;
    let record = |at: usize| vec![at as u8; 200_000];
    let refused = loop {
        let at = acknowledged.len();
        match shard.append(&record(at), Durability::Synced) {
            Ok(mut receipt) => {
                shard.turns(60);
                shard.pass(300 * MS); // the disk may be tried again before it is called full
                shard.turns(60);
                match poll(&mut receipt) {
                    Some(Ok(())) => acknowledged.push(record(at)),
                    Some(Err(ReceiptError::DiskFull)) => refused_later += 1,
                    other => panic!("neither stored nor refused: {other:?}"),
                }
            }
            Err(error) => break error,
        }
        assert!(acknowledged.len() < 100 && refused_later < 100, "room without end");
    };
    assert_eq!(refused, AppendError::Full { reason: FullReason::Disk });
    assert!(acknowledged.len() >= 15, "five segments hold more than {}", acknowledged.len());
    assert_eq!(shard.shard.poisoned(), None);
    assert_eq!(shard.read(), acknowledged, "reading goes on");
    shard.pass(1000 * MS);
    shard.turns(60);
    assert!(shard.append(b"x", Durability::Synced).is_err(), "it is still full");
    world.set_capacity(None);
    shard.pass(1000 * MS);
    shard.turns(60);
    shard.append_and_wait(&record(1), Durability::Synced);
    acknowledged.push(record(1));
    assert_eq!(shard.read(), acknowledged);
    shard.check();
    world.crash(&ringlog_sim::Crash::losing_all());
    assert_eq!(open(&world, SyncPolicy::EveryCommit).read(), acknowledged);
}

/// There is no room for the next segment, but for smaller things there is.
#[test]
fn a_disk_without_room_for_a_segment_stays_full_whatever_else_goes_well() {
    let world = world();
    let mut shard = open(&world, SyncPolicy::EveryCommit);
    world.set_capacity(Some(world.used_bytes() + SEGMENT_BYTES / 2));
    let mut refused = None;
    for at in 0..100 {
        match shard.append(&[at; 200_000], Durability::Synced) {
            Ok(mut receipt) => {
                shard.turns(60);
                assert!(poll(&mut receipt).is_some(), "it waits without end");
                if shard.shard.is_disk_full() {
                    // Sealing still works, and makes no room.
                    shard.ask(Request::Rotate);
                    shard.turns(60);
                }
            }
            Err(error) => refused = refused.or(Some(error)),
        }
        if refused.is_some() {
            break;
        }
    }
    assert_eq!(refused, Some(AppendError::Full { reason: FullReason::Disk }));
    shard.check();
}

#[test]
fn nobody_waits_without_end_for_what_a_full_disk_refuses() {
    let world = world();
    let mut shard = open(&world, SyncPolicy::EveryCommit);
    world.set_capacity(Some(world.used_bytes() + SEGMENT_BYTES / 2));
    let (mut stored, mut refused) = (0, 0);
    for round in 0..20 {
        // More at a time than there is room for in the end.
        let record = vec![round; 150_000];
        let receipts: Vec<_> =
            (0..8).map_while(|_| shard.append(&record, Durability::Synced).ok()).collect();
        shard.turns(100);
        shard.pass(300 * MS); // the disk may be tried again before it is called full
        shard.turns(100);
        for mut receipt in receipts {
            match poll(&mut receipt) {
                Some(Ok(())) => stored += 1,
                Some(Err(ReceiptError::DiskFull)) => refused += 1,
                other => panic!("neither stored nor refused: {other:?}"),
            }
        }
        if refused > 0 {
            break;
        }
    }
    assert!(refused > 0, "all of {stored} records found room");
    assert_eq!(shard.read().len(), stored);
    shard.check();
}

/// Threads that hear of their receipts long afterwards, on a disk that is full and has room again in
/// turns. Two of them share a slot.
#[test]
fn nothing_of_a_thread_is_stored_behind_what_was_given_up_before_it_was_told() {
    let (mut given_up, mut told) = (0, 0);
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let world = world();
        let mut shard = open(&world, SyncPolicy::EveryCommit);
        let threads = [0, 1, 16];
        let mut attempts: [Vec<Result<Receipt, AppendError>>; 3] = Default::default();
        for _ in 0..300 {
            match rng.below(10) {
                0..=5 => {
                    let at = rng.below(3) as usize;
                    let record = vec![at as u8; 20_000 + rng.below(100_000) as usize];
                    let (thread, level) = (threads[at], Durability::Synced);
                    attempts[at].push(shard.shard.append(thread, shard.stream, &[&record], level));
                }
                6 | 7 => shard.turns(1 + rng.below(6) as usize),
                8 => shard.pass(250 * MS),
                _ if rng.below(3) == 0 => world.set_capacity(None),
                _ => world.set_capacity(Some(world.used_bytes())),
            }
        }
        world.set_capacity(None);
        shard.pass(1000 * MS);
        shard.turns(200);
        for (thread, attempts) in attempts.iter_mut().enumerate() {
            let mut behind = false;
            for (at, attempt) in attempts.iter_mut().enumerate() {
                match attempt {
                    Err(AppendError::Full { reason }) => {
                        told += u32::from(*reason == FullReason::Behind);
                        behind = false;
                    }
                    Err(other) => panic!("{other}"),
                    Ok(receipt) => match poll(receipt) {
                        Some(Err(ReceiptError::DiskFull)) => {
                            given_up += 1;
                            behind = true;
                        }
                        Some(Ok(())) => {
                            assert!(!behind, "seed {seed}: attempt {at} of thread {thread}");
                        }
                        other => panic!("neither stored nor refused: {other:?}"),
                    },
                }
            }
        }
        shard.check();
    }
    assert!(given_up > 100 && told > 5, "{given_up} were given up, {told} times this was told");
}

const HOUR: u64 = 3600 * 1000 * MS;

/// The process is stopped (SIGSTOP) with writes under way, or the disk takes that long: time alone
/// is no failure.
#[test]
fn an_hour_without_a_completion_is_waited_for() {
    let mut shard = open(&world(), SyncPolicy::EveryCommit);
    shard.append_and_wait(b"before", Durability::Synced);
    shard.watch.hold(true);
    let mut waits = shard.append(b"during", Durability::Synced).unwrap();
    shard.turns(20);
    shard.pass(HOUR);
    shard.turns(20);
    assert_eq!(poll(&mut waits), None, "it is neither stored nor refused");
    assert_eq!(shard.shard.poisoned(), None);
    shard.watch.hold(false);
    shard.turns(60);
    assert_eq!(poll(&mut waits), Some(Ok(())));
    shard.append_and_wait(b"after", Durability::Synced);
    assert_eq!(shard.read(), [b"before".to_vec(), b"during".to_vec(), b"after".to_vec()]);
    shard.check();
}

#[test]
fn a_disk_that_is_full_for_an_hour_loses_nothing_and_goes_on_by_itself() {
    let world = world();
    let mut shard = open(&world, SyncPolicy::EveryCommit);
    world.set_capacity(Some(world.used_bytes()));
    let record = |at: usize| vec![at as u8; 200_000];
    let mut stored = Vec::new();
    let mut refused = 0;
    // Somebody tries each minute, sixty times after the first refusal.
    while refused < 60 {
        let this = record(stored.len());
        match shard.append(&this, Durability::Synced) {
            Err(error) => {
                assert_eq!(error, AppendError::Full { reason: FullReason::Disk });
                refused += 1;
            }
            Ok(mut receipt) => {
                shard.turns(60);
                shard.pass(300 * MS);
                shard.turns(60);
                match poll(&mut receipt) {
                    Some(Ok(())) => stored.push(this),
                    Some(Err(ReceiptError::DiskFull)) => refused += 1,
                    other => panic!("neither stored nor refused: {other:?}"),
                }
            }
        }
        assert!(stored.len() < 100, "room without end");
        shard.pass(HOUR / 60);
        shard.turns(60);
    }
    assert!(!stored.is_empty());
    assert_eq!(shard.shard.poisoned(), None);
    assert_eq!(shard.read(), stored, "reading goes on");
    world.set_capacity(None);
    shard.pass(1000 * MS);
    shard.turns(60);
    let last = record(stored.len());
    shard.append_and_wait(&last, Durability::Synced);
    stored.push(last);
    assert_eq!(shard.read(), stored);
    shard.check();
    world.crash(&ringlog_sim::Crash::losing_all());
    assert_eq!(open(&world, SyncPolicy::EveryCommit).read(), stored);
}
