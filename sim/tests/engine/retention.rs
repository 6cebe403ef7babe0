//! Retention by bytes, number and age, and rotation by age: on simulated time, and cut by crashes
//! at every operation.

use std::time::Duration;

use ringlog::format::manifest::Manifest;
use ringlog::{
    Durability, Offset, OpenError, Options, ReadError, Reply, Request, Retention, SyncPolicy,
};
use ringlog_sim::{Crash, Moment, SimDisk, SimWorld};

use crate::common::{MS, Running, SEGMENT_BYTES, open_with, options, try_open, world};

const SECOND: u64 = 1000 * MS;
const HOUR: Duration = Duration::from_secs(3600);

fn with(retention: Retention) -> Options {
    Options { retention, ..options(SyncPolicy::EveryCommit) }
}

/// Lists of segment files: how many there are.
fn segment_files(world: &SimWorld) -> usize {
    world.files().iter().filter(|(name, _)| name.ends_with(".seg")).count()
}

fn sealed(shard: &Running) -> usize {
    let manifest = Manifest::decode(&shard.world.read("manifest")).unwrap();
    let unsealed = ringlog::format::manifest::SegmentState::Unsealed;
    manifest.segments.iter().filter(|entry| entry.state != unsealed).count()
}

/// A segment with one record in it, sealed.
fn one_more(shard: &mut Running, record: &[u8]) {
    shard.append_and_wait(record, Durability::Synced);
    assert_eq!(shard.ask_and_wait(Request::Rotate), Reply::Done);
    shard.turns(60);
}

fn first_readable(shard: &Running) -> u64 {
    match shard.read_from(0).first() {
        Some(Err(ReadError::Trimmed { first })) => first.0,
        Some(Ok(offset)) => *offset,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_number_of_sealed_segments_is_bounded_and_readers_are_told_where_to_begin() {
    let retention = Retention { max_segments: Some(2), ..Retention::default() };
    let mut shard = open_with(&world(), &with(retention));
    for at in 0..8 {
        one_more(&mut shard, &[at]);
        assert!(sealed(&shard) <= 2, "after {at}");
    }
    shard.append_and_wait(b"open", Durability::Synced);
    let read = shard.read_from(3);
    let first = ringlog::Offset(6);
    assert_eq!(read, [Err(ReadError::Trimmed { first }), Ok(6), Ok(7), Ok(8)]);
    assert_eq!(shard.read_from(6).len(), 3, "no word where nothing is missing");
    assert_eq!(shard.shard.counts().trimmed, 6);
    assert!(shard.shard.counts().recycled >= 4, "{:?}", shard.shard.counts());
    shard.check();
}

#[test]
fn the_open_segment_never_goes() {
    let retention = Retention {
        max_segments: Some(0),
        max_age: Some(Duration::from_secs(1)),
        max_bytes: Some(4 * SEGMENT_BYTES),
    };
    let mut shard = open_with(&world(), &with(retention));
    shard.append_and_wait(b"a", Durability::Synced);
    shard.pass(100 * SECOND / 2);
    shard.turns(60);
    shard.pass(100 * SECOND / 2);
    shard.turns(60);
    assert_eq!(shard.read(), [b"a"]);
    one_more(&mut shard, b"b");
    assert_eq!(shard.read(), Vec::<Vec<u8>>::new());
    shard.append_and_wait(b"c", Durability::Synced);
    assert_eq!(shard.read(), [b"c"]);
    assert_eq!(shard.shard.next_offset(shard.stream).0, 3);
}

#[test]
fn files_never_take_more_than_the_bound_and_it_is_used() {
    for files in [4, 5, 8, 12] {
        let max_bytes = Some(files as u64 * SEGMENT_BYTES);
        let retention = Retention { max_bytes, ..Retention::default() };
        let mut shard = open_with(&world(), &with(retention));
        let mut most_sealed = 0;
        for _ in 0..120 {
            shard.append_and_wait(&[7; 200_000], Durability::Written);
            shard.turns(12);
            most_sealed = most_sealed.max(sealed(&shard));
            let there = segment_files(&shard.world);
            assert!(there <= files, "{there} files, {files} may be");
        }
        assert!(shard.shard.counts().trimmed >= 8, "{files}: {:?}", shard.shard.counts());
        assert!(most_sealed * 2 + 1 >= files - 2, "{files}: at most {most_sealed} hold records");
        shard.check();
    }
}

#[test]
fn what_is_outside_the_bounds_goes_when_the_log_is_opened() {
    let world = world();
    let mut shard = open_with(&world, &options(SyncPolicy::EveryCommit));
    for at in 0..12 {
        one_more(&mut shard, &[at]);
    }
    shard.append_and_wait(b"last", Durability::Synced);
    shard.ask_and_wait(Request::Close);
    drop(shard);
    assert!(segment_files(&world) >= 13);
    let max_bytes = Some(8 * SEGMENT_BYTES);
    let shard = open_with(&world, &with(Retention { max_bytes, ..Retention::default() }));
    assert_eq!(first_readable(&shard), 8, "four sealed, one open, three ahead");
    // One more had been prepared under the other options; it is used up before another one is.
    assert!(segment_files(&world) <= 9, "{}", segment_files(&world));
    let mut shard = shard;
    one_more(&mut shard, b"12");
    assert!(segment_files(&world) <= 8, "{}", segment_files(&world));
    drop(shard);
    let max_segments = Some(3);
    let shard = open_with(&world, &with(Retention { max_segments, ..Retention::default() }));
    assert_eq!(first_readable(&shard), 10, "the last two records share a segment");
    assert_eq!(shard.read().last().unwrap(), b"12");
}

#[test]
fn a_segment_goes_when_its_last_record_is_too_old_at_that_time_and_not_before() {
    let max_age = Some(Duration::from_secs(10));
    let mut shard = open_with(&world(), &with(Retention { max_age, ..Retention::default() }));
    one_more(&mut shard, b"old");
    let sealed_at = shard.now.mono_ns;
    shard.pass(4 * SECOND);
    one_more(&mut shard, b"young");
    shard.pass(10 * MS); // a watermark follows
    shard.turns(20);
    let due = shard.shard.deadline().expect("it will be too old");
    assert!(due > sealed_at + 9 * SECOND && due <= sealed_at + 10 * SECOND, "{due}");
    shard.pass(due - shard.now.mono_ns - 100_000);
    shard.turns(20);
    assert_eq!(shard.read(), [&b"old"[..], b"young"]);
    shard.pass(100_000);
    shard.turns(60);
    assert_eq!(shard.read(), [b"young"]);
    shard.pass(4 * SECOND);
    shard.turns(60);
    assert_eq!(shard.read(), Vec::<Vec<u8>>::new());
    assert_eq!(shard.shard.deadline(), None, "an idle log sleeps");
    shard.check();
}

#[test]
fn an_old_first_record_does_not_take_a_younger_one_with_it() {
    let max_age = Some(Duration::from_secs(10));
    let mut shard = open_with(&world(), &with(Retention { max_age, ..Retention::default() }));
    shard.append_and_wait(b"first", Durability::Synced);
    shard.pass(8 * SECOND);
    one_more(&mut shard, b"last");
    shard.pass(4 * SECOND);
    // Something else makes it look.
    one_more(&mut shard, b"next");
    assert_eq!(shard.read(), [&b"first"[..], b"last", b"next"]);
    shard.pass(7 * SECOND);
    shard.turns(60);
    assert_eq!(shard.read(), [b"next"]);
    shard.check();
}

fn is_there(world: &SimWorld, name: &str) -> bool {
    world.files().iter().any(|(there, _)| there == name)
}

#[test]
fn the_file_of_a_segment_is_not_touched_before_its_last_reader_has_left() {
    let world = world();
    let retention = Retention { max_segments: Some(1), ..Retention::default() };
    let mut shard = open_with(&world, &with(retention));
    shard.append_and_wait(b"a", Durability::Synced);
    one_more(&mut shard, b"b");
    let manifest = Manifest::decode(&world.read("manifest")).unwrap();
    let name = format!("{:016x}.seg", manifest.segments[0].segment.0);
    let content = world.read(&name);
    let disk = || Box::new(SimDisk::open(&world));
    let mut reader = shard.shard.read(disk(), shard.stream, None).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().payload(), b"a");
    let mut other = shard.shard.read(disk(), shard.stream, None).unwrap();
    assert_eq!(other.next().unwrap().unwrap().payload(), b"a");
    for at in 0..12 {
        one_more(&mut shard, &[at]);
        assert!(world.read(&name) == content, "it was used again");
    }
    assert!(shard.shard.counts().trimmed > 10 && shard.shard.counts().recycled > 6);
    drop(other);
    one_more(&mut shard, b"c");
    assert!(world.read(&name) == content, "one of two readers is still there");
    assert_eq!(reader.next().unwrap().unwrap().payload(), b"b");
    drop(reader);
    for at in 0..6 {
        one_more(&mut shard, &[at]);
    }
    assert!(!is_there(&world, &name), "it serves under another name, or is gone");
    shard.check();
}

/// A reader that held segments back has left: what is too much goes at once, and what is prepared
/// and not listed counts as well.
#[test]
fn what_a_reader_has_held_back_goes_when_it_leaves() {
    let world = world();
    let files = 8;
    let max_bytes = Some(files as u64 * SEGMENT_BYTES);
    let mut shard = open_with(&world, &with(Retention { max_bytes, ..Retention::default() }));
    one_more(&mut shard, b"a");
    for held in 1..4 {
        let readers: Vec<_> = (0..held)
            .map(|_| {
                shard.append_and_wait(b"read", Durability::Synced);
                one_more(&mut shard, b"not read");
                let from = Offset(shard.shard.next_offset(shard.stream).0 - 2);
                let disk = Box::new(SimDisk::open(&world));
                let mut reader = shard.shard.read(disk, shard.stream, Some(from)).unwrap();
                assert_eq!(reader.next().unwrap().unwrap().offset(), from);
                reader
            })
            .collect();
        for at in 0..12 {
            one_more(&mut shard, &[at]);
        }
        shard.append_and_wait(b"open", Durability::Synced);
        shard.turns(60);
        assert_eq!(segment_files(&world), files + held, "so many are held");
        drop(readers);
        shard.turns(60);
        assert!(segment_files(&world) <= files, "{} of {files} files", segment_files(&world));
    }
    shard.check();
}

#[test]
fn an_idle_log_ages_out_by_itself() {
    let retention = Retention { max_age: Some(Duration::from_secs(60)), ..Retention::default() };
    let options = Options { rotate_after: Some(Duration::from_secs(5)), ..with(retention) };
    let world = world();
    let mut shard = open_with(&world, &options);
    shard.append_and_wait(b"a", Durability::Synced);
    shard.append_and_wait(b"b", Durability::Synced);
    let begin = shard.now.mono_ns;
    let mut deadlines = 0;
    while let Some(at) = shard.shard.deadline() {
        shard.pass(at.saturating_sub(shard.now.mono_ns));
        shard.turns(60);
        deadlines += 1;
        assert!(deadlines < 20, "it never sleeps");
    }
    let counts = shard.shard.counts();
    assert_eq!((counts.sealed.age, counts.trimmed), (1, 1));
    assert!(shard.now.mono_ns - begin < 70 * SECOND);
    assert_eq!(shard.read(), Vec::<Vec<u8>>::new());
    shard.check();
    drop(shard);
    world.crash(&Crash::losing_all());
    let mut shard = open_with(&world, &options);
    assert_eq!(shard.shard.next_offset(shard.stream).0, 2);
    shard.append_and_wait(b"c", Durability::Synced);
    assert_eq!(shard.read(), [b"c"]);
}

#[test]
fn the_age_of_an_open_segment_counts_from_its_first_record_over_a_reopen() {
    let after = Duration::from_secs(100);
    let options = Options { rotate_after: Some(after), ..options(SyncPolicy::EveryCommit) };
    for (wall_passes, left) in [(30 * SECOND, 70 * SECOND), (1000 * SECOND, 0), (0, 100 * SECOND)] {
        let world = world();
        let mut shard = open_with(&world, &options);
        shard.append_and_wait(b"a", Durability::Synced);
        drop(shard);
        world.crash(&Crash::losing_all());
        // Opened again with the clock of `try_open`, less what shall have passed.
        let mut shard = try_open_at(&world, &options, wall_passes);
        shard.turns(40);
        match left {
            0 => assert_eq!(shard.shard.counts().sealed.age, 1),
            left => {
                assert_eq!(shard.shard.counts().sealed.age, 0);
                let due = shard.shard.deadline().unwrap();
                shard.pass(left - 50 * MS);
                shard.turns(40);
                assert_eq!(shard.shard.counts().sealed.age, 0, "due at {due}");
                shard.pass(50 * MS);
                shard.turns(40);
                assert_eq!(shard.shard.counts().sealed.age, 1, "due at {due}");
            }
        }
    }
}

fn try_open_at(world: &SimWorld, options: &Options, wall_passes: u64) -> Running {
    let mut shard = try_open(world, options).unwrap();
    shard.now.wall_ns += wall_passes;
    shard
}

#[test]
fn after_a_jump_of_the_clock_nothing_goes_because_of_its_age_until_somebody_says_so() {
    for jump in [7200 * SECOND as i64, -7200 * SECOND as i64] {
        let retention =
            Retention { max_age: Some(HOUR), max_segments: Some(3), ..Retention::default() };
        let world = world();
        let mut shard = open_with(&world, &with(retention));
        one_more(&mut shard, b"a");
        one_more(&mut shard, b"b");
        assert_eq!(shard.shard.age_retention_paused(), None);
        shard.now.wall_ns = shard.now.wall_ns.wrapping_add_signed(jump);
        shard.turns(60);
        assert!(shard.shard.age_retention_paused().is_some(), "{jump}");
        assert_eq!(shard.read(), [b"a", b"b"]);
        shard.pass(2 * 7200 * SECOND);
        shard.turns(60);
        assert_eq!(shard.read(), [b"a", b"b"], "it does not go on by itself");
        assert_eq!(shard.shard.deadline(), None, "nothing is waited for");
        one_more(&mut shard, b"c");
        one_more(&mut shard, b"d");
        assert_eq!(shard.read(), [b"b", b"c", b"d"], "the other bounds hold");
        let reply = shard.ask_and_wait(Request::Retain(retention));
        assert_eq!(shard.shard.age_retention_paused(), None);
        // Both a and b were written before the jump, and four hours ago at least.
        assert_eq!(reply, Reply::Trimmed { segments: 1 }, "{jump}");
        shard.pass(2 * 3600 * SECOND);
        shard.turns(60);
        assert_eq!(shard.read(), Vec::<Vec<u8>>::new(), "it goes on by itself again");
        shard.check();
    }
}

#[test]
fn small_moves_of_the_clock_are_no_jump() {
    let retention = Retention { max_age: Some(HOUR), ..Retention::default() };
    let mut shard = open_with(&world(), &with(retention));
    one_more(&mut shard, b"a");
    for step in 0..200 {
        let by: i64 = if step % 2 == 0 { 59 } else { -59 };
        shard.now.wall_ns = shard.now.wall_ns.wrapping_add_signed(by * SECOND as i64);
        shard.turns(2);
    }
    assert_eq!(shard.shard.age_retention_paused(), None);
    shard.pass(3601 * SECOND);
    shard.turns(60);
    assert_eq!(shard.read(), Vec::<Vec<u8>>::new());
}

#[test]
fn a_clock_that_stands_before_the_newest_record_is_not_believed() {
    let retention = Retention { max_age: Some(HOUR), ..Retention::default() };
    let world = world();
    let mut shard = open_with(&world, &with(Retention::default()));
    shard.now.wall_ns += 10 * 3600 * SECOND;
    one_more(&mut shard, b"from the future");
    shard.ask_and_wait(Request::Close);
    drop(shard);
    let mut shard = open_with(&world, &with(retention));
    assert!(shard.shard.age_retention_paused().is_some());
    shard.pass(20 * 3600 * SECOND);
    shard.turns(60);
    assert_eq!(shard.read().len(), 1);
    shard.ask_and_wait(Request::Close);
    drop(shard);
    // By now the clock is right, and the log was opened again.
    let mut shard = try_open_at(&world, &with(retention), 20 * 3600 * SECOND);
    shard.turns(60);
    assert_eq!(shard.shard.age_retention_paused(), None);
    assert_eq!(shard.read(), Vec::<Vec<u8>>::new());
}

#[test]
fn retain_by_hand_keeps_to_its_own_bounds_once() {
    let mut shard = open_with(&world(), &options(SyncPolicy::EveryCommit));
    for at in 0..6 {
        one_more(&mut shard, &[at]);
    }
    let three = Retention { max_segments: Some(3), ..Retention::default() };
    let answer = shard.ask_and_wait(Request::Retain(three));
    assert_eq!(answer, Reply::Trimmed { segments: 3 });
    assert_eq!(shard.ask_and_wait(Request::Retain(three)), Reply::Trimmed { segments: 0 });
    one_more(&mut shard, &[6]);
    assert_eq!(first_readable(&shard), 3, "once means once");
    let nothing = Retention::default();
    assert_eq!(shard.ask_and_wait(Request::Retain(nothing)), Reply::Trimmed { segments: 0 });
}

#[test]
fn bounds_that_cannot_be_kept_are_refused_by_name() {
    let world = world();
    let bad = [
        (Retention { max_bytes: Some(4 * SEGMENT_BYTES - 1), ..Retention::default() }, "max_bytes"),
        (
            Retention { max_age: Some(Duration::from_millis(999)), ..Retention::default() },
            "max_age",
        ),
    ];
    for (retention, name) in bad {
        match try_open(&world, &with(retention)).err() {
            Some(OpenError::InvalidOption { field, .. }) => {
                assert_eq!(field, format!("retention.{name}"));
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    let rotate_after = Some(Duration::from_millis(1));
    let options = Options { rotate_after, ..options(SyncPolicy::EveryCommit) };
    let refused = try_open(&world, &options).err();
    assert!(
        matches!(refused, Some(OpenError::InvalidOption { field, .. }) if field == "rotate_after")
    );
}

/// Cut at any operation while retention trims and files are used again, the log has lost what was
/// to be trimmed at most, all else is there, and it goes on.
#[test]
fn trimming_and_recycling_may_be_cut_at_every_operation() {
    let retention = Retention { max_segments: Some(2), ..Retention::default() };
    for moment in [Moment::Submission, Moment::Completion] {
        for seed in 0..4 {
            let mut n = 0;
            loop {
                n += 1;
                let world = world();
                let mut shard = open_with(&world, &with(retention));
                world.crash_after_ops(n, moment, Crash::seeded(seed * 1000 + n));
                let mut acknowledged = 0;
                for at in 0..6_u8 {
                    let mut receipt = shard.append(&[at], Durability::Synced).unwrap();
                    let rotated = shard.ask(Request::Rotate);
                    shard.turns(80);
                    if world.stats().crashes > 0 {
                        break;
                    }
                    assert_eq!(crate::common::poll(&mut receipt), Some(Ok(())));
                    assert_eq!(rotated.try_recv(), Ok(Reply::Done));
                    acknowledged = at + 1;
                }
                shard.check();
                let done = world.cancel_scripted_crash();
                drop(shard);
                if done {
                    assert!(n > 40, "{n} operations only");
                    break;
                }
                let mut shard = open_with(&world, &with(retention));
                let found = shard.read();
                let first = found.first().map_or(0, |record| record[0]);
                let last = first + found.len() as u8;
                assert!(found.iter().zip(first..).all(|(record, at)| *record == [at]), "{n}");
                assert!(last >= acknowledged, "cut at {n}: {found:?} of {acknowledged}");
                assert!(
                    found.len() >= last.min(2).into(),
                    "cut at {n}: too much is gone: {found:?}"
                );
                shard.append_and_wait(b"on", Durability::Synced);
                assert_eq!(shard.read().last().unwrap(), b"on");
                shard.check();
            }
        }
    }
}
