//! `compare`: every mode on every directory, beside the floor of the same minutes.
//!
//! The floor is measured before the first mode, between the modes and after the last one. A mode
//! is seen against the two rounds around it; where those have too few samples, against all.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hdrhistogram::Histogram;
use ringlog::Options;
use ringlog_disk::IoKind;
use serde::Serialize;

use crate::bare::BareDisk;
use crate::environment::{Machine, Place, interrupted, scratch};
use crate::floor::{self, Effort, Floor, FloorJson, Primitive, Round, mib};
use crate::mode::Mode;
use crate::percentile::{Drift, Percentiles, us_from_ns};
use crate::report::{Out, Table, chart, digits, duration, or_dash, times};
use crate::workload::{self, Keep, Load, Outcome, per_second};

/// Above this, the rounds of the floor lie so far apart that figures of this run are doubtful.
const SPREAD_DOUBTFUL: f64 = 0.25;

/// From here on the log's sealed segments are trimmed away, and recycled.
const TRIM_ABOVE_BYTES: u64 = 256 << 20;

/// What is to be compared.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Where; each one must be there.
    pub(crate) dirs: Vec<PathBuf>,
    pub(crate) modes: Vec<Mode>,
    pub(crate) record_bytes: usize,
    pub(crate) producers: usize,
    pub(crate) outstanding: usize,
    /// Length of the measured window of each mode.
    pub(crate) window: Duration,
    pub(crate) io: IoKind,
    /// How long each round of the floor measures.
    pub(crate) effort: Effort,
}

/// What one mode gave, with what the engine said of itself.
struct Measured {
    mode: Mode,
    outcome: Outcome,
    shards: usize,
    file_system: String,
    io: &'static str,
    direct: bool,
    primitive: &'static str,
    notes: Vec<String>,
}

/// Runs the plan and reports, directory by directory.
///
/// # Errors
/// What could not be measured, in words; what had been measured before has been reported. A report
/// that cannot be written is an `io` error.
pub(crate) fn run(plan: &Plan, out: &mut Out) -> Result<(), Failure> {
    let machine = Machine::look();
    for dir in &plan.dirs {
        if interrupted() {
            break;
        }
        compare_in(dir, plan, &machine, out)?;
    }
    Ok(())
}

/// Why a comparison ended.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something could not be measured.
    Measuring(String),
    /// The report could not be written.
    Reporting(io::Error),
}

impl From<String> for Failure {
    fn from(what: String) -> Self {
        Self::Measuring(what)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Reporting(error)
    }
}

fn compare_in(dir: &Path, plan: &Plan, machine: &Machine, out: &mut Out) -> Result<(), Failure> {
    let place = Place::of(dir);
    out.print(&heading(dir, &place, machine, plan))?;
    let sizes = floor::sizes(plan.record_bytes);
    // Both the floor's files and the logs lie below this one: one guard removes everything.
    let scratch = scratch(dir)?;
    let disk = BareDisk::create(scratch.path())?;
    let floor_round = || floor::measure(&disk, &sizes, plan.effort);

    let mut rounds = vec![floor_round()?];
    let mut measured = Vec::new();
    let mut failures = Vec::new();
    for &mode in &plan.modes {
        if interrupted() {
            break;
        }
        match measure(mode, scratch.path(), plan) {
            Ok(result) => measured.push((result, rounds.len() - 1)),
            Err(what) => failures.push(format!("{}: {what}", mode.name())),
        }
        if !interrupted() {
            rounds.push(floor_round()?);
        }
    }

    let whole = Floor::of(&rounds);
    let reports: Vec<ModeReport<'_>> = measured
        .iter()
        .map(|(result, before)| {
            let around = Floor::of(rounds.iter().skip(*before).take(2));
            let enough = around.best_ns(floor::record_size(plan.record_bytes)).is_some();
            ModeReport::new(result, if enough { around } else { whole.clone() }, plan)
        })
        .collect();
    for report in &reports {
        out.json_line(&report.json(dir, plan, machine))?;
    }
    out.print(&table(&reports))?;
    out.print(&charts(&reports))?;
    out.print(&floor_text(&whole, &rounds, plan))?;
    out.print(&notes(&reports, disk.note(), &failures))?;
    if failures.is_empty() { Ok(()) } else { Err(Failure::Measuring(failures.join("; "))) }
}

fn measure(mode: Mode, dir: &Path, plan: &Plan) -> Result<Measured, String> {
    let own = scratch(dir)?;
    let options =
        Options { io: plan.io, ..Options::from_env().map_err(|error| error.to_string())? };
    let log = workload::open(own.path(), mode.sync_policy(), &options)?;
    let load = Load {
        durability: mode.durability(),
        record_bytes: plan.record_bytes,
        batch_records: 1,
        producers: plan.producers,
        outstanding: plan.outstanding,
        timed: true,
        keep: Keep::TrimAbove(TRIM_ABOVE_BYTES),
        warm_up: (plan.window / 10).min(Duration::from_millis(500)),
        window: plan.window,
    };
    let outcome = workload::run(&log, own.path(), &load)?;
    let stats = log.stats();
    log.close().map_err(|error| format!("close: {error}"))?;
    Ok(Measured {
        mode,
        outcome,
        shards: stats.shards.len(),
        file_system: stats.file_system,
        io: stats.io,
        direct: stats.direct,
        primitive: stats.commit_primitive,
        notes: stats.notes,
    })
}

/// One mode against its floor.
struct ModeReport<'a> {
    measured: &'a Measured,
    latency: Percentiles,
    flush: Percentiles,
    floor: Floor,
    ratio: Ratio,
}

/// What a mode reached, as parts and multiples of its floor.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Ratio {
    /// Median latency / median of the better bare primitive at the record's size. Only where an
    /// acknowledgement waits for a flush.
    p50_to_floor: Option<f64>,
    /// Records acknowledged in the time of one bare commit.
    records_per_floor_commit: Option<f64>,
    /// Payload rate / rate of the sequential write.
    payload_to_sequential_write: Option<f64>,
}

impl<'a> ModeReport<'a> {
    fn new(measured: &'a Measured, floor: Floor, plan: &Plan) -> Self {
        let outcome = &measured.outcome;
        let latency = Percentiles::of(&outcome.latency);
        let flushed = measured.mode.durability() == ringlog::Durability::Synced;
        let best_us =
            floor.best_ns(floor::record_size(plan.record_bytes)).map(|(_, ns)| us_from_ns(ns));
        let ratio = Ratio {
            p50_to_floor: latency.p50.zip(best_us).filter(|_| flushed).map(|(a, b)| a / b),
            records_per_floor_commit: best_us.map(|us| outcome.records_per_second() * us / 1e6),
            payload_to_sequential_write: floor
                .sequential_write
                .map(|rate| outcome.payload_per_second() / rate),
        };
        let flush = Percentiles::of(&outcome.engine.flush_latency);
        Self { measured, latency, flush, floor, ratio }
    }

    fn json<'b>(&'b self, dir: &'b Path, plan: &Plan, machine: &'b Machine) -> ModeJson<'b> {
        let Measured { mode, outcome, .. } = self.measured;
        ModeJson {
            bench: "compare",
            engine: "ringlog",
            mode: mode.name(),
            durability: mode.durability_class(),
            record_bytes: plan.record_bytes,
            producers: plan.producers,
            outstanding: plan.outstanding,
            shards: self.measured.shards,
            dir,
            file_system: &self.measured.file_system,
            io: self.measured.io,
            direct: self.measured.direct,
            primitive: self.measured.primitive,
            records: outcome.records,
            seconds: outcome.elapsed.as_secs_f64(),
            records_per_second: outcome.records_per_second(),
            payload_mib_per_second: mib(outcome.payload_per_second()),
            latency_us: self.latency,
            flush_us: self.flush,
            flushes: outcome.engine.flushes,
            commits: outcome.engine.commits,
            device_bytes: outcome.engine.device_bytes,
            payload_bytes: outcome.payload_bytes,
            rotations: outcome.engine.rotations,
            recycled_segments: outcome.engine.recycled_segments,
            segments_trimmed: outcome.segments_trimmed,
            waited_for_room: outcome.waited_for_room,
            ended_early: outcome.ended_early.as_deref(),
            floor: self.floor.json(plan.record_bytes),
            ratio: self.ratio,
            machine,
            notes: &self.measured.notes,
        }
    }
}

/// The line of one mode for machines. Latencies are `null` where too few samples lie beyond.
#[derive(Serialize)]
struct ModeJson<'a> {
    bench: &'a str,
    engine: &'a str,
    mode: &'a str,
    durability: &'a str,
    record_bytes: usize,
    producers: usize,
    outstanding: usize,
    shards: usize,
    dir: &'a Path,
    file_system: &'a str,
    io: &'a str,
    direct: bool,
    primitive: &'a str,
    records: u64,
    seconds: f64,
    records_per_second: f64,
    payload_mib_per_second: f64,
    latency_us: Percentiles,
    flush_us: Percentiles,
    flushes: u64,
    commits: u64,
    device_bytes: u64,
    payload_bytes: u64,
    rotations: u64,
    recycled_segments: u64,
    segments_trimmed: u64,
    waited_for_room: u64,
    ended_early: Option<&'a str>,
    floor: FloorJson,
    ratio: Ratio,
    machine: &'a Machine,
    notes: &'a [String],
}

fn heading(dir: &Path, place: &Place, machine: &Machine, plan: &Plan) -> String {
    format!(
        "{}: {} on {} (write cache: {})\n{machine}\n\
         {}-byte records, {} producers, {} outstanding each, {} s a mode\n\n",
        dir.display(),
        place.file_system,
        place.device,
        place.write_cache,
        plan.record_bytes,
        plan.producers,
        plan.outstanding,
        plan.window.as_secs_f64(),
    )
}

fn table(reports: &[ModeReport<'_>]) -> String {
    let mut table = Table::new(
        2,
        [
            "mode",
            "durability",
            "records/s",
            "MiB/s",
            "p50 us",
            "p90",
            "p99",
            "p99.9",
            "max",
            "flushes/s",
            "p50/floor",
            "rec/floor",
            "of raw write",
        ],
    );
    for report in reports {
        let Measured { mode, outcome, .. } = report.measured;
        let percent = |part: Option<f64>| {
            part.map_or_else(|| "-".into(), |p| format!("{} %", digits(p * 100.0)))
        };
        table.row(&[
            mode.name().to_owned(),
            mode.durability_class().to_owned(),
            digits(outcome.records_per_second()),
            digits(mib(outcome.payload_per_second())),
            or_dash(report.latency.p50),
            or_dash(report.latency.p90),
            or_dash(report.latency.p99),
            or_dash(report.latency.p99_9),
            or_dash(report.latency.max),
            digits(per_second(outcome.engine.flushes, outcome.elapsed)),
            times(report.ratio.p50_to_floor),
            times(report.ratio.records_per_floor_commit),
            percent(report.ratio.payload_to_sequential_write),
        ]);
    }
    format!(
        "{}p50/floor: median / median of the better bare primitive. rec/floor: records in the time \
         of one bare commit.\nof raw write: payload / sequential O_DIRECT write. \
         \"-\": unknown, or fewer than 100 samples beyond.\n\n",
        table.text()
    )
}

fn charts(reports: &[ModeReport<'_>]) -> String {
    let one = |report: &ModeReport<'_>| {
        let flushes: &Histogram<u64> = &report.measured.outcome.engine.flush_latency;
        format!(
            "{}: time of a commit's write and flush\n{}\n",
            report.measured.mode.name(),
            chart(flushes)
        )
    };
    reports.iter().map(one).collect()
}

fn floor_text(floor: &Floor, rounds: &[Round], plan: &Plan) -> String {
    let mut table = Table::new(1, ["floor, one at a time", "bytes", "p50 us", "p99", "commits"]);
    for one in floor.commits() {
        let percentiles = Percentiles::of(&one.latency);
        table.row(&[
            one.primitive.name().to_owned(),
            one.bytes.to_string(),
            or_dash(percentiles.p50),
            or_dash(percentiles.p99),
            one.latency.len().to_string(),
        ]);
    }
    let write = or_dash(floor.sequential_write.map(mib));
    let (commits, writes) = floor::drift(rounds, floor::record_size(plan.record_bytes));
    let better = match floor.best_ns(floor::record_size(plan.record_bytes)) {
        Some((Primitive::Dsync, ns)) => format!("RWF_DSYNC is the better one: {}", duration(ns)),
        Some((Primitive::Fdatasync, ns)) => {
            format!("fdatasync is the better one: {}", duration(ns))
        }
        None => "too few commits to say which is the better one".to_owned(),
    };
    format!(
        "{}{better}\nsequential O_DIRECT write: {write} MiB/s\n{}{}\n",
        table.text(),
        drift_text("commit", "us", commits, rounds.len()),
        drift_text("sequential write", "MiB/s", writes, rounds.len()),
    )
}

fn drift_text(what: &str, unit: &str, drift: Option<Drift>, rounds: usize) -> String {
    let Some(drift) = drift else {
        return format!("drift of the {what}: not known\n");
    };
    let doubtful = if drift.spread() > SPREAD_DOUBTFUL { " - DOUBTFUL: a noisy host" } else { "" };
    format!(
        "drift of the {what} over {rounds} rounds: {} - {} - {} {unit} (min - median - max), last/first {}{doubtful}\n",
        digits(drift.min),
        digits(drift.median),
        digits(drift.max),
        times(Some(drift.last_to_first)),
    )
}

fn notes(reports: &[ModeReport<'_>], floor: Option<&str>, failures: &[String]) -> String {
    let mut notes: Vec<String> = Vec::new();
    let mut add = |note: String| {
        if !notes.contains(&note) {
            notes.push(note);
        }
    };
    for report in reports {
        let measured = report.measured;
        let name = measured.mode.name();
        add(format!(
            "engine: {} on {}, commit primitive {}",
            measured.io, measured.file_system, measured.primitive
        ));
        if !measured.direct {
            add("writes do not bypass the page cache here: \"written\" survives the end of the \
                 process only"
                .to_owned());
        }
        measured.notes.iter().for_each(|note| add(note.clone()));
        if let Some(reason) = &measured.outcome.ended_early {
            add(format!("{name} ended early: {reason}"));
        }
        if measured.outcome.waited_for_room > 0 {
            add(format!(
                "{name}: {} appends found the log full and waited for room",
                measured.outcome.waited_for_room
            ));
        }
        if measured.mode == Mode::Memory {
            add("memory: the latency is that of the append call, and includes reading the clock"
                .to_owned());
        }
    }
    floor.iter().for_each(|note| add(format!("floor: {note}")));
    failures.iter().for_each(|failure| add(format!("FAILED {failure}")));
    let lines: String = notes.iter().map(|note| format!("- {note}\n")).collect();
    format!("notes\n{lines}\n")
}
