//! After a failed write or flush: nothing more is written, nobody waits for ever, and opening
//! again works.

use ringlog::{AppendError, Durability, ReceiptError, Reply, Request, SyncPolicy};
use ringlog_sim::watch::Seen;
use ringlog_sim::{Class, Effect, Fault, Kill, Landed, When};

use crate::common::{MS, open, poll, world};

fn fails(class: Class, landed: Landed) {
    let world = world();
    let mut shard = open(&world, SyncPolicy::EveryCommit);
    shard.append_and_wait(b"before", Durability::Synced);
    let effect = Effect::Fail { errno: libc::EIO, landed };
    world.arm(Fault::new(class, When::Nth(1), effect));
    let mut receipts = Vec::new();
    for slot in 0..8 {
        let durability = if slot % 2 == 0 { Durability::Synced } else { Durability::Written };
        receipts.push(shard.shard.append(slot, shard.stream, &[b"with"], durability).unwrap());
    }
    let flush = shard.ask(Request::Flush);
    let rotate = shard.ask(Request::Rotate);
    shard.turns(10);
    assert!(shard.shard.poisoned().is_some());
    for receipt in &mut receipts {
        let end = poll(receipt).expect("nobody waits for ever");
        assert!(matches!(end, Err(ReceiptError::Poisoned(_))), "{end:?}");
    }
    for answer in [flush, rotate, shard.ask(Request::Trim { keep_sealed: 0 })] {
        shard.turn();
        assert!(matches!(answer.try_recv(), Ok(Reply::Poisoned(_))));
    }
    let refused = shard.append(b"after", Durability::Memory);
    assert!(matches!(refused, Err(AppendError::Poisoned(_))), "{refused:?}");
    for _ in 0..20 {
        shard.pass(100 * MS);
        shard.turn();
    }
    let journal = shard.watch.journal();
    let failed = journal.iter().position(|seen| matches!(seen, Seen::Done(_, false))).unwrap();
    for seen in &journal[failed..] {
        assert!(matches!(seen, Seen::Done(..)), "after the failure: {seen:?}");
    }
    shard.check();
    world.kill(Kill::LandAll);
    drop(shard);
    let mut shard = open(&world, SyncPolicy::EveryCommit);
    assert_eq!(shard.read()[0], b"before");
    let found = shard.read().len();
    shard.append_and_wait(b"again", Durability::Synced);
    world.crash(&ringlog_sim::Crash::losing_all());
    drop(shard);
    let records = open(&world, SyncPolicy::EveryCommit).read();
    assert_eq!((records.len(), &records[found][..]), (found + 1, &b"again"[..]));
}

#[test]
fn a_failed_write() {
    for landed in [Landed::Nothing, Landed::Everything, Landed::Some] {
        fails(Class::Write, landed);
    }
}

#[test]
fn a_failed_flush() {
    for landed in [Landed::Nothing, Landed::Everything, Landed::Some] {
        fails(Class::Flush, landed);
    }
}

#[test]
fn nobody_waits_for_a_shard_that_is_gone() {
    let mut shard = open(&world(), SyncPolicy::EveryCommit);
    shard.watch.hold(true);
    // One in flight, one placed behind it, one still with its producer.
    let mut receipts = vec![shard.append(b"a", Durability::Synced).unwrap()];
    shard.turn();
    receipts.push(shard.append(b"b", Durability::Synced).unwrap());
    shard.turn();
    receipts.push(shard.append(b"c", Durability::Memory).unwrap());
    assert!(receipts[..2].iter_mut().all(|receipt| poll(receipt).is_none()));
    drop(shard);
    for receipt in receipts {
        assert!(receipt.wait().is_err());
    }
}

/// After a failure, the next flush of the directory may say that all is well and have flushed
/// nothing: a name that is listed then is lost with the next power cut.
#[test]
fn a_failed_flush_of_the_directory_is_final_whatever_its_number() {
    for errno in [libc::EIO, libc::ENOSPC, libc::EMFILE] {
        let world = world();
        let mut shard = open(&world, SyncPolicy::EveryCommit);
        let effect = Effect::Fail { errno, landed: Landed::Nothing };
        world.arm(Fault::new(Class::SyncDir, When::Nth(1), effect));
        for _ in 0..20 {
            if shard.shard.poisoned().is_some() {
                break;
            }
            let _refused = shard.append(&[1; 60_000], Durability::Written);
            let _answer = shard.ask(Request::Rotate);
            shard.turns(20);
            shard.pass(300 * MS);
        }
        assert!(shard.shard.poisoned().is_some(), "error {errno} is tried again");
        world.crash(&ringlog_sim::Crash::losing_all());
        drop(shard);
        open(&world, SyncPolicy::EveryCommit);
    }
}
