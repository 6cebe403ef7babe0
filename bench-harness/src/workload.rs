//! A closed loop of producers on one contender, measured.
//!
//! Each producer is a thread of its own: it appends and waits, or keeps a number of appends in
//! flight. Latency is taken per append, from before the call to the acknowledgement, into a
//! histogram per thread. Appends go on before and after the measured window, so that it sees
//! neither the start nor the end; what is acknowledged inside the window counts.
//!
//! The files are held within [`DISK_BYTES_MAX`] by trimming while running, which also makes ringlog
//! recycle segments; when trimming does not help, the run ends early and says so.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ringlog::{Log, Options, SyncPolicy};

use crate::contender::{Claims, Contender, Facts, Producer, Refusal};
use crate::counters::{Counted, Device};
use crate::environment::{bytes_below, interrupted};
use crate::percentile::new_histogram;

/// Most bytes of a contender on disk.
pub const DISK_BYTES_MAX: u64 = 2 << 30;
/// A run ends when it comes this near to the bound: what a fast disk writes between two looks.
const DISK_BYTES_MARGIN: u64 = 256 << 20;
/// How often the disk is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The same where all of it is kept.
const LOOK_AT_ALL_EVERY: Duration = Duration::from_millis(250);
/// How long an append that found no room waits for it before it looks whether the run is over.
const ROOM_WITHIN: Duration = Duration::from_millis(100);

const WARMING: u8 = 0;
const MEASURING: u8 = 1;
pub(crate) const OVER: u8 = 2;

/// How the files are held within bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// What can be freed is, at each look while there are more bytes than this.
    TrimAbove(u64),
    /// All, until the run has to end.
    All,
}

/// What the producers do.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Payload of one record in bytes.
    pub record_bytes: usize,
    /// Records of one append; above 1, they go in as an atomic batch, whose latency is taken once.
    pub batch_records: usize,
    /// Number of threads.
    pub producers: usize,
    /// Appends that each of them keeps in flight; 1 is a blocked producer. Of no meaning where an
    /// append returns with its acknowledgement.
    pub outstanding: usize,
    /// Whether the latency of each append is taken. Without it a clock is not read.
    pub timed: bool,
    /// What is done about growth.
    pub keep: Keep,
    /// Time before the window.
    pub warm_up: Duration,
    /// Length of the window.
    pub window: Duration,
    /// The run ends when about so many bytes of payload were acknowledged in the window.
    pub payload_bytes_max: Option<u64>,
}

/// What came of a run.
pub struct Outcome {
    /// What was measured, after the run.
    pub facts: Facts,
    /// Of all producers together, in ns.
    pub latency: Histogram<u64>,
    /// Records acknowledged inside the window.
    pub records: u64,
    /// Their payload in bytes.
    pub payload_bytes: u64,
    /// Appends that were never more in flight at one time than this.
    pub in_flight_max: u64,
    /// Length of the window.
    pub elapsed: Duration,
    /// What the contender says that it did inside the window.
    pub claims: Claims,
    /// What happened inside the window.
    pub counted: Counted,
    /// Appends that found no room and waited for it, warm-up included.
    pub waited_for_room: u64,
    /// What was freed while running.
    pub trimmed: u64,
    /// Why the run ended before its time, where it did.
    pub ended_early: Option<String>,
}

impl Outcome {
    /// Of work that was not a loop of appends.
    pub(crate) fn of(facts: Facts, records: u64, payload_bytes: u64, elapsed: Duration) -> Self {
        Self {
            facts,
            latency: new_histogram(),
            records,
            payload_bytes,
            in_flight_max: 1,
            elapsed,
            claims: Claims::default(),
            counted: Counted::default(),
            waited_for_room: 0,
            trimmed: 0,
            ended_early: None,
        }
    }

    /// Records acknowledged each second.
    pub fn records_per_second(&self) -> f64 {
        per_second(self.records, self.elapsed)
    }

    /// Payload bytes acknowledged each second.
    pub fn payload_per_second(&self) -> f64 {
        per_second(self.payload_bytes, self.elapsed)
    }
}

/// Opens a new log in `dir` with the harness's choices on top of the defaults.
///
/// # Errors
/// Why it cannot be opened, in words.
pub(crate) fn open(dir: &Path, sync: SyncPolicy, options: &Options) -> Result<Log, String> {
    Log::open(dir, Options { sync, ..options.clone() }).map_err(|error| format!("open: {error}"))
}

/// Runs `load` on `contender`, whose files lie in `dir`.
///
/// # Errors
/// The first error that a producer met, in words; what it had measured is lost with it.
pub fn run<C: Contender>(contender: &C, dir: &Path, load: &Load) -> Result<Outcome, String> {
    let facts = contender.facts();
    let in_flight = if facts.acknowledged_on_return { 0 } else { load.outstanding };
    let producers = (0..load.producers)
        .map(|number| contender.producer(number))
        .collect::<Result<Vec<_>, _>>()?;
    let shared = Shared::default();
    let device = Device::of(dir);
    thread::scope(|scope| {
        let mut threads = Vec::with_capacity(load.producers);
        for (number, producer) in producers.into_iter().enumerate() {
            let shared = &shared;
            let producing = Producing::new(producer, load, in_flight, shared, number);
            let thread = thread::Builder::new().spawn_scoped(scope, move || {
                shared.started.fetch_add(1, Ordering::Relaxed);
                let produced = producing.run();
                if produced.is_err() {
                    shared.phase.store(OVER, Ordering::Relaxed);
                }
                produced
            });
            threads.push(thread.map_err(|error| {
                shared.phase.store(OVER, Ordering::Relaxed);
                format!("start producer {number}: {error}")
            })?);
        }
        while shared.started.load(Ordering::Relaxed) < load.producers {
            thread::sleep(Duration::from_millis(1));
        }

        let mut keeper = DiskKeeper { contender, dir, load, trimmed: 0, appends_before: None };
        let mut ended_early = keeper.watch(load.warm_up, &shared);
        let (claimed, looked) = (contender.claims(), device.look());
        let begun = Instant::now();
        if ended_early.is_none() && shared.phase.load(Ordering::Relaxed) == WARMING {
            keeper.appends_before = Some(shared.appends.load(Ordering::Relaxed));
            shared.phase.store(MEASURING, Ordering::Relaxed);
            ended_early = keeper.watch(load.window, &shared);
        }
        shared.phase.store(OVER, Ordering::Relaxed);
        let elapsed = begun.elapsed();
        let (counted, claims) = (device.look().since(&looked), contender.claims().since(&claimed));

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
            facts,
            latency,
            records,
            payload_bytes: records * load.record_bytes as u64,
            in_flight_max: (load.producers * in_flight.max(1)) as u64,
            elapsed,
            claims,
            counted,
            waited_for_room,
            trimmed: keeper.trimmed,
            ended_early,
        })
    })
}

/// What all threads of a run see.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) phase: AtomicU8,
    pub(crate) started: AtomicUsize,
    /// Appends acknowledged, a little behind.
    pub(crate) appends: AtomicU64,
}

/// Watches a contender's size on disk, and trims.
pub(crate) struct DiskKeeper<'a, C> {
    pub(crate) contender: &'a C,
    pub(crate) dir: &'a Path,
    pub(crate) load: &'a Load,
    pub(crate) trimmed: u64,
    /// Appends before the window; `None` until it begins, and with it the bound on bytes.
    pub(crate) appends_before: Option<u64>,
}

impl<C: Contender> DiskKeeper<'_, C> {
    /// Stays for `time`, or less when the run has to end; then it says why.
    pub(crate) fn watch(&mut self, time: Duration, shared: &Shared) -> Option<String> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || shared.phase.load(Ordering::Relaxed) == OVER {
                return None;
            }
            thread::sleep(left.min(match self.load.keep {
                Keep::TrimAbove(_) => LOOK_EVERY,
                Keep::All => LOOK_AT_ALL_EVERY,
            }));
            if interrupted() {
                return Some("interrupted".to_owned());
            }
            if let Some(reason) = self.look(shared) {
                return Some(reason);
            }
        }
    }

    fn look(&mut self, shared: &Shared) -> Option<String> {
        let each = (self.load.record_bytes * self.load.batch_records.max(1)) as u64;
        let appends = shared.appends.load(Ordering::Relaxed);
        let payload = self.appends_before.map(|before| (appends - before).saturating_mul(each));
        if payload.zip(self.load.payload_bytes_max).is_some_and(|(payload, most)| payload >= most) {
            return Some("so many bytes were allowed".to_owned());
        }
        let bytes = match self.load.keep {
            Keep::TrimAbove(_) => bytes_below(self.dir),
            // Of thousands of files, one would have to ask for each.
            Keep::All => self.contender.bytes_on_disk().unwrap_or_else(|| bytes_below(self.dir)),
        };
        if matches!(self.load.keep, Keep::TrimAbove(limit) if bytes > limit) {
            match self.contender.trim() {
                Ok(freed) => self.trimmed += freed,
                Err(error) => return Some(error),
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

/// Appends that are acknowledged before the others are told: few enough for a bound on bytes.
const TELL_EVERY: u64 = 64;

struct Producing<'a, P> {
    producer: P,
    load: &'a Load,
    in_flight: usize,
    shared: &'a Shared,
    records: Vec<Vec<u8>>,
    untold: u64,
    produced: Produced,
}

impl<'a, P: Producer> Producing<'a, P> {
    fn new(
        producer: P,
        load: &'a Load,
        in_flight: usize,
        shared: &'a Shared,
        number: usize,
    ) -> Self {
        let records = (0..load.batch_records.max(1))
            .map(|record| incompressible(load.record_bytes, (number * 1_000 + record) as u64))
            .collect();
        let produced = Produced {
            latency: new_histogram(),
            records: 0,
            waited_for_room: 0,
            ended_early: None,
        };
        Self { producer, load, in_flight, shared, records, untold: 0, produced }
    }

    fn run(mut self) -> Result<Produced, String> {
        let wanted = self.in_flight;
        let mut in_flight: VecDeque<(Instant, P::Ticket)> = VecDeque::with_capacity(wanted);
        let timed = self.load.timed;
        // Without appends in flight the end of one is the start of the next: one clock reading for
        // each.
        let mut now = Instant::now();
        let mut measuring = false;
        for number in 0_u64.. {
            match self.shared.phase.load(Ordering::Relaxed) {
                OVER if number > 0 => break,
                MEASURING if !measuring => {
                    measuring = true;
                    self.produced.latency.reset();
                    self.produced.records = 0;
                }
                _ => {}
            }
            stamp(&mut self.records, number);
            let Some(ticket) = self.append()? else { break };
            if wanted == 0 {
                // Acknowledged when the call returned: nobody waits for this one.
                let begun = now;
                if timed {
                    now = Instant::now();
                }
                self.acknowledged(now - begun);
                continue;
            }
            in_flight.push_back((now, ticket));
            if in_flight.len() >= wanted {
                if let Some((begun, ticket)) = in_flight.pop_front() {
                    self.producer.wait(ticket)?;
                    if timed {
                        now = Instant::now();
                    }
                    self.acknowledged(now - begun);
                }
                // What the same flush has acknowledged is not made to wait for its turn.
                while let Some((begun, ticket)) = in_flight.front()
                    && self.producer.is_acknowledged(ticket)
                {
                    let begun = *begun;
                    in_flight.pop_front();
                    self.acknowledged(now - begun);
                }
            }
            if wanted > 1 && timed {
                now = Instant::now();
            }
        }
        for (_, ticket) in in_flight {
            self.producer.wait(ticket)?;
        }
        Ok(self.produced)
    }

    fn acknowledged(&mut self, latency: Duration) {
        self.produced.records += self.records.len() as u64;
        self.untold += 1;
        if self.untold == TELL_EVERY {
            self.shared.appends.fetch_add(self.untold, Ordering::Relaxed);
            self.untold = 0;
        }
        if self.load.timed {
            let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
            self.produced.latency.saturating_record(ns);
        }
    }

    /// Appends; where there is no room, waits for it. `None` when the run is over instead.
    fn append(&mut self) -> Result<Option<P::Ticket>, String> {
        let mut at_most = Duration::ZERO;
        loop {
            match self.producer.submit(&self.records, at_most) {
                Ok(ticket) => return Ok(Some(ticket)),
                Err(Refusal::NoRoom) => {
                    self.produced.waited_for_room += u64::from(at_most.is_zero());
                    at_most = ROOM_WITHIN;
                }
                Err(Refusal::DiskFull) => {
                    self.produced.ended_early = Some("the disk is full");
                    self.shared.phase.store(OVER, Ordering::Relaxed);
                    return Ok(None);
                }
                Err(Refusal::Failed(error)) => return Err(error),
            }
            if self.shared.phase.load(Ordering::Relaxed) == OVER {
                return Ok(None);
            }
        }
    }
}

/// Makes records differ from one another without touching all of their bytes.
pub(crate) fn stamp(records: &mut [Vec<u8>], number: u64) {
    if let Some(front) = records[0].first_chunk_mut::<8>() {
        *front = number.to_le_bytes();
    }
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
    use crate::contender::Ringlog;
    use ringlog::Durability;

    fn load() -> Load {
        Load {
            record_bytes: 100,
            batch_records: 1,
            producers: 3,
            outstanding: 1,
            timed: true,
            keep: Keep::All,
            warm_up: Duration::from_millis(10),
            window: Duration::from_millis(100),
            payload_bytes_max: None,
        }
    }

    /// In a window that is long enough for many flushes, also on a busy disk.
    fn run_in_scratch(durability: Durability, load: &Load) -> (Log, tempfile::TempDir, Outcome) {
        let mut window = load.window;
        loop {
            let dir = tempfile::tempdir().unwrap();
            let log = open(dir.path(), SyncPolicy::EveryCommit, &Options::default()).unwrap();
            let load = Load { window, ..*load };
            let outcome = run(&Ringlog::new(log.clone(), durability), dir.path(), &load).unwrap();
            if outcome.records > 100 || window > Duration::from_secs(60) {
                return (log, dir, outcome);
            }
            window *= 4;
        }
    }

    #[test]
    fn every_acknowledged_record_is_counted_and_timed_once() {
        for (durability, outstanding) in
            [(Durability::Synced, 1), (Durability::Synced, 16), (Durability::Memory, 1)]
        {
            let load = Load { outstanding, ..load() };
            let (log, _dir, outcome) = run_in_scratch(durability, &load);
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
        let load = Load { batch_records: 10, ..load() };
        let (_log, _dir, outcome) = run_in_scratch(Durability::Synced, &load);
        assert!(outcome.records > 0);
        assert_eq!(outcome.latency.len() * 10, outcome.records);
    }

    #[test]
    fn the_engine_s_work_is_that_of_the_window() {
        let (log, _dir, outcome) = run_in_scratch(Durability::Synced, &load());
        let total: u64 = log.stats().shards.iter().map(|shard| shard.flushes).sum();
        let flushes = outcome.claims.flushes.unwrap();
        assert!(flushes > 0 && flushes <= total, "{flushes} of {total}");
        assert!(outcome.claims.device_bytes.unwrap() >= outcome.payload_bytes / 2);
        assert_eq!(outcome.claims.flush_latency.len(), flushes);
    }

    #[test]
    fn records_larger_than_the_log_takes_are_an_error_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path(), SyncPolicy::EveryCommit, &Options::default()).unwrap();
        let load = Load { record_bytes: 64 << 20, ..load() };
        let log = Ringlog::new(log, Durability::Synced);
        let error = run(&log, dir.path(), &load).err().unwrap();
        assert!(error.starts_with("append:"), "{error}");
    }

    #[test]
    fn a_run_ends_when_it_has_appended_what_it_may() {
        let load = Load {
            payload_bytes_max: Some(50_000),
            window: Duration::from_secs(600),
            keep: Keep::TrimAbove(u64::MAX),
            ..load()
        };
        let (_log, _dir, outcome) = run_in_scratch(Durability::Memory, &load);
        assert_eq!(outcome.ended_early.as_deref(), Some("so many bytes were allowed"));
    }

    #[test]
    fn payloads_are_repeatable_and_differ() {
        assert_eq!(incompressible(64, 1), incompressible(64, 1));
        assert_ne!(incompressible(64, 1), incompressible(64, 2));
        assert!(incompressible(0, 1).is_empty());
    }
}
