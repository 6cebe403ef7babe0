//! Starting the writers of a log: each on a thread of its own, in two steps.
//!
//! First every shard is read; only when all are sound, anything is changed in one of them. So a log
//! that is refused is left as it was found. What can wait until the first records are through waits
//! (`SETTLES_AFTER_NS`): making memory resident, and finding the CPU to run on.

use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringlog_disk::profile::commits_in_flight_unmeasured;
use ringlog_disk::{
    AnyDisk, BlockPool, Dir, Disk, DiskError, DiskOptions, IoKind, MakingResident, Place,
    Primitive, interrupt_cpu,
};

use crate::chunk::chunk_capacity;
use crate::clock::{Clock, wall_ns};
use crate::error::OpenError;
use crate::failure::LogFailure;
use crate::format::batch::RUN_BYTES;
use crate::format::manifest::Manifest;
use crate::format::meta::LogMeta;
use crate::format::segment::{SEGMENT_FOOTER_BYTES, SEGMENT_HEADER_BYTES};
use crate::ids::{Epoch, StreamId};
use crate::inbox::{Admission, Inbox, InboxConfig};
use crate::limits::{
    BATCH_BYTES_MAX, BLOCK_BYTES, CHUNK_BYTES, COALESCE_BYTES_MAX, COMMIT_BYTES_DEFAULT,
    COMMITS_IN_FLIGHT_DEFAULT, MEMORY_BYTES_MIN,
};
use crate::log::{OpenShard, Writer as ShardWriter};
use crate::names;
use crate::observe::trace::Recovering;
use crate::open::{Parts, reading_disk, report};
use crate::options::{FrozenFormat, Options};
use crate::published::Published;
use crate::recovery::watch::Watch;
use crate::recovery::{Identity, ShardRecovery, load, resume, tail};
use crate::runtime::{Shared, Writer};
use crate::shard::{Request, Shard, ShardConfig, Streams, saturating_nanos};
use crate::window::pool_for;

pub(crate) const NO_HUGE_PAGES: &str = "Huge pages are not to be had: large transfers are split \
    into many requests, at up to half the bandwidth; allow them \
    (/sys/kernel/mm/transparent_hugepage/enabled: madvise).";
const NOT_PINNED: &str = "The writer thread could not be pinned to a CPU: a commit takes some 20 µs \
    longer where it does not run beside the disk's interrupts; allow sched_setaffinity, or set `pin` \
    to false.";
const ONE_CPU: &str = "This process has one CPU, which writers and producers share: appends wait for \
    commits and commits for appends; give it two.";

/// Size of the blocks in which small chunks are copied together, where there is memory enough.
const BATCH_BLOCK_BYTES: usize = 256 << 10;
/// Blocks for headers, footers and watermarks.
const META_BLOCKS: usize = 8;

/// A shard that is ready to be written, as its handles see it.
pub(crate) struct Ready {
    pub(crate) shared: Arc<Shared>,
    /// Its memory, which is still to be made resident.
    pub(crate) pools: Pools,
    pub(crate) published: Arc<Published>,
    pub(crate) epoch: Epoch,
    pub(crate) next_stream: u32,
    pub(crate) names: Vec<(StreamId, Arc<str>)>,
    pub(crate) recovery: ShardRecovery,
}

/// What a writer thread is given.
struct Task {
    lock: Place,
    dir: Place,
    shard: u16,
    meta: LogMeta,
    options: Options,
    watch: Option<Arc<Watch>>,
    failure: LogFailure,
    sound: SyncSender<()>,
    go: Receiver<()>,
    ready: SyncSender<Result<Ready, OpenError>>,
}

/// A writer thread that has not begun to write.
struct Opening {
    dir: Place,
    thread: JoinHandle<()>,
    /// Says that the shard has been read and is sound. Closed without a word when it is not.
    sound: Receiver<()>,
    go: SyncSender<()>,
    ready: Receiver<Result<Ready, OpenError>>,
}

/// Opens all shards: first each is read, and only when all are sound, anything is changed.
pub(crate) fn open_for_writing(
    lock: &Place,
    dirs: Vec<Place>,
    meta: &LogMeta,
    options: &Options,
    watch: Option<&Arc<Watch>>,
) -> Result<Vec<Parts>, OpenError> {
    let mut begun: Vec<Opening> = Vec::with_capacity(dirs.len());
    let failure = LogFailure::default();
    for (shard, dir) in (0..).zip(dirs) {
        match Opening::begin(lock, dir, shard, meta, (options, watch, &failure)) {
            Ok(opening) => begun.push(opening),
            Err(error) => {
                begun.into_iter().for_each(|opening| drop(opening.end()));
                return Err(error);
            }
        }
    }
    // A shard that is alone waits for nobody.
    if begun.len() > 1 {
        for at in 0..begun.len() {
            if begun[at].sound.recv().is_err() {
                let refused = begun.remove(at).end();
                begun.into_iter().for_each(|opening| drop(opening.end()));
                return Err(refused);
            }
        }
        // All at once: what they do now waits for the device most of the time.
        for opening in &begun {
            let _ = opening.go.send(()); // if the thread is gone, there is no answer either
        }
    }
    let mut opened: Vec<Parts> = Vec::with_capacity(begun.len());
    let mut failed = None;
    for opening in begun {
        match opening.finish() {
            Ok(parts) => opened.push(parts),
            Err(error) => {
                failed.get_or_insert(error);
            }
        }
    }
    let Some(error) = failed else { return Ok(opened) };
    for (open, _, _) in opened {
        if let ShardWriter::Running(shared, thread) = open.writer {
            let _ = shared.ask(Request::Close); // it has nothing to lose
            let thread = thread.into_inner().unwrap_or_else(PoisonError::into_inner);
            drop(thread.map(JoinHandle::join));
        }
    }
    Err(error)
}

impl Opening {
    fn begin(
        lock: &Place,
        dir: Place,
        shard: u16,
        meta: &LogMeta,
        (options, watch, failure): (&Options, Option<&Arc<Watch>>, &LogFailure),
    ) -> Result<Self, OpenError> {
        let (sound_sender, sound) = sync_channel(1);
        let (go, go_receiver) = sync_channel(1);
        let (ready_sender, ready) = sync_channel(1);
        let task = Task {
            lock: lock.clone(),
            dir: dir.clone(),
            shard,
            meta: *meta,
            options: options.clone(),
            watch: watch.cloned(),
            failure: failure.clone(),
            sound: sound_sender,
            go: go_receiver,
            ready: ready_sender,
        };
        let thread = std::thread::Builder::new()
            .name(format!("ringlog-{shard}"))
            .spawn(move || task.run())
            .map_err(|error| OpenError::Thread(error.to_string()))?;
        Ok(Self { dir, thread, sound, go, ready })
    }

    /// Lets the thread go without having changed anything, and gives why it could not begin.
    fn end(self) -> OpenError {
        drop((self.go, self.sound));
        let why = self.ready.recv();
        let _ = self.thread.join(); // it has said why it ends
        match why {
            Ok(Err(error)) => error,
            _ => OpenError::Thread("a writer ended while it opened its shard".into()),
        }
    }

    fn finish(self) -> Result<Parts, OpenError> {
        let ready: Ready = match self.ready.recv() {
            Ok(Ok(ready)) => ready,
            Ok(Err(error)) => {
                let _ = self.thread.join(); // it has said why it ends
                return Err(error);
            }
            Err(_) => {
                return Err(OpenError::Thread("a writer ended while it opened its shard".into()));
            }
        };
        let facts = ready.shared.facts.clone();
        let notes = ready.shared.notes.clone();
        let open = OpenShard {
            writer: ShardWriter::Running(ready.shared, Mutex::new(Some(self.thread))),
            published: ready.published,
            dir: self.dir,
            epoch: ready.epoch,
            next_stream: ready.next_stream,
            names: ready.names,
            recovery: ready.recovery,
        };
        Ok((open, facts, notes))
    }
}

/// Leaves nobody waiting when a writer ends, whatever ended it.
pub(crate) struct LastWord(pub(crate) Arc<Shared>);

impl Drop for LastWord {
    fn drop(&mut self) {
        let inbox = &self.0.inbox;
        let closed = inbox.admission() == Admission::Closed;
        inbox.abandon();
        self.0.published.end((!closed).then(|| inbox.failure()));
    }
}

impl Task {
    /// The whole life of a writer thread. The ring must be made on the thread that drives it.
    fn run(self) {
        let ready = self.ready.clone();
        let (shard, pinned) = (self.shard, self.options.pin.then(|| self.dir.clone()));
        match self.prepare() {
            Ok(Some((writer, told))) => {
                let shared = Arc::clone(&writer.shared);
                let last_word = LastWord(Arc::clone(&shared));
                let pools = told.pools.clone();
                let settle = move || {
                    // Before this thread is pinned: that one may run elsewhere.
                    shared.keep(pools.make_resident());
                    // In memory there is no device to be near to.
                    if let Some(dir) = pinned.as_ref().and_then(Place::as_dir) {
                        shared.note_late(pin(dir, shard));
                    }
                };
                if ready.send(Ok(told)).is_ok() {
                    writer.run(&Clock::new(), settle);
                }
                drop(last_word);
            }
            Ok(None) => {} // another shard is not sound
            Err(error) => {
                let _ = ready.send(Err(error)); // nobody waits any more
            }
        }
    }

    fn prepare(self) -> Result<Option<(Writer<AnyDisk>, Ready)>, OpenError> {
        let start = Instant::now();
        let measure = || start.elapsed();
        let identity = Identity {
            log: self.meta.log,
            shard: self.shard,
            segment_bytes: self.meta.segment_bytes,
        };
        let watch = self.watch.as_deref();
        let scanned = read_shard(&self.dir, self.options.io, &identity, &measure, watch)?;
        let mut notes = Vec::new();
        let format = self.meta.into();
        let pools = Pools::new(&self.options, format)?;
        // In memory no transfer is split.
        if self.dir.as_dir().is_some() && !pools.small.huge_pages_advised() {
            notes.push(NO_HUGE_PAGES.to_owned());
        }
        let disk_options = disk_options(&self.options, &pools, true);
        let disk = self.dir.disk(Some(&self.lock), self.options.io, &disk_options)?;
        let others = self.meta.shards > 1;
        if others && (self.sound.send(()).is_err() || self.go.recv().is_err()) {
            return Ok(None);
        }
        let (options, failure) = (&self.options, self.failure);
        let begin = Begin { options, pools, notes, now_ns: wall_ns(), failure };
        let (writer, ready) = start_shard(disk, &identity, scanned, begin, &measure)?;
        Ok(Some((writer, ready)))
    }
}

/// How the disk of a writer is opened.
pub(crate) fn disk_options(options: &Options, pools: &Pools, names_thread: bool) -> DiskOptions {
    let primitive = options.primitive.unwrap_or(Primitive::Dsync);
    let known_file = Some(names::manifest());
    DiskOptions {
        pools: pools.all(),
        primitive,
        names_thread,
        known_file,
        ..DiskOptions::default()
    }
}

/// Recovers a shard on any disk, and makes its writer. `measure` tells the time since the opening
/// began.
pub(crate) fn open_shard<D: Disk>(
    mut disk: D,
    identity: &Identity,
    begin: Begin<'_>,
    measure: &dyn Fn() -> Duration,
) -> Result<(Writer<D>, Ready), OpenError> {
    let scanned = scan_shard(&mut disk, identity, measure, None)?;
    start_shard(disk, identity, scanned, begin, measure)
}

/// What a shard is opened with.
pub(crate) struct Begin<'a> {
    pub(crate) options: &'a Options,
    pub(crate) pools: Pools,
    pub(crate) notes: Vec<String>,
    /// Nanoseconds since 1970.
    pub(crate) now_ns: u64,
    /// Shared by the shards of a log.
    pub(crate) failure: LogFailure,
}

/// A shard that has been read and found sound.
pub(crate) struct Scanned {
    manifest: Manifest,
    tail: tail::Tail,
    scan_time: Duration,
    span: Recovering,
}

/// Reads what recovery needs, with a disk for that. Changes nothing.
pub(crate) fn read_shard(
    dir: &Place,
    io: IoKind,
    identity: &Identity,
    measure: &dyn Fn() -> Duration,
    watch: Option<&Watch>,
) -> Result<Scanned, OpenError> {
    let span = Recovering::begin(identity.shard);
    let scan = || {
        // After a clean close there is little to read: a ring would take longer to set up.
        let mut disk = reading_disk(dir, IoKind::Blocking)?;
        let (manifest, streams) = load(&mut disk, identity)?;
        if !manifest.clean && io != IoKind::Blocking {
            disk = reading_disk(dir, io)?;
        }
        scan(&mut disk, identity, (manifest, streams), measure, watch)
    };
    Scanned::of(scan(), span)
}

/// The same on a disk that is open already.
pub(crate) fn scan_shard(
    disk: &mut dyn Disk,
    identity: &Identity,
    measure: &dyn Fn() -> Duration,
    watch: Option<&Watch>,
) -> Result<Scanned, OpenError> {
    let span = Recovering::begin(identity.shard);
    let loaded = load(disk, identity);
    Scanned::of(loaded.and_then(|loaded| scan(disk, identity, loaded, measure, watch)), span)
}

impl Scanned {
    fn of(
        read: Result<(Manifest, tail::Tail, Duration), OpenError>,
        span: Recovering,
    ) -> Result<Self, OpenError> {
        match read {
            Ok((manifest, tail, scan_time)) => Ok(Self { manifest, tail, scan_time, span }),
            Err(error) => {
                span.failed(&error);
                Err(error)
            }
        }
    }
}

fn scan(
    disk: &mut dyn Disk,
    identity: &Identity,
    (manifest, streams): (Manifest, Streams),
    measure: &dyn Fn() -> Duration,
    watch: Option<&Watch>,
) -> Result<(Manifest, tail::Tail, Duration), OpenError> {
    let scan_pool = pool_for(identity.segment_bytes)?;
    let scan_began = measure();
    let tail = tail::scan_watched(
        disk,
        identity,
        &manifest,
        streams,
        &scan_pool,
        (tail::Purpose::Write, watch),
    )?;
    let scan_time = measure().saturating_sub(scan_began);
    match &tail.corruption {
        Some(corruption) => Err(OpenError::Corrupt(corruption.clone())),
        None => Ok((manifest, tail, scan_time)),
    }
}

/// Recovers a shard that is sound, and makes its writer.
pub(crate) fn start_shard<D: Disk>(
    mut disk: D,
    identity: &Identity,
    scanned: Scanned,
    begin: Begin<'_>,
    measure: &dyn Fn() -> Duration,
) -> Result<(Writer<D>, Ready), OpenError> {
    let Scanned { manifest, tail, scan_time, span } = scanned;
    let Begin { options, pools, notes, now_ns, failure } = begin;
    let mut recovery = report(identity.shard, &manifest, &tail, scan_time);
    let (begin, rewritten) = resume::resume(&mut disk, identity, manifest, tail, now_ns)?;
    recovery.records_rewritten = rewritten;
    recovery.elapsed = measure();
    span.end(&recovery);

    let epoch = begin.manifest.epoch;
    let next_stream = begin.streams.count().max(1);
    let names = begin.streams.named().map(|(id, name)| (id, Arc::clone(name))).collect();
    // What is kept for followers comes out of the memory for records.
    let published = Arc::new(Published::new(options.tail_bytes.min(options.memory_bytes / 8)));
    published.set_segments(begin.segments.clone());
    published.set_durable(begin.next_lsn);
    published.add_trims(begin.streams.trims());
    let config = ShardConfig {
        log: identity.log,
        shard: identity.shard,
        epoch,
        segment_bytes: identity.segment_bytes,
        policy: options.sync,
        stream_policies: options.stream_sync.clone(),
        commits_in_flight: options
            .commits_in_flight
            .unwrap_or_else(|| commits_in_flight_unmeasured(&disk.facts().file_system)),
        commit_bytes: options.commit_bytes.unwrap_or(COMMIT_BYTES_DEFAULT),
        linger_ns: options.linger.as_nanos() as u64,
        retention: options.retention,
        postings_bytes_max: pools.postings_bytes_max,
        rotate_after_ns: options.rotate_after.map(saturating_nanos),
        batch_blocks: pools.batch.clone(),
        meta_blocks: pools.meta.clone(),
        recent: Arc::clone(&published.recent),
    };
    let inbox_config = InboxConfig {
        log: identity.log,
        shard: identity.shard,
        epoch,
        frames_bytes_max: pools.frames_bytes_max,
    };
    let inbox = Inbox::new(inbox_config, pools.small.clone(), pools.large.clone(), disk.waker());
    let (commands, received) = channel();
    failure.join(disk.waker());
    let shared = Arc::new(Shared {
        inbox: Arc::new(inbox),
        published: Arc::clone(&published),
        commands,
        facts: disk.facts().clone(),
        notes,
        failure,
        last: Mutex::new(None),
        making_resident: Mutex::new(None),
        late_note: OnceLock::new(),
    });
    let writer = Writer::new(disk, Shard::new(config, begin), Arc::clone(&shared), received);
    Ok((writer, Ready { shared, pools, published, epoch, next_stream, names, recovery }))
}

/// Pins the calling thread: shard 0 to the CPU that takes the device's interrupts, where it is one
/// (its completions wake the thread soonest there), the others to the CPUs behind it in turn.
/// Gives what is to be said of it, if anything.
fn pin(dir: &Dir, shard: u16) -> Option<&'static str> {
    let cpus = core_affinity::get_core_ids().unwrap_or_default();
    if cpus.is_empty() {
        return Some(NOT_PINNED);
    }
    let first = interrupt_cpu(dir)
        .and_then(|cpu| cpus.iter().position(|allowed| allowed.id == cpu))
        .unwrap_or(0);
    if !core_affinity::set_for_current(cpus[(first + usize::from(shard)) % cpus.len()]) {
        return Some(NOT_PINNED);
    }
    (cpus.len() == 1).then_some(ONE_CPU)
}

fn commits_in_flight(options: &Options) -> usize {
    options.commits_in_flight.unwrap_or(COMMITS_IN_FLIGHT_DEFAULT)
}

/// All memory of a shard. Clones share it.
#[derive(Clone)]
pub(crate) struct Pools {
    pub(crate) small: BlockPool,
    pub(crate) large: BlockPool,
    batch: BlockPool,
    meta: BlockPool,
    pub(crate) frames_bytes_max: usize,
    /// What may be kept in memory of where the records of an open segment lie.
    postings_bytes_max: usize,
}

/// How many blocks of which size a shard has of each kind.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    small: (usize, usize),
    large: (usize, usize),
    batch: (usize, usize),
    meta: (usize, usize),
    frames_bytes_max: usize,
    postings_bytes_max: usize,
}

impl Sizes {
    /// A shard's part of the memory of a log of this format, divided among its uses.
    fn new(options: &Options, format: FrozenFormat) -> Self {
        let share = options.memory_bytes / usize::from(format.shards.max(1));
        let share = share.max(MEMORY_BYTES_MIN);
        let segment_room = format.segment_bytes - SEGMENT_HEADER_BYTES - SEGMENT_FOOTER_BYTES;
        let batch_max = options.batch_bytes_max.min((segment_room / 4) as usize).min(share / 4);
        let large_bytes = (batch_max + BLOCK_BYTES).next_multiple_of(BLOCK_BYTES);
        let batch_count = commits_in_flight(options) * 2 + 2;
        let batch_bytes = share / 4 / batch_count / BLOCK_BYTES * BLOCK_BYTES;
        let batch_bytes = batch_bytes.clamp(COALESCE_BYTES_MAX + BLOCK_BYTES, BATCH_BLOCK_BYTES);
        let postings_bytes_max = share / 8;
        let left = share - batch_count * batch_bytes - META_BLOCKS * BLOCK_BYTES;
        let left = left - postings_bytes_max;
        let large_count = (left / 2 / large_bytes).max(1);
        let small_count = (left - large_count * large_bytes) / CHUNK_BYTES;
        // Every reader takes a batch of BATCH_BYTES_MAX, with its headers.
        let largest = large_bytes.min(BATCH_BYTES_MAX);
        Self {
            small: (small_count, CHUNK_BYTES),
            large: (large_count, large_bytes),
            batch: (batch_count, batch_bytes),
            meta: (META_BLOCKS, BLOCK_BYTES),
            frames_bytes_max: batch_max.min(chunk_capacity(largest) - RUN_BYTES),
            postings_bytes_max,
        }
    }
}

impl Pools {
    /// See [`Options::memory_bytes`].
    pub(crate) fn new(options: &Options, format: FrozenFormat) -> Result<Self, DiskError> {
        let sizes = Sizes::new(options, format);
        let pool =
            |(count, bytes): (usize, usize)| BlockPool::ordinary_at_first(count as u32, bytes);
        let (meta_count, meta_bytes) = sizes.meta;
        Ok(Self {
            small: pool(sizes.small)?,
            large: pool(sizes.large)?,
            batch: pool(sizes.batch)?,
            meta: BlockPool::ordinary(meta_count as u32, meta_bytes)?,
            frames_bytes_max: sizes.frames_bytes_max,
            postings_bytes_max: sizes.postings_bytes_max,
        })
    }

    /// In the order in which a shard uses them.
    pub(crate) fn all(&self) -> Vec<BlockPool> {
        vec![self.meta.clone(), self.batch.clone(), self.small.clone(), self.large.clone()]
    }

    /// Begins to make them resident, which goes on while the shard begins its life.
    pub(crate) fn make_resident(&self) -> MakingResident {
        MakingResident::begin(&self.all())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_takes_no_more_memory_than_its_part_and_has_enough_of_each_kind() {
        for memory_bytes in [4, 5, 7, 16, 32, 64, 1000].map(|mib| mib << 20) {
            for shards in [1, 2, 8] {
                for commits_in_flight in 1..=8 {
                    for batch_bytes_max in [64 << 10, 2 << 20, 8 << 20] {
                        for segment_bytes in [1 << 20, 64 << 20] {
                            let memory_bytes = memory_bytes * shards;
                            let options = Options {
                                memory_bytes,
                                commits_in_flight: Some(commits_in_flight),
                                batch_bytes_max,
                                ..Options::default()
                            };
                            let format = FrozenFormat { segment_bytes, shards: shards as u16 };
                            assert_eq!(options.validate_for(format), Ok(()));
                            check(&options, format);
                        }
                    }
                }
            }
        }
    }

    fn check(options: &Options, format: FrozenFormat) {
        let share = options.memory_bytes / usize::from(format.shards);
        let sizes = Sizes::new(options, format);
        let pools = [sizes.small, sizes.large, sizes.batch, sizes.meta];
        let blocks: usize = pools.iter().map(|(count, bytes)| count * bytes).sum();
        let used = blocks + sizes.postings_bytes_max;
        assert!(used <= share, "{used} of {share}: {options:?}");
        assert!(used > share * 3 / 4, "{used} of {share}: {options:?}");
        assert!(sizes.small.0 >= 16 && sizes.large.0 >= 1, "{options:?}");
        assert!(sizes.batch.1 >= BLOCK_BYTES + COALESCE_BYTES_MAX, "{options:?}");
        let batch = options.batch_bytes_max.min(share / 4).min(format.segment_bytes as usize / 5);
        assert!(sizes.frames_bytes_max + BLOCK_BYTES >= batch, "{options:?}");
    }
}
