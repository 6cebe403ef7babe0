//! One life of a shard: appends, requests and time, and what was acknowledged of it.

use std::pin::Pin;
use std::sync::mpsc::Receiver;
use std::task::{Context, Poll, Waker};

use ringlog::testing::DrivenShard;
use ringlog::{
    AppendError, Durability, FullReason, Offset, Receipt, ReceiptError, Reply, Request, StreamId,
    SyncPolicy, Time,
};

use super::choices::Choices;
use super::following::Following;
use super::keeping::{Keeping, Lies};
use super::plan::{Step, Taste, durability, retention};
use crate::SimWorld;
use crate::oracle::{Ledger, Level};
use crate::watch::{Watch, WatchedDisk};

pub(super) const MS: u64 = 1_000_000;
/// Turns after which something that has not happened is taken to hang.
const PATIENCE: usize = 20_000;

/// An append that was accepted.
pub(super) struct Made {
    pub(super) receipt: Receipt,
    pub(super) stream: String,
    pub(super) payloads: Vec<Vec<u8>>,
    pub(super) durability: Durability,
    /// A flush that was asked for behind it has been answered.
    pub(super) flushed: bool,
    /// A follower was given it at this level.
    pub(super) seen: Option<Level>,
}

impl Made {
    /// The level at which it is acknowledged, or was shown.
    pub(super) fn level(&self) -> Option<Level> {
        if self.flushed {
            return Some(Level::Synced);
        }
        let told = self.receipt.is_acknowledged().then_some(match self.durability {
            Durability::Memory => Level::Memory,
            Durability::Written => Level::Written,
            Durability::Synced => Level::Synced,
        });
        told.max(self.seen)
    }

    /// What its receipt says in the end; `None` if it would still wait.
    pub(super) fn end(&mut self) -> Option<Result<(), ReceiptError>> {
        end(&mut self.receipt)
    }
}

fn end(receipt: &mut Receipt) -> Option<Result<(), ReceiptError>> {
    let mut cx = Context::from_waker(Waker::noop());
    match Pin::new(receipt).poll(&mut cx) {
        Poll::Ready(Ok(_)) => Some(Ok(())),
        Poll::Ready(Err(error)) => Some(Err(error)),
        Poll::Pending => None,
    }
}

/// A trim of a stream that was accepted.
pub(super) struct Trimmed {
    pub(super) receipt: Receipt,
    pub(super) stream: String,
    pub(super) before: u64,
}

impl Trimmed {
    /// What its receipt says in the end; `None` if it would still wait.
    pub(super) fn end(&mut self) -> Option<Result<(), ReceiptError>> {
        end(&mut self.receipt)
    }
}

struct Asked {
    request: Request,
    answer: Receiver<Reply>,
    /// Appends that were accepted before it.
    before: usize,
}

/// What was counted in a life.
#[derive(Clone, Debug, Default)]
pub(super) struct LifeCounts {
    pub(super) appends: u64,
    pub(super) records: u64,
    pub(super) refused_memory: u64,
    pub(super) refused_disk: u64,
    pub(super) trimmed_segments: u64,
    pub(super) requests: u64,
    pub(super) stream_trims: u64,
}

pub(super) struct Life {
    pub(super) shard: DrivenShard<WatchedDisk>,
    world: SimWorld,
    pub(super) watch: Watch,
    pub(super) now: Time,
    pub(super) policy: SyncPolicy,
    pub(super) made: Vec<Made>,
    asked: Vec<Asked>,
    pub(super) keeping: Keeping,
    /// Trims of streams that were accepted.
    pub(super) trims: Vec<Trimmed>,
    pub(super) counts: LifeCounts,
    pub(super) closed: bool,
    /// The close was answered with an error.
    pub(super) close_refused: bool,
    pub(super) following: Following,
    /// What the last step was, for who wants to know.
    pub(super) told: Option<String>,
}

impl Life {
    pub(super) fn new(
        shard: DrivenShard<WatchedDisk>,
        world: &SimWorld,
        watch: Watch,
        now: Time,
        policy: SyncPolicy,
        keeping: Keeping,
    ) -> Self {
        Self {
            shard,
            following: Following::new(world),
            world: world.clone(),
            told: None,
            watch,
            now,
            policy,
            made: Vec::new(),
            asked: Vec::new(),
            keeping,
            trims: Vec::new(),
            counts: LifeCounts::default(),
            closed: false,
            close_refused: false,
        }
    }

    pub(super) fn turn(&mut self) -> bool {
        self.now.mono_ns += 1_000;
        self.now.wall_ns += 1_000;
        let more = self.shard.turn(self.now);
        self.take_answers();
        self.check_dropped();
        more
    }

    /// Holds what was dropped in the last turn against what may be.
    fn check_dropped(&mut self) {
        let dropped = self.watch.take_dropped();
        if dropped.is_empty() {
            return;
        }
        for trim in self.trims.iter().filter(|trim| trim.receipt.is_acknowledged()) {
            let before = self.keeping.trimmed.entry(trim.stream.clone()).or_default();
            *before = trim.before.max(*before);
        }
        let lies = |made: &Made| {
            let position = made.receipt.position()?;
            let end_offset = position.offset.0 + made.payloads.len() as u64;
            Some(Lies { lsn: position.lsn.0, stream: made.stream.clone(), end_offset })
        };
        let here: Vec<Lies> = self.made.iter().filter_map(lies).collect();
        for (gone, kept) in dropped {
            self.keeping.dropped(&gone, kept, &here, self.now);
        }
    }

    fn take_answers(&mut self) {
        let mut at = 0;
        while at < self.asked.len() {
            let Ok(reply) = self.asked[at].answer.try_recv() else {
                at += 1;
                continue;
            };
            let Asked { request, before, .. } = self.asked.remove(at);
            match (request, reply) {
                (Request::Flush, Reply::Done) => {
                    // What was refused for want of room had never been stored.
                    for made in &mut self.made[..before] {
                        made.flushed |= made.receipt.position().is_some();
                    }
                }
                (Request::Close, Reply::Done) => self.closed = true,
                (Request::Close, _) => self.close_refused = true,
                (Request::Trim { .. } | Request::Retain(_), Reply::Trimmed { segments }) => {
                    if let Request::Retain(bounds) = request {
                        self.keeping.retain_asked(bounds, self.now); // it may have come after a jump
                    }
                    self.counts.trimmed_segments += segments;
                }
                _ => {}
            }
        }
    }

    pub(super) fn ask(&mut self, request: Request) {
        self.counts.requests += 1;
        match request {
            Request::Trim { keep_sealed } => self.keeping.trim_asked(keep_sealed),
            Request::Retain(bounds) => self.keeping.retain_asked(bounds, self.now),
            _ => {}
        }
        let answer = self.shard.request(request);
        self.asked.push(Asked { request, answer, before: self.made.len() });
    }

    /// One thing that a user, the disk or time does. True if the log is at rest after it.
    pub(super) fn step(
        &mut self,
        ledger: &mut Ledger,
        taste: &mut Taste,
        rng: &mut Choices,
    ) -> bool {
        let step = Step::choose(rng, taste);
        let mut rests = false;
        let told = match step {
            Step::Append => self.append(ledger, taste, rng),
            Step::Turns => {
                let turns = 1 + rng.below(6);
                for _ in 0..turns {
                    self.turn();
                }
                format!("{turns} turns")
            }
            Step::Time => self.pass_time(rng),
            Step::Flush => self.ask_told(Request::Flush),
            Step::Rotate => self.ask_told(Request::Rotate),
            Step::Trim => self.ask_told(Request::Trim { keep_sealed: rng.index(3) }),
            Step::Retain => self.ask_told(Request::Retain(retention(rng))),
            Step::TrimStream => self.trim_stream(taste, rng),
            Step::Rest => {
                let settled = self.settle() && !self.shard.is_disk_full();
                rests = settled && self.shard.poisoned().is_none() && self.asked.is_empty();
                "until nothing is left to do".to_owned()
            }
            Step::Follow => match self.stream(rng.index(taste.streams)) {
                Some(stream) => self.following.begin(&self.shard, stream, rng),
                None => "no stream to follow".to_owned(),
            },
            Step::ReadWrongly => match self.stream(rng.index(taste.streams)) {
                Some(stream) => self.following.read_wrongly(&self.shard, &self.made, stream, rng),
                None => "no stream to read".to_owned(),
            },
            Step::Stall => {
                let reaps = 1 + rng.below(12);
                self.world.stall(reaps);
                format!("the disk completes nothing for {reaps} turns")
            }
        };
        self.following.poll(&self.shard, &mut self.made, 3);
        self.told = Some(told);
        rests
    }

    fn ask_told(&mut self, request: Request) -> String {
        let told = format!("asks {request:?}");
        self.ask(request);
        told
    }

    fn pass_time(&mut self, rng: &mut Choices) -> String {
        let limits = [100_000, 2 * MS, 30 * MS, 300 * MS, 300 * MS, 60_000 * MS];
        let limit = limits[rng.index(6)];
        let ns = rng.below(limit);
        self.now.mono_ns += ns;
        self.now.wall_ns += ns;
        let mut told = format!("{ns} ns pass");
        if rng.below(4) == 3 {
            let jump = rng.below(2 * 3_600_000 * MS);
            let jump = i128::from(jump) - i128::from(3_600_000 * MS);
            let before_ns = self.now.wall_ns;
            self.now.wall_ns = (i128::from(before_ns) + jump) as u64;
            // A request that is on its way may come after the jump, and vouches for the clock then.
            let vouched = |asked: &Asked| matches!(asked.request, Request::Retain(_));
            self.keeping.clock_moved(before_ns, jump, self.asked.iter().any(vouched));
            told += &format!(", and the clock jumps by {jump} ns");
        }
        self.turn();
        told
    }

    fn trim_stream(&mut self, taste: &Taste, rng: &mut Choices) -> String {
        let Some((id, stream)) = self.stream(rng.index(taste.streams)) else {
            return "no stream to trim".to_owned();
        };
        let before = rng.below(self.shard.next_offset(id).0 + 1);
        let told = format!("{stream} is trimmed before {before}");
        if let Ok(receipt) = self.shard.trim_stream(id, Offset(before)) {
            self.counts.stream_trims += 1;
            self.trims.push(Trimmed { receipt, stream, before });
        }
        told
    }

    fn stream(&mut self, at: usize) -> Option<(StreamId, String)> {
        let name = format!("s{at}");
        let known = self.shard.streams().iter().find(|(_, known)| **known == *name);
        match known.map(|(id, _)| *id) {
            Some(id) => Some((id, name)),
            None => self.shard.create_stream(&name).ok().map(|id| (id, name)),
        }
    }

    fn append(&mut self, ledger: &mut Ledger, taste: &mut Taste, rng: &mut Choices) -> String {
        let Some((id, stream)) = self.stream(rng.index(taste.streams)) else {
            return "no room for a stream".to_owned();
        };
        let slot = rng.index(taste.producers);
        let durability = durability(rng, self.policy);
        let count = if rng.below(4) == 0 { 1 + rng.index(12) } else { 1 };
        let mut payloads = Vec::with_capacity(count);
        for _ in 0..count {
            let len = taste.record_bytes(rng).min(taste.bytes_left);
            taste.bytes_left -= len;
            payloads.push(ledger.payload(len));
        }
        let bytes: usize = payloads.iter().map(Vec::len).sum();
        let told = format!("{count} records of {bytes} bytes to {stream}, {durability:?}");
        match self.shard.append(slot, id, &payloads, durability) {
            Ok(receipt) => {
                self.counts.appends += 1;
                self.counts.records += count as u64;
                self.made.push(Made {
                    receipt,
                    stream,
                    payloads,
                    durability,
                    flushed: false,
                    seen: None,
                });
            }
            Err(error) => {
                match error {
                    AppendError::Full { reason: FullReason::Memory } => {
                        self.counts.refused_memory += 1;
                    }
                    AppendError::Full { reason: FullReason::Disk | FullReason::Behind } => {
                        self.counts.refused_disk += 1;
                    }
                    _ => {}
                }
                return format!("{told}: {error}");
            }
        }
        told
    }

    /// Takes turns, and lets time pass, until nothing is left to do; false when that never comes.
    pub(super) fn settle(&mut self) -> bool {
        let mut quiet = 0;
        for _ in 0..PATIENCE {
            let before = self.watch.seen();
            quiet += 1;
            if self.turn() || self.shard.in_flight() > 0 || self.watch.seen() > before {
                quiet = 0;
            }
            if quiet < 2 {
                continue; // what was completed in one turn is told in the next
            }
            if self.shard.poisoned().is_some() {
                return true;
            }
            match self.shard.deadline() {
                None => return true,
                // A full disk is tried again for ever.
                Some(_) if self.shard.is_disk_full() => return true,
                Some(at) if at > self.now.mono_ns => {
                    self.now.wall_ns += at - self.now.mono_ns;
                    self.now.mono_ns = at;
                    quiet = 0;
                }
                // What is due and cannot be done yet is tried again a millisecond later.
                Some(_) => self.now.mono_ns += MS,
            }
        }
        false
    }

    /// Lets the shard of a dead disk notice: everybody who waits is told, and all memory comes
    /// back. False when it does not notice.
    pub(super) fn bury(&mut self) -> bool {
        self.ask(Request::Flush);
        for _ in 0..PATIENCE {
            self.turn();
            if self.shard.poisoned().is_some() {
                self.turn();
                return true;
            }
            self.now.mono_ns += 300 * MS;
            if self.shard.in_flight() == 0 && self.asked.is_empty() {
                return true; // it had nothing to do
            }
        }
        false
    }
}
