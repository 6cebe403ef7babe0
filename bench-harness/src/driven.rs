//! A caller-driven shard, one append at a time, on the thread that also measures the floor.
//!
//! Nothing is pinned: floor and figure run on the same thread, one after the other, so whatever
//! the scheduler does with it concerns both.

use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ringlog::driven::{AnyDisk, DrivenLog, DrivenShard};
use ringlog::{Durability, Options, StreamId};

use crate::workload::incompressible;

/// Sealed segments are trimmed away each time that so many bytes have been appended.
const TRIM_EVERY_BYTES: usize = 256 << 20;

/// A shard, one stream of it, and the record that is appended again and again.
pub(crate) struct Driven {
    shard: DrivenShard<AnyDisk>,
    stream: StreamId,
    record: Vec<u8>,
    since_trim: usize,
}

impl Driven {
    /// Opens a new log of one shard in `dir`.
    ///
    /// # Errors
    /// Why it cannot be opened, in words.
    pub(crate) fn open(dir: &Path, options: Options, record_bytes: usize) -> Result<Self, String> {
        let log = DrivenLog::open(dir, options).map_err(|error| format!("open: {error}"))?;
        let seat = log.into_seats().into_iter().next().ok_or("a log without shards")?;
        let mut shard = seat.start().map_err(|error| format!("start: {error}"))?;
        let stream = shard.stream("s").map_err(|error| format!("stream: {error}"))?;
        Ok(Self { shard, stream, record: incompressible(record_bytes, 1), since_trim: 0 })
    }

    /// Appends and waits, one record after the other, for about `window`: the latency of each goes
    /// into `latency`, from before the append to its acknowledgement, in ns.
    ///
    /// # Errors
    /// What the shard refused, in words.
    pub(crate) fn run(
        &mut self,
        window: Duration,
        latency: &mut Histogram<u64>,
    ) -> Result<(), String> {
        let begun = Instant::now();
        while begun.elapsed() < window {
            let at = Instant::now();
            self.append()?;
            latency.saturating_record(u64::try_from(at.elapsed().as_nanos()).unwrap_or(u64::MAX));
            self.since_trim += self.record.len();
            if self.since_trim > TRIM_EVERY_BYTES {
                self.since_trim = 0;
                self.shard.trim(0, 0);
            }
        }
        Ok(())
    }

    fn append(&mut self) -> Result<(), String> {
        let appended = self
            .shard
            .append(self.stream, &self.record, Durability::Synced)
            .map_err(|error| format!("append: {error}"))?;
        while !self.shard.is_acknowledged(&appended) {
            if let Some(error) = self.shard.failure_of(&appended) {
                return Err(format!("acknowledge: {error}"));
            }
            self.shard.events();
            self.shard.wait(None); // the bare primitives have no limit of time either
        }
        Ok(())
    }

    /// Closes the log.
    ///
    /// # Errors
    /// Why it could not be closed, in words.
    pub(crate) fn close(self) -> Result<(), String> {
        self.shard.close().map_err(|error| format!("close: {error}"))
    }
}
