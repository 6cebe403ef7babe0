//! What joins a shard's machine, its disk and its inbox: the turn of a writer, and the thread that
//! takes one turn after another.

use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ringlog_disk::planted::{Bug, planted};
use ringlog_disk::{Completion, Disk, DiskFacts, MakingResident, Wait};

use crate::clock::Clock;
use crate::failure::LogFailure;
use crate::ids::{Lsn, Offset, StreamId};
use crate::inbox::{Admission, Inbox};
use crate::observe::trace::Tracer;
use crate::observe::{Histograms, Meter, Traffic};
use crate::published::Published;
use crate::regroup::Regroup;
use crate::shard::{Reply, Request, Shard, ShardCounts, Time};

/// How long a chunk for which nobody waits may stay open, in nanoseconds.
const CHUNK_OPEN_NS: u64 = 1_000_000;
/// How long after its beginning a writer does what the first records shall not wait for.
pub(crate) const SETTLES_AFTER_NS: u64 = 2_000_000;

/// What a handle asks the writer.
pub(crate) enum Command {
    /// A request of the shard.
    Ask(Request, SyncSender<Reply>),
    /// A look at it, with its histograms or without.
    Look(Vec<StreamId>, bool, SyncSender<Snapshot>),
}

/// A look at a shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) counts: ShardCounts,
    pub(crate) staged: Lsn,
    pub(crate) written: Lsn,
    pub(crate) traffic: Traffic,
    /// Where they were asked for: they are large.
    pub(crate) histograms: Option<Box<Histograms>>,
    /// Why retention by age does nothing.
    pub(crate) age_retention_paused: Option<String>,
    /// Next offsets of the streams asked for.
    pub(crate) offsets: Vec<Offset>,
}

/// What the handles of a log share with the writer of one shard.
pub(crate) struct Shared {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) published: Arc<Published>,
    pub(crate) commands: Sender<Command>,
    pub(crate) facts: DiskFacts,
    pub(crate) notes: Vec<String>,
    /// The failure of any shard of the log.
    pub(crate) failure: LogFailure,
    /// The last look, once the writer is gone: with the next offsets of all streams.
    pub(crate) last: Mutex<Option<Snapshot>>,
    /// Ends with the handles.
    pub(crate) making_resident: Mutex<Option<MakingResident>>,
    /// What was found out after the log had been opened.
    pub(crate) late_note: OnceLock<&'static str>,
}

/// A shard with everything it needs to run. Whoever drives it supplies the time.
pub(crate) struct Writer<D: Disk> {
    pub(crate) disk: D,
    pub(crate) shard: Shard,
    pub(crate) shared: Arc<Shared>,
    commands: Receiver<Command>,
    meter: Meter,
    tracer: Tracer,
    asked: Vec<(u64, SyncSender<Reply>)>,
    /// Answers to what whoever drives the writer has asked by itself.
    pub(crate) answers: Vec<(u64, Reply)>,
    next_id: u64,
    closing: Option<u64>,
    finished: bool,
    poison_told: bool,
    /// Since when a chunk for which nobody waits has been open.
    open_since: Option<u64>,
    completed: Vec<Completion>,
    /// Whether the next commit waits for those whom the last one has served.
    regroup: Regroup,
    may_regroup: bool,
    /// What is still to be done once the first records are through, and when.
    settle: Option<(u64, Box<dyn FnOnce()>)>,
}

impl<D: Disk> Writer<D> {
    pub(crate) fn new(
        disk: D,
        shard: Shard,
        shared: Arc<Shared>,
        commands: Receiver<Command>,
    ) -> Self {
        Self {
            disk,
            tracer: Tracer::new(shard.number()),
            shard,
            shared,
            commands,
            meter: Meter::default(),
            asked: Vec::new(),
            answers: Vec::new(),
            next_id: 0,
            closing: None,
            finished: false,
            poison_told: false,
            open_since: None,
            completed: Vec::new(),
            regroup: Regroup::default(),
            may_regroup: false,
            settle: None,
        }
    }

    /// Takes turns until the log is closed. Some time after the beginning, or when somebody looks, comes
    /// `settle`: what the first records shall not wait for.
    pub(crate) fn run(mut self, clock: &Clock, settle: impl FnOnce() + 'static) {
        let settle_at = clock.now().mono_ns + SETTLES_AFTER_NS;
        self.settle = Some((settle_at, Box::new(settle)));
        while !self.finished {
            let now = clock.now();
            if self.settle.as_ref().is_some_and(|(at, _)| *at <= now.mono_ns) {
                self.settle_in();
            }
            let wait = self.work(now);
            if self.finished {
                break;
            }
            if let Some(wait) = wait {
                self.reap(wait, || clock.now());
            }
        }
        self.finish();
    }

    /// Tells those whom a commit has served, where the next one may wait for them. Gives whether it
    /// waits.
    fn regroups(&mut self, now: Time) -> bool {
        let inbox = Arc::clone(&self.shared.inbox);
        if std::mem::take(&mut self.may_regroup) {
            // Memory that ran low may have sent this commit out of an earlier wait.
            self.regroup.stop();
            self.shard.hold(false);
            self.take_chunks(now);
            if self.shard.next_goes_apart() {
                inbox.sweep(false);
                return false; // it shares its commit with nobody
            }
            // Before anybody is told: the first may come back before this goes on.
            inbox.await_waiter(true);
            let told = self.tell();
            let (_, others) = inbox.open_chunks();
            let worth_it = told > 1 || told == 1 && (others || self.shard.pending_bytes() > 0);
            if worth_it && inbox.awaits_waiter() && self.shard.poisoned().is_none() {
                self.regroup.begin(now.mono_ns);
                self.shard.hold(true);
                return true;
            }
            inbox.await_waiter(false);
            inbox.sweep(false);
            return false;
        }
        let Some(until_ns) = self.regroup.until_ns() else { return false };
        let came_back = !inbox.awaits_waiter();
        let is_over = now.mono_ns >= until_ns && !planted(Bug::WaitForCompanyWithoutEnd);
        if !came_back && !is_over && self.shard.poisoned().is_none() {
            return true;
        }
        self.regroup.end(came_back);
        inbox.await_waiter(false);
        inbox.sweep(false);
        self.shard.hold(false);
        false
    }

    fn settle_in(&mut self) {
        if let Some((_, settle)) = self.settle.take() {
            settle();
        }
    }

    /// The first half of a turn: takes what producers and handles have left, gives the disk what
    /// there is to do, tells who waits. Then how long the second half may wait; `None`: there is
    /// more to do at once.
    pub(crate) fn work(&mut self, now: Time) -> Option<Wait> {
        self.hear_of_failure();
        if !self.regroups(now) && self.shard.is_idle() {
            // Whatever has gathered since the first record goes with it.
            self.shared.inbox.sweep(false);
        }
        self.take_chunks(now);
        if self.shared.inbox.take_pressure() && !self.shard.is_writing() {
            self.shared.inbox.sweep(true);
            self.take_chunks(now);
            self.shard.press();
        }
        if self.take_commands(now) {
            self.take_chunks(now);
        }
        let mut submitted = false;
        while let Some((tag, mut op)) = self.shard.next_op(now) {
            if let Some(records) = self.meter.handed_out(&mut op, self.shard.counts()) {
                self.regroup.sent(now.mono_ns, self.shard.counts().bytes_written);
                self.tracer.commit(tag, records, &self.shard);
            }
            self.disk.submit(tag, op);
            submitted = true;
        }
        if submitted && self.shard.has_news() {
            self.disk.send(); // the device works while the waiters are told
        }
        self.tell();
        let inbox = &self.shared.inbox;
        let waits_for_company = self.regroup.until_ns().is_some();
        let idle = self.shard.is_idle() && !waits_for_company;
        inbox.set_idle(idle);
        if inbox.set_waits(!self.shard.is_writing()) {
            return None;
        }
        let (used, urgent) = inbox.open_chunks();
        if urgent && idle {
            inbox.sweep(false);
            return None;
        }
        self.open_since = used.then(|| self.open_since.unwrap_or(now.mono_ns));
        let sweep_at = self.open_since.map(|since| since + CHUNK_OPEN_NS);
        if sweep_at.is_some_and(|at| at <= now.mono_ns) {
            inbox.sweep(true);
            self.open_since = None;
            return None;
        }
        if inbox.depth() > 0 && idle {
            return None;
        }
        Some(self.how_long(now, sweep_at))
    }

    /// The second half: waits for the disk and takes what it has done.
    /// Gives whether there was any.
    pub(crate) fn reap(&mut self, wait: Wait, now: impl FnOnce() -> Time) -> bool {
        let mut completed = std::mem::take(&mut self.completed);
        self.disk.reap(wait, &mut completed);
        self.settle(completed, now)
    }

    /// As [`Writer::reap`] without a limit, where that can be done by one call of this thread; false
    /// where not.
    pub(crate) fn carry_out(&mut self, now: impl FnOnce() -> Time) -> bool {
        let mut completed = std::mem::take(&mut self.completed);
        self.disk.carry_out(&mut completed);
        self.settle(completed, now)
    }

    fn settle(&mut self, mut completed: Vec<Completion>, now: impl FnOnce() -> Time) -> bool {
        let any = !completed.is_empty();
        if any {
            // A flush that went well after another shard's had failed covers nothing.
            self.hear_of_failure();
            let now = now();
            for done in completed.drain(..) {
                self.tracer.completed(done.tag, done.result.is_ok());
                self.shard.complete(done, now);
                self.tell_of_failure();
            }
            let pending_bytes = self.shard.pending_bytes();
            self.may_regroup =
                self.shard.is_still() && self.regroup.completed(now.mono_ns, pending_bytes);
            if !self.may_regroup {
                // What has gathered meanwhile goes with the next commit.
                self.shared.inbox.sweep(false);
            }
        }
        self.completed = completed;
        any
    }

    fn hear_of_failure(&mut self) {
        if let (Some(error), None) = (self.shared.failure.get(), self.shard.poisoned()) {
            self.shard.fail(error.clone());
        }
    }

    fn tell_of_failure(&mut self) {
        if let (Some(error), false) = (self.shard.poisoned(), self.poison_told) {
            self.shared.failure.set(error);
        }
    }

    /// When the first half should be taken again although nothing has completed.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let sweep_at = self.open_since.map(|since| since + CHUNK_OPEN_NS);
        [self.shard.deadline(), sweep_at].into_iter().flatten().min()
    }

    /// Asks the shard for something; the reply comes into `answers`, under the number that this
    /// gives.
    pub(crate) fn ask_here(&mut self, request: Request) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        if request == Request::Close {
            self.shared.inbox.set_admission(Admission::Closed);
            self.closing = Some(id);
        }
        self.shard.request(id, request);
        id
    }

    fn take_chunks(&mut self, now: Time) {
        while let Some(chunk) = self.shared.inbox.pop() {
            self.shard.push(chunk, now);
        }
    }

    /// Gives whether there was any.
    fn take_commands(&mut self, now: Time) -> bool {
        let mut any = false;
        loop {
            match self.commands.try_recv() {
                Ok(Command::Ask(request, reply)) => {
                    any = true;
                    if request == Request::Close {
                        self.shared.inbox.set_admission(Admission::Closed);
                        self.closing = Some(self.next_id);
                    }
                    // Everything appended before the request belongs to it.
                    self.shared.inbox.drain_slots();
                    self.take_chunks(now);
                    self.shard.request(self.next_id, request);
                    self.asked.push((self.next_id, reply));
                    self.next_id += 1;
                }
                Ok(Command::Look(streams, all, reply)) => {
                    self.settle_in(); // it may have something to say
                    let _ = reply.send(self.look(&streams, all)); // the asker may have gone
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return any,
            }
        }
    }

    /// Publishes the watermarks, then tells those who wait for them. Gives how many tickets somebody
    /// waited for.
    pub(crate) fn tell(&mut self) -> usize {
        if let Some(segments) = self.shard.take_segments() {
            self.shared.published.set_segments(segments);
        }
        self.shared.published.add_trims(self.shard.take_trims());
        let shard = &self.shard;
        self.shared.published.set_marks(shard.staged(), shard.written(), shard.durable());
        self.meter_flushes();
        self.tracer.turn(&self.shard);
        let admission = match self.shard.is_disk_full() {
            true => Admission::DiskFull,
            false => Admission::Open,
        };
        // Before anybody is told: who appends afterwards does so under the new count.
        self.shared.inbox.set_refusals(self.shard.refusals());
        self.shared.inbox.set_admission(admission);
        if let (Some(error), false) = (self.shard.poisoned(), self.poison_told) {
            self.poison_told = true;
            self.tracer.poisoned(error);
            self.shared.inbox.poison(error.clone());
            self.shared.published.end(Some(error.clone()));
            self.shared.inbox.drain_slots();
            while let Some(chunk) = self.shared.inbox.pop() {
                self.shard.push(chunk, Time::default());
            }
        }
        let (mut bits, mut told) = (0, 0);
        for (ticket, level) in self.shard.take_acks() {
            let bit = ticket.advance(level);
            told += usize::from(bit != 0);
            bits |= bit;
        }
        for (ticket, error) in self.shard.take_failures() {
            bits |= ticket.fail(error);
        }
        self.shared.inbox.ring_bell(bits);
        self.shared.inbox.room_made();
        let asked = &mut self.asked;
        for (id, reply) in self.shard.take_replies() {
            self.finished |= self.closing == Some(id);
            match asked.iter().position(|(asked, _)| *asked == id) {
                Some(at) => {
                    let (_, sender) = asked.swap_remove(at);
                    let _ = sender.send(reply); // the asker may have gone
                }
                None => self.answers.push((id, reply)),
            }
        }
        told
    }

    fn how_long(&self, now: Time, sweep_at: Option<u64>) -> Wait {
        let settle_at = self.settle.as_ref().map(|(at, _)| *at);
        let regroup_at = self.regroup.until_ns();
        let own = [self.shard.deadline(), sweep_at, settle_at, regroup_at];
        let deadline = own.into_iter().flatten().min();
        match deadline {
            None => Wait::Any,
            Some(at) if at > now.mono_ns => Wait::AtMost(Duration::from_nanos(at - now.mono_ns)),
            // It is due, but something in flight has to end first.
            Some(_) if self.disk.in_flight() > 0 => Wait::AtMost(Duration::from_millis(10)),
            Some(_) => Wait::AtMost(Duration::from_millis(1)),
        }
    }

    fn meter_flushes(&mut self) {
        for flush_ns in self.shard.take_flush_times() {
            self.meter.flushed(flush_ns);
        }
    }

    pub(crate) fn look(&mut self, streams: &[StreamId], all: bool) -> Snapshot {
        self.meter_flushes(); // or the histogram would lag behind the counts
        Snapshot {
            counts: self.shard.counts().clone(),
            staged: self.shard.staged(),
            written: self.shard.written(),
            traffic: self.meter.traffic(),
            histograms: all.then(|| self.meter.histograms.clone()),
            age_retention_paused: self.shard.age_retention_paused().map(str::to_owned),
            offsets: streams.iter().map(|stream| self.shard.next_offset(*stream)).collect(),
        }
    }

    pub(crate) fn finish(mut self) {
        let all: Vec<StreamId> = (0..self.shard.stream_count()).map(StreamId).collect();
        let last = self.look(&all, true);
        *self.shared.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
        // Dropping the disk waits for what is in flight; whoever asks from now on is told by the
        // closed channel.
    }
}

impl Shared {
    /// Keeps the thread that makes the shard's memory resident as long as there are handles.
    pub(crate) fn keep(&self, making_resident: MakingResident) {
        let mut kept = self.making_resident.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some(making_resident);
    }

    /// Adds to what is to be said of the log.
    pub(crate) fn note_late(&self, note: Option<&'static str>) {
        if let Some(note) = note {
            crate::observe::trace::notes(&[note.to_owned()]);
            let _ = self.late_note.set(note); // there is one such note
        }
    }

    /// Asks the writer and waits for its answer; `None` when it is gone.
    pub(crate) fn ask(&self, request: Request) -> Option<Reply> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.commands.send(Command::Ask(request, sender)).ok()?;
        self.inbox.wake_writer();
        receiver.recv().ok()
    }

    /// A look at the shard, with its histograms or without; the last one when the writer is gone.
    pub(crate) fn look(&self, streams: &[StreamId], all: bool) -> Option<Snapshot> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        if self.commands.send(Command::Look(streams.to_vec(), all, sender)).is_ok() {
            self.inbox.wake_writer();
            if let Ok(snapshot) = receiver.recv() {
                return Some(snapshot);
            }
        }
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().map(|last| {
            let offset = |stream: &StreamId| {
                last.offsets.get(stream.0 as usize).copied().unwrap_or_default()
            };
            let offsets = streams.iter().map(offset).collect();
            Snapshot { offsets, ..last.clone() }
        })
    }
}

#[cfg(test)]
mod tests;
