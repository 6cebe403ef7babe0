//! Figures that tell how the log bears size: rotation, the opening of a large log, very many streams.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use ringlog::{Durability, Format, Log, Offset, Options, Receipt, Stream, SyncPolicy};

use super::{Bench, LOAD, close, detail, run_log};
use crate::environment::{free_bytes, interrupted, scratch};
use crate::percentile::percentile_ns;
use crate::recover::{fill, first_append};
use crate::series::{Around, Bar, Series};
use crate::streams::{create, name, resident_bytes};
use crate::workload::{self, Keep, Load, incompressible, per_second};

const MIB: u64 = 1 << 20;
/// Streams of the figure about many.
const STREAMS: u32 = 1_000_000;
/// Streams of what that is set against.
const FEW_STREAMS: u32 = 100;
/// Receipts in flight there.
const OUTSTANDING: usize = 256;
/// How often each log is opened in a round.
const OPENS: usize = 7;
/// Records that are read at random.
const RANDOM_READS: usize = 1_000;
const PATIENCE: Duration = Duration::from_secs(60);

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn said<E: std::fmt::Display>(doing: &'static str) -> impl Fn(E) -> String {
    move |error| format!("{doing}: {error}")
}

impl Bench<'_> {
    fn with_segments(&self, bytes: u64) -> Options {
        let format = Format { segment_bytes: Some(bytes), shards: Some(1) };
        Options { format, ..self.options() }
    }

    /// One blocked producer on segments of 1 MiB, against one on segments of 64 MiB.
    ///
    /// The logs stay until the end: ext4 does not use the inode of a removed file again for a
    /// minute or more, and passes over each of them whenever a file is created near by. After
    /// thousands of removals that takes most of a millisecond, and would be what is measured.
    pub(super) fn rotation(&self) -> Result<Vec<Series>, String> {
        let what = "synced, 4 KiB, rotation every 1 MiB / every 64 MiB: p99.9";
        let mut p999 = Series::new(what, "s", Bar::AtMost(1.5));
        let mut p50 = Series::new("the same: p50", "s", Bar::None);
        let load = Load { timed: true, keep: Keep::All, window: Duration::from_secs(20), ..LOAD };
        let mut kept = Vec::new();
        self.repeat(|| {
            let mut run = |segment_bytes| {
                let dir = scratch(self.dir)?;
                let options = self.with_segments(segment_bytes);
                let log = workload::open(dir.path(), SyncPolicy::EveryCommit, &options)?;
                let outcome = run_log(&log, dir.path(), &load)?;
                close(log)?;
                kept.push(dir);
                Ok::<_, String>(outcome)
            };
            let (before, outcome, after) = (run(64 * MIB)?, run(MIB)?, run(64 * MIB)?);
            for (series, per_mille) in [(&mut p999, 999), (&mut p50, 500)] {
                let seconds = |outcome: &workload::Outcome| {
                    percentile_ns(&outcome.latency, per_mille)
                        .map(|ns| ns as f64 / 1e9)
                        .ok_or("too few appends for a percentile")
                };
                let floor = Around { before: seconds(&before)?, after: seconds(&after)? };
                series.add(seconds(&outcome)?, floor, detail(&outcome));
            }
            Ok(())
        })?;
        Ok(vec![p999, p50])
    }

    /// From the call that opens a log to its first durable append, for a large log and an empty one.
    pub(super) fn open(&self) -> Result<Vec<Series>, String> {
        let what = "open to first durable append after a clean close: large log / empty log";
        let mut series = Series::new(what, "s", Bar::AtMost(1.3));
        let room = free_bytes(self.dir).ok_or("df does not tell how much room there is")? / 2;
        let bytes = self.open_bytes.min(room);
        let note = match bytes < self.open_bytes {
            true => format!("{} MiB only, for want of room", bytes / MIB),
            false => format!("{} MiB", bytes / MIB),
        };
        let (large, empty) = (scratch(self.dir)?, scratch(self.dir)?);
        fill(large.path(), bytes, &self.with_segments(64 * MIB))?;
        fill(empty.path(), 0, &self.with_segments(64 * MIB))?;
        // Once before anything is counted: the code and the directories are warm for both.
        self.first_append(empty.path())?;
        self.first_append(large.path())?;
        self.repeat(|| {
            let (mut before, mut figure, mut after) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..OPENS {
                before.push(self.first_append(empty.path())?);
                figure.push(self.first_append(large.path())?);
                after.push(self.first_append(empty.path())?);
            }
            let [before, figure, after] = [before, figure, after].map(median);
            series.add(figure, Around { before, after }, note.clone());
            Ok(())
        })?;
        Ok(vec![series])
    }

    fn first_append(&self, dir: &Path) -> Result<f64, String> {
        first_append(dir, &self.options()).map(|took| took.as_secs_f64())
    }

    /// A million streams: memory, descriptors, appends to them in turn, reopening, random reads.
    pub(super) fn streams(&self) -> Result<Vec<Series>, String> {
        let new = Series::new;
        let mut memory =
            new("memory per idle stream, 1,000,000 of them / 1 B", "B", Bar::AtMost(160.0));
        let mut descriptors =
            new("descriptors: with 1,000,000 streams / with one", "", Bar::AtMost(1.0));
        let mut rate = new(
            "synced, 256 B, 256 outstanding: 1,000,000 streams in turn / 100 streams",
            "records/s",
            Bar::AtLeast(0.8),
        );
        let mut reopened =
            new("opening 1,000,000 streams / one, after a clean close", "s", Bar::None);
        let mut reads = new("a random read of them, median / 1 s", "s", Bar::None);

        let (many_dir, few_dir) = (scratch(self.dir)?, scratch(self.dir)?);
        let options = Options { memory_bytes: 16 << 20, ..self.with_segments(64 * MIB) };
        let few = Log::open(few_dir.path(), options.clone()).map_err(said("open"))?;
        let few_streams = create(&few, FEW_STREAMS, true)?;
        let log = Log::open(many_dir.path(), options.clone()).map_err(said("open"))?;
        // What any log needs once is there before anything is counted.
        let first = log.stream("first").map_err(said("stream"))?;
        in_turn(std::slice::from_ref(&first), Duration::from_secs(2))?;
        let (rss, files) = (resident_bytes()?, open_files()?);
        let begun = Instant::now();
        drop(create(&log, STREAMS, false)?);
        log.flush().map_err(said("flush"))?;
        let took = begun.elapsed();
        let grown = resident_bytes()?.saturating_sub(rss) as f64 / f64::from(STREAMS);
        let note = format!("created in {took:?}");
        memory.add(grown, Around::exact(1.0), note);
        descriptors.add(open_files()? as f64, Around::exact(files as f64), String::new());

        let many_streams = create(&log, STREAMS, true)?;
        self.repeat(|| {
            let window = Duration::from_secs(4);
            let before = in_turn(&few_streams, window)?;
            let figure = in_turn(&many_streams, window)?;
            let after = in_turn(&few_streams, window)?;
            let rotations: u64 = log.stats().shards.iter().map(|shard| shard.rotations).sum();
            rate.add(figure, Around { before, after }, format!("{rotations} rotations so far"));
            Ok(())
        })?;
        drop((many_streams, few_streams, first));
        close(log)?;
        close(few)?;

        let opened = |dir: &Path| {
            let begun = Instant::now();
            let log = Log::open(dir, options.clone()).map_err(said("open"))?;
            Ok::<_, String>((begun.elapsed().as_secs_f64(), log))
        };
        let (before, few) = opened(few_dir.path())?;
        close(few)?;
        let rss = resident_bytes()?;
        let (figure, log) = opened(many_dir.path())?;
        let grown = resident_bytes()?.saturating_sub(rss) >> 20;
        reopened.add(figure, Around::exact(before), format!("{grown} MiB more in memory"));
        let mut seconds = Vec::with_capacity(RANDOM_READS);
        let mut state = 1_u64;
        while seconds.len() < RANDOM_READS && !interrupted() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let name = name((state >> 33) as u32 % STREAMS);
            let begun = Instant::now();
            let stream = log.existing_stream(&name).map_err(said("stream"))?;
            if stream.next_offset() > Offset(0) {
                stream.get(Offset(0)).map_err(said("read"))?;
                seconds.push(begun.elapsed().as_secs_f64());
            }
        }
        seconds.sort_by(f64::total_cmp);
        let note = format!("{} reads", seconds.len());
        let median = seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN);
        reads.add(median, Around::exact(1.0), note);
        close(log)?;
        Ok(vec![memory, descriptors, rate, reopened, reads])
    }
}

/// Appends to each stream in turn for this long; gives records acknowledged each second.
fn in_turn(streams: &[Stream], window: Duration) -> Result<f64, String> {
    let record = incompressible(256, 7);
    let mut in_flight: VecDeque<Receipt> = VecDeque::with_capacity(OUTSTANDING);
    let (mut acknowledged, begun) = (0_u64, Instant::now());
    for stream in streams.iter().cycle() {
        if in_flight.len() == OUTSTANDING
            && let Some(oldest) = in_flight.pop_front()
        {
            oldest.wait().map_err(said("wait"))?;
            acknowledged += 1;
            if begun.elapsed() >= window {
                break;
            }
        }
        let receipt = stream.append_within(&record, Durability::Synced, PATIENCE);
        in_flight.push_back(receipt.map_err(said("append"))?);
    }
    let rate = per_second(acknowledged, begun.elapsed());
    for receipt in in_flight {
        receipt.wait().map_err(said("wait"))?;
    }
    Ok(rate)
}

/// Descriptors that stay: the least of several looks, because a segment that is being sealed or prepared
/// has one for a moment.
fn open_files() -> Result<usize, String> {
    let mut least = usize::MAX;
    for _ in 0..20 {
        let files = std::fs::read_dir("/proc/self/fd").map_err(said("list descriptors"))?.count();
        least = least.min(files);
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(least)
}
