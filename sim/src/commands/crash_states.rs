//! Every crash state of small workloads.

use std::process::ExitCode;
use std::time::Duration;

use ringlog_sim::crash_states::{NAMES, Size, run, run_one};

use super::code;

/// How much is run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// End when so many states have been recovered and judged.
    #[arg(long, value_name = "N", default_value_t = 5_000_000)]
    states: u64,
    /// End after so many minutes at the latest.
    #[arg(long, value_name = "M", value_parser = super::minutes)]
    minutes: Option<Duration>,
    /// How many workloads run side by side.
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: usize,
    /// Decides sizes, orders and samples.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Take one state in so many, for a quick look.
    #[arg(long, value_name = "N", default_value_t = 1)]
    one_in: u64,
    /// End with the first that is wrong.
    #[arg(long)]
    until_wrong: bool,
    /// Run this one task of a report again, and no other.
    #[arg(long, value_name = "T")]
    task: Option<u64>,
}

pub(crate) fn run_suite(args: &Args) -> ExitCode {
    println!("{} workloads, seed {}", NAMES.len(), args.seed);
    let size = Size {
        states: args.states,
        at_most: args.minutes,
        threads: args.threads,
        seed: args.seed,
        one_in: args.one_in,
        until_wrong: args.until_wrong,
        ..Size::default()
    };
    let report = match args.task {
        Some(task) => run_one(task, size),
        None => run(size),
    };
    for wrong in &report.wrong {
        println!("WRONG: {wrong}");
    }
    if !report.wrong.is_empty() {
        println!("one of them again: ringlog-sim crash-states --seed {} --task TASK", args.seed);
    }
    print!("{report}");
    code(report.counts.wrong == 0)
}
