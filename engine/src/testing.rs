//! A shard that a test drives through its inbox: no thread, no clock, any disk.
//!
//! The same inbox, machine and recovery as behind a writer thread; the caller takes the turns and
//! supplies the time, so on a simulated disk everything is deterministic.

use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringlog_disk::{Disk, DiskError, DiskErrorKind, Op, Wait};

use crate::error::{AppendError, OpenError, ReadError};
use crate::failure::LogFailure;
use crate::format::batch::FrameKind;
use crate::ids::{LogId, Lsn, Offset, StreamId};
use crate::inbox::{Admission, How};
use crate::names;
use crate::open::empty_manifest;
use crate::options::{Durability, FrozenFormat, Options, SyncPolicy};
use crate::published::Published;
use crate::reader::{Follower, OpenDisk, Reader, ShardReads, Wanted};
use crate::receipt::Receipt;
use crate::recovery::{Identity, ShardRecovery, ask, load, tail};
use crate::runtime::{Command, Shared, Writer};
use crate::shard::{Reply, Request, ShardCounts, Time};
use crate::starting::{Begin, LastWord, Pools, Ready, open_shard};
use crate::window::pool_for;

/// How long a test waits for what would never come if the code were wrong: less where it is known
/// to be wrong.
#[cfg(test)]
pub(crate) const WAKE_LIMIT: Duration =
    Duration::from_secs(if cfg!(feature = "__mutants") { 5 } else { 60 });

/// Which shard of which log a disk holds.
#[derive(Clone, Copy, Debug)]
pub struct ShardIdentity {
    /// The log.
    pub log: LogId,
    /// The shard.
    pub shard: u16,
    /// Size of its segments in bytes.
    pub segment_bytes: u64,
}

impl From<ShardIdentity> for Identity {
    fn from(identity: ShardIdentity) -> Self {
        let ShardIdentity { log, shard, segment_bytes } = identity;
        Self { log, shard, segment_bytes }
    }
}

/// Memory for a shard's records; can be used again by the next shard that is opened.
#[derive(Clone)]
pub struct ShardMemory(Pools);

impl ShardMemory {
    /// As much as the options say.
    ///
    /// # Errors
    /// When the memory is not to be had.
    pub fn new(options: &Options, segment_bytes: u64) -> Result<Self, DiskError> {
        Pools::new(options, FrozenFormat { segment_bytes, shards: 1 }).map(Self)
    }

    pub(crate) fn pools(&self) -> Pools {
        self.0.clone()
    }
}

/// See the module's text.
pub struct DrivenShard<D: Disk> {
    writer: Writer<D>,
    shared: Arc<Shared>,
    published: Arc<Published>,
    identity: ShardIdentity,
    recovery: ShardRecovery,
    streams: Vec<(StreamId, Arc<str>)>,
    next_stream: u32,
    options: Options,
    /// Goes last, when the shard has let go of its receipts.
    _last_word: LastWord,
}

impl<D: Disk> DrivenShard<D> {
    /// Makes an empty shard on an empty disk.
    ///
    /// # Errors
    /// Of the disk.
    pub fn create(disk: &mut D, identity: ShardIdentity) -> Result<(), OpenError> {
        let content = empty_manifest(identity.log, identity.shard).encode();
        ask(disk, Op::Replace { name: names::manifest(), content })?;
        Ok(())
    }

    /// Recovers the shard on `disk` and opens it for writing.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        disk: D,
        identity: ShardIdentity,
        options: &Options,
        memory: &ShardMemory,
        now: Time,
    ) -> Result<Self, OpenError> {
        options.validate()?;
        options.validate_for(FrozenFormat { segment_bytes: identity.segment_bytes, shards: 1 })?;
        let pools = memory.0.clone();
        let id = identity.into();
        let no_clock = || Duration::ZERO;
        let failure = LogFailure::default();
        let begin = Begin { options, pools, notes: Vec::new(), now_ns: now.wall_ns, failure };
        let (writer, ready) = open_shard(disk, &id, begin, &no_clock)?;
        let Ready { shared, published, recovery, names: streams, next_stream, .. } = ready;
        let options = options.clone();
        let last_word = LastWord(Arc::clone(&shared));
        Ok(Self {
            writer,
            shared,
            published,
            identity,
            recovery,
            streams,
            next_stream,
            options,
            _last_word: last_word,
        })
    }

    /// What was found and done at the open.
    pub fn recovery(&self) -> &ShardRecovery {
        &self.recovery
    }

    /// The streams there are.
    pub fn streams(&self) -> &[(StreamId, Arc<str>)] {
        &self.streams
    }

    /// Creates a stream.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn create_stream(&mut self, name: &str) -> Result<StreamId, AppendError> {
        let (id, name) = (StreamId(self.next_stream), Arc::<str>::from(name));
        self.shared.inbox.append_creation(id, &name, None)?;
        self.next_stream += 1;
        self.streams.push((id, name));
        Ok(id)
    }

    /// Appends records, all or none, as the thread of this number.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append<R: AsRef<[u8]>>(
        &self,
        thread: usize,
        stream: StreamId,
        records: &[R],
        durability: Durability,
    ) -> Result<Receipt, AppendError> {
        let name = self.streams.iter().find(|(id, _)| *id == stream).map(|(_, name)| name);
        let policy = name.map_or(self.options.sync, |name| self.options.sync_of(name));
        let apart = policy == SyncPolicy::EveryAppend;
        let how = How { level: durability, apart, will_try_again: false };
        self.shared.inbox.append(thread, stream, FrameKind::Record, records, how)
    }

    /// Trims a stream: its records below `before`, at most its next offset, are not there any
    /// more once the receipt is acknowledged.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn trim_stream(&self, stream: StreamId, before: Offset) -> Result<Receipt, AppendError> {
        self.shared.inbox.append_trim(0, stream, before)
    }

    /// Below which offset a stream's records are not there any more because it was trimmed.
    pub fn trimmed_before(&self, stream: StreamId) -> Offset {
        self.published.trimmed_before(stream)
    }

    /// Why nothing is trimmed because of its age, although the options say so.
    pub fn age_retention_paused(&self) -> Option<&str> {
        self.writer.shard.age_retention_paused()
    }

    /// Takes one turn: hands the disk what there is to do, and takes what it has done by now.
    /// True when there is more to do at once.
    pub fn turn(&mut self, now: Time) -> bool {
        let more = self.writer.work(now).is_none();
        self.writer.reap(Wait::No, || now);
        more
    }

    /// When a turn should be taken although the disk has completed nothing, in monotonic
    /// nanoseconds.
    pub fn deadline(&self) -> Option<u64> {
        self.writer.deadline()
    }

    /// Operations that the disk has not completed.
    pub fn in_flight(&self) -> usize {
        self.writer.disk.in_flight()
    }

    /// Asks for something; the answer comes through the channel in a later turn.
    pub fn request(&self, request: Request) -> Receiver<Reply> {
        let (sender, receiver) = sync_channel(1);
        let _ = self.shared.commands.send(Command::Ask(request, sender)); // the writer is here
        receiver
    }

    /// The watermarks: staged, written, durable.
    pub fn watermarks(&self) -> (Lsn, Lsn, Lsn) {
        let shard = &self.writer.shard;
        (shard.staged(), shard.written(), shard.durable())
    }

    /// The counters.
    pub fn counts(&self) -> &ShardCounts {
        self.writer.shard.counts()
    }

    /// The failure that poisoned the shard.
    pub fn poisoned(&self) -> Option<&DiskError> {
        self.writer.shard.poisoned()
    }

    /// Whether appends are refused because the disk is full.
    pub fn is_disk_full(&self) -> bool {
        self.shared.inbox.admission() == Admission::DiskFull
    }

    /// The offset that the next record of a stream gets.
    pub fn next_offset(&self, stream: StreamId) -> Offset {
        self.writer.shard.next_offset(stream)
    }

    /// Reads a stream's durable records through `disk`, which sees the same files.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(
        &self,
        disk: Box<dyn Disk + Send>,
        stream: StreamId,
        from: Option<Offset>,
    ) -> Result<Reader, ReadError> {
        let wanted = Wanted { stream, from, end: None };
        Reader::new(self.reads(disk), wanted)
    }

    /// Follows a stream through `disk`, which sees the same files. To be asked with `try_next` only:
    /// whoever would have to wait is the one who takes the turns.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn follow(
        &self,
        disk: Box<dyn Disk + Send>,
        stream: StreamId,
        from: Offset,
    ) -> Result<Follower, ReadError> {
        Follower::new(self.reads(disk), stream, Some(from))
    }

    fn reads(&self, disk: Box<dyn Disk + Send>) -> Arc<ShardReads> {
        let published = Arc::clone(&self.published);
        let disk = Mutex::new(Some(disk));
        let open_disk: OpenDisk = Box::new(move || {
            let taken = disk.lock().unwrap_or_else(PoisonError::into_inner).take();
            taken.ok_or_else(|| DiskError::new(DiskErrorKind::Limit, "open a disk twice"))
        });
        Arc::new(ShardReads::new(self.identity.into(), published, (false, true), open_disk))
    }
}

/// Looks at a shard without changing anything: what recovery would find.
///
/// # Errors
/// See [`OpenError`]; also [`OpenError::Corrupt`] for damage that strict recovery would refuse.
pub fn examine(disk: &mut dyn Disk, identity: ShardIdentity) -> Result<Lsn, OpenError> {
    let identity = identity.into();
    let (manifest, streams) = load(disk, &identity)?;
    let tail = tail::scan(disk, &identity, &manifest, streams, &pool_for(identity.segment_bytes)?)?;
    match tail.corruption {
        Some(corruption) => Err(OpenError::Corrupt(corruption)),
        None => Ok(tail.end),
    }
}
