//! Figures that tell how near the log comes to what disk, memory and processor can do.

use std::time::Duration;

use hdrhistogram::Histogram;
use ringlog::{Durability, Log, Options, SyncPolicy};

use super::{
    Bench, LOAD, MIB, RECYCLED, SLICE, WithLimit, close, detail, recycling_log, run_log, run_memory,
};
use crate::bare;
use crate::contender::{Contender as _, Ringlog};
use crate::driven::Driven;
use crate::environment::scratch;
use crate::floor::{self, BLOCK_BYTES, Effort, Floor, Round};
use crate::group_commit::{self, GroupCommit, Wake};
use crate::open_loop::{self, Offered};
use crate::pauses::Pauses;
use crate::percentile::{new_histogram, percentile_ns};
use crate::rotate::{self, Way};
use crate::series::{Around, Bar, Series};
use crate::workload::{self, Keep, Load, Outcome};

/// The slowest of a thousand wants a hundred thousand samples: so long is everything that is set
/// against it, and so long are all primitives of the floor together.
const TAIL_WINDOW: Duration = Duration::from_secs(20);
/// Receipts of a producer that waits for none of them until so many are on their way: more than the
/// log's memory holds, so that its memory is what bounds them.
const UNBOUNDED: usize = 1 << 17;
/// Threads that records come from in the open loop.
const LOAD_THREADS: usize = 2;
/// Part of saturation at which the open loop is measured.
const OPEN_LOOP_PART: f64 = 0.8;
/// Memory of a log whose device is memory, too: little, so that the device is not filled.
const IN_MEMORY_SEGMENT_BYTES: u64 = 4 << 20;

impl Bench<'_> {
    /// The slowest of a thousand, for one that waits for each record.
    pub(super) fn tail(&self) -> Result<Vec<Series>, String> {
        let new = |what| Series::new(what, "s", Bar::AtMost(1.25));
        let mut driven = new("caller-driven, synced, 4 KiB: p99.9 / better bare primitive's p99.9");
        let mut blocked = new("synced, 1 blocked producer, 4 KiB: p99.9 / bare p99.9");

        let driven_dir = scratch(self.dir)?;
        let mut shard = Driven::open(driven_dir.path(), self.options(), BLOCK_BYTES)?;
        shard.run(LOAD.warm_up, &mut new_histogram())?;
        let dir = scratch(self.dir)?;
        let log = workload::open(dir.path(), SyncPolicy::EveryCommit, &self.options())?;
        let load = Load { timed: true, window: TAIL_WINDOW, ..LOAD };
        self.repeat(|| {
            // In turns of a few commits: what disturbs the machine meets both.
            let (mut latency, mut floors) = (new_histogram(), Vec::new());
            for _ in 0..TAIL_WINDOW.as_millis() / SLICE.commits.as_millis() {
                floors.push(floor::measure_commits(&self.disk, &[BLOCK_BYTES], SLICE)?);
                shard.run(SLICE.commits, &mut latency)?;
            }
            add_tail(&mut driven, &latency, &floors, String::new())?;

            let half = Effort { commits: TAIL_WINDOW / 2, ..Effort::USUAL };
            let bare = || floor::measure_commits(&self.disk, &[BLOCK_BYTES], half);
            let (before, outcome, after) = (bare()?, run_log(&log, dir.path(), &load)?, bare()?);
            add_tail(&mut blocked, &outcome.latency, &[before, after], detail(&outcome))
        })?;
        close(log)?;
        shard.close()?;
        Ok(vec![driven, blocked])
    }

    /// Records one by one from one producer, as fast as it can.
    pub(super) fn records(&self) -> Result<Vec<Series>, String> {
        let what = "synced, 256 B, 1 producer, 2 commits in flight, recycled / raw write";
        let mut usual = WithLimit::new(what, "B/s", Bar::AtLeast(0.55));
        let what = "the same; 4 commits of 8 MiB in flight";
        let mut wide = Series::new(what, "B/s", Bar::AtLeast(0.80));
        let wide_options = Options {
            commits_in_flight: Some(4),
            commit_bytes: Some(8 << 20),
            memory_bytes: 64 << 20,
            ..self.options()
        };
        let two_options = Options { commits_in_flight: Some(2), ..self.options() };
        let (usual_dir, wide_dir) = (scratch(self.dir)?, scratch(self.dir)?);
        let bare_dir = scratch(self.dir)?;
        let usual_log = recycling_log(usual_dir.path(), &two_options)?;
        let wide_log = recycling_log(wide_dir.path(), &wide_options)?;
        let bare = GroupCommit::create(bare_dir.path(), true, Wake::AtOnce)?;
        let load = Load { record_bytes: 256, outstanding: UNBOUNDED, keep: RECYCLED, ..LOAD };
        self.repeat(|| {
            self.beside_limit(
                &mut usual,
                Self::write_floor,
                || run_log(&usual_log, usual_dir.path(), &load),
                || workload::run(&bare, bare_dir.path(), &load),
                Outcome::payload_per_second,
            )?;
            let (floor, outcome) =
                self.around(Self::write_floor, || run_log(&wide_log, wide_dir.path(), &load))?;
            wide.add(outcome.payload_per_second(), floor, detail(&outcome));
            Ok(())
        })?;
        close(usual_log)?;
        close(wide_log)?;
        bare.close()?;
        let mut rows = usual.into_rows();
        rows.push(wide);
        Ok(rows)
    }

    /// `Memory` where no disk is in the way: what the log itself costs for each record.
    pub(super) fn in_memory(&self) -> Result<Vec<Series>, String> {
        let cases = [(64, 1, 0.5), (256, 1, 0.8), (4096, 1, 0.8), (256, 16, 0.5)];
        let mut all = Vec::new();
        for (record_bytes, producers, bar) in cases {
            let s = if producers == 1 { "" } else { "s" };
            let what = format!(
                "memory on the in-memory disk, {record_bytes} B, {producers} producer{s}: records / copy + crc32"
            );
            let mut series = WithLimit::new(&what, "records/s", Bar::AtLeast(bar));
            let what = format!("- {what}: one lock, crc32, a copy to where it is kept, no more");
            let mut kept = Series::new(&what, "records/s", Bar::None);
            let load = Load { record_bytes, producers, keep: RECYCLED, ..LOAD };
            let bare = GroupCommit::in_memory()?;
            self.repeat(|| {
                // One core is what the floor has.
                let limit = |_: &Self| {
                    Ok(bare::copy_and_checksum(record_bytes, Duration::from_millis(300)))
                };
                let dir = scratch(self.dir)?;
                let (log, _device) = Log::in_memory(in_memory(&self.options()))
                    .map_err(|error| format!("open: {error}"))?;
                self.beside_limit(
                    &mut series,
                    limit,
                    || run_memory(&log, dir.path(), &load),
                    || workload::run(&bare, dir.path(), &load),
                    Outcome::records_per_second,
                )?;
                if producers == 1 {
                    let time = Duration::from_millis(300);
                    let before = limit(self)?;
                    let least = bare::copy_to_keep(record_bytes, time);
                    let around = Around { before, after: limit(self)? };
                    kept.add(least, around, String::new());
                }
                close(log)
            })?;
            all.extend(series.into_rows());
            all.extend((producers == 1).then_some(kept));
        }
        Ok(all)
    }

    /// Arrivals by themselves, at four fifths of what the log takes.
    pub(super) fn load(&self) -> Result<Vec<Series>, String> {
        let what =
            "open loop at 80 % of saturation, synced, 256 B: p99.9 / bare p50 of its mean commit";
        let mut series = WithLimit::new(what, "s", Bar::AtMost(3.0));
        let what = format!("- {what}: what {} threads that look at the clock wait", LOAD_THREADS);
        let mut pauses = Series::new(&what, "s", Bar::None);
        let (dir, bare_dir) = (scratch(self.dir)?, scratch(self.dir)?);
        let bare = GroupCommit::create(bare_dir.path(), true, Wake::AtOnce)?;
        let log = recycling_log(dir.path(), &self.options())?;
        let load = Load {
            record_bytes: 256,
            producers: LOAD_THREADS,
            outstanding: 128,
            timed: true,
            keep: RECYCLED,
            window: Duration::from_secs(3),
            ..LOAD
        };
        let mut seed = 0;
        self.repeat(|| {
            seed += 1;
            let saturation = run_log(&log, dir.path(), &load)?.records_per_second();
            let offered = Offered { per_second: saturation * OPEN_LOOP_PART, seed };
            let contender = Ringlog::new(log.clone(), Durability::Synced);
            let outcome = open_loop::run(&contender, dir.path(), &load, &offered)?.outcome;
            let mean = outcome.claims.count("batch_bytes") / outcome.claims.count("commits").max(1);
            let bytes = floor::record_size(mean as usize);
            let floor = self.commit_floor_of(bytes)?;
            let detail = format!("commits of {bytes} bytes, {saturation:.0}/s saturated");
            let p999 = |latency| percentile_ns(latency, 999).ok_or(TOO_FEW);
            let ours = p999(&outcome.latency)? as f64 / 1e9;
            series.log.add(ours, Around::exact(floor), detail.clone());
            // The same arrivals.
            let bare = open_loop::run(&bare, bare_dir.path(), &load, &offered)?.outcome;
            let limit = p999(&bare.latency)? as f64 / 1e9;
            series.bare.add(limit, Around::exact(floor), detail);
            let paused = Pauses::measure(LOAD_THREADS, load.window)?.wait_ns(0.999);
            pauses.add(paused as f64 / 1e9, Around::exact(floor), String::new());
            Ok(())
        })?;
        close(log)?;
        bare.close()?;
        let mut rows = series.into_rows();
        rows.push(pauses);
        Ok(rows)
    }

    /// Processor time of a million durable records.
    pub(super) fn cpu(&self) -> Result<Vec<Series>, String> {
        let what = "synced, 256 B, 256 receipts on 2 threads: CPU seconds a million / 1 s";
        let mut series = WithLimit::new(what, "s", Bar::AtMost(0.25));
        let what = format!("- {what}: all 256 in each commit, no log, no lock");
        let mut least = Series::new(&what, "s", Bar::None);
        let (dir, bare_dir) = (scratch(self.dir)?, scratch(self.dir)?);
        let least_dir = scratch(self.dir)?;
        let bare = GroupCommit::create(bare_dir.path(), true, Wake::WhenWaited)?;
        let log = recycling_log(dir.path(), &self.options())?;
        let load =
            Load { record_bytes: 256, producers: 2, outstanding: 128, keep: RECYCLED, ..LOAD };
        self.repeat(|| {
            let a_million = |outcome: &Outcome| {
                outcome.counted.cpu.as_secs_f64() * 1e6 / outcome.records.max(1) as f64
            };
            self.beside_limit(
                &mut series,
                |_| Ok(1.0),
                || run_log(&log, dir.path(), &load),
                || workload::run(&bare, bare_dir.path(), &load),
                a_million,
            )?;
            let Load { producers, outstanding, record_bytes, window, .. } = load;
            let (records, counted) = group_commit::whole_groups(
                least_dir.path(),
                producers as u32,
                outstanding,
                record_bytes,
                window,
            )?;
            let cpu = counted.cpu.as_secs_f64() * 1e6 / records.max(1) as f64;
            least.add(cpu, Around::exact(1.0), String::new());
            Ok(())
        })?;
        close(log)?;
        bare.close()?;
        let mut rows = series.into_rows();
        rows.push(least);
        Ok(rows)
    }

    /// An append while segments come and go and others follow, against one that is alone.
    pub(super) fn beside(&self) -> Result<Vec<Series>, String> {
        let what = "synced, 4 KiB, with rotation, retention, 3 followers / without: p50";
        let mut series = Series::new(what, "s", Bar::AtMost(1.15));
        let load = Load { timed: true, keep: Keep::All, window: Duration::from_secs(4), ..LOAD };
        let mut kept = Vec::new();
        self.repeat(|| {
            let mut p50 = |way| {
                let dir = scratch(self.dir)?;
                let outcome = rotate::measure(way, dir.path(), &self.options(), &load)?;
                kept.push(dir);
                let ns = percentile_ns(&outcome.latency, 500).ok_or(TOO_FEW)?;
                Ok::<_, String>((ns as f64 / 1e9, detail(&outcome)))
            };
            let alone = Way { segment_mib: 64, followers: 0 };
            let (before, _) = p50(alone)?;
            let (figure, detail) = p50(Way { segment_mib: 1, followers: 3 })?;
            let (after, _) = p50(alone)?;
            series.add(figure, Around { before, after }, detail);
            Ok(())
        })?;
        Ok(vec![series])
    }

    /// Median of the better bare commit of so many bytes, in seconds.
    fn commit_floor_of(&self, bytes: usize) -> Result<f64, String> {
        let round = floor::measure_commits(&self.disk, &[bytes], Effort::USUAL)?;
        let (_, ns) = Floor::of([&round]).best_ns(bytes).ok_or(TOO_FEW)?;
        Ok(ns as f64 / 1e9)
    }
}

const TOO_FEW: &str = "too few samples for a percentile";

/// Sets the slowest of a thousand against that of the better primitive, all of its rounds together.
fn add_tail(
    series: &mut Series,
    latency: &Histogram<u64>,
    floors: &[Round],
    detail: String,
) -> Result<(), String> {
    let (_, floor) = Floor::of(floors).best_tail_ns(BLOCK_BYTES).ok_or(TOO_FEW)?;
    let p999 = percentile_ns(latency, 999).ok_or(TOO_FEW)?;
    series.add(p999 as f64 / 1e9, Around::exact(floor as f64 / 1e9), detail);
    Ok(())
}

/// A log whose device is memory keeps little.
fn in_memory(options: &Options) -> Options {
    let format = ringlog::Format { segment_bytes: Some(IN_MEMORY_SEGMENT_BYTES), shards: Some(1) };
    let max_segments = Some(4);
    let retention = ringlog::Retention { max_segments, ..options.retention };
    let batch_bytes_max = MIB.min(options.batch_bytes_max);
    Options { format, retention, batch_bytes_max, ..options.clone() }
}
