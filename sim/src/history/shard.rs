//! The history of one shard.

use ringlog::testing::{DrivenShard, ShardIdentity};
use ringlog::{OpenError, Options, Time};

use super::choices::Choices;
use super::keeping::{Keeping, Lies};
use super::life::{Life, MS};
use super::plan::{Ending, Memories, Taste};
use super::{Setup, Tell, Totals, Wrong};
use crate::crash::{Crash, Kill, Moment};
use crate::faults::{Class, Effect, Fault, Landed, When};
use crate::oracle::{AppendId, FaultKind, Ledger, Outcome, judge_repeat};
use crate::reading::read_all;
use crate::watch::{Watch, WatchedDisk};
use crate::{SimDisk, SimWorld};

/// Where an append came to lie.
pub(super) struct Place {
    pub(super) id: AppendId,
    pub(super) stream: String,
    pub(super) end_offset: u64,
    pub(super) lsn: u64,
}

/// What comes after a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// Other lives.
    Early,
    /// Only the end.
    Last,
    /// Nothing: this is the end.
    End,
}

/// See the text of `history`.
pub(super) struct ShardHistory {
    pub(super) world: SimWorld,
    pub(super) rng: Choices,
    pub(super) identity: ShardIdentity,
    pub(super) setup: Setup,
    pub(super) ledger: Ledger,
    pub(super) places: Vec<Place>,
    taste: Taste,
    pub(super) now: Time,
    /// What has happened since the last recovery that was judged.
    pub(super) fault: FaultKind,
    /// The next recovery reads something wrong.
    pub(super) bad_read: bool,
    pub(super) trimmed_lsn: u64,
    pub(super) totals: Totals,
    pub(super) operations: Vec<[[u64; Class::ALL.len()]; 2]>,
    story: Vec<String>,
    traced: usize,
    /// The log is gone, or nothing more can be asked of it.
    pub(super) over: bool,
}

impl ShardHistory {
    pub(super) fn new(
        world: SimWorld,
        identity: ShardIdentity,
        taste: Taste,
        setup: Setup,
    ) -> Self {
        Self {
            world,
            rng: Choices::default(),
            identity,
            setup,
            ledger: Ledger::new(),
            places: Vec::new(),
            taste,
            now: Time { mono_ns: MS, wall_ns: 1_700_000_000_000 * MS },
            fault: FaultKind::CleanClose,
            bad_read: false,
            trimmed_lsn: 0,
            totals: Totals::default(),
            operations: Vec::new(),
            story: Vec::new(),
            traced: 0,
            over: false,
        }
    }

    /// A line of the story, behind what the disk did until then.
    pub(super) fn tell(&mut self, line: impl FnOnce() -> String) {
        if self.setup.tell == Tell::Steps {
            let trace = self.world.trace();
            self.story.extend(trace[self.traced..].iter().map(|line| format!("      {line}")));
            self.traced = trace.len();
        }
        if self.setup.tell > Tell::Nothing {
            self.story.push(line());
        }
    }

    pub(super) fn take_story(&mut self) -> Vec<String> {
        std::mem::take(&mut self.story)
    }

    pub(super) fn take_totals(&mut self) -> Totals {
        let stats = self.world.stats();
        let mut totals = std::mem::take(&mut self.totals);
        totals.shards = 1;
        totals.power_cuts = stats.crashes;
        totals.kills = stats.kills;
        totals.faults = stats.faults;
        totals.stalls = stats.stalls;
        totals.stores = stats.stores;
        totals.data_operations = stats.writes + stats.reads + stats.syncs;
        totals
    }

    /// Every file with its content.
    pub(super) fn contents(&self) -> Vec<(String, Vec<u8>)> {
        let files = self.world.files().into_iter();
        files.map(|(name, _)| (name.clone(), self.world.read(&name))).collect()
    }

    /// One life, of which `at` lives came before. The last one may end the log; the end is only a
    /// look at what is there.
    pub(super) fn live(
        &mut self,
        at: u64,
        which: Which,
        options: &Options,
        all_cut: bool,
        memories: &mut Memories,
    ) -> Wrong {
        let mut asked = [self.world.operations(); 3];
        self.inject(at, true);
        let Some((shard, watch)) = self.recover(options, memories)? else {
            self.over = true;
            return Ok(());
        };
        asked[1] = self.world.operations();
        let ending = match all_cut {
            true => Ending::ScriptedCut,
            false => Ending::choose(&mut self.rng, &self.taste, which == Which::Last),
        };
        self.tell(|| format!("life {at}: {:?}, ends with {ending:?}", options.sync));
        if which == Which::End {
            self.world.kill(Kill::LandAll);
            return Ok(());
        }
        let keeping = self.keeping(options, &shard, &watch);
        let records = self.ledger.records();
        let mut life =
            Life::new(shard, &self.world, watch.clone(), self.now, options.sync, keeping);
        life.following.know(records);
        self.inject(at, false);
        let lived = self.one_life(&mut life, &watch, ending);
        asked[2] = self.world.operations();
        let between = |a: usize, b: usize| std::array::from_fn(|i| asked[b][i] - asked[a][i]);
        self.operations.push([between(0, 1), between(1, 2)]);
        self.now = life.now;
        self.now.mono_ns = MS;
        lived?;
        drop(life);
        self.check_violations(&watch)?;
        if self.world.stats().contract_violations > 0 {
            return Err("the contract of the disk was broken".to_owned());
        }
        Ok(())
    }

    /// Arms what is to be injected here.
    fn inject(&mut self, life: u64, opening: bool) {
        if self.setup.control {
            self.world.lie_about_flushes();
        }
        if let Some(injection) = &self.setup.injection
            && (injection.life as u64, injection.opening) == (life, opening)
        {
            let fault = injection.fault.clone();
            self.world.arm(fault.clone());
            self.tell(|| format!("  armed: {fault:?}"));
        }
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
        let mut honest = !matches!(self.fault, FaultKind::LyingDisk | FaultKind::Damage { .. });
        let bad_read = std::mem::take(&mut self.bad_read) && honest;
        let proven = if bad_read { self.proven() } else { None };
        if bad_read {
            self.read_wrong();
        }
        let mut attempts = 0;
        let (shard, watch) = loop {
            let disturbed =
                honest && !bad_read && attempts < 4 && self.rng.index(10) < self.taste.disturbed;
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
            if bad_read && self.world.stats().faults > faults {
                if let Err(error) = &opened {
                    // It was loud, and must have changed nothing: the next look is a good one.
                    self.tell(|| format!("  open: {error}"));
                    self.totals.loud += 1;
                    continue;
                }
                self.fault = FaultKind::Damage { proven };
                honest = false;
            }
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
            let errnos = [libc::EIO, libc::EIO, libc::ECANCELED, libc::EAGAIN, libc::EMFILE];
            let errno = errnos[self.rng.index(errnos.len())];
            let effect = Effect::Fail { errno, landed: self.landed() };
            let when = When::Nth(1 + self.rng.below(5));
            self.world.arm(Fault::new(class, when, effect));
            self.tell(|| format!("  an error is armed: {class:?} {when:?} {effect:?}"));
        }
    }

    /// Something is read wrongly while the log is opened: a bit, or from elsewhere.
    fn read_wrong(&mut self) {
        let effect = match self.rng.coin() {
            true => Effect::FlipBit,
            false => Effect::Misdirect { by_bytes: (self.rng.below(64) as i64 - 32) * 4096 },
        };
        let when = When::Nth(self.soon([2, 4, 12]));
        self.world.arm(Fault::new(Class::Read, when, effect));
        self.tell(|| format!("  {when:?} read: {effect:?}"));
    }

    pub(super) fn moment(&mut self) -> Moment {
        if self.rng.coin() { Moment::Submission } else { Moment::Completion }
    }

    /// A count from 1 on, up to one of these.
    pub(super) fn soon(&mut self, limits: [u64; 3]) -> u64 {
        let limit = limits[self.rng.index(3)];
        1 + self.rng.below(limit)
    }

    pub(super) fn landed(&mut self) -> Landed {
        [Landed::Nothing, Landed::Everything, Landed::Some][self.rng.index(3)]
    }

    /// Holds what recovery made against the ledger; false if the history ends here.
    fn judge(&mut self, shard: &DrivenShard<WatchedDisk>, honest: bool) -> Wrong<bool> {
        self.totals.recoveries += 1;
        self.totals.rewritten += shard.recovery().records_rewritten;
        let outcome = read_all(&self.world, shard);
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
            let again = read_all(&self.world, shard);
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
        let crashes = self.world.stats().crashes;
        let (mut struck, mut relieved) = (false, false);
        life.turn(); // from here on the shard knows the time
        for _ in 0..self.taste.steps_max {
            // The decision to go on belongs to the step, so that a step can be left out.
            self.rng.enter();
            let goes_on = self.rng.below(self.taste.steps_mean) != 0;
            let event = self.rng.below(8) == 7;
            if !goes_on {
                self.rng.leave();
                break;
            }
            if event && !struck {
                struck = true;
                self.strike(ending);
            } else if event && !relieved && ending == Ending::Full {
                relieved = true;
                self.world.set_capacity(None);
                self.tell(|| "  there is room again".to_owned());
            }
            let (ledger, taste, rng) = (&mut self.ledger, &mut self.taste, &mut self.rng);
            let rests = life.step(ledger, taste, rng);
            self.rng.leave();
            if self.setup.tell == Tell::Steps
                && let Some(told) = life.told.take()
            {
                self.tell(|| format!("    {told}"));
            }
            if let Some(wrong) = life.following.wrong.first() {
                return Err(wrong.clone());
            }
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
}
