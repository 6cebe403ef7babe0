//! Every operation of short histories meets every error.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ringlog_sim::error_sweep::{Swept, sweep};
use ringlog_sim::history::Memories;

use super::code;
use super::histories::KEPT_MAPPINGS;

/// How much.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Sweep histories until so many runs with an error were made.
    #[arg(long, value_name = "N", default_value_t = 60_000)]
    runs: u64,
    /// The seed of the first history; the others follow it.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// How many run side by side.
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: usize,
    /// End with the first that is wrong.
    #[arg(long)]
    until_wrong: bool,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let start = Instant::now();
    let (next, runs) = (AtomicU64::new(args.seed), AtomicU64::new(0));
    let sum: Mutex<Swept> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..args.threads.clamp(1, 64) {
            scope.spawn(|| {
                ringlog_disk::keep_mappings(KEPT_MAPPINGS);
                let mut memories = Memories::default();
                while runs.load(Ordering::Relaxed) < args.runs {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let swept = sweep(seed, args.until_wrong, &mut memories);
                    runs.fetch_add(swept.runs, Ordering::Relaxed);
                    if args.until_wrong && !swept.wrong.is_empty() {
                        runs.fetch_max(args.runs, Ordering::Relaxed);
                    }
                    swept.wrong.iter().for_each(|wrong| println!("{wrong}"));
                    if let Ok(mut sum) = sum.lock() {
                        sum.add(swept);
                    }
                }
            });
        }
    });
    let swept = sum.into_inner().unwrap_or_default();
    println!("{:>22}: {}", "histories", swept.histories);
    println!("{:>22}: {}", "operations", swept.operations);
    println!("{:>22}: {}", "runs with an error", swept.runs);
    println!("{:>22}: {}", "errors that struck", swept.struck);
    println!("{:>22}: {}", "never reached", swept.missed);
    println!("{:>22}: {:.0}", "seconds", start.elapsed().as_secs_f64());
    println!("{:>22}: {}", "wrong", swept.wrong.len());
    code(swept.wrong.is_empty() && swept.struck > 0)
}
