//! What a workload does with a shard: appends, requests, time, and the ends of its lives.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::mpsc::Receiver;

use ringlog::testing::{DrivenShard, ShardIdentity, ShardMemory};
use ringlog::{Durability, LogId, Offset, Options, Reply, Request, StreamId, SyncPolicy, Time};

use super::look::{Look, LookedAt, Made, Trimmed};
use super::recover::{Opening, check_offsets, enter_trims, judge};
use super::{Counts, Size, Stop};
use crate::crash::{Crash, Kill};
use crate::oracle::{FaultKind, Outcome};
use crate::rng::Rng;
use crate::{SimDisk, SimWorld, WorldOptions};

/// Size of the segments: smaller than a log may have them, so that there is less to read for each
/// of millions of recoveries. The engine itself knows no least size.
pub(super) const SEGMENT_BYTES: u64 = 256 << 10;
pub(super) const MS: u64 = 1_000_000;
/// Turns after which something that has not happened is taken to hang.
const PATIENCE: usize = 5_000;

pub(super) type Wrong<T = ()> = Result<T, String>;

/// One workload at work.
pub(super) struct Rig {
    pub(super) look: Rc<RefCell<Look>>,
    pub(super) rng: Rng,
    /// Of the next life.
    pub(super) options: Options,
    shard: Option<DrivenShard<LookedAt>>,
    asked: Vec<(Request, Receiver<Reply>, usize)>,
    closed: bool,
    fault: FaultKind,
    now: Time,
}

pub(super) fn options(sync: SyncPolicy) -> Options {
    Options { sync, memory_bytes: 4 << 20, ..Options::default() }
}

thread_local! {
    /// Making memory costs more than a recovery; by how many commits may be in flight.
    static MEMORIES: RefCell<HashMap<Option<usize>, ShardMemory>> = RefCell::default();
}

fn memory(options: &Options) -> Wrong<ShardMemory> {
    MEMORIES.with_borrow_mut(|memories| {
        let key = options.commits_in_flight;
        if let Some(memory) = memories.get(&key) {
            return Ok(memory.clone());
        }
        let memory = ShardMemory::new(options, SEGMENT_BYTES).map_err(|e| e.to_string())?;
        memories.insert(key, memory.clone());
        Ok(memory)
    })
}

impl Rig {
    pub(super) fn new(seed: u64, size: Size, stop: &Stop, options: Options) -> Wrong<Self> {
        let mut rng = Rng::new(seed);
        let world = SimWorld::new(&WorldOptions {
            seed: rng.next_u64(),
            shuffled: rng.below(4) != 0,
            align_bytes: if rng.below(4) == 0 { 512 } else { 4096 },
            ..WorldOptions::default()
        });
        let mut log = [0; 16];
        log[..8].copy_from_slice(&rng.next_u64().to_le_bytes());
        let shard = rng.below(4) as u16;
        let identity = ShardIdentity { log: LogId(log), shard, segment_bytes: SEGMENT_BYTES };
        let now = Time { mono_ns: MS, wall_ns: 1_700_000_000_000 * MS };
        let memory = memory(&options)?;
        let mut disk = SimDisk::open(&world);
        DrivenShard::create(&mut disk, identity).map_err(|e| format!("create: {e}"))?;
        drop(disk);
        let opening = Opening { identity, options: options.clone(), memory, now };
        let look = Look::new(world, opening, (size, stop), rng.next_u64());
        Ok(Self {
            look: Rc::new(RefCell::new(look)),
            rng,
            options,
            shard: None,
            asked: Vec::new(),
            closed: false,
            fault: FaultKind::CleanClose,
            now,
        })
    }

    /// What was met, and what was wrong.
    pub(super) fn end(mut self, result: Wrong) -> (Counts, Vec<String>) {
        self.look.borrow().world.kill(Kill::LandAll);
        self.shard = None;
        let mut look = self.look.borrow_mut();
        let mut wrong = std::mem::take(&mut look.wrong);
        let mut counts = look.counts.clone();
        if let Err(what) = result {
            counts.wrong += 1;
            wrong.push(what);
        }
        if look.world.stats().contract_violations > 0 {
            counts.wrong += 1;
            wrong.push("the contract of the disk was broken".to_owned());
        }
        (counts, wrong)
    }

    fn shard(&mut self) -> Wrong<&mut DrivenShard<LookedAt>> {
        self.shard.as_mut().ok_or_else(|| "there is no open shard".to_owned())
    }

    // ---- lives ----

    /// Recovers, judges, and begins a life. Somebody looks at each operation of the recovery.
    pub(super) fn open(&mut self) -> Wrong {
        let memory = memory(&self.options)?;
        {
            let mut look = self.look.borrow_mut();
            look.opening.options = self.options.clone();
            look.opening.memory = memory.clone();
            look.opening.now = self.now;
            look.counts.lives += 1;
        }
        let opening = self.look.borrow().opening.clone();
        let disk = LookedAt::new(&self.look);
        let shard =
            DrivenShard::open(disk, opening.identity, &opening.options, &memory, opening.now)
                .map_err(|error| format!("O6: the log refused after {:?}: {error}", self.fault))?;
        let world = self.look.borrow().world.clone();
        let mut claim = self.look.borrow().base.clone();
        enter_trims(&world, &mut claim)?;
        let outcome = judge(&world, &shard, &mut claim, self.fault)?;
        if let Outcome::Opened(recovered) = &outcome {
            claim.ledger.adopt(recovered);
        }
        let (end, _, _) = shard.watermarks();
        claim.places.retain(|place| place.lsn < end.0);
        check_offsets(&shard, &claim.ledger)?;
        self.look.borrow_mut().base = claim;
        self.shard = Some(shard);
        self.fault = FaultKind::ProcessKill;
        (self.closed, self.now.mono_ns) = (false, MS);
        self.turn()
    }

    /// What this life has left becomes part of what is known.
    fn ended(&mut self, fault: FaultKind) {
        let mut look = self.look.borrow_mut();
        look.held = false;
        look.base = look.claim_now();
        look.made.clear();
        look.trims.clear();
        self.asked.clear();
        self.fault = fault;
        drop(look);
        self.shard = None;
    }

    /// The power goes off, as this cut has it.
    pub(super) fn cut(&mut self, crash: &Crash) {
        self.look.borrow().world.crash(crash);
        self.ended(FaultKind::PowerCut);
    }

    /// The power goes off somehow.
    pub(super) fn cut_somehow(&mut self) {
        let crash = Crash::seeded(self.rng.next_u64());
        self.cut(&crash);
    }

    /// The process dies; its writes land or not, and the machine goes on.
    pub(super) fn kill(&mut self, kill: Kill) {
        self.look.borrow().world.kill(kill);
        self.ended(FaultKind::ProcessKill);
    }

    /// Closes cleanly.
    pub(super) fn close(&mut self) -> Wrong {
        self.ask_and_wait(Request::Close)?;
        if !self.closed {
            return Err("a close without a fault was refused".to_owned());
        }
        for _ in 0..4 {
            self.turn()?;
        }
        for made in &mut self.look.borrow_mut().made {
            made.flushed |= made.receipt.position().is_some();
        }
        self.look();
        self.ended(FaultKind::CleanClose);
        Ok(())
    }

    // ---- what is done in a life ----

    pub(super) fn look(&self) {
        self.look.borrow_mut().look();
    }

    /// One turn, a microsecond.
    pub(super) fn turn(&mut self) -> Wrong {
        self.now.mono_ns += 1_000;
        self.now.wall_ns += 1_000;
        let now = self.now;
        self.shard()?.turn(now);
        self.take_answers();
        self.look();
        Ok(())
    }

    pub(super) fn turns(&mut self, count: usize) -> Wrong {
        (0..count).try_for_each(|_| self.turn())
    }

    /// Time passes.
    pub(super) fn pass(&mut self, ns: u64) -> Wrong {
        self.now.mono_ns += ns;
        self.now.wall_ns += ns;
        self.turn()
    }

    fn take_answers(&mut self) {
        let mut at = 0;
        while at < self.asked.len() {
            let Ok(reply) = self.asked[at].1.try_recv() else {
                at += 1;
                continue;
            };
            let (request, _, before) = self.asked.remove(at);
            match (request, reply) {
                (Request::Flush, Reply::Done) => {
                    for made in &mut self.look.borrow_mut().made[..before] {
                        made.flushed |= made.receipt.position().is_some();
                    }
                }
                (Request::Close, Reply::Done) => self.closed = true,
                _ => {}
            }
        }
    }

    /// Completions are held back, or no more.
    pub(super) fn hold(&mut self, held: bool) {
        self.look.borrow_mut().held = held;
    }

    pub(super) fn ask(&mut self, request: Request) -> Wrong {
        if matches!(request, Request::Trim { .. } | Request::Retain(_)) {
            self.look.borrow_mut().may_trim = true;
        }
        let answer = self.shard()?.request(request);
        let before = self.look.borrow().made.len();
        self.asked.push((request, answer, before));
        Ok(())
    }

    pub(super) fn ask_and_wait(&mut self, request: Request) -> Wrong {
        self.ask(request)?;
        for _ in 0..PATIENCE {
            if self.asked.is_empty() {
                return Ok(());
            }
            self.turn()?;
            if self.shard()?.in_flight() == 0 {
                self.now.mono_ns += MS / 4;
            }
        }
        Err(format!("{request:?} is never answered"))
    }

    pub(super) fn stream(&mut self, name: &str) -> Wrong<StreamId> {
        let shard = self.shard()?;
        let known = shard.streams().iter().find(|(_, known)| **known == *name);
        match known.map(|(id, _)| *id) {
            Some(id) => Ok(id),
            None => shard.create_stream(name).map_err(|error| format!("{name}: {error}")),
        }
    }

    /// Appends records of these lengths to a stream, as one append.
    pub(super) fn append(&mut self, name: &str, lens: &[usize], durability: Durability) -> Wrong {
        self.append_as(0, name, lens, durability)
    }

    /// The same as some other producer.
    pub(super) fn append_as(
        &mut self,
        slot: usize,
        name: &str,
        lens: &[usize],
        durability: Durability,
    ) -> Wrong {
        let id = self.stream(name)?;
        let payloads: Vec<Vec<u8>> = {
            let ledger = &mut self.look.borrow_mut().base.ledger;
            lens.iter().map(|len| ledger.payload(*len)).collect()
        };
        let receipt = self
            .shard()?
            .append(slot, id, &payloads, durability)
            .map_err(|error| format!("append: {error}"))?;
        let stream = name.to_owned();
        let made = Made { receipt, stream, payloads, durability, flushed: false };
        self.look.borrow_mut().made.push(made);
        Ok(())
    }

    /// Appends, and takes turns until it is acknowledged.
    pub(super) fn append_and_wait(
        &mut self,
        name: &str,
        lens: &[usize],
        durability: Durability,
    ) -> Wrong {
        self.append(name, lens, durability)?;
        for _ in 0..PATIENCE {
            if self.look.borrow().made.last().is_none_or(|made| made.receipt.is_acknowledged()) {
                return Ok(());
            }
            self.turn()?;
            self.on_to_deadline()?;
        }
        Err("an append is never acknowledged".to_owned())
    }

    pub(super) fn trim_stream(&mut self, name: &str, before: u64) -> Wrong {
        let id = self.stream(name)?;
        self.look.borrow_mut().may_trim = true;
        let before = before.min(self.shard()?.next_offset(id).0);
        let receipt = self
            .shard()?
            .trim_stream(id, Offset(before))
            .map_err(|error| format!("trim: {error}"))?;
        self.look.borrow_mut().trims.push(Trimmed { receipt, stream: name.to_owned(), before });
        Ok(())
    }

    /// Where nothing is in flight, time passes until something is due.
    fn on_to_deadline(&mut self) -> Wrong {
        let now = self.now.mono_ns;
        let shard = self.shard()?;
        if shard.in_flight() == 0
            && let Some(at) = shard.deadline()
        {
            let on = at.saturating_sub(now).max(1_000);
            self.now.mono_ns += on;
            self.now.wall_ns += on;
        }
        Ok(())
    }

    /// Takes turns, and lets time pass, until nothing is left to do.
    pub(super) fn settle(&mut self) -> Wrong {
        let mut quiet = 0;
        for _ in 0..PATIENCE {
            let before = self.look.borrow().seen;
            self.turn()?;
            let busy = self.shard()?.in_flight() > 0 || self.look.borrow().seen > before;
            quiet = if busy { 0 } else { quiet + 1 };
            if quiet < 3 {
                continue;
            }
            if self.shard()?.deadline().is_none() {
                return Ok(());
            }
            self.on_to_deadline()?;
        }
        Err("the shard never comes to rest".to_owned())
    }

    /// A length for a record that fills so many sectors of its batch, about.
    pub(super) fn sectors(&mut self, count: usize) -> usize {
        // Headers and the run of a batch of one record take 160 bytes.
        (count * 512).saturating_sub(160 + self.rng.index(200)).max(1)
    }
}
