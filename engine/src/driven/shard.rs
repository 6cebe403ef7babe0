//! A shard that its caller drives.
//!
//! Records go into one open chunk, which is pushed to the shard when a commit could take it, when it
//! is full, or when it has been open for long. It knows no thread and no queue; the writer's inbox
//! stays empty.
//!
//! Invariants: offsets are given in the order of the appends, and the shard places chunks in that
//! order; where it refuses some for want of room, it refuses the last ones, so that the offsets of
//! what stays hold. A token comes back exactly once.

use std::collections::{HashMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use ringlog_disk::{AnyDisk, BlockPool, Disk, DiskError, DiskErrorKind, Wait, Waker};

use super::tokens::{Answer, Event, Tokens};
use crate::chunk::{Chunk, chunk_capacity};
use crate::clock::Clock;
use crate::error::{
    AppendError, FullReason, LogError, OpenError, ReceiptError, StreamError, TrimError,
};
use crate::format::batch::{FrameKind, Nonce, RUN_BYTES, frame_bytes};
use crate::ids::{Epoch, Lsn, Offset, StreamId};
use crate::inbox::Counts;
use crate::limits::{STREAM_NAME_BYTES_MAX, STREAMS_MAX};
use crate::open::shard_of;
use crate::options::{Durability, FrozenFormat, Options, Retention, SyncPolicy};
use crate::reader::{OpenDisk, ShardReads};
use crate::recovery::{Identity, ShardRecovery};
use crate::runtime::Writer;
use crate::shard::{Reply, Request, ShardCounts, Time};
use crate::starting::{Begin, LastWord, Pools, Ready, open_shard};
use crate::stats::{ShardStats, TrimReport};
use crate::testing::{ShardIdentity, ShardMemory};

/// How long a chunk for which nobody waits may stay open, in nanoseconds.
const CHUNK_OPEN_NS: u64 = 1_000_000;
/// What is due but cannot be done yet is looked at again after this time.
const NAP: Duration = Duration::from_millis(1);

/// An append that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The record's offset in its stream; for a batch, that of the first record. It holds unless
    /// the append fails (then no later record was acknowledged either).
    pub offset: Offset,
    chunk: u64,
    durability: Durability,
}

/// What a turn leaves to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// There is more to do at once: take another turn before sleeping.
    pub more: bool,
    /// When to take a turn although nothing has happened by then: so long from now. `None`: there
    /// is no need to.
    pub wake_in: Option<Duration>,
}

/// Where a shard lies.
pub(super) struct Whereabouts {
    pub(super) identity: Identity,
    /// How many shards share the streams; `None`: this one has them all.
    pub(super) shards: Option<u16>,
    /// What its readers share.
    pub(super) reads: Arc<ShardReads>,
}

/// Whom the answer to a request is for.
#[derive(Clone, Copy, Debug)]
enum Asker {
    Token(u64),
    Close,
    Nobody,
}

/// What an append has to know of a stream.
#[derive(Clone, Copy)]
struct StreamState {
    next: Offset,
    policy: Policy,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
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
    writer: Writer<D>,
    clock: Clock,
    pub(super) place: Whereabouts,
    epoch: Epoch,
    recovery: ShardRecovery,
    // Streams.
    ids: HashMap<Arc<str>, StreamId>,
    streams: Vec<StreamState>,
    options: Arc<Options>,
    // Memory.
    small: BlockPool,
    large: BlockPool,
    frames_bytes_max: usize,
    counts: Counts,
    // On the way.
    open: Option<Box<Chunk>>,
    /// When the open chunk was first seen by a turn.
    open_since: Option<u64>,
    last_turn: Time,
    /// Something was appended or asked for since then.
    touched: bool,
    /// Chunks that wait for the next turn.
    full: VecDeque<Box<Chunk>>,
    /// Memory runs low.
    pressed: bool,
    tokens: Tokens,
    /// Whom the answer to each request is for.
    asked: Vec<(u64, Asker)>,
    closing: bool,
    closed: Option<Result<(), LogError>>,
    failure_told: bool,
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
        let begin = Begin { options: &own, pools: pools.clone(), notes, now_ns };
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

    // ---- appending ----

    /// Appends a record (it may be empty). Copies it and gives its offset; touches no disk: that
    /// begins with the next turn.
    ///
    /// # Errors
    /// See [`AppendError`]; the record is not stored then. [`AppendError::Full`] passes by itself:
    /// for want of memory, when turns have brought a commit to its end.
    pub fn append(
        &mut self,
        stream: StreamId,
        record: &[u8],
        durability: Durability,
    ) -> Result<Appended, AppendError> {
        self.put(stream, FrameKind::Record, std::slice::from_ref(&record), durability)
    }

    /// Appends several records, all or none: after a crash either all of them are there or none.
    /// They get consecutive offsets.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing of the batch is stored then.
    pub fn append_batch<R: AsRef<[u8]>>(
        &mut self,
        stream: StreamId,
        records: &[R],
        durability: Durability,
    ) -> Result<Appended, AppendError> {
        self.put(stream, FrameKind::Record, records, durability)
    }

    /// Appends a tombstone: a statement that earlier data no longer holds. Nothing is removed; what
    /// it refers to is the payload's business.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append_tombstone(
        &mut self,
        stream: StreamId,
        record: &[u8],
        durability: Durability,
    ) -> Result<Appended, AppendError> {
        self.put(stream, FrameKind::Tombstone, std::slice::from_ref(&record), durability)
    }

    fn put<R: AsRef<[u8]>>(
        &mut self,
        stream: StreamId,
        kind: FrameKind,
        records: &[R],
        durability: Durability,
    ) -> Result<Appended, AppendError> {
        let appended = self.put_into_chunk(stream, kind, records, durability);
        match &appended {
            Ok(_) => {
                self.counts.records += records.len() as u64;
                self.counts.bytes += records.iter().map(|r| r.as_ref().len() as u64).sum::<u64>();
            }
            Err(refused) => self.counts.rejections.note(refused),
        }
        appended
    }

    fn put_into_chunk<R: AsRef<[u8]>>(
        &mut self,
        stream: StreamId,
        kind: FrameKind,
        records: &[R],
        durability: Durability,
    ) -> Result<Appended, AppendError> {
        self.check_open()?;
        let known = self.streams.get(stream.0 as usize).filter(|_| stream != StreamId::CATALOGUE);
        let Some(StreamState { next: offset, policy }) = known.copied() else {
            return Err(AppendError::UnknownStream(stream));
        };
        if durability == Durability::Synced && policy == Policy::Never {
            return Err(AppendError::NeverSynced);
        }
        let bytes = records.iter().fold(0_usize, |sum, record| {
            sum.saturating_add(frame_bytes(record.as_ref().len().min(usize::MAX / 2)))
        });
        if records.is_empty() {
            return Err(AppendError::EmptyBatch);
        }
        if bytes > self.frames_bytes_max {
            return Err(AppendError::TooLarge { bytes, limit: self.frames_bytes_max });
        }
        let apart = policy == Policy::Apart;
        if apart {
            self.set_aside();
        }
        let large = self.large.id();
        let chunk = self.chunk_with_room(bytes)?;
        for record in records {
            chunk.push(stream, kind, record.as_ref());
        }
        chunk.level = chunk.level.max(durability);
        chunk.apart = apart;
        let number = chunk.number;
        let complete = apart || chunk.block.pool_id() == large || !chunk.fits(frame_bytes(0));
        if complete {
            self.set_aside();
        }
        self.count(stream, records.len() as u64);
        Ok(Appended { offset, chunk: number, durability })
    }

    fn count(&mut self, stream: StreamId, records: u64) {
        if let Some(state) = self.streams.get_mut(stream.0 as usize) {
            state.next.0 += records;
        }
    }

    fn check_open(&self) -> Result<(), AppendError> {
        let shard = &self.writer.shard;
        if let Some(error) = shard.poisoned() {
            Err(AppendError::Poisoned(error.clone()))
        } else if self.closing {
            Err(AppendError::Closed)
        } else if shard.is_disk_full() {
            Err(AppendError::Full { reason: FullReason::Disk })
        } else {
            Ok(())
        }
    }

    /// The open chunk if it has room, else a new one in its place.
    fn chunk_with_room(&mut self, bytes: usize) -> Result<&mut Chunk, AppendError> {
        if self.open.as_ref().is_some_and(|chunk| !chunk.fits(bytes)) {
            self.set_aside();
        }
        if self.open.is_none() {
            let small = bytes + RUN_BYTES <= chunk_capacity(self.small.block_bytes());
            let pool = if small { &self.small } else { &self.large };
            let block = pool.take();
            self.pressed |= pool.available() < pool.count() as usize / 4;
            let Some(block) = block else {
                return Err(AppendError::Full { reason: FullReason::Memory });
            };
            let number = self.writer.shard.accepted_chunks() + self.full.len() as u64 + 1;
            let nonce = Nonce { epoch: self.epoch, count: number };
            let Identity { log, shard, .. } = self.place.identity;
            let mut chunk = Box::new(Chunk::new(block, log, shard, nonce, None));
            chunk.number = number;
            self.open = Some(chunk);
        }
        self.touched = true;
        match &mut self.open {
            Some(chunk) => Ok(chunk),
            None => Err(AppendError::Closed), // not reached: it was put there just now
        }
    }

    /// The open chunk, if any, takes no more.
    fn set_aside(&mut self) {
        self.full.extend(self.open.take());
        self.open_since = None;
    }

    // ---- acknowledgement ----

    /// Leaves a token with an append: it comes back exactly once, among the
    /// [events](DrivenShard::events), when the append is acknowledged or has failed. Costs an entry
    /// in a list. Without it nothing is told, and nothing is remembered.
    pub fn notify(&mut self, appended: Appended, token: u64) {
        let Appended { chunk, durability, .. } = appended;
        if self.is_acknowledged(&appended) {
            self.tokens.events.push(Event::Acknowledged { token });
        } else if let Some(error) = self.failure_of(&appended) {
            self.tokens.events.push(Event::Failed { token, error });
        } else {
            self.tokens.wait(durability, chunk, token);
        }
    }

    /// Whether an append of this shard is acknowledged at the durability it asked for, as of the
    /// last turn. Compares two numbers.
    pub fn is_acknowledged(&self, appended: &Appended) -> bool {
        let (_, written_to, durable_to) = self.writer.shard.reached_chunks();
        let reached = match appended.durability {
            Durability::Memory => return true,
            Durability::Written => written_to,
            Durability::Synced => durable_to,
        };
        appended.chunk <= reached && !self.tokens.is_refused(appended.chunk)
    }

    /// Why an append will not be acknowledged; `None` where it is, or still may be.
    pub fn failure_of(&self, appended: &Appended) -> Option<ReceiptError> {
        if self.is_acknowledged(appended) {
            None
        } else if self.tokens.is_refused(appended.chunk) {
            Some(ReceiptError::DiskFull)
        } else {
            self.poisoned().map(|error| ReceiptError::Poisoned(error.clone()))
        }
    }

    /// Takes what has happened since the last call: tokens of appends, in the order of the appends
    /// for each durability, and answers to requests.
    pub fn events(&mut self) -> std::vec::Drain<'_, Event> {
        self.tokens.events.drain(..)
    }

    /// Everything before this is flushed.
    pub fn durable_lsn(&self) -> Lsn {
        self.writer.shard.durable()
    }

    /// Everything before this was accepted by the device.
    pub fn written_lsn(&self) -> Lsn {
        self.writer.shard.written()
    }

    /// Everything before this has its place on the disk; records in the open chunk come behind it.
    pub fn staged_lsn(&self) -> Lsn {
        self.writer.shard.staged()
    }

    // ---- turns ----

    /// Takes one turn: hands the disk what there is to do, and takes what it has done by now. On
    /// io_uring it waits for nothing, and makes at most two system calls; blocking I/O is carried
    /// out inside it.
    pub fn turn(&mut self) -> Turn {
        self.turn_at(self.clock.now())
    }

    /// The same at a time that the caller supplies: for a simulation, where everything follows from
    /// what is put in. Not to be mixed with [`DrivenShard::turn`].
    #[doc(hidden)]
    pub fn turn_at(&mut self, now: Time) -> Turn {
        self.feed(now);
        let wait = self.writer.work(now);
        let completed = self.writer.reap(Wait::No, || now);
        self.after(wait.is_none(), completed, now)
    }

    /// Takes a turn that waits: submits what there is, and sleeps until something has completed,
    /// until somebody uses the [waker](DrivenShard::waker), or for at most this long. Returns at
    /// once while there are events to take.
    ///
    /// With `None`, nothing in flight and nothing due it sleeps until the waker is used. With `None`
    /// and one commit to make, nothing else in flight, the calling thread makes it itself, which is
    /// the fastest way; a waker is then heard when the device is done.
    pub fn wait(&mut self, at_most: Option<Duration>) -> Turn {
        let now = self.clock.now();
        self.feed(now);
        let wait = self.writer.work(now);
        let more = wait.is_none();
        let shard_waits = match wait {
            None | Some(Wait::No) => Some(Duration::ZERO),
            Some(Wait::AtMost(limit)) => Some(limit),
            Some(Wait::Any) => None,
        };
        let limit = [shard_waits, at_most, self.chunk_due_in(now)].into_iter().flatten().min();
        let wait = match limit {
            _ if !self.tokens.events.is_empty() => Wait::No,
            Some(Duration::ZERO) => Wait::No,
            Some(limit) => Wait::AtMost(limit),
            None => Wait::Any,
        };
        let (clock, mut now) = (&self.clock, now);
        let mut later = || {
            now = clock.now();
            now
        };
        let alone = at_most.is_none() && wait != Wait::No;
        let completed = alone && self.writer.carry_out(&mut later) || self.writer.reap(wait, later);
        self.after(more, completed, now)
    }

    /// Pushes what the shard can use.
    fn feed(&mut self, now: Time) {
        (self.last_turn, self.touched) = (now, false);
        for chunk in self.full.drain(..) {
            self.writer.shard.push(chunk, now);
        }
        if self.pressed && !self.writer.shard.is_writing() {
            self.pressed = false;
            self.push_all(now);
            self.writer.shard.press();
        }
        if self.open.is_some() {
            self.open_since.get_or_insert(now.mono_ns);
            // What the shard may refuse for want of room has to be with it.
            let due = self.chunk_due_in(now) == Some(Duration::ZERO);
            if due || self.writer.shard.may_refuse() {
                self.push_all(now);
            }
        }
    }

    fn push_all(&mut self, now: Time) {
        self.set_aside();
        for chunk in self.full.drain(..) {
            self.writer.shard.push(chunk, now);
        }
    }

    /// How soon the open chunk has to be pushed; `None` where a completion comes first.
    fn chunk_due_in(&self, now: Time) -> Option<Duration> {
        let (chunk, since) = (self.open.as_ref()?, self.open_since?);
        let stay = match chunk.level {
            Durability::Memory => CHUNK_OPEN_NS,
            _ if !self.writer.shard.could_commit() => return None,
            _ => self.options.linger.as_nanos() as u64,
        };
        Some(Duration::from_nanos((since + stay).saturating_sub(now.mono_ns)))
    }

    /// The end of a turn: the device gets what is due now, so that it works while the caller looks
    /// at the events.
    fn after(&mut self, mut more: bool, completed: bool, now: Time) -> Turn {
        let waiting = self.open.is_some() || !self.full.is_empty();
        if completed && (waiting || !self.writer.shard.is_idle()) {
            self.feed(now);
            more |= self.writer.work(now).is_none();
            self.writer.disk.send();
        } else if completed {
            self.writer.tell(); // what is due beside records has time until the next turn
        }
        let (_, written_to, durable_to) = self.writer.shard.reached_chunks();
        self.tokens.reached(written_to, durable_to);
        self.take_refused();
        self.take_failure();
        self.take_answers();
        let due = |at: u64| match Duration::from_nanos(at.saturating_sub(now.mono_ns)) {
            Duration::ZERO => NAP,
            left => left,
        };
        let chunk_due = self.chunk_due_in(now);
        let wake_in = [self.writer.deadline().map(due), chunk_due].into_iter().flatten().min();
        let more = more || completed || wake_in == Some(Duration::ZERO);
        Turn { more, wake_in }
    }

    fn take_refused(&mut self) {
        // The shard gives the last first.
        for chunk in self.writer.shard.take_refused().rev() {
            for run in &chunk.runs {
                if let Some(state) = self.streams.get_mut(run.stream.0 as usize) {
                    state.next.0 -= u64::from(run.count);
                }
            }
            self.tokens.refuse(chunk.number);
        }
    }

    fn take_failure(&mut self) {
        if self.failure_told {
            return;
        }
        if let Some(error) = self.writer.shard.poisoned() {
            self.failure_told = true;
            self.tokens.fail_all(&ReceiptError::Poisoned(error.clone()));
        }
    }

    fn take_answers(&mut self) {
        for (id, reply) in self.writer.answers.drain(..) {
            let Some(at) = self.asked.iter().position(|(asked, _)| *asked == id) else { continue };
            let (_, asker) = self.asked.swap_remove(at);
            let result = match reply {
                Reply::Done => Ok(Answer::Done),
                Reply::Trimmed { segments } => {
                    let bytes = segments * self.place.identity.segment_bytes;
                    Ok(Answer::Trimmed(TrimReport { segments, bytes }))
                }
                Reply::DiskFull => Err(LogError::DiskFull),
                Reply::Poisoned(error) => Err(LogError::Poisoned(error)),
            };
            match asker {
                Asker::Token(token) => self.tokens.events.push(Event::Answered { token, result }),
                Asker::Close => self.closed = Some(result.map(drop)),
                Asker::Nobody => {}
            }
        }
    }

    // ---- requests ----

    /// Asks for everything appended so far to become durable, under any policy; the token comes
    /// back when it is.
    pub fn flush(&mut self, token: u64) {
        self.ask(Request::Flush, Asker::Token(token));
    }

    /// Asks for the open segment to be sealed; the token comes back when it is. An empty one stays
    /// open.
    pub fn rotate(&mut self, token: u64) {
        self.ask(Request::Rotate, Asker::Token(token));
    }

    /// Asks for the oldest sealed segments to be removed, all but `keep_sealed`; the token comes
    /// back with what was removed.
    pub fn trim(&mut self, keep_sealed: usize, token: u64) {
        self.ask(Request::Trim { keep_sealed }, Asker::Token(token));
    }

    /// Asks for the oldest sealed segments outside these bounds to be removed, once, whatever
    /// [`Options::retention`] says; the token comes back with what was removed. Retention by age
    /// that has paused goes on.
    pub fn retain(&mut self, bounds: Retention, token: u64) {
        self.ask(Request::Retain(bounds), Asker::Token(token));
    }

    /// Trims a stream, as [`crate::Stream::trim`] does: its records below `before` cannot be read
    /// any more once the token has come back acknowledged. Offsets stay what they are.
    ///
    /// # Errors
    /// See [`TrimError`].
    pub fn trim_stream(
        &mut self,
        stream: StreamId,
        before: Offset,
        token: u64,
    ) -> Result<(), TrimError> {
        self.check_open().map_err(TrimError::Append)?;
        let known = self.streams.get(stream.0 as usize).filter(|_| stream != StreamId::CATALOGUE);
        let Some(StreamState { next, .. }) = known.copied() else {
            return Err(TrimError::Append(AppendError::UnknownStream(stream)));
        };
        if before > next {
            return Err(TrimError::OutOfRange { next });
        }
        let mut payload = [0; 12];
        payload[..4].copy_from_slice(&stream.0.to_le_bytes());
        payload[4..].copy_from_slice(&before.0.to_le_bytes());
        let bytes = frame_bytes(payload.len());
        let chunk = self.chunk_with_room(bytes).map_err(TrimError::Append)?;
        chunk.push(StreamId::CATALOGUE, FrameKind::TrimStream, &payload);
        chunk.trimmed.push((stream, before));
        chunk.level = Durability::Synced;
        let chunk = chunk.number;
        self.count(StreamId::CATALOGUE, 1);
        self.tokens.wait(Durability::Synced, chunk, token);
        // Whatever the sync policy is, this does not wait for it.
        self.ask(Request::Flush, Asker::Nobody);
        Ok(())
    }

    /// Begins to close the shard: nothing more is appended, and turns make everything durable and
    /// mark the shard as cleanly closed. [`DrivenShard::closed`] tells when.
    pub fn begin_close(&mut self) {
        if !self.closing {
            self.closing = true;
            self.ask(Request::Close, Asker::Close);
        }
    }

    /// What came of closing, once it is over. Then the shard is to be dropped.
    pub fn closed(&self) -> Option<&Result<(), LogError>> {
        self.closed.as_ref()
    }

    /// Makes everything durable, marks the shard as cleanly closed and lets go of it. Waits for
    /// the disk; a loop that must not wait uses [`DrivenShard::begin_close`]. The log as a whole is
    /// cleanly closed when all its shards are.
    ///
    /// # Errors
    /// See [`LogError`]: what was not acknowledged may not be stored. Tokens that have not come
    /// back are forgotten.
    pub fn close(mut self) -> Result<(), LogError> {
        self.begin_close();
        loop {
            self.tokens.events.clear();
            if let Some(result) = self.closed.take() {
                return result;
            }
            self.wait(None);
        }
    }

    fn ask(&mut self, request: Request, asker: Asker) {
        // Everything appended before belongs to it.
        self.touched = true;
        self.push_all(self.last_turn);
        let id = self.writer.ask_here(request);
        self.asked.push((id, asker));
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
