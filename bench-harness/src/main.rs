//! `ringlog-bench`: which durability a disk can afford, measured beside the disk's own floor.

mod bare;
mod compare;
mod driven;
mod environment;
mod figures;
mod filler;
mod floor;
mod mode;
mod percentile;
mod reads;
mod report;
mod series;
mod workload;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use ringlog_disk::IoKind;

use crate::compare::{Failure, Plan};
use crate::floor::Effort;
use crate::mode::Mode;
use crate::report::Out;

/// Larger records fit no log.
const RECORD_BYTES_MAX: usize = 8 << 20;
/// Each has a histogram of some 200 KiB.
const PRODUCERS_MAX: usize = 1024;
/// For each producer.
const OUTSTANDING_MAX: usize = 1 << 16;
const ROUNDS_MAX: usize = 1000;

/// Measures ringlog beside what the disk does without it
#[derive(Debug, Parser)]
#[command(name = "ringlog-bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare the durability modes on one or more directories
    Compare(CompareArguments),
    /// Measure the project's figures, each as a ratio to its floor, round by round
    Figures(FiguresArguments),
    /// Fill a log until killed: the other half of the recovery figure
    #[command(hide = true)]
    FillUntilKilled {
        dir: PathBuf,
        bytes: u64,
        #[arg(value_enum)]
        io: Io,
    },
}

#[derive(Debug, clap::Args)]
struct CompareArguments {
    /// Directory to measure on (repeatable); everything happens in a temporary directory inside
    /// it, which is removed. Default: the current directory
    #[arg(long = "dir", value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Modes to run, in this order
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "memory,written,synced,synced-every-append,interval"
    )]
    modes: Vec<Mode>,
    /// Payload of one record in bytes
    #[arg(long, value_name = "N", default_value_t = 256,
        value_parser = |text: &str| within(text, 0, RECORD_BYTES_MAX))]
    record_bytes: usize,
    /// Number of producing threads
    #[arg(long, value_name = "N", default_value_t = 4,
        value_parser = |text: &str| within(text, 1, PRODUCERS_MAX))]
    producers: usize,
    /// Receipts that each producer keeps in flight; 1: it waits for each append
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = |text: &str| within(text, 1, OUTSTANDING_MAX))]
    outstanding: usize,
    /// Length of the measured window of each mode, 0.05 to 3600
    #[arg(long, value_name = "S", default_value = "5", value_parser = seconds)]
    seconds: Duration,
    /// Write one JSON object for each mode to FILE, a line each; "-" is standard output, and the
    /// tables go to standard error then
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How the log reaches the disk
    #[arg(long, value_enum, default_value_t = Io::Auto)]
    io: Io,
}

#[derive(Debug, clap::Args)]
struct FiguresArguments {
    /// Directory to measure in; everything happens in a temporary directory inside it
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// How many times floor and figure are measured, one after the other
    #[arg(long, value_name = "R", default_value_t = 5,
        value_parser = |text: &str| within(text, 1, ROUNDS_MAX))]
    rounds: usize,
    /// Measure these figures only
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_values_t = figures::Figure::value_variants().to_vec()
    )]
    only: Vec<figures::Figure>,
    /// Write one JSON object for each figure to FILE, a line each; "-" is standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How the log reaches the disk
    #[arg(long, value_enum, default_value_t = Io::Auto)]
    io: Io,
    /// Size of the log that the figure `open` opens, in bytes; less where there is no room for twice
    /// as much
    #[arg(long, value_name = "BYTES", default_value_t = 10 << 30)]
    open_bytes: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Io {
    /// io_uring, or blocking calls where it is refused
    Auto,
    /// io_uring, or an error
    Uring,
    /// Blocking calls
    Blocking,
}

impl Io {
    fn kind(self) -> IoKind {
        match self {
            Self::Auto => IoKind::Auto,
            Self::Uring => IoKind::Uring,
            Self::Blocking => IoKind::Blocking,
        }
    }
}

/// A number from `low` to `high`.
fn within(text: &str, low: usize, high: usize) -> Result<usize, String> {
    let number = text.parse().map_err(|error| format!("{error}"))?;
    if (low..=high).contains(&number) {
        Ok(number)
    } else {
        Err(format!("must be within {low} and {high}"))
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.05..=3600.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("must be within 0.05 and 3600".to_owned())
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the report has seen enough.
        Err(Failure::Reporting(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(Failure::Reporting(error)) => fail(&format!("cannot write the report: {error}")),
        Err(Failure::Measuring(what)) => fail(&what),
    }
}

fn fail(what: &str) -> ExitCode {
    eprintln!("ringlog-bench: {what}");
    ExitCode::FAILURE
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Compare(arguments) => {
            environment::stop_on_interrupt()?;
            let mut out = Out::new(arguments.json.as_deref())?;
            let dirs = if arguments.dirs.is_empty() { vec![".".into()] } else { arguments.dirs };
            let plan = Plan {
                dirs,
                modes: arguments.modes,
                record_bytes: arguments.record_bytes,
                producers: arguments.producers,
                outstanding: arguments.outstanding,
                window: arguments.seconds,
                io: arguments.io.kind(),
                // A short look needs no long floor.
                effort: Effort::USUAL.at_most(arguments.seconds),
            };
            compare::run(&plan, &mut out)
        }
        Command::Figures(arguments) => {
            environment::stop_on_interrupt()?;
            let mut out = Out::new(arguments.json.as_deref())?;
            figures::run(
                &arguments.dir,
                arguments.rounds,
                &arguments.only,
                arguments.io.kind(),
                arguments.open_bytes,
                &mut out,
            )
        }
        Command::FillUntilKilled { dir, bytes, io } => {
            Ok(filler::fill_until_killed(&dir, bytes, io.kind())?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(line: &str) -> Result<CompareArguments, clap::Error> {
        let words = ["ringlog-bench", "compare"].into_iter().chain(line.split_whitespace());
        Arguments::try_parse_from(words).map(|arguments| match arguments.command {
            Command::Compare(compare) => compare,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn defaults_are_those_of_the_first_look() {
        let arguments = compare("").unwrap();
        assert_eq!(arguments.modes, Mode::value_variants());
        assert_eq!(
            (arguments.record_bytes, arguments.producers, arguments.outstanding),
            (256, 4, 1)
        );
        assert!(arguments.dirs.is_empty() && arguments.json.is_none());
    }

    #[test]
    fn all_figures_are_measured_unless_some_are_chosen() {
        let arguments = Arguments::try_parse_from(["ringlog-bench", "figures"]).unwrap();
        let Command::Figures(figures) = arguments.command else { panic!("{arguments:?}") };
        assert_eq!(figures.only, figures::Figure::value_variants());
    }

    #[test]
    fn lists_and_repeats_are_taken() {
        let arguments =
            compare("--dir a --dir b --modes synced,memory --seconds 0.2 --io blocking").unwrap();
        assert_eq!(arguments.dirs, [PathBuf::from("a"), PathBuf::from("b")]);
        assert_eq!(arguments.modes, [Mode::Synced, Mode::Memory]);
        assert_eq!(arguments.seconds, Duration::from_millis(200));
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "--seconds 0",
            "--seconds nan",
            "--seconds -1",
            "--seconds 1e9",
            "--producers 0",
            "--outstanding 0",
            "--modes fast",
            "--io quick",
            "--record-bytes -1",
            "--record-bytes 8388609",
            "--producers 1025",
            "--outstanding 65537",
        ] {
            assert!(compare(line).is_err(), "{line}");
        }
    }
}
