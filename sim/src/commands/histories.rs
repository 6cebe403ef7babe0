//! Histories by their seeds.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use ringlog_disk::keep_mappings;
use ringlog_sim::history::{Memories, Report, Totals, run as run_history};

use super::code;

/// Which histories.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Tell what happens in the history of this seed.
    #[arg(long, value_name = "N", required_unless_present = "seeds")]
    seed: Option<u64>,
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

fn range(text: &str) -> Result<Range<u64>, String> {
    let parts = text.split_once("..").and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    parts.ok_or_else(|| "a range looks like 0..1000".to_owned())
}

pub(crate) fn run(args: &Args) -> ExitCode {
    match (args.seed, &args.seeds) {
        (Some(seed), _) => one(seed),
        (None, Some(seeds)) => many(seeds.start, seeds.end, args.threads, args.until_wrong),
        (None, None) => ExitCode::from(2),
    }
}

fn one(seed: u64) -> ExitCode {
    let report = run_history(seed, &mut Memories::default(), true);
    for line in &report.story {
        println!("{line}");
    }
    print!("{}", report.totals);
    println!("trace {:016x}", report.trace_hash);
    code(report.wrong.is_none())
}

fn many(first: u64, end: u64, threads: usize, until_wrong: bool) -> ExitCode {
    let start = std::time::Instant::now();
    let next = AtomicU64::new(first);
    let sum: Mutex<(Totals, u64)> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, 64) {
            scope.spawn(|| work(&next, end, until_wrong, &sum));
        }
    });
    let (totals, wrong) = sum.into_inner().unwrap_or_default();
    let seconds = start.elapsed().as_secs_f64();
    print!("{totals}");
    println!("{:>22}: {}", "all faults", totals.all_faults());
    println!("{:>22}: {:.0}", "histories per second", totals.histories as f64 / seconds);
    println!("{:>22}: {wrong}", "wrong");
    code(wrong == 0)
}

fn work(next: &AtomicU64, end: u64, until_wrong: bool, sum: &Mutex<(Totals, u64)>) {
    keep_mappings(32); // or clearing memory is most of the time
    let mut memories = Memories::default();
    let mut totals = Totals::default();
    let mut wrong = 0;
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            break;
        }
        let run = AssertUnwindSafe(|| run_history(seed, &mut memories, false));
        let Ok(report) = catch_unwind(run) else {
            println!("seed {seed}: it panicked");
            wrong += 1;
            memories = Memories::default();
            if until_wrong {
                next.store(end, Ordering::Relaxed);
            }
            continue;
        };
        let report: Report = report;
        totals.add(&report.totals);
        if let Some(what) = report.wrong {
            wrong += 1;
            println!("{what}");
            if until_wrong {
                next.store(end, Ordering::Relaxed);
            }
        }
    }
    if let Ok(mut sum) = sum.lock() {
        sum.0.add(&totals);
        sum.1 += wrong;
    }
}
