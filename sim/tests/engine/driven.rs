//! A shard that its caller drives, on the simulated disk: everything follows from the seed, tokens
//! come back once, and what was acknowledged survives a crash.

use std::collections::BTreeMap;

use ringlog::driven::{Appended, DrivenShard, Event};
use ringlog::testing::ShardMemory;
use ringlog::{AppendError, Durability, Options, ReceiptError, StreamId, SyncPolicy, Time};
use ringlog_sim::watch::{Watch, WatchedDisk};
use ringlog_sim::{
    Class, Crash, Effect, Fault, Landed, Rng, SimDisk, SimWorld, When, WorldOptions,
};

use crate::common::{IDENTITY, MS, SEGMENT_BYTES, options};

const LEVELS: [Durability; 3] = [Durability::Memory, Durability::Written, Durability::Synced];

struct Driver {
    shard: DrivenShard<WatchedDisk>,
    watch: Watch,
    now: Time,
    stream: StreamId,
    /// What has come back: token, and whether it was acknowledged.
    back: Vec<(u64, bool)>,
    made: BTreeMap<u64, Appended>,
}

fn world(seed: u64) -> SimWorld {
    let world = SimWorld::new(&WorldOptions { seed, ..WorldOptions::default() });
    ringlog::testing::DrivenShard::create(&mut SimDisk::open(&world), IDENTITY).unwrap();
    world
}

impl Driver {
    fn open(world: &SimWorld, options: &Options) -> Self {
        let disk = WatchedDisk::new(SimDisk::open(world), IDENTITY.log, IDENTITY.shard, true);
        let watch = disk.watch();
        let now = Time { mono_ns: MS, wall_ns: 1_700_000_000_000 * MS };
        let memory = ShardMemory::new(options, SEGMENT_BYTES).unwrap();
        let mut shard = DrivenShard::on_disk(disk, IDENTITY, options, &memory, now).unwrap();
        watch.begin_serving();
        let stream = shard.stream("s").unwrap();
        Self { shard, watch, now, stream, back: Vec::new(), made: BTreeMap::new() }
    }

    fn turn(&mut self) {
        self.now.mono_ns += 1_000;
        self.now.wall_ns += 1_000;
        self.shard.turn_at(self.now);
        for event in self.shard.events() {
            match event {
                Event::Acknowledged { token } => self.back.push((token, true)),
                Event::Failed { token, .. } => self.back.push((token, false)),
                Event::Answered { .. } => {}
            }
        }
    }

    fn append(&mut self, token: u64, record: &[u8], level: Durability) -> Result<(), AppendError> {
        let appended = self.shard.append(self.stream, record, level)?;
        self.shard.notify(appended, token);
        self.made.insert(token, appended);
        Ok(())
    }

    /// Takes turns, and lets time pass, until all that was appended has come back.
    fn settle(&mut self) {
        for _ in 0..50_000 {
            if self.back.len() == self.made.len() {
                return;
            }
            self.turn();
            self.now.mono_ns += 20_000;
            self.now.wall_ns += 20_000;
        }
        panic!("{} of {} tokens are back", self.back.len(), self.made.len());
    }
}

/// A history from a seed; what came back, in order, and what the disk was asked for.
fn history(seed: u64) -> (Vec<(u64, bool)>, String) {
    let mut rng = Rng::new(seed);
    let mut driver = Driver::open(&world(seed), &options(SyncPolicy::EveryCommit));
    for token in 0..400 {
        let record = vec![token as u8; rng.index(9_000)];
        let level = LEVELS[rng.index(3)];
        if driver.append(token, &record, level).is_err() {
            driver.turn();
        }
        for _ in 0..rng.index(4) {
            driver.turn();
        }
        if rng.below(20) == 0 {
            driver.shard.rotate(10_000 + token);
        }
    }
    driver.settle();
    assert_eq!(driver.watch.take_violations(), Vec::<String>::new());
    (driver.back, format!("{:?}", driver.watch.journal()))
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 1..6 {
        let (back, trace) = history(seed);
        assert_eq!((back.clone(), trace), history(seed), "seed {seed}");
        let mut tokens: Vec<u64> = back.iter().map(|(token, _)| *token).collect();
        tokens.sort_unstable();
        tokens.dedup();
        assert_eq!(tokens.len(), back.len(), "seed {seed}: a token came back twice");
        assert!(back.iter().all(|(_, acknowledged)| *acknowledged), "seed {seed}");
    }
    assert_ne!(history(1).1, history(2).1, "the seed is of no account");
}

#[test]
fn what_came_back_acknowledged_survives_the_power() {
    for seed in 1..30 {
        let mut rng = Rng::new(seed);
        let world = world(seed);
        let mut driver = Driver::open(&world, &options(SyncPolicy::EveryCommit));
        let mut levels = Vec::new();
        for token in 0..60_u64 {
            levels.push(LEVELS[rng.index(3)]);
            let record = [&token.to_le_bytes()[..], &vec![7; rng.index(6_000)]].concat();
            driver.append(token, &record, levels[token as usize]).unwrap();
            for _ in 0..rng.index(6) {
                driver.turn();
            }
        }
        let durable: Vec<u64> = driver
            .back
            .iter()
            .map(|(token, _)| *token)
            .filter(|token| levels[*token as usize] == Durability::Synced)
            .collect();
        let offsets: Vec<u64> = durable.iter().map(|token| driver.made[token].offset.0).collect();
        assert_eq!(offsets, durable, "offsets follow the order of the appends");
        world.crash(&Crash::seeded(seed));
        drop(driver);
        let mut driver = Driver::open(&world, &options(SyncPolicy::EveryCommit));
        let left = driver.shard.next_offset(driver.stream).0;
        assert!(durable.iter().all(|token| *token < left), "seed {seed}: {left} records are left");
        driver.append(1000, b"on", Durability::Synced).unwrap();
        assert_eq!(driver.made[&1000].offset.0, left);
        driver.settle();
    }
}

#[test]
fn a_failed_flush_fails_every_token_that_waits_once() {
    let world = world(1);
    let mut driver = Driver::open(&world, &options(SyncPolicy::EveryCommit));
    driver.append(0, b"before", Durability::Synced).unwrap();
    driver.settle();
    (0..2000).for_each(|_| driver.turn()); // the next segments are prepared
    let effect = Effect::Fail { errno: libc::EIO, landed: Landed::Nothing };
    world.arm(Fault::new(Class::Flush, When::Nth(1), effect));
    for token in 1..5 {
        driver.append(token, b"x", Durability::Synced).unwrap();
    }
    driver.settle();
    assert_eq!(driver.back, [(0, true), (1, false), (2, false), (3, false), (4, false)]);
    let refused = driver.append(9, b"x", Durability::Memory);
    assert!(matches!(refused, Err(AppendError::Poisoned(_))), "{refused:?}");
    for token in 1..5 {
        let failure = driver.shard.failure_of(&driver.made[&token]);
        assert!(matches!(failure, Some(ReceiptError::Poisoned(_))), "{failure:?}");
    }
}
