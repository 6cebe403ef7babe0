//! Trims of single streams: what is acknowledged holds over crashes, rotation and reopening.

use ringlog::{Durability, Offset, ReadError, Reply, Request, StreamId, SyncPolicy};
use ringlog_sim::{Crash, Moment, SimDisk, SimWorld};

use crate::common::{Running, open, options, poll, try_open, world};

/// Trims the stream and waits until that is durable.
fn trim(shard: &mut Running, stream: StreamId, before: u64) {
    let mut receipt = shard.shard.trim_stream(stream, Offset(before)).expect("room");
    for _ in 0..1000 {
        if let Some(end) = poll(&mut receipt) {
            return end.expect("acknowledged");
        }
        shard.turn();
    }
    panic!("a trim is never acknowledged");
}

fn ten(world: &SimWorld) -> Running {
    let mut shard = open(world, SyncPolicy::EveryCommit);
    for at in 0..10_u8 {
        shard.append_and_wait(&[at], Durability::Synced);
    }
    shard
}

fn trimmed(first: u64, next: u64) -> Vec<Result<u64, ReadError>> {
    let error = Err(ReadError::Trimmed { first: Offset(first) });
    std::iter::once(error).chain((first..next).map(Ok)).collect()
}

#[test]
fn a_trimmed_stream_begins_at_its_trim_point_and_others_are_whole() {
    let world = world();
    let mut shard = ten(&world);
    let other = shard.shard.create_stream("other").unwrap();
    let _receipt = shard.shard.append(0, other, &[b"x"], Durability::Synced).unwrap();
    let stream = shard.stream;
    trim(&mut shard, stream, 4);
    assert_eq!(shard.shard.trimmed_before(stream), Offset(4));
    assert_eq!(shard.read_from(0), trimmed(4, 10));
    assert_eq!(shard.read_from(3), trimmed(4, 10));
    assert_eq!(shard.read_from(4), (4..10).map(Ok).collect::<Vec<_>>());
    assert_eq!(shard.read()[0], [4], "no word where nothing was asked for by offset");
    let reader = shard.shard.read(Box::new(SimDisk::open(&world)), other, Some(Offset(0)));
    assert_eq!(reader.unwrap().count(), 1);
    trim(&mut shard, stream, 2);
    assert_eq!(shard.shard.trimmed_before(stream), Offset(4), "a trim is not taken back");
    trim(&mut shard, stream, 10);
    assert_eq!(shard.read(), Vec::<Vec<u8>>::new());
    shard.append_and_wait(b"k", Durability::Synced);
    assert_eq!(shard.read_from(0), trimmed(10, 11));
    shard.check();
}

#[test]
fn a_trim_is_not_shown_before_it_is_durable() {
    let world = world();
    let mut shard = ten(&world);
    shard.watch.hold(true);
    let receipt = shard.shard.trim_stream(shard.stream, Offset(5)).unwrap();
    shard.turns(20);
    assert!(!receipt.is_acknowledged());
    assert_eq!(shard.shard.trimmed_before(shard.stream), Offset(0));
    assert_eq!(shard.read_from(0).len(), 10);
    shard.watch.hold(false);
    shard.turns(20);
    assert!(receipt.is_acknowledged());
    assert_eq!(shard.read_from(0), trimmed(5, 10));
}

/// Whatever becomes of the segment that holds it, a trim is remembered.
#[test]
fn a_trim_outlives_crashes_rotation_merged_catalogues_and_the_segment_that_holds_it() {
    let world = world();
    let mut shard = ten(&world);
    let stream = shard.stream;
    trim(&mut shard, stream, 6);
    let check = |shard: &Running| assert_eq!(shard.read_from(0), trimmed(6, 10));
    let crashed = || world.fork();
    for rotate in [false, true] {
        if rotate {
            shard.ask_and_wait(Request::Rotate);
        }
        let world = crashed();
        world.crash(&Crash::losing_all());
        check(&open(&world, SyncPolicy::EveryCommit));
        let world = crashed();
        world.crash(&Crash::keeping_all());
        check(&open(&world, SyncPolicy::EveryCommit));
    }
    let other = shard.shard.create_stream("other").unwrap();
    for at in 0..30 {
        // Parts of the catalogue are merged on the way.
        let _receipt = shard.shard.append(0, other, &[b"x"], Durability::Synced).unwrap();
        shard.turns(30);
        shard.ask_and_wait(Request::Rotate);
        shard.turns(60);
        if at == 20 {
            check(&shard);
            let reply = shard.ask_and_wait(Request::Trim { keep_sealed: 3 });
            assert!(matches!(reply, Reply::Trimmed { segments } if segments > 15), "{reply:?}");
        }
    }
    assert_eq!(shard.shard.trimmed_before(stream), Offset(6));
    shard.append_and_wait(b"k", Durability::Synced);
    let first = Offset(10);
    assert_eq!(shard.read_from(0), [Err(ReadError::Trimmed { first }), Ok(10)]);
    shard.ask_and_wait(Request::Close);
    shard.check();
    drop(shard);
    for _ in 0..3 {
        let mut shard = open(&world, SyncPolicy::EveryCommit);
        assert_eq!(shard.shard.trimmed_before(stream), Offset(6));
        shard.ask_and_wait(Request::Close);
    }
}

#[test]
fn a_trim_may_be_cut_at_every_operation() {
    for moment in [Moment::Submission, Moment::Completion] {
        for seed in 0..6 {
            for n in 1.. {
                let world = world();
                let mut shard = ten(&world);
                let stream = shard.stream;
                world.crash_after_ops(n, moment, Crash::seeded(seed * 1000 + n));
                let mut acknowledged = 0;
                for step in 1..5 {
                    let trim = shard.shard.trim_stream(stream, Offset(2 * step));
                    let Ok(mut receipt) = trim else { break };
                    shard.turns(40);
                    let _ = shard.ask(Request::Rotate);
                    shard.turns(60);
                    if poll(&mut receipt) == Some(Ok(())) {
                        acknowledged = 2 * step;
                    }
                }
                let done = world.cancel_scripted_crash();
                drop(shard);
                if done {
                    assert!(n > 20, "{n} operations only");
                    break;
                }
                let before = |shard: &Running| shard.shard.trimmed_before(stream).0;
                let mut shard = try_open(&world, &options(SyncPolicy::EveryCommit)).unwrap();
                let found = before(&shard);
                assert!(
                    (acknowledged..=8).contains(&found),
                    "{found} of {acknowledged}, cut at {n}"
                );
                let read: Vec<u8> = shard.read().iter().map(|record| record[0]).collect();
                assert_eq!(read, (found as u8..10).collect::<Vec<u8>>(), "cut at {n}");
                shard.turns(60);
                shard.check();
                drop(shard);
                world.crash(&Crash::losing_all());
                let shard = open(&world, SyncPolicy::EveryCommit);
                assert_eq!(before(&shard), found, "what was served stays");
            }
        }
    }
}
