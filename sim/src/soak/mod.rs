//! A log under steady load for minutes or hours: thousands of clients, each with one append
//! outstanding; the process killed and started again, and in between left alone for a long time;
//! power cuts beside it; retention on. In the end a report.
//!
//! [`clients`] is the process with the log; the [`ledger`] knows what it acknowledged and judges
//! what each recovery found; [`flat`] says whether memory, descriptors, threads and disk have grown.
//! Nothing here knows the format of the log.

pub mod clients;
pub mod flat;
pub mod ledger;
mod life;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Rng;
use crate::live::child::{Programs, Stop, Trouble, failed, wait};

use ledger::{Ledger, judge_log};
use life::{End, Life};

pub use report::Report;

/// How long a recovery with all its reading, a clean close, a check of the tool may take.
const LIMIT: Duration = Duration::from_secs(180);

/// What is run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long in all.
    pub length: Duration,
    /// How many clients.
    pub clients: u32,
    /// How many appends a second, of all clients together.
    pub rate: u64,
    /// An append that takes longer hangs.
    pub hang: Duration,
    /// How often memory and the like are looked at.
    pub every: Duration,
    /// Decides the bytes of all records.
    pub seed: u64,
    /// The log is made below this directory, and removed.
    pub dir: PathBuf,
    /// Whether power is cut in between, on disks of its own.
    pub power_cuts: bool,
}

/// A directory that is removed in the end, with all that is in it.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("soak: {}: {error}", self.0.display());
        }
    }
}

/// Runs it. The report so far is there even when there is trouble.
pub fn run(settings: &Settings, programs: &Programs, stop: &Stop) -> (Report, Result<(), Trouble>) {
    let mut report = Report::new(settings);
    let result = run_all(settings, programs, stop, &mut report);
    report.elapsed = Duration::from_secs_f64(report.elapsed_now());
    (report, result)
}

fn run_all(
    settings: &Settings,
    programs: &Programs,
    stop: &Stop,
    report: &mut Report,
) -> Result<(), Trouble> {
    let scratch = Scratch(settings.dir.join(format!("ringlog-soak.{}", std::process::id())));
    fs::create_dir(&scratch.0).map_err(|e| failed(&scratch.0.display().to_string(), &e))?;
    let dir = scratch.0.join("log");
    let ledger = Ledger::new(settings.seed, settings.clients);
    let rng = Rng::new(settings.seed);
    let mut soak = Soak { settings, programs, stop, dir: &dir, ledger, rng, lives: 0, report };
    let begun = Instant::now();
    let at = |share: f64| begun + settings.length.mul_f64(share);
    soak.kills_until(at(0.3))?;
    soak.power_cuts(&scratch.0, settings.length.mul_f64(0.05))?;
    soak.life(at(0.75), End::Close)?;
    soak.power_cuts(&scratch.0, settings.length.mul_f64(0.05))?;
    soak.kills_until(at(1.0))?;
    Ok(())
}

struct Soak<'a> {
    settings: &'a Settings,
    programs: &'a Programs,
    stop: &'a Stop,
    dir: &'a Path,
    ledger: Ledger,
    rng: Rng,
    lives: u32,
    report: &'a mut Report,
}

impl Soak<'_> {
    /// Lives of a twentieth of the whole each, two minutes at most, that end by SIGKILL.
    fn kills_until(&mut self, end: Instant) -> Result<(), Trouble> {
        let bounds = (Duration::from_secs(4), Duration::from_secs(120));
        let length = (self.settings.length / 20).clamp(bounds.0, bounds.1);
        while Instant::now() + length / 2 < end && self.report.good() {
            // Not always at the same point of a round.
            let more = Duration::from_micros(self.rng.below(700_000));
            self.life(Instant::now() + length + more, End::Kill)?;
        }
        Ok(())
    }

    /// One life of the log, and the judgement of what it leaves.
    fn life(&mut self, until: Instant, end: End) -> Result<(), Trouble> {
        if !self.report.good() {
            return Ok(());
        }
        self.lives += 1;
        self.ledger.begin(self.lives);
        let blocking = end == End::Kill && self.lives.is_multiple_of(2);
        let mut life = Life::start(self.settings, self.programs, self.dir, self.lives, blocking)?;
        let told = life.lead(until, end, self.stop, self.report)?;
        self.report.acknowledged += told.acknowledged;
        self.report.findings.extend(told.wrong.iter().cloned());
        self.report.slowest_ms.extend(told.slowest_ms.iter().copied());
        self.ledger.ended(&told.acks);
        self.judge()
    }

    fn judge(&mut self) -> Result<(), Trouble> {
        let ledger = std::mem::replace(&mut self.ledger, Ledger::new(0, 0));
        let dir = self.dir.to_owned();
        let (sender, judged) = std::sync::mpsc::channel();
        // A recovery that hangs shall not make this hang.
        std::thread::spawn(move || {
            let mut ledger = ledger;
            let found = judge_log(&mut ledger, &dir);
            let _ = sender.send((ledger, found)); // nobody waits any more
        });
        let Ok((ledger, found)) = judged.recv_timeout(LIMIT) else {
            return Err(Trouble::Hangs("recovery, or reading what it found".to_owned()));
        };
        self.ledger = ledger;
        self.report.judged += 1;
        self.report.records_read += found.records;
        self.report.findings.extend(found.wrong);
        if let Err(trouble) = self.programs.verify(self.dir, LIMIT) {
            self.report.findings.push(format!("verify: {trouble}"));
        }
        self.stop.check()
    }

    /// The suite of power cuts for a while: disks of its own, beside the log of this one.
    fn power_cuts(&mut self, scratch: &Path, length: Duration) -> Result<(), Trouble> {
        if !self.settings.power_cuts || !self.report.good() {
            return Ok(());
        }
        let told = scratch.join("power-cuts");
        let out = fs::File::create(&told).map_err(|error| failed("power-cuts", &error))?;
        let err = out.try_clone().map_err(|error| failed("power-cuts", &error))?;
        let mut command = Command::new(&self.programs.agent);
        command.arg("power-cuts").arg("--ringlog").arg(&self.programs.tool);
        command.arg("--minutes").arg((length.as_secs_f64() / 60.0).to_string());
        command.arg("--seed").arg((self.rng.next_u64() >> 16).to_string());
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let mut child = command.spawn().map_err(|error| failed("power-cuts", &error))?;
        let status = match wait(&mut child, length + LIMIT, "power-cuts") {
            Ok(status) => status,
            Err(trouble) => {
                // So that it takes its mounts away.
                let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
                if let Some(pid) = pid {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                }
                let _ = wait(&mut child, Duration::from_secs(20), "power-cuts");
                return Err(trouble);
            }
        };
        let text = fs::read_to_string(&told).unwrap_or_default();
        if !matches!(status.code(), Some(0 | 77)) {
            self.report.findings.push(format!("power-cuts: {status}:\n{text}"));
        }
        let telling = |line: &&str| {
            ["cuts", "wrong", "SKIPPED"].iter().any(|word| line.contains(word))
                && !line.starts_with("power-cuts, seed")
        };
        self.report.power_cuts.extend(text.lines().filter(telling).map(|line| line.trim().into()));
        self.stop.check()
    }
}
