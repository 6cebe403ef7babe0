//! Engines that lie or stall: what the harness must see.

#![expect(clippy::unwrap_used, reason = "a failure is the test's failure")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringlog_bench::contender::{Claims, Contender, Facts, Producer, Refusal};
use ringlog_bench::counters::{Cover, Verdict};
use ringlog_bench::measurement::Class;
use ringlog_bench::open_loop::{self, Arrivals, Offered};
use ringlog_bench::workload::{self, Keep, Load};

const LOAD: Load = Load {
    record_bytes: 256,
    batch_records: 1,
    producers: 1,
    outstanding: 1,
    timed: true,
    keep: Keep::TrimAbove(u64::MAX),
    warm_up: Duration::from_millis(10),
    window: Duration::from_millis(300),
    payload_bytes_max: None,
};

/// A file that is written to, and flushed every so many appends while each is said to be.
struct Liar {
    file: Arc<File>,
    flush_every: u64,
}

impl Liar {
    fn new(dir: &Path, flush_every: u64) -> Self {
        let file = File::options().create(true).truncate(true).write(true).open(dir.join("log"));
        Self { file: Arc::new(file.unwrap()), flush_every }
    }
}

struct LyingProducer {
    file: Arc<File>,
    flush_every: u64,
    appends: u64,
}

impl Contender for Liar {
    type Producer = LyingProducer;

    fn facts(&self) -> Facts {
        Facts::new("liar", None, "synced", Class::Media)
    }

    fn producer(&self, _number: usize) -> Result<LyingProducer, String> {
        let file = Arc::clone(&self.file);
        Ok(LyingProducer { file, flush_every: self.flush_every, appends: 0 })
    }

    fn claims(&self) -> Claims {
        Claims { flushes: Some(1 << 40), ..Claims::default() }
    }
}

impl Producer for LyingProducer {
    type Ticket = ();

    fn submit(&mut self, records: &[Vec<u8>], _at_most: Duration) -> Result<(), Refusal> {
        self.file.write_all_at(&records[0], self.appends % 64 * 4096).unwrap();
        self.appends += 1;
        if self.appends.is_multiple_of(self.flush_every) {
            self.file.sync_data().unwrap();
        }
        Ok(())
    }

    fn wait(&mut self, (): ()) -> Result<(), String> {
        Ok(())
    }
}

/// The verdict on one that flushes every so many appends, and what the device counted.
fn judge(flush_every: u64) -> (Verdict, Option<u64>) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let liar = Liar::new(dir.path(), flush_every);
    let outcome = workload::run(&liar, dir.path(), &LOAD).unwrap();
    assert!(outcome.records > 0);
    let (class, appends) = (outcome.facts.class, outcome.records);
    let counted = outcome.counted;
    let verdict = Verdict::of(class, appends, outcome.in_flight_max, &counted, &Cover::Flushes);
    (verdict, counted.flushes)
}

#[test]
fn an_engine_that_acknowledges_without_flushing_is_disqualified() {
    let (honest, flushes) = judge(1);
    if flushes.is_none_or(|flushes| flushes == 0) {
        eprintln!(
            "SKIPPED an_engine_that_acknowledges_without_flushing_is_disqualified: no block device \
             counts flushes below {}",
            env!("CARGO_TARGET_TMPDIR")
        );
        return;
    }
    assert_eq!(honest, Verdict::Passed);
    // Whatever else flushes on this device can only help the liar: many appends to each flush.
    let Verdict::Disqualified(why) = judge(1 << 16).0 else {
        panic!("a lie has passed");
    };
    assert!(why.contains("acknowledged without flush"), "{why}");
}

#[derive(Clone, Copy, Debug)]
struct Stall {
    from: Instant,
    to: Instant,
}

/// An engine in memory that stops once.
struct Stalling {
    stall: Duration,
    /// At this append.
    at: u64,
    seen: Arc<Mutex<Option<Stall>>>,
}

struct StallingProducer {
    stall: Duration,
    left: u64,
    seen: Arc<Mutex<Option<Stall>>>,
}

impl Contender for Stalling {
    type Producer = StallingProducer;

    fn facts(&self) -> Facts {
        Facts::new("stalling", None, "memory", Class::Memory)
    }

    fn producer(&self, _number: usize) -> Result<StallingProducer, String> {
        Ok(StallingProducer { stall: self.stall, left: self.at, seen: Arc::clone(&self.seen) })
    }
}

impl Producer for StallingProducer {
    type Ticket = ();

    fn submit(&mut self, _records: &[Vec<u8>], _at_most: Duration) -> Result<(), Refusal> {
        self.left = self.left.wrapping_sub(1);
        if self.left == 0 {
            let from = Instant::now();
            // What is measured is this very wait.
            std::thread::sleep(self.stall);
            *self.seen.lock().unwrap() = Some(Stall { from, to: Instant::now() });
        }
        Ok(())
    }

    fn wait(&mut self, (): ()) -> Result<(), String> {
        Ok(())
    }
}

#[test]
fn a_stall_is_in_the_latency_of_every_arrival_that_was_due_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let seen = Arc::new(Mutex::new(None));
    let stall = Duration::from_millis(200);
    let stalling = Stalling { stall, at: 3_000, seen: Arc::clone(&seen) };
    let load = Load { window: Duration::from_millis(1_500), warm_up: Duration::ZERO, ..LOAD };
    let offered = Offered { per_second: 20_000.0, seed: 42 };
    let arrived = open_loop::run(&stalling, dir.path(), &load, &offered).unwrap();
    let stall: Stall = seen.lock().unwrap().unwrap();

    // The schedule is known: so is what each of those arrivals had to wait for at least.
    let due: Vec<Instant> = Arrivals::of_thread(&offered, 1, 0)
        .take_while(|due| *due < load.window)
        .map(|due| arrived.begun + due)
        .collect();
    assert_eq!(arrived.due, due.len() as u64);
    assert_eq!(arrived.outcome.latency.len(), due.len() as u64, "every arrival is counted");
    for at_least in [50, 100, 150] {
        let at_least = Duration::from_millis(at_least);
        let known =
            due.iter().filter(|due| **due >= stall.from && **due + at_least <= stall.to).count();
        assert!(known > 100, "the stall met the arrivals: {known}");
        let ns = u64::try_from(at_least.as_nanos()).unwrap();
        // The histogram keeps three digits: what is equal may lie a thousandth lower.
        let latency = &arrived.outcome.latency;
        let measured = latency.len() - latency.count_between(0, ns - ns / 500);
        assert!(measured >= known as u64, "{measured} of {known} waited for {at_least:?}");
    }
}

#[test]
fn a_closed_loop_hides_the_same_stall() {
    let dir = tempfile::tempdir().unwrap();
    let seen = Arc::new(Mutex::new(None));
    let stalling =
        Stalling { stall: Duration::from_millis(200), at: 300_000, seen: Arc::clone(&seen) };
    let load = Load { window: Duration::from_secs(2), warm_up: Duration::ZERO, ..LOAD };
    let outcome = workload::run(&stalling, dir.path(), &load).unwrap();
    if seen.lock().unwrap().is_none() {
        eprintln!("SKIPPED a_closed_loop_hides_the_same_stall: too slow to come to the stall");
        return;
    }
    let slow = outcome.latency.len() - outcome.latency.count_between(0, 190_000_000);
    assert!(slow <= outcome.latency.len() / 1000, "{slow} of {}", outcome.latency.len());
}
