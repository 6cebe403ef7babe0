//! What a producer holds after an append: a receipt that knows, sooner or later, the record's
//! place and its durability.
//!
//! All receipts of a chunk share one ticket, and a ticket has one word: the level that the chunk
//! has reached. It only ever grows. All waiters of a shard sleep on one other word, its bell, each
//! with the bit of its ticket: so the writer wakes those whom a commit serves, and nobody else,
//! with one call, and touches nothing per record.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use ringlog_disk::planted::{Bug, planted};
use ringlog_disk::sync::ordered::{AtomicU32, Ordering};
use ringlog_disk::sync::{Mutex, OnceLock};

use crate::error::ReceiptError;
use crate::format::batch::Run;
use crate::ids::{Lsn, Offset, Position};
use crate::inbox::Inbox;
use crate::options::Durability;

/// How far a chunk has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Level {
    /// Still with its producer, or on its way to the writer.
    Open = 0,
    /// It has its place.
    Placed = 1,
    /// The device has accepted it, and everything before it.
    Written = 2,
    /// Flushed, and everything before it.
    Synced = 3,
}

const LEVEL_MASK: u32 = 0b0011;
const FAILED: u32 = 0b0100;
const WAITED_FOR: u32 = 0b1000;

impl From<Durability> for Level {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Memory => Self::Placed,
            Durability::Written => Self::Written,
            Durability::Synced => Self::Synced,
        }
    }
}

struct Placed {
    lsn: Lsn,
    runs: Vec<Run>,
}

/// Shared by the writer and all receipts of one chunk.
pub struct Ticket {
    state: AtomicU32,
    placed: OnceLock<Placed>,
    failure: OnceLock<ReceiptError>,
    wakers: Mutex<Vec<Waker>>,
    /// Where the chunk comes from: the bell, and whom to ask for its hand-over.
    inbox: Arc<Inbox>,
    slot: usize,
    /// Tickets that wait at the same time have different bits, but for rare coincidence.
    bit: u32,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ticket({:#b})", self.state.load(Ordering::Relaxed))
    }
}

impl Ticket {
    /// For the `count`-th chunk of a shard's life, which is open in this inbox and slot.
    pub fn new(inbox: Arc<Inbox>, slot: usize, count: u64) -> Self {
        Self {
            inbox,
            slot,
            bit: 1 << (count % 32),
            state: AtomicU32::new(Level::Open as u32),
            placed: OnceLock::new(),
            failure: OnceLock::new(),
            wakers: Mutex::new(Vec::new()),
        }
    }

    /// The writer has given the chunk its place.
    pub fn place(&self, lsn: Lsn, runs: Vec<Run>) {
        let first = self.placed.set(Placed { lsn, runs });
        debug_assert!(first.is_ok(), "a chunk is placed once");
    }

    /// Whether the writer has given the chunk its place.
    pub(crate) fn is_placed(&self) -> bool {
        self.placed.get().is_some()
    }

    /// The chunk has come this far; lower levels than reached change nothing. Wakes async waiters;
    /// gives the bit with which the bell is to be rung for the threads that wait, 0 for none.
    pub fn advance(&self, level: Level) -> u32 {
        self.change(|state| {
            let high = planted(Bug::AcknowledgeTooHigh) && level == Level::Written;
            let level = if high { Level::Synced } else { level };
            let reached = (state & LEVEL_MASK).max(level as u32);
            (state & FAILED) | reached
        })
    }

    /// The chunk will come no further. Gives a bit as [`Ticket::advance`] does.
    pub fn fail(&self, error: ReceiptError) -> u32 {
        let _ = self.failure.set(error); // the first failure is the one that is told
        self.change(|state| (state & LEVEL_MASK) | FAILED)
    }

    #[cfg(test)]
    pub(crate) fn is_waited_for(&self) -> bool {
        self.state.load(Ordering::SeqCst) & WAITED_FOR != 0
    }

    fn change(&self, next: impl Fn(u32) -> u32) -> u32 {
        let mut state = self.state.load(Ordering::Relaxed);
        while let Err(now) = self.state.compare_exchange_weak(
            state,
            next(state),
            Ordering::SeqCst,
            Ordering::Relaxed,
        ) {
            state = now;
        }
        if state & WAITED_FOR == 0 {
            return 0;
        }
        {
            let wakers =
                std::mem::take(&mut *self.wakers.lock().unwrap_or_else(PoisonError::into_inner));
            if !planted(Bug::LoseReceiptWaker) {
                wakers.into_iter().for_each(Waker::wake);
            }
        }
        self.bit
    }

    /// How far it has come, and whether it will come no further.
    fn look(&self, state: u32, wanted: Level) -> Option<Result<(), ReceiptError>> {
        if state & LEVEL_MASK >= wanted as u32 {
            Some(Ok(()))
        } else if state & FAILED != 0 {
            Some(Err(self.failure.get().cloned().unwrap_or(ReceiptError::Closed)))
        } else {
            None
        }
    }

    /// Waits until `wanted` is reached, until failure, or until `deadline`.
    fn wait(&self, wanted: Level, deadline: Option<Instant>) -> Result<(), ReceiptError> {
        let mut state = self.state.load(Ordering::Acquire);
        if let Some(end) = self.look(state, wanted) {
            return end;
        }
        if wanted == Level::Placed {
            self.ask_for_hand_over(state);
        }
        loop {
            // Whoever changes the state rings afterwards: a bell that has not rung since means
            // that nothing was missed.
            let bell = self.inbox.bell();
            state = self.state.fetch_or(WAITED_FOR, Ordering::SeqCst);
            if let Some(end) = self.look(state, wanted) {
                return end;
            }
            let left = match deadline {
                None => None,
                Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                    Some(left) if !left.is_zero() => Some(left),
                    _ => return Err(ReceiptError::Timeout),
                },
            };
            self.inbox.wait_for_bell(bell, left, self.bit);
        }
    }

    fn poll(&self, wanted: Level, cx: &mut Context<'_>) -> Poll<Result<(), ReceiptError>> {
        let state = self.state.load(Ordering::Acquire);
        if let Some(end) = self.look(state, wanted) {
            return Poll::Ready(end);
        }
        if wanted == Level::Placed {
            self.ask_for_hand_over(state);
        }
        {
            let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
            if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                wakers.push(cx.waker().clone());
            }
        }
        let state = self.state.fetch_or(WAITED_FOR, Ordering::SeqCst);
        match self.look(state, wanted) {
            Some(end) => Poll::Ready(end),
            None => {
                self.inbox.note_waiter();
                Poll::Pending
            }
        }
    }

    /// For records that somebody was to wait for from the start, the writer comes by itself.
    fn ask_for_hand_over(&self, state: u32) {
        if state & LEVEL_MASK == Level::Open as u32 {
            self.inbox.hand_over_if_open(self.slot, self);
        }
    }
}

/// The promise of an append. Dropping it changes nothing for the record.
///
/// Also a future of the same result as [`Receipt::wait`], for any executor and without one of its
/// own.
#[derive(Clone)]
#[must_use = "an append is acknowledged only when its receipt says so"]
pub struct Receipt {
    ticket: Arc<Ticket>,
    run: u32,
    index: u32,
    records: u32,
    wanted: Durability,
}

impl Receipt {
    pub(crate) fn new(
        ticket: Arc<Ticket>,
        place: (u32, u32),
        records: u32,
        wanted: Durability,
    ) -> Self {
        Self { ticket, run: place.0, index: place.1, records, wanted }
    }

    /// Waits until the append is acknowledged at the durability it asked for. Gives the position
    /// of the record, or of the first record of a batch. Giving up waiting never cancels the
    /// append.
    ///
    /// # Errors
    /// See [`ReceiptError`]; never `Timeout`.
    pub fn wait(&self) -> Result<Position, ReceiptError> {
        self.ticket.wait(self.wanted.into(), None)?;
        self.position().ok_or(ReceiptError::Closed)
    }

    /// The same, for at most this long.
    ///
    /// # Errors
    /// See [`ReceiptError`].
    pub fn wait_timeout(&self, at_most: Duration) -> Result<Position, ReceiptError> {
        self.ticket.wait(self.wanted.into(), Instant::now().checked_add(at_most))?;
        self.position().ok_or(ReceiptError::Closed)
    }

    /// Whether the append is acknowledged by now. One atomic load.
    pub fn is_acknowledged(&self) -> bool {
        let state = self.ticket.state.load(Ordering::Acquire);
        // A record at `Memory` is acknowledged by the append itself.
        self.wanted == Durability::Memory || state & LEVEL_MASK >= Level::from(self.wanted) as u32
    }

    /// Where the record lies, as soon as the writer has placed it.
    pub fn position(&self) -> Option<Position> {
        let placed = self.ticket.placed.get()?;
        let run = placed.runs.get(self.run as usize)?;
        Some(Position { offset: Offset(run.base.0 + u64::from(self.index)), lsn: placed.lsn })
    }

    /// How many records were appended: 1, or the size of the batch.
    pub fn records(&self) -> u64 {
        u64::from(self.records)
    }

    /// The durability that was asked for.
    pub fn durability(&self) -> Durability {
        self.wanted
    }
}

impl Future for Receipt {
    type Output = Result<Position, ReceiptError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.ticket.poll(self.wanted.into(), cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => Poll::Ready(self.position().ok_or(ReceiptError::Closed)),
        }
    }
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receipt")
            .field("position", &self.position())
            .field("acknowledged", &self.is_acknowledged())
            .finish()
    }
}
