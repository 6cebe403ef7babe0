//! What all subcommands share: where, how often, how long, and what is left behind.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use ringlog_disk::IoKind;

use crate::bench::Bench;
use crate::environment::{Machine, Place, interrupted};
use crate::measurement::{Environment, Line};
use crate::report::{Failure, Out};
use crate::workload::Load;

const ROUNDS_MAX: usize = 1000;
/// Larger records fit no log.
pub(crate) const RECORD_BYTES_MAX: usize = 8 << 20;
/// Each has a histogram of some 200 KiB.
pub(crate) const PRODUCERS_MAX: usize = 1024;
/// For each producer.
pub(crate) const OUTSTANDING_MAX: usize = 1 << 16;

/// The flags of every subcommand
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Run {
    /// Directory to measure on (repeatable); everything happens in a temporary directory inside
    /// it, which is removed. Default: the current directory
    #[arg(long = "dir", value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Name of the run, for its report
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// How often everything is measured, in turns
    #[arg(long, value_name = "R", default_value_t = 3,
        value_parser = |text: &str| within(text, 1, ROUNDS_MAX))]
    pub(crate) rounds: usize,
    /// Length of one measurement, 0.05 to 3600
    #[arg(long, value_name = "S", default_value = "2", value_parser = seconds)]
    pub(crate) seconds: Duration,
    /// Payload of one measurement, about: it ends early when so many bytes are appended in its window
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_bytes: Option<u64>,
    /// Write one JSON object for each measurement to FILE, a line each, behind one about the
    /// machine; "-" is standard output, and the tables go to standard error then
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Leave latency histograms in this directory, over all rounds: .hgrm for people and plots,
    /// .hlog (HdrHistogram V2, an interval for each round) for tools
    #[arg(long, value_name = "DIR")]
    pub(crate) hdr: Option<PathBuf>,
    /// How the log reaches the disk
    #[arg(long, value_enum, default_value_t = Io::Auto)]
    pub(crate) io: Io,
}

impl Run {
    /// Where to measure, at least one directory.
    pub(crate) fn dirs(&self) -> Vec<PathBuf> {
        if self.dirs.is_empty() { vec![".".into()] } else { self.dirs.clone() }
    }

    /// Opens the outputs, and says what is measured on.
    ///
    /// # Errors
    /// What cannot be created or written, in words.
    pub(crate) fn begin(&self, bench: &str) -> Result<Out, String> {
        let mut out = Out::new(self.json.as_deref())?;
        let dirs = self.dirs();
        let environment = Environment {
            bench: bench.to_owned(),
            name: self.name.clone(),
            command: std::env::args().skip(1).collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: option_env!("RINGLOG_BENCH_COMMIT").map(str::to_owned),
            started_unix_seconds: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            machine: Machine::look(),
            places: dirs.iter().map(|dir| Place::of(dir)).collect(),
            rounds: self.rounds as u64,
            seconds: self.seconds.as_secs_f64(),
            max_bytes: self.max_bytes,
        };
        let mut heading = format!("{}\n", environment.machine);
        for place in &environment.places {
            heading.push_str(&format!("{place}\n"));
        }
        out.print(&heading).map_err(|error| format!("cannot write the report: {error}"))?;
        out.json_line(&Line::Environment(environment))
            .map_err(|error| format!("cannot write the report: {error}"))?;
        Ok(out)
    }

    /// Begins the run, and measures one directory after the other until all are done or it is
    /// interrupted. `measure` gets the number of the directory, too.
    ///
    /// # Errors
    /// The first that went wrong; what had been measured before has been reported.
    pub(crate) fn in_each_dir<A>(
        &self,
        bench: &str,
        arguments: &A,
        measure: fn(&A, &Path, usize, &mut Out) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut out = self.begin(bench)?;
        for (number, dir) in self.dirs().iter().enumerate() {
            if !interrupted() {
                measure(arguments, dir, number, &mut out)?;
            }
        }
        Ok(())
    }
}

/// The flags of what appends one kind of records all the time. Subcommands have their own defaults.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Appends {
    /// Payload of one record in bytes
    #[arg(long, value_name = "N", default_value_t = 256,
        value_parser = |text: &str| within(text, 0, RECORD_BYTES_MAX))]
    pub(crate) record_bytes: usize,
    /// Number of producing threads
    #[arg(long, value_name = "N", default_value_t = 4,
        value_parser = |text: &str| within(text, 1, PRODUCERS_MAX))]
    pub(crate) producers: usize,
    /// Receipts that each producer keeps in flight; 1: it waits for each append
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = |text: &str| within(text, 1, OUTSTANDING_MAX))]
    pub(crate) outstanding: usize,
}

impl Appends {
    /// The same for producers.
    pub(crate) fn load(self, bench: &Bench<'_>) -> Load {
        bench.load(self.record_bytes, self.producers, self.outstanding)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Io {
    /// io_uring, or blocking calls where it is refused
    Auto,
    /// io_uring, or an error
    Uring,
    /// Blocking calls
    Blocking,
}

impl Io {
    pub(crate) fn kind(self) -> IoKind {
        match self {
            Self::Auto => IoKind::Auto,
            Self::Uring => IoKind::Uring,
            Self::Blocking => IoKind::Blocking,
        }
    }
}

/// A number from `low` to `high`.
pub(crate) fn within(text: &str, low: usize, high: usize) -> Result<usize, String> {
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
