//! Every bit of a closed log flipped once.

use std::ops::Range;
use std::process::ExitCode;

use ringlog_sim::bit_flips::{Size, run};

use super::code;
use super::histories::range;

/// How much is run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Size of the sealed segment, all of whose bits are flipped; those of the other files are too.
    #[arg(long, value_name = "N", default_value_t = 128 << 10)]
    bytes: u64,
    /// How many flips are tried side by side.
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: usize,
    /// Decides what is in the log.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Flip every so many bits only.
    #[arg(long, value_name = "N", default_value_t = 1)]
    stride: u64,
    /// Flip only the bits with these numbers, as a report tells them.
    #[arg(long, value_name = "A..B", value_parser = range)]
    bits: Option<Range<u64>>,
    /// End with the first that is wrong.
    #[arg(long)]
    until_wrong: bool,
}

pub(crate) fn run_suite(args: &Args) -> ExitCode {
    let Args { bytes, threads, seed, stride, until_wrong, .. } = *args;
    let Range { start: from, end: until } = args.bits.clone().unwrap_or(0..u64::MAX);
    if !bytes.is_multiple_of(4096) || !(64 << 10..=64 << 20).contains(&bytes) || stride == 0 {
        println!("--bytes is a multiple of 4096 from 65536 on, --stride at least 1");
        return ExitCode::from(2);
    }
    println!("a sealed segment of {bytes} bytes, seed {seed}");
    let size = Size { bytes, threads, seed, stride, from, until, until_wrong, ..Size::default() };
    match run(size) {
        Ok(report) => {
            for finding in &report.findings {
                println!("WRONG: {finding}");
            }
            print!("{report}");
            code(report.wrong == 0)
        }
        Err(error) => {
            println!("WRONG: {error}");
            ExitCode::FAILURE
        }
    }
}
