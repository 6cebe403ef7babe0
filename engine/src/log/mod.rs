//! The handles that users hold: the log here, its streams in `stream`.

mod stream;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringlog_disk::MemoryDevice;

use crate::error::{LogError, OpenError, StreamError};
use crate::format::meta::LogMeta;
use crate::ids::{Offset, StreamId};
use crate::limits::{STREAM_NAME_BYTES_MAX, STREAMS_MAX};
use crate::live::LiveView;
use crate::observe::{Traffic, trace};
use crate::open::{self, Opened};
use crate::options::{FrozenFormat, Options, RecoveryMode, Retention};
use crate::profile::CommitSettings;
use crate::published::Published;
use crate::reader::{Live, OpenDisk, ShardReads};
use crate::recovery::Identity;
use crate::recovery::watch::Watch;
use crate::registry::{Place, Registry};
use crate::runtime::{Shared, Snapshot};
use crate::shard::{Reply, Request};
use crate::stats::{RecoveryReport, ShardStats, Stats, TrimReport};
use crate::tools::Progress;

pub use stream::Stream;

/// A stream as [`Log::streams`] lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// Its name.
    pub name: String,
    /// The shard that holds it.
    pub shard: u16,
    /// Its number in that shard.
    pub id: StreamId,
    /// The offset that its next record gets.
    pub next_offset: Offset,
}

/// A writer of one shard, or, for a log that is only read, what there is to read.
pub(crate) enum Writer {
    Running(Arc<Shared>, Mutex<Option<JoinHandle<()>>>),
    ReadOnly { seen: Seen },
}

/// What a log that is only read shows.
pub(crate) enum Seen {
    /// A damaged log, as it was found; with the next offset of each stream.
    Still(Vec<Offset>),
    /// A log that another process may write.
    Live(Arc<LiveView>),
}

pub(crate) struct OpenShard {
    pub(crate) writer: Writer,
    pub(crate) published: Arc<Published>,
    pub(crate) dir: ringlog_disk::Place,
    pub(crate) epoch: crate::ids::Epoch,
    /// The number of the next stream that is created.
    pub(crate) next_stream: u32,
    pub(crate) names: Vec<(StreamId, Arc<str>)>,
    pub(crate) recovery: crate::recovery::ShardRecovery,
}

/// How long the creation of a stream waits for memory.
const CREATION_PATIENCE: Duration = Duration::from_secs(5);

struct Inner {
    options: Options,
    meta: LogMeta,
    shards: Vec<OpenShard>,
    /// What the readers of each shard share.
    reads: Vec<Arc<ShardReads>>,
    facts: ringlog_disk::DiskFacts,
    notes: Vec<String>,
    profile: Option<ringlog_disk::DiskProfile>,
    settings: CommitSettings,
    registry: RwLock<Registry>,
    /// One stream is created at a time: the number of the next one, by shard. Apart from the
    /// registry, so that nobody who looks for a stream waits behind one who waits for memory.
    creating: Mutex<Vec<u32>>,
    recovery: RecoveryReport,
    /// What was handed on as metrics.
    #[cfg(feature = "metrics")]
    told: Mutex<crate::observe::metrics::Told>,
    /// Keeps the directory locked until the log is closed.
    lock: Mutex<Option<ringlog_disk::Place>>,
}

/// An open log. Cheap to clone, usable from any thread.
///
/// Dropping the last handle closes the log and ignores what goes wrong then; [`Log::close`] tells.
#[derive(Clone)]
pub struct Log(Arc<Inner>);

impl Log {
    /// Opens the log in `dir`; creates it, and the directory, where there is none and
    /// [`Options::create`] says so. Recovers by itself; see [`Log::recovery_report`].
    ///
    /// # Errors
    /// See [`OpenError`]. Nothing on disk is changed unless its variant says so.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        Self::open_at(dir.as_ref(), options, None)
    }

    /// The same, for somebody who watches: `progress` is told how much of what has to be read is
    /// read, summed over all shards, each time that some 4 MiB are done, and once more at the end
    /// of each shard. It is called on the threads that read, so it should be quick. After a clean
    /// close nothing has to be read, and it is never called.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_with_progress(
        dir: impl AsRef<Path>,
        options: Options,
        progress: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        Self::open_at(dir.as_ref(), options, Some(&Arc::new(Watch::new(progress))))
    }

    fn open_at(
        dir: &Path,
        options: Options,
        watch: Option<&Arc<Watch>>,
    ) -> Result<Self, OpenError> {
        options.validate()?;
        let opened = open::open(dir, &options, watch)?;
        Ok(Self::from_opened(opened, options))
    }

    /// Makes a log in memory: the same log in every respect, but for files. For tests of what is
    /// built on a log, and for what need not outlive the process.
    ///
    /// The device holds what would be the files. It outlives the log: [`Log::open_in`] opens it
    /// again, as after a restart, and on it a full disk, failed writes and flushes, and power cuts
    /// are made to happen; see [`MemoryDevice`].
    ///
    /// Options that choose how a disk is reached (`io`, `primitive`, `pin`) mean nothing here. Of
    /// the rest, `memory_bytes` and `format.segment_bytes` are worth choosing small in tests: the
    /// first is taken at once, the second only as it is filled.
    ///
    /// ```
    /// use ringlog::{AppendError, FullReason, Format, Log, Options};
    ///
    /// let format = Format { segment_bytes: Some(1 << 20), shards: None };
    /// let options = Options { format, memory_bytes: 4 << 20, ..Options::default() };
    /// let (log, device) = Log::in_memory(options.clone())?;
    /// let orders = log.stream("orders")?;
    /// orders.append(b"first")?.wait()?;
    ///
    /// // The disk is full: sooner or later an append is refused, and what was acknowledged stays.
    /// device.set_full(true);
    /// let refused = loop {
    ///     match orders.append(&[7; 50_000]) {
    ///         Ok(receipt) => drop(receipt.wait()),
    ///         Err(error) => break error,
    ///     }
    /// };
    /// assert_eq!(refused, AppendError::Full { reason: FullReason::Disk });
    ///
    /// // There is room again: the log goes on by itself.
    /// device.set_full(false);
    /// let patience = std::time::Duration::from_secs(10);
    /// orders.append_within(b"second", ringlog::Durability::Synced, patience)?.wait()?;
    ///
    /// // A flush fails: the record is not acknowledged, and nothing is until the log is reopened.
    /// device.fail_next_flush();
    /// assert!(orders.append(b"third")?.wait().is_err());
    /// assert!(matches!(orders.append(b"fourth").err(), Some(AppendError::Poisoned(_))));
    /// drop((orders, log));
    ///
    /// // The power is cut: what was acknowledged is there.
    /// device.power_cut();
    /// let log = Log::open_in(&device, options)?;
    /// let first = log.stream("orders")?.read(..)?.next().expect("there is one")?;
    /// assert_eq!(first.payload(), b"first");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// See [`OpenError`]: an option is out of bounds, or the memory is not to be had.
    pub fn in_memory(options: Options) -> Result<(Self, MemoryDevice), OpenError> {
        let device = MemoryDevice::new();
        Ok((Self::open_in(&device, options)?, device))
    }

    /// Opens the log on a device in memory, as [`Log::open`] opens a directory: creates it where
    /// there is none, recovers it, and refuses a second writer.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_in(device: &MemoryDevice, options: Options) -> Result<Self, OpenError> {
        options.validate()?;
        let opened = open::open_in(device, &options)?;
        Ok(Self::from_opened(opened, options))
    }

    fn from_opened(mut opened: Opened, options: Options) -> Self {
        trace::notes(&opened.notes);
        let mut registry = Registry::new(opened.shards.len());
        for (shard, open) in opened.shards.iter_mut().enumerate() {
            for (id, name) in std::mem::take(&mut open.names) {
                registry.insert(name, Place { shard, id });
            }
        }
        let reads = (0..).zip(&opened.shards).map(|(shard, open)| {
            let LogMeta { log, segment_bytes, .. } = opened.meta;
            let identity = Identity { log, shard, segment_bytes };
            let others_may_trim = matches!(open.writer, Writer::ReadOnly { .. });
            let (dir, io) = (open.dir.clone(), options.io);
            let open_disk: OpenDisk = Box::new(move || open::reader_disk(&dir, io));
            let published = Arc::clone(&open.published);
            let of = (others_may_trim, false);
            let mut reads = ShardReads::new(identity, published, of, open_disk);
            if let Writer::ReadOnly { seen: Seen::Live(view) } = &open.writer {
                reads.live = Some(Arc::clone(view) as Arc<dyn Live>);
            }
            Arc::new(reads.keeping(options.index_cache_bytes, !others_may_trim))
        });
        let reads = reads.collect();
        let next = opened.shards.iter().map(|shard| shard.next_stream).collect();
        let shards = opened.shards.iter().map(|shard| shard.recovery.clone()).collect();
        Self(Arc::new(Inner {
            options,
            meta: opened.meta,
            facts: opened.facts,
            notes: opened.notes,
            profile: opened.profile,
            settings: opened.settings,
            registry: RwLock::new(registry),
            creating: Mutex::new(next),
            recovery: RecoveryReport { shards },
            #[cfg(feature = "metrics")]
            told: Mutex::default(),
            shards: opened.shards,
            reads,
            lock: Mutex::new(Some(opened.lock)),
        }))
    }

    /// The stream of this name (1 to 255 bytes); created where there is none.
    ///
    /// A creation is durable with the first durable record of the stream. Waits for memory where
    /// very many streams are created at once, at most five seconds.
    ///
    /// # Errors
    /// See [`StreamError`]. In a log that is open for reading only, a missing stream is `NotFound`.
    pub fn stream(&self, name: &str) -> Result<Stream, StreamError> {
        match self.existing_stream(name) {
            Err(StreamError::NotFound(_)) if !self.is_read_only() => self.create_stream(name),
            other => other,
        }
    }

    /// The stream of this name.
    ///
    /// # Errors
    /// See [`StreamError`].
    pub fn existing_stream(&self, name: &str) -> Result<Stream, StreamError> {
        if !(1..=STREAM_NAME_BYTES_MAX).contains(&name.len()) {
            return Err(StreamError::InvalidName { bytes: name.len() });
        }
        if let Some((name, place)) = self.0.place_of(name) {
            return Ok(self.handle(name, place));
        }
        self.0.look_for_streams();
        match self.0.place_of(name) {
            Some((name, place)) => Ok(self.handle(name, place)),
            None => Err(StreamError::NotFound(name.to_owned())),
        }
    }

    fn create_stream(&self, name: &str) -> Result<Stream, StreamError> {
        let mut creating = self.0.creating.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((name, place)) = self.0.place_of(name) {
            return Ok(self.handle(name, place));
        }
        let shard = open::shard_of(name, self.0.meta.shards);
        let next = creating[shard];
        if next >= STREAMS_MAX {
            return Err(StreamError::TooMany);
        }
        let Writer::Running(shared, _) = &self.0.shards[shard].writer else {
            return Err(StreamError::NotFound(name.to_owned()));
        };
        let (id, name) = (StreamId(next), Arc::<str>::from(name));
        // Nobody can learn of the stream before its creation is on its way to the writer, so no
        // record of it can be placed before.
        let deadline = Instant::now().checked_add(CREATION_PATIENCE);
        shared.inbox.append_creation(id, &name, deadline).map_err(StreamError::Append)?;
        creating[shard] += 1;
        let mut registry = self.0.registry.write().unwrap_or_else(PoisonError::into_inner);
        registry.insert(Arc::clone(&name), Place { shard, id });
        drop(registry);
        Ok(self.handle(name, Place { shard, id }))
    }

    fn handle(&self, name: Arc<str>, place: Place) -> Stream {
        let policy = self.0.options.sync_of(&name);
        Stream { log: Arc::clone(&self.0), name, shard: place.shard, id: place.id, policy }
    }

    /// All streams, by name.
    pub fn streams(&self) -> Vec<StreamInfo> {
        self.0.look_for_streams();
        let registry = self.0.registry.read().unwrap_or_else(PoisonError::into_inner);
        let mut streams = Vec::with_capacity(registry.len());
        for shard in 0..self.0.shards.len() {
            let ids: Vec<StreamId> = registry.of_shard(shard).map(|(id, _)| id).collect();
            let offsets = self.0.next_offsets(shard, &ids);
            let here = registry.of_shard(shard).zip(offsets);
            streams.extend(here.map(|((id, name), next_offset)| StreamInfo {
                name: name.to_string(),
                shard: shard as u16,
                id,
                next_offset,
            }));
        }
        streams.sort_by(|a, b| a.name.cmp(&b.name));
        streams
    }

    /// Seals the open segment of every shard and waits for that. An empty one stays open.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn rotate(&self) -> Result<(), LogError> {
        self.0.ask_all(Request::Rotate).map(drop)
    }

    /// Makes everything durable that was appended before, under any policy, and waits for that.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn flush(&self) -> Result<(), LogError> {
        self.0.ask_all(Request::Flush).map(drop)
    }

    /// Removes the oldest sealed segments of each shard, all but `keep_sealed`; their files are
    /// used again. What lies in them is gone. Readers that are in one of them may finish it.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn trim(&self, keep_sealed: usize) -> Result<TrimReport, LogError> {
        self.trim_by(Request::Trim { keep_sealed })
    }

    /// Removes, once, the oldest sealed segments of each shard that are outside these bounds,
    /// whatever [`Options::retention`] says. The same as [`Log::trim`] otherwise. Retention by age
    /// that has paused ([`ShardStats::age_retention_paused`]) goes on: whoever calls this vouches
    /// for the clock.
    ///
    /// # Errors
    /// See [`LogError`]. What was refused is not carried out later, not even where a full disk has room
    /// again: ask again.
    pub fn retain(&self, bounds: Retention) -> Result<TrimReport, LogError> {
        self.trim_by(Request::Retain(bounds))
    }

    fn trim_by(&self, request: Request) -> Result<TrimReport, LogError> {
        let replies = self.0.ask_all(request)?;
        let segments = replies.iter().map(|reply| match reply {
            Reply::Trimmed { segments } => *segments,
            _ => 0,
        });
        let segments = segments.sum();
        Ok(TrimReport { segments, bytes: segments * self.0.meta.segment_bytes })
    }

    /// What the log is and what it has done. Asks each writer; a few microseconds.
    pub fn stats(&self) -> Stats {
        let shards = (0..self.0.shards.len()).map(|shard| self.0.shard_stats(shard)).collect();
        Stats {
            shards,
            io: self.0.facts.kind,
            direct: self.0.facts.direct,
            commit_primitive: self.0.facts.commit_primitive,
            file_system: self.0.facts.file_system.clone(),
            notes: self.0.all_notes(),
            profile: self.0.profile.clone(),
            settings: self.0.settings.clone(),
            log_id: self.0.meta.log,
            segment_bytes: self.0.meta.segment_bytes,
        }
    }

    /// Hands the statistics on to the `metrics` facade, under the labels `log` (a name of your
    /// choice) and `shard`. Call it when metrics are collected, or every few seconds: the writers
    /// themselves know nothing of the facade. The names are listed in `docs/operations.md`.
    #[cfg(feature = "metrics")]
    pub fn record_metrics(&self, log: &str) {
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        crate::observe::metrics::record(log, &self.stats(), &mut told);
    }

    /// What was found and done when the log was opened.
    pub fn recovery_report(&self) -> &RecoveryReport {
        &self.0.recovery
    }

    /// What was fixed when the log was created.
    pub fn format(&self) -> FrozenFormat {
        self.0.meta.into()
    }

    /// Whether the log was opened for reading only.
    pub fn is_read_only(&self) -> bool {
        self.0.shards.iter().any(|shard| matches!(shard.writer, Writer::ReadOnly { .. }))
    }

    /// Makes everything durable, marks the log as cleanly closed, stops the writers and gives the
    /// lock back. Other handles of the same log get `Closed` from now on.
    ///
    /// # Errors
    /// See [`LogError`]: what was not acknowledged may not be stored.
    pub fn close(self) -> Result<(), LogError> {
        self.0.close()
    }
}

impl Inner {
    fn ask_all(&self, request: Request) -> Result<Vec<Reply>, LogError> {
        let mut replies = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            let Writer::Running(shared, _) = &shard.writer else { return Err(LogError::ReadOnly) };
            match shared.ask(request) {
                Some(Reply::DiskFull) => return Err(LogError::DiskFull),
                Some(Reply::Poisoned(error)) => return Err(LogError::Poisoned(error)),
                Some(reply) => replies.push(reply),
                None => return Err(LogError::Closed),
            }
        }
        Ok(replies)
    }

    fn close(&self) -> Result<(), LogError> {
        let mut result = Ok(());
        for shard in &self.shards {
            let Writer::Running(shared, thread) = &shard.writer else { continue };
            let Some(thread) = thread.lock().unwrap_or_else(PoisonError::into_inner).take() else {
                continue;
            };
            let ended = match shared.ask(Request::Close) {
                Some(Reply::DiskFull) => Err(LogError::DiskFull),
                Some(Reply::Poisoned(error)) => Err(LogError::Poisoned(error)),
                _ => Ok(()),
            };
            // A writer that panicked has not answered, and its records were not acknowledged.
            let ended = if thread.join().is_err() { Err(LogError::Closed) } else { ended };
            result = result.and(ended);
        }
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        result
    }

    fn place_of(&self, name: &str) -> Option<(Arc<str>, Place)> {
        let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        let (name, place) = registry.find(name)?;
        Some((Arc::clone(name), place))
    }

    /// In a log that another process may write: takes up the streams that it has created.
    fn look_for_streams(&self) {
        for (shard, open) in self.shards.iter().enumerate() {
            let Writer::ReadOnly { seen: Seen::Live(view) } = &open.writer else { continue };
            // Where it cannot be read now, what is known stays true.
            let _ = view.look();
            let mut next = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
            let mut registry = self.registry.write().unwrap_or_else(PoisonError::into_inner);
            for (id, name) in view.streams_from(next[shard]) {
                next[shard] = id.0 + 1;
                registry.insert(name, Place { shard, id });
            }
        }
    }

    fn snapshot(&self, shard: usize, streams: &[StreamId], all: bool) -> Option<Snapshot> {
        match &self.shards[shard].writer {
            Writer::Running(shared, _) => shared.look(streams, all),
            Writer::ReadOnly { seen } => {
                let offsets = match seen {
                    Seen::Live(view) => {
                        let _ = view.look(); // what cannot be read now is as it was
                        view.next_offsets(streams)
                    }
                    Seen::Still(offsets) => {
                        let offset = |id: &StreamId| offsets.get(id.0 as usize).copied();
                        streams.iter().map(|id| offset(id).unwrap_or_default()).collect()
                    }
                };
                let durable = self.shards[shard].published.durable();
                Some(Snapshot {
                    counts: crate::shard::ShardCounts::default(),
                    staged: durable,
                    written: durable,
                    traffic: Traffic::default(),
                    histograms: None,
                    age_retention_paused: None,
                    offsets,
                })
            }
        }
    }

    fn next_offsets(&self, shard: usize, streams: &[StreamId]) -> Vec<Offset> {
        self.snapshot(shard, streams, false)
            .map_or_else(|| vec![Offset(0); streams.len()], |snapshot| snapshot.offsets)
    }

    /// What was to be said when the log was opened, and what has been found out since.
    fn all_notes(&self) -> Vec<String> {
        let mut notes = self.notes.clone();
        for shard in &self.shards {
            let Writer::Running(shared, _) = &shard.writer else { continue };
            if let Some(late) = shared.late_note.get()
                && !notes.iter().any(|note| note == late)
            {
                notes.push((*late).to_owned());
            }
        }
        notes
    }

    fn shard_stats(&self, number: usize) -> ShardStats {
        let shard = &self.shards[number];
        let (producers, depth) = match &shard.writer {
            Writer::Running(shared, _) => (shared.inbox.counts(), shared.inbox.depth()),
            Writer::ReadOnly { .. } => Default::default(),
        };
        let durable_lsn = shard.published.durable();
        let gone = || Snapshot { staged: durable_lsn, written: durable_lsn, ..Snapshot::default() };
        let look = self.snapshot(number, &[], true).unwrap_or_else(gone);
        ShardStats {
            epoch: shard.epoch,
            records_appended: producers.records,
            bytes_appended: producers.bytes,
            rejections: producers.rejections,
            queue_depth: depth,
            durable_lsn,
            segments: shard.published.segment_count(),
            indexes: self.reads[number].indexes.report(),
            recovery_time: shard.recovery.elapsed,
            ..ShardStats::of(number as u16, look, &self.facts)
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = self.close(); // whoever wants to know calls `Log::close`
    }
}

/// Whether this mode changes anything on disk.
pub(crate) fn writes(mode: RecoveryMode) -> bool {
    mode == RecoveryMode::Strict
}
