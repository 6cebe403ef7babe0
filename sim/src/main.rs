//! Runs histories by their seeds: one, told in words, or many.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use ringlog_sim::history::{Memories, Report, Totals, run};

const USAGE: &str = "usage: ringlog-sim --seed N | --seeds A..B [--threads N] [--until-wrong]";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1).map(String::as_str)
    };
    if let Some(seed) = value("--seed").and_then(|text| text.parse().ok()) {
        return one(seed);
    }
    let range = value("--seeds").and_then(|text| text.split_once(".."));
    let range = range.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    let threads = value("--threads").map_or(Ok(2), str::parse);
    match (range, threads) {
        (Some((first, end)), Ok(threads)) => {
            many(first, end, threads, args.iter().any(|arg| arg == "--until-wrong"))
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn one(seed: u64) -> ExitCode {
    let report = run(seed, &mut Memories::default(), true);
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
    let mut memories = Memories::default();
    let mut totals = Totals::default();
    let mut wrong = 0;
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            break;
        }
        let report: Report = run(seed, &mut memories, false);
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

fn code(well: bool) -> ExitCode {
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
