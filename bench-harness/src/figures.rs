//! `figures`: the project's own bars, each measured as a ratio to its floor.
//!
//! Floor and figure are measured one after the other, round by round, and only ratios of the same
//! round are compared: a host that is twice as slow for a minute changes both. Bars are printed
//! beside the ratios; nothing is asserted.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use clap::ValueEnum;
use ringlog::{Durability, Log, Options, SyncPolicy};
use ringlog_disk::IoKind;
use serde::Serialize;

use crate::bare::{self, BareDisk};
use crate::compare::Failure;
use crate::environment::{Machine, Place, interrupted, scratch};
use crate::floor::{self, BLOCK_BYTES, Effort, Floor, mib};
use crate::percentile::{Drift, percentile_ns};
use crate::report::{Out, Table, digits};
use crate::workload::{self, Keep, Load, Outcome, incompressible, per_second};

/// Bytes that a record takes beside its payload.
const FRAME_BYTES: f64 = 16.0;
/// What a log is filled with before its segments are trimmed, to have some to recycle.
const RECYCLABLE_BYTES: usize = 5 << 26;
/// What a log holds that is to be recovered: most of one open segment.
const RECOVERED_BYTES: u64 = 60 << 20;
/// How often the bare commits are measured anew when there are too few of them.
const FLOOR_ROUNDS_MAX: usize = 20;
const MIB: usize = 1 << 20;

/// One row of the table of figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Figure {
    /// One blocked producer, 4 KiB, against a bare commit
    Blocked,
    /// 1 MiB batches against a sequential write
    Streaming,
    /// 256 B from many waiting at once, in bare commits
    Grouped,
    /// Memory mode against copy + crc32 and the raw disk
    Memory,
    /// Recovery against a raw read
    Recovery,
    /// Bytes on the device for each byte of payload
    Amplification,
}

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            self.to_possible_value()
                .as_ref()
                .map_or("", |value| value.get_name()),
        )
    }
}

/// The bar that a ratio is to reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Bar {
    AtMost(f64),
    AtLeast(f64),
    /// Measured for comparison.
    None,
}

/// One round of one figure.
#[derive(Clone, Copy, Debug, Serialize)]
struct Measured {
    figure: f64,
    floor: f64,
    ratio: f64,
}

impl Measured {
    fn of(figure: f64, floor: f64) -> Self {
        Self {
            figure,
            floor,
            ratio: figure / floor,
        }
    }
}

/// One figure over all rounds.
#[derive(Debug, Serialize)]
struct Series {
    bench: &'static str,
    what: &'static str,
    unit: &'static str,
    bar: Bar,
    ratio: Option<Drift>,
    rounds: Vec<Measured>,
    notes: Vec<String>,
}

impl Series {
    fn new(what: &'static str, unit: &'static str, bar: Bar) -> Self {
        Self {
            bench: "figures",
            what,
            unit,
            bar,
            ratio: None,
            rounds: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn add(&mut self, figure: f64, floor: f64) {
        self.rounds.push(Measured::of(figure, floor));
        let ratios: Vec<f64> = self.rounds.iter().map(|round| round.ratio).collect();
        self.ratio = Drift::of(&ratios);
    }

    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    fn note_outcome(&mut self, outcome: &Outcome) {
        if let Some(reason) = &outcome.ended_early {
            self.note(format!("a round ended early: {reason}"));
        }
    }
}

/// Where and how often.
struct Bench<'a> {
    dir: &'a Path,
    disk: BareDisk,
    rounds: usize,
    io: IoKind,
}

/// Measures the chosen figures in a temporary directory inside `dir`.
///
/// # Errors
/// What could not be measured, or written, in words; what was complete has been reported.
pub(crate) fn run(
    dir: &Path,
    rounds: usize,
    only: &[Figure],
    io: IoKind,
    out: &mut Out,
) -> Result<(), Failure> {
    let (place, machine) = (Place::of(dir), Machine::look());
    out.print(&format!(
        "{}: {} on {} (write cache: {})\nLinux {}, {} CPUs, {}\n{rounds} rounds\n\n",
        dir.display(),
        place.file_system,
        place.device,
        place.write_cache,
        machine.kernel,
        machine.cpus,
        machine.cpu,
    ))?;
    let scratch = scratch(dir)?;
    let disk = BareDisk::create(scratch.path())?;
    let bench = Bench {
        dir: scratch.path(),
        disk,
        rounds,
        io,
    };
    let mut all = Vec::new();
    let mut failures = Vec::new();
    for figure in only {
        let measured = match figure {
            Figure::Blocked => bench.blocked(),
            Figure::Streaming => bench.streaming(),
            Figure::Grouped => bench.grouped(),
            Figure::Memory => bench.memory(),
            Figure::Recovery => bench.recovery(),
            Figure::Amplification => bench.amplification(),
        };
        match measured {
            Ok(measured) => {
                for series in measured {
                    out.print(&rounds_text(&series))?;
                    out.json_line(&series)?;
                    all.push(series);
                }
            }
            Err(what) => failures.push(format!("{figure}: {what}")),
        }
    }
    out.print(&table(&all))?;
    if failures.is_empty() {
        Ok(())
    } else {
        Err(Failure::Measuring(failures.join("; ")))
    }
}

impl Bench<'_> {
    fn options(&self) -> Options {
        Options {
            io: self.io,
            ..Options::default()
        }
    }

    /// Carries out `round` as often as is wanted, or until interrupted.
    fn repeat(&self, mut round: impl FnMut() -> Result<(), String>) -> Result<(), String> {
        for _ in 0..self.rounds {
            if interrupted() {
                break;
            }
            round()?;
        }
        Ok(())
    }

    /// Median of the better bare commit of one block, in seconds.
    fn commit_floor(&self, bytes: usize) -> Result<f64, String> {
        let mut rounds = Vec::new();
        // A slow disk needs more time for the samples that a median wants.
        while rounds.len() < FLOOR_ROUNDS_MAX {
            rounds.push(floor::measure_commits(&self.disk, &[bytes], Effort::USUAL)?);
            if let Some((_, ns)) = Floor::of(&rounds).best_ns(bytes) {
                return Ok(ns as f64 / 1e9);
            }
        }
        Err("too few bare commits: the disk is too slow".to_owned())
    }

    /// Bytes per second of a sequential write.
    fn write_floor(&self) -> Result<f64, String> {
        self.disk.sequential_write(Effort::USUAL.sequential)
    }

    fn blocked(&self) -> Result<Vec<Series>, String> {
        let mut series = Series::new(
            "synced, 1 blocked producer, 4 KiB: p50 / bare p50",
            "s",
            Bar::AtMost(1.35),
        );
        let dir = scratch(self.dir)?;
        let log = workload::open(dir.path(), SyncPolicy::EveryCommit, &self.options())?;
        let load = Load {
            record_bytes: 4096,
            timed: true,
            ..LOAD
        };
        self.repeat(|| {
            let floor = self.commit_floor(BLOCK_BYTES)?;
            let outcome = workload::run(&log, dir.path(), &load)?;
            match percentile_ns(&outcome.latency, 500) {
                Some(p50) => series.add(p50 as f64 / 1e9, floor),
                None => series.note("a round had too few appends for a median".to_owned()),
            }
            series.note_outcome(&outcome);
            Ok(())
        })?;
        close(log)?;
        Ok(vec![series])
    }

    fn streaming(&self) -> Result<Vec<Series>, String> {
        let new = |what, bar| Series::new(what, "B/s", bar);
        let mut recycled = new(
            "synced, 1 MiB batches, 2 in flight, recycled / raw write",
            Bar::AtLeast(0.55),
        );
        let mut fresh = new("the same on freshly prepared segments", Bar::None);
        let mut wide = new(
            "recycled; 4 commits of 8 MiB, 8 batches in flight",
            Bar::None,
        );
        let batches = Load {
            record_bytes: 4096,
            batch_records: MIB / 4096,
            ..LOAD
        };
        let two = Load {
            outstanding: 2,
            ..batches
        };
        let wide_options = Options {
            commits_in_flight: 4,
            commit_bytes: 8 << 20,
            memory_bytes: 64 << 20,
            ..self.options()
        };

        let (recycled_dir, wide_dir) = (scratch(self.dir)?, scratch(self.dir)?);
        let recycled_log = recycling_log(recycled_dir.path(), &self.options())?;
        let wide_log = recycling_log(wide_dir.path(), &wide_options)?;
        self.repeat(|| {
            let floor = self.write_floor()?;
            let outcome = workload::run(&recycled_log, recycled_dir.path(), &two)?;
            recycled.add(outcome.payload_per_second(), floor);
            note_recycling(&mut recycled, &outcome);

            let fresh_dir = scratch(self.dir)?;
            let log = workload::open(fresh_dir.path(), SyncPolicy::EveryCommit, &self.options())?;
            let growing = Load {
                keep: Keep::All,
                warm_up: Duration::from_millis(50),
                ..two
            };
            let floor = self.write_floor()?;
            let outcome = workload::run(&log, fresh_dir.path(), &growing)?;
            fresh.add(outcome.payload_per_second(), floor);
            note_recycling(&mut fresh, &outcome);
            close(log)?;
            drop(fresh_dir);

            let floor = self.write_floor()?;
            let eight = Load {
                outstanding: 8,
                ..batches
            };
            let outcome = workload::run(&wide_log, wide_dir.path(), &eight)?;
            wide.add(outcome.payload_per_second(), floor);
            note_recycling(&mut wide, &outcome);
            Ok(())
        })?;
        close(recycled_log)?;
        close(wide_log)?;
        Ok(vec![recycled, fresh, wide])
    }

    fn grouped(&self) -> Result<Vec<Series>, String> {
        let new = |what, bar| Series::new(what, "records/s", bar);
        let mut blocked = new(
            "synced, 256 B, 64 blocked threads: records per bare commit",
            Bar::AtLeast(15.0),
        );
        let mut receipts = new(
            "synced, 256 B, 256 receipts on 2 threads: the same",
            Bar::AtLeast(80.0),
        );
        let dir = scratch(self.dir)?;
        let log = workload::open(dir.path(), SyncPolicy::EveryCommit, &self.options())?;
        let many = Load {
            record_bytes: 256,
            producers: 64,
            ..LOAD
        };
        let few = Load {
            record_bytes: 256,
            producers: 2,
            outstanding: 128,
            ..LOAD
        };
        self.repeat(|| {
            for (series, load) in [(&mut blocked, &many), (&mut receipts, &few)] {
                let floor = self.commit_floor(BLOCK_BYTES)?;
                let outcome = workload::run(&log, dir.path(), load)?;
                // What the floor does in a second is one commit for each p50.
                series.add(outcome.records_per_second(), 1.0 / floor);
                series.note_outcome(&outcome);
            }
            Ok(())
        })?;
        close(log)?;
        Ok(vec![blocked, receipts])
    }

    fn memory(&self) -> Result<Vec<Series>, String> {
        let mut series = Series::new(
            "memory, 256 B, 1 producer, sustained / lower of two limits",
            "records/s",
            Bar::AtLeast(0.4),
        );
        let dir = scratch(self.dir)?;
        let log = workload::open(dir.path(), SyncPolicy::EveryCommit, &self.options())?;
        let load = Load {
            durability: Durability::Memory,
            record_bytes: 256,
            warm_up: Duration::from_millis(500),
            window: Duration::from_secs(3),
            ..LOAD
        };
        self.repeat(|| {
            let copied = bare::copy_and_checksum(256, Duration::from_millis(300));
            let written = self.write_floor()? / (256.0 + FRAME_BYTES);
            let outcome = workload::run(&log, dir.path(), &load)?;
            series.add(outcome.records_per_second(), copied.min(written));
            series.note(format!(
                "limits: copy + crc32 {:.1} M/s, raw disk {:.1} M/s; waited for room {} times; \
                 {} of {} segments recycled",
                copied / 1e6,
                written / 1e6,
                outcome.waited_for_room,
                outcome.engine.recycled_segments,
                outcome.engine.rotations,
            ));
            series.note_outcome(&outcome);
            Ok(())
        })?;
        close(log)?;
        Ok(vec![series])
    }

    fn recovery(&self) -> Result<Vec<Series>, String> {
        let mut series = Series::new(
            "recovery scan / raw read of the same file",
            "B/s",
            Bar::AtLeast(0.85),
        );
        self.repeat(|| {
            let dir = scratch(self.dir)?;
            Filler::start(dir.path(), self.io)?.kill_when_full()?;
            let segment = newest_segment(dir.path()).ok_or("there is no segment")?;
            let raw = bare::sequential_read(&segment)?;
            let log = Log::open(
                dir.path(),
                Options {
                    create: false,
                    ..self.options()
                },
            )
            .map_err(|error| format!("open: {error}"))?;
            let mut scanned = 0;
            let mut elapsed = Duration::ZERO;
            for shard in &log.recovery_report().shards {
                scanned += shard.bytes_scanned;
                elapsed += shard.elapsed;
                series.note(format!(
                    "{} records found, {} written again, {:.1} MiB scanned, {:?}, clean: {}",
                    shard.records,
                    shard.records_rewritten,
                    mib(shard.bytes_scanned as f64),
                    shard.elapsed,
                    shard.clean,
                ));
            }
            series.add(per_second(scanned, elapsed), raw);
            close(log)
        })?;
        Ok(vec![series])
    }

    fn amplification(&self) -> Result<Vec<Series>, String> {
        let mut series = Series::new(
            "synced, 1 KiB, 64 blocked threads, recycled: device bytes / payload bytes",
            "B",
            Bar::AtMost(1.15),
        );
        let dir = scratch(self.dir)?;
        let log = recycling_log(dir.path(), &self.options())?;
        let load = Load {
            record_bytes: 1024,
            producers: 64,
            ..LOAD
        };
        self.repeat(|| {
            let outcome = workload::run(&log, dir.path(), &load)?;
            series.add(
                outcome.engine.device_bytes as f64,
                outcome.payload_bytes as f64,
            );
            series.note(format!(
                "{:.1} records a commit",
                outcome.records as f64 / outcome.engine.commits.max(1) as f64
            ));
            note_recycling(&mut series, &outcome);
            Ok(())
        })?;
        close(log)?;
        Ok(vec![series])
    }
}

/// One blocked producer; what the figures have in common.
const LOAD: Load = Load {
    durability: Durability::Synced,
    record_bytes: 4096,
    batch_records: 1,
    producers: 1,
    outstanding: 1,
    timed: false,
    keep: Keep::TrimAbove(0),
    warm_up: Duration::from_millis(200),
    window: Duration::from_secs(1),
};

fn note_recycling(series: &mut Series, outcome: &Outcome) {
    series.note(format!(
        "{} of {} segments recycled",
        outcome.engine.recycled_segments, outcome.engine.rotations
    ));
    series.note_outcome(outcome);
}

/// A log that has filled several segments and trimmed them away.
fn recycling_log(dir: &Path, options: &Options) -> Result<Log, String> {
    let log = workload::open(dir, SyncPolicy::EveryCommit, options)?;
    let stream = log
        .stream("filling")
        .map_err(|error| format!("stream: {error}"))?;
    let batch = vec![incompressible(4096, 1); MIB / 4096];
    for _ in 0..RECYCLABLE_BYTES / MIB {
        stream
            .append_batch_within(&batch, Durability::Written, Duration::from_secs(60))
            .map_err(|error| format!("fill: {error}"))?;
    }
    log.flush().map_err(|error| format!("flush: {error}"))?;
    log.trim(0).map_err(|error| format!("trim: {error}"))?;
    Ok(log)
}

fn close(log: Log) -> Result<(), String> {
    log.close().map_err(|error| format!("close: {error}"))
}

/// A process that fills a log; killed when this goes.
struct Filler(Child);

impl Filler {
    fn start(dir: &Path, io: IoKind) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| format!("own program: {error}"))?;
        let io = match io {
            IoKind::Auto => "auto",
            IoKind::Uring => "uring",
            IoKind::Blocking => "blocking",
        };
        Command::new(program)
            .arg("fill-until-killed")
            .arg(dir)
            .arg(RECOVERED_BYTES.to_string())
            .arg(io)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map(Self)
            .map_err(|error| format!("start the filling process: {error}"))
    }

    fn kill_when_full(mut self) -> Result<(), String> {
        let stdout = self
            .0
            .stdout
            .take()
            .ok_or("the filling process has no output")?;
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .map_err(|error| format!("fill: {error}"))?;
        if line.trim() == "full" {
            Ok(())
        } else {
            Err("the filling process ended".to_owned())
        }
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        // Both only fail when the process has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The filling process: appends about `bytes`, flushes, says "full", and waits for its end.
///
/// # Errors
/// What went wrong before it was full, in words.
pub(crate) fn fill_until_killed(dir: &Path, bytes: u64, io: IoKind) -> Result<(), String> {
    let options = Options {
        io,
        ..Options::default()
    };
    let log = workload::open(dir, SyncPolicy::EveryCommit, &options)?;
    let stream = log
        .stream("filling")
        .map_err(|error| format!("stream: {error}"))?;
    let record = incompressible(256, 1);
    for _ in 0..bytes / (256 + FRAME_BYTES as u64) {
        stream
            .append_within(&record, Durability::Memory, Duration::from_secs(60))
            .map_err(|error| format!("append: {error}"))?;
    }
    log.flush().map_err(|error| format!("flush: {error}"))?;
    // An idle log notes within some 5 ms how far it is durable.
    thread::sleep(Duration::from_millis(50));
    println!("full");
    loop {
        thread::park();
    }
}

/// The segment that was written last, by its time of modification.
fn newest_segment(dir: &Path) -> Option<PathBuf> {
    let mut newest: Option<(SystemTime, PathBuf)> = None;
    for entry in std::fs::read_dir(dir).ok()?.flatten() {
        let Ok(facts) = entry.metadata() else {
            continue;
        };
        let found = if facts.is_dir() {
            newest_segment(&entry.path()).and_then(|path| Some((modified(&path)?, path)))
        } else if facts.len() >= MIB as u64 {
            facts.modified().ok().map(|time| (time, entry.path()))
        } else {
            None
        };
        if let Some(found) = found
            && newest.as_ref().is_none_or(|known| known.0 < found.0)
        {
            newest = Some(found);
        }
    }
    newest.map(|(_, path)| path)
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}

fn rounds_text(series: &Series) -> String {
    let mut text = format!("{}\n", series.what);
    for round in &series.rounds {
        let _ = writeln!(
            text,
            "  {:>12.6e} {} / {:>12.6e} = {}",
            round.figure,
            series.unit,
            round.floor,
            digits(round.ratio)
        );
    }
    for note in &series.notes {
        let _ = writeln!(text, "  - {note}");
    }
    text
}

fn table(all: &[Series]) -> String {
    let mut table = Table::new(1, ["figure", "min", "median", "max", "bar", "median is"]);
    for series in all {
        let (bar, reached) = match (series.bar, series.ratio) {
            (Bar::None, _) => ("-".to_owned(), "-"),
            (Bar::AtMost(bar), ratio) => (
                format!("<= {bar}"),
                verdict(ratio.map(|ratio| ratio.median <= bar)),
            ),
            (Bar::AtLeast(bar), ratio) => (
                format!(">= {bar}"),
                verdict(ratio.map(|ratio| ratio.median >= bar)),
            ),
        };
        let cell = |pick: fn(&Drift) -> f64| {
            series
                .ratio
                .as_ref()
                .map_or("-".into(), |r| digits(pick(r)))
        };
        table.row(&[
            series.what.to_owned(),
            cell(|ratio| ratio.min),
            cell(|ratio| ratio.median),
            cell(|ratio| ratio.max),
            bar,
            reached.to_owned(),
        ]);
    }
    format!("\n{}", table.text())
}

fn verdict(reached: Option<bool>) -> &'static str {
    match reached {
        Some(true) => "within",
        Some(false) => "MISSED",
        None => "-",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_round_and_the_bar_is_judged_by_the_median() {
        let mut series = Series::new("x", "s", Bar::AtMost(1.35));
        series.add(2.0, 1.0);
        series.add(12.0, 10.0);
        series.add(1.3, 1.0);
        let ratio = series.ratio.unwrap();
        assert!((ratio.min - 1.2).abs() < 1e-9 && (ratio.max - 2.0).abs() < 1e-9);
        assert!((ratio.median - 1.3).abs() < 1e-9);
        assert!(table(&[series]).contains("within"));
        let mut low = Series::new("y", "B/s", Bar::AtLeast(0.5));
        low.add(0.4, 1.0);
        assert!(table(&[low]).contains("MISSED"));
        let nothing = table(&[Series::new("z", "s", Bar::AtMost(1.0))]);
        assert!(
            !nothing.contains("within") && !nothing.contains("MISSED"),
            "{nothing}"
        );
    }

    #[test]
    fn a_series_is_valid_json_with_its_bar() {
        let mut series = Series::new("x", "s", Bar::AtMost(1.5));
        series.add(1.0, 2.0);
        let json: serde_json::Value =
            serde_json::from_str(&serde_json::to_string(&series).unwrap()).unwrap();
        assert_eq!(json["bar"]["at_most"], 1.5);
        assert_eq!(json["ratio"]["median"], 0.5);
        assert_eq!(json["rounds"][0]["floor"], 2.0);
    }

    #[test]
    fn the_newest_segment_is_found_below_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let shard = dir.path().join("shard");
        std::fs::create_dir(&shard).unwrap();
        assert_eq!(newest_segment(dir.path()), None);
        let old = SystemTime::UNIX_EPOCH;
        for (name, age) in [("a", 100), ("b", 300), ("c", 200)] {
            let file = std::fs::File::create(shard.join(name)).unwrap();
            file.set_len(MIB as u64).unwrap();
            file.set_modified(old + Duration::from_secs(age)).unwrap();
        }
        std::fs::write(shard.join("manifest"), "small and newest").unwrap();
        assert_eq!(newest_segment(dir.path()), Some(shard.join("b")));
    }
}
