//! An open loop: arrivals come when they are due, whether what came before is done or not.
//!
//! A closed loop waits while an engine stalls, and so measures one slow append where a service would
//! have had thousands of slow requests (coordinated omission). Here each arrival has a moment at
//! which it is due, from a Poisson process with a seed; its latency begins then, not when the thread
//! got round to it. Invariant: every arrival that was due in the window is in the histogram, also
//! those that could not be appended any more.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::contender::{Contender, Producer, Refusal};
use crate::counters::Device;
use crate::environment::interrupted;
use crate::percentile::new_histogram;
use crate::workload::{DiskKeeper, Load, OVER, Outcome, Shared, incompressible, stamp};

/// Threads begin together, so long after they were asked to.
const BEGIN_IN: Duration = Duration::from_millis(20);
/// A wait that is shorter than this is not worth going to sleep for, where there is a processor for each
/// thread and one to spare for the engine.
const SPIN_BELOW: Duration = Duration::from_micros(5);
/// Elsewhere a thread sleeps at least so long, or it would take the processor from what it measures. What
/// is late by that counts, as any lateness does.
const NAP_MIN: Duration = Duration::from_micros(20);
/// An append that finds no room looks after the others so often.
const ROOM_WITHIN: Duration = Duration::from_millis(1);
/// How long after the window arrivals are still worked off.
const CATCH_UP: Duration = Duration::from_secs(10);

/// The moments at which one thread's arrivals are due, from the beginning on.
#[derive(Clone, Debug)]
pub struct Arrivals {
    state: u64,
    mean_ns: f64,
    at_ns: f64,
}

impl Arrivals {
    /// A Poisson process of `per_second` arrivals; the same for the same seed.
    pub fn new(per_second: f64, seed: u64) -> Self {
        Self { state: seed, mean_ns: 1e9 / per_second.max(1e-3), at_ns: 0.0 }
    }

    /// Of the thread of this number, of several that share the rate.
    pub fn of_thread(offered: &Offered, producers: usize, number: usize) -> Self {
        let each = offered.per_second / producers.max(1) as f64;
        Self::new(each, offered.seed.wrapping_add((number as u64 + 1) << 32))
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        // splitmix64
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        // Above 0 and up to 1.
        let uniform = ((mixed >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        self.at_ns -= uniform.ln() * self.mean_ns;
        Some(Duration::from_nanos(self.at_ns as u64))
    }
}

/// What is to arrive.
#[derive(Clone, Copy, Debug)]
pub struct Offered {
    /// Appends a second, on average.
    pub per_second: f64,
    /// Seed of the arrivals.
    pub seed: u64,
}

/// What came of it.
pub struct Arrived {
    /// As of a closed loop. Records are those that were due in the window and acknowledged, sooner or
    /// later.
    pub outcome: Outcome,
    /// Arrivals due in the window.
    pub due: u64,
    /// The moment that all arrivals are counted from.
    pub begun: Instant,
}

/// Offers appends to `contender`, whose files lie in `dir`, from `load.producers` threads. Those due
/// in the warm-up are appended and not counted.
///
/// # Errors
/// The first error that a producer met, in words.
pub fn run<C: Contender>(
    contender: &C,
    dir: &Path,
    load: &Load,
    offered: &Offered,
) -> Result<Arrived, String> {
    let facts = contender.facts();
    let producers: Vec<C::Producer> =
        (0..load.producers).map(|number| contender.producer(number)).collect::<Result<_, _>>()?;
    let shared = Shared::default();
    let device = Device::of(dir);
    let spins = thread::available_parallelism().is_ok_and(|cpus| cpus.get() > load.producers);
    let begun = Instant::now() + BEGIN_IN;
    thread::scope(|scope| {
        let mut threads = Vec::with_capacity(load.producers);
        for (number, producer) in producers.into_iter().enumerate() {
            let (shared, on_return) = (&shared, facts.acknowledged_on_return);
            let arrivals = Arrivals::of_thread(offered, load.producers, number);
            let thread = thread::Builder::new().spawn_scoped(scope, move || {
                let records = (0..load.batch_records.max(1)).map(|record| {
                    incompressible(load.record_bytes, (number * 1_000 + record) as u64)
                });
                let arriving = Arriving {
                    producer,
                    shared,
                    load,
                    on_return,
                    begun,
                    records: records.collect(),
                    spins,
                    in_flight: VecDeque::new(),
                    seen: Seen::default(),
                };
                let seen = arriving.run(arrivals);
                if seen.is_err() {
                    shared.phase.store(OVER, Ordering::Relaxed);
                }
                seen
            });
            threads.push(thread.map_err(|error| {
                shared.phase.store(OVER, Ordering::Relaxed);
                format!("start producer {number}: {error}")
            })?);
        }
        let mut keeper = DiskKeeper { contender, dir, load, trimmed: 0, appends_before: None };
        let until = |moment: Instant| moment.saturating_duration_since(Instant::now());
        let mut ended_early = keeper.watch(until(begun + load.warm_up), &shared);
        let (claimed, looked, at) = (contender.claims(), device.look(), Instant::now());
        if ended_early.is_none() {
            keeper.appends_before = Some(shared.appends.load(Ordering::Relaxed));
            ended_early = keeper.watch(until(begun + load.warm_up + load.window), &shared);
        }
        if ended_early.is_some() {
            shared.phase.store(OVER, Ordering::Relaxed);
        }
        let (counted, claims) = (device.look().since(&looked), contender.claims().since(&claimed));
        let elapsed = at.elapsed();

        let mut all = Seen::default();
        for thread in threads {
            let seen = thread.join().map_err(|_| "a producer panicked".to_owned())??;
            all.latency.add(&seen.latency).map_err(|error| format!("merge: {error}"))?;
            all.acknowledged += seen.acknowledged;
            all.lost += seen.lost;
            all.in_flight_max += seen.in_flight_max;
            all.waited_for_room += seen.waited_for_room;
            all.disk_full |= seen.disk_full;
        }
        if all.disk_full {
            ended_early = ended_early.or(Some("the disk is full".to_owned()));
        } else if all.lost > 0 && ended_early.is_none() {
            ended_early = Some(format!("{} arrivals were never appended", all.lost));
        }
        let records = all.acknowledged * load.batch_records.max(1) as u64;
        let outcome = Outcome {
            facts,
            latency: all.latency,
            records,
            payload_bytes: records * load.record_bytes as u64,
            in_flight_max: all.in_flight_max.max(1),
            elapsed,
            claims,
            counted,
            waited_for_room: all.waited_for_room,
            trimmed: keeper.trimmed,
            ended_early,
        };
        Ok(Arrived { outcome, due: all.acknowledged + all.lost, begun })
    })
}

/// What one thread saw.
struct Seen {
    latency: Histogram<u64>,
    acknowledged: u64,
    /// Due in the window, and never appended.
    lost: u64,
    in_flight_max: u64,
    waited_for_room: u64,
    disk_full: bool,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            latency: new_histogram(),
            acknowledged: 0,
            lost: 0,
            in_flight_max: 0,
            waited_for_room: 0,
            disk_full: false,
        }
    }
}

struct Arriving<'a, P: Producer> {
    producer: P,
    shared: &'a Shared,
    load: &'a Load,
    on_return: bool,
    begun: Instant,
    records: Vec<Vec<u8>>,
    /// Whether there is a processor for it alone.
    spins: bool,
    /// Oldest first, each with when it was due.
    in_flight: VecDeque<(Duration, P::Ticket)>,
    seen: Seen,
}

impl<P: Producer> Arriving<'_, P> {
    fn run(mut self, arrivals: Arrivals) -> Result<Seen, String> {
        // Without it the kernel lets a sleeper lie some 50 µs longer. Where it is refused, so it is.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        let end = self.load.warm_up + self.load.window;
        let mut over = false;
        for (number, due) in (0_u64..).zip(arrivals) {
            if due >= end {
                break;
            }
            over = over || !self.wait_until_due(due)? || self.now() > end + CATCH_UP;
            if over || !self.append(number, due)? {
                over = true;
                // Nobody would wait for what an interrupt has kept from being due.
                if due > self.now() {
                    break;
                }
                self.count(due, false);
            }
        }
        while let Some((due, ticket)) = self.in_flight.pop_front() {
            self.producer.wait(ticket)?;
            self.count(due, true);
        }
        Ok(self.seen)
    }

    fn now(&self) -> Duration {
        Instant::now().saturating_duration_since(self.begun)
    }

    /// Takes acknowledgements until the moment has come; `false` when the run is over before.
    fn wait_until_due(&mut self, due: Duration) -> Result<bool, String> {
        loop {
            self.take_acknowledged();
            if self.shared.phase.load(Ordering::Relaxed) == OVER || interrupted() {
                return Ok(false);
            }
            let left = (self.begun + due).saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(true);
            }
            if self.spins && left < SPIN_BELOW {
                std::hint::spin_loop();
                continue;
            }
            let nap_min = if self.spins { Duration::ZERO } else { NAP_MIN };
            // An interrupt is not to wait for an arrival in the far future.
            let left = left.max(nap_min).min(Duration::from_millis(50));
            match self.in_flight.front() {
                Some((_, ticket)) => {
                    self.producer.wait_within(ticket, left)?;
                }
                None => thread::sleep(left),
            }
        }
    }

    /// Appends what is due; `false` when that cannot be any more.
    fn append(&mut self, number: u64, due: Duration) -> Result<bool, String> {
        stamp(&mut self.records, number);
        let mut at_most = Duration::ZERO;
        loop {
            match self.producer.submit(&self.records, at_most) {
                Ok(_) if self.on_return => {
                    self.seen.in_flight_max = 1;
                    self.count(due, true);
                    return Ok(true);
                }
                Ok(ticket) => {
                    self.in_flight.push_back((due, ticket));
                    let in_flight = self.in_flight.len() as u64;
                    self.seen.in_flight_max = self.seen.in_flight_max.max(in_flight);
                    return Ok(true);
                }
                Err(Refusal::NoRoom) => {
                    self.seen.waited_for_room += u64::from(at_most.is_zero());
                    at_most = ROOM_WITHIN;
                    self.take_acknowledged();
                }
                Err(Refusal::DiskFull) => {
                    self.seen.disk_full = true;
                    self.shared.phase.store(OVER, Ordering::Relaxed);
                    return Ok(false);
                }
                Err(Refusal::Failed(error)) => return Err(error),
            }
            if self.shared.phase.load(Ordering::Relaxed) == OVER {
                return Ok(false);
            }
        }
    }

    fn take_acknowledged(&mut self) {
        while let Some((due, ticket)) = self.in_flight.front()
            && self.producer.is_acknowledged(ticket)
        {
            let due = *due;
            self.in_flight.pop_front();
            self.count(due, true);
        }
    }

    /// One that was due then is acknowledged now, or given up.
    fn count(&mut self, due: Duration, acknowledged: bool) {
        self.shared.appends.fetch_add(1, Ordering::Relaxed);
        if due < self.load.warm_up {
            return;
        }
        let ns = self.now().saturating_sub(due).as_nanos();
        self.seen.latency.saturating_record(u64::try_from(ns).unwrap_or(u64::MAX));
        if acknowledged {
            self.seen.acknowledged += 1;
        } else {
            self.seen.lost += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_a_poisson_process_and_repeatable() {
        let arrivals = || Arrivals::new(1e6, 7);
        let some: Vec<Duration> = arrivals().take(200_000).collect();
        assert_eq!(some, arrivals().take(200_000).collect::<Vec<_>>());
        assert!(some.is_sorted());
        let gaps: Vec<f64> =
            some.windows(2).map(|pair| (pair[1] - pair[0]).as_nanos() as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        assert!((mean - 1000.0).abs() < 20.0, "{mean}");
        // Of an exponential distribution 1/e lie beyond the mean, 1/e² beyond twice that.
        let beyond = |ns: f64| gaps.iter().filter(|gap| **gap > ns).count() as f64;
        let part = beyond(mean) / gaps.len() as f64;
        assert!((part - 0.368).abs() < 0.01, "{part}");
        let part = beyond(2.0 * mean) / gaps.len() as f64;
        assert!((part - 0.135).abs() < 0.01, "{part}");
        assert_ne!(Arrivals::new(1e6, 8).next(), Arrivals::new(1e6, 7).next());
    }
}
