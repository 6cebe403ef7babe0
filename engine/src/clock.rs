//! The one place that reads clocks.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::shard::Time;

/// Reads the monotonic and the wall clock.
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now() }
    }

    pub(crate) fn now(&self) -> Time {
        Time { mono_ns: self.start.elapsed().as_nanos() as u64, wall_ns: wall_ns() }
    }
}

/// Nanoseconds since 1970; 0 if the clock stands before that.
pub(crate) fn wall_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
