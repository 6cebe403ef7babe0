//! Histories by their seeds.

use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use ringlog_sim::history::{Memories, Setup, Tell, Totals, run_with, shrink};

use super::code;

/// Which histories.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Tell what happens in the history of this seed.
    #[arg(long, value_name = "N", required_unless_present = "seeds")]
    seed: Option<u64>,
    /// Tell each step and each operation of the disk.
    #[arg(long, requires = "seed")]
    steps: bool,
    /// When it goes wrong, make the history small in at most so many tries, and tell that one.
    #[arg(long, value_name = "TRIES", default_value_t = 3000)]
    shrink: usize,
    /// Run on a disk that lies about flushes, without telling the oracle: it has to go wrong.
    #[arg(long)]
    control: bool,
    /// Run every such history twice, and compare their traces.
    #[arg(long, value_name = "N", default_value_t = 100)]
    twice_every: u64,
    /// Run the histories of a range of seeds.
    #[arg(long, value_name = "A..B", value_parser = range, conflicts_with = "seed")]
    seeds: Option<Range<u64>>,
    /// How many run side by side.
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: usize,
    /// End with the first that is wrong.
    #[arg(long)]
    until_wrong: bool,
}

pub(super) fn range(text: &str) -> Result<Range<u64>, String> {
    let parts = text.split_once("..").and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    parts.ok_or_else(|| "a range looks like 0..1000".to_owned())
}

pub(crate) fn run(args: &Args) -> ExitCode {
    match (args.seed, &args.seeds) {
        (Some(seed), _) => one(seed, args),
        (None, Some(seeds)) => many(seeds.clone(), args),
        (None, None) => ExitCode::from(2),
    }
}

fn one(seed: u64, args: &Args) -> ExitCode {
    let tell = if args.steps { Tell::Steps } else { Tell::Lives };
    let setup = Setup { tell, control: args.control, ..Setup::default() };
    let report = run_with(seed, &setup, &mut Memories::default());
    for line in &report.story {
        println!("{line}");
    }
    print!("{}", report.totals);
    println!("trace {:016x}", report.trace_hash);
    if report.wrong.is_some() {
        make_small(seed, args);
    }
    code(report.wrong.is_none())
}

/// Lives are short: making their memory would be most of the time.
pub(crate) const KEPT_MAPPINGS: usize = 16;

/// Tells the smallest history that goes wrong in the same way.
fn make_small(seed: u64, args: &Args) {
    let setup = Setup { control: args.control, ..Setup::default() };
    let small = shrink(seed, &setup, args.shrink, &mut Memories::default());
    let Some(small) = small.filter(|_| args.shrink > 0) else { return };
    let (before, after) = small.decisions;
    println!("\nsmaller, {after} decisions instead of {before}, after {} tries:", small.tried);
    for line in &small.report.story {
        println!("{line}");
    }
}

#[derive(Default)]
struct Sum {
    totals: Totals,
    wrong: Vec<u64>,
    twice: u64,
}

fn many(seeds: Range<u64>, args: &Args) -> ExitCode {
    let start = std::time::Instant::now();
    let next = AtomicU64::new(seeds.start);
    let sum: Mutex<Sum> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..args.threads.clamp(1, 64) {
            scope.spawn(|| work(&next, seeds.end, args, &sum));
        }
    });
    let mut sum = sum.into_inner().unwrap_or_default();
    let seconds = start.elapsed().as_secs_f64();
    sum.wrong.sort_unstable();
    if let Some(seed) = sum.wrong.first() {
        println!("\nthe first, seed {seed}, made small:");
        make_small(*seed, args);
    }
    let Sum { totals, wrong, twice } = sum;
    print!("{totals}");
    println!("{:>22}: {}", "all faults", totals.all_faults());
    println!("{:>22}: {twice}", "run twice");
    println!("{:>22}: {:.0}", "histories per second", totals.histories as f64 / seconds);
    println!("{:>22}: {seconds:.0}", "seconds");
    println!("{:>22}: {} {wrong:?}", "wrong", wrong.len());
    code(wrong.is_empty())
}

fn work(next: &AtomicU64, end: u64, args: &Args, sum: &Mutex<Sum>) {
    ringlog_disk::keep_mappings(KEPT_MAPPINGS);
    let mut memories = Memories::default();
    let mut mine = Sum::default();
    let setup = Setup { control: args.control, ..Setup::default() };
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            break;
        }
        let report = run_with(seed, &setup, &mut memories);
        mine.totals.add(&report.totals);
        let mut wrong = report.wrong.clone();
        if seed.is_multiple_of(args.twice_every.max(1)) {
            mine.twice += 1;
            if run_with(seed, &setup, &mut memories) != report {
                wrong = Some(format!("seed {seed}: not the same the second time"));
            }
        }
        if let Some(what) = wrong {
            mine.wrong.push(seed);
            println!("{what}");
            if args.until_wrong {
                next.store(end, Ordering::Relaxed);
            }
        }
    }
    if let Ok(mut sum) = sum.lock() {
        sum.totals.add(&mine.totals);
        sum.wrong.extend(mine.wrong);
        sum.twice += mine.twice;
    }
}
