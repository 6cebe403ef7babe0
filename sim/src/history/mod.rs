//! Histories: one seed decides several lives of a log, their faults and their recoveries, and the
//! oracle judges each recovery.
//!
//! A history is one [`SimWorld`], one [`Ledger`], and lives one after the other: recover (perhaps
//! with cuts and errors in it), judge, append and ask, meet the fault. Damage and lies come last,
//! since after them the log may be gone. Nothing but the seed decides anything.

mod keeping;
mod life;
mod plan;
mod reading;

use std::fmt;

use ringlog::format::manifest::Manifest;
use ringlog::testing::{DrivenShard, ShardIdentity};
use ringlog::{LogId, OpenError, Options, ReceiptError, Request, Time};

use crate::crash::{Crash, Kill, Moment};
use crate::faults::{Class, Effect, Fault, Landed, When};
use crate::oracle::{AppendId, FaultKind, Ledger, Level, Outcome, judge_repeat};
use crate::rng::Rng;
use crate::watch::{Watch, WatchedDisk};
use crate::{SimDisk, SimWorld, WorldOptions};

use keeping::{Keeping, Lies};
use life::{Life, MS};
use plan::{Ending, Taste};
pub use plan::{Memories, SEGMENT_BYTES};

/// What histories have met; sums over many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Histories.
    pub histories: u64,
    /// Lives.
    pub lives: u64,
    /// Appends that were accepted.
    pub appends: u64,
    /// Their records.
    pub records: u64,
    /// Appends that were acknowledged at the level they asked for.
    pub acknowledged: u64,
    /// Appends that a recovery found again, summed over the recoveries.
    pub recovered: u64,
    /// Appends that a recovery cut off.
    pub cut_off: u64,
    /// Records that recoveries wrote again.
    pub rewritten: u64,
    /// Recoveries that were judged.
    pub recoveries: u64,
    /// Recoveries that were cut or failed, and begun again.
    pub recoveries_disturbed: u64,
    /// Power cuts, those inside recoveries included.
    pub power_cuts: u64,
    /// Deaths of the process.
    pub kills: u64,
    /// Clean closes.
    pub closes: u64,
    /// Errors, lies, lost and misdirected writes that struck.
    pub faults: u64,
    /// Files that were damaged.
    pub damages: u64,
    /// Damage, lies and lost writes that were met with a loud error.
    pub loud: u64,
    /// Lives in which the disk was full.
    pub full_disks: u64,
    /// Appends refused because the disk was full.
    pub refused_disk: u64,
    /// Appends refused for want of memory.
    pub refused_memory: u64,
    /// Segments opened for writing.
    pub rotations: u64,
    /// Segments made of trimmed ones.
    pub recycled: u64,
    /// Segments that were trimmed.
    pub trimmed: u64,
    /// Segments that retention trimmed, because of their number.
    pub trimmed_by_number: u64,
    /// Because of their bytes.
    pub trimmed_by_bytes: u64,
    /// Because of their age.
    pub trimmed_by_age: u64,
    /// Segments that went because all in them was trimmed.
    pub trimmed_by_streams: u64,
    /// Jumps of the wall clock.
    pub clock_jumps: u64,
    /// Trims of single streams.
    pub stream_trims: u64,
    /// Segments sealed for their age.
    pub sealed_by_age: u64,
    /// Times that memory ran low.
    pub pressure: u64,
    /// Indexes stored, or torn by a crash.
    pub stores: u64,
    /// Operations that the disk carried out on data.
    pub data_operations: u64,
}

impl Totals {
    /// Everything that counts as a fault.
    pub fn all_faults(&self) -> u64 {
        self.power_cuts + self.kills + self.faults + self.damages
    }

    fn numbers(&mut self) -> [(&'static str, &mut u64); 32] {
        [
            ("histories", &mut self.histories),
            ("lives", &mut self.lives),
            ("appends", &mut self.appends),
            ("records", &mut self.records),
            ("acknowledged", &mut self.acknowledged),
            ("recovered", &mut self.recovered),
            ("cut off", &mut self.cut_off),
            ("records rewritten", &mut self.rewritten),
            ("recoveries judged", &mut self.recoveries),
            ("recoveries disturbed", &mut self.recoveries_disturbed),
            ("power cuts", &mut self.power_cuts),
            ("kills", &mut self.kills),
            ("clean closes", &mut self.closes),
            ("errors and lies", &mut self.faults),
            ("files damaged", &mut self.damages),
            ("loud", &mut self.loud),
            ("full disks", &mut self.full_disks),
            ("refused for disk", &mut self.refused_disk),
            ("refused for memory", &mut self.refused_memory),
            ("segments opened", &mut self.rotations),
            ("recycled", &mut self.recycled),
            ("trimmed", &mut self.trimmed),
            ("  for their number", &mut self.trimmed_by_number),
            ("  for their bytes", &mut self.trimmed_by_bytes),
            ("  for their age", &mut self.trimmed_by_age),
            ("  for their streams", &mut self.trimmed_by_streams),
            ("jumps of the clock", &mut self.clock_jumps),
            ("trims of streams", &mut self.stream_trims),
            ("sealed for their age", &mut self.sealed_by_age),
            ("memory low", &mut self.pressure),
            ("indexes stored", &mut self.stores),
            ("data operations", &mut self.data_operations),
        ]
    }

    /// Adds those of other histories.
    pub fn add(&mut self, other: &Self) {
        let mut other = other.clone();
        for ((_, sum), (_, more)) in self.numbers().into_iter().zip(other.numbers()) {
            *sum += *more;
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, number) in self.clone().numbers() {
            writeln!(f, "{name:>22}: {number}")?;
        }
        Ok(())
    }
}

/// How a history went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What it met.
    pub totals: Totals,
    /// A hash of everything that the disk did.
    pub trace_hash: u64,
    /// What happened, in words; empty unless it was asked for.
    pub story: Vec<String>,
    /// What was wrong; `None` if all was well.
    pub wrong: Option<String>,
}

/// Runs the history of a seed. With `tell`, it is told in words.
pub fn run(seed: u64, memories: &mut Memories, tell: bool) -> Report {
    let mut history = History::new(seed, tell);
    let wrong = history.live(memories).err().map(|wrong| format!("seed {seed}: {wrong}"));
    if let Some(wrong) = &wrong {
        history.tell(|| format!("WRONG: {wrong}"));
    }
    let stats = history.world.stats();
    history.totals.histories = 1;
    history.totals.power_cuts = stats.crashes;
    history.totals.kills = stats.kills;
    history.totals.faults = stats.faults;
    history.totals.stores = stats.stores;
    history.totals.data_operations = stats.writes + stats.reads + stats.syncs;
    Report {
        totals: history.totals,
        trace_hash: history.world.trace_hash(),
        story: history.story.unwrap_or_default(),
        wrong,
    }
}

/// Where an append came to lie.
struct Place {
    id: AppendId,
    stream: String,
    end_offset: u64,
    lsn: u64,
}

struct History {
    world: SimWorld,
    rng: Rng,
    identity: ShardIdentity,
    ledger: Ledger,
    places: Vec<Place>,
    taste: Taste,
    now: Time,
    /// What has happened since the last recovery that was judged.
    fault: FaultKind,
    trimmed_lsn: u64,
    totals: Totals,
    story: Option<Vec<String>>,
}

type Wrong<T = ()> = Result<T, String>;

impl History {
    fn new(seed: u64, tell: bool) -> Self {
        let mut rng = Rng::new(seed ^ 0x71A6_10C0_57E4_11E5);
        let world = SimWorld::new(&WorldOptions {
            seed: rng.next_u64(),
            shuffled: rng.below(8) != 0,
            align_bytes: if rng.below(4) == 0 { 512 } else { 4096 },
            ..WorldOptions::default()
        });
        let mut log = [0; 16];
        log[..8].copy_from_slice(&rng.next_u64().to_le_bytes());
        let shard = rng.below(4) as u16;
        let identity = ShardIdentity { log: LogId(log), shard, segment_bytes: SEGMENT_BYTES };
        Self {
            taste: Taste::choose(&mut rng),
            world,
            rng,
            identity,
            ledger: Ledger::new(),
            places: Vec::new(),
            now: Time { mono_ns: MS, wall_ns: 1_700_000_000_000 * MS },
            fault: FaultKind::CleanClose,
            trimmed_lsn: 0,
            totals: Totals::default(),
            story: tell.then(Vec::new),
        }
    }

    fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(line());
        }
    }

    fn live(&mut self, memories: &mut Memories) -> Wrong {
        let mut disk = SimDisk::open(&self.world);
        DrivenShard::create(&mut disk, self.identity).map_err(|e| format!("create: {e}"))?;
        drop(disk);
        let lives = 1 + self.rng.below(5);
        for at in 0..=lives {
            let options = plan::options(&mut self.rng);
            let Some((shard, watch)) = self.recover(&options, memories)? else { return Ok(()) };
            let ending = Ending::choose(&mut self.rng, at + 1 >= lives);
            self.tell(|| format!("life {at}: {:?}, ends with {ending:?}", options.sync));
            if at == lives {
                self.world.kill(Kill::LandAll);
                return Ok(());
            }
            let keeping = self.keeping(&options, &shard, &watch);
            let mut life = Life::new(shard, watch.clone(), self.now, options.sync, keeping);
            let lived = self.one_life(&mut life, &watch, ending);
            self.now = life.now;
            self.now.mono_ns = MS;
            lived?;
            drop(life);
            self.check_violations(&watch)?;
            if self.world.stats().contract_violations > 0 {
                return Err("the contract of the disk was broken".to_owned());
            }
        }
        Ok(())
    }

    /// What is known of segments and trims when a life begins.
    fn keeping(
        &self,
        options: &Options,
        shard: &DrivenShard<WatchedDisk>,
        watch: &Watch,
    ) -> Keeping {
        let lies = self.places.iter().map(|place| Lies {
            lsn: place.lsn,
            stream: place.stream.clone(),
            end_offset: place.end_offset,
        });
        let newest_ns = watch.kept().sealed.iter().max().copied().unwrap_or(0);
        let mut keeping = Keeping::new(options, lies.collect(), newest_ns, self.now);
        for (id, name) in shard.streams() {
            keeping.trimmed.insert(name.to_string(), shard.trimmed_before(*id).0);
        }
        keeping
    }

    fn check_violations(&self, watch: &Watch) -> Wrong {
        let violations = watch.take_violations();
        if violations.is_empty() { Ok(()) } else { Err(violations.join("; ")) }
    }

    // ---- recovery ----

    /// Opens until it opens, and judges what is found; `None` if the history ends here.
    fn recover(
        &mut self,
        options: &Options,
        memories: &mut Memories,
    ) -> Wrong<Option<(DrivenShard<WatchedDisk>, Watch)>> {
        self.totals.lives += 1;
        let memory = memories.get(options).map_err(|error| error.to_string())?;
        let honest = !matches!(self.fault, FaultKind::LyingDisk | FaultKind::Damage { .. });
        let mut attempts = 0;
        let (shard, watch) = loop {
            let disturbed = honest && attempts < 4 && self.rng.below(3) == 0;
            if disturbed {
                self.disturb_recovery();
            }
            attempts += 1;
            let crashes = self.world.stats().crashes;
            let faults = self.world.stats().faults;
            let inner = SimDisk::open(&self.world);
            let ShardIdentity { log, shard, .. } = self.identity;
            let disk = WatchedDisk::new(inner, log, shard, false);
            let watch = disk.watch();
            let opened = DrivenShard::open(disk, self.identity, options, &memory, self.now);
            self.world.cancel_scripted_crash();
            self.world.clear_faults();
            self.check_violations(&watch)?;
            let cut = self.world.stats().crashes > crashes;
            if cut {
                self.fault = FaultKind::PowerCut;
                self.tell(|| "  recovery cut".to_owned());
            }
            let error = match opened {
                Ok(_) if cut => None,
                Ok(shard) => break (shard, watch),
                Err(error) => Some(error),
            };
            self.totals.recoveries_disturbed += 1;
            let Some(error) = error else { continue };
            self.tell(|| format!("  open: {error}"));
            let struck = self.world.stats().faults > faults;
            match error {
                OpenError::Disk(_) if cut || struck => {}
                OpenError::Disk(error)
                    if error.kind == ringlog::DiskErrorKind::NoSpace
                        && self.totals.full_disks > 0 =>
                {
                    self.world.set_capacity(None);
                }
                error => {
                    self.totals.loud += u64::from(!honest);
                    let outcome = Outcome::Refused(error.to_string());
                    let verdict = self.ledger.judge(&outcome, self.fault);
                    return if verdict.is_good() { Ok(None) } else { Err(verdict.to_string()) };
                }
            }
        };
        watch.begin_serving();
        self.world.set_capacity(None);
        if self.judge(&shard, honest)? { Ok(Some((shard, watch))) } else { Ok(None) }
    }

    /// Something will go wrong while the log is opened.
    fn disturb_recovery(&mut self) {
        if self.rng.below(3) > 0 {
            let moment = self.moment();
            let n = self.soon([4, 12, 40]);
            self.world.crash_after_ops(n, moment, Crash::seeded(self.rng.next_u64()));
            self.tell(|| format!("  the power will go off at operation {n} ({moment:?})"));
        } else {
            let class = Class::ALL[self.rng.index(Class::ALL.len())];
            let effect = Effect::Fail { errno: libc::EIO, landed: self.landed() };
            let when = When::Nth(1 + self.rng.below(5));
            self.world.arm(Fault::new(class, when, effect));
            self.tell(|| format!("  an error is armed: {class:?} {when:?} {effect:?}"));
        }
    }

    fn moment(&mut self) -> Moment {
        if self.rng.coin() { Moment::Submission } else { Moment::Completion }
    }

    /// A count from 1 on, up to one of these.
    fn soon(&mut self, limits: [u64; 3]) -> u64 {
        let limit = limits[self.rng.index(3)];
        1 + self.rng.below(limit)
    }

    fn landed(&mut self) -> Landed {
        [Landed::Nothing, Landed::Everything, Landed::Some][self.rng.index(3)]
    }

    /// Holds what recovery made against the ledger; false if the history ends here.
    fn judge(&mut self, shard: &DrivenShard<WatchedDisk>, honest: bool) -> Wrong<bool> {
        self.totals.recoveries += 1;
        self.totals.rewritten += shard.recovery().records_rewritten;
        let outcome = reading::read_all(&self.world, shard);
        for (id, name) in shard.streams() {
            let first = shard.trimmed_before(*id).0;
            let verdict = self.ledger.trims_found(name, first, self.fault);
            if !verdict.is_good() {
                return Err(verdict.to_string());
            }
        }
        let verdict = self.ledger.judge(&outcome, self.fault);
        let fault = self.fault;
        self.tell(|| {
            let recovery = shard.recovery();
            let (cut, again) = (recovery.bytes_cut, recovery.records_rewritten);
            format!("  recovered after {fault:?}: {verdict}; {cut} bytes cut, {again} rewritten")
        });
        if !verdict.is_good() {
            return Err(verdict.to_string());
        }
        let Outcome::Opened(recovered) = outcome else {
            self.totals.loud += 1;
            return Ok(false);
        };
        if !honest {
            self.totals.loud += u64::from(!recovered.reported_gaps.is_empty());
            return Ok(false);
        }
        if self.rng.below(8) == 0 {
            let again = reading::read_all(&self.world, shard);
            let verdict = judge_repeat(&Outcome::Opened(recovered.clone()), &again);
            if !verdict.is_good() {
                return Err(verdict.to_string());
            }
        }
        self.totals.recovered += verdict.appends_kept as u64;
        self.totals.cut_off += verdict.appends_lost as u64;
        self.ledger.adopt(&recovered);
        let (end, _, _) = shard.watermarks();
        self.places.retain(|place| place.lsn < end.0);
        for (id, name) in shard.streams() {
            let (next, expected) = (shard.next_offset(*id).0, self.ledger.next_offset(name));
            if next != expected {
                return Err(format!("{name} goes on at {next} instead of {expected}"));
            }
        }
        self.fault = FaultKind::CleanClose;
        Ok(true)
    }

    // ---- life ----

    fn one_life(&mut self, life: &mut Life, watch: &Watch, ending: Ending) -> Wrong {
        let steps = self.rng.below(self.taste.steps_max);
        let strike_at = self.rng.below(steps + 1);
        let relief_at = strike_at + self.rng.below(20);
        let crashes = self.world.stats().crashes;
        life.turn(); // from here on the shard knows the time
        for step in 0..steps {
            if step == strike_at {
                self.strike(ending);
            }
            if step == relief_at && ending == Ending::Full {
                self.world.set_capacity(None);
                self.tell(|| "  there is room again".to_owned());
            }
            let (ledger, taste, rng) = (&mut self.ledger, &mut self.taste, &mut self.rng);
            let rests = life.step(ledger, taste, rng);
            if self.world.stats().crashes > crashes {
                break;
            }
            if rests {
                let paused = life.shard.age_retention_paused().is_some();
                life.keeping.at_rest(&life.watch.kept(), life.now, paused);
            }
            if let Some(wrong) = life.keeping.wrong.first() {
                return Err(wrong.clone());
            }
        }
        self.end_life(life, ending, crashes)?;
        self.check_violations(watch)
    }

    /// Arms what the ending of this life needs.
    fn strike(&mut self, ending: Ending) {
        let nth = When::Nth(self.soon([3, 10, 30]));
        let landed = self.landed();
        let eio = Effect::Fail { errno: libc::EIO, landed };
        match ending {
            Ending::ScriptedCut => {
                let moment = self.moment();
                let n = 1 + self.rng.below(60);
                self.world.crash_after_ops(n, moment, Crash::seeded(self.rng.next_u64()));
                self.tell(|| format!("  the power will go off at operation {n} ({moment:?})"));
            }
            Ending::FailedData => {
                let class = if self.rng.coin() { Class::Write } else { Class::Flush };
                let errno = if self.rng.below(5) == 0 { libc::ENOSPC } else { libc::EIO };
                self.world.arm(Fault::new(class, nth, Effect::Fail { errno, landed }));
                self.tell(|| format!("  {class:?} will fail: {nth:?}, {errno}, {landed:?}"));
            }
            Ending::FailedName => {
                let classes = [
                    Class::Create,
                    Class::Rename,
                    Class::Remove,
                    Class::Replace,
                    Class::SyncDir,
                    Class::Store,
                    Class::Load,
                ];
                let class = classes[self.rng.index(classes.len())];
                let nth = When::Nth(1 + self.rng.below(4));
                self.world.arm(Fault::new(class, nth, eio));
                self.tell(|| format!("  {class:?} will fail: {nth:?}, {landed:?}"));
            }
            Ending::Full => {
                self.totals.full_disks += 1;
                if self.rng.coin() {
                    let room = self.world.used_bytes() + self.rng.below(3 << 20);
                    self.world.set_capacity(Some(room));
                    self.tell(|| format!("  the disk will be full at {room} bytes"));
                } else {
                    let class = if self.rng.coin() { Class::Create } else { Class::Replace };
                    let effect = Effect::Fail { errno: libc::ENOSPC, landed };
                    let when = When::Chance(300_000);
                    self.world.arm(Fault::new(class, when, effect));
                    self.tell(|| format!("  {class:?} finds the disk full now and then"));
                }
            }
            Ending::Lie => self.world.lie_about_flushes(),
            Ending::LostWrite => {
                let effect = if self.rng.coin() {
                    Effect::Lie
                } else {
                    let by_bytes = (self.rng.below(64) as i64 - 32) * 4096;
                    Effect::Misdirect { by_bytes }
                };
                let nth = When::Nth(1 + self.rng.below(12));
                self.world.arm(Fault::new(Class::Write, nth, effect));
                self.tell(|| format!("  {nth:?} write: {effect:?}"));
            }
            _ => {}
        }
    }

    fn end_life(&mut self, life: &mut Life, ending: Ending, crashes: u64) -> Wrong {
        let cut = |world: &SimWorld| world.stats().crashes > crashes;
        let faults = self.world.stats().faults;
        let mut fault = FaultKind::ProcessKill;
        let mut damage = false;
        if !cut(&self.world) {
            if let (Ending::Full, Some(error)) = (ending, life.shard.poisoned()) {
                return Err(format!("a full disk is taken for a failure: {error}"));
            }
            match ending {
                Ending::Close | Ending::LostWrite | Ending::Damage => {
                    self.close(life)?;
                    damage = ending == Ending::Damage;
                }
                Ending::Full => {
                    if self.rng.coin() {
                        self.world.set_capacity(None);
                        self.world.clear_faults();
                    }
                    match self.rng.below(3) {
                        0 => self.close(life)?,
                        1 => self.cut(),
                        _ => self.kill(),
                    }
                }
                Ending::CutWhileClosing => {
                    let moment = self.moment();
                    let n = 1 + self.rng.below(30);
                    let crash = Crash::seeded(self.rng.next_u64());
                    self.world.crash_after_ops(n, moment, crash);
                    self.close(life)?;
                    if self.world.cancel_scripted_crash() && self.rng.coin() {
                        self.cut();
                    }
                }
                Ending::Kill => self.kill(),
                Ending::Cut | Ending::ScriptedCut | Ending::CutAndDamage => self.cut(),
                Ending::Lie => {
                    self.cut();
                    fault = FaultKind::LyingDisk;
                }
                Ending::FailedData | Ending::FailedName => {
                    if self.rng.coin() {
                        self.check_quiet(life)?;
                    }
                    match self.rng.below(4) {
                        0 => self.cut(),
                        1 => self.close(life)?,
                        _ => self.kill(),
                    }
                }
            }
        }
        let poisoned = life.shard.poisoned().is_some();
        let clean = life.closed;
        if !clean && self.world.open_disks() > 0 {
            self.world.kill(Kill::LandAll); // a process that ends lets go of everything
        }
        self.check_receipts(life)?;
        self.enter(life)?;
        self.totals.closes += u64::from(clean);
        if !clean && !life.bury() {
            return Err("a shard on a dead disk never notices".to_owned());
        }
        for (at, made) in life.made.iter_mut().enumerate() {
            if !clean && made.end().is_none() && life.shard.poisoned().is_some() {
                return Err(format!("append {at} waits for ever on a shard that has failed"));
            }
        }
        let struck = self.world.stats().faults > faults || ending == Ending::LostWrite;
        self.world.clear_faults();
        self.world.cancel_scripted_crash();
        self.fault = match (ending, fault) {
            (_, FaultKind::LyingDisk) => FaultKind::LyingDisk,
            (Ending::Lie, _) => FaultKind::LyingDisk,
            (Ending::LostWrite, _) if struck => {
                let proven = if clean { self.ledger.last_append() } else { None };
                FaultKind::Damage { proven }
            }
            _ if cut(&self.world) => FaultKind::PowerCut,
            _ if clean => FaultKind::CleanClose,
            _ if poisoned => FaultKind::FailedLog,
            _ => FaultKind::ProcessKill,
        };
        let proven = match self.fault {
            FaultKind::CleanClose if damage => self.ledger.last_append(),
            FaultKind::PowerCut if ending == Ending::CutAndDamage => self.proven(),
            _ => return self.ended(life),
        };
        if let Some(what) = reading::damage(&self.world, &mut self.rng) {
            self.totals.damages += 1;
            self.tell(|| format!("  damaged: {what}"));
            self.fault = FaultKind::Damage { proven };
        }
        self.ended(life)
    }

    /// The last append of which the media themselves say that it was durable.
    fn proven(&self) -> Option<AppendId> {
        let lsn = reading::proven_lsn(&self.world, &self.identity);
        let proven = self.places.iter().filter(|place| place.lsn < lsn);
        proven.map(|place| place.id).max()
    }

    fn ended(&mut self, life: &Life) -> Wrong {
        let fault = self.fault;
        self.tell(|| format!("  ended: {fault:?}, {} appends", life.made.len()));
        Ok(())
    }

    fn cut(&mut self) {
        self.world.crash(&Crash::seeded(self.rng.next_u64()));
    }

    fn kill(&mut self) {
        let kill = [Kill::LandAll, Kill::LandNone, Kill::Random, Kill::Late][self.rng.index(4)];
        self.world.kill(kill);
        // The lock of the log outlives writes in flight: nobody opens it before they have landed.
        if kill == Kill::Late && self.rng.coin() {
            self.cut();
        }
        self.world.land_late_writes();
        self.tell(|| format!("  killed: {kill:?}"));
    }

    fn close(&mut self, life: &mut Life) -> Wrong {
        let crashes = self.world.stats().crashes;
        life.ask(Request::Close);
        for _ in 0..20_000 {
            let before = life.watch.seen();
            life.turn();
            if life.closed || life.close_refused {
                break;
            }
            if life.shard.in_flight() == 0
                && life.watch.seen() == before
                && let Some(at) = life.shard.deadline()
            {
                // What is due and cannot be done yet is tried again a millisecond later.
                life.now.mono_ns = at.max(life.now.mono_ns + MS);
            }
        }
        let cut = self.world.stats().crashes > crashes;
        if !life.closed && !life.close_refused && !cut {
            let waits = life.made.iter().filter(|made| made.receipt.position().is_none()).count();
            return Err(format!(
                "closing hangs: {:?}, {waits} without a place, {} in flight, full {}, {:?} at {}",
                life.shard.watermarks(),
                life.shard.in_flight(),
                life.shard.is_disk_full(),
                life.shard.deadline(),
                life.now.mono_ns
            ));
        }
        if !life.closed {
            self.world.kill(Kill::LandAll);
        }
        Ok(())
    }

    /// With nothing wrong, everything that was accepted is acknowledged in the end.
    fn check_quiet(&mut self, life: &mut Life) -> Wrong {
        if !life.settle() {
            return Err("the shard never comes to rest".to_owned());
        }
        if life.shard.poisoned().is_some() || life.shard.is_disk_full() {
            return Ok(());
        }
        for (at, made) in life.made.iter_mut().enumerate() {
            if made.end().is_none() {
                let (level, place) = (made.durability, made.receipt.position());
                let marks = life.shard.watermarks();
                let what = format!("append {at} ({level:?}, {place:?}) is never acknowledged");
                return Err(format!("{what}; {marks:?}"));
            }
        }
        Ok(())
    }

    /// What receipts say must fit: nothing acknowledged and failed, everything told at a close.
    fn check_receipts(&mut self, life: &mut Life) -> Wrong {
        if !life.closed {
            return Ok(());
        }
        for (at, made) in life.made.iter_mut().enumerate() {
            match made.end() {
                Some(Ok(())) if made.receipt.position().is_some() => {}
                Some(Err(ReceiptError::DiskFull)) => {}
                other => return Err(format!("append {at} is {other:?} after a clean close")),
            }
        }
        Ok(())
    }

    /// Enters the appends of a life into the ledger, in the order of placement.
    fn enter(&mut self, life: &Life) -> Wrong {
        let mut placed: Vec<(u64, u64, usize)> = Vec::new();
        for (at, made) in life.made.iter().enumerate() {
            match made.receipt.position() {
                Some(position) => placed.push((position.lsn.0, position.offset.0, at)),
                None if made.level() > Some(Level::Memory) => {
                    return Err(format!("append {at} is acknowledged and has no place"));
                }
                None => {}
            }
        }
        placed.sort_unstable();
        for (lsn, offset, at) in placed {
            let made = &life.made[at];
            let records = made.payloads.iter().map(|p| (made.stream.clone(), p.clone()));
            let shard = u32::from(self.identity.shard);
            let id = self.ledger.submit(shard, records.collect());
            let end_offset = offset + made.payloads.len() as u64;
            self.places.push(Place { id, stream: made.stream.clone(), end_offset, lsn });
            match made.level() {
                Some(level) => {
                    self.totals.acknowledged += 1;
                    self.ledger.acknowledge(id, level, offset);
                }
                None => self.ledger.placed(id, offset),
            }
        }
        for trim in &life.trims {
            self.ledger.trim_asked(&trim.stream, trim.before);
            if trim.receipt.is_acknowledged() {
                self.ledger.trim_acknowledged(&trim.stream, trim.before);
            } else if life.closed {
                return Err(format!("a trim of {} is not done after a close", trim.stream));
            }
        }
        self.enter_trims(&life.keeping)?;
        let counts = &life.counts;
        self.totals.appends += counts.appends;
        self.totals.records += counts.records;
        self.totals.refused_disk += counts.refused_disk;
        self.totals.refused_memory += counts.refused_memory;
        self.totals.trimmed += counts.trimmed_segments;
        self.totals.rotations += life.shard.counts().rotations;
        self.totals.recycled += life.shard.counts().recycled;
        self.totals.sealed_by_age += life.shard.counts().sealed.age;
        self.totals.pressure += life.shard.counts().pressure_flushes;
        self.totals.stream_trims += counts.stream_trims;
        let kept = &life.keeping.counts;
        self.totals.trimmed_by_number += kept.by_number;
        self.totals.trimmed_by_bytes += kept.by_bytes;
        self.totals.trimmed_by_age += kept.by_age;
        self.totals.trimmed_by_streams += kept.by_streams;
        self.totals.clock_jumps += kept.jumps;
        Ok(())
    }

    /// What the manifest says was trimmed may be gone, if it was dropped with reason.
    fn enter_trims(&mut self, keeping: &Keeping) -> Wrong {
        if let Some(wrong) = keeping.wrong.first() {
            return Err(wrong.clone());
        }
        let files = self.world.files();
        if !files.iter().any(|(name, _)| name == "manifest") {
            return Ok(()); // recovery will say so
        }
        let Ok(manifest) = Manifest::decode(&self.world.read("manifest")) else { return Ok(()) };
        let lsn = manifest.trimmed_lsn.0;
        if lsn <= self.trimmed_lsn {
            return Ok(());
        }
        if lsn > keeping.dropped_to {
            return Err(format!("the log begins at {lsn}, and no segment before was dropped"));
        }
        self.trimmed_lsn = lsn;
        for place in self.places.iter().filter(|place| place.lsn < lsn) {
            self.ledger.trimmed(&place.stream, place.end_offset);
        }
        Ok(())
    }
}
