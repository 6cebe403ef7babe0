//! A shard that its caller drives: what it is made of, its streams, and looking at it.
//!
//! What it does is told beside this: `appending` (and what comes of it), `reading`, `turns` and
//! `requests`. It knows no thread and no queue; the writer's inbox stays empty.

use std::collections::{HashMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use ringlog_disk::{AnyDisk, BlockPool, Disk, DiskError, DiskErrorKind, MakingResident, Waker};

use super::requests::Asker;
use super::tokens::Tokens;
use crate::chunk::Chunk;
use crate::clock::Clock;
use crate::error::{AppendError, LogError, OpenError, StreamError};
use crate::failure::LogFailure;
use crate::format::batch::{FrameKind, frame_bytes};
use crate::ids::{Epoch, Offset, StreamId};
use crate::inbox::Counts;
use crate::limits::{STREAM_NAME_BYTES_MAX, STREAMS_MAX};
use crate::open::shard_of;
use crate::options::{FrozenFormat, Options, SyncPolicy};
use crate::reader::{OpenDisk, ShardReads};
use crate::recovery::{Identity, ShardRecovery};
use crate::runtime::Writer;
use crate::shard::{ShardCounts, Time};
use crate::starting::{Begin, LastWord, Pools, Ready, open_shard};
use crate::stats::ShardStats;
use crate::testing::{ShardIdentity, ShardMemory};

/// Where a shard lies.
pub(super) struct Whereabouts {
    pub(super) identity: Identity,
    /// How many shards share the streams; `None`: this one has them all.
    pub(super) shards: Option<u16>,
    /// What its readers share.
    pub(super) reads: Arc<ShardReads>,
}

/// What an append has to know of a stream.
#[derive(Clone, Copy)]
pub(super) struct StreamState {
    pub(super) next: Offset,
    pub(super) policy: Policy,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    Shared,
    /// Each append has a flush of its own.
    Apart,
    Never,
}

/// A shard of a log, driven by the thread that has started it. See the [module](super).
///
/// Dropping it without [`DrivenShard::close`] waits for what is in flight, and leaves the log as a
/// crash of the process would: what was acknowledged as `Written` or `Synced` is there at the next
/// open, which has to recover.
pub struct DrivenShard<D: Disk> {
    pub(super) writer: Writer<D>,
    pub(super) clock: Clock,
    pub(super) place: Whereabouts,
    pub(super) epoch: Epoch,
    recovery: ShardRecovery,
    // Streams.
    ids: HashMap<Arc<str>, StreamId>,
    pub(super) streams: Vec<StreamState>,
    pub(super) options: Arc<Options>,
    // Memory.
    /// Ends with the shard.
    pub(super) making_resident: Option<MakingResident>,
    pub(super) small: BlockPool,
    pub(super) large: BlockPool,
    pub(super) frames_bytes_max: usize,
    pub(super) counts: Counts,
    // On the way.
    pub(super) open: Option<Box<Chunk>>,
    /// When the open chunk was first seen by a turn.
    pub(super) open_since: Option<u64>,
    pub(super) last_turn: Time,
    /// Something was appended or asked for since then.
    pub(super) touched: bool,
    /// Chunks that wait for the next turn.
    pub(super) full: VecDeque<Box<Chunk>>,
    /// Memory runs low.
    pub(super) pressed: bool,
    pub(super) tokens: Tokens,
    /// Whom the answer to each request is for.
    pub(super) asked: Vec<(u64, Asker)>,
    pub(super) closing: bool,
    pub(super) closed: Option<Result<(), LogError>>,
    pub(super) failure_told: bool,
    /// Goes last: tells followers that nothing more comes.
    _last_word: LastWord,
}

/// A driven shard lets chunks wait for company before it pushes them; the shard's own machine then
/// waits for nothing.
pub(super) fn without_linger(options: &Options) -> Options {
    Options { linger: Duration::ZERO, ..options.clone() }
}

impl<D: Disk> DrivenShard<D> {
    pub(super) fn new(
        writer: Writer<D>,
        ready: Ready,
        pools: Pools,
        place: Whereabouts,
        options: Arc<Options>,
    ) -> Self {
        let mut shard = Self {
            clock: Clock::new(),
            place,
            epoch: ready.epoch,
            recovery: ready.recovery,
            ids: HashMap::with_capacity(ready.names.len()),
            streams: Vec::new(),
            options,
            making_resident: None,
            small: pools.small,
            large: pools.large,
            frames_bytes_max: pools.frames_bytes_max,
            counts: Counts::default(),
            open: None,
            open_since: None,
            last_turn: Time::default(),
            touched: false,
            full: VecDeque::new(),
            pressed: false,
            tokens: Tokens::default(),
            asked: Vec::new(),
            closing: false,
            closed: None,
            failure_told: false,
            _last_word: LastWord(ready.shared),
            writer,
        };
        let count = ready.next_stream.max(1);
        let policy = shard.policy_of("");
        shard.streams = (0..count)
            .map(|id| StreamState { next: shard.writer.shard.next_offset(StreamId(id)), policy })
            .collect();
        for (id, name) in ready.names {
            let policy = shard.policy_of(&name);
            if let Some(state) = shard.streams.get_mut(id.0 as usize) {
                state.policy = policy;
            }
            shard.ids.insert(name, id);
        }
        shard
    }

    /// Recovers the shard on any disk. Whoever uses this takes turns with the `_at` methods, and
    /// supplies the time.
    ///
    /// # Errors
    /// See [`OpenError`].
    #[doc(hidden)]
    pub fn on_disk(
        disk: D,
        identity: ShardIdentity,
        options: &Options,
        memory: &ShardMemory,
        now: Time,
    ) -> Result<Self, OpenError> {
        options.validate()?;
        options.validate_for(FrozenFormat { segment_bytes: identity.segment_bytes, shards: 1 })?;
        let pools = memory.pools();
        let identity = identity.into();
        let own = without_linger(options);
        let (notes, now_ns) = (Vec::new(), now.wall_ns);
        let failure = LogFailure::default();
        let begin = Begin { options: &own, pools: pools.clone(), notes, now_ns, failure };
        let (writer, ready) = open_shard(disk, &identity, begin, &|| Duration::ZERO)?;
        let no_disk: OpenDisk = Box::new(|| {
            Err(DiskError::new(DiskErrorKind::Unexpected, "read: whose disk it is, opens it"))
        });
        let published = Arc::clone(&ready.published);
        let reads = Arc::new(ShardReads::new(identity, published, (false, true), no_disk));
        let place = Whereabouts { identity, shards: None, reads };
        Ok(Self::new(writer, ready, pools, place, Arc::new(options.clone())))
    }

    // ---- streams ----

    /// The stream of this name (1 to 255 bytes); created where there is none. A creation is durable
    /// with the first durable record of the stream. One look into a hash table.
    ///
    /// # Errors
    /// See [`StreamError`]; [`StreamError::OtherShard`] where the name belongs to another shard.
    pub fn stream(&mut self, name: &str) -> Result<StreamId, StreamError> {
        match self.existing_stream(name) {
            Err(StreamError::NotFound(_)) => {}
            other => return other,
        }
        let id = StreamId(self.streams.len() as u32);
        if id.0 >= STREAMS_MAX {
            return Err(StreamError::TooMany);
        }
        let name: Arc<str> = name.into();
        self.create_stream(id, &name).map_err(StreamError::Append)?;
        let policy = self.policy_of(&name);
        self.streams.push(StreamState { next: Offset(0), policy });
        self.ids.insert(name, id);
        Ok(id)
    }

    /// The stream of this name.
    ///
    /// # Errors
    /// As [`DrivenShard::stream`]; [`StreamError::NotFound`] where there is none.
    pub fn existing_stream(&self, name: &str) -> Result<StreamId, StreamError> {
        if !(1..=STREAM_NAME_BYTES_MAX).contains(&name.len()) {
            return Err(StreamError::InvalidName { bytes: name.len() });
        }
        if let Some(id) = self.ids.get(name) {
            return Ok(*id);
        }
        match self.place.shards.map(|shards| shard_of(name, shards) as u16) {
            Some(shard) if shard != self.place.identity.shard => {
                Err(StreamError::OtherShard { shard })
            }
            _ => Err(StreamError::NotFound(name.to_owned())),
        }
    }

    /// All streams of this shard, in no order.
    pub fn streams(&self) -> impl Iterator<Item = (&str, StreamId)> {
        self.ids.iter().map(|(name, id)| (&**name, *id))
    }

    /// The offset that the next record of a stream gets; 0 for a stream that is not of this shard.
    pub fn next_offset(&self, stream: StreamId) -> Offset {
        self.streams.get(stream.0 as usize).map_or(Offset(0), |state| state.next)
    }

    fn policy_of(&self, name: &str) -> Policy {
        match self.options.sync_of(name) {
            SyncPolicy::EveryAppend => Policy::Apart,
            SyncPolicy::Never => Policy::Never,
            _ => Policy::Shared,
        }
    }

    fn create_stream(&mut self, id: StreamId, name: &Arc<str>) -> Result<(), AppendError> {
        let mut payload = Vec::with_capacity(4 + name.len());
        payload.extend_from_slice(&id.0.to_le_bytes());
        payload.extend_from_slice(name.as_bytes());
        self.check_open()?;
        let chunk = self.chunk_with_room(frame_bytes(payload.len()))?;
        chunk.push(StreamId::CATALOGUE, FrameKind::CreateStream, &payload);
        chunk.created.push((id, Arc::clone(name)));
        self.count(StreamId::CATALOGUE, 1);
        Ok(())
    }

    // ---- looking at it ----

    /// Which shard it is.
    pub fn shard(&self) -> u16 {
        self.place.identity.shard
    }

    /// What was found and done at the open.
    pub fn recovery(&self) -> &ShardRecovery {
        &self.recovery
    }

    /// A look at the shard: the same counts and histograms that [`crate::Log::stats`] gives, as of
    /// the last turn; `queue_depth` are the chunks of records that no turn has taken yet. Copies
    /// three histograms: tens of microseconds.
    pub fn stats(&mut self) -> ShardStats {
        let look = self.writer.look(&[], true);
        ShardStats {
            epoch: self.epoch,
            records_appended: self.counts.records,
            bytes_appended: self.counts.bytes,
            rejections: self.counts.rejections,
            queue_depth: self.full.len() + usize::from(self.open.is_some()),
            durable_lsn: self.durable_lsn(),
            segments: self.writer.shared.published.segment_count(),
            indexes: self.place.reads.indexes.report(),
            recovery_time: self.recovery.elapsed,
            ..ShardStats::of(self.place.identity.shard, look, self.writer.disk.facts())
        }
    }

    /// The failure that poisoned the shard: nothing is acknowledged any more, until the log is
    /// opened again.
    pub fn poisoned(&self) -> Option<&DiskError> {
        self.writer.shard.poisoned()
    }

    /// Whether appends are refused because the disk is full. They go on by themselves once there is
    /// room and turns are taken.
    pub fn is_disk_full(&self) -> bool {
        self.writer.shard.is_disk_full()
    }

    /// Operations that the disk has not completed.
    pub fn in_flight(&self) -> usize {
        self.writer.disk.in_flight()
    }

    /// Ends a [wait](DrivenShard::wait), or makes [the descriptor](DrivenShard::poll_fd) readable,
    /// from any other thread.
    pub fn waker(&self) -> Waker {
        self.writer.disk.waker()
    }

    #[doc(hidden)]
    pub fn counts(&self) -> &ShardCounts {
        self.writer.shard.counts()
    }
}

impl DrivenShard<AnyDisk> {
    /// The descriptor (an eventfd) that is readable when something is there for a loop that sleeps
    /// elsewhere. To be polled for reading; nothing is read from it. Made when it is first asked
    /// for; on io_uring each completion costs a little more from then on.
    ///
    /// # Errors
    /// When there is no descriptor to be had.
    pub fn poll_fd(&self) -> Result<BorrowedFd<'_>, DiskError> {
        self.writer.disk.poll_fd()
    }

    /// Announces that the caller is about to sleep until [`DrivenShard::poll_fd`] is readable: what
    /// completes from now on makes it so, and so does the [waker](DrivenShard::waker). False when
    /// there is something to do first: take the events, and another turn. Ends with the next turn.
    pub fn about_to_sleep(&mut self) -> bool {
        !self.touched && self.tokens.events.is_empty() && self.writer.disk.about_to_sleep()
    }
}

impl<D: Disk> std::fmt::Debug for DrivenShard<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DrivenShard")
            .field("shard", &self.place.identity.shard)
            .field("durable", &self.durable_lsn())
            .field("in_flight", &self.in_flight())
            .finish()
    }
}
