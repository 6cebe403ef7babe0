//! Followers of every visibility beside appends, rotation, trimming and retention, under a seeded
//! schedule; and what they are told when the shard fails.

use std::collections::BTreeMap;

use ringlog::{
    Durability, Follower, Offset, Options, ReadError, Reply, Request, Retention, SyncPolicy,
    Visibility,
};
use ringlog_sim::rng::Rng;
use ringlog_sim::{Class, Effect, Fault, SimDisk, SimWorld, When, WorldOptions};

use crate::common::{IDENTITY, MS, Running, options, try_open};

const SEEDS: u64 = 60;
const STEPS: usize = 500;

fn payload(offset: u64, bytes: u64) -> Vec<u8> {
    let mut payload = offset.to_le_bytes().to_vec();
    payload.extend((0..bytes).map(|at| (at.wrapping_mul(13) ^ offset) as u8));
    payload
}

/// One follower and what it may see next.
struct Following {
    follower: Follower,
    visibility: Visibility,
    next: u64,
    /// Behind the last record that it was given.
    given: u64,
    trimmed: usize,
    retracted: Option<Offset>,
    ended: bool,
}

impl Following {
    /// Takes what is there, at most so much; checks each record.
    fn take(&mut self, appended: &BTreeMap<u64, Vec<u8>>, at_most: usize) {
        for _ in 0..at_most {
            match self.follower.try_next() {
                Ok(None) => return,
                Ok(Some(record)) => {
                    let offset = record.offset().0;
                    assert_eq!(offset, self.next, "at {:?}", self.visibility);
                    assert_eq!(record.payload(), appended[&offset], "offset {offset}");
                    self.next += 1;
                    self.given = self.next;
                }
                Err(ReadError::Trimmed { first }) => {
                    assert!(first.0 > self.next, "{first} is not ahead of {}", self.next);
                    self.next = first.0;
                    self.trimmed += 1;
                }
                Err(ReadError::Retracted { first }) => {
                    self.retracted = Some(first);
                    return;
                }
                Err(ReadError::Disk(_)) => {
                    self.ended = true;
                    return;
                }
                Err(error) => panic!("at offset {}: {error}", self.next),
            }
        }
    }
}

fn shuffled_world(seed: u64) -> SimWorld {
    let world = SimWorld::new(&WorldOptions { seed, shuffled: true, ..WorldOptions::default() });
    let mut disk = SimDisk::open(&world);
    ringlog::testing::DrivenShard::create(&mut disk, IDENTITY).expect("an empty shard");
    world
}

fn follow(running: &Running, rng: &mut Rng, from: u64) -> Following {
    let levels = [Visibility::Durable, Visibility::Written, Visibility::Staged];
    let visibility = levels[rng.index(3)];
    let disk = Box::new(SimDisk::open(&running.world));
    let follower = running.shard.follow(disk, running.stream, Offset(from)).expect("a follower");
    let follower = follower.visibility(visibility);
    Following {
        follower,
        visibility,
        next: from,
        given: 0,
        trimmed: 0,
        retracted: None,
        ended: false,
    }
}

struct Run {
    running: Running,
    rng: Rng,
    appended: BTreeMap<u64, Vec<u8>>,
    following: Vec<Following>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let retention = Retention {
            max_segments: rng.coin().then(|| 2 + rng.below(3)),
            ..Retention::default()
        };
        // So little memory for followers that they fall behind it now and then.
        let options =
            Options { retention, tail_bytes: 64 << 10, ..options(SyncPolicy::EveryCommit) };
        let mut running = try_open(&shuffled_world(seed), &options).expect("it opens");
        running.turns(60);
        Self { running, rng, appended: BTreeMap::new(), following: Vec::new() }
    }

    fn step(&mut self) {
        let Self { running, rng, appended, following } = self;
        match rng.below(20) {
            0..=8 => {
                let offset = appended.len() as u64;
                let bytes = if rng.below(4) == 0 { rng.below(60_000) } else { rng.below(600) };
                let record = payload(offset, bytes);
                let levels = [Durability::Memory, Durability::Written, Durability::Synced];
                if running.append(&record, levels[rng.index(3)]).is_ok() {
                    appended.insert(offset, record);
                }
            }
            9..=13 => running.turns(1 + rng.index(6)),
            14 => running.pass(rng.below(8) * MS),
            15 if rng.below(4) == 0 => drop(running.ask(Request::Rotate)),
            16 if rng.below(8) == 0 => {
                drop(running.ask(Request::Trim { keep_sealed: rng.index(4) }));
            }
            17 if following.len() < 8 => {
                let from = rng.below(running.shard.next_offset(running.stream).0 + 1);
                following.push(follow(running, rng, from));
            }
            18 if following.len() > 4 => drop(following.swap_remove(rng.index(following.len()))),
            _ => {
                for one in following.iter_mut() {
                    one.take(appended, rng.index(5));
                }
            }
        }
    }
}

#[test]
fn nothing_is_missed_or_given_twice_under_any_schedule() {
    let (mut followers, mut trimmed) = (0, 0);
    for seed in 0..SEEDS {
        let mut run = Run::new(seed);
        for _ in 0..STEPS {
            run.step();
        }
        assert!(matches!(run.running.ask_and_wait(Request::Flush), Reply::Done), "seed {seed}");
        let end = run.appended.len() as u64;
        for one in &mut run.following {
            one.take(&run.appended, usize::MAX);
            assert_eq!(one.next, end, "seed {seed}, {:?}", one.visibility);
            assert_eq!(one.retracted, None);
            followers += 1;
            trimmed += one.trimmed;
        }
        run.running.check();
    }
    // The schedule does what it is there for.
    assert!(followers > SEEDS && trimmed > 10, "{followers} followers, {trimmed} trimmed");
}

#[test]
fn when_a_shard_fails_exactly_what_was_not_durable_is_taken_back() {
    let mut told = 0;
    for seed in 0..SEEDS {
        let mut run = Run::new(seed);
        for _ in 0..60 {
            run.step();
        }
        let (running, rng) = (&mut run.running, &mut run.rng);
        while run.following.len() < 6 {
            run.following.push(follow(running, rng, 0));
        }
        let fault = Fault::new(Class::Flush, When::Nth(1 + rng.below(3)), Effect::EIO);
        run.running.world.arm(fault);
        for _ in 0..STEPS {
            run.step();
            for one in &mut run.following {
                one.take(&run.appended, 3);
            }
            if run.running.shard.poisoned().is_some() {
                break;
            }
        }
        run.running.turns(50);
        if run.running.shard.poisoned().is_none() {
            continue; // nothing was flushed any more
        }
        let durable = run.running.read_from(0).into_iter().filter_map(Result::ok).max();
        let durable = durable.map_or(0, |last| last + 1);
        for one in &mut run.following {
            let seen = one.next;
            one.take(&run.appended, usize::MAX);
            if let Some(first) = one.retracted {
                told += 1;
                assert!(one.visibility > Visibility::Durable, "seed {seed}");
                assert!(first.0 < seen.max(one.next), "seed {seed}: {first} was never given");
                assert!(first.0 >= durable, "seed {seed}: {first} is durable");
            } else {
                assert!(one.ended, "seed {seed}: a follower waits for ever");
                assert!(one.given <= durable, "seed {seed}: {} was not taken back", one.given - 1);
            }
        }
    }
    assert!(told > 10, "retracted {told} times");
}

/// A log of an earlier life with two records in its first segment and one in the next, and
/// a follower that has read the first of them from disk.
fn behind() -> (Running, Follower) {
    let world = crate::common::world();
    let mut shard = crate::common::open(&world, SyncPolicy::EveryCommit);
    shard.append_and_wait(b"0", Durability::Synced);
    shard.append_and_wait(b"1", Durability::Synced);
    assert_eq!(shard.ask_and_wait(Request::Rotate), Reply::Done);
    shard.append_and_wait(b"2", Durability::Synced);
    world.crash(&ringlog_sim::Crash::losing_all());
    drop(shard);
    let mut shard = crate::common::open(&world, SyncPolicy::EveryCommit);
    shard.turns(40);
    let disk = Box::new(SimDisk::open(&world));
    let mut follower = shard.shard.follow(disk, shard.stream, Offset(0)).unwrap();
    assert_eq!(follower.try_next().unwrap().unwrap().offset(), Offset(0));
    (shard, follower)
}

/// What a follower gives and tells, in order.
fn told(follower: &mut Follower) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        match follower.try_next() {
            Ok(None) => return told,
            Ok(Some(record)) => told.push(format!("{}", record.offset())),
            Err(ReadError::Trimmed { first }) => told.push(format!("trimmed to {first}")),
            Err(error) => told.push(error.to_string()),
        }
    }
}

#[test]
fn a_follower_whose_segments_all_go_is_told_and_goes_on() {
    let (mut shard, mut follower) = behind();
    assert_eq!(shard.ask_and_wait(Request::Rotate), Reply::Done);
    shard.turns(100);
    assert_eq!(
        shard.ask_and_wait(Request::Trim { keep_sealed: 0 }),
        Reply::Trimmed { segments: 2 }
    );
    shard.turns(100);
    // The first segment is kept for it; of the second nothing is there any more.
    assert_eq!(told(&mut follower), ["1", "trimmed to 3"]);
    shard.append_and_wait(b"3", Durability::Synced);
    assert_eq!(told(&mut follower), ["3"]);
}

#[test]
fn a_follower_in_a_segment_that_is_sealed_and_trimmed_finds_no_damage_at_its_end() {
    let world = crate::common::world();
    let options = Options { tail_bytes: 64 << 10, ..options(SyncPolicy::EveryCommit) };
    let mut shard = crate::common::open_with(&world, &options);
    shard.append_and_wait(b"0", Durability::Synced);
    shard.append_and_wait(b"1", Durability::Synced);
    let disk = Box::new(SimDisk::open(&world));
    let mut follower = shard.shard.follow(disk, shard.stream, Offset(0)).unwrap();
    assert_eq!(follower.try_next().unwrap().unwrap().offset(), Offset(0));
    shard.append_and_wait(&[2; 60_000], Durability::Synced);
    assert_eq!(shard.ask_and_wait(Request::Rotate), Reply::Done);
    shard.turns(100);
    for record in 3..7 {
        shard.append_and_wait(&[record; 60_000], Durability::Synced);
    }
    assert_eq!(
        shard.ask_and_wait(Request::Trim { keep_sealed: 0 }),
        Reply::Trimmed { segments: 1 }
    );
    shard.turns(100);
    assert_eq!(told(&mut follower), ["1", "2", "3", "4", "5", "6"]);
}
