//! The way of a record through the engine, on a disk in memory: into a chunk, with its chunk to the
//! writer, into a commit, and back as an acknowledgement; and how fast recovery goes over it.
//!
//! Where the writer takes part, this thread takes its turns: only `receipt/blocked thread` has another
//! thread. What makes room for the next measurement is not measured.

use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringlog::testing::{DrivenShard, ShardIdentity, ShardMemory, examine};
use ringlog::{
    Durability, Format, Log, LogId, MemoryDevice, Options, Receipt, Retention, StreamId,
    SyncPolicy, Time,
};
use ringlog_disk::MemoryDisk;

const SEGMENT_BYTES: u64 = 64 << 20;
const IDENTITY: ShardIdentity =
    ShardIdentity { log: LogId([7; 16]), shard: 0, segment_bytes: SEGMENT_BYTES };
/// Payload that is appended before the writer takes its turns.
const ROUND_BYTES: usize = 2 << 20;
/// Chunks that are handed over before it does.
const ROUND_CHUNKS: u64 = 64;
/// Threads with a record each in one commit.
const THREADS: usize = 16;
/// More turns than anything takes.
const TURNS_MAX: usize = 100_000;

fn options() -> Options {
    let format = Format { segment_bytes: Some(SEGMENT_BYTES), shards: Some(1) };
    // What was measured makes room for what comes.
    let retention = Retention { max_segments: Some(4), ..Retention::default() };
    Options { format, retention, memory_bytes: 16 << 20, ..Options::default() }
}

/// A shard that this thread drives.
struct Rig {
    device: MemoryDevice,
    shard: DrivenShard<MemoryDisk>,
    stream: StreamId,
    now: Time,
    appended: u64,
}

impl Rig {
    fn new(options: &Options) -> Self {
        let device = MemoryDevice::new();
        let dir = device.root();
        let memory = ShardMemory::new(options, SEGMENT_BYTES).expect("memory");
        DrivenShard::create(&mut dir.disk(), IDENTITY).expect("a shard");
        let now = Time { mono_ns: 0, wall_ns: 1_700_000_000_000_000_000 };
        let opened = DrivenShard::open(dir.disk(), IDENTITY, options, &memory, now);
        let mut shard = opened.expect("an open shard");
        let stream = shard.create_stream("s").expect("a stream");
        let mut rig = Self { device, shard, stream, now, appended: 0 };
        rig.settle();
        rig
    }

    fn append(&mut self, thread: usize, record: &[u8], durability: Durability) -> Receipt {
        let receipt = self.shard.append(thread, self.stream, &[record], durability);
        self.appended += 1;
        receipt.expect("room")
    }

    fn turn(&mut self, ns: u64) -> bool {
        self.now.mono_ns += ns;
        self.now.wall_ns += ns;
        self.shard.turn(self.now)
    }

    /// Turns until this receipt is acknowledged.
    fn commit(&mut self, last: &Receipt) {
        for _ in 0..TURNS_MAX {
            if last.is_acknowledged() {
                return;
            }
            self.turn(1_000);
        }
        panic!("no acknowledgement");
    }

    /// Turns, and lets time pass, until all that was appended is written and nothing is left to do.
    fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            let more = self.turn(2_000_000);
            let (staged, written, _) = self.shard.watermarks();
            let placed = self.shard.next_offset(self.stream).0 == self.appended;
            if placed && written == staged && self.shard.in_flight() == 0 && !more {
                return;
            }
        }
        panic!("the shard does not come to rest");
    }

    /// The time of `measured`, so many times in all, with room for each `at_once` of them.
    fn time(&mut self, times: u64, at_once: u64, mut measured: impl FnMut(&mut Self)) -> Duration {
        let (mut took, mut left) = (Duration::ZERO, times);
        while left > 0 {
            let now = left.min(at_once);
            let begun = Instant::now();
            for _ in 0..now {
                measured(self);
            }
            took += begun.elapsed();
            left -= now;
            self.settle();
        }
        took
    }
}

/// Appends that nobody waits for: lock, copy, checksum, and a new chunk where one is full.
fn inbox(c: &mut Criterion) {
    let mut group = c.benchmark_group("inbox");
    for bytes in [64, 256, 4096] {
        let mut rig = Rig::new(&options());
        let record = vec![1; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("append", bytes), |b| {
            b.iter_custom(|times| {
                rig.time(times, (ROUND_BYTES / (bytes + 16)) as u64, |rig| {
                    drop(black_box(rig.append(0, black_box(&record), Durability::Memory)));
                })
            });
        });
    }
    // With a flush for each append every record has a chunk of its own: a block, a ticket, the queue.
    let mut rig = Rig::new(&Options { sync: SyncPolicy::EveryAppend, ..options() });
    group.throughput(Throughput::Elements(1));
    group.bench_function("chunk handed over", |b| {
        b.iter_custom(|times| {
            rig.time(times, ROUND_CHUNKS, |rig| {
                drop(black_box(rig.append(0, black_box(&[1; 64]), Durability::Synced)));
            })
        });
    });
}

/// Counts how often it was woken.
#[derive(Default)]
struct Woken(AtomicU64);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The writer's turns from chunks in their slots to acknowledgements: one record of each of so many
/// threads. `futures wait`: all of them have left a waker.
fn commit(c: &mut Criterion) {
    let mut group = c.benchmark_group("commit");
    for (name, threads, futures) in
        [("chunks", 1, false), ("chunks", THREADS, false), ("futures wait", THREADS, true)]
    {
        let mut rig = Rig::new(&options());
        let record = vec![1; 256];
        let counter = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&counter));
        let mut expected = 0;
        group.throughput(Throughput::Elements(threads as u64));
        group.bench_function(BenchmarkId::new(name, threads), |b| {
            b.iter_custom(|times| {
                let mut took = Duration::ZERO;
                for _ in 0..times {
                    let mut receipts: Vec<Receipt> = (0..threads)
                        .map(|thread| rig.append(thread, &record, Durability::Synced))
                        .collect();
                    if futures {
                        for receipt in &mut receipts {
                            let polled = Pin::new(receipt).poll(&mut Context::from_waker(&waker));
                            assert!(polled.is_pending(), "nobody has taken a turn");
                            expected += 1;
                        }
                    }
                    let last = &receipts[threads - 1];
                    let begun = Instant::now();
                    rig.commit(last);
                    took += begun.elapsed();
                    assert!(receipts.iter().all(Receipt::is_acknowledged), "one commit for all");
                }
                took
            });
        });
        assert_eq!(counter.0.load(Ordering::Relaxed), expected, "each is woken once");
    }
}

/// There and back: a thread appends and sleeps, the writer's thread wakes, commits, and wakes it.
fn receipt(c: &mut Criterion) {
    let mut group = c.benchmark_group("receipt");
    let (log, _device) = Log::in_memory(options()).expect("a log");
    let stream = log.stream("s").expect("a stream");
    let record = vec![1; 256];
    group.bench_function("blocked thread", |b| {
        b.iter(|| {
            let receipt = stream.append(black_box(&record)).expect("room");
            receipt.wait_timeout(Duration::from_secs(30)).expect("an acknowledgement")
        });
    });
    log.close().expect("closed");
}

/// Going over the tail of a shard that was not closed.
fn recovery(c: &mut Criterion) {
    let mut group = c.benchmark_group("recovery");
    group.sample_size(20);
    for bytes in [256, 4096] {
        let mut rig = Rig::new(&options());
        let record = vec![1; bytes];
        for _ in 0..8 {
            rig.time((ROUND_BYTES / (bytes + 16)) as u64, u64::MAX, |rig| {
                drop(black_box(rig.append(0, &record, Durability::Memory)));
            });
        }
        let (end, dir) = (rig.shard.watermarks().1, rig.device.root());
        drop(rig.shard);
        assert!(end.0 > 8 * (ROUND_BYTES as u64 - 8192), "{end} bytes were written");
        group.throughput(Throughput::Bytes(end.0));
        group.bench_function(BenchmarkId::new("scan", bytes), |b| {
            b.iter(|| assert_eq!(examine(&mut dir.disk(), IDENTITY), Ok(end)));
        });
    }
}

criterion_group!(benches, inbox, commit, receipt, recovery);
criterion_main!(benches);
