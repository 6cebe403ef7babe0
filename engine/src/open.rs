//! Opening a log: the directory, the lock, the files that make it a log, and one writer per shard.

use std::path::Path;
use std::sync::mpsc::{SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringlog_disk::{
    AnyDisk, BlockPool, BlockingDisk, Dir, Disk, DiskError, DiskErrorKind, DiskFacts, DiskOptions,
    FileName, IoKind, Op, Primitive, entropy, interrupt_cpu, probe_commit,
};

use crate::chunk::chunk_capacity;
use crate::clock::{Clock, wall_ns};
use crate::error::{Corruption, OpenError};
use crate::format::batch::RUN_BYTES;
use crate::format::manifest::Manifest;
use crate::format::meta::LogMeta;
use crate::format::segment::{SEGMENT_FOOTER_BYTES, SEGMENT_HEADER_BYTES};
use crate::ids::{Epoch, LogId, Lsn, SegmentId, StreamId};
use crate::inbox::{Inbox, InboxConfig};
use crate::limits::{BLOCK_BYTES, CHUNK_BYTES};
use crate::log::{OpenShard, Writer as ShardWriter, writes};
use crate::names;
use crate::options::Options;
use crate::published::Published;
use crate::recovery::{Identity, ShardRecovery, ask, load, load_file, resume, tail};
use crate::runtime::{Shared, Writer};
use crate::shard::{SegmentRef, Shard, ShardConfig};
use crate::tools::BACKUP_PREFIX;
use crate::window::{holds_any_batch, pool_for};

/// How long the lock of another process that is just going is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// The largest file `log` that is read.
const LOG_FILE_BYTES_MAX: u64 = 4096;
/// Size of the blocks in which small chunks are copied together.
const BATCH_BLOCK_BYTES: usize = 256 << 10;

/// The shard that a stream belongs to. Part of the format: it must never change.
pub(crate) fn shard_of(name: &str, shards: u16) -> usize {
    crc32fast::hash(name.as_bytes()) as usize % usize::from(shards.max(1))
}

pub(crate) struct Opened {
    pub(crate) meta: LogMeta,
    pub(crate) shards: Vec<OpenShard>,
    pub(crate) facts: DiskFacts,
    pub(crate) notes: Vec<String>,
    pub(crate) lock: Dir,
}

/// A disk for reading files of a shard from any thread.
pub(crate) fn reader_disk(dir: &Dir) -> Result<Box<dyn Disk + Send>, DiskError> {
    Ok(Box::new(BlockingDisk::open(dir, None, &DiskOptions::default())?))
}

/// A disk for reading files of a shard, on the calling thread.
pub(crate) fn reading_disk(dir: &Dir, io: IoKind) -> Result<AnyDisk, DiskError> {
    let kind = if io == IoKind::Uring { IoKind::Auto } else { io };
    ringlog_disk::open(dir, None, kind, &DiskOptions::default())
}

pub(crate) fn open(path: &Path, options: &Options) -> Result<Opened, OpenError> {
    let write = writes(options.recovery);
    let dir = open_dir(path, write && options.create)?;
    if write {
        if !dir.is_writable()? {
            let doing = format!("open {} for writing", path.display());
            return Err(DiskError::new(DiskErrorKind::Access, doing).into());
        }
        if !dir.lock_exclusive(LOCK_PATIENCE)? {
            return Err(OpenError::Locked(path.to_owned()));
        }
    }
    let meta = match find_meta(path, &dir)? {
        Some(meta) => meta,
        None if write && options.create => create(&dir, options)?,
        None => return Err(OpenError::NotFound(path.to_owned())),
    };
    let mut shards = Vec::with_capacity(meta.shards.into());
    let mut facts = None;
    let mut notes: Vec<String> = Vec::new();
    for shard in 0..meta.shards {
        let shard_dir =
            dir.subdir(&names::shard(shard), false).map_err(|error| match error.kind {
                DiskErrorKind::NotFound => missing_shard(shard),
                _ => OpenError::Disk(error),
            })?;
        let (open, shard_facts, shard_notes) = match write {
            true => open_for_writing(&dir, shard_dir, shard, &meta, options)?,
            false => open_for_reading(shard_dir, shard, &meta, options)?,
        };
        for note in shard_facts.notes.iter().cloned().chain(shard_notes) {
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        facts.get_or_insert(shard_facts);
        shards.push(open);
    }
    let Some(facts) = facts else { return Err(missing_shard(0)) };
    Ok(Opened { meta, shards, facts, notes, lock: dir })
}

fn missing_shard(shard: u16) -> OpenError {
    OpenError::Corrupt(Corruption {
        shard,
        segment: None,
        file: names::shard(shard).to_string(),
        file_offset: 0,
        lsn: None,
        what: "the directory of a shard is missing".into(),
    })
}

fn open_dir(path: &Path, create: bool) -> Result<Dir, OpenError> {
    match Dir::open(path) {
        Ok(dir) => Ok(dir),
        Err(error) if error.kind == DiskErrorKind::NotFound && create => Ok(Dir::create_all(path)?),
        Err(error) if error.kind == DiskErrorKind::NotFound => {
            Err(OpenError::NotFound(path.to_owned()))
        }
        Err(error) if error.kind == DiskErrorKind::Unexpected => {
            Err(OpenError::NotALog { dir: path.to_owned(), reason: "it is not a directory".into() })
        }
        Err(error) => Err(error.into()),
    }
}

/// What the file `log` says; `None` where a log may be created.
pub(crate) fn find_meta(path: &Path, dir: &Dir) -> Result<Option<LogMeta>, OpenError> {
    let mut disk = reading_disk(dir, IoKind::Blocking)?;
    let name = log_file()?;
    match load_file(&mut disk, name, LOG_FILE_BYTES_MAX) {
        Ok(file) => {
            let identity = Identity { log: LogId([0; 16]), shard: 0, segment_bytes: 0 };
            let meta = LogMeta::decode(&file)
                .map_err(|refused| identity.refused(names::LOG_FILE, refused))?;
            Ok(Some(meta))
        }
        Err(error) if error.kind == DiskErrorKind::NotFound => {
            let entries = dir.entries()?;
            let ours = |name: &str| {
                ["shard-", "log.", BACKUP_PREFIX].iter().any(|prefix| name.starts_with(prefix))
            };
            if let Some(other) = entries.iter().find(|name| !ours(name)) {
                let (dir, reason) = (path.to_owned(), format!("it holds {other:?}"));
                return Err(OpenError::NotALog { dir, reason });
            }
            for name in entries.iter().filter(|name| name.starts_with("shard-")) {
                check_half_made(dir, name)?;
            }
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn log_file() -> Result<FileName, OpenError> {
    FileName::new(names::LOG_FILE)
        .ok_or_else(|| DiskError::new(DiskErrorKind::Unexpected, "name the log file").into())
}

/// A creation that a crash cut short leaves shards without segments. Anything more is a log that
/// has lost its file.
fn check_half_made(dir: &Dir, name: &str) -> Result<(), OpenError> {
    let Some(shard) = FileName::new(name) else { return Ok(()) };
    let shard = dir.subdir(&shard, false)?;
    if shard.entries()?.iter().any(|name| name.ends_with(".seg")) {
        return Err(OpenError::Corrupt(Corruption {
            shard: 0,
            segment: None,
            file: names::LOG_FILE.into(),
            file_offset: 0,
            lsn: None,
            what: format!("the file is missing, but {name} holds segments"),
        }));
    }
    Ok(())
}

/// Makes the files of an empty log; the file `log`, last, makes it one.
fn create(dir: &Dir, options: &Options) -> Result<LogMeta, OpenError> {
    let primitive = match options.primitive {
        Some(Primitive::Dsync) => 1,
        Some(Primitive::LinkedSync) => 2,
        None => match probe_commit(dir, options.io) {
            Ok(probe) if probe.better == Primitive::LinkedSync => 2,
            Ok(_) => 1,
            Err(error) if error.kind == DiskErrorKind::Io => return Err(error.into()),
            Err(_) => 0, // the measuring needs a little room; the log says itself what it lacks
        },
    };
    let meta = LogMeta {
        log: LogId(entropy()?),
        created_ns: wall_ns(),
        segment_bytes: options.format.segment_bytes,
        shards: options.format.shards,
        primitive,
    };
    for shard in 0..meta.shards {
        let shard_dir = dir.subdir(&names::shard(shard), true)?;
        let mut disk = reading_disk(&shard_dir, IoKind::Blocking)?;
        let content = empty_manifest(meta.log, shard).encode();
        ask(&mut disk, Op::Replace { name: names::manifest(), content })?;
    }
    let mut disk = reading_disk(dir, IoKind::Blocking)?;
    ask(&mut disk, Op::Replace { name: log_file()?, content: meta.encode() })?;
    Ok(meta)
}

/// The manifest of a shard in which nothing was ever written.
pub(crate) fn empty_manifest(log: LogId, shard: u16) -> Manifest {
    Manifest {
        log,
        shard,
        generation: 0,
        epoch: Epoch(0),
        life_lsn: Lsn(0),
        proven_lsn: Lsn(0),
        clean: true,
        next_segment: SegmentId(1),
        catalogued_lsn: Lsn(0),
        trimmed_lsn: Lsn(0),
        trimmed_chain: 0,
        catalogue: Vec::new(),
        segments: Vec::new(),
    }
}

fn report(
    shard: u16,
    manifest: &Manifest,
    tail: &tail::Tail,
    scan_time: Duration,
) -> ShardRecovery {
    ShardRecovery {
        shard,
        clean: manifest.clean,
        segments: manifest.segments.len(),
        records: tail.records,
        bytes_scanned: tail.bytes_scanned,
        bytes_cut: tail.bytes_cut,
        cut_reason: tail.cut_reason.clone(),
        records_rewritten: 0,
        corruptions: tail.corruption.iter().cloned().collect(),
        scan_time,
        elapsed: scan_time,
    }
}

type Parts = (OpenShard, DiskFacts, Vec<String>);

fn open_for_reading(
    dir: Dir,
    shard: u16,
    meta: &LogMeta,
    options: &Options,
) -> Result<Parts, OpenError> {
    let identity = Identity { log: meta.log, shard, segment_bytes: meta.segment_bytes };
    let mut disk = reading_disk(&dir, options.io)?;
    let start = Instant::now();
    let (manifest, streams) = load(&mut disk, &identity)?;
    let mut tail =
        tail::scan(&mut disk, &identity, &manifest, streams, &pool_for(identity.segment_bytes)?)?;
    let recovery = report(shard, &manifest, &tail, start.elapsed());
    // Nothing is written, so what is not proven durable is served as it was found.
    while let Some(batch) = tail.unproven.pop_front() {
        tail::take_proven(&mut tail, batch);
    }
    let mut segments: Vec<Arc<SegmentRef>> = resume::segment_refs(&manifest, &tail.proven_parts);
    for (segment, base_lsn) in &tail.behind {
        if segments.iter().all(|known| known.segment != *segment) {
            let chain_before = tail.proven_chain;
            let (segment, base_lsn) = (*segment, *base_lsn);
            segments.push(Arc::new(SegmentRef { segment, base_lsn, chain_before }));
        }
    }
    let published = Arc::new(Published::default());
    published.set_segments(segments);
    published.set_durable(match tail.corruption {
        Some(_) => tail.proven.max(tail.told_durable),
        None => tail.proven,
    });
    let facts = disk.facts().clone();
    let open = OpenShard {
        writer: ShardWriter::ReadOnly { offsets: tail.streams.all_next() },
        published,
        dir,
        epoch: manifest.epoch,
        next_stream: tail.streams.count().max(1),
        names: tail.streams.named().map(|(id, name)| (id, Arc::clone(name))).collect(),
        recovery,
    };
    Ok((open, facts, Vec::new()))
}

/// A shard that is ready to be written, as its handles see it.
pub(crate) struct Ready {
    pub(crate) shared: Arc<Shared>,
    pub(crate) published: Arc<Published>,
    pub(crate) epoch: Epoch,
    pub(crate) next_stream: u32,
    pub(crate) names: Vec<(StreamId, Arc<str>)>,
    pub(crate) recovery: ShardRecovery,
}

/// What a writer thread is given.
struct Task {
    lock: Dir,
    dir: Dir,
    shard: u16,
    meta: LogMeta,
    options: Options,
}

fn open_for_writing(
    lock: &Dir,
    dir: Dir,
    shard: u16,
    meta: &LogMeta,
    options: &Options,
) -> Result<Parts, OpenError> {
    let (sender, receiver) = sync_channel(1);
    let task =
        Task { lock: lock.clone(), dir: dir.clone(), shard, meta: *meta, options: options.clone() };
    let thread = std::thread::Builder::new()
        .name(format!("ringlog-{shard}"))
        .spawn(move || task.run(&sender))
        .map_err(|error| OpenError::Thread(error.to_string()))?;
    let ready: Ready = match receiver.recv() {
        Ok(Ok(ready)) => ready,
        Ok(Err(error)) => {
            let _ = thread.join(); // it has said why it ends
            return Err(error);
        }
        Err(_) => return Err(OpenError::Thread("a writer ended while it opened its shard".into())),
    };
    let facts = ready.shared.facts.clone();
    let notes = ready.shared.notes.clone();
    let open = OpenShard {
        writer: ShardWriter::Running(ready.shared, Mutex::new(Some(thread))),
        published: ready.published,
        dir,
        epoch: ready.epoch,
        next_stream: ready.next_stream,
        names: ready.names,
        recovery: ready.recovery,
    };
    Ok((open, facts, notes))
}

impl Task {
    /// The whole life of a writer thread. The ring must be made on the thread that drives it.
    fn run(self, ready: &SyncSender<Result<Ready, OpenError>>) {
        match self.prepare() {
            Ok((writer, told)) => {
                if ready.send(Ok(told)).is_ok() {
                    writer.run(&Clock::new());
                }
            }
            Err(error) => {
                let _ = ready.send(Err(error)); // nobody waits any more
            }
        }
    }

    fn prepare(self) -> Result<(Writer<AnyDisk>, Ready), OpenError> {
        let start = Instant::now();
        let mut notes = Vec::new();
        if self.options.pin && !pin(&self.dir, self.shard) {
            notes.push("The writer thread could not be pinned to a CPU.".to_owned());
        }
        let pools = Pools::new(&self.options, self.meta.segment_bytes)?;
        if !pools.small.huge_pages_advised() {
            notes.push("Huge pages are not available; transfers are split.".to_owned());
        }
        let primitive = self.options.primitive.unwrap_or(match self.meta.primitive {
            2 => Primitive::LinkedSync,
            _ => Primitive::Dsync,
        });
        let disk_options = DiskOptions {
            pools: pools.all(),
            primitive,
            names_thread: true,
            ..DiskOptions::default()
        };
        let disk = ringlog_disk::open(&self.dir, Some(&self.lock), self.options.io, &disk_options)?;
        let identity = Identity {
            log: self.meta.log,
            shard: self.shard,
            segment_bytes: self.meta.segment_bytes,
        };
        let measure = || start.elapsed();
        open_shard(disk, &identity, &self.options, pools, notes, wall_ns(), &measure)
    }
}

/// Recovers a shard on any disk, and makes its writer. `measure` tells the time since the opening
/// began.
pub(crate) fn open_shard<D: Disk>(
    mut disk: D,
    identity: &Identity,
    options: &Options,
    pools: Pools,
    notes: Vec<String>,
    now_ns: u64,
    measure: &dyn Fn() -> Duration,
) -> Result<(Writer<D>, Ready), OpenError> {
    let (manifest, streams) = load(&mut disk, identity)?;
    let scan_pool = match holds_any_batch(&pools.large) {
        true => pools.large.clone(), // nothing else needs it yet, and it is registered
        false => pool_for(identity.segment_bytes)?,
    };
    let scan_began = measure();
    let tail = tail::scan(&mut disk, identity, &manifest, streams, &scan_pool)?;
    let scan_time = measure().saturating_sub(scan_began);
    if let Some(corruption) = tail.corruption {
        return Err(OpenError::Corrupt(corruption));
    }
    let mut recovery = report(identity.shard, &manifest, &tail, scan_time);
    let (begin, rewritten) = resume::resume(&mut disk, identity, manifest, tail, now_ns)?;
    recovery.records_rewritten = rewritten;
    recovery.elapsed = measure();

    let epoch = begin.manifest.epoch;
    let next_stream = begin.streams.count().max(1);
    let names = begin.streams.named().map(|(id, name)| (id, Arc::clone(name))).collect();
    let published = Arc::new(Published::default());
    published.set_segments(begin.segments.clone());
    published.set_durable(begin.next_lsn);
    let one_sync_at_a_time = disk.facts().file_system == "btrfs";
    let config = ShardConfig {
        log: identity.log,
        shard: identity.shard,
        epoch,
        segment_bytes: identity.segment_bytes,
        policy: options.sync,
        stream_policies: options.stream_sync.clone(),
        commits_in_flight: if one_sync_at_a_time { 1 } else { options.commits_in_flight },
        commit_bytes: options.commit_bytes,
        linger_ns: options.linger.as_nanos() as u64,
        batch_blocks: pools.batch,
        meta_blocks: pools.meta,
    };
    let inbox_config = InboxConfig {
        log: identity.log,
        shard: identity.shard,
        epoch,
        frames_bytes_max: pools.frames_bytes_max,
    };
    let inbox = Inbox::new(inbox_config, pools.small, pools.large, disk.waker());
    let (commands, received) = channel();
    let shared = Arc::new(Shared {
        inbox: Arc::new(inbox),
        published: Arc::clone(&published),
        commands,
        facts: disk.facts().clone(),
        notes,
        last: Mutex::new(None),
    });
    let writer = Writer::new(disk, Shard::new(config, begin), Arc::clone(&shared), received);
    Ok((writer, Ready { shared, published, epoch, next_stream, names, recovery }))
}

/// Pins the calling thread: shard 0 to the CPU that takes the device's interrupts, where it is one
/// (its completions wake the thread soonest there), the others to the CPUs behind it in turn.
fn pin(dir: &Dir, shard: u16) -> bool {
    let cpus = core_affinity::get_core_ids().unwrap_or_default();
    if cpus.is_empty() {
        return false;
    }
    let first = interrupt_cpu(dir)
        .and_then(|cpu| cpus.iter().position(|allowed| allowed.id == cpu))
        .unwrap_or(0);
    core_affinity::set_for_current(cpus[(first + usize::from(shard)) % cpus.len()])
}

/// All memory of a shard. Clones share it.
#[derive(Clone)]
pub(crate) struct Pools {
    small: BlockPool,
    large: BlockPool,
    batch: BlockPool,
    meta: BlockPool,
    frames_bytes_max: usize,
}

impl Pools {
    pub(crate) fn new(options: &Options, segment_bytes: u64) -> Result<Self, DiskError> {
        let segment_room = segment_bytes - SEGMENT_HEADER_BYTES - SEGMENT_FOOTER_BYTES;
        let batch_max = options.batch_bytes_max.min((segment_room / 4) as usize);
        let large_bytes = (batch_max + BLOCK_BYTES).next_multiple_of(BLOCK_BYTES);
        let half = options.memory_bytes / 2;
        let small = BlockPool::new((half / CHUNK_BYTES).max(16) as u32, CHUNK_BYTES)?;
        let large = BlockPool::new((half / large_bytes).max(2) as u32, large_bytes)?;
        let batch = BlockPool::new(options.commits_in_flight as u32 * 2 + 2, BATCH_BLOCK_BYTES)?;
        let meta = BlockPool::new(8, BLOCK_BYTES)?;
        let frames_bytes_max = batch_max.min(chunk_capacity(large_bytes) - RUN_BYTES);
        Ok(Self { small, large, batch, meta, frames_bytes_max })
    }

    fn all(&self) -> Vec<BlockPool> {
        vec![self.small.clone(), self.large.clone(), self.batch.clone(), self.meta.clone()]
    }
}
