//! `scale`: what more of something brings: threads, receipts in flight, shards, bytes of a record.

use std::path::Path;

use clap::ValueEnum;
use ringlog::{Format, Options};

use crate::bench::Bench;
use crate::compare::{self, finish};
use crate::environment::interrupted;
use crate::mode::Mode;
use crate::report::{Failure, Out};
use crate::run::{OUTSTANDING_MAX, PRODUCERS_MAX, RECORD_BYTES_MAX, Run, within};
use crate::summary::Summary;

/// Threads that keep receipts in flight; more of them do not help.
const RECEIPT_THREADS: usize = 2;

/// What there is more and more of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Axis {
    /// Threads, each of which waits for its append
    Producers,
    /// Receipts in flight, on two threads
    Outstanding,
    /// Shards of the log, from one to a shard for each CPU
    Shards,
    /// Bytes of a record
    RecordBytes,
}

/// Along which axes, how far.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) run: Run,
    /// What to have more and more of
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "producers,outstanding,shards,record-bytes"
    )]
    over: Vec<Axis>,
    /// Mode of all
    #[arg(long, value_enum, default_value = "synced")]
    mode: Mode,
    /// Threads
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,2,4,8,16,32,64,128,256",
        value_parser = |text: &str| within(text, 1, PRODUCERS_MAX))]
    producers: Vec<usize>,
    /// Receipts in flight, all together
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "2,4,8,16,32,64,128,256,1024,4096",
        value_parser = |text: &str| within(text, 1, OUTSTANDING_MAX))]
    outstanding: Vec<usize>,
    /// Shards; default: powers of two up to the number of CPUs, and that
    #[arg(long, value_name = "N", value_delimiter = ',',
        value_parser = |text: &str| within(text, 1, 256))]
    shards: Vec<usize>,
    /// Bytes of a record, along that axis; elsewhere the first but one
    #[arg(long, value_name = "N", value_delimiter = ',',
        default_value = "64,256,1024,4096,16384,65536,262144,1048576",
        value_parser = |text: &str| within(text, 0, RECORD_BYTES_MAX))]
    record_bytes: Vec<usize>,
}

/// One point.
#[derive(Clone, Debug)]
struct Point {
    label: String,
    record_bytes: usize,
    producers: usize,
    outstanding: usize,
    shards: usize,
}

impl Arguments {
    fn points(&self) -> Vec<Point> {
        let usual = self.record_bytes.get(1).or(self.record_bytes.first()).copied().unwrap_or(256);
        let mut points = Vec::new();
        for axis in &self.over {
            let mut add = |label, record_bytes, producers, outstanding, shards| {
                points.push(Point { label, record_bytes, producers, outstanding, shards });
            };
            match axis {
                Axis::Producers => {
                    for threads in &self.producers {
                        add(format!("{threads} threads"), usual, *threads, 1, 1);
                    }
                }
                Axis::Outstanding => {
                    for receipts in &self.outstanding {
                        let threads = RECEIPT_THREADS.min(*receipts);
                        let label = format!("{receipts} receipts on {threads} threads");
                        add(label, usual, threads, receipts / threads, 1);
                    }
                }
                Axis::Shards => {
                    for shards in self.shards() {
                        // As many streams as make it likely that every shard has some.
                        let threads = (4 * shards).min(PRODUCERS_MAX);
                        let label = format!("{shards} shards, {threads} threads, 64 receipts each");
                        add(label, usual, threads, 64, shards);
                    }
                }
                Axis::RecordBytes => {
                    for bytes in &self.record_bytes {
                        add(format!("{bytes} B, 4 threads"), *bytes, 4, 1, 1);
                    }
                }
            }
        }
        points
    }

    fn shards(&self) -> Vec<usize> {
        if !self.shards.is_empty() {
            return self.shards.clone();
        }
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let mut shards: Vec<usize> =
            std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|n| *n < cpus).collect();
        shards.push(cpus);
        shards
    }
}

/// Runs every point on one directory.
///
/// # Errors
/// What could not be measured, or written, in words.
pub(crate) fn run_in(
    arguments: &Arguments,
    dir: &Path,
    number: usize,
    out: &mut Out,
) -> Result<(), Failure> {
    let points = arguments.points();
    out.print(&format!(
        "\n{}\n{}, {} points, {} rounds\n\n",
        dir.display(),
        arguments.mode.name(),
        points.len(),
        arguments.run.rounds
    ))?;
    let mut bench = Bench::new(&arguments.run, "scale", dir)?;
    let mut summary = Summary::default();
    for round in 1..=arguments.run.rounds {
        for point in &points {
            if interrupted() || summary.has_failed(&point.label) {
                continue;
            }
            out.progress(&format!("round {round}, {}", point.label));
            let usual = bench.options()?;
            let shards = u16::try_from(point.shards).unwrap_or(u16::MAX);
            let format = Format { shards: Some(shards), ..usual.format };
            // Each shard has its part of the memory, and none has less than one alone would.
            let memory_bytes = usual.memory_bytes.saturating_mul(point.shards).min(1 << 30);
            let options = Options { format, memory_bytes, ..usual };
            let load = bench.load(point.record_bytes, point.producers, point.outstanding);
            let measured =
                bench.measure(round, &load, |dir| compare::open(arguments.mode, dir, &options));
            summary.take(&point.label, measured, out)?;
        }
    }
    let append_bytes = points.first().map_or(1, |point| point.record_bytes);
    finish(&bench, &summary, "point", append_bytes, number, out)
}
