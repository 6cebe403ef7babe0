//! `kill -9`, again and again, on the same directory.
//!
//! Each life opens what the one before left, is judged by what it finds, appends, and is killed at
//! some point: by acknowledgements seen, right after its start, in its recovery, while it closes.
//! Lives take turns on io_uring and on blocking calls. Works on any directory, without root.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::child::{Programs, Running, Stop, Trouble, failed, run as run_command};
use super::journal::{Journal, Stage};
use super::judge::{Findings, Judge, Survives};
use super::plan::Life;
use crate::Rng;

/// How long a life may take for anything: then it hangs.
const LIMIT: Duration = Duration::from_secs(60);
/// How many lives of one log, before a new one begins.
const LIVES_PER_LOG: u32 = 25;

/// What is run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many kills, at least.
    pub kills: u64,
    /// Go on until then.
    pub until: Option<Instant>,
    /// Decides everything that is decided by chance here.
    pub seed: u64,
    /// The logs are made below this directory, and removed.
    pub dir: PathBuf,
    /// Be wrong on purpose, to see that the suite can fail: put an older copy of the log back.
    pub control: bool,
    /// Tell each life.
    pub verbose: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Processes that were killed.
    pub kills: u64,
    /// Kills by what the log was doing.
    pub by_stage: BTreeMap<Stage, u64>,
    /// Lives by how they reached the disk.
    pub by_io: BTreeMap<String, u64>,
    /// Lives that came to their end before the kill.
    pub ended: u64,
    /// Logs.
    pub logs: u64,
    /// What was judged.
    pub judged: u64,
    /// Appends that were acknowledged.
    pub acknowledged: u64,
    /// Records that were in flight and are there.
    pub in_flight_kept: u64,
    /// Records that recovery wrote again.
    pub rewritten: u64,
    /// What was wrong.
    pub findings: Findings,
    /// How long it took.
    pub elapsed: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stages: Vec<String> =
            self.by_stage.iter().map(|(stage, count)| format!("{stage} {count}")).collect();
        let io: Vec<String> =
            self.by_io.iter().map(|(io, count)| format!("{io} {count}")).collect();
        let mut row = |name: &str, text: String| writeln!(f, "{name:>22}: {text}");
        row("kills", format!("{}; {} lives ended before", self.kills, self.ended))?;
        row("while", stages.join(", "))?;
        row("through", io.join(", "))?;
        row("logs", format!("{}, {} recoveries judged", self.logs, self.judged))?;
        row("appends acknowledged", self.acknowledged.to_string())?;
        row(
            "in flight, kept",
            format!("{} records; {} written again", self.in_flight_kept, self.rewritten),
        )?;
        for words in &self.findings.words {
            row("WRONG", words.clone())?;
        }
        row("wrong", self.findings.to_string())?;
        row("seconds", format!("{:.1}", self.elapsed.as_secs_f64()))
    }
}

/// When the process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// So long after its start.
    Start(Duration),
    /// So long after it has begun to open the log.
    Opening(Duration),
    /// After so many acknowledgements.
    Acks(u64),
    /// So long after it was told to append.
    Appending(Duration),
    /// So long after it was told to close.
    Closing(Duration),
}

impl When {
    fn draw(rng: &mut Rng) -> Self {
        let us = |rng: &mut Rng, at_most| Duration::from_micros(rng.below(at_most));
        match rng.index(20) {
            0 => Self::Start(us(rng, 20_000)),
            1..=3 => Self::Opening(us(rng, 8_000)),
            4..=6 => Self::Closing(us(rng, 6_000)),
            7..=10 => Self::Appending(us(rng, 60_000)),
            _ => {
                let bound = 1 << rng.below(12);
                Self::Acks(1 + rng.below(bound))
            }
        }
    }
}

/// A directory that is removed in the end, with all that is in it.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("kills: {}: {error}", self.0.display());
        }
    }
}

/// Runs it. The report so far is there even when there is trouble.
pub fn run(settings: &Settings, programs: &Programs, stop: &Stop) -> (Report, Result<(), Trouble>) {
    let started = Instant::now();
    let mut report = Report::default();
    let result = run_logs(settings, programs, stop, &mut report);
    report.elapsed = started.elapsed();
    (report, result)
}

fn run_logs(
    settings: &Settings,
    programs: &Programs,
    stop: &Stop,
    report: &mut Report,
) -> Result<(), Trouble> {
    let name = format!("ringlog-kills.{}", std::process::id());
    let scratch = Scratch(settings.dir.join(name));
    fs::create_dir(&scratch.0).map_err(|e| failed(&scratch.0.display().to_string(), &e))?;
    let mut rng = Rng::new(settings.seed);
    let over = |report: &Report| {
        report.kills >= settings.kills && settings.until.is_none_or(|until| Instant::now() >= until)
    };
    while !over(report) {
        report.logs += 1;
        let seed = rng.next_u64() >> 16;
        let dir = scratch.0.join(format!("log-{}", report.logs));
        let judge = Judge::new(seed);
        let rng = Rng::new(seed);
        let mut log = OneLog { settings, programs, stop, dir: &dir, seed, rng, judge, lives: 0 };
        while log.lives < LIVES_PER_LOG && !over(report) && report.findings.good() {
            log.life(report)?;
        }
        log.end(report)?;
        if !report.findings.good() {
            return Ok(());
        }
        fs::remove_dir_all(&dir).map_err(|error| failed(&dir.display().to_string(), &error))?;
    }
    Ok(())
}

struct OneLog<'a> {
    settings: &'a Settings,
    programs: &'a Programs,
    stop: &'a Stop,
    dir: &'a Path,
    seed: u64,
    rng: Rng,
    judge: Judge,
    lives: u32,
}

impl OneLog<'_> {
    /// The copy that the control makes.
    fn copy(&self) -> PathBuf {
        self.dir.with_extension("copy")
    }

    fn keep_copy(&self) -> Result<(), Trouble> {
        if self.dir.exists() && !self.copy().exists() {
            run_command(Command::new("cp").arg("-a").arg(self.dir).arg(self.copy()), LIMIT)?;
        }
        Ok(())
    }

    fn put_back(&self) -> Result<(), Trouble> {
        if self.copy().exists() {
            run_command(Command::new("rm").arg("-r").arg(self.dir), LIMIT)?;
            run_command(Command::new("mv").arg(self.copy()).arg(self.dir), LIMIT)?;
        }
        Ok(())
    }

    fn next_life(&mut self) -> Life {
        self.lives += 1;
        Life { seed: self.seed, number: self.lives }
    }

    fn life(&mut self, report: &mut Report) -> Result<(), Trouble> {
        let blocking = self.lives.is_multiple_of(2);
        if self.settings.control {
            self.keep_copy()?;
        }
        if self.rng.index(5) == 0 {
            // What the life before left must be judged first: the tool does not tell what it finds.
            self.look(blocking, report)?;
            return self.tool(!blocking, report);
        }
        let life = self.next_life();
        let when = When::draw(&mut self.rng);
        let mut running = Running::agent(self.programs, self.dir, life, blocking, self.stop)?;
        let killed = self.lead(&mut running, when, report)?;
        self.ended(running, killed, report)
    }

    /// Leads an agent to its death; false when it came to its end before.
    fn lead(
        &mut self,
        running: &mut Running,
        when: When,
        report: &mut Report,
    ) -> Result<bool, Trouble> {
        if let When::Start(after) = when {
            std::thread::sleep(after);
            return Ok(running.runs());
        }
        running.listen(LIMIT, |journal| journal.stage >= Stage::Opening)?;
        if let When::Opening(after) = when {
            std::thread::sleep(after);
            return Ok(running.runs());
        }
        if !self.read(running, report)? {
            return Ok(false);
        }
        running.tell("append");
        match when {
            When::Appending(after) => {
                std::thread::sleep(after);
                return Ok(running.runs());
            }
            When::Acks(count) => {
                let enough = |journal: &Journal| {
                    journal.acknowledged >= count || journal.stage >= Stage::Closing
                };
                running.listen(LIMIT, enough)?;
                if running.journal.stage < Stage::Closing {
                    return Ok(running.runs());
                }
            }
            _ => {}
        }
        running.listen(LIMIT, |journal| journal.stage >= Stage::Closing)?;
        running.tell("close");
        if let When::Closing(after) = when {
            std::thread::sleep(after);
            return Ok(running.runs());
        }
        running.listen(LIMIT, |_| false)?;
        Ok(false)
    }

    /// Listens to what it finds, and judges that. False when it could not open the log.
    fn read(&mut self, running: &mut Running, report: &mut Report) -> Result<bool, Trouble> {
        running
            .listen(LIMIT, |journal| journal.stage >= Stage::Ready || journal.refused.is_some())?;
        let journal = &running.journal;
        if journal.stage < Stage::Ready {
            let life = journal.life;
            report.findings.false_alarm(format!("{life:?} was refused: {:?}", journal.refused));
            return Ok(false);
        }
        let mut findings = self.judge.judge(journal);
        for words in &mut findings.words {
            *words = format!("{:?}: {words}", journal.life);
        }
        report.judged += 1;
        report.findings.add(&findings);
        Ok(true)
    }

    fn ended(
        &mut self,
        mut running: Running,
        killed: bool,
        report: &mut Report,
    ) -> Result<(), Trouble> {
        let stage = running.journal.stage;
        if killed {
            running.kill();
            report.kills += 1;
            *report.by_stage.entry(stage).or_default() += 1;
        } else {
            report.ended += 1;
        }
        let (journal, status, stderr) = running.end(LIMIT)?;
        if let Some(line) = journal.nonsense.first() {
            return Err(Trouble::Failed(format!("the agent said {line:?}")));
        }
        if stderr.contains("panicked") {
            report.findings.false_alarm(format!("{:?}: {stderr}", journal.life));
        }
        for (kind, words) in &journal.failures {
            let words = format!("{:?}: a failure without a fault ({kind}): {words}", journal.life);
            report.findings.false_alarm(words);
        }
        if self.settings.verbose {
            let (life, acks) = (journal.life, journal.acknowledged);
            println!("{life:?}: {status} in {stage}, {acks} acknowledged");
        }
        *report.by_io.entry(journal.io().to_owned()).or_default() += 1;
        report.acknowledged += journal.acknowledged;
        report.rewritten += journal.rewritten;
        let lost = journal.acknowledged;
        self.judge.ended(journal, Survives::Written);
        if self.settings.control && lost > 0 {
            self.put_back()?;
        }
        Ok(())
    }

    /// A life of the tool, killed by acknowledgements or right after its start.
    fn tool(&mut self, blocking: bool, report: &mut Report) -> Result<(), Trouble> {
        let life = self.next_life();
        let mut running = Running::tool(self.programs, self.dir, life, blocking, self.stop)?;
        let killed = if self.rng.index(4) == 0 {
            std::thread::sleep(Duration::from_micros(self.rng.below(40_000)));
            running.runs()
        } else {
            let bound = 1 << self.rng.below(11);
            let count = 1 + self.rng.below(bound);
            running.listen(LIMIT, |journal| journal.acknowledged >= count)? && running.runs()
        };
        self.ended(running, killed, report)
    }

    /// A life that only reads, and closes.
    fn look(&mut self, blocking: bool, report: &mut Report) -> Result<(), Trouble> {
        let life = self.next_life();
        let mut running = Running::agent(self.programs, self.dir, life, blocking, self.stop)?;
        if self.read(&mut running, report)? {
            running.tell("close");
            running.listen(LIMIT, |journal| journal.stage >= Stage::Closing)?;
            running.tell("close");
        }
        self.ended(running, false, report)
    }

    /// The last life reads what is there, twice, and the tool checks every checksum.
    fn end(&mut self, report: &mut Report) -> Result<(), Trouble> {
        for blocking in [false, true] {
            if report.findings.good() {
                self.look(blocking, report)?;
            }
        }
        report.in_flight_kept += self.judge.in_flight_kept;
        if report.findings.good()
            && let Err(trouble) = self.programs.verify(self.dir, LIMIT)
        {
            report.findings.false_alarm(format!("log {}: {trouble}", self.seed));
        }
        Ok(())
    }
}
