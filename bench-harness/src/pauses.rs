//! What a machine takes from any program that runs on it: moments in which a busy thread does not get on.
//!
//! A hypervisor that runs somebody else, an interrupt, another process: whatever the program does, it
//! does nothing then. So threads do nothing but look at the clock, and what lies between two looks is a
//! pause. No latency on this machine can have a better tail than the pauses have. (The idea is that of
//! jHiccup, by Gil Tene.)

use std::thread;
use std::time::{Duration, Instant};

/// Shorter ones are not kept: a look at the clock takes some tens of nanoseconds.
const PAUSE_MIN: Duration = Duration::from_micros(2);
/// Pauses kept of one thread: a bound on memory.
const PAUSES_MAX: usize = 1 << 20;

/// The pauses of all threads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pauses {
    /// In nanoseconds.
    pauses_ns: Vec<u64>,
    /// How long was looked, summed over the threads, in nanoseconds.
    looked_ns: u64,
}

impl Pauses {
    /// Those of `threads` threads that look at the clock for about `time`.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub(crate) fn measure(threads: usize, time: Duration) -> Result<Self, String> {
        thread::scope(|scope| {
            let all: Result<Vec<_>, _> = (0..threads.max(1))
                .map(|_| thread::Builder::new().spawn_scoped(scope, || Self::look(time)))
                .collect();
            let all = all.map_err(|error| format!("pauses, start a thread: {error}"))?;
            all.into_iter().try_fold(Self::default(), |mut sum, thread| {
                let one = thread.join().map_err(|_| "pauses: a thread panicked".to_owned())?;
                sum.pauses_ns.extend(one.pauses_ns);
                sum.looked_ns += one.looked_ns;
                Ok(sum)
            })
        })
    }

    fn look(time: Duration) -> Self {
        let begun = Instant::now();
        let mut pauses_ns = Vec::new();
        let mut last = begun;
        loop {
            let now = Instant::now();
            let between = now - last;
            if between >= PAUSE_MIN && pauses_ns.len() < PAUSES_MAX {
                pauses_ns.push(between.as_nanos() as u64);
            }
            last = now;
            if now - begun >= time {
                return Self { pauses_ns, looked_ns: (now - begun).as_nanos() as u64 };
            }
        }
    }

    /// What `part` of all arrivals (0 to 1) do not wait longer than, in nanoseconds: arrivals that come at
    /// any moment alike, and wait until the thread is there.
    pub(crate) fn wait_ns(&self, part: f64) -> u64 {
        // In a pause of g, arrivals in the first g - x wait longer than x.
        let allowed = (1.0 - part) * self.looked_ns as f64;
        let waits_longer = |than: u64| -> f64 {
            self.pauses_ns.iter().map(|pause| pause.saturating_sub(than) as f64).sum()
        };
        let (mut low, mut high) = (0, self.pauses_ns.iter().copied().max().unwrap_or(0));
        while low < high {
            let middle = low + (high - low) / 2;
            match waits_longer(middle) <= allowed {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against arrivals one by one, every nanosecond.
    #[test]
    fn waits_are_those_of_arrivals_at_any_moment() {
        let pauses = Pauses { pauses_ns: vec![300, 1_000, 100, 400], looked_ns: 20_000 };
        let mut waits: Vec<u64> = pauses
            .pauses_ns
            .iter()
            .flat_map(|pause| (0..*pause).map(move |at| pause - at))
            .collect();
        waits.resize(20_000, 0);
        waits.sort_unstable();
        for part in [0.5, 0.91, 0.95, 0.99, 0.999] {
            let expected = waits[(20_000.0 * part) as usize - 1];
            let found = pauses.wait_ns(part);
            assert!(found.abs_diff(expected) <= 1, "{part}: {found}, not {expected}");
        }
        assert_eq!(pauses.wait_ns(1.0), 1_000);
        assert_eq!(Pauses::default().wait_ns(0.999), 0);
    }

    #[test]
    fn each_thread_looks_for_the_whole_time() {
        let time = Duration::from_millis(20);
        let pauses = Pauses::measure(2, time).unwrap();
        assert!(pauses.looked_ns >= 2 * time.as_nanos() as u64);
        assert!(pauses.pauses_ns.iter().sum::<u64>() <= pauses.looked_ns);
    }
}
