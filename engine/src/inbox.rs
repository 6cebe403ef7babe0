//! Where producers and the writer of a shard meet.
//!
//! A producing thread has a slot (a few threads may share one), and in it at most one open chunk.
//! Under the slot's lock it copies and checksums records into the chunk; a chunk as a whole goes
//! through the bounded queue. It is handed over
//! - at once, while the writer is idle and somebody will wait for the record;
//! - when it is full;
//! - when somebody waits for a record that only the writer can place;
//! - otherwise by the writer itself, which sweeps the slots when it has finished a commit, and
//!   within a bounded time in any case.
//!
//! Creations of streams gather in a slot of their own. Whoever hands over another chunk hands over
//! that one first: nobody can have appended to a stream before its creation lay there, so no record
//! comes before the creation of its stream, whatever slot it comes from.
//!
//! Invariants: chunks are pushed only under the lock of their slot, so the chunks of one slot keep
//! their order; nothing is pushed once the inbox is shut and each slot was locked afterwards; the
//! queue has room for every block, so what bounds the producers is memory for blocks.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use ringlog_disk::planted::{Bug, planted};
use ringlog_disk::sync::ordered::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use ringlog_disk::sync::{Mutex, MutexGuard, OnceLock};
use ringlog_disk::{BlockPool, DiskError, DiskErrorKind, Waker, futex};

use crate::chunk::{Chunk, chunk_capacity};
use crate::error::{AppendError, FullReason, ReceiptError};
use crate::format::batch::{FrameKind, Nonce, RUN_BYTES, frame_bytes};
use crate::ids::{Epoch, LogId, Offset, StreamId};
use crate::limits::SLOTS;
use crate::options::Durability;
use crate::queue::ChunkQueue;
use crate::receipt::{Receipt, Ticket};
use crate::refusals::{Refusals, Taken};
use crate::stats::Rejections;

/// So many chunks are worth waking a writer that waits for its disk.
const WORTH_WAKING: usize = 4;
/// The slot in which creations of streams gather.
const CREATIONS: usize = SLOTS;

/// What the inbox needs to know once and for all.
#[derive(Clone, Copy, Debug)]
pub struct InboxConfig {
    /// The log.
    pub log: LogId,
    /// The shard.
    pub shard: u16,
    /// The life; part of every nonce.
    pub epoch: Epoch,
    /// The largest record or batch, in bytes of frames.
    pub frames_bytes_max: usize,
}

/// Whether the inbox takes records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Admission {
    /// It does.
    Open = 0,
    /// Not now: there is no room on the disk.
    DiskFull = 1,
    /// No more.
    Closed = 2,
    /// No more: the shard has failed.
    Poisoned = 3,
}

#[derive(Default)]
struct SlotState {
    chunk: Option<Box<Chunk>>,
    taken: Taken,
    counts: Counts,
}

/// How records are appended.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// When they count as acknowledged.
    pub level: Durability,
    /// They share their flush with no other append call.
    pub apart: bool,
    /// A full log is not the caller's last word, so the refusal is not counted.
    pub will_try_again: bool,
}

/// What producers have done, summed over the slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records taken.
    pub records: u64,
    /// Payload bytes taken.
    pub bytes: u64,
    /// Appends refused.
    pub rejections: Rejections,
}

/// Keeps the slots of different threads on different cache lines.
#[repr(align(128))]
#[derive(Default)]
struct Slot(Mutex<SlotState>);

/// See the module's text.
pub struct Inbox {
    config: InboxConfig,
    slots: [Slot; SLOTS + 1],
    queue: ChunkQueue,
    small: BlockPool,
    large: BlockPool,
    next_nonce: AtomicU64,
    admission: AtomicU32,
    /// Not in loom's models, where it never changes: each look would double their schedules.
    refusals: std::sync::atomic::AtomicU64,
    failure: OnceLock<DiskError>,
    /// Whether the writer has nothing to do: then a record goes to it at once.
    idle: AtomicBool,
    /// Memory runs low, and the writer has not seen that yet.
    pressed: AtomicBool,
    /// Whether the writer waits for something else than the disk.
    waits: AtomicBool,
    /// Slots with an open chunk.
    used: AtomicU64,
    /// Slots with an open chunk that somebody will wait for.
    urgent: AtomicU64,
    waker: Waker,
    room: AtomicU32,
    room_waiters: AtomicU32,
    /// Blocks that had come back when those who wait for room were woken last.
    returned: std::sync::atomic::AtomicU64,
    /// Changes whenever tickets that are waited for have come further.
    bell: AtomicU32,
    /// Whether the next one that waits for the bell wakes the writer. Not in loom's models: all that
    /// depends on it is how long a commit waits for company, and that has an end.
    awaits_waiter: std::sync::atomic::AtomicBool,
}

impl Inbox {
    /// An empty inbox that wakes the writer through `waker`.
    pub fn new(config: InboxConfig, small: BlockPool, large: BlockPool, waker: Waker) -> Self {
        let blocks = small.count() as usize + large.count() as usize;
        Self {
            config,
            slots: Default::default(),
            queue: ChunkQueue::for_blocks(blocks),
            small,
            large,
            next_nonce: AtomicU64::new(0),
            admission: AtomicU32::new(Admission::Open as u32),
            refusals: std::sync::atomic::AtomicU64::new(0),
            failure: OnceLock::new(),
            idle: AtomicBool::new(true),
            pressed: AtomicBool::new(false),
            waits: AtomicBool::new(true),
            used: AtomicU64::new(0),
            urgent: AtomicU64::new(0),
            waker,
            room: AtomicU32::new(0),
            room_waiters: AtomicU32::new(0),
            returned: std::sync::atomic::AtomicU64::new(0),
            bell: AtomicU32::new(0),
            awaits_waiter: std::sync::atomic::AtomicBool::new(false),
        }
    }

    /// The number of the calling thread: each has its own. So many share a slot as their numbers
    /// are more than [`SLOTS`].
    pub fn this_thread() -> usize {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        thread_local! {
            static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed) as usize;
        }
        NUMBER.with(|number| *number)
    }

    /// Appends records, all into one chunk. Never waits for the disk. The records of one thread
    /// keep their order.
    pub fn append<R: AsRef<[u8]>>(
        self: &Arc<Self>,
        thread: usize,
        stream: StreamId,
        kind: FrameKind,
        records: &[R],
        how: How,
    ) -> Result<Receipt, AppendError> {
        let slot = thread % SLOTS;
        let bytes = match self.checked_size(records) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.lock(slot).counts.rejections.note(&error);
                return Err(error);
            }
        };
        let mut state = self.lock(slot);
        let refusals = self.refusals();
        if how.level > Durability::Memory && self.is_behind(&mut state, thread, refusals, how) {
            let error = AppendError::Full { reason: FullReason::Behind };
            state.counts.rejections.note(&error);
            return Err(error);
        }
        if how.apart && self.hand_over(slot, &mut state) {
            self.nudge();
        }
        let chunk = match self.chunk_with_room(slot, &mut state, bytes, refusals) {
            Ok(chunk) => chunk,
            Err(error) => {
                let full = matches!(error, AppendError::Full { .. });
                if !(full && how.will_try_again) {
                    state.counts.rejections.note(&error);
                }
                return Err(error);
            }
        };
        chunk.apart = how.apart;
        let mut place = None;
        for record in records {
            let at = chunk.push(stream, kind, record.as_ref());
            place.get_or_insert(at);
        }
        let (Some(place), Some(ticket)) = (place, chunk.ticket.clone()) else {
            return Err(AppendError::EmptyBatch); // each chunk of an inbox has a ticket
        };
        if kind == FrameKind::Record || kind == FrameKind::Tombstone {
            state.counts.records += records.len() as u64;
            state.counts.bytes += records.iter().map(|r| r.as_ref().len() as u64).sum::<u64>();
        }
        self.after_push(slot, &mut state, how);
        Ok(Receipt::new(ticket, place, records.len() as u32, how.level))
    }

    /// The same, but waits for room, at most until `deadline`.
    pub fn append_until<R: AsRef<[u8]>>(
        self: &Arc<Self>,
        thread: usize,
        stream: StreamId,
        kind: FrameKind,
        records: &[R],
        how: How,
        deadline: Option<Instant>,
    ) -> Result<Receipt, AppendError> {
        let for_now = |result: &Result<Receipt, AppendError>| {
            use FullReason::{Disk, Memory};
            matches!(result, Err(AppendError::Full { reason: Memory | Disk }))
        };
        let first = self.append(thread, stream, kind, records, How { will_try_again: true, ..how });
        if !for_now(&first) {
            return first;
        }
        loop {
            let room = self.room.load(Ordering::SeqCst);
            self.room_waiters.fetch_add(1, Ordering::SeqCst);
            let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
            let last = left == Some(Duration::ZERO);
            let how = How { will_try_again: !last, ..how };
            let result = self.append(thread, stream, kind, records, how);
            if for_now(&result) && !last {
                // Looks again now and then: a full disk is not announced by freed blocks.
                let nap = Duration::from_millis(50);
                futex::wait(&self.room, room, Some(left.map_or(nap, |left| left.min(nap))));
                self.room_waiters.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            self.room_waiters.fetch_sub(1, Ordering::SeqCst);
            return result;
        }
    }

    /// Appends the creation of a stream. It is in the log before any record that is appended
    /// afterwards, by whomever. Waits for memory until `deadline`; not for room on the disk.
    pub fn append_creation(
        self: &Arc<Self>,
        stream: StreamId,
        name: &Arc<str>,
        deadline: Option<Instant>,
    ) -> Result<(), AppendError> {
        let mut result = self.try_creation(stream, name);
        while matches!(result, Err(AppendError::Full { reason: FullReason::Memory })) {
            let left = deadline
                .map_or(Duration::ZERO, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break;
            }
            let room = self.room.load(Ordering::SeqCst);
            self.room_waiters.fetch_add(1, Ordering::SeqCst);
            result = self.try_creation(stream, name);
            if result.is_err() {
                futex::wait(&self.room, room, Some(left.min(Duration::from_millis(50))));
            }
            self.room_waiters.fetch_sub(1, Ordering::SeqCst);
        }
        result
    }

    fn try_creation(
        self: &Arc<Self>,
        stream: StreamId,
        name: &Arc<str>,
    ) -> Result<(), AppendError> {
        let mut payload = Vec::with_capacity(4 + name.len());
        payload.extend_from_slice(&stream.0.to_le_bytes());
        payload.extend_from_slice(name.as_bytes());
        let bytes = self.checked_size(std::slice::from_ref(&payload))?;
        let mut state = self.lock(CREATIONS);
        let chunk = self.chunk_with_room(CREATIONS, &mut state, bytes, self.refusals())?;
        let _place = chunk.push(StreamId::CATALOGUE, FrameKind::CreateStream, &payload);
        chunk.created.push((stream, Arc::clone(name)));
        let bit = 1 << CREATIONS;
        if self.used.fetch_or(bit, Ordering::SeqCst) & bit == 0 && self.idle.load(Ordering::SeqCst)
        {
            self.waker.wake(); // nobody waits for it, but it shall not wait for ever
        }
        Ok(())
    }

    /// Appends that the records of a stream below an offset are not there any more, and hands it
    /// over at once. The receipt is acknowledged once that is durable.
    pub fn append_trim(
        self: &Arc<Self>,
        thread: usize,
        stream: StreamId,
        before: Offset,
    ) -> Result<Receipt, AppendError> {
        let slot = thread % SLOTS;
        let mut payload = [0; 12];
        payload[..4].copy_from_slice(&stream.0.to_le_bytes());
        payload[4..].copy_from_slice(&before.0.to_le_bytes());
        let bytes = frame_bytes(payload.len());
        let mut state = self.lock(slot);
        let chunk = self.chunk_with_room(slot, &mut state, bytes, self.refusals())?;
        let place = chunk.push(StreamId::CATALOGUE, FrameKind::TrimStream, &payload);
        chunk.trimmed.push((stream, before));
        chunk.level = Durability::Synced;
        let Some(ticket) = chunk.ticket.clone() else {
            return Err(AppendError::Closed); // not reached: each chunk of an inbox has a ticket
        };
        self.hand_over(slot, &mut state);
        self.waker.wake();
        Ok(Receipt::new(ticket, place, 1, Durability::Synced))
    }

    /// Whether records of this thread were given up, and it is not known to have heard of that: a
    /// disk that still is full is a refusal as good as any, if the caller hears of it.
    fn is_behind(&self, state: &mut SlotState, thread: usize, now: Refusals, how: How) -> bool {
        if state.taken.is_quiet(now) {
            return false;
        }
        match self.admission() {
            Admission::DiskFull if how.will_try_again => false,
            Admission::DiskFull => {
                state.taken.take_refusal(thread, now);
                false
            }
            _ => state.taken.take_refusal(thread, now),
        }
    }

    fn checked_size<R: AsRef<[u8]>>(&self, records: &[R]) -> Result<usize, AppendError> {
        let limit = self.config.frames_bytes_max;
        let bytes = records.iter().fold(0_usize, |sum, record| {
            sum.saturating_add(frame_bytes(record.as_ref().len().min(usize::MAX / 2)))
        });
        if records.is_empty() {
            Err(AppendError::EmptyBatch)
        } else if bytes > limit {
            Err(AppendError::TooLarge { bytes, limit })
        } else {
            Ok(bytes)
        }
    }

    /// The slot's open chunk if it has room and was begun under this count of refusals, else
    /// a new one in its place.
    fn chunk_with_room<'a>(
        self: &Arc<Self>,
        slot: usize,
        state: &'a mut MutexGuard<'_, SlotState>,
        bytes: usize,
        refusals: Refusals,
    ) -> Result<&'a mut Box<Chunk>, AppendError> {
        let has_room = state
            .chunk
            .as_ref()
            .is_some_and(|chunk| chunk.fits(bytes) && chunk.refusals == refusals);
        self.check_admission()?;
        if !has_room {
            let pool = if bytes + RUN_BYTES <= chunk_capacity(self.small.block_bytes()) {
                &self.small
            } else {
                &self.large
            };
            if self.hand_over(slot, state) {
                self.nudge();
            }
            let block = pool.take();
            if pool.available() < pool.count() as usize / 4 {
                self.press();
            }
            let Some(block) = block else {
                return Err(AppendError::Full { reason: FullReason::Memory });
            };
            let nonce = Nonce {
                epoch: self.config.epoch,
                count: match planted(Bug::UseNonceTwice) {
                    true => 0,
                    false => self.next_nonce.fetch_add(1, Ordering::Relaxed),
                },
            };
            let ticket = Arc::new(Ticket::new(Arc::clone(self), slot, nonce.count));
            let InboxConfig { log, shard, .. } = self.config;
            let mut chunk = Chunk::new(block, log, shard, nonce, Some(ticket));
            chunk.refusals = refusals;
            state.chunk = Some(Box::new(chunk));
        }
        match &mut state.chunk {
            Some(chunk) => Ok(chunk),
            None => Err(AppendError::Closed), // not reached: it was put there just now
        }
    }

    /// Memory runs low. A writer that waits for its disk comes when that has freed some; one that
    /// waits for company, or has nothing to do, is woken.
    pub(crate) fn press(&self) {
        let is_new = !self.pressed.swap(true, Ordering::SeqCst);
        if is_new && self.waits.load(Ordering::SeqCst) {
            self.waker.wake();
        }
    }

    fn check_admission(&self) -> Result<(), AppendError> {
        match self.admission.load(Ordering::SeqCst) {
            0 => Ok(()),
            1 => Err(AppendError::Full { reason: FullReason::Disk }),
            2 => Err(AppendError::Closed),
            _ => Err(AppendError::Poisoned(self.failure())),
        }
    }

    /// Decides whether the slot's chunk goes to the writer now.
    fn after_push(&self, slot: usize, state: &mut SlotState, how: How) {
        let level = how.level;
        let Some(chunk) = &mut state.chunk else { return };
        let bit = 1 << slot;
        let raised = level > chunk.level;
        if let (true, Durability::Memory, Some(ticket)) = (raised, chunk.level, &chunk.ticket) {
            state.taken.note(ticket, chunk.refusals);
        }
        chunk.level =
            if planted(Bug::ForgetStrongerLevel) { level } else { chunk.level.max(level) };
        let complete = how.apart || !chunk.fits(frame_bytes(0));
        let large = chunk.block.pool_id() == self.large.id();
        let waited_for = level > Durability::Memory;
        if complete || large || (waited_for && self.take_idleness()) {
            self.hand_over(slot, state);
            match complete && !large {
                true => self.nudge(),
                false => self.waker.wake(),
            }
            return;
        }
        if waited_for && (raised || self.urgent.load(Ordering::Relaxed) & bit == 0) {
            self.urgent.fetch_or(bit, Ordering::SeqCst);
        }
        let first = self.used.load(Ordering::Relaxed) & bit == 0;
        if first && !planted(Bug::ForgetOpenChunk) {
            self.used.fetch_or(bit, Ordering::SeqCst);
        }
        // A writer at work looks at the bits when it has finished. One that falls idle says so,
        // then looks again; so either it has seen the bit, or the idleness is seen here. Where nobody
        // waits it comes by itself within a bounded time, and is woken for the first record only.
        if waited_for && self.take_idleness() {
            self.hand_over(slot, state);
            self.waker.wake();
        } else if (first || waited_for) && self.idle.load(Ordering::SeqCst) {
            self.waker.wake();
        }
    }

    /// Whether the writer is idle; if so, it is so no more, and the caller wakes it. So the first
    /// record alone is handed over in a hurry: what comes until the writer is up gathers in the
    /// slots.
    fn take_idleness(&self) -> bool {
        // Who does not get it writes nothing: another "no" must not cover the writer's next "yes".
        let (taken, order) = (false, Ordering::SeqCst);
        self.idle.load(order)
            && self.idle.compare_exchange_weak(true, taken, order, Ordering::Relaxed).is_ok()
    }

    /// A chunk was pushed. A writer at work comes for it by itself when its commit has completed;
    /// waking it pays only once enough has gathered for another commit beside that one.
    fn nudge(&self) {
        if self.idle.load(Ordering::SeqCst) || self.queue.len() >= WORTH_WAKING {
            self.waker.wake();
        }
    }

    /// Pushes the slot's chunk, if it has one. The caller holds the slot's lock.
    fn hand_over(&self, slot: usize, state: &mut SlotState) -> bool {
        let Some(chunk) = state.chunk.take() else { return false };
        let last = planted(Bug::CreateAfterRecord);
        if !last && slot != CREATIONS && self.used.load(Ordering::SeqCst) & 1 << CREATIONS != 0 {
            let mut creations = self.lock(CREATIONS);
            self.hand_over(CREATIONS, &mut creations);
        }
        let bit = !(1 << slot);
        match self.queue.push(chunk) {
            Ok(()) => {
                // The bit goes last: who finds none for creations knows that they are in the queue.
                if self.used.load(Ordering::Relaxed) & !bit != 0 {
                    self.used.fetch_and(bit, Ordering::SeqCst);
                    self.urgent.fetch_and(bit, Ordering::SeqCst);
                }
                true
            }
            Err(chunk) => {
                // There is a place for every block, so this cannot be; keep the records all the same.
                debug_assert!(false, "the queue is as long as there are blocks");
                state.chunk = Some(chunk);
                false
            }
        }
    }

    /// Hands over the slot's chunk if it still is the one of this ticket.
    pub(crate) fn hand_over_if_open(&self, slot: usize, ticket: &Ticket) {
        let mut state = self.lock(slot);
        let same = state
            .chunk
            .as_ref()
            .and_then(|chunk| chunk.ticket.as_ref())
            .is_some_and(|open| std::ptr::eq(Arc::as_ptr(open), ticket));
        if same && self.hand_over(slot, &mut state) {
            self.waker.wake();
        }
    }

    /// What the bell says now.
    pub(crate) fn bell(&self) -> u32 {
        self.bell.load(Ordering::SeqCst)
    }

    /// Sleeps until the bell is rung for one of these bits, unless it has been rung for anybody
    /// since it said `seen`; until the time is over; or for no reason.
    pub(crate) fn wait_for_bell(&self, seen: u32, at_most: Option<Duration>, bits: u32) {
        self.note_waiter();
        futex::wait_bits(&self.bell, seen, at_most, bits);
    }

    /// Somebody waits: a writer that waits for that is woken.
    pub(crate) fn note_waiter(&self) {
        use std::sync::atomic::Ordering;
        if self.awaits_waiter.load(Ordering::Relaxed)
            && self.awaits_waiter.swap(false, Ordering::AcqRel)
        {
            self.waker.wake();
        }
    }

    /// Has the next one that waits for the bell wake the writer, or no longer so.
    pub(crate) fn await_waiter(&self, awaits: bool) {
        self.awaits_waiter.store(awaits, std::sync::atomic::Ordering::Release);
    }

    /// Whether nobody has come to wait since.
    pub(crate) fn awaits_waiter(&self) -> bool {
        self.awaits_waiter.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Wakes those who wait with one of these bits.
    pub(crate) fn ring_bell(&self, bits: u32) {
        if bits != 0 && !planted(Bug::LoseBell) {
            self.bell.fetch_add(1, Ordering::SeqCst);
            futex::wake_bits(&self.bell, bits);
        }
    }

    fn lock(&self, slot: usize) -> MutexGuard<'_, SlotState> {
        self.slots[slot].0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- the writer's side ----

    /// Takes the oldest chunk.
    pub fn pop(&self) -> Option<Box<Chunk>> {
        self.queue.pop()
    }

    /// How many chunks wait in the queue.
    pub fn depth(&self) -> usize {
        self.queue.len()
    }

    /// Whether any slot has an open chunk, and whether somebody will wait for one of them.
    pub fn open_chunks(&self) -> (bool, bool) {
        (self.used.load(Ordering::SeqCst) != 0, self.urgent.load(Ordering::SeqCst) != 0)
    }

    /// Moves open chunks into the queue: the urgent ones, or all.
    pub fn sweep(&self, all: bool) {
        let mut bits = if all { &self.used } else { &self.urgent }.load(Ordering::SeqCst);
        while bits != 0 {
            let slot = bits.trailing_zeros() as usize;
            bits &= bits - 1;
            let mut state = self.lock(slot);
            self.hand_over(slot, &mut state);
        }
    }

    /// Says whether the writer is idle. After saying yes the writer must sweep once more.
    pub fn set_idle(&self, idle: bool) {
        if self.idle.load(Ordering::Relaxed) != idle {
            self.idle.store(idle, Ordering::SeqCst);
        }
    }

    /// Whether memory has run low since the last call.
    pub fn take_pressure(&self) -> bool {
        !planted(Bug::IgnorePressure)
            && self.pressed.load(Ordering::Relaxed)
            && self.pressed.swap(false, Ordering::SeqCst)
    }

    /// Says whether the writer waits for something else than the disk. True if memory runs low:
    /// then it must not wait.
    pub fn set_waits(&self, waits: bool) -> bool {
        if self.waits.load(Ordering::Relaxed) != waits {
            self.waits.store(waits, Ordering::SeqCst);
        }
        waits && self.pressed.load(Ordering::SeqCst)
    }

    /// Where blocks have come back since the last call: whoever waits for room may try again. Where none
    /// have, nobody is woken: they would find nothing, say so, and have this called again.
    pub fn room_made(&self) {
        let returned = self.small.returned().wrapping_add(self.large.returned());
        if self.returned.swap(returned, std::sync::atomic::Ordering::Relaxed) != returned {
            self.wake_for_room();
        }
    }

    fn wake_for_room(&self) {
        if self.room_waiters.load(Ordering::SeqCst) > 0 {
            self.room.fetch_add(1, Ordering::SeqCst);
            futex::wake_all(&self.room);
        }
    }

    /// Opens or shuts the door. Once closed or poisoned it stays so.
    pub fn set_admission(&self, admission: Admission) {
        let now = self.admission.load(Ordering::SeqCst);
        if now < Admission::Closed as u32 && now != admission as u32 {
            self.admission.store(admission as u32, Ordering::SeqCst);
            self.wake_for_room();
        }
    }

    /// How often the shard has given up what it had taken.
    fn refusals(&self) -> Refusals {
        self.refusals.load(Ordering::Acquire)
    }

    /// Says how often the shard has given up what it had taken: before those are told whose records
    /// these were.
    pub fn set_refusals(&self, refusals: Refusals) {
        if self.refusals.load(Ordering::Relaxed) != refusals {
            self.refusals.store(refusals, Ordering::Release);
        }
    }

    /// Shuts the door for good after a failure.
    pub fn poison(&self, error: DiskError) {
        let _ = self.failure.set(error);
        self.admission.store(Admission::Poisoned as u32, Ordering::SeqCst);
        self.wake_for_room();
    }

    /// The failure that poisoned the shard.
    pub fn failure(&self) -> DiskError {
        self.failure
            .get()
            .cloned()
            .unwrap_or_else(|| DiskError::new(DiskErrorKind::Io, "an earlier failure"))
    }

    /// Whether it takes records now.
    pub fn admission(&self) -> Admission {
        match self.admission.load(Ordering::SeqCst) {
            0 => Admission::Open,
            1 => Admission::DiskFull,
            2 => Admission::Closed,
            _ => Admission::Poisoned,
        }
    }

    /// Moves every open chunk into the queue, waiting for producers that are at work. After the
    /// door was shut and this has returned, nothing more comes.
    pub fn drain_slots(&self) {
        for slot in 0..self.slots.len() {
            let mut state = self.lock(slot);
            self.hand_over(slot, &mut state);
        }
    }

    /// The writer is gone. After a close nothing is left to do; after a failure of the writer
    /// itself, whoever waits is told, and nothing more is taken.
    pub fn abandon(&self) {
        if self.admission() != Admission::Closed {
            self.poison(DiskError::new(DiskErrorKind::Io, "the writer ended unexpectedly"));
        }
        self.drain_slots();
        while let Some(chunk) = self.pop() {
            if let Some(ticket) = chunk.ticket {
                ticket.fail(ReceiptError::Closed);
            }
        }
        self.forget_taken();
        self.ring_bell(u32::MAX);
    }

    /// Each ticket keeps this inbox, and with it the memory for all blocks.
    pub(crate) fn forget_taken(&self) {
        for slot in 0..self.slots.len() {
            self.lock(slot).taken = Taken::default();
        }
    }

    /// What producers have done so far.
    pub fn counts(&self) -> Counts {
        (0..self.slots.len()).fold(Counts::default(), |mut sum, slot| {
            let counts = self.lock(slot).counts;
            sum.records += counts.records;
            sum.bytes += counts.bytes;
            sum.rejections += counts.rejections;
            sum
        })
    }

    /// Wakes the writer.
    pub fn wake_writer(&self) {
        self.waker.wake();
    }
}

#[cfg(test)]
mod tests;
