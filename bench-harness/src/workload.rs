//! A closed loop of producers on one log, measured.
//!
//! Each producer is a thread with a stream of its own: it appends and waits, or keeps a number of
//! receipts in flight. Latency is taken per record, from before the append call to the
//! acknowledgement (for memory: to the return of the call), into a histogram per thread.
//! Appends go on before and after the measured window, so that it sees neither the start nor the
//! end; what is acknowledged inside the window counts.
//!
//! The log's files are held within [`DISK_BYTES_MAX`] by trimming while running, which also makes
//! the log recycle segments; when trimming does not help, the run ends early and says so.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ringlog::{
    AppendError, Durability, FullReason, Log, Options, Receipt, Stats, Stream, SyncPolicy,
};

use crate::environment::{bytes_below, interrupted};
use crate::percentile::new_histogram;

/// Most bytes of a log on disk.
pub(crate) const DISK_BYTES_MAX: u64 = 2 << 30;
/// A run ends when it comes this near to the bound: what a fast disk writes between two looks.
const DISK_BYTES_MARGIN: u64 = 256 << 20;
/// How often the disk is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The same where all of it is kept.
const LOOK_AT_ALL_EVERY: Duration = Duration::from_millis(250);
/// An acknowledgement that takes longer is an error of the run, not a latency.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(60);

const WARMING: u8 = 0;
const MEASURING: u8 = 1;
const OVER: u8 = 2;

/// How the log's files are held within bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Sealed segments are trimmed away at each look while there are more bytes than this.
    TrimAbove(u64),
    /// All, until the run has to end.
    All,
}

/// What the producers do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// The level each append asks for.
    pub(crate) durability: Durability,
    /// Payload of one record in bytes.
    pub(crate) record_bytes: usize,
    /// Records of one append; above 1, they go in as an atomic batch, whose latency is taken once.
    pub(crate) batch_records: usize,
    /// Number of threads.
    pub(crate) producers: usize,
    /// Receipts that each of them keeps in flight; 1 is a blocked producer. Of no meaning for
    /// `Memory`, which is acknowledged at once.
    pub(crate) outstanding: usize,
    /// Whether the latency of each append is taken. Without it a clock is not read.
    pub(crate) timed: bool,
    /// What is done about the log's growth.
    pub(crate) keep: Keep,
    /// Time before the window.
    pub(crate) warm_up: Duration,
    /// Length of the window.
    pub(crate) window: Duration,
}

/// What came of a run.
pub(crate) struct Outcome {
    /// Of all producers together, in ns.
    pub(crate) latency: Histogram<u64>,
    /// Records acknowledged inside the window.
    pub(crate) records: u64,
    /// Their payload in bytes.
    pub(crate) payload_bytes: u64,
    /// Length of the window.
    pub(crate) elapsed: Duration,
    /// What the log did inside the window.
    pub(crate) engine: EngineWork,
    /// Appends that found the log full and waited for room, warm-up included.
    pub(crate) waited_for_room: u64,
    /// Sealed segments trimmed away while running.
    pub(crate) segments_trimmed: u64,
    /// Why the run ended before its time, where it did.
    pub(crate) ended_early: Option<String>,
}

impl Outcome {
    /// Records acknowledged each second.
    pub(crate) fn records_per_second(&self) -> f64 {
        per_second(self.records, self.elapsed)
    }

    /// Payload bytes acknowledged each second.
    pub(crate) fn payload_per_second(&self) -> f64 {
        per_second(self.payload_bytes, self.elapsed)
    }
}

/// The difference of two looks at a log's statistics, over all shards.
pub(crate) struct EngineWork {
    pub(crate) flushes: u64,
    pub(crate) commits: u64,
    pub(crate) device_bytes: u64,
    pub(crate) rotations: u64,
    pub(crate) recycled_segments: u64,
    /// Time of write and flush of each commit that was flushed, in ns.
    pub(crate) flush_latency: Histogram<u64>,
}

impl EngineWork {
    fn between(before: &Stats, after: &Stats) -> Self {
        let mut work = Self {
            flushes: 0,
            commits: 0,
            device_bytes: 0,
            rotations: 0,
            recycled_segments: 0,
            flush_latency: new_histogram(),
        };
        for (before, after) in before.shards.iter().zip(&after.shards) {
            work.flushes += after.flushes.saturating_sub(before.flushes);
            work.commits += after.commits.saturating_sub(before.commits);
            work.device_bytes += after.bytes_written.saturating_sub(before.bytes_written);
            work.rotations += after.rotations.saturating_sub(before.rotations);
            work.recycled_segments +=
                after.recycled_segments.saturating_sub(before.recycled_segments);
            for value in after.flush_latency.iter_recorded() {
                let count = value
                    .count_at_value()
                    .saturating_sub(before.flush_latency.count_at(value.value_iterated_to()));
                work.flush_latency.saturating_record_n(value.value_iterated_to(), count);
            }
        }
        work
    }
}

/// Opens a new log in `dir` with the harness's choices on top of the defaults.
///
/// # Errors
/// Why it cannot be opened, in words.
pub(crate) fn open(dir: &Path, sync: SyncPolicy, options: &Options) -> Result<Log, String> {
    Log::open(dir, Options { sync, ..options.clone() }).map_err(|error| format!("open: {error}"))
}

/// Runs `load` on `log`, whose files lie in `dir`.
///
/// # Errors
/// The first error that a producer met, in words; what it had measured is lost with it.
pub(crate) fn run(log: &Log, dir: &Path, load: &Load) -> Result<Outcome, String> {
    let streams = (0..load.producers)
        .map(|producer| log.stream(&format!("producer-{producer}")))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("stream: {error}"))?;
    let (phase, started) = (AtomicU8::new(WARMING), AtomicUsize::new(0));
    thread::scope(|scope| {
        let mut threads = Vec::with_capacity(load.producers);
        for (number, stream) in streams.iter().enumerate() {
            let (phase, started) = (&phase, &started);
            let producer = Producer::new(stream, load, phase, number);
            let thread = thread::Builder::new().spawn_scoped(scope, move || {
                started.fetch_add(1, Ordering::Relaxed);
                let produced = producer.run();
                if produced.is_err() {
                    phase.store(OVER, Ordering::Relaxed);
                }
                produced
            });
            threads.push(thread.map_err(|error| {
                phase.store(OVER, Ordering::Relaxed);
                format!("start producer {number}: {error}")
            })?);
        }
        while started.load(Ordering::Relaxed) < load.producers {
            thread::sleep(Duration::from_millis(1));
        }

        let mut keeper = DiskKeeper { log, dir, keep: load.keep, segments_trimmed: 0 };
        let mut ended_early = keeper.watch(load.warm_up, &phase);
        let before = log.stats();
        let begun = Instant::now();
        if ended_early.is_none() && phase.load(Ordering::Relaxed) == WARMING {
            phase.store(MEASURING, Ordering::Relaxed);
            ended_early = keeper.watch(load.window, &phase);
        }
        phase.store(OVER, Ordering::Relaxed);
        let elapsed = begun.elapsed();
        let after = log.stats();

        let mut latency = new_histogram();
        let (mut records, mut waited_for_room) = (0, 0);
        for thread in threads {
            let produced = thread.join().map_err(|_| "a producer panicked".to_owned())??;
            latency.add(&produced.latency).map_err(|error| format!("merge: {error}"))?;
            records += produced.records;
            waited_for_room += produced.waited_for_room;
            ended_early = ended_early.or(produced.ended_early.map(str::to_owned));
        }
        Ok(Outcome {
            latency,
            records,
            payload_bytes: records * load.record_bytes as u64,
            elapsed,
            engine: EngineWork::between(&before, &after),
            waited_for_room,
            segments_trimmed: keeper.segments_trimmed,
            ended_early,
        })
    })
}

/// Watches a log's size on disk, and trims.
struct DiskKeeper<'a> {
    log: &'a Log,
    dir: &'a Path,
    keep: Keep,
    segments_trimmed: u64,
}

impl DiskKeeper<'_> {
    /// Stays for `time`, or less when the run has to end; then it says why.
    fn watch(&mut self, time: Duration, phase: &AtomicU8) -> Option<String> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || phase.load(Ordering::Relaxed) == OVER {
                return None;
            }
            thread::sleep(left.min(match self.keep {
                Keep::TrimAbove(_) => LOOK_EVERY,
                Keep::All => LOOK_AT_ALL_EVERY,
            }));
            if interrupted() {
                return Some("interrupted".to_owned());
            }
            if let Some(reason) = self.look() {
                return Some(reason);
            }
        }
    }

    fn look(&mut self) -> Option<String> {
        let bytes = match self.keep {
            Keep::TrimAbove(_) => bytes_below(self.dir),
            // Of thousands of files, one would have to ask for each.
            Keep::All => {
                let stats = self.log.stats();
                let segments: usize = stats.shards.iter().map(|shard| shard.segments).sum();
                segments as u64 * stats.segment_bytes
            }
        };
        if matches!(self.keep, Keep::TrimAbove(limit) if bytes > limit) {
            match self.log.trim(0) {
                Ok(report) => self.segments_trimmed += report.segments,
                Err(error) => return Some(format!("trim: {error}")),
            }
        }
        (bytes > DISK_BYTES_MAX - DISK_BYTES_MARGIN)
            .then(|| format!("the bound of {} MiB on disk", DISK_BYTES_MAX >> 20))
    }
}

struct Produced {
    latency: Histogram<u64>,
    records: u64,
    waited_for_room: u64,
    ended_early: Option<&'static str>,
}

struct Producer<'a> {
    stream: &'a Stream,
    load: &'a Load,
    phase: &'a AtomicU8,
    records: Vec<Vec<u8>>,
    produced: Produced,
}

impl<'a> Producer<'a> {
    fn new(stream: &'a Stream, load: &'a Load, phase: &'a AtomicU8, number: usize) -> Self {
        let records = (0..load.batch_records.max(1))
            .map(|record| incompressible(load.record_bytes, (number * 1_000 + record) as u64))
            .collect();
        let produced = Produced {
            latency: new_histogram(),
            records: 0,
            waited_for_room: 0,
            ended_early: None,
        };
        Self { stream, load, phase, records, produced }
    }

    fn run(mut self) -> Result<Produced, String> {
        let wanted =
            if self.load.durability == Durability::Memory { 0 } else { self.load.outstanding };
        let mut in_flight: VecDeque<(Instant, Receipt)> = VecDeque::with_capacity(wanted);
        let timed = self.load.timed;
        // Without in-flight receipts the end of one append is the start of the next: one clock
        // reading for each.
        let mut now = Instant::now();
        let mut measuring = false;
        for number in 0_u64.. {
            match self.phase.load(Ordering::Relaxed) {
                OVER if number > 0 => break,
                MEASURING if !measuring => {
                    measuring = true;
                    self.produced.latency.reset();
                    self.produced.records = 0;
                }
                _ => {}
            }
            self.stamp(number);
            let Some(receipt) = self.append()? else { break };
            if wanted == 0 {
                // Acknowledged when the call returned: nobody waits for this receipt.
                let begun = now;
                if timed {
                    now = Instant::now();
                }
                self.acknowledged(now - begun);
                continue;
            }
            in_flight.push_back((now, receipt));
            if in_flight.len() >= wanted {
                if let Some((begun, receipt)) = in_flight.pop_front() {
                    wait(&receipt)?;
                    now = Instant::now();
                    self.acknowledged(now - begun);
                }
                // What the same flush has acknowledged is not made to wait for its turn.
                while let Some((begun, receipt)) = in_flight.front()
                    && receipt.is_acknowledged()
                {
                    let begun = *begun;
                    in_flight.pop_front();
                    self.acknowledged(now - begun);
                }
            }
            if wanted > 1 {
                now = Instant::now();
            }
        }
        for (_, receipt) in in_flight {
            wait(&receipt)?;
        }
        Ok(self.produced)
    }

    /// Makes records differ from one another without touching all of their bytes.
    fn stamp(&mut self, number: u64) {
        if let Some(front) = self.records[0].first_chunk_mut::<8>() {
            *front = number.to_le_bytes();
        }
    }

    fn acknowledged(&mut self, latency: Duration) {
        self.produced.records += self.records.len() as u64;
        if self.load.timed {
            let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
            self.produced.latency.saturating_record(ns);
        }
    }

    /// Appends; when the log is full, waits for room. `None` when the run is over instead.
    fn append(&mut self) -> Result<Option<Receipt>, String> {
        let durability = self.load.durability;
        let mut receipt = match &self.records[..] {
            [record] => self.stream.append_with(record, durability),
            records => self.stream.append_batch(records, durability),
        };
        let mut waited = false;
        loop {
            match receipt {
                Ok(receipt) => return Ok(Some(receipt)),
                Err(AppendError::Full { reason: FullReason::Memory }) => {
                    self.produced.waited_for_room += u64::from(!waited);
                    waited = true;
                }
                Err(AppendError::Full { reason: _ }) => {
                    self.produced.ended_early = Some("the disk is full");
                    self.phase.store(OVER, Ordering::Relaxed);
                    return Ok(None);
                }
                Err(error) => return Err(format!("append: {error}")),
            }
            if self.phase.load(Ordering::Relaxed) == OVER {
                return Ok(None);
            }
            let at_most = Duration::from_millis(100);
            receipt = match &self.records[..] {
                [record] => self.stream.append_within(record, durability, at_most),
                records => self.stream.append_batch_within(records, durability, at_most),
            };
        }
    }
}

fn wait(receipt: &Receipt) -> Result<(), String> {
    receipt
        .wait_timeout(ACKNOWLEDGED_WITHIN)
        .map(|_| ())
        .map_err(|error| format!("acknowledgement: {error}"))
}

/// Bytes that neither a file system nor a device can make smaller; the same for the same seed.
pub(crate) fn incompressible(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

/// `count` over `time`; 0 when no time has passed.
pub(crate) fn per_second(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { count as f64 / time.as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(durability: Durability) -> Load {
        Load {
            durability,
            record_bytes: 100,
            batch_records: 1,
            producers: 3,
            outstanding: 1,
            timed: true,
            keep: Keep::All,
            warm_up: Duration::from_millis(10),
            window: Duration::from_millis(100),
        }
    }

    fn run_in_scratch(load: &Load) -> (Log, tempfile::TempDir, Outcome) {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path(), SyncPolicy::EveryCommit, &Options::default()).unwrap();
        let outcome = run(&log, dir.path(), load).unwrap();
        (log, dir, outcome)
    }

    #[test]
    fn every_acknowledged_record_is_counted_and_timed_once() {
        for (durability, outstanding) in
            [(Durability::Synced, 1), (Durability::Synced, 16), (Durability::Memory, 1)]
        {
            let load = Load { outstanding, ..load(durability) };
            let (log, _dir, outcome) = run_in_scratch(&load);
            assert!(outcome.records > 0, "{durability:?}");
            assert_eq!(outcome.latency.len(), outcome.records, "{durability:?} {outstanding}");
            assert_eq!(outcome.payload_bytes, outcome.records * 100);
            assert_eq!(outcome.ended_early, None);
            log.flush().unwrap(); // or what was acknowledged in memory may not have its place yet
            let appended: u64 =
                (0..3).map(|n| log.stream(&format!("producer-{n}")).unwrap().next_offset().0).sum();
            assert!(appended >= outcome.records, "{appended} < {}", outcome.records);
        }
    }

    #[test]
    fn a_batch_counts_as_all_of_its_records_and_is_timed_once() {
        let load = Load { batch_records: 10, ..load(Durability::Synced) };
        let (_log, _dir, outcome) = run_in_scratch(&load);
        assert!(outcome.records > 0);
        assert_eq!(outcome.latency.len() * 10, outcome.records);
    }

    #[test]
    fn the_engine_s_work_is_that_of_the_window() {
        let (log, _dir, outcome) = run_in_scratch(&load(Durability::Synced));
        let total: u64 = log.stats().shards.iter().map(|shard| shard.flushes).sum();
        assert!(outcome.engine.flushes > 0);
        assert!(outcome.engine.flushes <= total);
        assert!(outcome.engine.device_bytes >= outcome.payload_bytes / 2);
    }

    #[test]
    fn records_larger_than_the_log_takes_are_an_error_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path(), SyncPolicy::EveryCommit, &Options::default()).unwrap();
        let load = Load { record_bytes: 64 << 20, ..load(Durability::Synced) };
        let error = run(&log, dir.path(), &load).err().unwrap();
        assert!(error.starts_with("append:"), "{error}");
    }

    #[test]
    fn payloads_are_repeatable_and_differ() {
        assert_eq!(incompressible(64, 1), incompressible(64, 1));
        assert_ne!(incompressible(64, 1), incompressible(64, 2));
        assert!(incompressible(0, 1).is_empty());
    }
}
