//! The logs that inputs damage: made once, by the engine in the simulated world, the same ones
//! every time.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};

use ringlog::testing::{DrivenShard, ShardIdentity, ShardMemory};
use ringlog::{
    Durability, LogId, Offset, OpenError, Options, Receipt, Reply, Request, StreamId, SyncPolicy,
    Time,
};

use super::pure::LOG;
use super::recovery::{ReadBack, read_all};
use crate::reference::{self, Shard};
use crate::{Crash, Keep, KeepNames, Kill, Rng, SimDisk, SimWorld, WorldOptions};

/// Smaller than any that a user can choose: then a run costs a quarter.
const SEGMENT_BYTES: u64 = 256 << 10;
/// The smallest that a log in a directory can have.
pub(super) const LARGE_SEGMENT_BYTES: u64 = 1 << 20;

pub(super) const IDENTITY: ShardIdentity = identity(SEGMENT_BYTES);

const fn identity(segment_bytes: u64) -> ShardIdentity {
    ShardIdentity { log: LogId(LOG), shard: 0, segment_bytes }
}
/// No shard takes so many turns for anything that is asked here.
const TURNS_MAX: usize = 20_000;

/// A log to be damaged.
pub(super) struct Base {
    pub(super) world: SimWorld,
    /// Files as they are, with how many bytes of each are in use.
    pub(super) files: Vec<(String, usize)>,
    pub(super) manifest: Vec<u8>,
    /// Everything before this is durable, the manifest says.
    pub(super) proven: u64,
    /// So many of the donors are no newer than this base.
    pub(super) donors: usize,
    /// What a reader finds.
    pub(super) found: ReadBack,
}

/// All bases, and what else there is to damage them with.
pub(super) struct Bases {
    pub(super) all: Vec<Base>,
    /// Files of any base, and of older states of them.
    pub(super) donors: Vec<(String, Vec<u8>)>,
    /// Whatever was ever appended, also what a crash has cut off.
    pub(super) written: BTreeMap<(u32, u64), BTreeSet<Vec<u8>>>,
    /// Numbers of the streams, by their names.
    pub(super) streams: BTreeMap<String, u32>,
}

pub(super) fn bases() -> &'static Bases {
    static BASES: LazyLock<Bases> = LazyLock::new(|| Bases::build(SEGMENT_BYTES));
    &BASES
}

/// The same for a log in a directory.
pub(super) fn large_bases() -> &'static Bases {
    static BASES: LazyLock<Bases> = LazyLock::new(|| Bases::build(LARGE_SEGMENT_BYTES));
    &BASES
}

pub(super) fn options() -> Options {
    Options { sync: SyncPolicy::EveryCommit, memory_bytes: 4 << 20, ..Options::default() }
}

thread_local! {
    /// Memory for the shards of this thread, one after the other.
    static MEMORY: ShardMemory =
        ShardMemory::new(&options(), SEGMENT_BYTES).expect("memory for a shard");
}

/// The same time in every run.
const NOW: Time = Time { mono_ns: 1_000_000, wall_ns: 1_700_000_000_000_000_000 };

/// Opens the shard of a world for writing.
pub(super) fn open(world: &SimWorld) -> Result<DrivenShard<SimDisk>, OpenError> {
    open_as(world, IDENTITY)
}

fn open_as(world: &SimWorld, identity: ShardIdentity) -> Result<DrivenShard<SimDisk>, OpenError> {
    // Every pool of every run would be mapped and cleared anew.
    ringlog_disk::block::keep_mappings(8);
    let disk = SimDisk::open(world);
    MEMORY.with(|memory| DrivenShard::open(disk, identity, &options(), memory, NOW))
}

/// The shard of a world, for the reference reader.
pub(super) fn shard_of(world: &SimWorld) -> Shard {
    let files = world.files().into_iter().map(|(name, _)| {
        let content = world.read(&name);
        (name, content)
    });
    Shard { log: LOG, number: 0, segment_bytes: SEGMENT_BYTES, files: files.collect() }
}

/// A shard at work.
struct Life<'a> {
    world: &'a SimWorld,
    shard: DrivenShard<SimDisk>,
    now: Time,
    rng: Rng,
    bases: &'a mut Bases,
    identity: ShardIdentity,
}

impl Bases {
    fn build(segment_bytes: u64) -> Self {
        let identity = identity(segment_bytes);
        let (written, streams) = (BTreeMap::new(), BTreeMap::new());
        let mut bases = Self { all: Vec::new(), donors: Vec::new(), written, streams };
        let world = SimWorld::new(&WorldOptions { shuffled: false, ..WorldOptions::default() });
        DrivenShard::create(&mut SimDisk::open(&world), identity).expect("an empty shard");
        let mut life = Life::begin(&world, &mut bases, identity, 1);
        let ids = ["a", "b", "third"].map(|name| life.create(name));
        for round in 0..3 {
            for count in 1..8 {
                life.append(ids[count % 3], count, Durability::Synced);
            }
            life.keep_donors();
            if round < 2 {
                life.ask(Request::Rotate);
            }
        }
        life.shard.trim_stream(ids[1], Offset(2)).map(|mut trim| life.wait(&mut trim)).expect("ok");
        life.idle();
        life.base(); // 0: an open segment behind two sealed ones, all of it flushed
        for count in 1..6 {
            life.append(ids[count % 3], count, Durability::Written);
        }
        life.base(); // 1: an unproven tail
        let (seed, tear_bytes) = (5, 512);
        let torn = Crash { keep: Keep::Prefix, names: KeepNames::All, tear_bytes, seed };
        drop(life);
        world.crash(&torn);
        let mut life = Life::begin(&world, &mut bases, identity, 2);
        for count in 1..6 {
            life.append(ids[count % 3], count * 3, Durability::Synced);
        }
        life.ask(Request::Trim { keep_sealed: 1 });
        life.ask(Request::Rotate);
        life.append(ids[0], 2, Durability::Synced);
        life.keep_donors();
        life.base(); // 2: a second life, trimmed, with a segment that has been used before
        life.ask(Request::Close);
        life.base(); // 3: closed cleanly
        drop(life);
        world.kill(Kill::LandAll);
        let mut life = Life::begin(&world, &mut bases, identity, 3);
        life.append(ids[2], 1, Durability::Synced);
        life.base(); // 4: a third life behind a clean close, only just begun
        drop(life);
        bases
    }
}

impl<'a> Life<'a> {
    fn begin(
        world: &'a SimWorld,
        bases: &'a mut Bases,
        identity: ShardIdentity,
        seed: u64,
    ) -> Self {
        let shard = open_as(world, identity).expect("a log without faults opens");
        let mut life = Self { world, shard, now: NOW, rng: Rng::new(seed), bases, identity };
        life.idle();
        life
    }

    fn turn(&mut self) {
        self.now.mono_ns += 1_000;
        self.now.wall_ns += 1_000;
        self.shard.turn(self.now);
    }

    /// Until nothing is left to do, and then past every deadline.
    fn idle(&mut self) {
        for _ in 0..50 {
            (0..50).for_each(|_| self.turn());
            self.now.mono_ns += 1_000_000;
        }
    }

    fn create(&mut self, name: &str) -> StreamId {
        let id = self.shard.create_stream(name).expect("room for a stream");
        self.bases.streams.insert(name.to_owned(), id.0);
        id
    }

    fn wait(&mut self, receipt: &mut Receipt) -> u64 {
        for _ in 0..TURNS_MAX {
            let mut cx = Context::from_waker(Waker::noop());
            if let Poll::Ready(end) = Pin::new(&mut *receipt).poll(&mut cx) {
                return end.expect("acknowledged").offset.0;
            }
            self.turn();
        }
        panic!("an append is never acknowledged");
    }

    /// Appends a batch of `count` records, of which some are large.
    fn append(&mut self, stream: StreamId, count: usize, level: Durability) {
        let record = |rng: &mut Rng| {
            let bytes = if rng.chance(100_000) { 9_000 } else { rng.index(200) };
            (0..bytes).map(|_| rng.index(256) as u8).collect::<Vec<u8>>()
        };
        let records: Vec<_> = (0..count).map(|_| record(&mut self.rng)).collect();
        let mut receipt = self.shard.append(0, stream, &records, level).expect("room");
        let first = self.wait(&mut receipt);
        for (offset, record) in (first..).zip(records) {
            self.bases.written.entry((stream.0, offset)).or_default().insert(record);
        }
    }

    fn ask(&mut self, request: Request) {
        let answer = self.shard.request(request);
        for _ in 0..TURNS_MAX {
            if let Ok(reply) = answer.try_recv() {
                assert!(!matches!(reply, Reply::Poisoned(_)), "{reply:?}");
                return;
            }
            self.turn();
        }
        panic!("a request is never answered");
    }

    /// The process dies here, in a copy of the world: one base more.
    fn base(&mut self) {
        let world = self.world.fork();
        world.kill(Kill::LandAll);
        world.settle();
        let files = world.files().into_iter().map(|(name, _)| {
            let bytes = world.read(&name);
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            (name, used)
        });
        let files = files.collect();
        let manifest = world.read("manifest");
        let proven = reference::manifest(&manifest).expect("a good manifest").proven_lsn;
        let again = world.fork();
        let found = read_all(&again, &open_as(&again, self.identity).expect("it opens"));
        assert_eq!(found.errors, 0, "a base is sound");
        self.keep_donors();
        let donors = self.bases.donors.len();
        self.bases.all.push(Base { world, files, manifest, proven, donors, found });
    }

    fn keep_donors(&mut self) {
        for (name, _) in self.world.files() {
            let content = self.world.read(&name);
            self.bases.donors.push((name, content));
        }
    }
}
