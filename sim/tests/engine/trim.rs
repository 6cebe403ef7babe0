//! Trims of single streams: what is acknowledged holds over crashes, rotation and reopening.

use std::time::Duration;

use ringlog::format::index::{self, Posting, TimePoint};
use ringlog::format::manifest::{Manifest, SegmentState};
use ringlog::format::segment::Sealed;
use ringlog::{Durability, Offset, ReadError, Reply, Request, SegmentId, StreamId, SyncPolicy};
use ringlog_sim::watch::Seen;
use ringlog_sim::{Crash, Moment, SimDisk, SimWorld};

use crate::common::{IDENTITY, MS, Running, open, options, poll, try_open, world};

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

#[test]
fn readers_and_followers_that_are_on_their_way_are_told_of_a_trim() {
    for before in [6, 10] {
        let world = world();
        let mut shard = ten(&world);
        let stream = shard.stream;
        let disk = || Box::new(SimDisk::open(&world));
        let mut reader = shard.shard.read(disk(), stream, Some(Offset(0))).unwrap();
        let mut follower = shard.shard.follow(disk(), stream, Offset(0)).unwrap();
        for at in 0..2 {
            assert_eq!(reader.next().unwrap().unwrap().offset(), Offset(at));
            assert_eq!(follower.try_next().unwrap().unwrap().offset(), Offset(at));
        }
        trim(&mut shard, stream, before);
        let told = Err(ReadError::Trimmed { first: Offset(before) });
        let offsets = |record: ringlog::Record| record.offset().0;
        assert_eq!(follower.try_next().map(|record| record.map(offsets)), told.map(Some));
        for at in before..10 {
            assert_eq!(follower.try_next().unwrap().unwrap().offset(), Offset(at));
        }
        assert!(follower.try_next().unwrap().is_none());
        let rest: Vec<_> = reader.map(|record| record.map(offsets)).collect();
        assert_eq!(rest, trimmed(before, 10));
        shard.check();
    }
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

fn sealed_segments(world: &SimWorld) -> Vec<(SegmentId, Sealed)> {
    let manifest = Manifest::decode(&world.read("manifest")).unwrap();
    let sealed = manifest.segments.iter().filter_map(|entry| match entry.state {
        SegmentState::Sealed { sealed, .. } => Some((entry.segment, sealed)),
        _ => None,
    });
    sealed.collect()
}

/// Writes the index of a sealed segment that holds these records: stream, first offset, how many.
/// `forget` of the frames in stream 0 are left out.
fn put_index(world: &SimWorld, at: usize, held: &[(StreamId, u64, u32)], forget: u32) {
    let (segment, sealed) = sealed_segments(world)[at];
    let posting = |block: usize, (stream, first, records): (StreamId, u64, u32)| Posting {
        stream,
        records,
        first: Offset(first),
        block: block as u32,
        blocks: 1,
    };
    let mut postings: Vec<Posting> =
        held.iter().enumerate().map(|(block, held)| posting(block, *held)).collect();
    let known: u32 = held.iter().map(|held| held.2).sum();
    let others = sealed.records as u32 - known - forget;
    if others > 0 {
        postings.push(posting(postings.len(), (StreamId(0), 1000 * at as u64, others)));
    }
    let times = [TimePoint { timestamp_ns: sealed.first_ns, block: 0 }];
    let (log, shard) = (IDENTITY.log, IDENTITY.shard);
    let file = index::encode(log, shard, segment, &sealed, &mut postings, &times).unwrap();
    world.put(&format!("{:016x}.idx", segment.0), &file);
}

/// Three sealed segments: records 0 to 3 of `s`; 4 and 5 of `s` and 0 of `other`; 6 of `s`.
fn three_segments(world: &SimWorld) -> (Running, StreamId) {
    let mut shard = open(world, SyncPolicy::EveryCommit);
    let other = shard.shard.create_stream("other").unwrap();
    for records in [4, 2, 1] {
        for at in 0..records {
            shard.append_and_wait(&[at], Durability::Synced);
        }
        if records == 2 {
            let _receipt = shard.shard.append(0, other, &[b"x"], Durability::Synced).unwrap();
            shard.turns(20);
        }
        shard.ask_and_wait(Request::Rotate);
        shard.turns(60);
    }
    let stream = shard.stream;
    put_index(world, 0, &[(stream, 0, 4)], 0);
    put_index(world, 1, &[(stream, 4, 2), (other, 0, 1)], 0);
    put_index(world, 2, &[(stream, 6, 1)], 0);
    (shard, other)
}

fn look_again(shard: &mut Running) {
    for _ in 0..3 {
        shard.pass(1001 * MS);
        shard.turns(60);
    }
}

#[test]
fn a_segment_goes_once_all_that_lies_in_it_is_trimmed() {
    let world = world();
    let (mut shard, other) = three_segments(&world);
    let stream = shard.stream;
    let sealed = || sealed_segments(&world).len();
    trim(&mut shard, stream, 3);
    look_again(&mut shard);
    assert_eq!(sealed(), 3, "one record is left");
    trim(&mut shard, stream, 4);
    look_again(&mut shard);
    assert_eq!(sealed(), 2);
    trim(&mut shard, stream, 7);
    look_again(&mut shard);
    assert_eq!(sealed(), 2, "one of another stream is left");
    assert_eq!(shard.shard.deadline(), None, "nothing is looked for without a reason");
    trim(&mut shard, other, 1);
    look_again(&mut shard);
    assert_eq!((sealed(), shard.shard.counts().trimmed), (0, 3), "both at once");
    shard.append_and_wait(b"on", Durability::Synced);
    assert_eq!(shard.read_from(0), trimmed(7, 8));
    shard.check();
    world.crash(&Crash::losing_all());
    let shard = open(&world, SyncPolicy::EveryCommit);
    assert_eq!(shard.read_from(0), trimmed(7, 8));
    assert_eq!(shard.shard.next_offset(other), Offset(1));
}

#[test]
fn an_index_that_is_missing_damaged_stale_or_silent_frees_nothing() {
    type Spoil = fn(&SimWorld, &str, StreamId);
    let spoil: [(&str, Spoil); 7] = [
        ("of another state of its segment", |world, name, stream| {
            let (segment, mut covers) = sealed_segments(world)[0];
            covers.chain_end ^= 1;
            let (records, frames) = (4, covers.records as u32 - 4);
            let postings = [(stream, records), (StreamId(0), frames)];
            let mut postings = postings.map(|(stream, records)| Posting {
                stream,
                records,
                first: Offset(0),
                block: 0,
                blocks: 1,
            });
            let (log, shard) = (IDENTITY.log, IDENTITY.shard);
            let file = index::encode(log, shard, segment, &covers, &mut postings, &[]).unwrap();
            world.put(name, &file);
        }),
        ("missing", |world, name, _| world.delete(name)),
        ("flipped in the header", |world, name, _| world.flip_bit(name, 8 * 60)),
        ("flipped behind it", |world, name, _| world.flip_bit(name, 8 * (4096 + 30))),
        ("cut short", |world, name, _| world.set_len(name, 4096)),
        ("of another segment", |world, name, _| {
            let other = sealed_segments(world)[1].0;
            world.swap(name, &format!("{:016x}.idx", other.0));
        }),
        ("silent on a record", |world, _, stream| put_index(world, 0, &[(stream, 0, 3)], 1)),
    ];
    for (what, spoil) in spoil {
        let world = world();
        let (mut shard, _) = three_segments(&world);
        let stream = shard.stream;
        let oldest = sealed_segments(&world)[0].0;
        spoil(&world, &format!("{:016x}.idx", oldest.0), stream);
        trim(&mut shard, stream, 4);
        look_again(&mut shard);
        assert_eq!(sealed_segments(&world).len(), 3, "{what}");
        assert_eq!(shard.shard.poisoned(), None, "{what}");
        assert_eq!(shard.read_from(0)[0], Err(ReadError::Trimmed { first: Offset(4) }));
        shard.ask_and_wait(Request::Close);
    }
}

#[test]
fn nothing_goes_for_a_trim_that_is_not_durable() {
    let world = world();
    let (mut shard, _) = three_segments(&world);
    shard.watch.hold(true);
    let _receipt = shard.shard.trim_stream(shard.stream, Offset(4)).unwrap();
    look_again(&mut shard);
    let loads = |seen: &&Seen| matches!(seen, Seen::Name("load", name) if name.ends_with(".idx"));
    assert_eq!(shard.watch.journal().iter().filter(loads).count(), 0);
    shard.watch.hold(false);
    look_again(&mut shard);
    assert_eq!(sealed_segments(&world).len(), 2);
}

#[test]
fn a_trim_that_comes_while_an_index_is_read_does_not_count_before_it_is_durable() {
    let world = world();
    let (mut shard, _) = three_segments(&world);
    let stream = shard.stream;
    trim(&mut shard, stream, 2);
    shard.ask_and_wait(Request::Close);
    drop(shard);
    // From here on nothing is flushed by itself, and the first look is on its way.
    let policy = SyncPolicy::Interval(Duration::from_secs(1000));
    let mut shard = try_open(&world, &options(policy)).unwrap();
    shard.watch.hold(true);
    shard.turns(20);
    let is_load = |seen: &&Seen| matches!(seen, Seen::Name("load", name) if name.ends_with(".idx"));
    assert_eq!(shard.watch.journal().last().iter().copied().filter(is_load).count(), 1);
    let second = shard.shard.trim_stream(stream, Offset(4)).unwrap();
    shard.turns(20);
    shard.watch.hold(false);
    shard.turns(100);
    assert!(second.position().is_some() && !second.is_acknowledged());
    drop(shard);
    world.crash(&Crash::losing_all());
    let shard = open(&world, SyncPolicy::EveryCommit);
    assert_eq!(shard.read_from(0), trimmed(2, 7));
}
