//! Chains of lives on one disk, with power cuts between them.
//!
//! A round: a life appends until the disk dies (or fails, or has lied long enough), and what is left
//! is opened, read and judged by a life that does nothing else. That one may be cut as well, in its
//! recovery. The next round goes on with the same disk, so each recovery is followed by another one
//! that must find the same, and each cut by appends and a further cut.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::chance::{Fault, Target, at_batch, cut, log_uniform, sometime, soon};
use super::device::{Device, Event};
use super::fuse::Server;
use super::image::Image;
use super::mounts::{self, FileSystem, Mounted};
use super::report::{Report, phase};
use super::scratch::Scratch;
use crate::Rng;
use crate::live::child::{Programs, Running, Stop, Trouble, failed, run as run_command};
use crate::live::journal::{Journal, Stage};
use crate::live::judge::{Judge, Survives};
use crate::live::plan::Life;

/// How long a life may take for anything: then it hangs.
const LIMIT: Duration = Duration::from_secs(60);
/// How many cuts a disk sees before a fresh one is taken.
const CUTS_PER_DISK: u64 = 6;
/// How often the recovery of one state is cut in a row.
const NESTED_MAX: u32 = 3;

/// A way to make the suite fail, to see that it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Control {
    /// The disk answers flushes and does nothing, and is judged as if it were honest.
    NoFlush,
    /// What is acknowledged as written is judged as if it were synced.
    Written,
    /// The rig panics while everything is mounted: nothing may be left behind.
    Panic,
}

/// What is run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many power cuts, at least.
    pub cuts: u64,
    /// Go on until then.
    pub until: Option<Instant>,
    /// Decides everything that is decided by chance.
    pub seed: u64,
    /// Only disks with this seed, as a finding names it.
    pub disk: Option<u64>,
    /// On which file systems, in turn.
    pub file_systems: Vec<FileSystem>,
    /// Be wrong on purpose.
    pub control: Option<Control>,
    /// Tell each round.
    pub verbose: bool,
}

/// Runs it. The report so far is there even when there is trouble.
pub fn run(settings: &Settings, programs: &Programs, stop: &Stop) -> (Report, Result<(), Trouble>) {
    let started = Instant::now();
    let mut report = Report::default();
    let result = Rig::set_up(settings, programs, stop).and_then(|mut rig| rig.run(&mut report));
    report.elapsed = started.elapsed();
    (report, result)
}

struct Rig<'a> {
    settings: &'a Settings,
    programs: &'a Programs,
    stop: &'a Stop,
    templates: HashMap<FileSystem, Image>,
    // Dropped in this order.
    server: Server,
    scratch: Scratch,
}

impl Drop for Rig<'_> {
    fn drop(&mut self) {
        mounts::wait_for_loops(&self.scratch.disks());
    }
}

/// A disk that lives through several cuts, and the log on it.
struct Chain {
    file_system: FileSystem,
    seed: u64,
    rng: Rng,
    image: Image,
    judge: Judge,
    lives: u32,
}

impl Chain {
    fn next_life(&mut self) -> Life {
        self.lives += 1;
        Life { seed: self.seed, number: self.lives }
    }
}

/// A mounted disk.
struct Disk {
    device: Arc<Device>,
    file: PathBuf,
    mounted: Mounted,
}

impl<'a> Rig<'a> {
    fn set_up(
        settings: &'a Settings,
        programs: &'a Programs,
        stop: &'a Stop,
    ) -> Result<Self, Trouble> {
        let scratch = Scratch::new()?;
        let server =
            Server::mount(&scratch.disks()).map_err(|error| failed("mounting the disk", &error))?;
        Ok(Self { settings, programs, stop, templates: HashMap::new(), server, scratch })
    }

    fn run(&mut self, report: &mut Report) -> Result<(), Trouble> {
        let mut rng = Rng::new(self.settings.seed);
        let mut chains = 0;
        while !self.done(report) {
            let file_system = self.settings.file_systems[chains % self.settings.file_systems.len()];
            chains += 1;
            let seed = self.settings.disk.unwrap_or(rng.next_u64() >> 16);
            report.totals.disks += 1;
            match self.chain(file_system, seed, report) {
                // A file system has its own troubles with a disk that fails, or tears its blocks at
                // a cut; none survives one that flushes nothing.
                Err(Trouble::Unmountable(words)) => {
                    report.totals.unmountable += 1;
                    self.tell(|| format!("  the end: {words}"));
                }
                Err(Trouble::Failed(_)) if self.settings.control == Some(Control::NoFlush) => {}
                other => other?,
            }
        }
        let (unmountable, disks) = (report.totals.unmountable, report.totals.disks);
        if unmountable * 10 > disks.max(20) && self.settings.control.is_none() {
            let words = format!("{unmountable} of {disks} file systems could not be mounted");
            return Err(Trouble::Failed(words));
        }
        Ok(())
    }

    fn done(&self, report: &Report) -> bool {
        if self.settings.control.is_some() && report.findings.lost > 0 {
            return true;
        }
        report.totals.cuts >= self.settings.cuts
            && self.settings.until.is_none_or(|until| Instant::now() >= until)
    }

    fn tell(&self, words: impl FnOnce() -> String) {
        if self.settings.verbose {
            println!("{}", words());
        }
    }

    fn log_directory(&self) -> PathBuf {
        self.scratch.mount().join("log")
    }

    /// An empty file system.
    fn template(&mut self, file_system: FileSystem) -> Result<Image, Trouble> {
        if let Some(image) = self.templates.get(&file_system) {
            return Ok(image.clone());
        }
        let device = Device::new(file_system.disk_bytes(), Image::default(), Rng::new(0));
        let device = Arc::new(device);
        let file = self.server.plug(Arc::clone(&device));
        mounts::make(file_system, &file)?;
        let image = device.content();
        self.server.unplug(&file);
        self.templates.insert(file_system, image.clone());
        Ok(image)
    }

    fn chain(
        &mut self,
        file_system: FileSystem,
        seed: u64,
        report: &mut Report,
    ) -> Result<(), Trouble> {
        let image = self.template(file_system)?;
        let rng = Rng::new(seed);
        let judge = Judge::new(seed);
        let mut chain = Chain { file_system, seed, rng, image, judge, lives: 0 };
        self.tell(|| format!("disk with {file_system}, seed {seed}"));
        let until = report.totals.cuts + CUTS_PER_DISK;
        let mut goes_on = true;
        while goes_on && report.totals.cuts < until && !self.done(report) {
            goes_on = self.round(&mut chain, report)?;
        }
        report.totals.in_flight_kept += chain.judge.in_flight_kept;
        if goes_on && report.findings.good() {
            self.verify(&mut chain, report)?;
        }
        Ok(())
    }

    /// The tool checks what is left in the end.
    fn verify(&self, chain: &mut Chain, report: &mut Report) -> Result<(), Trouble> {
        let disk = self.mount(chain)?;
        let verified = self.programs.verify(&self.log_directory(), LIMIT);
        self.unmount(disk, chain)?;
        if let Err(trouble) = verified {
            report.findings.false_alarm(format!("{}: {trouble}", self.name(chain)));
        }
        Ok(())
    }

    fn name(&self, chain: &Chain) -> String {
        format!("{}, disk seed {}, life {}", chain.file_system, chain.seed, chain.lives)
    }

    fn mount(&self, chain: &mut Chain) -> Result<Disk, Trouble> {
        let rng = Rng::new(chain.rng.next_u64());
        let device = Device::new(chain.file_system.disk_bytes(), chain.image.clone(), rng);
        let device = Arc::new(device);
        let file = self.server.plug(Arc::clone(&device));
        let mounted = match Mounted::mount(chain.file_system, &file, &self.scratch.mount()) {
            Ok(mounted) => mounted,
            Err(trouble) => {
                self.server.unplug(&file);
                return Err(match trouble {
                    Trouble::Failed(words) if chain.lives > 0 => Trouble::Unmountable(words),
                    other => other,
                });
            }
        };
        Ok(Disk { device, file, mounted })
    }

    /// Unmounts; the chain goes on with what the cut left, or with all of it when there was none.
    fn unmount(&self, disk: Disk, chain: &mut Chain) -> Result<(), Trouble> {
        disk.mounted.unmount()?;
        let after = disk.device.after_cut();
        chain.image = after.map_or_else(|| disk.device.content(), |cut| cut.image);
        self.server.unplug(&disk.file);
        Ok(())
    }

    /// One life that is cut, and the judgement. False when the disk is of no more use.
    fn round(&mut self, chain: &mut Chain, report: &mut Report) -> Result<bool, Trouble> {
        let fault = self.fault(chain);
        let disk = self.mount(chain)?;
        if chain.lives == 0 && chain.file_system == FileSystem::Btrfs && chain.rng.coin() {
            // Direct I/O on btrfs: for files without checksums only.
            run_command(Command::new("mkdir").arg(self.log_directory()), LIMIT)?;
            run_command(Command::new("chattr").arg("+C").arg(self.log_directory()), LIMIT)?;
        }
        let blocking = chain.rng.index(3) == 0;
        let tool = fault == Fault::Cut && chain.rng.index(4) == 0;
        let life = chain.next_life();
        if self.settings.control == Some(Control::NoFlush) {
            disk.device.now(Event::Lie);
        }
        let dir = self.log_directory();
        let journal = if tool {
            let running = Running::tool(self.programs, &dir, life, blocking, self.stop)?;
            self.cut_tool(running, &disk, chain, report)?
        } else {
            let running = Running::agent(self.programs, &dir, life, blocking, self.stop)?;
            self.cut_agent(running, &disk, fault, chain, report)?
        };
        self.tell(|| {
            let (stage, acks) = (journal.stage, journal.acknowledged);
            let kinds = disk.device.after_cut().map(|cut| cut.kinds).unwrap_or_default();
            let failures = journal.failures.first();
            format!(
                "  life {}{}: {fault:?} in {stage}, {acks} acknowledged, cache {kinds:?}, {:?} {failures:?}",
                life.number,
                if tool { " (tool)" } else { "" },
                disk.device.counts(),
            )
        });
        self.nonsense(&journal)?;
        report.totals.life(&journal);
        if matches!(fault, Fault::FailWrites | Fault::FailFlushes { .. }) {
            report.totals.errors += 1;
            report.totals.poisoned += u64::from(journal.poisoned());
            if disk.device.counts().failed_batches > 0 && !journal.poisoned() {
                let words = format!("{}: a write failed, and the log did not", self.name(chain));
                report.findings.silent(words);
            }
        }
        let survives = match (fault, self.settings.control) {
            (_, Some(Control::Written)) => Survives::Written,
            (Fault::Lie, _) => Survives::Nothing,
            _ => Survives::Synced,
        };
        chain.judge.ended(journal, survives);
        self.unmount(disk, chain)?;
        if fault == Fault::Lie {
            report.totals.lies += 1;
            let end = self.after_lie(chain, report)?;
            *report.totals.lies_by_end.entry(end).or_default() += 1;
            return Ok(false);
        }
        self.recover(chain, report)
    }

    fn fault(&self, chain: &mut Chain) -> Fault {
        let drawn = chain.rng.index(20);
        if self.settings.control.is_some() {
            return Fault::Cut;
        }
        match drawn {
            0 | 1 => Fault::FailWrites,
            2 | 3 => Fault::FailFlushes { drop: chain.rng.coin() },
            4 | 5 => Fault::Lie,
            _ => Fault::Cut,
        }
    }

    fn nonsense(&self, journal: &Journal) -> Result<(), Trouble> {
        match journal.nonsense.first() {
            None => Ok(()),
            Some(line) => Err(Trouble::Failed(format!("the agent said {line:?}"))),
        }
    }

    /// Leads an agent to the fault and to its end.
    fn cut_agent(
        &self,
        mut running: Running,
        disk: &Disk,
        fault: Fault,
        chain: &mut Chain,
        report: &mut Report,
    ) -> Result<Journal, Trouble> {
        let target = match chain.rng.index(20) {
            _ if fault != Fault::Cut => Target::Appending,
            0 | 1 => Target::Opening,
            2..=4 => Target::Closing,
            _ => Target::Appending,
        };
        let device = &disk.device;
        let rng = &mut chain.rng;
        if target == Target::Opening {
            let within = if running.journal.life.number == 1 { 60 } else { 25 };
            device.arm(soon(rng, within), cut(rng));
        }
        let over = |journal: &Journal| device.is_dead() || journal.refused.is_some();
        running.listen(LIMIT, |journal| journal.stage >= Stage::Ready || over(journal))?;
        if running.journal.stage >= Stage::Ready {
            self.judge(&running.journal, &mut chain.judge, report);
            let rng = &mut chain.rng;
            device.disarm();
            match (target, fault) {
                (Target::Appending, Fault::Cut) => device.arm(sometime(rng), cut(rng)),
                (_, Fault::FailWrites) => {
                    let count = [1, 1, 3, u64::MAX][rng.index(4)];
                    device.arm(at_batch(rng), Event::FailWrites(count));
                }
                (_, Fault::FailFlushes { drop }) => {
                    // A device that has dropped its cache and then answers a flush with success lies
                    // to whoever has another flush under way: no order of events could be trusted.
                    let count = if drop { u64::MAX } else { [1, 1, 3, u64::MAX][rng.index(4)] };
                    device.arm(at_batch(rng), Event::FailFlushes { count, drop });
                }
                (_, Fault::Lie) => device.arm(sometime(rng), Event::Lie),
                _ => {}
            }
            let lies = 1 + log_uniform(rng, 100);
            assert!(self.settings.control != Some(Control::Panic), "a panic, as was asked for");
            running.tell("append");
            running.listen(LIMIT, |journal| {
                journal.stage >= Stage::Closing || over(journal) || device.counts().lies >= lies
            })?;
            if fault == Fault::Lie {
                device.now(cut(rng));
            }
            if running.journal.stage == Stage::Closing {
                if target == Target::Closing {
                    device.arm(soon(rng, 8), cut(rng));
                }
                running.tell("close");
                running.listen(LIMIT, |journal| journal.stage == Stage::Closed || over(journal))?;
            }
        }
        if let Some((kind, words)) = &running.journal.refused
            && !device.is_dead()
        {
            let words = format!("{}: refused ({kind}): {words}", self.name(chain));
            report.findings.false_alarm(words);
        }
        self.end(running, disk, chain, report)
    }

    fn cut_tool(
        &self,
        mut running: Running,
        disk: &Disk,
        chain: &mut Chain,
        report: &mut Report,
    ) -> Result<Journal, Trouble> {
        let rng = &mut chain.rng;
        disk.device.arm(if rng.index(4) == 0 { soon(rng, 60) } else { sometime(rng) }, cut(rng));
        running.listen(LIMIT, |_| disk.device.is_dead())?;
        self.end(running, disk, chain, report)
    }

    /// The cut, if it has not been; then the end of the process, by itself or by SIGKILL.
    fn end(
        &self,
        mut running: Running,
        disk: &Disk,
        chain: &mut Chain,
        report: &mut Report,
    ) -> Result<Journal, Trouble> {
        let stage = running.journal.stage;
        disk.device.now(cut(&mut chain.rng));
        let Some(cut) = disk.device.after_cut() else {
            return Err(Trouble::Failed("the disk did not die".to_owned()));
        };
        if chain.rng.coin() {
            running.kill();
        } else {
            // Everything fails from here on, and it must come to an end by itself. One word for
            // where it is ready, one for where it closes.
            running.tell("close");
            running.tell("close");
        }
        let (journal, _, stderr) = running.end(LIMIT)?;
        if stderr.contains("panicked") {
            report.findings.false_alarm(format!("{}: {stderr}", self.name(chain)));
        }
        let io = journal.io().to_owned();
        let phase = phase(stage, chain.lives == 1, &cut);
        report.totals.cut(&chain.file_system.to_string(), &io, phase, &cut);
        Ok(journal)
    }

    fn judge(&self, found: &Journal, judge: &mut Judge, report: &mut Report) {
        let mut findings = judge.judge(found);
        for words in &mut findings.words {
            *words = format!("life {} of {}: {words}", found.life.number, found.life.seed);
        }
        report.totals.judged += 1;
        report.findings.add(&findings);
    }

    /// Opens what is left and judges it. False when the disk is of no more use.
    fn recover(&self, chain: &mut Chain, report: &mut Report) -> Result<bool, Trouble> {
        let mut nested = 0;
        loop {
            let disk = self.mount(chain)?;
            if nested < NESTED_MAX && chain.rng.index(6) == 0 {
                let rng = &mut chain.rng;
                disk.device.arm(soon(rng, 20), cut(rng));
            }
            let life = chain.next_life();
            let blocking = chain.rng.index(3) == 0;
            let dir = self.log_directory();
            let mut running = Running::agent(self.programs, &dir, life, blocking, self.stop)?;
            running.listen(LIMIT, |journal| {
                journal.stage >= Stage::Ready || journal.refused.is_some() || disk.device.is_dead()
            })?;
            if disk.device.is_dead() {
                nested += 1;
                let journal = self.end(running, &disk, chain, report)?;
                chain.judge.ended(journal, Survives::Synced);
                self.unmount(disk, chain)?;
                continue;
            }
            disk.device.disarm();
            let found = self.finish_reading(running, chain)?;
            self.nonsense(&found)?;
            report.totals.life(&found);
            let well = match &found.refused {
                Some((kind, words)) => {
                    let words = format!("{}: refused ({kind}): {words}", self.name(chain));
                    report.findings.false_alarm(words);
                    false
                }
                None => {
                    self.judge(&found, &mut chain.judge, report);
                    report.findings.good()
                }
            };
            chain.judge.ended(found, Survives::Written);
            self.unmount(disk, chain)?;
            return Ok(well);
        }
    }

    /// A life that has read everything goes: killed, without closing, or cleanly.
    fn finish_reading(&self, mut running: Running, chain: &mut Chain) -> Result<Journal, Trouble> {
        match chain.rng.index(3) {
            0 => running.kill(),
            1 => running.tell("exit"),
            _ => {
                running.tell("close");
                running.listen(LIMIT, |journal| journal.stage == Stage::Closing)?;
                running.tell("close");
            }
        }
        Ok(running.end(LIMIT)?.0)
    }

    /// What is left by a disk that lied: loud, or a prefix.
    fn after_lie(&self, chain: &mut Chain, report: &mut Report) -> Result<&'static str, Trouble> {
        let disk = match self.mount(chain) {
            Ok(disk) => disk,
            Err(Trouble::Unmountable(_)) => return Ok("the file system refused"),
            Err(trouble) => return Err(trouble),
        };
        let life = chain.next_life();
        let dir = self.log_directory();
        let mut running = Running::agent(self.programs, &dir, life, false, self.stop)?;
        running
            .listen(LIMIT, |journal| journal.stage >= Stage::Ready || journal.refused.is_some())?;
        running.kill();
        let (found, _, stderr) = running.end(LIMIT)?;
        if stderr.contains("panicked") {
            report.findings.false_alarm(format!("{}: {stderr}", self.name(chain)));
        }
        report.totals.life(&found);
        let end = if found.refused.is_some() {
            "the log refused"
        } else if found.unread.is_empty() {
            self.judge(&found, &mut chain.judge, report);
            "a prefix"
        } else {
            "reading was refused"
        };
        self.unmount(disk, chain)?;
        Ok(end)
    }
}
