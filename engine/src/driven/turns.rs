//! The turns of a driven shard: what they hand to the disk, and what they take from it.
//!
//! The open chunk is pushed to the shard when a commit could take it, when it is full, or when it
//! has been open for long.
//!
//! Invariant: the shard places chunks in the order of the appends; where it refuses some for want
//! of room, it refuses the last ones, so that the offsets of what stays hold.

use std::time::Duration;

use ringlog_disk::{Disk, Wait};

use super::shard::DrivenShard;
use crate::error::ReceiptError;
use crate::options::Durability;
use crate::shard::Time;

/// How long a chunk for which nobody waits may stay open, in nanoseconds.
const CHUNK_OPEN_NS: u64 = 1_000_000;
/// What is due but cannot be done yet is looked at again after this time.
const NAP: Duration = Duration::from_millis(1);

/// What a turn leaves to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// There is more to do at once: take another turn before sleeping.
    pub more: bool,
    /// When to take a turn although nothing has happened by then: so long from now. `None`: there
    /// is no need to.
    pub wake_in: Option<Duration>,
}

impl<D: Disk> DrivenShard<D> {
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

    pub(super) fn push_all(&mut self, now: Time) {
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
}
