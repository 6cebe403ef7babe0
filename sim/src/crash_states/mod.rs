//! Every state that a power cut may leave of small workloads, each recovered for real and judged.
//!
//! A workload drives the engine on a [`SimWorld`](crate::SimWorld) through one phase of
//! its life after the other. At every *moment* (an operation was submitted, some have completed, a
//! turn has ended) all states are enumerated that a cut may leave: each fate of the names
//! ([`crate::cuts`]), and of the sectors that no flush has covered
//! - up to 16: every subset;
//! - more, but at most 16 areas of 4096 bytes: every subset of those areas, and a sample of the
//!   sectors;
//! - more than that: every prefix, all but one, only one, every pair lost, and a number by chance.
//!
//! Each state that differs from all before it, in its bytes or in what is acknowledged, is opened
//! by the engine, read to the end and judged by the [oracle](crate::oracle). Of some the recovery is
//! cut, too, or repeated, or a next life is begun and cut.

mod look;
mod recover;
mod rig;
mod workloads;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub use look::Counts;
pub use workloads::NAMES;

/// Pieces of memory that a thread keeps from one opening to the next.
const MAPPINGS: usize = 32;

/// How much is run.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Ends once so many states were judged.
    pub states: u64,
    /// Ends after this time, too.
    pub at_most: Option<Duration>,
    /// How many workloads run side by side.
    pub threads: usize,
    /// Decides sizes, orders and samples.
    pub seed: u64,
    /// Subsets by chance, of too many sectors.
    pub random: usize,
    /// Bounds the subsets of one moment: with more, they are sampled. 65,536 for every one.
    pub subsets_max: usize,
    /// Takes one state in so many, for a quick look; 1 for all.
    pub one_in: u64,
    /// Ends with the first state that is judged wrong.
    pub until_wrong: bool,
    /// For a test of this suite: the ledger claims one acknowledgement more than there was.
    pub claims_too_much: bool,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            states: 5_000_000,
            at_most: None,
            threads: 2,
            seed: 1,
            random: 64,
            subsets_max: 1 << 16,
            one_in: 1,
            until_wrong: false,
            claims_too_much: false,
        }
    }
}

/// How it went.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What was met.
    pub counts: Counts,
    /// Workloads that were run, each with its name, the number of its task and what was met in it.
    pub workloads: Vec<(&'static str, u64, Counts)>,
    /// What was wrong, the first few of each workload.
    pub wrong: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, name) in NAMES.iter().enumerate() {
            let mut sum = Counts::default();
            let runs = self.workloads.iter().filter(|(ran, _, _)| ran == name);
            let runs = runs.map(|(_, _, counts)| sum.add(counts)).count();
            let Counts { moments, states, .. } = sum;
            writeln!(f, "{at:>3} {name}: {runs} runs, {moments} moments, {states} states")?;
        }
        writeln!(f, "{:>30}: {}", "workloads", self.workloads.len())?;
        write!(f, "{}", self.counts)?;
        writeln!(f, "{:>30}: {:.1}", "seconds", self.seconds)?;
        let speed = self.counts.states as f64 / self.seconds.max(0.001);
        writeln!(f, "{:>30}: {speed:.0}", "states a second")?;
        writeln!(f, "{:>30}: {}", "wrong", self.counts.wrong)
    }
}

/// When it is enough: shared by all workloads of a run.
#[derive(Clone)]
struct Stop {
    states: Arc<AtomicU64>,
    at: Option<Instant>,
}

impl Stop {
    fn new(size: Size) -> Self {
        Self { states: Arc::default(), at: size.at_most.map(|limit| Instant::now() + limit) }
    }

    fn one_more(&self) {
        self.states.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends a run of so many.
    fn now(&self, states: u64) {
        self.states.fetch_max(states, Ordering::Relaxed);
    }

    fn is_enough(&self, states: u64) -> bool {
        self.states.load(Ordering::Relaxed) >= states
            || self.at.is_some_and(|at| Instant::now() >= at)
    }
}

/// Runs the workloads, in rounds with a seed each, until there were states enough. A moment that
/// was begun is finished.
pub fn run(size: Size) -> Report {
    let start = Instant::now();
    let next = AtomicU64::new(0);
    let stop = Stop::new(size);
    let report: Mutex<Report> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..size.threads.clamp(1, 64) {
            scope.spawn(|| {
                // Or making memory for each opening is most of the time.
                ringlog_disk::keep_mappings(MAPPINGS);
                while !stop.is_enough(size.states) {
                    let task = next.fetch_add(1, Ordering::Relaxed);
                    let (name, seed, counts, wrong) = workloads::run(task, size, &stop);
                    if size.until_wrong && counts.wrong > 0 {
                        stop.now(size.states);
                    }
                    if let Ok(mut report) = report.lock() {
                        report.counts.add(&counts);
                        report.workloads.push((name, seed, counts));
                        report.wrong.extend(wrong);
                    }
                }
            });
        }
    });
    let mut report = report.into_inner().unwrap_or_default();
    report.workloads.sort_by_key(|(_, seed, _)| *seed);
    report.seconds = start.elapsed().as_secs_f64();
    report
}

/// Runs one workload by its number in a report, with the same seed: all its states.
pub fn run_one(task: u64, size: Size) -> Report {
    let start = Instant::now();
    ringlog_disk::keep_mappings(MAPPINGS);
    let (name, seed, counts, wrong) = workloads::run(task, size, &Stop::new(size));
    let workloads = vec![(name, seed, counts.clone())];
    Report { counts, workloads, wrong, seconds: start.elapsed().as_secs_f64() }
}
