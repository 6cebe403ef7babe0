//! `load`: latency against load, in an open loop.
//!
//! Each round first takes what the engine can do in a closed loop, and then offers parts of that.

use std::path::Path;

use crate::bench::{Bench, Work};
use crate::compare::{self, finish};
use crate::contender::Contender;
use crate::environment::interrupted;
use crate::measurement::OpenLoop;
use crate::mode::Mode;
use crate::open_loop::{self, Offered};
use crate::report::{Failure, Out, digits};
use crate::run::{Appends, Run, within};
use crate::summary::Summary;

/// What is offered.
#[derive(Clone, Debug, clap::Args)]
#[command(
    mut_arg("producers", |producers| producers.default_value("2")
        .help("Threads that arrivals come to")),
    mut_arg("outstanding", |receipts| receipts.default_value("128")
        .help("Receipts that each of them keeps in flight while saturation is measured"))
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) run: Run,
    /// Modes to run, in this order
    #[arg(long, value_enum, value_delimiter = ',', default_value = "synced")]
    modes: Vec<Mode>,
    /// Load as parts of saturation, in percent
    #[arg(long, value_name = "PERCENT", value_delimiter = ',', default_value = "10,25,50,65,80,90,95",
        value_parser = |text: &str| within(text, 1, 200))]
    at: Vec<usize>,
    #[command(flatten)]
    pub(crate) appends: Appends,
    /// Seed of the arrivals
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Runs every load on one directory.
///
/// # Errors
/// What could not be measured, or written, in words.
pub(crate) fn run_in(
    arguments: &Arguments,
    dir: &Path,
    number: usize,
    out: &mut Out,
) -> Result<(), Failure> {
    out.print(&format!(
        "\n{}\n{}-byte records, arrivals by themselves to {} threads, {} rounds\n\n",
        dir.display(),
        arguments.appends.record_bytes,
        arguments.appends.producers,
        arguments.run.rounds
    ))?;
    let mut bench = Bench::new(&arguments.run, "load", dir)?;
    let mut summary = Summary::default();
    for round in 1..=arguments.run.rounds {
        for mode in &arguments.modes {
            if !interrupted() {
                round_of(*mode, round, &mut bench, arguments, &mut summary, out)?;
            }
        }
    }
    finish(&bench, &summary, "mode and load", arguments.appends.record_bytes, number, out)?;
    out.print(
        "The latency of an arrival begins when it was due. 100 %: a closed loop just before.\n",
    )?;
    Ok(())
}

fn round_of(
    mode: Mode,
    round: usize,
    bench: &mut Bench<'_>,
    arguments: &Arguments,
    summary: &mut Summary,
    out: &mut Out,
) -> Result<(), Failure> {
    let options = bench.options()?;
    let load = arguments.appends.load(bench);
    out.progress(&format!("round {round}, {}: saturation", mode.name()));
    let saturated = bench.measure(round, &load, |dir| compare::open(mode, dir, &options));
    let saturation = saturated.as_ref().ok().map(|measured| measured.line.records_per_second);
    summary.take(&format!("{} saturated", mode.name()), saturated, out)?;
    // Without it there is nothing to offer a part of.
    let Some(saturation) = saturation.filter(|rate| *rate > 0.0) else {
        return Ok(());
    };
    for percent in &arguments.at {
        let label = format!("{} at {percent} %", mode.name());
        if interrupted() || summary.has_failed(&label) {
            continue;
        }
        let part = *percent as f64 / 100.0;
        let per_second = saturation * part;
        out.progress(&format!("round {round}, {}: {} a second", mode.name(), digits(per_second)));
        // Every point has arrivals of its own, and the same ones when it is measured again.
        let seed = arguments.seed.wrapping_add((round * 1_000 + percent) as u64);
        let offered = Offered { per_second, seed };
        let measured = bench.measure_by(round, &load, |dir| {
            let contender = compare::open(mode, dir, &options)?;
            let arrived = open_loop::run(&contender, dir, &load, &offered)?;
            contender.close()?;
            let open_loop = OpenLoop {
                offered_per_second: per_second,
                saturation_per_second: saturation,
                part_of_saturation: part,
                seed,
                due: arrived.due,
                in_flight_max: arrived.outcome.in_flight_max,
            };
            Ok(Work { open_loop: Some(open_loop), ..arrived.outcome.into() })
        });
        summary.take(&label, measured, out)?;
    }
    Ok(())
}
