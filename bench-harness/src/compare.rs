//! `compare`: every mode on every directory, beside the floor of the same minutes; `disks`: the same
//! modes, directories side by side.

use std::path::Path;

use ringlog::Options;

use crate::bench::{Bench, Measured};
use crate::contender::Ringlog;
use crate::environment::interrupted;
use crate::mode::Mode;
use crate::recommend;
use crate::report::{Failure, Out};
use crate::run::{Appends, Run};
use crate::summary::{Summary, floor_text};
use crate::workload;

/// What is compared.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) run: Run,
    /// Modes to run, in this order
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "memory,written,synced,synced-every-append,interval"
    )]
    pub(crate) modes: Vec<Mode>,
    #[command(flatten)]
    pub(crate) appends: Appends,
}

/// Prints what all subcommands end with, and leaves histograms where they are wanted.
///
/// # Errors
/// What could not be written.
pub(crate) fn finish(
    bench: &Bench<'_>,
    summary: &Summary,
    what: &str,
    append_bytes: usize,
    number: usize,
    out: &mut Out,
) -> Result<(), Failure> {
    out.print(&summary.tables(what))?;
    out.print(&format!("\n{}", floor_text(&bench.rounds(), append_bytes)))?;
    out.print(&summary.notes(bench.note()))?;
    if let Some(hdr) = &bench.run.hdr {
        let name = bench.run.name.as_deref().unwrap_or(bench.name());
        summary.write_hdr(hdr, &format!("{name}-{number}"))?;
    }
    summary.end()
}

/// Opens a new log in `dir` in this mode.
///
/// # Errors
/// In words.
pub(crate) fn open(mode: Mode, dir: &Path, options: &Options) -> Result<Ringlog, String> {
    let log = workload::open(dir, mode.sync_policy(), options)?;
    Ok(Ringlog::new(log, mode.durability()).named(mode.name(), mode.media_within_ms()))
}

/// Measures one mode once.
fn measure(
    bench: &mut Bench<'_>,
    mode: Mode,
    round: usize,
    arguments: &Arguments,
    out: &Out,
) -> Result<Measured, String> {
    let options = bench.options()?;
    let load = arguments.appends.load(bench);
    let (dir, rounds) = (bench.dir().display(), arguments.run.rounds);
    out.progress(&format!("{dir}: round {round} of {rounds}, {}", mode.name()));
    bench.measure(round, &load, |dir| open(mode, dir, &options))
}

/// Runs every mode on one directory.
///
/// # Errors
/// What could not be measured, in words; what had been measured before has been reported. A report
/// that cannot be written is an `io` error.
pub(crate) fn run_in(
    arguments: &Arguments,
    dir: &Path,
    number: usize,
    out: &mut Out,
) -> Result<(), Failure> {
    out.print(&format!("\n{}\n{}\n\n", dir.display(), work_text(arguments)))?;
    let mut bench = Bench::new(&arguments.run, "compare", dir)?;
    let mut summary = Summary::default();
    for round in 1..=arguments.run.rounds {
        for mode in &arguments.modes {
            if interrupted() || summary.has_failed(mode.name()) {
                continue;
            }
            let measured = measure(&mut bench, *mode, round, arguments, out);
            summary.take(mode.name(), measured, out)?;
        }
    }
    out.print(&format!("{}\n", summary.charts()))?;
    let ended = finish(&bench, &summary, "mode", arguments.appends.record_bytes, number, out);
    // Of what could be measured, whatever else could not.
    out.print(&recommend::text(&summary.lines()))?;
    ended
}

/// The same modes on all directories in turns, so that they can be read side by side.
///
/// # Errors
/// As [`run_in`].
pub(crate) fn disks(arguments: &Arguments, out: &mut Out) -> Result<(), Failure> {
    out.print(&format!("\n{}\n\n", work_text(arguments)))?;
    let dirs = arguments.run.dirs();
    let mut benches = Vec::new();
    for dir in &dirs {
        benches.push(Bench::new(&arguments.run, "disks", dir)?);
    }
    let mut summary = Summary::default();
    for round in 1..=arguments.run.rounds {
        for mode in &arguments.modes {
            for bench in &mut benches {
                let label = format!("{} {}", mode.name(), bench.dir().display());
                if interrupted() || summary.has_failed(&label) {
                    continue;
                }
                let measured = measure(bench, *mode, round, arguments, out);
                summary.take(&label, measured, out)?;
            }
        }
    }
    out.print(&summary.tables("mode and directory"))?;
    for bench in &benches {
        let floor = floor_text(&bench.rounds(), arguments.appends.record_bytes);
        out.print(&format!("\n{}\n{floor}", bench.dir().display()))?;
    }
    let notes: Vec<String> = benches
        .iter()
        .filter_map(|bench| Some(format!("{}: {}", bench.dir().display(), bench.note()?)))
        .collect();
    out.print(&summary.notes((!notes.is_empty()).then(|| notes.join("; ")).as_deref()))?;
    if let Some(hdr) = &arguments.run.hdr {
        summary.write_hdr(hdr, arguments.run.name.as_deref().unwrap_or("disks"))?;
    }
    // Of what could be measured, whatever else could not.
    out.print(&recommend::text(&summary.lines()))?;
    summary.end()
}

fn work_text(arguments: &Arguments) -> String {
    format!(
        "{}-byte records, {} producers, {} outstanding each, {} rounds of {} s a mode",
        arguments.appends.record_bytes,
        arguments.appends.producers,
        arguments.appends.outstanding,
        arguments.run.rounds,
        arguments.run.seconds.as_secs_f64(),
    )
}
