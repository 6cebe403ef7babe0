//! `figures`: the project's own bars, each measured as a ratio to its floor.
//!
//! Floor and figure are measured one after the other, round by round, and only ratios of the same
//! round are compared: a host that is twice as slow for a minute changes both. Bars are printed
//! beside the ratios; nothing is asserted.

mod limit;
mod reading;
mod scale;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use hdrhistogram::Histogram;
use ringlog::{Durability, Log, Options, SyncPolicy};
use ringlog_disk::IoKind;

use crate::bare::{self, BareDisk};
use crate::contender::{Contender as _, Ringlog};
use crate::driven::Driven;
use crate::environment::{interrupted, scratch};
use crate::floor::{self, BLOCK_BYTES, Effort, Floor, mib};
use crate::group_commit::{GroupCommit, Wake};
use crate::measurement::Line;
use crate::percentile::{new_histogram, percentile_ns};
use crate::recover::{self, Killed};
use crate::report::{Failure, Out};
use crate::run::Run;
use crate::series::{Around, Bar, Series, table};
use crate::workload::{self, Keep, Load, Outcome, incompressible, per_second};

/// Bytes that a record takes beside its payload.
const FRAME_BYTES: f64 = 16.0;
/// What a log is filled with before its segments are trimmed, to have some to recycle.
const RECYCLABLE_BYTES: usize = 5 << 26;
/// How often the bare commits are measured anew when there are too few of them.
const FLOOR_ROUNDS_MAX: usize = 20;
const MIB: usize = 1 << 20;
/// The caller-driven shard and the bare primitives take turns of this length, ...
const SLICE: Effort = Effort { commits: Duration::from_millis(10), ..Effort::USUAL };
/// ... so many of them in a round.
const DRIVEN_SLICES: usize = 60;

/// One row of the table of figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Figure {
    /// One blocked producer, 4 KiB, against a bare commit
    Blocked,
    /// The same on a shard that the measuring thread drives itself
    Driven,
    /// 1 MiB batches against a sequential write
    Streaming,
    /// The slowest of a thousand that wait, one after the other, against that of bare commits
    Tail,
    /// 256 B one by one from one producer, against a sequential write
    Records,
    /// 256 B from many waiting at once, in bare commits
    Grouped,
    /// Processor time of a million durable records
    Cpu,
    /// Arrivals by themselves, at 80 % of saturation
    Load,
    /// Memory mode against copy + crc32 and the raw disk
    Memory,
    /// Memory mode on a disk in memory, against copy + crc32
    InMemory,
    /// Recovery against a raw read
    Recovery,
    /// Bytes on the device for each byte of payload
    Amplification,
    /// Device reads for one record at a random place of a sealed log
    Random,
    /// One stream among a thousand, from end to end
    Scan,
    /// A follower's delay behind the durable watermark
    Follower,
    /// Memory mode while its statistics are looked at, against the same left alone
    Stats,
    /// Latency with a rotation every 1 MiB, and without
    Rotation,
    /// Latency with rotation, retention and followers, and without
    Beside,
    /// Opening a large log after a clean close, and an empty one
    Open,
    /// A million streams: memory, appends in turn, reopening, random reads
    Streams,
}

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

/// Where and how often.
struct Bench<'a> {
    dir: &'a Path,
    disk: BareDisk,
    rounds: usize,
    io: IoKind,
    /// Size of the large log that is opened.
    open_bytes: u64,
    options: Options,
}

/// Which figures.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) run: Run,
    /// Measure these figures only
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_values_t = Figure::value_variants().to_vec()
    )]
    pub(crate) only: Vec<Figure>,
    /// Size of the log that the figure `open` opens, in bytes; less where there is no room for twice
    /// as much
    #[arg(long, value_name = "BYTES", default_value_t = 10 << 30)]
    pub(crate) open_bytes: u64,
}

/// Measures the chosen figures in a temporary directory inside `dir`. The length of a measurement is
/// each figure's own.
///
/// # Errors
/// What could not be measured, or written, in words; what was complete has been reported.
pub(crate) fn run_in(
    arguments: &Arguments,
    dir: &Path,
    _number: usize,
    out: &mut Out,
) -> Result<(), Failure> {
    let Run { rounds, io, .. } = arguments.run;
    let (io, open_bytes) = (io.kind(), arguments.open_bytes);
    out.print(&format!("\n{}: {rounds} rounds\n\n", dir.display()))?;
    let scratch = scratch(dir)?;
    let disk = BareDisk::create(scratch.path())?;
    let options = Options { io, ..Options::from_env().map_err(|error| error.to_string())? };
    let bench = Bench { dir: scratch.path(), disk, rounds, io, open_bytes, options };
    let mut all = Vec::new();
    let mut failures = Vec::new();
    for figure in &arguments.only {
        let measured = match figure {
            Figure::Blocked => bench.blocked(),
            Figure::Driven => bench.driven(),
            Figure::Streaming => bench.streaming(),
            Figure::Tail => bench.tail(),
            Figure::Records => bench.records(),
            Figure::Grouped => bench.grouped(),
            Figure::Cpu => bench.cpu(),
            Figure::Load => bench.load(),
            Figure::Memory => bench.memory(),
            Figure::InMemory => bench.in_memory(),
            Figure::Recovery => bench.recovery(),
            Figure::Amplification => bench.amplification(),
            Figure::Random => bench.random(),
            Figure::Scan => bench.scan(),
            Figure::Follower => bench.follower(),
            Figure::Stats => bench.stats(),
            Figure::Rotation => bench.rotation(),
            Figure::Beside => bench.beside(),
            Figure::Open => bench.open(),
            Figure::Streams => bench.streams(),
        };
        match measured {
            Ok(measured) => {
                for series in measured {
                    out.print(&series.rounds_text())?;
                    out.json_line(&Line::Figure(series.clone()))?;
                    all.push(series);
                }
            }
            Err(what) => failures.push(format!("{figure}: {what}")),
        }
    }
    out.print(&table(&all))?;
    if failures.is_empty() { Ok(()) } else { Err(Failure::Measuring(failures.join("; "))) }
}

/// A figure, and the same work with no log around it: to tell the part of the log from the machine's.
struct WithLimit {
    log: Series,
    bare: Series,
}

impl WithLimit {
    fn new(what: &str, unit: &str, bar: Bar) -> Self {
        let bare = Series::new(&format!("- {what}, without a log"), unit, Bar::None);
        Self { log: Series::new(what, unit, bar), bare }
    }

    fn into_rows(self) -> Vec<Series> {
        vec![self.log, self.bare]
    }
}

impl Bench<'_> {
    fn options(&self) -> Options {
        self.options.clone()
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
    fn commit_floor(&self) -> Result<f64, String> {
        let mut rounds = Vec::new();
        // A slow disk needs more time for the samples that a median wants.
        while rounds.len() < FLOOR_ROUNDS_MAX {
            rounds.push(floor::measure_commits(&self.disk, &[BLOCK_BYTES], Effort::USUAL)?);
            if let Some((_, ns)) = Floor::of(&rounds).best_ns(BLOCK_BYTES) {
                return Ok(ns as f64 / 1e9);
            }
        }
        Err("too few bare commits: the disk is too slow".to_owned())
    }

    /// Measures the floor, does the work, and measures the floor again.
    fn around<T>(
        &self,
        floor: impl Fn(&Self) -> Result<f64, String>,
        work: impl FnOnce() -> Result<T, String>,
    ) -> Result<(Around, T), String> {
        let before = floor(self)?;
        let done = work()?;
        Ok((Around { before, after: floor(self)? }, done))
    }

    /// Bytes per second of a sequential write.
    fn write_floor(&self) -> Result<f64, String> {
        self.disk.sequential_write(Effort::USUAL.sequential)
    }

    /// Measures the log and then what has no log around it, each between two floors.
    fn beside_limit(
        &self,
        series: &mut WithLimit,
        floor: impl Fn(&Self) -> Result<f64, String>,
        log: impl FnOnce() -> Result<Outcome, String>,
        bare: impl FnOnce() -> Result<Outcome, String>,
        figure: impl Fn(&Outcome) -> f64,
    ) -> Result<(), String> {
        let before = floor(self)?;
        let ours = log()?;
        let between = floor(self)?;
        let limit = bare()?;
        let after = floor(self)?;
        let around = Around { before, after: between };
        series.log.add(figure(&ours), around, detail(&ours));
        series.bare.add(figure(&limit), Around { before: between, after }, detail(&limit));
        Ok(())
    }

    fn blocked(&self) -> Result<Vec<Series>, String> {
        let mut series = Series::new(
            "synced, 1 blocked producer, 4 KiB: p50 / bare p50",
            "s",
            Bar::AtMost(1.25),
        );
        let dir = scratch(self.dir)?;
        let log = workload::open(dir.path(), SyncPolicy::EveryCommit, &self.options())?;
        let load = Load { record_bytes: 4096, timed: true, ..LOAD };
        self.repeat(|| {
            let (floor, outcome) =
                self.around(Self::commit_floor, || run_log(&log, dir.path(), &load))?;
            match percentile_ns(&outcome.latency, 500) {
                Some(p50) => series.add(p50 as f64 / 1e9, floor, detail(&outcome)),
                None => return Err("too few appends for a median".to_owned()),
            }
            Ok(())
        })?;
        close(log)?;
        Ok(vec![series])
    }

    /// On each kind of I/O that is to be had, or on the one that was asked for.
    fn driven(&self) -> Result<Vec<Series>, String> {
        let new = |what| Series::new(what, "s", Bar::AtMost(1.10));
        let mut kinds = Vec::new();
        if self.io != IoKind::Blocking {
            let what = "caller-driven, synced, 4 KiB, io_uring: p50 / better bare primitive's p50";
            kinds.push((IoKind::Uring, new(what)));
        }
        if self.io != IoKind::Uring {
            let what = "caller-driven, synced, 4 KiB, blocking: p50 / better bare primitive's p50";
            kinds.push((IoKind::Blocking, new(what)));
        }
        let mut open = Vec::new();
        for (io, series) in kinds {
            let dir = scratch(self.dir)?;
            let options = Options { io, ..self.options() };
            open.push((Driven::open(dir.path(), options, 4096)?, series, dir));
        }
        self.repeat(|| {
            for (driven, series, _) in &mut open {
                let (mut latency, mut rounds) = (new_histogram(), Vec::new());
                driven.run(LOAD.warm_up, &mut new_histogram())?;
                // In turns of a few commits: what disturbs the machine meets both.
                let few = |latency: &Histogram<u64>| percentile_ns(latency, 500).is_none();
                while rounds.len() < DRIVEN_SLICES
                    || rounds.len() < DRIVEN_SLICES * FLOOR_ROUNDS_MAX
                        && (few(&latency) || Floor::of(&rounds).best_ns(BLOCK_BYTES).is_none())
                {
                    rounds.push(floor::measure_commits(&self.disk, &[BLOCK_BYTES], SLICE)?);
                    driven.run(SLICE.commits, &mut latency)?;
                }
                let floor = Floor::of(&rounds).best_ns(BLOCK_BYTES);
                let (primitive, floor) = floor.ok_or("too few bare commits for a median")?;
                let p50 = percentile_ns(&latency, 500).ok_or("too few appends for a median")?;
                let detail = format!("{} appends; floor: {}", latency.len(), primitive.name());
                series.add(p50 as f64 / 1e9, Around::exact(floor as f64 / 1e9), detail);
            }
            Ok(())
        })?;
        let mut all = Vec::new();
        for (driven, series, _) in open {
            driven.close()?;
            all.push(series);
        }
        Ok(all)
    }

    fn streaming(&self) -> Result<Vec<Series>, String> {
        let new = |what, bar| Series::new(what, "B/s", bar);
        let mut recycled =
            new("synced, 1 MiB batches, 2 in flight, recycled / raw write", Bar::AtLeast(0.55));
        let mut fresh = new("the same on freshly prepared segments", Bar::None);
        let mut wide = new("recycled; 4 commits of 8 MiB, 8 batches in flight", Bar::None);
        let batches = Load { record_bytes: 4096, batch_records: MIB / 4096, ..LOAD };
        let two = Load { outstanding: 2, ..batches };
        let wide_options = Options {
            commits_in_flight: Some(4),
            commit_bytes: Some(8 << 20),
            memory_bytes: 64 << 20,
            ..self.options()
        };

        let (recycled_dir, wide_dir) = (scratch(self.dir)?, scratch(self.dir)?);
        let recycled_log = recycling_log(recycled_dir.path(), &self.options())?;
        let wide_log = recycling_log(wide_dir.path(), &wide_options)?;
        self.repeat(|| {
            let (floor, outcome) = self
                .around(Self::write_floor, || run_log(&recycled_log, recycled_dir.path(), &two))?;
            recycled.add(outcome.payload_per_second(), floor, detail(&outcome));

            let fresh_dir = scratch(self.dir)?;
            let log = workload::open(fresh_dir.path(), SyncPolicy::EveryCommit, &self.options())?;
            let growing = Load { keep: Keep::All, warm_up: Duration::from_millis(50), ..two };
            let (floor, outcome) =
                self.around(Self::write_floor, || run_log(&log, fresh_dir.path(), &growing))?;
            fresh.add(outcome.payload_per_second(), floor, detail(&outcome));
            close(log)?;
            drop(fresh_dir);

            let eight = Load { outstanding: 8, ..batches };
            let (floor, outcome) =
                self.around(Self::write_floor, || run_log(&wide_log, wide_dir.path(), &eight))?;
            wide.add(outcome.payload_per_second(), floor, detail(&outcome));
            Ok(())
        })?;
        close(recycled_log)?;
        close(wide_log)?;
        Ok(vec![recycled, fresh, wide])
    }

    fn grouped(&self) -> Result<Vec<Series>, String> {
        let mut all = Vec::new();
        for (threads, bar) in [(64, 20.0), (256, 28.0)] {
            let what = format!("synced, 256 B, {threads} blocked threads: records per bare commit");
            let load = Load { record_bytes: 256, producers: threads, ..LOAD };
            all.push((WithLimit::new(&what, "records/s", Bar::AtLeast(bar)), load));
        }
        for (receipts, bar) in [(64, 45.0), (256, 150.0), (4096, 400.0)] {
            let what = format!("synced, 256 B, {receipts} receipts on 2 threads: the same");
            let load = Load { record_bytes: 256, producers: 2, outstanding: receipts / 2, ..LOAD };
            all.push((WithLimit::new(&what, "records/s", Bar::AtLeast(bar)), load));
        }
        let (dir, bare_dir) = (scratch(self.dir)?, scratch(self.dir)?);
        let log = workload::open(dir.path(), SyncPolicy::EveryCommit, &self.options())?;
        let bare = GroupCommit::create(bare_dir.path(), true, Wake::WhenWaited)?;
        self.repeat(|| {
            for (series, load) in &mut all {
                let load = Load { keep: RECYCLED, ..*load };
                // What the floor does in a second is one commit for each p50.
                let commits_per_second = |bench: &Self| Ok(1.0 / bench.commit_floor()?);
                self.beside_limit(
                    series,
                    commits_per_second,
                    || run_log(&log, dir.path(), &load),
                    || workload::run(&bare, bare_dir.path(), &load),
                    Outcome::records_per_second,
                )?;
            }
            Ok(())
        })?;
        close(log)?;
        bare.close()?;
        Ok(all.into_iter().flat_map(|(series, _)| series.into_rows()).collect())
    }

    fn memory(&self) -> Result<Vec<Series>, String> {
        let what = "memory, 256 B, 1 producer, sustained / lower of two limits";
        let mut series = WithLimit::new(what, "records/s", Bar::AtLeast(0.75));
        let (dir, bare_dir) = (scratch(self.dir)?, scratch(self.dir)?);
        let log = workload::open(dir.path(), SyncPolicy::EveryCommit, &self.options())?;
        let bare = GroupCommit::create(bare_dir.path(), false, Wake::AtOnce)?;
        let load = Load {
            record_bytes: 256,
            warm_up: Duration::from_millis(500),
            window: Duration::from_secs(3),
            ..LOAD
        };
        self.repeat(|| {
            let limit = |bench: &Self| {
                let copied = bare::copy_and_checksum(256, Duration::from_millis(300));
                Ok(copied.min(bench.write_floor()? / (256.0 + FRAME_BYTES)))
            };
            self.beside_limit(
                &mut series,
                limit,
                || run_memory(&log, dir.path(), &load),
                || workload::run(&bare, bare_dir.path(), &load),
                Outcome::records_per_second,
            )
        })?;
        close(log)?;
        bare.close()?;
        Ok(series.into_rows())
    }

    /// What counting costs cannot be measured here, since it is always on; what looking costs can.
    fn stats(&self) -> Result<Vec<Series>, String> {
        let mut series = Series::new(
            "memory, 256 B, 1 producer: with 100 looks at stats() a second / with none",
            "records/s",
            Bar::AtLeast(0.98),
        );
        let dir = scratch(self.dir)?;
        let log = workload::open(dir.path(), SyncPolicy::EveryCommit, &self.options())?;
        let load = Load {
            record_bytes: 256,
            warm_up: Duration::from_millis(300),
            window: Duration::from_secs(2),
            ..LOAD
        };
        self.repeat(|| {
            let alone = |_: &Self| {
                run_memory(&log, dir.path(), &load).map(|outcome| outcome.records_per_second())
            };
            let looked_at = || {
                let over = AtomicBool::new(false);
                thread::scope(|scope| {
                    let looking = scope.spawn(|| {
                        let mut looks = 0;
                        while !over.load(Ordering::Relaxed) {
                            std::hint::black_box(log.stats());
                            looks += 1;
                            thread::sleep(LOOK_EVERY);
                        }
                        looks
                    });
                    let outcome = run_memory(&log, dir.path(), &load);
                    over.store(true, Ordering::Relaxed);
                    let looks = looking.join().map_err(|_| "a thread panicked".to_owned())?;
                    outcome.map(|outcome| (outcome, looks))
                })
            };
            let (floor, (outcome, looks)) = self.around(alone, looked_at)?;
            let detail = format!("{looks} looks; {}", detail(&outcome));
            series.add(outcome.records_per_second(), floor, detail);
            Ok(())
        })?;
        close(log)?;
        Ok(vec![series])
    }

    fn recovery(&self) -> Result<Vec<Series>, String> {
        let mut series =
            Series::new("recovery scan / raw read of the same file", "B/s", Bar::AtLeast(0.95));
        self.repeat(|| {
            let dir = scratch(self.dir)?;
            let Killed { before, after, scanned, elapsed, records, rewritten } =
                recover::after_kill(dir.path(), self.io, &self.options())?;
            let detail = format!(
                "{:.1} MiB in {elapsed:?}, {} records found, {} written again",
                mib(scanned as f64),
                records,
                rewritten,
            );
            series.add(per_second(scanned, elapsed), Around { before, after }, detail);
            Ok(())
        })?;
        Ok(vec![series])
    }

    fn amplification(&self) -> Result<Vec<Series>, String> {
        let mut series = Series::new(
            "synced, 1 KiB, 256 receipts on 2 threads, recycled: device bytes / payload bytes",
            "B",
            Bar::AtMost(1.08),
        );
        let dir = scratch(self.dir)?;
        let log = recycling_log(dir.path(), &self.options())?;
        let load =
            Load { record_bytes: 1024, producers: 2, outstanding: 128, keep: RECYCLED, ..LOAD };
        self.repeat(|| {
            let outcome = run_log(&log, dir.path(), &load)?;
            let (device, payload) = (outcome.claims.count("batch_bytes"), outcome.payload_bytes);
            series.add(device as f64, Around::exact(payload as f64), detail(&outcome));
            Ok(())
        })?;
        close(log)?;
        Ok(vec![series])
    }
}

/// How often statistics are looked at while the cost of that is measured.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// There are always a few segments to use again.
const RECYCLED: Keep = Keep::TrimAbove(256 << 20);

/// One blocked producer; what the figures have in common.
const LOAD: Load = Load {
    record_bytes: 4096,
    batch_records: 1,
    producers: 1,
    outstanding: 1,
    timed: false,
    keep: Keep::TrimAbove(0),
    warm_up: Duration::from_millis(200),
    window: Duration::from_secs(1),
    payload_bytes_max: None,
};

/// Runs a load of durable appends.
fn run_log(log: &Log, dir: &Path, load: &Load) -> Result<Outcome, String> {
    workload::run(&Ringlog::new(log.clone(), Durability::Synced), dir, load)
}

/// Runs a load that nobody waits for.
fn run_memory(log: &Log, dir: &Path, load: &Load) -> Result<Outcome, String> {
    workload::run(&Ringlog::new(log.clone(), Durability::Memory), dir, load)
}

/// What the log did in a round, in words.
fn detail(outcome: &Outcome) -> String {
    let claims = &outcome.claims;
    let mut text = format!(
        "{:.1} records a commit, {} rotations, {} recycled",
        outcome.records as f64 / claims.count("commits").max(1) as f64,
        claims.count("rotations"),
        claims.count("recycled_segments"),
    );
    if outcome.waited_for_room > 0 {
        let _ = write!(text, ", waited for room {} times", outcome.waited_for_room);
    }
    if let Some(reason) = &outcome.ended_early {
        let _ = write!(text, ", ENDED EARLY: {reason}");
    }
    text
}

/// A log that has filled several segments and trimmed them away.
fn recycling_log(dir: &Path, options: &Options) -> Result<Log, String> {
    let log = workload::open(dir, SyncPolicy::EveryCommit, options)?;
    let stream = log.stream("filling").map_err(|error| format!("stream: {error}"))?;
    let batch = vec![incompressible(4096, 1); MIB / 4096];
    for _ in 0..RECYCLABLE_BYTES / MIB {
        // The flush below answers for all of them.
        drop(
            stream
                .append_batch_within(&batch, Durability::Written, Duration::from_secs(60))
                .map_err(|error| format!("fill: {error}"))?,
        );
    }
    log.flush().map_err(|error| format!("flush: {error}"))?;
    log.trim(0).map_err(|error| format!("trim: {error}"))?;
    Ok(log)
}

fn close(log: Log) -> Result<(), String> {
    log.close().map_err(|error| format!("close: {error}"))
}
