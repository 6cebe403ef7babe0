//! A world with one shard in it, and the few things that tests do with it.

use std::pin::Pin;
use std::sync::mpsc::Receiver;
use std::task::{Context, Poll, Waker};

use ringlog::testing::{DrivenShard, ShardIdentity, ShardMemory};
use ringlog::{
    AppendError, Durability, LogId, Offset, OpenError, Options, ReadError, Receipt, ReceiptError,
    Reply, Request, StreamId, SyncPolicy, Time,
};
use ringlog_sim::watch::{Content, Seen, Watch, WatchedDisk};
use ringlog_sim::{SimDisk, SimWorld, WorldOptions};

pub(crate) const SEGMENT_BYTES: u64 = 1 << 20;
pub(crate) const MS: u64 = 1_000_000;

pub(crate) fn options(sync: SyncPolicy) -> Options {
    let mut options = Options { sync, memory_bytes: 4 << 20, ..Options::default() };
    options.format.segment_bytes = Some(SEGMENT_BYTES);
    options
}

pub(crate) const IDENTITY: ShardIdentity =
    ShardIdentity { log: LogId([7; 16]), shard: 0, segment_bytes: SEGMENT_BYTES };

/// A world with an empty shard; completions come at once and in order.
pub(crate) fn world() -> SimWorld {
    let world = SimWorld::new(&WorldOptions { shuffled: false, ..WorldOptions::default() });
    let mut disk = SimDisk::open(&world);
    DrivenShard::create(&mut disk, IDENTITY).expect("an empty shard");
    world
}

/// A shard that runs, with one stream.
pub(crate) struct Running {
    pub(crate) world: SimWorld,
    pub(crate) shard: DrivenShard<WatchedDisk>,
    pub(crate) watch: Watch,
    pub(crate) now: Time,
    pub(crate) stream: StreamId,
}

pub(crate) fn try_open(world: &SimWorld, options: &Options) -> Result<Running, OpenError> {
    let disk = WatchedDisk::new(SimDisk::open(world), IDENTITY.log, IDENTITY.shard, true);
    let watch = disk.watch();
    let now = Time { mono_ns: MS, wall_ns: 1_700_000_000_000 * MS };
    let memory = ShardMemory::new(options, SEGMENT_BYTES).expect("memory");
    let mut shard = DrivenShard::open(disk, IDENTITY, options, &memory, now)?;
    watch.begin_serving();
    let known = shard.streams().iter().find(|(_, name)| &**name == "s").map(|(id, _)| *id);
    let stream = known.unwrap_or_else(|| shard.create_stream("s").expect("a stream"));
    Ok(Running { world: world.clone(), shard, watch, now, stream })
}

/// Opens, and waits until the first segments are prepared and the stream is durable.
pub(crate) fn open(world: &SimWorld, sync: SyncPolicy) -> Running {
    open_with(world, &options(sync))
}

/// The same with other options.
pub(crate) fn open_with(world: &SimWorld, options: &Options) -> Running {
    let mut running = try_open(world, options).expect("it opens");
    running.turns(40);
    assert!(matches!(running.ask_and_wait(Request::Flush), Reply::Done));
    running.turns(40);
    running
}

impl Running {
    /// One turn, one microsecond.
    pub(crate) fn turn(&mut self) {
        self.now.mono_ns += 1_000;
        self.now.wall_ns += 1_000;
        self.shard.turn(self.now);
    }

    pub(crate) fn turns(&mut self, count: usize) {
        (0..count).for_each(|_| self.turn());
    }

    pub(crate) fn pass(&mut self, ns: u64) {
        self.now.mono_ns += ns;
        self.now.wall_ns += ns;
    }

    pub(crate) fn append(
        &self,
        record: &[u8],
        durability: Durability,
    ) -> Result<Receipt, AppendError> {
        self.shard.append(0, self.stream, &[record], durability)
    }

    /// Appends and waits for the acknowledgement.
    pub(crate) fn append_and_wait(&mut self, record: &[u8], durability: Durability) {
        let mut receipt = self.append(record, durability).expect("room");
        for _ in 0..1000 {
            if let Some(end) = poll(&mut receipt) {
                return end.expect("acknowledged");
            }
            self.turn();
        }
        panic!("an append is never acknowledged");
    }

    pub(crate) fn ask(&self, request: Request) -> Receiver<Reply> {
        self.shard.request(request)
    }

    pub(crate) fn ask_and_wait(&mut self, request: Request) -> Reply {
        let answer = self.ask(request);
        for _ in 0..1000 {
            if let Ok(reply) = answer.try_recv() {
                return reply;
            }
            self.turn();
        }
        panic!("{request:?} is never answered");
    }

    /// The payloads that a reader of the stream finds.
    pub(crate) fn read(&self) -> Vec<Vec<u8>> {
        let disk = Box::new(SimDisk::open(&self.world));
        let reader = self.shard.read(disk, self.stream, None).expect("a reader");
        reader.map(|record| record.expect("a record").payload().to_vec()).collect()
    }

    /// What a reader from this offset on finds: offsets, and errors.
    pub(crate) fn read_from(&self, from: u64) -> Vec<Result<u64, ReadError>> {
        let disk = Box::new(SimDisk::open(&self.world));
        let reader = self.shard.read(disk, self.stream, Some(Offset(from))).expect("a reader");
        reader.map(|record| record.map(|record| record.offset().0)).collect()
    }

    /// How many operations so far were to flush batches.
    pub(crate) fn flushes(&self) -> usize {
        let flushes = |seen: &&Seen| match seen {
            Seen::Write { flush, what, .. } => {
                *what == Content::Batch && *flush != ringlog_disk::Flush::No
            }
            Seen::Sync(_) => true,
            _ => false,
        };
        self.watch.journal().iter().filter(flushes).count()
    }

    /// Fails if the watch found anything.
    #[track_caller]
    pub(crate) fn check(&self) {
        assert_eq!(self.watch.take_violations(), Vec::<String>::new());
        assert_eq!(self.world.stats().contract_violations, 0);
    }
}

/// What a receipt says; `None` if one would still wait.
pub(crate) fn poll(receipt: &mut Receipt) -> Option<Result<(), ReceiptError>> {
    let mut cx = Context::from_waker(Waker::noop());
    match Pin::new(receipt).poll(&mut cx) {
        Poll::Ready(end) => Some(end.map(drop)),
        Poll::Pending => None,
    }
}
